//! Texts with a form: durations, sizes, hosts, paths, names. Each reader gives the checked value or says what is wrong.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use super::kinds::Format;
use crate::model::{
    EndpointSpec, EventKind, GroupName, JsonPath, NoTime, RoutePattern, ScheduleError, ServiceName, SigningSecret,
    TenantName, TimeOfDay, VersionName, Weekday, Zone,
};

/// Declares a form by what it allows and the function that reads it.
macro_rules! form {
    ($name:ident, $allowed:literal, $read:expr) => {
        pub(super) static $name: Format =
            Format { allowed: $allowed, check: |text| ($read)(text).map(drop), secret: false };
    };
    ($name:ident, secret $allowed:literal, $read:expr) => {
        pub(super) static $name: Format =
            Format { allowed: $allowed, check: |text| ($read)(text).map(drop), secret: true };
    };
}

form!(TEXT, "text that is not empty", not_empty);
form!(FILE, "a path, seen from the folder of this file", not_empty);
form!(ADDRESS, "an address with port such as \"0.0.0.0:8080\" or \"[::]:8080\"", address);
form!(ADDRESS_OR_OFF, "an address with port such as \"127.0.0.1:9900\", or \"off\"", address_or_off);
form!(NETWORK, "an address or network such as \"10.0.0.0/8\"", network);
form!(SHA256, secret "64 hexadecimal digits", sha256);
form!(SECRET, secret "text that is not empty", not_empty);
form!(VISIBLE_SECRET, secret "visible ASCII characters except '\"', '\\', ',' and ';'", visible);
form!(LONG_SECRET, secret "at least 32 characters", long_secret);
form!(HOST, "a host such as \"api.example.com\"", host);
form!(HOST_PATTERN, "a host such as \"api.example.com\" or \"*.example.com\"", host_pattern);
form!(HOST_PORT, "a host, with or without port, such as \"api.example.com:8080\"", host_port);
form!(TENANT_HOST, "a host with {tenant} once, such as \"{tenant}.api.example.com\"", tenant_host);
form!(TENANT_PATH, "a path that ends with {tenant}, such as \"/t/{tenant}\"", tenant_path);
form!(PATH, "a path that begins with \"/\", such as \"/accounting\"", path);
form!(
    ROUTE,
    "a path such as \"/v1/orders/{id}\" or \"/files/*\", with or without a method before it, such as \"GET /v1/orders\"",
    route
);
form!(TARGET, "a path that begins with \"/\", such as \"/healthz\"", target);
form!(ETCD, "an address such as \"http://10.0.0.1:2379\"", etcd);
form!(LINK, "an address such as \"https://docs.example.com/v1\"", link);
form!(SECRET_LINK, secret "an address such as \"https://hooks.example.com/in\"", link);
form!(MAILBOX, "an e-mail address such as \"ops@example.com\" or \"Ops <ops@example.com>\"", mailbox);
form!(SIGNING_SECRET, secret "\"whsec_\" and 24 to 64 bytes in base64", signing_secret);
form!(EVENT_KIND, "the kind of an event such as \"rollback\" or \"split_set\"", event_kind);
form!(DAYS, "a day such as \"mon\", or days such as \"tue-thu\"", days);
form!(FROM_TIME, "a time from \"00:00\" to \"23:59\"", from_time);
form!(TO_TIME, "a time from \"00:00\" to \"24:00\"", time_of_day);
form!(TIMEZONE, "a name of the IANA database such as \"Europe/Berlin\" or \"UTC\"", timezone);
form!(HEADER, "a header name such as \"x-user-id\"", header);
form!(COOKIE, "a cookie name such as \"sid\"", cookie);
form!(HEADER_VALUE, "visible ASCII characters and spaces", header_value);
form!(SECRET_HEADER_VALUE, secret "visible ASCII characters and spaces", header_value);
form!(METHOD, "a method such as \"GET\"", method);
form!(ENDPOINT, "host:port such as \"10.0.0.1:7001\" or \"{tenant}.internal:7001\"", endpoint);
form!(JSON_PATH, "a path of JSONPath such as \"$.items[*].updated_at\"", json_path);
form!(SERVICE, "a name of 1 to 63 letters, digits, '.', '_', '-' and '+'", name::<ServiceName>);
form!(VERSION, "a name of 1 to 63 letters, digits, '.', '_', '-' and '+'", name::<VersionName>);
form!(GROUP, "a name of 1 to 63 letters, digits, '.', '_', '-' and '+'", name::<GroupName>);
form!(TENANT, "a name of 1 to 128 visible ASCII characters except '\"', '\\', ',' and ';'", name::<TenantName>);

/// Text with at least one character.
pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// A name of the model.
pub(super) fn name<N: FromStr<Err = crate::model::NameError>>(text: &str) -> Result<N, String> {
    text.parse().map_err(|e: crate::model::NameError| match e {
        crate::model::NameError::Empty { .. } => "is empty".to_owned(),
        crate::model::NameError::TooLong { len, .. } => format!("has {len} characters"),
        crate::model::NameError::Character { found, .. } => format!("has the character {found:?}"),
    })
}

/// Address and port.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address with port".to_owned())
}

/// Address and port, or `off`.
pub(super) fn address_or_off(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" { Ok(None) } else { address(text).map(Some) }
}

/// A network, or an address as the network of one.
pub(super) fn network(text: &str) -> Result<ipnet::IpNet, String> {
    let net = text.parse::<ipnet::IpNet>().or_else(|_| text.parse::<IpAddr>().map(ipnet::IpNet::from));
    net.map(|n| n.trunc()).map_err(|_| "is neither an address nor a network".to_owned())
}

/// 32 bytes in hexadecimal.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], String> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    let mut bytes = [0; 32];
    if digits.len() != 64 || text.len() != 64 {
        return Err("is not the SHA-256 of a token".to_owned());
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(bytes)
}

/// Text that can stand in headers and cookies.
pub(super) fn visible(text: &str) -> Result<String, String> {
    match text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '"' | '\\' | ',' | ';')) {
        Some(_) => Err("has a character that cannot stand in a header".to_owned()),
        None => not_empty(text),
    }
}

/// A secret that signs or seals: as much as the hash takes in.
pub(super) fn long_secret(text: &str) -> Result<String, String> {
    match text.chars().count() {
        32.. => Ok(text.to_owned()),
        n => Err(format!("has {n} characters")),
    }
}

/// A host name, or an address, lower case without port.
pub(super) fn host(text: &str) -> Result<String, String> {
    let host = text.to_ascii_lowercase();
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return match address.parse::<Ipv6Addr>() {
            Ok(_) => Ok(host),
            Err(_) => Err("is not an IPv6 address in brackets".to_owned()),
        };
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if host.is_empty() {
        Err("is empty".to_owned())
    } else if host.contains(':') {
        Err("has a port or a scheme".to_owned())
    } else if host.len() > 253 || !host.split('.').all(label) {
        Err("is not a host".to_owned())
    } else {
        Ok(host)
    }
}

/// A host, where a leading `*.` stands for one or more labels.
pub(super) fn host_pattern(text: &str) -> Result<String, String> {
    match text.strip_prefix("*.") {
        Some(rest) => host(rest).map(|h| format!("*.{h}")),
        None => host(text),
    }
}

/// A host with an optional port.
pub(super) fn host_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':').filter(|_| !text.ends_with(']')) {
        Some((name, port)) => match port.parse::<u16>() {
            Ok(1..) => host(name).map(|h| format!("{h}:{port}")),
            _ => Err("has no valid port".to_owned()),
        },
        None => host(text),
    }
}

/// What stands before and after `{tenant}` in a host.
pub(super) fn tenant_host(text: &str) -> Result<(String, String), String> {
    let lower = text.to_ascii_lowercase();
    let Some((prefix, suffix)) = lower.split_once("{tenant}") else { return Err("has no {tenant}".to_owned()) };
    if suffix.contains("{tenant}") {
        return Err("has {tenant} twice".to_owned());
    }
    host(&format!("{prefix}t{suffix}"))?;
    Ok((prefix.to_owned(), suffix.to_owned()))
}

/// What stands before `{tenant}` in a path.
pub(super) fn tenant_path(text: &str) -> Result<String, String> {
    let prefix = text.strip_suffix('/').unwrap_or(text).strip_suffix("{tenant}");
    let prefix = prefix.ok_or("does not end with {tenant}")?;
    if !prefix.ends_with('/') {
        return Err("has {tenant} beside other text of its segment".to_owned());
    }
    path(prefix)?;
    Ok(prefix.to_owned())
}

/// A path prefix. A slash at the end is dropped, since prefixes end at segment borders anyway.
pub(super) fn path(text: &str) -> Result<String, String> {
    target(text)?;
    if text.contains(['?', '#']) {
        return Err("has a query or a fragment".to_owned());
    }
    if text.contains("//") || text.split('/').any(|s| matches!(s, "." | "..")) {
        return Err("has empty or dotted segments, which no request reaches".to_owned());
    }
    if text.contains(['{', '}']) {
        return Err("has braces".to_owned());
    }
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

/// What a request asks for: path and query.
pub(super) fn target(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        Err("does not begin with \"/\"".to_owned())
    } else if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '"' | '\\' | '<' | '>')) {
        Err(format!("has the character {c:?}, which must be percent-encoded"))
    } else {
        Ok(text.to_owned())
    }
}

/// A header name, lower case.
pub(super) fn header(text: &str) -> Result<http::HeaderName, String> {
    http::HeaderName::from_bytes(text.as_bytes()).map_err(|_| "is not a header name".to_owned())
}

/// A cookie name.
pub(super) fn cookie(text: &str) -> Result<String, String> {
    // Names of cookies are tokens like those of headers, but their case counts.
    header(text).map(|_| text.to_owned()).map_err(|_| "is not a cookie name".to_owned())
}

/// The value of a header.
pub(super) fn header_value(text: &str) -> Result<String, String> {
    match text.chars().find(|c| !c.is_ascii_graphic() && *c != ' ') {
        Some(c) => Err(format!("has the character {c:?}")),
        None => Ok(text.to_owned()),
    }
}

/// A method in capital letters.
pub(super) fn method(text: &str) -> Result<http::Method, String> {
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err("has small letters, which count".to_owned());
    }
    http::Method::from_bytes(text.as_bytes()).map_err(|_| "is not a method".to_owned())
}

/// A route: a path with `{name}` for one segment and `*` for the rest, with or without a method before it.
pub(super) fn route(text: &str) -> Result<RoutePattern, String> {
    text.parse().map_err(|e: crate::model::RoutePatternError| e.to_string())
}

/// An address of a version.
pub(super) fn endpoint(text: &str) -> Result<EndpointSpec, String> {
    text.parse().map_err(|_| "is not an endpoint".to_owned())
}

/// Fields of a JSON document.
pub(super) fn json_path(text: &str) -> Result<JsonPath, String> {
    text.parse().map_err(|e: crate::model::JsonPathError| e.to_string())
}

const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A whole number with `ms`, `s`, `m`, `h` or `d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
    let ms = number.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    ms.map(Duration::from_millis).ok_or_else(|| "is not a duration".to_owned())
}

/// The text of a duration in its largest whole unit; parts of a millisecond are rounded up.
pub(super) fn duration_text(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let unit = DURATION_UNITS.iter().find(|(_, unit)| ms.is_multiple_of(*unit)).unwrap_or(&("ms", 1));
    format!("{}{}", ms / unit.1, unit.0)
}

/// A date, which is its first moment in UTC, or a time with its offset, as seconds since the Unix epoch.
pub(super) fn date(text: &str) -> Result<i64, String> {
    let wrong = || "is neither a date nor a time with its offset".to_owned();
    // Years 0000 to 9999: what HTTP can write.
    let time = match text.len() {
        10 => {
            text.parse::<jiff::civil::Date>().and_then(|d| d.to_zoned(jiff::tz::TimeZone::UTC)).map(|z| z.timestamp())
        }
        _ => text.parse::<jiff::Timestamp>(),
    };
    time.map(jiff::Timestamp::as_second).map_err(|_| wrong()).and_then(|s| if s >= 0 { Ok(s) } else { Err(wrong()) })
}

/// The text of a time: a date when it is the first moment of a day in UTC.
pub(super) fn date_text(unix_s: i64) -> String {
    let text = jiff::Timestamp::from_second(unix_s).map(|t| t.to_string()).unwrap_or_default();
    text.strip_suffix("T00:00:00Z").map(str::to_owned).unwrap_or(text)
}

/// An address of a member of etcd: scheme, host and perhaps port.
pub(super) fn etcd(text: &str) -> Result<String, String> {
    let fine = |uri: &http::Uri| {
        let path = uri.path_and_query().map_or("", |p| p.as_str());
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && matches!(path, "" | "/")
    };
    let login = text.contains('@');
    match text.parse::<http::Uri>().is_ok_and(|uri| fine(&uri)) && !login {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("is no http or https address of a host".to_owned()),
    }
}

/// An absolute address that can stand between `<` and `>` in a header.
pub(super) fn link(text: &str) -> Result<String, String> {
    const MOST: usize = 2_048;
    let scheme = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let fine = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | '\\' | '`' | '{' | '}' | '|' | '^');
    match scheme {
        Some(rest) if !rest.is_empty() && text.len() <= MOST && text.chars().all(fine) => Ok(text.to_owned()),
        _ => Err("is not an http or https address".to_owned()),
    }
}

/// An address of e-mail, with or without a name before it.
pub(super) fn mailbox(text: &str) -> Result<String, String> {
    let read = text.parse::<lettre::message::Mailbox>();
    read.map(|_| text.to_owned()).map_err(|_| "is not an e-mail address".to_owned())
}

/// The secret that signs calls.
pub(super) fn signing_secret(text: &str) -> Result<SigningSecret, String> {
    text.parse().map_err(|e: crate::model::SigningSecretError| e.to_string())
}

/// The kind of an event.
pub(super) fn event_kind(text: &str) -> Result<EventKind, String> {
    EventKind::parse(text).ok_or_else(|| "is no kind of event".to_owned())
}

/// Days of the week.
fn days(text: &str) -> Result<Vec<Weekday>, String> {
    Weekday::of(text).ok_or_else(|| "is no day".to_owned())
}

/// A time on a clock.
fn time_of_day(text: &str) -> Result<TimeOfDay, String> {
    text.parse().map_err(|NoTime| "is no time of day".to_owned())
}

/// A time at which something can begin.
fn from_time(text: &str) -> Result<TimeOfDay, String> {
    match time_of_day(text)? {
        TimeOfDay::END => Err("is the end of a day".to_owned()),
        time => Ok(time),
    }
}

/// A time zone.
fn timezone(text: &str) -> Result<Zone, String> {
    text.parse().map_err(|_: ScheduleError| "is not known".to_owned())
}

const SIZE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A whole number with `B`, `KiB`, `MiB`, `GiB` or `TiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes);
    let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    bytes.ok_or_else(|| "is not a size".to_owned())
}

/// The text of a size in its largest whole unit.
pub(super) fn size_text(bytes: u64) -> String {
    let unit = SIZE_UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)).unwrap_or(&("B", 1));
    format!("{}{}", bytes / unit.1, unit.0)
}
