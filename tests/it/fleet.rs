//! Three proxies as processes on one etcd: they act as one, and without it each looks after its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::etcd_server::Etcd;
use crate::harness::{Backend, client, two_versions, until};
use crate::lifecycle::Process;

/// Three proxies in front of two versions.
pub struct Trio {
    pub etcds: Vec<Etcd>,
    pub old: Backend,
    pub new: Backend,
    pub processes: Vec<Process>,
    pub text: String,
    folders: Vec<TempDir>,
}

impl Trio {
    pub async fn start(more: &str) -> Self {
        Self::start_on(vec![Etcd::start()], more).await
    }

    async fn start_on(etcds: Vec<Etcd>, more: &str) -> Self {
        let urls: Vec<_> = etcds.iter().map(|etcd| format!("{:?}", etcd.url("http"))).collect();
        let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
        let text = format!("[store]\netcd = [{}]\n{}", urls.join(", "), two_versions(&old, &new, more));
        let folders: Vec<_> = (0..3).map(|_| TempDir::new().unwrap()).collect();
        let mut processes = Vec::new();
        for folder in &folders {
            let process = Process::start(folder, &text);
            process.ready().await;
            // One after the other, so that the first leads.
            until("the process to join", Duration::from_secs(10), || async { role(&process).await != "alone" }).await;
            processes.push(process);
        }
        Self { etcds, old, new, processes, text, folders }
    }

    pub fn start_again(&mut self, number: usize) {
        self.processes[number] = Process::start(&self.folders[number], &self.text);
    }

    pub async fn split(&self, number: usize, percent: u32) {
        let body = json!({ "weights": { "2.0.0": percent, "1.0.0": 100 - percent } });
        let url = format!("{}/v1/services/shop/split", self.processes[number].admin);
        let answer = client().put(url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    /// Waits until the fleet is whole and everybody in it is well and at the same revision.
    async fn is_whole(&self) {
        until("the fleet to be whole", Duration::from_secs(30), async || {
            for process in &self.processes {
                let status = get(process, "/v1/status").await;
                let members = status["fleet"]["members"].as_array().cloned().unwrap_or_default();
                let well = members.len() == 3 && members.iter().all(|m| m["health"] == "ok" && m["lag"] == 0);
                if !well || status["fleet"]["role"] == "alone" || status["store"]["up"] != true {
                    return false;
                }
            }
            true
        })
        .await;
    }

    pub async fn weights(&self, number: usize) -> Value {
        get(&self.processes[number], "/v1/services/shop/split").await["weights"].clone()
    }

    pub async fn rollbacks(&self, number: usize) -> Vec<Value> {
        let answer = get(&self.processes[number], "/v1/events?kind=rollback&limit=100").await;
        answer["events"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until these processes send everything to the baseline.
    pub async fn are_back(&self, numbers: &[usize], within: Duration) {
        until("traffic to be back", within, || async {
            for number in numbers {
                if self.weights(*number).await != json!({ "1.0.0": 100 }) {
                    return false;
                }
            }
            true
        })
        .await;
    }
}

pub async fn get(process: &Process, path: &str) -> Value {
    let answer = client().get(format!("{}{path}", process.admin)).timeout(Duration::from_secs(10)).send().await;
    match answer {
        Ok(answer) => answer.json().await.unwrap_or_default(),
        Err(_) => Value::Null,
    }
}

pub async fn role(process: &Process) -> String {
    get(process, "/v1/status").await["fleet"]["role"].as_str().unwrap_or_default().to_owned()
}

/// Requests of ever new users at these addresses in turn, so many a second in all.
pub struct Traffic {
    pub failed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Traffic {
    pub fn start(processes: &[&Process], rate: u64) -> Self {
        let urls: Vec<_> = processes.iter().map(|process| process.proxy.clone()).collect();
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, counts) = (stop.clone(), failed.clone());
        let task = tokio::spawn(async move {
            let client = client();
            let mut every = tokio::time::interval(Duration::from_secs(1) / rate as u32);
            for n in 0u64.. {
                every.tick().await;
                if ends.load(SeqCst) {
                    return;
                }
                let url = urls[n as usize % urls.len()].clone();
                let (client, counts) = (client.clone(), counts.clone());
                tokio::spawn(async move {
                    let request = client.get(url).header("x-user-id", format!("u{n}"));
                    let answer = request.timeout(Duration::from_secs(5)).send().await;
                    if answer.is_ok_and(|answer| answer.status().is_server_error()) {
                        counts.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        Self { failed, stop, task }
    }

    pub async fn stop(self) -> u64 {
        self.stop.store(true, SeqCst);
        self.task.await.unwrap();
        self.failed.load(SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_proxy_changes_all_have_and_everybody_sees_everybody() {
    let trio = Trio::start("").await;
    let mut took = Vec::new();
    for round in 0..30u32 {
        let from = (round % 3) as usize;
        let begun = Instant::now();
        trio.split(from, 10 + round).await;
        let want = json!({ "1.0.0": 90 - round, "2.0.0": 10 + round });
        for other in (0..3).filter(|other| *other != from) {
            while trio.weights(other).await != want {
                assert!(begun.elapsed() < Duration::from_secs(2), "proxy {other} in round {round}");
            }
        }
        took.push(begun.elapsed());
    }
    took.sort();
    println!("a change is everywhere after {:?} (median), {:?} at most", took[15], took[29]);
    assert!(took[15] < Duration::from_millis(100), "{took:?}");

    for process in &trio.processes {
        until("all to be well", Duration::from_secs(10), || async {
            let fleet = get(process, "/v1/status").await["fleet"].clone();
            let members = fleet["members"].as_array().cloned().unwrap_or_default();
            members.len() == 3 && members.iter().all(|m| m["health"] == "ok" && m["lag"] == 0)
        })
        .await;
    }
    let fleet = get(&trio.processes[1], "/v1/status").await["fleet"].clone();
    assert_eq!(fleet["role"], "standby", "{fleet}");
    assert_eq!(fleet["leader"], fleet["members"][0]["instance"], "{fleet}");
    assert_eq!((&fleet["members"][1]["here"], &fleet["members"][0]["here"]), (&json!(true), &json!(false)));
    assert_eq!(fleet["members"][2]["version"], env!("CARGO_PKG_VERSION"));
    // The same key gets the same version everywhere.
    let client = client();
    for user in 0..60 {
        let mut versions = Vec::new();
        for process in &trio.processes {
            let answer = client.get(&process.proxy).header("x-user-id", format!("user-{user}")).send().await.unwrap();
            versions.push(answer.headers()["x-switchback-version"].to_str().unwrap().to_owned());
        }
        versions.dedup();
        assert_eq!(versions.len(), 1, "user-{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sum_proves_what_no_proxy_alone_could() {
    // Half and half, so that a single failure says little, and no brake, which would make it say more.
    let trio = Trio::start("guard = { brake = false }").await;
    trio.split(0, 50).await;
    let all: Vec<_> = trio.processes.iter().collect();
    trio.old.script.fail(2.0);
    trio.new.script.fail(20.0);
    let traffic = Traffic::start(&all, 60);
    let begun = Instant::now();
    // What each proxy knows by itself, and the leader of all together.
    let (mut alone, mut together) = (0.0f64, 0.0f64);
    while trio.rollbacks(2).await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing went back");
        for process in &trio.processes {
            let comparison = get(process, "/v1/services/shop/stats").await["comparisons"][0].clone();
            let evidence = comparison["evidence"].as_f64().unwrap_or_default();
            match comparison["proxies"].as_u64() {
                Some(1) => alone = alone.max(evidence),
                Some(3) => together = together.max(evidence),
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("back {:?} after it began to fail; evidence {together:.0} together, {alone:.0} alone", begun.elapsed());
    trio.are_back(&[0, 1, 2], Duration::from_secs(1)).await;
    let failed = traffic.stop().await;
    let events = trio.rollbacks(2).await;
    assert_eq!(events.len(), 1, "one decision for all: {events:?}");
    assert_eq!(events[0]["author"]["kind"], "autopilot", "{events:?}");
    let counted = events[0]["evidence"]["window"]["canary"]["bad"].as_u64().unwrap();
    assert!(counted > 10 && counted <= failed, "{counted} of {failed}: {}", events[0]);
    // The threshold is 10,000.
    assert!(alone < 2_000.0, "{alone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_goes_on_when_its_leader_is_killed() {
    let mut trio = Trio::start("").await;
    let plan = json!({
        "service": "shop", "to": "2.0.0", "bake": "1s", "max_bake": "60s", "keep_warm": "1m",
        "steps": [40, 100],
    });
    let url = format!("{}/v1/rollouts", trio.processes[2].admin);
    let answer: Value = client().post(url).json(&plan).send().await.unwrap().json().await.unwrap();
    let id = answer["id"].as_str().unwrap().to_owned();
    let traffic = Traffic::start(&[&trio.processes[1], &trio.processes[2]], 400);
    let path = format!("/v1/rollouts/{id}");
    until("the first step", Duration::from_secs(20), async || {
        get(&trio.processes[1], &path).await["in_effect"] == true
    })
    .await;
    let before = trio.weights(1).await;
    trio.processes[0].child.kill().unwrap();
    let begun = Instant::now();
    until("another leader", Duration::from_secs(5), async || role(&trio.processes[1]).await == "leader").await;
    println!("another one leads {:?} after the leader was killed", begun.elapsed());
    until("the next step", Duration::from_secs(60), async || trio.weights(2).await != before).await;
    until("the end", Duration::from_secs(90), async || get(&trio.processes[2], &path).await["phase"] == "completed")
        .await;
    assert_eq!(traffic.stop().await, 0);
    trio.start_again(0);
    trio.processes[0].ready().await;
    assert_eq!(trio.weights(0).await, json!({ "2.0.0": 100 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_all_go_back_by_what_each_sees_and_it_is_one_story_afterwards() {
    let mut trio = Trio::start("").await;
    trio.split(0, 20).await;
    let all: Vec<_> = trio.processes.iter().collect();
    let traffic = Traffic::start(&all, 300);
    tokio::time::sleep(Duration::from_secs(1)).await;
    trio.etcds[0].kill();
    trio.new.script.fail(100.0);
    let begun = Instant::now();
    trio.are_back(&[0, 1, 2], Duration::from_secs(15)).await;
    let took = begun.elapsed();
    println!("all back {took:?} after etcd ended and the version began to fail");
    assert!(took < Duration::from_secs(6), "{took:?}");
    for process in &trio.processes {
        let status = get(process, "/v1/status").await;
        assert_eq!((&status["store"]["up"], &status["fleet"]["role"]), (&json!(false), &json!("alone")), "{status}");
        assert!(status["warnings"].to_string().contains("wait to be written"), "{status}");
        let metrics = client().get(format!("{}/metrics", process.admin)).send().await.unwrap().text().await.unwrap();
        assert!(metrics.contains("switchback_store_up 0"));
        // No change of anybody else's.
        let url = format!("{}/v1/services/shop/hold", process.admin);
        let answer = client().put(url).json(&json!({ "reason": "x" })).send().await.unwrap();
        assert_eq!(answer.status(), 503);
    }
    trio.etcds[0].restart();
    trio.is_whole().await;
    trio.are_back(&[0, 1, 2], Duration::from_secs(1)).await;
    let events = trio.rollbacks(1).await;
    assert_eq!(events.len(), 1, "one of the three was first: {events:?}");
    // Whatever else waited is over: the next attempt is left alone.
    trio.new.script.fail(0.0);
    trio.split(1, 50).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(trio.weights(2).await, json!({ "1.0.0": 50, "2.0.0": 50 }));
    assert_eq!(trio.rollbacks(0).await.len(), 1);
    traffic.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_does_nothing_that_is_over() {
    let trio = Trio::start("").await;
    let plan = json!({
        "service": "shop", "to": "2.0.0", "bake": "1s", "max_bake": "60s", "keep_warm": "1m", "steps": [10, 50, 100],
    });
    let url = format!("{}/v1/rollouts", trio.processes[1].admin);
    let answer: Value = client().post(url).json(&plan).send().await.unwrap().json().await.unwrap();
    let id = answer["id"].as_str().unwrap().to_owned();
    until("the first step", Duration::from_secs(20), async || {
        get(&trio.processes[1], &format!("/v1/rollouts/{id}")).await["in_effect"] == true
    })
    .await;
    trio.processes[0].signal("STOP");
    until("another leader", Duration::from_secs(5), async || role(&trio.processes[1]).await == "leader").await;
    // Everything that the frozen one may have had in mind is over.
    let stop = format!("{}/v1/rollouts/{id}/abort", trio.processes[1].admin);
    let answer = client().post(stop).json(&json!({ "reason": "not today" })).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    trio.are_back(&[1, 2], Duration::from_secs(10)).await;
    trio.split(1, 40).await;
    let traffic = Traffic::start(&[&trio.processes[1], &trio.processes[2]], 100);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = get(&trio.processes[1], "/v1/status").await["revision"].clone();
    trio.processes[0].signal("CONT");
    until("the frozen one to be back", Duration::from_secs(10), async || {
        role(&trio.processes[0]).await == "follower" && trio.weights(0).await == json!({ "1.0.0": 60, "2.0.0": 40 })
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    traffic.stop().await;
    assert_eq!(get(&trio.processes[2], "/v1/status").await["revision"], before, "nothing was changed");
    assert_eq!(trio.weights(1).await, json!({ "1.0.0": 60, "2.0.0": 40 }));
}

/// A way to etcd that can be cut: then nothing passes, and nothing is closed.
struct Way {
    address: std::net::SocketAddr,
    open: tokio::sync::watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Way {
    async fn to(etcd: &str) -> Self {
        let target = etcd.trim_start_matches("http://").to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, opened) = tokio::sync::watch::channel(true);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (from, _) = listener.accept().await.unwrap();
                let (target, opened) = (target.clone(), opened.clone());
                connections.spawn(async move {
                    let Ok(to) = tokio::net::TcpStream::connect(target).await else { return };
                    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
                    let (there, back) = (pass(from_read, to_write, opened.clone()), pass(to_read, from_write, opened));
                    tokio::join!(there, back);
                });
            }
        });
        Self { address, open, task }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut open: tokio::sync::watch::Receiver<bool>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_cut_off_goes_back_alone_and_comes_back() {
    let trio = Trio::start("").await;
    let url = trio.etcds[0].url("http");
    let way = Way::to(&url).await;
    let folder = TempDir::new().unwrap();
    let far = Process::start(&folder, &trio.text.replace(&url, &format!("http://{}", way.address)));
    far.ready().await;
    until("it to join", Duration::from_secs(10), async || role(&far).await == "follower").await;
    trio.split(0, 50).await;
    let weights = async || get(&far, "/v1/services/shop/split").await["weights"].clone();
    until("it to follow", Duration::from_secs(2), async || weights().await == json!({ "1.0.0": 50, "2.0.0": 50 }))
        .await;
    way.open.send_replace(false);
    until("the others to see that it is gone", Duration::from_secs(6), async || {
        get(&trio.processes[0], "/v1/status").await["fleet"]["members"].as_array().is_some_and(|m| m.len() == 3)
    })
    .await;
    assert_eq!(role(&far).await, "alone");
    // Only what it sees itself is bad.
    let traffic = Traffic::start(&[&far], 100);
    trio.new.script.fail(100.0);
    until("it to go back", Duration::from_secs(10), async || weights().await == json!({ "1.0.0": 100 })).await;
    trio.new.script.fail(0.0);
    assert_eq!(trio.weights(0).await, json!({ "1.0.0": 50, "2.0.0": 50 }), "nobody else heard of it");
    // Meanwhile a person makes a new attempt, which what the other one has against the old one says nothing about.
    trio.split(0, 30).await;
    way.open.send_replace(true);
    until("it to be back", Duration::from_secs(15), async || {
        role(&far).await == "follower" && weights().await == json!({ "1.0.0": 70, "2.0.0": 30 })
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(trio.weights(1).await, json!({ "1.0.0": 70, "2.0.0": 30 }));
    assert_eq!(trio.rollbacks(1).await.len(), 0);
    traffic.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_a_state_does_not_fit_is_seen_everywhere() {
    let trio = Trio::start("").await;
    let folder = TempDir::new().unwrap();
    let without: String = {
        let at = trio.text.find("[services.shop.versions.\"2.0.0\"]").unwrap();
        trio.text[..at].to_owned()
    };
    let narrow = Process::start(&folder, &without);
    narrow.ready().await;
    until("it to join", Duration::from_secs(10), async || role(&narrow).await == "follower").await;
    let good = get(&narrow, "/v1/status").await["revision"].clone();
    trio.split(1, 20).await;
    for process in trio.processes.iter().chain([&narrow]) {
        until("all to see it", Duration::from_secs(6), async || {
            let members = get(process, "/v1/status").await["fleet"]["members"].clone();
            let refused = members.as_array().unwrap().iter().find(|m| m["health"] == "refused").cloned();
            refused.is_some_and(|m| {
                let reason = m["refused"]["reason"].as_str().unwrap_or_default().to_owned();
                m["revision"] == good && m["lag"] == 1 && reason.contains("2.0.0")
            })
        })
        .await;
    }
    assert_eq!(client().get(&narrow.proxy).send().await.unwrap().status(), 200, "the last state that fits goes on");
    let metrics = client().get(format!("{}/metrics", narrow.admin)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("switchback_refused_states_total 1"));
    // The next one fits again.
    trio.split(2, 0).await;
    until("it to be well", Duration::from_secs(6), async || {
        let members = get(&trio.processes[0], "/v1/status").await["fleet"]["members"].clone();
        members.as_array().unwrap().iter().all(|m| m["health"] == "ok" && m["lag"] == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_the_state_does_not_fit_lets_another_one_lead() {
    let etcd = Etcd::start();
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let text = format!("[store]\netcd = [{:?}]\n{}", etcd.url("http"), two_versions(&old, &new, ""));
    let without = text[..text.find("[services.shop.versions.\"2.0.0\"]").unwrap()].to_owned();
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let narrow = Process::start(&folders[0], &without);
    narrow.ready().await;
    until("it to lead", Duration::from_secs(10), async || role(&narrow).await == "leader").await;
    let whole = Process::start(&folders[1], &text);
    whole.ready().await;
    until("the other to join", Duration::from_secs(10), async || role(&whole).await == "standby").await;
    new.script.fail(100.0);
    let traffic = Traffic::start(&[&whole], 100);
    let body = json!({ "weights": { "2.0.0": 20, "1.0.0": 80 } });
    let url = format!("{}/v1/services/shop/split", whole.admin);
    assert_eq!(client().put(url).json(&body).send().await.unwrap().status(), 200);
    until("the other to lead", Duration::from_secs(5), async || role(&whole).await == "leader").await;
    until("the bad version to be back", Duration::from_secs(15), async || {
        get(&whole, "/v1/services/shop/split").await["weights"] == json!({ "1.0.0": 100 })
    })
    .await;
    until("both to be well", Duration::from_secs(10), async || {
        let members = get(&narrow, "/v1/status").await["fleet"]["members"].clone();
        members.as_array().is_some_and(|m| m.len() == 2 && m.iter().all(|m| m["health"] == "ok" && m["lag"] == 0))
    })
    .await;
    traffic.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_hangs_costs_changes_and_no_user() {
    let trio = Trio::start("").await;
    trio.split(0, 20).await;
    let all: Vec<_> = trio.processes.iter().collect();
    let traffic = Traffic::start(&all, 300);
    tokio::time::sleep(Duration::from_secs(1)).await;
    trio.etcds[0].stop();
    trio.new.script.fail(100.0);
    let begun = Instant::now();
    trio.are_back(&[0, 1, 2], Duration::from_secs(15)).await;
    println!("all back {:?} after etcd hung and the version began to fail", begun.elapsed());
    trio.etcds[0].go_on();
    trio.is_whole().await;
    assert_eq!(trio.rollbacks(0).await.len(), 1);
    traffic.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_full_costs_changes_and_no_user() {
    let trio = Trio::start_on(vec![Etcd::start_with(&["--quota-backend-bytes=16777216"])], "").await;
    trio.split(0, 20).await;
    let all: Vec<_> = trio.processes.iter().collect();
    let traffic = Traffic::start(&all, 300);
    let mut etcd = etcd_client::Client::connect([trio.etcds[0].url("http")], None).await.unwrap();
    let mut filler = 0u64;
    while etcd.put(format!("filler/{filler}"), vec![7; 1 << 20], None).await.is_ok() {
        filler += 1;
        assert!(filler < 100, "it is never full");
    }
    trio.new.script.fail(100.0);
    let begun = Instant::now();
    // The leases stand, but nobody hears what anybody counts, and nothing can be written.
    trio.are_back(&[0, 1, 2], Duration::from_secs(25)).await;
    println!("all back {:?} after etcd was full and the version began to fail", begun.elapsed());
    for process in &trio.processes {
        assert_eq!(get(process, "/v1/status").await["store"]["up"], false);
        assert_eq!(client().get(&process.proxy).send().await.unwrap().status(), 200);
    }
    let newest = etcd.delete("filler/", Some(etcd_client::DeleteOptions::new().with_prefix())).await;
    let newest = newest.unwrap().header().unwrap().revision();
    etcd.compact(newest, None).await.unwrap();
    etcd.defragment().await.unwrap();
    let kind = etcd_client::AlarmType::Nospace;
    let alarms = etcd.alarm(etcd_client::AlarmAction::Get, kind, None).await.unwrap();
    assert_eq!(alarms.alarms().len(), 1);
    let mut whose = etcd_client::AlarmOptions::new();
    whose.with_member(alarms.alarms()[0].member_id());
    etcd.alarm(etcd_client::AlarmAction::Deactivate, kind, Some(whose)).await.unwrap();
    trio.is_whole().await;
    trio.are_back(&[0, 1, 2], Duration::from_secs(1)).await;
    assert_eq!(trio.rollbacks(0).await.len(), 1);
    traffic.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_starts_without_etcd_goes_back_by_itself_and_joins_later() {
    let mut trio = Trio::start("").await;
    trio.split(0, 30).await;
    let copy = trio.folders[2].path().join("switchback.db.last-good");
    until("the last good copy", Duration::from_secs(20), async || {
        std::fs::read_to_string(&copy).is_ok_and(|text| text.contains("3000"))
    })
    .await;
    trio.processes[2].child.kill().unwrap();
    trio.etcds[0].kill();
    trio.start_again(2);
    trio.processes[2].ready().await;
    assert_eq!(trio.weights(2).await, json!({ "1.0.0": 70, "2.0.0": 30 }));
    assert_eq!(role(&trio.processes[2]).await, "alone");
    trio.new.script.fail(100.0);
    let traffic = Traffic::start(&[&trio.processes[2]], 100);
    trio.are_back(&[2], Duration::from_secs(15)).await;
    trio.etcds[0].restart();
    trio.is_whole().await;
    trio.are_back(&[0, 1, 2], Duration::from_secs(1)).await;
    assert_eq!(trio.rollbacks(0).await.len(), 1, "it was still the same attempt");
    traffic.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_fail_at_every_proxy_are_not_counted_at_each() {
    let trio = Trio::start("guard = { brake = false, ceiling = 100 }").await;
    trio.split(0, 50).await;
    // Five users whose requests fail wherever they go, again and again, and hundreds who are well.
    let client = client();
    let mut failing = Vec::new();
    for n in 0..200 {
        let user = format!("broken-{n}");
        let answer = client.get(&trio.processes[0].proxy).header("x-user-id", &user).send().await.unwrap();
        if answer.headers()["x-switchback-version"] == "2.0.0" && failing.len() < 5 {
            failing.push(user);
        }
    }
    trio.new.script.fail(100.0);
    for _ in 0..40 {
        for process in &trio.processes {
            for user in &failing {
                client.get(&process.proxy).header("x-user-id", user).send().await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let comparison = get(&trio.processes[0], "/v1/services/shop/stats").await["comparisons"][0].clone();
    assert_eq!(comparison["proxies"], 3, "{comparison}");
    assert!(comparison["window"]["canary"]["failures"].as_u64().unwrap() >= 500, "{comparison}");
    // Five coins that fell on one side: 2 to the power of 5 at most.
    assert!(comparison["evidence"].as_f64().unwrap() <= 40.0, "{comparison}");
    assert_eq!(trio.rollbacks(0).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_members_of_etcd_one_may_be_gone_and_without_two_traffic_goes_on() {
    let mut trio = Trio::start_on(Etcd::start_three(), "").await;
    trio.split(0, 10).await;
    let all: Vec<_> = trio.processes.iter().collect();
    let traffic = Traffic::start(&all, 150);
    trio.etcds[0].kill();
    for number in 0..3 {
        // While etcd elects another leader of its own a change may have to be repeated.
        let url = format!("{}/v1/services/shop/split", trio.processes[number].admin);
        let body = json!({ "weights": { "2.0.0": 20 + number, "1.0.0": 80 - number } });
        until("a change", Duration::from_secs(15), async || {
            client().put(&url).json(&body).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }
    trio.is_whole().await;
    assert_eq!(trio.weights(0).await, json!({ "1.0.0": 78, "2.0.0": 22 }));
    for other in 0..3 {
        for _ in 0..5 {
            trio.split(other, 30).await;
        }
    }
    trio.etcds[1].kill();
    trio.new.script.fail(100.0);
    let begun = Instant::now();
    trio.are_back(&[0, 1, 2], Duration::from_secs(20)).await;
    println!("back {:?} after two of three members of etcd ended", begun.elapsed());
    for process in &trio.processes {
        assert_eq!(role(process).await, "alone");
    }
    trio.etcds[0].restart();
    trio.is_whole().await;
    trio.are_back(&[0, 1, 2], Duration::from_secs(1)).await;
    assert_eq!(trio.rollbacks(2).await.len(), 1);
    traffic.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_slept_through_a_compaction_knows_everything_afterwards() {
    let trio = Trio::start("").await;
    trio.processes[2].signal("STOP");
    for percent in 1..=40 {
        trio.split(percent as usize % 2, percent).await;
    }
    let mut etcd = etcd_client::Client::connect([trio.etcds[0].url("http")], None).await.unwrap();
    let newest = etcd.get("x", None).await.unwrap().header().unwrap().revision();
    etcd.compact(newest, None).await.unwrap();
    trio.split(0, 41).await;
    // Long enough for its lease to end.
    until("it to be gone", Duration::from_secs(10), async || {
        get(&trio.processes[0], "/v1/status").await["fleet"]["members"].as_array().is_some_and(|m| m.len() == 2)
    })
    .await;
    trio.processes[2].signal("CONT");
    until("it to know", Duration::from_secs(10), async || trio.weights(2).await == json!({ "1.0.0": 59, "2.0.0": 41 }))
        .await;
    trio.is_whole().await;
}
