//! Streams: exactly those leave whose next request would go elsewhere.

use std::sync::Arc;

use proptest::prelude::*;

use super::StreamLeaves::{Elsewhere, Maintenance, Refused};
use super::*;
use crate::model::{BasisPoints, Change, Pin, Scope, TenantName};
use crate::routing::fixture::{
    House, Request, of_group, of_tenant, pin_tenant, pin_user, rollback, set, structure, version,
};
use crate::routing::{Context, CookieSigner};

/// A stream that was opened by this request.
struct Stream {
    head: StreamHead,
    place: StreamPlace,
}

impl Stream {
    fn open(house: &House, request: &Request) -> Self {
        let decision = house.decides(request);
        let cookie = |(name, value, _): &(&str, String, u64)| format!("{name}={value}; Path=/").parse().unwrap();
        let session = decision.session.as_ref().and_then(|s| s.cookie.as_ref());
        let issued: Vec<HeaderValue> = decision.issue.iter().chain(session).map(cookie).collect();
        let name = decision.version.name.clone();
        let place = StreamPlace { service: decision.service.spec.name.clone(), assigned: name.clone(), serving: name };
        Self { head: StreamHead::new(&request.head(), &issued), place }
    }

    fn leaves(&self, house: &House) -> Option<StreamLeaves> {
        self.head.leaves(&house.routes, &self.place)
    }

    fn version(&self) -> &str {
        self.place.serving.as_str()
    }
}

fn user(name: &str) -> Request {
    Request::to("/api").with("x-user", name)
}

fn of(name: &str, tenant: &str) -> Request {
    user(name).with("x-tenant", tenant)
}

#[test]
fn a_rollback_of_a_tenant_moves_its_streams_and_no_others() {
    let mut house = House::new();
    house.does("api", set(Scope::Service, "s", 10_000));
    house.does("api", set(of_tenant("acme"), "s", 10_000));
    let [acme, other, none] = [of("u", "acme"), of("u", "globex"), user("u")].map(|r| Stream::open(&house, &r));
    assert_eq!((acme.version(), acme.leaves(&house)), ("s", None));
    house.does("api", rollback(of_tenant("acme"), "s"));
    assert_eq!([&acme, &other, &none].map(|s| s.leaves(&house)), [Some(Elsewhere), None, None]);
    house.does("api", rollback(Scope::Service, "s"));
    assert_eq!([&acme, &other, &none].map(|s| s.leaves(&house)), [Some(Elsewhere); 3]);
}

#[test]
fn pins_exclusions_switches_and_maintenance_count() {
    let mut house = House::new();
    house.does("api", set(Scope::Service, "s", 10_000));
    let stream = Stream::open(&house, &of("alice", "acme"));
    let tenant = TenantName::new("acme").unwrap();
    let closed = Change::SetMaintenance { tenant: Some(tenant.clone()), message: String::new(), retry_after_s: 60 };
    let steps = [
        (Change::SetPin(pin_user("alice"), Pin::Version(version("t"))), Some(Elsewhere)),
        (Change::ClearPin(pin_user("alice")), None),
        (Change::SetPin(pin_tenant("acme"), Pin::Exclude(version("s"))), Some(Elsewhere)),
        (Change::ClearPin(pin_tenant("acme")), None),
        (Change::DisableVersion(version("s")), Some(Elsewhere)),
        (Change::EnableVersion(version("s")), Some(Elsewhere)),
        (set(Scope::Service, "s", 10_000), None),
        (set(of_group("beta"), "g", 10_000), Some(Elsewhere)),
        (Change::ClearSplit { scope: of_group("beta") }, None),
        (closed, Some(Maintenance)),
        (Change::ClearMaintenance { tenant: Some(tenant) }, None),
        (Change::Brake { scope: Scope::Service, canary: version("s"), share: BasisPoints::ZERO }, Some(Elsewhere)),
        (Change::ReleaseBrake { scope: Scope::Service }, None),
    ];
    for (change, wanted) in steps {
        house.does("api", change.clone());
        assert_eq!(stream.leaves(&house), wanted, "{change:?}");
    }
}

#[test]
fn a_version_that_is_gone_and_a_service_that_is_gone_keep_no_stream() {
    let mut house = House::new();
    let spec = house.routes.service("api").unwrap().version("s").unwrap().spec.clone();
    house.does("api", Change::PutVersion(version("x"), spec));
    house.does("api", Change::SetPin(pin_user("alice"), Pin::Version(version("x"))));
    let stream = Stream::open(&house, &user("alice"));
    // Another version had failed the stream, and this one took it over.
    let rescued = Stream { place: StreamPlace { assigned: version("b"), ..stream.place.clone() }, ..stream };
    assert_eq!((rescued.version(), rescued.leaves(&house)), ("x", None));
    house.does("api", Change::ClearPin(pin_user("alice")));
    assert_eq!(rescued.leaves(&house), None, "its next request would go where it was routed to");
    house.does("api", Change::DeleteVersion(version("x")));
    assert_eq!(rescued.leaves(&house), Some(Elsewhere));
    let file = crate::routing::fixture::FILE;
    let fewer = structure(&file.replace("path = \"/api\" }]", "path = \"/other\" }]"));
    let routes = Routes::compile(&fewer, &house.state, &house.context, None).unwrap();
    assert_eq!(rescued.head.leaves(&routes, &rescued.place), Some(Refused));
}

#[test]
fn without_a_key_the_first_throw_of_the_coin_holds() {
    let mut house = House::new();
    house.does("coin", set(Scope::Service, "s", 5_000));
    let request = |random| Request { random: [random, 7], ..Request::to("/coin") };
    let streams: Vec<_> = (0..64).map(|i: u64| Stream::open(&house, &request(i << 58))).collect();
    let on = |v: &str| streams.iter().filter(|s| s.version() == v).count();
    assert_eq!((on("s"), on("b")), (32, 32));
    assert!(streams.iter().all(|s| s.leaves(&house).is_none()));
    house.does("coin", set(Scope::Service, "s", 2_500));
    let leaving = streams.iter().filter(|s| s.leaves(&house).is_some());
    assert_eq!(leaving.filter(|s| s.version() == "s").count(), 16);
}

/// The cookie that the answer brought stands for the key, even when cookies are signed with another secret since.
#[test]
fn an_issued_key_is_kept() {
    let mut house = House::new();
    house.does("web", set(Scope::Service, "s", 5_000));
    let request = |n| Request { random: [n, n], ..Request::to("/web") };
    let streams: Vec<_> = (0..50u64).map(|n| Stream::open(&house, &request(n).with("cookie", "x=1"))).collect();
    let secrets = [b"another secret, from now on".as_slice(), b"a secret of the cookies"];
    let context = Context { signer: Arc::new(CookieSigner::new(secrets)), ..house.context.clone() };
    house.routes = Routes::compile(&house.structure, &house.state, &context, None).unwrap();
    assert!(streams.iter().all(|s| s.leaves(&house).is_none()));
    assert!(streams.iter().any(|s| s.version() == "s") && streams.iter().any(|s| s.version() == "b"));
}

#[test]
fn a_session_keeps_its_stream_until_a_rollback() {
    let file =
        crate::routing::fixture::FILE.replace("{ header = \"x-user\" }", "{ header = \"x-user\", session = true }");
    let mut house = House::of(&file);
    house.does("api", set(Scope::Service, "s", 10_000));
    // The session begins with the stream: its cookie is in no request yet.
    let stream = Stream::open(&house, &user("alice"));
    house.does("api", set(Scope::Service, "s", 0));
    assert_eq!((stream.version(), stream.leaves(&house)), ("s", None));
    assert_ne!(house.version_of(&user("alice")), "s", "new sessions follow the split");
    house.does("api", rollback(Scope::Service, "s"));
    assert_eq!(stream.leaves(&house), Some(Elsewhere));
}

proptest! {
    /// However shares change, the streams that leave are those of users whose requests go elsewhere now.
    #[test]
    fn a_stream_leaves_when_its_users_requests_do(changes in proptest::collection::vec((0usize..3, 0u16..=10_000), 1..8)) {
        let mut house = House::new();
        house.does("api", set(Scope::Service, "s", 5_000));
        let request = |i: usize| match i % 3 {
            0 => user(&format!("u{i}")),
            1 => of(&format!("u{i}"), "acme"),
            _ => of(&format!("u{i}"), "globex"),
        };
        let streams: Vec<_> = (0..60).map(|i| Stream::open(&house, &request(i))).collect();
        for (at, points) in changes {
            let scope = [Scope::Service, of_tenant("acme"), of_group("beta")][at].clone();
            let _same = house.tries("api", set(scope, "s", points));
            for (i, stream) in streams.iter().enumerate() {
                let moved = house.version_of(&request(i)) != stream.version();
                prop_assert_eq!(stream.leaves(&house).is_some(), moved, "user {}", i);
            }
        }
    }
}
