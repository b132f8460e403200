//! `windows` of services and tenants.

use super::{SMALL, bad, good};
use crate::model::{Schedule, TimeWindow, Weekday};

/// The small file with these windows of its service.
fn of_service(windows: &str) -> String {
    SMALL.replace("baseline", &format!("windows = [{windows}]\nbaseline"))
}

#[test]
fn without_windows_every_time_is_allowed() {
    let structure = good(SMALL).structure;
    assert_eq!(structure.services["a"].windows, Schedule::default());
    assert!(structure.tenants.windows.is_empty());
}

#[test]
fn windows_of_services_and_tenants_are_read() {
    let tenants =
        "[tenants]\nwindows = { acme = [{ from = \"22:00\", to = \"05:00\", timezone = \"UTC\" }], globex = [] }\n";
    let window = "{ days = [\"tue-thu\", \"sat\"], from = \"09:00\", to = \"24:00\", timezone = \"Europe/Berlin\" }";
    let structure = good(&(of_service(window) + tenants)).structure;
    let expected = TimeWindow::new(["tue", "wed", "thu", "sat"], "09:00", "24:00", "Europe/Berlin").unwrap();
    assert_eq!(structure.services["a"].windows.windows, [expected]);
    assert_eq!(structure.tenants.windows.len(), 1, "no window is none of one's own");
    let nightly = &structure.tenants.windows["acme"].windows[0];
    assert!(Weekday::ALL.into_iter().all(|day| nightly.begins_on(day)));
}

#[test]
fn mistakes_name_line_key_value_and_what_is_allowed() {
    let window =
        |from: &str, to: &str| format!("{{ days = [\"mon\"], from = \"{from}\", to = \"{to}\", timezone = \"UTC\" }}");
    let good = window("09:00", "16:00");
    for (windows, mistake) in [
        (
            good.replace("mon", "monday"),
            "5 services.a.windows[0].days[0]: \"monday\" is no day; allowed is a day such as",
        ),
        (
            window("24:00", "16:00"),
            "5 services.a.windows[0].from: \"24:00\" is the end of a day; allowed is a time from",
        ),
        (
            window("9", "16:00"),
            "5 services.a.windows[0].from: \"9\" is no time of day; allowed is a time from \"00:00\"",
        ),
        (window("09:00", "24:01"), "5 services.a.windows[0].to: \"24:01\" is no time of day; allowed is"),
        (
            window("09:00", "09:00"),
            "5 services.a.windows[0].to: \"09:00\" is the same as from; allowed is another time",
        ),
        (
            good.replace("UTC", "Mars/Base"),
            "5 services.a.windows[0].timezone: \"Mars/Base\" is not known; allowed is a name",
        ),
        (good.replace("from", "form"), "did you mean \"from\"?"),
    ] {
        let mistakes = bad(&of_service(&windows));
        assert!(mistakes[0].contains(mistake), "{windows}: {mistakes:?}");
    }
    let wrong = window("09:00", "9:00");
    let mistakes = bad(&format!("{SMALL}[tenants]\nwindows = {{ acme = [{wrong}] }}\n"));
    assert!(mistakes[0].starts_with("8 tenants.windows.acme[0].to: \"9:00\" is no time of day"), "{mistakes:?}");
}
