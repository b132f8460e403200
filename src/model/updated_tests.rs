//! That following commits comes to the same as reading everything anew, whatever was committed.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::model::apply::tests::at_random::any_request;
use crate::model::apply::tests::{House, asked, by_autopilot, of_group, of_tenant, percent, person, service, set};
use crate::model::rollout::plan;
use crate::model::{
    Applied, Author, Change, ChangeError, ChangeRequest, Commit, DOCUMENT_FORMAT, GlobalChange, GlobalRequest,
    NewRollout, RolloutCommand, RolloutSpec, Scope, ServiceState, Snapshot, SnapshotName, Target, Tolerance,
};

/// All documents of a store, and a state that follows their commits.
struct Follower {
    documents: BTreeMap<DocumentKey, Document>,
    state: State,
}

impl Follower {
    fn of(state: &State) -> Self {
        let documents: BTreeMap<_, _> = state.to_documents().map(|d| (d.key.clone(), d)).collect();
        let all: Vec<_> = documents.values().cloned().collect();
        Self { state: State::from_documents(state.revision, &all).unwrap(), documents }
    }

    fn follow(&mut self, commit: &Commit) -> Updated {
        let revision = commit.revision;
        let document =
            |(key, body): &(DocumentKey, String)| Document { key: key.clone(), revision, body: body.clone() };
        let puts: Vec<_> = commit.puts.iter().map(document).collect();
        let updated = self.state.updated(revision, &puts, &commit.deletes).unwrap();
        commit.deletes.iter().for_each(|key| drop(self.documents.remove(key)));
        self.documents.extend(puts.into_iter().map(|d| (d.key.clone(), d)));
        let all: Vec<_> = self.documents.values().cloned().collect();
        same(&updated.state, &State::from_documents(revision, &all).unwrap());
        check_touched(&self.state, &updated, commit);
        self.state = updated.state.clone();
        updated
    }
}

fn tenants(state: &State) -> BTreeMap<&ServiceName, (usize, BTreeMap<&TenantName, &TenantState>)> {
    state.tenants.iter().map(|(service, of)| (service, (of.len(), of.iter().collect()))).collect()
}

fn same(one: &State, other: &State) {
    assert_eq!(one.revision, other.revision);
    assert_eq!(one.services, other.services);
    assert_eq!(tenants(one), tenants(other));
    assert_eq!(one.freeze, other.freeze);
    assert_eq!(one.snapshots, other.snapshots);
    assert_eq!(one.rollouts, other.rollouts);
}

/// Every service that is another now is told of, and none that no document was about.
fn check_touched(before: &State, updated: &Updated, commit: &Commit) {
    let after = &updated.state;
    let (was, is) = (tenants(before), tenants(after));
    for name in before.services.keys().chain(after.services.keys()) {
        if before.services.get(name) != after.services.get(name) || was.get(name) != is.get(name) {
            assert!(updated.services.contains(name), "{name} is another");
        }
    }
    let keys: Vec<_> = commit.puts.iter().map(|(key, _)| key).chain(&commit.deletes).collect();
    let about = |name: &ServiceName| {
        keys.iter().any(|key| matches!(key, DocumentKey::Service(s) | DocumentKey::Tenant(s, _) if s == name))
    };
    assert!(updated.services.iter().all(about));
    assert_eq!(updated.secrets, keys.iter().any(|key| matches!(key, DocumentKey::Secret(_))));
    for (name, live) in &after.services {
        let kept = before.services.get(name).is_some_and(|old| Arc::ptr_eq(old, live));
        assert!(kept || updated.services.contains(name), "{name} is shared with the state before");
    }
}

/// Something that may be asked for. What it is about in detail depends on the state that it meets.
#[derive(Debug, Clone)]
enum Step {
    Change(Box<ChangeRequest>),
    Start(u8),
    Command(u8),
    Global(u8),
    Secret,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_request().prop_map(|request| Step::Change(Box::new(request))),
        2 => (0..4u8).prop_map(Step::Start),
        12 => (0..14u8).prop_map(Step::Command),
        3 => (0..6u8).prop_map(Step::Global),
        1 => Just(Step::Secret),
    ]
}

fn start(kind: u8) -> ChangeRequest {
    let many = || (0..450).map(|n| of_tenant(&format!("t{n}"))).collect::<Vec<_>>();
    let (target, batches) = match kind {
        0 => (Target::Service, vec![vec![Scope::Service]]),
        1 => (Target::Tenants, vec![vec![of_tenant("acme")], vec![of_tenant("globex"), of_tenant("umbrella")]]),
        2 => (Target::Tenants, vec![many()]),
        _ => (Target::Groups(Vec::new()), vec![vec![of_group("beta")], vec![of_group("early")]]),
    };
    let tolerate = Tolerance { tenants: Some(1_000), share: None, unknown: Default::default() };
    let spec = RolloutSpec { target, tolerate, ..plan(&[10, 50, 100]) };
    asked(Change::StartRollout(Box::new(NewRollout { spec, batches, left: Vec::new() })))
}

fn command(state: &State, kind: u8) -> Option<ChangeRequest> {
    let live = state.rollouts.values().find(|live| !live.rollout.phase.is_final() || kind > 10)?;
    let stage = live.rollout.stage;
    let first = live.units.at(0).map(|unit| unit.scope.clone());
    let go_back = |at_once| RolloutCommand::GoBack { cause: "errors".to_owned(), at_once };
    let (author, command) = match kind {
        0 | 1 => (Author::Autopilot, RolloutCommand::Begin),
        2 | 3 => (Author::Autopilot, RolloutCommand::Enter { stage, only: None }),
        4 => (Author::Autopilot, RolloutCommand::Enter { stage, only: Some(first.into_iter().collect()) }),
        5 | 6 => (Author::Autopilot, RolloutCommand::Pass { stage }),
        7 => (Author::Autopilot, RolloutCommand::Complete),
        8 => (Author::Autopilot, go_back(true)),
        9 => (person(), RolloutCommand::Pause),
        10 => (person(), RolloutCommand::Resume),
        11 => (person(), RolloutCommand::Abort { force: true }),
        12 => (person(), RolloutCommand::Retry),
        _ => (person(), RolloutCommand::Undo { force: true }),
    };
    let change = Change::Rollout(live.rollout.id.clone(), command);
    Some(ChangeRequest { author, ..asked(change) })
}

fn global(state: &State, kind: u8, taken: &mut Option<Arc<Snapshot>>) -> GlobalRequest {
    let name = SnapshotName::new("monday").unwrap();
    let change = match (kind, &taken) {
        (0, _) => GlobalChange::SetFreeze { until_ms: None },
        (1, _) => GlobalChange::ClearFreeze,
        (2 | 3, None) => {
            let snapshot = Snapshot::of(state, state.services.keys());
            let summary = Box::new(snapshot.summary(person(), String::new(), 7));
            let documents = Arc::new(snapshot.to_documents(&name));
            *taken = Some(Arc::new(snapshot));
            GlobalChange::TakeSnapshot { name, summary, documents }
        }
        (2..=4, Some(snapshot)) => {
            GlobalChange::RestoreSnapshot { name, snapshot: snapshot.clone(), services: None, force: kind == 3 }
        }
        _ => {
            *taken = None;
            GlobalChange::DeleteSnapshot(name)
        }
    };
    GlobalRequest { change, author: person(), reason: String::new(), if_revision: None }
}

fn take(house: &mut House, step: &Step, taken: &mut Option<Arc<Snapshot>>) -> Option<Commit> {
    let now_ms = 1_000 * house.next_event;
    let ask = |request: &ChangeRequest| house.state.apply(&house.structure, request, house.next_event, now_ms);
    let applied: Result<Applied, ChangeError> = match step {
        Step::Change(request) => ask(request),
        Step::Start(kind) => ask(&start(*kind)),
        Step::Command(kind) => ask(&command(&house.state, *kind)?),
        Step::Global(kind) => {
            let request = global(&house.state, *kind, taken);
            house.state.apply_global(&house.structure, &request, house.next_event, now_ms)
        }
        Step::Secret => {
            let (expected, revision) = (house.state.revision, house.state.revision + 1);
            house.state.revision = revision;
            let puts = vec![(DocumentKey::Secret("cookie".to_owned()), "key".to_owned())];
            return Some(Commit { expected, revision, puts, ..Commit::default() });
        }
    };
    let applied = applied.ok()?;
    house.next_event += applied.commit.events.len() as u64;
    house.state = applied.state;
    Some(applied.commit)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn following_every_commit_is_the_same_as_reading_everything(steps in prop::collection::vec(any_step(), 1..80)) {
        let (mut house, mut taken) = (House::new(), None);
        let mut follower = Follower::of(&house.state);
        for step in &steps {
            if let Some(commit) = take(&mut house, step, &mut taken) {
                follower.follow(&commit);
            }
        }
        let ours: BTreeMap<_, _> = house.state.to_documents().map(|d| (d.key.clone(), d)).collect();
        let theirs: BTreeMap<_, _> = follower.state.to_documents().map(|d| (d.key.clone(), d)).collect();
        prop_assert_eq!(ours, theirs);
    }
}

/// A campaign that begins, moves some or all and is aborted.
fn campaign(house: &mut House, follower: &mut Follower, only: Option<Vec<Scope>>) -> RolloutId {
    let begun = house.ask(&start(2)).unwrap().commit;
    follower.follow(&begun);
    let id = begun.events[0].rollout.clone().unwrap();
    let stage = house.state.rollouts[&id].rollout.stage;
    for command in [RolloutCommand::Begin, RolloutCommand::Enter { stage, only }] {
        follower.follow(&house.ask(&by_autopilot(Change::Rollout(id.clone(), command))).unwrap().commit);
    }
    let abort = RolloutCommand::Abort { force: false };
    follower.follow(&house.does(Change::Rollout(id.clone(), abort)).commit);
    id
}

#[test]
fn campaigns_are_followed_from_their_start_until_they_are_forgotten() {
    let mut house = House::new();
    let mut follower = Follower::of(&house.state);
    campaign(&mut house, &mut follower, Some(vec![of_tenant("t1"), of_tenant("t401")]));
    let last = campaign(&mut house, &mut follower, None);
    assert_eq!(follower.state.rollouts.values().filter(|live| !live.units.is_empty()).count(), 1);
    let over = house.state.rollouts[&last].clone();
    for n in 0..600 {
        let id = RolloutId::new(&format!("old{n}")).unwrap();
        let rollout = Rollout { id: id.clone(), created_ms: 0, ..over.rollout.clone() };
        let units = if n < 2 { over.units.clone() } else { Units::default() };
        house.state.rollouts.insert(id, Arc::new(LiveRollout { rollout, units }));
    }
    let mut follower = Follower::of(&house.state);
    let begun = house.state.apply(&house.structure, &start(2), house.next_event, 5).unwrap().commit;
    follower.follow(&begun);
    assert!(begun.deletes.len() > 100, "the oldest are forgotten");
    assert!(follower.state.rollouts.len() < 510 && follower.state.rollouts.contains_key(&last));
}

#[test]
fn only_what_changed_is_made_anew_and_names_are_shared() {
    let mut house = House::new();
    let mut follower = Follower::of(&house.state);
    follower.follow(&house.does(set(Scope::Service, "1=90 2=10")).commit);
    let touched = follower.follow(&house.does(set(of_tenant("acme"), "1=80 2=20")).commit);
    assert_eq!(touched.services, BTreeSet::from([service("api")]));
    assert!(!touched.secrets);
    let live: &ServiceState = touched.state.service("api").unwrap();
    let own = &touched.state.tenant("api", "acme").unwrap().split;
    assert_eq!(own.share("2"), percent(20.0));
    for slice in &own.slices {
        let shared = live.split.slices.iter().find(|s| s.version == slice.version).unwrap();
        assert!(std::ptr::eq(slice.version.as_str(), shared.version.as_str()), "{}", slice.version);
    }
    let begun = follower.follow(&house.does(Change::SetHold).commit);
    assert!(Arc::ptr_eq(&begun.state.services[&service("web")], &touched.state.services[&service("web")]));
    let refused = by_autopilot(Change::SetHold);
    assert!(house.ask(&refused).is_err());
}

#[test]
fn a_document_that_cannot_be_read_is_named_and_changes_nothing() {
    let house = House::new();
    let follower = Follower::of(&house.state);
    let key = DocumentKey::Tenant(service("api"), TenantName::new("acme").unwrap());
    for (body, why) in [
        ("{", "EOF"),
        (r#"{"format":1,"split":{"epoch":1,"attempt":1,"salt":1,"slices":[]}}"#, "not complete"),
        (r#"{"format":7,"split":{"epoch":1,"attempt":1,"salt":1,"slices":[]}}"#, "its format is 7"),
    ] {
        let document = Document { key: key.clone(), revision: 9, body: body.to_owned() };
        let error = follower.state.updated(9, &[document], &[]).unwrap_err();
        assert_eq!(error.key, key);
        assert!(error.detail.contains(why), "{error}");
    }
    let archived = Document {
        key: DocumentKey::Archive("snapshot/x".to_owned()),
        revision: 9,
        body: Value::from(DOCUMENT_FORMAT).to_string(),
    };
    let updated = follower.state.updated(9, &[archived], &[]).unwrap();
    assert!(updated.services.is_empty() && !updated.secrets);
    same(&updated.state, &State { revision: 9, ..follower.state });
}
