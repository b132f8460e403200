//! The next thing in every situation that matters, without a clock.

use super::*;
use crate::model::{
    Author, Bar, BasisPoints, GoingBack, Hold, Pause, RolledBack, RolloutSpec, Target, TenantName, TimeWindow, Unit,
    Units, VersionName, Weights, plan_of,
};
use crate::planning::ScopeEvidence;

/// A rollout, its service, and what was seen of it.
struct Case {
    live: LiveRollout,
    service: ServiceState,
    seen: StageEvidence,
    asked: BTreeSet<String>,
    tenant_windows: BTreeMap<TenantName, Schedule>,
    window: Option<Waiting>,
    now_ms: u64,
}

const NOW: u64 = 1_000_000;

impl Case {
    fn new(spec: RolloutSpec, phase: Phase) -> Self {
        let scope = |n: &str| Scope::Tenant(TenantName::new(n).unwrap());
        let units = ["a", "b"].map(|n| Unit::new(scope(n), UnitStatus::Pending, String::new()));
        let units = Units::new(units.to_vec());
        let rollout = Rollout {
            format: 1,
            id: "r5".parse().unwrap(),
            service: "api".parse().unwrap(),
            revision: 5,
            spec: std::sync::Arc::new(RolloutSpec { target: Target::Tenants, ..spec }),
            author: Author::File,
            reason: String::new(),
            first_event: 1,
            created_ms: 0,
            started_ms: None,
            ended_ms: None,
            phase,
            stage: Stage::default(),
            in_effect: false,
            since_revision: 5,
            paused: None,
            approved: None,
            bake_over: false,
            accepted_back: None,
            gates: Default::default(),
            bounds: vec![0, 2],
            counts: units.counts(),
            failed_requests: 0,
            going_back: None,
            retries: 0,
            follows: None,
            followed_by: None,
            not_followed: None,
            unknown: Default::default(),
        };
        let baseline = VersionName::new("1").unwrap();
        let service = ServiceState::new(baseline.clone(), &Weights::all_on(baseline), 0, 1);
        Self {
            live: LiveRollout { rollout, units },
            service,
            seen: StageEvidence::default(),
            asked: BTreeSet::new(),
            tenant_windows: BTreeMap::new(),
            window: None,
            now_ms: NOW,
        }
    }

    /// In the first step, for so long.
    fn baking(spec: RolloutSpec, observed_ms: u64) -> Self {
        let mut case = Self::new(spec, Phase::Progressing);
        case.live.rollout.in_effect = true;
        for place in 0..2 {
            let units = &mut case.live.units;
            units
                .edit(place, &mut case.live.rollout.counts, |u| (u.status, u.step) = (UnitStatus::InProgress, Some(0)));
        }
        case.seen.observed_ms = observed_ms;
        case
    }

    fn next(&self) -> Next {
        plan(&Situation {
            live: &self.live,
            service: &self.service,
            evidence: &self.seen,
            frozen: None,
            closed: self.window.clone(),
            tenant_windows: &self.tenant_windows,
            asked: &self.asked,
            held_by_gate: None,
            now_ms: self.now_ms,
        })
    }

    fn does(&self) -> RolloutCommand {
        match self.next() {
            Next::Do { command, .. } => command,
            other => panic!("{other:?}"),
        }
    }

    fn waits(&self) -> WaitFor {
        match self.next() {
            Next::Wait(waiting) => waiting.on,
            other => panic!("{other:?}"),
        }
    }
}

fn proof() -> ScopeEvidence {
    ScopeEvidence { requests: 900, promotion: [("error", 3.1)].into(), ..ScopeEvidence::default() }
}

fn gate(at: GateAt) -> Gate {
    Gate {
        name: "g".to_owned(),
        at,
        step: None,
        url: String::new(),
        secret: None,
        timeout_ms: 1,
        unknown: Default::default(),
    }
}

#[test]
fn it_begins_at_its_time_within_its_window_and_with_its_gate() {
    let mut spec = plan_of(&[10, 100]);
    spec.start_at_ms = Some(NOW + 1);
    spec.gates = vec![gate(GateAt::Start)];
    let mut case = Case::new(spec, Phase::Pending);
    assert_eq!(case.waits(), WaitFor::Start);
    case.now_ms += 1;
    case.window = Some(Waiting::new(WaitFor::Window, "closed"));
    assert_eq!(case.waits(), WaitFor::Window);
    case.window = None;
    assert!(matches!(case.next(), Next::Ask(question) if question.key == "g"));
    case.asked.insert("g".to_owned());
    assert_eq!(case.waits(), WaitFor::Gate);
    case.asked.clear();
    let open = GateRecord { open: true, ..GateRecord::default() };
    case.live.rollout.gates.insert("g".to_owned(), open);
    assert_eq!(case.does(), RolloutCommand::Begin);
}

#[test]
fn a_gate_that_fails_is_asked_again_later_and_holds_after_the_third_time() {
    let mut spec = plan_of(&[10, 100]);
    spec.gates = vec![gate(GateAt::BeforeStep)];
    let mut case = Case::new(spec, Phase::Progressing);
    let mut record =
        GateRecord { open: false, failures: 1, said: "503".to_owned(), at_ms: NOW, unknown: Default::default() };
    case.live.rollout.gates.insert("g@1.1".to_owned(), record.clone());
    assert_eq!(case.waits(), WaitFor::Gate);
    case.now_ms = NOW - 1;
    assert!(matches!(case.next(), Next::Ask(_)), "a clock that was set back does not stop it");
    case.now_ms = NOW + GATE_BACKOFF_MS;
    assert!(matches!(case.next(), Next::Ask(_)));
    record.failures = 3;
    case.live.rollout.gates.insert("g@1.1".to_owned(), record);
    assert_eq!(case.does(), RolloutCommand::Hold(PauseKind::Gate));
}

#[test]
fn a_step_bakes_until_it_is_proven() {
    let mut case = Case::baking(plan_of(&[10, 100]), 59_999);
    case.seen.add(&proof());
    assert_eq!(case.waits(), WaitFor::Bake);
    case.seen.observed_ms = 60_000;
    assert_eq!(case.does(), RolloutCommand::Pass { stage: Stage::default() });
    case.seen.braked = true;
    assert_eq!(case.waits(), WaitFor::Evidence);
    case.seen.braked = false;
    case.seen.hold_slo = true;
    assert_eq!(case.waits(), WaitFor::Evidence);
}

#[test]
fn silence_is_never_consent() {
    let mut case = Case::baking(plan_of(&[10, 100]), 599_999);
    assert_eq!(case.waits(), WaitFor::Evidence);
    case.seen.observed_ms = 600_000;
    assert_eq!(case.does(), RolloutCommand::Hold(PauseKind::Evidence));
    let with = |on_insufficient| RolloutSpec { on_insufficient, ..plan_of(&[10, 100]) };
    let mut case = Case::baking(with(OnInsufficient::Advance), 600_000);
    assert_eq!(case.does(), RolloutCommand::Hold(PauseKind::Evidence), "99 requests are too few");
    case.seen.requests = 100;
    assert_eq!(case.does(), RolloutCommand::Pass { stage: Stage::default() });
    case.seen.against = 1.0;
    assert_eq!(case.waits(), WaitFor::Evidence, "not while something speaks against it");
    let mut spec = with(OnInsufficient::Abort);
    let case = Case::baking(spec.clone(), 600_000);
    assert!(matches!(case.does(), RolloutCommand::GoBack { .. }));
    spec.steps[0].no_return = true;
    let case = Case::baking(spec, 600_000);
    assert_eq!(
        case.does(),
        RolloutCommand::Hold(PauseKind::Evidence),
        "resuming ends the bake, so nobody is asked twice"
    );
}

#[test]
fn what_a_person_stopped_waits_and_still_goes_back() {
    let mut spec = plan_of(&[10, 100]);
    spec.blast_radius.failed_requests = Some(10);
    let mut case = Case::baking(spec, 60_000);
    case.seen.add(&proof());
    let (author, reason) = (Author::File, "lunch".to_owned());
    case.live.rollout.paused =
        Some(Pause { kind: PauseKind::Person, author, reason, since_ms: 0, unknown: Default::default() });
    assert_eq!(case.waits(), WaitFor::Person);
    case.seen.failed_requests = 11;
    assert!(matches!(case.does(), RolloutCommand::GoBack { cause, .. } if cause == "blast_radius"));
    case.seen.failed_requests = 10;
    case.live.rollout.paused = None;
    let hold = Hold { author: Author::File, reason: "audit".to_owned(), since_ms: 0, unknown: Default::default() };
    case.service.hold = Some(hold);
    assert_eq!(case.waits(), WaitFor::Hold);
    let rolled_back = RolledBack { version: "2".parse().unwrap(), at_ms: 0, event: 9, unknown: Default::default() };
    case.service.bars.insert(
        "2".parse().unwrap(),
        Bar { revision: 6, to: "1".parse().unwrap(), rolled_back, unknown: Default::default() },
    );
    assert!(matches!(case.does(), RolloutCommand::GoBack { at_once: true, .. }));
}

#[test]
fn too_many_tenants_going_back_take_all_back_unless_there_is_no_return() {
    let mut spec = plan_of(&[10, 100]);
    spec.tolerate.tenants = Some(1);
    let mut case = Case::baking(spec.clone(), 0);
    case.live.rollout.counts.rolled_back = 1;
    assert_eq!(case.waits(), WaitFor::Bake);
    case.live.rollout.counts.rolled_back = 2;
    assert!(matches!(case.does(), RolloutCommand::GoBack { cause, .. } if cause == "tenants"));
    spec.steps[0].no_return = true;
    let mut case = Case::baking(spec, 0);
    case.live.rollout.counts.rolled_back = 2;
    assert_eq!(case.does(), RolloutCommand::Hold(PauseKind::NoReturn));
    let (author, reason) = (Author::Autopilot, String::new());
    case.live.rollout.paused =
        Some(Pause { kind: PauseKind::NoReturn, author, reason, since_ms: 0, unknown: Default::default() });
    assert_eq!(case.waits(), WaitFor::Person);
    (case.live.rollout.paused, case.live.rollout.accepted_back) = (None, Some(2));
    assert_eq!(case.waits(), WaitFor::Bake, "a person let it go on");
    case.live.rollout.counts.rolled_back = 3;
    assert_eq!(case.does(), RolloutCommand::Hold(PauseKind::NoReturn), "and it got worse");
}

#[test]
fn of_a_whole_service_the_tenants_that_were_heard_of_count() {
    let mut case = Case::baking(plan_of(&[10, 100]), 0);
    case.live.rollout.counts.rolled_back = 5;
    case.seen.scopes = 100;
    assert_eq!(case.waits(), WaitFor::Bake, "five of more than a hundred");
    case.seen.scopes = 40;
    assert!(matches!(case.does(), RolloutCommand::GoBack { cause, .. } if cause == "tenants"));
}

#[test]
fn steps_wait_for_delay_approval_and_the_windows_of_tenants() {
    let mut spec = plan_of(&[10, 100]);
    spec.batch_delay_ms = 5_000;
    spec.steps[0].approval = true;
    let mut case = Case::new(spec, Phase::Progressing);
    case.live.rollout.bounds = vec![0, 1, 2];
    case.live.rollout.stage = Stage { batch: 1, step: 0 };
    assert_eq!(case.waits(), WaitFor::Delay);
    case.seen.observed_ms = 5_000;
    assert_eq!(case.waits(), WaitFor::Approval);
    case.live.rollout.approved = Some(Stage { batch: 1, step: 0 });
    assert_eq!(case.does(), RolloutCommand::Enter { stage: Stage { batch: 1, step: 0 }, only: None });
    case.live.rollout.bounds = vec![0, 0, 2];
    let scope = |n: &str| Scope::Tenant(TenantName::new(n).unwrap());
    // 1970-01-01, a Thursday, at 00:16.
    let later = Schedule { windows: vec![TimeWindow::new([], "01:00", "02:00", "UTC").unwrap()] };
    let name = |n: &str| TenantName::new(n).unwrap();
    case.tenant_windows.insert(name("a"), later.clone());
    let only = Some(vec![scope("b")]);
    assert_eq!(case.does(), RolloutCommand::Enter { stage: Stage { batch: 1, step: 0 }, only });
    case.tenant_windows.insert(name("b"), later);
    let Next::Wait(waiting) = case.next() else { panic!() };
    assert_eq!((waiting.on, waiting.until_ms), (WaitFor::Window, Some(3_600_000)));
    case.now_ms = 3_600_000;
    assert_eq!(case.does(), RolloutCommand::Enter { stage: Stage { batch: 1, step: 0 }, only: None });
}

#[test]
fn a_batch_of_which_nobody_is_left_does_not_wait() {
    let mut case = Case::baking(plan_of(&[100]), 0);
    for place in 0..2 {
        let counts = &mut case.live.rollout.counts;
        case.live.units.edit(place, counts, |u| u.status = UnitStatus::RolledBack);
    }
    assert_eq!(case.does(), RolloutCommand::Pass { stage: Stage::default() });
}

#[test]
fn the_way_back_is_paced_and_the_end_is_told() {
    let mut spec = plan_of(&[50, 100]);
    spec.back = vec![BasisPoints::new(1_000).unwrap()];
    spec.back_every_ms = 10_000;
    spec.gates = vec![gate(GateAt::Rollback)];
    let mut case = Case::new(spec, Phase::GoingBack);
    let (author, reason) = (Author::Autopilot, String::new());
    case.live.rollout.going_back =
        Some(GoingBack { cause: "x".to_owned(), author, reason, since_ms: 0, step: 0, unknown: Default::default() });
    case.seen.observed_ms = 9_999;
    assert_eq!(case.waits(), WaitFor::Delay);
    case.seen.observed_ms = 10_000;
    assert_eq!(case.does(), RolloutCommand::StepBack);
    case.live.rollout.phase = Phase::RolledBack;
    assert!(matches!(case.next(), Next::Ask(_)));
    let tired = GateRecord { failures: 3, ..GateRecord::default() };
    case.live.rollout.gates.insert("g".to_owned(), tired);
    assert_eq!(case.waits(), WaitFor::Nothing);
}
