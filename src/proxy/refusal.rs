//! Answers that the proxy gives by itself: small, plain, never cached, and named as the proxy's own by `proxy-status`.

use bytes::Bytes;
use http::HeaderValue;
use pingora::http::ResponseHeader;
use pingora::prelude::Result;
use pingora::proxy::Session;

/// Answers with a status, a sentence and the RFC 9209 error type. Closes the connection when the request's body was not
/// read, because what follows on it would be the rest of that body.
pub(super) async fn answer(session: &mut Session, status: u16, error: &'static str, sentence: &str) -> Result<()> {
    let body = Bytes::from(format!("{{\"status\":{status},\"title\":\"{sentence}\"}}\n"));
    let mut header = ResponseHeader::build(status, Some(5))?;
    header.insert_header("content-type", "application/problem+json")?;
    send(session, header, error, body).await
}

/// Sends such an answer, with what all of them have in common.
pub(super) async fn send(
    session: &mut Session,
    mut header: ResponseHeader,
    error: &'static str,
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
    let head = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(header), head).await?;
    if !head {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// The sentence for a status that the proxy answers with.
pub(super) fn sentence(status: u16) -> &'static str {
    match status {
        400 => "the request is not well formed",
        403 => "a client certificate is needed here",
        404 => "no service answers here",
        408 => "the request took too long to arrive",
        413 => "the request body is too large",
        421 => "the connection is not for this host",
        431 => "the request header is too large",
        502 => "the service could not be reached or broke off",
        503 => "the service cannot take the request now",
        504 => "the service did not answer in time",
        _ => "the proxy could not serve the request",
    }
}
