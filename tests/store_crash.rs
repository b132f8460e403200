//! The store and kill -9: what was acknowledged is there, what was not is there whole or not at all.
//!
//! The test starts itself as a child that commits as fast as it can and prints every acknowledged revision, kills it at
//! seeded instants, and compares what is found with what the revision says must be there: the commits are a function of
//! their revision, so one number tells the whole content. Files that cannot be used must be refused byte for byte as
//! they were.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use switchback::model::{Author, Commit, DocumentKey, Event, EventKind, EventQuery, ServiceName};
use switchback::store::{EmbeddedStore, Options, Store, StoreError};

const CHILD: &str = "SWITCHBACK_STORE_CRASH_CHILD";
const ROUNDS: u64 = 30;
const SEED: u64 = 0x5b5b_2026;

fn key(n: u64) -> DocumentKey {
    DocumentKey::Service(ServiceName::new(&format!("s{n}")).unwrap())
}

fn event(revision: u64, kind: EventKind) -> Event {
    Event {
        id: 0,
        revision,
        at_ms: revision,
        kind,
        service: Some(ServiceName::new("s").unwrap()),
        tenant: None,
        group: None,
        rollout: None,
        version: None,
        author: Author::Autopilot,
        reason: "x".repeat((revision % 700) as usize),
        cause: None,
        before: serde_json::Value::Null,
        after: serde_json::Value::Null,
        evidence: serde_json::Value::Null,
        first_bad_to_rollback_ms: None,
    }
}

/// The commit that makes this revision: two documents written, one removed, one to three events.
fn nth(revision: u64) -> Commit {
    let body = |n: u64| format!("{{\"revision\":{revision},\"n\":{n},\"text\":\"{}\"}}", "y".repeat((n * 37) as usize));
    Commit {
        expected: revision - 1,
        revision,
        puts: [revision % 7, 7 + revision % 11].map(|n| (key(n), body(n))).to_vec(),
        deletes: vec![key(18 - revision % 13)],
        events: vec![event(revision, EventKind::SplitSet); 1 + (revision % 3) as usize],
        leads: false,
    }
}

/// What must be stored at this revision.
fn documents_at(revision: u64) -> BTreeMap<String, (u64, String)> {
    let mut documents = BTreeMap::new();
    for commit in (1..=revision).map(nth) {
        for key in &commit.deletes {
            documents.remove(&key.to_string());
        }
        for (key, body) in commit.puts {
            documents.insert(key.to_string(), (commit.revision, body));
        }
    }
    documents
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Not a test by itself: commits until it is killed. Does nothing unless the parent below started it.
#[test]
fn child_commits_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = EmbeddedStore::open(Path::new(&path), Options::default()).unwrap();
    runtime().block_on(async {
        let mut revision = store.load().await.unwrap().revision;
        loop {
            revision += 1;
            store.commit(nth(revision)).await.unwrap();
            say("committed", revision);
            if revision % 4 == 0 {
                say("appended", store.append(vec![event(revision, EventKind::Brake)]).await.unwrap());
            }
        }
    });
}

fn say(what: &str, number: u64) {
    // The harness leaves a line open in front of the first one.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{what} {number}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// What a child was told is durable.
#[derive(Debug, Default)]
struct Acknowledged {
    revision: u64,
    appended: Vec<u64>,
    count: u64,
}

impl Acknowledged {
    /// Takes one line in; an incomplete one, cut by the kill, was never acknowledged.
    fn take(&mut self, line: &str) {
        let Some((what, number)) = line.strip_suffix('\n').and_then(|l| l.split_once(' ')) else { return };
        match (what, number.parse()) {
            ("committed", Ok(revision)) => self.revision = revision,
            ("appended", Ok(id)) => self.appended.push(id),
            _ => return,
        }
        self.count += 1;
    }
}

fn start_child(path: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_commits_until_killed", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

/// Lets a child run for some acknowledgements and a little longer, kills it, and returns all that it had been told.
fn run_and_kill(path: &Path, wait_for: u64, then: Duration) -> Acknowledged {
    let (mut child, mut out) = start_child(path);
    let mut acknowledged = Acknowledged::default();
    let mut line = String::new();
    while acknowledged.count < wait_for && out.read_line(&mut line).unwrap() > 0 {
        acknowledged.take(&line);
        line.clear();
    }
    std::thread::sleep(then);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "the child ended by itself: {status}");
    while out.read_line(&mut line).unwrap() > 0 {
        acknowledged.take(&line);
        line.clear();
    }
    acknowledged
}

fn quick_check(path: &Path) -> String {
    rusqlite::Connection::open(path).unwrap().query_row("PRAGMA quick_check", [], |row| row.get(0)).unwrap()
}

/// Documents, events and revision agree with each other and hold everything that was acknowledged.
fn check(path: &Path, before: u64, acknowledged: &Acknowledged) -> u64 {
    let store = EmbeddedStore::open(path, Options::default()).unwrap();
    let revision = runtime().block_on(async {
        let loaded = store.load().await.unwrap();
        let least = acknowledged.revision.max(before);
        assert!((least..=least + 1).contains(&loaded.revision), "{} of {least}, {acknowledged:?}", loaded.revision);
        let found: BTreeMap<_, _> =
            loaded.documents.into_iter().map(|d| (d.key.to_string(), (d.revision, d.body))).collect();
        assert_eq!(found, documents_at(loaded.revision));

        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let page = store.events(EventQuery { after, limit: 1000, ..EventQuery::default() }).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.id;
            events.extend(page);
        }
        let ids: Vec<_> = events.iter().map(|e| e.id).collect();
        assert_eq!(ids, (1..loaded.next_event).collect::<Vec<_>>(), "no gaps, and the counter fits");
        for id in &acknowledged.appended {
            assert_eq!(events[*id as usize - 1].kind, EventKind::Brake, "event {id} was acknowledged");
        }
        events.retain(|e| e.kind == EventKind::SplitSet);
        let wanted: Vec<_> = (1..=loaded.revision).flat_map(|r| nth(r).events).collect();
        let events: Vec<_> = events.into_iter().map(|e| Event { id: 0, ..e }).collect();
        let first_wrong = events.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
        assert_eq!((first_wrong, events.len()), (None, wanted.len()), "events at revision {}", loaded.revision);
        store.close().await;
        loaded.revision
    });
    assert_eq!(quick_check(path), "ok");
    revision
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let started = Instant::now();
    let mut random = SEED;
    let mut next = |below: u64| {
        // SplitMix64: the same instants in every run, as far as the machine allows.
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    };
    let mut directory = tempfile::tempdir().unwrap();
    let (mut revision, mut total) = (0, 0);
    for round in 0..ROUNDS {
        // Every few rounds a new file, so that its making is hit as well.
        if round % 6 == 0 {
            directory = tempfile::tempdir().unwrap();
            revision = 0;
        }
        let path = directory.path().join("switchback.db");
        let wait_for = if round % 3 == 0 { 0 } else { next(120) };
        let then = Duration::from_micros(next(if wait_for == 0 { 40_000 } else { 5_000 }));
        let acknowledged = run_and_kill(&path, wait_for, then);
        total += acknowledged.count;
        revision = check(&path, revision, &acknowledged);
    }
    println!("{ROUNDS} kills, {total} acknowledged writes, {:?}", started.elapsed());
    assert!(total > 100, "the child hardly ran: {total}");
}

/// A closed store with some content.
fn closed_store(directory: &tempfile::TempDir) -> PathBuf {
    let path = directory.path().join("switchback.db");
    let store = EmbeddedStore::open(&path, Options::default()).unwrap();
    runtime().block_on(async {
        for revision in 1..=200 {
            store.commit(nth(revision)).await.unwrap();
        }
        store.close().await;
    });
    path
}

/// Changes the file, expects it to be refused and to stay as it is, and returns the error.
fn refused(change: impl FnOnce(&Path)) -> StoreError {
    let directory = tempfile::tempdir().unwrap();
    let path = closed_store(&directory);
    change(&path);
    let before = fs::read(&path).unwrap();
    let error = EmbeddedStore::open(&path, Options::default()).expect_err("it must be refused");
    assert!(fs::read(&path).unwrap() == before, "the file was changed");
    assert!(
        fs::metadata(path.with_extension("db-wal")).map_or(0, |m| m.len()) == 0,
        "something was written to its log"
    );
    error
}

fn overwrite(path: &Path, from: usize, len: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[from..from + len].fill(0xa5);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_file_is_refused_and_stays_as_it_is() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 7] = [
        ("empty", |p| fs::write(p, "").unwrap()),
        ("garbage", |p| fs::write(p, "garbage".repeat(3_000)).unwrap()),
        ("short garbage", |p| fs::write(p, "x").unwrap()),
        ("half", |p| fs::write(p, &fs::read(p).unwrap()[..fs::metadata(p).unwrap().len() as usize / 2]).unwrap()),
        ("only the header", |p| fs::write(p, &fs::read(p).unwrap()[..100]).unwrap()),
        ("the schema's page", |p| overwrite(p, 100, 300)),
        ("a page in the middle", |p| overwrite(p, 4096 * 2, 4096)),
    ];
    for (what, change) in changes {
        let error = refused(change);
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error:?}");
    }
}

#[test]
fn a_newer_or_foreign_file_is_refused_and_stays_as_it_is() {
    let sql = |path: &Path, text: &str| rusqlite::Connection::open(path).unwrap().execute_batch(text).unwrap();
    let tables = refused(|p| sql(p, "PRAGMA user_version = 7"));
    assert!(matches!(tables, StoreError::Newer { found_format: 7, .. }), "{tables:?}");
    let documents = refused(|p| sql(p, "UPDATE meta SET value = 8 WHERE key = 'document_format'"));
    assert!(matches!(documents, StoreError::Newer { found_format: 8, .. }), "{documents:?}");
    let foreign = refused(|p| sql(p, "PRAGMA application_id = 1"));
    assert!(matches!(foreign, StoreError::Foreign { .. }), "{foreign:?}");
}
