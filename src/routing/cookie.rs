//! Cookies: finding one in a request, and the signed cookie that gives a key to clients that have none.
//!
//! The signature covers service and tenant too, so that a cookie of one tenant means nothing at another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use ring::hmac;

/// Bytes of the signature that are kept: 128 bits.
const MAC_LEN: usize = 16;
/// Bytes of the random part.
const ID_LEN: usize = 16;

/// The value of the first cookie of that name.
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    all(headers, name).next()
}

/// The values of all cookies of that name. One that is no text does not hide the others of its line.
pub fn all<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(http::header::COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b';')).filter_map(move |pair| {
        let (key, value) = std::str::from_utf8(pair).ok()?.trim().split_once('=')?;
        (key == name).then(|| value.trim_matches('"'))
    })
}

/// Signs and checks issued keys. The first key signs, every key is accepted, so keys can be rotated.
#[derive(Clone)]
pub struct CookieSigner {
    keys: Vec<hmac::Key>,
}

impl std::fmt::Debug for CookieSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CookieSigner({} keys)", self.keys.len())
    }
}

impl CookieSigner {
    /// A signer with these secrets, newest first.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self { keys: secrets.into_iter().map(|s| hmac::Key::new(hmac::HMAC_SHA256, s)).collect() }
    }

    /// A number that follows from the first key and that nobody outside can know.
    pub fn seed(&self, purpose: &str) -> u64 {
        let tag = self.keys.first().map(|key| sign(key, "seed", purpose, &[]));
        tag.and_then(|tag| tag.as_ref().first_chunk().copied()).map_or(0, u64::from_le_bytes)
    }

    /// Keys for another purpose that follow from these and tell nothing about them, the one that signs first.
    pub fn derive(&self, purpose: &str) -> Vec<hmac::Key> {
        let derived = self.keys.iter().map(|key| sign(key, "derive", purpose, &[]));
        derived.map(|tag| hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref())).collect()
    }

    /// The keys, the one that signs first.
    pub(super) fn keys(&self) -> &[hmac::Key] {
        &self.keys
    }

    /// A fresh value, made from 128 random bits.
    pub fn issue(&self, service: &str, tenant: &str, random: [u64; 2]) -> String {
        let mut bytes = [0; ID_LEN + MAC_LEN];
        bytes[..8].copy_from_slice(&random[0].to_le_bytes());
        bytes[8..ID_LEN].copy_from_slice(&random[1].to_le_bytes());
        if let Some(key) = self.keys.first() {
            let mac = sign(key, service, tenant, &bytes[..ID_LEN]);
            bytes[ID_LEN..].copy_from_slice(&mac.as_ref()[..MAC_LEN]);
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether the value was issued here for this service and tenant.
    pub fn accepts(&self, service: &str, tenant: &str, value: &str) -> bool {
        let mut bytes = [0; ID_LEN + MAC_LEN];
        if !matches!(URL_SAFE_NO_PAD.decode_slice(value, &mut bytes), Ok(n) if n == bytes.len()) {
            return false;
        }
        let (id, mac) = bytes.split_at(ID_LEN);
        self.keys.iter().any(|key| {
            use subtle::ConstantTimeEq as _;
            sign(key, service, tenant, id).as_ref()[..MAC_LEN].ct_eq(mac).into()
        })
    }
}

fn sign(key: &hmac::Key, service: &str, tenant: &str, id: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in [service.as_bytes(), b"\0", tenant.as_bytes(), b"\0", id] {
        context.update(part);
    }
    context.sign()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|l| (http::header::COOKIE, l.parse().unwrap())).collect()
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let h = headers(&["a=1; sid=x; sid=y", "b=\"2\""]);
        assert_eq!(find(&h, "sid"), Some("x"));
        assert_eq!(find(&h, "b"), Some("2"));
        assert_eq!(find(&h, "si"), None);
        assert_eq!(find(&headers(&["xsid=1;=;;sid"]), "sid"), None);
        assert_eq!(all(&h, "sid").collect::<Vec<_>>(), ["x", "y"]);
        let mut raw = headers(&["name=Zo\u{eb}; sid=x"]);
        assert_eq!(find(&raw, "sid"), Some("x"));
        raw.insert(http::header::COOKIE, http::HeaderValue::from_bytes(b"name=\xff; sid=y").unwrap());
        assert_eq!((find(&raw, "sid"), find(&raw, "name")), (Some("y"), None));
    }

    #[test]
    fn a_cookie_of_one_tenant_means_nothing_at_another() {
        let signer = CookieSigner::new([b"secret".as_slice()]);
        let value = signer.issue("api", "acme", [1, 2]);
        assert!(signer.accepts("api", "acme", &value));
        assert!(!signer.accepts("api", "globex", &value));
        assert!(!signer.accepts("web", "acme", &value));
        assert!(!CookieSigner::new([b"other".as_slice()]).accepts("api", "acme", &value));
        assert!(!CookieSigner::new([]).accepts("api", "acme", &value));
        let rotated = CookieSigner::new([b"new".as_slice(), b"secret".as_slice()]);
        assert!(rotated.accepts("api", "acme", &value));
    }

    proptest! {
        #[test]
        fn an_altered_cookie_is_not_accepted(at in 0usize..42, with in "[A-Za-z0-9_-]") {
            let signer = CookieSigner::new([b"secret".as_slice()]);
            let value = signer.issue("api", "acme", [7, 9]);
            let altered = format!("{}{with}{}", &value[..at], &value[at + 1..]);
            prop_assert_eq!(signer.accepts("api", "acme", &altered), altered == value);
        }

        #[test]
        fn nothing_made_up_is_accepted(value in ".{0,80}") {
            prop_assert!(!CookieSigner::new([b"secret".as_slice()]).accepts("api", "acme", &value));
        }
    }
}
