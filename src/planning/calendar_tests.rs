//! Days on which clocks are put forward or back, and what holds for any schedule at any time.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> u64 {
    millis(text.parse().unwrap()).unwrap()
}

fn window(days: &[&str], from: &str, to: &str, timezone: &str) -> TimeWindow {
    TimeWindow::new(days.iter().copied(), from, to, timezone).unwrap()
}

fn schedule(days: &[&str], from: &str, to: &str, timezone: &str) -> Schedule {
    Schedule { windows: vec![window(days, from, to, timezone)] }
}

fn is_open(opening: Opening) -> bool {
    matches!(opening, Opening::Open { .. })
}

/// The next changes from a time on, as texts.
fn changes(schedules: &[&Schedule], blackouts: &[Blackout], from: &str, count: usize) -> Vec<String> {
    let mut now_ms = at(from);
    let mut changes = Vec::new();
    while changes.len() < count {
        let (Opening::Open { until_ms: next } | Opening::Closed { opens_ms: next }) =
            open(schedules, blackouts, now_ms);
        let Some(next) = next else { break };
        changes.push(timestamp(next).to_string());
        now_ms = next;
    }
    changes
}

#[test]
fn office_hours_from_tuesday_to_thursday() {
    let hours = schedule(&["tue-thu"], "09:00", "16:00", "Europe/Berlin");
    // Monday, in winter.
    let found = changes(&[&hours], &[], "2026-01-05T10:00:00Z", 7);
    let wanted = [
        "2026-01-06T08:00:00Z",
        "2026-01-06T15:00:00Z",
        "2026-01-07T08:00:00Z",
        "2026-01-07T15:00:00Z",
        "2026-01-08T08:00:00Z",
        "2026-01-08T15:00:00Z",
        "2026-01-13T08:00:00Z",
    ];
    assert_eq!(found, wanted);
    assert_eq!(open(&[&hours], &[], at("2026-01-06T08:00:00Z") - 1), Opening::Closed { opens_ms: Some(at(wanted[0])) });
    assert_eq!(open(&[&hours], &[], at(wanted[0])), Opening::Open { until_ms: Some(at(wanted[1])) });
}

#[test]
fn hours_past_midnight_belong_to_the_day_they_began_on() {
    let nights = schedule(&["fri"], "22:00", "04:00", "UTC");
    let found = changes(&[&nights], &[], "2026-01-02T12:00:00Z", 3);
    assert_eq!(found, ["2026-01-02T22:00:00Z", "2026-01-03T04:00:00Z", "2026-01-09T22:00:00Z"]);
    assert!(!is_open(open(&[&nights], &[], at("2026-01-02T03:00:00Z"))), "that is Thursday's night");
    for end in ["24:00", "00:00"] {
        let evenings = schedule(&["sat-sun"], "20:00", end, "UTC");
        let found = changes(&[&evenings], &[], "2026-01-03T12:00:00Z", 4);
        let wanted = ["2026-01-03T20:00:00Z", "2026-01-04T00:00:00Z", "2026-01-04T20:00:00Z", "2026-01-05T00:00:00Z"];
        assert_eq!(found, wanted, "{end}");
    }
    // Whole days that follow each other are one time.
    let days = schedule(&["sat", "sun"], "00:00", "24:00", "UTC");
    let found = changes(&[&days], &[], "2026-01-01T00:00:00Z", 2);
    assert_eq!(found, ["2026-01-03T00:00:00Z", "2026-01-05T00:00:00Z"]);
}

#[test]
fn hours_that_clocks_skip_do_not_come() {
    // At 02:00 on 29 March 2026 clocks in Berlin are put forward to 03:00.
    let skipped = schedule(&[], "02:00", "02:30", "Europe/Berlin");
    assert_eq!(changes(&[&skipped], &[], "2026-03-28T02:00:00Z", 1), ["2026-03-30T00:00:00Z"]);
    let half = schedule(&[], "02:30", "04:00", "Europe/Berlin");
    let found = changes(&[&half], &[], "2026-03-28T12:00:00Z", 2);
    assert_eq!(found, ["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]);
    // At 02:00 on 8 March 2026 in New York to 03:00: a night of seven hours.
    let night = schedule(&["sat"], "22:00", "06:00", "America/New_York");
    let found = changes(&[&night], &[], "2026-03-07T12:00:00Z", 2);
    assert_eq!(found, ["2026-03-08T03:00:00Z", "2026-03-08T10:00:00Z"]);
    // At 02:00 on 4 October 2026 on Lord Howe Island to 02:30.
    let skipped = schedule(&[], "02:00", "02:15", "Australia/Lord_Howe");
    assert_eq!(changes(&[&skipped], &[], "2026-10-02T16:00:00Z", 1), ["2026-10-04T15:00:00Z"]);
    // Samoa had no 30 December 2011.
    let friday = schedule(&["fri"], "00:00", "24:00", "Pacific/Apia");
    assert_eq!(changes(&[&friday], &[], "2011-12-26T00:00:00Z", 1), ["2012-01-05T10:00:00Z"]);
}

#[test]
fn hours_that_clocks_show_twice_come_twice() {
    // At 03:00 on 25 October 2026 clocks in Berlin are put back to 02:00.
    let twice = schedule(&[], "02:00", "02:30", "Europe/Berlin");
    let found = changes(&[&twice], &[], "2026-10-24T12:00:00Z", 5);
    let wanted = [
        "2026-10-25T00:00:00Z",
        "2026-10-25T00:30:00Z",
        "2026-10-25T01:00:00Z",
        "2026-10-25T01:30:00Z",
        "2026-10-26T01:00:00Z",
    ];
    assert_eq!(found, wanted);
    let around = schedule(&[], "01:00", "04:00", "Europe/Berlin");
    let found = changes(&[&around], &[], "2026-10-24T12:00:00Z", 2);
    assert_eq!(found, ["2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z"]);
    // At 02:00 on 1 November 2026 in New York to 01:00: a night of nine hours.
    let night = schedule(&["sat"], "22:00", "06:00", "America/New_York");
    let found = changes(&[&night], &[], "2026-10-31T12:00:00Z", 2);
    assert_eq!(found, ["2026-11-01T02:00:00Z", "2026-11-01T11:00:00Z"]);
    // At 02:00 on 5 April 2026 on Lord Howe Island to 01:30, so that this half of an hour lasts a whole one.
    let hour = schedule(&[], "01:30", "02:00", "Australia/Lord_Howe");
    let found = changes(&[&hour], &[], "2026-04-04T12:00:00Z", 2);
    assert_eq!(found, ["2026-04-04T14:30:00Z", "2026-04-04T15:30:00Z"]);
    // At 01:00 on 1 November 2026 in Havana to midnight: the first hour of Sunday comes twice.
    let sunday = schedule(&["sun"], "00:30", "00:45", "America/Havana");
    let found = changes(&[&sunday], &[], "2026-11-01T00:00:00Z", 4);
    let wanted = ["2026-11-01T04:30:00Z", "2026-11-01T04:45:00Z", "2026-11-01T05:30:00Z", "2026-11-01T05:45:00Z"];
    assert_eq!(found, wanted);
}

#[test]
fn all_schedules_must_allow_it_and_no_freeze_hold() {
    let service = schedule(&["tue-thu"], "09:00", "17:00", "Europe/Berlin");
    let tenant = schedule(&["mon-fri"], "08:00", "12:00", "America/New_York");
    let both = [&service, &tenant];
    // Between 8 and 29 March clocks have been put forward in New York and not in Berlin.
    let found = changes(&both, &[], "2026-03-16T00:00:00Z", 2);
    assert_eq!(found, ["2026-03-17T12:00:00Z", "2026-03-17T16:00:00Z"]);
    let blackout = |from, to: Option<&str>| Blackout { from_ms: at(from), to_ms: to.map(at) };
    let blackouts = [
        blackout("2026-03-17T13:00:00Z", Some("2026-03-17T14:00:00Z")),
        blackout("2026-03-17T13:30:00Z", Some("2026-03-17T15:00:00Z")),
        blackout("2026-03-18T13:00:00Z", None),
    ];
    let found = changes(&both, &blackouts, "2026-03-16T00:00:00Z", 99);
    let wanted = [
        "2026-03-17T12:00:00Z",
        "2026-03-17T13:00:00Z",
        "2026-03-17T15:00:00Z",
        "2026-03-17T16:00:00Z",
        "2026-03-18T12:00:00Z",
        "2026-03-18T13:00:00Z",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn what_never_changes_is_looked_for_only_so_far() {
    let now = at("2026-01-01T00:00:00Z");
    let always = Schedule::default();
    assert_eq!(open(&[], &[], now), Opening::Open { until_ms: None });
    assert_eq!(open(&[&always], &[], now), Opening::Open { until_ms: None });
    let every_hour = schedule(&[], "00:00", "24:00", "Europe/Berlin");
    assert_eq!(open(&[&every_hour], &[], now), Opening::Open { until_ms: None });
    let (monday, tuesday) = (schedule(&["mon"], "00:00", "24:00", "UTC"), schedule(&["tue"], "00:00", "24:00", "UTC"));
    assert_eq!(open(&[&monday, &tuesday], &[], now), Opening::Closed { opens_ms: None });
    let blackout = |days: u64| [Blackout { from_ms: 0, to_ms: Some(now + days * DAY_MS) }];
    assert_eq!(open(&[], &blackout(400), now), Opening::Closed { opens_ms: Some(now + 400 * DAY_MS) });
    assert_eq!(open(&[], &blackout(401), now), Opening::Closed { opens_ms: None });
    assert_eq!(open(&[], &[Blackout { from_ms: 0, to_ms: None }], now), Opening::Closed { opens_ms: None });
    for now in [0, u64::MAX, timestamp(u64::MAX).as_millisecond() as u64] {
        let monday = open(&[&monday], &[], now);
        assert!(matches!(monday, Opening::Closed { opens_ms: None | Some(345_600_000) }), "{now}: {monday:?}");
    }
}

/// Places where clocks do all that they do: at night and at midnight, by half an hour, two hours and a day.
const ZONES: [&str; 11] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Havana",
    "America/Sao_Paulo",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "America/Santiago",
];

fn any_window() -> impl Strategy<Value = TimeWindow> {
    let minutes = || prop_oneof![(0u16..24).prop_map(|h| h * 60), (0u16..48).prop_map(|h| h * 30), 0u16..1440];
    let days = proptest::collection::vec(0usize..7, 0..3);
    (days, minutes(), minutes(), 0..ZONES.len()).prop_map(|(days, from, to, zone)| {
        let text = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let to = if from == to { "24:00".to_owned() } else { text(to) };
        window(&days.iter().map(|d| Weekday::ALL[*d].as_str()).collect::<Vec<_>>(), &text(from), &to, ZONES[zone])
    })
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    proptest::collection::vec(any_window(), 0..4).prop_map(|windows| Schedule { windows })
}

/// A time from 2005 to 2035, or near one at which some place puts its clocks forward or back.
fn any_time() -> impl Strategy<Value = u64> {
    let any = at("2005-01-01T00:00:00Z")..at("2035-01-01T00:00:00Z");
    let near = (any.clone(), 0..ZONES.len(), 0..6 * 3_600_000u64).prop_map(|(ms, zone, later)| {
        let zone = TimeZone::get(ZONES[zone]).unwrap();
        let change = zone.following(timestamp(ms)).next().map(|change| change.timestamp());
        change.and_then(millis).unwrap_or(ms) + later - 3 * 3_600_000
    });
    prop_oneof![any, near]
}

fn any_freeze(now_ms: u64) -> impl Strategy<Value = Blackout> {
    let day = 0..3 * DAY_MS;
    (day.clone(), proptest::option::of(day)).prop_map(move |(from, length)| {
        let from_ms = now_ms + from - DAY_MS;
        Blackout { from_ms, to_ms: length.map(|length| from_ms + length) }
    })
}

/// What is meant, said in another way: some day's window has begun and is not over, on the clocks of its place.
fn is_meant_open(schedules: &[&Schedule], blackouts: &[Blackout], at_ms: u64) -> bool {
    let within = |window: &TimeWindow| {
        let local = window.timezone().rules().to_datetime(timestamp(at_ms));
        (0..2).any(|days| {
            let date = local.date() - days.days();
            let midnight = date.at(0, 0, 0, 0);
            let from = midnight + i64::from(window.from().minutes()).minutes();
            let to = midnight + i64::from(window.to().minutes()).minutes();
            let to = if to <= from { to + 1.day() } else { to };
            window.begins_on(weekday(date)) && from <= local && local < to
        })
    };
    let frozen = blackouts.iter().any(|f| f.from_ms <= at_ms && at_ms < f.to_ms.unwrap_or(u64::MAX));
    !frozen && schedules.iter().all(|s| s.windows.is_empty() || s.windows.iter().any(within))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn nothing_changes_before_it_is_said_to(
        (now, blackouts) in any_time().prop_flat_map(|t| (Just(t), proptest::collection::vec(any_freeze(t), 0..3))),
        service in any_schedule(),
        tenant in any_schedule(),
        between in proptest::collection::vec(0.0..1.0f64, 40),
    ) {
        let schedules = [&service, &tenant];
        let opening = open(&schedules, &blackouts, now);
        let (Opening::Open { until_ms: change } | Opening::Closed { opens_ms: change }) = opening;
        prop_assert_eq!(is_open(opening), is_meant_open(&schedules, &blackouts, now));
        let end = change.unwrap_or(now + AHEAD_MS + 1);
        prop_assert!(now < end && end <= now + AHEAD_MS + 1);
        let near = [now, now + 1, end - 1].into_iter().filter(|at| *at < end);
        let between = between.iter().map(|part| now + ((end - now) as f64 * part) as u64);
        for at in between.chain(near).map(|at| at.min(end - 1)) {
            prop_assert_eq!(is_meant_open(&schedules, &blackouts, at), is_open(opening), "at {}", timestamp(at));
        }
        if let Some(change) = change {
            prop_assert_eq!(open(&schedules, &blackouts, change - 1), opening);
            prop_assert_eq!(is_meant_open(&schedules, &blackouts, change), !is_open(opening));
            prop_assert_eq!(is_open(open(&schedules, &blackouts, change)), !is_open(opening));
        }
    }
}
