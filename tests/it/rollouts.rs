//! Rollouts through the real program: proven by traffic, held by gates and people, taken back when the version is bad.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Backend, Load, TestApp, many_users, two_versions, until};

const SECONDS: u64 = 1;

async fn start(more: &str) -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&two_versions(&old, &new, more)).await;
    (old, new, app)
}

/// A plan with short times and these fields.
fn plan(more: Value) -> Value {
    let mut plan = json!({ "service": "shop", "to": "2.0.0", "bake": "1s", "max_bake": "60s", "keep_warm": "1m" });
    plan.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    plan
}

impl TestApp {
    pub async fn rollout(&self, plan: Value) -> String {
        let (status, answer) = self.api("POST", "/v1/rollouts", Some(plan)).await;
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    pub async fn rollout_of(&self, id: &str) -> Value {
        let (status, answer) = self.api("GET", &format!("/v1/rollouts/{id}"), None).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub async fn lead(&self, id: &str, verb: &str, body: Value) -> (u16, Value) {
        self.api("POST", &format!("/v1/rollouts/{id}/{verb}"), Some(body)).await
    }

    /// Waits until the rollout is so; tells how it was at the end when it never is.
    pub async fn rollout_until(&self, id: &str, what: &str, seconds: u64, so: impl Fn(&Value) -> bool) -> Value {
        let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
        loop {
            let rollout = self.rollout_of(id).await;
            if so(&rollout) {
                return rollout;
            }
            assert!(tokio::time::Instant::now() < end, "not {what} within {seconds} s: {rollout:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn weights(&self) -> Value {
        self.api("GET", "/v1/services/shop/split", None).await.1["weights"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_version_proves_itself_step_by_step_and_is_trusted_at_the_end() {
    let (old, new, app) = start("").await;
    let load = Load::start(&app, 600, many_users(10_000_000));
    let id = app.rollout(plan(json!({ "steps": [50, 100], "reason": "release 2" }))).await;
    app.rollout_until(&id, "at half", 10 * SECONDS, |r| r["in_effect"] == true).await;
    assert_eq!(app.weights().await, json!({ "1.0.0": 50, "2.0.0": 50 }));
    let done = app.rollout_until(&id, "complete", 90 * SECONDS, |r| r["phase"] == "completed").await;
    let seen = load.stop().await;
    assert_eq!(seen.failures, 0);
    assert_eq!(done["counts"]["completed"], 1);
    assert_eq!(app.weights().await, json!({ "2.0.0": 100 }));
    let (_, service) = app.api("GET", "/v1/services/shop", None).await;
    assert_eq!(service["baseline"], "2.0.0");
    let passed = app.events("kind=rollout_passed").await;
    assert_eq!(passed.len(), 2);
    let reason = passed[0]["reason"].as_str().unwrap();
    assert!(reason.contains("Proven not to be worse"), "{reason}");
    assert!(passed[0]["evidence"]["requests"].as_u64().unwrap() > 100);
    assert_eq!(app.metric("switchback_rollouts{phase=\"completed\",service=\"shop\"}").await, 1.0);
    assert!(done["warm_until"].is_string(), "{done:#}");
    // The way back stays open for a while: the file cannot take the old version away.
    let without = two_versions(&old, &new, "").replace("baseline = \"1.0.0\"", "baseline = \"2.0.0\"");
    let gone = without.find("[services.shop.versions.\"1.0.0\"]").unwrap();
    let next = without.find("[services.shop.versions.\"2.0.0\"]").unwrap();
    app.write_config(&format!("{}{}", &without[..gone], &without[next..]));
    let (status, refused) = app.api("POST", "/v1/reload", None).await;
    assert!(status == 409 && refused["detail"].as_str().unwrap().contains("kept warm until"), "{status} {refused}");
    // And back again, since the old version is still there.
    let (status, answer) = app.lead(&id, "undo", json!({ "reason": "we were wrong" })).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(app.weights().await, json!({ "1.0.0": 100 }));
    assert_eq!(app.rollout_of(&id).await["phase"], "rolled_back");
    let (_, statistics) = app.api("GET", "/v1/rollouts/statistics", None).await;
    assert_eq!(statistics["phases"]["rolled_back"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_goes_back_and_the_rollout_with_it() {
    let (_old, new, app) = start("").await;
    new.script.fail(30.0);
    let load = Load::start(&app, 300, many_users(10_000_000));
    let id = app.rollout(plan(json!({ "steps": [20, 100] }))).await;
    let over = app.rollout_until(&id, "back", 30 * SECONDS, |r| r["phase"] == "rolled_back").await;
    load.stop().await;
    assert_eq!(app.weights().await, json!({ "1.0.0": 100 }));
    assert_eq!(over["counts"]["reverted"], 1, "{over:#}");
    assert!(over["going_back"]["reason"].as_str().unwrap().contains("by event"), "{over:#}");
    let (_, logs) = app.api("GET", &format!("/v1/rollouts/{id}/logs"), None).await;
    assert_eq!(logs["units"][0]["status"], "reverted");
    let kinds: Vec<_> = logs["events"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["rollout_started", "rollout_begun", "rollout_step", "rollout_rolled_back"], "{logs:#}");
    // What was mended may try again.
    new.script.fail(0.0);
    let (status, answer) = app.lead(&id, "retry", json!({})).await;
    assert_eq!(status, 200, "{answer}");
    app.rollout_until(&id, "on its way", 10 * SECONDS, |r| r["phase"] == "progressing" && r["in_effect"] == true).await;
    assert_eq!(app.weights().await, json!({ "1.0.0": 80, "2.0.0": 20 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blast_radius_in_failed_requests_takes_all_back_before_anything_is_proven() {
    // The guard is made slow to anger, so that only the budget of the rollout can act.
    let (_old, new, app) =
        start("[services.shop.guard]\ntolerance = { ratio = 10, difference = 50 }\nceiling = 90\n").await;
    new.script.fail(20.0);
    let load = Load::start(&app, 300, many_users(10_000_000));
    let id = app.rollout(plan(json!({ "steps": [20, 100], "blast_radius": { "failed_requests": 30 } }))).await;
    let over = app.rollout_until(&id, "back", 30 * SECONDS, |r| r["phase"] == "rolled_back").await;
    let seen = load.stop().await;
    assert_eq!(over["going_back"]["cause"], "blast_radius", "{over:#}");
    assert!((31..90).contains(&seen.failures), "{}", seen.failures);
    assert_eq!(app.weights().await, json!({ "1.0.0": 100 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_traffic_nothing_is_proven_and_a_person_decides() {
    let (_old, _new, app) = start("").await;
    let id = app.rollout(plan(json!({ "steps": [10, 100], "bake": "100ms", "max_bake": "300ms" }))).await;
    let held = app.rollout_until(&id, "held", 10 * SECONDS, |r| r["paused"].is_object()).await;
    assert_eq!((held["paused"]["kind"].as_str(), held["step"].as_str()), (Some("evidence"), Some("1.1")), "{held:#}");
    assert_eq!(app.weights().await, json!({ "1.0.0": 90, "2.0.0": 10 }));
    assert_eq!(app.lead(&id, "resume", json!({ "reason": "seen enough" })).await.0, 200);
    app.rollout_until(&id, "at the next step", 10 * SECONDS, |r| r["step"] == "1.2" && r["in_effect"] == true).await;
    assert_eq!(app.weights().await, json!({ "1.0.0": 5, "2.0.0": 95 }));
    assert_eq!(app.lead(&id, "abort", json!({ "reason": "enough" })).await.0, 200);
    assert_eq!(
        (app.rollout_of(&id).await["phase"].as_str(), app.weights().await),
        (Some("aborted"), json!({ "1.0.0": 100 }))
    );
    let (status, refused) = app.lead(&id, "pause", json!({})).await;
    assert_eq!((status, refused["type"].as_str()), (409, Some("urn:switchback:not_now")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_hold_freeze_and_approve_and_the_machine_obeys() {
    let (_old, _new, app) = start("").await;
    app.change("PUT", "/v1/services/shop/hold", json!({ "reason": "audit" })).await;
    let steps = json!([10, { "share": 50, "approval": true }, 100]);
    let id = app.rollout(plan(json!({ "steps": steps, "bake": "100ms", "max_bake": "1h" }))).await;
    let waits = |on: &'static str| move |r: &Value| r["waiting"]["on"] == on;
    app.rollout_until(&id, "held", 5 * SECONDS, waits("hold")).await;
    app.change("PUT", "/v1/freeze", json!({ "reason": "sale" })).await;
    app.change("DELETE", "/v1/services/shop/hold", json!({})).await;
    app.rollout_until(&id, "frozen", 5 * SECONDS, waits("freeze")).await;
    assert_eq!(app.weights().await, json!({ "1.0.0": 100 }));
    app.change("DELETE", "/v1/freeze", json!({})).await;
    app.rollout_until(&id, "baking", 5 * SECONDS, waits("evidence")).await;
    // Ending the bake of the first step approves the second one only when it is named.
    let (status, refused) = app.lead(&id, "promote", json!({})).await;
    assert_eq!(status, 409, "{refused}");
    let (status, refused) = app.lead(&id, "promote", json!({ "step": "3" })).await;
    assert_eq!(status, 409, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("1.2, not 1.3"), "{refused}");
    assert_eq!(app.lead(&id, "promote", json!({ "step": "2" })).await.0, 200);
    app.rollout_until(&id, "at half", 5 * SECONDS, |r| r["step"] == "1.2" && r["in_effect"] == true).await;
    let (status, stale) = app.lead(&id, "promote", json!({ "step": "2" })).await;
    assert_eq!(status, 409, "an approval counts once: {stale}");
    assert_eq!(app.lead(&id, "pause", json!({ "reason": "lunch" })).await.0, 200);
    app.rollout_until(&id, "paused", 5 * SECONDS, waits("person")).await;
    assert_eq!(app.lead(&id, "resume", json!({})).await.0, 200);
    assert_eq!(app.lead(&id, "promote", json!({ "full": true })).await.0, 200);
    app.rollout_until(&id, "at the last step", 5 * SECONDS, |r| r["step"] == "1.3" && r["in_effect"] == true).await;
    assert_eq!(app.weights().await, json!({ "1.0.0": 5, "2.0.0": 95 }));
}

/// A receiver that answers with this status and keeps what it was asked.
async fn gate() -> (String, Arc<AtomicU16>, Arc<Mutex<Vec<(axum::http::HeaderMap, Value)>>>) {
    let (status, asked) = (Arc::new(AtomicU16::new(204)), Arc::new(Mutex::new(Vec::new())));
    let (says, keeps) = (status.clone(), asked.clone());
    let router = axum::Router::new().fallback(move |headers: axum::http::HeaderMap, body: String| async move {
        keeps.lock().unwrap().push((headers, serde_json::from_str(&body).unwrap()));
        axum::http::StatusCode::from_u16(says.load(SeqCst)).unwrap()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, status, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_are_asked_before_anything_moves_and_hold_it() {
    let (_old, _new, app) = start("").await;
    let (url, status, asked) = gate().await;
    status.store(503, SeqCst);
    let secret = format!("whsec_{}", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz");
    let gate = |name: &str, at: &str| json!({ "name": name, "at": at, "url": url, "secret": secret });
    let gates = json!([gate("migrate", "before_step"), gate("check", "after_step"), gate("done", "completion")]);
    let plan = plan(json!({ "steps": [100], "bake": "100ms", "max_bake": "200ms", "gates": gates,
        "on_insufficient": "advance", "min_requests": 0 }));
    let id = app.rollout(plan).await;
    let held = app.rollout_until(&id, "held by its gate", 20 * SECONDS, |r| r["paused"]["kind"] == "gate").await;
    assert!(held["paused"]["reason"].as_str().unwrap().contains("503"), "{held:#}");
    assert_eq!(app.weights().await, json!({ "1.0.0": 100 }), "no step without its gate");
    assert_eq!(asked.lock().unwrap().len(), 3);
    status.store(204, SeqCst);
    assert_eq!(app.lead(&id, "resume", json!({ "reason": "the database is migrated" })).await.0, 200);
    app.rollout_until(&id, "complete", 20 * SECONDS, |r| r["phase"] == "completed").await;
    let asked = asked.lock().unwrap().clone();
    let names: Vec<_> = asked.iter().map(|(_, body)| body["gate"].as_str().unwrap()).collect();
    assert_eq!(names, ["migrate", "migrate", "migrate", "migrate", "check", "done"]);
    let (headers, body) = &asked[0];
    assert_eq!((&body["rollout"], &body["at"], &body["step"]), (&json!(id), &json!("before_step"), &json!("1.1")));
    let value = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(value("webhook-id"), asked[3].0["webhook-id"].to_str().unwrap(), "the same question has the same id");
    let timestamp = value("webhook-timestamp").parse().unwrap();
    let signed = switchback::webhook::signature(
        &secret.parse().unwrap(),
        &value("webhook-id"),
        timestamp,
        body.to_string().as_bytes(),
    );
    assert_eq!(value("webhook-signature"), signed);
    assert!(!app.rollout_of(&id).await.to_string().contains("whsec"), "secrets are not shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_may_hold_at_any_time_and_is_told_of_a_rollback() {
    let (_old, _new, app) = start("").await;
    let (url, status, asked) = gate().await;
    status.store(409, SeqCst);
    let gates =
        json!([{ "name": "watch", "at": "hold", "url": url }, { "name": "tell", "at": "rollback", "url": url }]);
    let id = app.rollout(plan(json!({ "steps": [10, 100], "gates": gates }))).await;
    let held =
        app.rollout_until(&id, "held", 5 * SECONDS, |r| r["waiting"]["message"].to_string().contains("409")).await;
    assert_eq!((held["phase"].as_str(), held["waiting"]["on"].as_str()), (Some("pending"), Some("gate")));
    status.store(200, SeqCst);
    app.rollout_until(&id, "on its way", 15 * SECONDS, |r| r["in_effect"] == true).await;
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "a person is faster" })).await;
    app.rollout_until(&id, "back", 5 * SECONDS, |r| r["phase"] == "rolled_back").await;
    let told = |body: &Value| body["gate"] == "tell" && body["cause"] == "rollback";
    until("the gate is told", Duration::from_secs(5), || async {
        asked.lock().unwrap().iter().any(|(_, body)| told(body))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_goes_on_where_it_was_after_a_restart() {
    let (old, new, app) = start("").await;
    let steps = plan(json!({ "steps": [10, 50, 100], "bake": "200ms", "max_bake": "400ms" }));
    let id = app.rollout(steps).await;
    app.rollout_until(&id, "held", 10 * SECONDS, |r| r["paused"].is_object()).await;
    assert_eq!(app.lead(&id, "resume", json!({})).await.0, 200);
    app.rollout_until(&id, "at half", 10 * SECONDS, |r| r["step"] == "1.2" && r["paused"].is_object()).await;
    let before = app.rollout_of(&id).await;
    let folder = app.stop().await;
    let app = TestApp::start_in(folder, &two_versions(&old, &new, "")).await;
    let after = app.rollout_of(&id).await;
    for key in ["step", "in_effect", "paused", "counts", "created", "started", "revision"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    assert_eq!(app.lead(&id, "resume", json!({})).await.0, 200);
    app.rollout_until(&id, "at the last step", 10 * SECONDS, |r| r["step"] == "1.3" && r["in_effect"] == true).await;
    assert_eq!(app.events("kind=rollout_step").await.len(), 3, "no step twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_lays_out_the_plan_and_bad_plans_are_refused() {
    let (_old, _new, app) = start("").await;
    let (status, report) =
        app.api("POST", "/v1/rollouts?dry_run=true", Some(plan(json!({ "steps": [10, 100] })))).await;
    assert_eq!(
        (status, report["dry_run"].as_bool(), report["ok"].as_bool()),
        (200, Some(true), Some(true)),
        "{report}"
    );
    assert_eq!(report["steps"].as_array().unwrap().len(), 2);
    assert!(report["risks"].to_string().contains("health checks"), "{report}");
    assert_eq!(app.api("GET", "/v1/rollouts", None).await.1["rollouts"], json!([]));
    let refused = async |more: Value, part: &str| {
        let (status, answer) = app.api("POST", "/v1/rollouts", Some(plan(more))).await;
        assert!(status == 422 && answer["detail"].as_str().unwrap().contains(part), "{status} {answer}");
    };
    refused(json!({ "to": "9.9.9" }), "9.9.9").await;
    refused(json!({ "steps": [50, 20, 100] }), "steps: ").await;
    refused(json!({ "tenants": ["a", "a"] }), "named twice").await;
    refused(json!({ "tenants": ["a", "b", "c"], "blast_radius": { "tenants": 2 } }), "blast_radius.tenants").await;
    assert_eq!(app.api("GET", "/v1/rollouts/r99", None).await.0, 404);
    let id = app.rollout(plan(json!({}))).await;
    let (status, second) = app.api("POST", "/v1/rollouts", Some(plan(json!({})))).await;
    assert!(status == 409 && second["detail"].as_str().unwrap().contains(&id), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_point_of_no_return_the_guard_calls_a_person() {
    let (_old, new, app) = start("").await;
    let load = Load::start(&app, 300, many_users(10_000_000));
    let steps = json!([{ "share": 30, "no_return": true }, 100]);
    let id = app.rollout(plan(json!({ "steps": steps }))).await;
    app.rollout_until(&id, "in effect", 5 * SECONDS, |r| r["in_effect"] == true).await;
    new.script.fail(50.0);
    let held = app.rollout_until(&id, "held", 20 * SECONDS, |r| r["paused"]["kind"] == "no_return").await;
    load.stop().await;
    assert!(held["paused"]["reason"].as_str().unwrap().contains("2.0.0"), "{held:#}");
    assert!(app.weights().await["2.0.0"].as_f64().unwrap() > 0.0);
    assert!(app.events("kind=rollback").await.is_empty());
    assert_eq!(app.lead(&id, "abort", json!({ "reason": "no" })).await.0, 409);
    assert_eq!(app.lead(&id, "abort", json!({ "reason": "yes", "force": true })).await.0, 200);
    assert_eq!(app.weights().await, json!({ "1.0.0": 100 }));
}

/// Runs the command line against the app: exit code, standard output, standard error.
pub async fn cli(app: &TestApp, args: &[&str]) -> (i32, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_switchback"));
    command.args(args).env("SWITCHBACK_ADMIN", &app.admin).env_remove("SWITCHBACK_TOKEN");
    let output = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_leads_a_rollout() {
    let (_old, _new, app) = start("").await;
    let start = ["rollout", "start", "shop", "2.0.0", "--steps", "10,100", "--bake", "100ms", "--max-bake", "1h"];
    let (code, plan, _) = cli(&app, &[&start[..], &["--dry-run"]].concat()).await;
    assert!(
        code == 0 && plan.contains("nothing was started") && plan.contains("1.2") && plan.contains("risk:"),
        "{plan}"
    );
    let (code, started, err) = cli(&app, &[&start[..], &["-o", "json"]].concat()).await;
    assert_eq!(code, 0, "{err}");
    let id = serde_json::from_str::<Value>(&started).unwrap()["id"].as_str().unwrap().to_owned();
    app.rollout_until(&id, "in effect", 5 * SECONDS, |r| r["in_effect"] == true).await;
    let (code, status, err) = cli(&app, &["rollout", "status", &id, "--timeout", "300ms"]).await;
    assert!(code == 1 && status.contains("10 %, in effect") && err.contains("not over in time"), "{status} {err}");
    assert_eq!(cli(&app, &["rollout", "pause", &id, "--reason", "lunch"]).await.0, 0);
    assert!(cli(&app, &["rollout", "get", &id]).await.1.contains("lunch"));
    assert!(cli(&app, &["rollout", "list"]).await.1.contains("progressing, paused"));
    assert_eq!(cli(&app, &["rollout", "resume", &id]).await.0, 0);
    let (code, _, err) = cli(&app, &["rollout", "promote", &id, "--step", "7"]).await;
    assert!(code == 1 && err.contains("1.2, not 1.7"), "{err}");
    assert_eq!(cli(&app, &["rollout", "promote", &id, "--step", "2"]).await.0, 0);
    app.rollout_until(&id, "at the last step", 5 * SECONDS, |r| r["step"] == "1.2" && r["in_effect"] == true).await;
    assert_eq!(cli(&app, &["rollout", "abort", &id]).await.0, 2, "a reason is needed");
    assert_eq!(cli(&app, &["rollout", "abort", &id, "--reason", "enough"]).await.0, 0);
    let (code, _, err) = cli(&app, &["rollout", "status", &id, "--timeout", "5s"]).await;
    assert!(code == 1 && err.contains("aborted: enough"), "{err}");
    let (code, logs, _) = cli(&app, &["rollout", "logs", &id]).await;
    assert!(code == 0 && logs.contains("reverted") && logs.contains("rollout aborted"), "{logs}");
    assert!(cli(&app, &["rollout", "statistics"]).await.1.contains("aborted       1"));
    let (code, _, err) = cli(&app, &["rollout", "get", "r99"]).await;
    assert!(code == 1 && err.contains("r99"), "{err}");
}
