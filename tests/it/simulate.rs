//! What-if through the real program: asked on the command line, answered by the admin API, changing nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Backend, Load, TestApp, many_users, two_versions, until};
use crate::rollouts::cli;

const PLAN: [&str; 8] = ["simulate", "shop", "2.0.0", "--steps", "10,100", "--bake", "10s", "--max-bake=2m"];
const FEW: [&str; 4] = ["--runs", "8", "--healthy-runs", "4"];

async fn start() -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&two_versions(&old, &new, "")).await;
    (old, new, app)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_asks_what_a_bad_version_would_do() {
    let (_old, _new, app) = start().await;
    let split = app.api("GET", "/v1/services/shop/split", None).await;
    let asked = [&PLAN[..], &FEW, &["--rate", "100", "--errors", "0.5", "--regression", "50"]].concat();
    let (code, table, err) = cli(&app, &asked).await;
    assert_eq!(code, 0, "{err}");
    for line in ["2 steps: 10 %, 100 %", "100 % of 8 rollouts", "failed requests", "false alarms", "good version takes"]
    {
        assert!(table.contains(line), "{line}: {table}");
    }
    let as_json = [&asked[..], &["-o", "json"]].concat();
    let (code, text, err) = cli(&app, &as_json).await;
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let bad = &answer["regression"];
    assert_eq!((&bad["detected"], &bad["caught_at"][0]["step"]), (&json!(1.0), &json!("1.1")), "{answer:#}");
    assert!((1.0..30.0).contains(&bad["detection_seconds"]["p50"].as_f64().unwrap()), "{answer:#}");
    assert_eq!(answer["healthy"]["false_alarms_per_1000"], 0.0, "{answer:#}");
    assert_eq!(text, cli(&app, &as_json).await.1, "the same seed gives the same answer");
    assert_ne!(text, cli(&app, &[&as_json[..], &["--seed", "2"]].concat()).await.1);
    assert_eq!(app.api("GET", "/v1/services/shop/split", None).await, split);
    assert_eq!(app.api("GET", "/v1/rollouts", None).await.1, json!({ "rollouts": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_that_came_is_played_again() {
    let (_old, _new, app) = start().await;
    let recorded = [&PLAN[..], &FEW, &["--recorded", "-o", "json"]].concat();
    let (code, _, err) = cli(&app, &recorded).await;
    assert!(code == 1 && err.contains("no requests in the last fifteen minutes"), "{err}");
    let load = Load::start(&app, 40, many_users(500));
    // Ten seconds are a bucket, and that of now is not full.
    until("traffic was recorded", Duration::from_secs(40), || async { cli(&app, &recorded).await.0 == 0 }).await;
    let (_, text, _) = cli(&app, &recorded).await;
    let rate = serde_json::from_str::<Value>(&text).unwrap()["rate"].as_f64().unwrap();
    assert!(rate > 0.0 && rate <= 60.0, "{rate}");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_by_the_second_are_an_input_and_runs_have_a_limit() {
    let (_old, _new, app) = start().await;
    let plan = json!({ "service": "shop", "to": "2.0.0", "steps": [10, 100], "bake": "10s", "max_bake": "2m" });
    let counts: Vec<_> = (0..60).map(|second| json!([second, 50 + second % 7, second % 2])).collect();
    let body = json!({ "plan": plan, "traffic": { "counts": counts }, "runs": 2, "healthy_runs": 2 });
    let (status, answer) = app.api("POST", "/v1/simulate", Some(body)).await;
    assert!(status == 200 && (50.0..57.0).contains(&answer["rate"].as_f64().unwrap()), "{answer}");
    assert_eq!((&answer["regression"], &answer["healthy"]["runs"]), (&Value::Null, &json!(2)));
    let body = json!({ "plan": plan, "traffic": { "rate": 100 }, "runs": 10_001 });
    let (status, answer) = app.api("POST", "/v1/simulate", Some(body)).await;
    assert!(status == 422 && answer["detail"].as_str().unwrap().contains("allowed are 1 to 10000"), "{answer}");
}
