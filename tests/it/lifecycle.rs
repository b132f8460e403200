//! Changes, reloads, restarts, crashes and the end, under load and through the real binary.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Backend, Load, TestApp, client, many_users, two_versions, until};
use crate::many_tenants::many_tenants;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_and_a_hundred_reloads_fail_no_request() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let text = two_versions(&old, &new, "");
    let app = TestApp::start(&text).await;
    let load = Load::start(&app, 500, many_users(1_000));
    for i in 0..1_000u32 {
        app.split("shop", f64::from(i % 101)).await;
        if i % 10 == 0 {
            let timeout = format!("timeouts = {{ response = \"{}s\" }}\n", 10 + i % 3);
            app.write_config(&(text.clone() + &timeout));
            app.change("POST", "/v1/reload", json!({})).await;
        }
    }
    let seen = load.stop().await;
    assert_eq!(seen.failures, 0, "of {}", seen.requests);
    assert!(seen.requests > 300 && seen.by_version.len() == 2, "{seen:?}");
    assert_eq!(app.metric("switchback_config_reloads_total{result=\"success\"}").await, 100.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_in_effect_when_it_is_answered_and_soon() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&two_versions(&old, &new, "")).await;
    let mut times = Vec::new();
    for i in 0..50 {
        let percent = if i % 2 == 0 { 100.0 } else { 0.0 };
        let begun = Instant::now();
        app.split("shop", percent).await;
        times.push(begun.elapsed());
        assert_eq!(app.version_of("anyone").await, if percent > 0.0 { "2.0.0" } else { "1.0.0" });
    }
    times.sort();
    assert!(times[25] < Duration::from_millis(50), "median {:?}", times[25]);
}

#[tokio::test(flavor = "multi_thread")]
async fn among_a_hundred_thousand_tenants_a_change_is_in_effect_within_ten_milliseconds() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = Arc::new(TempDir::new().unwrap());
    many_tenants(folder.path(), 100_000).await;
    let text = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n".to_owned() + &two_versions(&old, &new, "");
    let app = TestApp::start_in(folder, &text).await;
    let mut times = Vec::new();
    for n in 0..60 {
        let (tenant, version) = (format!("tenant-{}", n * 1_601 % 100_000), if n % 2 == 0 { "2.0.0" } else { "1.0.0" });
        let begun = Instant::now();
        let path = format!("/v1/services/shop/tenants/{tenant}/split");
        app.change("PUT", &path, json!({ "weights": { version: 100 } })).await;
        times.push(begun.elapsed());
        assert_eq!(app.get("/", &[("x-tenant-id", &tenant)]).await.version, version);
    }
    times.sort();
    // From the outside, the disk included; the slowest may meet another process on the machine.
    assert!(times[30] < Duration::from_millis(10), "median {:?}", times[30]);
    let begun = Instant::now();
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "all of them" })).await;
    assert!(begun.elapsed() < Duration::from_millis(100), "a rollback for all: {:?}", begun.elapsed());
    for n in [0, 5, 77_777] {
        let tenant = format!("tenant-{n}");
        assert_eq!(app.get("/", &[("x-tenant-id", &tenant), ("x-user-id", "u")]).await.version, "1.0.0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_pins_and_history_survive_a_restart_and_the_file_does_not_overrule_them() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let text = two_versions(&old, &new, "");
    let app = TestApp::start(&text).await;
    app.split("shop", 40.0).await;
    app.change("PUT", "/v1/services/shop/pins/user/alice", json!({ "version": "2.0.0" })).await;
    // Each process tells that it has started; everything else is as it was.
    let told = async |app: &TestApp| {
        let mut events = app.events("").await;
        events.retain(|event| event["kind"] != "started");
        events
    };
    let before = (told(&app).await, app.version_of("someone").await);
    let folder = app.stop().await;
    let app = TestApp::start_in(folder, &text).await;
    let (_, split) = app.api("GET", "/v1/services/shop/split", None).await;
    assert_eq!(split["weights"]["2.0.0"], 40);
    assert_eq!(app.version_of("alice").await, "2.0.0");
    assert_eq!((told(&app).await, app.version_of("someone").await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_never_replaces_a_good_one() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let text = two_versions(&old, &new, "");
    let app = TestApp::start(&text).await;
    app.split("shop", 50.0).await;
    let unknown_key = text.replace("baseline", "basline");
    let gone = text.split("[services.shop.versions.\"2.0.0\"]").next().unwrap().to_owned();
    for bad in [unknown_key, gone, "not toml [".to_owned()] {
        app.write_config(&bad);
        let (status, answer) = app.api("POST", "/v1/reload", Some(json!({}))).await;
        assert!((400..500).contains(&status), "{status} {answer}");
        let seen: std::collections::BTreeSet<_> = [
            app.version_of("a").await,
            app.version_of("b").await,
            app.version_of("c").await,
            app.version_of("d").await,
            app.version_of("e").await,
        ]
        .into();
        assert!(!seen.is_empty() && seen.iter().all(|v| ["1.0.0", "2.0.0"].contains(&v.as_str())));
    }
    assert_eq!(app.metric("switchback_config_reloads_total{result=\"failure\"}").await, 3.0);
    let (_, split) = app.api("GET", "/v1/services/shop/split", None).await;
    assert_eq!(split["weights"]["2.0.0"], 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_come_and_go_through_the_api() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let third = Backend::start("3.0.0").await;
    let app = TestApp::start(&two_versions(&old, &new, "")).await;
    let path = "/v1/services/shop/versions/3.0.0";
    app.change("PUT", path, json!({ "endpoints": [third.address.to_string()] })).await;
    app.change("PUT", "/v1/services/shop/split", json!({ "weights": { "3.0.0": 100 } })).await;
    assert_eq!(app.version_of("u").await, "3.0.0");
    assert_eq!(app.api("DELETE", path, None).await.0, 409, "it has traffic");
    app.change("PUT", "/v1/services/shop/split", json!({ "weights": { "1.0.0": 100 } })).await;
    let shown = || async { app.metrics().await.contains("version=\"3.0.0\"") };
    until("the version to be in the metrics", Duration::from_secs(5), shown).await;
    assert_eq!(app.api("DELETE", path, None).await.0, 200);
    until("the version to be out of the metrics", Duration::from_secs(5), || async { !shown().await }).await;
    assert_eq!(app.api("PUT", "/v1/services/shop/split", Some(json!({ "weights": { "3.0.0": 100 } }))).await.0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_watched_is_read_again_when_it_changes() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let proxy = "[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\nwatch = true\n";
    let text = format!("{proxy}{}", two_versions(&old, &new, ""));
    let app = TestApp::start(&text).await;
    let kind = async |kind: &str| app.events(&format!("kind={kind}")).await;
    app.write_config(&text.replace("path = \"/\"", "path = \"/shop\""));
    until("the file to be read", Duration::from_secs(10), || async { kind("reloaded").await.len() == 1 }).await;
    assert_eq!(app.get("/", &[]).await.status, 404);
    assert_eq!(app.get("/shop", &[]).await.status, 200);
    app.write_config(&text.replace("baseline", "basline"));
    until("the mistake to be told", Duration::from_secs(10), || async { kind("reload_failed").await.len() == 1 }).await;
    let told = kind("reload_failed").await[0]["reason"].as_str().unwrap().to_owned();
    assert!(told.contains("basline") && told.contains("switchback.toml:"), "{told}");
    assert_eq!(app.get("/shop", &[]).await.status, 200);
}

/// The real binary as a process; killed when dropped.
pub struct Process {
    pub child: Child,
    /// Number of the process that serves: after an upgrade, another than that of the child.
    pub pid: u32,
    pub proxy: String,
    pub admin: String,
}

impl Process {
    pub fn start(folder: &TempDir, text: &str) -> Self {
        Self::start_under(folder, text, &[])
    }

    /// By way of another program, such as one that sets limits: what is given, followed by our command line.
    pub fn start_under(folder: &TempDir, text: &str, wrapper: &[&str]) -> Self {
        Self::start_with(folder, text, wrapper, "")
    }

    /// Versions that are registered, and gates, may lie in this network.
    pub fn start_allowing(folder: &TempDir, text: &str, network: &str) -> Self {
        Self::start_with(folder, text, &[], &format!("endpoint_networks = [\"{network}\"]\n"))
    }

    fn start_with(folder: &TempDir, text: &str, wrapper: &[&str], admin_keys: &str) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (proxy, admin) = (free(), free());
        let file = folder.path().join("switchback.toml");
        let full = format!(
            "{text}\n[proxy]\nlisten = [\"{proxy}\"]\nthreads = 1\ndrain_timeout = \"5s\"\n[admin]\nlisten = \"{admin}\"\n{admin_keys}"
        );
        std::fs::write(&file, full).unwrap();
        let mut line = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_switchback"), "serve", "--config"]);
        let child = Command::new(line.next().unwrap())
            .args(line)
            .arg(&file)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        Self { child, pid, proxy: format!("http://{proxy}"), admin: format!("http://{admin}") }
    }

    /// Lets a new process take over.
    pub async fn upgrade(&mut self) {
        let answer = client().post(format!("{}/v1/upgrade", self.admin)).send().await.unwrap();
        let status = answer.status();
        let report: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(status, 200, "{report}");
        assert_eq!(report["from"], self.pid);
        self.pid = report["to"].as_u64().unwrap() as u32;
    }

    /// Waits until another process than this one serves.
    pub async fn found_again(&mut self, from: u32) {
        let url = format!("{}/v1/events?kind=started", self.admin);
        let last = async || {
            let events: serde_json::Value = client().get(&url).send().await.ok()?.json().await.ok()?;
            events["events"].as_array()?.last()?["after"]["pid"].as_u64()
        };
        until("another process to serve", Duration::from_secs(20), || async {
            last().await.is_some_and(|pid| pid != u64::from(from))
        })
        .await;
        self.pid = last().await.unwrap() as u32;
    }

    pub async fn ready(&self) {
        let client = client();
        let url = format!("{}/readyz", self.admin);
        until("the process to be ready", Duration::from_secs(20), || async {
            client.get(&url).send().await.is_ok_and(|a| a.status() == 200)
        })
        .await;
    }

    pub fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([format!("-{name}"), self.pid.to_string()]).status().unwrap();
        assert!(killed.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.pid != self.child.id() {
            let _gone = Command::new("kill").args(["-KILL", &self.pid.to_string()]).status();
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_any_moment_loses_no_acknowledged_change() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let text = two_versions(&old, &new, "");
    let client = client();
    let mut acknowledged = 0u64;
    for round in 0..12u64 {
        let mut process = Process::start(&folder, &text);
        process.ready().await;
        let status: serde_json::Value =
            client.get(format!("{}/v1/status", process.admin)).send().await.unwrap().json().await.unwrap();
        assert!(status["revision"].as_u64().unwrap() >= acknowledged, "round {round}: {status}");
        let url = format!("{}/v1/services/shop/split", process.admin);
        let writer = {
            let client = client.clone();
            tokio::spawn(async move {
                let mut last = 0;
                for i in 0.. {
                    let body = json!({ "weights": { "2.0.0": i % 100 + 1, "1.0.0": 99 - i % 100 } });
                    match client.put(&url).json(&body).send().await {
                        Ok(answer) if answer.status() == 200 => {
                            let receipt: serde_json::Value = match answer.json().await {
                                Ok(receipt) => receipt,
                                Err(_) => break,
                            };
                            last = receipt["revision"].as_u64().unwrap();
                        }
                        _ => break,
                    }
                }
                last
            })
        };
        // Another instant in each round, by a fixed rule.
        tokio::time::sleep(Duration::from_millis(20 + round * 37 % 230)).await;
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        acknowledged = acknowledged.max(writer.await.unwrap());
    }
    assert!(acknowledged > 12, "changes were made: {acknowledged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_says_not_ready_finishes_requests_and_ends_with_0() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let mut process = Process::start(&folder, &two_versions(&old, &new, ""));
    process.ready().await;
    let client = client();
    assert_eq!(client.get(&process.proxy).send().await.unwrap().status(), 200);
    old.script.delay_us.store(800_000, SeqCst);
    let slow = tokio::spawn(client.get(&process.proxy).send());
    until("the slow request to arrive", Duration::from_secs(5), || async { old.script.requests() == 2 }).await;
    process.signal("TERM");
    let not_ready = format!("{}/readyz", process.admin);
    until("not to be ready", Duration::from_secs(2), || async {
        crate::harness::client().get(&not_ready).send().await.is_ok_and(|a| a.status() == 503)
    })
    .await;
    assert_eq!(slow.await.unwrap().unwrap().status(), 200, "what was in flight is finished");
    drop(client);
    let status = tokio::task::block_in_place(|| process.child.wait()).unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reloads() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let text = two_versions(&old, &new, "");
    let process = Process::start(&folder, &text);
    process.ready().await;
    let file = folder.path().join("switchback.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, before.replace("match = [{ path = \"/\" }]", "match = [{ path = \"/shop\" }]")).unwrap();
    process.signal("HUP");
    let client = client();
    until("the new rule", Duration::from_secs(5), || async {
        client.get(&process.proxy).send().await.is_ok_and(|a| a.status() == 404)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_refused_but_traffic_flows_from_the_last_good_copy() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let text = two_versions(&old, &new, "");
    let app = TestApp::start(&text).await;
    app.split("shop", 100.0).await;
    let folder = app.stop().await;
    let database = folder.path().join("switchback.db");
    let damaged = b"this is not a database, whatever its name says".repeat(100);
    std::fs::write(&database, &damaged).unwrap();
    for rest in ["switchback.db-wal", "switchback.db-shm"] {
        let _may_not_exist = std::fs::remove_file(folder.path().join(rest));
    }
    let app = TestApp::start_in(folder, &text).await;
    assert_eq!(app.version_of("u").await, "2.0.0", "the last good state");
    let (status, answer) =
        app.api("PUT", "/v1/services/shop/split", Some(json!({ "weights": { "1.0.0": 100 } }))).await;
    assert_eq!(status, 503, "{answer}");
    assert_eq!(app.metric("switchback_store_up").await, 0.0);
    let (_, status) = app.api("GET", "/v1/status", None).await;
    assert_eq!(status["read_only"], true, "{status}");
    let folder = app.stop().await;
    assert_eq!(std::fs::read(&database).unwrap(), damaged, "the damaged file is left as it is");
    std::fs::remove_file(folder.path().join("switchback.db.last-good")).unwrap();
    let file = folder.path().join("switchback.toml");
    let output = tokio::task::block_in_place(|| {
        Command::new(env!("CARGO_BIN_EXE_switchback")).args(["serve", "--config"]).arg(&file).output()
    })
    .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("switchback.db is damaged"), "{message}");
}

#[test]
fn a_bad_file_does_not_start_and_every_mistake_is_listed() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "[proxy]\nlisten = [\"nowhere\"]\nthread = 2\n[services.a]\nbaseline = \"1\"\n").unwrap();
    for verb in ["serve", "check"] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_switchback")).args([verb, "--config"]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{verb}");
        let lines: Vec<String> = BufReader::new(&output.stderr[..]).lines().map(Result::unwrap).collect();
        let has = |line: usize, key: &str| lines.iter().any(|l| l.contains(&format!("bad.toml:{line}: {key}")));
        assert!(has(2, "proxy.listen[0]") && has(3, "proxy.thread"), "{lines:#?}");
        assert!(lines.iter().any(|l| l.contains("services.a")), "{lines:#?}");
    }
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/switchback.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_switchback")).args(["check", "--config", good]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The state lives in the folder, and a second app on it shares nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn ten_apps_in_one_process_do_not_meet() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let text = two_versions(&old, &new, "");
    let mut apps = Vec::new();
    for _ in 0..10 {
        apps.push(TestApp::start_in(Arc::new(TempDir::new().unwrap()), &text).await);
    }
    apps[3].split("shop", 100.0).await;
    for (i, app) in apps.iter().enumerate() {
        assert_eq!(app.version_of("u").await, if i == 3 { "2.0.0" } else { "1.0.0" });
    }
    for app in apps {
        app.stop().await;
    }
}
