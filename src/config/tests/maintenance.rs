//! `[services.X.maintenance]` and dates as TOML writes them.

use super::{SMALL, bad, good};
use crate::model::MaintenanceSpec;

fn with(keys: &str) -> String {
    format!("{SMALL}[services.a.maintenance]\n{keys}\n")
}

fn read(keys: &str) -> MaintenanceSpec {
    good(&with(keys)).structure.services["a"].maintenance.clone()
}

#[test]
fn without_the_table_nobody_passes() {
    assert_eq!(good(SMALL).structure.services["a"].maintenance, MaintenanceSpec::default());
}

#[test]
fn page_secret_and_networks_are_read() {
    let secret = "0123456789abcdef";
    let spec = read(&format!(
        "page = \"maintenance.html\"\nbypass_secret = \"{secret}\"\nbypass = [\"10.1.0.0/16\", \"::1\"]"
    ));
    assert_eq!((spec.page.as_deref(), spec.bypass_secret.as_deref()), (Some("<p>{message}</p>"), Some(secret)));
    assert!(spec.bypass[0].contains(&"10.1.2.3".parse::<std::net::IpAddr>().unwrap()) && spec.bypass.len() == 2);
    assert!(!format!("{spec:?}").contains(secret), "secrets stay out of logs");
    let short = good(&with("bypass_secret = \"short\"")).warnings;
    assert!(short[0].starts_with("services.a.maintenance.bypass_secret: is short"), "{short:?}");
}

#[test]
fn a_page_that_cannot_be_served_is_a_mistake() {
    for (keys, wrong) in [
        ("page = \"gone.html\"", "8 services.a.maintenance.page: the file /etc/sb/gone.html cannot be read"),
        ("page = \"large.html\"", "names a file that has 65537 bytes; allowed is HTML as UTF-8, 1 byte to 64 KiB"),
        ("page = \"empty.pem\"", "names a file that is empty"),
        ("page = \"latin.html\"", "names a file that is not UTF-8"),
        ("bypass = [\"everyone\"]", "is neither an address nor a network"),
        ("bypass_secret = \"a b\"", "has a character that cannot stand in a header"),
        ("pages = \"x\"", "unknown key, did you mean \"page\"?"),
    ] {
        let mistakes = bad(&with(keys));
        assert!(mistakes.len() == 1 && mistakes[0].contains(wrong), "{keys}: {mistakes:?}");
    }
}

#[test]
fn dates_are_taken_as_toml_writes_them() {
    let version = |dates: &str| {
        let text = SMALL.replace("[\"127.0.0.1:7001\"]", &format!("[\"127.0.0.1:7001\"], deprecated = {{ {dates} }}"));
        good(&text).structure.services["a"].versions["1"].deprecated.clone().unwrap()
    };
    let written = version("since = 2026-06-01, sunset = 2026-12-31T00:00:00Z");
    assert_eq!(written, version("since = \"2026-06-01\", sunset = \"2026-12-31\""));
    assert_eq!((written.since_s, written.sunset_s), (1_780_272_000, Some(1_798_675_200)));
}
