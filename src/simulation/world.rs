//! One run: a state of its own, a rollout in it, the guard and the planner, in virtual time from the start to the end.

use std::sync::Arc;

use super::beginning::{Beginning, request};
use super::dice::Dice;
use super::scenario::Scenario;
use super::scope::{Guarded, LOOK_MS, Look, Rules, Standing};
use super::traffic::{Drawn, Odds, Regression};
use crate::analysis::Fleet;
use crate::model::{Author, Change, LiveRollout, PauseKind, Phase, RolloutCommand, Scope, Stage, State};
use crate::planning::{Next, Place, Situation, StageEvidence, WaitFor, plan};

/// The longest time between two looks, milliseconds: traffic may change every second.
const SECOND_MS: u64 = 1_000;
/// What a change costs, in looks: it copies the state and writes documents.
const CHANGE_LOOKS: u64 = 20;
/// The cause of going back although nothing speaks against the new version.
const INSUFFICIENT: &str = "insufficient";

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Everyone is on the new version.
    Completed,
    /// It waits for a person, or did not end in the longest time.
    Held,
    /// Traffic went back.
    WentBack,
}

/// Where the new version was caught.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Catch {
    pub at_ms: u64,
    pub stage: Stage,
    pub cause: String,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    pub end: End,
    pub took_ms: u64,
    /// The first time that traffic was taken back since the regression began.
    pub caught: Option<Catch>,
    /// Traffic was taken back before the regression began.
    pub false_alarm: bool,
    pub braked: bool,
    /// Requests that the new version failed since the regression began.
    pub failed: u64,
    /// How many of them the baseline would have failed, on average.
    pub expected: f64,
    /// Scopes of which some of these were.
    pub touched: u32,
    /// What the run cost.
    pub looks: u64,
}

/// A run that would take more looks than are left.
#[derive(Debug)]
pub(super) struct TooLong;

/// One run on its way.
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    beginning: &'a Beginning,
    regression: &'a Regression,
    dice: Dice,
    /// Looks ten times a second whatever happens.
    careful: bool,
    state: State,
    scopes: Vec<Guarded>,
    /// Which scopes had a failure since the regression began.
    touched: Vec<bool>,
    fleet: Fleet,
    fleet_attempt: u64,
    place: Option<Place>,
    since_ms: u64,
    attempts: Vec<u64>,
    /// Nothing is planned before this time, unless something changes.
    quiet_until_ms: u64,
    now_ms: u64,
    all_failed: u64,
    run: Run,
}

impl<'a> World<'a> {
    pub(super) fn new(
        scenario: &'a Scenario,
        beginning: &'a Beginning,
        regression: &'a Regression,
        dice: Dice,
    ) -> Self {
        let mut world = Self {
            scenario,
            beginning,
            regression,
            dice,
            careful: false,
            state: beginning.state.clone(),
            scopes: Vec::new(),
            touched: vec![false; scenario.audience.len()],
            fleet: Fleet::new(&beginning.parameters),
            fleet_attempt: 0,
            place: None,
            since_ms: 0,
            attempts: Vec::new(),
            quiet_until_ms: 0,
            now_ms: 0,
            all_failed: 0,
            run: Run {
                end: End::Held,
                took_ms: 0,
                caught: None,
                false_alarm: false,
                braked: false,
                failed: 0,
                expected: 0.0,
                touched: 0,
                looks: 0,
            },
        };
        for (scope, part) in &scenario.audience {
            let standing = world.standing(scope);
            world.scopes.push(Guarded::new(scope.clone(), *part, standing));
        }
        world
    }

    /// The same, but nothing is cut short: what the answer is held against.
    #[cfg(test)]
    pub(super) fn carefully(self) -> Self {
        Self { careful: true, ..self }
    }

    /// From the start to the end, with at most so many looks.
    pub(super) fn run(mut self, most_looks: u64) -> Result<Run, TooLong> {
        let longest_ms = self.scenario.longest_ms(u64::from(self.live().rollout.batches()));
        while self.now_ms < longest_ms {
            if let Some(end) = self.plan() {
                self.run.end = end;
                break;
            }
            if self.scopes.iter().any(Guarded::is_moving) {
                self.second();
            } else {
                // Nobody is on the new version, so until the next thing nothing can happen.
                self.now_ms = self.quiet_until_ms.max(self.now_ms + self.step_ms());
            }
            if self.run.looks > most_looks {
                return Err(TooLong);
            }
        }
        self.run.took_ms = self.now_ms;
        self.run.touched = self.touched.iter().filter(|touched| **touched).count() as u32;
        Ok(self.run)
    }

    fn live(&self) -> &Arc<LiveRollout> {
        // It was begun with the state, and nothing here forgets rollouts.
        &self.state.rollouts[&self.beginning.rollout]
    }

    fn rules(&self) -> Rules<'a> {
        let spec = &self.scenario.spec;
        let parameters = &self.beginning.parameters;
        Rules { guard: &self.scenario.guard, parameters, from: &spec.from, to: &spec.to }
    }

    fn step_ms(&self) -> u64 {
        self.beginning.parameters.slot_ms.clamp(LOOK_MS, SECOND_MS)
    }

    fn standing(&self, scope: &Scope) -> Standing {
        let scenario = self.scenario;
        let (from, to) = (&scenario.spec.from, &scenario.spec.to);
        let live = &self.state.services[&scenario.service];
        match self.state.split_of(&self.beginning.structure, &scenario.service, scope) {
            Some((split, owner)) => Standing::new(live, &split, owner == *scope, from, to),
            None => Standing::new(live, &live.split, false, from, to),
        }
    }

    /// Makes a change, if the writer lets it.
    fn change(&mut self, change: Change, reason: String, by_person: bool) -> bool {
        let mut request = request(self.scenario, change, reason);
        if by_person {
            request.author = Author::Person { name: "simulated".to_owned() };
        }
        self.run.looks += CHANGE_LOOKS;
        let event = self.state.revision + 1;
        let Ok(applied) = self.state.apply(&self.beginning.structure, &request, event, self.now_ms) else {
            return false;
        };
        self.state = applied.state;
        self.note(&request.change);
        self.follow();
        true
    }

    /// Writes down what the run is asked about.
    fn note(&mut self, change: &Change) {
        match change {
            Change::Brake { .. } => self.run.braked = true,
            Change::Rollback { scope, cause, .. } => {
                let cause = if *scope == Scope::Service && self.scopes.len() > 1 { "fleet" } else { cause };
                self.caught(cause);
            }
            Change::Rollout(_, RolloutCommand::GoBack { cause, .. }) if cause != INSUFFICIENT => {
                self.caught(cause);
            }
            _ => {}
        }
    }

    fn caught(&mut self, cause: &str) {
        if self.now_ms < self.regression.after_ms {
            self.run.false_alarm = true;
        } else if self.run.caught.is_none() {
            let (at_ms, stage) = (self.now_ms, self.live().rollout.stage);
            self.run.caught = Some(Catch { at_ms, stage, cause: cause.to_owned() });
        }
    }

    /// The state has changed: whose share is what, and which evidence is the step's.
    fn follow(&mut self) {
        let standings: Vec<_> = self.scopes.iter().map(|guarded| self.standing(&guarded.scope)).collect();
        for (guarded, standing) in self.scopes.iter_mut().zip(standings) {
            guarded.stands(standing, &self.beginning.parameters, self.now_ms);
        }
        let service_attempt = self.state.services[&self.scenario.service].split.attempt;
        if self.fleet_attempt != service_attempt {
            self.fleet_attempt = service_attempt;
            self.fleet.step(self.now_ms);
        }
        let live = self.live().clone();
        let batch = live.units.range(live.rollout.batch_range(live.rollout.stage.batch));
        self.attempts = batch.filter(|(_, u)| u.status.has_moved()).map(|(_, u)| u.attempt).collect();
        self.attempts.sort_unstable();
        self.attempts.dedup();
        let place = Place::of(&live.rollout);
        if self.place.as_ref() != Some(&place) {
            self.place = Some(place);
            self.since_ms = self.now_ms;
        }
        self.quiet_until_ms = 0;
    }

    /// Does what is next, until there is something to wait for. Some: the run is over.
    fn plan(&mut self) -> Option<End> {
        if self.now_ms < self.quiet_until_ms {
            return None;
        }
        loop {
            let live = self.live().clone();
            let over = match live.rollout.phase {
                Phase::Completed => Some(End::Completed),
                Phase::RolledBack | Phase::Aborted => Some(End::WentBack),
                _ => None,
            };
            if over.is_some() {
                return over;
            }
            if let Some(pause) = &live.rollout.paused {
                // Who is asked whether the others may follow says yes; whatever else stops it is a person's to judge.
                if pause.kind != PauseKind::Canary || !self.command(RolloutCommand::Resume, String::new(), true) {
                    return Some(End::Held);
                }
                continue;
            }
            match self.next(&live) {
                Next::Do { command, reason, .. } => {
                    if !self.command(command, reason, false) {
                        return None;
                    }
                }
                Next::Wait(waiting) if waiting.on == WaitFor::Approval => {
                    let promote = RolloutCommand::Promote { stage: Some(live.rollout.stage), full: false };
                    if !self.command(promote, String::new(), true) {
                        return Some(End::Held);
                    }
                }
                Next::Wait(waiting) => {
                    let by_time = matches!(waiting.on, WaitFor::Bake | WaitFor::Delay);
                    let costs_count = self.scenario.spec.blast_radius.failed_requests.is_some();
                    self.quiet_until_ms = waiting.until_ms.filter(|_| by_time && !costs_count).unwrap_or_default();
                    return None;
                }
                // Gates are left out of the plan.
                Next::Ask(_) => return Some(End::Held),
            }
        }
    }

    fn command(&mut self, command: RolloutCommand, reason: String, by_person: bool) -> bool {
        self.change(Change::Rollout(self.beginning.rollout.clone(), command), reason, by_person)
    }

    fn next(&mut self, live: &LiveRollout) -> Next {
        let mut evidence = StageEvidence {
            observed_ms: self.now_ms.saturating_sub(self.since_ms),
            failed_requests: self.all_failed,
            ..StageEvidence::default()
        };
        for seen in self.scopes.iter().filter_map(|guarded| guarded.for_planning(&self.attempts)) {
            evidence.add(&seen);
        }
        plan(&Situation {
            live,
            service: &self.state.services[&self.scenario.service],
            evidence: &evidence,
            frozen: None,
            closed: None,
            tenant_windows: &Default::default(),
            asked: &Default::default(),
            held_by_gate: None,
            now_ms: self.now_ms,
        })
    }

    /// Everyone's requests until the end of the slot or second.
    fn second(&mut self) {
        let (begin_ms, span_ms) = (self.now_ms, self.step_ms());
        let (rate, failing) = self.scenario.load.at(begin_ms);
        let odds = Odds::new(self.regression, &self.beginning.parameters, begin_ms, failing);
        for place in 0..self.scopes.len() {
            if self.scopes[place].is_moving() {
                self.scope_second(place, &odds, rate, (begin_ms, span_ms));
            }
        }
        self.now_ms = begin_ms + span_ms;
        self.fleet.advance(self.now_ms);
        if self.scenario.guard.enabled && self.scenario.guard.fleet && self.fleet.rollback() {
            let signal = self.fleet.leading_signal().cause().to_owned();
            let (scope, canary) = (Scope::Service, Some(self.scenario.spec.to.clone()));
            self.change(Change::Rollback { scope, canary, cause: signal, first_bad_ms: None }, String::new(), false);
            self.scopes.iter_mut().for_each(Guarded::forget);
            self.fleet = Fleet::new(&self.beginning.parameters);
        }
    }

    fn scope_second(&mut self, place: usize, odds: &Odds, rate: f64, (begin_ms, span_ms): (u64, u64)) {
        self.run.looks += 1;
        let mut drawn = self.scopes[place].draw(&mut self.dice, odds, rate, span_ms);
        let is_quiet = !self.scopes[place].needs_care(&self.rules(), &drawn, begin_ms, begin_ms + span_ms);
        if is_quiet && !self.careful {
            self.now_ms = begin_ms + span_ms - 1;
            self.look(place, &drawn, odds, rate);
            return;
        }
        let looks = span_ms / LOOK_MS;
        // When it came is drawn aside: whoever looks less often has the same traffic.
        let mut dice = self.dice.aside();
        for look in 0..looks {
            // Just before the end: what came in a slot belongs to that slot.
            self.now_ms = begin_ms + span_ms * (look + 1) / looks - 1;
            let left = looks - look;
            let revision = self.state.revision;
            let part = drawn.take(&mut dice, 1.0 / left as f64);
            self.look(place, &part, odds, rate);
            if self.state.revision != revision {
                // What was to come was drawn at another share.
                let rest_ms = (begin_ms + span_ms).saturating_sub(self.now_ms);
                drawn = self.scopes[place].draw(&mut self.dice, odds, rate, rest_ms);
            }
            if !self.scopes[place].is_moving() {
                break;
            }
        }
    }

    fn look(&mut self, place: usize, drawn: &Drawn, odds: &Odds, rate: f64) {
        // The guard too looks only where something moved, or may end by time.
        if drawn.is_empty() && !self.scopes[place].is_held_back() {
            return;
        }
        self.run.looks += 1;
        let (scenario, rules) = (self.scenario, self.rules());
        let guarded = &mut self.scopes[place];
        let share = guarded.standing.share;
        let Look { canary: (requests, failed), signals, wants } =
            guarded.look(&rules, drawn, rate * guarded.part, self.now_ms);
        self.all_failed += failed;
        if self.now_ms >= self.regression.after_ms {
            self.run.failed += failed;
            self.run.expected += odds.expected(requests);
            self.touched[place] |= failed > 0;
        }
        if scenario.guard.fleet {
            self.fleet.add(self.now_ms, place as u64, share, signals.as_slice());
        }
        let Some(change) = wants else { return };
        let is_back = matches!(change, Change::Rollback { .. });
        if self.change(change, String::new(), false) && is_back {
            self.scopes[place].forget();
        }
    }
}
