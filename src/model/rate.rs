//! How often something may happen: a token bucket that is one number, so that an atomic can hold it.
//!
//! The generic cell rate algorithm (ITU-T I.371): instead of tokens, the time is kept at which the bucket will be full
//! again. Each token that is taken puts it off by one interval; a time in the past is a full bucket. So nothing has to be
//! refilled, and a bucket that nobody used for a while holds no information and may be forgotten.

/// So many per second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    interval_ns: u64,
    burst: u32,
}

impl Rate {
    /// The lowest rate per second.
    pub const MIN: f64 = 0.01;
    /// The highest rate per second.
    pub const MAX: f64 = 1_000_000.0;
    /// The largest burst.
    pub const MAX_BURST: u32 = 1_000_000;
    /// How far apart the clocks of two callers may be, in nanoseconds, before the later one's token is mistaken for one
    /// of a lower rate.
    pub const SLACK_NS: u64 = 1_000_000_000;

    /// A rate of [`Rate::MIN`] to [`Rate::MAX`] per second, with 1 to [`Rate::MAX_BURST`] at once; without a burst, one
    /// second's worth, at least one. `None` when a number is out of range.
    pub fn new(per_second: f64, burst: Option<u32>) -> Option<Self> {
        if !(Self::MIN..=Self::MAX).contains(&per_second) {
            return None;
        }
        let burst = burst.unwrap_or(per_second.ceil() as u32);
        let interval_ns = (1e9 / per_second).round() as u64;
        (1..=Self::MAX_BURST).contains(&burst).then_some(Self { interval_ns, burst })
    }

    /// Takes a token. `full_at_ns`: when the bucket will be full again; 0, or any time in the past, for one that is full.
    /// `now_ns`: on the same monotone axis. Gives the new time at which it will be full.
    ///
    /// # Errors
    /// How long to wait for the next token in nanoseconds: at least 1, at most the time between two tokens and
    /// [`Rate::SLACK_NS`]. Nothing is taken then.
    pub fn take(self, full_at_ns: u64, now_ns: u64) -> Result<u64, u64> {
        let empty_ns = now_ns.saturating_add(self.interval_ns * u64::from(self.burst));
        // Emptier than empty: the rate was lower before. The bucket begins anew, with one token.
        let before_ns = match full_at_ns > empty_ns.saturating_add(Self::SLACK_NS) {
            true => empty_ns - self.interval_ns,
            false => full_at_ns.max(now_ns),
        };
        let next_ns = before_ns.saturating_add(self.interval_ns);
        if next_ns > empty_ns { Err(next_ns - empty_ns) } else { Ok(next_ns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_one_for_each_interval() {
        let rate = Rate::new(10.0, Some(3)).unwrap();
        let mut full = 0;
        for _ in 0..3 {
            full = rate.take(full, SECOND).unwrap();
        }
        assert_eq!(rate.take(full, SECOND), Err(SECOND / 10));
        assert_eq!(rate.take(full, SECOND + SECOND / 10 - 1), Err(1));
        full = rate.take(full, SECOND + SECOND / 10).unwrap();
        assert_eq!(rate.take(full, SECOND + SECOND / 10), Err(SECOND / 10));
    }

    #[test]
    fn what_is_left_out_is_one_second_worth() {
        assert_eq!(Rate::new(100.0, None), Rate::new(100.0, Some(100)));
        assert_eq!(Rate::new(0.5, None), Rate::new(0.5, Some(1)));
        for (rate, burst) in [(0.0, None), (-1.0, None), (f64::NAN, None), (1e7, None), (1.0, Some(0))] {
            assert_eq!(Rate::new(rate, burst), None, "{rate} {burst:?}");
        }
    }

    #[test]
    fn a_higher_rate_does_not_pay_for_a_lower_one_before() {
        let slow = Rate::new(0.01, Some(100)).unwrap();
        let (mut full, mut now) = (0, SECOND);
        while let Ok(next) = slow.take(full, now) {
            full = next;
        }
        let fast = Rate::new(1_000.0, None).unwrap();
        for _ in 0..100 {
            full = fast.take(full, now).unwrap();
            assert_eq!(fast.take(full, now), Err(SECOND / 1_000), "one, and then as the rate says");
            now += SECOND / 1_000;
        }
    }

    #[test]
    fn a_clock_that_is_a_little_behind_gets_no_token_out_of_it() {
        let rate = Rate::new(1_000.0, Some(10)).unwrap();
        let mut full = 0;
        while let Ok(next) = rate.take(full, SECOND) {
            full = next;
        }
        assert!((1..1_000).all(|behind| rate.take(full, SECOND - behind * 1_000).is_err()));
    }

    fn rates() -> impl Strategy<Value = (f64, u32, Rate)> {
        (Rate::MIN..=10_000.0, 1u32..500).prop_map(|(rate, burst)| (rate, burst, Rate::new(rate, Some(burst)).unwrap()))
    }

    proptest! {
        /// Over any time no more than the burst and what the rate gives, however requests come.
        #[test]
        fn the_limit_holds_over_every_time((per_second, burst, rate) in rates(),
                                           pauses in proptest::collection::vec(0u64..SECOND, 1..400)) {
            let (mut now, mut full, mut granted) = (SECOND, 0, Vec::new());
            for pause in pauses {
                now += pause;
                if let Ok(next) = rate.take(full, now) {
                    full = next;
                    granted.push(now);
                }
            }
            for (i, from) in granted.iter().enumerate() {
                for (j, until) in granted.iter().enumerate().skip(i) {
                    let allowed = f64::from(burst) + (until - from) as f64 / 1e9 * per_second + 1e-3;
                    prop_assert!((j - i + 1) as f64 <= allowed, "{} in {} ns", j - i + 1, until - from);
                }
            }
        }

        /// Who keeps to the rate is never refused.
        #[test]
        fn who_keeps_to_the_rate_is_served((per_second, _, rate) in rates(), n in 1u64..300) {
            let (mut now, mut full) = (SECOND, 0);
            for _ in 0..n {
                full = rate.take(full, now).map_err(|wait| TestCaseError::fail(format!("wait {wait}")))?;
                now += (1e9 / per_second).ceil() as u64 + 1;
            }
        }

        /// What it says to wait is exactly enough, whatever the bucket held before.
        #[test]
        fn the_wait_is_exact((_, _, rate) in rates(), full in 0..100 * SECOND, any in any::<u64>(), now in SECOND..50 * SECOND) {
            for full in [full, any, now + rate.interval_ns * u64::from(rate.burst)] {
                if let Err(wait) = rate.take(full, now) {
                    prop_assert!((1..=rate.interval_ns + Rate::SLACK_NS).contains(&wait));
                    prop_assert!(rate.take(full, now + wait).is_ok());
                    prop_assert!(wait == 1 || rate.take(full, now + wait - 1).is_err());
                }
            }
        }
    }
}
