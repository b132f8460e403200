//! Deprecated versions from outside: what clients are told, and who still uses the version.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Backend, TestApp, two_versions, until};

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_deprecated_version_are_told_and_others_are_not() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let deprecated = "[services.shop.versions.\"1.0.0\"]\ndeprecated = { since = 2026-06-01, sunset = \"2026-12-31\", \
                      link = \"https://docs.example.com/v1\" }";
    let text = two_versions(&old, &new, "").replace("[services.shop.versions.\"1.0.0\"]", deprecated);
    let app = TestApp::start(&text).await;
    let answer = app.get("/", &[("x-user-id", "u")]).await;
    let header = |name: &str| answer.headers.get(name).map_or("", |v| v.to_str().unwrap());
    assert_eq!((answer.status, answer.version.as_str()), (200, "1.0.0"));
    assert_eq!(header("deprecation"), "@1780272000");
    assert_eq!(header("sunset"), "Thu, 31 Dec 2026 00:00:00 GMT");
    assert_eq!(header("link"), "<https://docs.example.com/v1>; rel=\"deprecation\"; type=\"text/html\"");
    app.split("shop", 100.0).await;
    let answer = app.get("/", &[("x-user-id", "u")]).await;
    assert_eq!(answer.version, "2.0.0");
    assert!(["deprecation", "sunset", "link"].iter().all(|name| !answer.headers.contains_key(*name)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_version_is_deprecated_and_its_tenants_are_listed() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let tenants = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n[metrics]\ntracked_tenants = 3\n";
    let app = TestApp::start(&format!("{tenants}{}", two_versions(&old, &new, ""))).await;
    let path = "/v1/services/shop/versions/3.0.0";
    let endpoint = old.address.to_string();
    let spec = json!({ "endpoints": [endpoint], "deprecated": { "since": "2026-06-01", "sunset": "2026-05-01" } });
    let (status, problem) = app.api("PUT", path, Some(spec)).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("deprecated.sunset")), "{problem}");
    let deprecated = json!({ "since": "2026-06-01T12:00:00Z" });
    app.change("PUT", path, json!({ "endpoints": [endpoint], "deprecated": deprecated })).await;
    app.change("PUT", "/v1/services/shop/split", json!({ "weights": { "3.0.0": 100 } })).await;
    app.change("PUT", "/v1/services/shop/pins/tenant/b", json!({ "version": "3.0.0" })).await;
    for (tenant, requests) in [("a", 3), ("b", 5), ("c", 1), ("d", 2), ("e", 2)] {
        for _ in 0..requests {
            let answer = app.get("/", &[("x-tenant-id", tenant)]).await;
            assert_eq!(answer.headers["deprecation"], "@1780315200");
        }
    }
    let (_, service) = app.api("GET", "/v1/services/shop", None).await;
    assert_eq!(service["versions"][2]["spec"]["deprecated"], deprecated);
    let rows = |report: &Value| -> Vec<(String, u64, String)> {
        let row = |t: &Value| {
            (t["tenant"].as_str().unwrap().into(), t["requests"].as_u64().unwrap(), t["by"].as_str().unwrap().into())
        };
        report["tenants"].as_array().unwrap().iter().map(row).collect()
    };
    let expected = [("b", 5, "pin"), ("_other", 4, "service"), ("a", 3, "service"), ("c", 1, "service")];
    let expected = expected.map(|(tenant, n, by)| (tenant.to_owned(), n, by.to_owned()));
    for query in ["", "?window=1m"] {
        until("the counts are read", Duration::from_secs(10), async || {
            let (status, report) = app.api("GET", &format!("{path}/tenants{query}"), None).await;
            assert_eq!((status, &report["deprecated"]), (200, &deprecated));
            rows(&report) == expected
        })
        .await;
    }
    let (_, report) = app.api("GET", &format!("{path}/tenants"), None).await;
    assert_eq!((&report["pinned_tenants"], &report["own_splits"]), (&json!(1), &json!(0)));
    assert!(report["tenants"][0]["last_seen"].as_str().unwrap().ends_with('Z'));
}
