//! Ten thousand tenants through the real program: bad tenants go back alone, a bad version takes all back, and a process
//! that dies in the middle goes on where it was.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Backend, Load, Shape, TestApp, two_versions};

const TENANTS: usize = 10_000;

fn tenants() -> Vec<String> {
    (0..TENANTS).map(|i| format!("tenant-{i:05}")).collect()
}

/// Some tenants have traffic: the first twenty, at equal rates.
fn twenty_tenants() -> Shape {
    Arc::new(|n: u64| {
        let tenant = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 20;
        let headers = [("x-tenant-id", format!("tenant-{tenant:05}")), ("x-user-id", format!("u{n}"))];
        ("/".to_owned(), headers.map(|(name, value)| (name.to_owned(), value)).to_vec())
    })
}

fn config(old: &Backend, new: &Backend) -> String {
    let early: Vec<_> = tenants().into_iter().take(20).collect();
    format!(
        "[tenants]\nidentify = [{{ header = \"x-tenant-id\" }}]\ngroups = {{ early = {} }}\n{}",
        json!(early),
        two_versions(old, new, "")
    )
}

fn campaign(more: Value) -> Value {
    let mut plan = json!({
        "service": "shop", "to": "2.0.0", "tenants": tenants(), "steps": [50, 100], "bake": "1s", "max_bake": "2s",
        "batch": { "size": 1000 }, "on_insufficient": "advance", "min_requests": 0, "order": { "random": 7 },
        "blast_radius": { "tenants": 1000 },
    });
    plan.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    plan
}

async fn units(app: &TestApp, id: &str, status: &str) -> Vec<Value> {
    let (_, logs) = app.api("GET", &format!("/v1/rollouts/{id}/logs?status={status}&limit=1000"), None).await;
    logs["units"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_bad_tenants_of_ten_thousand_go_back_alone_across_a_crash() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let bad = ["tenant-00003", "tenant-00008", "tenant-00013"];
    *new.script.fail_tenants.lock().unwrap() = bad.map(str::to_owned).to_vec();
    let app = TestApp::start(&config(&old, &new)).await;
    let load = Load::start(&app, 400, twenty_tenants());
    let id = app.rollout(campaign(json!({}))).await;
    let progress = app.rollout_until(&id, "some batches on", 60, |r| r["step"].as_str() > Some("4.")).await;
    assert_eq!(progress["batches"], 10);
    load.stop().await;
    // It dies without a word. Whatever it acknowledged is there, and nothing is done twice.
    let folder = app.folder.clone();
    drop(app);
    let app = TestApp::start_in(folder, &config(&old, &new)).await;
    let load = Load::start(&app, 400, twenty_tenants());
    let done = app.rollout_until(&id, "complete", 120, |r| r["phase"] == "completed").await;
    load.stop().await;
    let counts = &done["counts"];
    assert_eq!((&counts["completed"], &counts["failed"]), (&json!(TENANTS - 3), &json!(3)), "{counts}");
    assert_eq!((&counts["total"], &counts["pending"]), (&json!(TENANTS), &json!(0)), "{counts}");
    let back = units(&app, &id, "rolled_back").await;
    let mut names: Vec<_> = back.iter().map(|u| u["tenant"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, bad);
    for unit in &back {
        assert!(unit["error"].as_str().unwrap().contains("Traffic was therefore returned to 1.0.0"), "{unit}");
        assert!(unit["started"].is_string() && unit["ended"].is_string() && unit["evidence"].is_object(), "{unit}");
        let (_, split) = app
            .api("GET", &format!("/v1/services/shop/tenants/{}/split", unit["tenant"].as_str().unwrap()), None)
            .await;
        assert_eq!(split["weights"], json!({ "1.0.0": 100 }));
    }
    let steps = app.events("kind=rollout_step&limit=1000").await;
    assert_eq!(steps.len(), 20, "ten batches of two steps, none twice");
    assert!(app.events("kind=rollback&limit=1000").await.len() == 3);
    let (_, split) = app.api("GET", "/v1/services/shop/tenants/tenant-00001/split", None).await;
    assert_eq!(split["weights"], json!({ "2.0.0": 100 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_takes_all_back_and_touches_no_more_than_the_blast_radius() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    new.script.fail(60.0);
    let app = TestApp::start(&config(&old, &new)).await;
    let load = Load::start(&app, 400, twenty_tenants());
    // Those with traffic go first, so that the first batch shows it.
    let order = json!({ "groups": ["early"], "random": 7 });
    let id = app.rollout(campaign(json!({ "order": order, "bake": "5s", "max_bake": "10s" }))).await;
    let over = app.rollout_until(&id, "back", 60, |r| r["phase"] == "rolled_back").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = new.script.requests();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(new.script.requests(), before, "nobody is sent there any more");
    load.stop().await;
    let counts = &over["counts"];
    let number = |key: &str| counts[key].as_u64().unwrap();
    let touched = number("reverted") + number("rolled_back");
    assert!(touched <= 1_000 && number("completed") == 0 && number("in_progress") == 0, "{counts}");
    assert_eq!(number("pending"), TENANTS as u64 - touched);
    println!("{touched} touched, cause {}", over["going_back"]["cause"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_are_their_own_key_go_back_alone_by_the_ceiling() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    *new.script.fail_tenants.lock().unwrap() = vec!["tenant-00003".to_owned()];
    let text = config(&old, &new).replace("{ header = \"x-user-id\" }", "{ tenant = true }");
    let app = TestApp::start(&text).await;
    let load = Load::start(&app, 400, twenty_tenants());
    let moved: Vec<_> = tenants().into_iter().take(10).collect();
    let plan = json!({ "tenants": moved, "batch": { "size": 10 }, "steps": [100], "bake": "6s", "max_bake": "8s", "keep": 0,
        "blast_radius": { "tenants": 10 } });
    let id = app.rollout(campaign(plan)).await;
    let done = app.rollout_until(&id, "complete", 60, |r| r["phase"] == "completed").await;
    let seen = load.stop().await;
    assert_eq!((&done["counts"]["completed"], &done["counts"]["failed"]), (&json!(9), &json!(1)), "{done:#}");
    let back = units(&app, &id, "rolled_back").await;
    assert_eq!(back[0]["tenant"], "tenant-00003");
    let reason = back[0]["error"].as_str().unwrap();
    assert!(reason.contains("wholly on it") && reason.contains("1.0.0 failed 0 of"), "{reason}");
    assert!(seen.failures < 150, "{} failures", seen.failures);
    println!("{} failures: {reason}", seen.failures);
}
