//! That fields of a newer release survive in every document, whoever rewrites it, and that a newer format is refused by
//! name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::model::apply::tests::{House, by_autopilot, of_group, of_tenant, percent, person, rollback, service};
use crate::model::apply::tests::{set, version};
use crate::model::rollout::plan;
use crate::model::*;

/// What a newer release may have written anywhere.
const NEW: &str = "added_later";

fn something() -> Value {
    json!({ "list": [1, -2, 2.5, null, "text"], "deep": { "most": u64::MAX, "at": { "secs": 1 } } })
}

/// Fields whose objects have names of people's choosing as keys.
const MAPS: [&str; 10] =
    ["groups", "versions", "bars", "disabled", "tenants", "users", "recalls", "asked", "all", "services"];
/// Fields whose objects are words or closed: nothing can be added to them.
const CLOSED: [&str; 18] = [
    "author",
    "slices",
    "stage",
    "approved",
    "counts",
    "scope",
    "target",
    "schedule",
    "evidence",
    NEW,
    "interval",
    "timeout",
    "connect",
    "response",
    "read",
    "idle",
    "stream",
    "keepalive",
];

/// Adds a field to every part of a document, and notes which parts those were.
fn add(name: &str, value: &mut Value, parts: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) if !CLOSED.contains(&name) => items.iter_mut().for_each(|item| add(name, item, parts)),
        Value::Object(fields) if !CLOSED.contains(&name) => {
            // The record of a gate stands under the gate's name, a gate of the plan in a list.
            let is_map = MAPS.contains(&name) || name == "gates" && !fields.contains_key("url");
            let is_pin = fields.len() == 1 && (fields.contains_key("version") || fields.contains_key("exclude"));
            if is_pin {
                return;
            }
            for (field, inner) in fields.iter_mut() {
                add(if is_map { "entry" } else { field }, inner, parts);
            }
            if !is_map {
                fields.insert(NEW.to_owned(), something());
                parts.insert(name.to_owned());
            }
        }
        _ => {}
    }
}

fn registered() -> VersionSpec {
    VersionSpec {
        endpoints: vec!["127.0.0.1:7009".parse().unwrap()],
        health: Some(HealthSpec { interval: Duration::from_millis(1_500), ..HealthSpec::default() }),
        timeouts: Timeouts::default(),
        path: Some("/v4".to_owned()),
        rewrite: Some(Rewrite { from: "/v4".to_owned(), to: "/".to_owned(), unknown: Unknown::default() }),
        http2: true,
        tls: Some(UpstreamTls {
            client: Some(ClientFiles {
                cert: "a.pem".to_owned(),
                key: "b.pem".to_owned(),
                unknown: Unknown::default(),
            }),
            ..UpstreamTls::default()
        }),
        host: Some("inside".to_owned()),
        deprecated: Some(Deprecation { since_s: 5, sunset_s: None, link: None, unknown: Unknown::default() }),
        upgrade_from: vec![version("1")],
        unknown: Unknown::default(),
    }
}

fn planned() -> RolloutSpec {
    let gate = Gate {
        name: "asked".to_owned(),
        at: GateAt::BeforeStep,
        step: None,
        url: "http://127.0.0.1:1/".to_owned(),
        secret: None,
        timeout_ms: 1_000,
        unknown: Unknown::default(),
    };
    let order = Order { seed: Some(7), ..Order::default() };
    let blast_radius = BlastRadius { tenants: Some(900), ..BlastRadius::default() };
    let tolerate = Tolerance { tenants: Some(900), share: None, unknown: Unknown::default() };
    RolloutSpec { target: Target::Tenants, order, blast_radius, tolerate, gates: vec![gate], ..plan(&[10, 100]) }
}

/// A house with every kind of document, and every kind of part in them.
fn house() -> (House, RolloutId) {
    let mut house = House::new();
    house.does(set(Scope::Service, "1=90 2=10"));
    house.does(rollback(Scope::Service, Some("2")));
    house.does(Change::PutVersion(version("4"), Arc::new(registered())));
    house.does(set(of_group("beta"), "1=60 3=40"));
    house.does(set(of_tenant("acme"), "1=60 2=40"));
    house.does(rollback(of_tenant("acme"), Some("2")));
    house.does(set(of_tenant("globex"), "1=60 2=40"));
    let canary = version("2");
    house.ask(&by_autopilot(Change::Brake { scope: of_tenant("globex"), canary, share: percent(1.0) })).unwrap();
    let acme = PinTarget::Tenant(TenantName::new("acme").unwrap());
    house.does(Change::SetPin(acme, Pin::Version(version("2"))));
    let alice = PinTarget::User(UserName::new("alice").unwrap());
    house.does(Change::SetPin(alice, Pin::Exclude(version("3"))));
    house.does(Change::DisableVersion(version("3")));
    for tenant in [None, Some(TenantName::new("acme").unwrap())] {
        house.does(Change::SetMaintenance { tenant, message: "back soon".to_owned(), retry_after_s: 60 });
    }
    house.does(set(of_tenant("initech"), "1=100"));
    let batches = vec![vec![of_tenant("initech"), of_tenant("umbrella")]];
    let new = NewRollout { spec: planned(), batches, left: Vec::new() };
    let begun = house.does(Change::StartRollout(Box::new(new)));
    let id = begun.commit.events[0].rollout.clone().unwrap();
    house.ask(&by_autopilot(Change::Rollout(id.clone(), RolloutCommand::Begin))).unwrap();
    let live = Arc::make_mut(house.state.rollouts.get_mut(&id).unwrap());
    let (author, reason, unknown) = (person(), "because".to_owned(), Unknown::default());
    let rollout = &mut live.rollout;
    rollout.gates.insert("asked".to_owned(), GateRecord { open: false, failures: 1, ..GateRecord::default() });
    rollout.going_back = Some(GoingBack {
        cause: "errors".to_owned(),
        author: author.clone(),
        reason: reason.clone(),
        since_ms: 1,
        step: 0,
        unknown: unknown.clone(),
    });
    rollout.paused = Some(Pause { kind: PauseKind::Person, author, reason, since_ms: 2, unknown });
    rollout.approved = Some(rollout.stage);
    house.does(Change::SetHold);
    globally(&mut house, GlobalChange::SetFreeze { until_ms: None });
    takes(&mut house, "monday");
    (house, id)
}

fn globally(house: &mut House, change: GlobalChange) -> Applied {
    let request = GlobalRequest { change, author: person(), reason: "because".to_owned(), if_revision: None };
    let now_ms = 1_000 * house.next_event;
    let applied = house.state.apply_global(&house.structure, &request, house.next_event, now_ms).unwrap();
    house.next_event += applied.commit.events.len() as u64;
    house.state = applied.state.clone();
    applied
}

fn takes(house: &mut House, name: &str) -> (Applied, Arc<Snapshot>) {
    let snapshot = Snapshot::of(&house.state, house.state.services.keys());
    let summary = Box::new(snapshot.summary(person(), String::new(), 7));
    let name = SnapshotName::new(name).unwrap();
    let documents = Arc::new(snapshot.to_documents(&name));
    (globally(house, GlobalChange::TakeSnapshot { name, summary, documents }), Arc::new(snapshot))
}

/// The documents as a newer release wrote them, with the parts that have a field more.
fn newer(house: &House) -> (Vec<Document>, BTreeSet<String>) {
    let mut parts = BTreeSet::new();
    let documents = house.state.to_documents().map(|document| {
        let mut body: Value = serde_json::from_str(&document.body).unwrap();
        let kind = document.key.to_string().split('/').next().unwrap().to_owned();
        add(&kind, &mut body, &mut parts);
        Document { body: body.to_string(), ..document }
    });
    (documents.collect(), parts)
}

/// The house with the state that a newer release left behind.
fn after_newer() -> (House, RolloutId) {
    let (mut house, id) = house();
    let (documents, _) = newer(&house);
    house.state = State::from_documents(house.state.revision, &documents).unwrap();
    (house, id)
}

fn added(text: &str) -> usize {
    text.matches(NEW).count()
}

/// The text of a document of the state.
fn text(state: &State, key: &DocumentKey) -> String {
    state.to_documents().find(|d| d.key == *key).unwrap().body
}

fn written(applied: &Applied, key: &DocumentKey) -> String {
    applied.commit.puts.iter().find(|(k, _)| k == key).unwrap().1.clone()
}

fn api() -> DocumentKey {
    DocumentKey::Service(service("api"))
}

fn tenant(name: &str) -> DocumentKey {
    DocumentKey::Tenant(service("api"), TenantName::new(name).unwrap())
}

#[test]
fn every_part_of_every_document_comes_back_as_it_was() {
    let (house, _) = house();
    let (documents, parts) = newer(&house);
    // What stands in a map has no name of its own: versions, bars, disabled versions, maintenance, gates' answers, splits of
    // groups, snapshots and what they count.
    let expected = "blast_radius brake client deprecated entry freeze gates going_back health hold maintenance order paused \
                    pins rewrite rolled_back rollout service snapshots spec split steps tenant timeouts tls tolerate units";
    assert_eq!(parts.iter().map(String::as_str).collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
    let state = State::from_documents(house.state.revision, &documents).unwrap();
    assert_eq!(state.to_documents().collect::<Vec<_>>(), documents);
    let again = State::from_documents(house.state.revision, &state.to_documents().collect::<Vec<_>>()).unwrap();
    assert_eq!(again.to_documents().collect::<Vec<_>>(), documents);
    let freeze = again.freeze.unwrap();
    assert!(!freeze.unknown.is_empty());
    let shown = format!("{freeze:?}");
    assert!(shown.contains(NEW) && !shown.contains("deep"), "only the names: {shown}");
}

#[test]
fn a_service_that_is_changed_keeps_them() {
    let (mut house, _) = after_newer();
    let before = added(&text(&house.state, &api()));
    assert!(before > 20, "{before}");
    let bob = PinTarget::User(UserName::new("bob").unwrap());
    let pinned = written(&house.does(Change::SetPin(bob, Pin::Version(version("2")))), &api());
    assert_eq!(added(&pinned), before);
    let message = "later".to_owned();
    let longer = house.does(Change::SetMaintenance { tenant: None, message, retry_after_s: 90 });
    assert_eq!(added(&written(&longer, &api())), before, "the maintenance goes on, so it keeps its own");
    let again = written(&house.does(Change::DisableVersion(version("3"))), &api());
    assert_eq!(added(&again), before - 2, "only the bar is a new one, with what it left behind");
    let split: Value = serde_json::from_str(&written(&house.does(set(Scope::Service, "1=100")), &api())).unwrap();
    assert_eq!((&split[NEW], &split["split"][NEW]), (&something(), &Value::Null), "a new split is not the old one");
    assert_eq!((&split["groups"]["beta"][NEW], &split["pins"][NEW]), (&something(), &something()));
    let free = written(&house.does(Change::ClearHold), &api());
    assert_eq!(serde_json::from_str::<Value>(&free).unwrap()["hold"], Value::Null);
}

#[test]
fn a_tenant_that_is_changed_keeps_them() {
    let (mut house, id) = after_newer();
    let before = added(&text(&house.state, &tenant("globex")));
    let released = house.ask(&by_autopilot(Change::ReleaseBrake { scope: of_tenant("globex") })).unwrap();
    assert_eq!((before, added(&written(&released, &tenant("globex")))), (3, 2), "the brake is gone");
    let own: Value =
        serde_json::from_str(&written(&house.does(set(of_tenant("globex"), "1=100")), &tenant("globex"))).unwrap();
    assert_eq!(
        (&own[NEW], &own["split"][NEW]),
        (&something(), &Value::Null),
        "the document lives on, its split does not"
    );
    let back = written(&house.does(rollback(of_tenant("acme"), None)), &tenant("acme"));
    assert_eq!(added(&back), 1);
    let own = added(&text(&house.state, &tenant("initech")));
    let moved = enter(&mut house, &id);
    let moved: Value = serde_json::from_str(&written(&moved, &tenant("initech"))).unwrap();
    assert_eq!((own, &moved[NEW], moved["by"].as_str()), (2, &something(), Some(id.as_str())), "by a rollout");
}

/// The rollout takes its first step.
fn enter(house: &mut House, id: &RolloutId) -> Applied {
    let live = Arc::make_mut(house.state.rollouts.get_mut(id).unwrap());
    (live.rollout.paused, live.rollout.going_back) = (None, None);
    live.rollout.gates.values_mut().for_each(|gate| gate.open = true);
    let stage = live.rollout.stage;
    house.does(Change::ClearHold);
    globally(house, GlobalChange::ClearFreeze);
    let gate = RolloutCommand::Gate { key: format!("asked@{stage}"), open: true, said: String::new() };
    house.ask(&by_autopilot(Change::Rollout(id.clone(), gate))).unwrap();
    house.ask(&by_autopilot(Change::Rollout(id.clone(), RolloutCommand::Enter { stage, only: None }))).unwrap()
}

#[test]
fn a_rollout_and_its_units_keep_them() {
    let (mut house, id) = after_newer();
    let (rollout, units) = (DocumentKey::Rollout(id.clone()), DocumentKey::Units(id.clone(), 0));
    let before = (added(&text(&house.state, &rollout)), added(&text(&house.state, &units)));
    assert!(before.0 >= 10 && before.1 == 2, "{before:?}");
    let count = Change::Rollout(id.clone(), RolloutCommand::Count { failed_requests: 5 });
    assert_eq!(added(&written(&house.ask(&by_autopilot(count)).unwrap(), &rollout)), before.0);
    let gate = RolloutCommand::Gate { key: "asked".to_owned(), open: true, said: "yes".to_owned() };
    let gate = house.ask(&by_autopilot(Change::Rollout(id.clone(), gate))).unwrap();
    assert_eq!(added(&written(&gate, &rollout)), before.0, "it is the same gate");
    let entered = enter(&mut house, &id);
    assert_eq!(added(&written(&entered, &units)), before.1);
    assert_eq!(added(&written(&entered, &rollout)), before.0 - 2, "less the pause and the way back, which ended");
    let archived = house.does(Change::Rollout(id.clone(), RolloutCommand::Abort { force: true }));
    assert_eq!(added(&written(&archived, &units)), before.1);
}

#[test]
fn the_freeze_and_the_list_of_snapshots_keep_them() {
    let (mut house, _) = after_newer();
    let until_ms = Some(1_000 * house.next_event + 500);
    let later = globally(&mut house, GlobalChange::SetFreeze { until_ms });
    assert_eq!(added(&written(&later, &DocumentKey::Freeze)), 1);
    let before = added(&text(&house.state, &DocumentKey::Snapshots));
    let (taken, _) = takes(&mut house, "tuesday");
    assert_eq!((before, added(&written(&taken, &DocumentKey::Snapshots))), (4, 4), "two services, the entry, the list");
}

#[test]
fn a_restore_keeps_what_stands_beside_what_it_restores() {
    let (mut house, id) = after_newer();
    house.does(Change::Rollout(id, RolloutCommand::Abort { force: true }));
    house.does(Change::ClearHold);
    let (_, snapshot) = takes(&mut house, "tuesday");
    house.does(set(of_tenant("acme"), "1=50 2=50"));
    let alice = PinTarget::User(UserName::new("alice").unwrap());
    house.does(Change::ClearPin(alice));
    let name = SnapshotName::new("tuesday").unwrap();
    let restored = globally(&mut house, GlobalChange::RestoreSnapshot { name, snapshot, services: None, force: true });
    let [live, own] = [api(), tenant("acme")].map(|key| written(&restored, &key));
    let (live, own): (Value, Value) = (serde_json::from_str(&live).unwrap(), serde_json::from_str(&own).unwrap());
    assert_eq!((&live[NEW], &live["pins"][NEW], &own[NEW]), (&something(), &something(), &something()));
    assert_eq!(live["pins"]["users"]["alice"], json!({ "exclude": "3" }));
}

#[test]
fn closed_parts_refuse_more_by_name() {
    let (house, id) = house();
    let documents: Vec<_> = house.state.to_documents().collect();
    let closed = [
        (tenant("acme"), "/split/slices/0"),
        (DocumentKey::Rollout(id.clone()), "/stage"),
        (DocumentKey::Rollout(id), "/counts"),
    ];
    for (key, place) in closed {
        let mut documents = documents.clone();
        let document = documents.iter_mut().find(|d| d.key == key).unwrap();
        let mut body: Value = serde_json::from_str(&document.body).unwrap();
        body.pointer_mut(place).unwrap()[NEW] = something();
        document.body = body.to_string();
        let error = State::from_documents(1, &documents).unwrap_err();
        assert_eq!(error.key, key);
        assert!(error.detail.contains(&format!("unknown field `{NEW}`")), "{error}");
    }
}

#[test]
fn a_newer_format_is_refused_by_name_whatever_else_is_in_it() {
    let (house, id) = house();
    let all: Vec<_> = house.state.to_documents().collect();
    let keys = [api(), tenant("acme"), DocumentKey::Rollout(id.clone()), DocumentKey::Freeze, DocumentKey::Snapshots];
    for key in &keys {
        let as_before = |text: &str| text.replacen("\"format\":1", "\"format\":2", 1);
        let otherwise = |_: &str| r#"{"format":2,"everything":"is different"}"#.to_owned();
        for body in [&as_before as &dyn Fn(&str) -> String, &otherwise] {
            let mut documents = all.clone();
            let document = documents.iter_mut().find(|d| d.key == *key).unwrap();
            document.body = body(&document.body);
            let newer = document.clone();
            let said = format!(
                "the document {key} cannot be read: its format is 2, this release knows formats up to 1; it was written by a \
                 newer release, so start that one"
            );
            assert_eq!(State::from_documents(1, &documents).unwrap_err().to_string(), said);
            assert_eq!(house.state.updated(9, &[newer], &[]).unwrap_err().to_string(), said);
        }
    }
    // Units have the format of their rollout, and come before it here.
    let mut documents = all.clone();
    documents.retain(|d| !matches!(d.key, DocumentKey::Rollout(_) | DocumentKey::Units(..)));
    let document = |key, body: &str| Document { key, revision: 1, body: body.to_owned() };
    documents.push(document(DocumentKey::Units(id.clone(), 0), r#"{"units":[]}"#));
    let error = State::from_documents(1, &documents).unwrap_err();
    assert_eq!(error.key, DocumentKey::Units(id.clone(), 0));
    documents.push(document(DocumentKey::Rollout(id.clone()), r#"{"format":3}"#));
    let error = State::from_documents(1, &documents).unwrap_err();
    assert_eq!(error.key, DocumentKey::Rollout(id));
    assert!(error.detail.contains("format is 3"), "{error}");
}
