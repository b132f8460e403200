//! What is each version's own in the head of a request: its name, the host that it wants to see, and its paths.

use pingora::http::RequestHeader;
use pingora::prelude::Result;

use super::headers;
use crate::routing::{self, VersionRoute};

/// Addresses a request to a version, without the first `strip` bytes of its path.
///
/// # Errors
/// Pingora does not take what the version wants to see.
pub(super) fn address(request: &mut RequestHeader, version: &VersionRoute, strip: usize) -> Result<()> {
    request.insert_header(headers::X_VERSION, version.header.clone())?;
    if let Some(host) = &version.spec.host {
        request.insert_header(http::header::HOST, host.as_str())?;
    }
    rewrite_path(request, version, strip)
}

/// Removes the tenant's prefix and applies the version's rewrite; the query stays.
fn rewrite_path(request: &mut RequestHeader, version: &VersionRoute, strip: usize) -> Result<()> {
    let rewrite = version.spec.rewrite.as_ref();
    if strip == 0 && rewrite.is_none() {
        return Ok(());
    }
    let path = request.uri.path();
    let stripped = match path.get(strip..) {
        None | Some("") => "/",
        Some(rest) => rest,
    };
    let rewritten = rewrite.and_then(|r| routing::rewrite(stripped, &r.from, &r.to));
    let path = rewritten.as_deref().unwrap_or(stripped);
    let new = match request.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    request.set_raw_path(new.as_bytes())
}
