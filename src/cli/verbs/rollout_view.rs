//! Rollouts as people see them in a terminal.

use serde_json::Value;

use super::{or_nothing, text_or_nothing};
use crate::cli::table::{Cell, Column, Ink, Look, Table};
use crate::cli::text::{Fields, NOTHING, clean, counted, percent, time};

/// The phase in its colour.
fn phase(rollout: &Value) -> Cell {
    let phase = text_or_nothing(rollout, "phase");
    let ink = match phase.as_str() {
        "completed" => Ink::Good,
        "rolled_back" | "aborted" | "going_back" => Ink::Bad,
        _ if rollout.at("paused").is_object() => Ink::Warn,
        _ => Ink::Plain,
    };
    let paused = if rollout.at("paused").is_object() { ", paused" } else { "" };
    Cell::new(ink, format!("{}{paused}", phase.replace('_', " ")))
}

fn count(rollout: &Value, key: &str) -> u64 {
    rollout.at("counts").count(key).unwrap_or_default()
}

/// `3 of 40, 1 back`.
fn progress(rollout: &Value) -> String {
    let back = count(rollout, "rolled_back") + count(rollout, "reverted");
    let back = if back > 0 { format!(", {back} back") } else { String::new() };
    format!("{} of {}{back}", count(rollout, "completed"), count(rollout, "total"))
}

/// `progressing, step 2, 25 %, 3 of 40`, for a line that is not to be read for long.
pub(super) fn in_short(rollout: &Value) -> String {
    let share = rollout.number("share").map(percent).unwrap_or_default();
    let paused = if rollout.at("paused").is_object() { ", paused" } else { "" };
    let phase = text_or_nothing(rollout, "phase").replace('_', " ");
    format!("{phase}{paused}, step {}, {share}, {}", text_or_nothing(rollout, "step"), progress(rollout))
}

/// All rollouts.
pub(super) fn table(document: &Value, look: Look) -> String {
    let mut table = Table::new([
        Column::Left("ROLLOUT"),
        Column::Left("SERVICE"),
        Column::Left("FROM"),
        Column::Left("TO"),
        Column::Left("PHASE"),
        Column::Whole("STEP"),
        Column::Whole("DONE"),
        Column::Text("WAITS FOR"),
    ])
    .dispensable(&["STEP", "FROM"]);
    for rollout in document.list("rollouts") {
        table.row([
            text_or_nothing(rollout, "id").into(),
            text_or_nothing(rollout, "service").into(),
            text_or_nothing(rollout, "from").into(),
            text_or_nothing(rollout, "to").into(),
            phase(rollout),
            text_or_nothing(rollout, "step").into(),
            progress(rollout).into(),
            rollout.at("waiting").text("message").unwrap_or_default().into(),
        ]);
    }
    if table.is_empty() { "there are no rollouts\n".to_owned() } else { table.render(look) }
}

/// One rollout.
pub(super) fn one(rollout: &Value, look: Look) -> String {
    let mut table = Table::new([Column::Left(""), Column::Text("")]);
    let mut row = |name: &str, value: Cell| table.row([Cell::new(Ink::Dim, name), value]);
    let text = |key: &str| text_or_nothing(rollout, key);
    row("rollout", text("id").into());
    row("moves", format!("{} from {} to {}", text("service"), text("from"), text("to")).into());
    row("phase", phase(rollout));
    let share = rollout.number("share").map(percent).unwrap_or_default();
    let effect = if rollout.is("in_effect") { "in effect" } else { "comes next" };
    let batches = match rollout.count("batches").unwrap_or_default() {
        0 | 1 => String::new(),
        many => format!(" in {many} batches"),
    };
    row("step", format!("{}{batches}, {share}, {effect}", text("step")).into());
    row("done", progress(rollout).into());
    let waiting = rollout.at("waiting");
    if let Some(message) = waiting.text("message") {
        let until = if waiting.at("until").is_string() {
            format!(" until {}", time(waiting.at("until")))
        } else {
            String::new()
        };
        row("waits", format!("{message}{until}").into());
    }
    for key in ["paused", "going_back"] {
        let why = rollout.at(key);
        if why.is_object() {
            let by = why.at("author");
            let by = by.text("name").or_else(|| by.text("kind")).unwrap_or_default();
            row(
                &key.replace('_', " "),
                Cell::new(Ink::Warn, format!("by {by}: {}", why.text("reason").unwrap_or_default())),
            );
        }
    }
    let failed = rollout.count("failed_requests").unwrap_or_default();
    if failed > 0 {
        row("cost", counted(failed, "failed request").into());
    }
    let then: Vec<_> = rollout.list("then").iter().filter_map(Value::as_str).collect();
    if !then.is_empty() {
        row("then", then.join(", ").into());
    }
    if let Some(next) = rollout.text("followed_by") {
        row("followed by", next.into());
    }
    if let Some(why) = rollout.text("not_followed") {
        row("ends here", Cell::new(Ink::Warn, why));
    }
    row("created", time(rollout.at("created")).into());
    for key in ["started", "ended"] {
        if rollout.at(key).is_string() {
            row(key, time(rollout.at(key)).into());
        }
    }
    table.facts(look)
}

/// What a rollout would do.
pub(super) fn plan(document: &Value, look: Look) -> String {
    let mut checks = Table::new([Column::Left("CHECK"), Column::Left(""), Column::Text("FOUND")]);
    for check in document.list("checks") {
        let ok = check.is("ok");
        let verdict = if ok { Cell::new(Ink::Good, "well") } else { Cell::new(Ink::Bad, "not well") };
        checks.row([text_or_nothing(check, "check").into(), verdict, text_or_nothing(check, "message").into()]);
    }
    let mut steps = Table::new([
        Column::Whole("STEP"),
        Column::Right("SHARE"),
        Column::Right("TENANTS"),
        Column::Right("AFTER AT LEAST"),
    ]);
    for step in document.list("steps") {
        let tenants = step.count("tenants").map_or_else(|| "all".to_owned(), |n| n.to_string());
        steps.row([
            text_or_nothing(step, "step").into(),
            step.number("share").map(percent).unwrap_or_default().into(),
            tenants.into(),
            seconds(step.number("after_seconds")).into(),
        ]);
    }
    let mut text = format!("dry run, nothing was started\n\n{}\n", checks.render(look));
    for risk in document.list("risks").iter().filter_map(Value::as_str) {
        text.push_str(&format!("{} {}\n", look.paint(Ink::Warn, "risk:"), clean(risk)));
    }
    if !document.list("risks").is_empty() {
        text.push('\n');
    }
    text.push_str(&steps.render(look));
    let (listed, total) = (document.list("steps").len() as u64, document.count("steps_total").unwrap_or_default());
    if total > listed {
        text.push_str(&format!("… and {} more\n", counted(total - listed, "step")));
    }
    let longest = document.number("longest_seconds");
    let longest = longest.map_or_else(|| "as long as somebody lets it wait".to_owned(), |s| seconds(Some(s)));
    text.push_str(&format!("\ntakes at least {}, at most {longest}\n", seconds(document.number("shortest_seconds"))));
    text
}

fn seconds(value: Option<f64>) -> String {
    match value.unwrap_or_default() {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

/// What became of each unit, and what happened.
pub(super) fn logs(document: &Value, look: Look) -> String {
    let mut units = Table::new([
        Column::Left("WHO"),
        Column::Left("STATUS"),
        Column::Right("BATCH"),
        Column::Right("STEP"),
        Column::Whole("STARTED"),
        Column::Whole("ENDED"),
        Column::Text("WHY"),
    ])
    .dispensable(&["BATCH", "STARTED", "STEP"]);
    for unit in document.list("units") {
        let who = unit.text("name").unwrap_or_else(|| "service".to_owned());
        let status = text_or_nothing(unit, "status");
        let ink = match status.as_str() {
            "completed" => Ink::Good,
            "rolled_back" | "reverted" => Ink::Bad,
            _ => Ink::Plain,
        };
        let number = |key: &str| unit.count(key).map_or_else(|| NOTHING.to_owned(), |n| n.to_string());
        let at = |key: &str| if unit.at(key).is_string() { time(unit.at(key)) } else { NOTHING.to_owned() };
        units.row([
            who.into(),
            Cell::new(ink, status.replace('_', " ")),
            number("batch").into(),
            number("step").into(),
            at("started").into(),
            at("ended").into(),
            unit.text("error").or_else(|| unit.text("note")).unwrap_or_default().into(),
        ]);
    }
    let mut events =
        Table::new([Column::Left("EVENT"), Column::Whole("WHEN"), Column::Left("WHAT"), Column::Text("WHY")]);
    for event in document.list("events") {
        events.row([
            event.count("id").unwrap_or_default().to_string().into(),
            time(event.at("at")).into(),
            text_or_nothing(event, "kind").replace('_', " ").into(),
            event.text("reason").unwrap_or_default().into(),
        ]);
    }
    let more = if document.at("next").is_null() { "" } else { "… and more; see --limit\n" };
    let mut text = format!("{}{more}", units.render(look));
    if !events.is_empty() {
        text.push_str(&format!("\n{}", events.render(look)));
    }
    text
}

/// How rollouts went.
pub(super) fn statistics(document: &Value) -> String {
    let mut text = String::new();
    for (phase, count) in document.at("phases").as_object().into_iter().flatten() {
        text.push_str(&format!("{:<14}{count}\n", clean(phase).replace('_', " ")));
    }
    if text.is_empty() {
        return "there were no rollouts\n".to_owned();
    }
    let rate = or_nothing(document.number("success_rate"), |rate| percent(rate * 100.0));
    text.push_str(&format!("success rate  {rate}\n"));
    for (name, key) in [("duration", "duration_seconds"), ("to rollback", "first_bad_to_rollback_seconds")] {
        let of = document.at(key);
        if of.is_object() {
            let at = |q: &str| seconds(of.number(q));
            text.push_str(&format!("{name:<14}half within {}, nine of ten within {}\n", at("p50"), at("p90")));
        }
    }
    let tenants = |key: &str| document.count(key).unwrap_or_default();
    text.push_str(&format!("{:<14}{}\n", "tenants moved", tenants("tenants_completed")));
    text.push_str(&format!("{:<14}{}\n", "went back", tenants("tenants_rolled_back")));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_is_told_in_a_few_lines() {
        let rollout = json!({
            "id": "r7", "service": "api", "from": "1", "to": "2", "phase": "progressing", "step": "1.2", "share": 25,
            "in_effect": true, "batches": 1, "counts": { "completed": 3, "total": 40, "rolled_back": 1 },
            "paused": { "author": { "kind": "person", "name": "ada" }, "reason": "lunch" },
            "waiting": { "message": "paused by ada: lunch" }, "created": "2026-11-25T04:00:00Z",
        });
        let text = one(&rollout, Look::default());
        for part in ["api from 1 to 2", "progressing, paused", "3 of 40, 1 back", "by ada: lunch", "25 %, in effect"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(table(&json!({ "rollouts": [rollout] }), Look::default()).contains("r7"));
        assert_eq!(table(&json!({ "rollouts": [] }), Look::default()), "there are no rollouts\n");
    }
}
