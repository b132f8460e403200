//! The head of a copy: for the version that gets it, over the protocol that it speaks, without what is not its business.

use http::header::{self, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use pingora::http::RequestHeader;
use pingora::prelude::{Error, Result};

use super::super::path::address;
use super::sample::X_SHADOW;
use crate::routing::VersionRoute;

/// What belongs to one connection and is not passed on.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "content-length",
    "http2-settings",
];

/// By which clients prove who they are.
const CREDENTIALS: [&str; 20] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "cookie2",
    "x-api-key",
    "api-key",
    "apikey",
    "x-apikey",
    "x-auth-token",
    "x-access-token",
    "x-session-token",
    "x-csrf-token",
    "x-xsrf-token",
    "x-amz-security-token",
    "x-goog-iap-jwt-assertion",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
    "x-client-cert",
    "ssl-client-cert",
    "dpop",
];

/// The head for a version, over HTTP/1.1.
///
/// # Errors
/// What Pingora does not take as a request.
pub(super) fn head_for(
    version: &VersionRoute,
    head: &RequestHeader,
    strip: usize,
    host: Option<&HeaderValue>,
) -> Result<RequestHeader> {
    let mut copy = head.clone();
    for named in named_by_connection(&copy) {
        copy.remove_header(&named);
    }
    for name in HOP_BY_HOP {
        copy.remove_header(name);
    }
    // A request that came over HTTP/2 names scheme and host in its URI.
    let path = copy.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    copy.set_raw_path(path.as_str().as_bytes())?;
    copy.set_version(http::Version::HTTP_11);
    copy.insert_header(header::HOST, host.cloned().unwrap_or(HeaderValue::from_static("")))?;
    copy.insert_header(X_SHADOW, "1")?;
    address(&mut copy, version, strip)?;
    Ok(copy)
}

/// Takes away by what the client proves who it is; false when there was nothing.
pub(super) fn strip_credentials(head: &mut RequestHeader, secret_choice: Option<&HeaderName>) -> bool {
    let mut found = false;
    for name in CREDENTIALS {
        found |= head.remove_header(name).is_some();
    }
    // A tester's secret.
    found | secret_choice.is_some_and(|name| head.remove_header(name).is_some())
}

/// Turns the head into one of HTTP/2: the host moves into the URI.
///
/// # Errors
/// The host is none.
pub(in super::super) fn into_http2(head: &mut RequestHeader, tls: bool) -> Result<()> {
    let host = head.remove_header(&header::HOST);
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = http::Uri::builder()
        .scheme(if tls { Scheme::HTTPS } else { Scheme::HTTP })
        .authority(host.as_ref().map_or(&b""[..], HeaderValue::as_bytes))
        .path_and_query(path)
        .build();
    let uri = uri.map_err(|e| Error::because(pingora::ErrorType::InvalidHTTPHeader, "the host of a copy", e))?;
    head.set_uri(uri);
    head.set_version(http::Version::HTTP_2);
    Ok(())
}

/// Headers that `connection` says belong to the connection.
fn named_by_connection(head: &RequestHeader) -> Vec<HeaderName> {
    let values = head.headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let names = values.flat_map(|v| v.split(',')).filter_map(|name| name.trim().parse().ok());
    // The request cannot do without its host, whatever is said of it.
    names.filter(|name| *name != header::HOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build("GET", b"/x?y=1", None).unwrap();
        for (name, value) in headers {
            head.append_header((*name).to_owned(), *value).unwrap();
        }
        head
    }

    #[test]
    fn credentials_are_taken_away() {
        let mut given =
            head(&[("authorization", "Bearer x"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-choose", "2:s")]);
        given.append_header("accept", "*/*").unwrap();
        assert!(strip_credentials(&mut given, Some(&HeaderName::from_static("x-choose"))));
        assert_eq!(given.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
        assert!(!strip_credentials(&mut given, None));
    }

    #[test]
    fn the_connections_own_headers_are_known() {
        let named = named_by_connection(&head(&[("connection", "close, X-Hop"), ("connection", "host, bad name")]));
        assert_eq!(named.iter().map(HeaderName::as_str).collect::<Vec<_>>(), ["close", "x-hop"]);
    }

    #[test]
    fn http2_has_its_host_in_the_uri() {
        let mut given = head(&[("host", "a.example:80")]);
        into_http2(&mut given, true).unwrap();
        assert_eq!((given.uri.to_string().as_str(), given.headers.len()), ("https://a.example:80/x?y=1", 0));
        assert!(into_http2(&mut head(&[]), false).is_err());
    }
}
