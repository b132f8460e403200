//! The minutes that led to a rollback are kept with its evidence: windows forget them within a quarter of an hour, and
//! whoever asks next week why traffic went back wants to see them.

use std::sync::Mutex;

use super::tick::lock;
use super::wall_ms;
use crate::control::View;
use crate::model::{Change, ChangeRequest, Scope};
use crate::telemetry::{BothTimes, Windows};

/// Adds `series` to the evidence of a rollback: requests and failures of both versions by ten seconds, as this proxy counted
/// them. Other changes stay as they are.
pub(super) fn keep(request: &mut ChangeRequest, view: &View, windows: &Mutex<Windows>, now_ms: u64) {
    let Change::Rollback { scope, canary: Some(canary), .. } = &request.change else { return };
    let Some(route) = view.routes.service(request.service.as_str()) else { return };
    let tenant = match scope {
        Scope::Tenant(tenant) => Some(tenant),
        Scope::Service | Scope::Group(_) => None,
    };
    let baseline = &route.baseline().name;
    let now = BothTimes { now_ms, wall_ms: wall_ms() };
    let record = lock(windows).recorded(&request.service, tenant, [baseline, canary], now);
    let record = record.and_then(|record| serde_json::to_value(record).ok());
    if let (Some(record), Some(evidence)) = (record, request.evidence.as_object_mut()) {
        evidence.insert("series".to_owned(), record);
    }
}
