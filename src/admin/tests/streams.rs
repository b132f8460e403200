//! The event stream: history first, then what happens, with no gap and nothing twice.

use std::time::Duration;

use axum::body::BodyDataStream;
use futures::StreamExt as _;

use super::*;

/// A client that reads messages as they come.
struct Client {
    stream: BodyDataStream,
    text: String,
}

impl Client {
    async fn connect(api: &Api, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = Api::request("GET", path).header("accept", "text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = api.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { stream: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event: its id, its kind and its data. None when the stream ends or nothing comes.
    async fn next(&mut self) -> Option<(u64, String, Value)> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    message.lines().find_map(|l| l.strip_prefix(&prefix)).map(str::to_owned)
                };
                let parsed = field("id").map(|id| {
                    let data: Value = serde_json::from_str(&field("data").unwrap()).unwrap();
                    (id.parse().unwrap(), field("event").unwrap(), data)
                });
                self.text = rest.to_owned();
                if parsed.is_some() {
                    return parsed;
                }
                continue;
            }
            let piece = tokio::time::timeout(Duration::from_millis(500), self.stream.next()).await.ok()??;
            self.text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
    }

    async fn ids(&mut self, count: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(self.next().await.expect("more events").0);
        }
        ids
    }
}

async fn hold(api: &Api, times: usize) {
    for i in 0..times {
        assert_eq!(api.put("/v1/services/accounting/hold", json!({ "reason": format!("{i}") })).await.status, 200);
    }
}

#[tokio::test]
async fn without_an_id_only_the_present_is_told() {
    let api = Api::new().await;
    hold(&api, 3).await;
    let mut client = Client::connect(&api, "/v1/events", &[]).await;
    hold(&api, 2).await;
    let (id, kind, data) = client.next().await.unwrap();
    assert_eq!((id, kind.as_str(), data["reason"].as_str()), (6, "hold_set", Some("0")));
    schema::check(&api.document, &json!({ "$ref": "#/components/schemas/Event" }), &data, "event");
    assert_eq!(client.ids(1).await, [7]);
    assert!(client.next().await.is_none());
}

#[tokio::test]
async fn a_stream_resumes_without_gap_or_repetition() {
    let api = Arc::new(Api::new().await);
    hold(&api, 250).await;
    let mut client = Client::connect(&api, "/v1/events?after=9", &[("last-event-id", "1")]).await;
    let writer = tokio::spawn({
        let api = api.clone();
        async move { hold(&api, 300).await }
    });
    let ids = client.ids(551).await;
    writer.await.unwrap();
    assert_eq!(ids, (2..=552).collect::<Vec<_>>());
    drop(client);
    let mut client = Client::connect(&api, "/v1/events?after=550", &[]).await;
    assert_eq!(client.ids(2).await, [551, 552]);
    let mut ahead = Client::connect(&api, "/v1/events", &[("last-event-id", "99999")]).await;
    hold(&api, 1).await;
    assert_eq!(ahead.ids(1).await, [553], "an id of a store that was replaced");
}

/// More than the channel holds happens while the client reads nothing.
#[tokio::test]
async fn who_lags_reads_the_history() {
    let api = Api::new().await;
    let mut client = Client::connect(&api, "/v1/events", &[]).await;
    hold(&api, 1).await;
    assert_eq!(client.ids(1).await, [3]);
    hold(&api, 1_500).await;
    assert_eq!(client.ids(1_500).await, (4..=1_503).collect::<Vec<_>>());
    hold(&api, 2).await;
    assert_eq!(client.ids(2).await, [1_504, 1_505]);
}

#[tokio::test]
async fn filters_hold_for_the_past_and_the_present() {
    let api = Api::new().await;
    let tenant = "/v1/services/accounting/tenants/acme/split";
    api.put(tenant, body_for(tenant)).await;
    hold(&api, 2).await;
    let mut client = Client::connect(&api, "/v1/events?tenant=acme&after=0", &[]).await;
    assert_eq!(client.ids(1).await, [3]);
    hold(&api, 2).await;
    api.delete(tenant).await;
    let (id, kind, _) = client.next().await.unwrap();
    assert_eq!((id, kind.as_str()), (8, "split_cleared"));
    assert!(client.next().await.is_none());
}

/// A reload writes the beginning of a new service to the history without telling listeners.
#[tokio::test]
async fn what_was_not_told_is_found_in_the_history() {
    let api = Api::new().await;
    let mut client = Client::connect(&api, "/v1/events", &[]).await;
    let more = r#"
[services.mail]
match = [{ path = "/mail" }]
baseline = "1"
[services.mail.versions."1"]
endpoints = ["127.0.0.1:7401"]
"#;
    api.file.lock().unwrap().push_str(more);
    assert_eq!(api.post("/v1/reload", json!({})).await.status, 200);
    let kinds = [client.next().await.unwrap().1, client.next().await.unwrap().1];
    assert_eq!(kinds, ["service_added", "reloaded"]);
}

#[tokio::test]
async fn who_loses_the_token_loses_the_stream() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let mut client = Client::connect(&api, "/v1/events", &[("authorization", "Bearer viewer-token")]).await;
    let text = with_tokens();
    let (head, tokens) = text.split_once("{ name = \"viewer-ci\"").unwrap();
    *api.file.lock().unwrap() = format!("{head}{}", tokens.split_once("}, ").unwrap().1);
    let answer = api.send("POST", "/v1/reload", &[("authorization", "Bearer admin-token")], json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(client.next().await.is_none());
    assert!(client.stream.next().await.is_none(), "the stream has ended");
}

#[tokio::test]
async fn streams_are_limited_and_a_bad_id_is_refused() {
    let api = Api::new().await;
    let bad = Api::request("GET", "/v1/events").header("accept", "text/event-stream").header("last-event-id", "x");
    assert_eq!(api.call(bad.body(Body::empty()).unwrap()).await.status, 400);
    let mut open = Vec::new();
    for _ in 0..context::MAX_STREAMS {
        open.push(Client::connect(&api, "/v1/events", &[]).await);
    }
    let one_more = Api::request("GET", "/v1/events").header("accept", "text/event-stream").body(Body::empty()).unwrap();
    let answer = api.call(one_more).await;
    assert_eq!((answer.status, answer.headers.contains_key("retry-after")), (503, true));
    drop(open);
    Client::connect(&api, "/v1/events", &[]).await;
}

#[tokio::test]
async fn the_history_comes_in_pages() {
    let api = Api::new().await;
    hold(&api, 5).await;
    let page = api.get("/v1/events?limit=3").await.body;
    assert_eq!((page["events"].as_array().unwrap().len(), page["next"].as_u64()), (3, Some(3)));
    let rest = api.get("/v1/events?limit=10&after=3").await.body;
    assert_eq!((rest["events"].as_array().unwrap().len(), rest["next"].is_null()), (4, true));
    let newest = api.get("/v1/events?order=desc&limit=2&service=accounting").await.body;
    assert_eq!((newest["events"][0]["id"].as_u64(), newest["next"].as_u64()), (Some(7), Some(6)));
    let older = api.get("/v1/events?order=desc&limit=2&before=6").await.body;
    assert_eq!((older["events"][0]["id"].as_u64(), older["next"].as_u64()), (Some(5), Some(4)));
    let last = api.get("/v1/events?order=desc&limit=10&before=4").await.body;
    assert_eq!((last["events"].as_array().unwrap().len(), last["next"].is_null()), (3, true));
    let stream = Api::request("GET", "/v1/events?before=6").header("accept", "text/event-stream");
    let refused = api.call(stream.body(Body::empty()).unwrap()).await;
    assert_eq!((refused.status, refused.detail()), (400, "before: does not go with a stream, which has no end"));
}
