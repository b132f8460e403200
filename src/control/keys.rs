//! The keys that sign cookies: where they come from, and how a new one takes over without losing a session.
//!
//! The store keeps them in one document, newest first, one to a line, and sealed when a secret for that is configured. The
//! first signs, all are accepted.

use super::seal::{SealError, opened, sealed};
use crate::config::{Hidden, Settings};
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
///
/// # Errors
/// [`SealError`] when a document is sealed and the configuration has not what opens it.
pub(super) fn signer(settings: &Settings, secrets: &[Document]) -> Result<CookieSigner, SealError> {
    let stored: Vec<_> = secrets.iter().map(|d| opened(&settings.store.secret, d)).collect::<Result<_, _>>()?;
    let configured = settings.proxy.cookie_secret.iter().map(|s| s.as_bytes());
    let stored = stored.iter().flat_map(|text| text.lines()).map(str::as_bytes);
    Ok(CookieSigner::new(configured.chain(stored)))
}

/// The document's text with a new key in front, and how many keys it had and has.
///
/// # Errors
/// [`SealError`] when the document is sealed and none of the secrets opens it.
pub(super) fn rotated(
    seals: &[Hidden],
    secrets: &[Document],
    fresh: &str,
) -> Result<(String, usize, usize), SealError> {
    let key = document_key();
    let stored = secrets.iter().find(|d| d.key == key).map(|d| opened(seals, d)).transpose()?.unwrap_or_default();
    let before = stored.lines().count();
    let after: Vec<_> = std::iter::once(fresh).chain(stored.lines().take(FORMER)).collect();
    Ok((sealed(seals, &key, &after.join("\n")), before, after.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_former_keys_are_kept() {
        let document = |body: &str| vec![Document { key: document_key(), revision: 1, body: body.to_owned() }];
        let rotate = |secrets: &[Document], fresh| rotated(&[], secrets, fresh).unwrap();
        assert_eq!(rotate(&[], "a"), ("a".to_owned(), 0, 1));
        assert_eq!(rotate(&document("a"), "b"), ("b\na".to_owned(), 1, 2));
        assert_eq!(rotate(&document("d\nc\nb\na"), "e"), ("e\nd\nc\nb".to_owned(), 4, 4));
        assert_ne!(fresh_secret(), fresh_secret());
        assert_eq!(fresh_secret().len(), 64);
    }

    #[test]
    fn a_new_key_seals_the_document_that_was_plain_or_sealed_otherwise() {
        let [old, new] = ["o", "n"].map(|letter| Hidden::new(letter.repeat(32)));
        let document = |body: String| vec![Document { key: document_key(), revision: 1, body }];
        let (body, before, after) = rotated(std::slice::from_ref(&old), &document("a".to_owned()), "b").unwrap();
        assert_eq!((before, after), (1, 2));
        assert!(!body.contains('b') || body.starts_with("sealed 1 "), "{body}");
        let (body, before, after) = rotated(&[new.clone(), old.clone()], &document(body), "c").unwrap();
        assert_eq!((before, after), (2, 3));
        assert_eq!(opened(&[new], &document(body.clone())[0]).unwrap(), "c\nb\na");
        assert!(rotated(&[old], &document(body), "d").is_err());
    }
}
