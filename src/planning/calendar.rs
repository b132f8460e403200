//! Whether a rollout may move, and when that changes next: schedules say when it may, blackouts when it may not.
//!
//! What holds at a moment is read off the clocks of each window's place. When it changes is found by looking at the
//! moments at which it can: where those clocks show the beginning or the end of a window, where they are put forward or
//! back, and where a blackout begins or ends.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::model::{Blackout, Schedule, TimeOfDay, TimeWindow, Weekday};

const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// How far ahead is looked, in milliseconds: a day of the year comes again within it.
const AHEAD_MS: u64 = 400 * DAY_MS;
/// How much of it at a time, in milliseconds.
const STEP_MS: u64 = 7 * DAY_MS;

/// Whether a rollout may move. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It may.
    Open {
        /// The first moment at which it no longer may; none within 400 days.
        until_ms: Option<u64>,
    },
    /// It may not.
    Closed {
        /// The first moment at which it may; none within 400 days.
        opens_ms: Option<u64>,
    },
}

/// Whether a rollout may move at this time, in milliseconds since the Unix epoch: all schedules must allow it, and no
/// blackout may hold. A schedule allows what any of its windows does; without windows it allows everything.
pub fn open(schedules: &[&Schedule], blackouts: &[Blackout], now_ms: u64) -> Opening {
    let calendar = Calendar { schedules, blackouts };
    let is_open = calendar.is_open(now_ms);
    let change = calendar.change_after(now_ms, is_open);
    match is_open {
        true => Opening::Open { until_ms: change },
        false => Opening::Closed { opens_ms: change },
    }
}

/// Whether a rollout may move at this time: as [`open`], without looking for when that changes.
pub fn is_open(schedules: &[&Schedule], now_ms: u64) -> bool {
    Calendar { schedules, blackouts: &[] }.is_open(now_ms)
}

struct Calendar<'a> {
    schedules: &'a [&'a Schedule],
    blackouts: &'a [Blackout],
}

impl Calendar<'_> {
    fn is_open(&self, at_ms: u64) -> bool {
        let at = timestamp(at_ms);
        let allows =
            |schedule: &&Schedule| schedule.windows.is_empty() || schedule.windows.iter().any(|w| holds(w, at));
        !self.blackouts.iter().any(|blackout| blackout.holds(at_ms)) && self.schedules.iter().all(allows)
    }

    /// When it is no longer as it is now.
    fn change_after(&self, now_ms: u64, is_open: bool) -> Option<u64> {
        let never = |blackout: &Blackout| blackout.to_ms.is_none() && blackout.holds(now_ms);
        if self.blackouts.iter().any(never) {
            return None;
        }
        let last_ms = now_ms.saturating_add(AHEAD_MS);
        let mut from_ms = now_ms;
        while from_ms < last_ms {
            let to_ms = from_ms.saturating_add(STEP_MS).min(last_ms);
            let mut moments = self.moments(from_ms, to_ms);
            moments.sort_unstable();
            moments.dedup();
            if let Some(at_ms) = moments.into_iter().find(|at_ms| self.is_open(*at_ms) != is_open) {
                return Some(at_ms);
            }
            from_ms = to_ms;
        }
        None
    }

    /// The moments after `from_ms`, up to `to_ms`, at which something can change.
    fn moments(&self, from_ms: u64, to_ms: u64) -> Vec<u64> {
        let (from, to) = (timestamp(from_ms), timestamp(to_ms));
        let windows = self.schedules.iter().flat_map(|schedule| &schedule.windows);
        let of_windows = windows.flat_map(|window| borders(window, from, to)).filter_map(millis);
        let of_blackouts = self.blackouts.iter().flat_map(|f| [Some(f.from_ms), f.to_ms]).flatten();
        of_windows.chain(of_blackouts).filter(|at_ms| from_ms < *at_ms && *at_ms <= to_ms).collect()
    }
}

/// Whether the clocks of its place show a time within the window.
fn holds(window: &TimeWindow, at: Timestamp) -> bool {
    let local = window.timezone().rules().to_datetime(at);
    let minutes = local.hour() as u16 * 60 + local.minute() as u16;
    let (after_from, before_to) = (minutes >= window.from().minutes(), minutes < window.to().minutes());
    let today = window.begins_on(weekday(local.date()));
    if window.from() < window.to() {
        return today && after_from && before_to;
    }
    today && after_from || before_to && local.date().yesterday().is_ok_and(|date| window.begins_on(weekday(date)))
}

/// Where a window can begin or end between two moments, and some moments more.
fn borders(window: &TimeWindow, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let rules = window.timezone().rules();
    let mut borders: Vec<_> =
        rules.following(from).map(|change| change.timestamp()).take_while(|at| *at <= to).collect();
    let date = |at: Timestamp| rules.to_datetime(at).date();
    // A day more on either side, since clocks that are put back can show a day twice.
    let first = date(from).yesterday().unwrap_or(Date::MIN);
    let last = date(to).tomorrow().unwrap_or(Date::MAX);
    for date in first.series(1.day()).take_while(|date| *date <= last) {
        for time in [window.from(), window.to()] {
            borders.extend(moments_of(rules, date, time));
        }
    }
    borders
}

/// When the clocks show a time on a day: twice when they are put back over it. When they skip it, they never do, and both
/// moments are others.
fn moments_of(rules: &TimeZone, date: Date, time: TimeOfDay) -> impl Iterator<Item = Timestamp> {
    let shown = match time {
        TimeOfDay::END => date.tomorrow().ok().map(|date| date.at(0, 0, 0, 0)),
        time => Some(date.at((time.minutes() / 60) as i8, (time.minutes() % 60) as i8, 0, 0)),
    };
    let both = |shown: DateTime| {
        let at = rules.to_ambiguous_timestamp(shown);
        [at.earlier().ok(), at.later().ok()]
    };
    shown.map(both).into_iter().flatten().flatten()
}

fn weekday(date: Date) -> Weekday {
    Weekday::ALL[date.weekday().to_monday_zero_offset() as usize]
}

/// Times beyond the year 9999 are all its end.
fn timestamp(ms: u64) -> Timestamp {
    i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

/// None before 1970.
fn millis(at: Timestamp) -> Option<u64> {
    u64::try_from(at.as_millisecond()).ok()
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;
