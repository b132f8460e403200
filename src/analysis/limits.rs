//! Plain limits that an operator may set: no statistics, each with a clear sentence when it trips.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::model::{PlainLimits, VersionName};

/// The last minutes of one canary in one scope, second by second.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Recent {
    seconds: VecDeque<(u64, u64, u64)>,
}

impl Recent {
    /// Adds counts of now.
    pub fn add(&mut self, now_ms: u64, requests: u64, failures: u64) {
        if requests == 0 && failures == 0 {
            return;
        }
        let second = now_ms / 1_000;
        match self.seconds.back_mut() {
            Some(last) if last.0 == second => {
                last.1 += requests;
                last.2 += failures;
            }
            _ => self.seconds.push_back((second, requests, failures)),
        }
        // The longest window that can be configured is an hour.
        while self.seconds.front().is_some_and(|s| s.0 + 3_600 < second) {
            self.seconds.pop_front();
        }
    }

    /// Requests and failures within the last `window_ms`.
    pub fn within(&self, now_ms: u64, window_ms: u64) -> (u64, u64) {
        let from = now_ms.saturating_sub(window_ms) / 1_000;
        let recent = self.seconds.iter().rev().take_while(|s| s.0 >= from);
        recent.fold((0, 0), |(n, bad), s| (n + s.1, bad + s.2))
    }
}

/// Requests per second of one scope: an average whose memory halves every two seconds.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Rate {
    /// Requests, each worth half as much every half-life later.
    weight: f64,
    at_ms: u64,
    began_ms: Option<u64>,
}

impl Rate {
    const HALF_LIFE_MS: f64 = 2_000.0;

    /// Adds requests of now.
    pub fn add(&mut self, now_ms: u64, requests: u64) {
        self.weight = self.decayed(now_ms) + requests as f64;
        self.at_ms = now_ms;
        self.began_ms.get_or_insert(now_ms);
    }

    /// Requests per second now.
    pub fn rate(&self, now_ms: u64) -> f64 {
        let Some(began_ms) = self.began_ms else { return 0.0 };
        // A steady rate comes to `rate · h / ln 2 · (1 - 2^(-age/h))`; the last factor is 1 but for the first seconds.
        let age_ms = (now_ms.saturating_sub(began_ms) as f64).max(500.0);
        let full = Self::HALF_LIFE_MS / 1_000.0 / std::f64::consts::LN_2;
        self.decayed(now_ms) / (full * (1.0 - (-age_ms / Self::HALF_LIFE_MS).exp2()))
    }

    fn decayed(&self, now_ms: u64) -> f64 {
        self.weight * (-(now_ms.saturating_sub(self.at_ms) as f64) / Self::HALF_LIFE_MS).exp2()
    }
}

/// A limit that tripped.
#[derive(Debug, Clone, PartialEq)]
pub struct Tripped {
    /// One word for metrics.
    pub cause: &'static str,
    /// A sentence.
    pub reason: String,
}

/// Whether a limit trips. `p99_s` is asked for only when it is needed.
#[must_use]
pub fn check_limits(
    limits: &PlainLimits,
    canary: &VersionName,
    recent: &Recent,
    now_ms: u64,
    p99_s: impl FnOnce() -> Option<f64>,
) -> Option<Tripped> {
    let window_ms = limits.window.as_millis() as u64;
    let (n, bad) = recent.within(now_ms, window_ms);
    if n == 0 || n < limits.min_requests {
        return None;
    }
    let seconds = limits.window.as_secs_f64();
    if let Some(limit) = limits.max_error_rate {
        let rate = bad as f64 / n as f64;
        if rate > limit.ratio() {
            let percent = rate * 100.0;
            let reason = format!(
                "{bad} of the {n} requests to {canary} within {seconds} s failed ({percent:.1} %), and guard.max_error_rate \
                 allows {limit}."
            );
            return Some(Tripped { cause: "max_error_rate", reason });
        }
    }
    let limit = limits.max_p99?;
    let p99 = p99_s()?;
    (p99 > limit.as_secs_f64()).then(|| Tripped {
        cause: "max_p99",
        reason: format!(
            "The 99th percentile of {canary} over {n} requests within {seconds} s was {:.0} ms, and guard.max_p99 allows \
             {:.0} ms.",
            p99 * 1_000.0,
            limit.as_secs_f64() * 1_000.0
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BasisPoints;
    use std::time::Duration;

    fn limits(error_rate: Option<f64>, p99_ms: Option<u64>) -> PlainLimits {
        PlainLimits {
            max_error_rate: error_rate.map(|p| BasisPoints::from_percent(p).unwrap()),
            max_p99: p99_ms.map(Duration::from_millis),
            min_requests: 100,
            window: Duration::from_secs(60),
        }
    }

    fn run(limits: &PlainLimits, n: u64, bad: u64, age_ms: u64, p99: Option<f64>) -> Option<&'static str> {
        let mut recent = Recent::default();
        recent.add(100_000, n, bad);
        let canary = VersionName::new("2.0.0").unwrap();
        check_limits(limits, &canary, &recent, 100_000 + age_ms, || p99).map(|t| t.cause)
    }

    #[test]
    fn limits_trip_only_with_enough_requests_in_the_window() {
        let rate = limits(Some(5.0), None);
        assert_eq!(run(&rate, 100, 5, 0, None), None);
        assert_eq!(run(&rate, 100, 6, 0, None), Some("max_error_rate"));
        assert_eq!(run(&rate, 99, 99, 0, None), None);
        assert_eq!(run(&rate, 100, 100, 62_000, None), None, "too old");
        let p99 = limits(None, Some(500));
        assert_eq!(run(&p99, 100, 0, 0, Some(0.5)), None);
        assert_eq!(run(&p99, 100, 0, 0, Some(0.51)), Some("max_p99"));
        assert_eq!(run(&p99, 100, 0, 0, None), None);
        assert_eq!(run(&limits(None, None), 100, 100, 0, Some(9.0)), None);
    }

    #[test]
    fn a_zero_limit_means_no_failure_at_all() {
        assert_eq!(run(&limits(Some(0.0), None), 100, 1, 0, None), Some("max_error_rate"));
        assert_eq!(run(&limits(Some(0.0), None), 100, 0, 0, None), None);
    }

    #[test]
    fn recent_counts_are_by_second() {
        let mut recent = Recent::default();
        for second in 0..10 {
            recent.add(second * 1_000, 10, 1);
        }
        assert_eq!(recent.within(9_000, 5_000), (60, 6));
    }

    #[test]
    fn a_steady_rate_is_known_soon_and_forgotten_soon() {
        let mut rate = Rate::default();
        assert_eq!(rate.rate(0), 0.0);
        for tick in 0..100u64 {
            rate.add(1_000 + tick * 100, 20);
            let seen = rate.rate(1_000 + tick * 100);
            assert!(tick < 10 || (150.0..250.0).contains(&seen), "{seen} at tick {tick}");
        }
        assert!(rate.rate(31_000) < 1.0);
    }
}
