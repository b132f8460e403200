//! Three proxies on an etcd that is gone, cut off, slow, full or forgetful: users notice nothing, and afterwards it is one story.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::etcd_server::Etcd;
use crate::fleet::{Traffic, Trio, get, role};
use crate::harness::{client, until};
use crate::lifecycle::Process;

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_all_go_back_by_what_each_sees_and_it_is_one_story_afterwards() {
    let mut trio = Trio::start("").await;
    trio.split(0, 20).await;
    let all: Vec<_> = trio.processes.iter().collect();
    // Each brakes as soon as it suspects, to a tenth of the canary's share. At 2 % of 150 a second what it still needs to be
    // sure of comes within two seconds or three.
    let traffic = Traffic::start(&all, 450);
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
