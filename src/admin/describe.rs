//! What the configuration says, in the words of the file: durations, rules, keys and guards for people to read.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{BasisPoints, GuardSpec, KeySource, MatchRule, Sticky};

/// A guard as the configuration file writes it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Guard)]
pub(super) struct GuardAnswer {
    enabled: bool,
    tolerance: ToleranceAnswer,
    /// Percent of failures that breaks the service's objective.
    #[schema(value_type = f64)]
    ceiling: BasisPoints,
    patience: String,
    error_probability: f64,
    latency: bool,
    latency_tolerance: f64,
    client_errors: bool,
    brake: bool,
    fleet: bool,
    health: bool,
    #[schema(value_type = Option<f64>)]
    max_error_rate: Option<BasisPoints>,
    max_p99: Option<String>,
    min_requests: u64,
    window: String,
}

/// How much worse than the baseline a canary may be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tolerance)]
pub(super) struct ToleranceAnswer {
    ratio: f64,
    /// Percent of the requests.
    #[schema(value_type = f64)]
    difference: BasisPoints,
}

impl GuardAnswer {
    pub(super) fn new(guard: &GuardSpec) -> Self {
        Self {
            enabled: guard.enabled,
            tolerance: ToleranceAnswer { ratio: guard.tolerance_ratio, difference: guard.tolerance_difference },
            ceiling: guard.ceiling,
            patience: duration(guard.patience),
            error_probability: guard.error_probability,
            latency: guard.latency,
            latency_tolerance: guard.latency_tolerance,
            client_errors: guard.client_errors,
            brake: guard.brake,
            fleet: guard.fleet,
            health: guard.health,
            max_error_rate: guard.limits.max_error_rate,
            max_p99: guard.limits.max_p99.map(duration),
            min_requests: guard.limits.min_requests,
            window: duration(guard.limits.window),
        }
    }
}

/// A duration in the largest unit that loses nothing.
pub(super) fn duration(span: Duration) -> String {
    let (seconds, millis) = (span.as_secs(), span.as_millis());
    match (seconds, span.subsec_nanos()) {
        (s, 0) if s > 0 && s % 3600 == 0 => format!("{}h", s / 3600),
        (s, 0) if s > 0 && s % 60 == 0 => format!("{}m", s / 60),
        (s, 0) => format!("{s}s"),
        _ => format!("{millis}ms"),
    }
}

/// A rule in one line, such as `GET,POST api.example.com/accounting x-beta=1`.
pub(super) fn rule(rule: &MatchRule) -> String {
    let methods = rule.methods.iter().map(http::Method::as_str).collect::<Vec<_>>().join(",");
    let place = format!("{}{}", rule.host.as_deref().unwrap_or_default(), rule.path.as_deref().unwrap_or_default());
    let headers = rule.headers.iter().map(|(name, value)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.to_string(),
    });
    let parts: Vec<_> = [methods, place].into_iter().chain(headers).filter(|p| !p.is_empty()).collect();
    if parts.is_empty() { "everything".to_owned() } else { parts.join(" ") }
}

/// A source of keys in words, and how it keeps sessions.
pub(super) fn sticky(sticky: &Sticky) -> String {
    let source = key_source(&sticky.source);
    match &sticky.session {
        Some(session) => format!("{source}, sessions of {} in cookie {}", duration(session.ttl), session.cookie),
        None => source,
    }
}

fn key_source(source: &KeySource) -> String {
    match source {
        KeySource::Header(name) => format!("header {name}"),
        KeySource::Cookie(name) => format!("cookie {name}"),
        KeySource::Issued { name, max_age } => format!("issued cookie {name} for {}", duration(*max_age)),
        KeySource::Address => "address".to_owned(),
        KeySource::Tenant => "tenant".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let cases = [(0, "0s"), (250, "250ms"), (1_000, "1s"), (1_500, "1500ms"), (300_000, "5m"), (7_200_000, "2h")];
        for (millis, text) in cases {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn rules_read_well() {
        let all = MatchRule {
            host: Some("*.example.com".into()),
            path: Some("/a".into()),
            headers: vec![(http::HeaderName::from_static("x-beta"), Some("1".into()))],
            methods: vec![http::Method::GET],
        };
        assert_eq!(rule(&all), "GET *.example.com/a x-beta=1");
        assert_eq!(rule(&MatchRule::default()), "everything");
    }
}
