//! Secrets at rest: what the proxy made for itself and keeps in the store can be read only with a secret of the
//! configuration, so that whoever reads the store, a copy or a backup of it cannot sign cookies.
//!
//! A sealed document is `sealed 1 ` and base64 of a nonce and the text encrypted by ChaCha20-Poly1305 under a key that
//! HKDF-SHA256 derives from the configured secret. The document's key is authenticated with it, so none can stand in for
//! another. A nonce is random; there are a few new ones in a month, where 2^32 would be many. Texts that are not sealed
//! are read as they are: they were written while no secret was configured.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

use crate::config::Hidden;
use crate::model::{Document, DocumentKey};

/// What every sealed text begins with, whatever its form.
const SEALED: &str = "sealed ";
/// The form that this release writes.
const FORM: &str = "1 ";
/// What the derived key is for.
const INFO: &[u8] = b"switchback secrets in the store, form 1";

/// Why a sealed document cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no secret to try.
    #[error(
        "the document {key} of the store is sealed, and store.secret is not configured; configure the secret that sealed \
         it, the same on all nodes"
    )]
    NoSecret {
        /// Which document.
        key: DocumentKey,
    },
    /// None of the secrets fits.
    #[error(
        "no secret of store.secret opens the document {key} of the store; put the one that sealed it there too, behind the \
         new one: [\"new\", \"old\"]"
    )]
    WrongSecret {
        /// Which document.
        key: DocumentKey,
    },
    /// It is no form of sealing that this release knows.
    #[error("the document {key} of the store is sealed in a form that this release does not know, or damaged")]
    UnknownForm {
        /// Which document.
        key: DocumentKey,
    },
}

/// The text as it is stored in a document: sealed by the first of these secrets, or as it is when there are none.
pub(super) fn sealed(secrets: &[Hidden], key: &DocumentKey, text: &str) -> String {
    let Some(secret) = secrets.first() else { return text.to_owned() };
    let nonce: [u8; NONCE_LEN] = rand::random();
    let mut bytes = text.as_bytes().to_vec();
    let tag = cipher(secret)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), about(key), &mut bytes)
        .expect("the text is far shorter than the cipher allows");
    let all = [nonce.as_slice(), &bytes, tag.as_ref()].concat();
    format!("{SEALED}{FORM}{}", STANDARD.encode(all))
}

/// The text of a document, whichever of these secrets sealed it.
///
/// # Errors
/// [`SealError`] when none of them did.
pub(super) fn opened<'a>(secrets: &[Hidden], document: &'a Document) -> Result<Cow<'a, str>, SealError> {
    let key = || document.key.clone();
    let Some(rest) = document.body.strip_prefix(SEALED) else { return Ok(Cow::Borrowed(&document.body)) };
    let bytes = rest.strip_prefix(FORM).and_then(|text| STANDARD.decode(text).ok());
    let bytes = bytes.ok_or_else(|| SealError::UnknownForm { key: key() })?;
    if secrets.is_empty() {
        return Err(SealError::NoSecret { key: key() });
    }
    let text = secrets.iter().find_map(|secret| open(secret, &document.key, &bytes));
    text.map(Cow::Owned).ok_or_else(|| SealError::WrongSecret { key: key() })
}

/// The text that a document should be stored with instead: sealed by the first secret, where it is not yet.
///
/// # Errors
/// [`SealError`] when it cannot be opened.
pub(super) fn resealed(secrets: &[Hidden], document: &Document) -> Result<Option<String>, SealError> {
    let text = opened(secrets, document)?;
    let Some(first) = secrets.get(..1) else { return Ok(None) };
    let is_sealed = matches!(text, Cow::Owned(_)) && opened(first, document).is_ok();
    Ok((!is_sealed).then(|| sealed(secrets, &document.key, &text)))
}

fn open(secret: &Hidden, key: &DocumentKey, bytes: &[u8]) -> Option<String> {
    let (nonce, rest) = bytes.split_first_chunk::<NONCE_LEN>()?;
    let mut rest = rest.to_vec();
    let text = cipher(secret).open_in_place(Nonce::assume_unique_for_key(*nonce), about(key), &mut rest).ok()?;
    String::from_utf8(text.to_vec()).ok()
}

fn about(key: &DocumentKey) -> Aad<String> {
    Aad::from(key.to_string())
}

fn cipher(secret: &Hidden) -> LessSafeKey {
    let secret = Salt::new(HKDF_SHA256, &[]).extract(secret.reveal().as_bytes());
    let key = secret.expand(&[INFO], &CHACHA20_POLY1305).expect("the cipher's key is as short as HKDF allows");
    LessSafeKey::new(UnboundKey::from(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(letter: char) -> Hidden {
        Hidden::new(letter.to_string().repeat(32))
    }

    fn document(name: &str, body: String) -> Document {
        Document { key: DocumentKey::Secret(name.to_owned()), revision: 1, body }
    }

    #[test]
    fn what_is_sealed_opens_with_the_new_and_the_old_secret_and_nothing_else() {
        let key = DocumentKey::Secret("cookie".to_owned());
        let [a, b, c] = ['a', 'b', 'c'].map(secret);
        let body = sealed(std::slice::from_ref(&a), &key, "key one\nkey two");
        assert!(body.starts_with("sealed 1 ") && !body.contains("key"), "{body}");
        assert_ne!(body, sealed(std::slice::from_ref(&a), &key, "key one\nkey two"), "each has its own nonce");
        let stored = document("cookie", body);
        for secrets in [vec![a.clone()], vec![b.clone(), a.clone()], vec![a.clone(), b.clone()]] {
            assert_eq!(opened(&secrets, &stored).unwrap(), "key one\nkey two");
        }
        let wrong = opened(&[b.clone(), c], &stored).unwrap_err();
        assert_eq!(wrong, SealError::WrongSecret { key: key.clone() });
        assert!(wrong.to_string().contains("store.secret") && wrong.to_string().contains("[\"new\", \"old\"]"));
        let none = opened(&[], &stored).unwrap_err();
        assert_eq!(none, SealError::NoSecret { key: key.clone() });
        assert!(none.to_string().contains("store.secret is not configured"));
        let elsewhere = document("other", stored.body.clone());
        assert!(matches!(opened(std::slice::from_ref(&a), &elsewhere), Err(SealError::WrongSecret { .. })));
        let mut altered = stored.body.clone();
        let last = if altered.ends_with('A') { "B" } else { "A" };
        altered.replace_range(20..21, if &altered[20..21] == last { "C" } else { last });
        assert!(matches!(
            opened(std::slice::from_ref(&a), &document("cookie", altered)),
            Err(SealError::WrongSecret { .. })
        ));
        for odd in ["sealed 2 AAAA", "sealed 1 ???", "sealed "] {
            let error = opened(std::slice::from_ref(&a), &document("cookie", odd.to_owned())).unwrap_err();
            assert_eq!(error, SealError::UnknownForm { key: key.clone() }, "{odd}");
        }
        let short = document("cookie", "sealed 1 AAAA".to_owned());
        assert!(matches!(opened(&[a], &short), Err(SealError::WrongSecret { .. })));
    }

    #[test]
    fn what_the_first_secret_did_not_seal_is_sealed_again() {
        let [a, b] = ['a', 'b'].map(secret);
        let plain = document("cookie", "key".to_owned());
        assert_eq!(opened(&[], &plain).unwrap(), "key");
        assert_eq!((resealed(&[], &plain), sealed(&[], &plain.key, "key")), (Ok(None), "key".to_owned()));
        let old = document("cookie", resealed(std::slice::from_ref(&a), &plain).unwrap().unwrap());
        assert_eq!(resealed(std::slice::from_ref(&a), &old), Ok(None), "it is as it should be");
        let new = document("cookie", resealed(&[b.clone(), a], &old).unwrap().unwrap());
        assert_eq!(opened(std::slice::from_ref(&b), &new).unwrap(), "key");
        assert!(resealed(&[b], &old).is_err());
    }
}
