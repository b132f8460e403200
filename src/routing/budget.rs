//! The rescue budget: how many failed requests a baseline may take over, so that a dead canary cannot drown it.
//!
//! Within any ten seconds a baseline takes over at most a share of the requests that it gets anyway, plus a small reserve
//! without which a quiet service would rescue nobody. Only requests that failed come here, so a lock is no burden; the
//! healthy ones are counted by the tallies and only read here.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::model::{BUCKETS, RescueSpec};

/// Over how long load and rescues are compared, in milliseconds.
const WINDOW_MS: u64 = 10_000;
/// How far apart two samples are at least, in milliseconds.
const SAMPLE_MS: u64 = 500;
const SECOND_MS: u64 = 1_000;

/// What a service's baseline may still take over.
#[derive(Debug, Default)]
pub struct RescueBudget {
    spent: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    /// When, and the baseline's own requests until then; oldest first.
    load: VecDeque<(u64, u64)>,
    /// When the latest rescues were, oldest first: as many as the window may hold.
    rescues: VecDeque<u64>,
}

impl RescueBudget {
    /// Spends one rescue, if there is one left. `baseline_requests`: requests that were the baseline's own, ever; its
    /// load is known from the first call on. `now_ms`: on any monotone axis.
    pub fn spend(&self, spec: &RescueSpec, now_ms: u64, baseline_requests: u64) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.sample(now_ms, baseline_requests);
        spent.forget(now_ms);
        let load = baseline_requests.saturating_sub(spent.load_before(now_ms.saturating_sub(WINDOW_MS)));
        let share = load * u64::from(spec.budget.points()) / u64::from(BUCKETS);
        let allowed = share + u64::from(spec.reserve) * WINDOW_MS / SECOND_MS;
        let lately = || spent.rescues.len() - spent.rescues.partition_point(|at| at + SECOND_MS <= now_ms);
        if spent.rescues.len() as u64 >= allowed || spec.rate.is_some_and(|rate| lately() >= rate as usize) {
            return false;
        }
        spent.rescues.push_back(now_ms);
        true
    }
}

impl Spent {
    fn sample(&mut self, now_ms: u64, baseline_requests: u64) {
        if self.load.back().is_none_or(|(at, n)| at + SAMPLE_MS <= now_ms || *n > baseline_requests) {
            // Another version became the baseline: its count is another one.
            if self.load.back().is_some_and(|(_, n)| *n > baseline_requests) {
                self.load.clear();
            }
            self.load.push_back((now_ms, baseline_requests));
        }
        // One sample from before the window is kept, to know the load at its beginning.
        while self.load.get(1).is_some_and(|(at, _)| at + WINDOW_MS <= now_ms) {
            self.load.pop_front();
        }
    }

    fn forget(&mut self, now_ms: u64) {
        while self.rescues.front().is_some_and(|at| at + WINDOW_MS <= now_ms) {
            self.rescues.pop_front();
        }
    }

    /// The baseline's requests until then: between two samples as if they had come evenly.
    fn load_before(&self, at_ms: u64) -> u64 {
        let Some(&(first_ms, first)) = self.load.front() else { return 0 };
        match self.load.get(1) {
            Some(&(next_ms, next)) if first_ms < at_ms => {
                first + (next - first) * (at_ms - first_ms).min(next_ms - first_ms) / (next_ms - first_ms).max(1)
            }
            _ => first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BasisPoints;
    use proptest::prelude::*;

    fn spec(budget: u16, reserve: u32, rate: Option<u32>) -> RescueSpec {
        RescueSpec { budget: BasisPoints::new(budget).unwrap(), reserve, rate, ..RescueSpec::default() }
    }

    fn begin(budget: &RescueBudget) {
        assert!(!budget.spend(&spec(0, 0, None), 0, 0));
    }

    /// Rescues granted when `asked` per second come evenly beside `load` requests per second, over twenty seconds.
    fn granted(spec: &RescueSpec, load: u64, asked: u64) -> u64 {
        let budget = RescueBudget::default();
        begin(&budget);
        let ask = |i: u64| {
            let now_ms = i * 1_000 / asked;
            budget.spend(spec, now_ms, load * now_ms / 1_000)
        };
        (0..20 * asked).filter(|i| ask(*i)).count() as u64
    }

    #[test]
    fn a_tenth_is_rescued_whole_and_a_flood_is_not() {
        let default = RescueSpec::default();
        assert_eq!(granted(&default, 1_800, 200), 20 * 200);
        let flood = granted(&default, 1_000, 1_000);
        assert!((20 * 200..=20 * 200 + 100).contains(&flood), "{flood}");
    }

    #[test]
    fn a_quiet_service_has_its_reserve() {
        assert_eq!(granted(&spec(2_000, 5, None), 0, 4), 80);
        let flood = granted(&spec(0, 5, None), 1_000_000, 100);
        assert!((100..=150).contains(&flood), "{flood}");
        assert_eq!(granted(&spec(0, 0, None), 1_000, 10), 0);
    }

    #[test]
    fn the_rate_holds_whatever_the_budget() {
        let n = granted(&spec(10_000, 1_000, Some(7)), 1_000, 100);
        assert!((20 * 7..=21 * 7).contains(&n), "{n}");
    }

    #[test]
    fn another_baseline_begins_anew() {
        let budget = RescueBudget::default();
        begin(&budget);
        assert!(budget.spend(&spec(2_000, 0, None), 1_000, 1_000));
        assert!(!budget.spend(&spec(2_000, 0, None), 1_100, 3), "three requests earn nothing");
        assert!(budget.spend(&spec(2_000, 0, None), 2_000, 100));
    }

    proptest! {
        /// Never more within a window than its load and reserve allow, however requests come.
        #[test]
        fn the_limit_holds_in_every_window(steps in proptest::collection::vec((0u64..900, 0u64..50), 1..300)) {
            let spec = spec(2_000, 1, None);
            let (mut now_ms, mut load, mut log) = (0, 0, vec![(0, 0)]);
            let mut granted = Vec::new();
            let budget = RescueBudget::default();
            begin(&budget);
            for (pause, requests) in steps {
                now_ms += pause;
                load += requests;
                log.push((now_ms, load));
                if budget.spend(&spec, now_ms, load) {
                    granted.push(now_ms);
                }
            }
            for end in &granted {
                let within = granted.iter().filter(|at| **at <= *end && **at + WINDOW_MS > *end).count() as u64;
                // Samples are half a second apart and more when nothing failed, so the window's begin is not exact.
                let since = end.saturating_sub(WINDOW_MS + SAMPLE_MS + 900);
                let before = log.iter().rev().find(|(at, _)| *at <= since).map_or(0, |(_, n)| *n);
                let until = log.iter().rev().find(|(at, _)| at <= end).map_or(0, |(_, n)| *n);
                prop_assert!(within <= (until - before) / 5 + 10, "{within} of {}", until - before);
            }
        }
    }
}
