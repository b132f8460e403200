//! `[services.X.limits]`: what each tenant may use.

use super::tree::Value;
use super::view::View;
use crate::model::{GroupName, Limit, LimitOverride, LimitsSpec, Rate, TenantName, WithoutTenant};

/// The table of a service.
pub(super) fn limits(view: &View<'_>) -> LimitsSpec {
    let LimitOverride { rate, concurrency } = limit(view);
    let some = |key: &str| {
        let entries = view.entries(key).iter();
        entries.map(|(name, node)| (name.as_str(), limit(&View::new(node, view.cx)))).collect::<Vec<_>>()
    };
    LimitsSpec {
        each: Limit { rate: rate.flatten(), concurrency: concurrency.flatten() },
        groups: some("groups").into_iter().filter_map(|(name, l)| Some((GroupName::new(name).ok()?, l))).collect(),
        tenants: some("tenants").into_iter().filter_map(|(name, l)| Some((TenantName::new(name).ok()?, l))).collect(),
        without_tenant: match view.text("without_tenant") {
            Some("together") => WithoutTenant::Together,
            Some("unlimited") => WithoutTenant::Unlimited,
            _ => WithoutTenant::Address,
        },
    }
}

/// `"none"` is no limit, and another thing than nothing said.
fn limit(view: &View<'_>) -> LimitOverride {
    let none = |key: &str| matches!(view.get(key).map(|node| &node.value), Some(Value::Text(_)));
    let burst = view.integer("burst");
    if none("rate") && burst.is_some() {
        view.wrong_at("burst", "means nothing beside rate = \"none\"; allowed is it beside a number");
    }
    LimitOverride {
        rate: if none("rate") { Some(None) } else { view.number("rate").map(|rate| Rate::new(rate, burst)) },
        concurrency: if none("concurrency") { Some(None) } else { view.integer("concurrency").map(Some) },
    }
}

/// Limits of a group that does not exist would silently limit nobody.
pub(super) fn check_groups(view: &View<'_>, known: &[&str]) {
    for (name, node) in view.entries("groups") {
        if !known.contains(&name.as_str()) {
            let list = if known.is_empty() { "none, since there are no groups".to_owned() } else { known.join(", ") };
            view.cx.wrong(node, format!("{name:?} is no group of tenants.groups; allowed are {list}"));
        }
    }
}
