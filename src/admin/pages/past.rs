//! The history in sentences.

use maud::{Markup, html};
use serde_json::Value;

use super::rollout_words::rollout_path;
use super::words::{moment, service_path, tenant_path};
use crate::model::{Author, Event, EventKind, EventQuery};

/// The longest reason that stands in a list; the rest is in the history.
const SHORT: usize = 240;

/// Whether traffic moved by it, or might have.
pub(super) fn moves(kind: EventKind) -> bool {
    use EventKind::*;
    matches!(
        kind,
        SplitSet
            | SplitCleared
            | Rollback
            | Brake
            | BrakeReleased
            | Probe
            | PinSet
            | PinCleared
            | BaselineSet
            | MaintenanceOn
            | MaintenanceOff
            | VersionDisabled
            | VersionEnabled
            | RolloutStep
            | RolloutCompleted
            | RolloutRolledBack
            | RolloutAborted
            | SnapshotRestored
            | HoldSlo
    )
}

/// A list of events, the newest first.
pub(super) fn list(events: &[&Event]) -> Markup {
    html! {
        ol.past {
            @for event in events { li data-key=(event.id) { (line(event)) } }
        }
    }
}

/// One event: when, what, by whom and why.
pub(super) fn line(event: &Event) -> Markup {
    let reason = shortened(&event.reason);
    html! {
        span.when { (moment(event.at_ms)) }
        div {
            p.row {
                @if let Some((text, class)) = chip(event.kind) { span class={ "chip " (class) } { (text) } }
                span { (sentence(event)) }
            }
            @if !reason.is_empty() { p.soft.small { bdi { (reason) } } }
        }
    }
}

/// What happened, with links to whom it happened to.
pub(super) fn sentence(event: &Event) -> Markup {
    html! {
        @if let Some(service) = &event.service {
            a href=(service_path(service)) { bdi { (service) } }
            @if let Some(tenant) = &event.tenant { ", tenant " a href=(tenant_path(service, tenant)) { bdi { (tenant) } } }
            @else if let Some(group) = &event.group { ", group " bdi { (group) } }
            ": "
        }
        (what(event)) ", by " (author(&event.author)) "."
    }
}

/// Who did it.
pub(super) fn author(author: &Author) -> Markup {
    match author {
        Author::Person { name } => html! { bdi { (name) } },
        Author::Autopilot => html! { "the guard" },
        Author::File => html! { "the configuration file" },
    }
}

fn what(event: &Event) -> Markup {
    let version = html! { @if let Some(version) = &event.version { bdi { (version) } } @else { "the version" } };
    let (before, after) = (shares(&event.before), shares(&event.after));
    match event.kind {
        EventKind::SplitSet => html! { "split set to " (after) @if !before.is_empty() { " (was " (before) ")" } },
        EventKind::SplitCleared => html! { "follows the wider split again, " (after) },
        EventKind::Rollback => html! { (version) " was rolled back" @if !before.is_empty() { " (had " (before) ")" } },
        EventKind::Brake => html! { "the share of " (version) " is held back while evidence is confirmed" },
        EventKind::BrakeReleased => html! { "the share of " (version) " is given back" },
        EventKind::Probe => html! { (version) " is probed at half of the traffic" },
        EventKind::HoldSlo => html! { (version) " and its baseline fail alike: nothing is shifted" },
        EventKind::SplitOff => html! { "the share of " (version) " is not what was configured" },
        EventKind::BaselineSet => html! { "baseline set to " (version) },
        EventKind::HoldSet => html! { "held: automation may not advance" },
        EventKind::HoldCleared => html! { "released: automation may advance" },
        EventKind::VersionDisabled => html! { (version) " was disabled" },
        EventKind::VersionEnabled => html! { (version) " was enabled" },
        EventKind::Started => html! { "a process started" },
        EventKind::Reloaded => html! { "configuration read again" },
        EventKind::ReloadFailed => html! { "the configuration file cannot be used" },
        kind => {
            let words = kind.as_str().replace('_', " ");
            html! {
                (words)
                @if let Some(version) = &event.version { " " bdi { (version) } }
                @if let Some(id) = &event.rollout { " (" a href=(rollout_path(id)) { bdi { (id) } } ")" }
            }
        }
    }
}

/// Shares as `1.0.0 90 %, 2.0.0 10 %`.
pub(super) fn shares(document: &Value) -> String {
    let Some(weights) = document.get("weights").and_then(Value::as_object) else { return String::new() };
    weights.iter().map(|(v, s)| format!("{v} {s}\u{a0}%")).collect::<Vec<_>>().join(", ")
}

fn chip(kind: EventKind) -> Option<(&'static str, &'static str)> {
    use EventKind::*;
    match kind {
        Rollback | RolloutRolledBack => Some(("rolled back", "bad")),
        Brake | Probe | HoldSlo | SplitOff | ReloadFailed => Some(("careful", "warn")),
        RolloutCompleted => Some(("completed", "ok")),
        _ => None,
    }
}

/// The whole reason, or as many whole sentences of it as fit.
pub(super) fn shortened(reason: &str) -> String {
    let Some((end, _)) = reason.char_indices().nth(SHORT) else { return reason.to_owned() };
    let sentences = reason.match_indices(". ").map(|(at, _)| at + 1).take_while(|at| *at <= end).last();
    format!("{} …", &reason[..sentences.unwrap_or(end)])
}

/// The newest events.
pub(super) fn newest(limit: usize) -> EventQuery {
    EventQuery { limit, newest_first: true, ..EventQuery::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reasons_end_with_a_sentence() {
        assert_eq!(shortened("Short. Enough."), "Short. Enough.");
        let long = format!("First of all. {}", "é".repeat(300));
        assert_eq!(shortened(&long), "First of all. …");
        assert_eq!(shortened(&"é".repeat(300)).chars().count(), SHORT + 2);
    }
}
