//! Headers on the way: what a request must look like, what endpoints are told, what clients are told.

use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::Result;

use super::address_text::AddressText;
use super::front::is_authority;
use crate::routing::DeprecationHeaders;

// Names are text: of a `HeaderName` that is added, Pingora copies the text each time.

/// The id of a request.
pub(super) const X_REQUEST_ID: &str = "x-request-id";
/// The version that serves it.
pub(super) const X_VERSION: &str = "x-switchback-version";
/// The tenant that it belongs to.
pub(super) const X_TENANT: &str = "x-switchback-tenant";
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED: &str = "forwarded";
const TRACEPARENT: &str = "traceparent";

/// The longest request id that is taken over.
const REQUEST_ID_MAX: usize = 128;

/// Why a request head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHead {
    /// 400.
    Malformed,
    /// 431.
    TooLarge,
}

/// What a request head may use up.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimits {
    pub size: u64,
    pub headers: usize,
}

/// What one look over a request head finds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HeadFacts {
    /// The declared length of the body in bytes.
    pub length: Option<u64>,
    /// Whether long pauses are normal: WebSocket, server-sent events, gRPC.
    pub stream: bool,
    /// Whether the client wants the connection closed after the answer.
    pub closes: bool,
    /// Whether there is an `upgrade` that `connection` does not name. It was meant for somebody before this proxy, who did
    /// not take it away and expects no other protocol here (RFC 9110, section 7.8).
    pub stray_upgrade: bool,
    /// What later phases would have to search for.
    pub sent: Sent,
}

/// Which of the headers that are looked for later the client has sent. Most send none of them, and a look at each name
/// in passing costs less than a search for each of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub request_id: bool,
    pub trace: bool,
    pub forwarded: bool,
}

impl Sent {
    fn note(&mut self, name: &str) {
        match name {
            X_REQUEST_ID => self.request_id = true,
            TRACEPARENT => self.trace = true,
            FORWARDED => self.forwarded = true,
            _ => {}
        }
    }
}

/// Looks over a request head once: whether it is unambiguous and small enough, and what it tells.
pub(super) fn check(header: &RequestHeader, limits: HeadLimits) -> std::result::Result<HeadFacts, BadHead> {
    if header.headers.len() > limits.headers {
        return Err(BadHead::TooLarge);
    }
    let mut facts = HeadFacts::default();
    let mut size = header.raw_path().len();
    let (mut hosts, mut lengths, mut encoded, mut malformed) = (0, 0, false, false);
    let (mut upgrade, mut upgrades) = (false, false);
    for (name, value) in &header.headers {
        size += name.as_str().len() + value.len() + 4;
        malformed |= is_padded(value.as_bytes());
        if name == HOST {
            hosts += 1;
            malformed |= !is_authority(value.as_bytes());
        } else if name == CONTENT_LENGTH {
            lengths += 1;
            facts.length = content_length(value.as_bytes());
            malformed |= facts.length.is_none();
        } else if name == TRANSFER_ENCODING {
            encoded = true;
        } else if name == CONNECTION {
            facts.closes |= lists(value, "close");
            upgrades |= lists(value, "upgrade");
        } else if name == UPGRADE {
            upgrade = true;
        } else {
            facts.stream |= tells_stream(name, value.as_bytes());
            facts.sent.note(name.as_str());
        }
    }
    if size as u64 > limits.size {
        return Err(BadHead::TooLarge);
    }
    malformed |= match header.version {
        // Two that contradict each other are refused by Pingora.
        Version::HTTP_2 => !is_addressed(&header.uri, hosts),
        Version::HTTP_11 => hosts != 1,
        _ => hosts > 1,
    };
    if malformed || lengths > 1 || lengths > 0 && encoded {
        return Err(BadHead::Malformed);
    }
    facts.stream |= upgrade && upgrades;
    facts.stray_upgrade = upgrade && !upgrades;
    Ok(facts)
}

/// Whether a list has this element.
fn lists(value: &HeaderValue, wanted: &str) -> bool {
    value.as_bytes().split(|b| *b == b',').any(|element| element.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// The front has taken such space away from fields of HTTP/1. Those of HTTP/2 may have none, and an endpoint of HTTP/2
/// would refuse the request as if the proxy were at fault (RFC 9113, section 8.2.1).
fn is_padded(value: &[u8]) -> bool {
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    space(value.first()) || space(value.last())
}

/// Written as the front wants it from HTTP/1: digits, and none that only pads.
fn content_length(value: &[u8]) -> Option<u64> {
    let plain = value.iter().all(u8::is_ascii_digit) && (value.len() == 1 || value.first() != Some(&b'0'));
    std::str::from_utf8(value).ok().filter(|_| plain)?.parse().ok()
}

/// Whether a request of HTTP/2 with so many `host` fields says whom it is for in one way. Two that contradict each other
/// are refused by Pingora.
fn is_addressed(uri: &http::Uri, hosts: usize) -> bool {
    let Some(authority) = uri.authority() else { return hosts == 1 };
    // Without an authority the library keeps no scheme.
    let is = |scheme: &str| uri.scheme_str().is_some_and(|s| s.eq_ignore_ascii_case(scheme));
    (is("http") || is("https")) && is_authority(authority.as_str().as_bytes()) && hosts <= 1
}

fn tells_stream(name: &HeaderName, value: &[u8]) -> bool {
    use http::header::{ACCEPT, CONTENT_TYPE};
    name == CONTENT_TYPE && value.starts_with(b"application/grpc")
        || name == ACCEPT && value.windows(17).any(|w| w == b"text/event-stream")
}

/// The host of a request without its port, once [`check`] has found it to be one.
pub(super) fn host(header: &RequestHeader) -> &str {
    let authority = header.uri.authority().map(|a| a.as_str());
    let raw = authority.or_else(|| header.headers.get(HOST).and_then(|h| h.to_str().ok())).unwrap_or_default();
    // A plain loop: a search that is made for long texts takes longer to begin than a host is long.
    let (host, end) = raw.strip_prefix('[').map_or((raw, b':'), |v6| (v6, b']'));
    host.bytes().position(|b| b == end).map_or(raw, |at| &host[..at])
}

/// The host as the client wrote it, with port.
pub(super) fn host_value(header: &RequestHeader) -> Option<HeaderValue> {
    let from_uri = || header.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    header.headers.get(HOST).cloned().or_else(from_uri)
}

/// The id that came with the request, if it is one.
pub(super) fn given_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(X_REQUEST_ID)?;
    let fine = !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic);
    fine.then(|| id.clone())
}

/// A fresh id: 128 bits as hexadecimal digits.
pub(super) fn fresh_request_id(random: [u64; 2]) -> HeaderValue {
    let mut text = [0; 32];
    write_hex(&mut text[..16], random[0]);
    write_hex(&mut text[16..], random[1]);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
}

fn write_hex(into: &mut [u8], number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (i, place) in into.iter_mut().enumerate() {
        *place = DIGITS[(number >> (60 - 4 * i)) as usize & 15];
    }
}

/// Whom a request comes from, as endpoints are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub client: IpAddr,
    pub trusted: bool,
    pub tls: bool,
}

/// Tells the endpoint whom the request comes from. A stranger's own claims are replaced, a trusted proxy's continued.
pub(super) fn forward(
    header: &mut RequestHeader,
    origin: Origin,
    sent: Sent,
    host: Option<&HeaderValue>,
    rfc7239: bool,
) -> Result<()> {
    let before = |name: &str, headers: &HeaderMap| {
        let mut joined = Vec::new();
        for value in headers.get_all(name) {
            joined.extend_from_slice(value.as_bytes());
            joined.extend_from_slice(b", ");
        }
        joined
    };
    let client = AddressText::of(origin.client);
    if origin.trusted {
        let mut chain = before(X_FORWARDED_FOR, &header.headers);
        chain.extend_from_slice(client.as_bytes());
        header.insert_header(X_FORWARDED_FOR, chain)?;
    } else {
        header.insert_header(X_FORWARDED_FOR, client.as_bytes())?;
    }
    if rfc7239 {
        let mut element = if origin.trusted { before(FORWARDED, &header.headers) } else { Vec::new() };
        element.extend_from_slice(forwarded_element(origin, host).as_bytes());
        header.insert_header(FORWARDED, element)?;
    } else if !origin.trusted && sent.forwarded {
        header.remove_header(&http::header::FORWARDED);
    }
    if !origin.trusted || !header.headers.contains_key(X_FORWARDED_PROTO) {
        let proto = if origin.tls { HeaderValue::from_static("https") } else { HeaderValue::from_static("http") };
        header.insert_header(X_FORWARDED_PROTO, proto)?;
    }
    if !origin.trusted || !header.headers.contains_key(X_FORWARDED_HOST) {
        match host {
            Some(host) => header.insert_header(X_FORWARDED_HOST, host.clone())?,
            None => drop(header.remove_header(X_FORWARDED_HOST)),
        }
    }
    Ok(())
}

/// Tells clients that the version is deprecated; links that the version gives stay.
pub(super) fn tell_deprecation(response: &mut ResponseHeader, told: &DeprecationHeaders) -> Result<()> {
    response.insert_header("deprecation", told.deprecation.clone())?;
    if let Some(sunset) = &told.sunset {
        response.insert_header("sunset", sunset.clone())?;
    }
    if let Some(link) = &told.link {
        response.append_header(http::header::LINK, link.clone())?;
    }
    Ok(())
}

fn forwarded_element(origin: Origin, host: Option<&HeaderValue>) -> String {
    let client = match origin.client {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    };
    let proto = if origin.tls { "https" } else { "http" };
    match host.and_then(|h| h.to_str().ok()) {
        Some(host) => format!("for={client};host=\"{host}\";proto={proto}"),
        None => format!("for={client};proto={proto}"),
    }
}

/// Passes a trace on, or begins one (W3C Trace Context) that nobody has asked to record.
pub(super) fn trace(header: &mut RequestHeader, sent: Sent, random: [u64; 2]) -> Result<()> {
    if sent.trace && header.headers.contains_key(TRACEPARENT) {
        return Ok(());
    }
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut text[3..19], random[0]);
    write_hex(&mut text[19..35], random[1] | 1);
    write_hex(&mut text[36..52], random[0].rotate_left(32) ^ random[1] | 1);
    header.insert_header(TRACEPARENT, &text[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { size: 1_000, headers: 5 };

    fn request(headers: &[(&str, &str)]) -> RequestHeader {
        let mut header = RequestHeader::build("GET", b"/x?y=1", None).unwrap();
        for (name, value) in headers {
            header.append_header((*name).to_owned(), *value).unwrap();
        }
        header
    }

    #[test]
    fn an_ambiguous_head_is_refused() {
        assert_eq!(check(&request(&[("host", "a.example:80")]), LIMITS), Ok(HeadFacts::default()));
        let upload = check(&request(&[("host", "a"), ("content-length", "7")]), LIMITS).unwrap();
        assert_eq!(upload.length, Some(7));
        let malformed: [&[(&str, &str)]; 7] = [
            &[],
            &[("host", "a"), ("host", "a")],
            &[("host", "a, b")],
            &[("host", "user@a")],
            &[("host", "a/b")],
            &[("host", "a"), ("content-length", "1"), ("content-length", "1")],
            &[("host", "a"), ("content-length", "1"), ("transfer-encoding", "chunked")],
        ];
        for headers in malformed {
            assert_eq!(check(&request(headers), LIMITS), Err(BadHead::Malformed), "{headers:?}");
        }
        assert_eq!(check(&request(&[("host", "a"), ("x", &"y".repeat(1_000))]), LIMITS), Err(BadHead::TooLarge));
        assert_eq!(check(&request(&[("a", "1"); 6]), LIMITS), Err(BadHead::TooLarge));
    }

    #[test]
    fn what_is_said_of_the_connection_is_read_from_all_fields() {
        let facts = |fields: &[(&str, &str)]| {
            let facts = check(&request(&[&[("host", "a")], fields].concat()), LIMITS).unwrap();
            (facts.closes, facts.stream, facts.stray_upgrade)
        };
        assert_eq!(facts(&[("connection", "keep-alive")]), (false, false, false));
        assert_eq!(facts(&[("connection", "keep-alive"), ("connection", "x, Close")]), (true, false, false));
        assert_eq!(facts(&[("connection", "closed")]), (false, false, false));
        assert_eq!(facts(&[("upgrade", "websocket"), ("connection", "x ,UPGRADE")]), (false, true, false));
        assert_eq!(facts(&[("upgrade", "websocket"), ("connection", "keep-alive")]), (false, false, true));
        assert_eq!(facts(&[("upgrade", "websocket")]), (false, false, true));
    }

    #[test]
    fn hosts_lose_their_port() {
        assert_eq!(host(&request(&[("host", "A.example:8080")])), "A.example");
        assert_eq!(host(&request(&[("host", "[::1]:8080")])), "::1");
        assert_eq!(host(&request(&[])), "");
    }

    #[test]
    fn a_strangers_claims_are_replaced() {
        let claims = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=1.1.1.1"),
        ];
        let own = HeaderValue::from_static("a.example");
        let after = |trusted, rfc7239| {
            let mut header = request(&claims);
            let sent = check(&request(&[&claims[..], &[("host", "a")]].concat()), LIMITS).unwrap().sent;
            let origin = Origin { client: [9, 9, 9, 9].into(), trusted, tls: false };
            forward(&mut header, origin, sent, Some(&own), rfc7239).unwrap();
            ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"]
                .map(|n| header.headers.get(n).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default())
        };
        assert_eq!(after(false, false), ["9.9.9.9", "http", "a.example", ""]);
        assert_eq!(after(true, false), ["1.1.1.1, 9.9.9.9", "https", "evil", "for=1.1.1.1"]);
        assert_eq!(after(false, true)[3], "for=9.9.9.9;host=\"a.example\";proto=http");
        assert_eq!(after(true, true)[3], "for=1.1.1.1, for=9.9.9.9;host=\"a.example\";proto=http");
    }

    #[test]
    fn ids_and_traces_are_passed_on_or_made() {
        assert_eq!(fresh_request_id([1, 0xabc]), "00000000000000010000000000000abc");
        assert_eq!(given_request_id(&request(&[("x-request-id", "r-1")]).headers).unwrap(), "r-1");
        assert_eq!(given_request_id(&request(&[("x-request-id", "a b")]).headers), None);
        assert_eq!(given_request_id(&request(&[("x-request-id", &"r".repeat(129))]).headers), None);
        let mut header = request(&[]);
        trace(&mut header, Sent::default(), [2, 3]).unwrap();
        let wanted = "00-00000000000000020000000000000003-0000000200000003-00";
        assert_eq!(header.headers.get("traceparent").unwrap(), wanted);
        let sent = Sent { trace: true, ..Sent::default() };
        trace(&mut header, sent, [7, 7]).unwrap();
        assert_eq!(header.headers.get("traceparent").unwrap(), wanted, "passed on");
        let mut dropped = request(&[]);
        trace(&mut dropped, sent, [2, 3]).unwrap();
        assert_eq!(dropped.headers.get("traceparent").unwrap(), wanted, "belonged to the client's connection");
    }

    #[test]
    fn headers_that_later_phases_ask_for_are_noted() {
        let sent = |name| check(&request(&[("host", "a"), (name, "1")]), LIMITS).unwrap().sent;
        assert_eq!(sent("X-Request-Id"), Sent { request_id: true, ..Sent::default() });
        assert_eq!(sent("Traceparent"), Sent { trace: true, ..Sent::default() });
        assert_eq!(sent("Forwarded"), Sent { forwarded: true, ..Sent::default() });
        assert_eq!(sent("x-request"), Sent::default());
    }

    #[test]
    fn streams_are_recognised() {
        let stream = |name, value| check(&request(&[("host", "a"), (name, value)]), LIMITS).unwrap().stream;
        assert!(stream("accept", "text/html, text/event-stream"));
        assert!(stream("content-type", "application/grpc+proto"));
        assert!(!stream("accept", "*/*"));
    }
}
