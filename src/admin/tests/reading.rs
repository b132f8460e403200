//! Reading: services, tenants, counts, explanations, the process and its configuration.

use super::*;
use crate::analysis::{ArmCounts, EvidenceWindow, Signal, Verdict};
use crate::control::{ComparisonReport, ScopeKey};
use crate::model::{ServiceName, TenantName, VersionName};
use crate::telemetry::{Draw, FailureKind, Outcome, RouteRequest, Start};

fn service() -> ServiceName {
    ServiceName::new("accounting").unwrap()
}

fn version(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

/// Ten requests of each tenant on each version; on the second, `failed` of them fail.
fn traffic(api: &Api, tenants: &[(&str, usize)]) {
    let tally = api.tallies.service(&service());
    for (tenant, failed) in tenants {
        for (name, failed) in [("1.0.0", 0), ("2.0.0", *failed)] {
            let version = version(name);
            for i in 0..10 {
                let start = Start {
                    tenant: Some(tenant),
                    version: &version,
                    now_us: 0,
                    draw: Draw::Chosen,
                    split: None,
                    pooled: false,
                };
                let mut ticket = tally.begin(&start);
                ticket.answered(20_000);
                let outcome = if i < failed { Outcome::failed(FailureKind::Status, 500) } else { Outcome::served(200) };
                ticket.finish(outcome, 20_000);
            }
        }
        let scope = tally.scope(Some(tenant)).unwrap();
        api.windows.lock().unwrap().record(api.now.load(Relaxed), &scope);
    }
    api.now.fetch_add(5_000, Relaxed);
}

fn report(canary: &str) -> ComparisonReport {
    let counts = |n, bad| ArmCounts { n, bad };
    ComparisonReport {
        canary: version(canary),
        baseline: version("1.0.0"),
        share: 0.1,
        verdict: Verdict::Breach,
        action: "rollback",
        evidence: 12_000.0,
        log_evidence: 12_000f64.ln(),
        threshold: 10_000.0,
        signals: [("error", 9.0)].into(),
        ceiling_canary: 0.5,
        ceiling_baseline: -0.5,
        braked: true,
        split_off: false,
        promotion_ready: false,
        attempt: 1,
        requests: 100,
        failures: 20,
        promotion: [("error", -3.0)].into(),
        window: EvidenceWindow {
            signal: Signal::Error,
            baseline: counts(900, 1),
            canary: counts(100, 20),
            baseline_bad_keys: 1,
            canary_bad_keys: 20,
            share: 0.1,
            seconds: 41.0,
            started_ms: 1,
            first_bad_ms: Some(2),
        },
        proxies: 1,
        slow_after_us: (12_000, 0),
    }
}

#[tokio::test]
async fn a_service_tells_everything_about_itself() {
    let api = Api::new().await;
    traffic(&api, &[("acme", 5)]);
    let answer = api.get("/v1/services/accounting").await;
    let body = &answer.body;
    assert_eq!(
        (answer.etag(), body["name"].as_str(), body["baseline"].as_str()),
        ("\"1\"", Some("accounting"), Some("1.0.0"))
    );
    assert_eq!((&body["match"], &body["sticky"]), (&json!(["/accounting"]), &json!(["header x-user-id"])));
    assert_eq!(body["versions"][0]["role"], "baseline");
    assert_eq!(body["versions"][1]["role"], "canary");
    assert_eq!(body["versions"][1]["share"], 10);
    assert_eq!(body["versions"][0]["endpoints"][1]["address"], "127.0.0.1:7002");
    assert_eq!(body["versions"][0]["endpoints"][1]["healthy"], true);
    assert_eq!(body["guard"]["tolerance"]["ratio"], 1.1);
    assert_eq!(body["guard"]["patience"], "1s");
    assert!(body["last_rollback"].is_null() && body["hold"].is_null());
    assert_eq!(api.get("/v1/services/billing").await.body["match"], json!(["POST *.example.com/billing"]));
    let list = api.get("/v1/services").await.body;
    assert_eq!(list["services"][0]["error_rate"], 0.25);
    assert_eq!(list["services"][0]["healthy_endpoints"], json!({ "1.0.0": [2, 2], "2.0.0": [1, 1] }));
    assert_eq!(list["services"][1]["error_rate"], Value::Null);
}

#[tokio::test]
async fn a_known_split_is_not_sent_again() {
    let api = Api::new().await;
    let (path, tenant) = ("/v1/services/accounting/split", "/v1/services/accounting/tenants/acme/split");
    let know = async |path: &str, tag: &str| api.send("GET", path, &[("if-none-match", tag)], Value::Null).await;
    let tag = api.get(path).await.etag().to_owned();
    let known = know(path, &tag).await;
    assert_eq!((known.status, known.text.as_str(), known.etag()), (304, "", tag.as_str()));
    assert_eq!(know(path, "\"99\"").await.status, 200);
    assert_eq!(know(tenant, "\"0\"").await.status, 200, "what is inherited may have changed");
    api.put(tenant, body_for(path)).await;
    let own = api.get(tenant).await.etag().to_owned();
    assert_eq!(know(tenant, &own).await.status, 304);
    api.post("/v1/services/accounting/rollback", json!({ "reason": "x" })).await;
    let after = know(tenant, &own).await;
    assert_eq!((after.status, &after.body["weights"]), (200, &json!({ "1.0.0": 100 })), "a bar changed what it means");
}

#[tokio::test]
async fn tenants_come_in_pages() {
    let api = Api::new().await;
    for i in 0..25 {
        let path = format!("/v1/services/accounting/tenants/T{i:02}/split");
        assert_eq!(api.put(&path, body_for("/split")).await.status, 200);
    }
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = api.get(&format!("/v1/services/accounting/tenants?limit=10&after={after}")).await.body;
        seen.extend(page["tenants"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, (0..25).map(|i| format!("T{i:02}")).collect::<Vec<_>>());
    let found = api.get("/v1/services/accounting/tenants?search=t1&limit=10").await.body;
    assert_eq!((found["tenants"].as_array().unwrap().len(), found["next"].is_null()), (10, true));
    assert_eq!(found["tenants"][0]["split"]["source"], "tenant T10");
}

#[tokio::test]
async fn counts_are_told_by_version() {
    let api = Api::new().await;
    traffic(&api, &[("acme", 4), ("globex", 1)]);
    let key = |tenant| ScopeKey { service: service(), tenant, canary: version("2.0.0") };
    api.control.board().put(key(None), report("2.0.0"));
    let body = api.get("/v1/services/accounting/stats?window=5m").await.body;
    assert_eq!((body["window_seconds"].as_f64(), body["tenant"].is_null()), (Some(300.0), true));
    let (one, two) = (&body["versions"][0], &body["versions"][1]);
    assert_eq!((one["requests"].as_u64(), one["error_rate"].as_f64()), (Some(20), Some(0.0)));
    assert_eq!((two["failures_total"].as_u64(), two["failures"]["status"].as_u64()), (Some(5), Some(5)));
    assert_eq!((two["role"].as_str(), two["share"].as_f64()), (Some("canary"), Some(10.0)));
    assert!((two["latency"]["p99"].as_f64().unwrap() - 0.02).abs() < 0.005);
    let comparison = &body["comparisons"][0];
    assert_eq!(comparison["window"]["canary"], json!({ "requests": 100, "failures": 20 }));
    assert_eq!((comparison["verdict"].as_str(), comparison["action"].as_str()), (Some("breach"), Some("rollback")));
    let acme = api.get("/v1/services/accounting/stats?tenant=acme").await.body;
    assert_eq!((acme["versions"][1]["failures_total"].as_u64(), acme["window_seconds"].is_null()), (Some(4), true));
    assert_eq!(acme["comparisons"], json!([]));
    let quiet = api.get("/v1/services/billing/stats").await.body;
    assert_eq!(
        (quiet["versions"][0]["requests"].as_u64(), quiet["versions"][0]["error_rate"].is_null()),
        (Some(0), true)
    );
    assert_eq!(api.get("/v1/services").await.body["services"][0]["verdict"], "breach");
}

#[tokio::test]
async fn versions_are_compared() {
    let api = Api::new().await;
    let tenants: Vec<_> = (0..30).map(|i| (format!("t{i:02}"), i % 11)).collect();
    traffic(&api, &tenants.iter().map(|(n, f)| (n.as_str(), *f)).collect::<Vec<_>>());
    let key = ScopeKey { service: service(), tenant: None, canary: version("2.0.0") };
    api.control.board().put(key, report("2.0.0"));
    let body = api.get("/v1/services/accounting/compare?a=1.0.0&b=2.0.0&since=10m").await.body;
    let worst = body["tenants"].as_array().unwrap();
    assert_eq!(worst.len(), 20);
    assert_eq!((worst[0]["tenant"].as_str(), worst[0]["b"]["failures"].as_u64()), (Some("t10"), Some(10)));
    assert_eq!((worst[0]["a"]["failures"].as_u64(), worst[0]["b"]["error_rate"].as_f64()), (Some(0), Some(1.0)));
    assert_eq!(body["difference"]["error_rate"].as_f64(), body["b"]["error_rate"].as_f64());
    assert_eq!(body["comparison"]["canary"], "2.0.0");
    assert_eq!(body["since_seconds"], 600.0);
    let swapped = api.get("/v1/services/accounting/compare?a=2.0.0&b=1.0.0").await.body;
    assert!(swapped["difference"]["error_rate"].as_f64().unwrap() < 0.0);
    let one = api.get("/v1/services/accounting/compare?a=1.0.0&b=2.0.0&tenant=t05").await.body;
    assert_eq!((one["tenants"].clone(), one["b"]["failures_total"].as_u64()), (json!([]), Some(5)));
    let unknown = api.get("/v1/services/accounting/compare?a=1.0.0&b=2.0.1").await;
    assert_eq!((unknown.status, unknown.detail().contains("did you mean \"2.0.0\"?")), (422, true));
    let tenant = TenantName::new("t05").unwrap();
    assert!(api.control.board().of(&service(), Some(&tenant)).is_empty());
}

/// Requests of a route on both versions; on the second, `failed` of them fail and all take `ms`.
fn route_traffic(api: &Api, route: &str, requests: u64, failed: u64, ms: u64) {
    let tally = api.tallies.service(&service());
    for (name, failed, ms) in [("1.0.0", 0, 10), ("2.0.0", failed, ms)] {
        for i in 0..requests {
            let outcome = if i < failed { Outcome::failed(FailureKind::Status, 500) } else { Outcome::served(200) };
            tally.routes().count(&RouteRequest {
                route,
                configured: route == "/named",
                version: &version(name),
                outcome,
                answered: Some(outcome.status),
                latency_us: Some(ms * 1_000),
                now_us: 0,
            });
        }
    }
}

#[tokio::test]
async fn routes_are_compared_worst_first() {
    let api = Api::new().await;
    for i in 0..30 {
        route_traffic(&api, &format!("GET /fine/{i:02}"), 20, 0, 10);
    }
    route_traffic(&api, "GET /busy", 100, 0, 10);
    route_traffic(&api, "GET /slow", 20, 0, 50);
    route_traffic(&api, "/named", 30, 9, 10);
    let compare = async |query: &str| {
        let body = api.get(&format!("/v1/services/accounting/compare?{query}")).await.body;
        body["routes"].as_array().unwrap().clone()
    };
    let routes = compare("a=1.0.0&b=2.0.0&since=10m").await;
    let names: Vec<_> = routes.iter().take(4).map(|r| r["route"].as_str().unwrap()).collect();
    assert_eq!((routes.len(), names), (20, vec!["/named", "GET /slow", "GET /busy", "GET /fine/00"]));
    let (worst, slow) = (&routes[0], &routes[1]);
    assert_eq!((worst["configured"].as_bool(), worst["b"]["failures"]["status"].as_u64()), (Some(true), Some(9)));
    assert_eq!((worst["a"]["error_rate"].as_f64(), worst["b"]["error_rate"].as_f64()), (Some(0.0), Some(0.3)));
    assert!(slow["excess_slow"].as_f64().unwrap() > 10.0 && slow["excess_failures"] == 0.0, "{slow}");
    assert_eq!(compare("a=1.0.0&b=2.0.0&routes=100").await.len(), 33);
    assert_eq!(compare("a=2.0.0&b=1.0.0").await[0]["route"], "GET /busy", "nothing is worse on the old one");
    let stats = api.get("/v1/services/accounting/stats?route=GET%20/slow").await.body;
    assert_eq!((stats["versions"][1]["requests"].as_u64(), stats["routes"].as_array().unwrap().len()), (Some(20), 33));
    let unknown = api.get("/v1/services/accounting/stats?route=GET%20/slo").await;
    assert_eq!((unknown.status, unknown.detail().contains("did you mean \"GET /slow\"?")), (404, true));
}

#[tokio::test]
async fn a_request_is_explained() {
    let api = Api::new().await;
    api.put("/v1/services/accounting/pins/tenant/acme", json!({ "version": "2.0.0" })).await;
    let get = async |query: &str| api.get(&format!("/v1/services/accounting/explain?{query}")).await.body;
    let body = get("tenant=acme&key=alice").await;
    assert_eq!((body["version"].as_str(), body["tenant"].as_str()), (Some("2.0.0"), Some("acme")), "{body:#}");
    let steps: Vec<_> = body["steps"].as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
    for step in ["match", "tenant", "key", "split", "pin", "version", "endpoint"] {
        assert!(steps.contains(&step), "{steps:?}");
    }
    assert_eq!(body["endpoints"], json!(["127.0.0.1:7101"]));
    let same = get("key=alice&path=/accounting/x?q=1").await;
    assert_eq!(
        (same["version"].clone(), same["path"].as_str()),
        (get("key=alice").await["version"].clone(), Some("/accounting/x"))
    );
    let by_header = get("header=x-tenant-id:acme&header=x-user-id:%20bob").await;
    assert_eq!(by_header["tenant"], "acme");
    let elsewhere = get("path=/nowhere").await;
    assert!(elsewhere["service"].is_null() && elsewhere["version"].is_null());
    assert!(elsewhere["steps"].to_string().contains("no service matches"));
    let other = api.get("/v1/services/billing/explain").await.body;
    assert_eq!(other["service"], "billing", "host, path and method of its own rule: {other:#}");
    assert_eq!(api.get("/v1/services/billing/explain?key=x").await.status, 400, "it has no sticky source");
}

#[tokio::test]
async fn the_process_tells_how_it_is() {
    let api = Api::new().await;
    let status = api.get("/v1/status").await.body;
    assert_eq!((status["instance"].as_str(), status["ready"].as_bool()), (Some("test-1"), Some(true)));
    assert_eq!((status["store"]["up"].as_bool(), status["proxy"]["open_connections"].as_i64()), (Some(true), Some(3)));
    assert_eq!(status["services"].as_array().unwrap().len(), 2);
    assert_eq!(api.get("/livez").await.text, "ok");
    assert_eq!(api.get("/readyz").await.text, "ok");
    let metrics = api.get("/metrics").await;
    assert!(metrics.text.contains("switchback_split_weight_ratio"));
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    *api.readiness.lock().unwrap() = Readiness { ready: false, draining: true, reason: String::new() };
    let ready = api.get("/readyz").await;
    assert_eq!((ready.status, ready.text.as_str()), (503, "draining"));
    assert_eq!(api.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_reload_tells_what_changed_or_what_is_wrong() {
    let api = Api::new().await;
    *api.file.lock().unwrap() =
        FILE.replace("127.0.0.1:7101", "127.0.0.1:7999").replace("[tenants]", "threads = 2\n[tenants]");
    let answer = api.post("/v1/reload", json!({})).await;
    assert_eq!(answer.body["changed"], json!(["services.accounting"]), "{answer:?}");
    assert_eq!(answer.body["needs_restart"], json!(["proxy.threads"]));
    assert_eq!(api.get("/v1/events?kind=reloaded").await.body["events"][0]["author"]["kind"], "file");
    *api.file.lock().unwrap() = FILE.replace("sticky", "stikky");
    let answer = api.post("/v1/reload", json!({})).await;
    assert_eq!((answer.status, answer.body["errors"][0]["field"].as_str()), (422, Some("services.accounting.stikky")));
    let message = answer.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("/etc/switchback.toml:9: "), "{message}");
    *api.file.lock().unwrap() = FILE.replace("2.0.0", "2.1.0");
    assert_eq!(api.post("/v1/reload", json!({})).await.status, 422, "the split names a version that would be gone");
    assert_eq!(api.get("/v1/services/accounting").await.status, 200);
}
