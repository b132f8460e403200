//! Keys that sign cookies: what a rotation says, and what happens when the store is away or another process was faster.

use super::*;
use crate::model::{Commit, DocumentKey};
use crate::store::Store as _;

#[tokio::test]
async fn a_rotation_is_durable_or_did_not_happen() {
    let api = Api::new().await;
    let rotate = async || api.post("/v1/keys/rotate", json!({ "reason": "a leak" })).await;
    api.store.set_down(true);
    assert_eq!(rotate().await.status, 503);
    api.store.set_down(false);
    let first = rotate().await;
    assert_eq!((&first.body["before"], &first.body["after"]), (&json!({ "keys": 1 }), &json!({ "keys": 2 })));
    let event = &api.get("/v1/events?kind=keys_rotated").await.body["events"][0];
    assert_eq!((&event["id"], &event["reason"]), (&first.body["event"], &json!("a leak")));
    assert_eq!(event["author"]["name"], "local");
    assert_eq!(api.control.view().state.revision, first.body["revision"]);
    assert_eq!(api.post("/v1/keys/rotate", json!({ "resaon": "" })).await.status, 422);
    let keys = api.store.load().await.unwrap().documents.into_iter().find(|d| matches!(d.key, DocumentKey::Secret(_)));
    let keys = keys.unwrap().body;
    assert_eq!(keys.lines().nth(1), Some("s".repeat(32).as_str()));
    assert!(!first.text.contains(keys.lines().next().unwrap()), "a key is never shown");
}

#[tokio::test]
async fn keys_of_another_process_are_taken_over() {
    let api = Api::new().await;
    let expected = api.control.view().state.revision;
    let theirs = (DocumentKey::Secret("cookie".to_owned()), "x\ny\nz".to_owned());
    let commit = Commit { expected, revision: expected + 1, puts: vec![theirs], ..Commit::default() };
    api.store.commit(commit).await.unwrap();
    let answer = api.post("/v1/keys/rotate", json!({})).await;
    assert_eq!((answer.status, &answer.body["after"]), (200, &json!({ "keys": 4 })));
    let split = api.put("/v1/services/accounting/split", json!({ "weights": { "1.0.0": 100 } })).await;
    assert_eq!(split.status, 200, "{split:?}");
}
