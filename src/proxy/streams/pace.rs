//! How fast streams are closed: at the operator's pace, and faster where the deadline needs it. Time comes in.

/// More than this is never saved up, in seconds of the pace: a tick that comes late must not end in a burst.
const SAVED_S: f64 = 0.2;

/// The pace of one service.
#[derive(Debug, Default)]
pub(super) struct Pace {
    credit: f64,
    last_us: Option<u64>,
}

impl Pace {
    /// How many of those that wait may be closed now. `pace`: per second. `dues`: when each of them must have been, in
    /// microseconds, the earliest first. Those that are due are closed whatever the pace.
    pub(super) fn turn(&mut self, now_us: u64, pace: u32, dues: impl IntoIterator<Item = u64>) -> usize {
        let (mut waiting, mut due, mut rate) = (0usize, 0usize, f64::from(pace));
        for at_us in dues {
            waiting += 1;
            if at_us <= now_us {
                due = waiting;
            } else {
                rate = rate.max(waiting as f64 * 1e6 / (at_us - now_us) as f64);
            }
        }
        if waiting == 0 {
            *self = Self::default();
            return 0;
        }
        match self.last_us {
            // The first goes at once.
            None => self.credit = 1.0,
            Some(last_us) => {
                let passed_s = now_us.saturating_sub(last_us) as f64 / 1e6;
                self.credit = (self.credit + rate * passed_s).min(1.0 + rate * SAVED_S);
            }
        }
        self.last_us = Some(now_us);
        let now = (self.credit as usize).max(due).min(waiting);
        self.credit = (self.credit - now as f64).max(0.0);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000;

    /// When each of `n` streams that all leave at 0 is closed, in microseconds.
    fn run(n: usize, pace: u32, due_us: u64, tick_us: u64) -> Vec<u64> {
        let (mut pacer, mut closed, mut now_us) = (Pace::default(), Vec::new(), 0);
        while closed.len() < n {
            let left = n - closed.len();
            let these = pacer.turn(now_us, pace, std::iter::repeat_n(due_us, left));
            closed.extend(std::iter::repeat_n(now_us, these));
            now_us += tick_us;
            assert!(now_us < 1_000 * SECOND, "it comes to an end");
        }
        closed
    }

    #[test]
    fn the_pace_holds_where_the_deadline_allows() {
        let closed = run(50, 10, 60 * SECOND, 20_000);
        assert_eq!(closed[0], 0);
        for (i, at) in closed.iter().enumerate() {
            let wanted = i as u64 * SECOND / 10;
            assert!(at.abs_diff(wanted) <= 20_000, "stream {i} at {at}");
        }
    }

    #[test]
    fn the_deadline_holds_where_the_pace_is_too_slow() {
        let closed = run(100, 1, 10 * SECOND, 20_000);
        assert!(*closed.last().unwrap() <= 10 * SECOND);
        // Spread evenly, not heaped at the end.
        for tenth in 0..10u64 {
            let within = closed.iter().filter(|at| (tenth * SECOND..(tenth + 1) * SECOND).contains(*at)).count();
            assert!((9..=11).contains(&within), "{within} in second {tenth}");
        }
    }

    #[test]
    fn nothing_is_saved_up_while_nobody_waits() {
        let mut pacer = Pace::default();
        assert_eq!(pacer.turn(0, 10, [60 * SECOND]), 1);
        assert_eq!(pacer.turn(SECOND, 10, []), 0);
        assert_eq!(pacer.turn(30 * SECOND, 10, vec![90 * SECOND; 100]), 1);
        // A tick that comes late.
        assert!(pacer.turn(40 * SECOND, 10, vec![90 * SECOND; 99]) <= 3);
    }

    proptest! {
        #[test]
        fn never_late_and_never_faster_than_needed(
            n in 1usize..300,
            pace in 1u32..500,
            due_ms in 1u64..30_000,
            tick_ms in 1u64..100,
        ) {
            let (due_us, tick_us) = (due_ms * 1_000, tick_ms * 1_000);
            let closed = run(n, pace, due_us, tick_us);
            prop_assert!(*closed.last().unwrap() <= due_us + tick_us);
            let rate = f64::from(pace).max(n as f64 * 1e6 / due_us as f64);
            for (i, at) in closed.iter().enumerate() {
                let at_most = 2.0 + rate * (*at + tick_us) as f64 / 1e6;
                prop_assert!(*at + tick_us >= due_us || (i as f64) <= at_most, "stream {} at {}", i, at);
            }
        }
    }
}
