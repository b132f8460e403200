//! The first page: how every service stands, what goes on, and what moved today.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::super::context::{Cx, Found, Shared};
use super::super::parameters::Parameters;
use super::super::problem::Problem;
use super::super::services::ServiceSummary;
use super::super::status::{MemberAnswer, StatusAnswer, status_now};
use super::bar::{Tints, bar};
use super::chart::{Line, spark};
use super::layout::{Nav, Visitor};
use super::live::{Fragment, Seen, Watched};
use super::past;
use super::rollout_words::rollout_path;
use super::verdict::{chip_of, sentence_of};
use super::words::{count, midnight, per_second, plural, rate, service_path};
use crate::model::{Event, EventQuery, Rollout};
use crate::telemetry::Windows;

/// Events of today that are listed.
const LISTED: usize = 12;

/// The page. Links of notifications lead here with the event that they tell of.
pub(super) async fn show(State(cx): State<Cx>, visitor: Visitor, parameters: Parameters) -> Result<Response, Problem> {
    let parameters = parameters.only(&["service", "event"], &[])?;
    let watched = Watched::Overview;
    let seen = watched.look(&cx).await;
    let told = match parameters.number("event", 1..=u64::MAX)? {
        Some(id) => event(&cx, id).await,
        None => None,
    };
    let fragments = watched.fragments(&cx, &seen)?;
    let body = html! {
        @if let Some(event) = &told {
            section.note aria-label="The event you came for" { (past::line(event)) }
        }
        @for fragment in fragments { (fragment.markup) }
    };
    let heading = html! { h1 { "Overview" } };
    Ok(visitor.page_with(&cx, Nav::Overview, "Overview", heading, body, Some(&watched.text())))
}

/// An event by its id.
pub(super) async fn event(cx: &Shared, id: u64) -> Option<Event> {
    let query = EventQuery { after: id - 1, limit: 1, ..EventQuery::default() };
    cx.control.events(query).await.ok()?.into_iter().find(|event| event.id == id)
}

/// Everything that changes.
pub(super) fn fragments(cx: &Cx, seen: &Seen) -> Vec<Fragment> {
    let status = status_now(cx, seen.up);
    let running = running(cx);
    vec![
        Fragment { id: "health", markup: health(&status) },
        Fragment { id: "services", markup: services(cx, &status.services) },
        Fragment { id: "rollouts", markup: rollouts(&running) },
        Fragment { id: "today", markup: today(seen) },
    ]
}

fn health(status: &StatusAnswer) -> Markup {
    let StatusAnswer { store, fleet, .. } = status;
    let good = store.up && status.ready && !status.draining && status.warnings.is_empty();
    html! {
        section.card id="health" aria-labelledby="health-title" {
            div.strip {
                h2 id="health-title" { "Proxy" }
                span { @if status.draining { "on its way out" } @else if status.ready { "takes traffic" } @else { "takes no traffic" } }
                span { "store (" (store.kind) "): " strong { (if store.up { "up" } else { "away" }) } }
                span { "revision " (status.revision) }
                @if let Some(fleet) = fleet {
                    span { (plural(fleet.members.len() as u64, "proxy", "proxies")) ", this one is " strong { (fleet.role) } }
                }
                span class={ "chip " (if good { "ok" } else { "warn" }) } { (if good { "all well" } else { "look here" }) }
            }
            @if let Some(freeze) = &status.freeze {
                p.note.warn { strong { "Frozen by " (past::author(&freeze.author)) ": " } bdi { (freeze.reason) } " No automation advances anything." }
            }
            @for warning in &status.warnings { p.note.warn { bdi { (warning) } } }
            @if let Some(fleet) = fleet { (members(&fleet.members)) }
        }
    }
}

fn members(members: &[MemberAnswer]) -> Markup {
    html! {
        details {
            summary { "Fleet" }
            div.scroll tabindex="0" role="region" aria-label="Fleet" {
                table {
                    caption.hide { "Proxies that share the store" }
                    thead { tr { th scope="col" { "Proxy" } th scope="col" { "Role" } th scope="col" { "Health" } th.nums scope="col" { "Behind" } th scope="col" { "Release" } } }
                    tbody {
                        @for member in members {
                            tr {
                                th scope="row" { bdi { (member.instance) } @if member.here { " (here)" } }
                                td { (member.role) }
                                td { (member.health) }
                                td.nums { (member.lag) }
                                td { bdi { (member.version) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn services(cx: &Cx, services: &[ServiceSummary]) -> Markup {
    html! {
        section id="services" aria-labelledby="services-title" {
            h2.hide id="services-title" { "Services" }
            @if services.is_empty() { p.card { "There are no services yet: the configuration file names them." } }
            div.grid { @for service in services { (card(cx, service)) } }
        }
    }
}

fn card(cx: &Cx, service: &ServiceSummary) -> Markup {
    let Ok(found) = Found::service(cx, &service.name) else { return html! {} };
    let tints = Tints::of(&found.route);
    let (word, class) = chip_of(service);
    let counts = cx.lock_windows().counts(&service.name, cx.now());
    let (requests, errors) = sparks(&counts);
    html! {
        article.card data-key=(service.name) {
            div.row.spread {
                h3.lead { a href=(service_path(&service.name)) { bdi { (service.name) } } }
                span.row {
                    @if service.hold.is_some() { span.chip.warn { "held" } }
                    span class={ "chip " (class) } { (word) }
                }
            }
            (bar(&tints, found.live(), &service.weights))
            p aria-live="polite" { (sentence_of(service)) }
            div.sparks {
                div {
                    p.small { span.soft { "Requests " } strong { (per_second(service.requests_per_second)) } }
                    (spark("Requests per second", &[requests], per_second))
                }
                div {
                    p.small { span.soft { "Errors " } strong { (rate(service.error_rate)) } }
                    (spark("Error rate", &[errors], |value| rate(Some(value))))
                }
            }
            @if service.own_splits > 0 {
                p.soft.small { (plural(service.own_splits as u64, "tenant has a split of its own", "tenants have splits of their own")) "." }
            }
        }
    }
}

/// Requests per second and the rate of failures, of all versions together.
fn sparks(counts: &[(u64, u64, u64)]) -> (Line, Line) {
    let mut padded = vec![None; Windows::SERIES_POINTS.saturating_sub(counts.len())];
    padded.extend(counts.iter().map(Some));
    let recent = &padded[padded.len() - Windows::SERIES_POINTS..];
    let requests = recent.iter().map(|c| c.map(|(_, requests, _)| *requests as f64 / Windows::COUNT_SECONDS as f64));
    let errors = recent.iter().map(|c| {
        c.filter(|(_, requests, _)| *requests > 0).map(|(_, requests, failed)| *failed as f64 / *requests as f64)
    });
    let line = |class, values| Line { name: String::new(), class, values };
    (line("base", requests.collect()), line("c1", errors.collect()))
}

/// Rollouts that are not over, with what they wait for.
fn running(cx: &Shared) -> Vec<(Rollout, Option<String>)> {
    let view = cx.control.view();
    let live = view.state.rollouts.values().filter(|live| !live.rollout.phase.is_final());
    live.map(|live| (live.rollout.clone(), cx.control.board().waiting(&live.rollout.id).map(|w| w.message))).collect()
}

fn rollouts(running: &[(Rollout, Option<String>)]) -> Markup {
    html! {
        section.card id="rollouts" aria-labelledby="rollouts-title" {
            h2 id="rollouts-title" { "Rollouts" }
            @if running.is_empty() { p.soft { "None is running." } }
            @else {
                div.scroll tabindex="0" role="region" aria-labelledby="rollouts-title" {
                    table {
                        thead { tr { th scope="col" { "Rollout" } th scope="col" { "Service" } th scope="col" { "From and to" } th scope="col" { "Where it is" } th.nums scope="col" { "Done" } } }
                        tbody { @for (rollout, waiting) in running { (rollout_row(rollout, waiting.as_deref())) } }
                    }
                }
            }
        }
    }
}

fn rollout_row(rollout: &Rollout, waiting: Option<&str>) -> Markup {
    html! {
        tr data-key=(rollout.id) {
            th scope="row" { a href=(rollout_path(&rollout.id)) { bdi { (rollout.id) } } }
            td { a href=(service_path(&rollout.service)) { bdi { (rollout.service) } } }
            td { bdi { (rollout.spec.from) } " to " bdi { (rollout.spec.to) } }
            td {
                (rollout.phase.as_str().replace('_', " ")) ", step " (rollout.stage)
                @if rollout.paused.is_some() { " (paused)" }
                @if let Some(waiting) = waiting { p.soft.small { bdi { (waiting) } } }
            }
            td.nums { (count(u64::from(rollout.counts.moved()))) " of " (count(u64::from(rollout.counts.total()))) }
        }
    }
}

fn today(seen: &Seen) -> Markup {
    let since = midnight();
    html! {
        section.card id="today" aria-labelledby="today-title" {
            h2 id="today-title" { "What moved today" }
            @match &seen.events {
                None => p.note.warn { "The history cannot be read while the store is away." },
                Some(events) => {
                    @let moved: Vec<_> = events.iter().filter(|e| e.at_ms >= since && past::moves(e.kind)).collect();
                    @if moved.is_empty() { p.soft { "Nothing." } }
                    @else { (past::list(&moved[..moved.len().min(LISTED)])) }
                    @if moved.len() > LISTED { p.soft.small { "and " (plural((moved.len() - LISTED) as u64, "more", "more")) } }
                }
            }
        }
    }
}
