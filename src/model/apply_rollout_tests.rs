//! Rollouts one command after the other: what moves, what waits, what goes back, and what nobody may overrule.

use super::super::apply::tests::{
    House, asked, by_autopilot, of_group, of_tenant, percent, person, rollback, service, set, version, weights,
};
use super::super::rollout::{Gate, RolloutSpec, plan};
use super::*;
use crate::model::{Applied, BasisPoints, Change, ChangeRequest, Event, GroupName, Pin, PinTarget, Scope, TenantName};

fn new(spec: RolloutSpec, batches: &[&[Scope]]) -> Change {
    let batches = batches.iter().map(|b| b.to_vec()).collect();
    Change::StartRollout(Box::new(NewRollout { spec, batches, left: Vec::new() }))
}

fn campaign(shares: &[u16]) -> RolloutSpec {
    RolloutSpec { target: Target::Tenants, ..plan(shares) }
}

impl House {
    fn begin(&mut self, change: Change) -> RolloutId {
        let id = self.does(change).commit.events[0].rollout.clone().unwrap();
        self.machine(&id, RolloutCommand::Begin).unwrap();
        id
    }

    fn machine(&mut self, id: &RolloutId, command: RolloutCommand) -> Result<Applied, ChangeError> {
        self.ask(&by_autopilot(Change::Rollout(id.clone(), command)))
    }

    fn someone(&mut self, id: &RolloutId, command: RolloutCommand) -> Result<Applied, ChangeError> {
        self.ask(&asked(Change::Rollout(id.clone(), command)))
    }

    fn enter(&mut self, id: &RolloutId) -> Event {
        let stage = self.rollout(id).stage;
        self.machine(id, RolloutCommand::Enter { stage, only: None }).unwrap().commit.events[0].clone()
    }

    fn pass(&mut self, id: &RolloutId) -> Event {
        let stage = self.rollout(id).stage;
        self.machine(id, RolloutCommand::Pass { stage }).unwrap().commit.events[0].clone()
    }

    fn rollout(&self, id: &RolloutId) -> &Rollout {
        &self.state.rollouts[id].rollout
    }

    fn status(&self, id: &RolloutId, scope: &Scope) -> UnitStatus {
        self.state.rollouts[id].units.get(scope).unwrap().status
    }

    /// The share of version 2 in effect.
    fn share(&self, scope: &Scope) -> f64 {
        let live = self.state.service("api").unwrap();
        let (split, _) = self.state.split_of(&self.structure, &service("api"), scope).unwrap();
        live.weights_in_effect(&split).share("2").percent()
    }
}

#[test]
fn a_service_goes_step_by_step_and_trusts_the_new_version_at_the_end() {
    let mut house = House::new();
    let id = house.begin(new(plan(&[10, 50, 100]), &[&[Scope::Service]]));
    assert_eq!(house.share(&Scope::Service), 0.0);
    for share in [10.0, 50.0, 95.0] {
        house.enter(&id);
        assert_eq!(house.share(&Scope::Service), share);
        house.pass(&id);
    }
    assert_eq!((house.share(&Scope::Service), house.rollout(&id).phase), (100.0, Phase::Finishing));
    let event = house.machine(&id, RolloutCommand::Complete).unwrap().commit.events[0].clone();
    assert_eq!(event.kind, EventKind::RolloutCompleted);
    assert_eq!(house.state.service("api").unwrap().baseline, version("2"));
    assert!(house.rollout(&id).ended_ms.is_some());
    house.someone(&id, RolloutCommand::Undo { force: false }).unwrap();
    assert_eq!((house.share(&Scope::Service), house.rollout(&id).phase), (0.0, Phase::RolledBack));
    assert_eq!(house.state.service("api").unwrap().baseline, version("1"));
}

#[test]
fn batches_of_tenants_go_one_after_the_other() {
    let mut house = House::new();
    let (acme, globex) = (of_tenant("acme"), of_tenant("globex"));
    let id = house.begin(new(campaign(&[20, 100]), &[std::slice::from_ref(&acme), std::slice::from_ref(&globex)]));
    house.enter(&id);
    assert_eq!((house.share(&acme), house.share(&globex)), (20.0, 0.0));
    house.pass(&id);
    house.enter(&id);
    house.pass(&id);
    assert_eq!((house.share(&acme), house.share(&globex)), (100.0, 0.0));
    assert_eq!(house.rollout(&id).stage.to_string(), "2.1");
    assert_eq!(house.status(&id, &acme), UnitStatus::Completed);
    house.enter(&id);
    house.someone(&id, RolloutCommand::Abort { force: false }).unwrap();
    assert_eq!((house.share(&acme), house.share(&globex)), (0.0, 0.0));
    assert_eq!((house.status(&id, &acme), house.rollout(&id).phase), (UnitStatus::Reverted, Phase::Aborted));
    house.someone(&id, RolloutCommand::Retry).unwrap();
    house.machine(&id, RolloutCommand::Begin).unwrap();
    house.enter(&id);
    assert_eq!(house.share(&acme), 20.0);
}

#[test]
fn a_tenant_that_goes_back_stays_back() {
    let mut house = House::new();
    let (acme, globex) = (of_tenant("acme"), of_tenant("globex"));
    let id = house.begin(new(campaign(&[20, 100]), &[&[acme.clone(), globex.clone()]]));
    house.enter(&id);
    house.ask(&by_autopilot(rollback(acme.clone(), Some("2")))).unwrap();
    let unit = house.state.rollouts[&id].units.get(&acme).unwrap();
    assert_eq!((unit.status, unit.event.is_some()), (UnitStatus::RolledBack, true));
    assert_eq!(unit.evidence, json!({ "requests": 7 }));
    house.pass(&id);
    house.enter(&id);
    house.pass(&id);
    assert_eq!((house.share(&acme), house.share(&globex)), (0.0, 100.0));
    house.machine(&id, RolloutCommand::Complete).unwrap();
    assert_eq!((house.rollout(&id).counts.completed, house.rollout(&id).counts.rolled_back), (1, 1));
}

#[test]
fn a_tenant_goes_back_out_of_the_service_and_keeps_it_from_being_trusted() {
    let mut house = House::new();
    let id = house.begin(new(plan(&[100]), &[&[Scope::Service]]));
    house.enter(&id);
    let acme = of_tenant("acme");
    house.ask(&by_autopilot(rollback(acme.clone(), Some("2")))).unwrap();
    assert_eq!(house.rollout(&id).counts.rolled_back, 1);
    house.does(rollback(acme.clone(), Some("2")));
    house.does(rollback(of_tenant("nobody"), Some("3")));
    assert_eq!(house.rollout(&id).counts.rolled_back, 1, "what has nothing to give back does not count");
    house.pass(&id);
    house.machine(&id, RolloutCommand::Complete).unwrap();
    assert_eq!((house.share(&acme), house.share(&Scope::Service)), (0.0, 100.0));
    assert_eq!(house.state.service("api").unwrap().baseline, version("1"));
}

#[test]
fn the_machine_never_moves_on_what_a_person_stopped() {
    let mut house = House::new();
    let id = house.begin(new(plan(&[10, 100]), &[&[Scope::Service]]));
    let enter = RolloutCommand::Enter { stage: Stage::default(), only: None };
    house.someone(&id, RolloutCommand::Pause).unwrap();
    assert!(matches!(house.machine(&id, enter.clone()), Err(ChangeError::Nothing(_))));
    house.someone(&id, RolloutCommand::Resume).unwrap();
    house.does(Change::SetHold);
    assert!(matches!(house.machine(&id, enter.clone()), Err(ChangeError::Nothing(_))));
    house.does(Change::ClearHold);
    house.machine(&id, enter.clone()).unwrap();
    assert!(matches!(house.machine(&id, enter), Err(ChangeError::Nothing(_))), "no step twice");
    let beyond = RolloutCommand::Pass { stage: Stage { batch: 0, step: 1 } };
    assert!(matches!(house.machine(&id, beyond), Err(ChangeError::Nothing(_))));
}

#[test]
fn what_a_person_sets_is_the_persons() {
    let mut house = House::new();
    let (acme, globex) = (of_tenant("acme"), of_tenant("globex"));
    let id = house.begin(new(campaign(&[20, 100]), &[std::slice::from_ref(&acme), std::slice::from_ref(&globex)]));
    house.enter(&id);
    house.does(set(acme.clone(), "1=50 2=50"));
    house.does(set(globex.clone(), "1=70 2=30"));
    assert_eq!(house.status(&id, &acme), UnitStatus::Overridden);
    house.pass(&id);
    house.someone(&id, RolloutCommand::Abort { force: false }).unwrap();
    assert_eq!((house.share(&acme), house.share(&globex)), (50.0, 30.0));
    assert!(house.state.tenant("api", "acme").unwrap().by.is_none());
}

#[test]
fn a_service_split_that_a_person_sets_stops_the_rollout_until_it_is_resumed() {
    let mut house = House::new();
    let id = house.begin(new(plan(&[10, 50, 100]), &[&[Scope::Service]]));
    house.enter(&id);
    house.does(set(Scope::Service, "1=70 2=30"));
    assert_eq!(house.rollout(&id).paused.as_ref().unwrap().kind, PauseKind::Overridden);
    house.someone(&id, RolloutCommand::Resume).unwrap();
    house.pass(&id);
    house.enter(&id);
    assert_eq!(house.share(&Scope::Service), 50.0);
}

#[test]
fn no_step_without_its_gate_and_its_approval() {
    let gate = |name: &str, at| Gate {
        name: name.to_owned(),
        at,
        step: None,
        url: "http://127.0.0.1:1/".to_owned(),
        secret: None,
        timeout_ms: 1_000,
        unknown: Default::default(),
    };
    let mut spec = plan(&[10, 100]);
    spec.gates = vec![gate("migrate", GateAt::BeforeStep), gate("done", GateAt::Completion)];
    spec.steps[1].approval = true;
    let mut house = House::new();
    let id = house.begin(new(spec, &[&[Scope::Service]]));
    let enter = |step| RolloutCommand::Enter { stage: Stage { batch: 0, step }, only: None };
    let answer = |key: &str, open| RolloutCommand::Gate { key: key.to_owned(), open, said: "503".to_owned() };
    assert!(house.machine(&id, enter(0)).is_err());
    house.machine(&id, answer("migrate@1.1", false)).unwrap();
    assert!(house.machine(&id, enter(0)).is_err());
    house.machine(&id, answer("migrate@1.1", true)).unwrap();
    house.machine(&id, enter(0)).unwrap();
    house.pass(&id);
    house.machine(&id, answer("migrate@1.2", true)).unwrap();
    assert!(house.machine(&id, enter(1)).unwrap_err().to_string().contains("not approved"));
    let approve =
        |stage: Option<&str>| RolloutCommand::Promote { stage: stage.map(|s| s.parse().unwrap()), full: false };
    assert!(matches!(house.someone(&id, approve(None)), Err(ChangeError::NotNow { .. })));
    assert!(matches!(house.someone(&id, approve(Some("1"))), Err(ChangeError::NotNow { .. })), "a stale approval");
    house.someone(&id, approve(Some("2"))).unwrap();
    house.machine(&id, enter(1)).unwrap();
    house.pass(&id);
    assert!(house.machine(&id, RolloutCommand::Complete).is_err());
    house.machine(&id, answer("done", true)).unwrap();
    house.machine(&id, RolloutCommand::Complete).unwrap();
}

#[test]
fn past_the_point_of_no_return_people_decide() {
    let mut spec = plan(&[10, 50, 100]);
    spec.steps[1].no_return = true;
    let mut house = House::new();
    let id = house.begin(new(spec, &[&[Scope::Service]]));
    house.enter(&id);
    house.pass(&id);
    house.enter(&id);
    let breach = by_autopilot(rollback(of_tenant("acme"), Some("2")));
    assert_eq!(house.ask(&breach).unwrap().commit.events[0].kind, EventKind::RolloutPaused);
    assert_eq!(house.share(&of_tenant("acme")), 50.0);
    assert!(matches!(house.ask(&breach), Err(ChangeError::Nothing(_))), "told once");
    let cause = RolloutCommand::GoBack { cause: "tenants".to_owned(), at_once: true };
    assert!(house.machine(&id, cause).is_err());
    assert!(house.someone(&id, RolloutCommand::Abort { force: false }).is_err());
    house.someone(&id, RolloutCommand::Abort { force: true }).unwrap();
    assert_eq!(house.share(&Scope::Service), 0.0);
}

#[test]
fn going_back_in_steps_lowers_and_then_ends() {
    let spec = RolloutSpec { back: vec![percent(40.0), percent(10.0)], ..plan(&[50, 100]) };
    let mut house = House::new();
    let id = house.begin(new(spec, &[&[Scope::Service]]));
    house.enter(&id);
    let back = RolloutCommand::GoBack { cause: "blast_radius".to_owned(), at_once: false };
    house.machine(&id, back).unwrap();
    assert_eq!((house.share(&Scope::Service), house.rollout(&id).phase), (40.0, Phase::GoingBack));
    house.machine(&id, RolloutCommand::StepBack).unwrap();
    assert_eq!(house.share(&Scope::Service), 10.0);
    house.machine(&id, RolloutCommand::StepBack).unwrap();
    assert_eq!((house.share(&Scope::Service), house.rollout(&id).phase), (0.0, Phase::RolledBack));
    assert!(house.machine(&id, RolloutCommand::StepBack).is_err());
}

#[test]
fn everyone_at_once_still_bakes() {
    let mut house = House::new();
    let all = ["a", "b", "c"].map(of_tenant);
    let batches: Vec<&[Scope]> = all.iter().map(std::slice::from_ref).collect();
    let id = house.begin(new(campaign(&[10, 100]), &batches));
    house.enter(&id);
    house.someone(&id, RolloutCommand::Promote { stage: None, full: true }).unwrap();
    assert!(!house.rollout(&id).in_effect);
    house.enter(&id);
    assert_eq!(all.each_ref().map(|t| house.share(t)), [95.0; 3]);
    house.pass(&id);
    assert_eq!((all.each_ref().map(|t| house.share(t)), house.rollout(&id).phase), ([100.0; 3], Phase::Finishing));
}

#[test]
fn one_rollout_at_a_time_and_only_of_versions_that_are_there() {
    let mut house = House::new();
    let start = || new(plan(&[100]), &[&[Scope::Service]]);
    house.does(start());
    assert!(matches!(house.ask(&asked(start())), Err(ChangeError::Running { .. })));
    let mut house = House::new();
    let from = RolloutSpec { from: version("3"), ..plan(&[100]) };
    assert!(house.ask(&asked(new(from, &[&[Scope::Service]]))).unwrap_err().to_string().contains("baseline"));
    let to = RolloutSpec { to: version("9"), ..plan(&[100]) };
    assert!(matches!(house.ask(&asked(new(to, &[&[Scope::Service]]))), Err(ChangeError::UnknownVersion { .. })));
    assert!(house.ask(&asked(new(campaign(&[100]), &[]))).is_err(), "nobody to move");
    let twice = [of_tenant("a"), of_tenant("a")];
    assert!(house.ask(&asked(new(campaign(&[100]), &[&twice]))).unwrap_err().to_string().contains("twice"));
    house.does(Change::DisableVersion(version("2")));
    assert!(matches!(house.ask(&asked(start())), Err(ChangeError::Disabled { .. })));
}

#[test]
fn tenants_that_are_to_stay_do_not_follow_the_service() {
    let left = vec![Unit::new(of_tenant("acme"), UnitStatus::Excluded, String::new())];
    let batches = vec![vec![Scope::Service]];
    let change = Change::StartRollout(Box::new(NewRollout { spec: plan(&[100]), batches, left }));
    let mut house = House::new();
    let id = house.begin(change);
    house.enter(&id);
    house.pass(&id);
    assert_eq!((house.share(&of_tenant("acme")), house.share(&of_tenant("globex"))), (0.0, 100.0));
}

#[test]
fn a_group_moves_as_one() {
    let beta = of_group("beta");
    let target = Target::Groups(vec!["beta".parse().unwrap()]);
    let mut house = House::new();
    let id = house.begin(new(RolloutSpec { target, ..plan(&[30, 100]) }, &[std::slice::from_ref(&beta)]));
    house.enter(&id);
    assert_eq!((house.share(&of_tenant("acme")), house.share(&of_tenant("initech"))), (30.0, 0.0));
    house.ask(&by_autopilot(rollback(of_tenant("acme"), Some("2")))).unwrap();
    assert_eq!((house.share(&of_tenant("acme")), house.share(&of_tenant("globex"))), (0.0, 30.0));
    house.someone(&id, RolloutCommand::Abort { force: false }).unwrap();
    assert_eq!(house.share(&of_tenant("globex")), 0.0);
}

#[test]
fn a_rollback_of_the_whole_service_is_seen() {
    let mut house = House::new();
    let id = house.begin(new(plan(&[10, 100]), &[&[Scope::Service]]));
    house.enter(&id);
    let live = |house: &House| house.state.rollouts[&id].clone();
    assert!(live(&house).barred_since(house.state.service("api").unwrap()).is_none());
    house.ask(&by_autopilot(rollback(Scope::Service, Some("2")))).unwrap();
    assert!(live(&house).barred_since(house.state.service("api").unwrap()).is_some());
    house.machine(&id, RolloutCommand::GoBack { cause: "fleet".to_owned(), at_once: true }).unwrap();
    assert_eq!((house.rollout(&id).phase, house.share(&Scope::Service)), (Phase::RolledBack, 0.0));
    house.someone(&id, RolloutCommand::Retry).unwrap();
    assert!(live(&house).barred_since(house.state.service("api").unwrap()).is_none());
}

#[test]
fn a_rollout_is_read_back_as_it_was() {
    let mut house = House::new();
    let tenants: Vec<_> = (0..450).map(|i| of_tenant(&format!("t{i}"))).collect();
    let batches: Vec<&[Scope]> = tenants.chunks(50).collect();
    let id = house.begin(new(campaign(&[100]), &batches));
    let event = house.enter(&id);
    assert_eq!(event.after["counts"]["in_progress"], 50);
    let documents: Vec<_> = house.state.to_documents().collect();
    let again = State::from_documents(house.state.revision, &documents).unwrap();
    assert_eq!(again.rollouts, house.state.rollouts);
}

#[test]
fn the_units_of_the_last_rollout_go_when_another_one_begins() {
    let mut house = House::new();
    let id = house.begin(new(campaign(&[100]), &[&[of_tenant("acme")]]));
    house.someone(&id, RolloutCommand::Abort { force: false }).unwrap();
    house.does(new(campaign(&[100]), &[&[of_tenant("acme")]]));
    assert!(house.state.rollouts[&id].units.is_empty());
    assert!(matches!(house.someone(&id, RolloutCommand::Retry), Err(ChangeError::Running { .. })));
}

#[test]
fn pins_and_weights_of_others_stay_out_of_it() {
    let mut house = House::new();
    house.does(set(of_tenant("acme"), "1=50 3=50"));
    house.does(Change::SetPin(PinTarget::Tenant(TenantName::new("x").unwrap()), Pin::Exclude(version("2"))));
    let id = house.begin(new(campaign(&[100]), &[&[of_tenant("acme"), of_tenant("globex")]]));
    assert_eq!(house.status(&id, &of_tenant("acme")), UnitStatus::Overridden);
    assert_eq!(weights("1=50 3=50").share("2").percent(), house.share(&of_tenant("acme")));
    let id2: ChangeRequest = asked(Change::Rollout("r9999".parse().unwrap(), RolloutCommand::Pause));
    assert!(matches!(house.ask(&id2), Err(ChangeError::UnknownRollout { .. })));
    assert_eq!(house.rollout(&id).author, person());
}

#[test]
fn the_old_version_is_kept_while_the_rollout_may_be_undone() {
    let mut house = House::new();
    let spec = RolloutSpec { keep_warm_ms: 60_000, ..plan(&[100]) };
    let id = house.begin(new(spec, &[&[Scope::Service]]));
    let uses = |house: &House, v: &str, at| house.state.uses_of(&service("api"), &version(v), at);
    assert!(uses(&house, "2", 0).unwrap().contains(id.as_str()), "a rollout on its way needs both");
    house.enter(&id);
    house.pass(&id);
    house.machine(&id, RolloutCommand::Complete).unwrap();
    let ended = house.rollout(&id).ended_ms.unwrap();
    let why = uses(&house, "1", ended + 59_999).unwrap();
    assert!(why.contains("kept warm until 1970") && why.contains(id.as_str()), "{why}");
    assert_eq!(uses(&house, "1", ended + 60_000), None);
}

#[test]
fn what_was_asked_for_before_a_freeze_or_a_rollback_comes_too_late() {
    let mut house = House::new();
    let id = house.begin(new(plan(&[10, 100]), &[&[Scope::Service]]));
    house.enter(&id);
    house.ask(&by_autopilot(rollback(Scope::Service, Some("2")))).unwrap();
    let pass = RolloutCommand::Pass { stage: Stage::default() };
    assert!(matches!(house.machine(&id, pass), Err(ChangeError::Nothing(_))), "its traffic is gone");
    let mut house = House::new();
    let id = house.begin(new(plan(&[10, 100]), &[&[Scope::Service]]));
    house.state.freeze = Some(crate::model::Freeze {
        format: 1,
        revision: 1,
        author: person(),
        reason: String::new(),
        since_ms: 0,
        until_ms: None,
        unknown: Default::default(),
    });
    let enter = RolloutCommand::Enter { stage: Stage::default(), only: None };
    assert!(matches!(house.machine(&id, enter), Err(ChangeError::Nothing(_))), "everything is frozen");
}

#[test]
fn trusting_a_version_does_not_bring_back_what_was_rolled_back_of_it() {
    let mut house = House::new();
    house.does(set(of_tenant("acme"), "1=50 2=50"));
    house.ask(&by_autopilot(rollback(Scope::Service, Some("2")))).unwrap();
    assert_eq!(house.share(&of_tenant("acme")), 0.0);
    let id = house.begin(new(plan(&[100]), &[&[Scope::Service]]));
    house.enter(&id);
    house.pass(&id);
    house.machine(&id, RolloutCommand::Complete).unwrap();
    assert_eq!(house.state.service("api").unwrap().baseline, version("2"));
    assert_eq!((house.share(&of_tenant("acme")), house.share(&Scope::Service)), (0.0, 100.0));
}

#[test]
fn what_went_back_by_way_of_the_trusted_version_does_not_come_back_either() {
    let mut house = House::new();
    let acme = of_tenant("acme");
    let finish = |house: &mut House, spec: RolloutSpec| {
        let id = house.begin(new(spec, &[&[Scope::Service]]));
        house.enter(&id);
        house.pass(&id);
        house.machine(&id, RolloutCommand::Complete).unwrap();
    };
    house.does(set(acme.clone(), "3=100"));
    house.does(rollback(Scope::Service, Some("3")));
    finish(&mut house, plan(&[100]));
    assert_eq!(house.share(&acme), 0.0, "version 1 took over from version 3");
    house.does(rollback(Scope::Service, Some("1")));
    assert_eq!(house.share(&acme), 100.0, "and version 2 from version 1");
    finish(&mut house, RolloutSpec { from: version("2"), to: version("1"), ..plan(&[100]) });
    assert_eq!((house.share(&acme), house.share(&Scope::Service)), (100.0, 0.0));
}

#[test]
fn what_the_guard_holds_back_is_held_back_on_the_next_step_too() {
    let mut house = House::new();
    let acme = of_tenant("acme");
    let back = vec![BasisPoints::new(2_000).unwrap()];
    let id = house.begin(new(RolloutSpec { back, ..plan(&[10, 50, 100]) }, &[&[Scope::Service]]));
    house.enter(&id);
    house.pass(&id);
    let brake = Change::Brake { scope: acme.clone(), canary: version("2"), share: BasisPoints::new(100).unwrap() };
    house.ask(&by_autopilot(brake)).unwrap();
    house.enter(&id);
    assert_eq!((house.share(&acme), house.share(&Scope::Service)), (1.0, 50.0));
    house.machine(&id, RolloutCommand::GoBack { cause: "tenants".to_owned(), at_once: false }).unwrap();
    assert_eq!((house.share(&acme), house.share(&Scope::Service)), (1.0, 20.0), "nobody gets more on the way back");
    house.ask(&by_autopilot(Change::ReleaseBrake { scope: acme.clone() })).unwrap();
    assert_eq!(house.share(&acme), 20.0);
}

#[test]
fn a_group_that_moves_leaves_the_brakes_of_others_alone() {
    let mut house = House::new();
    let [globex, initech, other] = ["globex", "initech", "other"].map(of_tenant);
    house.does(set(Scope::Service, "1=50 2=50"));
    for scope in [&globex, &initech, &other] {
        let brake = Change::Brake { scope: scope.clone(), canary: version("2"), share: BasisPoints::new(100).unwrap() };
        house.ask(&by_autopilot(brake)).unwrap();
    }
    let groups = vec![GroupName::new("beta").unwrap(), GroupName::new("early").unwrap()];
    let spec = RolloutSpec { target: Target::Groups(groups), ..plan(&[60, 100]) };
    let id = house.begin(new(spec, &[&[of_group("early"), of_group("beta")]]));
    house.enter(&id);
    assert_eq!((house.share(&of_group("beta")), house.share(&of_group("early"))), (60.0, 60.0));
    assert_eq!([&globex, &initech, &other].map(|scope| house.share(scope)), [1.0; 3]);
    house.pass(&id);
    house.enter(&id);
    assert_eq!([&globex, &initech, &other].map(|scope| house.share(scope)), [1.0; 3]);
}

#[test]
fn who_decides_about_a_group_decides_about_its_tenants() {
    for decision in [rollback(of_group("beta"), Some("2")), set(of_group("beta"), "1=100")] {
        let mut house = House::new();
        let (initech, globex) = (of_tenant("initech"), of_tenant("globex"));
        let batches = [std::slice::from_ref(&initech), std::slice::from_ref(&globex)];
        let id = house.begin(new(campaign(&[100]), &batches));
        house.enter(&id);
        house.does(decision);
        house.pass(&id);
        house.enter(&id);
        assert_eq!((house.share(&initech), house.share(&globex)), (100.0, 0.0));
        assert_eq!(house.status(&id, &globex), UnitStatus::Overridden);
    }
}

#[test]
fn a_completed_rollout_leaves_nobody_to_the_split_of_a_group() {
    let mut house = House::new();
    house.does(set(of_group("beta"), "1=100"));
    let member = house.structure.tenants.groups[&GroupName::new("beta").unwrap()].first().unwrap().clone();
    let member = Scope::Tenant(member);
    let id = house.begin(new(plan(&[100]), &[std::slice::from_ref(&member), &[Scope::Service]]));
    for _ in 0..2 {
        house.enter(&id);
        house.pass(&id);
    }
    house.machine(&id, RolloutCommand::Complete).unwrap();
    assert_eq!((house.share(&of_group("beta")), house.share(&member)), (0.0, 100.0));
}

#[test]
fn a_rollout_with_further_versions_goes_on_by_itself() {
    let mut house = House::new();
    let spec = RolloutSpec { then: vec![version("3")], ..plan(&[50, 100]) };
    let first = house.begin(new(spec, &[&[of_tenant("acme")], &[Scope::Service]]));
    for _ in 0..4 {
        house.enter(&first);
        house.pass(&first);
    }
    house.machine(&first, RolloutCommand::Complete).unwrap();
    let second = house.state.running_rollout(&service("api")).unwrap().rollout.id.clone();
    let next = house.rollout(&second).clone();
    assert_eq!((next.follows.as_ref(), next.phase, next.spec.then.len()), (Some(&first), Phase::Pending, 0));
    assert_eq!((next.spec.from.as_str(), next.spec.to.as_str(), next.counts.pending), ("2", "3", 2));
    house.machine(&second, RolloutCommand::Begin).unwrap();
    for _ in 0..4 {
        house.enter(&second);
        house.pass(&second);
    }
    house.machine(&second, RolloutCommand::Complete).unwrap();
    assert_eq!(house.state.service("api").unwrap().baseline, version("3"));
    assert!(house.state.running_rollout(&service("api")).is_none());
    let undo = RolloutCommand::Undo { force: false };
    assert!(matches!(house.someone(&first, undo.clone()), Err(ChangeError::NotNow { .. })), "only the last one");
    house.someone(&second, undo).unwrap();
    assert_eq!(house.state.service("api").unwrap().baseline, version("2"));
}

#[test]
fn somebody_who_stayed_behind_ends_the_way() {
    let mut house = House::new();
    let spec = RolloutSpec { then: vec![version("3")], ..plan(&[100]) };
    let id = house.begin(new(spec, &[&[Scope::Service]]));
    house.enter(&id);
    house.ask(&by_autopilot(rollback(of_tenant("acme"), Some("2")))).unwrap();
    house.pass(&id);
    house.machine(&id, RolloutCommand::Complete).unwrap();
    assert!(house.state.running_rollout(&service("api")).is_none());
}

/// A rollout of the service from 1 over 2 to 3, by two tenants and then the service.
fn chain() -> Change {
    let spec = RolloutSpec { then: vec![version("3")], batch: Some(1), ..plan(&[100]) };
    new(spec, &[&[of_tenant("acme")], &[of_tenant("globex")], &[Scope::Service]])
}

impl House {
    /// Every batch of a rollout, up to the end.
    fn finish(&mut self, id: &RolloutId) -> Applied {
        while self.rollout(id).phase == Phase::Progressing {
            self.enter(id);
            self.pass(id);
        }
        self.machine(id, RolloutCommand::Complete).unwrap()
    }
}

#[test]
fn a_chain_goes_on_by_the_same_plan_in_the_commit_that_completes_a_leg() {
    let mut house = House::new();
    let first = house.begin(chain());
    let applied = house.finish(&first);
    let told: Vec<_> = applied.commit.events.iter().map(|e| (e.kind, e.rollout.clone().unwrap())).collect();
    let second = house.rollout(&first).followed_by.clone().unwrap();
    assert_eq!(told, [(EventKind::RolloutCompleted, first.clone()), (EventKind::RolloutStarted, second.clone())]);
    let next = house.rollout(&second).clone();
    assert_eq!((next.phase, next.follows.as_ref(), next.batches()), (Phase::Pending, Some(&first), 3));
    assert_eq!((next.spec.from.as_str(), next.spec.to.as_str(), next.spec.then.len()), ("2", "3", 0));
    assert_eq!((next.counts.pending, next.counts.total()), (3, 3));
    assert_eq!(next.first_event, applied.commit.events[1].id);
    assert!(house.state.rollouts[&first].units.is_empty(), "its units are put away");
    house.machine(&second, RolloutCommand::Begin).unwrap();
    let applied = house.finish(&second);
    assert_eq!(applied.commit.events.len(), 1);
    assert_eq!(house.state.service("api").unwrap().baseline, version("3"));
    assert_eq!(house.rollout(&second).followed_by, None);
    assert!(house.someone(&first, RolloutCommand::Undo { force: false }).is_err());
    house.someone(&second, RolloutCommand::Undo { force: false }).unwrap();
    assert_eq!(house.state.service("api").unwrap().baseline, version("2"));
}

#[test]
fn a_chain_ends_where_somebody_stayed_behind_or_the_next_version_cannot_follow() {
    let why = |house: &House, id: &RolloutId| {
        assert_eq!(house.rollout(id).followed_by, None);
        house.rollout(id).not_followed.clone().unwrap()
    };
    let mut house = House::new();
    let id = house.begin(chain());
    house.enter(&id);
    house.ask(&by_autopilot(rollback(of_tenant("acme"), Some("2")))).unwrap();
    house.pass(&id);
    house.finish(&id);
    assert_eq!(why(&house, &id), "It does not go on to 3: 1 of 3 stayed behind.");
    let mut house = House::new();
    let id = house.begin(chain());
    house.does(Change::DisableVersion(version("3")));
    house.finish(&id);
    assert!(why(&house, &id).contains("disabled"), "{}", why(&house, &id));
    assert_eq!(house.state.service("api").unwrap().baseline, version("2"), "this leg is complete all the same");
}

#[test]
fn only_the_service_goes_through_versions_and_only_those_that_may_follow() {
    let mut house = House::new();
    let tenants = RolloutSpec { then: vec![version("3")], ..campaign(&[100]) };
    let refused = house.refuses(new(tenants, &[&[of_tenant("acme")]])).to_string();
    assert!(refused.starts_with("then: goes on from the baseline"), "{refused}");
    let registered = crate::model::VersionSpec {
        endpoints: vec!["127.0.0.1:7009".parse().unwrap()],
        health: None,
        timeouts: Default::default(),
        path: None,
        rewrite: None,
        http2: false,
        tls: None,
        host: None,
        deprecated: None,
        upgrade_from: vec![version("2"), version("3")],
        unknown: Default::default(),
    };
    house.does(Change::PutVersion(version("4"), Arc::new(registered)));
    let to = |to: &str, then: &[&str]| {
        let then = then.iter().map(|v| version(v)).collect();
        new(RolloutSpec { to: version(to), then, ..plan(&[100]) }, &[&[Scope::Service]])
    };
    let refused = house.refuses(to("4", &[])).to_string();
    assert_eq!(refused, "4 cannot follow 1; its upgrade_from allows 2, 3");
    house.does(to("3", &["4"]));
}
