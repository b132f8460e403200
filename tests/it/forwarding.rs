//! Requests on their way: endpoints, retries, headers, protocols, names, health.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::harness::{Answer, Backend, TestApp, two_versions, until};

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_share_the_load_and_a_dead_one_is_passed_over() {
    let (a, b, dead) = (Backend::start("a").await, Backend::start("b").await, Backend::start("dead").await);
    let address = dead.address;
    drop(dead);
    let text = format!(
        "[services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1.0.0\"\nretries = 2\n[services.shop.versions.\"1.0.0\"]\nendpoints = [\"{}\", \"{}\", \"{address}\"]\n",
        a.address, b.address
    );
    let app = TestApp::start(&text).await;
    for _ in 0..200 {
        assert_eq!(app.get("/", &[]).await.status, 200, "nothing was sent to the dead one, so another may have it");
    }
    let (a, b) = (a.script.requests(), b.script.requests());
    assert_eq!(a + b, 200);
    assert!(a > 50 && b > 50, "{a} and {b}");
    let up = format!("switchback_endpoint_up{{service=\"shop\",version=\"1.0.0\",endpoint=\"{address}\"}} 0");
    until("the dead endpoint to be shown", Duration::from_secs(4), || async { app.metrics().await.contains(&up) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_could_not_be_sent_goes_to_another_endpoint_once() {
    let (good, dead) = (Backend::start("good").await, Backend::start("dead").await);
    let address = dead.address;
    drop(dead);
    let text = format!(
        "[services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1.0.0\"\n[services.shop.versions.\"1.0.0\"]\nendpoints = [\"{}\", \"{address}\"]\n",
        good.address
    );
    let app = TestApp::start(&text).await;
    for sent in 1..=30 {
        let body = vec![b'x'; 100_000];
        let response = app.client.post(format!("{}/", app.proxy)).body(body).send().await.unwrap();
        let answer = Answer::of(response).await;
        assert_eq!((answer.status, answer.seen["body_len"].as_u64()), (200, Some(100_000)));
        assert_eq!(good.script.requests(), sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_take_endpoints_out_and_back() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let text = format!(
        "[services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1.0.0\"\n[services.shop.versions.\"1.0.0\"]\nendpoints = [\"{}\", \"{}\"]\nhealth = {{ path = \"/healthz\", interval = \"100ms\", unhealthy_after = 2, healthy_after = 2 }}\n",
        a.address, b.address
    );
    let app = TestApp::start(&text).await;
    b.script.status.store(503, SeqCst);
    let healthy = |count: usize| {
        let app = &app;
        async move {
            let (_, service) = app.api("GET", "/v1/services/shop", None).await;
            let endpoints = service["versions"][0]["endpoints"].as_array().unwrap().clone();
            endpoints.iter().filter(|e| e["healthy"] == true).count() == count
        }
    };
    until("one endpoint to be out", Duration::from_secs(5), || healthy(1)).await;
    for _ in 0..20 {
        assert_eq!(app.get("/", &[]).await.seen["version"], "a");
    }
    b.script.status.store(200, SeqCst);
    until("both to be in", Duration::from_secs(5), || healthy(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_headers_ids_and_traces() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&two_versions(&old, &new, "headers = { server_timing = true, forwarded = true }")).await;
    let claims = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "r-1"),
    ];
    let answer = app.get("/", &claims).await;
    let headers = &answer.seen["headers"];
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_ne!(headers["x-forwarded-host"], "evil");
    assert_eq!(headers["x-request-id"], "r-1");
    assert!(headers["forwarded"].as_str().unwrap().starts_with("for=127.0.0.1;"), "{headers}");
    let trace = headers["traceparent"].as_str().unwrap();
    assert!(trace.len() == 55 && trace.starts_with("00-"), "{trace}");
    assert!(answer.headers["server-timing"].to_str().unwrap().starts_with("switchback;dur="));
    let plain = app.get("/", &[]).await;
    assert_eq!(plain.seen["headers"]["x-request-id"].as_str().unwrap().len(), 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_works_on_both_sides() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let text = two_versions(&old, &new, "") + "http2 = true\n";
    let app = TestApp::start(&text).await;
    app.split("shop", 100.0).await;
    let h2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    for size in [0usize, 10_000, 300_000] {
        let response = h2.post(format!("{}/up", app.proxy)).body(vec![b'x'; size]).send().await.unwrap();
        assert_eq!(response.version(), reqwest::Version::HTTP_2);
        let answer = Answer::of(response).await;
        assert_eq!(
            (answer.status, answer.version.as_str(), answer.seen["body_len"].as_u64()),
            (200, "2.0.0", Some(size as u64))
        );
    }
    app.split("shop", 0.0).await;
    for _ in 0..20 {
        let response = h2.post(format!("{}/up", app.proxy)).body("hello").send().await.unwrap();
        assert_eq!(Answer::of(response).await.seen["body_len"], 5, "h2 to HTTP/1.1 keeps the connection in step");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_resolved_in_the_background() {
    let backend = Backend::start("named").await;
    let text = format!(
        "[services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1.0.0\"\n[services.shop.versions.\"1.0.0\"]\nendpoints = [\"api.localhost:{}\"]\n",
        backend.address.port()
    );
    let app = TestApp::start(&text).await;
    assert_eq!(app.get("/", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_listeners_choose_the_certificate_by_name_and_speak_both_protocols() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let mut entries = Vec::new();
    let mut roots = Vec::new();
    for name in ["a.test", "b.test"] {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(folder.path().join(format!("{name}.crt")), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
        entries.push(format!("{{ cert = \"{name}.crt\", key = \"{name}.key\" }}"));
        roots.push(reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap());
    }
    let listener = format!("[[proxy.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{}]\n", entries.join(", "));
    let services = two_versions(&old, &new, "")
        .replace("sticky = [{ header = \"x-user-id\" }]", "sticky = [{ cookie = \"sb\", issue = true }]");
    let app = TestApp::start_in(folder, &(listener + &services)).await;
    let address = app.app.as_ref().unwrap().listen_tls[0];
    for (name, root) in ["a.test", "b.test"].into_iter().zip(&roots) {
        for http2 in [false, true] {
            // Only this name's certificate is trusted, so a wrong choice fails the handshake.
            let client = reqwest::Client::builder().no_proxy().tls_built_in_root_certs(false);
            let client = client.add_root_certificate(root.clone()).resolve(name, address);
            let client = if http2 { client } else { client.http1_only() }.build().unwrap();
            let response = client.get(format!("https://{name}:{}/", address.port())).send().await.unwrap();
            let version = if http2 { reqwest::Version::HTTP_2 } else { reqwest::Version::HTTP_11 };
            assert_eq!(response.version(), version);
            let answer = Answer::of(response).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.seen["headers"]["x-forwarded-proto"], "https");
            assert!(answer.headers["set-cookie"].to_str().unwrap().ends_with("; Secure"), "{answer:?}");
        }
    }
}
