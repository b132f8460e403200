//! What only the embedded store does: files, two processes on one file, retention.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::conformance::{self, event, put};
use super::*;
use crate::model::EventKind;

fn make() -> (Arc<dyn Store>, tempfile::TempDir) {
    let (store, directory) = open(Options::default());
    (Arc::new(store), directory)
}

fn open(options: Options) -> (EmbeddedStore, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (EmbeddedStore::open(&directory.path().join("s.db"), options).unwrap(), directory)
}

fn names(directory: &tempfile::TempDir) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

conformance::suite!(make);

#[tokio::test]
async fn a_new_file_is_private_and_closes_to_one_file() {
    let (store, directory) = open(Options::default());
    store.commit(put(0, 1, "a")).await.unwrap();
    assert_eq!(names(&directory), ["s.db", "s.db-shm", "s.db-wal"], "nothing is left of the making");
    for name in names(&directory) {
        let mode = fs::metadata(directory.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close().await;
    assert_eq!(names(&directory), ["s.db"]);
    let again = EmbeddedStore::open(&directory.path().join("s.db"), Options::default()).unwrap();
    assert_eq!(*again.watch().borrow(), 1);
    assert_eq!(again.load().await.unwrap().documents.len(), 1);
}

#[tokio::test]
async fn two_processes_cannot_both_win_and_learn_of_each_other() {
    let (one, directory) = open(Options::default());
    let two = EmbeddedStore::open(&directory.path().join("s.db"), Options::default()).unwrap();
    one.commit(put(0, 1, "a")).await.unwrap();
    assert!(matches!(two.commit(put(0, 1, "b")).await, Err(StoreError::Conflict { expected: 0, found: 1 })));
    assert_eq!(*two.watch().borrow(), 1, "the conflict told");
    assert_eq!(two.commit(put(1, 2, "b")).await.unwrap(), 2, "ids go on across processes");
    one.ping().await.unwrap();
    assert_eq!(*one.watch().borrow(), 2, "the ping told");
    assert_eq!(one.load().await.unwrap(), two.load().await.unwrap());
}

#[tokio::test]
async fn a_replaced_file_is_noticed_before_anything_is_acknowledged() {
    let (store, directory) = open(Options::default());
    store.commit(put(0, 1, "a")).await.unwrap();
    fs::rename(directory.path().join("s.db"), directory.path().join("old.db")).unwrap();
    assert!(matches!(store.commit(put(1, 2, "a")).await, Err(StoreError::Replaced { .. })));
    assert!(matches!(store.ping().await, Err(StoreError::Replaced { .. })));
    fs::rename(directory.path().join("old.db"), directory.path().join("s.db")).unwrap();
    store.commit(put(1, 2, "a")).await.unwrap();
}

#[tokio::test]
async fn the_oldest_events_go_in_small_steps() {
    let (store, _directory) = open(Options { keep_events: 100 });
    for _ in 0..3 {
        store.append((0..300).map(|n| event(n, EventKind::Brake, Some("a"), None)).collect()).await.unwrap();
    }
    assert_eq!(store.events(EventQuery::default()).await.unwrap()[0].id, 801, "100 are left");
    store.commit(put(0, 1, "a")).await.unwrap();
    assert_eq!(store.events(EventQuery::default()).await.unwrap()[0].id, 802);
}

#[tokio::test]
async fn a_limit_that_was_made_smaller_is_reached_step_by_step() {
    let (store, directory) = open(Options::default());
    store.append((0..1_000).map(|n| event(n, EventKind::Brake, None, None)).collect()).await.unwrap();
    store.close().await;
    let store = EmbeddedStore::open(&directory.path().join("s.db"), Options { keep_events: 10 }).unwrap();
    let mut oldest = Vec::new();
    for _ in 0..5 {
        store.append(vec![event(0, EventKind::Brake, None, None)]).await.unwrap();
        oldest.push(store.events(EventQuery::default()).await.unwrap()[0].id);
    }
    assert_eq!(oldest, [257, 513, 769, 995, 996]);
}

#[tokio::test]
async fn readers_do_not_wait_for_a_writer() {
    let (store, directory) = open(Options::default());
    store.commit(put(0, 1, "a")).await.unwrap();
    let other = Connection::open(directory.path().join("s.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; DELETE FROM documents; DELETE FROM events;").unwrap();
    assert_eq!(store.load().await.unwrap().documents.len(), 1);
    assert_eq!(store.events(EventQuery::default()).await.unwrap().len(), 1);
    // A commit waits its turn and then goes through.
    let store = Arc::new(store);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.commit(put(1, 2, "b")).await }
    });
    tokio::task::yield_now().await;
    other.execute_batch("ROLLBACK").unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(store.load().await.unwrap().documents.len(), 2);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = EmbeddedStore::open(&directory.path().join("no/s.db"), Options::default()).unwrap_err();
    assert!(matches!(error, StoreError::Create { .. }), "{error}");
    let log = directory.path().join("s.db-wal");
    fs::write(&log, "left over").unwrap();
    let error = EmbeddedStore::open(&directory.path().join("s.db"), Options::default()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(names(&directory), ["s.db-wal"]);
}

#[tokio::test]
async fn damage_that_shows_later_is_told() {
    let (store, directory) = open(Options::default());
    store.commit(put(0, 1, "a")).await.unwrap();
    let other = Connection::open(directory.path().join("s.db")).unwrap();
    other.execute("UPDATE events SET body = 'x'", []).unwrap();
    assert!(matches!(store.events(EventQuery::default()).await, Err(StoreError::Damaged { .. })));
    other.execute("UPDATE documents SET key = 'x'", []).unwrap();
    assert!(matches!(store.load().await, Err(StoreError::Damaged { .. })));
    other.execute("DELETE FROM meta", []).unwrap();
    assert!(matches!(store.ping().await, Err(StoreError::Damaged { .. })));
}
