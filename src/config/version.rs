//! A version of a service: from the file, from the admin API, and back to what the admin API shows.

use serde_json::{Map, Value as Json, json};

use super::context::Context;
use super::formats::{self, duration_text};
use super::keys_services::VERSION_TABLE;
use super::kinds::Kind;
use super::mistake::FieldMistake;
use super::view::View;
use super::{shape, tree};
use crate::model::{ClientFiles, Deprecation, HealthSpec, Rewrite, Timeouts, UpstreamTls, VersionSpec};

/// Reads a version as the admin API takes it: the same fields as in the file, `null` for absent ones. Variables are not
/// replaced. `{tenant}` in endpoints is taken; whether tenants are identified at all is for the caller to ask.
///
/// # Errors
/// Every field that is unknown, missing or wrong.
pub fn version_from_json(value: &Json) -> Result<VersionSpec, Vec<FieldMistake>> {
    let root = tree::from_json(value, String::new());
    let cx = Context::new(std::path::Path::new(""), Vec::new(), &|_| Err(std::io::ErrorKind::Unsupported.into()));
    match value {
        // `null` means absent everywhere else; here it would pass as a body that was reported already.
        Json::Object(_) => shape::check(&root, &Kind::Table(&VERSION_TABLE), &cx),
        _ => cx.wrong(
            &root,
            format!("the body is no object; allowed is {}", shape::allowed(&Kind::Table(&VERSION_TABLE))),
        ),
    }
    let spec = version(&View::new(&root, &cx));
    let (mistakes, _, _) = cx.finish();
    match spec {
        Some(spec) if mistakes.is_empty() => Ok(spec),
        _ => Err(mistakes.into_iter().map(|m| FieldMistake { field: m.key, message: m.message }).collect()),
    }
}

/// Shows a version with the fields of the file: what [`version_from_json`] reads back as the same version. Durations are
/// rounded up to whole milliseconds.
pub fn version_to_json(spec: &VersionSpec) -> Json {
    let mut out = Map::new();
    let endpoints: Vec<_> = spec.endpoints.iter().map(ToString::to_string).collect();
    out.insert("endpoints".to_owned(), json!(endpoints));
    if let Some(health) = &spec.health {
        out.insert("health".to_owned(), health_to_json(health));
    }
    let Timeouts { connect, response, read, idle, stream, keepalive, unknown: _ } = &spec.timeouts;
    let timeouts = json!({
        "connect": duration_text(*connect),
        "response": duration_text(*response),
        "read": duration_text(*read),
        "idle": duration_text(*idle),
        "stream": duration_text(*stream),
        "keepalive": duration_text(*keepalive),
    });
    out.insert("timeouts".to_owned(), timeouts);
    if let Some(path) = &spec.path {
        out.insert("path".to_owned(), json!(path));
    }
    if let Some(Rewrite { from, to, unknown: _ }) = &spec.rewrite {
        out.insert("rewrite".to_owned(), json!({ "from": from, "to": to }));
    }
    out.insert("http2".to_owned(), json!(spec.http2));
    if let Some(tls) = &spec.tls {
        out.insert("tls".to_owned(), tls_to_json(tls));
    }
    if let Some(host) = &spec.host {
        out.insert("host".to_owned(), json!(host));
    }
    if let Some(deprecated) = &spec.deprecated {
        out.insert("deprecated".to_owned(), deprecation_to_json(deprecated));
    }
    if !spec.upgrade_from.is_empty() {
        out.insert("upgrade_from".to_owned(), json!(spec.upgrade_from));
    }
    Json::Object(out)
}

fn tls_to_json(tls: &UpstreamTls) -> Json {
    let UpstreamTls { server_name, verify, ca, client, unknown: _ } = tls;
    let mut out = Map::new();
    let (cert, key) = client.as_ref().map(|c| (&c.cert, &c.key)).unzip();
    for (name, value) in [("server_name", server_name.as_ref()), ("ca", ca.as_ref()), ("cert", cert), ("key", key)] {
        out.extend(value.map(|value| (name.to_owned(), json!(value))));
    }
    out.insert("verify".to_owned(), json!(verify));
    Json::Object(out)
}

fn health_to_json(health: &HealthSpec) -> Json {
    let mut out = Map::new();
    if let Some(path) = &health.path {
        out.insert("path".to_owned(), json!(path));
    }
    out.insert("interval".to_owned(), json!(duration_text(health.interval)));
    out.insert("timeout".to_owned(), json!(duration_text(health.timeout)));
    out.insert("healthy_after".to_owned(), json!(health.healthy_after));
    out.insert("unhealthy_after".to_owned(), json!(health.unhealthy_after));
    Json::Object(out)
}

/// Shows a deprecation with the fields of the file; a first moment of a day in UTC is shown as a date.
pub fn deprecation_to_json(deprecated: &Deprecation) -> Json {
    let mut out = Map::new();
    out.insert("since".to_owned(), json!(formats::date_text(deprecated.since_s)));
    if let Some(sunset_s) = deprecated.sunset_s {
        out.insert("sunset".to_owned(), json!(formats::date_text(sunset_s)));
    }
    if let Some(link) = &deprecated.link {
        out.insert("link".to_owned(), json!(link));
    }
    Json::Object(out)
}

/// A version's table.
pub(super) fn version(view: &View<'_>) -> Option<VersionSpec> {
    let endpoints = view.read_list("endpoints", formats::endpoint);
    distinct_endpoints(view);
    if endpoints.is_empty() {
        return None;
    }
    let tls = view.table("tls");
    let rewrite = view.table("rewrite");
    Some(VersionSpec {
        endpoints,
        health: Some(view.table("health")).filter(View::exists).map(|health| health_spec(&health)),
        timeouts: timeouts(&view.table("timeouts")),
        path: view.read("path", formats::path),
        rewrite: match (rewrite.read("from", formats::path), rewrite.read("to", formats::path)) {
            (Some(from), Some(to)) => Some(Rewrite { from, to, unknown: Default::default() }),
            _ => None,
        },
        http2: view.flag("http2").unwrap_or(false),
        tls: tls.exists().then(|| upstream_tls(&tls)),
        host: view.read("host", formats::host_port),
        deprecated: deprecation(&view.table("deprecated")),
        upgrade_from: view.read_list("upgrade_from", formats::name),
        unknown: Default::default(),
    })
}

/// Files stay as they are written, so that a version shows what was given.
fn upstream_tls(view: &View<'_>) -> UpstreamTls {
    let file = |key| view.existing_file(key).and_then(|_| view.text(key).map(str::to_owned));
    let verify = view.flag("verify").unwrap_or(true);
    let spec = UpstreamTls {
        server_name: view.read("server_name", formats::host),
        verify,
        ca: file("ca"),
        client: file("cert").zip(file("key")).map(|(cert, key)| ClientFiles { cert, key, unknown: Default::default() }),
        unknown: Default::default(),
    };
    if !verify && spec.ca.is_some() {
        view.wrong_at("ca", "means nothing when verify is false; allowed is verify = true, or no ca");
    }
    spec
}

fn deprecation(view: &View<'_>) -> Option<Deprecation> {
    let since_s = view.date("since")?;
    let sunset_s = view.date("sunset");
    if sunset_s.is_some_and(|sunset| sunset < since_s) {
        let since = formats::date_text(since_s);
        view.wrong_at("sunset", format!("is before the deprecation itself; allowed is {since} or later"));
    }
    Some(Deprecation { since_s, sunset_s, link: view.read("link", formats::link), unknown: Default::default() })
}

fn distinct_endpoints(view: &View<'_>) {
    let mut seen = std::collections::BTreeSet::new();
    for node in view.list("endpoints") {
        let endpoint = super::view::read_text(node, &formats::endpoint, view.cx);
        if endpoint.is_some_and(|endpoint| !seen.insert(endpoint)) {
            view.cx.wrong(node, "is the same as an endpoint before; each address may stand once");
        }
    }
}

fn health_spec(view: &View<'_>) -> HealthSpec {
    let without = HealthSpec::default();
    HealthSpec {
        path: view.read("path", formats::target),
        interval: view.duration("interval").unwrap_or(without.interval),
        timeout: view.duration("timeout").unwrap_or(without.timeout),
        healthy_after: view.integer("healthy_after").unwrap_or(without.healthy_after),
        unhealthy_after: view.integer("unhealthy_after").unwrap_or(without.unhealthy_after),
        unknown: Default::default(),
    }
}

fn timeouts(view: &View<'_>) -> Timeouts {
    let without = Timeouts::default();
    Timeouts {
        connect: view.duration("connect").unwrap_or(without.connect),
        response: view.duration("response").unwrap_or(without.response),
        read: view.duration("read").unwrap_or(without.read),
        idle: view.duration("idle").unwrap_or(without.idle),
        stream: view.duration("stream").unwrap_or(without.stream),
        keepalive: view.duration("keepalive").unwrap_or(without.keepalive),
        unknown: Default::default(),
    }
}
