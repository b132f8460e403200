//! Canaries of Flagger: a deployment with its service, and how a new revision is brought in.

use serde_json::Value;

use super::kubernetes::{Object, text};
use super::service::{Service, quoted, round};

/// The services of all Canaries.
pub(super) fn services(objects: &[Object]) -> Vec<Service> {
    let canaries = objects.iter().filter(|o| o.kind == "Canary" && o.api.starts_with("flagger.app/"));
    canaries.map(service).collect()
}

fn service(canary: &Object) -> Service {
    let of = |path: &str| canary.at(path).and_then(Value::as_str).map(str::to_owned);
    let name = of("/spec/service/name").or_else(|| of("/spec/targetRef/name")).unwrap_or_else(|| canary.name.clone());
    let port = canary.at("/spec/service/port").and_then(Value::as_u64).unwrap_or(80);
    let address = |kind: &str| format!("{name}-{kind}.{}.svc:{port}", canary.namespace);
    let mut service = Service {
        name: name.clone(),
        namespace: canary.namespace.clone(),
        rules: rules(canary),
        versions: ["primary", "canary"].map(|kind| (kind.to_owned(), address(kind))).to_vec(),
        ..Service::default()
    };
    if let Some(retries) = canary.at("/spec/service/retries/attempts").and_then(Value::as_u64) {
        service.keys.push(format!("retries = {}", retries.min(10)));
    }
    if let Some(cookie) = of("/spec/analysis/sessionAffinity/cookieName") {
        service.keys.push(format!("sticky = [{{ cookie = {}, issue = true }}]", quoted(&cookie)));
    }
    guard(canary, &mut service);
    plan(canary, &mut service);
    rest(canary, &mut service);
    service
}

fn rules(canary: &Object) -> Vec<(Option<String>, Option<String>)> {
    let hosts: Vec<_> = canary.list("/spec/service/hosts").iter().map(text).filter(|host| host != "*").collect();
    let prefix = |rule: &Value| rule.pointer("/uri/prefix").and_then(Value::as_str).map(str::to_owned);
    let paths: Vec<_> = canary.list("/spec/service/match").iter().filter_map(prefix).filter(|p| p != "/").collect();
    let paths: Vec<_> = if paths.is_empty() { vec![None] } else { paths.into_iter().map(Some).collect() };
    if hosts.is_empty() {
        return paths.into_iter().map(|path| (None, path.or_else(|| Some("/".to_owned())))).collect();
    }
    hosts.iter().flat_map(|host| paths.iter().map(|path| (Some(host.clone()), path.clone()))).collect()
}

/// Metrics become plain limits beside the guard's own statistics.
fn guard(canary: &Object, service: &mut Service) {
    let mut lines = Vec::new();
    for metric in canary.list("/spec/analysis/metrics") {
        let limit = |end: &str| metric.pointer(&format!("/thresholdRange/{end}")).and_then(Value::as_f64);
        match (metric["name"].as_str().unwrap_or_default(), limit("min"), limit("max")) {
            ("request-success-rate", Some(least), _) => {
                lines.push(format!("max_error_rate = {}", round((100.0 - least).clamp(0.0, 100.0))));
            }
            ("request-duration", _, Some(most)) => lines.push(format!("max_p99 = \"{}ms\"", most.max(1.0).round())),
            (name, _, _) => service.note(format!(
                "The metric {name:?} has no counterpart: let a gate of the rollout ask for it (`gates`, at `hold`)."
            )),
        }
    }
    if !lines.is_empty() {
        service.note(
            "The limits of the metrics stand in [guard]; beside them the versions are compared by the guard's statistics, \
             which need no limit.",
        );
        service.tables.push(("guard", lines));
    }
}

/// The steps, as the command that goes through them.
fn plan(canary: &Object, service: &mut Service) {
    let analysis = |name: &str| canary.at(&format!("/spec/analysis/{name}"));
    let number = |name: &str| analysis(name).and_then(Value::as_u64);
    let bake = analysis("interval").and_then(Value::as_str).unwrap_or("1m").to_owned();
    let listed: Vec<_> = canary.list("/spec/analysis/stepWeights").iter().filter_map(Value::as_u64).collect();
    let steps = match (number("stepWeight"), number("iterations")) {
        _ if !listed.is_empty() => listed,
        (Some(step @ 1..), _) => {
            let most = number("maxWeight").unwrap_or(100).min(100);
            (1..).map(|n| n * step).take_while(|share| *share <= most).collect()
        }
        (_, Some(iterations)) => {
            service.note(format!(
                "It was a test of {iterations} iterations without weights: users who choose the canary (`choose`), a shadow, or \
                 one small step come closest."
            ));
            vec![5]
        }
        _ => vec![10, 50],
    };
    let mut steps: Vec<_> = steps.into_iter().filter(|share| (1..100).contains(share)).collect();
    steps.dedup();
    steps.push(100);
    let steps: Vec<_> = steps.iter().map(u64::to_string).collect();
    service.note(format!(
        "When a new revision stands behind {}-canary: switchback rollout start {} canary --steps {} --bake {bake}",
        service.name,
        service.name,
        steps.join(",")
    ));
    service.note(
        "Flagger copies the canary into the primary when it has passed. Here the version that has all traffic becomes the \
         baseline: register each release as a version of its own (`switchback versions register`) instead of reusing two names.",
    );
}

fn rest(canary: &Object, service: &mut Service) {
    if canary.at("/spec/analysis/mirror").and_then(Value::as_bool) == Some(true) {
        let share = canary.at("/spec/analysis/mirrorWeight").and_then(Value::as_f64).unwrap_or(100.0);
        let share = round(share.clamp(0.01, 100.0));
        service.tables.push(("shadow", vec!["version = \"canary\"".to_owned(), format!("share = {share}")]));
        service.note("It mirrored requests: [shadow] copies GET and HEAD and compares the answers.");
    }
    for hook in canary.list("/spec/analysis/webhooks") {
        let (name, kind) = (hook["name"].as_str().unwrap_or("?"), hook["type"].as_str().unwrap_or("rollout"));
        let url = hook["url"].as_str().unwrap_or("?");
        let instead = match kind {
            "confirm-rollout" => "a gate at start, or a step with approval",
            "confirm-promotion" | "confirm-traffic-increase" => "a step with approval, or a gate before_step",
            "pre-rollout" => "a gate at start",
            "rollout" => "a gate at hold",
            "post-rollout" => "a gate at completion",
            "rollback" => "`switchback rollback`, which anything may call",
            "event" => "a target of [[notify]]",
            _ => "perhaps a gate",
        };
        service.note(format!("The webhook {name:?} ({kind}, {url}): {instead}."));
    }
    for name in ["match", "canaryReadyThreshold", "primaryReadyThreshold", "threshold"] {
        if canary.at(&format!("/spec/analysis/{name}")).is_some() {
            let instead = match name {
                "match" => "users are chosen by `choose`, pins and groups",
                "threshold" => "the guard goes back as soon as the evidence is there, not after so many bad looks",
                _ => "a version is ready when its health checks pass",
            };
            service.note(format!("analysis.{name} has no counterpart: {instead}."));
        }
    }
    if canary.at("/spec/skipAnalysis").and_then(Value::as_bool) == Some(true) {
        service
            .note("skipAnalysis was set: [guard] enabled = false does the same, and nothing would go back by itself.");
    }
}
