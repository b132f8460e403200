//! `windows` of a service and of tenants: the days and hours in which rollouts may move.

use std::collections::BTreeMap;

use super::formats::{DAYS, FROM_TIME, TIMEZONE, TO_TIME};
use super::kinds::{Key, Kind, Table};
use super::view::View;
use crate::model::{Schedule, ScheduleError, TenantName, TimeWindow};

pub(super) static WINDOW: Table = Table::new(
    "Days and hours, as the clocks of one place show them.",
    &[
        Key::default("days", Kind::List(&Kind::Text(&DAYS), 0), "[]", "Days on which it begins; none: every day."),
        Key::required("from", Kind::Text(&FROM_TIME), "When it begins."),
        Key::required("to", Kind::Text(&TO_TIME), "When it is over; before its beginning: on the next day."),
        Key::required("timezone", Kind::Text(&TIMEZONE), "Whose clocks: a name of the IANA database."),
    ],
);

/// The schedule under `key`; without any window it allows every time.
pub(super) fn schedule(view: &View<'_>, key: &str) -> Schedule {
    Schedule { windows: view.tables(key).iter().filter_map(window).collect() }
}

/// The schedules of single tenants.
pub(super) fn of_tenants(view: &View<'_>) -> BTreeMap<TenantName, Schedule> {
    let table = view.table("windows");
    let tenants = view.entries("windows").iter();
    let one = |name: &str| Some((TenantName::new(name).ok()?, schedule(&table, name)));
    // No window is the same as none for this tenant.
    tenants.filter_map(|(name, _)| one(name)).filter(|(_, schedule)| !schedule.windows.is_empty()).collect()
}

fn window(view: &View<'_>) -> Option<TimeWindow> {
    let days: Option<Vec<_>> = view.list("days").iter().map(|node| node.text()).collect();
    let (from, to, timezone) = (view.text("from")?, view.text("to")?, view.text("timezone")?);
    match TimeWindow::new(days?, from, to, timezone) {
        Ok(window) => Some(window),
        Err(ScheduleError::Empty { text }) => {
            let allowed = "allowed is another time, or from = \"00:00\" and to = \"24:00\" for the whole day";
            view.wrong_at("to", format!("{text:?} is the same as from; {allowed}"));
            None
        }
        // Each text by itself was looked at before.
        Err(_) => None,
    }
}
