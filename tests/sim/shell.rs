//! The shell of rollouts, as `src/autopilot/rollouts` is: what it remembers, what it forgets when it crashes, and in which
//! order it asks planning and submits. Only its clock and its messages are the simulation's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use switchback::model::{
    Author, Change, ChangeRequest, GateAt, LiveRollout, Phase, Rollout, RolloutCommand, RolloutId, Schedule, Stage,
    State, TenantName, VersionName,
};
use switchback::planning::{Next, Opening, Question, Situation, StageEvidence, WaitFor, Waiting, open, plan};

/// How often a gate that may hold at any time is asked, in milliseconds.
const POLL_MS: u64 = 10_000;

#[derive(Clone, PartialEq)]
struct Place {
    phase: Phase,
    stage: Stage,
    in_effect: bool,
    retries: u32,
    step_back: u32,
}

/// What the process remembers of one rollout.
pub struct Watched {
    place: Place,
    since_ms: u64,
    pub pending: bool,
    pub asked: BTreeSet<String>,
    failed_then: u64,
    cost_then: u64,
    holds: BTreeMap<String, (Option<String>, u64)>,
}

/// The memory of one process.
#[derive(Default)]
pub struct Shell {
    pub watched: HashMap<RolloutId, Watched>,
    /// What each rollout was last found to wait for.
    pub waiting: HashMap<RolloutId, Waiting>,
    /// Why a rollout was outside its windows in the minute in which that was last looked up: windows open and close with
    /// minutes, and looking it up is what takes most of the time.
    closed: HashMap<RolloutId, (u64, Option<Waiting>)>,
    /// Failed requests of users by version, since the process began.
    pub failed: HashMap<VersionName, u64>,
}

/// What the shell wants done after it looked at a rollout.
pub enum Wish {
    Submit(Box<ChangeRequest>),
    Ask(Question),
    /// These gates that may hold at any time are to be asked.
    Poll(Vec<String>),
}

/// What the shell sees when it looks.
pub struct Look<'a> {
    pub state: &'a State,
    pub process_ms: u64,
    pub wall_ms: u64,
    /// When single tenants may move.
    pub tenant_windows: &'a BTreeMap<TenantName, Schedule>,
    /// What the guard saw of the units of the batch that moved.
    pub evidence: &'a dyn Fn(&LiveRollout) -> StageEvidence,
}

impl Place {
    fn of(rollout: &Rollout) -> Self {
        Self {
            phase: rollout.phase,
            stage: rollout.stage,
            in_effect: rollout.in_effect,
            retries: rollout.retries,
            step_back: rollout.going_back.as_ref().map_or(0, |back| back.step + 1),
        }
    }
}

impl Watched {
    fn new(rollout: &Rollout, now_ms: u64, failed: u64) -> Self {
        Self {
            place: Place::of(rollout),
            since_ms: now_ms,
            pending: false,
            asked: BTreeSet::new(),
            failed_then: failed,
            cost_then: rollout.failed_requests,
            holds: BTreeMap::new(),
        }
    }

    fn follow(&mut self, rollout: &Rollout, now_ms: u64, failed: u64) {
        let place = Place::of(rollout);
        if place == self.place {
            return;
        }
        if place.retries != self.place.retries {
            (self.failed_then, self.cost_then) = (failed, rollout.failed_requests);
        }
        self.place = place;
        self.since_ms = now_ms;
    }

    fn due_holds(&mut self, rollout: &Rollout, now_ms: u64) -> Vec<String> {
        let mut due = Vec::new();
        if !matches!(rollout.phase, Phase::Pending | Phase::Progressing | Phase::Finishing) {
            return due;
        }
        for gate in rollout.spec.gates.iter().filter(|g| g.at == GateAt::Hold) {
            let hold = self.holds.entry(gate.name.clone()).or_insert_with(|| (Some("no answer yet".to_owned()), 0));
            if now_ms >= hold.1 && !self.asked.contains(&gate.name) {
                hold.1 = now_ms + POLL_MS;
                due.push(gate.name.clone());
            }
        }
        self.asked.extend(due.iter().cloned());
        due
    }

    pub fn hold_answered(&mut self, gate: &str, closed: Option<String>) {
        self.asked.remove(gate);
        if let Some(hold) = self.holds.get_mut(gate) {
            hold.0 = closed;
        }
    }

    fn held_by_gate(&self) -> Option<String> {
        self.holds.values().find_map(|(closed, _)| closed.clone())
    }
}

impl Shell {
    /// One look at every rollout.
    pub fn look(&mut self, look: &Look<'_>) -> Vec<(RolloutId, Wish)> {
        self.watched.retain(|id, _| look.state.rollouts.contains_key(id));
        let mut wishes = Vec::new();
        for (id, live) in &look.state.rollouts {
            if live.rollout.phase.is_final() && live.rollout.spec.gates.is_empty() {
                self.waiting.remove(id);
                continue;
            }
            wishes.extend(self.look_at(look, live).into_iter().map(|wish| (id.clone(), wish)));
        }
        wishes
    }

    fn look_at(&mut self, look: &Look<'_>, live: &LiveRollout) -> Vec<Wish> {
        let rollout = &live.rollout;
        let Some(service) = look.state.service(rollout.service.as_str()) else { return Vec::new() };
        let failed = self.failed.get(&rollout.spec.to).copied().unwrap_or_default();
        let now_ms = look.process_ms;
        let watched = self.watched.entry(rollout.id.clone()).or_insert_with(|| Watched::new(rollout, now_ms, failed));
        watched.follow(rollout, now_ms, failed);
        if watched.pending {
            return Vec::new();
        }
        let mut evidence = if rollout.phase.is_final() { StageEvidence::default() } else { (look.evidence)(live) };
        evidence.observed_ms = now_ms.saturating_sub(watched.since_ms);
        evidence.failed_requests = watched.cost_then + failed.saturating_sub(watched.failed_then);
        let polls = watched.due_holds(rollout, now_ms);
        let mut wishes = if polls.is_empty() { Vec::new() } else { vec![Wish::Poll(polls)] };
        let freeze = look.state.freeze_at(look.wall_ms);
        let minute = look.wall_ms / 60_000;
        let (looked_up, closed) = self.closed.entry(rollout.id.clone()).or_default();
        if *looked_up != minute {
            (*looked_up, *closed) = (minute, is_closed(rollout, look.wall_ms));
        }
        let next = plan(&Situation {
            live,
            service,
            evidence: &evidence,
            frozen: freeze
                .map(|f| f.until_ms.into_iter().fold(Waiting::new(WaitFor::Freeze, "frozen"), Waiting::until)),
            closed: closed.clone(),
            tenant_windows: look.tenant_windows,
            asked: &watched.asked,
            held_by_gate: watched.held_by_gate(),
            now_ms: look.wall_ms,
        });
        self.waiting.remove(&rollout.id);
        match next {
            Next::Wait(waiting) => {
                wishes.extend(self.costs(live, &evidence));
                self.waiting.insert(rollout.id.clone(), waiting);
            }
            Next::Ask(question) => {
                watched.asked.insert(question.key.clone());
                wishes.push(Wish::Ask(question));
            }
            Next::Do { command, reason, evidence } => {
                let revision = Some(rollout.revision);
                wishes.push(self.submit(live, command, reason, evidence, revision));
            }
        }
        wishes
    }

    fn costs(&mut self, live: &LiveRollout, evidence: &StageEvidence) -> Option<Wish> {
        let most = live.rollout.spec.blast_radius.failed_requests?;
        let news = evidence.failed_requests.saturating_sub(live.rollout.failed_requests);
        if live.rollout.phase.is_final() || news <= most / 10 {
            return None;
        }
        let command = RolloutCommand::Count { failed_requests: evidence.failed_requests };
        Some(self.submit(live, command, "failed by now".to_owned(), serde_json::Value::Null, None))
    }

    /// Nothing else of the rollout happens until the change is answered.
    pub fn submit(
        &mut self,
        live: &LiveRollout,
        command: RolloutCommand,
        reason: String,
        evidence: serde_json::Value,
        if_revision: Option<u64>,
    ) -> Wish {
        let id = live.rollout.id.clone();
        if let Some(watched) = self.watched.get_mut(&id) {
            watched.pending = true;
        }
        Wish::Submit(Box::new(ChangeRequest {
            service: live.rollout.service.clone(),
            change: Change::Rollout(id, command),
            author: Author::Autopilot,
            reason,
            if_revision,
            if_attempt: None,
            evidence,
        }))
    }
}

fn is_closed(rollout: &Rollout, wall_ms: u64) -> Option<Waiting> {
    if rollout.spec.schedule.windows.is_empty() {
        return None;
    }
    let Opening::Closed { opens_ms } = open(&[&rollout.spec.schedule], &[], wall_ms) else { return None };
    Some(opens_ms.into_iter().fold(Waiting::new(WaitFor::Window, "outside its windows"), Waiting::until))
}
