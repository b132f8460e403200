//! The proxies that share the store, the store itself, and who is told of what happens.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::super::context::{Cx, Shared};
use super::super::parameters::Parameters;
use super::super::problem::Problem;
use super::super::status::{MemberAnswer, StatusAnswer, status_now};
use super::layout::{Nav, Visitor};
use super::live::{Fragment, Seen, Watched};
use super::past;
use super::rollout_words::span;
use super::words::{count, moment, plural};
use crate::model::{NotifyReport, ServiceName};

/// The page.
pub(super) async fn show(State(cx): State<Cx>, visitor: Visitor, parameters: Parameters) -> Result<Response, Problem> {
    parameters.only(&[], &[])?;
    let watched = Watched::Proxies;
    let seen = watched.look(&cx).await;
    let body = html! { @for fragment in watched.fragments(&cx, &seen)? { (fragment.markup) } };
    Ok(visitor.page_with(&cx, Nav::Proxies, "Proxies", html! { h1 { "Proxies" } }, body, Some(&watched.text())))
}

/// Everything that changes.
pub(super) fn fragments(cx: &Shared, seen: &Seen) -> Vec<Fragment> {
    let status = status_now(cx, seen.up);
    vec![
        Fragment { id: "warnings", markup: warnings(&status) },
        Fragment { id: "members", markup: members(&status) },
        Fragment { id: "process", markup: process(&status) },
        Fragment { id: "notify", markup: targets(&(cx.notify.targets)()) },
    ]
}

fn warnings(status: &StatusAnswer) -> Markup {
    let freeze = status.freeze.as_ref();
    html! {
        div id="warnings" {
            @if let Some(freeze) = freeze { p.note.warn { strong { "Frozen by " (past::author(&freeze.author)) ": " } bdi { (freeze.reason) } " No automation advances anything." } }
            @for warning in &status.warnings { p.note.warn { bdi { (warning) } } }
            @if freeze.is_none() && status.warnings.is_empty() { p.note.ok { "Nothing needs a look." } }
        }
    }
}

fn members(status: &StatusAnswer) -> Markup {
    let fleet = status.fleet.as_ref();
    html! {
        section.card id="members" aria-labelledby="members-title" {
            h2 id="members-title" { "Fleet" }
            @if let Some(fleet) = fleet {
                p { (plural(fleet.members.len() as u64, "proxy shares", "proxies share")) " the store. This one is " strong { (fleet.role) } @if let Some(leader) = &fleet.leader { "; " bdi { (leader) } " leads" } "." }
                div.scroll tabindex="0" role="region" aria-labelledby="members-title" {
                    table {
                        thead { tr {
                            th scope="col" { "Proxy" } th scope="col" { "Role" } th scope="col" { "Health" } th.nums scope="col" { "Revision" }
                            th.nums scope="col" { "Behind" } th scope="col" { "Release" } th scope="col" { "Last heard" }
                        } }
                        tbody { @for member in &fleet.members { (row(member)) } }
                    }
                }
            } @else { p { "This proxy is alone with its store: " strong { bdi { (status.instance) } } "." } }
        }
    }
}

fn row(member: &MemberAnswer) -> Markup {
    let class = match member.health {
        "ok" => "ok",
        "refused" | "unconfirmed" => "bad",
        _ => "warn",
    };
    let seen = member.seen.as_ref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let seen = seen.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    html! {
        tr data-key=(member.instance) {
            th scope="row" { bdi { (member.instance) } @if member.here { " (here)" } }
            td { (member.role) }
            td {
                span class={ "chip " (class) } { (member.health) }
                @if let Some(refused) = &member.refused { p.small { "revision " (refused.revision) ": " bdi { (refused.reason) } } }
            }
            td.nums { (member.revision) }
            td.nums { (member.lag) }
            td { bdi { (member.version) } }
            td { @if let Some(at) = seen { (moment(at)) } @else { "–" } }
        }
    }
}

fn process(status: &StatusAnswer) -> Markup {
    let StatusAnswer { store, proxy, .. } = status;
    let listen: Vec<_> = proxy.listen.iter().map(ToString::to_string).collect();
    // The page is looked at once a second; minutes are enough.
    let minutes = (status.uptime_seconds / 60.0) as u64;
    html! {
        section.card id="process" aria-labelledby="process-title" {
            div.row.spread {
                h2 id="process-title" { "This proxy" }
                @if status.draining { span.chip.warn { "on its way out" } }
                @else if status.ready { span.chip.ok { "takes traffic" } }
                @else { span.chip.bad { "takes no traffic" } }
            }
            dl.facts {
                dt { "Name" } dd { bdi { (status.instance) } ", Switchback " (status.version) }
                dt { "Running for" } dd { @if minutes == 0 { "less than a minute" } @else { (span(minutes * 60)) } }
                dt { "Listens on" } dd { (listen.join(", ")) @if listen.is_empty() { "nothing" } }
                dt { "Open connections" } dd { (count(proxy.open_connections.max(0) as u64)) }
                dt { "Revision" } dd { (status.revision) @if status.read_only { ", and changes are refused" } }
                dt { "Store" } dd {
                    (store.kind) " " code { bdi { (store.path) } } " "
                    span class={ "chip " (if store.up { "ok" } else { "bad" }) } { (if store.up { "takes changes" } else { "away" }) }
                }
            }
        }
    }
}

fn targets(targets: &[NotifyReport]) -> Markup {
    html! {
        section.card id="notify" aria-labelledby="notify-title" {
            h2 id="notify-title" { "Who is told" }
            @if targets.is_empty() { p.soft { "Nobody: the configuration file names no receivers." } }
            @else {
                div.scroll tabindex="0" role="region" aria-labelledby="notify-title" {
                    table {
                        thead { tr {
                            th scope="col" { "Receiver" } th scope="col" { "Told of" } th.nums scope="col" { "Sent" } th.nums scope="col" { "Given up" }
                            th.nums scope="col" { "Waiting" } th scope="col" { "Last attempt" }
                        } }
                        tbody { @for target in targets { (target_row(target)) } }
                    }
                }
            }
        }
    }
}

fn target_row(target: &NotifyReport) -> Markup {
    let services: Vec<_> = target.services.iter().map(ServiceName::as_str).collect();
    let kinds: Vec<_> = target.kinds.iter().map(|kind| kind.as_str().replace('_', " ")).collect();
    let counts = &target.counts;
    html! {
        tr data-key=(target.name) {
            th scope="row" { bdi { (target.name) } p.small.soft { (target.type_name) " " bdi { (target.address) } } }
            td {
                (target.severity.as_str()) " and worse"
                @if !services.is_empty() { p.small.soft { "of " bdi { (services.join(", ")) } } }
                @if !kinds.is_empty() { p.small.soft { "only " (kinds.join(", ")) } }
            }
            td.nums { (count(counts.sent)) @if counts.suppressed > 0 { p.small.soft { (count(counts.suppressed)) " only counted" } } }
            td.nums { (count(counts.failed + counts.dropped)) @if counts.retried > 0 { p.small.soft { (count(counts.retried)) " tried again" } } }
            td.nums { (count(target.waiting)) }
            td {
                @if let Some(last) = &target.last {
                    span class={ "chip " (if last.ok { "ok" } else { "bad" }) } { (if last.ok { "taken" } else { "failed" }) } " " (moment(last.at_ms))
                    @if !last.detail.is_empty() { p.small.soft { bdi { (past::shortened(&last.detail)) } } }
                } @else { span.soft { "none yet" } }
            }
        }
    }
}
