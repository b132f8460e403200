//! Tenants of a service: searched on the server and shown in pages, however many there are.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::super::context::{Cx, Found, Shared};
use super::super::parameters::{Names, Parameters};
use super::super::problem::Problem;
use super::bar::{Tints, dotted};
use super::layout::{Nav, Visitor};
use super::words::{count, part, service_path, share, tenant_path};
use crate::model::{BasisPoints, Pin, TenantName, VersionName, Weights};
use crate::routing::{SplitOwner, split_for};

/// Tenants of a page.
const PAGE: usize = 50;
/// The longest text that is searched for.
const MAX_SEARCH: usize = 128;

/// A tenant in the list.
struct Row {
    name: TenantName,
    weights: Weights,
    whence: &'static str,
    pin: Option<Pin>,
    requests: u64,
    failures: u64,
}

/// What is wanted.
struct Wanted {
    search: String,
    version: Option<VersionName>,
    after: String,
}

/// The page.
pub(super) async fn show(
    State(cx): State<Cx>,
    visitor: Visitor,
    names: Names,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let parameters = parameters.only(&["search", "version", "after"], &[])?;
    let found = Found::service(&cx, &names.service()?)?;
    let version = parameters.text("version").map(|v| found.version("version", v)).transpose()?;
    let search: String = parameters.text("search").unwrap_or_default().chars().take(MAX_SEARCH).collect();
    let after = parameters.text("after").unwrap_or_default().to_owned();
    let wanted = Wanted { search, version, after };
    let (shared, name) = (cx.clone(), found.name().clone());
    // A hundred thousand tenants and more: other requests of this thread should not wait for it.
    let page = tokio::task::spawn_blocking(move || {
        let (rows, more) = rows(&shared, &found, &wanted);
        (html! { (form(&found, &wanted)) (table(&found, &wanted, &rows, more)) }, ())
    });
    let (body, ()) = page
        .await
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "", "the tenants could not be listed"))?;
    let heading = html! {
        p.crumb { a href="/" { "Overview" } " › " a href=(service_path(&name)) { bdi { (name) } } " ›" }
        h1 { "Tenants" }
    };
    Ok(visitor.page_with(&cx, Nav::Overview, &format!("Tenants of {name}"), heading, body, None))
}

/// How many tenants have a share of each version by a split of their own, and how many are pinned to it.
pub(super) async fn by_version(found: &Found) -> Vec<(VersionName, usize, usize)> {
    let route = found.route.clone();
    // A million splits at most: other requests of this thread should not wait for it.
    let counted = tokio::task::spawn_blocking(move || {
        let live = &route.state;
        let mut counts: Vec<_> = route.versions.iter().map(|v| (v.name.clone(), 0, 0)).collect();
        for own in route.tenants.values() {
            let weights = live.weights_in_effect(&own.split);
            counts.iter_mut().filter(|(v, ..)| weights.share(v.as_str()) > BasisPoints::ZERO).for_each(|c| c.1 += 1);
        }
        for pin in live.pins.tenants.values() {
            counts.iter_mut().filter(|(v, ..)| matches!(pin, Pin::Version(to) if to == v)).for_each(|c| c.2 += 1);
        }
        counts
    });
    counted.await.unwrap_or_default()
}

/// A page of tenants by name, and whether there are more: those with traffic, with a split or a pin of their own.
fn rows(cx: &Shared, found: &Found, wanted: &Wanted) -> (Vec<Row>, bool) {
    let (route, live) = (&found.route, found.live());
    let search = wanted.search.to_ascii_lowercase();
    let scopes = cx.tallies.service(found.name()).scopes();
    let with_traffic = scopes.iter().filter(|s| !s.is_other()).filter_map(|s| s.tenant());
    let known = route.tenants.keys().chain(live.pins.tenants.keys()).chain(with_traffic);
    let fits = |name: &TenantName| {
        name.as_str() > wanted.after.as_str()
            && (search.is_empty() || name.as_str().to_ascii_lowercase().contains(&search))
            && wanted.version.as_ref().is_none_or(|version| is_on(found, name, version))
    };
    // Only a page's worth is ever kept and in order.
    let mut page: BTreeSet<&TenantName> = BTreeSet::new();
    for name in known {
        let full = page.len() > PAGE;
        if full && page.last().is_some_and(|last| name >= *last) || page.contains(name) || !fits(name) {
            continue;
        }
        page.insert(name);
        if page.len() > PAGE + 1 {
            page.pop_last();
        }
    }
    let more = page.len() > PAGE;
    (page.into_iter().take(PAGE).map(|name| row(cx, found, name)).collect(), more)
}

/// Whether any of a tenant's requests go to a version now.
fn is_on(found: &Found, tenant: &TenantName, version: &VersionName) -> bool {
    match found.live().pins.tenants.get(tenant) {
        Some(Pin::Version(pinned)) => pinned == version,
        _ => weights_of(found, tenant).0.share(version.as_str()) > BasisPoints::ZERO,
    }
}

/// What a tenant follows, and whose split it is.
pub(super) fn weights_of(found: &Found, tenant: &TenantName) -> (Weights, &'static str) {
    let (split, owner) = split_for(&found.view.routes, &found.route, Some(tenant.as_str()));
    let whence = match owner {
        SplitOwner::Service => "the service",
        SplitOwner::Group => "its group",
        SplitOwner::Tenant => "its own",
    };
    (found.live().weights_in_effect(split), whence)
}

fn row(cx: &Shared, found: &Found, tenant: &TenantName) -> Row {
    let (weights, whence) = weights_of(found, tenant);
    let stats = cx.lock_windows().stats(found.name(), Some(tenant), Some(300_000), cx.now());
    let (requests, failures) = stats.iter().fold((0, 0), |(r, f), s| (r + s.requests, f + s.failed));
    let pin = found.live().pins.tenants.get(tenant).cloned();
    Row { name: tenant.clone(), weights, whence, pin, requests, failures }
}

fn form(found: &Found, wanted: &Wanted) -> Markup {
    html! {
        form.card.inline method="get" role="search" {
            div.field.wide {
                label for="search" { "A part of the name" }
                input id="search" name="search" type="search" value=(wanted.search) maxlength=(MAX_SEARCH) spellcheck="false" autocomplete="off";
            }
            div.field {
                label for="version" { "On version" }
                select id="version" name="version" {
                    option value="" { "any" }
                    @for v in &found.route.versions { option selected[wanted.version.as_ref() == Some(&v.name)] { (v.name) } }
                }
            }
            button type="submit" { "Find" }
        }
    }
}

fn table(found: &Found, wanted: &Wanted, rows: &[Row], more: bool) -> Markup {
    let tints = Tints::of(&found.route);
    html! {
        section.card aria-labelledby="found-title" {
            h2 id="found-title" { @if more { "The first " (PAGE) } @else { (count(rows.len() as u64)) } " by name" }
            @if rows.is_empty() { p.soft { "No tenant with traffic, a split or a pin of its own is like that." } }
            @else {
                div.scroll tabindex="0" role="region" aria-labelledby="found-title" {
                    table {
                        caption { "Requests over the last five minutes" }
                        thead { tr { th scope="col" { "Tenant" } th scope="col" { "Goes to" } th scope="col" { "Follows" } th.nums scope="col" { "Requests" } th.nums scope="col" { "Failed" } } }
                        tbody { @for row in rows { (line(found, &tints, row)) } }
                    }
                }
            }
            @if more && let Some(last) = rows.last() {
                p { a.button href={ "?" (query(wanted, last)) } { "Next " (PAGE) } }
            }
        }
    }
}

fn line(found: &Found, tints: &Tints, row: &Row) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(tenant_path(found.name(), &row.name)) { bdi { (row.name) } } }
            td { @for (version, points) in row.weights.iter() { span.row { (dotted(tints, version)) " " (share(points)) " " } } }
            td {
                (row.whence)
                @match &row.pin {
                    Some(Pin::Exclude(v)) => { ", never " bdi { (v) } },
                    Some(pin) => { ", pinned to " bdi { (pin.version()) } },
                    None => {},
                }
            }
            td.nums { (count(row.requests)) }
            td.nums { (count(row.failures)) }
        }
    }
}

fn query(wanted: &Wanted, last: &Row) -> String {
    let version = wanted.version.as_ref().map_or("", VersionName::as_str);
    format!("search={}&version={}&after={}", part(&wanted.search), part(version), part(last.name.as_str()))
}
