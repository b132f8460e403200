//! Three proxies as processes on one etcd: they act as one.

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
    pub folders: Vec<TempDir>,
}

impl Trio {
    pub async fn start(more: &str) -> Self {
        Self::start_on(vec![Etcd::start()], more).await
    }

    pub async fn start_on(etcds: Vec<Etcd>, more: &str) -> Self {
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
    pub async fn is_whole(&self) {
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
        Self::taking(Duration::ZERO, processes, rate)
    }

    /// The versions take so long for each.
    pub fn taking(time: Duration, processes: &[&Process], rate: u64) -> Self {
        Self::shaped(processes, rate, "", move |n, request| {
            request.header("x-take-ms", time.as_millis().to_string()).header("x-user-id", format!("u{n}"))
        })
    }

    /// For this path, of users of these tenants in turn.
    pub fn of_tenants(processes: &[&Process], rate: u64, path: &str, tenants: &'static [&'static str]) -> Self {
        Self::shaped(processes, rate, path, |n, request| {
            request.header("x-tenant-id", tenants[n as usize % tenants.len()]).header("x-user-id", format!("u{n}"))
        })
    }

    fn shaped(
        processes: &[&Process],
        rate: u64,
        path: &str,
        shape: impl Fn(u64, reqwest::RequestBuilder) -> reqwest::RequestBuilder + Send + 'static,
    ) -> Self {
        let urls: Vec<_> = processes.iter().map(|process| format!("{}{path}", process.proxy)).collect();
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
                let (request, counts) = (shape(n, client.get(url)), counts.clone());
                tokio::spawn(async move {
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
async fn all_proxies_call_the_same_requests_slow() {
    let trio = Trio::start("guard = { brake = false }").await;
    trio.split(0, 50).await;
    // The third one's users ask for what takes longer: by what it sees itself hardly any of those would be slow.
    let fast = Traffic::start(&[&trio.processes[0], &trio.processes[1]], 400);
    let slow = Traffic::taking(Duration::from_millis(40), &[&trio.processes[2]], 25);
    let stats = async |number: usize| get(&trio.processes[number], "/v1/services/shop/stats").await;
    until("the third to have seen enough for a measure of its own", Duration::from_secs(60), async || {
        let versions = stats(2).await["versions"].clone();
        let old = versions.as_array().and_then(|all| all.iter().find(|v| v["version"] == "1.0.0").cloned());
        old.is_some_and(|old| old["requests"].as_u64() >= Some(250))
    })
    .await;
    let mut measures: Vec<Value> = Vec::new();
    let began = Instant::now();
    while measures.is_empty() || !measures.iter().all(|measure| measure["p90"].is_f64() && *measure == measures[0]) {
        assert!(began.elapsed() < Duration::from_secs(25), "each has a measure of its own: {measures:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        measures.clear();
        for number in 0..3 {
            measures.push(stats(number).await["comparisons"][0]["slow_after"].clone());
        }
    }
    println!("slow after {}", measures[2]);
    assert!(measures[2]["p90"].as_f64().unwrap() < 0.035, "{measures:?}");
    assert_eq!(trio.rollbacks(0).await.len(), 0, "what is slow for both versions is nobody's fault");
    // The new version becomes slower than what all call slow, but not slower than what the third one's users are used to.
    trio.new.script.delay_us.store(35_000, std::sync::atomic::Ordering::SeqCst);
    trio.are_back(&[0, 1, 2], Duration::from_secs(20)).await;
    let events = trio.rollbacks(0).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0]["reason"].as_str().unwrap().contains("slow"), "{}", events[0]);
    assert_eq!((fast.stop().await, slow.stop().await), (0, 0));
}
