//! Answers that the proxy gives by itself: small, plain, never cached, and named as the proxy's own by `proxy-status`.

use bytes::Bytes;
use http::HeaderValue;
use pingora::http::ResponseHeader;
use pingora::prelude::Result;
use pingora::proxy::Session;

use super::grpc;

/// What clients are told when the process has as much to do as it takes.
const OVERLOADED: &str = "the proxy has as much to do as it takes";
/// Seconds after which they may come again: nobody knows when there is room, and a second is long for a proxy.
const RETRY_AFTER: &str = "1";

/// Answers with a status, a sentence and the RFC 9209 error type. Closes the connection when the request's body was not
/// read, because what follows on it would be the rest of that body.
pub(super) async fn answer(session: &mut Session, status: u16, error: &'static str, sentence: &str) -> Result<()> {
    let body = Bytes::from(document(status, sentence));
    let mut header = ResponseHeader::build(status, Some(5))?;
    header.insert_header("content-type", "application/problem+json")?;
    send(session, header, error, sentence, body).await
}

/// Sends such an answer, with what all of them have in common. A gRPC call gets its status and the message alone.
pub(super) async fn send(
    session: &mut Session,
    mut header: ResponseHeader,
    error: &'static str,
    message: &str,
    body: Bytes,
) -> Result<()> {
    header.insert_header("content-length", body.len().to_string())?;
    header.insert_header("cache-control", "no-store")?;
    header.insert_header(
        "proxy-status",
        HeaderValue::from_str(&format!("switchback; error={error}")).unwrap_or(HeaderValue::from_static("switchback")),
    )?;
    if !session.as_mut().is_body_done() {
        session.set_keepalive(None);
    }
    let bare =
        grpc::shape(session.req_header(), &mut header, message)? || session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(header), bare).await?;
    // Pingora does not end the stream with the header. It would be reset, which clients of gRPC take for having been
    // cancelled.
    let body = if bare { Bytes::new() } else { body };
    session.write_response_body(Some(body), true).await
}

/// Answers that the process has as many requests as it takes.
pub(super) async fn overloaded(session: &mut Session) -> Result<()> {
    let mut header = ResponseHeader::build(503, Some(6))?;
    header.insert_header("content-type", "application/problem+json")?;
    header.insert_header("retry-after", RETRY_AFTER)?;
    send(session, header, "http_request_denied", OVERLOADED, Bytes::from(document(503, OVERLOADED))).await
}

/// Such an answer as bytes, for a connection that Pingora does not have. The connection ends with it.
pub(super) fn raw(status: u16) -> String {
    raw_with(status, sentence(status), "http_request_error", "")
}

/// The same for a connection that there is no place for.
pub(super) fn raw_full() -> String {
    raw_with(503, OVERLOADED, "http_request_denied", &format!("retry-after: {RETRY_AFTER}\r\n"))
}

fn raw_with(status: u16, sentence: &str, error: &str, more: &str) -> String {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
    let body = document(status, sentence);
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\ncache-control: \
         no-store\r\nproxy-status: switchback; error={error}\r\n{more}connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn document(status: u16, sentence: &str) -> String {
    format!("{{\"status\":{status},\"title\":\"{sentence}\"}}\n")
}

/// The sentence for a status that the proxy answers with.
pub(super) fn sentence(status: u16) -> &'static str {
    match status {
        400 => "the request is not well formed",
        403 => "a client certificate is needed here",
        404 => "no service answers here",
        405 => "the method is not proxied",
        408 => "the request took too long to arrive",
        413 => "the request body is too large",
        414 => "the request target is too long",
        417 => "the expectation is not known",
        421 => "the connection is not for this host",
        431 => "the request header is too large",
        501 => "the transfer coding is not known",
        502 => "the service could not be reached or broke off",
        503 => "the service cannot take the request now",
        504 => "the service did not answer in time",
        505 => "the version of HTTP is not spoken here",
        _ => "the proxy could not serve the request",
    }
}
