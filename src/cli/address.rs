//! Where the admin API is, and how paths and queries are built from names that may hold any character.

use std::fmt;
use std::str::FromStr;

use ureq::http::Uri;

/// Address of the admin API: scheme, host and port, perhaps a path in front when it is behind a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminUrl {
    text: String,
    loopback: bool,
}

/// Why a text is not an address of the admin API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {wrong}; allowed are addresses such as http://127.0.0.1:9900 or https://switchback.example.com")]
pub struct AdminUrlError {
    text: String,
    wrong: &'static str,
}

impl FromStr for AdminUrl {
    type Err = AdminUrlError;

    fn from_str(text: &str) -> Result<Self, AdminUrlError> {
        // What is between scheme and `@` may be a password, which must not be repeated on the screen.
        let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
        let bad = |wrong| AdminUrlError { text: shown.to_owned(), wrong };
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = full.parse().map_err(|_| bad("is no address"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("has another scheme than http and https"));
        }
        let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("comes with a user name; use --token instead"));
        }
        if uri.query().is_some() || full.contains('#') {
            return Err(bad("has a query or fragment"));
        }
        if authority.host().is_empty() || (authority.as_str().len() > authority.host().len() && uri.port().is_none()) {
            return Err(bad("has no valid host and port"));
        }
        let host = authority.host().trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        Ok(Self { text: full.trim_end_matches('/').to_owned(), loopback })
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl AdminUrl {
    /// Whether the API is on this machine; then no proxy of the environment is asked.
    pub(super) fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// The address of a resource.
    pub(super) fn join(&self, resource: &Resource) -> String {
        let mut url = format!("{}{}", self.text, resource.path);
        for (i, (name, value)) in resource.query.iter().enumerate() {
            url.push(if i == 0 { '?' } else { '&' });
            url.push_str(&encode(name));
            url.push('=');
            url.push_str(&encode(value));
        }
        url
    }
}

/// A path, nearly always below `/v1`, with its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    path: String,
    query: Vec<(&'static str, String)>,
}

impl Resource {
    /// The resource with these parts; each becomes one segment, whatever characters it holds.
    pub(super) fn new(parts: &[&str]) -> Self {
        let mut path = "/v1".to_owned();
        for part in parts {
            path.push('/');
            // Dots alone would mean "here" and "one up" to whatever reads the path on the way.
            match part.bytes().all(|b| b == b'.') {
                true => path.push_str(&"%2E".repeat(part.len())),
                false => path.push_str(&encode(part)),
            }
        }
        Self { path, query: Vec::new() }
    }

    /// What tells whether the process takes traffic; not below `/v1`, and needs no token.
    pub(super) fn readyz() -> Self {
        Self { path: "/readyz".to_owned(), query: Vec::new() }
    }

    /// Adds a field to the query, if there is a value.
    pub(super) fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Adds a field to the query for each of the values.
    pub(super) fn with_each(mut self, name: &'static str, values: &[String]) -> Self {
        self.query.extend(values.iter().map(|value| (name, value.clone())));
        self
    }
}

/// Everything but letters, digits, `-`, `.`, `_` and `~` becomes `%XX` (RFC 3986).
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_when_they_are_read() {
        let read = |text: &str| text.parse::<AdminUrl>().map(|u| u.to_string());
        assert_eq!(read("http://127.0.0.1:9900/").unwrap(), "http://127.0.0.1:9900");
        assert_eq!(read("localhost:9900").unwrap(), "http://localhost:9900");
        assert_eq!(read("https://x.example/switchback/").unwrap(), "https://x.example/switchback");
        assert_eq!(read("http://[::1]:9900").unwrap(), "http://[::1]:9900");
        for bad in ["", "http://", "ftp://x", "http://x:99999", "http://x?a=b", "http://x/#a", "http://x:", "http:// x"]
        {
            assert!(read(bad).is_err(), "{bad} became {:?}", read(bad));
        }
        let error = read("http://me:secret@x").unwrap_err().to_string();
        assert!(error.contains("--token") && !error.contains("secret"), "{error}");
        for (text, expected) in [("localhost:1", true), ("http://[::1]:1", true), ("10.0.0.1:1", false)] {
            assert_eq!(text.parse::<AdminUrl>().unwrap().is_loopback(), expected, "{text}");
        }
    }

    #[test]
    fn every_part_stays_one_segment() {
        let base: AdminUrl = "http://h:1/p".parse().unwrap();
        let resource = Resource::new(&["services", "a+b", "tenants", "acme/eu 100%?#ü", "..", "split"])
            .with("tenant", Some("a&b=c"))
            .with("key", None::<String>)
            .with_each("header", &["x-a:1 2".to_owned(), "x-b:".to_owned()]);
        assert_eq!(
            base.join(&resource),
            "http://h:1/p/v1/services/a%2Bb/tenants/acme%2Feu%20100%25%3F%23%C3%BC/%2E%2E/split\
             ?tenant=a%26b%3Dc&header=x-a%3A1%202&header=x-b%3A"
        );
    }
}
