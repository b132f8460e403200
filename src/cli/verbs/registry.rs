//! `versions …` and `tenants …`: what a service has.

use serde_json::{Map, Value, json};

use super::{delete, or_nothing, put, receipt, split, text_or_nothing, version_use};
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::{Output, note};
use crate::cli::table::{Cell, Column, Ink, Look, Table};
use crate::cli::text::{Fields, percent, time};
use crate::cli::verb_args::{RegisterArgs, TenantsVerb, VersionsVerb};

/// Lists, registers or removes versions.
pub(super) fn versions(client: &Client, output: Output, verb: &VersionsVerb) -> Result<(), CliError> {
    match verb {
        VersionsVerb::List { service } => {
            let document = client.get(&Resource::new(&["services", service]))?;
            let versions = json!({"service": service, "versions": document.at("versions")});
            output.show(&versions, |look| version_table(&document, look))
        }
        VersionsVerb::Register(args) => {
            let resource = Resource::new(&["services", &args.service, "versions", &args.version]);
            let answer = put(client, resource, spec(args), &args.change)?;
            receipt(output, &answer, &format!("{}: version {} is registered", args.service, args.version))
        }
        VersionsVerb::Remove { service, version, change } => {
            let answer = delete(client, Resource::new(&["services", service, "versions", version]), change)?;
            receipt(output, &answer, &format!("{service}: version {version} is removed"))
        }
        VersionsVerb::Disable { service, version, change } => {
            version_use::disable(client, output, service, version, change)
        }
        VersionsVerb::Enable { service, version, change } => {
            version_use::enable(client, output, service, version, change)
        }
        VersionsVerb::Tenants { service, version, window, limit } => {
            version_use::tenants(client, output, service, version, window.as_ref(), *limit)
        }
    }
}

/// Lists tenants with a split of their own.
pub(super) fn tenants(client: &Client, output: Output, verb: &TenantsVerb) -> Result<(), CliError> {
    let TenantsVerb::List { service, search, after, limit } = verb;
    let resource = Resource::new(&["services", service, "tenants"])
        .with("after", after.as_ref())
        .with("limit", *limit)
        .with("search", search.as_ref());
    let document = client.get(&resource)?;
    output.show(&document, |look| split::tenants(&document, look))?;
    if let Some(next) = document.text("next") {
        note(&format!("there are more: --after {next}"));
    }
    Ok(())
}

/// The fields of the version as the configuration has them; only those that were given.
fn spec(args: &RegisterArgs) -> Value {
    let endpoints: Vec<String> = args.endpoints.iter().map(ToString::to_string).collect();
    let mut spec = Map::new();
    spec.insert("endpoints".to_owned(), json!(endpoints));
    let health = given([("path", &args.health_path), ("interval", &args.health_interval)]);
    let timeouts =
        given([("connect", &args.connect_timeout), ("response", &args.response_timeout), ("idle", &args.idle_timeout)]);
    let deprecated =
        given([("since", &args.deprecated_since), ("sunset", &args.sunset), ("link", &args.deprecation_link)]);
    for (key, table) in [("health", health), ("timeouts", timeouts), ("deprecated", deprecated)] {
        if !table.is_empty() {
            spec.insert(key.to_owned(), Value::Object(table));
        }
    }
    spec.extend(given([("path", &args.path), ("host", &args.host)]));
    if let Some((from, to)) = &args.rewrite {
        spec.insert("rewrite".to_owned(), json!({"from": from, "to": to}));
    }
    if args.http2 {
        spec.insert("http2".to_owned(), json!(true));
    }
    if args.tls {
        let files = [("ca", &args.tls_ca), ("cert", &args.tls_cert), ("key", &args.tls_key)];
        let mut tls = given([("server_name", &args.tls_server_name)]);
        tls.extend(given(files));
        spec.insert("tls".to_owned(), Value::Object(tls));
    }
    Value::Object(spec)
}

fn given<const N: usize>(fields: [(&str, &Option<String>); N]) -> Map<String, Value> {
    let field = |(key, value): (&str, &Option<String>)| Some((key.to_owned(), json!(value.as_ref()?)));
    fields.into_iter().filter_map(field).collect()
}

/// The versions of a service with their endpoints.
pub(super) fn version_table(service: &Value, look: Look) -> String {
    let mut table = Table::new([
        Column::Left("VERSION"),
        Column::Left("ROLE"),
        Column::Right("SHARE"),
        Column::Whole("HEALTHY"),
        Column::Left("FROM"),
        Column::Text("ENDPOINTS"),
    ])
    .dispensable(&["FROM"]);
    for version in service.list("versions") {
        let role = match version.text("role").as_deref() {
            Some("canary") => Cell::new(Ink::Canary, "canary"),
            Some("baseline") => Cell::new(Ink::Base, "baseline"),
            Some("disabled") => Cell::new(Ink::Bad, "disabled"),
            Some(other) => other.into(),
            None => "".into(),
        };
        let endpoints = version.list("endpoints");
        let up = endpoints.iter().filter(|e| e.is("healthy") && !e.is("ejected")).count();
        table.row([
            text_or_nothing(version, "name").into(),
            role,
            or_nothing(version.number("share"), percent).into(),
            up_of_all(up as u64, endpoints.len() as u64),
            text_or_nothing(version, "source").into(),
            endpoints.iter().map(endpoint).collect::<Vec<_>>().join(", ").into(),
        ]);
    }
    table.render(look) + &version_remarks(service, look)
}

/// Below the table, because they are sentences: which versions are disabled and deprecated.
fn version_remarks(service: &Value, look: Look) -> String {
    let mut text = String::new();
    let mut say = |line: String| {
        text.push_str(&look.paint(Ink::Warn, &line));
        text.push('\n');
    };
    for version in service.list("versions") {
        let name = text_or_nothing(version, "name");
        let disabled = version.at("disabled");
        if disabled.is_object() {
            let by = disabled.at("author");
            let by = by.text("name").or_else(|| by.text("kind")).unwrap_or_default();
            let reason = disabled.text("reason").filter(|r| !r.is_empty());
            let reason = reason.map(|r| format!(": {r}")).unwrap_or_default();
            say(format!("{name}: disabled by {by} since {}{reason}", time(disabled.at("since"))));
        }
        if version.at("spec").at("tls").at("verify") == &Value::Bool(false) {
            say(format!("{name}: certificates of its endpoints are not verified"));
        }
        if let Some(deprecated) = version_use::deprecation(version.at("spec").at("deprecated")) {
            say(format!("{name}: {deprecated}"));
        }
    }
    text
}

fn endpoint(endpoint: &Value) -> String {
    let address = text_or_nothing(endpoint, "address");
    match (endpoint.is("healthy"), endpoint.is("ejected")) {
        (_, true) => format!("{address} (left out)"),
        (false, false) => format!("{address} (down)"),
        (true, false) => address,
    }
}

/// `2/2`, coloured by whether all are up.
pub(super) fn up_of_all(up: u64, all: u64) -> Cell {
    let ink = match up {
        up if up == all => Ink::Good,
        0 => Ink::Bad,
        _ => Ink::Warn,
    };
    Cell::new(ink, format!("{up}/{all}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_show_which_endpoints_are_down() {
        let service = json!({"versions": [
            {"name": "1.0.0", "role": "baseline", "share": 100, "source": "file", "endpoints": [
                {"address": "a:1", "healthy": true, "ejected": false},
                {"address": "b:1", "healthy": false, "ejected": false},
                {"address": "c:1", "healthy": true, "ejected": true}]},
            {"name": "2.0.0", "role": "idle", "share": 0, "source": "api", "endpoints": []},
        ]});
        let expected = "\
VERSION  ROLE      SHARE  HEALTHY  FROM  ENDPOINTS
1.0.0    baseline  100 %  1/3      file  a:1, b:1 (down), c:1 (left out)
2.0.0    idle        0 %  0/0      api
";
        assert_eq!(version_table(&service, Look::default()), expected);
    }
}
