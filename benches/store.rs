//! The embedded store: durable commits per second, and how long a hundred thousand documents take to write and to read.
//!
//! `cargo bench --bench store`. The rate of single commits is the disk's: each waits until it is on it.

use std::time::Instant;

use switchback::model::{Commit, DocumentKey, ServiceName, TenantName};
use switchback::store::{EmbeddedStore, LastGood, Options, Store as _};

const DOCUMENTS: usize = 100_000;
const COMMITS: u64 = 1_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("bench.db");
    let service = ServiceName::new("bench").expect("a name");
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(400));
    let key = |n: usize| DocumentKey::Tenant(service.clone(), TenantName::new(&format!("tenant-{n}")).expect("a name"));
    let store = EmbeddedStore::open(&path, Options::default()).expect("a new store");
    println!("| what | time |\n|---|---|");
    let begun = Instant::now();
    let puts = (0..DOCUMENTS).map(|n| (key(n), body.clone())).collect();
    store.commit(Commit { expected: 0, revision: 1, puts, ..Commit::default() }).await.expect("durable");
    println!("| commit {DOCUMENTS} documents at once | {:?} |", begun.elapsed());
    let begun = Instant::now();
    for revision in 1..=COMMITS {
        let puts = vec![(key(revision as usize), body.clone())];
        let commit = Commit { expected: revision, revision: revision + 1, puts, ..Commit::default() };
        store.commit(commit).await.expect("durable");
    }
    println!("| one durable commit, mean of {COMMITS} | {:?} |", begun.elapsed() / COMMITS as u32);
    let begun = Instant::now();
    let loaded = store.load().await.expect("readable");
    println!("| load {} documents | {:?} |", loaded.documents.len(), begun.elapsed());
    let copy = LastGood::beside(&path);
    let begun = Instant::now();
    copy.save(loaded.revision, &loaded.documents).expect("written");
    println!("| save the last good copy | {:?} |", begun.elapsed());
    let begun = Instant::now();
    let saved = copy.load().expect("readable").expect("just saved");
    println!("| load the last good copy, {} documents | {:?} |", saved.documents.len(), begun.elapsed());
    store.close().await;
}
