//! What happens to rollouts: begun, moved on, stopped and taken back. Another part of `apply`.
//!
//! Planning decides when something happens; here is decided whether it may. A step takes effect only when its gates are
//! open and its approval is there, and nothing that a person stopped is moved on by the machine, whatever planning thinks.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::apply::{Next, Outcome};
use super::change::{ChangeError, NewRollout, RolloutCommand};
use super::document::{Commit, DOCUMENT_FORMAT, DocumentKey};
use super::event::{Author, EventKind};
use super::names::RolloutId;
use super::rollout::{
    GateAt, GateRecord, Input, PAGE, Pause, PauseKind, Phase, Rollout, RolloutSpec, Stage, Target, Unit, UnitStatus,
    Units,
};
use super::state::{LiveRollout, Scope, State};
use super::stored::body_of;

/// Rollouts that are over and still listed, of all services together.
const MAX_FINISHED: usize = 500;

/// A rollout as it will be, with the pages of its units that changed.
pub(super) struct WrittenRollout {
    pub rollout: Rollout,
    pub units: Units,
    pub pages: BTreeSet<usize>,
}

impl WrittenRollout {
    pub(super) fn new(live: &LiveRollout) -> Self {
        Self { rollout: live.rollout.clone(), units: live.units.clone(), pages: BTreeSet::new() }
    }

    pub(super) fn edit(&mut self, place: u32, change: impl FnOnce(&mut Unit)) {
        self.pages.extend(self.units.edit(place, &mut self.rollout.counts, change));
    }

    pub(super) fn push(&mut self, unit: Unit) {
        self.pages.insert(self.units.push(unit, &mut self.rollout.counts));
    }

    pub(super) fn finish(mut self, revision: u64, state: &mut State, commit: &mut Commit) {
        let id = self.rollout.id.clone();
        self.rollout.revision = revision;
        commit.puts.push((DocumentKey::Rollout(id.clone()), body_of(&self.rollout)));
        self.pages.iter().for_each(|page| self.units.stamp(*page, revision));
        for (page, (_, units)) in self.units.pages().enumerate().filter(|(page, _)| self.pages.contains(page)) {
            commit.puts.push((DocumentKey::Units(id.clone(), page as u32), body_of(&units)));
        }
        state.rollouts.insert(id, Arc::new(LiveRollout { rollout: self.rollout, units: self.units }));
    }
}

impl Next<'_> {
    pub(super) fn live_rollout(&self, id: &RolloutId) -> Result<&Arc<LiveRollout>, ChangeError> {
        let service = &self.request.service;
        let found = self.state.rollouts.get(id).filter(|live| live.rollout.service == *service);
        found.ok_or_else(|| ChangeError::UnknownRollout { service: service.clone(), id: id.clone() })
    }

    fn is_machine(&self) -> bool {
        self.request.author == Author::Autopilot
    }

    /// Begins a rollout. Nothing moves by this.
    pub(super) fn start_rollout(&mut self, new: &NewRollout) -> Result<Outcome, ChangeError> {
        let service = &self.request.service;
        if let Some(running) = self.state.running_rollout(service) {
            return Err(ChangeError::Running { service: service.clone(), id: running.rollout.id.clone() });
        }
        let spec = &new.spec;
        spec.check().map_err(|e| ChangeError::Invalid(e.to_string()))?;
        self.check_way(spec)?;
        let baseline = self.live()?.baseline.clone();
        if baseline != spec.from {
            return Err(ChangeError::Invalid(format!(
                "from is {}, but the baseline of {service} is {baseline}, which new versions are compared with; begin \
                 there or trust {} first",
                spec.from, spec.from
            )));
        }
        let units = self.units_of(new)?;
        let mut bounds = vec![0];
        for batch in &new.batches {
            bounds.push(bounds[bounds.len() - 1] + batch.len() as u32);
        }
        let rollout = self.pending(spec.clone(), bounds, &units)?;
        let id = rollout.id.clone();
        let after = json!({ "from": spec.from, "to": spec.to, "units": rollout.counts.total() });
        self.keep_in_place(&rollout, &units)?;
        self.forget_old_rollouts();
        let pages = (0..units.pages().count()).collect();
        self.writes.rollouts.push(WrittenRollout { rollout, units, pages });
        let mut outcome = Outcome::new(EventKind::RolloutStarted, Value::Null, after).about(&spec.to);
        outcome.rollout = Some(id);
        Ok(outcome)
    }

    /// A rollout that has done nothing yet. It is named by the revision that begins it.
    pub(super) fn pending(&self, spec: RolloutSpec, bounds: Vec<u32>, units: &Units) -> Result<Rollout, ChangeError> {
        let id = RolloutId::new(&format!("r{}", self.revision)).map_err(|e| ChangeError::Invalid(e.to_string()))?;
        Ok(Rollout {
            format: DOCUMENT_FORMAT,
            id,
            service: self.request.service.clone(),
            revision: self.revision,
            spec: Arc::new(spec),
            author: self.request.author.clone(),
            reason: self.request.reason.clone(),
            first_event: self.next_event,
            created_ms: self.now_ms,
            started_ms: None,
            ended_ms: None,
            phase: Phase::Pending,
            stage: Stage::default(),
            in_effect: false,
            since_revision: self.revision,
            paused: None,
            approved: None,
            bake_over: false,
            accepted_back: None,
            gates: Default::default(),
            bounds,
            counts: units.counts(),
            failed_requests: 0,
            going_back: None,
            retries: 0,
            follows: None,
            followed_by: None,
            not_followed: None,
            unknown: Default::default(),
        })
    }

    /// The units of the last rollout are of no use once another one begins, and very old rollouts are forgotten.
    pub(super) fn forget_old_rollouts(&mut self) {
        let over = |live: &&Arc<LiveRollout>| live.rollout.phase.is_final();
        let mut finished: Vec<_> = self.state.rollouts.values().filter(over).collect();
        finished.sort_by_key(|live| live.rollout.created_ms);
        let too_many = finished.len().saturating_sub(MAX_FINISHED);
        self.writes.forgotten = finished[..too_many].iter().map(|live| live.rollout.id.clone()).collect();
        let service = &self.request.service;
        let archived = finished[too_many..].iter().filter(|l| l.rollout.service == *service && !l.units.is_empty());
        self.writes.archived = archived.map(|live| live.rollout.id.clone()).collect();
    }

    /// One thing that happens to a rollout.
    pub(super) fn command_rollout(&mut self, id: &RolloutId, command: &RolloutCommand) -> Result<Outcome, ChangeError> {
        let live = self.live_rollout(id)?.clone();
        let mut written = WrittenRollout::new(&live);
        let input = input_of(command, &live.rollout);
        let Some(phase) = live.rollout.phase.after(input) else {
            return Err(not_now(&live.rollout, format!("is {} and cannot do that now", live.rollout.phase.as_str())));
        };
        self.may(command, &live.rollout)?;
        let before = summary(&live.rollout);
        let kind = self.carry_out(command, &mut written)?;
        // Going back may have ended at once.
        if !written.rollout.phase.is_final() || phase == Phase::Pending {
            written.rollout.phase = phase;
        }
        if written.rollout.phase.is_final() && written.rollout.ended_ms.is_none() {
            written.rollout.ended_ms = Some(self.now_ms);
            written.rollout.paused = None;
        }
        let kind = match (kind, written.rollout.phase) {
            (EventKind::RolloutGoingBack, Phase::RolledBack) => EventKind::RolloutRolledBack,
            (EventKind::RolloutGoingBack, Phase::Aborted) => EventKind::RolloutAborted,
            (kind, _) => kind,
        };
        let mut outcome = Outcome::new(kind, before, summary(&written.rollout)).about(&live.rollout.spec.to);
        outcome.rollout = Some(id.clone());
        outcome.cause = written.rollout.going_back.as_ref().map(|back| back.cause.clone());
        self.writes.rollouts.insert(0, written);
        Ok(outcome)
    }

    /// What is asked of the rollout must be possible where it is, and the machine must be free to do it.
    fn may(&self, command: &RolloutCommand, rollout: &Rollout) -> Result<(), ChangeError> {
        use RolloutCommand as C;
        let nothing = |why: String| Err(ChangeError::Nothing(why));
        match command {
            C::Begin | C::Enter { .. } | C::Pass { .. } | C::Complete if rollout.paused.is_some() => {
                nothing(format!("rollout {} is paused", rollout.id))
            }
            C::Begin | C::Enter { .. } | C::Pass { .. } | C::Complete if self.live()?.hold.is_some() => {
                nothing(format!("{} is held", rollout.service))
            }
            // Neither is written into the rollout, so its revision does not fence what was asked for before.
            C::Begin | C::Enter { .. } | C::Pass { .. } | C::Complete
                if self.state.freeze_at(self.now_ms).is_some() =>
            {
                nothing("everything is frozen".to_owned())
            }
            C::Begin | C::Enter { .. } | C::Pass { .. } | C::Complete if self.is_back_already(rollout)? => {
                nothing(format!("{} lost all its traffic since rollout {} began", rollout.spec.to, rollout.id))
            }
            C::Enter { stage, .. } if *stage != rollout.stage || rollout.in_effect => {
                nothing(format!("rollout {} is at step {}", rollout.id, rollout.stage))
            }
            C::Pass { stage } if *stage != rollout.stage || !rollout.in_effect => {
                nothing(format!("rollout {} is at step {}", rollout.id, rollout.stage))
            }
            C::Enter { stage, .. } => {
                let step = &rollout.spec.steps[stage.step as usize];
                if step.approval && rollout.approved != Some(*stage) {
                    return nothing(format!("step {stage} is not approved"));
                }
                self.not_disabled(&rollout.spec.to)?;
                closed(rollout, GateAt::BeforeStep)
            }
            C::Begin => closed(rollout, GateAt::Start),
            C::Pass { .. } => closed(rollout, GateAt::AfterStep),
            C::Complete => closed(rollout, GateAt::Completion),
            C::GoBack { .. }
                if self.is_machine() && rollout.is_beyond_return() && !self.is_back_already(rollout)? =>
            {
                nothing(format!("rollout {} is past its point of no return", rollout.id))
            }
            C::Abort { force: false } | C::Undo { force: false } if rollout.is_beyond_return() => {
                let step = rollout.spec.steps.iter().position(|s| s.no_return).unwrap_or_default() + 1;
                Err(not_now(rollout, format!("is past its point of no return, step {step}; force it to go back")))
            }
            C::Retry | C::Undo { .. } => self.may_begin_again(rollout),
            _ => Ok(()),
        }
    }

    /// Whether all traffic went back without the rollout's doing.
    fn is_back_already(&self, rollout: &Rollout) -> Result<bool, ChangeError> {
        let service = self.live()?;
        Ok(self.live_rollout(&rollout.id)?.barred_since(service).is_some())
    }

    fn may_begin_again(&self, rollout: &Rollout) -> Result<(), ChangeError> {
        if let Some(running) = self.state.running_rollout(&rollout.service) {
            let (service, id) = (rollout.service.clone(), running.rollout.id.clone());
            return Err(ChangeError::Running { service, id });
        }
        let later = |live: &Arc<LiveRollout>| {
            live.rollout.service == rollout.service && live.rollout.first_event > rollout.first_event
        };
        if self.live_rollout(&rollout.id)?.units.is_empty() || self.state.rollouts.values().any(later) {
            return Err(not_now(rollout, "is not the last one of its service; start another one".to_owned()));
        }
        for version in [&rollout.spec.from, &rollout.spec.to] {
            self.known(version)?;
            self.not_disabled(version)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, command: &RolloutCommand, written: &mut WrittenRollout) -> Result<EventKind, ChangeError> {
        use RolloutCommand as C;
        let now_ms = self.now_ms;
        match command {
            C::Begin => {
                written.rollout.started_ms = Some(now_ms);
                Ok(EventKind::RolloutBegun)
            }
            C::Enter { only, .. } => self.enter(written, only.as_deref()),
            C::Pass { .. } => self.pass(written),
            C::Complete => self.complete(written),
            C::GoBack { cause, at_once } => self.go_back(written, cause, *at_once),
            C::Abort { .. } => self.go_back(written, "person", written.rollout.phase == Phase::GoingBack),
            C::Undo { .. } => self.go_back(written, "undo", false),
            C::StepBack => self.step_back(written),
            C::Hold(kind) => {
                self.pause(written, *kind);
                Ok(EventKind::RolloutPaused)
            }
            C::Pause => {
                self.pause(written, PauseKind::Person);
                Ok(EventKind::RolloutPaused)
            }
            C::Resume => self.resume(written),
            C::Gate { key, open, said } => {
                let record = written.rollout.gates.entry(key.clone()).or_default();
                let failures = if *open { 0 } else { record.failures + 1 };
                let unknown = std::mem::take(&mut record.unknown);
                *record = GateRecord { open: *open, failures, said: said.clone(), at_ms: now_ms, unknown };
                Ok(EventKind::RolloutGate)
            }
            C::Count { failed_requests } => {
                written.rollout.failed_requests = written.rollout.failed_requests.max(*failed_requests);
                Ok(EventKind::RolloutCounted)
            }
            C::Promote { stage, full } => promote(written, *stage, *full),
            C::Retry => {
                self.retry(written);
                Ok(EventKind::RolloutRetried)
            }
        }
    }

    fn pause(&self, written: &mut WrittenRollout, kind: PauseKind) {
        let (author, reason) = (self.request.author.clone(), self.request.reason.clone());
        written.rollout.paused =
            Some(Pause { kind, author, reason, since_ms: self.now_ms, unknown: Default::default() });
    }

    /// Whoever resumes has looked at what stopped it: gates may be asked again, and splits that others set are the
    /// rollout's again if they are of its two versions.
    fn resume(&mut self, written: &mut WrittenRollout) -> Result<EventKind, ChangeError> {
        let Some(pause) = written.rollout.paused.take() else {
            return Err(not_now(&written.rollout, "is not paused".to_owned()));
        };
        // Whoever lets a step without proof go on has seen enough of it.
        written.rollout.bake_over |= pause.kind == PauseKind::Evidence && written.rollout.in_effect;
        if pause.kind == PauseKind::NoReturn {
            written.rollout.accepted_back = Some(written.rollout.counts.rolled_back);
        }
        written.rollout.gates.values_mut().for_each(|record| record.failures = 0);
        self.take_over(written)?;
        Ok(EventKind::RolloutResumed)
    }

    fn retry(&self, written: &mut WrittenRollout) {
        let rollout = &mut written.rollout;
        rollout.stage = Stage::default();
        rollout.in_effect = false;
        rollout.since_revision = self.revision;
        (rollout.started_ms, rollout.ended_ms) = (None, None);
        (rollout.paused, rollout.approved, rollout.going_back) = (None, None, None);
        rollout.bake_over = false;
        rollout.accepted_back = None;
        rollout.gates.clear();
        rollout.failed_requests = 0;
        rollout.retries += 1;
        let end = rollout.bounds.last().copied().unwrap_or_default();
        let again = |u: &Unit| !matches!(u.status, UnitStatus::Excluded | UnitStatus::Overridden);
        let places: Vec<_> = written.units.range(0..end).filter(|(_, u)| again(u)).map(|(place, _)| place).collect();
        for place in places {
            written.edit(place, |unit| *unit = unit.renewed());
        }
        // Single tenants that went back out of a wider unit stay where they are, as a person's word would have it.
    }
}

/// Puts the units of a rollout that is over away, where they can be looked up.
pub(super) fn archive(id: &RolloutId, state: &mut State, commit: &mut Commit) {
    let Some(live) = state.rollouts.get(id).cloned() else { return };
    for (page, (_, units)) in live.units.pages().enumerate() {
        commit.deletes.push(DocumentKey::Units(id.clone(), page as u32));
        commit.puts.push((archived_units(id, page as u32), body_of(&units)));
    }
    let rollout = live.rollout.clone();
    state.rollouts.insert(id.clone(), Arc::new(LiveRollout { rollout, units: Units::default() }));
}

/// Where a page of the units of a rollout lies once another one has begun.
pub fn archived_units(id: &RolloutId, page: u32) -> DocumentKey {
    DocumentKey::Archive(format!("rollout/{id}/{page}"))
}

/// Takes a rollout out of the state for good. The history still tells of it.
pub(super) fn forget(id: &RolloutId, state: &mut State, commit: &mut Commit) {
    let Some(live) = state.rollouts.remove(id) else { return };
    for page in 0..live.units.pages().count() {
        commit.deletes.push(DocumentKey::Units(id.clone(), page as u32));
    }
    for page in 0..live.rollout.counts.total().div_ceil(PAGE as u32) {
        commit.deletes.push(archived_units(id, page));
    }
    commit.deletes.push(DocumentKey::Rollout(id.clone()));
}

/// A person approves the next step, or ends the bake of this one, or sends everyone at once.
fn promote(written: &mut WrittenRollout, stage: Option<Stage>, full: bool) -> Result<EventKind, ChangeError> {
    let rollout = &mut written.rollout;
    if full {
        // Whoever is left goes in one last batch with one last step, which still bakes and is still guarded.
        let step = rollout.spec.steps.len() as u32 - 1;
        let begin = rollout.batch_range(rollout.stage.batch).start;
        let end = rollout.bounds.last().copied().unwrap_or_default();
        rollout.bounds.truncate(rollout.stage.batch as usize + 1);
        rollout.bounds.extend((begin < end || rollout.bounds.len() == 1).then_some(end));
        let is_there = rollout.stage.step == step && rollout.in_effect;
        let nobody_waits = written.units.range(begin..end).all(|(_, u)| u.status != UnitStatus::Pending);
        rollout.in_effect = is_there && nobody_waits;
        rollout.stage.step = step;
        rollout.approved = Some(rollout.stage);
        rollout.paused = None;
        return Ok(EventKind::RolloutPromoted);
    }
    let next = if rollout.in_effect { rollout.next_stage() } else { Some(rollout.stage) };
    let Some(next) = next else {
        rollout.bake_over = true;
        return Ok(EventKind::RolloutPromoted);
    };
    match stage {
        Some(stage) if stage != next => {
            return Err(not_now(rollout, format!("is about to enter step {next}, not {stage}")));
        }
        None if rollout.spec.steps[next.step as usize].approval => {
            return Err(not_now(rollout, format!("needs the approval of step {next}; name the step that you approve")));
        }
        _ => {}
    }
    rollout.bake_over = rollout.in_effect;
    rollout.approved = Some(next);
    Ok(EventKind::RolloutPromoted)
}

fn input_of(command: &RolloutCommand, rollout: &Rollout) -> Input {
    use RolloutCommand as C;
    match command {
        C::Begin => Input::Begin,
        C::Enter { .. } => Input::Enter,
        C::Pass { .. } if rollout.next_stage().is_none() => Input::PassLast,
        C::Pass { .. } => Input::Pass,
        C::Complete => Input::Complete,
        C::GoBack { .. } => Input::GoBack,
        C::StepBack => Input::StepBack,
        C::Hold(_) | C::Pause => Input::Pause,
        C::Gate { .. } => Input::Gate,
        C::Count { .. } => Input::Count,
        C::Resume => Input::Resume,
        C::Promote { full: false, .. } => Input::Promote,
        C::Promote { full: true, .. } => Input::PromoteFull,
        C::Abort { .. } => Input::Abort,
        C::Retry => Input::Retry,
        C::Undo { .. } => Input::Undo,
    }
}

fn closed(rollout: &Rollout, at: GateAt) -> Result<(), ChangeError> {
    match rollout.closed_gates(at).next() {
        Some((_, gate)) => Err(ChangeError::Nothing(format!("gate {} of {} is closed", gate.name, rollout.id))),
        None => Ok(()),
    }
}

pub(super) fn not_now(rollout: &Rollout, why: String) -> ChangeError {
    ChangeError::NotNow { id: rollout.id.clone(), why }
}

/// What an event tells of a rollout.
pub(super) fn summary(rollout: &Rollout) -> Value {
    let share = rollout.in_effect.then(|| rollout.spec.share_at(rollout.stage.step));
    json!({
        "phase": rollout.phase,
        "step": rollout.stage.to_string(),
        "share": share,
        "counts": rollout.counts,
    })
}

/// Whether a rollout moves a scope, by itself or as part of a wider unit.
pub(super) fn covers(next: &Next<'_>, live: &LiveRollout, scope: &Scope) -> bool {
    match (&live.rollout.spec.target, scope) {
        (Target::Service, _) | (_, Scope::Service) => true,
        (Target::Groups(groups), Scope::Group(group)) => groups.contains(group),
        (Target::Groups(groups), Scope::Tenant(tenant)) => {
            let all = &next.structure.tenants.groups;
            live.units.position(scope).is_some()
                || groups.iter().any(|g| all.get(g).is_some_and(|members| members.contains(tenant)))
        }
        (Target::Tenants, scope) => live.units.position(scope).is_some(),
    }
}

#[cfg(test)]
#[path = "apply_rollout_tests.rs"]
mod tests;
