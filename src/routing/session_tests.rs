//! Sessions: who stays, what ends them, and what counts as evidence.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{BasisPoints, Change, Pin, Scope};
use crate::routing::fixture::{House, Request, of_group, of_tenant, pin_tenant, pin_user, rollback, set, version};
use crate::routing::{Context, CookieSigner, explain};
use crate::telemetry::SessionResult::{self, Expired, Foreign, Forged, Kept, New, Overridden, Renewed};

const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:8080"]
[tenants]
identify = [{ header = "x-tenant" }]
groups = { beta = ["acme"] }
[services.api]
match = [{ path = "/api" }]
sticky = [{ header = "x-user", session = true, session_ttl = "10m" }]
baseline = "b"
choose = { header = "x-version", secret = "0123456789abcdef" }
[services.api.versions]
b = { endpoints = ["127.0.0.1:7001"] }
s = { endpoints = ["127.0.0.1:7002"] }
t = { endpoints = ["127.0.0.1:7003"] }
[services.drained]
match = [{ path = "/drained" }]
sticky = [{ header = "x-user", session = true, session_cookie = "sess" }]
drain = true
baseline = "b"
versions = { b = { endpoints = ["127.0.0.1:7001"] }, s = { endpoints = ["127.0.0.1:7002"] } }
[services.plain]
match = [{ path = "/plain" }]
sticky = [{ header = "x-user" }]
baseline = "b"
versions = { b = { endpoints = ["127.0.0.1:7001"] }, s = { endpoints = ["127.0.0.1:7002"] } }
"#;

const COOKIE: &str = "sb_session_api";

/// A client that keeps the cookie it is given.
#[derive(Clone)]
struct Client {
    request: Request,
    cookie: Option<String>,
}

impl Client {
    fn new(user: &str) -> Self {
        Self { request: Request::to("/api").with("x-user", user), cookie: None }
    }

    fn of(user: &str, tenant: &str) -> Self {
        Self { request: Request::to("/api").with("x-user", user).with("x-tenant", tenant), cookie: None }
    }

    fn nobody(random: u64) -> Self {
        Self { request: Request { random: [random, 1], ..Request::to("/api") }, cookie: None }
    }

    fn sends(&self) -> Request {
        self.cookie.iter().fold(self.request.clone(), |request, cookie| request.with("cookie", cookie))
    }

    fn visit(&mut self, house: &House) -> (String, SessionResult, Drawn) {
        let request = self.sends();
        let decision = house.decides(&request);
        let outcome = decision.session.unwrap();
        assert_eq!(outcome.cookie.is_none(), outcome.result == Kept, "{outcome:?}");
        if let Some((name, value, _)) = outcome.cookie {
            self.cookie = Some(format!("{name}={value}"));
        }
        (decision.version.name.to_string(), outcome.result, decision.drawn)
    }

    fn version(&mut self, house: &House) -> String {
        self.visit(house).0
    }
}

fn house() -> House {
    House::of(FILE)
}

fn users(n: usize) -> Vec<Client> {
    (0..n).map(|i| Client::new(&format!("user-{i}"))).collect()
}

fn all(clients: &mut [Client], house: &House) -> Vec<String> {
    clients.iter_mut().map(|c| c.version(house)).collect()
}

fn on_s(versions: &[String]) -> usize {
    versions.iter().filter(|v| *v == "s").count()
}

/// A client whose key the split gives to `s`, in a session there.
fn on_canary(house: &House, tenant: &str) -> Client {
    (0..200)
        .map(|i| Client::of(&format!("{tenant}-{i}"), tenant))
        .find_map(|mut client| (client.version(house) == "s").then_some(client))
        .unwrap()
}

#[test]
fn sessions_stay_while_new_ones_follow_the_split() {
    let mut house = house();
    house.does("api", set(Scope::Service, "s", 1_000));
    let mut old = users(300);
    let before = all(&mut old, &house);
    assert!((10..60).contains(&on_s(&before)));
    for points in [9_000, 0, 10_000, 5_000] {
        house.does("api", set(Scope::Service, "s", points));
        assert_eq!(all(&mut old, &house), before, "{points}");
        let new = on_s(&all(&mut users(300), &house)) as f64;
        assert!((new - 0.03 * f64::from(points)).abs() < 50.0, "{new} at {points}");
    }
    assert!(house.decides(&Request::to("/plain").with("x-user", "a")).session.is_none());
}

#[test]
fn a_rollback_ends_sessions_on_the_canary_only_and_for_good() {
    for scope in [Scope::Service, of_tenant("acme"), of_group("beta")] {
        let mut house = house();
        house.does("api", set(scope.clone(), "s", 5_000));
        let mut clients: Vec<_> = (0..200).map(|i| Client::of(&format!("u{i}"), "acme")).collect();
        let before = all(&mut clients, &house);
        let slept = clients.clone();
        house.does("api", rollback(scope.clone(), "s"));
        let mut visits = clients.iter_mut().zip(&before);
        assert!(visits.all(|(c, b)| {
            let (version, result, drawn) = c.visit(&house);
            let ends = b == "s";
            version == "b" && result == if ends { Overridden } else { Kept } && matches!(drawn, Drawn::Key(_)) == ends
        }));
        // The second attempt gives other keys to the canary: those who come back go where the split says, not back.
        house.does("api", set(scope.clone(), "s", 3_000));
        assert!(all(&mut clients, &house).iter().all(|v| v == "b"), "in sessions on the baseline since");
        for (sleeper, was) in slept.iter().zip(&before) {
            let (version, result, _) = sleeper.clone().visit(&house);
            let fresh = Client { cookie: None, ..sleeper.clone() }.version(&house);
            let wanted = if was == "s" { (fresh, Overridden) } else { ("b".to_owned(), Kept) };
            assert_eq!((version, result), wanted, "{scope}");
        }
        // A session of the second attempt stays like any other.
        let mut second = on_canary(&house, "acme");
        house.does("api", set(scope, "s", 0));
        assert_eq!(second.visit(&house).0, "s");
    }
}

#[test]
fn a_session_of_another_canary_survives_a_rollback() {
    let mut house = house();
    let of = |name: &str, points| (version(name), BasisPoints::new(points).unwrap());
    let weights = crate::model::Weights::new([of("s", 3_000), of("t", 3_000), of("b", 4_000)]).unwrap();
    house.does("api", Change::SetSplit { scope: Scope::Service, weights });
    let mut clients = users(100);
    let before = all(&mut clients, &house);
    house.does("api", rollback(Scope::Service, "s"));
    let wanted: Vec<_> = before.iter().map(|v| if v == "s" { "b" } else { v }).collect();
    assert_eq!(all(&mut clients, &house), wanted);
}

#[test]
fn exclusions_pins_and_choices_go_before_sessions() {
    let mut house = house();
    house.does("api", set(Scope::Service, "s", 10_000));
    let mut client = Client::of("alice", "acme");
    assert_eq!(client.version(&house), "s");
    house.does("api", set(Scope::Service, "s", 0));
    house.does("api", Change::SetPin(pin_user("alice"), Pin::Version(version("t"))));
    let decision = house.decides(&client.sends()).version.name.to_string();
    assert_eq!((decision.as_str(), house.decides(&client.sends()).session.is_none()), ("t", true));
    house.does("api", Change::ClearPin(pin_user("alice")));
    let chosen = client.sends().with("x-version", "t:0123456789abcdef");
    assert_eq!(house.version_of(&chosen), "t");
    house.does("api", Change::SetPin(pin_tenant("acme"), Pin::Exclude(version("s"))));
    let (version, result, drawn) = client.visit(&house);
    assert_eq!((version.as_str(), result, drawn), ("b", Overridden, Drawn::Chosen));
    house.does("api", Change::ClearPin(pin_tenant("acme")));
    assert_eq!(client.visit(&house).1, Kept, "it does not flap back");
    assert_eq!(client.version(&house), "b");
}

#[test]
fn a_version_that_is_gone_ends_its_sessions() {
    let mut house = house();
    let spec = house.structure.services["api"].versions[&version("s")].clone();
    house.does("api", Change::PutVersion(version("n"), Arc::clone(&spec)));
    house.does("api", set(Scope::Service, "n", 10_000));
    let mut client = Client::new("alice");
    assert_eq!(client.version(&house), "n");
    house.does("api", set(Scope::Service, "n", 0));
    assert_eq!(client.version(&house), "n");
    house.does("api", Change::DeleteVersion(version("n")));
    assert_eq!((client.visit(&house).1, client.visit(&house).0), (Overridden, "b".to_owned()));
}

#[test]
fn a_brake_moves_sessions_that_the_braked_share_does_not_reach() {
    let mut house = house();
    house.does("api", set(Scope::Service, "s", 5_000));
    let mut clients = users(200);
    let before = all(&mut clients, &house);
    let share = BasisPoints::new(500).unwrap();
    house.does("api", Change::Brake { scope: Scope::Service, canary: version("s"), share });
    let braked = all(&mut clients, &house);
    let given: Vec<_> = all(&mut users(200), &house);
    assert_eq!(braked, given, "as if there were no sessions");
    assert!(on_s(&braked) < 30 && on_s(&before) > 70);
    assert!(clients.iter_mut().all(|c| c.visit(&house).1 == Kept), "no new cookie with every answer");
    house.does("api", Change::ReleaseBrake { scope: Scope::Service });
    assert_eq!(all(&mut clients, &house), braked, "who was moved stays");
}

#[test]
fn draining_ends_sessions_at_share_0_and_not_before() {
    let mut house = house();
    let mut client = Client { request: Request::to("/drained").with("x-user", "alice"), cookie: None };
    house.does("drained", set(Scope::Service, "s", 10_000));
    assert_eq!(client.version(&house), "s");
    house.does("drained", set(Scope::Service, "s", 1));
    assert_eq!((client.visit(&house).1, client.version(&house).as_str()), (Kept, "s"));
    assert!(client.cookie.as_ref().unwrap().starts_with("sess="));
    house.does("drained", set(Scope::Service, "s", 0));
    assert_eq!((client.visit(&house).1, client.version(&house).as_str()), (Overridden, "b"));
}

#[test]
fn sessions_last_while_they_are_used_and_expire_when_not() {
    let mut house = house();
    house.does("api", set(Scope::Service, "s", 10_000));
    let mut client = Client::new("alice");
    let at = |client: &mut Client, house: &House, now_s: u64| {
        client.request.now_s = now_s;
        let (version, result, _) = client.visit(house);
        (result, version == "s")
    };
    assert_eq!(at(&mut client, &house, 1_000), (New, true));
    house.does("api", set(Scope::Service, "s", 0));
    // Ten minutes: renewed when less than five are left.
    assert_eq!(at(&mut client, &house, 1_300), (Kept, true));
    assert_eq!(at(&mut client, &house, 1_301), (Renewed, true));
    assert_eq!(at(&mut client, &house, 1_302), (Kept, true));
    for now in (1_700..10_000).step_by(400) {
        assert_eq!(at(&mut client, &house, now), (Renewed, true), "{now}");
    }
    let left = client.clone();
    assert_eq!(at(&mut left.clone(), &house, 9_700 + 599), (Renewed, true));
    assert_eq!(at(&mut left.clone(), &house, 9_700 + 600), (Expired, false));
    // Its configuration became shorter, or a clock was wrong.
    assert_eq!(at(&mut left.clone(), &house, 9_700 - 60), (Kept, true));
    assert_eq!(at(&mut left.clone(), &house, 9_700 - 61), (Renewed, true));
}

#[test]
fn a_cookie_means_nothing_for_others_and_a_forged_one_means_nothing_at_all() {
    let mut house = house();
    house.does("api", set(Scope::Service, "s", 10_000));
    let mut alice = Client::of("alice", "acme");
    assert_eq!(alice.version(&house), "s");
    house.does("api", set(Scope::Service, "s", 0));
    let with = |client: Client| Client { cookie: alice.cookie.clone(), ..client };
    for other in [Client::of("bob", "acme"), Client::of("alice", "globex"), Client::new("alice"), Client::nobody(3)] {
        let (version, result, _) = with(other).visit(&house);
        assert_eq!((version.as_str(), result), ("b", Foreign));
    }
    let good = alice.cookie.clone().unwrap();
    for junk in ["", "x", "=", "🦀", &good[15..20], &good.replace('A', "B"), &"A".repeat(5_000)] {
        let mut client = Client { cookie: Some(format!("{COOKIE}={junk}")), ..alice.clone() };
        let (version, result, _) = client.visit(&house);
        assert_eq!((version.as_str(), result), ("b", Forged), "{junk}");
    }
    let mut behind = Client { cookie: Some(format!("{COOKIE}=junk; {good}")), ..alice.clone() };
    assert_eq!(behind.visit(&house).1, Kept, "a good one behind a stranger's");
    assert_eq!(alice.visit(&house).1, Kept);
}

#[test]
fn another_key_signs_and_nobody_is_lost() {
    let mut house = house();
    house.does("api", set(Scope::Service, "s", 10_000));
    let mut client = Client::new("alice");
    client.version(&house);
    let signed_by = |house: &mut House, secrets: &[&str]| {
        let signer = Arc::new(CookieSigner::new(secrets.iter().map(|s| s.as_bytes())));
        house.context = Context { signer, ..house.context.clone() };
        house.does("api", set(Scope::Service, "s", 0));
    };
    signed_by(&mut house, &["new", "a secret of the cookies"]);
    assert_eq!((client.visit(&house).1, client.visit(&house).1), (Renewed, Kept));
    signed_by(&mut house, &["new"]);
    assert_eq!(client.visit(&house), ("s".to_owned(), Kept, Drawn::Chosen));
}

#[test]
fn without_a_key_the_session_is_the_key() {
    let mut house = house();
    house.does("api", set(Scope::Service, "s", 3_000));
    let random = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut clients: Vec<_> = (1..400).map(|i| Client::nobody(random(i))).collect();
    let before: Vec<_> = clients.iter_mut().map(|c| c.visit(&house)).collect();
    let share = before.iter().filter(|b| b.0 == "s").count();
    assert!((80..160).contains(&share), "{share}");
    for (i, client) in clients.iter_mut().enumerate() {
        client.request.random = [random(1_000 + i as u64), 0];
    }
    for (client, (version, _, drawn)) in clients.iter_mut().zip(before) {
        assert_eq!(client.visit(&house), (version, Kept, drawn), "one throw, one key");
    }
}

/// Of what counts as evidence, the canary has its share of now, however many old sessions it has.
#[test]
fn old_sessions_do_not_bend_the_evidence() {
    for (from, to) in [(9_000, 1_000), (1_000, 9_000), (9_000, 0), (5_000, 5_000)] {
        let mut house = house();
        house.does("api", set(Scope::Service, "s", from));
        let mut clients = users(1_000);
        for visit in 0..2 {
            let drawn = clients.iter_mut().all(|c| matches!(c.visit(&house).2, Drawn::Key(_)));
            assert!(drawn, "sessions that began under these shares are evidence, visit {visit}");
        }
        house.does("api", set(Scope::Service, "s", to));
        clients.extend((0..1_000).map(|i| Client::new(&format!("new-{i}"))));
        let visits: Vec<_> = clients.iter_mut().map(|c| c.visit(&house)).collect();
        let drawn: Vec<_> = visits.into_iter().filter(|v| v.2 != Drawn::Chosen).map(|v| v.0).collect();
        assert_eq!(drawn.len(), 1_000);
        let share = on_s(&drawn) as f64 / 1_000.0;
        assert!((share - f64::from(to) / 10_000.0).abs() < 0.06, "{share} of the evidence at {from} → {to}");
    }
}

#[test]
fn the_explanation_says_what_became_of_the_session() {
    let mut house = house();
    house.does("api", set(Scope::Service, "s", 10_000));
    let mut client = Client::new("alice");
    let told = |house: &House, request: &Request| {
        let explanation = explain(&house.routes, &request.head());
        let steps: Vec<_> = explanation.steps.into_iter().filter(|s| s.step == "session").map(|s| s.detail).collect();
        assert_eq!(steps.len(), 1);
        (explanation.version.unwrap(), steps[0].clone())
    };
    assert!(told(&house, &client.sends()).1.starts_with("no cookie came"));
    client.version(&house);
    house.does("api", set(Scope::Service, "s", 0));
    let kept = told(&house, &client.sends());
    assert_eq!((kept.0.as_str(), kept.1.as_str()), ("s", "kept on s by the cookie sb_session_api, for 600 s"));
    house.does("api", rollback(Scope::Service, "s"));
    let ended = told(&house, &client.sends());
    assert_eq!((ended.0.as_str(), ended.1.contains("was rolled back since")), ("b", true));
}

#[derive(Debug, Clone)]
enum Step {
    Change(Change),
    Visit(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let scope = || prop::sample::select(vec![Scope::Service, of_tenant("acme"), of_group("beta")]);
    let canary = || prop::sample::select(vec!["s", "t"]);
    let points = || prop::sample::select(vec![0u16, 100, 5_000, 10_000]);
    prop_oneof![
        3 => (scope(), canary(), points()).prop_map(|(scope, v, p)| Step::Change(set(scope, v, p))),
        1 => (scope(), canary()).prop_map(|(scope, v)| Step::Change(rollback(scope, v))),
        1 => scope().prop_map(|scope| Step::Change(Change::ReleaseBrake { scope })),
        1 => (scope(), canary(), Just(BasisPoints::new(50).unwrap()))
            .prop_map(|(scope, v, share)| Step::Change(Change::Brake { scope, canary: version(v), share })),
        1 => prop::sample::select(vec!["b", "s"]).prop_map(|v| Step::Change(Change::SetBaseline(version(v)))),
        9 => (0usize..20).prop_map(Step::Visit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever happens: a session changes its version only when something ended it, a rolled back version serves only
    /// those to whom the split gives it, a second visit changes nothing, and every process says the same.
    #[test]
    fn sessions_hold_and_give_way(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut house = house();
        let mut clients: Vec<_> = (0..20).map(|i| Client::of(&format!("u{i}"), "acme")).collect();
        let mut last: Vec<Option<String>> = vec![None; clients.len()];
        for step in steps {
            match step {
                Step::Change(change) => {
                    house.tries("api", change.clone());
                    // A tenant's own split stands above a rollback of its group.
                    let own = house.state.tenant("api", "acme").is_some();
                    if let Change::Rollback { canary: Some(canary), scope, .. } = change
                        && house.state.service("api").unwrap().baseline != canary
                        && !(own && matches!(scope, Scope::Group(_)))
                    {
                        for client in &clients {
                            let mut fresh = Client { cookie: None, ..client.clone() };
                            let version = client.clone().version(&house);
                            prop_assert!(version != canary.as_str() || fresh.version(&house) == canary.as_str());
                        }
                    }
                }
                Step::Visit(i) => {
                    let elsewhere = House { routes: house.elsewhere(), structure: house.structure.clone(),
                        state: house.state.clone(), context: house.context.clone() };
                    let there = clients[i].clone().visit(&elsewhere);
                    let here = clients[i].visit(&house);
                    prop_assert_eq!(&here, &there);
                    match here.1 {
                        Kept => prop_assert_eq!(Some(&here.0), last[i].as_ref()),
                        New => prop_assert_eq!(&last[i], &None),
                        other => prop_assert_eq!(other, Overridden),
                    }
                    let again = clients[i].visit(&house);
                    prop_assert_eq!((&again.0, again.1), (&here.0, Kept));
                    last[i] = Some(here.0);
                }
            }
        }
    }
}
