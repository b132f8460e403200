//! Numbers, times and links as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::{BasisPoints, ServiceName, TenantName};

/// What stands as it is in a part of a path.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A part of a path or a value of a query.
pub(super) fn part(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

/// The page of a service.
pub(super) fn service_path(service: &ServiceName) -> String {
    format!("/services/{}", part(service.as_str()))
}

/// The page of a tenant.
pub(super) fn tenant_path(service: &ServiceName, tenant: &TenantName) -> String {
    format!("{}/tenants/{}", service_path(service), part(tenant.as_str()))
}

/// `25 %`.
pub(super) fn share(points: BasisPoints) -> String {
    format!("{}\u{a0}%", points.percent())
}

/// A rate from 0 to 1 as `0.26 %`; a dash when there is none.
pub(super) fn rate(rate: Option<f64>) -> String {
    let Some(rate) = rate else { return "–".to_owned() };
    let percent = rate * 100.0;
    match percent {
        0.0 => "0\u{a0}%".to_owned(),
        p if p < 0.01 => "<\u{a0}0.01\u{a0}%".to_owned(),
        p if p < 1.0 => format!("{p:.2}\u{a0}%"),
        p if p < 10.0 => format!("{p:.1}\u{a0}%"),
        p if p < 100.0 => format!("{:.0}\u{a0}%", p.min(99.0)),
        _ => "100\u{a0}%".to_owned(),
    }
}

/// Seconds as `12 ms` or `1.4 s`; a dash when there are none.
pub(super) fn seconds(seconds: Option<f64>) -> String {
    let Some(s) = seconds else { return "–".to_owned() };
    match s * 1e3 {
        ms if ms < 1.0 => format!("{ms:.2}\u{a0}ms"),
        ms if ms < 10.0 => format!("{ms:.1}\u{a0}ms"),
        ms if ms < 999.5 => format!("{ms:.0}\u{a0}ms"),
        _ if s < 9.95 => format!("{s:.1}\u{a0}s"),
        _ => format!("{s:.0}\u{a0}s"),
    }
}

/// A whole number with thin spaces, which no language reads as a decimal mark.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Requests per second.
pub(super) fn per_second(rps: f64) -> String {
    match rps {
        0.0 => "0/s".to_owned(),
        r if r < 9.95 => format!("{r:.1}/s"),
        r => format!("{}/s", count(r.round() as u64)),
    }
}

/// `one version`, `3 versions`.
pub(super) fn plural(n: u64, one: &str, many: &str) -> String {
    if n == 1 { format!("one {one}") } else { format!("{} {many}", count(n)) }
}

/// A moment, in milliseconds since the Unix epoch: the time today, or the day and the time.
pub(super) fn moment(unix_ms: u64) -> Markup {
    let Some(at) = stamp(unix_ms) else { return html! { "–" } };
    let (zone, now) = (TimeZone::system(), Timestamp::now());
    let (local, today) = (at.to_zoned(zone.clone()), now.to_zoned(zone));
    let form = if local.date() == today.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
    html! { time datetime=(at) { (local.strftime(form)) } }
}

/// When today began, in milliseconds since the Unix epoch.
pub(super) fn midnight() -> u64 {
    let now = Timestamp::now().to_zoned(TimeZone::system());
    let begun = now.start_of_day().map_or_else(|_| now.timestamp(), |day| day.timestamp());
    u64::try_from(begun.as_millisecond()).unwrap_or_default()
}

/// Name of the time zone that moments are told in.
pub(super) fn zone() -> String {
    let now = Timestamp::now().to_zoned(TimeZone::system());
    now.strftime("%Z").to_string()
}

fn stamp(unix_ms: u64) -> Option<Timestamp> {
    i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let rates = [0.0, 0.000_01, 0.0026, 0.05, 0.126, 0.9999, 1.0].map(|r| rate(Some(r)).replace('\u{a0}', " "));
        assert_eq!(rates, ["0 %", "< 0.01 %", "0.26 %", "5.0 %", "13 %", "99 %", "100 %"]);
        let times = [0.000_2, 0.0032, 0.012, 0.9999, 1.44, 12.0].map(|s| seconds(Some(s)).replace('\u{a0}', " "));
        assert_eq!(times, ["0.20 ms", "3.2 ms", "12 ms", "1.0 s", "1.4 s", "12 s"]);
        assert_eq!((rate(None), seconds(None)), ("–".to_owned(), "–".to_owned()));
        assert_eq!(count(1_234_567).replace('\u{202f}', " "), "1 234 567");
        assert_eq!([per_second(0.0), per_second(3.21), per_second(120.4)], ["0/s", "3.2/s", "120/s"]);
        assert_eq!([plural(1, "tenant", "tenants"), plural(2, "tenant", "tenants")], ["one tenant", "2 tenants"]);
    }

    #[test]
    fn names_cannot_leave_their_part_of_a_path() {
        let service = ServiceName::new("shop+x").unwrap();
        let tenant = TenantName::new("<a>/../?b#c%2F'").unwrap();
        assert_eq!(tenant_path(&service, &tenant), "/services/shop%2Bx/tenants/%3Ca%3E%2F..%2F%3Fb%23c%252F%27");
    }
}
