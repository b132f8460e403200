//! What every request must be before anybody looks at what it wants: meant for this host, not sent by a stranger's web
//! page, not too large.
//!
//! A page in the operator's browser can reach a loopback listener. What it cannot do is say our host name, unless it is
//! ours, or hide where it comes from. So hosts are compared with a list, and changes with their origin.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::context::{Cx, Shared};
use super::pages;
use super::problem::{Problem, echo};

/// Refuses what is not meant for us; adds what every answer should say.
pub(super) async fn check(State(cx): State<Cx>, request: Request, next: Next) -> Response {
    let private = request.uri().path().starts_with("/v1");
    let for_people = pages::is_for_people(&request);
    let mut response = match admit(&cx, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    if for_people {
        response = pages::dressed(&cx, None, response);
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(nothing);
    if private {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn admit(cx: &Shared, request: &Request) -> Result<(), Problem> {
    let host = host_of(request.uri(), request.headers())?;
    let view = cx.control.view();
    let settings = &view.settings.admin;
    if !is_ours(host, cx.listen, &settings.allowed_hosts) {
        let detail = format!("{:?} is not a host of this admin API; add it to admin.allowed_hosts", echo(host));
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", detail));
    }
    if !request.method().is_safe() {
        check_origin(request.headers(), host, pages::is_page(request.uri().path()))?;
    }
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > settings.body_size) && *request.method() != Method::GET {
        return Err(too_large(settings.body_size));
    }
    Ok(())
}

/// 413.
pub(super) fn too_large(limit: u64) -> Problem {
    let detail = format!("the body is larger than {limit} bytes; admin.body_size sets the limit");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
}

/// The one host that the request names.
fn host_of<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Result<&'r str, Problem> {
    let refuse = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail);
    let mut values = headers.get_all(header::HOST).iter();
    let named = match (values.next(), values.next()) {
        (Some(value), None) => Some(value.to_str().map_err(|_| refuse("the host header is not text"))?),
        (None, None) => None,
        _ => return Err(refuse("there are several host headers; allowed is one")),
    };
    match (named, uri.authority().map(|a| a.as_str())) {
        (Some(named), Some(target)) if !named.eq_ignore_ascii_case(target) => {
            Err(refuse("the host header and the target name different hosts"))
        }
        (Some(named), _) => Ok(named),
        (None, Some(target)) => Ok(target),
        (None, None) => Err(refuse("there is no host header")),
    }
}

/// Whether a host is one of ours. A page from elsewhere can make its name point to us, but not its address, so a
/// listener on all addresses takes any address and no further name.
fn is_ours(host: &str, listen: std::net::SocketAddr, allowed: &[String]) -> bool {
    let host = host.to_ascii_lowercase();
    let (name, port) = split_port(&host);
    if allowed.iter().any(|a| *a == host || *a == name) {
        return true;
    }
    if port.is_some_and(|p| p.parse() != Ok(listen.port())) {
        return false;
    }
    if name == "localhost" {
        return true;
    }
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    let Ok(address) = bare.parse::<IpAddr>() else { return false };
    let (address, ours) = (address.to_canonical(), listen.ip().to_canonical());
    address.is_loopback() || address == ours || ours.is_unspecified()
}

/// Name and port; brackets of IPv6 stay with the name.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// Browsers say where a change comes from; programs say nothing. Our own pages tell nobody where they are, so a form of
/// theirs comes from the origin `null`, as does one of a stranger's sandbox: they are told apart by what the form has to
/// bring, a word that only our pages know, and by `Sec-Fetch-Site`.
fn check_origin(headers: &HeaderMap, host: &str, form: bool) -> Result<(), Problem> {
    let foreign = |what: &str| {
        let detail = format!("{what}; changes are taken from pages of this host only");
        Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail)
    };
    for site in headers.get_all("sec-fetch-site") {
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return Err(foreign("the request was sent by a page of another site"));
        }
    }
    for origin in headers.get_all(header::ORIGIN) {
        let text = origin.to_str().unwrap_or_default();
        if form && text == "null" {
            continue;
        }
        let authority = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        if !authority.is_some_and(|a| a.eq_ignore_ascii_case(host)) {
            return Err(foreign(&format!("the request comes from the origin {:?}", echo(text))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_ours_or_not() {
        let listen = "127.0.0.1:9900".parse().unwrap();
        let allowed = ["admin.example.com".to_owned(), "proxy:8443".to_owned()];
        for host in [
            "127.0.0.1:9900",
            "127.0.0.1",
            "localhost",
            "LOCALHOST:9900",
            "[::1]:9900",
            "[::1]",
            "admin.example.com",
            "admin.example.com:1234",
            "proxy:8443",
        ] {
            assert!(is_ours(host, listen, &allowed), "{host}");
        }
        for host in [
            "evil.example.com",
            "localhost:80",
            "127.0.0.1:80",
            "proxy",
            "proxy:80",
            "",
            ":9900",
            "127.0.0.1.evil.com",
            "localhost.",
            "10.0.0.1:9900",
            "[::1",
            "localhost:9900:9900",
            "x@localhost",
        ] {
            assert!(!is_ours(host, listen, &allowed), "{host}");
        }
        let everywhere = "0.0.0.0:9900".parse().unwrap();
        assert!(is_ours("10.0.0.1:9900", everywhere, &[]) && is_ours("10.0.0.1", everywhere, &[]));
        assert!(!is_ours("evil.example.com:9900", everywhere, &[]) && !is_ours("10.0.0.1:80", everywhere, &[]));
    }

    #[test]
    fn origins_are_compared_with_the_host() {
        let check = |pairs: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = pairs
                .iter()
                .map(|(n, v)| (axum::http::HeaderName::from_static(n), HeaderValue::from_static(v)))
                .collect();
            check_origin(&headers, "localhost:9900", false).is_ok()
        };
        assert!(check(&[]) && check(&[("origin", "http://localhost:9900")]) && check(&[("sec-fetch-site", "none")]));
        assert!(check(&[("origin", "https://LOCALHOST:9900"), ("sec-fetch-site", "same-origin")]));
        for bad in ["null", "http://localhost", "http://evil.example.com", "http://localhost:9900.evil.com", ""] {
            assert!(!check(&[("origin", bad)]), "{bad}");
        }
        let null = [(header::ORIGIN, HeaderValue::from_static("null"))].into_iter().collect();
        assert!(check_origin(&null, "localhost:9900", true).is_ok(), "a form of our own pages");
        for bad in ["cross-site", "same-site", "Same-Origin", ""] {
            assert!(!check(&[("sec-fetch-site", bad)]), "{bad}");
        }
    }
}
