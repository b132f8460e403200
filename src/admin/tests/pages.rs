//! The dashboard's pages without a browser: who sees what, what a form must bring, and what is on them.

use std::time::Instant;

use super::*;
use crate::config::Role;
use crate::model::{
    BasisPoints, Commit, DOCUMENT_FORMAT, ServiceName, ServiceState, Split, State, TenantName, TenantState,
    VersionName, Weights,
};
use crate::store::Store as _;

/// What a page came to.
pub(super) struct Page {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Page {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The hidden word of the page's forms.
    pub(super) fn word(&self) -> String {
        self.text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }
}

/// Somebody's browser: it keeps the cookie and says where forms come from.
pub(super) struct Browser<'a> {
    api: &'a Api,
    pub cookie: String,
}

impl<'a> Browser<'a> {
    pub(super) fn new(api: &'a Api) -> Self {
        Self { api, cookie: String::new() }
    }

    pub(super) async fn signed_in(api: &'a Api, role: Role) -> Self {
        let mut browser = Self::new(api);
        let page = browser.sign_in(&format!("{}-token", auth::role_name(role)), &[]).await;
        assert_eq!((page.status, page.header("location")), (303, "/"));
        browser
    }

    async fn sign_in(&mut self, token: &str, headers: &[(&str, &str)]) -> Page {
        let word = self.get("/sign-in").await.word();
        let page = self.post("/sign-in", &[("csrf", &word), ("token", token), ("to", "/")], headers).await;
        if let Some(set) = page.headers.get("set-cookie") {
            self.cookie = set.to_str().unwrap().split(';').next().unwrap().to_owned();
        }
        page
    }

    pub(super) async fn get(&self, path: &str) -> Page {
        self.send(Api::request("GET", path), Body::empty()).await
    }

    pub(super) async fn post(&self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Page {
        let mut request = Api::request("POST", path).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if headers.is_empty() {
            request = request.header("origin", "null").header("sec-fetch-site", "same-origin");
        }
        self.send(request, Body::from(serde_urlencoded::to_string(fields).unwrap())).await
    }

    async fn send(&self, request: axum::http::request::Builder, body: Body) -> Page {
        let request = request.header("accept", "text/html").header("cookie", &self.cookie).body(body).unwrap();
        let response = self.api.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 10 << 20).await.unwrap();
        Page { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }
}

/// Paths of pages with names that exist.
fn path_of(path: &str) -> String {
    let action = if path.contains("{tenant}") { "unpin" } else { "hold" };
    filled(path).replace("{action}", action).replace("{id}", "r1")
}

#[tokio::test]
async fn every_page_takes_its_role() {
    let api = Api::with(&with_tokens(), "0.0.0.0:9900").await;
    let pages = routes::table().into_iter().filter(|route| route.page && !route.path.starts_with("/ui/"));
    for route in pages {
        let Some(needed) = route.role else { continue };
        let path = path_of(route.path);
        let get = route.method == Method::GET;
        let stranger = Browser::new(&api);
        let page = if get { stranger.get(&path).await } else { stranger.post(&path, &[], &[]).await };
        assert_eq!(page.status, if get { 303 } else { 401 }, "{} {path}", route.method);
        assert!(!page.text.contains("accounting"), "strangers are told nothing: {path}");
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            let browser = Browser::signed_in(&api, role).await;
            let page = if get { browser.get(&path).await } else { browser.post(&path, &[], &[]).await };
            let case = format!("{} {path} as {role:?}: {}", route.method, page.text);
            assert_eq!(page.header("content-type"), "text/html; charset=utf-8", "{case}");
            if role < needed {
                assert_eq!(page.status, 403, "{case}");
                assert!(page.text.contains(&format!("needs the role {}", auth::role_name(needed))), "{case}");
            } else if get {
                // Nothing is pinned, so there is nothing to unpin; and no rollout was started.
                let missing = path.ends_with("unpin") || path.contains("/r1");
                assert!(page.status == 200 || page.status == 404 && missing, "{case}");
            } else {
                assert!(page.status == 403 && page.text.contains("not of a page that you were shown"), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_session_holds_at_every_proxy_until_its_token_is_gone() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let mut browser = Browser::new(&api);
    let page = browser.sign_in(" operator-token ", &[]).await;
    let set = page.header("set-cookie");
    assert!(set.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{set}");
    assert_eq!(browser.get("/").await.status, 200);
    let forwarded = [("x-forwarded-proto", "https"), ("origin", "null")];
    let https = Browser::new(&api).sign_in("operator-token", &forwarded).await;
    assert!(https.header("set-cookie").ends_with("; Secure"));
    // Another process over the same keys, as after a restart or in a fleet.
    let other = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let there = Browser { api: &other, cookie: browser.cookie.clone() };
    assert!(there.get("/").await.text.contains("operator-ci"));
    let text = with_tokens();
    let (head, tokens) = text.split_once("{ name = \"operator-ci\"").unwrap();
    *api.file.lock().unwrap() = format!("{head}{}", tokens.split_once("}, ").unwrap().1);
    let admin = [("authorization", "Bearer admin-token")];
    assert_eq!(api.send("POST", "/v1/reload", &admin, json!({})).await.status, 200);
    let page = browser.get("/services/accounting").await;
    assert_eq!((page.status, page.header("location")), (303, "/sign-in?to=%2Fservices%2Faccounting"));
}

#[tokio::test]
async fn wrong_tokens_are_slowed_down_like_those_of_the_api() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let mut browser = Browser::new(&api);
    for i in 0..5 {
        let page = browser.sign_in(&format!("guess-{i}"), &[]).await;
        assert_eq!(page.status, 401);
        assert!(page.text.contains("This token is not known.") && !page.text.contains("guess-"));
        assert!(!page.headers.contains_key("set-cookie"));
    }
    let page = browser.sign_in("operator-token", &[]).await;
    assert_eq!((page.status, page.header("retry-after")), (429, "1"));
    assert!(page.text.contains("Too many wrong tokens") && page.text.starts_with("<!DOCTYPE html>"));
    let bearer = [("authorization", "Bearer operator-token")];
    assert_eq!(api.send("GET", "/v1/services", &bearer, Value::Null).await.status, 429, "the same count");
    api.now.fetch_add(1_000, Relaxed);
    assert_eq!(browser.sign_in("operator-token", &[]).await.status, 303);
}

#[tokio::test]
async fn a_form_needs_the_word_of_its_own_session() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let (mine, other) =
        (Browser::signed_in(&api, Role::Operator).await, Browser::signed_in(&api, Role::Operator).await);
    let (word, foreign) = (mine.get("/").await.word(), other.get("/").await.word());
    let path = "/services/accounting/change/hold";
    for bad in ["", "AAAA", foreign.as_str()] {
        let page = mine.post(path, &[("csrf", bad)], &[]).await;
        assert!(page.status == 403 && page.text.contains("not of a page that you were shown"), "{bad}: {}", page.text);
    }
    let good = [("csrf", word.as_str())];
    for headers in [("origin", "http://evil.example.com"), ("sec-fetch-site", "cross-site")] {
        let page = mine.post(path, &good, &[headers]).await;
        assert!(page.status == 403 && page.text.contains("<h1>"), "{}", page.text);
    }
    assert_eq!(mine.post(path, &good, &[]).await.status, 303);
    assert_eq!(mine.post(path, &good, &[("origin", "http://localhost:9900")]).await.status, 303);
    // The API is not the pages': it knows no cookies, and its changes no null origin.
    let cookie = [("cookie", mine.cookie.as_str()), ("origin", "http://localhost:9900")];
    assert_eq!(api.send("PUT", "/v1/services/accounting/hold", &cookie, json!({})).await.status, 401);
    let null = [("authorization", "Bearer admin-token"), ("origin", "null")];
    assert_eq!(api.send("PUT", "/v1/services/accounting/hold", &null, json!({})).await.status, 403);
    assert_eq!(mine.post("/sign-out", &good, &[]).await.header("location"), "/sign-in");
}

#[tokio::test]
async fn pages_are_private_and_their_files_are_kept() {
    let api = Api::new().await;
    let browser = Browser::new(&api);
    for path in ["/", "/services/accounting", "/explain", "/no/such/page", "/services/nothing"] {
        let page = browser.get(path).await;
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'; script-src 'self'; style-src 'self'"), "{path}: {policy}");
        assert!(policy.contains("form-action 'self'; base-uri 'none'; frame-ancestors 'none'"), "{policy}");
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        assert_eq!(page.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        assert!(!page.text.contains("style=\"") && !page.text.contains("<style") && !page.text.contains("<script>"));
    }
    let page = browser.get("/").await;
    for (start, kind) in [("/ui/assets/style-", "text/css"), ("/ui/assets/live-", "text/javascript")] {
        let name = page.text.split(start).nth(1).unwrap().split('"').next().unwrap();
        let file = browser.get(&format!("{start}{name}")).await;
        assert_eq!((file.status, file.header("cache-control")), (200, "public, max-age=31536000, immutable"));
        assert!(file.header("content-type").starts_with(kind));
    }
    assert_eq!(browser.get("/ui/assets/style-0000000000000000.css").await.status, 404);
}

#[tokio::test]
async fn unknown_paths_answer_in_the_form_that_was_asked_for() {
    let api = Api::new().await;
    let browser = Browser::new(&api);
    let page = browser.get("/nothing").await;
    assert_eq!((page.status, page.header("content-type")), (404, "text/html; charset=utf-8"));
    assert_eq!(api.get("/nothing").await.headers["content-type"], "application/problem+json");
    assert_eq!(browser.get("/v1/nothing").await.header("content-type"), "application/problem+json");
    let page = browser.get("/services/acounting").await;
    assert!(page.status == 404 && page.text.contains("did you mean &quot;accounting&quot;?"), "{}", page.text);
    let open = Api::with(FILE, "0.0.0.0:9900").await;
    let page = Browser::new(&open).get("/").await;
    assert!(page.status == 401 && page.text.contains("No tokens are configured"), "{}", page.text);
}

#[tokio::test]
async fn changes_say_what_they_do_and_refuse_what_is_stale() {
    let api = Api::new().await;
    let browser = Browser::new(&api);
    let revision = api.get("/v1/services/accounting").await.body["revision"].to_string();
    let query = format!("share.1.0.0=75&share.2.0.0=25&revision={revision}");
    let page = browser.get(&format!("/services/accounting/change/split?{query}")).await;
    let text = page.text.replace('\u{a0}', " ");
    assert!(text.contains("service accounting") && text.contains("2.0.0 from 10 % to 25 %"), "{text}");
    assert!(text.contains("About 15 % of users move"), "{text}");
    let word = page.word();
    let fields = [("csrf", word.as_str()), ("share.1.0.0", "75"), ("share.2.0.0", "25"), ("revision", &revision)];
    let page = browser.post("/services/accounting/change/split", &fields, &[]).await;
    assert!(page.status == 303 && page.header("location").starts_with("/services/accounting?done="));
    assert!(browser.get(page.header("location")).await.text.contains("Done. "));
    let page = browser.post("/services/accounting/change/split", &fields, &[]).await;
    assert!(page.status == 412 && page.text.contains("It changed in between"), "{}", page.text);
    let page = browser.get(&format!("/services/accounting/tenants/acme/change/split?{query}")).await;
    assert_eq!(page.status, 412, "the revision is not the tenant's");
    let page =
        browser.get(&format!("/services/accounting/tenants/acme/change/rollback?revision=0&seen={revision}")).await;
    assert_eq!(page.status, 412, "what the tenant inherits has changed");
    for (query, why) in [
        ("share.1.0.0=50&share.2.0.0=49", "add up to 99 %"),
        ("share.1.0.0=x", "is not a number"),
        ("share.9=100", "has no version"),
        ("share.1.0.0=50.001", "more than two decimals"),
        ("share.1.0.0=100&revision=x", "is not a revision"),
    ] {
        let page = browser.get(&format!("/services/accounting/change/split?{query}")).await;
        assert!((400..500).contains(&page.status) && page.text.contains(why), "{query}: {}", page.text);
    }
    let page = browser.post("/services/accounting/change/rollback", &[("csrf", &word), ("reason", " ")], &[]).await;
    assert!(page.status == 422 && page.text.contains("say in a sentence why"), "{}", page.text);
    assert_eq!(browser.get("/services/accounting/change/nonsense").await.status, 404);
}

#[tokio::test]
async fn a_hundred_thousand_tenants_are_searched_in_pages() {
    let store = Arc::new(MemoryStore::new());
    let (one, service) = (VersionName::new("1.0.0").unwrap(), ServiceName::new("accounting").unwrap());
    let two = VersionName::new("2.0.0").unwrap();
    let own = |n: usize| {
        let share = BasisPoints::new(if n.is_multiple_of(1_000) { 5_000 } else { 0 }).unwrap();
        let rest = BasisPoints::new(10_000 - share.points()).unwrap();
        let weights = Weights::new([(one.clone(), rest), (two.clone(), share)]).unwrap();
        let split = Split::new(&weights, &one, n as u64, 1);
        TenantState { format: DOCUMENT_FORMAT, revision: 1, split, by: None, unknown: Default::default() }
    };
    let mut state = State { revision: 1, ..State::default() };
    let names = (0..100_000).map(|n| (TenantName::new(&format!("tenant-{n:05}")).unwrap(), own(n)));
    state.tenants.insert(service.clone(), names.collect());
    state.services.insert(service, Arc::new(ServiceState::new(one.clone(), &Weights::all_on(one.clone()), 7, 1)));
    let puts = state.to_documents().map(|d| (d.key, d.body)).collect();
    store.commit(Commit { expected: 0, revision: 1, puts, ..Commit::default() }).await.unwrap();
    let api = Api::over(FILE, "127.0.0.1:9900", store).await;
    let browser = Browser::new(&api);
    let begun = Instant::now();
    let page = browser.get("/services/accounting/tenants?search=TENANT-0").await;
    let took = begun.elapsed();
    println!("searched in {took:?}");
    assert_eq!(page.text.matches("<th scope=\"row\">").count(), 50);
    assert!(page.text.len() < 100_000, "{} bytes", page.text.len());
    assert!(took.as_secs() < 5, "{took:?}");
    let next = page.text.split("class=\"button\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    let page = browser.get(&format!("/services/accounting/tenants{}", next.replace("&amp;", "&"))).await;
    assert!(page.text.contains("tenant-00050") && !page.text.contains(">tenant-00049<"), "{next}");
    let page = browser.get("/services/accounting/tenants?version=2.0.0&search=tenant-09").await;
    assert_eq!(page.text.matches("<th scope=\"row\">").count(), 1, "only those on it");
    assert!(page.text.contains("tenant-09000"));
    let page = browser.get("/services/accounting").await;
    assert!(page.text.contains("100 tenants by splits of their own"), "by version");
}
