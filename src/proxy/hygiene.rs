//! Fields that are not for the other side, as pure functions of headers: what belongs to one connection, what a stranger
//! claims about itself, what imitates fields that somebody believes, and what leaves open where an answer ends.
//!
//! Pingora removes what belongs to a connection from requests of HTTP/1, and nothing from answers.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use pingora::http::ResponseHeader;
use smallvec::SmallVec;

/// Names to remove; hardly ever more than fit without an allocation.
pub(super) type Names = SmallVec<[HeaderName; 4]>;

/// Fields of this proxy's own. Nobody else may set them.
const OWN: &str = "x-switchback-";
/// The claims of proxies that are told anew for every request; see `headers::forward`.
const RETOLD: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
/// Further claims about who a client is and what it asked for, which services believe. From strangers they are removed.
const CLAIMS: [&str; 7] = [
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-original-url",
    "x-rewrite-url",
];
/// What belongs to a connection, and `proxy`, which programs of CGI take for a setting of their own ("httpoxy").
const REQUEST_HOPS: [&str; 6] =
    ["proxy", "proxy-authenticate", "proxy-authorization", "proxy-connection", "keep-alive", "http2-settings"];
/// What belongs to a connection, in answers.
const ANSWER_HOPS: [&str; 6] =
    ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer"];
/// Fields that decide where a message ends or whom it is for, and those that say who somebody is.
const IMITATED: [&str; 12] = [
    "content-length",
    "transfer-encoding",
    "host",
    "connection",
    "upgrade",
    "expect",
    "authorization",
    "cookie",
    "forwarded",
    "x-request-id",
    "traceparent",
    "tracestate",
];

/// The fields of a request that its endpoint does not get. `trusted`: the client is a proxy that is believed.
/// `distrusted`: fields that name tenants and are believed only from such proxies. `believed`: whether routing believes a
/// field; asked only for names with underscores.
pub(super) fn unwanted_of_request(
    headers: &HeaderMap,
    trusted: bool,
    distrusted: &[HeaderName],
    believed: impl Fn(&str) -> bool,
) -> Names {
    let imitates = |name: &str| name.contains('_') && imitates(name, headers, &believed);
    let mut names: Names =
        headers.keys().filter(|name| is_unwanted(name.as_str(), trusted) || imitates(name.as_str())).cloned().collect();
    if !trusted {
        names.extend(distrusted.iter().filter(|name| headers.contains_key(*name)).cloned());
    }
    names
}

fn is_unwanted(name: &str, trusted: bool) -> bool {
    match name.as_bytes().first() {
        Some(b'x') if name.starts_with(OWN) => true,
        Some(b'x' | b't' | b'c') => !trusted && is_claim(name),
        Some(b'p' | b'k' | b'h') => REQUEST_HOPS.contains(&name),
        _ => false,
    }
}

fn is_claim(name: &str) -> bool {
    CLAIMS.contains(&name) || name.starts_with("x-forwarded-") && !RETOLD.contains(&name)
}

/// Gateway interfaces such as CGI and WSGI take `_` and `-` for the same, so that a service may read the one where the
/// proxy has checked the other.
fn imitates(name: &str, headers: &HeaderMap, believed: &impl Fn(&str) -> bool) -> bool {
    let meant = name.replace('_', "-");
    let of_proxies = meant.starts_with(OWN) || is_claim(&meant) || RETOLD.contains(&meant.as_str());
    of_proxies
        || IMITATED.contains(&meant.as_str())
        || REQUEST_HOPS.contains(&meant.as_str())
        || headers.contains_key(&meant)
        || believed(&meant)
}

/// Looks whether an answer leaves HTTP for another protocol though the client did not ask for one. What follows would go
/// through unseen both ways, and the client's next requests with it.
///
/// # Errors
/// It does.
pub(super) fn switches_if_asked(answer: &ResponseHeader, asked: bool) -> Result<(), &'static str> {
    let switches = answer.status == StatusCode::SWITCHING_PROTOCOLS;
    if switches && !asked { Err("the answer switches to a protocol that nobody asked for") } else { Ok(()) }
}

/// Makes an answer one that ends in one place for every reader, and removes what is not for the client.
///
/// # Errors
/// What leaves open where it ends.
pub(super) fn clean_answer(answer: &mut ResponseHeader) -> Result<(), &'static str> {
    let switches = answer.status == StatusCode::SWITCHING_PROTOCOLS;
    for name in unwanted_of_answer(&answer.headers, answer.status) {
        answer.remove_header(&name);
    }
    if switches || answer.status.is_informational() {
        answer.remove_header(&CONTENT_LENGTH);
        answer.remove_header(&TRANSFER_ENCODING);
        return Ok(());
    }
    frame(answer)?;
    // How an endpoint speaks is no matter of the client's, whom the proxy answers in its own version.
    if answer.version == Version::HTTP_10 {
        answer.set_version(Version::HTTP_11);
    }
    Ok(())
}

fn unwanted_of_answer(headers: &HeaderMap, status: StatusCode) -> Names {
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let mut names: Names = SmallVec::new();
    for (name, value) in headers {
        let text = name.as_str();
        match text.as_bytes().first() {
            Some(b'c') if name == CONNECTION => {
                names.extend(nominated(value).filter(|n| headers.contains_key(n) && !(switches && *n == "upgrade")));
                if !switches {
                    names.push(CONNECTION);
                }
            }
            // Which protocols there are may be said with 426 as well.
            Some(b'u') if text == "upgrade" && !switches && status != StatusCode::UPGRADE_REQUIRED => {
                names.push(name.clone());
            }
            Some(b'x') if text.starts_with(OWN) => names.push(name.clone()),
            Some(b'k' | b'p' | b't') if ANSWER_HOPS.contains(&text) => names.push(name.clone()),
            _ => {}
        }
    }
    names
}

/// The fields that `connection` names, but those that a client cannot do without: nobody has to send them for that.
fn nominated(value: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    let needed = |name: &str| name.starts_with("content-") || matches!(name, "transfer-encoding" | "cache-control");
    let tokens = value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
    tokens.filter_map(|token| HeaderName::from_bytes(token).ok()).filter(move |name| !needed(name.as_str()))
}

fn frame(answer: &mut ResponseHeader) -> Result<(), &'static str> {
    let mut codings = answer.headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next().map(|c| c.as_bytes().trim_ascii().to_ascii_lowercase());
    if codings.next().is_some() {
        return Err("the answer has transfer-encoding twice");
    }
    let length = length_of(&answer.headers)?;
    // They end with their head, whatever they say.
    let ends = matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match coding.as_deref() {
        None => {}
        Some(b"chunked") if answer.version == Version::HTTP_10 => {
            return Err("an answer of HTTP/1.0 cannot have transfer-encoding");
        }
        Some(b"chunked") if length.is_some() => return Err("the answer has content-length and transfer-encoding"),
        Some(b"chunked") if !ends => set(answer, TRANSFER_ENCODING, "chunked")?,
        // An old way to say that there is none.
        Some(b"chunked" | b"identity") => drop(answer.remove_header(&TRANSFER_ENCODING)),
        Some(_) => return Err("the answer has a transfer-encoding that nobody asked for"),
    }
    match length {
        Some(_) if answer.status == StatusCode::NO_CONTENT => drop(answer.remove_header(&CONTENT_LENGTH)),
        Some((_, true)) | None => {}
        Some((length, false)) => set(answer, CONTENT_LENGTH, &length.to_string())?,
    }
    Ok(())
}

/// Writes a field once and in one way, when it is not so already.
fn set(answer: &mut ResponseHeader, name: HeaderName, value: &str) -> Result<(), &'static str> {
    let mut written = answer.headers.get_all(&name).iter();
    if written.next().is_some_and(|v| v.as_bytes() == value.as_bytes()) && written.next().is_none() {
        return Ok(());
    }
    answer.insert_header(name, value).map_err(|_| "the answer has a field that cannot be written")
}

/// The length that an answer declares, and whether it is written once and in one way.
fn length_of(headers: &HeaderMap) -> Result<Option<(u64, bool)>, &'static str> {
    let mut found: Option<(u64, bool)> = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for part in value.as_bytes().split(|b| *b == b',') {
            let digits = part.trim_ascii();
            let text = std::str::from_utf8(digits).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
            let length: u64 = text.and_then(|t| t.parse().ok()).ok_or("the answer's content-length is no number")?;
            let plain = digits.len() == value.len() && (digits.len() == 1 || digits[0] != b'0');
            match found {
                None => found = Some((length, plain)),
                Some((first, _)) if first == length => found = Some((first, false)),
                Some(_) => return Err("the answer has two content-lengths"),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "hygiene_tests.rs"]
mod tests;
