//! `[services.X.guard]`: when traffic is shifted back.

use super::view::View;
use crate::model::{GuardSpec, PlainLimits};

/// A guard's table.
pub(super) fn guard(view: &View<'_>) -> GuardSpec {
    let without = GuardSpec::default();
    let tolerance = view.table("tolerance");
    GuardSpec {
        enabled: view.flag("enabled").unwrap_or(without.enabled),
        tolerance_ratio: tolerance.number("ratio").unwrap_or(without.tolerance_ratio),
        tolerance_difference: tolerance.share("difference").unwrap_or(without.tolerance_difference),
        ceiling: view.share("ceiling").unwrap_or(without.ceiling),
        patience: view.duration("patience").unwrap_or(without.patience),
        error_probability: view.number("error_probability").unwrap_or(without.error_probability),
        latency: view.flag("latency").unwrap_or(without.latency),
        latency_tolerance: view.number("latency_tolerance").unwrap_or(without.latency_tolerance),
        client_errors: view.flag("client_errors").unwrap_or(without.client_errors),
        brake: view.flag("brake").unwrap_or(without.brake),
        fleet: view.flag("fleet").unwrap_or(without.fleet),
        health: view.flag("health").unwrap_or(without.health),
        limits: limits(view),
    }
}

fn limits(view: &View<'_>) -> PlainLimits {
    let without = PlainLimits::default();
    PlainLimits {
        max_error_rate: view.share("max_error_rate"),
        max_p99: view.duration("max_p99"),
        min_requests: view.integer("min_requests").unwrap_or(without.min_requests),
        window: view.duration("window").unwrap_or(without.window),
    }
}
