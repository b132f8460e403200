//! gRPC: which requests are calls, how the proxy's own answers are made so that their clients understand them, and when
//! a call that ends without a status, or is given up at its deadline, is the version's failure.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::Result;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The status of a call that ended without one, as clients see it.
const UNKNOWN: u16 = 2;
/// The status of a call that broke off.
const UNAVAILABLE: u16 = 14;

/// The shortest deadline in microseconds that can be a version's failure: what nothing can meet blames nobody.
const DEADLINE_MIN_US: u64 = 50_000;

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// Made by a browser (gRPC-Web): its status may stand in the body, where it is not looked for.
    pub web: bool,
    /// How long the client waits for the end, in microseconds.
    deadline_us: Option<u64>,
}

impl Call {
    /// The call that a request is, if it is one.
    pub fn of(header: &RequestHeader) -> Option<Self> {
        let rest = header.headers.get(CONTENT_TYPE)?.as_bytes().strip_prefix(b"application/grpc")?;
        let web = rest.starts_with(b"-web");
        // Over HTTP/1 there are no trailers, so only gRPC-Web works.
        let fits = web || header.version == Version::HTTP_2 && matches!(rest.first(), None | Some(b'+' | b';'));
        let deadline_us = header.headers.get(TIMEOUT).and_then(|value| micros(value.to_str().ok()?));
        fits.then_some(Self { web, deadline_us })
    }

    /// Whether a client that left after this time had waited in vain until its deadline.
    pub fn waited_in_vain(self, waited_us: u64) -> bool {
        // Connecting counts for the client, and its clock began before this one.
        self.deadline_us.is_some_and(|all| all >= DEADLINE_MIN_US && waited_us >= all - all / 10)
    }

    /// The status of a call that came to its end: one without is as failed as its client takes it to be.
    pub fn status_at_end(self, http: Option<u16>, told: Option<u16>) -> Option<u16> {
        told.or_else(|| (!self.web && http == Some(200)).then_some(UNKNOWN))
    }
}

/// What `grpc-status` says; none when it is not there. What is no number is what clients take it for.
pub(super) fn status(headers: &HeaderMap) -> Option<u16> {
    let text = headers.get(STATUS)?.to_str();
    Some(text.ok().and_then(|text| text.parse().ok()).unwrap_or(UNKNOWN))
}

/// Turns an answer of the proxy into one that has the status in its header and no body, if the request is a call.
///
/// # Errors
/// Pingora does not take the header.
pub(super) fn shape(request: &RequestHeader, answer: &mut ResponseHeader, message: &str) -> Result<bool> {
    let Some(call) = Call::of(request) else { return Ok(false) };
    let status = status_for(answer.status.as_u16());
    answer.set_status(http::StatusCode::OK)?;
    let kind = request.headers.get(CONTENT_TYPE).filter(|_| call.web).cloned();
    answer.insert_header(CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/grpc")))?;
    answer.insert_header(STATUS, HeaderValue::from(status))?;
    answer.insert_header(MESSAGE, encoded(message))?;
    match call.web {
        true => answer.insert_header(CONTENT_LENGTH, "0")?,
        false => drop(answer.remove_header(&CONTENT_LENGTH)),
    }
    Ok(true)
}

/// What ends an answer that broke off.
pub(super) fn broken_off() -> HeaderMap {
    let message = HeaderValue::from_static("the service broke off");
    HeaderMap::from_iter([(STATUS, HeaderValue::from(UNAVAILABLE)), (MESSAGE, message)])
}

/// The gRPC status for the status of an answer that the proxy makes. As clients translate answers that are not gRPC, but
/// where that is UNKNOWN or loses what the proxy knows, the status that says it.
fn status_for(http: u16) -> u16 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        408 => 4,
        413 | 429 | 431 => 8,
        502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// A message as it stands in a header: percent-encoded but for visible ASCII and spaces.
fn encoded(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A timeout as it stands in a header: up to eight digits and a unit.
fn micros(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(number * 3_600_000_000),
        "M" => Some(number * 60_000_000),
        "S" => Some(number * 1_000_000),
        "m" => Some(number * 1_000),
        "u" => Some(number),
        "n" => Some(number / 1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut header = RequestHeader::build("POST", b"/a.B/C", None).unwrap();
        header.set_version(version);
        headers.iter().for_each(|(name, value)| header.insert_header(*name, *value).unwrap());
        header
    }

    #[test]
    fn calls_are_known_by_type_and_protocol() {
        let web = |version, kind| Call::of(&request(version, &[("content-type", kind)])).map(|call| call.web);
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;charset=x"] {
            assert_eq!(web(Version::HTTP_2, kind), Some(false), "{kind}");
            assert_eq!(web(Version::HTTP_11, kind), None, "{kind}");
        }
        assert_eq!(web(Version::HTTP_2, "application/grpc-web+proto"), Some(true));
        assert_eq!(web(Version::HTTP_11, "application/grpc-web"), Some(true));
        for kind in ["application/grpcx", "application/json", "text/application/grpc"] {
            assert_eq!(web(Version::HTTP_2, kind), None, "{kind}");
        }
    }

    #[test]
    fn deadlines_are_read_and_must_be_fair() {
        for (text, wanted) in [
            ("1H", Some(3_600_000_000)),
            ("2M", Some(120_000_000)),
            ("3S", Some(3_000_000)),
            ("250m", Some(250_000)),
            ("7u", Some(7)),
            ("99999999n", Some(99_999)),
            ("123456789n", None),
            ("S", None),
            ("", None),
            ("1x", None),
            ("-1S", None),
            ("1é", None),
        ] {
            assert_eq!(micros(text), wanted, "{text}");
        }
        let vain = |deadline, waited| {
            let header = request(Version::HTTP_2, &[("content-type", "application/grpc"), ("grpc-timeout", deadline)]);
            Call::of(&header).unwrap().waited_in_vain(waited)
        };
        assert!(vain("1S", 1_000_000) && vain("1S", 900_000) && !vain("1S", 800_000));
        assert!(!vain("49m", 49_000) && vain("50m", 50_000) && !vain("0n", 1));
    }

    #[test]
    fn a_call_without_a_status_has_failed() {
        let call = |web| Call { web, deadline_us: None };
        assert_eq!(call(false).status_at_end(Some(200), None), Some(UNKNOWN));
        assert_eq!(call(false).status_at_end(Some(200), Some(0)), Some(0));
        assert_eq!(call(false).status_at_end(Some(404), None), None, "judged as what it is");
        assert_eq!(call(true).status_at_end(Some(200), None), None, "may stand in the body");
        assert_eq!(status(&HeaderMap::from_iter([(STATUS, HeaderValue::from_static("x"))])), Some(UNKNOWN));
    }

    #[test]
    fn the_proxys_answers_are_calls_answers() {
        let shaped = |status, kind, message| {
            let mut answer = ResponseHeader::build(status, None).unwrap();
            answer.insert_header(CONTENT_LENGTH, "17").unwrap();
            let version = if kind == "application/grpc-web" { Version::HTTP_11 } else { Version::HTTP_2 };
            shape(&request(version, &[("content-type", kind)]), &mut answer, message).unwrap().then_some(answer)
        };
        for (http, grpc) in [(503, "14"), (504, "14"), (404, "12"), (403, "7"), (400, "13"), (413, "8"), (500, "2")] {
            let answer = shaped(http, "application/grpc+x", "50 % \u{e9}").unwrap();
            assert_eq!((answer.status.as_u16(), answer.headers[STATUS].to_str().unwrap()), (200, grpc));
            assert_eq!(answer.headers[CONTENT_TYPE], "application/grpc");
            assert_eq!(answer.headers[MESSAGE], "50 %25 %C3%A9");
            assert!(!answer.headers.contains_key(CONTENT_LENGTH));
        }
        let answer = shaped(503, "application/grpc-web", "x").unwrap();
        assert_eq!(answer.headers[CONTENT_TYPE], "application/grpc-web");
        assert_eq!(answer.headers[CONTENT_LENGTH], "0");
        assert!(shaped(503, "application/json", "x").is_none());
    }
}
