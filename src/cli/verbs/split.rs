//! `split get`, `split set`, `split clear`: which version gets which share.

use serde_json::{Value, json};

use super::{delete, put, receipt, text_or_nothing, weights_of, weights_text};
use crate::cli::address::Resource;
use crate::cli::bars::share_bar;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Cell, Column, Ink, Look, Table};
use crate::cli::text::{Fields, percent, time};
use crate::cli::verb_args::{ScopeArgs, SplitVerb};
use crate::cli::weights::SplitArg;

/// Shows, sets or clears.
pub(super) fn split(client: &Client, output: Output, verb: &SplitVerb) -> Result<(), CliError> {
    match verb {
        SplitVerb::Get { service, scope } => {
            let document = client.get(&place(service, scope))?;
            output.show(&document, |look| people(&document, &whose(service, scope), look))
        }
        SplitVerb::Set { service, weights, scope, change } => {
            let weights = SplitArg::new(weights).map_err(|e| CliError::Usage(e.to_string()))?;
            let answer = put(client, place(service, scope), json!({"weights": weights.to_json()}), change)?;
            receipt(output, &answer, &format!("{}: {}", whose(service, scope), moved(&answer)))
        }
        SplitVerb::Clear { service, scope, change } => {
            let answer = delete(client, place(service, scope), change)?;
            let sentence = format!("{} follows the less specific split again", whose(service, scope));
            receipt(output, &answer, &sentence)
        }
    }
}

/// The split document of a service, group or tenant.
pub(super) fn place(service: &str, scope: &ScopeArgs) -> Resource {
    match (&scope.tenant, &scope.group) {
        (Some(tenant), _) => Resource::new(&["services", service, "tenants", tenant, "split"]),
        (None, Some(group)) => Resource::new(&["services", service, "groups", group, "split"]),
        (None, None) => Resource::new(&["services", service, "split"]),
    }
}

fn whose(service: &str, scope: &ScopeArgs) -> String {
    match (&scope.tenant, &scope.group) {
        (Some(tenant), _) => format!("{service}, tenant {tenant}"),
        (None, Some(group)) => format!("{service}, group {group}"),
        (None, None) => service.to_owned(),
    }
}

/// From where to where the shares went.
pub(super) fn moved(receipt: &Value) -> String {
    let (before, after) = (receipt.at("before"), receipt.at("after"));
    match (weights_of(before, None).is_empty(), weights_of(after, None).is_empty()) {
        (false, false) => format!("{} → {}", weights_text(before, None), weights_text(after, None)),
        (true, false) => weights_text(after, None),
        _ => "the split is set".to_owned(),
    }
}

/// The split with a bar for each version, and whatever is special about it.
pub(super) fn people(document: &Value, whose: &str, look: Look) -> String {
    let mut text = look.paint(Ink::Bold, whose);
    if let Some(source) = document.text("source") {
        text.push_str(&format!("  (split of the {source})"));
    }
    text.push('\n');
    let mut table = Table::new([Column::Left("VERSION"), Column::Right("SHARE"), Column::Left("")]);
    for (version, share) in weights_of(document, None) {
        table.row([version.into(), percent(share).into(), share_bar(share, 20, Ink::Base)]);
    }
    text.push_str(&table.render(look));
    for line in remarks(document) {
        text.push_str(&line);
        text.push('\n');
    }
    if let Some(revision) = document.count("revision") {
        text.push_str(&format!("revision {revision}\n"));
    }
    text
}

fn remarks(document: &Value) -> Vec<String> {
    let mut remarks = Vec::new();
    if document.is("braked") || document.at("intended").is_object() {
        let intended = weights_text(&json!({"weights": document.at("intended")}), None);
        remarks.push(format!("braked while evidence is being confirmed; intended: {intended}"));
    }
    remarks.extend(rolled_back(document));
    remarks
}

/// That a version was rolled back, and when.
pub(super) fn rolled_back(document: &Value) -> Option<String> {
    let rolled = document.at("rolled_back");
    let version = rolled.text("version")?;
    let at = time(rolled.at(if rolled.get("at").is_some() { "at" } else { "at_ms" }));
    Some(format!("{version} was rolled back at {at} (event {})", rolled.count("event").unwrap_or(0)))
}

/// Splits of groups or tenants below each other.
pub(super) fn list<'a>(
    head: &str,
    splits: impl Iterator<Item = (String, &'a Value)>,
    baseline: Option<&str>,
    look: Look,
) -> String {
    let mut table = Table::new([Column::Left(head), Column::Left("SPLIT"), Column::Text("REMARK")]);
    for (name, split) in splits {
        let remark = remarks(split).join("; ");
        table.row([name.into(), weights_text(split, baseline).into(), Cell::new(Ink::Warn, remark)]);
    }
    if table.is_empty() { String::new() } else { table.render(look) }
}

/// Tenants with a split of their own.
pub(super) fn tenants(document: &Value, look: Look) -> String {
    let rows = document.list("tenants").iter().map(|t| (text_or_nothing(t, "name"), t.at("split")));
    match list("TENANT", rows, None, look) {
        text if text.is_empty() => "no tenant has a split of its own\n".to_owned(),
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_shows_bars_and_what_is_special() {
        let document = json!({
            "weights": {"1.0.0": 95, "2.0.0": 5}, "intended": {"1.0.0": 75, "2.0.0": 25}, "braked": true,
            "source": "service", "revision": 17, "rolled_back": {"version": "3.0.0", "at": "then", "event": 9},
        });
        let expected = "\
accounting  (split of the service)
VERSION  SHARE
1.0.0     95 %  ███████████████████░
2.0.0      5 %  █░░░░░░░░░░░░░░░░░░░
braked while evidence is being confirmed; intended: 1.0.0 75 %, 2.0.0 25 %
3.0.0 was rolled back at then (event 9)
revision 17
";
        assert_eq!(people(&document, "accounting", Look::default()), expected);
    }

    #[test]
    fn a_receipt_tells_from_where_to_where() {
        let receipt = json!({"before": {"weights": {"1": 100}}, "after": {"weights": {"1": 90, "2": 10}}});
        assert_eq!(moved(&receipt), "1 100 % → 1 90 %, 2 10 %");
        assert_eq!(moved(&json!({"after": {"weights": {"1": 100}}})), "1 100 %");
        assert_eq!(moved(&json!({})), "the split is set");
    }
}
