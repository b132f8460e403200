//! One tenant of a service: where it goes and why, how it fared, and what happened to it.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::super::context::{Cx, Found, Shared};
use super::super::parameters::{Names, Parameters};
use super::super::problem::Problem;
use super::super::stats::versions;
use super::bar::{Tints, bar};
use super::layout::{Nav, Visitor};
use super::service::{WINDOW, charts, done, table_of};
use super::tenants::weights_of;
use super::words::{moment, part, service_path};
use super::{actions, past, verdict};
use crate::model::{Event, EventQuery, Pin, Scope, TenantName};

/// Events that are listed.
const LISTED: usize = 20;

/// The page.
pub(super) async fn show(
    State(cx): State<Cx>,
    visitor: Visitor,
    names: Names,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let parameters = parameters.only(&["done"], &[])?;
    let found = Found::service(&cx, &names.service()?)?;
    let tenant = names.tenant()?;
    let done = done(&cx, &parameters).await?;
    let query =
        EventQuery { service: Some(found.name().clone()), tenant: Some(tenant.clone()), ..past::newest(LISTED) };
    let events = cx.control.events(query).await.ok();
    let tints = Tints::of(&found.route);
    let (weights, _) = weights_of(&found, &tenant);
    let body = html! {
        (done)
        (state(&found, &tints, &tenant))
        (actions::of_tenant(&visitor, &found, &tenant, &weights))
        (evidence(&cx, &found, &tenant))
        section.card aria-labelledby="versions-title" {
            h2 id="versions-title" { "Versions, for this tenant" }
            (table_of(&tints, &versions(&cx, &found, Some(&tenant), Some(WINDOW)), None))
        }
        (charts(&cx, &found, &tints, Some(&tenant)))
        (history(events.as_deref()))
    };
    let heading = html! {
        p.crumb {
            a href="/" { "Overview" } " › " a href=(service_path(found.name())) { bdi { (found.name()) } } " › "
            a href={ (service_path(found.name())) "/tenants" } { "Tenants" } " ›"
        }
        h1 { bdi { (tenant) } }
    };
    let title = format!("{tenant} of {}", found.name());
    Ok(visitor.page_with(&cx, Nav::Overview, &title, heading, body, None))
}

fn state(found: &Found, tints: &Tints, tenant: &TenantName) -> Markup {
    let (live, view) = (found.live(), &found.view);
    let (weights, whence) = weights_of(found, tenant);
    let groups = view.routes.groups.get(tenant).map_or(&[][..], |groups| groups);
    let scope = Scope::Tenant(tenant.clone());
    let split = view.state.split_of(&view.settings.structure, found.name(), &scope).map(|(split, _)| split);
    let back = split.as_ref().and_then(|split| split.rolled_back.as_ref());
    let braked = split.as_ref().is_some_and(|split| split.brake.is_some());
    let maintenance = live.maintenance.of(Some(tenant.as_str()));
    let pin = live.pins.tenants.get(tenant);
    let explain = format!("/explain?service={}&tenant={}", part(found.name().as_str()), part(tenant.as_str()));
    html! {
        section.card aria-labelledby="state-title" {
            h2 id="state-title" { "Where it goes" }
            (bar(tints, live, &weights))
            p.lead {
                @match pin {
                    Some(Pin::Version(v)) => { "Pinned: always goes to " bdi { (v) } ", whatever the split says." },
                    Some(Pin::Suspended(v)) => { "Was pinned to " bdi { (v) } ", which was disabled; goes to the baseline." },
                    Some(Pin::Exclude(v)) => { "Never goes to " bdi { (v) } "; otherwise follows the split of " (whence_text(whence)) "." },
                    None => { "Follows the split of " (whence_text(whence)) "." },
                }
                @if braked { " A canary's share is held back for a moment." }
            }
            @if let Some(back) = back {
                p.note.bad {
                    bdi { (back.version) } " was rolled back " (moment(back.at_ms)) ", for "
                    @if whence == "its own" { "this tenant; below is told why." }
                    @else { "everyone that follows the split of " (whence) "." }
                }
            }
            @if let Some(m) = maintenance { p.note.warn { strong { "In maintenance" } " since " (moment(m.since_ms)) ", by " (past::author(&m.author)) @if !m.message.is_empty() { ": " bdi { (m.message) } } } }
            @if !groups.is_empty() {
                p.soft.small { "Groups: " @for (i, group) in groups.iter().enumerate() { @if i > 0 { ", " } bdi { (group) } } }
            }
            p { a href=(explain) { "Explain a request of this tenant" } }
        }
    }
}

fn whence_text(whence: &str) -> &str {
    if whence == "its own" { "its own settings" } else { whence }
}

fn evidence(cx: &Shared, found: &Found, tenant: &TenantName) -> Markup {
    let reports = cx.control.board().of(found.name(), Some(tenant));
    html! {
        section.card aria-labelledby="evidence-title" {
            h2 id="evidence-title" { "Evidence" }
            @if reports.is_empty() { p.soft { "Nothing is compared for this tenant alone." } }
            div.grid { @for report in &reports { div { (verdict::comparison(report)) } } }
        }
    }
}

fn history(events: Option<&[Event]>) -> Markup {
    html! {
        section.card aria-labelledby="past-title" {
            h2 id="past-title" { "What happened to it" }
            @match events {
                None => p.note.warn { "The history cannot be read while the store is away." },
                Some([]) => p.soft { "Nothing yet." },
                Some(events) => (past::list(&events.iter().collect::<Vec<_>>())),
            }
        }
    }
}
