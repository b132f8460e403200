//! One service: its versions side by side, how they fared, what the guard makes of it, and what may be done.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::super::compare::{TenantComparison, worst_tenants};
use super::super::context::{Cx, Found, Shared};
use super::super::parameters::{Names, Parameters};
use super::super::problem::Problem;
use super::super::services::{ServiceSummary, summary};
use super::super::stats::{VersionStatsAnswer, versions};
use super::bar::{Tints, bar, dotted, in_words};
use super::chart::{chart, lines};
use super::layout::{Nav, Visitor};
use super::live::{Fragment, Seen, Watched};
use super::words::{count, moment, part, per_second, plural, rate, seconds, service_path, share, tenant_path};
use super::{actions, overview, past, tenants, verdict};
use crate::model::{EventKind, ServiceName, TenantName, VersionName};
use crate::telemetry::Point;

/// The time that tables look back on.
pub(super) const WINDOW: Duration = Duration::from_secs(300);
/// Scopes whose evidence is shown.
const SCOPES: usize = 4;
/// Events that are listed.
const LISTED: usize = 12;
/// Tenants in the table of those that suffer.
const WORST: usize = 8;

/// A tenant on baseline (`a`) and canary (`b`).
pub(super) type Worst = TenantComparison;

/// The page.
pub(super) async fn show(
    State(cx): State<Cx>,
    visitor: Visitor,
    names: Names,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let parameters = parameters.only(&["done"], &[])?;
    let found = Found::service(&cx, &names.service()?)?;
    let watched = Watched::Service(found.name().clone());
    let seen = watched.look(&cx).await;
    let done = done(&cx, &parameters).await?;
    let by_version = tenants::by_version(&found).await;
    let mut fragments = watched.fragments(&cx, &seen)?.into_iter();
    let first = fragments.next().map(|fragment| fragment.markup);
    let body = html! {
        (done)
        (first.unwrap_or_default())
        (actions::of_service(&visitor, &found))
        @for fragment in fragments { (fragment.markup) }
        (find_tenant(&found, &by_version))
    };
    let heading = html! {
        p.crumb { a href="/" { "Overview" } " ›" }
        h1 { bdi { (found.name()) } }
    };
    Ok(visitor.page_with(&cx, Nav::Overview, found.name().as_str(), heading, body, Some(&watched.text())))
}

/// What was done just now, when a change led here.
pub(super) async fn done(cx: &Shared, parameters: &Parameters) -> Result<Markup, Problem> {
    let Some(id) = parameters.number("done", 1..=u64::MAX)? else { return Ok(html! {}) };
    let event = overview::event(cx, id).await;
    Ok(html! {
        div.note.ok role="status" {
            strong { "Done. " }
            @if let Some(event) = &event { (past::sentence(event)) } @else { "It is in effect." }
        }
    })
}

/// Everything that changes; what stands first on the page comes first.
pub(super) fn fragments(cx: &Cx, found: &Found, seen: &Seen) -> Vec<Fragment> {
    let tints = Tints::of(&found.route);
    let of = summary(cx, &found.view, &found.route);
    vec![
        Fragment { id: "state", markup: state(found, &tints, &of, seen) },
        Fragment { id: "evidence", markup: evidence(cx, found) },
        Fragment { id: "versions", markup: version_table(cx, found, &tints, &of) },
        Fragment { id: "charts", markup: charts(cx, found, &tints, None) },
        Fragment { id: "worst", markup: worst_table(found, &seen.worst) },
        Fragment { id: "past", markup: past_of(seen) },
    ]
}

fn state(found: &Found, tints: &Tints, of: &ServiceSummary, seen: &Seen) -> Markup {
    let live = found.live();
    let (word, class) = verdict::chip_of(of);
    let back = seen.events.iter().flatten().find(|e| e.kind == EventKind::Rollback && e.tenant.is_none());
    html! {
        section.card id="state" aria-labelledby="state-title" {
            div.row.spread {
                h2 id="state-title" { "Split" }
                span.row {
                    @if live.hold.is_some() { span.chip.warn { "held" } }
                    span class={ "chip " (class) } { (word) }
                }
            }
            (bar(tints, live, &of.weights))
            p.lead aria-live="polite" id="verdict" { (verdict::sentence_of(of)) }
            @if let Some(intended) = &of.intended { p.soft { "Asked for was " (in_words(live, intended)) "." } }
            @if of.rolled_back.is_some() && let Some(event) = back {
                p.note.bad { strong { (moment(event.at_ms)) } " " bdi { (event.reason) } }
            }
            @if let Some(hold) = &live.hold {
                p.note.warn { strong { "Held by " (past::author(&hold.author)) } " since " (moment(hold.since_ms)) @if !hold.reason.is_empty() { ": " bdi { (hold.reason) } } ". Automation may not advance; it may still shift back." }
            }
            @if let Some(maintenance) = &live.maintenance.service {
                p.note.warn { strong { "In maintenance" } " since " (moment(maintenance.since_ms)) ", by " (past::author(&maintenance.author)) @if !maintenance.message.is_empty() { ": " bdi { (maintenance.message) } } }
            }
            @if !live.maintenance.tenants.is_empty() { p.note.warn { (plural(live.maintenance.tenants.len() as u64, "tenant is in maintenance", "tenants are in maintenance")) "." } }
        }
    }
}

fn evidence(cx: &Cx, found: &Found) -> Markup {
    let reports = cx.control.board().worst(found.name(), SCOPES);
    html! {
        section.card id="evidence" aria-labelledby="evidence-title" {
            h2 id="evidence-title" { "Evidence" }
            @if !found.route.spec.guard.enabled { p.note.warn { "The guard is off for this service: nothing is judged." } }
            @else if reports.is_empty() { p.soft { "Nothing is compared: a canary with requests of its own is needed." } }
            div.grid {
                @for (key, report) in &reports {
                    div.gap data-key={ (key.canary) " " (key.tenant.as_ref().map_or("", TenantName::as_str)) } {
                        @if let Some(tenant) = &key.tenant { p.soft.small { "Tenant " a href=(tenant_path(found.name(), tenant)) { bdi { (tenant) } } } }
                        (verdict::comparison(report))
                    }
                }
            }
        }
    }
}

fn version_table(cx: &Cx, found: &Found, tints: &Tints, of: &ServiceSummary) -> Markup {
    let rows = versions(cx, found, None, Some(WINDOW));
    html! {
        section.card id="versions" aria-labelledby="versions-title" {
            h2 id="versions-title" { "Versions" }
            (table_of(tints, &rows, Some(&of.healthy_endpoints)))
        }
    }
}

/// Versions side by side.
pub(super) fn table_of(
    tints: &Tints,
    rows: &[VersionStatsAnswer],
    endpoints: Option<&std::collections::BTreeMap<VersionName, (usize, usize)>>,
) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-labelledby="versions-title" {
            table {
                caption { "Over the last five minutes" }
                thead {
                    tr {
                        th scope="col" { "Version" } th.nums scope="col" { "Share" } th.nums scope="col" { "Requests" }
                        th.nums scope="col" { "Errors" } th.nums scope="col" { "p50" } th.nums scope="col" { "p90" }
                        th.nums scope="col" { "p99" } th.nums scope="col" { "In flight" }
                        @if endpoints.is_some() { th.nums scope="col" { "Endpoints up" } }
                    }
                }
                tbody {
                    @for row in rows {
                        tr data-key=(row.version) {
                            th scope="row" { (dotted(tints, &row.version)) " " span.soft.small { (row.role) } }
                            td.nums { (row.share.map_or_else(|| "–".to_owned(), share)) }
                            td.nums { (per_second(row.requests_per_second)) }
                            td.nums title={ (count(row.failures_total)) " of " (count(row.requests)) } { (rate(row.error_rate)) }
                            td.nums { (seconds(row.latency.p50)) } td.nums { (seconds(row.latency.p90)) }
                            td.nums { (seconds(row.latency.p99)) } td.nums { (row.in_flight) }
                            @if let Some((up, all)) = endpoints.and_then(|e| e.get(&row.version)) { td.nums { (up) " of " (all) } }
                            @else if endpoints.is_some() { td.nums { "–" } }
                        }
                    }
                }
            }
        }
    }
}

/// Error rate and percentiles over time.
pub(super) fn charts(cx: &Shared, found: &Found, tints: &Tints, tenant: Option<&TenantName>) -> Markup {
    let series = cx.lock_windows().series(found.name(), tenant, cx.now());
    let percent = |value: f64| rate(Some(value));
    let time = |value: f64| if value == 0.0 { "0".to_owned() } else { seconds(Some(value)) };
    let of = |pick: fn(&Point) -> Option<f64>| lines(tints, &series, pick);
    html! {
        section.card id="charts" aria-labelledby="charts-title" {
            div.row.spread {
                h2 id="charts-title" { "Over time" }
                ul.legend { @for version in &series.versions { li data-key=(version.version) { span { (dotted(tints, &version.version)) } } } }
            }
            div.charts {
                (chart("Error rate", &of(Point::error_rate), percent))
                (chart("Latency, median (p50)", &of(|p| p.p50_s), time))
                (chart("Latency, nine in ten (p90)", &of(|p| p.p90_s), time))
                (chart("Latency, 99 in 100 (p99)", &of(|p| p.p99_s), time))
            }
        }
    }
}

fn worst_table(found: &Found, worst: &[Worst]) -> Markup {
    html! {
        section.card id="worst" aria-labelledby="worst-title" {
            h2 id="worst-title" { "Tenants with failures on a canary" }
            @if worst.is_empty() { p.soft { "None in the last five minutes." } }
            @else {
                div.scroll tabindex="0" role="region" aria-labelledby="worst-title" {
                    table {
                        thead { tr { th scope="col" { "Tenant" } th.nums scope="col" { "Failed on the canary" } th.nums scope="col" { "Error rate" } th.nums scope="col" { "On the baseline" } } }
                        tbody {
                            @for w in worst {
                                tr data-key=(w.tenant) {
                                    th scope="row" { a href=(tenant_path(found.name(), &w.tenant)) { bdi { (w.tenant) } } }
                                    td.nums { (count(w.b.failures)) " of " (count(w.b.requests)) }
                                    td.nums { (rate(w.b.error_rate)) }
                                    td.nums { (rate(w.a.error_rate)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn past_of(seen: &Seen) -> Markup {
    html! {
        section.card id="past" aria-labelledby="past-title" {
            h2 id="past-title" { "What happened" }
            @match &seen.events {
                None => p.note.warn { "The history cannot be read while the store is away." },
                Some(events) if events.is_empty() => p.soft { "Nothing yet." },
                Some(events) => (past::list(&events.iter().take(LISTED).collect::<Vec<_>>())),
            }
        }
    }
}

fn find_tenant(found: &Found, by_version: &[(VersionName, usize, usize)]) -> Markup {
    let path = service_path(found.name());
    html! {
        section.card aria-labelledby="tenants-title" {
            h2 id="tenants-title" { "Tenants by version" }
            ul.legend {
                @for (version, own, pinned) in by_version {
                    li {
                        a href={ (path) "/tenants?version=" (part(version.as_str())) } { bdi { (version) } }
                        span { (plural(*own as u64, "tenant by a split of its own", "tenants by splits of their own")) ", " (plural(*pinned as u64, "pinned", "pinned")) }
                    }
                }
            }
            form.inline method="get" action={ (path) "/tenants" } role="search" {
                div.field.wide {
                    label for="search" { "Find a tenant by a part of its name" }
                    input id="search" name="search" type="search" maxlength="128" spellcheck="false" autocomplete="off";
                }
                div.field {
                    label for="version" { "On version" }
                    select id="version" name="version" {
                        option value="" { "any" }
                        @for version in &found.route.versions { option { (version.name) } }
                    }
                }
                button type="submit" { "Find" }
            }
        }
    }
}

/// The tenants that suffer most from the canary with the most requests.
pub(super) async fn worst(cx: &Cx, service: &ServiceName) -> Vec<Worst> {
    let Ok(found) = Found::service(cx, service) else { return Vec::new() };
    let baseline = found.live().baseline.clone();
    let stats = versions(cx, &found, None, Some(WINDOW));
    let canary = stats.into_iter().filter(|v| v.version != baseline && v.failures_total > 0).max_by_key(|v| v.requests);
    let Some(canary) = canary.map(|v| v.version) else { return Vec::new() };
    let (cx, service) = (cx.clone(), service.clone());
    let found = tokio::task::spawn_blocking(move || worst_tenants(&cx, &service, &baseline, &canary, Some(WINDOW)));
    let mut worst = found.await.unwrap_or_default();
    worst.retain(|w| w.b.failures > 0);
    worst.truncate(WORST);
    worst
}
