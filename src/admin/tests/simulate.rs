//! Simulations through the API: what is asked, what is answered, and what is refused.

use super::*;

/// A minute at 10 %, then all; a version that fails half of its requests.
fn question(more: Value) -> Value {
    let mut body = json!({
        "plan": { "service": "accounting", "to": "3.0.0", "steps": [10, 100], "bake": "10s", "max_bake": "2m" },
        "traffic": { "rate": 100, "errors": 0.5 },
        "regression": { "errors": 50 },
        "runs": 5,
        "healthy_runs": 3,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_bad_version_is_caught_and_nothing_is_changed() {
    let api = Api::new().await;
    let revision = api.control.view().state.revision;
    let answer = api.post("/v1/simulate", question(json!({}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (bad, good) = (&answer.body["regression"], &answer.body["healthy"]);
    assert_eq!((&bad["runs"], &bad["detected"], &bad["ends"]["went_back"]), (&json!(5), &json!(1.0), &json!(1.0)));
    assert!((1.0..30.0).contains(&bad["detection_seconds"]["p50"].as_f64().unwrap()), "{bad}");
    assert_eq!((&bad["caught_at"][0]["step"], &bad["caught_at"][0]["share"]), (&json!("1.1"), &json!(10)));
    assert_eq!((&good["runs"], &good["false_alarms_per_1000"]), (&json!(3), &json!(0.0)));
    assert_eq!((&answer.body["seed"], &answer.body["plan"]["steps_total"]), (&json!(1), &json!(2)));
    let again = api.post("/v1/simulate", question(json!({}))).await;
    assert_eq!(answer.body, again.body);
    assert_eq!(api.control.view().state.revision, revision);
    assert_eq!(api.get("/v1/rollouts").await.body, json!({ "rollouts": [] }));
}

#[tokio::test]
async fn the_guard_may_be_another_than_the_services() {
    let api = Api::new().await;
    let deaf = json!({ "guard": { "tolerance_difference": 60, "ceiling": 99, "latency": false } });
    let answer = api.post("/v1/simulate", question(deaf)).await;
    assert_eq!(answer.body["regression"]["detected"], 0.0, "{answer:?}");
}

#[tokio::test]
async fn tenants_are_counted_and_recorded_traffic_is_the_services_own() {
    let api = Api::new().await;
    let traffic = json!({ "traffic": { "rate": 100, "tenants": 10, "spread": "zipf" } });
    let answer = api.post("/v1/simulate", question(traffic)).await;
    assert!(answer.body["regression"]["tenants_touched"]["p50"].as_f64().unwrap() >= 1.0, "{answer:?}");
    let recorded = json!({ "traffic": { "recorded": true } });
    let none = api.post("/v1/simulate", question(recorded.clone())).await;
    assert_eq!(none.status, 422);
    assert!(none.detail().contains("no requests in the last fifteen minutes"), "{none:?}");
    let version = api.control.view().routes.service("accounting").unwrap().baseline().name.clone();
    let reading = |requests| crate::telemetry::TotalsReading {
        version: version.clone(),
        requests,
        failures: Default::default(),
        client_aborts: 0,
        refused: 0,
        abandoned: 0,
        in_flight: 0,
        latency: Box::default(),
    };
    let service = "accounting".parse().unwrap();
    for (now_ms, requests) in [(60_000, 0), (60_100, 500), (70_000, 1_000)] {
        let readings = vec![reading(requests)];
        api.windows.lock().unwrap().record_reading(now_ms, 1, &service, None, readings);
    }
    api.now.store(80_000, Relaxed);
    let answer = api.post("/v1/simulate", question(recorded)).await;
    assert_eq!((answer.status, &answer.body["rate"]), (200, &json!(50.0)), "{answer:?}");
}

#[tokio::test]
async fn mistakes_name_the_field_and_what_is_allowed() {
    let api = Api::new().await;
    for (more, status, part) in [
        (json!({ "plan": { "service": "acounting", "to": "3" } }), 404, "did you mean"),
        (json!({ "plan": { "service": "accounting", "to": "1.0.0" } }), 422, "to: "),
        (json!({ "plan": { "service": "accounting", "to": "3", "groups": ["bta"] } }), 404, "did you mean"),
        (json!({ "traffic": {} }), 422, "exactly one of rate, counts and recorded"),
        (json!({ "traffic": { "rate": 1, "recorded": true } }), 422, "exactly one"),
        (json!({ "traffic": { "rate": 0 } }), 422, "traffic.rate: is 0; allowed are 0.001 to 1000000"),
        (json!({ "traffic": { "rate": 1, "errors": 101 } }), 422, "traffic.errors: is 101; allowed are 0 to 100"),
        (
            json!({ "traffic": { "rate": 1, "tenants": 10_001 } }),
            422,
            "traffic.tenants: is 10001; allowed are 1 to 10000",
        ),
        (json!({ "traffic": { "counts": [[5, 1, 0], [4, 1, 0]] } }), 422, "seconds that rise"),
        (json!({ "traffic": { "counts": [[0, 1, 0], [u64::MAX, 1, 0]] } }), 422, "traffic.counts"),
        (json!({ "regression": {} }), 422, "regression: is empty"),
        (json!({ "regression": { "added": 1, "errors": 1 } }), 422, "only one of added and errors"),
        (json!({ "regression": { "added": 1, "after": "soon" } }), 422, "regression.after: \"soon\""),
        (json!({ "guard": { "patience": "1h" } }), 422, "guard.patience: allowed are 100ms to 15s"),
        (json!({ "guard": { "ceiling": 100 } }), 422, "ceiling must lie between 0 and 1"),
        (json!({ "runs": 0 }), 422, "runs: is 0; allowed are 1 to 10000"),
        (json!({ "rums": 1 }), 422, "unknown field"),
    ] {
        let answer = api.post("/v1/simulate", question(more.clone())).await;
        assert!(answer.status == status && answer.detail().contains(part), "{more}: {answer:?}");
    }
}

#[tokio::test]
async fn one_simulation_runs_at_a_time() {
    let api = Api::new().await;
    let long = question(json!({ "runs": 400 }));
    let request = |body: &Value| {
        let request = Api::request("POST", "/v1/simulate").header("content-type", "application/json");
        request.body(Body::from(body.to_string())).unwrap()
    };
    let (first, second) = tokio::join!(api.call(request(&long)), api.call(request(&long)));
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503], "{first:?} {second:?}");
}
