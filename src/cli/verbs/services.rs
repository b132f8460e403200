//! `services` and `services get`: what there is and how it stands.

use serde_json::{Value, json};

use super::registry::{up_of_all, version_table};
use super::split::{list, rolled_back};
use super::{maintenance, or_nothing, text_or_nothing, verdict, weights_of, weights_text};
use crate::cli::address::Resource;
use crate::cli::bars::{split_bar, split_text};
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Cell, Column, Ink, Look, Table};
use crate::cli::text::{Fields, clean, counted, first_sentence, per_second, ratio, time, wrapped};
use crate::cli::verb_args::ServicesVerb;

/// Lists the services or shows one.
pub(super) fn services(client: &Client, output: Output, verb: Option<&ServicesVerb>) -> Result<(), CliError> {
    match verb {
        None | Some(ServicesVerb::List) => {
            let document = client.get(&Resource::new(&["services"]))?;
            output.show(&document, |look| summary_table(document.list("services"), look))
        }
        Some(ServicesVerb::Get { service }) => {
            let document = client.get(&Resource::new(&["services", service]))?;
            output.show(&document, |look| people(&document, look))
        }
    }
}

/// One line for each service.
pub(super) fn summary_table(services: &[Value], look: Look) -> String {
    if services.is_empty() {
        return "there are no services\n".to_owned();
    }
    // The bar is the first to go when there is little room: the numbers beside it say the same.
    let bar = if look.width.is_none_or(|width| width >= 100) { 10 } else { 0 };
    let mut table = Table::new([
        Column::Left("SERVICE"),
        Column::Left("BASELINE"),
        Column::Text("SPLIT"),
        Column::Left(""),
        Column::Right("RATE"),
        Column::Right("ERRORS"),
        Column::Whole("HEALTHY"),
        Column::Left("VERDICT"),
    ])
    .dispensable(&["BASELINE"]);
    for service in services {
        let baseline = service.text("baseline");
        let weights = weights_of(service, baseline.as_deref());
        table.row([
            Cell::new(Ink::Bold, text_or_nothing(service, "name")),
            text_or_nothing(service, "baseline").into(),
            split_text(&weights).into(),
            if bar > 0 { split_bar(&weights, bar) } else { "".into() },
            or_nothing(service.number("requests_per_second"), per_second).into(),
            or_nothing(service.number("error_rate"), ratio).into(),
            endpoints(service.at("healthy_endpoints")),
            verdict(service.at("verdict")),
        ]);
    }
    table.render(look) + &all_remarks(services, look)
}

/// Below the table, because they are sentences.
fn all_remarks(services: &[Value], look: Look) -> String {
    let mut text = String::new();
    for service in services {
        for remark in remarks(service) {
            let line = format!("{}: {remark}", text_or_nothing(service, "name"));
            for part in wrapped(&line, look.width.unwrap_or(usize::MAX)) {
                text.push_str(&look.paint(Ink::Warn, &part));
                text.push('\n');
            }
        }
    }
    text
}

/// Healthy endpoints of all versions together.
fn endpoints(healthy: &Value) -> Cell {
    let pairs = healthy.as_object().into_iter().flatten().filter_map(|(_, pair)| pair.as_array());
    let sum = |at: usize| pairs.clone().filter_map(|pair| pair.get(at)?.as_u64()).sum();
    up_of_all(sum(0), sum(1))
}

fn remarks(service: &Value) -> Vec<String> {
    let mut remarks = Vec::new();
    if service.at("intended").is_object() {
        let intended = json!({"weights": service.at("intended")});
        remarks.push(format!("braked, intended {}", weights_text(&intended, None)));
    }
    if let Some(version) = service.at("rolled_back").text("version") {
        remarks.push(format!("{version} rolled back"));
    }
    if !service.at("hold").is_null() {
        remarks.push(hold(service.at("hold"), false));
    }
    remarks.extend(maintenance::remarks(service));
    remarks.extend(rollout(service));
    match service.count("own_splits") {
        None | Some(0) => {}
        Some(1) => remarks.push("1 tenant has its own split".to_owned()),
        Some(count) => remarks.push(format!("{count} tenants have their own split")),
    }
    remarks
}

/// The rollout that is on its way.
fn rollout(service: &Value) -> Option<String> {
    let rollout = service.at("rollout");
    let (id, to) = (rollout.text("id")?, rollout.text("to")?);
    let (phase, step) = (text_or_nothing(rollout, "phase").replace('_', " "), text_or_nothing(rollout, "step"));
    let paused = if rollout.is("paused") { ", paused" } else { "" };
    Some(format!("rollout {id} to {to}: {phase}, step {step}{paused}"))
}

fn hold(hold: &Value, whole: bool) -> String {
    let reason = hold.text("reason").unwrap_or_default();
    let reason = if whole { reason.trim() } else { first_sentence(&reason) };
    if reason.is_empty() { "on hold".to_owned() } else { format!("on hold: {reason}") }
}

/// Everything about one service.
fn people(service: &Value, look: Look) -> String {
    let baseline = service.text("baseline");
    let split = service.at("split");
    let mut text = look.paint(Ink::Bold, &text_or_nothing(service, "name"));
    text.push_str(&format!("  baseline {}", text_or_nothing(service, "baseline")));
    text.push_str(&format!("  split {}\n", weights_text(split, baseline.as_deref())));
    for (label, key) in [("match", "match"), ("sticky", "sticky")] {
        let rules = service.texts(key);
        if !rules.is_empty() {
            text.push_str(&format!("{label}: {}\n", rules.join(" | ")));
        }
    }
    let mut notes = Vec::new();
    if split.at("intended").is_object() {
        let intended = weights_text(&json!({"weights": split.at("intended")}), baseline.as_deref());
        notes.push(format!("braked while evidence is being confirmed; intended: {intended}"));
    }
    notes.extend(rolled_back(split));
    if !service.at("hold").is_null() {
        notes.push(hold(service.at("hold"), true));
    }
    notes.extend(maintenance::remarks(service));
    notes.extend(rollout(service));
    for note in notes {
        text.push_str(&look.paint(Ink::Warn, &note));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&version_table(service, look));
    text.push_str(&groups_and_pins(service, baseline.as_deref(), look));
    if let Some(count) = service.count("tenants_with_own_split").filter(|count| *count > 0) {
        let verb = if count == 1 { "has" } else { "have" };
        let tenants = counted(count, "tenant");
        text.push_str(&format!("\n{tenants} {verb} a split of their own: switchback tenants list …\n"));
    }
    let last = service.at("last_rollback");
    if let Some(reason) = last.text("reason") {
        text.push_str(&format!("\nlast rollback {}: {}\n", time(last.at("at")), first_sentence(&reason)));
    }
    text
}

fn groups_and_pins(service: &Value, baseline: Option<&str>, look: Look) -> String {
    let mut text = String::new();
    let groups = service.at("groups").as_object();
    let groups = groups.into_iter().flatten().map(|(name, split)| (clean(name).into_owned(), split));
    let groups = list("GROUP", groups, baseline, look);
    if !groups.is_empty() {
        text.push_str(&format!("\n{groups}"));
    }
    let mut pins = Table::new([Column::Left("PIN"), Column::Text("NAME"), Column::Left("TO")]);
    for pin in service.list("pins") {
        let to = match pin.at("pin").text("exclude") {
            Some(version) => format!("not {version}"),
            None => match pin.at("pin").text("suspended") {
                Some(version) => format!("baseline, was {version}"),
                None => text_or_nothing(pin.at("pin"), "version"),
            },
        };
        pins.row([text_or_nothing(pin, "kind").into(), text_or_nothing(pin, "name").into(), to.into()]);
    }
    if !pins.is_empty() {
        text.push_str(&format!("\n{}", pins.render(look)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_its_remarks() {
        let services = [json!({
            "name": "accounting", "baseline": "1.0.0", "weights": {"2.0.0": 10, "1.0.0": 90}, "hold": {"reason": "Fair. Wait."},
            "rolled_back": {"version": "3.0.0"}, "own_splits": 2, "requests_per_second": 12.5, "error_rate": 0.001,
            "verdict": "healthy", "healthy_endpoints": {"1.0.0": [2, 2], "2.0.0": [0, 1]},
        })];
        let text = summary_table(&services, Look::default());
        let expected = "\
SERVICE     BASELINE  SPLIT                                 RATE  ERRORS  HEALTHY  VERDICT
accounting  1.0.0     1.0.0 90 %, 2.0.0 10 %  █████████░  12.5/s   0.1 %  2/3      healthy
accounting: 3.0.0 rolled back
accounting: on hold: Fair.
accounting: 2 tenants have their own split
";
        assert_eq!(text, expected);
        let narrow = summary_table(&services, Look { colour: false, width: Some(80) });
        assert!(!narrow.contains('█') && narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert_eq!(summary_table(&[], Look::default()), "there are no services\n");
    }

    #[test]
    fn a_service_shows_pins_and_groups() {
        let service = json!({
            "name": "a", "baseline": "1", "split": {"weights": {"1": 100}}, "match": ["path /a"], "hold": null,
            "groups": {"beta": {"weights": {"2": 100}}}, "tenants_with_own_split": 1,
            "pins": [{"kind": "user", "name": "u", "pin": {"version": "2"}}, {"kind": "tenant", "name": "t", "pin": {"exclude": "2"}}],
            "last_rollback": {"at": "then", "reason": "Bad. Very."},
        });
        let text = people(&service, Look::default());
        for part in [
            "a  baseline 1  split 1 100 %\n",
            "match: path /a\n",
            "beta   2 100 %\n",
            "user    u     2\n",
            "tenant  t     not 2\n",
            "1 tenant has a split",
            "last rollback then: Bad.\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }
}
