//! When a rollout may move: days and hours on the clock of a place, and times when nothing may.

use std::fmt;
use std::str::FromStr;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

/// When a rollout may move.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// It may in any of them; without any it always may.
    #[serde(default)]
    pub windows: Vec<TimeWindow>,
}

/// Hours of some days, as the clocks of one place show them.
///
/// When clocks are put forward, hours that they skip do not come; when they are put back, hours that they show twice
/// come twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawWindow", into = "RawWindow")]
pub struct TimeWindow {
    days: Vec<Weekday>,
    from: TimeOfDay,
    to: TimeOfDay,
    timezone: Zone,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// A time on a clock, to the minute: `00:00` to `24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimeOfDay {
    minutes: u16,
}

/// A time zone of the IANA database, with what that says about it. The database is part of the program, so that every
/// node has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    rules: TimeZone,
}

/// A time in which no rollout may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blackout {
    /// When it begins, in milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// When it is over, likewise; none: until somebody ends it. Not after its beginning: it never holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ms: Option<u64>,
}

/// What is wrong with a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not a day.
    #[error(
        "days: {text:?} is no day; allowed are \"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\" and ranges such as \"mon-thu\""
    )]
    Days {
        /// What was given.
        text: String,
    },
    /// Not a time.
    #[error("{key}: {text:?} is no time of day; allowed is {allowed}")]
    Time {
        /// The field.
        key: &'static str,
        /// What was given.
        text: String,
        /// What would be right.
        allowed: &'static str,
    },
    /// The window begins when it ends.
    #[error(
        "to: {text:?} is the same as from; allowed is another time, or from = \"00:00\" and to = \"24:00\" for the whole day"
    )]
    Empty {
        /// What was given.
        text: String,
    },
    /// Not a time zone.
    #[error(
        "timezone: {text:?} is not known; allowed is a name of the IANA database such as \"Europe/Berlin\" or \"UTC\""
    )]
    Timezone {
        /// What was given.
        text: String,
    },
}

/// A window as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWindow {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    days: Vec<String>,
    from: String,
    to: String,
    timezone: String,
}

const FROM: &str = "\"00:00\" to \"23:59\"";
const TO: &str = "\"00:00\" to \"24:00\"";

impl TimeWindow {
    /// A window from its texts.
    ///
    /// # Errors
    /// Names what is wrong, and what is allowed.
    pub fn new<'a>(
        days: impl IntoIterator<Item = &'a str>,
        from: &str,
        to: &str,
        timezone: &str,
    ) -> Result<Self, ScheduleError> {
        let mut all = Vec::new();
        for text in days {
            all.extend(Weekday::of(text).ok_or_else(|| ScheduleError::Days { text: text.to_owned() })?);
        }
        all.sort_unstable();
        all.dedup();
        let bad = |key, text: &str, allowed| ScheduleError::Time { key, text: text.to_owned(), allowed };
        let begin = from.parse().ok().filter(|t| *t < TimeOfDay::END).ok_or_else(|| bad("from", from, FROM))?;
        let end = to.parse().map_err(|NoTime| bad("to", to, TO))?;
        if begin == end {
            return Err(ScheduleError::Empty { text: to.to_owned() });
        }
        Ok(Self { days: all, from: begin, to: end, timezone: timezone.parse()? })
    }

    /// The days on which it begins, in order, each once. None at all: every day.
    pub fn days(&self) -> &[Weekday] {
        &self.days
    }

    /// When it begins.
    pub fn from(&self) -> TimeOfDay {
        self.from
    }

    /// When it is over. When that is not after its beginning, it goes on past midnight.
    pub fn to(&self) -> TimeOfDay {
        self.to
    }

    /// Whose clocks.
    pub fn timezone(&self) -> &Zone {
        &self.timezone
    }

    /// Whether it begins on this day of the week.
    pub fn begins_on(&self, day: Weekday) -> bool {
        self.days.is_empty() || self.days.contains(&day)
    }
}

impl TryFrom<RawWindow> for TimeWindow {
    type Error = ScheduleError;

    fn try_from(raw: RawWindow) -> Result<Self, ScheduleError> {
        Self::new(raw.days.iter().map(String::as_str), &raw.from, &raw.to, &raw.timezone)
    }
}

impl From<TimeWindow> for RawWindow {
    fn from(window: TimeWindow) -> Self {
        Self {
            days: window.days.iter().map(|day| day.as_str().to_owned()).collect(),
            from: window.from.to_string(),
            to: window.to.to_string(),
            timezone: window.timezone.name().to_owned(),
        }
    }
}

impl Weekday {
    /// The days in order.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][self as usize]
    }

    /// A day, or those from one to another: `sat-mon` are three. None for anything else.
    pub fn of(text: &str) -> Option<Vec<Self>> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (Self::parse(first)?, Self::parse(last)?);
        let count = (last as usize + 7 - first as usize) % 7 + 1;
        Some(Self::ALL.into_iter().cycle().skip(first as usize).take(count).collect())
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|day| day.as_str() == text)
    }
}

/// The text is no time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoTime;

impl TimeOfDay {
    /// The end of a day.
    pub const END: Self = Self { minutes: 24 * 60 };

    /// Minutes since midnight, 0 to 1440.
    pub fn minutes(self) -> u16 {
        self.minutes
    }
}

impl FromStr for TimeOfDay {
    type Err = NoTime;

    fn from_str(text: &str) -> Result<Self, NoTime> {
        let number = |digits: &str| match digits.as_bytes() {
            [b'0'..=b'9', b'0'..=b'9'] => digits.parse::<u16>().map_err(|_| NoTime),
            _ => Err(NoTime),
        };
        let (hours, minutes) = text.split_once(':').ok_or(NoTime)?;
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        let time = Self { minutes: hours * 60 + minutes };
        if minutes < 60 && time <= Self::END { Ok(time) } else { Err(NoTime) }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

impl Zone {
    /// Its name.
    pub fn name(&self) -> &str {
        self.rules.iana_name().unwrap_or("UTC")
    }

    /// When its clocks show what.
    pub fn rules(&self) -> &TimeZone {
        &self.rules
    }
}

impl FromStr for Zone {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        match TimeZoneDatabase::bundled().get(text) {
            Ok(rules) => Ok(Self { rules }),
            Err(_) => Err(ScheduleError::Timezone { text: text.to_owned() }),
        }
    }
}

impl Blackout {
    /// Whether it holds at this time, in milliseconds since the Unix epoch.
    pub fn holds(&self, at_ms: u64) -> bool {
        self.from_ms <= at_ms && self.to_ms.is_none_or(|to_ms| at_ms < to_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn window(text: Value) -> Result<TimeWindow, String> {
        serde_json::from_value(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_window_is_read_and_shown_as_it_is_written() {
        let text = json!({ "days": ["tue-thu", "sat"], "from": "09:00", "to": "24:00", "timezone": "europe/berlin" });
        let read = window(text).unwrap();
        let days = [Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Sat];
        assert_eq!((read.days(), read.from().minutes(), read.to()), (days.as_slice(), 540, TimeOfDay::END));
        let shown = serde_json::to_value(&read).unwrap();
        let wanted = json!({ "days": ["tue", "wed", "thu", "sat"], "from": "09:00", "to": "24:00", "timezone": "Europe/Berlin" });
        assert_eq!(shown, wanted);
        assert_eq!(window(shown), Ok(read));
        let daily = json!({ "from": "22:00", "to": "00:00", "timezone": "UTC" });
        let read = window(daily.clone()).unwrap();
        assert!(Weekday::ALL.into_iter().all(|day| read.begins_on(day)));
        assert_eq!(serde_json::to_value(&read).unwrap(), daily);
    }

    #[test]
    fn ranges_of_days_go_around_the_week() {
        use Weekday::{Fri, Mon, Sat, Sun};
        assert_eq!(Weekday::of("fri-mon"), Some(vec![Fri, Sat, Sun, Mon]));
        assert_eq!(Weekday::of("sun-sun"), Some(vec![Sun]));
        assert_eq!(Weekday::of("mon-sun"), Some(Weekday::ALL.to_vec()));
        for bad in ["", "-", "mon-", "-mon", "Mon", "monday", "mon-tue-wed", "mon tue", "mon- tue"] {
            assert_eq!(Weekday::of(bad), None, "{bad}");
        }
        let read = TimeWindow::new(["fri-mon", "sun"], "00:00", "24:00", "UTC").unwrap();
        assert_eq!(read.days(), [Mon, Fri, Sat, Sun]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |key: &str, value: Value| {
            let mut text = json!({ "days": ["mon"], "from": "09:00", "to": "17:00", "timezone": "UTC" });
            text[key] = value;
            window(text).unwrap_err()
        };
        let names = |why: String, parts: &[&str]| parts.iter().for_each(|p| assert!(why.contains(p), "{why}"));
        names(with("days", json!(["fryday"])), &["days", "\"fryday\"", "\"fri\"", "mon-thu"]);
        for bad in ["24:00", "9:00", "09:60", "09", "09:00:00", "+9:00", "0９:00", "25:00", ""] {
            names(with("from", json!(bad)), &["from", &format!("{bad:?}"), "\"23:59\""]);
        }
        names(with("to", json!("24:01")), &["to", "\"24:01\"", "\"24:00\""]);
        names(with("to", json!("09:00")), &["to", "the same as from", "whole day"]);
        for bad in ["Europe/Berlim", "CEST+1", "+02:00", "", "../etc"] {
            names(with("timezone", json!(bad)), &["timezone", &format!("{bad:?}"), "Europe/Berlin"]);
        }
        names(with("until", json!("x")), &["until", "timezone"]);
    }

    #[test]
    fn every_zone_that_the_program_has_can_be_named() {
        let mut zones = 0;
        for name in TimeZoneDatabase::bundled().available() {
            let zone: Zone = name.as_str().parse().unwrap();
            assert_eq!(zone.name().parse(), Ok(zone.clone()), "{}", name.as_str());
            zones += 1;
        }
        assert!(zones > 400, "{zones}");
    }

    #[test]
    fn a_freeze_holds_up_to_its_end() {
        let blackout = Blackout { from_ms: 10, to_ms: Some(20) };
        assert_eq!([9, 10, 19, 20].map(|at| blackout.holds(at)), [false, true, true, false]);
        assert!(Blackout { from_ms: 10, to_ms: None }.holds(u64::MAX));
        assert!(!Blackout { from_ms: 20, to_ms: Some(10) }.holds(15));
    }
}
