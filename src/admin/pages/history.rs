//! The history: what happened, to whom, by whom and why, each entry with what it was based on.

use axum::extract::State;
use axum::response::Response;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use serde_json::Value;

use super::super::answers::present;
use super::super::context::{Cx, Shared};
use super::super::parameters::{Parameters, read_name};
use super::super::problem::{Problem, did_you_mean, echo};
use super::layout::{Nav, Visitor};
use super::live::in_time;
use super::rollout_words::{rollout_path, span};
use super::words::{count, part, rate, seconds, zone};
use super::{around, overview, past, scan};
use crate::model::{Author, Event, EventKind, EventQuery, ServiceName, TenantName};

/// Events of a page.
const PAGE: usize = 50;
/// The longest document that is shown whole, in characters.
const LONG: usize = 6_000;

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
struct Wanted {
    service: Option<ServiceName>,
    tenant: Option<TenantName>,
    kind: Option<EventKind>,
    author: String,
    /// As the browser's field for times has it.
    since: String,
    until: String,
    before: Option<u64>,
}

impl Wanted {
    fn read(parameters: &Parameters) -> Result<Self, Problem> {
        let kind = parameters.text("kind").map(|text| {
            EventKind::parse(text).ok_or_else(|| {
                let guess = did_you_mean(text, EventKind::ALL.into_iter().map(EventKind::as_str));
                Problem::bad("kind", format!("{:?} is no kind of event{guess}", echo(text)))
            })
        });
        let text = |name: &str| parameters.text(name).unwrap_or_default().trim().to_owned();
        let wanted = Self {
            service: parameters.text("service").map(|t| read_name("service", t)).transpose()?,
            tenant: parameters.text("tenant").map(|t| read_name("tenant", t.trim())).transpose()?,
            kind: kind.transpose()?,
            author: text("author").chars().take(128).collect(),
            since: text("since"),
            until: text("until"),
            before: parameters.number("before", 1..=u64::MAX)?,
        };
        moment_of("since", &wanted.since)?;
        moment_of("until", &wanted.until)?;
        Ok(wanted)
    }

    async fn look(&self, cx: &Shared) -> Result<scan::Page, Problem> {
        let mut query = EventQuery {
            before: self.before,
            service: self.service.clone(),
            tenant: self.tenant.clone(),
            kind: self.kind,
            ..EventQuery::default()
        };
        if let Some(since) = moment_of("since", &self.since)? {
            query.after = scan::first_since(cx, since).await?.saturating_sub(1);
        }
        if let Some(until) = moment_of("until", &self.until)? {
            // The field tells minutes, and the last one belongs to it.
            let end = scan::first_since(cx, until.saturating_add(60_000)).await?;
            query.before = Some(query.before.map_or(end, |before| before.min(end)));
        }
        let needle = self.author.to_lowercase();
        scan::back(cx, query, PAGE, &|event| needle.is_empty() || is_by(&event.author, &needle)).await
    }

    /// The same events from another place on; none: from the newest.
    fn from(&self, before: Option<u64>) -> String {
        let name = |n: Option<&str>| part(n.unwrap_or_default());
        format!(
            "?service={}&tenant={}&kind={}&author={}&since={}&until={}&before={}",
            name(self.service.as_ref().map(ServiceName::as_str)),
            name(self.tenant.as_ref().map(TenantName::as_str)),
            name(self.kind.map(EventKind::as_str)),
            part(&self.author),
            part(&self.since),
            part(&self.until),
            before.map(|before| before.to_string()).unwrap_or_default(),
        )
    }
}

/// The guard and the file are known by the words that pages use too.
fn is_by(author: &Author, needle: &str) -> bool {
    let also = match author {
        Author::Person { .. } => "",
        Author::Autopilot => "the guard",
        Author::File => "the configuration file",
    };
    author.to_string().to_lowercase().contains(needle) || also.contains(needle)
}

/// A moment in the proxy's zone, in milliseconds since the Unix epoch; none when nothing was given.
fn moment_of(field: &str, text: &str) -> Result<Option<u64>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let at = text.parse::<DateTime>().ok().and_then(|at| at.to_zoned(TimeZone::system()).ok());
    let at = at.and_then(|at| u64::try_from(at.timestamp().as_millisecond()).ok());
    let refuse = || Problem::bad(field, format!("{:?} is no day and time such as 2026-12-01T06:00", echo(text)));
    at.map(Some).ok_or_else(refuse)
}

/// The page. Links to single events lead here with `event`.
pub(super) async fn show(State(cx): State<Cx>, visitor: Visitor, parameters: Parameters) -> Result<Response, Problem> {
    let known = ["service", "tenant", "kind", "author", "since", "until", "before", "event"];
    let parameters = parameters.only(&known, &[])?;
    let one = match parameters.number("event", 1..=u64::MAX)? {
        Some(id) => Some(overview::event(&cx, id).await),
        None => None,
    };
    let wanted = Wanted::read(&parameters)?;
    let found = in_time(wanted.look(&cx)).await;
    let body = html! {
        @match &one {
            Some(Some(event)) => section.card aria-label="The event you came for" { ol.past { (entry(&cx, event, true)) } },
            Some(None) => p.note.warn { "The event you came for is not in the history any more, or the history cannot be read." },
            None => {},
        }
        (filters(&cx, &wanted))
        @match found {
            Some(page) => (list(&cx, &wanted, &page)),
            None => p.note.warn { "The history cannot be read while the store is away." },
        }
    };
    Ok(visitor.page(&cx, Nav::History, "History", body))
}

fn filters(cx: &Shared, wanted: &Wanted) -> Markup {
    let view = cx.control.view();
    html! {
        form.card.inline method="get" role="search" aria-label="Which events" {
            div.field {
                label for="service" { "Service" }
                select id="service" name="service" {
                    option value="" { "any" }
                    @for s in &view.routes.services { option selected[wanted.service.as_ref() == Some(&s.spec.name)] { (s.spec.name) } }
                }
            }
            div.field { label for="tenant" { "Tenant" } input id="tenant" name="tenant" value=[wanted.tenant.as_ref()] maxlength="128" spellcheck="false" autocomplete="off"; }
            div.field {
                label for="kind" { "What" }
                select id="kind" name="kind" {
                    option value="" { "anything" }
                    @for kind in EventKind::ALL { option value=(kind.as_str()) selected[wanted.kind == Some(kind)] { (kind.as_str().replace('_', " ")) } }
                }
            }
            div.field { label for="author" { "By whom" } input id="author" name="author" value=(wanted.author) maxlength="128" spellcheck="false" autocomplete="off"; }
            div.field { label for="since" { "From (" (zone()) ")" } input id="since" name="since" type="datetime-local" value=(wanted.since); }
            div.field { label for="until" { "To" } input id="until" name="until" type="datetime-local" value=(wanted.until); }
            button type="submit" { "Show" }
        }
    }
}

fn list(cx: &Shared, wanted: &Wanted, page: &scan::Page) -> Markup {
    // One picture is open; more would make the page long.
    let first = page.events.iter().find(|event| event.kind == EventKind::Rollback).map(|event| event.id);
    html! {
        section.card id="events" aria-labelledby="events-title" {
            h2 id="events-title" { "What happened, the newest first" }
            @if page.events.is_empty() { p.soft { @if page.tired { "Nothing like that among the newest that were looked through." } @else { "Nothing like that." } } }
            ol.past { @for event in &page.events { (entry(cx, event, Some(event.id) == first)) } }
            p.row {
                @if wanted.before.is_some() { a.button href=(wanted.from(None)) { "To the newest" } }
                @if let Some(before) = page.next { a.button href=(wanted.from(Some(before))) { @if page.tired { "Look further back" } @else { "Older" } } }
            }
        }
    }
}

/// One event, with everything about it behind a click.
fn entry(cx: &Shared, event: &Event, open: bool) -> Markup {
    let around = around::of(cx, event);
    html! {
        li data-key=(event.id) {
            (past::line(event))
            details.more open[open] {
                summary { "Details" span.hide { " of event " (event.id) } }
                div.stack {
                    @if let Some(record) = &around { (around::charts(record, event.at_ms)) }
                    @else if event.kind == EventKind::Rollback { p.soft.small { "The minutes around it were not kept." } }
                    @if !event.reason.is_empty() { p { bdi { (event.reason) } } }
                    (facts(event))
                    div.grid {
                        (document("Before", &present(Some(event.kind), &event.before)))
                        (document("After", &present(Some(event.kind), &event.after)))
                    }
                    (document("Evidence", &without_series(&event.evidence)))
                }
            }
        }
    }
}

fn facts(event: &Event) -> Markup {
    html! {
        dl.facts {
            dt { "Event" } dd { a href={ "/history?event=" (event.id) } { (event.id) } ", " code { (event.kind.as_str()) } ", revision " (event.revision) }
            @if let Some(id) = &event.rollout { dt { "Rollout" } dd { a href=(rollout_path(id)) { bdi { (id) } } } }
            @if let Some(cause) = &event.cause { dt { "Cause" } dd { (cause.replace('_', " ")) } }
            @if let Some(ms) = event.first_bad_to_rollback_ms {
                dt { "From the first bad request" }
                dd { (if ms < 10_000 { seconds(Some(ms as f64 / 1e3)) } else { span(ms / 1_000) }) " until traffic was back" }
            }
            (compared(&event.evidence))
        }
    }
}

/// The counts that a decision of the guard was based on.
fn compared(evidence: &Value) -> Markup {
    let window = evidence.get("window").filter(|window| window.is_object());
    let arm = |name: &str| {
        let arm = window?.get(name)?;
        Some((arm.get("n")?.as_u64()?, arm.get("bad")?.as_u64()?))
    };
    let told = |(n, bad): (u64, u64)| {
        let share = (n > 0).then(|| bad as f64 / n as f64);
        format!("{} of {} bad ({})", count(bad), count(n), rate(share))
    };
    let span = window.and_then(|w| w.get("seconds")).and_then(Value::as_f64);
    html! {
        @if let (Some(baseline), Some(canary)) = (arm("baseline"), arm("canary")) {
            dt { "Compared" }
            dd { "canary " (told(canary)) "; baseline " (told(baseline)) @if let Some(s) = span { ", over " (format!("{s:.0}")) "\u{a0}s" } }
        }
    }
}

/// The series is drawn, so it is not told again in numbers.
fn without_series(evidence: &Value) -> Value {
    let mut rest = evidence.clone();
    rest.as_object_mut().and_then(|rest| rest.remove("series"));
    rest
}

fn document(title: &str, value: &Value) -> Markup {
    if value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty) {
        return html! {};
    }
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let cut = text.char_indices().nth(LONG).map(|(end, _)| end);
    html! {
        div {
            p.small.soft { (title) }
            pre.json tabindex="0" role="region" aria-label=(title) { (&text[..cut.unwrap_or(text.len())]) @if cut.is_some() { "\n… the rest is in GET /v1/events" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_browsers_send_them() {
        assert_eq!(moment_of("since", "").unwrap(), None);
        let at = |text| moment_of("since", text).unwrap().unwrap();
        assert_eq!(at("2026-12-01T06:01") - at("2026-12-01T06:00"), 60_000);
        assert!(moment_of("since", "yesterday").is_err());
    }

    #[test]
    fn authors_are_found_by_a_part_of_their_name() {
        let person = Author::Person { name: "CI-deploy".to_owned() };
        assert!(is_by(&person, "deploy") && !is_by(&person, "guard"));
        assert!(is_by(&Author::Autopilot, "guard") && is_by(&Author::Autopilot, "autopilot"));
        assert!(is_by(&Author::File, "file"));
    }
}
