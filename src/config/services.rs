//! `[services.X]`: which requests belong to a service, what keeps users on a version, and its versions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::tree::Value;
use super::version::version;
use super::view::{View, read_text};
use super::{formats, guard, limits, maintenance, shadow, shape, streams, windows};
use crate::model::{
    BasisPoints, ChooseSpec, HeaderSpec, KeySource, MatchRule, RescueSpec, RoutePattern, ServiceName, ServiceSpec,
    SessionSpec, Sticky, VersionName, VersionSpec, Weights,
};

/// How long clients keep an issued cookie when the file does not say.
const COOKIE_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a request may take until its answer's head when the file does not say.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a session lasts without a request when the file does not say.
const SESSION_TTL: Duration = Duration::from_secs(3600);

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
    let sticky: Vec<_> = view.tables("sticky").iter().filter_map(|source| sticky(name, source)).collect();
    check_sticky(view, &sticky);
    let drain = view.flag("drain").unwrap_or(false);
    check_sessions(view, &sticky, drain);
    Some(ServiceSpec {
        name: ServiceName::new(name).ok()?,
        rules: view.tables("match").iter().map(rule).collect(),
        sticky,
        drain,
        baseline: baseline?,
        split: split?,
        salt: view.read("salt", formats::not_empty),
        choose: choose(&view.table("choose")),
        versions,
        guard: Arc::new(guard::guard(&view.table("guard"))),
        headers: headers(&view.table("headers")),
        shadow: shadow::shadow(view).map(Arc::new),
        retries: view.integer("retries").unwrap_or(1),
        deadline: view.duration("deadline").unwrap_or(DEADLINE),
        rescue: rescue(view),
        client_certificate: view.flag("client_certificate").unwrap_or(false),
        skew: view.read_list("skew", formats::path),
        // No limit of its own is none; no limit at all is one that nothing reaches.
        limits: limits::limits(&view.table("limits")),
        body_limit: view.size("body_limit").map(|n| if n == 0 { u64::MAX } else { n }),
        maintenance: maintenance::maintenance(&view.table("maintenance")),
        grpc_failures: match view.get("grpc_failures") {
            Some(_) => view.integers("grpc_failures"),
            None => ServiceSpec::GRPC_FAILURES.to_vec(),
        },
        streams: streams::streams(&view.table("streams")),
        route_stats: view.flag("route_stats").unwrap_or(true),
        routes: routes(view),
        windows: windows::schedule(view, "windows"),
    })
}

/// Routes that the operator names, each once.
fn routes(view: &View<'_>) -> Vec<RoutePattern> {
    let mut routes: Vec<RoutePattern> = Vec::new();
    for node in view.list("routes") {
        let Some(route) = read_text(node, &formats::route, view.cx) else { continue };
        match routes.iter().find(|other| other.is_same(&route)) {
            Some(other) => view.cx.wrong(node, format!("stands for the same requests as {:?}", other.as_str())),
            None => routes.push(route),
        }
    }
    let most = RoutePattern::MAX_PER_SERVICE;
    if routes.len() > most {
        view.wrong_at("routes", format!("has {} routes; allowed are up to {most}", routes.len()));
    }
    if !routes.is_empty() && view.flag("route_stats") == Some(false) {
        view.warn_at("routes", "route_stats is false, so routes have no effect");
    }
    routes
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

fn sticky(service: &str, view: &View<'_>) -> Option<Sticky> {
    let session = (view.flag("session") == Some(true)).then(|| SessionSpec {
        cookie: view.read("session_cookie", formats::cookie).unwrap_or_else(|| format!("sb_session_{service}")),
        ttl: view.duration("session_ttl").unwrap_or(SESSION_TTL),
    });
    Some(Sticky { source: key_source(view)?, session })
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
fn check_sticky(view: &View<'_>, sticky: &[Sticky]) {
    if sticky.len() > 1 && sticky.iter().any(|s| s.source == KeySource::Tenant) {
        view.wrong_at("sticky", "has tenant beside others; allowed is { tenant = true } alone, or sources without it");
        return;
    }
    let always = |s: &Sticky| matches!(s.source, KeySource::Address | KeySource::Issued { .. });
    if sticky.iter().position(always).is_some_and(|at| at + 1 < sticky.len()) {
        view.warn_at(
            "sticky",
            "every request has an address or gets an issued cookie; sources after it have no effect",
        );
    }
}

/// A session's cookie must not be one that means something else.
fn check_sessions(view: &View<'_>, sticky: &[Sticky], drain: bool) {
    let key = |s: &Sticky| match &s.source {
        KeySource::Cookie(name) | KeySource::Issued { name, .. } => Some(name.clone()),
        _ => None,
    };
    let chooses = view.table("choose").read("cookie", formats::cookie);
    let taken: Vec<_> = sticky.iter().filter_map(key).chain(chooses).collect();
    let mut sessions = sticky.iter().filter_map(|s| s.session.as_ref());
    if let Some(session) = sessions.clone().find(|s| taken.contains(&s.cookie)) {
        let message = format!("the session's cookie {:?} is also another cookie of this service", session.cookie);
        view.wrong_at("sticky", format!("{message}; allowed is a session_cookie of its own"));
    }
    if drain && sessions.next().is_none() {
        view.warn_at("drain", "no sticky source keeps sessions, so drain has no effect");
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

/// `true`, or a table with what is not the default.
fn rescue(service: &View<'_>) -> Option<RescueSpec> {
    if service.flag("rescue") == Some(false) || service.get("rescue").is_none() {
        return None;
    }
    let view = service.table("rescue");
    let mut spec = RescueSpec::default();
    if view.get("methods").is_some() {
        spec.methods = view.read_list("methods", formats::method);
    }
    if view.get("statuses").is_some() {
        spec.statuses = view.integers("statuses");
    }
    if view.get("grpc").is_some() {
        spec.grpc = view.integers("grpc");
    }
    spec.budget = view.share("budget").unwrap_or(spec.budget);
    spec.reserve = view.integer("reserve").unwrap_or(spec.reserve);
    spec.rate = view.integer("rate");
    if spec.budget == BasisPoints::ZERO && spec.reserve == 0 {
        service.warn_at("rescue", "has a budget and a reserve of 0, so nothing is rescued; false says the same");
    }
    Some(spec)
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
    let asked = root.table("proxy").tables("tls").iter().any(|listener| listener.get("client_ca").is_some());
    let groups: Vec<_> = root.table("tenants").entries("groups").iter().map(|(name, _)| name.as_str()).collect();
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
        limits::check_groups(&view.table("limits"), &groups);
        if !identified {
            check_without_tenants(&view);
        }
        if !asked && view.flag("client_certificate") == Some(true) {
            view.wrong_at(
                "client_certificate",
                "is true and no client can show one; set proxy.tls.client_ca, or false",
            );
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
