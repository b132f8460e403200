//! What HTTP/1 allows clients and servers beside the usual: targets with a host in them, clients that know no chunks or
//! close their side early, answers that come before the request is whole.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::Result;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;

use super::front::Link;
use super::headers::HeadFacts;

/// How long a client that has its whole answer may pause before it sends more of its request. Closing at once could cost
/// it the answer; waiting for what nobody needs costs a connection.
const LINGER: Duration = Duration::from_secs(2);

/// Answers up to this size in bytes are handed to the kernel at once.
const SMALL_ANSWER: u64 = 4 << 10;

/// Turns an absolute-form target, which clients send to proxies, into the origin form that services match and expect.
/// Pingora has seen to it that its host is no other than that of the `host` header.
///
/// # Errors
/// Pingora does not take the target.
pub(super) fn to_origin_form(header: &mut RequestHeader) -> Result<()> {
    let target = header.raw_path();
    if target.first().is_none_or(|first| matches!(first, b'/' | b'*')) || header.version == Version::HTTP_2 {
        return Ok(());
    }
    let Some(start) = target.windows(3).position(|three| three == b"://").map(|at| at + 3) else { return Ok(()) };
    let rest = &target[start..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let host = HeaderValue::from_bytes(&rest[..end]).ok().filter(|_| !header.headers.contains_key(HOST));
    let mut path = rest[end..].to_vec();
    if path.first() != Some(&b'/') {
        path.insert(0, b'/');
    }
    header.set_raw_path(&path)?;
    host.map_or(Ok(()), |host| header.insert_header(HOST, host))
}

/// Names a host for endpoints when the client, an old one, named none: they refuse HTTP/1.1 without.
///
/// # Errors
/// The name is no header value.
pub(super) fn name_host(header: &mut RequestHeader, endpoint: &str) -> Result<()> {
    if header.headers.contains_key(HOST) || header.uri.authority().is_some() {
        return Ok(());
    }
    header.insert_header(HOST, endpoint)
}

/// Makes an answer readable for clients that know no chunks: its end is then that of the connection.
pub(super) fn without_chunks(request: &RequestHeader, answer: &mut ResponseHeader) {
    if request.version == Version::HTTP_10 {
        answer.remove_header(&TRANSFER_ENCODING);
    }
}

/// Says how long the connection stays open after the answer, as far as the client wants that; answers whether it does.
///
/// Lets the client close its side after its request and still have its answer. Not on streams: there it is how clients
/// leave, and nothing else would ever tell.
pub(super) fn set_up(session: &mut Session, keepalive: Option<Duration>, facts: HeadFacts) -> bool {
    if facts.stray_upgrade {
        session.req_header_mut().remove_header(&UPGRADE);
    }
    let ServerSession::H1(h1) = session.as_mut() else { return false };
    // One of HTTP/1.0 has to say that it wants it. Pingora reads only the first of several `connection` fields.
    let wanted = keepalive.filter(|_| h1.get_keepalive_timeout().is_some() && !facts.closes);
    h1.set_server_keepalive(wanted.map(|timeout| timeout.as_secs().max(1)));
    h1.set_abort_on_close(facts.stream);
    let kept = h1.will_keepalive();
    tolerate_close(session, !facts.stream);
    kept
}

/// A client that closes its side has left after all when its request holds a place that others wait for.
pub(super) fn end_when_closed(session: &mut Session, holds_a_place: bool) {
    if holds_a_place && let ServerSession::H1(h1) = session.as_mut() {
        h1.set_abort_on_close(true);
        tolerate_close(session, false);
    }
}

fn tolerate_close(session: &Session, patient: bool) {
    if let Some(link) = Link::of(session) {
        link.tolerate_close(patient);
    }
}

/// Whether the client has closed its side since `kept`, when its connection was to stay open.
pub(super) fn has_closed(session: &Session, kept: bool) -> bool {
    let told = || matches!(session.as_ref(), ServerSession::H1(h1) if !h1.will_keepalive());
    kept && session.response_written().is_none() && (told() || Link::of(session).is_some_and(Link::is_closed))
}

/// Tells a client that asked first to go on, before its request goes to an endpoint of HTTP/2: Pingora does not pass on
/// what such an endpoint says ahead of its answer, and clients would wait for it in vain.
///
/// # Errors
/// The client is gone.
pub(super) async fn go_on(session: &mut Session, request: &mut RequestHeader) -> Result<()> {
    let asks = session.req_header().version == Version::HTTP_11 && request.remove_header(&EXPECT).is_some();
    if asks && session.response_written().is_none() {
        session.as_mut().write_continue_response().await?;
    }
    Ok(())
}

/// The answer is whole and the request is not: its client may soon stop.
pub(super) fn linger(session: &mut Session) {
    session.set_read_timeout(Some(LINGER));
}

/// The declared length of a message's body in bytes.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether an answer is whole with its header.
pub(super) fn has_no_body(request: &RequestHeader, answer: &ResponseHeader) -> bool {
    let status = answer.status;
    let empty = || length(&answer.headers) == Some(0);
    !status.is_informational() && (request.method == Method::HEAD || matches!(status.as_u16(), 204 | 304) || empty())
}

/// Whether an answer with this header is small enough for the send buffer of any socket.
pub(super) fn fits_buffer(answer: &ResponseHeader) -> bool {
    length(&answer.headers).is_some_and(|length| length <= SMALL_ANSWER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(target: &str, host: Option<&'static str>) -> (String, String, Option<String>) {
        let mut header = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        host.map_or(Ok(()), |host| header.insert_header(HOST, host)).unwrap();
        to_origin_form(&mut header).unwrap();
        let host = header.headers.get(HOST).map(|host| host.to_str().unwrap().to_owned());
        (String::from_utf8_lossy(header.raw_path()).into_owned(), header.uri.path().to_owned(), host)
    }

    #[test]
    fn targets_lose_their_host() {
        let target = |target, host| after(target, host).0;
        assert_eq!(target("/a?b=http://c/d", Some("x")), "/a?b=http://c/d");
        assert_eq!(target("*", Some("x")), "*");
        assert_eq!(target("http://x/a?b=c", Some("x")), "/a?b=c");
        assert_eq!(target("HTTP://x:80/a//b", Some("x:80")), "/a//b");
        assert_eq!(target("http://x", Some("x")), "/");
        assert_eq!(target("http://x?b=/", Some("x")), "/?b=/");
        let (_, path, host) = after("https://x:1/a?b", None);
        assert_eq!((path.as_str(), host.as_deref()), ("/a", Some("x:1")));
    }

    #[test]
    fn a_host_is_named_only_when_there_is_none() {
        let mut header = RequestHeader::build("GET", b"/", None).unwrap();
        name_host(&mut header, "10.0.0.1:80").unwrap();
        assert_eq!(header.headers[HOST], "10.0.0.1:80");
        name_host(&mut header, "other").unwrap();
        assert_eq!(header.headers[HOST], "10.0.0.1:80");
    }
}
