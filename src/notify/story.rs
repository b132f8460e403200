//! An event and what can only be known while it is fresh: who suffers most from it.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::incidents::Matter;
use crate::analysis::{ArmCounts, excess_failures, excess_slow};
use crate::model::{Event, ServiceName, VersionName};
use crate::telemetry::{Tallies, Windows};

/// How far back is looked for who suffers: an attempt that is rolled back is young.
const LOOK_BACK: Duration = Duration::from_secs(60);
/// Routes and tenants that are named.
const NAMED: usize = 3;
/// Tenants whose window is looked at: those with the most failures since they were first seen.
const CANDIDATES: usize = 200;

/// An event, what is known about it, and what is over by it.
#[derive(Debug, Clone)]
pub(super) struct Story {
    pub event: Event,
    /// The version that is trusted; none for events without a service.
    pub baseline: Option<VersionName>,
    /// Routes that are worse on the version, worst first: name, requests that failed or were slow beyond the baseline's.
    pub routes: Vec<(String, u64)>,
    /// Tenants with failures on the version, worst first: name, failures, requests.
    pub tenants: Vec<(String, u64, u64)>,
    /// Matters that are over.
    pub over: Vec<Matter>,
}

/// The routes that are worse on the canary, worst first.
pub(super) fn worst_routes(
    windows: &Mutex<Windows>,
    tallies: &Tallies,
    service: &ServiceName,
    (baseline, canary): (&VersionName, &VersionName),
    now_ms: u64,
) -> Vec<(String, u64)> {
    let look_back = Some(LOOK_BACK.as_millis() as u64);
    lock(windows).record_routes(now_ms, &tallies.service(service));
    let ids = lock(windows).routes(service);
    // One lock for each route, so that the guard never waits for the whole list.
    let stats = ids.into_iter().filter_map(|id| lock(windows).route_stats(service, id, look_back, now_ms));
    let mut worst: Vec<(String, u64)> = stats
        .filter_map(|route| {
            let of = |version: &VersionName| route.versions.iter().find(|(s, _)| s.version == *version);
            let (a, b) = (of(baseline)?, of(canary)?);
            let counts = |s: &crate::telemetry::VersionStats| ArmCounts { n: s.requests, bad: s.failed };
            let excess = excess_failures(counts(&a.0), counts(&b.0)).max(excess_slow(&a.1, &b.1)).round() as u64;
            (excess > 0).then(|| (route.route.to_string(), excess))
        })
        .collect();
    worst.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
    worst.truncate(NAMED);
    worst
}

/// The tenants with the most failures on the canary.
pub(super) fn worst_tenants(
    windows: &Mutex<Windows>,
    tallies: &Tallies,
    service: &ServiceName,
    canary: &VersionName,
    now_ms: u64,
) -> Vec<(String, u64, u64)> {
    let scopes = tallies.service(service).scopes();
    let failed = |scope: &Arc<crate::telemetry::ScopeTally>| {
        Some((scope.totals().iter().find(|t| t.version == *canary)?.failed(), scope.tenant()?.clone()))
    };
    let mut candidates: Vec<_> = scopes.iter().filter(|s| !s.is_other()).filter_map(failed).collect();
    candidates.sort_by(|a, b| (Reverse(a.0), &a.1).cmp(&(Reverse(b.0), &b.1)));
    candidates.truncate(CANDIDATES);
    let look_back = Some(LOOK_BACK.as_millis() as u64);
    let mut worst: Vec<_> = candidates
        .into_iter()
        .filter_map(|(_, tenant)| {
            let stats = lock(windows).stats(service, Some(&tenant), look_back, now_ms);
            let stats = stats.into_iter().find(|s| s.version == *canary && s.failed > 0)?;
            Some((tenant.to_string(), stats.failed, stats.requests))
        })
        .collect();
    worst.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
    worst.truncate(NAMED);
    worst
}

fn lock(windows: &Mutex<Windows>) -> std::sync::MutexGuard<'_, Windows> {
    // Plain counters: what a thread that died had half written is off by one look at most.
    windows.lock().unwrap_or_else(PoisonError::into_inner)
}
