//! The freeze: set, shown, ended, and what is refused.

use super::*;
use crate::model::Author;

const FREEZE: &str = "/v1/freeze";

#[tokio::test]
async fn a_freeze_is_set_shown_changed_and_ended() {
    let api = Api::new().await;
    let none = api.get(FREEZE).await;
    assert_eq!((&none.body, none.etag()), (&json!({ "freeze": null, "revision": 0 }), "\"0\""));
    assert_eq!(api.delete(FREEZE).await.status, 404);
    let dry = api.put(&format!("{FREEZE}?dry_run=true"), json!({ "reason": "move" })).await;
    assert_eq!((dry.status, &dry.body["after"]["reason"], &dry.body["event"]), (200, &json!("move"), &Value::Null));
    assert_eq!(api.get(FREEZE).await.body["freeze"], Value::Null, "a dry run changes nothing");

    let begun = api.put(FREEZE, json!({ "reason": "the database\u{7} moves", "for": "2h" })).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    let shown = api.get(FREEZE).await;
    assert_eq!((shown.etag(), shown.body["revision"].as_u64()), (begun.etag(), begun.body["revision"].as_u64()));
    let freeze = &shown.body["freeze"];
    assert_eq!(&begun.body["after"], freeze);
    assert_eq!((freeze["reason"].as_str(), &freeze["author"]["name"]), (Some("the database  moves"), &json!("local")));
    let at = |key: &str| freeze[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let length = at("until") - at("since");
    assert!((7_199_000..7_201_000).contains(&length), "two hours: {length}");
    assert_eq!(&api.get("/v1/status").await.body["freeze"], freeze);

    let stale = api.send("PUT", FREEZE, &[("if-match", "\"1\"")], json!({ "reason": "x" })).await;
    assert_eq!((stale.status, stale.body["current_revision"].as_u64()), (412, begun.body["revision"].as_u64()));
    let tag = begun.etag();
    let changed = api
        .send("PUT", FREEZE, &[("if-match", tag)], json!({ "reason": "x", "until": "2027-01-01T00:00:00+01:00" }))
        .await;
    assert_eq!(
        (changed.status, changed.body["after"]["until"].as_str()),
        (200, Some("2026-12-31T23:00:00Z")),
        "{changed:?}"
    );
    assert_eq!(changed.body["before"], *freeze);
    assert_eq!(api.delete(&format!("{FREEZE}?reason=moved")).await.status, 200);
    assert_eq!(api.get("/v1/status").await.body["freeze"], Value::Null);
    for (kind, reason) in [("freeze_set", "the database  moves"), ("freeze_cleared", "moved")] {
        let event = api.get(&format!("/v1/events?kind={kind}")).await.body["events"][0].clone();
        assert_eq!((&event["reason"], event["service"].is_null()), (&json!(reason), true));
        let document = if kind == "freeze_set" { &event["after"] } else { &event["before"] };
        assert!(document["since"].is_string(), "times are text: {event}");
    }
}

#[tokio::test]
async fn a_freeze_that_makes_no_sense_is_refused() {
    let api = Api::new().await;
    for (body, field) in [
        (json!({ "reason": " " }), "reason"),
        (json!({}), ""),
        (json!({ "reason": "x", "for": "soon" }), "for"),
        (json!({ "reason": "x", "for": "0s" }), "for"),
        (json!({ "reason": "x", "for": "367d" }), "for"),
        (json!({ "reason": "x", "until": "tomorrow" }), "until"),
        (json!({ "reason": "x", "until": "2027-01-01T00:00:00Z", "for": "1h" }), "for"),
        (json!({ "reason": "x", "untl": "2027-01-01T00:00:00Z" }), "untl"),
    ] {
        let answer = api.put(FREEZE, body.clone()).await;
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
        assert_eq!(answer.body["errors"][0]["field"], field, "{body}: {answer:?}");
    }
    for past in ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
        let answer = api.put(FREEZE, json!({ "reason": "x", "until": past })).await;
        assert_eq!((answer.status, answer.detail().contains("within 366 days")), (422, true), "{answer:?}");
    }
    assert_eq!(api.get(FREEZE).await.body["freeze"], Value::Null);
}

#[tokio::test]
async fn a_freeze_goes_the_way_of_every_change() {
    let api = Api::new().await;
    api.store.set_down(true);
    let body = || json!({ "reason": "x" });
    assert_eq!(api.put(FREEZE, body()).await.status, 503);
    assert_eq!(api.get(FREEZE).await.body["freeze"], Value::Null, "not before it is durable");
    let back = crate::model::ChangeRequest {
        service: crate::model::ServiceName::new("accounting").unwrap(),
        change: crate::model::Change::Rollback {
            scope: crate::model::Scope::Service,
            canary: None,
            cause: "errors".to_owned(),
            first_bad_ms: None,
        },
        author: Author::Autopilot,
        reason: String::new(),
        if_revision: None,
        if_attempt: None,
        evidence: Value::Null,
    };
    assert!(api.control.submit(back, false).await.unwrap().unconfirmed);
    assert_eq!(api.put(FREEZE, body()).await.body["type"], "urn:switchback:unconfirmed");
    api.store.set_down(false);
}

#[tokio::test]
async fn what_another_process_froze_is_taken_over() {
    use crate::store::Store as _;
    let api = Api::new().await;
    let expected = api.control.view().state.revision;
    let theirs = json!({ "format": 1, "author": { "kind": "file" }, "reason": "theirs", "since_ms": 1 });
    let puts = vec![(crate::model::DocumentKey::Freeze, theirs.to_string())];
    let commit = crate::model::Commit { expected, revision: expected + 1, puts, ..Default::default() };
    api.store.commit(commit).await.unwrap();
    let answer = api.put(FREEZE, json!({ "reason": "ours" })).await;
    assert_eq!((answer.status, &answer.body["before"]["reason"]), (200, &json!("theirs")), "{answer:?}");
}
