//! Freeze and snapshots through the real program: what they bring back, what a restart and a crash leave of them.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Backend, Load, TestApp, client, many_users, two_versions};
use crate::lifecycle::Process;
use crate::many_tenants::many_tenants;

const TENANTS: &str = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n";
const RESTORE: &str = "/v1/snapshots/monday/restore";

/// Who answers each of some users.
async fn owners(app: &TestApp) -> BTreeMap<String, String> {
    let mut owners = BTreeMap::new();
    for n in 0..200 {
        let user = format!("user-{n}");
        let version = app.version_of(&user).await;
        owners.insert(user, version);
    }
    owners
}

/// The command line against a process.
fn cli(process: &Process, args: &[&str]) -> (i32, String) {
    let run = || Command::new(env!("CARGO_BIN_EXE_switchback")).args(args).args(["--admin", &process.admin]).output();
    let output = tokio::task::block_in_place(run).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_user_returns_to_the_version_of_then_after_a_restart_too() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let text = two_versions(&old, &new, "");
    let app = TestApp::start(&text).await;
    app.split("shop", 30.0).await;
    app.change("PUT", "/v1/services/shop/pins/user/user-0", json!({ "version": "2.0.0" })).await;
    let then = owners(&app).await;
    assert!(then.values().any(|v| v == "1.0.0") && then.values().any(|v| v == "2.0.0"));
    app.change("POST", "/v1/snapshots", json!({ "name": "monday" })).await;
    // All on one version renews the salt, so the keys are spread otherwise when it is split again.
    app.split("shop", 0.0).await;
    app.split("shop", 30.0).await;
    app.change("DELETE", "/v1/services/shop/pins/user/user-0", Value::Null).await;
    assert_ne!(owners(&app).await, then);
    let app = TestApp::start_in(app.stop().await, &text).await;
    let (_, diff) = app.api("GET", "/v1/snapshots/monday/diff", None).await;
    assert_eq!(diff["services"]["shop"]["pins_total"], 1, "{diff}");
    app.change("POST", RESTORE, json!({ "reason": "as it was" })).await;
    assert_eq!(owners(&app).await, then);
    let app = TestApp::start_in(app.stop().await, &text).await;
    assert_eq!(owners(&app).await, then);
    assert_eq!(app.events("kind=snapshot_restored").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_of_many_tenants_fail_no_request() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = Arc::new(TempDir::new().unwrap());
    many_tenants(folder.path(), 20_000).await;
    let app = TestApp::start_in(folder, &(TENANTS.to_owned() + &two_versions(&old, &new, ""))).await;
    app.change("POST", "/v1/snapshots", json!({ "name": "monday" })).await;
    let (_, shown) = app.api("GET", "/v1/snapshots/monday", None).await;
    assert_eq!(shown["services"]["shop"]["tenants_total"], 20_000);
    let load = Load::start(&app, 300, many_users(1_000));
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "all of them" })).await;
    let tenant = [("x-tenant-id", "tenant-7")];
    assert_eq!(app.get("/", &tenant).await.version, "1.0.0");
    let done = app.change("POST", RESTORE, json!({ "reason": "x" })).await;
    let told = &done["after"]["services"]["shop"];
    assert_eq!((&told["withheld"], &told["changed"]["tenants"]), (&json!(20_000), &json!(0)), "{done}");
    let done = app.change("POST", RESTORE, json!({ "reason": "x", "force": true })).await;
    assert_eq!(done["after"]["services"]["shop"]["changed"]["tenants"], 20_000);
    let seen = load.stop().await;
    assert_eq!(seen.failures, 0, "of {}", seen.requests);
    let mut versions = std::collections::BTreeSet::new();
    for n in 0..40 {
        versions.insert(app.get("/", &[("x-tenant-id", "tenant-7"), ("x-user-id", &format!("u{n}"))]).await.version);
    }
    assert_eq!(versions.len(), 2, "half of the tenant's users are back on the canary");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_leaves_whole_snapshots_and_whole_restores() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    many_tenants(folder.path(), 25_000).await;
    let text = TENANTS.to_owned() + &two_versions(&old, &new, "");
    let client = client();
    let mut acknowledged = Vec::new();
    for round in 0..6u64 {
        let mut process = Process::start(&folder, &text);
        process.ready().await;
        let get = async |path: &str| -> Value {
            client.get(format!("{}{path}", process.admin)).send().await.unwrap().json().await.unwrap()
        };
        let list = get("/v1/snapshots").await;
        let names: Vec<_> = list["snapshots"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
        for name in &acknowledged {
            assert!(names.contains(&String::as_str(name)), "{name} was acknowledged: {names:?}");
        }
        for name in names {
            let shown = get(&format!("/v1/snapshots/{name}")).await;
            assert_eq!(shown["services"]["shop"]["tenants_total"], 25_000, "{shown}");
        }
        let url = format!("{}/v1/snapshots", process.admin);
        let writer = {
            let client = client.clone();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                for n in 0.. {
                    let name = format!("r{round}-{n}");
                    match client.post(&url).json(&json!({ "name": name })).send().await {
                        Ok(answer) if answer.status() == 200 => taken.push(name),
                        _ => break,
                    }
                }
                taken
            })
        };
        // Another instant in each round, by a fixed rule.
        tokio::time::sleep(Duration::from_millis(300 + round * 137 % 400)).await;
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(!acknowledged.is_empty());
    let process = Process::start(&folder, &text);
    process.ready().await;
    let name = &acknowledged[0];
    let (code, text) = cli(&process, &["split", "set", "shop", "1.0.0=50", "2.0.0"]);
    assert_eq!(code, 0, "{text}");
    let restore = format!("{}/v1/snapshots/{name}/restore", process.admin);
    let body = json!({ "reason": "x", "force": true });
    assert_eq!(client.post(&restore).json(&body).send().await.unwrap().status(), 200);
    drop(process);
    let process = Process::start(&folder, two_versions(&old, &new, "").as_str());
    process.ready().await;
    let (code, text) = cli(&process, &["split", "get", "shop"]);
    assert!(code == 0 && !text.contains("50 %"), "{text}");
    let (code, text) = cli(&process, &["snapshot", "diff", name]);
    assert_eq!((code, text), (0, format!("everything is as in {name}\n")));
    let (code, text) = cli(&process, &["snapshot", "delete", name]);
    assert!(code == 0 && text.contains("is deleted"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_survives_kill_9_and_ends_by_itself() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = TempDir::new().unwrap();
    let text = two_versions(&old, &new, "");
    let process = Process::start(&folder, &text);
    process.ready().await;
    let (code, said) = cli(&process, &["freeze", "--reason", "the database moves"]);
    assert_eq!(code, 0, "{said}");
    drop(process);
    let process = Process::start(&folder, &text);
    process.ready().await;
    assert!(cli(&process, &["status"]).1.contains("frozen by local since "));
    assert_eq!(cli(&process, &["freeze", "--for", "1s", "--reason", "nearly done"]).0, 0);
    let over = || async { !cli(&process, &["status"]).1.contains("frozen") };
    crate::harness::until("the freeze to end", Duration::from_secs(10), over).await;
    let (code, said) = cli(&process, &["unfreeze"]);
    assert!(code == 1 && said.contains("a freeze does not exist"), "{said}");
}
