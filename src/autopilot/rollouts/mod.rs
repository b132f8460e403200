//! Rollouts on their way: looks at what the guard sees, asks planning for the next thing, and has it done.
//!
//! The task holds nothing that matters. What a rollout has done is in the state, so a process that begins anew goes on from
//! there; what is kept here are clocks of its own, questions to gates that are on their way, and what was told already.

mod gates;
mod metrics;
mod watched;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::metrics::RolloutMetrics;
use self::watched::{CarriedWatch, Watched};
use super::pause::{Machine, Pause};
use super::together::rescued;
use super::wall_ms;
use crate::control::{Control, SubmitError, View};
use crate::model::{
    Author, Change, ChangeRequest, Freeze, LiveRollout, RolloutCommand, RolloutId, Schedule, ServiceName, VersionName,
};
use crate::planning::{Next, Opening, Situation, StageEvidence, WaitFor, Waiting, open, plan};
use crate::proxy::Clock;
use crate::store::{Role, Standing};
use crate::telemetry::{Metrics, Tallies};
use crate::webhook::Caller;

/// How often rollouts are looked at when nothing else wakes the task.
const TICK: Duration = Duration::from_millis(100);

/// How long a rollout waits after the store failed it, in milliseconds.
const PATIENCE_MS: u64 = 2_000;

/// What the task is built from.
pub struct RolloutParts {
    /// The door to the state.
    pub control: Control,
    /// Where requests are counted.
    pub tallies: Arc<Tallies>,
    /// Metric families.
    pub metrics: Arc<Metrics>,
    /// Asks the gates.
    pub caller: Caller,
    /// The process's clock.
    pub clock: Clock,
}

/// What the task remembers of rollouts, for another process. Times are on the clock of the process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CarriedRollouts(BTreeMap<RolloutId, CarriedWatch>);

/// Starts the task, with what another process remembered. It runs until it is aborted.
pub fn start(parts: RolloutParts, carried: CarriedRollouts) -> Machine<CarriedRollouts> {
    Machine::start(|pauses| Rollouts::new(parts, carried).run(pauses))
}

/// What a change came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Made,
    /// The rollout has moved on, or somebody stopped it.
    Refused,
    /// The store or the process is not able to.
    Failed,
}

/// What came back.
enum Report {
    /// A change was answered.
    Changed { id: RolloutId, outcome: Outcome },
    /// A gate answered.
    Gate { id: RolloutId, key: String, open: bool, said: String },
    /// A gate that may hold at any time answered.
    Hold { id: RolloutId, gate: String, closed: Option<String> },
}

struct Rollouts {
    control: Control,
    tallies: Arc<Tallies>,
    caller: Caller,
    clock: Clock,
    metrics: RolloutMetrics,
    watched: HashMap<RolloutId, Watched>,
    carried: CarriedRollouts,
    /// How this process stands in its fleet; none: it has none.
    standing: Option<watch::Receiver<Standing>>,
    /// Revision of the state that the metrics show.
    shown: u64,
    reports: mpsc::UnboundedReceiver<Report>,
    report: mpsc::UnboundedSender<Report>,
}

impl Rollouts {
    fn new(parts: RolloutParts, carried: CarriedRollouts) -> Self {
        let (report, reports) = mpsc::unbounded_channel();
        let metrics = RolloutMetrics::new(parts.metrics.registry());
        let RolloutParts { control, tallies, caller, clock, .. } = parts;
        let watched = HashMap::new();
        let standing = control.membership().map(|membership| membership.standing());
        Self { control, tallies, caller, clock, metrics, watched, carried, standing, shown: 0, reports, report }
    }

    async fn run(mut self, mut pauses: mpsc::Receiver<Pause<CarriedRollouts>>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let heard = tokio::select! {
                _ = interval.tick() => None,
                report = self.reports.recv() => report,
                Some(pause) = pauses.recv() => {
                    let known = self.carry();
                    pause.wait(known).await;
                    continue;
                }
            };
            let worth_a_look = heard.is_none_or(|report| self.hear(report));
            if worth_a_look {
                self.look(self.clock.now_ms());
            }
        }
    }

    fn carry(&self) -> CarriedRollouts {
        let view = self.control.view();
        let known = self.watched.iter().filter_map(|(id, watched)| {
            let rollout = &view.state.rollouts.get(id)?.rollout;
            Some((id.clone(), watched.carry(self.failed(&rollout.service, &rollout.spec.to))))
        });
        CarriedRollouts(known.collect())
    }

    /// Takes a report in, and says whether something may be possible now that was not before.
    fn hear(&mut self, report: Report) -> bool {
        match report {
            Report::Changed { id, outcome } => {
                let now_ms = self.clock.now_ms();
                if let Some(watched) = self.watched.get_mut(&id) {
                    watched.pending = false;
                    watched.not_before_ms = if outcome == Outcome::Failed { now_ms + PATIENCE_MS } else { 0 };
                }
                outcome == Outcome::Made
            }
            Report::Gate { id, key, open, said } => {
                let reason = if open { format!("Gate {key} is open.") } else { format!("Gate {key}: {said}") };
                let view = self.control.view();
                let Some(live) = view.state.rollouts.get(&id) else { return false };
                if let Some(watched) = self.watched.get_mut(&id) {
                    watched.asked.remove(&key);
                }
                // The answer counts whatever else happened meanwhile, so it is not fenced by a revision.
                self.submit(live, RolloutCommand::Gate { key, open, said }, reason, Value::Null, None);
                false
            }
            Report::Hold { id, gate, closed } => {
                if let Some(watched) = self.watched.get_mut(&id) {
                    watched.hold_answered(&gate, closed);
                }
                true
            }
        }
    }

    fn look(&mut self, now_ms: u64) {
        let view = self.control.view();
        if self.shown != view.state.revision {
            self.shown = view.state.revision;
            self.metrics.show(&view.state);
            self.watched.retain(|id, _| view.state.rollouts.contains_key(id));
            self.control.board().retain_waiting(|id| view.state.rollouts.contains_key(id));
        }
        if view.read_only {
            return;
        }
        let leads = self.standing.as_ref().is_none_or(|s| s.borrow().role(Instant::now()) == Role::Leader);
        for (id, live) in &view.state.rollouts {
            // What is over and told needs no look; those are most.
            if live.rollout.phase.is_final() && live.rollout.spec.gates.is_empty() {
                self.control.board().put_waiting(id, None);
                continue;
            }
            self.look_at(&view, live, leads, now_ms);
        }
        let board = self.control.board();
        let live = view.state.rollouts.iter().filter(|(_, live)| leads && !live.rollout.phase.is_final());
        self.metrics.show_waiting(live.filter_map(|(id, live)| Some((&live.rollout.service, board.waiting(id)?.on))));
    }

    fn look_at(&mut self, view: &View, live: &Arc<LiveRollout>, leads: bool, now_ms: u64) {
        let rollout = &live.rollout;
        let Some(service) = view.state.service(rollout.service.as_str()) else { return };
        let failed = self.failed(&rollout.service, &rollout.spec.to);
        let carried = &mut self.carried.0;
        let watched = self.watched.entry(rollout.id.clone()).or_insert_with(|| {
            let mut watched = Watched::new(rollout, now_ms, failed);
            carried.remove(&rollout.id).iter().for_each(|carried| watched.resume(carried));
            watched
        });
        watched.follow(rollout, now_ms, failed);
        if !leads {
            return;
        }
        if watched.pending || now_ms < watched.not_before_ms {
            return;
        }
        let evidence = gathered(&self.control, live, watched, now_ms, failed);
        self.poll_holds(live, now_ms);
        let Some(watched) = self.watched.get(&rollout.id) else { return };
        let wall_ms = wall_ms();
        let structure = &view.settings.structure;
        let Some(windows) = structure.services.get(&rollout.service).map(|spec| &spec.windows) else { return };
        let situation = Situation {
            live,
            service,
            evidence: &evidence,
            frozen: view.state.freeze_at(wall_ms).map(frozen),
            closed: closed(&[&rollout.spec.schedule, windows], wall_ms),
            tenant_windows: &structure.tenants.windows,
            asked: &watched.asked,
            held_by_gate: watched.held_by_gate(rollout),
            now_ms: wall_ms,
        };
        let next = plan(&situation);
        self.put_waiting(&rollout.id, &next);
        match next {
            Next::Wait(_) => self.write_down_costs(live, &evidence),
            Next::Ask(question) => self.ask(live, &question),
            Next::Do { command, reason, evidence } => {
                self.submit(live, command, reason, evidence, Some(rollout.revision));
            }
        }
    }

    /// Requests that failed on a version for their users: those that were rescued did not.
    fn failed(&self, service: &ServiceName, version: &VersionName) -> u64 {
        let rescued = rescued(&self.tallies.service(service), version);
        let board = self.control.board();
        board.failed(service, version).saturating_sub(rescued) + board.failed_elsewhere(service, version)
    }

    fn put_waiting(&self, id: &RolloutId, next: &Next) {
        let waiting = match next {
            Next::Wait(waiting) => Some(waiting.clone()),
            Next::Ask(question) => Some(Waiting::new(WaitFor::Gate, format!("gate {} is asked", question.gate.name))),
            Next::Do { .. } => None,
        };
        self.control.board().put_waiting(id, waiting);
    }

    /// What a rollout has cost is written down now and then, so that a restart does not make it cheap again.
    fn write_down_costs(&mut self, live: &Arc<LiveRollout>, evidence: &StageEvidence) {
        let Some(most) = live.rollout.spec.blast_radius.failed_requests else { return };
        let news = evidence.failed_requests.saturating_sub(live.rollout.failed_requests);
        if !live.rollout.phase.is_final() && news > most / 10 {
            let failed_requests = evidence.failed_requests;
            let reason = format!("{failed_requests} requests of users have failed on {} by now.", live.rollout.spec.to);
            self.submit(live, RolloutCommand::Count { failed_requests }, reason, Value::Null, None);
        }
    }

    /// Sends a change on its way; nothing else of the rollout happens until it is answered.
    fn submit(
        &mut self,
        live: &Arc<LiveRollout>,
        command: RolloutCommand,
        reason: String,
        evidence: Value,
        if_revision: Option<u64>,
    ) {
        let id = live.rollout.id.clone();
        if let Some(watched) = self.watched.get_mut(&id) {
            watched.pending = true;
        }
        let request = ChangeRequest {
            service: live.rollout.service.clone(),
            change: Change::Rollout(id.clone(), command),
            author: Author::Autopilot,
            reason,
            if_revision,
            if_attempt: None,
            evidence,
        };
        let (control, report) = (self.control.clone(), self.report.clone());
        tokio::spawn(async move {
            let answer = control.submit(request, false).await;
            let outcome = match &answer {
                Ok(_) => Outcome::Made,
                Err(SubmitError::Refused(refused)) => {
                    tracing::debug!(rollout = %id, %refused, "a rollout waits");
                    Outcome::Refused
                }
                Err(error) => {
                    tracing::warn!(rollout = %id, %error, "a rollout cannot go on");
                    Outcome::Failed
                }
            };
            let _task_ended = report.send(Report::Changed { id, outcome });
        });
    }
}

/// What the guard saw of the step that is in effect, and what the rollout has cost.
fn gathered(control: &Control, live: &LiveRollout, watched: &Watched, now_ms: u64, failed: u64) -> StageEvidence {
    let rollout = &live.rollout;
    let mut evidence = StageEvidence {
        observed_ms: now_ms.saturating_sub(watched.since_ms),
        failed_requests: watched.failed_requests(failed),
        ..StageEvidence::default()
    };
    if rollout.phase.is_final() {
        return evidence;
    }
    let batch = live.units.range(rollout.batch_range(rollout.stage.batch));
    let attempts: Vec<u64> = {
        let mut all: Vec<_> = batch.filter(|(_, u)| u.status.has_moved()).map(|(_, u)| u.attempt).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    if !attempts.is_empty() {
        let of_step = |attempt: u64| attempts.binary_search(&attempt).is_ok();
        control.board().each_of(&rollout.service, &rollout.spec.to, |report| {
            if of_step(report.attempt) {
                evidence.add(&report.for_planning());
            }
        });
    }
    evidence
}

fn frozen(freeze: &Freeze) -> Waiting {
    let waiting = Waiting::new(WaitFor::Freeze, format!("frozen by {}: {}", freeze.author, freeze.reason));
    freeze.until_ms.into_iter().fold(waiting, Waiting::until)
}

/// Why nothing may move now, unless all schedules allow it.
fn closed(schedules: &[&Schedule], now_ms: u64) -> Option<Waiting> {
    if schedules.iter().all(|schedule| schedule.windows.is_empty()) {
        return None;
    }
    let Opening::Closed { opens_ms } = open(schedules, &[], now_ms) else { return None };
    let waiting = Waiting::new(WaitFor::Window, "outside the days and hours in which it may move");
    Some(opens_ms.into_iter().fold(waiting, Waiting::until))
}
