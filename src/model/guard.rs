//! The guard's settings of one service: what counts as worse, and which plain limits hold besides.

use std::time::Duration;

use super::share::BasisPoints;

/// When traffic is shifted back. The defaults are those of the analysis room's specification.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardSpec {
    /// Off: nothing is judged and nothing shifted back.
    pub enabled: bool,
    /// A canary may fail this many times as often as the baseline, 1 to 10, ...
    pub tolerance_ratio: f64,
    /// ... plus this share of its requests.
    pub tolerance_difference: BasisPoints,
    /// The failure rate that breaks the service's objective (SLO ceiling).
    pub ceiling: BasisPoints,
    /// One slot of this length is worth at most a factor of ten, 100 ms to 15 s; three to four slots of sustained failure are needed.
    pub patience: Duration,
    /// Probability that a healthy version is ever rolled back, per attempt and hour, 1e-9 to 0.05.
    pub error_probability: f64,
    /// Whether latency is judged.
    pub latency: bool,
    /// A canary's request is slow when it takes longer than the baseline's percentile times this, 1 to 10.
    pub latency_tolerance: f64,
    /// Whether 4xx answers are judged.
    pub client_errors: bool,
    /// Whether the canary's share is held back while evidence is being confirmed.
    pub brake: bool,
    /// Whether the evidence of all tenants together can shift the version back for all.
    pub fleet: bool,
    /// Whether a canary without any healthy endpoint is shifted back while the baseline has one.
    pub health: bool,
    /// Plain limits.
    pub limits: PlainLimits,
}

impl Default for GuardSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            tolerance_ratio: 1.1,
            tolerance_difference: points(5),
            ceiling: points(500),
            patience: Duration::from_secs(1),
            error_probability: 1e-4,
            latency: true,
            latency_tolerance: 1.05,
            client_errors: false,
            brake: true,
            fleet: true,
            health: true,
            limits: PlainLimits::default(),
        }
    }
}

fn points(points: u16) -> BasisPoints {
    BasisPoints::new(points).unwrap_or_default()
}

/// Limits on the canary alone, without statistics: easy to understand, easy to trip by chance.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainLimits {
    /// Highest failure rate within the window.
    pub max_error_rate: Option<BasisPoints>,
    /// Highest 99th percentile of latency within the window.
    pub max_p99: Option<Duration>,
    /// Requests that the window must hold before a limit can trip.
    pub min_requests: u64,
    /// The time that is looked at, 1 s to 1 h.
    pub window: Duration,
}

impl Default for PlainLimits {
    fn default() -> Self {
        Self { max_error_rate: None, max_p99: None, min_requests: 100, window: Duration::from_secs(60) }
    }
}

impl PlainLimits {
    /// Whether any limit is set.
    pub fn any(&self) -> bool {
        self.max_error_rate.is_some() || self.max_p99.is_some()
    }
}
