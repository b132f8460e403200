//! The dashboard: pages for people over the same pieces that the API shows and the same door that it uses.
//!
//! Every page is whole without its script, which only puts in place what changed. A page is made of fragments: the
//! handler puts them together once, and [`live`] sends those that changed. To add a page: a module with a handler that
//! takes a [`Visitor`] and ends in [`Visitor::page`], a line in [`routes`], one in [`layout::NAV`], and, if it is to
//! follow what happens, a variant of [`live::Watched`].

mod actions;
mod around;
mod assets;
mod bar;
mod change;
mod chart;
mod explain;
mod form;
mod gate;
mod history;
mod layout;
mod live;
mod overview;
mod past;
mod proxies;
mod rollout;
mod rollout_do;
mod rollout_form;
mod rollout_start;
mod rollout_units;
mod rollout_words;
mod rollouts;
mod scan;
mod service;
mod session;
mod sign_in;
mod tenant;
mod tenants;
mod verdict;
mod words;

use axum::extract::Request;
use axum::http::{Method, header};
use axum::routing::{get, post};

pub(super) use gate::{Gate, dressed, require};

use super::routes::Route;
use crate::config::Role;

/// What belongs to the API; everything else is for people.
const API: [&str; 5] = ["/v1", "/livez", "/readyz", "/metrics", "/openapi.json"];

/// Every page.
pub(super) fn routes() -> Vec<Route> {
    let open = |method, path, handler| Route { method, path, role: None, page: true, handler };
    let read = |path, handler| Route { method: Method::GET, path, role: Some(Role::Viewer), page: true, handler };
    // What asks for confirmation takes the same role as what it leads to.
    let ask = |path, handler| Route { method: Method::GET, path, role: Some(Role::Operator), page: true, handler };
    let change = |path, handler| Route { method: Method::POST, path, role: Some(Role::Operator), page: true, handler };
    vec![
        read("/", get(overview::show)),
        read("/services/{service}", get(service::show)),
        read("/services/{service}/tenants", get(tenants::show)),
        read("/services/{service}/tenants/{tenant}", get(tenant::show)),
        read("/explain", get(explain::show)),
        read("/ui/events", get(live::follow)),
        ask(change::SERVICE, get(change::ask)),
        change(change::SERVICE, post(change::make)),
        ask(change::TENANT, get(change::ask)),
        change(change::TENANT, post(change::make)),
        read("/rollouts", get(rollouts::show)),
        read("/rollouts/{id}", get(rollout::show)),
        ask(rollout_do::PATH, get(rollout_do::ask)),
        change(rollout_do::PATH, post(rollout_do::make)),
        ask(rollout_start::FORM, get(rollout_start::show)),
        change(rollout_start::LOOK, post(rollout_start::look)),
        change(rollout_start::START, post(rollout_start::start)),
        read("/history", get(history::show)),
        read("/proxies", get(proxies::show)),
        open(Method::GET, sign_in::PATH, get(sign_in::show)),
        open(Method::POST, sign_in::PATH, post(sign_in::enter)),
        open(Method::POST, "/sign-out", post(sign_in::leave)),
        open(Method::GET, "/ui/assets/{file}", get(assets::get_asset)),
    ]
}

/// Whether the path is none of the API's.
pub(super) fn is_page(path: &str) -> bool {
    !API.iter().any(|api| path.strip_prefix(api).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Whether the answer is looked at by a person in a browser.
pub(super) fn is_for_people(request: &Request) -> bool {
    let accepts = request.headers().get_all(header::ACCEPT);
    let html = accepts.iter().filter_map(|v| v.to_str().ok()).any(|v| v.to_ascii_lowercase().contains("text/html"));
    html && is_page(request.uri().path())
}
