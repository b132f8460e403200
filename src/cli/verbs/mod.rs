//! The verbs that call the admin API: each asks, then shows the answer as a table or as the API's own document.

mod events;
mod explain;
mod freeze;
mod health;
mod keys;
mod maintenance;
mod notify;
mod registry;
mod reload;
mod rollback;
mod rollout;
mod rollout_view;
mod services;
mod shadow;
mod simulate;
mod snapshot;
mod split;
mod stats;
mod status;
mod steer;
mod upgrade;
mod version_use;

use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::address::Resource;
use super::args::Command;
use super::bars::split_text;
use super::client::{Asked, Client};
use super::error::CliError;
use super::output::Output;
use super::table::{Cell, Ink};
use super::text::{Fields, NOTHING};
use super::verb_args::{ChangeArgs, HowArgs};

/// Does what the command says.
pub(super) fn call(command: Command, client: &Client, output: Output) -> Result<(), CliError> {
    match command {
        Command::Top(args) => super::top::top(client, output, &args),
        Command::Status(args) => status::status(client, output, &args),
        Command::Health => health::health(client, output),
        Command::Services { verb } => services::services(client, output, verb.as_ref()),
        Command::Split(verb) => split::split(client, output, &verb),
        Command::Versions(verb) => registry::versions(client, output, &verb),
        Command::Tenants(verb) => registry::tenants(client, output, &verb),
        Command::Pin(args) => steer::pin(client, output, &args),
        Command::Unpin(args) => steer::unpin(client, output, &args),
        Command::Hold(args) => steer::hold(client, output, &args),
        Command::Release(args) => steer::release(client, output, &args),
        Command::Freeze(args) => freeze::freeze(client, output, &args),
        Command::Unfreeze(args) => freeze::unfreeze(client, output, &args),
        Command::Snapshot(verb) => snapshot::snapshot(client, output, &verb),
        Command::Baseline(args) => steer::baseline(client, output, &args),
        Command::Maintenance(verb) => maintenance::maintenance(client, output, &verb),
        Command::Rollout(verb) => rollout::rollout(client, output, &verb),
        Command::Simulate(args) => simulate::simulate(client, output, &args),
        Command::Rollback(args) => rollback::rollback(client, output, &args),
        Command::Compare(args) => stats::compare(client, output, &args),
        Command::Shadow(args) => shadow::shadow(client, output, &args),
        Command::Stats(args) => stats::stats(client, output, &args),
        Command::Explain(args) => explain::explain(client, output, &args),
        Command::Events(args) => events::events(client, output, &args),
        Command::Keys(verb) => keys::keys(client, output, &verb),
        Command::Notify { verb } => notify::notify(client, output, verb.as_ref()),
        Command::Reload => reload::reload(client, output),
        Command::Upgrade => upgrade::upgrade(client, output),
        Command::Serve(_)
        | Command::Check(_)
        | Command::Demo { .. }
        | Command::Schema
        | Command::Import { .. }
        | Command::Completions { .. }
        | Command::Complete { .. }
        | Command::Man { .. }
        | Command::Version => Ok(()),
    }
}

/// Asks for a PUT, with the reason in the body.
fn put(client: &Client, resource: Resource, body: Value, change: &ChangeArgs) -> Result<Value, CliError> {
    let body = with_reason(body, change.reason.as_deref());
    ask(client, Method::PUT, resource, Some(body), &change.how)
}

/// Asks for a DELETE, with the reason in the query because there is no body.
fn delete(client: &Client, resource: Resource, change: &ChangeArgs) -> Result<Value, CliError> {
    ask(client, Method::DELETE, resource.with("reason", change.reason.as_ref()), None, &change.how)
}

fn ask(
    client: &Client,
    method: Method,
    resource: Resource,
    body: Option<Value>,
    how: &HowArgs,
) -> Result<Value, CliError> {
    let resource = resource.with("dry_run", how.dry_run.then_some(true));
    client.change(Asked { method, resource, body, if_revision: &how.if_revision })
}

fn with_reason(mut body: Value, reason: Option<&str>) -> Value {
    if let (Some(map), Some(reason)) = (body.as_object_mut(), reason) {
        map.insert("reason".to_owned(), json!(reason));
    }
    body
}

/// What a change did, in a sentence; for a dry run, what it would do.
fn receipt(output: Output, receipt: &Value, sentence: &str) -> Result<(), CliError> {
    output.show(receipt, |_| format!("{}\n", receipt_text(receipt, sentence)))
}

fn receipt_text(receipt: &Value, sentence: &str) -> String {
    if receipt.is("dry_run") {
        return format!("dry run, nothing was changed: {sentence}");
    }
    let numbers: Vec<String> = ["revision", "event"]
        .into_iter()
        .filter_map(|key| receipt.count(key).map(|number| format!("{key} {number}")))
        .collect();
    if numbers.is_empty() { sentence.to_owned() } else { format!("{sentence} ({})", numbers.join(", ")) }
}

/// The shares of a split document, the baseline first if it is known, then the largest.
///
/// Receipts may hold a split as the store keeps it, in slices of the bucket range, rather than as weights.
fn weights_of(document: &Value, baseline: Option<&str>) -> Vec<(String, f64)> {
    let mut weights = match document.at("weights") {
        Value::Object(map) => shares(map),
        _ => slices(document.list("slices")),
    };
    if weights.is_empty() && document.get("split").is_some() {
        return weights_of(document.at("split"), baseline);
    }
    let is_baseline = |version: &str| baseline == Some(version);
    weights.sort_by(|a, b| is_baseline(&b.0).cmp(&is_baseline(&a.0)).then(b.1.total_cmp(&a.1)));
    weights
}

fn shares(map: &Map<String, Value>) -> Vec<(String, f64)> {
    map.iter().filter_map(|(version, share)| Some((version.clone(), share.as_f64()?))).collect()
}

fn slices(slices: &[Value]) -> Vec<(String, f64)> {
    let mut begin = 0.0;
    let mut weights: Vec<(String, f64)> = Vec::new();
    for slice in slices {
        let (Some(end), Some(version)) = (slice.number("end"), slice.text("version")) else { continue };
        let share = (end - begin) / 100.0;
        begin = end;
        match weights.iter_mut().find(|(known, _)| *known == version) {
            Some((_, sum)) => *sum += share,
            None => weights.push((version, share)),
        }
    }
    weights
}

/// The weights, or a dash where there are none.
fn weights_text(document: &Value, baseline: Option<&str>) -> String {
    let weights = weights_of(document, baseline);
    if weights.is_empty() { NOTHING.to_owned() } else { split_text(&weights) }
}

/// A verdict in words.
fn verdict(value: &Value) -> Cell {
    match value.as_str() {
        Some("healthy") => Cell::new(Ink::Good, "healthy"),
        Some("breach") => Cell::new(Ink::Bad, "breach"),
        Some("not_enough_evidence") => Cell::new(Ink::Warn, "not enough evidence"),
        Some(other) => other.replace('_', " ").into(),
        None => NOTHING.into(),
    }
}

/// A number shown that way, or a dash.
fn or_nothing(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| NOTHING.to_owned(), show)
}

/// A text field, or a dash.
fn text_or_nothing(value: &Value, key: &str) -> String {
    value.text(key).unwrap_or_else(|| NOTHING.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_come_as_shares_or_slices() {
        let document = json!({"weights": {"2.0.0": 10, "1.0.0": 90}});
        assert_eq!(weights_text(&document, Some("2.0.0")), "2.0.0 10 %, 1.0.0 90 %");
        assert_eq!(weights_text(&document, None), "1.0.0 90 %, 2.0.0 10 %");
        let slices = json!({"split": {"slices": [
            {"end": 1000, "version": "2"}, {"end": 9000, "version": "1"}, {"end": 10000, "version": "2"}]}});
        assert_eq!(weights_text(&slices, Some("1")), "1 80 %, 2 20 %");
        assert_eq!(weights_text(&Value::Null, None), "-");
    }

    #[test]
    fn receipts_tell_dry_runs_from_changes() {
        let receipt = json!({"revision": 17, "event": 42, "dry_run": false});
        assert_eq!(receipt_text(&receipt, "done"), "done (revision 17, event 42)");
        assert_eq!(receipt_text(&json!({"dry_run": true}), "done"), "dry run, nothing was changed: done");
        assert_eq!(receipt_text(&json!({}), "done"), "done");
    }
}
