//! `kill -9` around a rollback: one that was begun is finished, or begun again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Backend, client, two_versions, until};
use crate::lifecycle::Process;

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_was_answered_is_there_before_the_next_process_serves() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let text = two_versions(&old, &new, "");
    let client = client();
    let (mut answered, mut unanswered) = (0, 0);
    for round in 0..10u64 {
        let mut process = Process::start(&folder, &text);
        process.ready().await;
        let url = |path: &str| format!("{}/v1/services/shop/{path}", process.admin);
        let whole = json!({ "weights": { "2.0.0": 100 } });
        assert_eq!(client.put(url("split")).json(&whole).send().await.unwrap().status(), 200);
        let rollback = client.post(url("rollback")).json(&json!({ "reason": "it is broken" })).send();
        let rollback = tokio::spawn(rollback);
        tokio::time::sleep(Duration::from_micros(round * round * 150)).await;
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        let was_answered = rollback.await.unwrap().is_ok_and(|answer| answer.status() == 200);
        let process = Process::start(&folder, &text);
        // From the very first answer on, and not only once the control plane has settled.
        let first = async || client.get(&process.proxy).send().await;
        until("the first answer", Duration::from_secs(20), || async { first().await.is_ok() }).await;
        let version = first().await.unwrap().headers()["x-switchback-version"].to_str().unwrap().to_owned();
        match was_answered {
            true => assert_eq!(version, "1.0.0", "round {round}"),
            // Done or not done, but nothing in between.
            false => assert!(["1.0.0", "2.0.0"].contains(&version.as_str())),
        }
        answered += u32::from(was_answered);
        unanswered += u32::from(!was_answered);
    }
    assert!(answered > 0, "{answered} answered, {unanswered} not");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_finds_a_bad_version_again_after_a_crash() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let text = two_versions(&old, &new, "split = { \"1.0.0\" = 80, \"2.0.0\" = 20 }");
    let mut process = Process::start(&folder, &text);
    process.ready().await;
    new.script.fail(100.0);
    let stop = Arc::new(AtomicBool::new(false));
    let load = |proxy: String| {
        let (stop, client) = (stop.clone(), client());
        tokio::spawn(async move {
            for n in 0u64.. {
                if stop.load(SeqCst) {
                    return;
                }
                let _failed = client.get(&proxy).header("x-user-id", format!("u{n}")).send().await;
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
        })
    };
    let first = load(process.proxy.clone());
    // Evidence has gathered, and is gone with the process.
    until("the new version to have failed", Duration::from_secs(10), || async { new.script.requests() > 10 }).await;
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    stop.store(true, SeqCst);
    first.await.unwrap();
    stop.store(false, SeqCst);
    let process = Process::start(&folder, &text);
    process.ready().await;
    let second = load(process.proxy.clone());
    let url = format!("{}/v1/events?kind=rollback", process.admin);
    let client = client();
    until("the guard to shift back", Duration::from_secs(20), || async {
        let events: Value = client.get(&url).send().await.unwrap().json().await.unwrap();
        events["events"].as_array().is_some_and(|events| events.len() == 1)
    })
    .await;
    stop.store(true, SeqCst);
    second.await.unwrap();
    let answer = client.get(&process.proxy).header("x-user-id", "anyone").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-switchback-version"]), (200, &"1.0.0".parse().unwrap()));
}
