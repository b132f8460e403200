//! From an assessment to a change: what the guard asks for, with the sentences and the numbers that justify it.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::alone;
use super::entry::Entry;
use super::fleet::FleetBreach;
use super::members::May;
use super::tick::lock;
use super::wall_ms;
use crate::analysis::{Action, Assessment, BRAKE_CALM_MS, EvidenceWindow, Parameters, Signal, check_limits, sentence};
use crate::control::ScopeKey;
use crate::model::{Author, Change, ChangeRequest, Event, EventKind, Scope, Split, VersionName, Weights};
use crate::routing::ServiceRoute;
use crate::telemetry::Windows;

/// Everything that is known about one comparison at one look.
pub(super) struct Findings<'a> {
    pub key: &'a ScopeKey,
    pub route: &'a ServiceRoute,
    pub split: &'a Split,
    pub baseline: &'a VersionName,
    pub weights: &'a Weights,
    pub braked: bool,
    /// Whether the tenant is moved as a whole, so that there is nothing to compare within it.
    pub alone: bool,
    pub assessment: &'a Assessment,
    /// What the guard may do about it.
    pub may: May,
}

/// What follows.
#[derive(Default)]
pub(super) struct Wants {
    pub change: Option<ChangeRequest>,
    pub notes: Vec<Event>,
}

/// What the guard asks for after one look.
pub(super) fn settle(found: &Findings<'_>, entry: &mut Entry, windows: &Mutex<Windows>, now_ms: u64) -> Wants {
    let mut wants = Wants::default();
    if found.may == May::Advance {
        note_new(found, entry, &mut wants);
    }
    if entry.pending || found.may == May::Watch {
        return wants;
    }
    if !matches!(found.assessment.action, Action::None | Action::HoldSlo) {
        entry.calm_since_ms = None;
    }
    let guard = &found.route.spec.guard;
    let change = match found.assessment.action {
        Action::Rollback { signal, short_cut } => Some(rollback(found, entry, signal, short_cut, now_ms)),
        Action::Probe | Action::HoldSlo if found.alone => alone::rollback(found, entry, windows, now_ms),
        _ if guard.limits.any() => tripped_limit(found, entry, windows, now_ms),
        _ => None,
    };
    wants.change = change.or_else(|| match found.assessment.action {
        Action::Probe if found.alone => None,
        Action::Probe => Some(probe(found, entry)),
        Action::Brake { share } if guard.brake => brake(found, entry, share),
        Action::Brake { .. } | Action::Rollback { .. } => None,
        Action::None | Action::HoldSlo => released(found, entry, now_ms),
    });
    if found.may == May::GoBack {
        wants.change = wants.change.filter(|c| matches!(c.change, Change::Rollback { .. } | Change::Brake { .. }));
    }
    entry.pending = wants.change.is_some();
    wants
}

fn note_new(found: &Findings<'_>, entry: &mut Entry, wants: &mut Wants) {
    let hold = found.assessment.action == Action::HoldSlo && !found.alone;
    if hold && !entry.told_hold {
        let reason = format!(
            "{} and {} both fail more than the ceiling of {} allows. Nothing shows that it is {}'s fault, so traffic stays \
             where it is and nothing advances.",
            found.baseline, found.key.canary, found.route.spec.guard.ceiling, found.key.canary
        );
        wants.notes.push(note(found, entry, EventKind::HoldSlo, reason));
    }
    entry.told_hold = hold;
    if found.assessment.split_off && !entry.told_split {
        let reason = format!(
            "The share of {} is not what was configured ({}). The guard reckons with the larger of the two from now on.",
            found.key.canary,
            found.weights.share(found.key.canary.as_str())
        );
        wants.notes.push(note(found, entry, EventKind::SplitOff, reason));
        entry.told_split = true;
    }
}

fn note(found: &Findings<'_>, entry: &Entry, kind: EventKind, reason: String) -> Event {
    Event {
        id: 0,
        revision: found.route.state.revision,
        at_ms: wall_ms(),
        kind,
        service: Some(found.key.service.clone()),
        tenant: found.key.tenant.clone(),
        group: None,
        rollout: None,
        version: Some(found.key.canary.clone()),
        author: Author::Autopilot,
        reason,
        cause: None,
        before: Value::Null,
        after: Value::Null,
        evidence: evidence(found.assessment, &entry.comparison.window()),
        first_bad_to_rollback_ms: None,
    }
}

pub(super) fn scope(key: &ScopeKey) -> Scope {
    key.tenant.clone().map_or(Scope::Service, Scope::Tenant)
}

pub(super) fn request(found: &Findings<'_>, change: Change, reason: String, evidence: Value) -> ChangeRequest {
    ChangeRequest {
        service: found.key.service.clone(),
        change,
        author: Author::Autopilot,
        reason,
        if_revision: None,
        if_attempt: Some(found.split.attempt),
        evidence,
    }
}

fn rollback(found: &Findings<'_>, entry: &Entry, signal: Signal, short_cut: bool, now_ms: u64) -> ChangeRequest {
    let window = entry.comparison.window_of(signal);
    let names = sentence::Names { baseline: found.baseline.as_str(), canary: found.key.canary.as_str() };
    let reason = sentence::reason(&window, entry.comparison.parameters(), signal, short_cut, names);
    let change = Change::Rollback {
        scope: scope(found.key),
        canary: Some(found.key.canary.clone()),
        cause: signal.cause().to_owned(),
        first_bad_ms: window.first_bad_ms.map(|at| to_wall(at, now_ms)),
    };
    request(found, change, reason, evidence(found.assessment, &window))
}

fn tripped_limit(found: &Findings<'_>, entry: &Entry, windows: &Mutex<Windows>, now_ms: u64) -> Option<ChangeRequest> {
    let plain = &found.route.spec.guard.limits;
    let p99 = || {
        // Never further back than the attempt: what an earlier one did is not this one's fault.
        let window_ms = (plain.window.as_millis() as u64).min(now_ms.saturating_sub(entry.attempt_ms)).max(1);
        let stats = lock(windows).stats(&found.key.service, found.key.tenant.as_ref(), Some(window_ms), now_ms);
        stats.into_iter().find(|s| s.version == found.key.canary)?.p99_s
    };
    let tripped = check_limits(plain, &found.key.canary, &entry.recent, now_ms, p99)?;
    let reason = format!("{} Traffic was therefore returned to {}.", tripped.reason, found.baseline);
    let window = entry.comparison.window();
    let change = Change::Rollback {
        scope: scope(found.key),
        canary: Some(found.key.canary.clone()),
        cause: tripped.cause.to_owned(),
        first_bad_ms: window.first_bad_ms.map(|at| to_wall(at, now_ms)),
    };
    Some(request(found, change, reason, evidence(found.assessment, &window)))
}

fn probe(found: &Findings<'_>, entry: &Entry) -> ChangeRequest {
    let canary = &found.key.canary;
    let reason = format!(
        "{canary} fails more than the ceiling of {} allows, and {} has too little traffic to tell whether it is {canary}'s \
         fault. Half of the traffic goes to each until that is clear.",
        found.route.spec.guard.ceiling, found.baseline
    );
    let change = Change::Probe { scope: scope(found.key), canary: canary.clone() };
    request(found, change, reason, evidence(found.assessment, &entry.comparison.window()))
}

/// The share of the analysis is among the two versions; the split's is among all.
fn brake(found: &Findings<'_>, entry: &Entry, share: f64) -> Option<ChangeRequest> {
    if found.split.brake.is_some() {
        return None;
    }
    let canary = &found.key.canary;
    let share = found.weights.points_between(found.baseline, canary, share)?;
    let reason = format!(
        "Evidence against {canary} is building up. Its share is held back at {share} until the evidence is confirmed or gone."
    );
    let change = Change::Brake { scope: scope(found.key), canary: canary.clone(), share };
    Some(request(found, change, reason, evidence(found.assessment, &entry.comparison.window())))
}

/// Evidence near the threshold of the brake goes up and down with every request, and each turn would move users.
fn released(found: &Findings<'_>, entry: &mut Entry, now_ms: u64) -> Option<ChangeRequest> {
    let since = *entry.calm_since_ms.get_or_insert(now_ms);
    if !found.braked || now_ms.saturating_sub(since) < BRAKE_CALM_MS {
        return None;
    }
    let reason = format!("The evidence against {} is gone. Its share is what it was.", found.key.canary);
    Some(request(found, Change::ReleaseBrake { scope: scope(found.key) }, reason, Value::Null))
}

/// The version goes back for all tenants: together they speak against it.
pub(super) fn fleet_rollback(
    route: &ServiceRoute,
    breach: &FleetBreach,
    window: Option<EvidenceWindow>,
    parameters: &Parameters,
    now_ms: u64,
) -> ChangeRequest {
    let baseline = &route.baseline().name;
    let names = sentence::Names { baseline: baseline.as_str(), canary: breach.canary.as_str() };
    let reason = match &window {
        Some(window) => {
            format!("Over all tenants together: {}", sentence::reason(window, parameters, breach.signal, false, names))
        }
        None => format!(
            "All tenants together speak against {}. Traffic was therefore returned to {baseline}.",
            breach.canary
        ),
    };
    ChangeRequest {
        service: breach.service.clone(),
        change: Change::Rollback {
            scope: Scope::Service,
            canary: Some(breach.canary.clone()),
            cause: "fleet".to_owned(),
            first_bad_ms: window.as_ref().and_then(|w| w.first_bad_ms).map(|at| to_wall(at, now_ms)),
        },
        author: Author::Autopilot,
        reason,
        if_revision: None,
        if_attempt: Some(route.state.split.attempt),
        evidence: json!({ "log_evidence": breach.log_evidence, "signal": breach.signal.as_str(), "window": window }),
    }
}

/// No endpoint of the version passes its checks.
pub(super) fn health_rollback(route: &ServiceRoute, canary: &VersionName, endpoints: usize) -> ChangeRequest {
    let baseline = &route.baseline().name;
    let reason = format!(
        "None of the {endpoints} endpoints of {canary} passes its health check, while {baseline} has healthy ones. Traffic \
         was therefore returned to {baseline}."
    );
    ChangeRequest {
        service: route.spec.name.clone(),
        change: Change::Rollback {
            scope: Scope::Service,
            canary: Some(canary.clone()),
            cause: "health".to_owned(),
            first_bad_ms: None,
        },
        author: Author::Autopilot,
        reason,
        if_revision: None,
        if_attempt: Some(route.state.split.attempt),
        evidence: json!({ "endpoints": endpoints, "healthy": 0 }),
    }
}

pub(super) fn evidence(assessment: &Assessment, window: &EvidenceWindow) -> Value {
    json!({
        "log_evidence": assessment.log_evidence,
        "signals": assessment.signals,
        "log_ceiling_baseline": assessment.log_ceiling_baseline,
        "log_ceiling_canary": assessment.log_ceiling_canary,
        "window": window,
    })
}

/// A time on the clock of the ticks as milliseconds since the Unix epoch.
pub(super) fn to_wall(at_ms: u64, now_ms: u64) -> u64 {
    wall_ms().saturating_sub(now_ms.saturating_sub(at_ms))
}
