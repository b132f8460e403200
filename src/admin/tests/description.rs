//! The description and the router say the same.

use std::collections::BTreeSet;

use super::*;

#[tokio::test]
async fn every_route_is_described_and_every_description_has_a_route() {
    let api = Api::new().await;
    let described = api.get("/openapi.json").await;
    let document = &described.body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let routes: BTreeSet<_> =
        routes::api().iter().map(|r| (r.path.to_owned(), r.method.as_str().to_ascii_lowercase())).collect();
    let mut documented = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            documented.insert((path.clone(), method.clone()));
            let name = operation["operationId"].as_str().unwrap().to_owned();
            assert!(names.insert(name.clone()), "{name} stands twice");
            assert!(operation["summary"].as_str().is_some_and(|s| !s.is_empty()), "{name} says nothing");
            let list = operation["parameters"].as_array().cloned().unwrap_or_default();
            let given: Vec<_> = list.iter().map(|p| p["name"].as_str().unwrap()).collect();
            assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "{name}: {given:?}");
        }
    }
    assert_eq!(routes, documented);
}

#[tokio::test]
async fn every_documented_path_answers() {
    let api = Api::new().await;
    api.post("/v1/snapshots", json!({ "name": "monday" })).await;
    let started = api.post("/v1/rollouts", body_for("/v1/rollouts")).await;
    assert_eq!(started.status, 201, "{started:?}");
    let id = started.body["id"].as_str().unwrap().to_owned();
    for route in routes::api() {
        let path = filled(route.path).replace("/compare", "/compare?a=1.0.0&b=2.0.0").replace("{id}", &id);
        let answer = match route.method {
            Method::GET => api.get(&path).await,
            _ => api.send(route.method.as_str(), &path, &[], body_for(route.path)).await,
        };
        // What is removed here was made by the route before it in the table.
        let removes_nothing = path.ends_with("/hold") || path.contains("3.0.0");
        // It runs already, and not everything can be done with it wherever it is.
        let of_rollout =
            (path.starts_with("/v1/rollouts") || path.ends_with("/restore")) && matches!(answer.status, 409 | 422);
        assert!(answer.status == 200 || removes_nothing || of_rollout, "{} {path}: {answer:?}", route.method);
        assert_ne!(answer.status, 405);
    }
}

#[tokio::test]
async fn references_lead_somewhere() {
    let api = Api::new().await;
    let text = api.document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(api.document.pointer(reference).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let api = Api::new().await;
    for path in ["/v1", "/v1/", "/v2/status", "/v1/services/", "/v1/services/accounting/split/"] {
        assert_eq!(api.get(path).await.status, 404, "{path}");
    }
    let answer = api.post("/v1/services/accounting/split", json!({})).await;
    assert_eq!((answer.status, answer.body["type"].as_str()), (405, Some("about:blank")));
    let allow = answer.headers["allow"].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("PUT"), "{allow}");
}
