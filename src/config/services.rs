//! `[services.X]`: which requests belong to a service, what keeps users on a version, and its versions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::tree::Value;
use super::version::version;
use super::view::{View, read_text};
use super::{formats, guard, shape};
use crate::model::{
    BasisPoints, ChooseSpec, HeaderSpec, KeySource, MatchRule, ServiceName, ServiceSpec, VersionName, VersionSpec,
    Weights,
};

/// How long clients keep an issued cookie when the file does not say.
const COOKIE_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A service's table. `None` when something without which there is no service is missing or wrong; it was noted then.
pub(super) fn service(name: &str, view: &View<'_>) -> Option<ServiceSpec> {
    let versions = versions(view);
    let baseline = view.read("baseline", formats::name::<VersionName>);
    let known = |name: &str| view.entries("versions").iter().any(|(version, _)| version == name);
    let listed = || match view.entries("versions") {
        [] => "none, since there are no versions".to_owned(),
        versions => versions.iter().map(|(v, _)| format!("{v:?}")).collect::<Vec<_>>().join(", "),
    };
    if let Some(baseline) = baseline.as_ref().filter(|v| view.get("versions").is_some() && !known(v.as_str())) {
        view.wrong_at("baseline", format!("\"{baseline}\" is no version of this service; allowed are {}", listed()));
    }
    for (version, node) in view.entries("split") {
        if view.get("versions").is_some() && !known(version) {
            view.cx.wrong(node, format!("{version:?} is no version of this service; allowed are {}", listed()));
        }
    }
    let split = match view.get("split") {
        Some(_) => split(view),
        None => baseline.clone().map(Weights::all_on),
    };
    if view.flag("rescue") == Some(true) {
        view.warn_at("rescue", "rescue is not part of this release and has no effect");
    }
    let sticky: Vec<_> = view.tables("sticky").iter().filter_map(key_source).collect();
    check_sticky(view, &sticky);
    Some(ServiceSpec {
        name: ServiceName::new(name).ok()?,
        rules: view.tables("match").iter().map(rule).collect(),
        sticky,
        baseline: baseline?,
        split: split?,
        salt: view.read("salt", formats::not_empty),
        choose: choose(&view.table("choose")),
        versions,
        guard: Arc::new(guard::guard(&view.table("guard"))),
        headers: headers(&view.table("headers")),
        retries: view.integer("retries").unwrap_or(1),
        // No limit of its own is none; no limit at all is one that nothing reaches.
        body_limit: view.size("body_limit").map(|n| if n == 0 { u64::MAX } else { n }),
    })
}

fn versions(view: &View<'_>) -> BTreeMap<VersionName, Arc<VersionSpec>> {
    let mut paths: BTreeMap<String, &str> = BTreeMap::new();
    let mut versions = BTreeMap::new();
    for (name, node) in view.entries("versions") {
        let table = View::new(node, view.cx);
        let Some(spec) = version(&table) else { continue };
        if let Some(other) = spec.path.clone().and_then(|path| paths.insert(path, name)) {
            table.wrong_at("path", format!("already selects version {other:?}; each version needs a path of its own"));
        }
        if let Ok(name) = VersionName::new(name) {
            versions.insert(name, Arc::new(spec));
        }
    }
    versions
}

fn split(view: &View<'_>) -> Option<Weights> {
    let mut shares: Vec<(VersionName, BasisPoints)> = Vec::new();
    for (version, node) in view.entries("split") {
        shares.push((VersionName::new(version).ok()?, shape::percent(node).ok()?));
    }
    Weights::new(shares).map_err(|e| view.wrong_at("split", e.to_string())).ok()
}

/// One rule of `match`.
pub(super) fn rule(view: &View<'_>) -> MatchRule {
    let mut headers: Vec<_> = view.read("header", formats::header).map(|name| (name, None)).into_iter().collect();
    for (name, node) in view.entries("header") {
        let value = read_text(node, &formats::header_value, view.cx);
        headers.extend(formats::header(name).ok().map(|name| (name, value)));
    }
    headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    let mut methods = view.read_list("method", formats::method);
    if view.list("method").is_empty() {
        methods.extend(view.read("method", formats::method));
    }
    // In order and once, so that rules that say the same are equal.
    methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    methods.dedup();
    MatchRule {
        host: view.read("host", formats::host_pattern),
        path: view.read("path", formats::path),
        headers,
        methods,
    }
}

fn key_source(view: &View<'_>) -> Option<KeySource> {
    if view.get("header").is_some() {
        return view.read("header", formats::header).map(KeySource::Header);
    }
    if view.flag("address") == Some(true) {
        return Some(KeySource::Address);
    }
    if view.flag("tenant") == Some(true) {
        return Some(KeySource::Tenant);
    }
    let name = view.read("cookie", formats::cookie)?;
    Some(match view.flag("issue") {
        Some(true) => KeySource::Issued { name, max_age: view.duration("max_age").unwrap_or(COOKIE_AGE) },
        _ => KeySource::Cookie(name),
    })
}

/// Sources behind one that every request has are never looked at.
fn check_sticky(view: &View<'_>, sticky: &[KeySource]) {
    if sticky.len() > 1 && sticky.contains(&KeySource::Tenant) {
        view.wrong_at("sticky", "has tenant beside others; allowed is { tenant = true } alone, or sources without it");
        return;
    }
    let always = |source: &KeySource| matches!(source, KeySource::Address | KeySource::Issued { .. });
    if sticky.iter().position(always).is_some_and(|at| at + 1 < sticky.len()) {
        view.warn_at(
            "sticky",
            "every request has an address or gets an issued cookie; sources after it have no effect",
        );
    }
}

fn choose(view: &View<'_>) -> Option<ChooseSpec> {
    let secret = view.read("secret", formats::visible);
    // A tester's secret travels with every request and is guessed at by anyone.
    if secret.as_ref().is_some_and(|s| s.len() < 16) {
        view.warn_at("secret", "is short; 16 characters or more cannot be guessed");
    }
    view.exists().then(|| ChooseSpec {
        header: view.read("header", formats::header),
        cookie: view.read("cookie", formats::cookie),
        secret,
    })
}

fn headers(view: &View<'_>) -> HeaderSpec {
    let without = HeaderSpec::default();
    HeaderSpec {
        version: view.flag("version").unwrap_or(without.version),
        server_timing: view.flag("server_timing").unwrap_or(without.server_timing),
        forwarded: view.flag("forwarded").unwrap_or(without.forwarded),
    }
}

/// Checks across services: rules that two services claim, and what needs tenants.
pub(super) fn check_all(root: &View<'_>) {
    let identified = !root.table("tenants").list("identify").is_empty();
    let mut claimed: Vec<(MatchRule, &str)> = Vec::new();
    for (name, node) in root.entries("services") {
        let view = View::new(node, root.cx);
        for table in view.tables("match") {
            let rule = rule(&table);
            match claimed.iter().find(|(other, _)| *other == rule) {
                Some((_, owner)) if owner != name && rule != MatchRule::default() => {
                    table
                        .wrong(format!("is also a rule of the service {owner:?}; each rule may belong to one service"));
                }
                _ => claimed.push((rule, name)),
            }
        }
        if !identified {
            check_without_tenants(&view);
        }
    }
}

fn check_without_tenants(view: &View<'_>) {
    for (_, version) in view.entries("versions") {
        for node in View::new(version, view.cx).list("endpoints") {
            if matches!(&node.value, Value::Text(text) if text.contains("{tenant}")) {
                view.cx
                    .wrong(node, "has {tenant} and nothing identifies tenants; set tenants.identify, or name a host");
            }
        }
    }
    if view.tables("sticky").iter().any(|source| source.get("tenant").is_some()) {
        view.warn_at("sticky", "nothing identifies tenants, so every request is drawn afresh; set tenants.identify");
    }
}
