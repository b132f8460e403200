//! `snapshot`: taking, listing, comparing, restoring and deleting points to go back to.

use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::{ask, receipt, text_or_nothing, weights_text, with_reason};
use crate::cli::address::Resource;
use crate::cli::bars::split_text;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::global_args::SnapshotVerb;
use crate::cli::output::Output;
use crate::cli::table::{Column, Look, Table};
use crate::cli::text::{Fields, NOTHING, clean, counted, percent, time};
use crate::cli::verb_args::HowArgs;

/// Does what the verb says.
pub(super) fn snapshot(client: &Client, output: Output, verb: &SnapshotVerb) -> Result<(), CliError> {
    let of = |name: &str| Resource::new(&["snapshots", name]);
    match verb {
        SnapshotVerb::Create { name, services, reason, dry_run } => {
            let body = Map::from_iter(name.iter().map(|name| ("name".to_owned(), json!(name))));
            let body = with_reason(with_services(body, services), reason.as_deref());
            let resource = Resource::new(&["snapshots"]);
            let answer = ask(client, Method::POST, resource, Some(body), &how(*dry_run))?;
            let taken = text_or_nothing(answer.at("after"), "snapshot");
            receipt(output, &answer, &format!("snapshot {taken} is taken"))
        }
        SnapshotVerb::List => {
            let document = client.get(&Resource::new(&["snapshots"]))?;
            output.show(&document, |look| list(&document, look))
        }
        SnapshotVerb::Get { name } => {
            let document = client.get(&of(name))?;
            output.show(&document, |look| one(&document, look))
        }
        SnapshotVerb::Diff { name, services, force, limit } => {
            let resource = Resource::new(&["snapshots", name, "diff"]).with_each("service", services);
            let resource = resource.with("force", force.then_some(true)).with("limit", *limit);
            let document = client.get(&resource)?;
            output.show(&document, |look| diff(&document, look))
        }
        SnapshotVerb::Restore { name, services, force, reason, dry_run } => {
            let mut body = Map::new();
            if *force {
                body.insert("force".to_owned(), json!(true));
            }
            let body = with_reason(with_services(body, services), Some(reason));
            let resource = Resource::new(&["snapshots", name, "restore"]);
            let client = client.patient().doing("going back to the snapshot");
            let answer = ask(&client, Method::POST, resource, Some(body), &how(*dry_run))?;
            receipt(output, &answer, &restored(name, answer.at("after").at("services")))
        }
        SnapshotVerb::Delete { name, reason, dry_run } => {
            let resource = of(name).with("reason", reason.as_ref());
            let answer = ask(client, Method::DELETE, resource, None, &how(*dry_run))?;
            receipt(output, &answer, &format!("snapshot {name} is deleted"))
        }
    }
}

fn how(dry_run: bool) -> HowArgs {
    HowArgs { dry_run, if_revision: None }
}

fn with_services(mut body: Map<String, Value>, services: &[String]) -> Value {
    if !services.is_empty() {
        body.insert("services".to_owned(), json!(services));
    }
    Value::Object(body)
}

fn entries(value: &Value) -> impl Iterator<Item = (String, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (clean(name).into_owned(), value))
}

fn list(document: &Value, look: Look) -> String {
    let mut table = Table::new([
        Column::Left("NAME"),
        Column::Whole("TAKEN"),
        Column::Left("BY"),
        Column::Right("SERVICES"),
        Column::Right("TENANTS"),
        Column::Right("PINS"),
        Column::Text("REASON"),
    ])
    .dispensable(&["PINS", "BY"]);
    for snapshot in document.list("snapshots") {
        let by = snapshot.at("author");
        let services = snapshot.at("services");
        let sum = |key: &str| entries(services).filter_map(|(_, s)| s.count(key)).sum::<u64>().to_string();
        table.row([
            text_or_nothing(snapshot, "name").into(),
            time(snapshot.at("at")).into(),
            by.text("name").or_else(|| by.text("kind")).unwrap_or_default().into(),
            entries(services).count().to_string().into(),
            sum("tenants").into(),
            sum("pins").into(),
            snapshot.text("reason").unwrap_or_default().into(),
        ]);
    }
    if table.is_empty() { "there are no snapshots\n".to_owned() } else { table.render(look) }
}

fn one(document: &Value, look: Look) -> String {
    let by = document.at("author");
    let by = by.text("name").or_else(|| by.text("kind")).unwrap_or_default();
    let (name, at) = (text_or_nothing(document, "name"), time(document.at("at")));
    let revision = document.count("revision").unwrap_or_default();
    let mut text = format!("snapshot {name} of {at} by {by}, revision {revision}");
    match document.text("reason").filter(|reason| !reason.is_empty()) {
        Some(reason) => text.push_str(&format!(": {reason}\n")),
        None => text.push('\n'),
    }
    let mut table = Table::new([Column::Left("SERVICE"), Column::Left("SCOPE"), Column::Text("SPLIT")]);
    let mut more = Vec::new();
    for (service, of) in entries(document.at("services")) {
        let baseline = of.text("baseline");
        let mut row = |scope: String, split: String| table.row([service.as_str().into(), scope.into(), split.into()]);
        row("service".to_owned(), weights_text(of, baseline.as_deref()));
        entries(of.at("groups")).for_each(|(group, split)| row(format!("group {group}"), shares(split)));
        entries(of.at("tenants")).for_each(|(tenant, split)| row(format!("tenant {tenant}"), shares(split)));
        let listed = entries(of.at("tenants")).count() as u64;
        let others = of.count("tenants_total").unwrap_or_default().saturating_sub(listed);
        if others > 0 {
            more.push(format!("{service}: {} more", counted(others, "tenant")));
        }
        let held = if of.at("hold").is_object() { ", held" } else { "" };
        let pins = counted(of.count("pins_total").unwrap_or_default(), "pin");
        more.push(format!("{service}: baseline {}, {pins}{held}", baseline.unwrap_or_default()));
    }
    text + &table.render(look) + &lines(&more)
}

fn diff(document: &Value, look: Look) -> String {
    let name = text_or_nothing(document, "snapshot");
    if document.is("same") && entries(document.at("services")).all(|(_, s)| s.list("withheld").is_empty()) {
        return format!("everything is as in {name}\n");
    }
    let mut table = Table::new([
        Column::Left("SERVICE"),
        Column::Left("WHAT"),
        Column::Text("NOW"),
        Column::Text("AFTERWARDS"),
        Column::Right("KEYS THAT MOVE"),
    ]);
    let mut more = Vec::new();
    for (service, of) in entries(document.at("services")) {
        let mut row = |what: String, before: String, after: String, moved: String| {
            table.row([service.as_str().into(), what.into(), before.into(), after.into(), moved.into()]);
        };
        let none = || NOTHING.to_owned();
        let baseline = of.at("baseline");
        if baseline.is_object() {
            row("baseline".to_owned(), text_or_nothing(baseline, "before"), text_or_nothing(baseline, "after"), none());
        }
        if of.at("hold").is_object() {
            let held = |key: &str| if of.at("hold").at(key).is_object() { "held" } else { "free" }.to_owned();
            row("hold".to_owned(), held("before"), held("after"), none());
        }
        for split in of.list("splits") {
            let moved = split.number("moved_percent").map_or_else(none, percent);
            row(text_or_nothing(split, "scope"), shares(split.at("before")), shares(split.at("after")), moved);
        }
        for change in of.list("pins") {
            let target = format!("pin of {}", text_or_nothing(change, "target"));
            row(target, pin(change.at("before")), pin(change.at("after")), none());
        }
        more.extend(remarks(&service, of));
    }
    table.render(look) + &lines(&more)
}

/// What a difference has beyond its rows: what is not listed, and what does not come back.
fn remarks(service: &str, of: &Value) -> Vec<String> {
    let mut remarks = Vec::new();
    let total = |key: &str| of.count(key).unwrap_or_default();
    let splits = total("groups") + total("tenants") + u64::from(of.is("split"));
    let others = |total: u64, listed: &str| total.saturating_sub(of.list(listed).len() as u64);
    let (splits, pins) = (others(splits, "splits"), others(total("pins_total"), "pins"));
    if splits + pins > 0 {
        remarks.push(format!("{service}: {} and {} more", counted(splits, "split"), counted(pins, "pin")));
    }
    for withheld in of.list("withheld") {
        let why = match withheld.text("why").as_deref() {
            Some("disabled") => "is disabled".to_owned(),
            Some("rolled_back") => "was rolled back since".to_owned(),
            other => other.unwrap_or_default().to_owned(),
        };
        let (version, whose) = (text_or_nothing(withheld, "version"), text_or_nothing(withheld, "whose"));
        remarks.push(format!("{service}, {whose}: without {version}, which {why}"));
    }
    let withheld = others(total("withheld_total"), "withheld");
    if withheld > 0 {
        remarks.push(format!("{service}: {withheld} more without a version"));
    }
    remarks
}

/// What a restore changed, in a sentence.
fn restored(name: &str, services: &Value) -> String {
    let mut parts = Vec::new();
    for (service, told) in entries(services) {
        let changed = told.at("changed");
        let flags = ["baseline", "split", "hold"].into_iter().filter(|key| changed.is(key)).map(str::to_owned);
        let counts = [("groups", "group"), ("tenants", "tenant"), ("pins", "pin")];
        let counts = counts.into_iter().map(|(key, word)| (changed.count(key).unwrap_or_default(), word));
        let all: Vec<_> = flags.chain(counts.filter(|(n, _)| *n > 0).map(|(n, word)| counted(n, word))).collect();
        let versions = told.texts("withheld_versions");
        let without = if versions.is_empty() { String::new() } else { format!(", without {}", versions.join(", ")) };
        if !all.is_empty() || !without.is_empty() {
            let all = if all.is_empty() { "as it was".to_owned() } else { all.join(", ") };
            parts.push(format!("{service} ({all}{without})"));
        }
    }
    match parts.is_empty() {
        true => format!("everything is as in {name} already"),
        false => format!("went back to {name}: {}", parts.join("; ")),
    }
}

fn shares(weights: &Value) -> String {
    let shares: Vec<_> = entries(weights).filter_map(|(version, share)| Some((version, share.as_f64()?))).collect();
    if shares.is_empty() { "follows".to_owned() } else { split_text(&shares) }
}

fn pin(pin: &Value) -> String {
    let kind = |key: &str, word: &str| pin.text(key).map(|version| format!("{word}{version}"));
    kind("version", "")
        .or_else(|| kind("exclude", "not "))
        .or_else(|| kind("suspended", "suspended "))
        .unwrap_or_else(|| NOTHING.to_owned())
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{text}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_a_table_and_remarks() {
        let document = json!({"snapshot": "monday", "same": false, "services": {"shop": {
            "baseline": {"before": "2", "after": "1"}, "hold": null, "split": true, "groups": 0, "tenants": 3,
            "splits": [
                {"scope": "service", "before": {"1": 50, "2": 50}, "after": {"1": 100}, "moved_percent": 50.0},
                {"scope": "tenant acme", "before": {"2": 100}, "after": null, "moved_percent": null}],
            "pins_total": 1, "pins": [{"target": "user u", "before": null, "after": {"suspended": "3"}}],
            "withheld_total": 2, "withheld": [{"whose": "the pin of user u", "version": "3", "why": "disabled"}],
        }}});
        let expected = "\
SERVICE  WHAT         NOW             AFTERWARDS   KEYS THAT MOVE
shop     baseline     2               1                         -
shop     service      1 50 %, 2 50 %  1 100 %                50 %
shop     tenant acme  2 100 %         follows                   -
shop     pin of user u  -             suspended 3               -
";
        let text = diff(&document, Look::default());
        assert_eq!(
            text.split_whitespace().take(26).collect::<Vec<_>>(),
            expected.split_whitespace().take(26).collect::<Vec<_>>()
        );
        assert!(text.contains("shop: 2 splits and 0 pins more\n"), "{text}");
        assert!(
            text.contains("shop, the pin of user u: without 3, which is disabled\nshop: 1 more without a version\n"),
            "{text}"
        );
        let same = json!({"snapshot": "monday", "same": true, "services": {"shop": {}}});
        assert_eq!(diff(&same, Look::default()), "everything is as in monday\n");
    }

    #[test]
    fn a_restore_says_what_it_changed() {
        let told = json!({
            "a": {"changed": {"split": true, "tenants": 1, "pins": 2}, "withheld_versions": ["2.0.0"]},
            "b": {"changed": {"split": false, "tenants": 0}, "withheld_versions": []},
        });
        assert_eq!(restored("monday", &told), "went back to monday: a (split, 1 tenant, 2 pins, without 2.0.0)");
        assert_eq!(restored("monday", &json!({"b": told["b"]})), "everything is as in monday already");
    }
}
