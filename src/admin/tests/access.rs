//! Who may do what, from where, and how large.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;

use super::*;
use crate::config::Role;

fn token(role: Role) -> String {
    format!("Bearer {}-token", auth::role_name(role))
}

#[tokio::test]
async fn every_route_takes_its_role() {
    let api = Api::with(&with_tokens(), "0.0.0.0:9900").await;
    for route in routes::api() {
        let path = filled(route.path).replace("/compare", "/compare?a=1.0.0&b=2.0.0");
        let body = if route.method == Method::GET { Value::Null } else { body_for(route.path) };
        for role in [None, Some(Role::Viewer), Some(Role::Operator), Some(Role::Admin)] {
            let token = role.map(token).unwrap_or_default();
            let headers: &[_] = if role.is_some() { &[("authorization", token.as_str())] } else { &[] };
            let answer = api
                .send(
                    route.method.as_str(),
                    &format!("{path}{}", dry(route.path, &route.method)),
                    headers,
                    body.clone(),
                )
                .await;
            let case = format!("{} {path} as {role:?}: {answer:?}", route.method);
            match (route.role, role) {
                (None, _) => assert_eq!(answer.status, 200, "{case}"),
                (Some(_), None) => {
                    assert_eq!(answer.status, 401, "{case}");
                    assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
                }
                (Some(needed), Some(role)) if role < needed => {
                    assert_eq!(answer.status, 403, "{case}");
                    assert!(answer.detail().contains(auth::role_name(needed)), "{case}");
                }
                _ => assert!(!matches!(answer.status, 401 | 403), "{case}"),
            }
        }
    }
}

/// Changes are tried dry, so that each role finds the same state.
fn dry(path: &str, method: &Method) -> &'static str {
    if *method != Method::GET && ["{service}", "/freeze", "/snapshots"].iter().any(|part| path.contains(part)) {
        "?dry_run=true"
    } else {
        ""
    }
}

#[tokio::test]
async fn wrong_tokens_are_refused_and_slowed_down() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let try_from = async |peer: &str, value: &str| {
        let mut request = Api::request("GET", "/v1/services").header("authorization", value);
        let peer: SocketAddr = format!("{peer}:1").parse().unwrap();
        request.extensions_mut().unwrap().insert(ConnectInfo(peer));
        api.call(request.body(Body::empty()).unwrap()).await
    };
    for value in ["Bearer", "Bearer ", "Basic dmlld2VyLXRva2Vu", "viewer-token", "bearer\tviewer-token"] {
        let answer = try_from("10.0.0.9", value).await;
        assert_eq!(answer.status, 401, "{value:?}");
    }
    assert_eq!(try_from("10.0.0.9", "bEARER  viewer-token").await.status, 200);
    for i in 0..5 {
        let answer = try_from("10.0.0.1", &format!("Bearer secret-guess-{i}")).await;
        assert_eq!(answer.status, 401);
        assert!(!answer.text.contains("secret-guess"), "a token must not come back");
    }
    let answer = try_from("10.0.0.1", "Bearer viewer-token").await;
    assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(try_from("10.0.0.2", "Bearer viewer-token").await.status, 200);
    api.now.fetch_add(1_000, Relaxed);
    assert_eq!(try_from("10.0.0.1", "Bearer viewer-token").await.status, 200);
}

#[tokio::test]
async fn the_author_is_the_token_and_a_reload_changes_tokens() {
    let api = Api::with(&with_tokens(), "0.0.0.0:9900").await;
    let admin = token(Role::Admin);
    let as_admin = [("authorization", admin.as_str())];
    let body = body_for("/split");
    assert_eq!(api.send("PUT", "/v1/services/accounting/split", &as_admin, body).await.status, 200);
    let events = api.send("GET", "/v1/events?kind=split_set", &as_admin, Value::Null).await;
    assert_eq!(events.body["events"][0]["author"], json!({ "kind": "person", "name": "admin-ci" }));
    *api.file.lock().unwrap() = FILE.to_owned();
    assert_eq!(api.send("POST", "/v1/reload", &as_admin, json!({})).await.status, 200);
    let answer = api.get("/v1/services").await;
    assert_eq!(answer.status, 401, "without tokens an open listener lets nobody in");
    assert!(answer.detail().contains("0.0.0.0:9900"));
    let local = Api::new().await;
    assert_eq!(local.put("/v1/services/accounting/hold", json!({})).await.body["after"]["author"]["name"], "local");
}

#[tokio::test]
async fn hosts_and_origins_are_checked() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let admin = token(Role::Admin);
    let call = async |method: &str, host: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri("/v1/services/accounting/hold");
        request = request.header("authorization", &admin).header("content-type", "application/json");
        if !host.is_empty() {
            request = request.header("host", host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        api.call(request.body(Body::from("{}")).unwrap()).await.status
    };
    for host in ["localhost:9900", "127.0.0.1:9900", "[::1]:9900", "localhost", "admin.example.com"] {
        assert_eq!(call("PUT", host, &[]).await, 200, "{host}");
    }
    for host in ["evil.example.com", "localhost:80", "127.0.0.1.evil.com:9900"] {
        assert_eq!(call("PUT", host, &[]).await, 421, "{host}");
    }
    assert_eq!(call("PUT", "", &[]).await, 400);
    assert_eq!(call("PUT", "localhost:9900", &[("host", "localhost:9900")]).await, 400, "two hosts");
    for headers in [[("origin", "http://evil.example.com")], [("origin", "null")], [("sec-fetch-site", "cross-site")]] {
        assert_eq!(call("PUT", "localhost:9900", &headers).await, 403, "{headers:?}");
        assert_eq!(call("GET", "localhost:9900", &headers).await, 405, "reading is not a change");
    }
    let same = [("origin", "http://localhost:9900"), ("sec-fetch-site", "same-origin")];
    assert_eq!(call("PUT", "localhost:9900", &same).await, 200);
    let foreign = Request::builder().uri("/metrics").header("host", "evil.example.com").body(Body::empty()).unwrap();
    assert_eq!(api.call(foreign).await.status, 421, "pages of strangers read no metrics either");
}

#[tokio::test]
async fn bodies_are_bounded_and_json() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let call = async |kind: &str, body: Body| {
        let request = Api::request("PUT", "/v1/services/accounting/split").header("content-type", kind);
        api.call(request.header("authorization", token(Role::Admin)).body(body).unwrap()).await
    };
    let good = body_for("/split").to_string();
    for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/x+json"] {
        assert_eq!(call(kind, Body::from(good.clone())).await.status, 200, "{kind}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "", "json"] {
        assert_eq!(call(kind, Body::from(good.clone())).await.status, 415, "{kind}");
    }
    let large = " ".repeat(2_048) + &good;
    assert_eq!(call("application/json", Body::from(large.clone())).await.status, 413);
    let pieces = futures::stream::iter(vec![Ok::<_, std::io::Error>(" ".repeat(2_000)), Ok(large)]);
    let answer = call("application/json", Body::from_stream(pieces)).await;
    assert_eq!(answer.status, 413, "without a length as well");
    assert!(answer.detail().contains("2048"));
}
