//! Starts on a store: with keys that are sealed, plain or sealed by somebody else, and beside others that start.

use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::{Barrier, watch};

use super::super::seal::{SealError, opened};
use super::super::{SubmitError, fresh_secret};
use super::*;
use crate::config::{self, Hidden};
use crate::model::{Event, EventQuery};
use crate::store::{MemoryStore, StoreError};

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

/// A store on which others are at work.
struct Shared {
    store: Arc<MemoryStore>,
    /// So many commits come a moment after somebody else's.
    late: Mutex<usize>,
    /// The first loads wait for each other.
    together: Option<Barrier>,
    loads: Mutex<usize>,
}

impl Shared {
    fn new(late: usize, together: Option<Barrier>) -> Arc<Self> {
        let store = Arc::new(MemoryStore::new());
        Arc::new(Self { store, late: Mutex::new(late), together, loads: Mutex::new(0) })
    }

    /// What another process does that starts on the same file.
    async fn another(&self, n: usize) {
        let loaded = self.store.load().await.unwrap();
        let state = State::from_documents(loaded.revision, &loaded.documents).unwrap();
        let settings = settings(&[]);
        let new = settings.structure.services.keys().find(|name| state.service(name.as_str()).is_none());
        let commit = match new {
            Some(name) => state.apply(&settings.structure, &begin(name), loaded.next_event, now_ms()).unwrap().commit,
            None => {
                let puts = vec![(DocumentKey::Archive(format!("other/{n}")), "{}".to_owned())];
                let (expected, revision) = (loaded.revision, loaded.revision + 1);
                Commit { expected, revision, puts, ..Commit::default() }
            }
        };
        self.store.commit(commit).await.unwrap();
    }
}

#[async_trait]
impl Store for Shared {
    async fn load(&self) -> Result<Loaded, StoreError> {
        let first = {
            let mut loads = self.loads.lock().unwrap();
            *loads += 1;
            *loads <= 2
        };
        let loaded = self.store.load().await;
        if let Some(together) = self.together.as_ref().filter(|_| first) {
            together.wait().await;
        }
        loaded
    }
    async fn get(&self, key: &DocumentKey) -> Result<Option<Document>, StoreError> {
        self.store.get(key).await
    }
    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<(DocumentKey, u64)>, StoreError> {
        self.store.list(prefix, after, limit).await
    }
    async fn commit(&self, commit: Commit) -> Result<u64, StoreError> {
        let late = {
            let mut late = self.late.lock().unwrap();
            *late = late.saturating_sub(1);
            *late
        };
        if late > 0 {
            self.another(late).await;
        }
        self.store.commit(commit).await
    }
    async fn append(&self, events: Vec<Event>) -> Result<u64, StoreError> {
        self.store.append(events).await
    }
    async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError> {
        self.store.events(query).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
    fn watch(&self) -> watch::Receiver<u64> {
        self.store.watch()
    }
}

async fn begun(store: &MemoryStore) -> usize {
    let events = store.events(EventQuery { limit: 100, ..EventQuery::default() }).await.unwrap();
    events.iter().filter(|event| event.kind == crate::model::EventKind::ServiceAdded).count()
}

#[tokio::test]
async fn two_processes_start_on_an_empty_store_at_once() {
    let shared = Shared::new(0, Some(Barrier::new(2)));
    let begin = || start(parts(shared.clone(), settings(&["a"])));
    let (one, two) = tokio::join!(begin(), begin());
    let (one, two) = (one.unwrap().control, two.unwrap().control);
    assert_eq!(begun(&shared.store).await, 2, "each service begins once");
    let key = stored(&shared.store).await;
    assert_eq!(text_of(&key, "a").unwrap().lines().count(), 1, "one key, which both have");
    let last = one.view().state.revision.max(two.view().state.revision);
    assert_eq!(last, shared.store.load().await.unwrap().revision);
    let loads = *shared.loads.lock().unwrap();
    assert!(loads >= 3, "one of them looked again: {loads}");
}

#[tokio::test]
async fn a_start_goes_on_after_whatever_others_commit_meanwhile_but_not_for_ever() {
    let shared = Shared::new(TRIES, None);
    let control = start(parts(shared.clone(), settings(&[]))).await.unwrap().control;
    assert_eq!((begun(&shared.store).await, control.view().state.services.len()), (2, 2));
    assert_eq!(control.view().state.revision, shared.store.load().await.unwrap().revision);
    let busy = Shared::new(usize::MAX, None);
    let error = start(parts(busy.clone(), settings(&[]))).await.err().unwrap();
    assert!(matches!(error, StartError::Store(StoreError::Conflict { .. })), "{error}");
    assert_eq!(*busy.loads.lock().unwrap(), TRIES);
}
