//! What is known about a rollout's surroundings before it starts.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::context::{Found, Shared};
use crate::model::{NewRollout, Pin, Scope, Target, VersionName};
use crate::planning::{Facts, Opening, is_open, open};

/// Over which time traffic is looked at, in milliseconds.
const TRAFFIC_MS: u64 = 5 * 60 * 1_000;

pub(super) fn gathered(cx: &Shared, found: &Found, new: &NewRollout) -> Facts {
    let (spec, live) = (&new.spec, found.live());
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let to = found.route.version(spec.to.as_str());
    let leads = |pin: &&Pin| matches!(pin, Pin::Version(v) if *v == spec.from || *v == spec.to);
    Facts {
        from_endpoints: endpoints(cx, found, &spec.from),
        to_endpoints: endpoints(cx, found, &spec.to),
        to_has_checks: to.is_some_and(|version| version.spec.health.is_some()),
        guarded: found.route.spec.guard.enabled,
        rate: rate(cx, found, new),
        tenants_set_by_people: set_by_people(found, new),
        pins: live.pins.iter().filter(leads).count(),
        waits: waits(found, new, wall_ms),
        outside_windows: outside_windows(found, new, wall_ms),
        to_deprecated: to.is_some_and(|version| version.spec.deprecated.is_some()),
    }
}

/// How many there are, and how many of them can be used.
fn endpoints(cx: &Shared, found: &Found, version: &VersionName) -> (usize, usize) {
    let Some(version) = found.route.version(version.as_str()) else { return (0, 0) };
    let all = version.endpoints.all();
    let now_ms = cx.now();
    (all.len(), all.iter().filter(|endpoint| endpoint.is_available(now_ms)).count())
}

fn rate(cx: &Shared, found: &Found, new: &NewRollout) -> f64 {
    let now_ms = cx.now();
    let windows = cx.lock_windows();
    let of = |tenant| {
        let stats = windows.stats(found.name(), tenant, Some(TRAFFIC_MS), now_ms);
        stats.iter().map(|version| version.rps).fold(0.0, |a, b| a + b)
    };
    if new.spec.target == Target::Service && new.batches.len() == 1 {
        return of(None);
    }
    // Each batch proves itself, so the first one's traffic is what counts.
    let first = new.batches.first().into_iter().flatten();
    first
        .map(|scope| match scope {
            Scope::Tenant(tenant) => of(Some(tenant)),
            Scope::Service | Scope::Group(_) => of(None),
        })
        .fold(0.0, |a, b| a + b)
}

fn set_by_people(found: &Found, new: &NewRollout) -> usize {
    if matches!(new.spec.target, Target::Tenants) {
        return 0;
    }
    let moved: std::collections::HashSet<_> = new.batches.iter().flatten().collect();
    let by_people = found.route.tenants.iter().filter(|(_, own)| own.by.is_none() && own.split.rolled_back.is_none());
    by_people.filter(|(tenant, _)| !moved.contains(&Scope::Tenant((*tenant).clone()))).count()
}

/// Why it would not begin now.
fn waits(found: &Found, new: &NewRollout, now_ms: u64) -> Option<String> {
    if let Some(hold) = &found.live().hold {
        return Some(format!("{} holds the service, so it will not begin before the hold is released", hold.author));
    }
    if let Some(freeze) = found.view.state.freeze_at(now_ms) {
        return Some(format!("{} froze all rollouts, so it will not begin before that ends", freeze.author));
    }
    match open(&[&new.spec.schedule, &found.route.spec.windows], &[], now_ms) {
        Opening::Open { .. } => None,
        Opening::Closed { opens_ms: Some(at) } => {
            Some(format!("it is outside its windows until {}", super::super::answers::time(at)))
        }
        Opening::Closed { opens_ms: None } => Some("its windows do not open within 400 days".to_owned()),
    }
}

/// Tenants of the rollout whose own windows are closed now.
fn outside_windows(found: &Found, new: &NewRollout, now_ms: u64) -> usize {
    let windows = &found.view.settings.structure.tenants.windows;
    if windows.is_empty() {
        return 0;
    }
    let is_outside = |scope: &&Scope| match scope {
        Scope::Tenant(tenant) => windows.get(tenant).is_some_and(|schedule| !is_open(&[schedule], now_ms)),
        Scope::Service | Scope::Group(_) => false,
    };
    new.batches.iter().flatten().filter(is_outside).count()
}
