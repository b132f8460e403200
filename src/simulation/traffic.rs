//! What requests come and what becomes of them on each version, slot by slot.

use super::dice::Dice;
use crate::analysis::{ArmCounts, Batch, Parameters, RawCounts, Signal, SignalCounts, Signals};

/// Spread of the logarithm of a latency: its 99th percentile is about four times the median.
const LATENCY_SPREAD: f64 = 0.6;
/// Which requests of the baseline count as slow and very slow: those above its 90th and 99th percentile.
const SLOW: [f64; 2] = [0.1, 0.01];
/// The standard normal's 90th and 99th percentile.
const QUANTILES: [f64; 2] = [1.281_551_565_544_600_4, 2.326_347_874_040_841];

/// How much traffic there is and how often the baseline fails, from one time to the next; then from the start again.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    moments: Vec<Moment>,
    /// Where it begins again, milliseconds.
    length_ms: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Moment {
    until_ms: u64,
    rate: f64,
    failing: f64,
}

/// What a new version is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Regression {
    /// How often it fails.
    pub failing: Failing,
    /// Its latencies are the baseline's times this.
    pub latency_factor: f64,
    /// From when on, milliseconds after the start; until then it is as the baseline.
    pub after_ms: u64,
}

/// How often the new version fails, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Failing {
    /// So often, whatever the baseline does.
    At(f64),
    /// So much more often than the baseline.
    Added(f64),
}

impl Load {
    /// The same all the time: requests per second, and the fraction of them that fails on the baseline.
    pub fn constant(rate: f64, failing: f64) -> Self {
        Self { moments: vec![Moment { until_ms: u64::MAX, rate, failing }], length_ms: u64::MAX }
    }

    /// Recorded counts: from which second on, requests and failures until the next entry; the last one lasts as long as
    /// the one before, or so many seconds if there is none. When `failing` is given, the baseline fails so often and recorded failures do not count.
    ///
    /// None when there is no count, or the seconds do not rise.
    pub fn recorded(counts: &[(u64, u64, u64)], lone_seconds: u64, failing: Option<f64>) -> Option<Self> {
        let begin = counts.first()?.0;
        let mut moments = Vec::with_capacity(counts.len());
        let mut length = lone_seconds.max(1);
        for (i, (second, requests, failures)) in counts.iter().enumerate() {
            if let Some(next) = counts.get(i + 1) {
                length = next.0.checked_sub(*second).filter(|length| *length > 0)?;
            }
            let failed = (*failures).min(*requests) as f64 / (*requests).max(1) as f64;
            let (rate, failing) = (*requests as f64 / length as f64, failing.unwrap_or(failed));
            moments.push(Moment {
                until_ms: (second - begin).saturating_add(length).saturating_mul(1_000),
                rate,
                failing,
            });
        }
        let length_ms = moments.last()?.until_ms;
        Some(Self { moments, length_ms })
    }

    /// Requests per second and the baseline's fraction of failures at this time.
    pub(super) fn at(&self, now_ms: u64) -> (f64, f64) {
        let at = now_ms % self.length_ms;
        let place = self.moments.partition_point(|moment| moment.until_ms <= at);
        self.moments.get(place).map_or((0.0, 0.0), |moment| (moment.rate, moment.failing))
    }

    /// Requests per second, on average.
    pub fn mean_rate(&self) -> f64 {
        let mut begin = 0;
        let mut requests = 0.0;
        for moment in &self.moments {
            requests += moment.rate * (moment.until_ms - begin) as f64;
            begin = moment.until_ms;
        }
        requests / begin.max(1) as f64
    }
}

impl Regression {
    /// As good as the baseline.
    pub const NONE: Self = Self { failing: Failing::Added(0.0), latency_factor: 1.0, after_ms: 0 };

    /// How often the new version fails when the baseline does so often.
    fn failing(&self, now_ms: u64, baseline: f64) -> f64 {
        if now_ms < self.after_ms {
            return baseline;
        }
        match self.failing {
            Failing::At(at) => at,
            Failing::Added(more) => (baseline + more).clamp(0.0, 1.0),
        }
    }

    /// How often the new version is slow and very slow, by the baseline's cuts times the tolerance.
    fn slow(&self, now_ms: u64, tolerance: f64) -> [f64; 2] {
        let factor = if now_ms < self.after_ms { 1.0 } else { self.latency_factor };
        QUANTILES.map(|quantile| above(quantile + (tolerance / factor).ln() / LATENCY_SPREAD))
    }
}

/// The part of a standard normal above `x`: Abramowitz and Stegun 26.2.17, exact to 7.5e-8.
fn above(x: f64) -> f64 {
    if x < 0.0 {
        return 1.0 - above(-x);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * x);
    let series = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let sum = series.iter().fold(0.0, |sum, factor| (sum + factor) * t);
    (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * sum
}

/// How often requests of both versions are bad at one time.
pub(super) struct Odds {
    baseline: f64,
    canary: f64,
    /// None: latencies are not judged.
    slow: Option<[f64; 2]>,
}

/// What one version's requests came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Arm {
    n: u64,
    failed: u64,
    slow: u64,
    very_slow: u64,
}

/// What both versions' requests came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Drawn {
    baseline: Arm,
    canary: Arm,
}

impl Odds {
    pub(super) fn new(regression: &Regression, parameters: &Parameters, now_ms: u64, failing: f64) -> Self {
        let judged = parameters.channel(Signal::Slow).is_some();
        Self {
            baseline: failing,
            canary: regression.failing(now_ms, failing),
            slow: judged.then(|| regression.slow(now_ms, parameters.latency_tolerance)),
        }
    }

    /// How many of so many requests of the new version would fail on the baseline.
    pub(super) fn expected(&self, requests: u64) -> f64 {
        self.baseline * requests as f64
    }

    /// Draws the requests of a time in which so many are expected.
    pub(super) fn draw(&self, dice: &mut Dice, expected: f64, share: f64) -> Drawn {
        let mut arm = |mean: f64, failing: f64, slow: Option<[f64; 2]>| {
            let n = dice.poisson(mean);
            let (mut late, mut later) = (0, 0);
            if let Some([slow, very_slow]) = slow {
                late = dice.binomial(n, slow);
                later = dice.binomial(late, very_slow / slow);
            }
            Arm { n, failed: dice.binomial(n, failing), slow: late, very_slow: later }
        };
        let baseline = arm(expected * (1.0 - share), self.baseline, self.slow.map(|_| SLOW));
        let canary = arm(expected * share, self.canary, self.slow);
        Drawn { baseline, canary }
    }
}

impl Arm {
    /// Takes out what came within this part of the time.
    fn take(&mut self, dice: &mut Dice, part: f64) -> Self {
        let mut some = |count: &mut u64| {
            let taken = dice.binomial(*count, part);
            *count -= taken;
            taken
        };
        let mut good = self.n - self.failed;
        let failed = some(&mut self.failed);
        let n = failed + some(&mut good);
        self.n -= n;
        // Neither now nor later can more be slow than there are requests, and nobody may get lost.
        let mut within = |count: &mut u64, taken: u64, left: u64| {
            let some = dice.binomial(*count, part).max(count.saturating_sub(left)).min(taken);
            *count -= some;
            some
        };
        let slow = within(&mut self.slow, n, self.n);
        let very_slow = within(&mut self.very_slow, slow, self.slow);
        Self { n, failed, slow, very_slow }
    }
}

impl Drawn {
    /// Takes out what came within this part of the time.
    pub(super) fn take(&mut self, dice: &mut Dice, part: f64) -> Self {
        Self { baseline: self.baseline.take(dice, part), canary: self.canary.take(dice, part) }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.baseline.n == 0 && self.canary.n == 0
    }

    /// Requests and failures of the new version.
    pub(super) fn canary(&self) -> (u64, u64) {
        (self.canary.n, self.canary.failed)
    }

    /// As the guard takes it in.
    pub(super) fn batch(&self, share: f64, judges_latency: bool) -> Batch {
        let both = |bad: fn(&Arm) -> u64| SignalCounts {
            baseline: ArmCounts::new(self.baseline.n, bad(&self.baseline)),
            canary: ArmCounts::new(self.canary.n, bad(&self.canary)),
        };
        let requests: RawCounts = both(|arm| arm.failed);
        let mut signals: Signals = [(Signal::Error, requests)].into_iter().collect();
        if judges_latency {
            signals.add(Signal::Slow, both(|arm| arm.slow));
            signals.add(Signal::VerySlow, both(|arm| arm.very_slow));
        }
        let coins = (self.baseline.n, self.canary.n);
        Batch { routed_share: share, requests, signals, coins, first_canary_failure_ms: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_counts_are_played_again_and_again() {
        let load = Load::recorded(&[(100, 50, 5), (105, 20, 0)], 1, None).unwrap();
        assert_eq!(load.at(0), (10.0, 0.1));
        assert_eq!(load.at(4_999), (10.0, 0.1));
        assert_eq!(load.at(5_000), (4.0, 0.0));
        assert_eq!(load.at(10_000), (10.0, 0.1));
        assert_eq!(load.mean_rate(), 7.0);
        assert_eq!(Load::recorded(&[(0, 10, 9)], 1, Some(0.5)).unwrap().at(0), (10.0, 0.5));
        assert_eq!(Load::recorded(&[(0, 400, 4)], 10, None).unwrap().mean_rate(), 40.0);
        assert_eq!(Load::recorded(&[(5, 1, 0), (5, 1, 0)], 1, None), None);
        assert_eq!(Load::recorded(&[], 1, None), None);
        assert_eq!(Load::constant(7.0, 0.0).mean_rate(), 7.0);
    }

    #[test]
    fn slower_versions_are_slow_more_often() {
        let of = |factor, tolerance| Regression { latency_factor: factor, ..Regression::NONE }.slow(0, tolerance);
        let same = of(1.0, 1.0);
        assert!((same[0] - 0.1).abs() < 1e-6 && (same[1] - 0.01).abs() < 1e-6, "{same:?}");
        assert!(of(1.0, 1.05)[0] < 0.1 && of(1.5, 1.05)[0] > 0.2);
        let late = Regression { latency_factor: 9.0, after_ms: 10, ..Regression::NONE };
        assert_eq!(late.slow(9, 1.0), same);
        assert!((above(-1.0) - 0.841_344_7).abs() < 1e-6);
    }

    #[test]
    fn a_part_and_the_rest_are_the_whole() {
        let mut dice = Dice::new(1, 0, 0);
        let parameters = Parameters::default();
        let odds = Odds::new(&Regression::NONE, &parameters, 0, 0.2);
        let mut left = odds.draw(&mut dice, 300.0, 0.3);
        let whole = left;
        let mut sum = Drawn::default();
        for i in 0..10 {
            let part = left.take(&mut dice, 1.0 / f64::from(10 - i));
            for (arm, sum) in [(part.canary, &mut sum.canary), (part.baseline, &mut sum.baseline)] {
                assert!(arm.failed <= arm.n && arm.slow <= arm.n && arm.very_slow <= arm.slow);
                (sum.n, sum.failed) = (sum.n + arm.n, sum.failed + arm.failed);
                (sum.slow, sum.very_slow) = (sum.slow + arm.slow, sum.very_slow + arm.very_slow);
            }
        }
        assert_eq!(sum, whole);
        assert!(whole.canary.n > 50 && whole.baseline.failed > 10);
    }
}
