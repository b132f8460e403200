//! A new process takes over from the one that serves: nothing is lost, nothing is forgotten.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Backend, client, two_versions, until};
use crate::lifecycle::Process;
use crate::strict::Strict;

async fn call(process: &Process, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = client().request(method.parse().unwrap(), format!("{}{path}", process.admin));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

async fn split(process: &Process, new: u32) {
    let body = json!({ "weights": { "2.0.0": new, "1.0.0": 100 - new } });
    let (status, answer) = call(process, "PUT", "/v1/services/shop/split", Some(body)).await;
    assert_eq!(status, 200, "{answer}");
}

/// Whether a process of this number is there and has not ended.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_lose_no_request_and_no_change() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let mut process = Process::start(&folder, &two_versions(&old, &new, ""));
    process.ready().await;
    let load = Strict::start(&process.proxy, 16);
    let mut before = Vec::new();
    for round in 1..=4 {
        split(&process, round * 10).await;
        let from = process.pid;
        process.upgrade().await;
        before.push(from);
        let (_, found) = call(&process, "GET", "/v1/services/shop/split", None).await;
        assert_eq!(found["weights"]["2.0.0"], round * 10, "the new process has the state of the old one");
        let requests = || load.counts.requests.load(SeqCst);
        let enough = requests() + 300;
        until("requests to go on", Duration::from_secs(20), || async { requests() >= enough }).await;
    }
    let counts = load.stop().await;
    assert_eq!(
        counts.failed.load(SeqCst),
        0,
        "of {} requests: {:?}",
        counts.requests.load(SeqCst),
        counts.failures.lock().unwrap()
    );
    assert!(counts.closes.load(SeqCst) > 20, "clients were told to go: {counts:?}");
    until("the processes before to end", Duration::from_secs(15), || async { !before.iter().any(|p| lives(*p)) }).await;
    let (_, events) = call(&process, "GET", "/v1/events?kind=started", None).await;
    let events = events["events"].as_array().unwrap();
    assert_eq!(events.len(), 5, "{events:?}");
    assert!(events[0]["reason"].as_str().unwrap().contains("fresh stake"));
    assert_eq!(events[4]["before"]["pid"], before[3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guard_knows_is_carried_over() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let mut process = Process::start(&folder, &two_versions(&old, &new, "split = { \"1.0.0\" = 50, \"2.0.0\" = 50 }"));
    process.ready().await;
    let client = client();
    // A few failures: enough to speak against the new version, not enough for anything to be done about it.
    new.script.fail(1.0);
    for n in 0..400 {
        client.get(&process.proxy).header("x-user-id", format!("u{n}")).send().await.unwrap();
    }
    let comparison = |process: &Process| {
        let url = format!("{}/v1/services/shop/stats", process.admin);
        let client = client.clone();
        async move {
            let stats: Value = client.get(url).send().await.unwrap().json().await.unwrap();
            stats["comparisons"][0].clone()
        }
    };
    let requests = |found: &Value, version: &str| found["window"][version]["requests"].as_u64().unwrap_or_default();
    until("the guard to have seen all", Duration::from_secs(5), || async {
        let found = comparison(&process).await;
        requests(&found, "baseline") + requests(&found, "canary") == 400
    })
    .await;
    let before = comparison(&process).await;
    assert!(before["evidence"].as_f64().unwrap() > 1.5, "{before}");
    process.upgrade().await;
    until("the guard to look again", Duration::from_secs(5), || async { comparison(&process).await.is_object() }).await;
    let after = comparison(&process).await;
    for key in ["evidence", "signals", "ceiling_baseline", "promotion_ready"] {
        assert_eq!(before[key], after[key], "{key}: {before} {after}");
    }
    for version in ["baseline", "canary"] {
        assert_eq!(before["window"][version], after["window"][version], "{before} {after}");
    }
    let (_, stats) = call(&process, "GET", "/v1/services/shop/stats?window=5m", None).await;
    let requests = |version: &Value| version["requests"].as_u64().unwrap();
    assert_eq!(stats["versions"].as_array().unwrap().iter().map(requests).sum::<u64>(), 400, "{stats}");
    let (_, events) = call(&process, "GET", "/v1/events?kind=started", None).await;
    assert!(events["events"][1]["reason"].as_str().unwrap().contains("evidence of 1 comparisons"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_only_finishes_follows_what_the_new_one_decides() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let mut process = Process::start(&folder, &two_versions(&old, &new, "split = { \"2.0.0\" = 100 }"));
    process.ready().await;
    let mut kept = TcpStream::connect(process.proxy.trim_start_matches("http://")).await.unwrap();
    let mut ask = async |last: bool| {
        kept.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-user-id: u\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        if last {
            kept.read_to_end(&mut seen).await.unwrap();
        } else {
            while !seen.ends_with(b"}") {
                kept.read_buf(&mut seen).await.unwrap();
            }
        }
        String::from_utf8(seen).unwrap().to_ascii_lowercase()
    };
    assert!(ask(false).await.contains("x-backend: 2.0.0"));
    process.upgrade().await;
    let body = json!({ "reason": "it is broken" });
    let (status, answer) = call(&process, "POST", "/v1/services/shop/rollback", Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    // The connection belongs to the process before, which may take a moment to hear of it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let answer = ask(true).await;
    assert!(answer.contains("x-backend: 1.0.0") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_fails_changes_nothing() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let text = two_versions(&old, &new, "");
    let mut process = Process::start(&folder, &text);
    process.ready().await;
    let file = folder.path().join("switchback.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    // One is not read at all; the others are found out only when the state is loaded, after the old process has paused. A
    // process of its own would serve the last good copy, but the one that serves does better.
    let unknown_key = good.replace("baseline", "basline");
    let other_store = format!("{good}\n[store]\npath = \"not/there/at.all\"\nlast_good = false\n");
    let damaged_store = format!("{good}\n[store]\npath = \"damaged.db\"\n");
    let copy = folder.path().join("switchback.db.last-good");
    until("the last good copy to be written", Duration::from_secs(20), || async { copy.exists() }).await;
    std::fs::copy(&copy, folder.path().join("damaged.db.last-good")).unwrap();
    std::fs::write(folder.path().join("damaged.db"), "no store at all").unwrap();
    for bad in [unknown_key, other_store, damaged_store] {
        std::fs::write(&file, bad).unwrap();
        let (status, answer) = call(&process, "POST", "/v1/upgrade", None).await;
        assert_eq!(status, 500, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains("did not come so far as to serve"), "{answer}");
        split(&process, 30).await;
        assert_eq!(client().get(&process.proxy).send().await.unwrap().status(), 200);
    }
    std::fs::write(&file, good).unwrap();
    process.upgrade().await;
    split(&process, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_nothing_is_handed_over_and_the_reason_is_told() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let mut process = Process::start(&folder, &two_versions(&old, &new, ""));
    process.ready().await;
    let locked = rusqlite::Connection::open(folder.path().join("switchback.db")).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (status, answer) = call(&process, "POST", "/v1/upgrade", None).await;
    assert_eq!((status, &answer["type"]), (503, &json!("urn:switchback:not_now")), "{answer}");
    assert_eq!(client().get(&process.proxy).send().await.unwrap().status(), 200);
    locked.execute_batch("ROLLBACK").unwrap();
    process.upgrade().await;
    split(&process, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigquit_upgrades_and_a_second_process_without_take_over_is_refused() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let mut process = Process::start(&folder, &two_versions(&old, &new, ""));
    process.ready().await;
    let second = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(["serve", "--config"])
        .arg(folder.path().join("switchback.toml"))
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("cannot listen on"));
    let from = process.pid;
    process.signal("QUIT");
    process.found_again(from).await;
    until("the process before to end", Duration::from_secs(15), || async { !lives(from) }).await;
    assert_eq!(client().get(&process.proxy).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_who_serves() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let manager = tokio::net::UnixDatagram::bind(folder.path().join("notify.sock")).unwrap();
    let heard = async || {
        let mut said = [0; 1024];
        let read = tokio::time::timeout(Duration::from_secs(20), manager.recv(&mut said)).await;
        String::from_utf8_lossy(&said[..read.expect("it is told").unwrap()]).into_owned()
    };
    let text = two_versions(&old, &new, "");
    let socket = format!("NOTIFY_SOCKET={}", folder.path().join("notify.sock").display());
    let mut process = Process::start_under(&folder, &text, &["env", &socket]);
    let first = process.pid;
    assert_eq!(heard().await.trim(), format!("MAINPID={first}\nREADY=1"));
    process.upgrade().await;
    // Both say it: systemd believes the first process only, and then the other one.
    let main = format!("MAINPID={}", process.pid);
    let mut told = [heard().await, heard().await].map(|said| said.trim().to_owned());
    told.sort();
    assert_eq!(told, [main.clone(), format!("{main}\nREADY=1")]);
    process.signal("TERM");
    assert_eq!(heard().await.trim(), "STOPPING=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_the_service_manager_are_used() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = TcpStream::connect(address).await.unwrap();
    let text = format!(
        "{}\n[proxy]\nlisten = [\"{address}\"]\nthreads = 1\n[admin]\nlisten = \"off\"\n",
        two_versions(&old, &new, "")
    );
    std::fs::write(folder.path().join("switchback.toml"), text).unwrap();
    // What systemd does: the socket is descriptor 3, and the variables name the process that it is for.
    let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" serve --config \"$1\"";
    let mut child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_switchback")])
        .arg(folder.path().join("switchback.toml"))
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let answered = async {
        let mut waiting = waiting;
        waiting.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), answered).await;
    let _ended = (child.kill(), child.wait());
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"), "who waited before the process began is served");
}
