//! The settings of the analysis, with the defaults that were chosen by simulation, and their check.

use serde::{Deserialize, Serialize};

use super::signal::Signal;
use crate::model::GuardSpec;

/// At most this many alternatives per channel and bets per promoter: the state is kept in fixed arrays.
pub(super) const MAX_COMPONENTS: usize = 4;

/// The margin and the stake of one signal: the canary may be as bad as `rho × baseline + delta`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChannelParameters {
    /// The kind of bad event.
    pub signal: Signal,
    /// Part of the initial capital staked on this signal; above 0. All weights together are at most 1.
    pub weight: f64,
    /// How many times the baseline's bad rate is still fine; at least 0.
    pub rho: f64,
    /// What is fine on top of that, as a fraction (0.0005 is 0.05 percentage points); 0 to below 1.
    pub delta: f64,
}

/// Everything that can be set. The defaults are those of the analysis specification, section 2.6.
///
/// Operators need to know three: the tolerance (`rho` and `delta` of the error channel), the SLO (`ceiling`) and the
/// patience (`slot_ms`: 1 s means 3 to 4 s of sustained failure before a rollback).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// Probability at which a healthy canary may be rolled back, per rollout, step and refill; 0 to 1, exclusive.
    pub alpha: f64,
    /// Lost stake comes back at this many initial stakes per hour, so that a good past cannot bury a late failure.
    pub refill_per_hour: f64,
    /// "The canary is this many times worse than the margin allows": the alternatives bet on; 1 to 4, each above 1.
    pub multiples: Vec<f64>,
    /// Length of a slot, milliseconds; above 0.
    pub slot_ms: u64,
    /// What one slot may multiply a component's capital by at most; above 1. Guards against hiccups and bursts.
    pub cap: f64,
    /// The signals that are tested; each at most once, [`Signal::Error`] always.
    pub channels: Vec<ChannelParameters>,
    /// A canary request counts as slow above the baseline's cut times this; at least 1. 1.05 is one histogram bucket.
    pub latency_tolerance: f64,
    /// Evidence (a capital) at which the brake is pulled; above 1.
    pub brake_at: f64,
    /// The brake counts only alternatives at least this bad.
    pub brake_multiple: f64,
    /// The brake is released after this long without a bad event on the canary, milliseconds.
    pub brake_quiet_ms: u64,
    /// A braked share is divided by this; at least 1.
    pub brake_divisor: f64,
    /// But is not brought below this fraction, or the evidence would dry up; 0 to 1.
    pub brake_floor: f64,
    /// No braking below this many canary requests per second: there is too little harm to limit.
    pub brake_min_canary_rps: f64,
    /// SLO: the failure rate that no version may exceed, as a fraction; 0 to 1, exclusive.
    pub ceiling: f64,
    /// Comparative evidence (a capital) that is enough for a rollback when only the canary breaks the ceiling.
    pub ceiling_needs: f64,
    /// Evidence (a capital) for "not beyond the promotion margin" that each signal needs; above 1.
    pub promote_at: f64,
    /// Promotion margin, factor on the baseline's bad rate.
    pub promote_rho: f64,
    /// Promotion margin, added fraction; above 0, or no number of good requests could ever prove anything.
    pub promote_delta: f64,
    /// Stakes of the promotion bet; 1 to 4, each 0 to 1, exclusive.
    pub promote_bets: Vec<f64>,
    /// No promotion when the evidence against the canary (a capital) stands at this or above.
    pub promote_below: f64,
    /// What one scope may give to the fleet's evidence, as a factor; above 1. At 100 it takes three scopes to get
    /// from 1 to 10,000.
    pub fleet_scope_cap: f64,
}

impl Parameters {
    /// The analysis with a service's guard settings.
    #[must_use]
    pub fn of(guard: &GuardSpec) -> Self {
        let mut parameters = Self {
            alpha: guard.error_probability,
            slot_ms: guard.patience.as_millis() as u64,
            latency_tolerance: guard.latency_tolerance,
            ceiling: guard.ceiling.ratio(),
            ..Self::default()
        };
        for channel in &mut parameters.channels {
            if channel.signal == Signal::Error {
                channel.rho = guard.tolerance_ratio;
                channel.delta = guard.tolerance_difference.ratio();
            }
        }
        if !guard.latency {
            parameters.channels.retain(|c| c.signal == Signal::Error);
        }
        if guard.client_errors { parameters.with_client_errors() } else { parameters }
    }

    /// Also tests 4xx answers, which show broken authentication or routing. The stake comes from the error channel.
    #[must_use]
    pub fn with_client_errors(mut self) -> Self {
        if self.channel(Signal::ClientError).is_some() {
            return self;
        }
        if let Some(error) = self.channels.iter_mut().find(|c| c.signal == Signal::Error) {
            error.weight /= 2.0;
            let weight = error.weight;
            self.channels.push(ChannelParameters { signal: Signal::ClientError, weight, rho: 1.5, delta: 0.01 });
        }
        self
    }

    /// The channel of a signal, if it is tested.
    #[must_use]
    pub fn channel(&self, signal: Signal) -> Option<&ChannelParameters> {
        self.channels.iter().find(|c| c.signal == signal)
    }

    /// The natural logarithm of the evidence that rolls back, `ln 1/alpha`.
    #[must_use]
    pub fn log_rollback_at(&self) -> f64 {
        -self.alpha.ln()
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    ///
    /// Every mistake, as a sentence that names the field.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut mistakes = Vec::new();
        for (holds, mistake) in self.limits() {
            if !holds {
                mistakes.push(mistake.to_owned());
            }
        }
        self.validate_channels(&mut mistakes);
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    // Written as "holds" and not as "is wrong", so that NaN is a mistake everywhere.
    fn limits(&self) -> [(bool, &'static str); 20] {
        let open_unit = |x: f64| x > 0.0 && x < 1.0;
        let at_least = |x: f64, low: f64| x >= low && x.is_finite();
        let above = |x: f64, low: f64| x > low && x.is_finite();
        let few = |len: usize| (1..=MAX_COMPONENTS).contains(&len);
        [
            (open_unit(self.alpha), "alpha must lie between 0 and 1"),
            (at_least(self.refill_per_hour, 0.0), "refill_per_hour must not be negative"),
            (few(self.multiples.len()), "multiples must have 1 to 4 entries"),
            (self.multiples.iter().all(|g| above(*g, 1.0)), "multiples must all be above 1"),
            (self.slot_ms > 0, "slot_ms must be above 0"),
            (above(self.cap, 1.0), "cap must be above 1"),
            (at_least(self.latency_tolerance, 1.0), "latency_tolerance must be at least 1"),
            (above(self.brake_at, 1.0), "brake_at must be above 1"),
            (at_least(self.brake_multiple, 1.0), "brake_multiple must be at least 1"),
            (at_least(self.brake_divisor, 1.0), "brake_divisor must be at least 1"),
            ((0.0..=1.0).contains(&self.brake_floor), "brake_floor must lie between 0 and 1"),
            (at_least(self.brake_min_canary_rps, 0.0), "brake_min_canary_rps must not be negative"),
            (open_unit(self.ceiling), "ceiling must lie between 0 and 1"),
            (above(self.ceiling_needs, 1.0), "ceiling_needs must be above 1"),
            (above(self.promote_at, 1.0), "promote_at must be above 1"),
            (at_least(self.promote_rho, 0.0), "promote_rho must not be negative"),
            (open_unit(self.promote_delta), "promote_delta must lie between 0 and 1"),
            (
                few(self.promote_bets.len()) && self.promote_bets.iter().all(|eta| open_unit(*eta)),
                "promote_bets must have 1 to 4 entries between 0 and 1",
            ),
            (above(self.promote_below, 1.0), "promote_below must be above 1"),
            (above(self.fleet_scope_cap, 1.0), "fleet_scope_cap must be above 1"),
        ]
    }

    fn validate_channels(&self, mistakes: &mut Vec<String>) {
        if self.channel(Signal::Error).is_none() {
            mistakes.push("channels must contain the error signal".to_owned());
        }
        for (position, channel) in self.channels.iter().enumerate() {
            let name = channel.signal.as_str();
            if self.channels[..position].iter().any(|earlier| earlier.signal == channel.signal) {
                mistakes.push(format!("channels must name {name} only once"));
            }
            if !(channel.weight > 0.0 && channel.weight <= 1.0) {
                mistakes.push(format!("the weight of {name} must lie between 0 and 1"));
            }
            if !(channel.rho >= 0.0 && channel.rho.is_finite()) {
                mistakes.push(format!("rho of {name} must not be negative"));
            }
            if !(0.0..1.0).contains(&channel.delta) {
                mistakes.push(format!("delta of {name} must be at least 0 and below 1"));
            }
        }
        // The bound on false rollbacks is proportional to the capital that is put in.
        let total: f64 = self.channels.iter().map(|c| c.weight).sum();
        if total > 1.0 + 1e-9 {
            mistakes.push("the weights of all channels together must not exceed 1".to_owned());
        }
    }
}

impl Default for Parameters {
    fn default() -> Self {
        let latency = |signal| ChannelParameters { signal, weight: 0.25, rho: 1.0, delta: 0.0005 };
        Self {
            alpha: 1e-4,
            refill_per_hour: 1.0,
            multiples: vec![1.5, 3.0, 10.0, 100.0],
            slot_ms: 1000,
            cap: 10.0,
            channels: vec![
                ChannelParameters { signal: Signal::Error, weight: 0.5, rho: 1.1, delta: 0.0005 },
                latency(Signal::Slow),
                latency(Signal::VerySlow),
            ],
            latency_tolerance: 1.05,
            brake_at: 20.0,
            brake_multiple: 10.0,
            brake_quiet_ms: 60_000,
            brake_divisor: 10.0,
            brake_floor: 0.02,
            brake_min_canary_rps: 5.0,
            ceiling: 0.05,
            ceiling_needs: 100.0,
            promote_at: 20.0,
            promote_rho: 1.5,
            promote_delta: 0.005,
            promote_bets: vec![0.2, 0.5, 0.9],
            promote_below: 2.0,
            fleet_scope_cap: 100.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_with_and_without_client_errors() {
        assert_eq!(Parameters::default().validate(), Ok(()));
        let parameters = Parameters::default().with_client_errors().with_client_errors();
        assert_eq!(parameters.validate(), Ok(()));
        assert_eq!(parameters.channels.len(), 4);
        assert_eq!(parameters.channel(Signal::Error).unwrap().weight, 0.25);
        assert_eq!(parameters.channel(Signal::ClientError).unwrap().weight, 0.25);
    }

    #[test]
    fn every_mistake_is_listed() {
        let parameters = Parameters {
            alpha: f64::NAN,
            cap: 1.0,
            multiples: vec![1.5, 1.0, 2.0, 3.0, 4.0],
            channels: vec![ChannelParameters { signal: Signal::Slow, weight: 2.0, rho: -1.0, delta: 1.0 }; 2],
            ..Parameters::default()
        };
        let mistakes = parameters.validate().unwrap_err();
        for part in
            ["alpha", "cap", "1 to 4", "above 1", "error signal", "only once", "weight of", "rho", "delta", "together"]
        {
            assert!(mistakes.iter().any(|m| m.contains(part)), "{part} in {mistakes:?}");
        }
    }
}
