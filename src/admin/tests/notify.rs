//! Targets of notifications through the API: what is shown, and who gets a test message.

use super::*;
use crate::admin::NotifyDoor;
use crate::model::{NotifyAttempt, NotifyCounts, NotifyReport, NotifyTest, Severity};

/// Two targets, of which one cannot be reached.
pub(super) fn door() -> NotifyDoor {
    let target = |name: &str| NotifyReport {
        name: name.to_owned(),
        type_name: "slack",
        address: "https://hooks.example.com".to_owned(),
        severity: Severity::Warning,
        services: vec!["accounting".parse().unwrap()],
        kinds: Vec::new(),
        counts: NotifyCounts { sent: 3, suppressed: 2, ..NotifyCounts::default() },
        waiting: 1,
        last: (name == "team").then(|| NotifyAttempt { at_ms: 0, ok: true, detail: "answered 200".to_owned() }),
    };
    let tested =
        |name: &str| NotifyTest { name: name.to_owned(), ok: name == "team", detail: String::new(), seconds: 0.1 };
    let names = ["team", "gone"];
    NotifyDoor {
        targets: Arc::new(move || names.map(target).to_vec()),
        test: Arc::new(move |name| {
            let wanted = names.into_iter().filter(|n| name.as_deref().is_none_or(|name| name == *n));
            let results = wanted.map(tested).collect();
            Box::pin(async move { results })
        }),
    }
}

#[tokio::test]
async fn targets_are_listed_with_what_became_of_their_messages() {
    let api = Api::new().await;
    let answer = api.get("/v1/notify").await;
    assert_eq!(answer.status, 200);
    let team = &answer.body["targets"][0];
    assert_eq!((&team["name"], &team["type"], &team["severity"]), (&json!("team"), &json!("slack"), &json!("warning")));
    assert_eq!((&team["sent"], &team["suppressed"], &team["waiting"]), (&json!(3), &json!(2), &json!(1)));
    let last = json!({ "at": "1970-01-01T00:00:00Z", "ok": true, "detail": "answered 200" });
    assert_eq!((&team["last"], &answer.body["targets"][1]["last"]), (&last, &Value::Null));
}

#[tokio::test]
async fn a_test_goes_to_one_or_to_all_and_says_who_was_reached() {
    let api = Api::new().await;
    let all = api.post("/v1/notify/test", json!({})).await;
    assert_eq!((all.status, &all.body["ok"]), (200, &json!(false)));
    assert_eq!(all.body["results"].as_array().unwrap().len(), 2);
    let one = api.post("/v1/notify/test", json!({ "target": "team" })).await;
    assert_eq!((&one.body["ok"], &one.body["results"][0]["target"]), (&json!(true), &json!("team")));
    let none = api.post("/v1/notify/test", json!({ "target": "taem" })).await;
    assert_eq!(none.status, 404);
    assert_eq!(
        (&none.body["suggestion"], none.detail()),
        (&json!("team"), "there is no target \"taem\"; did you mean \"team\"?")
    );
    assert_eq!(api.post("/v1/notify/test", json!({ "traget": "team" })).await.status, 422);
}
