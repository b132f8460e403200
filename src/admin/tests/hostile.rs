//! Names and bodies that nobody sends by accident.

use super::*;

#[tokio::test]
async fn names_in_paths_are_checked() {
    let api = Api::new().await;
    for name in ["a%0d%0ab", "a%2Fb", "%00", "a%20b", "%C3%BC", "a\"b".replace('"', "%22").as_str(), &"x".repeat(64)] {
        let answer = api.get(&format!("/v1/services/{name}")).await;
        assert_eq!((answer.status, answer.body["errors"][0]["field"].as_str()), (400, Some("service")), "{name}");
        assert!(answer.body["errors"][0]["message"].as_str().unwrap().contains("allowed"), "{answer:?}");
    }
    assert_eq!(api.get("/v1/services/%ff").await.status, 400, "not UTF-8");
    for name in ["..", "%2e%2e", "..%2f..%2fetc", "a%2c"] {
        assert!(matches!(api.get(&format!("/v1/services/{name}")).await.status, 400 | 404), "{name}");
    }
    let answer = api.put("/v1/services/accounting/tenants/a%0d%0aset-cookie:x/split", body_for("/split")).await;
    assert_eq!(answer.status, 400);
    assert_eq!(api.control.view().state.tenant("accounting", "a"), None);
}

/// Tenants belong to the operator's customers: a slash or dots in a name are no path.
#[tokio::test]
async fn tenants_may_have_slashes_and_dots() {
    let api = Api::new().await;
    for (written, name) in [("eu%2Facme", "eu/acme"), ("%2e%2e", ".."), ("a%25b", "a%b"), ("x@y:1", "x@y:1")] {
        let path = format!("/v1/services/accounting/tenants/{written}/split");
        assert_eq!(api.put(&path, body_for("/split")).await.status, 200, "{written}");
        assert_eq!(api.get(&path).await.body["tenant"], name);
        assert!(api.control.view().state.tenant("accounting", name).is_some());
    }
}

#[tokio::test]
async fn bodies_say_what_is_wrong_and_where() {
    let api = Api::new().await;
    let call = async |text: &str| {
        let request = Api::request("PUT", "/v1/services/accounting/split").header("content-type", "application/json");
        api.call(request.body(Body::from(text.to_owned())).unwrap()).await
    };
    let cases = [
        ("", 400, "", "EOF"),
        ("{", 400, "", "line 1 column 1"),
        ("{\"weights\": {\"1.0.0\": 100},}", 400, "", "line 1 column 28"),
        ("{\"weights\": {\"1.0.0\": 100}} x", 400, "", "trailing"),
        ("[]", 422, "", "expected struct"),
        ("{}", 422, "", "missing field `weights`"),
        ("{\"weights\": {\"1.0.0\": 90}}", 422, "weights", "add up to 90 %"),
        ("{\"weights\": {\"1.0.0\": -1}}", 422, "weights", "-1 is not a percentage"),
        ("{\"weights\": {\"1.0.0\": 99.999}}", 422, "weights", "two decimals"),
        ("{\"weights\": {\"a/b\": 100}}", 422, "weights", "'/'"),
        ("{\"weights\": {\"1.0.0\": \"all\"}}", 422, "weights", "string"),
        ("{\"weights\": {\"1.0.0\": 100}, \"waits\": 1}", 422, "waits", "unknown field `waits`"),
        ("{\"weights\": {\"1.0.0\": 100}, \"reason\": 1}", 422, "reason", "string"),
    ];
    for (text, status, field, message) in cases {
        let answer = call(text).await;
        let error = &answer.body["errors"][0];
        assert_eq!(
            (answer.status, error["field"].as_str().unwrap().starts_with(field)),
            (status, true),
            "{text}: {answer:?}"
        );
        assert!(error["message"].as_str().unwrap().contains(message), "{text}: {answer:?}");
    }
    assert_eq!(api.control.view().state.services["accounting"].revision, 1, "nothing of this changed anything");
}

#[tokio::test]
async fn reasons_are_one_line() {
    let api = Api::new().await;
    let body = json!({ "reason": "first\r\nsecond\u{1b}[31m" });
    api.put("/v1/services/accounting/hold", body).await;
    let hold = api.get("/v1/services/accounting").await.body["hold"]["reason"].clone();
    assert_eq!(hold, "first  second [31m");
    assert_eq!(api.put("/v1/services/accounting/hold", json!({ "reason": "x".repeat(1_001) })).await.status, 422);
}

#[tokio::test]
async fn parameters_are_checked() {
    let api = Api::new().await;
    for path in [
        "/v1/services/accounting/tenants?limit=0",
        "/v1/services/accounting/tenants?limit=1001",
        "/v1/services/accounting/tenants?limits=1",
        "/v1/services/accounting/tenants?limit=1&limit=2",
        "/v1/services/accounting/stats?window=soon",
        "/v1/services/accounting/stats?window=16m",
        "/v1/services/accounting/stats?tenant=a%20b",
        "/v1/services/accounting/compare?a=1.0.0",
        "/v1/services/accounting/explain?header=novalue",
        "/v1/services/accounting/explain?header=a%0d:b",
        "/v1/services/accounting/explain?header=a:b%0d%0ac:d",
        "/v1/services/accounting/explain?address=here",
        "/v1/services/accounting/explain?path=relative",
        "/v1/services/accounting/explain?key=a%0ab",
        "/v1/services/accounting/explain?method=a%20b",
        "/v1/events?kind=rolback",
        "/v1/events?after=-1",
        "/v1/events?limit=x",
        "/v1/events?order=up",
        "/v1/events?service=a%2Fb",
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(!answer.body["errors"].as_array().unwrap().is_empty(), "{path}");
    }
    assert!(api.get("/v1/events?kind=rolback").await.detail().contains("did you mean \"rollback\"?"));
    let dry = api.put("/v1/services/accounting/split?dry_run=perhaps", body_for("/split")).await;
    assert_eq!(dry.status, 400);
}
