//! Decisions: what goes before what, what stays together, and what counts as evidence.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::model::{BasisPoints, Change, Scope, Weights};
use crate::routing::explain;
use crate::routing::fixture::{
    FILE, House, Request, of_group, of_tenant, pin_group, pin_tenant, pin_user, rollback, set, share, version,
};

const SECRET: &str = "0123456789abcdef";

fn to(name: &str) -> Pin {
    Pin::Version(version(name))
}

fn not(name: &str) -> Pin {
    Pin::Exclude(version(name))
}

/// The same request as another user.
fn user(name: &str) -> Request {
    Request::to("/api").with("x-user", name)
}

fn of(request: Request, tenant: &str) -> Request {
    request.with("x-tenant", tenant)
}

/// A house where each way to a version leads to another version, all of which hold for alice of acme.
fn every_way() -> House {
    let mut house = House::new();
    for change in [
        set(Scope::Service, "s", 10_000),
        set(of_group("beta"), "g", 10_000),
        set(of_tenant("acme"), "t", 10_000),
        Change::SetPin(pin_group("beta"), to("pg")),
        Change::SetPin(pin_tenant("acme"), to("pt")),
        Change::SetPin(pin_user("alice"), to("pu")),
        Change::SetPin(pin_group("early"), not("pu")),
    ] {
        house.does("api", change);
    }
    house
}

#[test]
fn what_goes_before_what() {
    let mut house = every_way();
    let plain = of(user("alice"), "acme");
    let by_path = Request { path: "/api/p/x".to_owned(), ..plain.clone() };
    let full = by_path.clone().with("x-version", &format!("c:{SECRET}"));
    // Each step takes away what decided before.
    let steps = [
        ("an exclusion", None, &full, "b"),
        ("a user's pin", Some(Change::ClearPin(pin_group("early"))), &full, "pu"),
        ("a tenant's pin", Some(Change::ClearPin(pin_user("alice"))), &full, "pt"),
        ("a group's pin", Some(Change::ClearPin(pin_tenant("acme"))), &full, "pg"),
        ("a tester's choice", Some(Change::ClearPin(pin_group("beta"))), &full, "c"),
        ("a version's path", None, &by_path, "p"),
        ("a tenant's split", None, &plain, "t"),
        ("a group's split", Some(Change::ClearSplit { scope: of_tenant("acme") }), &plain, "g"),
        ("the service's split", Some(Change::ClearSplit { scope: of_group("beta") }), &plain, "s"),
    ];
    for (what, change, request, wanted) in steps {
        if let Some(change) = change {
            house.does("api", change);
        }
        let decision = house.decides(request);
        assert_eq!(decision.version.name.as_str(), wanted, "{what}");
        assert_eq!(decision.drawn == Drawn::Chosen, !what.ends_with("split"), "{what}");
        assert_eq!(explain(&house.routes, &request.head()).version.as_deref(), Some(wanted), "{what}");
    }
}

#[test]
fn an_exclusion_wins_over_every_way_to_a_version() {
    let plain = of(user("alice"), "acme");
    let full = Request { path: "/api/p".to_owned(), ..plain.clone() }.with("x-version", &format!("c:{SECRET}"));
    for target in [pin_user("alice"), pin_tenant("acme"), pin_group("early")] {
        for (request, excluded) in
            [(&full, "c"), (&Request { path: "/api/p".into(), ..plain.clone() }, "p"), (&plain, "t")]
        {
            let mut house = House::new();
            house.does("api", set(of_tenant("acme"), "t", 10_000));
            assert_eq!(house.version_of(request), excluded);
            house.does("api", Change::SetPin(target.clone(), not(excluded)));
            let decision = house.decides(request);
            assert_eq!((decision.version.name.as_str(), decision.drawn), ("b", Drawn::Chosen), "{target:?} {excluded}");
        }
    }
}

#[test]
fn who_can_never_reach_a_canary_is_no_evidence() {
    let mut house = House::new();
    house.does("api", Change::SetPin(pin_user("alice"), not("s")));
    assert_eq!(house.decides(&user("alice")).drawn, Drawn::Chosen);
    assert!(matches!(house.decides(&user("bob")).drawn, Drawn::Key(_)));
}

#[test]
fn a_choice_needs_trust_or_the_secret() {
    let house = House::new();
    let right = format!("c:{SECRET}");
    let cookie = format!("version=c:{SECRET}");
    let cases = [
        (true, "x-version", "c", "c"),
        (false, "x-version", "c", "b"),
        (false, "x-version", right.as_str(), "c"),
        (false, "x-version", "c:0123456789abcdeF", "b"),
        (false, "x-version", "c:", "b"),
        (true, "x-version", "c:wrong", "c"),
        (true, "x-version", "nonsense", "b"),
        (false, "cookie", cookie.as_str(), "c"),
        (true, "cookie", "version=c", "c"),
        (false, "cookie", "version=c", "b"),
    ];
    for (trusted, name, value, wanted) in cases {
        let request = Request { trusted, ..user("alice").with(name, value) };
        let decision = house.decides(&request);
        assert_eq!(decision.version.name.as_str(), wanted, "trusted: {trusted}, {name}: {value}");
        assert_eq!(decision.drawn == Drawn::Chosen, wanted == "c");
    }
}

#[test]
fn a_user_is_whom_the_header_or_cookie_names() {
    let mut house = House::new();
    house.does("api", Change::SetPin(pin_user("alice"), to("pu")));
    assert_eq!(house.version_of(&user("alice")), "pu");
    assert_eq!(house.version_of(&Request::to("/api").with("cookie", "a=1; sid=alice")), "pu");
    assert_eq!(house.version_of(&user("bob").with("cookie", "sid=alice")), "b", "the first source decides");
    house.does("crm", Change::SetPin(pin_user("acme"), to("s")));
    assert_eq!(house.version_of(&of(Request::to("/crm"), "acme")), "b", "a tenant is no user");
}

#[test]
fn the_same_key_gets_the_same_version_on_both_sides() {
    let mut house = House::new();
    house.does("api", set(Scope::Service, "s", 5_000));
    let mut seen = BTreeSet::new();
    for key in 0..50 {
        let request = user(&format!("user-{key}"));
        let first = house.version_of(&request);
        seen.insert(first);
        for random in 1..50u64 {
            let again =
                Request { random: [random << 58, random], address: [10, 0, 0, random as u8].into(), ..request.clone() };
            assert_eq!(house.version_of(&again), first);
        }
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn an_issued_cookie_keeps_a_visitor_where_the_first_request_went() {
    let mut house = House::new();
    house.does("web", set(Scope::Service, "s", 5_000));
    let mut seen = BTreeSet::new();
    for visitor in 1..200u64 {
        let first = Request { random: [visitor, !visitor], ..of(Request::to("/web"), "acme") };
        let decision = house.decides(&first);
        let (name, value, max_age) = decision.issue.clone().expect("a new visitor gets a cookie");
        assert_eq!((name, max_age), ("sb", 3_600));
        let with = |request: Request, value: &str| request.with("cookie", &format!("x=1; sb={value}"));
        let second = with(of(Request::to("/web"), "acme"), &value);
        let again = house.decides(&second);
        assert_eq!((&again.version.name, again.drawn), (&decision.version.name, decision.drawn));
        assert!(again.issue.is_none());
        seen.insert(again.version.name.clone());
        let tampered = format!("{}{}", if value.starts_with('A') { 'B' } else { 'A' }, &value[1..]);
        let other = with(of(Request::to("/web"), "globex"), &value);
        for stranger in [with(of(Request::to("/web"), "acme"), &tampered), other, with(Request::to("/web"), &value)] {
            let stranger = Request { random: [7, visitor], ..stranger };
            let issued = house.decides(&stranger).issue.expect("it counts as a new visitor");
            assert_ne!(issued.1, value);
        }
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn an_address_is_a_key_and_of_ipv6_only_the_network_part() {
    let mut house = House::new();
    house.does("net", set(Scope::Service, "s", 5_000));
    let drawn = |address: IpAddr| house.decides(&Request { address, ..Request::to("/net") }).drawn;
    let v6 = |network: u16, host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host));
    assert_eq!(drawn(v6(1, 1)), drawn(v6(1, 0xffff)));
    assert_ne!(drawn(v6(1, 1)), drawn(v6(2, 1)));
    assert_ne!(drawn([10, 0, 0, 1].into()), drawn([10, 0, 0, 2].into()));
    let mapped = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
    assert_eq!(drawn([10, 0, 0, 1].into()), drawn(mapped.into()));
}

#[test]
fn all_users_of_a_tenant_stay_together_when_the_tenant_is_the_key() {
    let mut house = House::new();
    house.does("crm", set(Scope::Service, "s", 5_000));
    let mut seen = BTreeSet::new();
    for tenant in 0..40 {
        let request = of(Request::to("/crm"), &format!("t{tenant}"));
        let first = house.decides(&request);
        assert!(first.by_tenant && matches!(first.drawn, Drawn::Key(_)));
        for other in 0..10u8 {
            let another = Request { address: [10, 9, 8, other].into(), random: [!0, 1], ..request.clone() };
            assert_eq!(house.version_of(&another.with("x-user", &other.to_string())), first.version.name.as_str());
        }
        seen.insert(first.version.name.as_str());
    }
    assert_eq!(seen.len(), 2);
    let nobody = house.decides(&Request { random: [9, 9], ..Request::to("/crm") }).drawn;
    assert_eq!(nobody, Drawn::Coin, "without a tenant each request is drawn");
}

#[test]
fn without_a_key_each_request_is_drawn() {
    let mut house = House::new();
    house.does("coin", set(Scope::Service, "s", 2_500));
    let of_random = |random: u64| Request { random: [random, 0], ..Request::to("/coin") };
    assert_eq!(house.version_of(&of_random(0)), "s");
    assert_eq!(house.version_of(&of_random(u64::MAX / 4 + 1)), "b");
    assert_eq!(house.decides(&of_random(3)).drawn, Drawn::Coin);
    assert!(house.decides(&of_random(3)).issue.is_none());
}

#[test]
fn a_split_with_a_barred_version_is_no_evidence() {
    let mut house = House::new();
    house.does("api", set(of_tenant("acme"), "s", 5_000));
    house.does("api", set(of_tenant("globex"), "t", 5_000));
    house.does("api", rollback(Scope::Service, "s"));
    for key in 0..50 {
        let request = of(user(&format!("user-{key}")), "acme");
        let decision = house.decides(&request);
        assert_eq!((decision.version.name.as_str(), decision.split), ("b", None));
        assert!(house.decides(&of(user("x"), "globex")).split.is_some());
    }
    house.does("api", set(of_tenant("acme"), "s", 5_000));
    assert!(house.decides(&of(user("x"), "acme")).split.is_some());
}

#[test]
fn every_way_to_a_disabled_version_ends_at_the_baseline() {
    let mut house = every_way();
    house.does("api", Change::ClearPin(pin_group("early")));
    let plain = of(user("alice"), "acme");
    let by_path = Request { path: "/api/p/x".to_owned(), ..plain.clone() };
    let chosen = plain.clone().with("x-version", &format!("c:{SECRET}"));
    let elsewhere = of(user("zoe"), "umbrella");
    // From the way that decides first to the one that decides last, each switched off.
    for (request, canary, then) in [
        (&plain, "pu", Some(Change::ClearPin(pin_user("alice")))),
        (&plain, "pt", Some(Change::ClearPin(pin_tenant("acme")))),
        (&plain, "pg", Some(Change::ClearPin(pin_group("beta")))),
        (&chosen, "c", None),
        (&by_path, "p", None),
        (&plain, "t", Some(Change::ClearSplit { scope: of_tenant("acme") })),
        (&plain, "g", Some(Change::ClearSplit { scope: of_group("beta") })),
        (&elsewhere, "s", None),
    ] {
        assert_eq!(house.version_of(request), canary, "before");
        house.does("api", Change::DisableVersion(version(canary)));
        assert_eq!(house.version_of(request), "b", "{canary} is disabled");
        let told = explain(&house.routes, &request.head());
        // The service's own split was written anew and does not name the version any more.
        assert!(canary == "s" || told.steps.iter().any(|s| s.detail.contains("disabled")), "{canary}: {told:?}");
        let evidence =
            house.decides(request).split.is_some_and(|s| s.slices.iter().any(|s| s.version == version(canary)));
        assert!(!evidence, "{canary}");
        assert_eq!(decide(&house.elsewhere(), &request.head(), &mut Silent).unwrap().version.name, version("b"));
        then.into_iter().for_each(|change| house.does("api", change));
    }
    for canary in ["pu", "pt", "pg", "c", "p", "t", "g", "s"] {
        house.does("api", Change::EnableVersion(version(canary)));
    }
    assert_eq!(house.version_of(&elsewhere), "b", "nothing comes back by itself");
    assert_eq!((house.version_of(&chosen), house.version_of(&by_path)), ("c", "p"), "but those who ask for it");
}

#[test]
fn a_suspended_pin_leads_to_the_baseline_until_it_is_set_again() {
    let mut house = House::new();
    for change in [
        set(Scope::Service, "s", 10_000),
        Change::SetPin(pin_tenant("acme"), to("t")),
        Change::DisableVersion(version("t")),
    ] {
        house.does("api", change);
    }
    let request = of(user("alice"), "acme");
    assert_eq!((house.version_of(&request), house.decides(&request).drawn), ("b", Drawn::Chosen));
    house.does("api", Change::EnableVersion(version("t")));
    assert_eq!(house.version_of(&request), "b");
    house.does("api", Change::SetPin(pin_tenant("acme"), to("t")));
    assert_eq!(house.version_of(&request), "t");
}

#[test]
fn a_closed_door_opens_for_the_secret_and_for_networks() {
    let file = FILE.replace(
        "match = [{ path = \"/api\" }]",
        "match = [{ path = \"/api\" }]\nmaintenance = { bypass_secret = \"open sesame\", bypass = [\"10.9.0.0/16\"] }",
    );
    let mut house = House::of(&file.replace("open sesame", "open-sesame-00001"));
    let shut = |house: &House, request: &Request| {
        let decision = house.decides(request);
        crate::routing::closed(decision.service, decision.tenant.as_deref(), &request.headers, request.address)
            .map(|m| m.message.clone())
    };
    let on = |tenant: Option<&str>, message: &str| Change::SetMaintenance {
        tenant: tenant.map(|t| crate::model::TenantName::new(t).unwrap()),
        message: message.to_owned(),
        retry_after_s: 60,
    };
    let (acme, globex) = (of(user("a"), "acme"), of(user("a"), "globex"));
    assert_eq!(shut(&house, &acme), None);
    house.does("api", on(Some("acme"), "yours"));
    assert_eq!((shut(&house, &acme).as_deref(), shut(&house, &globex)), (Some("yours"), None));
    house.does("api", on(None, "all"));
    assert_eq!((shut(&house, &acme).as_deref(), shut(&house, &globex).as_deref()), (Some("yours"), Some("all")));
    assert_eq!(shut(&house, &user("nobody")).as_deref(), Some("all"));
    assert_eq!(shut(&house, &acme.clone().with("x-switchback-bypass", "open-sesame-00001")), None);
    for wrong in ["open-sesame-00002", "open-sesame-0000", ""] {
        assert!(shut(&house, &acme.clone().with("x-switchback-bypass", wrong)).is_some(), "{wrong}");
    }
    let inside = Request { address: "::ffff:10.9.8.7".parse().unwrap(), ..acme.clone() };
    assert_eq!(shut(&house, &inside), None);
    let told = explain(&house.routes, &acme.head());
    assert_eq!((told.version, told.steps.last().unwrap().step), (None, "maintenance"));
    assert!(explain(&house.routes, &inside.head()).version.is_some());
}

#[test]
fn a_brake_that_follows_ends_with_what_it_follows() {
    let mut house = House::new();
    let all_keys = |house: &House, tenant: &str| {
        let on = |k: &usize| house.version_of(&of(user(&format!("user-{k}")), tenant)) == "s";
        (0..2_000).filter(on).count()
    };
    house.does("api", set(Scope::Service, "s", 5_000));
    for (scope, tenant) in [(of_tenant("umbrella"), "umbrella"), (of_group("beta"), "globex")] {
        house.does("api", Change::Brake { scope, canary: version("s"), share: BasisPoints::ZERO });
        assert_eq!(all_keys(&house, tenant), 0);
    }
    assert!(all_keys(&house, "stranger") > 800);
    house.does("api", set(Scope::Service, "s", 6_000));
    for tenant in ["umbrella", "globex", "stranger"] {
        assert!(all_keys(&house, tenant) > 1_000, "{tenant}");
    }
}

#[test]
fn the_tenant_is_stripped_and_the_path_rewritten() {
    let mut house = House::new();
    house.does("api", set(Scope::Service, "p", 10_000));
    let cases = [
        ("/t/acme/api/p/x", "/v2/x", 7),
        ("/t/acme/api/p", "/v2", 7),
        ("/t/acme/api/x", "/api/x", 7),
        ("/api/p/x", "/v2/x", 0),
        ("/api/px", "/api/px", 0),
    ];
    for (path, wanted, strip) in cases {
        let request = Request::to(path);
        let told = explain(&house.routes, &request.head());
        assert_eq!((told.path.as_str(), house.decides(&request).strip), (wanted, strip), "{path}");
        let tenant = if strip > 0 { "acme" } else { "{tenant}" };
        assert_eq!(told.endpoints, [format!("{tenant}.p.internal:80")]);
        assert_eq!(told.steps.iter().any(|s| s.step == "rewrite"), path != wanted);
    }
    let text = FILE.replace("match = [{ path = \"/web\" }]", "match = [{ path = \"/\" }]");
    let told = explain(&House::of(&text).routes, &Request::to("/t/acme").head());
    assert_eq!((told.service.as_deref(), told.path.as_str()), (Some("web"), "/"));
}

#[test]
fn a_request_that_cannot_be_placed_is_refused() {
    let strict = House::of(&FILE.replace("[tenants]", "[tenants]\nconflict = \"reject\"\nunknown = \"reject\""));
    let lenient = House::new();
    let at_acme = Request { host: "acme.example.com".to_owned(), ..Request::to("/api") };
    let cases = [
        (&lenient, Request::to("/nowhere"), Refusal::NoService, 404),
        (&strict, Request::to("/api"), Refusal::UnknownTenant, 404),
        (&lenient, of(of(Request::to("/api"), "acme"), "globex"), Refusal::BadTenant, 400),
        (&lenient, of(Request::to("/api"), "a b"), Refusal::BadTenant, 400),
        (&strict, of(at_acme.clone(), "globex"), Refusal::TenantConflict, 400),
    ];
    for (house, request, wanted, status) in cases {
        let refusal = house.refuses(&request);
        assert_eq!((refusal, refusal.status()), (wanted, status));
        let told = explain(&house.routes, &request.head());
        assert_eq!((told.version, told.steps.last().unwrap().step), (None, "refused"));
    }
    assert_eq!(strict.version_of(&of(at_acme, "acme")), "b");
}

#[test]
fn the_split_of_a_tenant_is_the_one_that_its_requests_follow() {
    let house = every_way();
    let api = house.routes.service("api").unwrap();
    let cases = [("acme", SplitOwner::Tenant), ("globex", SplitOwner::Group), ("stranger", SplitOwner::Service)];
    for (tenant, wanted) in cases {
        let (split, owner) = split_for(&house.routes, api, Some(tenant));
        assert_eq!(owner, wanted);
        assert_eq!(house.decides(&of(user("bob"), tenant)).split, Some(split));
    }
    assert_eq!(split_for(&house.routes, api, None).1, SplitOwner::Service);
}

/// Weights of the versions `b`, `s` and `t`, none of which has everything.
fn mixed() -> impl Strategy<Value = Weights> {
    (1u16..9_998, 1u16..9_998).prop_filter_map("two cuts", |(a, b)| {
        let (low, high) = (a.min(b), a.max(b));
        let parts = [("b", low), ("s", high - low), ("t", 10_000 - high)];
        Weights::new(parts.map(|(v, p)| (version(v), BasisPoints::new(p).unwrap()))).ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The share of users on a version is its weight, within five standard deviations.
    #[test]
    fn the_share_of_users_is_the_weight(points in prop_oneof![Just(0u16), Just(10_000), 1u16..10_000], first in 0u32..1_000_000) {
        let mut house = House::new();
        house.does("api", Change::SetSplit { scope: Scope::Service, weights: share("s", points) });
        let users = 10_000;
        let on = (first..first + users).filter(|k| house.version_of(&user(&format!("user-{k}"))) == "s").count();
        let p = f64::from(points) / 10_000.0;
        let (mean, error) = (f64::from(users) * p, (f64::from(users) * p * (1.0 - p)).sqrt());
        prop_assert!((on as f64 - mean).abs() <= 5.0 * error, "{on} of {users} at {p}");
    }

    /// A key moves only from a version that shrinks to one that grows, and every process says the same.
    #[test]
    fn no_user_moves_but_towards_a_version_that_grows(steps in prop::collection::vec(mixed(), 2..5), tenant: bool) {
        let mut house = House::new();
        let scope = || if tenant { of_tenant("acme") } else { Scope::Service };
        let users: Vec<_> = (0..1_500).map(|k| of(user(&format!("user-{k}")), "acme")).collect();
        house.does("api", Change::SetSplit { scope: scope(), weights: steps[0].clone() });
        for pair in steps.windows(2) {
            let before: Vec<_> = users.iter().map(|u| house.version_of(u).to_owned()).collect();
            house.does("api", Change::SetSplit { scope: scope(), weights: pair[1].clone() });
            let elsewhere = house.elsewhere();
            for (request, was) in users.iter().zip(before) {
                let is = house.version_of(request);
                prop_assert!(is == was || pair[1].share(is) > pair[0].share(is) && pair[1].share(&was) < pair[0].share(&was));
                prop_assert_eq!(decide(&elsewhere, &request.head(), &mut Silent).unwrap().version.name.as_str(), is);
            }
        }
    }
}
