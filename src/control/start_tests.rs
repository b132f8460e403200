//! Starts on a store: with keys that are sealed, plain or sealed by somebody else.

use std::path::Path;

use super::super::seal::{SealError, opened};
use super::super::{SubmitError, fresh_secret};
use super::*;
use crate::config::{self, Hidden};
use crate::store::MemoryStore;

const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:0"]
[services.api]
match = [{ path = "/api" }]
baseline = "1"
versions = { "1" = { endpoints = ["127.0.0.1:1"] } }
[services.shop]
match = [{ path = "/" }]
baseline = "1"
versions = { "1" = { endpoints = ["127.0.0.1:3"] } }
"#;

/// Settings that seal with secrets of these letters.
fn settings(secrets: &[&str]) -> Settings {
    let list: Vec<_> = secrets.iter().map(|letter| format!("\"{}\"", letter.repeat(32))).collect();
    let store = if list.is_empty() { String::new() } else { format!("[store]\nsecret = [{}]\n", list.join(", ")) };
    config::parse(&format!("{FILE}{store}"), Path::new("/etc/switchback.toml"), &|_| None).unwrap()
}

fn parts(store: Arc<dyn Store>, settings: Settings) -> Parts {
    let tallies = Arc::new(Tallies::new(10));
    Parts {
        settings,
        store,
        last_good: None,
        salvaged: None,
        returns: false,
        metrics: Arc::new(Metrics::new(tallies.clone(), 1)),
        tallies,
        fresh_secret: fresh_secret(),
    }
}

async fn starts(store: &Arc<MemoryStore>, secrets: &[&str]) -> Control {
    start(parts(store.clone(), settings(secrets))).await.unwrap().control
}

async fn stored(store: &MemoryStore) -> Document {
    store.get(&document_key()).await.unwrap().unwrap()
}

fn text_of(document: &Document, secret: &str) -> Result<String, SealError> {
    opened(&[Hidden::new(secret.repeat(32))], document).map(|text| text.into_owned())
}

#[tokio::test]
async fn a_plain_key_is_sealed_at_the_next_start_and_by_the_first_secret() {
    let store = Arc::new(MemoryStore::new());
    starts(&store, &[]).await;
    let plain = stored(&store).await;
    assert_eq!(plain.body.len(), 64);
    let revision = store.load().await.unwrap().revision;
    starts(&store, &["a"]).await;
    let sealed = stored(&store).await;
    assert_eq!((sealed.revision, store.load().await.unwrap().revision), (revision + 1, revision + 1), "one commit");
    assert!(sealed.body.starts_with("sealed 1 ") && !sealed.body.contains(&plain.body), "{}", sealed.body);
    assert_eq!(text_of(&sealed, "a").unwrap(), plain.body);
    starts(&store, &["a"]).await;
    starts(&store, &["a", "b"]).await;
    assert_eq!(stored(&store).await, sealed, "it is sealed already");
    starts(&store, &["b", "a"]).await;
    let again = stored(&store).await;
    assert_eq!((text_of(&again, "b").unwrap(), text_of(&again, "a").is_err()), (plain.body, true));
}

#[tokio::test]
async fn a_new_key_is_sealed_at_once_and_the_copy_holds_no_other() {
    let store = Arc::new(MemoryStore::new());
    let folder = tempfile::tempdir().unwrap();
    let copy = LastGood::beside(&folder.path().join("switchback.db"));
    let file = copy.path().to_owned();
    let parts = Parts { last_good: Some(copy), ..parts(store.clone(), settings(&["a"])) };
    let control = start(parts).await.unwrap().control;
    assert_eq!(text_of(&stored(&store).await, "a").unwrap().len(), 64);
    control.rotate_keys(Author::File, String::new()).await.unwrap();
    let rotated = stored(&store).await;
    let keys = text_of(&rotated, "a").unwrap();
    assert_eq!(keys.lines().count(), 2);
    control.close().await;
    let saved = std::fs::read_to_string(file).unwrap();
    assert!(saved.contains(&rotated.body) && keys.lines().all(|key| !saved.contains(key)));
}

#[tokio::test]
async fn without_the_secret_nothing_starts_and_nothing_is_reloaded() {
    let store = Arc::new(MemoryStore::new());
    let control = starts(&store, &["a"]).await;
    let before = stored(&store).await;
    for (secrets, says) in [(vec!["b"], "no secret of store.secret opens"), (vec![], "store.secret is not configured")]
    {
        let error = start(parts(store.clone(), settings(&secrets))).await.err().unwrap();
        assert!(matches!(error, StartError::Sealed(_)) && error.to_string().contains(says), "{error}");
        let error = control.reload(settings(&secrets)).await.unwrap_err();
        assert!(matches!(error, SubmitError::Sealed(_)) && error.to_string().contains(says), "{error}");
    }
    assert_eq!(stored(&store).await, before);
    let report = control.reload(settings(&["b", "a"])).await.unwrap();
    assert_eq!((report.changed, report.needs_restart), (vec!["store.secret".to_owned()], Vec::new()));
    control.rotate_keys(Author::File, String::new()).await.unwrap();
    assert_eq!(text_of(&stored(&store).await, "b").unwrap().lines().count(), 2, "sealed by the new one");
    control.reload(settings(&["b"])).await.unwrap();
}

#[tokio::test]
async fn a_key_that_another_process_sealed_with_another_secret_is_refused_by_name() {
    let store = Arc::new(MemoryStore::new());
    let control = starts(&store, &["a"]).await;
    let revision = store.load().await.unwrap().revision;
    let puts =
        vec![(document_key(), super::super::seal::sealed(&[Hidden::new("c".repeat(32))], &document_key(), "key"))];
    store.commit(Commit { expected: revision, revision: revision + 1, puts, ..Commit::default() }).await.unwrap();
    let error = control.rotate_keys(Author::File, String::new()).await.unwrap_err();
    assert!(matches!(error, SubmitError::Sealed(_)), "{error}");
    let refused = control.view().refused.clone().unwrap();
    assert!(refused.why.contains("store.secret"), "{refused:?}");
}
