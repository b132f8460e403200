//! The parsers of what strangers send, as functions of bytes for tests that stand outside: fuzzing feeds them millions of
//! inputs (`tests/fuzz`). Nothing in the program uses them.

use std::net::SocketAddr;

use http::Version;
use pingora::http::ResponseHeader;

use super::front::bare;
use super::hygiene::{clean_answer, unwanted_of_request};

/// Where a complete head of a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes before it that are no part of it.
    pub skip: usize,
    /// Its own bytes.
    pub length: usize,
    /// The declared length of the body; none: there is no body, or it is chunked.
    pub body: Option<u64>,
    /// Whether the body is chunked.
    pub chunked: bool,
}

/// The bytes do not begin with a header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHeader;

/// Looks at the head of a request; none when it is not complete.
///
/// # Errors
/// The status that it is refused with.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, u16> {
    bare::head(bytes)
}

/// Follows a chunked body that comes in these parts: how many bytes belong to it, what they carry, and whether it is
/// complete. None when it is malformed.
pub fn chunks(parts: &[&[u8]]) -> Option<(usize, Vec<u8>, bool)> {
    bare::chunks(parts)
}

/// Reads a header of the PROXY protocol: its length, and whom the connection comes from. None when it is not complete.
///
/// # Errors
/// [`NoHeader`].
pub fn proxy_protocol(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, NoHeader> {
    bare::proxy_protocol(bytes)
}

/// The fields of an answer as clients get them. None when it is not passed on, or is no answer at all.
pub fn answer(status: u16, fields: &[(&str, &[u8])]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut answer = ResponseHeader::build(status, None).ok()?;
    answer.set_version(Version::HTTP_11);
    for (name, value) in fields {
        answer.append_header((*name).to_owned(), value.to_vec()).ok()?;
    }
    clean_answer(&mut answer).ok()?;
    Some(answer.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect())
}

/// Which of these fields of a request its endpoint does not get.
pub fn unwanted(headers: &http::HeaderMap, trusted: bool) -> Vec<http::HeaderName> {
    unwanted_of_request(headers, trusted, &[], |_| false).into_iter().collect()
}
