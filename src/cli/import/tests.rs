//! From objects of Kubernetes to a configuration that the proxy accepts.

use std::path::Path;

use super::*;
use crate::config;
use crate::model::VersionName;

const NGINX: &str = include_str!("../../../tests/data/import/ingress-nginx.yaml");

const FLAGGER: &str = include_str!("../../../tests/data/import/flagger.yaml");

fn imported(text: &str) -> String {
    configuration(&read(text).unwrap()).unwrap()
}

/// The configuration as the proxy reads it.
fn accepted(text: &str) -> config::Settings {
    config::parse(text, Path::new("/etc/switchback.toml"), &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn has(text: &str, line: &str) {
    // Comments are broken into lines.
    let flat = text.replace("\n# ", " ");
    assert!(flat.contains(line), "{line}\n{text}");
}

#[test]
fn canary_annotations_become_a_split() {
    let text = imported(NGINX);
    let settings = accepted(&text);
    let structure = &settings.structure;
    let names: Vec<_> = structure.services.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["cart", "shop-v1"]);
    let shop = structure.services.values().find(|s| s.name.as_str() == "shop-v1").unwrap();
    let version = |name: &str| VersionName::new(name).unwrap();
    assert_eq!(shop.baseline, version("shop-v1"));
    assert!(shop.versions.contains_key(&version("shop-v2")));
    has(&text, "match = [{ host = \"shop.example.com\" }]");
    has(&text, "split = { \"shop-v1\" = 85, \"shop-v2\" = 15 }");
    has(&text, "endpoints = [\"shop-v2.web.svc:8080\"]");
    has(&text, "endpoints = [\"cart.web.svc:9000\"]");
    has(&text, "sticky = [{ cookie = \"route\", issue = true }]");
    has(&text, "body_limit = \"8MiB\"");
    has(&text, "header = \"x-canary\"");
    // What is not carried over is said.
    has(&text, "The path /cart was Exact");
    has(&text, "It had TLS");
    has(&text, "enable-cors = \"true\"");
    has(&text, "canary-by-header-value = \"yes\" has no counterpart");
}

#[test]
fn a_canary_of_flagger_becomes_limits_and_a_command() {
    let text = imported(FLAGGER);
    let settings = accepted(&text);
    let (name, podinfo) = settings.structure.services.iter().next().unwrap();
    assert_eq!((name.as_str(), podinfo.baseline.as_str()), ("podinfo", "primary"));
    has(&text, "endpoints = [\"podinfo-canary.test.svc:9898\"]");
    has(&text, "max_error_rate = 1\nmax_p99 = \"500ms\"");
    has(&text, "switchback rollout start podinfo canary --steps 20,40,100 --bake 30s");
    has(&text, "[services.podinfo.shadow]\nversion = \"canary\"");
    has(&text, "The metric \"lag\" has no counterpart");
    has(&text, "\"ask\" (confirm-promotion, http://gate.test/): a step with approval");
    has(&text, "\"load-test\" (rollout, http://tester.test/): a gate at hold");
    assert!(!text.contains("split ="), "nothing moves before somebody says so");
}

#[test]
fn lists_and_equal_names_of_two_namespaces_are_kept_apart() {
    let ingress = |namespace: &str| {
        format!(
            r#"{{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{{"name":"i","namespace":"{namespace}"}},
            "spec":{{"rules":[{{"host":"{namespace}.example.com","http":{{"paths":[{{"path":"/","backend":
            {{"service":{{"name":"api","port":{{"number":80}}}}}}}}]}}}}]}}}}"#
        )
    };
    let exact = ingress("green").replace("\"path\":\"/\"", "\"path\":\"/x\",\"pathType\":\"Exact\"");
    let text = imported(&format!("{{\"kind\":\"List\",\"items\":[{},{exact}]}}", ingress("blue")));
    accepted(&text);
    has(&text, "[services.api]\nmatch = [{ host = \"blue.example.com\" }]");
    has(&text, "[services.green-api]\nmatch = [{ host = \"green.example.com\", path = \"/x\" }]");
    let (blue, green) = text.split_once("[services.api]").unwrap();
    assert!(!blue.contains("was Exact") && green.contains("was Exact"), "{text}");
}

#[test]
fn hostile_names_stay_texts() {
    let evil = "\"]\\n[admin]\\nlisten = \\\"0.0.0.0:1";
    let text = format!(
        "{{\"apiVersion\":\"networking.k8s.io/v1\",\"kind\":\"Ingress\",\"metadata\":{{\"name\":\"i\",\"annotations\":\
         {{\"nginx.ingress.kubernetes.io/x\":\"a\\n[admin]\"}}}},\"spec\":{{\"rules\":[{{\"host\":\"h\\\"{}\",\"http\":{{\"paths\":\
         [{{\"path\":\"/\",\"backend\":{{\"service\":{{\"name\":\"api\",\"port\":{{\"number\":80}}}}}}}}]}}}}]}}}}",
        evil.replace('"', "\\\"").replace("\\\\\"", "\\\"")
    );
    let text = imported(&text);
    let table: toml::Table = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(table.keys().collect::<Vec<_>>(), ["proxy", "services"], "{text}");
}

#[test]
fn what_cannot_become_a_service_is_said() {
    let none = |text: &str| configuration(&read(text).unwrap()).is_none();
    assert!(none("kind: Deployment\napiVersion: apps/v1\nmetadata: { name: x }"));
    assert!(none(""));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "kind: Secret").unwrap();
    let error = import(&[file.path().to_owned()]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("found Secret; wanted is an Ingress"), "{error}");
    let error = import(&["/nowhere.yaml".into()]).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere.yaml cannot be read"), "{error}");
    std::fs::write(file.path(), "a: [").unwrap();
    assert!(import(&[file.path().to_owned()]).unwrap_err().to_string().contains("is no YAML"));
}
