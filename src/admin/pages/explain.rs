//! Why a request goes where it goes: a form, and the chain of decisions as the API tells it.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::super::context::{Cx, Found};
use super::super::explain::{ExplainAnswer, explained};
use super::super::parameters::{Parameters, read_name};
use super::super::problem::Problem;
use super::layout::{Nav, Visitor};

/// What the form asks for besides the service.
const FIELDS: [(&str, &str, &str); 3] = [
    ("tenant", "Tenant", "put where tenants.identify looks first"),
    ("key", "Key", "a user or session: what stays together on one version"),
    ("path", "Path", "begins with /; one that the service matches unless given"),
];

/// The page.
pub(super) async fn show(State(cx): State<Cx>, visitor: Visitor, parameters: Parameters) -> Result<Response, Problem> {
    let parameters = parameters.only(&["service", "tenant", "key", "path"], &[])?;
    let answer = match parameters.text("service") {
        Some(service) => {
            let found = Found::service(&cx, &read_name("service", service)?)?;
            Some(explained(&found, &parameters)?)
        }
        None => None,
    };
    let view = cx.control.view();
    let names: Vec<_> = view.routes.services.iter().map(|route| route.spec.name.as_str()).collect();
    let body = html! {
        p { "Which version would answer a request, and why. The request is made up from what you enter and goes through the same decision as a real one." }
        (form(&names, &parameters))
        @if let Some(answer) = &answer { (chain(answer)) }
    };
    Ok(visitor.page(&cx, Nav::Explain, "Explain", body))
}

fn form(names: &[&str], given: &Parameters) -> Markup {
    html! {
        form.card method="get" action="/explain" {
            div.inline.top {
                div.field {
                    label for="service" { "Service" }
                    select id="service" name="service" required {
                        @for name in names { option selected[given.text("service") == Some(name)] { (name) } }
                    }
                }
                @for (name, label, hint) in FIELDS {
                    div.field.wide {
                        label for=(name) { (label) }
                        input id=(name) name=(name) value=[given.text(name)] spellcheck="false" autocomplete="off" aria-describedby={ (name) "-hint" };
                        span.hint id={ (name) "-hint" } { (hint) }
                    }
                }
            }
            button.primary type="submit" { "Explain" }
        }
    }
}

fn chain(answer: &ExplainAnswer) -> Markup {
    html! {
        section.card aria-labelledby="chain-title" {
            h2 id="chain-title" {
                @match (&answer.service, &answer.version) {
                    (Some(service), Some(version)) => { "Version " bdi { (version) } " of " bdi { (service) } " would answer" },
                    (Some(service), None) => { bdi { (service) } " would answer with a refusal" },
                    _ => "The request would be refused",
                }
            }
            ol.steps { @for step in &answer.steps { li { span.what { (step.step) } span.detail { bdi { (step.detail) } } } } }
            @if !answer.endpoints.is_empty() {
                p.soft.small { "Sent to " bdi { (answer.endpoints.join(", ")) } " as " code { bdi { (answer.path) } } }
            }
        }
    }
}
