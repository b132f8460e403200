//! Sessions through the real proxy: they stay while the split moves, give way to what is about safety, and survive new
//! keys and a restart.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use switchback::routing::{CookieSigner, SessionClaims, SessionOwner};

use crate::harness::{Backend, TestApp};

const COOKIE: &str = "sb_session_shop";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn config(old: &Backend, new: &Backend, more: &str) -> String {
    format!(
        r#"
[tenants]
identify = [{{ header = "x-tenant-id" }}]
[services.shop]
match = [{{ path = "/" }}]
sticky = [{{ header = "x-user-id", session = true, session_ttl = "10m" }}]
baseline = "1.0.0"
{more}
[services.shop.versions."1.0.0"]
endpoints = ["{}"]
[services.shop.versions."2.0.0"]
endpoints = ["{}"]
"#,
        old.address, new.address
    )
}

async fn start(more: &str) -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&config(&old, &new, more)).await;
    (old, new, app)
}

/// Browsers by user: the cookie of each.
#[derive(Default, Clone)]
struct Browsers(HashMap<String, String>);

impl Browsers {
    /// One visit: the version, and the `set-cookie` if one came.
    async fn visit(&mut self, app: &TestApp, user: &str, more: &[(&str, &str)]) -> (String, Option<String>) {
        let cookie = self.0.get(user).map(|value| format!("theme=dark; {COOKIE}={value}"));
        let mut headers = vec![("x-user-id", user)];
        headers.extend(cookie.as_ref().map(|c| ("cookie", c.as_str())));
        headers.extend(more);
        let answer = app.get("/", &headers).await;
        assert_eq!(answer.status, 200);
        let set = answer.headers.get("set-cookie").map(|v| v.to_str().unwrap().to_owned());
        if let Some(set) = &set {
            let value = set.strip_prefix(COOKIE).unwrap().strip_prefix('=').unwrap().split(';').next().unwrap();
            self.0.insert(user.to_owned(), value.to_owned());
        }
        (answer.version, set)
    }

    /// The versions of users `prefix-0`, `prefix-1`, ….
    async fn all(&mut self, app: &TestApp, prefix: &str, n: usize) -> Vec<String> {
        let mut versions = Vec::new();
        for i in 0..n {
            versions.push(self.visit(app, &format!("{prefix}-{i}"), &[]).await.0);
        }
        versions
    }
}

fn on_new(versions: &[String]) -> usize {
    versions.iter().filter(|v| *v == "2.0.0").count()
}

async fn counted(app: &TestApp, result: &str) -> f64 {
    let (a, b) = (format!("service=\"shop\",result=\"{result}\""), format!("result=\"{result}\",service=\"shop\""));
    let name = "switchback_session_cookies_total";
    app.metric(&format!("{name}{{{a}}}")).await + app.metric(&format!("{name}{{{b}}}")).await
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_sessions_stay_while_weights_go_up_and_down() {
    let (_old, _new, app) = start("").await;
    app.split("shop", 10.0).await;
    let mut browsers = Browsers::default();
    let (_, set) = browsers.visit(&app, "user-0", &[]).await;
    let set = set.unwrap();
    assert!(set.ends_with("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax"), "{set}");
    assert_eq!(browsers.visit(&app, "user-0", &[]).await.1, None, "not every answer carries a cookie");
    let before = browsers.all(&app, "user", 150).await;
    assert!((3..40).contains(&on_new(&before)), "{}", on_new(&before));
    for percent in [90.0, 0.0, 100.0, 50.0] {
        app.split("shop", percent).await;
        assert_eq!(browsers.all(&app, "user", 150).await, before, "at {percent} %");
        let fresh = on_new(&Browsers::default().all(&app, "user", 60).await) as f64;
        assert!((fresh - 0.6 * percent).abs() < 20.0, "{fresh} of 60 new sessions at {percent} %");
    }
    assert_eq!(counted(&app, "overridden").await + counted(&app, "forged").await, 0.0);
    assert_eq!(counted(&app, "kept").await, 1.0 + 1.0 + 4.0 * 150.0);
    let service = app.api("GET", "/v1/services/shop", None).await.1;
    assert_eq!(service["sticky"], json!(["header x-user-id, sessions of 10m in cookie sb_session_shop"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_overrides_at_once_and_nobody_flaps_back() {
    let (_old, _new, app) = start("").await;
    for scope in ["", "/tenants/acme"] {
        let acme = [("x-tenant-id", "acme")];
        app.change("PUT", "/v1/services/shop/split", json!({ "weights": { "2.0.0": 100 } })).await;
        let mut browsers = Browsers::default();
        assert_eq!(browsers.visit(&app, "alice", &acme).await.0, "2.0.0");
        let slept = browsers.clone();
        let rollback = format!("/v1/services/shop{scope}/rollback");
        app.change("POST", &rollback, json!({ "reason": "it is broken" })).await;
        let overridden = counted(&app, "overridden").await;
        let (version, set) = browsers.visit(&app, "alice", &acme).await;
        assert_eq!((version.as_str(), set.is_some()), ("1.0.0", true));
        assert_eq!(counted(&app, "overridden").await, overridden + 1.0);
        // The second attempt gives the canary so little that alice is not among its keys.
        let split = format!("/v1/services/shop{scope}/split");
        app.change("PUT", &split, json!({ "weights": { "2.0.0": 0.01, "1.0.0": 99.99 } })).await;
        assert_eq!(browsers.visit(&app, "alice", &acme).await.0, "1.0.0");
        assert_eq!(slept.clone().visit(&app, "alice", &acme).await.0, "1.0.0", "who was away comes to no other end");
        app.api("DELETE", "/v1/services/shop/tenants/acme/split", None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exclusions_and_removal_override() {
    let (_old, new, app) = start("").await;
    let endpoints = json!({ "endpoints": [new.address.to_string()] });
    app.change("PUT", "/v1/services/shop/versions/3.0.0", endpoints).await;
    app.change("PUT", "/v1/services/shop/split", json!({ "weights": { "3.0.0": 100 } })).await;
    let mut browsers = Browsers::default();
    for user in ["alice", "bob"] {
        assert_eq!(browsers.visit(&app, user, &[]).await.0, "3.0.0");
    }
    app.split("shop", 0.0).await;
    app.change("PUT", "/v1/services/shop/pins/user/alice", json!({ "exclude": "3.0.0" })).await;
    let (version, set) = browsers.visit(&app, "alice", &[]).await;
    assert_eq!((version.as_str(), set.is_some()), ("1.0.0", true));
    assert_eq!(app.api("DELETE", "/v1/services/shop/pins/user/alice", None).await.0, 200);
    assert_eq!(browsers.visit(&app, "alice", &[]).await.0, "1.0.0", "it does not flap back");
    assert_eq!(browsers.visit(&app, "bob", &[]).await.0, "3.0.0");
    assert_eq!(app.api("DELETE", "/v1/services/shop/versions/3.0.0", None).await.0, 200, "sessions do not hold it");
    assert_eq!(browsers.visit(&app, "bob", &[]).await.0, "1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_ends_sessions_at_share_0() {
    let (old, new, app) = start("drain = true").await;
    app.split("shop", 100.0).await;
    let mut browsers = Browsers::default();
    assert_eq!(browsers.visit(&app, "alice", &[]).await.0, "2.0.0");
    app.split("shop", 0.01).await;
    assert_eq!(browsers.visit(&app, "alice", &[]).await, ("2.0.0".to_owned(), None));
    app.split("shop", 0.0).await;
    let (version, set) = browsers.visit(&app, "alice", &[]).await;
    assert_eq!((version.as_str(), set.is_some()), ("1.0.0", true));
    // A reload turns it off: from then on share 0 means "no new sessions".
    app.split("shop", 100.0).await;
    assert_eq!(browsers.visit(&app, "bob", &[]).await.0, "2.0.0");
    app.write_config(&config(&old, &new, ""));
    assert_eq!(app.api("POST", "/v1/reload", Some(json!({}))).await.0, 200);
    app.split("shop", 0.0).await;
    assert_eq!(browsers.visit(&app, "bob", &[]).await.0, "2.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_cookies_and_those_of_others_are_ignored_and_counted() {
    let (_old, _new, app) = start("").await;
    app.split("shop", 100.0).await;
    let mut browsers = Browsers::default();
    let acme = [("x-tenant-id", "acme")];
    assert_eq!(browsers.visit(&app, "alice", &acme).await.0, "2.0.0");
    app.split("shop", 0.0).await;
    let good = browsers.0["alice"].clone();
    let with =
        |value: &str| Browsers(HashMap::from([("alice", value), ("bob", value)].map(|(u, v)| (u.into(), v.into()))));
    let middle = good.len() / 2;
    let other = if good.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let altered = format!("{}{other}{}", &good[..middle], &good[middle + 1..]);
    let signed_elsewhere = CookieSigner::new([b"another secret".as_slice()]);
    let owner = SessionOwner { service: "shop", tenant: "acme", key: Some(b"alice") };
    let claims = SessionClaims { version: "2.0.0", attempt: u64::MAX, expires_s: now_s() + 500, id: 0 };
    let forgery = signed_elsewhere.sign_session(&owner, &claims).unwrap();
    for bad in [altered.as_str(), &forgery, "2.0.0", "", &good[1..], &"x".repeat(4_000)] {
        let (version, set) = with(bad).visit(&app, "alice", &acme).await;
        assert_eq!((version.as_str(), set.is_some()), ("1.0.0", true), "{bad}");
    }
    assert_eq!(counted(&app, "forged").await, 6.0);
    assert_eq!(with(&good).visit(&app, "bob", &acme).await.0, "1.0.0", "another user's");
    assert_eq!(with(&good).visit(&app, "alice", &[("x-tenant-id", "globex")]).await.0, "1.0.0", "another tenant's");
    assert_eq!(with(&good).visit(&app, "alice", &[]).await.0, "1.0.0", "without the tenant");
    assert_eq!((counted(&app, "foreign").await, counted(&app, "forged").await), (3.0, 6.0));
    assert_eq!(with(&good).visit(&app, "alice", &acme).await, ("2.0.0".to_owned(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_renewed_while_used_and_expire() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let proxy = format!("[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 2\ncookie_secret = \"{SECRET}\"\n");
    let app = TestApp::start(&(proxy + &config(&old, &new, ""))).await;
    let signer = CookieSigner::new([SECRET.as_bytes()]);
    let owner = SessionOwner { service: "shop", tenant: "", key: Some(b"alice") };
    let lasting = |expires_s: u64| {
        let claims = SessionClaims { version: "2.0.0", attempt: 1, expires_s, id: 0 };
        Browsers(HashMap::from([("alice".to_owned(), signer.sign_session(&owner, &claims).unwrap())]))
    };
    let now = now_s();
    assert_eq!(lasting(now + 590).visit(&app, "alice", &[]).await, ("2.0.0".to_owned(), None));
    let mut renewed = lasting(now + 250);
    let (version, set) = renewed.visit(&app, "alice", &[]).await;
    assert_eq!((version.as_str(), set.is_some()), ("2.0.0", true));
    assert_eq!(renewed.visit(&app, "alice", &[]).await, ("2.0.0".to_owned(), None));
    let (version, set) = lasting(now - 1).visit(&app, "alice", &[]).await;
    assert_eq!((version.as_str(), set.is_some()), ("1.0.0", true));
    for (result, n) in [("kept", 2.0), ("renewed", 1.0), ("expired", 1.0), ("new", 0.0)] {
        assert_eq!(counted(&app, result).await, n, "{result}");
    }
    let (status, problem) = app.api("POST", "/v1/keys/rotate", Some(json!({}))).await;
    assert_eq!(status, 422, "the file has the keys: {problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_lose_no_session_not_even_after_a_restart() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let issued = "[services.blog]\nmatch = [{ path = \"/blog\" }]\nsticky = [{ cookie = \"sb\", issue = true }]\n\
                  baseline = \"1.0.0\"\nversions = { \"1.0.0\" = { endpoints = [\"127.0.0.1:1\"] } }\n"
        .replace("127.0.0.1:1", &old.address.to_string());
    let text = config(&old, &new, "") + &issued;
    let mut app = TestApp::start(&text).await;
    app.split("shop", 100.0).await;
    let mut browsers = Browsers::default();
    for user in ["early", "late"] {
        assert_eq!(browsers.visit(&app, user, &[]).await.0, "2.0.0");
    }
    let key = app.get("/blog", &[]).await.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    app.split("shop", 0.0).await;
    for n in 1..=3 {
        let rotated = app.change("POST", "/v1/keys/rotate", json!({ "reason": "as every month" })).await;
        assert_eq!((&rotated["before"], &rotated["after"]), (&json!({ "keys": n }), &json!({ "keys": n + 1 })));
        let (version, set) = browsers.visit(&app, "early", &[]).await;
        assert_eq!((version.as_str(), set.is_some()), ("2.0.0", true), "signed anew with the new key");
        assert_eq!(browsers.visit(&app, "early", &[]).await, ("2.0.0".to_owned(), None));
        let folder = app.stop().await;
        app = TestApp::start_in(folder, &text).await;
        assert_eq!(browsers.visit(&app, "early", &[]).await, ("2.0.0".to_owned(), None), "after a restart");
        assert_eq!(browsers.clone().visit(&app, "late", &[]).await.0, "2.0.0", "of {n} keys ago");
        assert!(!app.get("/blog", &[("cookie", &key)]).await.headers.contains_key("set-cookie"), "issued keys too");
    }
    let events = app.events("kind=keys_rotated").await;
    assert_eq!(events.len(), 3);
    assert_eq!((&events[0]["reason"], &events[0]["author"]["name"]), (&json!("as every month"), &json!("local")));
    assert!(!Value::Array(events).to_string().contains(SECRET));
    // Of four keys the oldest goes with the next one.
    app.change("POST", "/v1/keys/rotate", json!({})).await;
    assert_eq!(browsers.clone().visit(&app, "late", &[]).await.0, "1.0.0");
    assert_eq!(counted(&app, "forged").await, 1.0);
    assert_eq!(browsers.visit(&app, "early", &[]).await.0, "2.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_secret_changes_without_losing_sessions() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let with = |secrets: &str| {
        let proxy = format!("[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 2\ncookie_secret = {secrets}\n");
        proxy + &config(&old, &new, "")
    };
    let app = TestApp::start(&with(&format!("\"{SECRET}\""))).await;
    app.split("shop", 100.0).await;
    let mut browsers = Browsers::default();
    browsers.visit(&app, "alice", &[]).await;
    app.split("shop", 0.0).await;
    let fresh = SECRET.replace('0', "z");
    for secrets in [format!("[\"{fresh}\", \"{SECRET}\"]"), format!("\"{fresh}\"")] {
        app.write_config(&with(&secrets));
        let (status, report) = app.api("POST", "/v1/reload", Some(json!({}))).await;
        assert_eq!((status, &report["changed"]), (200, &json!(["proxy.cookie_secret"])));
        assert_eq!(browsers.visit(&app, "alice", &[]).await.0, "2.0.0", "{secrets}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_explanation_takes_the_cookie() {
    let (_old, _new, app) = start("").await;
    app.split("shop", 100.0).await;
    let mut browsers = Browsers::default();
    browsers.visit(&app, "alice", &[]).await;
    app.split("shop", 0.0).await;
    for (cookie, version, word) in
        [(browsers.0["alice"].as_str(), "2.0.0", "kept on 2.0.0"), ("x", "1.0.0", "not signed")]
    {
        let path = format!("/v1/services/shop/explain?key=alice&header=Cookie:{COOKIE}%3D{cookie}");
        let (status, explanation) = app.api("GET", &path, None).await;
        assert_eq!((status, &explanation["version"]), (200, &json!(version)), "{explanation}");
        let steps = explanation["steps"].as_array().unwrap();
        let step = steps.iter().find(|s| s["step"] == "session").unwrap();
        assert!(step["detail"].as_str().unwrap().contains(word), "{step}");
    }
    assert_eq!(counted(&app, "forged").await, 0.0, "explaining counts nothing");
}

/// Sessions that began under the shares of now are evidence: the guard sees a bad canary although every user keeps a cookie.
#[tokio::test(flavor = "multi_thread")]
async fn the_guard_still_sees_and_its_rollback_ends_sessions() {
    let (_old, new, app) = start("[services.shop.guard]\nhealth = false").await;
    app.split("shop", 50.0).await;
    let mut browsers = Browsers::default();
    let before = browsers.all(&app, "user", 300).await;
    assert!(on_new(&before) > 100);
    new.script.fail(100.0);
    let mut rolled_back = false;
    for n in 0..4_000 {
        let user = format!("user-{}", n % 300);
        let cookie = format!("{COOKIE}={}", browsers.0[&user]);
        app.get("/", &[("x-user-id", &user), ("cookie", &cookie)]).await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        rolled_back = n % 50 == 0 && !app.events("kind=rollback").await.is_empty();
        if rolled_back {
            break;
        }
    }
    assert!(rolled_back);
    let after = browsers.all(&app, "user", 300).await;
    assert_eq!(on_new(&after), 0);
}
