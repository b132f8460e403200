//! What the dashboard's script follows.

use std::time::Duration;

use axum::body::BodyDataStream;
use futures::StreamExt as _;

use super::pages::Browser;
use super::*;
use crate::config::Role;

/// What a script gets.
struct Script {
    stream: BodyDataStream,
    text: String,
}

impl Script {
    async fn follow(api: &Api, cookie: &str, page: &str) -> Self {
        let request = Api::request("GET", &format!("/ui/events?page={page}")).header("cookie", cookie);
        let response = api.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { stream: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next message: its kind and its data. None when the stream ends, or nothing comes for three seconds.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| message.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
                let parsed = field("event: ").zip(field("data: "));
                self.text = rest.to_owned();
                if parsed.is_some() {
                    return parsed;
                }
                continue;
            }
            let piece = tokio::time::timeout(Duration::from_secs(3), self.stream.next()).await.ok()??;
            self.text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
    }

    /// The next fragment: its id and its text.
    async fn fragment(&mut self) -> Option<(String, String)> {
        let (kind, data) = self.next().await?;
        assert_eq!(kind, "fragment", "{data}");
        let data: Value = serde_json::from_str(&data).unwrap();
        Some((data["id"].as_str().unwrap().to_owned(), data["html"].as_str().unwrap().to_owned()))
    }
}

#[tokio::test]
async fn only_what_changed_is_sent() {
    let api = Api::new().await;
    let mut script = Script::follow(&api, "", "service%20accounting").await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        let (id, html) = script.fragment().await.unwrap();
        assert!(html.contains(&format!("id=\"{id}\"")), "{html}");
        ids.push(id);
    }
    assert_eq!(ids, ["state", "evidence", "versions", "charts", "worst", "past"]);
    let body = json!({ "weights": { "1.0.0": 60, "2.0.0": 40 }, "reason": "go <on>" });
    assert_eq!(api.put("/v1/services/accounting/split", body).await.status, 200);
    let mut changed = Vec::new();
    for _ in 0..3 {
        let (id, html) = script.fragment().await.unwrap();
        assert!(id != "state" || html.contains("2.0.0 40\u{a0}%"), "{html}");
        assert!(id != "past" || html.contains("go &lt;on&gt;"), "{html}");
        changed.push(id);
    }
    assert_eq!(changed, ["state", "versions", "past"]);
    assert!(script.next().await.is_none(), "nothing more changed");
}

#[tokio::test]
async fn a_session_that_ends_ends_the_stream() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let browser = Browser::signed_in(&api, Role::Viewer).await;
    let mut script = Script::follow(&api, &browser.cookie, "overview").await;
    for _ in 0..4 {
        script.fragment().await.unwrap();
    }
    let text = with_tokens();
    let (head, tokens) = text.split_once("{ name = \"viewer-ci\"").unwrap();
    *api.file.lock().unwrap() = format!("{head}{}", tokens.split_once("}, ").unwrap().1);
    let admin = [("authorization", "Bearer admin-token")];
    assert_eq!(api.send("POST", "/v1/reload", &admin, json!({})).await.status, 200);
    let (kind, data) = script.next().await.unwrap();
    assert_eq!(kind, "end");
    assert!(data.contains("session has ended"), "{data}");
    assert!(script.stream.next().await.is_none());
    assert_eq!(browser.get("/ui/events?page=overview").await.status, 401);
}

#[tokio::test]
async fn what_is_no_page_cannot_be_followed() {
    let api = Api::new().await;
    for page in ["", "nothing", "service%20nothing", "service"] {
        let path = format!("/ui/events?page={page}");
        let request = Api::request("GET", &path).header("accept", "text/event-stream").body(Body::empty()).unwrap();
        let status = api.router.clone().oneshot(request).await.unwrap().status();
        assert!(status == 400 || status == 404, "{page}: {status}");
    }
}
