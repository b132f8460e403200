//! The admin API as its users see it: tokens, revisions, dry runs, live events, statistics, metrics.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use ring::digest;
use serde_json::json;

use crate::harness::{Backend, Load, TestApp, many_users, two_versions, until};

async fn start(more: &str) -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&format!("{}{more}", two_versions(&old, &new, ""))).await;
    (old, new, app)
}

fn hex(token: &str) -> String {
    digest::digest(&digest::SHA256, token.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_writers_lose_and_dry_runs_change_nothing() {
    let (_old, _new, app) = start("").await;
    let url = format!("{}/v1/services/shop/split", app.admin);
    let etag = app.client.get(&url).send().await.unwrap().headers()["etag"].clone();
    let body = json!({ "weights": { "2.0.0": 10, "1.0.0": 90 } });
    let dry = app.client.put(format!("{url}?dry_run=true")).json(&body).send().await.unwrap();
    assert_eq!(dry.status(), 200);
    assert_eq!(dry.json::<serde_json::Value>().await.unwrap()["dry_run"], true);
    assert_eq!(app.client.get(&url).send().await.unwrap().headers()["etag"], etag);
    let writers = (0..8).map(|_| app.client.put(&url).header("if-match", &etag).json(&body).send());
    let mut won = 0;
    for answer in futures::future::join_all(writers).await {
        let answer = answer.unwrap();
        match answer.status().as_u16() {
            200 => won += 1,
            412 => assert!(answer.json::<serde_json::Value>().await.unwrap()["current_revision"].is_u64()),
            other => panic!("{other}"),
        }
    }
    assert_eq!(won, 1, "of eight writers with the same revision exactly one wins");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_have_roles() {
    let tokens = format!(
        "\n[admin]\nlisten = \"127.0.0.1:0\"\ntokens = [{{ name = \"eye\", role = \"viewer\", sha256 = \"{}\" }}, {{ name = \"ci\", role = \"operator\", sha256 = \"{}\" }}]\n",
        hex("viewer-token"),
        hex("operator-token")
    );
    let (_old, _new, app) = start(&tokens).await;
    let url = format!("{}/v1/services/shop/split", app.admin);
    let put = |token: Option<&'static str>| {
        let mut request = app.client.put(&url).json(&json!({ "weights": { "2.0.0": 100 } }));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        async { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(put(None).await, 401);
    assert_eq!(put(Some("wrong-token")).await, 401);
    assert_eq!(put(Some("viewer-token")).await, 403);
    assert_eq!(put(Some("operator-token")).await, 200);
    let events = app
        .client
        .get(format!("{}/v1/events?kind=split_set", app.admin))
        .bearer_auth("viewer-token")
        .send()
        .await
        .unwrap();
    let events: serde_json::Value = events.json().await.unwrap();
    assert_eq!(events["events"][0]["author"]["name"], "ci");
    assert_eq!(app.client.get(format!("{}/livez", app.admin)).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_of_strangers_are_refused() {
    let (_old, _new, app) = start("").await;
    let url = format!("{}/v1/services/shop/split", app.admin);
    let body = json!({ "weights": { "2.0.0": 100 } });
    let foreign_host = app.client.get(&url).header("host", "rebound.example").send().await.unwrap();
    assert!(foreign_host.status().is_client_error(), "{}", foreign_host.status());
    let foreign_origin =
        app.client.put(&url).header("origin", "https://evil.example").json(&body).send().await.unwrap();
    assert_eq!(foreign_origin.status(), 403);
    let cross_site = app.client.put(&url).header("sec-fetch-site", "cross-site").json(&body).send().await.unwrap();
    assert_eq!(cross_site.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_live_and_resume_where_they_stopped() {
    let (_old, _new, app) = start("").await;
    let address = app.admin.trim_start_matches("http://").to_owned();
    let listen = |last: u64, wanted: usize| {
        let address = address.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let request = format!(
                "GET /v1/events HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\nlast-event-id: {last}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).unwrap();
            let lines = BufReader::new(stream).lines().map(Result::unwrap);
            lines
                .filter_map(|l| l.strip_prefix("id:").map(|id| id.trim().parse::<u64>().unwrap()))
                .take(wanted)
                .collect::<Vec<_>>()
        })
    };
    let first = listen(0, 4);
    for percent in [10.0, 20.0, 30.0] {
        app.split("shop", percent).await;
    }
    let first = first.await.unwrap();
    assert_eq!(first, [1, 2, 3, 4], "the history, then live");
    let rest = listen(2, 3);
    app.split("shop", 40.0).await;
    assert_eq!(rest.await.unwrap(), [3, 4, 5], "nothing lost, nothing twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_compare_two_versions_over_the_same_time() {
    let (_old, new, app) = start("").await;
    app.split("shop", 50.0).await;
    new.script.fail(2.0);
    let load = Load::start(&app, 300, many_users(100_000));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let seen = load.stop().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (_, stats) = app.api("GET", "/v1/services/shop/stats?window=5m", None).await;
    let of = |name: &str| stats["versions"].as_array().unwrap().iter().find(|v| v["version"] == name).unwrap().clone();
    let (one, two) = (of("1.0.0"), of("2.0.0"));
    assert_eq!(one["requests"].as_u64().unwrap() + two["requests"].as_u64().unwrap(), seen.requests, "{stats}");
    assert_eq!(two["failures_total"].as_u64().unwrap(), seen.failures);
    assert_eq!(one["failures_total"], 0);
    assert!(two["latency"]["p99"].as_f64().unwrap() > 0.0);
    let (_, compare) = app.api("GET", "/v1/services/shop/compare?a=1.0.0&b=2.0.0&since=5m", None).await;
    assert!(compare["difference"]["error_rate"].as_f64().unwrap() > 0.0, "{compare}");
    let comparison = &stats["comparisons"][0];
    assert!(
        ["healthy", "breach", "not_enough_evidence"].contains(&comparison["verdict"].as_str().unwrap()),
        "{comparison}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_please_promtool_and_tenants_are_bounded() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let tenants = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n[metrics]\ntenants = 3\n";
    let app = TestApp::start(&format!("{tenants}{}", two_versions(&old, &new, ""))).await;
    // A tenant that is shown stays for a minute, so the busy one comes first.
    let sent = std::sync::atomic::AtomicU64::new(0);
    let ask = async |tenant: String| {
        sent.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        app.get("/", &[("x-tenant-id", &tenant)]).await
    };
    until("the busiest tenant", Duration::from_secs(10), || async {
        ask("busy".to_owned()).await;
        app.metrics().await.contains("tenant=\"busy\"")
    })
    .await;
    for i in 0..200 {
        ask(format!("tenant-{i}")).await;
    }
    until("every request in some series", Duration::from_secs(5), || async {
        let text = app.metrics().await;
        let lines = text.lines().filter(|l| l.starts_with("switchback_tenant_requests_total{"));
        let sum = lines.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>();
        sum == sent.load(std::sync::atomic::Ordering::SeqCst) as f64
    })
    .await;
    let text = app.metrics().await;
    let series = text.lines().filter(|l| l.starts_with("switchback_tenant_requests_total{")).count();
    assert!(series <= 2 * (2 * 3 + 1), "{series} series");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed by tests/run");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_a_line_in_the_access_log_when_it_is_on() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let log = folder.path().join("access.log");
    let proxy = format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\"]\naccess_log = {{ enabled = true, path = \"{}\" }}\n",
        log.display()
    );
    let tenants = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n";
    let app = TestApp::start_in(folder, &format!("{proxy}{tenants}{}", two_versions(&old, &new, ""))).await;
    app.get("/orders?secret=1", &[("x-tenant-id", "acme"), ("x-request-id", "r-7")]).await;
    app.get("/", &[("x-tenant-id", "not a name")]).await;
    until("two lines", Duration::from_secs(5), || async {
        std::fs::read_to_string(&log).is_ok_and(|t| t.lines().count() == 2)
    })
    .await;
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let (served, refused) = (&lines[0], &lines[1]);
    assert_eq!(
        (&served["service"], &served["tenant"], &served["version"]),
        (&json!("shop"), &json!("acme"), &json!("1.0.0"))
    );
    assert_eq!(
        (&served["path"], &served["status"], &served["fault"]),
        (&json!("/orders"), &json!(200), &json!("served"))
    );
    assert_eq!(served["request_id"], "r-7");
    assert_eq!(
        (&refused["status"], &refused["fault"], &refused["why"]),
        (&json!(400), &json!("refused"), &json!("bad_tenant"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_drives_a_real_proxy() {
    let (_old, _new, app) = start("").await;
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(args)
            .env("SWITCHBACK_ADMIN", &app.admin)
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), text)
    };
    let run = |args: &'static [&'static str]| tokio::task::block_in_place(|| run(args));
    assert_eq!(run(&["split", "set", "shop", "2.0.0=25", "1.0.0=75"]).0, 0);
    let (code, text) = run(&["split", "get", "shop"]);
    assert!(code == 0 && text.contains("25"), "{text}");
    let (code, text) = run(&["status"]);
    assert!(code == 0 && text.contains("shop") && text.contains("2.0.0"), "{text}");
    let (code, text) = run(&["pin", "shop", "user", "alice", "2.0.0"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(&["explain", "shop", "--key", "alice"]);
    assert!(code == 0 && text.contains("pinned to 2.0.0"), "{text}");
    let (code, text) = run(&["hold", "shop", "--reason", "friday"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(&["rollback", "shop", "--reason", "because"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(app.version_of("bob").await, "1.0.0");
    let (code, text) = run(&["events"]);
    assert!(code == 0 && text.contains("rollback"), "{text}");
    let (code, text) = run(&["compare", "shop", "1.0.0", "2.0.0"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(&["split", "set", "shop", "2.0.0=25", "1.0.0=70"]);
    assert!(code != 0 && text.contains("100"), "{text}");
    let (code, text) = run(&["split", "set", "shopp", "2.0.0=25", "1.0.0=75"]);
    assert!(code == 1 && text.contains("shop"), "{text}");
}
