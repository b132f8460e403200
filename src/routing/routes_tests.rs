//! Routes: what does not fit together does not compile, and a patch is the same as compiling anew.

use proptest::prelude::*;

use super::*;
use crate::model::{BasisPoints, Change, Scope};
use crate::routing::fixture::{
    FILE, House, Request, context, of_group, of_tenant, pin_group, pin_tenant, pin_user, rollback, set, structure,
    version,
};
use crate::routing::{Drawn, Head, Refusal, Silent, decide, explain};

/// The structure after somebody removed a version of `web` from the file.
fn without(name: &str, port: u16) -> Structure {
    structure(&FILE.replace(&format!(", {name} = {{ endpoints = [\"127.0.0.1:{port}\"] }} }}"), " }"))
}

fn error(structure: &Structure, house: &House) -> String {
    Routes::compile(structure, &house.state, &context(), None).unwrap_err().to_string()
}

#[test]
fn a_patch_leaves_alone_what_did_not_change() {
    let mut house = House::new();
    let before: Vec<_> = house.routes.services.clone();
    house.does("api", set(Scope::Service, "s", 100));
    for (old, new) in before.iter().zip(&house.routes.services) {
        assert_eq!(Arc::ptr_eq(old, new), old.spec.name.as_str() != "api");
        assert!(old.versions.iter().zip(&new.versions).all(|(a, b)| Arc::ptr_eq(a, b)), "health and load are kept");
        assert!(Arc::ptr_eq(&old.tally, &new.tally));
    }
    assert_eq!(house.routes.revision, house.state.revision);
}

#[test]
fn a_version_that_is_described_anew_begins_anew() {
    let house = House::new();
    let changed = structure(&FILE.replace("127.0.0.1:7009", "127.0.0.1:7010"));
    let next = Routes::compile(&changed, &house.state, &house.context, Some(&house.routes)).unwrap();
    let (old, new) = (house.routes.service("api").unwrap(), next.service("api").unwrap());
    let kept = |name: &str| Arc::ptr_eq(old.version(name).unwrap(), new.version(name).unwrap());
    assert!(kept("pt") && !kept("pu"));
}

#[test]
fn what_a_split_or_pin_names_must_exist() {
    let cases = [
        (set(Scope::Service, "t", 100), "the split names"),
        (set(of_group("beta"), "t", 100), "the split of group beta names"),
        (set(of_tenant("acme"), "t", 100), "the split of tenant acme names"),
        (Change::SetPin(pin_user("alice"), Pin::Version(version("t"))), "a pin names"),
        (Change::SetBaseline(version("t")), "the baseline names"),
    ];
    let gone = without("t", 7003);
    for (change, place) in cases {
        let mut house = House::new();
        house.does("web", change);
        let error = error(&gone, &house);
        let wanted = format!("services.web: {place} version t, which has no endpoints here; versions are: b, s");
        assert_eq!(error, wanted);
    }
    let mut house = House::new();
    house.does("web", Change::SetPin(pin_user("alice"), Pin::Exclude(version("t"))));
    house.does("web", set(of_tenant("acme"), "t", 100));
    house.does("web", rollback(Scope::Service, "t"));
    Routes::compile(&gone, &house.state, &context(), None).expect("what gets no request may be gone");
}

#[test]
fn a_brake_that_ended_may_name_what_is_gone() {
    let mut house = House::new();
    house.does("web", set(Scope::Service, "t", 5_000));
    for scope in [of_tenant("acme"), of_group("beta")] {
        house.does("web", Change::Brake { scope, canary: version("t"), share: BasisPoints::ZERO });
    }
    let gone = without("t", 7003);
    house.does("web", set(Scope::Service, "s", 5_000));
    Routes::compile(&gone, &house.state, &context(), None).expect("it is without effect");
}

#[test]
fn a_service_without_a_live_part_does_not_compile() {
    let mut house = House::new();
    house.state.services.remove("net");
    assert_eq!(error(&house.structure, &house), "services.net: the state has no such service");
}

/// What a decision comes to, for comparing.
type Outcome = Result<(String, String, Option<String>, Option<u64>, Drawn, bool, Option<String>, usize), Refusal>;

fn outcome(routes: &Routes, head: &Head<'_>) -> Outcome {
    let d = decide(routes, head, &mut Silent)?;
    let (service, version) = (d.service.spec.name.to_string(), d.version.name.to_string());
    let (tenant, epoch) = (d.tenant.map(|t| t.into_owned()), d.split.map(|s| s.epoch));
    Ok((service, version, tenant, epoch, d.drawn, d.by_tenant, d.issue.map(|i| i.1), d.strip))
}

fn any_version() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("s"), 2 => Just("t"), 2 => Just("new"), 1 => Just("b")]
}

fn any_scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        2 => Just(Scope::Service),
        1 => prop_oneof![Just("beta"), Just("early")].prop_map(of_group),
        2 => prop_oneof![Just("acme"), Just("globex"), Just("umbrella")].prop_map(of_tenant),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    let points = || prop_oneof![Just(0u16), Just(10_000), 0u16..=10_000];
    let target = prop_oneof![Just(pin_user("alice")), Just(pin_tenant("acme")), Just(pin_group("early"))];
    let pin = (target, any_version(), any::<bool>()).prop_map(|(target, v, to)| {
        Change::SetPin(target, if to { Pin::Version(version(v)) } else { Pin::Exclude(version(v)) })
    });
    let spec = structure(FILE).services["web"].versions["b"].clone();
    prop_oneof![
        5 => (any_scope(), any_version(), points()).prop_map(|(scope, v, p)| match v {
            "b" => Change::ClearSplit { scope },
            _ => set(scope, v, p),
        }),
        3 => (any_scope(), any_version()).prop_map(|(scope, v)| rollback(scope, v)),
        3 => (any_scope(), any_version(), points()).prop_map(|(scope, v, p)| Change::Brake {
            scope,
            canary: version(v),
            share: BasisPoints::new(p).unwrap(),
        }),
        1 => any_scope().prop_map(|scope| Change::ReleaseBrake { scope }),
        2 => pin,
        1 => any_version().prop_map(|v| Change::SetBaseline(version(v))),
        2 => Just(Change::PutVersion(version("new"), spec)),
        2 => Just(Change::DeleteVersion(version("new"))),
    ]
}

fn any_request() -> impl Strategy<Value = Request> {
    let path = prop_oneof![
        Just("/api"),
        Just("/api/p/x"),
        Just("/web/x"),
        Just("/net"),
        Just("/crm"),
        Just("/coin"),
        Just("/nowhere"),
        Just("/t/acme/api"),
        Just("/t/globex/web"),
        Just("/t/acme")
    ];
    let tenant = prop::option::of(prop_oneof![Just("acme"), Just("globex"), Just("umbrella"), Just("a,b")]);
    let user = prop::option::of(prop_oneof![Just("alice".to_owned()), "[a-z]{1,6}"]);
    let choice = prop::option::weighted(0.2, prop_oneof![Just("s"), Just("c:0123456789abcdef"), Just("c:wrong")]);
    let host = prop_oneof![3 => Just("localhost"), 1 => Just("Acme.example.com")];
    (path, host, tenant, user, choice, any::<[u64; 2]>(), any::<[u8; 16]>(), any::<bool>()).prop_map(
        |(path, host, tenant, user, choice, random, address, trusted)| {
            let request =
                Request { host: host.to_owned(), random, address: address.into(), trusted, ..Request::to(path) };
            let headers = [("x-tenant", tenant), ("x-user", user.as_deref()), ("x-version", choice)];
            headers.into_iter().filter_map(|(n, v)| Some((n, v?))).fold(request, |r, (n, v)| r.with(n, v))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn patched_routes_decide_as_routes_compiled_anew_and_explanations_agree(
        changes in prop::collection::vec((prop_oneof![3 => Just("web"), 2 => Just("api"), 1 => Just("crm")], any_change()), 1..30),
        requests in prop::collection::vec(any_request(), 40),
    ) {
        let mut house = House::new();
        for (name, change) in changes {
            if !house.tries(name, change) {
                continue;
            }
            // That this compiles at all means that a restart finds what it needs.
            let anew = house.elsewhere();
            prop_assert_eq!(anew.revision, house.routes.revision);
            for request in &requests {
                let head = request.head();
                let decided = outcome(&house.routes, &head);
                prop_assert_eq!(&decided, &outcome(&anew, &head));
                let told = explain(&house.routes, &head);
                prop_assert_eq!(told.version, decided.ok().map(|d| d.1));
            }
        }
    }
}
