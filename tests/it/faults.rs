//! Disks that are full, read-only, slow or gone, and clocks that jump: traffic goes on, nothing acknowledged is lost, and
//! what the guard takes back is back.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Answer, Backend, client, two_versions, until};
use crate::lifecycle::Process;
use crate::shim::Shim;

/// The real binary with two versions.
struct Real {
    process: Process,
    client: reqwest::Client,
    old: Backend,
    new: Backend,
    folder: TempDir,
}

impl Real {
    async fn start(more: &str) -> Self {
        Self::start_under(more, &[]).await
    }

    async fn start_under(more: &str, wrapper: &[&str]) -> Self {
        let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
        let folder = TempDir::new().unwrap();
        let process = Process::start_under(&folder, &(more.to_owned() + &two_versions(&old, &new, "")), wrapper);
        process.ready().await;
        Self { process, client: client(), old, new, folder }
    }

    async fn get(&self, user: &str) -> Answer {
        Answer::of(self.client.get(&self.process.proxy).header("x-user-id", user).send().await.unwrap()).await
    }

    /// Requests of this many users; the slowest of the answers, which must all be 200.
    async fn slowest(&self, users: usize) -> Duration {
        let mut slowest = Duration::ZERO;
        for user in 0..users {
            let begun = Instant::now();
            assert_eq!(self.get(&format!("user-{user}")).await.status, 200);
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    }

    async fn api(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = method.parse().unwrap();
        let request = self.client.request(method, format!("{}{path}", self.process.admin));
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    async fn split(&self, new: u32) -> (u16, Value) {
        self.api("PUT", "/v1/services/shop/split", json!({ "weights": { "2.0.0": new, "1.0.0": 100 - new } })).await
    }

    async fn share(&self) -> u64 {
        let (_, split) = self.api("GET", "/v1/services/shop/split", Value::Null).await;
        split["weights"]["2.0.0"].as_u64().unwrap_or(0)
    }

    async fn status(&self) -> Value {
        self.api("GET", "/v1/status", Value::Null).await.1
    }

    async fn metric(&self, series: &str) -> f64 {
        let url = format!("{}/metrics", self.process.admin);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|l| l.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.map_or(0.0, |l| l.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// The largest file that the process may write: no space beyond it. `None`: as the system allows.
    fn space(&self, bytes: Option<u64>) {
        let limit = format!("--fsize={}:", bytes.map_or("unlimited".to_owned(), |b| b.to_string()));
        let pid = self.process.pid.to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(done.as_ref().is_ok_and(|s| s.success()), "prlimit (package util-linux) is needed here: {done:?}");
    }

    /// Sends requests, a tenth of them to the new version, which fails, until its traffic is back.
    async fn until_back(&self) -> Duration {
        self.new.script.fail(100.0);
        let begun = Instant::now();
        let mut user = 0;
        until("the traffic to be back", Duration::from_secs(20), || {
            user += 50;
            async move {
                futures::future::join_all((user..user + 50).map(|n| async move { self.get(&format!("u{n}")).await }))
                    .await;
                self.share().await == 0
            }
        })
        .await;
        begun.elapsed()
    }

    async fn restart(&mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
        let text = two_versions(&self.old, &self.new, "");
        self.process = Process::start(&self.folder, &text);
        self.process.ready().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_traffic_goes_on_and_goes_back_and_changes_are_refused_until_there_is_space() {
    let mut it = Real::start("").await;
    assert_eq!(it.split(30).await.0, 200);
    it.space(Some(64));
    let (status, answer) = it.split(40).await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("cannot write to the store"), "{answer}");
    assert_eq!((it.share().await, it.metric("switchback_store_up").await), (30, 0.0), "it is not in effect");
    assert!(it.slowest(50).await < Duration::from_secs(1));
    assert_eq!(it.api("GET", "/v1/events", Value::Null).await.0, 200, "the history can be read");
    it.until_back().await;
    let status = it.status().await;
    assert!(status["warnings"].to_string().contains("wait to be written"), "{status}");
    it.new.script.fail(0.0);
    it.space(None);
    until("the rollback to be confirmed", Duration::from_secs(10), async || {
        it.metric("switchback_store_up").await == 1.0
    })
    .await;
    let (_, events) = it.api("GET", "/v1/events?kind=rollback", Value::Null).await;
    assert_eq!(events["events"].as_array().unwrap().len(), 1, "{events}");
    it.restart().await;
    assert_eq!(it.share().await, 0, "what was confirmed survives");
    assert_eq!(it.split(20).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_holds_up_neither_requests_nor_readers_nor_the_way_back() {
    let mut it = Real::start("").await;
    assert_eq!(it.split(30).await.0, 200);
    it.slowest(20).await;
    let other = rusqlite::Connection::open(it.folder.path().join("switchback.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Somebody waits for a change when the version begins to fail.
    let body = json!({ "weights": { "2.0.0": 50, "1.0.0": 50 } });
    let put = it.client.put(format!("{}/v1/services/shop/split", it.process.admin)).json(&body).send();
    let put = tokio::spawn(put);
    let reads = async || {
        let begun = Instant::now();
        for path in ["/v1/events", "/v1/services/shop", "/v1/services/shop/stats"] {
            assert_eq!(it.api("GET", path, Value::Null).await.0, 200, "{path}");
        }
        it.metric("switchback_store_up").await;
        begun.elapsed()
    };
    assert!(reads().await < Duration::from_secs(1));
    assert!(it.slowest(50).await < Duration::from_secs(1));
    let answer = put.await.unwrap().unwrap();
    let (status, answer) = (answer.status(), answer.text().await.unwrap());
    assert!(status == 503 && answer.contains("locked and nothing was changed"), "{status} {answer}");
    let took = it.until_back().await;
    assert!(took < Duration::from_secs(8), "the guard takes up to six, the store not one more: {took:?}");
    assert!(reads().await < Duration::from_secs(1));
    assert!(it.slowest(50).await < Duration::from_secs(1));
    let waits = async || it.status().await["warnings"].to_string().contains("wait to be written");
    assert!(waits().await, "{}", it.status().await);
    other.execute_batch("ROLLBACK").unwrap();
    until("the rollback to be confirmed", Duration::from_secs(10), async || !waits().await).await;
    assert_eq!(it.metric("switchback_store_up").await, 1.0);
    it.new.script.fail(0.0);
    it.restart().await;
    assert_eq!(it.share().await, 0, "what was confirmed survives");
    assert_eq!(it.split(20).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stays_silent_is_not_waited_for_and_what_it_did_counts() {
    let mut it = Real::start("").await;
    assert_eq!(it.split(30).await.0, 200);
    let other = rusqlite::Connection::open(it.folder.path().join("switchback.db")).unwrap();
    // Somebody else changes the state while it is held: the split is another attempt now.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    it.until_back().await;
    other.execute_batch("UPDATE meta SET value = value + 1 WHERE key = 'revision'; COMMIT").unwrap();
    it.new.script.fail(0.0);
    until("the store to have it", Duration::from_secs(10), async || it.metric("switchback_store_up").await == 1.0)
        .await;
    assert_eq!(it.share().await, 0, "the way back is made anew on what the store has");
    it.restart().await;
    assert_eq!(it.share().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_vanished_costs_changes_and_no_request_and_the_way_back_is_in_effect() {
    let it = Real::start("").await;
    assert_eq!(it.split(30).await.0, 200);
    // As when the disk is unmounted under the process.
    for name in ["switchback.db", "switchback.db-wal", "switchback.db-shm"] {
        std::fs::rename(it.folder.path().join(name), it.folder.path().join(format!("away-{name}"))).unwrap();
    }
    let (status, answer) = it.split(40).await;
    assert!(status == 503 && answer["detail"].as_str().unwrap().contains("removed or replaced"), "{status} {answer}");
    assert_eq!((it.share().await, it.metric("switchback_store_up").await), (30, 0.0));
    assert!(it.slowest(50).await < Duration::from_secs(1));
    it.until_back().await;
    for name in ["switchback.db", "switchback.db-wal", "switchback.db-shm"] {
        std::fs::rename(it.folder.path().join(format!("away-{name}")), it.folder.path().join(name)).unwrap();
    }
    until("the rollback to be confirmed", Duration::from_secs(10), async || {
        it.metric("switchback_store_up").await == 1.0
    })
    .await;
    assert_eq!(it.split(20).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_read_only_disk_a_start_serves_the_last_good_copy() {
    let mut it = Real::start("").await;
    assert_eq!(it.split(100).await.0, 200);
    it.process.signal("TERM");
    assert!(tokio::task::block_in_place(|| it.process.child.wait()).unwrap().success());
    let chmod = |mode: &str, path: &std::path::Path| {
        assert!(Command::new("chmod").arg(mode).arg(path).status().unwrap().success());
    };
    // Written while it can be: the start writes the configuration.
    let text = two_versions(&it.old, &it.new, "");
    let store = it.folder.path().join("data");
    std::fs::create_dir(&store).unwrap();
    for name in ["switchback.db", "switchback.db.last-good"] {
        std::fs::rename(it.folder.path().join(name), store.join(name)).unwrap();
        chmod("a-w", &store.join(name));
    }
    chmod("a-w", &store);
    // Root may write whatever the mode says, unless it has laid that down.
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    let caps =
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"];
    let wrapper: &[&str] = if root { &caps } else { &[] };
    let text = format!("[store]\npath = \"data/switchback.db\"\n{text}");
    it.process = Process::start_under(&it.folder, &text, wrapper);
    it.process.ready().await;
    assert_eq!(it.get("anyone").await.version, "2.0.0", "as it was");
    assert_eq!(it.status().await["read_only"], true, "{}", it.status().await);
    let (status, answer) = it.split(40).await;
    assert!(status == 503 && answer["type"] == "urn:switchback:read_only", "{status} {answer}");
    assert!(it.slowest(50).await < Duration::from_secs(1));
    chmod("u+w", &store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_access_log_costs_lines_and_says_how_many() {
    let it = Real::start("[proxy.access_log]\nenabled = true\npath = \"/dev/full\"\n").await;
    assert!(it.slowest(30).await < Duration::from_secs(1));
    futures::future::join_all((0..70).map(|_| it.get("u"))).await;
    let dropped = async || it.metric("switchback_access_log_dropped_total").await;
    until("all lines to be counted", Duration::from_secs(5), async || dropped().await == 100.0).await;
}

const DAY: i64 = 86_400;

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_the_messages_stops_nothing() {
    // Standard error is a pipe that nobody reads, and takes 64 KiB.
    let it = Real::start("").await;
    let reason = "r".repeat(500);
    for n in 0..200 {
        let weights = json!({ "2.0.0": n % 50, "1.0.0": 100 - n % 50 });
        let body = json!({ "weights": weights, "reason": reason });
        let put = tokio::time::timeout(Duration::from_secs(5), it.api("PUT", "/v1/services/shop/split", body));
        assert_eq!(put.await.expect("an answer").0, 200);
    }
    assert!(it.slowest(50).await < Duration::from_secs(1));
    let mut it = it;
    it.process.signal("TERM");
    until("the end", Duration::from_secs(10), || std::future::ready(it.process.child.try_wait().unwrap().is_some()))
        .await;
}

/// The guard, endpoints, limits and deadlines go by the monotone clock; the wall clock is for people, freezes and schedules.
#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_jumps_moves_no_traffic_and_keeps_the_guard_from_nothing() {
    let shim = Shim::new();
    let wrapper = shim.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let mut it = Real::start_under("", &wrapper).await;
    assert_eq!(it.split(30).await.0, 200);
    let versions = async || {
        futures::future::join_all((0..40).map(|n| it.get(["a", "b", "c", "d"][n % 4]))).await;
        futures::future::join_all((0..40).map(async |n| it.get(&format!("u{n}")).await.version)).await
    };
    let before = versions().await;
    let body = json!({ "for": "1h", "reason": "the database moves" });
    assert_eq!(it.api("PUT", "/v1/freeze", body).await.0, 200);
    // In 1985, the chip without a battery; in 2046; and back.
    for jump in [-15_000 * DAY, 7_300 * DAY, -DAY, 0] {
        shim.clock(jump);
        assert_eq!(versions().await, before, "nobody moves ({jump})");
        assert_eq!(it.split(30).await.0, 200, "changes are taken ({jump})");
        assert!(it.slowest(20).await < Duration::from_secs(1));
        let frozen = it.status().await["freeze"].is_object();
        assert_eq!(frozen, jump < 3_600, "a freeze ends when its time has come, by whatever clock");
    }
    let (_, events) = it.api("GET", "/v1/events", Value::Null).await;
    let ids: Vec<u64> = events["events"].as_array().unwrap().iter().map(|e| e["id"].as_u64().unwrap()).collect();
    assert!(
        ids.len() > 5 && (ids.is_sorted() || ids.is_sorted_by(|a, b| a >= b)),
        "the history keeps its order: {ids:?}"
    );
    let jumping = {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let jumps = async move {
            let mut every = tokio::time::interval(Duration::from_millis(50));
            tokio::pin!(stopped);
            for n in 0.. {
                tokio::select! {
                    _ = every.tick() => shim.clock([DAY, -DAY, 0, -15_000 * DAY][n % 4]),
                    _ = &mut stopped => return shim,
                }
            }
            unreachable!()
        };
        (stop, tokio::spawn(jumps))
    };
    let took = it.until_back().await;
    assert!(took < Duration::from_secs(8), "{took:?}");
    jumping.0.send(()).unwrap();
    let shim = jumping.1.await.unwrap();
    let (_, events) = it.api("GET", "/v1/events?kind=rollback", Value::Null).await;
    let took = events["events"][0]["first_bad_to_rollback_ms"].as_u64();
    println!("{took:?} ms from the first failure to the rollback, as the history tells");
    // A process that begins long before what it finds.
    shim.clock(-15_000 * DAY);
    it.new.script.fail(0.0);
    it.process.child.kill().unwrap();
    it.process.child.wait().unwrap();
    it.process = Process::start_under(&it.folder, &two_versions(&it.old, &it.new, ""), &wrapper);
    it.process.ready().await;
    assert_eq!((it.share().await, it.split(20).await.0), (0, 200));
}
