//! What may be done on a page: forms that lead to a page which asks for confirmation.

use maud::{Markup, html};

use super::super::context::Found;
use super::change::{service_action, tenant_action};
use super::layout::Visitor;
use super::words::count;
use crate::config::Role;
use crate::model::{Pin, ServiceName, TenantName, VersionName, Weights};

/// What may be done with a service. Nothing for those who may not.
pub(super) fn of_service(visitor: &Visitor, found: &Found) -> Markup {
    if !visitor.can(Role::Operator) {
        return html! {};
    }
    let (name, live) = (found.name(), found.live());
    let weights = live.weights_in_effect(&live.split);
    let revision = html! { input type="hidden" name="revision" value=(live.revision); };
    let moved = weights.sole() != Some(&live.baseline) || !found.route.tenants.is_empty();
    html! {
        section.card aria-labelledby="change-title" {
            h2 id="change-title" { "Change" }
            (split_form(&service_action(name, "split"), found, &weights, &revision))
            div.inline {
                @if moved { (button(&service_action(name, "rollback"), &revision, "Roll back…", true)) }
                @if live.hold.is_some() { (button(&service_action(name, "release"), &revision, "Release the hold…", false)) }
                @else { (button(&service_action(name, "hold"), &revision, "Hold automation…", false)) }
            }
        }
    }
}

/// What may be done with a tenant. `weights`: what it follows now.
pub(super) fn of_tenant(visitor: &Visitor, found: &Found, tenant: &TenantName, weights: &Weights) -> Markup {
    if !visitor.can(Role::Operator) {
        return html! {};
    }
    let (name, live) = (found.name(), found.live());
    let own = found.route.tenants.get(tenant);
    let seen = html! { input type="hidden" name="seen" value=(live.revision); };
    let of_split = html! {
        input type="hidden" name="revision" value=(own.map_or(0, |own| own.revision));
        (seen)
    };
    let of_pin = html! { input type="hidden" name="revision" value=(live.revision); (seen) };
    let pin = live.pins.tenants.get(tenant);
    let path = |action| tenant_action(name, tenant, action);
    html! {
        section.card aria-labelledby="change-title" {
            h2 id="change-title" { "Change" }
            (split_form(&path("split"), found, weights, &of_split))
            div.inline {
                @if weights.sole() != Some(&live.baseline) { (button(&path("rollback"), &of_split, "Roll back this tenant…", true)) }
                @if own.is_some() { (button(&path("follow"), &of_split, "Follow the wider split again…", false)) }
                @if pin.is_some() { (button(&path("unpin"), &of_pin, "Remove the pin…", false)) }
            }
            (pin_form(&path("pin"), found, pin, &of_pin))
        }
    }
}

/// Shares for each version that may have one.
fn split_form(action: &str, found: &Found, weights: &Weights, hidden: &Markup) -> Markup {
    let live = found.live();
    let usable = found.route.versions.iter().map(|v| &v.name).filter(|v| !live.is_disabled(v));
    html! {
        form method="get" action=(action) {
            (hidden)
            fieldset {
                legend { "Shares in percent" }
                div.inline {
                    @for (i, version) in usable.enumerate() { (share_field(i, version, weights)) }
                    button type="submit" { "Set the split…" }
                }
            }
        }
    }
}

fn share_field(i: usize, version: &VersionName, weights: &Weights) -> Markup {
    html! {
        div.field {
            label for={ "share-" (i) } { bdi { (version) } }
            input id={ "share-" (i) } name={ "share." (version) } type="number" min="0" max="100" step="0.01" required
                inputmode="decimal" autocomplete="off" value=(weights.share(version.as_str()).percent());
        }
    }
}

fn pin_form(action: &str, found: &Found, pin: Option<&Pin>, hidden: &Markup) -> Markup {
    let live = found.live();
    let chosen = |v: &VersionName| pin.is_some_and(|p| p.version() == v);
    html! {
        form.inline method="get" action=(action) {
            (hidden)
            div.field {
                label for="pin-kind" { "Pin" }
                select id="pin-kind" name="kind" {
                    option value="version" { "always to" }
                    option value="exclude" selected[matches!(pin, Some(Pin::Exclude(_)))] { "never to" }
                }
            }
            div.field {
                label for="pin-version" { "Version" }
                select id="pin-version" name="version" {
                    @for v in found.route.versions.iter().map(|v| &v.name).filter(|v| !live.is_disabled(v)) {
                        option selected[chosen(v)] { (v) }
                    }
                }
            }
            button type="submit" { "Pin this tenant…" }
        }
    }
}

fn button(action: &str, hidden: &Markup, label: &str, danger: bool) -> Markup {
    html! {
        form method="get" action=(action) { (hidden) button.danger[danger] type="submit" { (label) } }
    }
}

/// How many tenants a change of the service's split leaves where they are.
pub(super) fn left_alone(found: &Found) -> Option<String> {
    let own = found.route.tenants.len() as u64;
    let service: &ServiceName = found.name();
    (own > 0)
        .then(|| format!("Tenants with a split of their own within {service} ({}) stay where they are.", count(own)))
}
