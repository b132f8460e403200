//! Changes one by one, then at random: what each may do, what it writes, and what it leaves alone.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::apply_operations::tenant_of;
use super::super::change::PinTarget;
use super::super::spec::VersionSpec;
use super::*;
use crate::model::share::Weights;
use crate::model::spec::{HeaderSpec, HealthSpec, TenantsSpec};
use crate::model::split::Bucket;
use crate::model::{Document, GuardSpec, Timeouts, UserName};

const API: &str = "api";

pub(in crate::model) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub(in crate::model) fn version(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

pub(in crate::model) fn of_tenant(name: &str) -> Scope {
    Scope::Tenant(TenantName::new(name).unwrap())
}

pub(in crate::model) fn of_group(name: &str) -> Scope {
    Scope::Group(GroupName::new(name).unwrap())
}

pub(in crate::model) fn percent(percent: f64) -> BasisPoints {
    BasisPoints::from_percent(percent).unwrap()
}

/// Weights as people write them: `1=90 2=10`.
pub(in crate::model) fn weights(text: &str) -> Weights {
    let share = |part: &str| {
        let (name, share) = part.split_once('=').unwrap();
        (version(name), percent(share.parse().unwrap()))
    };
    Weights::new(text.split(' ').map(share)).unwrap()
}

/// The bucket of that index.
fn bucket(index: u16) -> Bucket {
    Bucket::of_hash((u128::from(index) << 64).div_ceil(u128::from(BUCKETS)) as u64)
}

fn some_version(port: u16) -> Arc<VersionSpec> {
    Arc::new(VersionSpec {
        endpoints: vec![format!("127.0.0.1:{port}").parse().unwrap()],
        health: Some(HealthSpec::default()),
        timeouts: Timeouts::default(),
        path: None,
        rewrite: None,
        http2: false,
        tls: None,
        host: None,
        deprecated: None,
        upgrade_from: Vec::new(),
        unknown: Default::default(),
    })
}

fn some_service(name: &str, versions: &[&str], salt: Option<&str>) -> (ServiceName, Arc<ServiceSpec>) {
    let spec = ServiceSpec {
        name: service(name),
        rules: Vec::new(),
        sticky: Vec::new(),
        drain: false,
        baseline: version(versions[0]),
        split: Weights::all_on(version(versions[0])),
        salt: salt.map(str::to_owned),
        choose: None,
        versions: versions.iter().map(|v| (version(v), some_version(7_000))).collect(),
        guard: Arc::new(GuardSpec::default()),
        headers: HeaderSpec::default(),
        retries: 0,
        deadline: std::time::Duration::from_secs(60),
        rescue: None,
        client_certificate: false,
        skew: Vec::new(),
        body_limit: None,
        limits: crate::model::LimitsSpec::default(),
        shadow: None,
        maintenance: Default::default(),
        grpc_failures: Vec::new(),
        streams: Default::default(),
        route_stats: true,
        routes: Vec::new(),
        windows: Default::default(),
    };
    (spec.name.clone(), Arc::new(spec))
}

fn structure() -> Structure {
    let group = |name: &str, tenants: &[&str]| {
        (GroupName::new(name).unwrap(), tenants.iter().map(|t| TenantName::new(t).unwrap()).collect())
    };
    let groups = BTreeMap::from([group("beta", &["acme", "globex"]), group("early", &["acme", "initech"])]);
    Structure {
        tenants: TenantsSpec { groups, ..TenantsSpec::default() },
        services: BTreeMap::from([
            some_service(API, &["1", "2", "3"], None),
            some_service("web", &["1", "2"], Some("shared")),
            some_service("late", &["1"], None),
        ]),
    }
}

pub(in crate::model) fn person() -> Author {
    Author::Person { name: "ada".to_owned() }
}

pub(in crate::model) fn asked(change: Change) -> ChangeRequest {
    ChangeRequest {
        service: service(API),
        change,
        author: person(),
        reason: "because".to_owned(),
        if_revision: None,
        if_attempt: None,
        evidence: json!({ "requests": 7 }),
    }
}

pub(in crate::model) fn by_autopilot(change: Change) -> ChangeRequest {
    ChangeRequest { author: Author::Autopilot, ..asked(change) }
}

pub(in crate::model) fn set(scope: Scope, text: &str) -> Change {
    Change::SetSplit { scope, weights: weights(text) }
}

pub(in crate::model) fn rollback(scope: Scope, canary: Option<&str>) -> Change {
    Change::Rollback { scope, canary: canary.map(version), cause: "errors".to_owned(), first_bad_ms: Some(1) }
}

fn brake(scope: Scope, share: f64) -> Change {
    Change::Brake { scope, canary: version("2"), share: percent(share) }
}

fn probe(scope: Scope) -> Change {
    Change::Probe { scope, canary: version("2") }
}

fn pin_user(name: &str) -> PinTarget {
    PinTarget::User(UserName::new(name).unwrap())
}

fn pin_tenant(name: &str) -> PinTarget {
    PinTarget::Tenant(TenantName::new(name).unwrap())
}

fn pin_group(name: &str) -> PinTarget {
    PinTarget::Group(GroupName::new(name).unwrap())
}

fn documents(state: &State) -> BTreeMap<String, Document> {
    state.to_documents().map(|d| (d.key.to_string(), d)).collect()
}

/// A state with its structure, and the checks that hold for every change.
#[derive(Clone)]
pub(in crate::model) struct House {
    pub structure: Structure,
    pub state: State,
    pub next_event: u64,
}

impl House {
    /// With the services `api` and `web`; `late` is in the file and not in the state yet.
    pub fn new() -> Self {
        let mut house = Self { structure: structure(), state: State::default(), next_event: 1 };
        for name in [API, "web"] {
            house.ask(&ChangeRequest { service: service(name), ..asked(Change::AddService) }).unwrap();
        }
        house
    }

    pub fn ask(&mut self, request: &ChangeRequest) -> Result<Applied, ChangeError> {
        let before = documents(&self.state);
        let now_ms = 1_000 * self.next_event;
        let applied = match self.state.apply(&self.structure, request, self.next_event, now_ms) {
            Ok(applied) => applied,
            Err(error) => {
                assert_eq!(documents(&self.state), before, "a refusal leaves the state untouched");
                return Err(error);
            }
        };
        assert_eq!(documents(&self.state), before, "the state before lives on");
        self.check_commit(&before, &applied);
        self.check_event(request, &applied, now_ms);
        self.next_event += applied.commit.events.len() as u64;
        self.state = applied.state.clone();
        Ok(applied)
    }

    fn check_commit(&self, before: &BTreeMap<String, Document>, applied: &Applied) {
        let (revision, after) = (self.state.revision + 1, documents(&applied.state));
        assert_eq!(
            (applied.state.revision, applied.commit.expected, applied.commit.revision),
            (revision, self.state.revision, revision)
        );
        let mut written = before.clone();
        for key in &applied.commit.deletes {
            assert!(written.remove(&key.to_string()).is_some(), "{key} is removed and was not there");
        }
        for (key, body) in applied.commit.puts.iter().filter(|(key, _)| !matches!(key, DocumentKey::Archive(_))) {
            let document = Document { key: key.clone(), revision, body: body.clone() };
            written.insert(key.to_string(), document);
        }
        assert_eq!(written, after, "the documents written are exactly those that changed");
        let of_rollout = |key: &DocumentKey| matches!(key, DocumentKey::Rollout(_) | DocumentKey::Units(..));
        if applied.commit.puts.iter().any(|(key, _)| of_rollout(key)) {
            return;
        }
        let touched = applied.commit.puts.len() + applied.commit.deletes.len();
        assert_eq!(touched, 1, "each change concerns one document");
        let of_document = if applied.commit.puts.is_empty() { 0 } else { revision };
        assert_eq!(applied.document_revision, of_document);
    }

    fn check_event(&self, request: &ChangeRequest, applied: &Applied, now_ms: u64) {
        let [event, further @ ..] = &applied.commit.events[..] else { panic!("a change without an event") };
        assert!(further.len() <= usize::from(event.kind == EventKind::RolloutCompleted), "one change, one event");
        assert!(further.iter().all(|more| more.id == event.id + 1), "events are numbered on");
        assert_eq!((event.id, event.revision, event.at_ms), (self.next_event, applied.state.revision, now_ms));
        assert_eq!(
            (&event.author, &event.reason, &event.evidence),
            (&request.author, &request.reason, &request.evidence)
        );
        assert_eq!((event.service.as_ref(), &event.after), (Some(&request.service), &applied.after));
        let (group, tenant) = match scope_of(&request.change) {
            Some(Scope::Group(group)) => (Some(group), None),
            Some(Scope::Tenant(tenant)) => (None, Some(tenant)),
            _ => (None, tenant_of(&request.change)),
        };
        assert_eq!((event.group.as_ref(), event.tenant.as_ref()), (group, tenant));
    }

    pub fn does(&mut self, change: Change) -> Applied {
        self.ask(&asked(change)).unwrap()
    }

    fn does_all(mut self, changes: impl IntoIterator<Item = Change>) -> Self {
        changes.into_iter().for_each(|change| drop(self.does(change)));
        self
    }

    pub fn refuses(&mut self, change: Change) -> ChangeError {
        self.ask(&asked(change)).unwrap_err()
    }

    fn live(&self) -> &ServiceState {
        self.state.service(API).unwrap()
    }

    fn split(&self, scope: &Scope) -> (Split, Scope) {
        self.state.split_of(&self.structure, &service(API), scope).unwrap()
    }

    /// The shares in effect for a scope, as text.
    fn shares(&self, scope: &Scope) -> String {
        self.live().weights_in_effect(&self.split(scope).0).to_string()
    }

    /// Who owns each bucket for a scope.
    fn owners(&self, scope: &Scope) -> Vec<VersionName> {
        let split = self.split(scope).0;
        (0..BUCKETS).map(|i| self.live().version_for(&split, bucket(i)).clone()).collect()
    }
}

/// The kind, the document before and the document after, as the event tells them.
fn told(applied: &Applied) -> (EventKind, Value, Value) {
    let event = &applied.commit.events[0];
    (event.kind, event.before.clone(), event.after.clone())
}

fn written(applied: &Applied) -> Vec<String> {
    let puts = applied.commit.puts.iter().map(|(key, _)| key.to_string());
    puts.chain(applied.commit.deletes.iter().map(|key| format!("-{key}"))).collect()
}

mod each_change {
    use super::*;

    #[test]
    fn a_service_of_the_file_begins_with_its_split() {
        let mut house = House::new();
        let late = ChangeRequest { service: service("late"), ..asked(Change::AddService) };
        let applied = house.ask(&late).unwrap();
        let after = json!({ "baseline": "1", "weights": { "1": 100 } });
        assert_eq!(told(&applied), (EventKind::ServiceAdded, Value::Null, after));
        assert_eq!(written(&applied), ["service/late"]);
        assert!(matches!(house.ask(&late), Err(ChangeError::Nothing(_))), "it begins only once");
    }

    #[test]
    fn services_that_share_a_salt_agree_and_others_do_not() {
        let house = House::new();
        let salt = |name: &str| house.state.service(name).unwrap().split.salt;
        assert_eq!(salt("web"), derive_salt("salt/shared", 0));
        assert_ne!(salt(API), salt("web"));
    }

    #[test]
    fn a_split_is_set_for_service_group_and_tenant() {
        let mut house = House::new();
        let applied = house.does(set(Scope::Service, "1=90 2=10"));
        let after = json!({ "weights": { "1": 90, "2": 10 }, "moved_percent": 10.0 });
        assert_eq!(told(&applied), (EventKind::SplitSet, json!({ "weights": { "1": 100 } }), after));
        assert_eq!(written(&applied), ["service/api"]);
        assert_eq!(written(&house.does(set(of_group("early"), "1=80 2=20"))), ["service/api"]);
        assert_eq!(written(&house.does(set(of_tenant("acme"), "1=70 2=30"))), ["tenant/api/acme"]);
        assert_eq!(house.shares(&Scope::Service), "1=90 2=10");
        assert_eq!(house.shares(&of_group("early")), "1=80 2=20");
        assert_eq!(house.shares(&of_group("beta")), "1=90 2=10", "a group without a split follows the service");
        assert_eq!(house.shares(&of_tenant("acme")), "1=70 2=30");
        assert_eq!(house.shares(&of_tenant("initech")), "1=80 2=20");
        assert_eq!(house.shares(&of_tenant("globex")), "1=90 2=10");
        house.does(set(of_group("beta"), "1=50 2=50"));
        assert_eq!(house.shares(&of_tenant("globex")), "1=50 2=50");
        let house = house.does_all([Change::ClearSplit { scope: of_tenant("acme") }]);
        assert_eq!(house.split(&of_tenant("acme")).1, of_group("beta"), "the first group by name decides");
    }

    #[test]
    fn a_removed_split_gives_way_to_the_less_specific_one() {
        let mut house =
            House::new().does_all([set(of_group("early"), "1=80 2=20"), set(of_tenant("acme"), "1=70 2=30")]);
        let applied = house.does(Change::ClearSplit { scope: of_tenant("acme") });
        assert_eq!(told(&applied), (EventKind::SplitCleared, json!({ "weights": { "1": 70, "2": 30 } }), Value::Null));
        assert_eq!((written(&applied), applied.document_revision), (vec!["-tenant/api/acme".to_owned()], 0));
        assert_eq!(house.shares(&of_tenant("acme")), "1=80 2=20");
        assert_eq!(written(&house.does(Change::ClearSplit { scope: of_group("early") })), ["service/api"]);
        assert_eq!(house.shares(&of_tenant("acme")), "1=100");
        for scope in [of_tenant("acme"), of_group("early")] {
            assert!(matches!(house.refuses(Change::ClearSplit { scope }), ChangeError::NotThere { .. }));
        }
        assert!(matches!(house.refuses(Change::ClearSplit { scope: Scope::Service }), ChangeError::Invalid(_)));
    }

    #[test]
    fn a_pin_is_set_replaced_and_removed() {
        let mut house = House::new();
        let to = |v: &str| Pin::Version(version(v));
        let json = |pin: Value| json!({ "target": "user alice", "pin": pin });
        let applied = house.does(Change::SetPin(pin_user("alice"), to("2")));
        assert_eq!(told(&applied), (EventKind::PinSet, Value::Null, json(json!({ "version": "2" }))));
        assert_eq!(written(&applied), ["service/api"]);
        let applied = house.does(Change::SetPin(pin_user("alice"), Pin::Exclude(version("3"))));
        let (before, after) = (json(json!({ "version": "2" })), json(json!({ "exclude": "3" })));
        assert_eq!(told(&applied), (EventKind::PinSet, before, after.clone()));
        let applied = house.does(Change::ClearPin(pin_user("alice")));
        assert_eq!(told(&applied), (EventKind::PinCleared, after, Value::Null));
        assert!(house.live().pins.is_empty());
        let house = house.does_all([
            Change::SetPin(pin_tenant("acme"), to("2")),
            Change::SetPin(pin_group("beta"), to("3")),
            Change::ClearPin(pin_tenant("acme")),
        ]);
        assert_eq!(house.live().pins.iter().collect::<Vec<_>>(), [&to("3")]);
    }

    #[test]
    fn a_hold_says_who_why_and_since_when() {
        let mut house = House::new();
        let applied = house.does(Change::SetHold);
        let hold = json!({ "author": { "kind": "person", "name": "ada" }, "reason": "because", "since_ms": 3_000 });
        assert_eq!(told(&applied), (EventKind::HoldSet, Value::Null, hold.clone()));
        assert_eq!(written(&applied), ["service/api"]);
        assert_eq!(told(&house.does(Change::ClearHold)), (EventKind::HoldCleared, hold, Value::Null));
        assert!(matches!(house.refuses(Change::ClearHold), ChangeError::NotThere { .. }));
    }

    #[test]
    fn another_version_is_trusted_and_no_traffic_moves_by_it() {
        let mut house = House::new().does_all([set(Scope::Service, "1=20 2=80")]);
        let owners = house.owners(&Scope::Service);
        let applied = house.does(Change::SetBaseline(version("2")));
        assert_eq!(told(&applied), (EventKind::BaselineSet, json!({ "baseline": "1" }), json!({ "baseline": "2" })));
        assert_eq!((house.live().baseline.as_str(), house.owners(&Scope::Service)), ("2", owners));
        house.does(rollback(Scope::Service, None));
        assert_eq!(house.shares(&Scope::Service), "2=100", "going back is going to the baseline of now");
    }

    #[test]
    fn a_version_is_registered_used_and_removed() {
        let mut house = House::new();
        let applied = house.does(Change::PutVersion(version("4"), some_version(7_004)));
        assert_eq!((told(&applied).0, told(&applied).1), (EventKind::VersionPut, Value::Null));
        let applied = house.does(Change::PutVersion(version("4"), some_version(7_005)));
        assert_eq!((told(&applied).1, told(&applied).2), (json!(some_version(7_004)), json!(some_version(7_005))));
        house.does(set(of_tenant("acme"), "1=50 4=50"));
        let refusal = house.refuses(Change::DeleteVersion(version("4")));
        assert!(matches!(&refusal, ChangeError::InUse { uses, .. } if uses == "the splits of 1 tenants"), "{refusal}");
        house.does(Change::ClearSplit { scope: of_tenant("acme") });
        let applied = house.does(Change::DeleteVersion(version("4")));
        assert_eq!(told(&applied), (EventKind::VersionDeleted, json!(some_version(7_005)), Value::Null));
        assert_eq!(written(&applied), ["service/api"]);
        assert!(house.live().versions.is_empty());
    }

    #[test]
    fn everything_that_sends_requests_to_a_version_is_a_use() {
        let mut house = House::new().does_all([
            Change::PutVersion(version("4"), some_version(7_004)),
            set(Scope::Service, "1=90 4=10"),
            set(of_group("beta"), "1=90 4=10"),
            Change::Brake { scope: of_group("beta"), canary: version("4"), share: percent(0.0) },
            set(of_tenant("acme"), "1=90 4=10"),
            Change::SetPin(pin_user("alice"), Pin::Version(version("4"))),
            Change::SetBaseline(version("4")),
        ]);
        let ChangeError::InUse { uses, .. } = house.refuses(Change::DeleteVersion(version("4"))) else { panic!() };
        let wanted =
            "it is the baseline, 10 % of the service's split, the split of group beta, the splits of 1 tenants, 1 pins";
        assert_eq!(uses, wanted);
    }

    #[test]
    fn a_probe_is_half_and_half() {
        let mut house = House::new().does_all([set(Scope::Service, "2=95 3=5")]);
        let applied = house.ask(&by_autopilot(probe(Scope::Service))).unwrap();
        let after = json!({ "weights": { "1": 50, "2": 50 }, "moved_percent": 50.0 });
        assert_eq!(told(&applied), (EventKind::Probe, json!({ "weights": { "2": 95, "3": 5 } }), after));
        assert_eq!(applied.commit.events[0].version, Some(version("2")));
        assert_eq!(house.shares(&Scope::Service), "1=50 2=50");
        let of_baseline = Change::Probe { scope: Scope::Service, canary: version("1") };
        assert!(matches!(house.refuses(of_baseline), ChangeError::Invalid(_)));
    }

    #[test]
    fn a_probe_that_comes_too_late_gives_nothing_back() {
        let acme = || of_tenant("acme");
        let mut house = House::new().does_all([set(acme(), "2=100")]);
        let attempt = house.split(&acme()).0.attempt;
        house.does(rollback(Scope::Service, Some("2")));
        let late = ChangeRequest { if_attempt: Some(attempt), ..by_autopilot(probe(acme())) };
        assert!(matches!(house.ask(&late), Err(ChangeError::Nothing(_))), "its own attempt is still the same");
        assert_eq!(house.shares(&acme()), "1=100");
    }
}

#[cfg(test)]
#[path = "apply_operations_tests.rs"]
mod operations;

#[cfg(test)]
#[path = "apply_global_tests.rs"]
mod global;

mod refusals {
    use super::*;

    /// What kind of refusal it is.
    fn kind(error: &ChangeError) -> &'static str {
        match error {
            ChangeError::UnknownService { .. } => "unknown service",
            ChangeError::UnknownVersion { .. } => "unknown version",
            ChangeError::UnknownGroup { .. } => "unknown group",
            ChangeError::NotThere { .. } => "not there",
            ChangeError::StaleRevision { .. } => "stale revision",
            ChangeError::StaleAttempt { .. } => "stale attempt",
            ChangeError::InUse { .. } => "in use",
            ChangeError::UnknownRollout { .. } => "unknown rollout",
            ChangeError::Running { .. } => "running",
            ChangeError::NotNow { .. } => "not now",
            ChangeError::Disabled { .. } => "disabled",
            ChangeError::Invalid(_) => "invalid",
            ChangeError::Nothing(_) => "nothing",
        }
    }

    /// One of every kind of change.
    fn every_change() -> Vec<Change> {
        vec![
            set(Scope::Service, "1=90 2=10"),
            Change::ClearSplit { scope: of_tenant("acme") },
            rollback(Scope::Service, None),
            brake(Scope::Service, 1.0),
            Change::ReleaseBrake { scope: Scope::Service },
            probe(Scope::Service),
            Change::SetPin(pin_user("alice"), Pin::Version(version("2"))),
            Change::ClearPin(pin_user("alice")),
            Change::SetHold,
            Change::ClearHold,
            Change::SetBaseline(version("2")),
            Change::PutVersion(version("4"), some_version(7_004)),
            Change::DeleteVersion(version("4")),
            Change::SetMaintenance { tenant: None, message: String::new(), retry_after_s: 60 },
            Change::ClearMaintenance { tenant: None },
            Change::DisableVersion(version("2")),
            Change::EnableVersion(version("2")),
        ]
    }

    #[test]
    fn a_service_that_is_not_there_is_named_with_those_that_are() {
        let mut house = House::new();
        for change in every_change() {
            let error = house.ask(&ChangeRequest { service: service("ghost"), ..asked(change.clone()) }).unwrap_err();
            assert_eq!(error.to_string(), "there is no service \"ghost\"; there are: api, late, web", "{change:?}");
            let error = house.ask(&ChangeRequest { service: service("late"), ..asked(change.clone()) }).unwrap_err();
            assert_eq!(kind(&error), "unknown service", "not begun yet: {change:?}");
        }
        let ghost = ChangeRequest { service: service("ghost"), ..asked(Change::AddService) };
        assert_eq!(kind(&house.ask(&ghost).unwrap_err()), "unknown service");
    }

    #[test]
    fn every_change_is_refused_against_another_revision() {
        let mut house = House::new();
        for change in every_change() {
            let stale = ChangeRequest { if_revision: Some(99), ..asked(change.clone()) };
            assert_eq!(kind(&house.ask(&stale).unwrap_err()), "stale revision", "{change:?}");
        }
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let mut house = House::new().does_all([
            set(Scope::Service, "1=90 2=10"),
            Change::PutVersion(version("4"), some_version(7_004)),
            set(of_group("beta"), "1=90 4=10"),
        ]);
        let nine = || version("9");
        let cases = [
            ("unknown version", set(Scope::Service, "1=90 9=10")),
            ("unknown version", rollback(Scope::Service, Some("9"))),
            ("unknown version", Change::Probe { scope: Scope::Service, canary: nine() }),
            ("unknown version", Change::SetPin(pin_user("a"), Pin::Version(nine()))),
            ("unknown version", Change::SetPin(pin_user("a"), Pin::Exclude(nine()))),
            ("unknown version", Change::SetBaseline(nine())),
            ("unknown group", set(of_group("nobody"), "1=100")),
            ("unknown group", rollback(of_group("nobody"), Some("2"))),
            ("unknown group", brake(of_group("nobody"), 1.0)),
            ("unknown group", probe(of_group("nobody"))),
            ("unknown group", Change::SetPin(pin_group("nobody"), Pin::Version(version("2")))),
            ("not there", Change::ClearSplit { scope: of_group("nobody") }),
            ("not there", Change::ClearPin(pin_user("alice"))),
            ("not there", Change::ClearPin(pin_tenant("acme"))),
            ("not there", Change::ClearPin(pin_group("beta"))),
            ("not there", Change::DeleteVersion(nine())),
            ("in use", Change::DeleteVersion(version("4"))),
            ("invalid", Change::DeleteVersion(version("2"))),
            ("invalid", Change::PutVersion(version("2"), some_version(1))),
            ("invalid", Change::SetPin(pin_user("a"), Pin::Exclude(version("1")))),
            ("invalid", rollback(Scope::Service, Some("1"))),
            ("nothing", brake(Scope::Service, 10.0)),
            ("nothing", Change::Brake { scope: Scope::Service, canary: version("1"), share: percent(1.0) }),
            ("nothing", Change::ReleaseBrake { scope: Scope::Service }),
            ("nothing", Change::ReleaseBrake { scope: of_tenant("acme") }),
        ];
        for (wanted, change) in cases {
            assert_eq!(kind(&house.refuses(change.clone())), wanted, "{change:?}");
        }
    }

    #[test]
    fn an_excluded_version_is_not_trusted() {
        let mut house = House::new().does_all([Change::SetPin(pin_user("alice"), Pin::Exclude(version("2")))]);
        assert_eq!(kind(&house.refuses(Change::SetBaseline(version("2")))), "invalid");
    }

    #[test]
    fn there_is_a_limit_to_pins() {
        let mut house = House::new();
        let mut live = house.live().clone();
        let all = (0..Pins::MAX).map(|i| (UserName::new(&format!("u{i}")).unwrap(), Pin::Version(version("2"))));
        live.pins.users = all.collect();
        house.state.services.insert(service(API), Arc::new(live));
        let more = Change::SetPin(pin_user("one-more"), Pin::Version(version("2")));
        assert_eq!(kind(&house.refuses(more)), "invalid");
        house.does(Change::SetPin(pin_user("u7"), Pin::Version(version("3"))));
    }

    #[test]
    fn a_tenant_without_a_document_is_at_revision_zero() {
        let mut house = House::new();
        let change = set(of_tenant("acme"), "1=90 2=10");
        let at = |revision| ChangeRequest { if_revision: Some(revision), ..asked(change.clone()) };
        let error = house.ask(&at(2)).unwrap_err();
        assert_eq!(error, ChangeError::StaleRevision { expected: 2, current: 0 });
        let applied = house.ask(&at(0)).unwrap();
        assert_eq!(house.ask(&at(0)).unwrap_err(), ChangeError::StaleRevision { expected: 0, current: 3 });
        house.does(Change::SetHold);
        house.ask(&at(applied.document_revision)).expect("the service's document is another one");
    }

    #[test]
    fn a_service_and_its_groups_are_one_document() {
        let mut house = House::new().does_all([set(of_group("beta"), "1=90 2=10")]);
        let revision = house.live().revision;
        house.does(set(of_tenant("acme"), "1=90 2=10"));
        let at = |change| ChangeRequest { if_revision: Some(revision), ..asked(change) };
        house.ask(&at(set(of_group("early"), "1=90 2=10"))).expect("no tenant's change makes it stale");
        assert_eq!(kind(&house.ask(&at(Change::SetHold)).unwrap_err()), "stale revision");
    }

    #[test]
    fn evidence_of_an_earlier_split_is_refused_and_a_brake_is_no_new_split() {
        let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50")]);
        let attempt = house.split(&Scope::Service).0.attempt;
        let fenced = |change| ChangeRequest { if_attempt: Some(attempt), ..by_autopilot(change) };
        house.ask(&fenced(brake(Scope::Service, 5.0))).unwrap();
        house.ask(&fenced(brake(of_tenant("acme"), 1.0))).expect_err("what is braked is not braked again");
        let mut other = house.clone();
        other.ask(&fenced(Change::ReleaseBrake { scope: Scope::Service })).expect("same attempt after the brake");
        other.ask(&fenced(rollback(of_tenant("acme"), Some("2")))).expect("same attempt after the release");
        house.ask(&fenced(rollback(Scope::Service, Some("2")))).expect("same attempt while braked");
        let mut again = other.does_all([set(Scope::Service, "1=50 2=50")]);
        for change in [rollback(Scope::Service, Some("2")), brake(Scope::Service, 5.0), probe(of_tenant("globex"))] {
            assert_eq!(kind(&again.ask(&fenced(change)).unwrap_err()), "stale attempt");
        }
    }
}

mod going_back {
    use super::*;

    #[test]
    fn all_traffic_of_a_scope_goes_to_the_baseline() {
        let mut house = House::new().does_all([
            set(Scope::Service, "1=50 2=30 3=20"),
            Change::SetPin(pin_user("alice"), Pin::Version(version("2"))),
            Change::SetPin(pin_user("bob"), Pin::Exclude(version("2"))),
        ]);
        let applied = house.does(rollback(Scope::Service, None));
        let before = json!({ "weights": { "1": 50, "2": 30, "3": 20 } });
        let after = json!({ "weights": { "1": 100 }, "pins_left": 1 });
        assert_eq!(told(&applied), (EventKind::Rollback, before, after));
        let event = &applied.commit.events[0];
        assert_eq!((event.version.as_ref(), event.cause.as_deref()), (Some(&version("2")), Some("errors")));
        assert_eq!(event.first_bad_to_rollback_ms, Some(event.at_ms - 1));
        assert_eq!(house.live().pins.len(), 2, "pins stay");
        let left =
            RolledBack { version: version("2"), at_ms: event.at_ms, event: event.id, unknown: Default::default() };
        assert_eq!(house.live().split.rolled_back, Some(left));
        for canary in ["2", "3"] {
            let bar = &house.live().bars[canary];
            assert_eq!((bar.revision, bar.rolled_back.version.as_str()), (house.state.revision, canary));
        }
    }

    #[test]
    fn one_version_goes_back_and_the_others_stay() {
        let mut house = House::new().does_all([set(Scope::Service, "1=50 2=30 3=20")]);
        let before = house.owners(&Scope::Service);
        house.does(rollback(Scope::Service, Some("2")));
        assert_eq!(house.shares(&Scope::Service), "1=80 3=20");
        for (was, is) in before.iter().zip(house.owners(&Scope::Service)) {
            assert_eq!(is.as_str(), if was.as_str() == "2" { "1" } else { was.as_str() });
        }
    }

    #[test]
    fn a_tenant_that_inherits_gets_a_document_of_its_own() {
        let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50")]);
        let applied = house.ask(&by_autopilot(rollback(of_tenant("acme"), Some("2")))).unwrap();
        assert_eq!(written(&applied), ["tenant/api/acme"]);
        assert_eq!(house.shares(&of_tenant("acme")), "1=100");
        assert_eq!(house.shares(&of_tenant("globex")), "1=50 2=50");
        assert_eq!(house.split(&of_tenant("acme")).1, of_tenant("acme"));
        house.does(set(Scope::Service, "1=10 2=90"));
        assert_eq!(house.shares(&of_tenant("acme")), "1=100", "it stays back when the service goes on");
    }

    #[test]
    fn the_guard_is_told_when_there_is_nothing_to_take_back() {
        let mut house = House::new();
        let idle = by_autopilot(rollback(of_tenant("acme"), Some("2")));
        assert!(matches!(house.ask(&idle), Err(ChangeError::Nothing(_))));
        house.ask(&by_autopilot(rollback(Scope::Service, Some("2")))).expect("somewhere below may be traffic");
        house.does(rollback(of_tenant("acme"), Some("2")));
    }

    #[test]
    fn a_canary_that_is_braked_to_nothing_can_still_be_taken_back() {
        let mut house = House::new().does_all([set(of_tenant("acme"), "1=50 2=50"), brake(of_tenant("acme"), 0.0)]);
        house.ask(&by_autopilot(rollback(of_tenant("acme"), Some("2")))).expect("its share is only held back");
        assert!(matches!(house.refuses(Change::ReleaseBrake { scope: of_tenant("acme") }), ChangeError::Nothing(_)));
        assert_eq!(house.split(&of_tenant("acme")).0.intended(), weights("1=100"));
    }

    fn crowd(n: usize, text: &str) -> House {
        let mut house = House::new();
        for i in 0..n {
            let change = asked(set(of_tenant(&format!("t{i}")), text));
            house.state = house.state.apply(&house.structure, &change, house.next_event, 0).unwrap().state;
            house.next_event += 1;
        }
        house
    }

    #[test]
    fn a_thousand_tenants_go_back_by_one_document() {
        let mut house = crowd(1_000, "1=50 2=30 3=20").does_all([set(of_group("beta"), "1=40 2=60")]);
        let applied = house.does(rollback(Scope::Service, Some("2")));
        assert_eq!(written(&applied), ["service/api"]);
        for i in 0..1_000 {
            assert_eq!(house.shares(&of_tenant(&format!("t{i}"))), "1=80 3=20");
        }
        assert_eq!(house.shares(&of_group("beta")), "1=100");
        assert_eq!(house.shares(&of_tenant("acme")), "1=100");
        house.does(set(of_tenant("t7"), "1=70 2=30"));
        assert_eq!(house.shares(&of_tenant("t7")), "1=70 2=30", "set again, the version is back there");
        assert_eq!(house.shares(&of_tenant("t8")), "1=80 3=20", "and nowhere else");
        house.does(set(Scope::Service, "1=90 2=10"));
        assert_eq!(house.shares(&of_tenant("t8")), "1=80 3=20");
        assert_eq!(house.shares(&of_tenant("fresh")), "1=90 2=10");
    }

    #[test]
    fn after_a_bar_a_new_split_moves_no_more_keys_than_needed() {
        let mut house = crowd(1, "1=50 2=30 3=20").does_all([rollback(Scope::Service, Some("2"))]);
        let scope = of_tenant("t0");
        let before = house.owners(&scope);
        let applied = house.does(set(scope.clone(), "1=70 3=30"));
        let moved: Vec<_> =
            before.iter().zip(house.owners(&scope)).filter(|(was, is)| *was != is).map(|(_, is)| is).collect();
        assert_eq!(moved.len(), 1_000);
        assert!(moved.iter().all(|v| v.as_str() == "3"));
        assert_eq!(applied.after["moved_percent"], 10.0);
    }

    #[test]
    fn a_version_that_was_barred_and_removed_stays_barred_when_it_comes_back() {
        let put = || Change::PutVersion(version("4"), some_version(7_004));
        let mut house = House::new().does_all([put(), set(of_tenant("t0"), "1=50 4=50")]);
        house.does(rollback(Scope::Service, Some("4")));
        house.does(Change::DeleteVersion(version("4")));
        assert_eq!(house.shares(&of_tenant("t0")), "1=100");
        house.does(put());
        assert_eq!(house.shares(&of_tenant("t0")), "1=100");
        let house =
            house.does_all([Change::ClearSplit { scope: of_tenant("t0") }, Change::DeleteVersion(version("4"))]);
        assert!(house.live().bars.is_empty(), "a bar that nobody needs goes with its version");
    }
}

mod braking {
    use super::*;

    #[test]
    fn a_brake_and_its_release_restore_exactly() {
        for scope in [Scope::Service, of_group("beta"), of_tenant("acme")] {
            let mut house = House::new().does_all([set(scope.clone(), "1=50 2=30 3=20")]);
            let before = house.split(&scope).0;
            let applied = house.ask(&by_autopilot(brake(scope.clone(), 5.0))).unwrap();
            let json = |text: &str| json!({ "weights": weights(text) });
            assert_eq!(told(&applied), (EventKind::Brake, json("1=50 2=30 3=20"), json("1=75 2=5 3=20")));
            let braked = house.split(&scope).0;
            assert_eq!((house.shares(&scope).as_str(), braked.intended()), ("1=75 2=5 3=20", before.weights()));
            assert_eq!((braked.attempt, braked.epoch), (before.attempt, house.state.revision));
            let applied = house.does(Change::ReleaseBrake { scope: scope.clone() });
            assert_eq!(told(&applied), (EventKind::BrakeReleased, json("1=75 2=5 3=20"), json("1=50 2=30 3=20")));
            let epoch = house.state.revision;
            assert_eq!(house.split(&scope).0, Split { epoch, ..before });
        }
    }

    #[test]
    fn a_braked_tenant_without_a_split_of_its_own_follows_what_it_inherits() {
        let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50")]);
        let parent = house.split(&Scope::Service).0;
        let applied = house.does(brake(of_tenant("acme"), 5.0));
        assert_eq!(written(&applied), ["tenant/api/acme"]);
        let (braked, owner) = house.split(&of_tenant("acme"));
        assert_eq!((braked.attempt, owner), (parent.attempt, of_tenant("acme")));
        assert_eq!(house.shares(&of_tenant("acme")), "1=95 2=5");
        let mut other = house.clone();
        let applied = other.does(Change::ReleaseBrake { scope: of_tenant("acme") });
        assert_eq!((written(&applied), applied.document_revision), (vec!["-tenant/api/acme".to_owned()], 0));
        assert_eq!(other.split(&of_tenant("acme")), (parent, Scope::Service));
        house.does(set(Scope::Service, "1=80 2=20"));
        assert_eq!(house.shares(&of_tenant("acme")), "1=80 2=20", "a new split above ends the brake");
        let refusal = house.refuses(Change::ReleaseBrake { scope: of_tenant("acme") });
        assert!(matches!(refusal, ChangeError::Nothing(_)), "{refusal}");
        house.does(brake(of_tenant("acme"), 5.0));
        assert_eq!(house.shares(&of_tenant("acme")), "1=95 2=5");
    }

    #[test]
    fn a_braked_group_without_a_split_of_its_own_follows_the_service() {
        let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50"), brake(of_group("beta"), 5.0)]);
        for scope in [of_group("beta"), of_tenant("acme")] {
            assert_eq!(house.shares(&scope), "1=95 2=5");
        }
        house.does(set(Scope::Service, "1=80 2=20"));
        for scope in [of_group("beta"), of_tenant("acme")] {
            assert_eq!(house.split(&scope).1, Scope::Service);
            assert_eq!(house.shares(&scope), "1=80 2=20");
        }
    }

    #[test]
    fn a_released_tenant_is_told_what_it_inherits_now() {
        let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50"), brake(of_tenant("acme"), 5.0)]);
        house.does(brake(Scope::Service, 1.0));
        let applied = house.does(Change::ReleaseBrake { scope: of_tenant("acme") });
        assert_eq!(house.shares(&of_tenant("acme")), "1=99 2=1");
        assert_eq!(applied.after, json!({ "weights": { "1": 99, "2": 1 } }));
    }

    #[test]
    fn a_brake_that_ended_is_no_use_of_a_version() {
        let mut house = House::new().does_all([
            Change::PutVersion(version("4"), some_version(7_004)),
            set(Scope::Service, "1=50 4=50"),
            Change::Brake { scope: of_tenant("acme"), canary: version("4"), share: percent(5.0) },
        ]);
        let refusal = house.refuses(Change::DeleteVersion(version("4")));
        assert!(refusal.to_string().contains("the splits of 1 tenants"), "{refusal}");
        house.does(set(Scope::Service, "1=100"));
        house.does(Change::DeleteVersion(version("4")));
    }

    #[test]
    fn a_bar_stays_while_another_bar_leads_to_its_version() {
        let mut house = House::new().does_all([
            set(of_tenant("acme"), "1=50 2=50"),
            Change::PutVersion(version("4"), some_version(7_004)),
            Change::SetBaseline(version("4")),
            rollback(Scope::Service, Some("2")),
        ]);
        assert_eq!(house.shares(&of_tenant("acme")), "1=50 4=50", "the baseline of that time took over");
        house = house.does_all([Change::SetBaseline(version("1")), rollback(Scope::Service, Some("4"))]);
        house.does(Change::DeleteVersion(version("4")));
        assert_eq!(house.shares(&of_tenant("acme")), "1=100", "and who took over from it keeps it");
    }

    #[test]
    fn a_barred_version_has_nothing_to_hold_back() {
        let mut house = House::new().does_all([set(of_tenant("acme"), "1=50 2=50"), rollback(Scope::Service, None)]);
        assert!(matches!(house.refuses(brake(of_tenant("acme"), 5.0)), ChangeError::Nothing(_)));
        let house =
            House::new().does_all([set(of_tenant("acme"), "1=50 2=30 3=20"), rollback(Scope::Service, Some("3"))]);
        let mut house = house;
        let applied = house.does(brake(of_tenant("acme"), 5.0));
        assert_eq!(applied.after, json!({ "weights": { "1": 95, "2": 5 } }));
        assert_eq!(house.shares(&of_tenant("acme")), "1=95 2=5");
    }

    #[test]
    fn a_persons_split_ends_a_brake() {
        let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50"), brake(Scope::Service, 5.0)]);
        house.does(set(Scope::Service, "1=60 2=40"));
        assert_eq!((house.shares(&Scope::Service).as_str(), &house.live().split.brake), ("1=60 2=40", &None));
    }
}

#[test]
fn the_autopilot_never_touches_a_hold() {
    let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50"), Change::SetHold]);
    let hold = house.live().hold.clone();
    for change in [Change::ClearHold, Change::SetHold] {
        assert!(matches!(house.ask(&by_autopilot(change)), Err(ChangeError::Invalid(_))));
    }
    let service = Scope::Service;
    for change in [
        brake(service.clone(), 5.0),
        Change::ReleaseBrake { scope: service.clone() },
        probe(service.clone()),
        rollback(of_tenant("acme"), Some("2")),
        rollback(service, None),
    ] {
        house.ask(&by_autopilot(change)).expect("a hold forbids no way back");
        assert_eq!(house.live().hold, hold);
    }
}

#[test]
fn a_stored_split_with_too_many_versions_is_refused_and_does_not_panic() {
    let house = House::new();
    let mut document = house.state.to_documents().next().unwrap();
    let mut body: Value = serde_json::from_str(&document.body).unwrap();
    let slices = (1..=17).map(|i| json!({ "end": if i == 17 { BUCKETS } else { i }, "version": format!("v{i}") }));
    body["split"]["slices"] = slices.collect();
    document.body = body.to_string();
    let error = State::from_documents(9, &[document]).expect_err("16 versions are the most");
    assert_eq!(error.key, DocumentKey::Service(service(API)));
}

pub(in crate::model) mod at_random {
    use super::*;

    /// What the bars must be, known from the history alone.
    type Bars = BTreeMap<(ServiceName, VersionName), u64>;

    fn any_version() -> impl Strategy<Value = VersionName> {
        prop_oneof![6 => Just(4u8), 8 => 1..=5u8, 1 => Just(9)].prop_map(|v| version(&v.to_string()))
    }

    fn any_scope() -> impl Strategy<Value = Scope> {
        let group = prop_oneof![4 => Just("beta"), 4 => Just("early"), 1 => Just("nobody")];
        let tenant = prop_oneof![Just("acme"), Just("globex"), Just("initech"), Just("umbrella")];
        prop_oneof![2 => Just(Scope::Service), 1 => group.prop_map(of_group), 3 => tenant.prop_map(of_tenant)]
    }

    fn any_weights() -> impl Strategy<Value = Weights> {
        let cut = prop_oneof![Just(0u16), Just(BUCKETS), 0..=BUCKETS];
        (prop::collection::vec(cut, 2), prop::collection::vec(any_version(), 3)).prop_map(|(mut cuts, versions)| {
            cuts.sort_unstable();
            let ends = [cuts[0], cuts[1], BUCKETS];
            let mut from = 0;
            let mut points = BTreeMap::<_, u16>::new();
            for (v, end) in versions.into_iter().zip(ends) {
                *points.entry(v).or_default() += end - std::mem::replace(&mut from, end);
            }
            Weights::new(points.into_iter().map(|(v, p)| (v, BasisPoints::new(p).unwrap()))).unwrap()
        })
    }

    fn any_share() -> impl Strategy<Value = BasisPoints> {
        prop_oneof![Just(0), 0..=BUCKETS, 0..500u16].prop_map(|p| BasisPoints::new(p).unwrap())
    }

    fn any_pin() -> impl Strategy<Value = (PinTarget, Pin)> {
        let target = prop_oneof![
            Just(pin_user("alice")),
            Just(pin_tenant("acme")),
            Just(pin_group("beta")),
            Just(pin_group("nobody"))
        ];
        let pin = (any_version(), any::<bool>()).prop_map(|(v, to)| if to { Pin::Version(v) } else { Pin::Exclude(v) });
        (target, pin)
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let rollback = (any_scope(), prop::option::of(any_version()), prop::option::of(0u64..9_000)).prop_map(
            |(scope, canary, first_bad_ms)| Change::Rollback { scope, canary, cause: "errors".into(), first_bad_ms },
        );
        prop_oneof![
            1 => Just(Change::AddService),
            6 => (any_scope(), any_weights()).prop_map(|(scope, weights)| Change::SetSplit { scope, weights }),
            2 => any_scope().prop_map(|scope| Change::ClearSplit { scope }),
            4 => rollback,
            4 => (any_scope(), any_version(), any_share())
                .prop_map(|(scope, canary, share)| Change::Brake { scope, canary, share }),
            2 => any_scope().prop_map(|scope| Change::ReleaseBrake { scope }),
            2 => (any_scope(), any_version()).prop_map(|(scope, canary)| Change::Probe { scope, canary }),
            2 => any_pin().prop_map(|(target, pin)| Change::SetPin(target, pin)),
            1 => any_pin().prop_map(|(target, _)| Change::ClearPin(target)),
            1 => prop_oneof![Just(Change::SetHold), Just(Change::ClearHold)],
            3 => any_version().prop_map(Change::SetBaseline),
            4 => any_version().prop_map(|v| Change::PutVersion(v, some_version(7_009))),
            4 => any_version().prop_map(Change::DeleteVersion),
            2 => any_version().prop_map(Change::DisableVersion),
            2 => any_version().prop_map(Change::EnableVersion),
            1 => Just(Change::SetMaintenance { tenant: None, message: String::new(), retry_after_s: 60 }),
            1 => Just(Change::ClearMaintenance { tenant: None }),
        ]
    }

    pub(in crate::model) fn any_request() -> impl Strategy<Value = ChangeRequest> {
        let name = prop_oneof![16 => Just(API), 3 => Just("web"), 2 => Just("late"), 1 => Just("ghost")];
        let author = prop_oneof![2 => Just(person()), 1 => Just(Author::Autopilot)];
        let stale = prop::option::weighted(0.1, 0u64..40);
        (name, author, any_change(), stale.clone(), stale).prop_map(|(name, author, change, revision, attempt)| {
            let (if_revision, if_attempt) = (revision, attempt);
            ChangeRequest { service: service(name), author, if_revision, if_attempt, ..asked(change) }
        })
    }

    fn note(bars: &mut Bars, house: &House, request: &ChangeRequest) {
        let name = &request.service;
        match &request.change {
            Change::Rollback { scope: Scope::Service, canary, .. } => {
                let live = house.state.service(name.as_str()).unwrap();
                let file = house.structure.services[name].versions.keys();
                let all = file.chain(live.versions.keys()).filter(|v| **v != live.baseline);
                for v in all.filter(|v| canary.as_ref().is_none_or(|c| c == *v)) {
                    bars.insert((name.clone(), v.clone()), house.state.revision);
                }
            }
            Change::DisableVersion(v) => drop(bars.insert((name.clone(), v.clone()), house.state.revision)),
            // Who is trusted is barred no more.
            Change::SetBaseline(v) => drop(bars.remove(&(name.clone(), v.clone()))),
            _ => {}
        }
    }

    fn check_splits(house: &House, bars: &Bars) {
        let groups = house.structure.tenants.groups.keys().cloned().map(Scope::Group);
        let tenants = ["acme", "globex", "initech", "umbrella", "stranger"].map(of_tenant);
        let scopes: Vec<_> = groups.chain(tenants).chain([Scope::Service]).collect();
        for (name, live) in &house.state.services {
            for scope in &scopes {
                let (split, _) = house.state.split_of(&house.structure, name, scope).unwrap();
                assert!(split.is_sound(), "{name} {scope}: {split:?}");
                let shares = live.weights_in_effect(&split);
                assert_eq!(shares.iter().map(|(_, s)| u64::from(s.points())).sum::<u64>(), u64::from(BUCKETS));
                check_slices(house, name, live, &split, &shares);
                for disabled in live.disabled.keys() {
                    assert_eq!(
                        shares.share(disabled.as_str()),
                        BasisPoints::ZERO,
                        "{name} {scope}: {disabled} is disabled"
                    );
                    assert!(*disabled != live.baseline, "{name}: the baseline is disabled");
                }
                for ((_, barred), revision) in bars.iter().filter(|((s, _), _)| s == name) {
                    let back = split.attempt > *revision || shares.share(barred.as_str()) == BasisPoints::ZERO;
                    assert!(back, "{name} {scope}: {barred} was rolled back at {revision}: {split:?}");
                }
            }
        }
    }

    /// What requests get is what the shares say, and every version that gets any exists.
    fn check_slices(house: &House, name: &ServiceName, live: &ServiceState, split: &Split, shares: &Weights) {
        let exists =
            |v: &VersionName| house.structure.services[name].versions.contains_key(v) || live.versions.contains_key(v);
        let (mut from, mut points) = (0, BTreeMap::<&VersionName, u16>::new());
        for slice in &split.slices {
            let first = bucket(from);
            assert_eq!((first.index(), split.version_at(first)), (from, &slice.version));
            let owner = live.version_for(split, first);
            assert!(exists(owner), "{name}: {owner} gets requests and does not exist");
            *points.entry(owner).or_default() += slice.end - from;
            from = slice.end;
        }
        assert!(points.iter().all(|(v, p)| shares.share(v.as_str()).points() == *p), "{points:?} {shares:?}");
        for held in split.brake.iter().flat_map(|b| &b.slices) {
            assert!(exists(&held.version) || live.barred(&held.version, split).is_some(), "{held:?} comes back");
        }
    }

    /// A split that is set moves half the sum of the differences, and only towards versions that grow.
    fn check_moves(house: &House, before: &House, request: &ChangeRequest) {
        let Change::SetSplit { scope, weights } = &request.change else { return };
        let of = |house: &House| {
            let split = house.state.split_of(&house.structure, &request.service, scope).unwrap().0;
            (house.state.service(request.service.as_str()).unwrap().clone(), split)
        };
        let ((old_live, old), (new_live, new)) = (of(before), of(house));
        let was = old_live.weights_in_effect(&old);
        let grows =
            |v: &VersionName| i32::from(weights.share(v.as_str()).points()) - i32::from(was.share(v.as_str()).points());
        let mut moved = 0;
        for b in (0..BUCKETS).map(bucket) {
            let (from, to) = (old_live.version_for(&old, b), new_live.version_for(&new, b));
            if from != to {
                assert!(grows(to) > 0 && grows(from) < 0, "{from} to {to}: {was} to {weights}");
                moved += 1;
            }
        }
        assert_eq!(moved, weights.iter().map(|(v, _)| grows(v).max(0)).sum::<i32>(), "{was} to {weights}");
    }

    fn check_round_trip(house: &House) {
        let documents: Vec<_> = house.state.to_documents().collect();
        let again = State::from_documents(house.state.revision, &documents).unwrap();
        let sorted = |mut all: Vec<Document>| {
            all.sort_by(|a, b| a.key.cmp(&b.key));
            all
        };
        assert_eq!(sorted(again.to_documents().collect()), sorted(documents));
        assert_eq!(again.revision, house.state.revision);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// That each success writes one event, one document and the next revision, and each refusal nothing, `House` checks.
        #[test]
        fn whatever_is_asked_the_state_stays_sound(requests in prop::collection::vec(any_request(), 1..90)) {
            let (mut house, mut bars) = (House::new(), Bars::new());
            for request in &requests {
                let before = house.clone();
                match house.ask(request) {
                    Ok(_) => {
                        prop_assert_eq!(house.state.revision, before.state.revision + 1);
                        note(&mut bars, &house, request);
                        check_moves(&house, &before, request);
                    }
                    Err(_) => prop_assert_eq!(house.state.revision, before.state.revision),
                }
                check_splits(&house, &bars);
                check_round_trip(&house);
            }
        }
    }
}
