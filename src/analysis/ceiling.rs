//! Evidence that one version by itself breaks the SLO: the same bet without a baseline.
//!
//! With `rho = 0` and `delta` the ceiling, the claim is `p ≤ ceiling` and the share drops out of the factors. In a
//! shared outage both versions' ceilings break while the comparative evidence stays flat; that is how it is told
//! from a bad canary.

use serde::{Deserialize, Serialize};

use super::channel::{Channel, SlotClock};
use super::parameters::{ChannelParameters, Parameters};
use super::signal::{ArmCounts, Signal, SignalCounts};

/// With `rho = 0` every share gives the same bet, up to rounding.
const ANY_SHARE: f64 = 0.5;

/// The evidence that one version's failure rate exceeds a limit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ceiling {
    channel: Channel,
    clock: SlotClock,
}

impl Ceiling {
    /// Watches the limit `parameters.ceiling`.
    #[must_use]
    pub fn new(parameters: &Parameters) -> Self {
        Self::with_limit(parameters.ceiling, parameters)
    }

    /// Watches another limit, a fraction between 0 and 1 exclusive.
    #[must_use]
    pub fn with_limit(limit: f64, parameters: &Parameters) -> Self {
        let channel = ChannelParameters { signal: Signal::Error, weight: 1.0, rho: 0.0, delta: limit };
        Self { channel: Channel::new(&channel, parameters), clock: SlotClock::new(parameters.slot_ms) }
    }

    /// Books the version's requests that were completed by `now_ms`.
    pub fn add(&mut self, now_ms: u64, counts: ArmCounts) {
        let elapsed = self.clock.advance(now_ms);
        if elapsed > 0 {
            self.channel.close(elapsed);
        }
        self.channel.add(ANY_SHARE, &SignalCounts { baseline: ArmCounts::default(), canary: counts });
    }

    /// Continues on another axis of time, as if the last request had ended at `now_ms`.
    pub fn resume(&mut self, now_ms: u64) {
        self.clock.resume(now_ms);
    }

    /// The evidence, as a logarithm: 0 at the start, the limit counts as broken at `ln 1/alpha`.
    #[must_use]
    pub fn log_evidence(&self) -> f64 {
        self.channel.log_evidence()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rate_above_the_limit_breaks_it() {
        let parameters = Parameters::default();
        let (mut fine, mut broken) = (Ceiling::new(&parameters), Ceiling::new(&parameters));
        for second in 0..60 {
            fine.add(second * 1000, ArmCounts::new(100, 5));
            broken.add(second * 1000, ArmCounts::new(100, 20));
        }
        assert!(fine.log_evidence() < 2.0);
        assert!(broken.log_evidence() > parameters.log_rollback_at());
    }
}
