//! The next thing that a rollout does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::calendar::{Opening, is_open, open};
use super::evidence::StageEvidence;
use super::waiting::{WaitFor, Waiting};
use crate::model::{
    BlastRadius, Gate, GateAt, GateRecord, LiveRollout, OnInsufficient, PauseKind, Phase, Rollout, RolloutCommand,
    Schedule, Scope, ServiceState, Stage, Step, TenantName, UnitStatus,
};

/// Natural logarithm of the evidence at which a step counts as proven: 20, which a version beyond the margin reaches with
/// a probability of at most 5 % (analysis section 2.5).
pub const PROVEN_AT: f64 = 2.995_732_273_553_991;

/// The first wait after a gate's failure, doubled with each further one, in milliseconds.
const GATE_BACKOFF_MS: u64 = 2_000;

/// Everything that the next thing depends on.
pub struct Situation<'a> {
    /// The rollout.
    pub live: &'a LiveRollout,
    /// Its service.
    pub service: &'a ServiceState,
    /// What was seen.
    pub evidence: &'a StageEvidence,
    /// Why nothing may move anywhere now, in a sentence.
    pub frozen: Option<Waiting>,
    /// Why nothing may move in this service now: it is outside its windows.
    pub closed: Option<Waiting>,
    /// When single tenants may move, where that is not always.
    pub tenant_windows: &'a BTreeMap<TenantName, Schedule>,
    /// Gates that were asked and have not answered.
    pub asked: &'a BTreeSet<String>,
    /// A gate that may hold at any time does.
    pub held_by_gate: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This shall be done.
    Do {
        /// What.
        command: RolloutCommand,
        /// Why, in sentences.
        reason: String,
        /// On what grounds.
        evidence: Value,
    },
    /// A gate shall be asked.
    Ask(Question),
    /// Nothing.
    Wait(Waiting),
}

/// A question to a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The name under which the answer is kept.
    pub key: String,
    /// The gate.
    pub gate: Gate,
}

/// What the rollout does next.
pub fn plan(now: &Situation<'_>) -> Next {
    let rollout = &now.live.rollout;
    match rollout.phase {
        Phase::Completed => wait(WaitFor::Nothing, "it is complete"),
        Phase::RolledBack | Phase::Aborted => tell_of_the_end(now),
        Phase::GoingBack => on_the_way_back(now),
        Phase::Pending | Phase::Progressing | Phase::Finishing => {
            going_back(now).or_else(|| stopped(now)).unwrap_or_else(|| match rollout.phase {
                Phase::Pending => begin(now),
                Phase::Finishing => finish(now),
                _ if rollout.in_effect => bake(now),
                _ => enter(now),
            })
        }
    }
}

/// Whoever is told after a rollback is asked like a gate, but nothing depends on the answer.
fn tell_of_the_end(now: &Situation<'_>) -> Next {
    let tired = |key: &str| now.live.rollout.gates.get(key).is_some_and(|r| r.failures >= GateRecord::TRIES);
    let next = now.live.rollout.closed_gates(GateAt::Rollback).find(|(key, _)| !tired(key));
    match next {
        Some((key, gate)) => ask(now, key, gate),
        None => wait(WaitFor::Nothing, "it is over"),
    }
}

fn on_the_way_back(now: &Situation<'_>) -> Next {
    let every = now.live.rollout.spec.back_every_ms;
    if now.evidence.observed_ms < every {
        let until = now.now_ms + every - now.evidence.observed_ms;
        return Next::Wait(Waiting::new(WaitFor::Delay, "traffic goes back step by step").until(until));
    }
    act(RolloutCommand::StepBack, "the next step back".to_owned(), Value::Null)
}

/// Why all of it must go back, whatever else is going on.
fn going_back(now: &Situation<'_>) -> Option<Next> {
    let rollout = &now.live.rollout;
    let (cause, reason, at_once) = why_back(now)?;
    // What a person or the fleet's guard took back already is back; this only writes it down.
    let is_back = cause == BARRED;
    if rollout.is_beyond_return() && !is_back {
        if rollout.paused.as_ref().is_some_and(|p| p.kind == PauseKind::NoReturn) {
            return Some(wait(WaitFor::Person, "it is past its point of no return; a person decides"));
        }
        let reason = format!("It would go back, but it is past its point of no return: {reason}");
        return Some(act(RolloutCommand::Hold(PauseKind::NoReturn), reason, now.evidence.to_json()));
    }
    let command = RolloutCommand::GoBack { cause: cause.to_owned(), at_once };
    Some(act(command, reason, now.evidence.to_json()))
}

/// The cause of a rollout whose service was rolled back as a whole.
const BARRED: &str = "rollback";

fn why_back(now: &Situation<'_>) -> Option<(&'static str, String, bool)> {
    let rollout = &now.live.rollout;
    let spec = &rollout.spec;
    if let Some(bar) = now.live.barred_since(now.service) {
        let reason = format!(
            "{} lost all its traffic in {} by event {}, so this rollout is over.",
            spec.to, rollout.service, bar.rolled_back.event
        );
        return Some((BARRED, reason, true));
    }
    let gone = rollout.counts.rolled_back;
    // A unit that is a whole service or group has many tenants; those that were heard of count.
    let moved = rollout.counts.moved().max(now.evidence.scopes + gone);
    // Past the point of no return a person who lets it go on has seen what it has cost.
    let known = rollout.accepted_back.is_some_and(|accepted| gone <= accepted);
    if spec.tolerate.is_exceeded(gone, moved) && !known {
        let reason = format!(
            "{gone} of the {moved} tenants that were moved to {} went back. That is more than the rollout tolerates. All of \
             them go back to {}.",
            spec.to, spec.from
        );
        return Some(("tenants", reason, false));
    }
    let BlastRadius { failed_requests: Some(most), .. } = spec.blast_radius else { return None };
    let failed = now.evidence.failed_requests.max(rollout.failed_requests);
    (failed > most && rollout.accepted_back.is_none()).then(|| {
        let reason = format!(
            "{failed} requests of users failed on {} since the rollout began. That is more than the {most} that it may cost. \
             Everyone goes back to {}.",
            spec.to, spec.from
        );
        ("blast_radius", reason, false)
    })
}

/// Why it does not go on although nothing is wrong.
fn stopped(now: &Situation<'_>) -> Option<Next> {
    let rollout = &now.live.rollout;
    if let Some(pause) = &rollout.paused {
        let message = match pause.reason.as_str() {
            "" => format!("paused by {}", pause.author),
            reason => format!("paused by {}: {reason}", pause.author),
        };
        return Some(wait(WaitFor::Person, message));
    }
    if let Some(hold) = &now.service.hold {
        return Some(wait(WaitFor::Hold, format!("{} holds {}: {}", hold.author, rollout.service, hold.reason)));
    }
    if let Some(frozen) = &now.frozen {
        return Some(Next::Wait(frozen.clone()));
    }
    now.held_by_gate.as_ref().map(|said| wait(WaitFor::Gate, said.clone()))
}

fn begin(now: &Situation<'_>) -> Next {
    let rollout = &now.live.rollout;
    if let Some(at_ms) = rollout.spec.start_at_ms.filter(|at| *at > now.now_ms) {
        return Next::Wait(Waiting::new(WaitFor::Start, "it starts later").until(at_ms));
    }
    if let Some(closed) = &now.closed {
        return Next::Wait(closed.clone());
    }
    let reason = format!("{} moves from {} to {}.", rollout.service, rollout.spec.from, rollout.spec.to);
    gates(now, GateAt::Start).unwrap_or_else(|| act(RolloutCommand::Begin, reason, Value::Null))
}

fn finish(now: &Situation<'_>) -> Next {
    let rollout = &now.live.rollout;
    gates(now, GateAt::Completion).unwrap_or_else(|| {
        let reason = format!(
            "{} of {} went to {}, {} went back.",
            rollout.counts.completed,
            rollout.counts.total(),
            rollout.spec.to,
            rollout.counts.rolled_back
        );
        act(RolloutCommand::Complete, reason, now.evidence.to_json())
    })
}

fn enter(now: &Situation<'_>) -> Next {
    let rollout = &now.live.rollout;
    let stage = rollout.stage;
    let (step, last_ms) = (&rollout.spec.steps[stage.step as usize], now.evidence.observed_ms);
    let delay = rollout.spec.batch_delay_ms;
    let is_approved = rollout.approved == Some(stage);
    if stage.batch > 0 && stage.step == 0 && last_ms < delay && !is_approved {
        let waiting = Waiting::new(WaitFor::Delay, format!("batch {} begins after a delay", stage.batch + 1));
        return Next::Wait(waiting.until(now.now_ms + delay - last_ms));
    }
    if step.approval && !is_approved {
        return wait(WaitFor::Approval, format!("step {stage} ({}) needs an approval that names it", step.share));
    }
    if let Some(closed) = &now.closed {
        return Next::Wait(closed.clone());
    }
    if now.evidence.braked || now.evidence.breach {
        return wait(WaitFor::Evidence, "the guard looks at evidence against the new version");
    }
    gates(now, GateAt::BeforeStep).unwrap_or_else(|| enter_now(now, stage, step))
}

/// Tenants outside their own windows come later, the others do not wait for them.
fn enter_now(now: &Situation<'_>, stage: Stage, step: &Step) -> Next {
    let rollout = &now.live.rollout;
    let due = |status, at: Option<u32>| match status {
        UnitStatus::Pending => true,
        UnitStatus::InProgress => at != Some(stage.step),
        _ => false,
    };
    let batch = now.live.units.range(rollout.batch_range(stage.batch));
    let due: Vec<_> = batch.filter(|(_, u)| due(u.status, u.step)).map(|(_, u)| &u.scope).collect();
    let window = |scope: &Scope| match scope {
        Scope::Tenant(tenant) => now.tenant_windows.get(tenant),
        Scope::Service | Scope::Group(_) => None,
    };
    let is_closed = |scope: &Scope| window(scope).is_some_and(|schedule| !is_open(&[schedule], now.now_ms));
    let open: Vec<_> = due.iter().filter(|scope| !is_closed(scope)).collect();
    if open.is_empty() && !due.is_empty() {
        return outside(due.len(), due.iter().filter_map(|scope| window(scope)), now.now_ms);
    }
    let reason = format!("Step {stage}: {} of {} for {} of the batch.", step.share, rollout.spec.to, open.len());
    let only = (open.len() < due.len()).then(|| open.iter().map(|s| (**s).clone()).collect());
    act(RolloutCommand::Enter { stage, only }, reason, Value::Null)
}

/// Schedules for which the next opening is looked up; more would cost more than the answer is worth.
const SCHEDULES: usize = 20;

/// So many tenants wait for their windows, until the first of them opens.
fn outside<'a>(tenants: usize, schedules: impl Iterator<Item = &'a Schedule>, now_ms: u64) -> Next {
    let waiting =
        Waiting::new(WaitFor::Window, format!("{tenants} tenants of the batch are outside their own windows"));
    let mut distinct: Vec<&Schedule> = Vec::new();
    for schedule in schedules {
        if !distinct.contains(&schedule) {
            distinct.push(schedule);
        }
        if distinct.len() > SCHEDULES {
            return Next::Wait(waiting);
        }
    }
    let opens = distinct.into_iter().filter_map(|schedule| match open(&[schedule], &[], now_ms) {
        Opening::Open { .. } => None,
        Opening::Closed { opens_ms } => opens_ms,
    });
    Next::Wait(opens.min().into_iter().fold(waiting, Waiting::until))
}

fn bake(now: &Situation<'_>) -> Next {
    let rollout = &now.live.rollout;
    let stage = rollout.stage;
    let seen = now.evidence;
    let mut batch = now.live.units.range(rollout.batch_range(stage.batch));
    if !batch.any(|(_, unit)| unit.status == UnitStatus::InProgress) {
        return pass(now, "Nobody of the batch is left on the new version.".to_owned());
    }
    if rollout.bake_over {
        return pass(now, "A person ended the bake.".to_owned());
    }
    let step = &rollout.spec.steps[stage.step as usize];
    if seen.observed_ms < step.bake_ms {
        let waiting = Waiting::new(WaitFor::Bake, format!("step {stage} ({}) bakes", step.share));
        return Next::Wait(waiting.until(now.now_ms + step.bake_ms - seen.observed_ms));
    }
    if seen.is_suspicious() {
        return wait(WaitFor::Evidence, "the guard looks at evidence against the new version");
    }
    if seen.hold_slo {
        return wait(WaitFor::Evidence, "both versions fail more than is allowed; nothing advances");
    }
    if seen.is_proven(PROVEN_AT) {
        return pass(now, format!("Proven not to be worse, by {} requests.", seen.requests));
    }
    let until = now.now_ms + step.max_bake_ms.saturating_sub(seen.observed_ms);
    if seen.observed_ms < step.max_bake_ms {
        let message = format!("step {stage} is neither proven nor refuted by {} requests", seen.requests);
        return Next::Wait(Waiting::new(WaitFor::Evidence, message).until(until));
    }
    insufficient(now, rollout, stage)
}

/// The longest bake is over, and nothing is proven either way.
fn insufficient(now: &Situation<'_>, rollout: &Rollout, stage: Stage) -> Next {
    let seen = now.evidence;
    let text = format!("Step {stage} is neither proven nor refuted: {} requests were seen.", seen.requests);
    match rollout.spec.on_insufficient {
        OnInsufficient::Advance if seen.requests >= rollout.spec.min_requests => {
            pass(now, format!("Not proven, not refuted, by {} requests.", seen.requests))
        }
        OnInsufficient::Advance => {
            let reason = format!("{text} At least {} are needed to go on without proof.", rollout.spec.min_requests);
            act(RolloutCommand::Hold(PauseKind::Evidence), reason, seen.to_json())
        }
        OnInsufficient::Hold => act(RolloutCommand::Hold(PauseKind::Evidence), text, seen.to_json()),
        // Nothing went wrong that a person would have to accept: whoever resumes ends the bake, as after any other hold
        // for lack of evidence.
        OnInsufficient::Abort if rollout.is_beyond_return() => {
            let reason = format!("{text} It would go back, but it is past its point of no return.");
            act(RolloutCommand::Hold(PauseKind::Evidence), reason, seen.to_json())
        }
        OnInsufficient::Abort => {
            act(RolloutCommand::GoBack { cause: "insufficient".to_owned(), at_once: false }, text, seen.to_json())
        }
    }
}

fn pass(now: &Situation<'_>, reason: String) -> Next {
    let stage = now.live.rollout.stage;
    gates(now, GateAt::AfterStep).unwrap_or_else(|| act(RolloutCommand::Pass { stage }, reason, now.evidence.to_json()))
}

/// The first gate of this moment that is closed; none when all are open.
fn gates(now: &Situation<'_>, at: GateAt) -> Option<Next> {
    let (key, gate) = now.live.rollout.closed_gates(at).next()?;
    let record = now.live.rollout.gates.get(&key);
    if record.is_some_and(|r| r.failures >= GateRecord::TRIES) {
        let said = record.map(|r| r.said.as_str()).unwrap_or_default();
        let reason = format!("Gate {} failed {} times: {said}", gate.name, GateRecord::TRIES);
        return Some(act(RolloutCommand::Hold(PauseKind::Gate), reason, Value::Null));
    }
    Some(ask(now, key, gate))
}

/// Asks a gate, unless that was done and it is too early to do it again.
fn ask(now: &Situation<'_>, key: String, gate: &Gate) -> Next {
    if now.asked.contains(&key) {
        return wait(WaitFor::Gate, format!("gate {} was asked", gate.name));
    }
    let record = now.live.rollout.gates.get(&key).filter(|r| r.failures > 0);
    if let Some(record) = record {
        let again_ms = record.at_ms + (GATE_BACKOFF_MS << (record.failures - 1).min(6));
        // A clock that was set back must not keep the gate waiting for days.
        if (record.at_ms..again_ms).contains(&now.now_ms) {
            let waiting = Waiting::new(WaitFor::Gate, format!("gate {} said: {}", gate.name, record.said));
            return Next::Wait(waiting.until(again_ms));
        }
    }
    Next::Ask(Question { key, gate: gate.clone() })
}

fn act(command: RolloutCommand, reason: String, evidence: Value) -> Next {
    Next::Do { command, reason, evidence }
}

fn wait(on: WaitFor, message: impl Into<String>) -> Next {
    Next::Wait(Waiting::new(on, message))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
