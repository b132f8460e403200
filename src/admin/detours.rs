//! Requests that another version answered than the one they were routed to, as `stats` tells them.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::VersionName;
use crate::telemetry::{Detour, Rescue, ServiceTally};

/// From one version to another, since the process began.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Detour)]
pub(super) struct DetourAnswer {
    /// The version that the requests were routed to.
    #[schema(value_type = String)]
    from: VersionName,
    /// The version that answered in its place, or would have.
    #[schema(value_type = String)]
    to: VersionName,
    /// Requests that `from` failed, by what became of them: `saved`, `failed`, `over_budget`, `not_safe`, `too_large`.
    #[schema(value_type = BTreeMap<String, u64>)]
    rescues: BTreeMap<&'static str, u64>,
    /// Assets that `from` did not have and `to` had.
    assets_found: u64,
    /// Assets that neither had.
    assets_missing: u64,
}

/// Every pair of versions with such requests.
pub(super) fn detours(tally: &ServiceTally) -> Vec<DetourAnswer> {
    let answer = |(from, to, counts): &Detour| {
        let (assets_found, assets_missing) = counts.skews();
        let rescues = Rescue::ALL.into_iter().map(|r| (r.as_str(), counts.rescues(r))).collect();
        DetourAnswer { from: from.clone(), to: to.clone(), rescues, assets_found, assets_missing }
    };
    tally.detours().iter().map(answer).collect()
}
