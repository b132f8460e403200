//! The keys that sign cookies: where they come from, and how a new one takes over without losing a session.
//!
//! The store keeps them in one document, newest first, one to a line. The first signs, all are accepted.

use crate::config::Settings;
use crate::model::{Document, DocumentKey};
use crate::routing::CookieSigner;

/// Name of the document.
const COOKIE_SECRET: &str = "cookie";
/// How many former keys are still accepted.
const FORMER: usize = 3;

/// The document's key.
pub(super) fn document_key() -> DocumentKey {
    DocumentKey::Secret(COOKIE_SECRET.to_owned())
}

/// A key that nobody can guess: 256 random bits.
pub fn fresh_secret() -> String {
    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}

/// The configured secrets sign; stored ones are still accepted, so that configuring one loses no session.
pub(super) fn signer(settings: &Settings, secrets: &[Document]) -> CookieSigner {
    let configured = settings.proxy.cookie_secret.iter().map(|s| s.as_bytes());
    let stored = secrets.iter().flat_map(|d| d.body.lines()).map(str::as_bytes);
    CookieSigner::new(configured.chain(stored))
}

/// The document's text with a new key in front, and how many keys it had and has.
pub(super) fn rotated(secrets: &[Document], fresh: &str) -> (String, usize, usize) {
    let key = document_key();
    let before: Vec<_> = secrets.iter().filter(|d| d.key == key).flat_map(|d| d.body.lines()).collect();
    let after: Vec<_> = std::iter::once(fresh).chain(before.iter().copied().take(FORMER)).collect();
    (after.join("\n"), before.len(), after.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_former_keys_are_kept() {
        let document = |body: &str| vec![Document { key: document_key(), revision: 1, body: body.to_owned() }];
        assert_eq!(rotated(&[], "a"), ("a".to_owned(), 0, 1));
        assert_eq!(rotated(&document("a"), "b"), ("b\na".to_owned(), 1, 2));
        assert_eq!(rotated(&document("d\nc\nb\na"), "e"), ("e\nd\nc\nb".to_owned(), 4, 4));
        assert_ne!(fresh_secret(), fresh_secret());
        assert_eq!(fresh_secret().len(), 64);
    }
}
