//! Changes of the whole proxy: the freeze, and snapshots one by one and at random.

use super::at_random::any_request;
use super::*;
use crate::model::{
    GlobalChange, GlobalRequest, Restore, Slices, Snapshot, SnapshotName, Snapshots, SplitSnapshot, Withheld,
};

impl House {
    fn ask_global(&mut self, request: &GlobalRequest) -> Result<Applied, ChangeError> {
        let before = documents(&self.state);
        let applied = self.state.apply_global(&self.structure, request, self.next_event, self.now_ms());
        assert_eq!(documents(&self.state), before, "the state before lives on");
        let applied = applied?;
        let revision = self.state.revision + 1;
        assert_eq!(applied.state.revision, revision);
        assert_eq!((applied.commit.expected, applied.commit.revision), (self.state.revision, revision));
        let mut written = before;
        applied.commit.deletes.iter().for_each(|key| drop(written.remove(&key.to_string())));
        for (key, body) in applied.commit.puts.iter().filter(|(key, _)| !key.is_archived()) {
            written.insert(key.to_string(), Document { key: key.clone(), revision, body: body.clone() });
        }
        assert_eq!(written, documents(&applied.state), "the documents written are exactly those that changed");
        let ids: Vec<_> = applied.commit.events.iter().map(|e| e.id).collect();
        self.next_event += ids.len() as u64;
        assert_eq!(*ids.last().unwrap(), self.next_event - 1, "events are numbered on");
        self.state = applied.state.clone();
        Ok(applied)
    }

    fn now_ms(&self) -> u64 {
        1_000 * self.next_event
    }

    fn global(&mut self, change: GlobalChange) -> Result<Applied, ChangeError> {
        self.ask_global(&by(person(), change))
    }

    /// Takes a snapshot by way of its documents.
    fn takes(&mut self, name: &str) -> Arc<Snapshot> {
        let snapshot = Snapshot::of(&self.state, self.state.services.keys());
        self.global(take(name, &snapshot, self.now_ms())).unwrap();
        Arc::new(read_back(&snapshot))
    }

    fn restores(&mut self, snapshot: &Arc<Snapshot>, force: bool) -> Applied {
        self.global(restore("monday", snapshot, None, force)).unwrap()
    }

    fn plan(&self, snapshot: &Snapshot, force: bool) -> Result<Restore, ChangeError> {
        self.state.plan_restore(&self.structure, snapshot, None, force)
    }
}

fn by(author: Author, change: GlobalChange) -> GlobalRequest {
    GlobalRequest { change, author, reason: "because".to_owned(), if_revision: None }
}

fn named(name: &str) -> SnapshotName {
    SnapshotName::new(name).unwrap()
}

fn take(name: &str, snapshot: &Snapshot, at_ms: u64) -> GlobalChange {
    let summary = Box::new(snapshot.summary(person(), String::new(), at_ms));
    let name = named(name);
    GlobalChange::TakeSnapshot { documents: Arc::new(snapshot.to_documents(&name)), name, summary }
}

fn restore(name: &str, snapshot: &Arc<Snapshot>, services: Option<Vec<ServiceName>>, force: bool) -> GlobalChange {
    GlobalChange::RestoreSnapshot { name: named(name), snapshot: snapshot.clone(), services, force }
}

/// The snapshot as the archive gives it back.
fn read_back(snapshot: &Snapshot) -> Snapshot {
    let (name, summary) = (named("x"), snapshot.summary(person(), String::new(), 0));
    let documents: BTreeMap<_, _> = snapshot.to_documents(&name).into_iter().collect();
    let services = summary.keys(&name).map(|(service, keys)| {
        let bodies = keys.iter().map(|key| documents[key].as_str());
        (service.clone(), Snapshot::read_service(bodies).unwrap())
    });
    Snapshot { revision: snapshot.revision, services: services.collect() }
}

fn kinds(applied: &Applied) -> Vec<(EventKind, Option<&str>)> {
    applied.commit.events.iter().map(|e| (e.kind, e.service.as_ref().map(|s| s.as_str()))).collect()
}

fn withheld(whose: &str, name: &str, why: &'static str) -> Withheld {
    Withheld { whose: whose.to_owned(), version: version(name), why }
}

#[test]
fn a_freeze_is_set_changed_and_cleared_by_people() {
    let mut house = House::new();
    let begun = house.global(GlobalChange::SetFreeze { until_ms: None }).unwrap();
    assert_eq!(kinds(&begun), [(EventKind::FreezeSet, None)]);
    assert_eq!((begun.document_revision, &begun.after["reason"]), (house.state.revision, &json!("because")));
    let since = house.state.freeze.clone().unwrap().since_ms;
    let until_ms = Some(house.now_ms() + 5_000);
    let changed = house.global(GlobalChange::SetFreeze { until_ms }).unwrap();
    let freeze = house.state.freeze.clone().unwrap();
    assert_eq!((freeze.since_ms, freeze.until_ms), (since, until_ms), "since it began");
    assert_eq!(changed.commit.events[0].before["until_ms"], Value::Null);
    check_round_trip(&house);

    let stale = GlobalRequest { if_revision: Some(1), ..by(person(), GlobalChange::ClearFreeze) };
    let current = freeze.revision;
    assert_eq!(house.ask_global(&stale).unwrap_err(), ChangeError::StaleRevision { expected: 1, current });
    for change in [GlobalChange::ClearFreeze, GlobalChange::SetFreeze { until_ms: None }] {
        let error = house.ask_global(&by(Author::Autopilot, change)).unwrap_err();
        assert_eq!(error, ChangeError::Invalid("a freeze is set and cleared by people only".to_owned()));
    }
    let cleared = house.global(GlobalChange::ClearFreeze).unwrap();
    assert_eq!((kinds(&cleared)[0].0, cleared.document_revision), (EventKind::FreezeCleared, 0));
    assert_eq!(house.state.freeze, None);
    let error = house.global(GlobalChange::ClearFreeze).unwrap_err();
    assert_eq!(error, ChangeError::NotThere { what: "a freeze".to_owned() });
    check_round_trip(&house);
}

#[test]
fn a_freeze_that_has_ended_is_none() {
    let mut house = House::new();
    let now = house.now_ms();
    for until in [0, now, now + crate::model::Freeze::MAX_MS + 1] {
        let error = house.global(GlobalChange::SetFreeze { until_ms: Some(until) }).unwrap_err();
        assert!(error.to_string().contains("within 366 days"), "{error}");
    }
    house.global(GlobalChange::SetFreeze { until_ms: Some(now + 1) }).unwrap();
    assert!(house.state.freeze_at(now).is_some() && house.state.freeze_at(now + 1).is_none());
    assert!(matches!(house.global(GlobalChange::ClearFreeze), Err(ChangeError::NotThere { .. })));
    let again = house.global(GlobalChange::SetFreeze { until_ms: None }).unwrap();
    assert_eq!(again.commit.events[0].before, Value::Null, "a new one, not the old one changed");
    assert_eq!(house.state.freeze.as_ref().unwrap().since_ms, now + 1_000);
}

#[test]
fn snapshots_have_names_a_bound_and_an_end() {
    let mut house = House::new();
    let snapshot = Snapshot::of(&house.state, house.state.services.keys());
    let taken = house.global(take("monday", &snapshot, 5)).unwrap();
    assert_eq!(kinds(&taken), [(EventKind::SnapshotTaken, None)]);
    let archived: Vec<_> = taken.commit.puts.iter().map(|(k, _)| k.to_string()).filter(|k| k != "snapshots").collect();
    assert_eq!(archived, ["archive/snapshot/monday/api/0", "archive/snapshot/monday/web/0"]);
    let error = house.global(take("monday", &snapshot, 6)).unwrap_err().to_string();
    assert!(error.contains("there is a snapshot \"monday\" already"), "{error}");
    check_round_trip(&house);
    for n in 1..Snapshots::MAX as u64 {
        house.global(take(&format!("s{n}"), &snapshot, 5 + n)).unwrap();
    }
    let error = house.global(take("one-more", &snapshot, 999)).unwrap_err().to_string();
    assert!(error.contains("there are 100 snapshots") && error.contains("the oldest, \"monday\""), "{error}");
    let gone = house.global(GlobalChange::DeleteSnapshot(named("monday"))).unwrap();
    assert_eq!(kinds(&gone), [(EventKind::SnapshotDeleted, None)]);
    assert_eq!(gone.commit.deletes.iter().map(ToString::to_string).collect::<Vec<_>>(), archived);
    for change in
        [GlobalChange::DeleteSnapshot(named("monday")), restore("monday", &Arc::new(snapshot.clone()), None, false)]
    {
        let error = house.global(change).unwrap_err();
        assert_eq!(error, ChangeError::NotThere { what: "the snapshot \"monday\"".to_owned() });
    }
    house.global(take("one-more", &snapshot, 999)).unwrap();
    let error = house.ask_global(&by(Author::Autopilot, GlobalChange::DeleteSnapshot(named("s1")))).unwrap_err();
    assert!(error.to_string().contains("by people only"), "{error}");
}

#[test]
fn another_snapshot_of_the_same_name_is_not_restored_by_mistake() {
    let mut house = House::new();
    let old = house.takes("monday");
    house.global(GlobalChange::DeleteSnapshot(named("monday"))).unwrap();
    house.takes("monday");
    let error = house.global(restore("monday", &old, None, false)).unwrap_err();
    assert!(matches!(error, ChangeError::NotThere { .. }), "{error}");
}

#[test]
fn the_same_keys_return_to_the_same_versions() {
    let mut house = House::new().does_all([
        set(Scope::Service, "1=80 2=20"),
        set(of_group("beta"), "1=50 2=50"),
        set(of_tenant("acme"), "1=70 3=30"),
        Change::SetPin(pin_user("alice"), Pin::Version(version("2"))),
        Change::SetHold,
    ]);
    let before = house.state.clone();
    let snapshot = house.takes("monday");
    house = house.does_all([
        set(Scope::Service, "2=100"),
        set(Scope::Service, "1=90 3=10"),
        Change::ClearSplit { scope: of_group("beta") },
        Change::ClearSplit { scope: of_tenant("acme") },
        set(of_tenant("globex"), "3=100"),
        set(of_group("early"), "3=100"),
        Change::ClearPin(pin_user("alice")),
        Change::SetPin(pin_user("bob"), Pin::Exclude(version("2"))),
        Change::ClearHold,
        Change::SetBaseline(version("3")),
    ]);
    let applied = house.restores(&snapshot, false);
    assert_eq!(kinds(&applied), [(EventKind::SnapshotRestored, Some(API))], "only services that change");
    let told = &applied.commit.events[0].after;
    let changed = json!({ "baseline": true, "split": true, "groups": 2, "tenants": 2, "pins": 2, "hold": true });
    assert_eq!((&told["snapshot"], &told["changed"]), (&json!("monday"), &changed));
    assert_eq!((&told["withheld"], &applied.commit.events[0].before["baseline"]), (&json!(0), &json!("3")));

    let (then, now) = (before.service(API).unwrap(), house.live());
    assert_eq!((&now.baseline, &now.pins, &now.hold), (&then.baseline, &then.pins, &then.hold));
    assert_eq!(now.groups.keys().collect::<Vec<_>>(), [&GroupName::new("beta").unwrap()]);
    for scope in [Scope::Service, of_group("beta"), of_tenant("acme")] {
        let was = before.split_of(&house.structure, &service(API), &scope).unwrap().0;
        let (is, whose) = house.split(&scope);
        assert_eq!((is.salt, &is.slices, whose), (was.salt, &was.slices, scope));
        assert_eq!(is.attempt, house.state.revision, "a fresh attempt");
    }
    assert_eq!(house.split(&of_tenant("globex")).1, of_group("beta"), "it follows its group again");

    let attempts = house.split(&Scope::Service).0.attempt;
    let again = house.restores(&snapshot, false);
    assert_eq!(kinds(&again), [(EventKind::SnapshotRestored, None)]);
    assert_eq!(house.split(&Scope::Service).0.attempt, attempts, "what is the same stays untouched");
}

#[test]
fn only_the_services_that_are_asked_for_go_back() {
    let mut house = House::new();
    let snapshot = house.takes("monday");
    let web = ChangeRequest { service: service("web"), ..asked(set(Scope::Service, "1=50 2=50")) };
    house.does(set(Scope::Service, "1=50 2=50"));
    house.ask(&web).unwrap();
    house.global(restore("monday", &snapshot, Some(vec![service("web")]), false)).unwrap();
    assert_eq!(house.shares(&Scope::Service), "1=50 2=50");
    let web = house.state.service("web").unwrap();
    assert_eq!(web.split.weights(), Weights::all_on(version("1")));
    let error = house.global(restore("monday", &snapshot, Some(vec![service("late")]), false)).unwrap_err();
    assert_eq!(error.to_string(), "the snapshot has no service \"late\"; it has: api, web");
}

#[test]
fn what_was_rolled_back_since_stays_away_unless_it_is_forced() {
    let mut house = House::new().does_all([
        set(Scope::Service, "1=50 2=30 3=20"),
        set(of_tenant("acme"), "1=50 2=50"),
        Change::SetPin(pin_user("alice"), Pin::Version(version("2"))),
    ]);
    let snapshot = house.takes("monday");
    house = house.does_all([rollback(Scope::Service, Some("2")), Change::ClearPin(pin_user("alice"))]);
    let plan = house.plan(&snapshot, false).unwrap();
    let (service_scope, tenant, pin) = ("service", "tenant acme", "the pin of user alice");
    let all = [service_scope, tenant, pin].map(|whose| withheld(whose, "2", "rolled_back"));
    assert_eq!(plan.services[&service(API)].withheld, all);

    let mut forced = house.clone();
    let applied = house.restores(&snapshot, false);
    assert_eq!(applied.after["services"][API]["withheld_versions"], json!(["2"]));
    assert_eq!((house.shares(&Scope::Service), house.shares(&of_tenant("acme"))), ("1=80 3=20".into(), "1=100".into()));
    assert_eq!(house.live().pins.users.values().collect::<Vec<_>>(), [&Pin::Suspended(version("2"))]);

    forced.restores(&snapshot, true);
    assert_eq!(forced.shares(&Scope::Service), "1=50 2=30 3=20");
    assert_eq!(forced.shares(&of_tenant("acme")), "1=50 2=50");
    assert!(forced.split(&of_tenant("acme")).0.attempt > forced.live().bars[&version("2")].revision);
}

#[test]
fn what_somebody_gave_traffic_anew_is_no_resurrection() {
    let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50"), set(of_tenant("acme"), "1=40 2=60")]);
    let snapshot = house.takes("monday");
    house = house.does_all([rollback(Scope::Service, None), set(Scope::Service, "1=99 2=1")]);
    house.restores(&snapshot, false);
    assert_eq!(house.shares(&Scope::Service), "1=50 2=50");
    assert_eq!(house.shares(&of_tenant("acme")), "1=100", "nobody gave the tenant any");
}

#[test]
fn a_tenant_that_was_rolled_back_does_not_follow_others_back() {
    let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50")]);
    let snapshot = house.takes("monday");
    house.does(rollback(of_tenant("acme"), Some("2")));
    house.does(set(of_tenant("globex"), "1=100"));
    let plan = house.plan(&snapshot, false).unwrap();
    assert_eq!(plan.services[&service(API)].withheld, [withheld("tenant acme", "2", "rolled_back")]);
    house.restores(&snapshot, false);
    assert_eq!(
        (house.shares(&of_tenant("acme")), house.shares(&of_tenant("globex"))),
        ("1=100".into(), "1=50 2=50".into())
    );
    house.restores(&snapshot, true);
    assert_eq!(house.split(&of_tenant("acme")).1, Scope::Service);
}

#[test]
fn a_disabled_version_stays_without_traffic_even_by_force() {
    let mut house = House::new()
        .does_all([set(Scope::Service, "1=50 2=50"), Change::SetPin(pin_tenant("acme"), Pin::Version(version("2")))]);
    let snapshot = house.takes("monday");
    house.does(Change::DisableVersion(version("2")));
    for force in [false, true] {
        let plan = house.plan(&snapshot, force).unwrap();
        let all = ["service", "the pin of tenant acme"].map(|whose| withheld(whose, "2", "disabled"));
        assert_eq!(plan.services[&service(API)].withheld, all);
        house.restores(&snapshot, force);
        assert_eq!(house.shares(&Scope::Service), "1=100");
        assert_eq!(house.live().pins.tenants.values().collect::<Vec<_>>(), [&Pin::Suspended(version("2"))]);
    }
}

#[test]
fn a_baseline_that_may_not_be_trusted_refuses_everything() {
    let mut house = House::new();
    let snapshot = house.takes("monday");
    house = house.does_all([
        Change::SetBaseline(version("2")),
        set(Scope::Service, "1=10 2=90"),
        rollback(Scope::Service, None),
    ]);
    let error = house.global(restore("monday", &snapshot, None, false)).unwrap_err().to_string();
    assert!(error.contains("1, the baseline of api in the snapshot, was rolled back since"), "{error}");
    let mut forced = house.clone();
    forced.restores(&snapshot, true);
    assert_eq!((forced.shares(&Scope::Service), &forced.live().baseline), ("1=100".into(), &version("1")));
    house.does(Change::DisableVersion(version("1")));
    let error = house.global(restore("monday", &snapshot, None, true)).unwrap_err().to_string();
    assert!(error.contains("is disabled; enable it first"), "{error}");
}

#[test]
fn what_exists_no_more_is_named() {
    let mut house = House::new()
        .does_all([Change::PutVersion(version("4"), some_version(7_004)), set(Scope::Service, "1=50 4=50")]);
    house.does(set(of_group("early"), "2=100"));
    let snapshot = house.takes("monday");
    house = house.does_all([set(Scope::Service, "1=100"), Change::DeleteVersion(version("4"))]);
    house.structure.tenants.groups.remove("early");
    house.structure.services.remove("web");
    let error = house.global(restore("monday", &snapshot, None, false)).unwrap_err().to_string();
    assert!(error.contains("version 4 of api, group early of api, service web; add it again"), "{error}");
}

#[test]
fn a_brake_is_neither_taken_along_nor_ended_by_what_is_the_same() {
    let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50")]);
    house.ask(&by_autopilot(brake(of_tenant("acme"), 0.5))).unwrap();
    house.ask(&by_autopilot(brake(Scope::Service, 1.0))).unwrap();
    let snapshot = house.takes("monday");
    let was = &snapshot.services[&service(API)];
    assert_eq!((was.split.slices.len(), was.split.slices[0].end, was.tenants.len()), (2, 5_000, 0));
    assert!(house.plan(&snapshot, false).unwrap().is_empty());
    house.does(set(Scope::Service, "1=100"));
    house.restores(&snapshot, false);
    assert_eq!(house.shares(&of_tenant("acme")), "1=50 2=50");
}

#[test]
fn a_service_whose_rollout_is_running_stays_with_it() {
    let mut house = House::new();
    let snapshot = house.takes("monday");
    house.does(set(Scope::Service, "1=100"));
    let (spec, batches, left) = (crate::model::rollout::plan(&[10, 100]), vec![vec![Scope::Service]], Vec::new());
    house.does(Change::StartRollout(Box::new(crate::model::NewRollout { spec, batches, left })));
    house.restores(&snapshot, false);
    house.does(Change::SetHold);
    let error = house.global(restore("monday", &snapshot, None, false)).unwrap_err();
    assert!(matches!(error, ChangeError::Running { .. }), "what would change is the rollout's: {error}");
    house.global(restore("monday", &snapshot, Some(vec![service("web")]), false)).unwrap();
}

#[test]
fn many_tenants_go_back_in_one_commit() {
    let mut house = House::new();
    let names: Vec<_> = (0..3_000).map(|n| format!("t{n}")).collect();
    let own = |name: &String, text: &str, revision| {
        let split = Split::new(&weights(text), &version("1"), 7, revision);
        (
            TenantName::new(name).unwrap(),
            TenantState { format: DOCUMENT_FORMAT, revision, split, by: None, unknown: Default::default() },
        )
    };
    let all = names[..2_000].iter().map(|name| own(name, "1=90 2=10", 2));
    house.state.tenants.insert(service(API), all.collect());
    let snapshot = house.takes("monday");
    let others =
        names[1_000..].iter().map(|name| own(name, if name < &names[1_500] { "1=90 2=10" } else { "1=50 2=50" }, 3));
    house.state.tenants.insert(service(API), others.collect());
    let applied = house.restores(&snapshot, false);
    let tenants = &house.state.tenants[&service(API)];
    assert_eq!((tenants.len(), applied.commit.deletes.len()), (2_000, 1_000));
    for name in &names {
        let shares = tenants.get(name.as_str()).map(|own| own.split.weights().to_string());
        let had = snapshot.services[&service(API)].tenants.contains_key(name.as_str());
        assert_eq!(shares.as_deref(), had.then_some("1=90 2=10"), "{name}");
    }
}

/// What is asked for in a scope, and whose word that is; a brake asks for nothing.
fn asked_of(state: &State, structure: &Structure, scope: &Scope) -> (SplitSnapshot, Scope) {
    let live = state.service(API).unwrap();
    let is_own = |split: &&Split| split.follows().is_none();
    let group_of = |group: &GroupName| live.groups.get(group).filter(is_own).map(|s| (s, Scope::Group(group.clone())));
    let own = match scope {
        Scope::Service => None,
        Scope::Group(group) => group_of(group),
        Scope::Tenant(tenant) => {
            let own = state.tenant(API, tenant.as_str()).map(|own| &own.split).filter(is_own);
            let member = |g: &&GroupName| structure.tenants.groups.get(*g).is_some_and(|t| t.contains(tenant));
            own.map(|s| (s, scope.clone())).or_else(|| live.groups.keys().filter(member).find_map(group_of))
        }
    };
    let (split, whose) = own.unwrap_or((&live.split, Scope::Service));
    (SplitSnapshot::of(live, split), whose)
}

fn owner(slices: &Slices, index: u16) -> &VersionName {
    &slices.iter().find(|s| index < s.end).unwrap().version
}

/// After a restore every bucket of every scope has the owner it had, but for what is disabled or was withheld.
fn check_restored(then: &State, before: &House, house: &House, plan: &Restore, force: bool) {
    let (live, plan) = (house.live(), &plan.services[&service(API)]);
    let tenants = ["acme", "globex", "initech", "umbrella", "stranger"].map(of_tenant);
    for scope in tenants.into_iter().chain([of_group("beta"), of_group("early"), Scope::Service]) {
        let (was, first) = asked_of(then, &house.structure, &scope);
        let (had, _) = asked_of(&before.state, &house.structure, &scope);
        let (is, last) = asked_of(&house.state, &house.structure, &scope);
        let told: Vec<_> =
            plan.withheld.iter().filter(|w| [&scope, &first, &last].iter().any(|s| s.to_string() == w.whose)).collect();
        let kept = told.iter().any(|w| w.whose == last.to_string()) && first != last;
        assert!(kept || is.salt == was.salt || is.slices.len() == 1, "{scope}: the keys are spread otherwise");
        for index in 0..BUCKETS {
            let (was, is) = (owner(&was.slices, index), owner(&is.slices, index));
            assert!(!live.is_disabled(is), "{scope}: {is} is disabled");
            let excused = kept || *is == live.baseline && told.iter().any(|w| w.version == *was);
            assert!(was == is || excused, "{scope} {index}: {was} became {is}: {told:?}");
            let barred = live.bars.get(is).is_some_and(|bar| bar.revision > then.revision);
            let had = had.slices.iter().any(|s| s.version == *is);
            assert!(
                force || !barred || had || *is == live.baseline,
                "{scope}: {is} was rolled back and is there again"
            );
        }
    }
    assert!(!force || plan.withheld.iter().all(|w| w.why == "disabled"), "{:?}", plan.withheld);
}

fn check_round_trip(house: &House) {
    let documents: Vec<_> = house.state.to_documents().collect();
    let again = State::from_documents(house.state.revision, &documents).unwrap();
    assert_eq!(super::documents(&again), super::documents(&house.state));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_in_between_a_restore_brings_every_key_back(
        first in prop::collection::vec(any_request(), 0..40),
        then in prop::collection::vec(any_request(), 0..40),
        force: bool,
    ) {
        let mut house = House::new();
        first.iter().for_each(|request| drop(house.ask(request)));
        let at = house.state.clone();
        let snapshot = house.takes("monday");
        then.iter().for_each(|request| drop(house.ask(request)));
        let before = house.clone();
        if let Ok(plan) = house.plan(&snapshot, force) {
            let services = plan.services.values().filter(|s| !s.is_empty()).count();
            let applied = house.restores(&snapshot, force);
            prop_assert_eq!(applied.commit.events.len(), services.max(1));
            check_restored(&at, &before, &house, &plan, force);
            check_round_trip(&house);
            prop_assert!(house.plan(&snapshot, force).unwrap().is_empty(), "a second time changes nothing");
        }
    }
}
