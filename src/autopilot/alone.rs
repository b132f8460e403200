//! Tenants that are their own key: each is on one version as a whole, so there is no coin within the tenant to compare by.
//!
//! What such a tenant does on a canary is held against the service's ceiling instead, by the same sequential test (analysis
//! section 2.3), and against what the baseline does for the other tenants at the same time. A probe would move the whole
//! tenant, so there is none.

use std::sync::Mutex;

use super::entry::Entry;
use super::evidence::EpochNews;
use super::settle::{self, Findings};
use super::tick::lock;
use crate::analysis::{ArmCounts, Batch, RawCounts, Signals};
use crate::model::{Change, ChangeRequest, KeySource, VersionName};
use crate::routing::{ServiceRoute, SplitOwner};
use crate::telemetry::{TotalsDelta, Windows};

/// How far back the others are looked at, in milliseconds.
const OTHERS_MS: u64 = 60_000;
/// Fewer requests than these say nothing about the baseline.
const FEW: u64 = 20;

/// Whether a scope is a tenant that is moved as a whole, by a split of its own.
pub(super) fn is_alone(route: &ServiceRoute, has_tenant: bool, owner: SplitOwner) -> bool {
    let keyed = route.spec.sticky.first().is_some_and(|sticky| sticky.source == KeySource::Tenant);
    keyed && has_tenant && owner == SplitOwner::Tenant
}

/// Requests and failures of a version since the last look, here and at other proxies.
pub(super) fn counted(news: &[TotalsDelta], elsewhere: &[EpochNews], version: &VersionName) -> (u64, u64) {
    let here = news.iter().find(|delta| delta.version == *version);
    let here = here.map_or((0, 0), |delta| (delta.requests, delta.failures.iter().sum()));
    elsewhere.iter().map(|epoch| epoch.of(version, 0)).fold(here, |a, b| (a.0 + b.0, a.1 + b.1))
}

/// The counts as the ceiling test takes them; there are no coins, so nothing else is learnt from them.
pub(super) fn batch(old: (u64, u64), new: (u64, u64), now_ms: u64) -> Batch {
    let arm = |(requests, failed)| ArmCounts::new(requests, failed);
    Batch {
        routed_share: 0.0,
        requests: RawCounts { baseline: arm(old), canary: arm(new) },
        signals: Signals::default(),
        coins: (0, 0),
        first_canary_failure_ms: (new.1 > 0).then_some(now_ms),
    }
}

/// The tenant goes back, unless the baseline fails the others as much.
pub(super) fn rollback(
    found: &Findings<'_>,
    entry: &Entry,
    windows: &Mutex<Windows>,
    now_ms: u64,
) -> Option<ChangeRequest> {
    let ceiling = found.route.spec.guard.ceiling;
    let (requests, failed) = entry.recent.within(now_ms, OTHERS_MS);
    let others = lock(windows).stats(&found.key.service, None, Some(OTHERS_MS), now_ms);
    let others = others.into_iter().find(|stats| stats.version == *found.baseline).filter(|s| s.requests >= FEW);
    let beside = match &others {
        Some(stats) if stats.error_rate > ceiling.ratio() => return None,
        Some(stats) => {
            format!("{} failed {} of {} requests of the others", found.baseline, stats.failed, stats.requests)
        }
        None => format!("{} served hardly anybody to compare with", found.baseline),
    };
    let canary = &found.key.canary;
    let reason = format!(
        "{canary} failed {failed} of the last {requests} requests of this tenant, which is wholly on it; {beside}. That is \
         more than the ceiling of {ceiling} allows, with odds of less than 1 in 10,000 that it is chance. Traffic was \
         therefore returned to {}.",
        found.baseline
    );
    let window = entry.comparison.window();
    let change = Change::Rollback {
        scope: settle::scope(found.key),
        canary: Some(canary.clone()),
        cause: "errors".to_owned(),
        first_bad_ms: entry.first_bad_ms.map(|at| settle::to_wall(at, now_ms)),
    };
    Some(settle::request(found, change, reason, settle::evidence(found.assessment, &window)))
}
