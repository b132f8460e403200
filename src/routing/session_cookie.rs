//! The cookie that holds a session: which version it is on, since when, until when, and two signatures.
//!
//! Base64url, without padding, of: format (1 byte), expiry in seconds since the Unix epoch (4), attempt of the split
//! under which the session began (8), an id (8), the version's name, a tag of the owner (8) and a signature over all
//! that stands before it (16). The tag is a signature over service, tenant and key; it is kept apart from the other so
//! that a cookie of another user, who logged in on the same browser, can be told from a forgery. Neither can be made
//! without the secret. Reading allocates nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use subtle::ConstantTimeEq as _;

use super::cookie::CookieSigner;

const FORMAT: u8 = 1;
/// Bytes before the version's name.
const HEAD_LEN: usize = 1 + 4 + 8 + 8;
/// The longest name of a version.
const NAME_LEN: usize = 63;
/// Bytes of the owner's tag.
const TAG_LEN: usize = 8;
/// Bytes of the signature that are kept: 128 bits.
const MAC_LEN: usize = 16;
/// The longest cookie in bytes, before it is text.
const MAX_LEN: usize = HEAD_LEN + NAME_LEN + TAG_LEN + MAC_LEN;
/// The longest text that can be a cookie.
const MAX_TEXT: usize = MAX_LEN.div_ceil(3) * 4;

/// Room for a cookie that is being read.
pub(super) type Room = [u8; MAX_LEN];
/// Room without anything in it.
pub(super) const EMPTY: Room = [0; MAX_LEN];

/// Whose session it is. Another service, tenant or key makes it another's.
#[derive(Debug, Clone, Copy)]
pub struct SessionOwner<'a> {
    /// The service.
    pub service: &'a str,
    /// The tenant; empty without one.
    pub tenant: &'a str,
    /// The key of the request, none when it has none.
    pub key: Option<&'a [u8]>,
}

/// What a session's cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionClaims<'a> {
    /// The version that the session is on.
    pub version: &'a str,
    /// Attempt of the split under which the session began.
    pub attempt: u64,
    /// Until when it lasts, in seconds since the Unix epoch.
    pub expires_s: u64,
    /// The key of a session whose requests have no other.
    pub id: u64,
}

/// Why a cookie is none of this owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadSession {
    /// Never signed here, or altered since.
    Forged,
    /// Signed here for somebody else.
    Foreign,
}

impl CookieSigner {
    /// The cookie of a session; none without a secret to sign it.
    pub fn sign_session(&self, owner: &SessionOwner<'_>, claims: &SessionClaims<'_>) -> Option<String> {
        let key = self.keys().first()?;
        let mut bytes = Vec::with_capacity(MAX_LEN);
        bytes.push(FORMAT);
        bytes.extend(u32::try_from(claims.expires_s).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(claims.attempt.to_be_bytes());
        bytes.extend(claims.id.to_be_bytes());
        bytes.extend(claims.version.as_bytes());
        bytes.extend(&tag(key, owner).as_ref()[..TAG_LEN]);
        let mac = mac(key, &bytes);
        bytes.extend(&mac.as_ref()[..MAC_LEN]);
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a cookie says, and whether a former key signed it.
    pub(super) fn read_session<'b>(
        &self,
        owner: &SessionOwner<'_>,
        text: &str,
        room: &'b mut Room,
    ) -> Result<(SessionClaims<'b>, bool), BadSession> {
        let forged = BadSession::Forged;
        if text.len() > MAX_TEXT {
            return Err(forged);
        }
        let n = URL_SAFE_NO_PAD.decode_slice(text, room).map_err(|_| forged)?;
        let (signed, given) = room[..n].split_last_chunk::<MAC_LEN>().ok_or(forged)?;
        let matches = |key: &&hmac::Key| mac(key, signed).as_ref()[..MAC_LEN].ct_eq(given).into();
        let key = self.keys().iter().find(matches).ok_or(forged)?;
        let (body, given) = signed.split_last_chunk::<TAG_LEN>().ok_or(forged)?;
        let (head, version) = body.split_first_chunk::<HEAD_LEN>().ok_or(forged)?;
        let [FORMAT, fields @ ..] = head else { return Err(forged) };
        if !bool::from(tag(key, owner).as_ref()[..TAG_LEN].ct_eq(given)) {
            return Err(BadSession::Foreign);
        }
        let number = |from: usize, len: usize| fields[from..from + len].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let claims = SessionClaims {
            version: std::str::from_utf8(version).map_err(|_| forged)?,
            expires_s: number(0, 4),
            attempt: number(4, 8),
            id: number(12, 8),
        };
        Ok((claims, !std::ptr::eq(key, &raw const self.keys()[0])))
    }
}

/// No service has an empty name, so neither can be taken for the signature of an issued key.
fn mac(key: &hmac::Key, signed: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(b"\0session\0");
    context.update(signed);
    context.sign()
}

fn tag(key: &hmac::Key, owner: &SessionOwner<'_>) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    let (kind, bytes): (&[u8], _) = owner.key.map_or((b"\0-", &[][..]), |key| (b"\0+", key));
    for part in [b"\0owner\0", owner.service.as_bytes(), b"\0", owner.tenant.as_bytes(), kind, bytes] {
        context.update(part);
    }
    context.sign()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signer(secrets: &[&str]) -> CookieSigner {
        CookieSigner::new(secrets.iter().map(|s| s.as_bytes()))
    }

    fn owner<'a>(service: &'a str, tenant: &'a str, key: Option<&'a str>) -> SessionOwner<'a> {
        SessionOwner { service, tenant, key: key.map(str::as_bytes) }
    }

    fn read(
        signer: &CookieSigner,
        owner: SessionOwner<'_>,
        text: &str,
    ) -> Result<(String, u64, u64, u64, bool), BadSession> {
        let mut room = EMPTY;
        let (c, old) = signer.read_session(&owner, text, &mut room)?;
        Ok((c.version.to_owned(), c.attempt, c.expires_s, c.id, old))
    }

    const CLAIMS: SessionClaims<'_> = SessionClaims { version: "2.0.0", attempt: 7, expires_s: 5_000, id: 9 };

    #[test]
    fn what_was_signed_is_read_and_belongs_to_its_owner_alone() {
        let signer = signer(&["secret"]);
        let mine = owner("api", "acme", Some("alice"));
        let text = signer.sign_session(&mine, &CLAIMS).unwrap();
        assert_eq!(read(&signer, mine, &text), Ok(("2.0.0".to_owned(), 7, 5_000, 9, false)));
        for other in [
            owner("web", "acme", Some("alice")),
            owner("api", "globex", Some("alice")),
            owner("api", "", Some("alice")),
            owner("api", "acme", Some("bob")),
            owner("api", "acme", Some("")),
            owner("api", "acme", None),
        ] {
            assert_eq!(read(&signer, other, &text), Err(BadSession::Foreign), "{other:?}");
        }
        let nobody = signer.sign_session(&owner("api", "acme", None), &CLAIMS).unwrap();
        assert_eq!(read(&signer, owner("api", "acme", Some("")), &nobody), Err(BadSession::Foreign));
    }

    #[test]
    fn former_keys_are_accepted_and_told() {
        let mine = owner("api", "acme", None);
        let text = signer(&["one"]).sign_session(&mine, &CLAIMS).unwrap();
        assert!(read(&signer(&["two", "one"]), mine, &text).unwrap().4);
        assert_eq!(read(&signer(&["two"]), mine, &text), Err(BadSession::Forged));
        assert_eq!(read(&signer(&[]), mine, &text), Err(BadSession::Forged));
        assert_eq!(signer(&[]).sign_session(&mine, &CLAIMS), None);
        // An issued key is signed with the same secret and is no session.
        let issued = signer(&["one"]).issue("api", "acme", [1, 2]);
        assert_eq!(read(&signer(&["one"]), mine, &issued), Err(BadSession::Forged));
        assert!(!signer(&["one"]).accepts("api", "acme", &text));
    }

    #[test]
    fn the_longest_name_fits() {
        let (signer, mine, name) = (signer(&["secret"]), owner("api", "", None), "v".repeat(NAME_LEN));
        let claims = SessionClaims { version: &name, expires_s: u64::MAX, attempt: u64::MAX, id: u64::MAX };
        let text = signer.sign_session(&mine, &claims).unwrap();
        assert_eq!(read(&signer, mine, &text), Ok((name, u64::MAX, u64::from(u32::MAX), u64::MAX, false)));
        assert_eq!(read(&signer, mine, &format!("{text}AAAA")), Err(BadSession::Forged));
    }

    #[test]
    fn altered_at_any_place_to_anything_it_is_forged() {
        let (signer, mine) = (signer(&["secret"]), owner("api", "acme", Some("alice")));
        let text = signer.sign_session(&mine, &CLAIMS).unwrap();
        for at in 0..text.len() {
            for with in 0x21..0x7f_u8 {
                let mut altered = text.clone().into_bytes();
                if std::mem::replace(&mut altered[at], with) != with {
                    let altered = String::from_utf8(altered).unwrap();
                    assert_eq!(read(&signer, mine, &altered), Err(BadSession::Forged), "{altered}");
                }
            }
            assert_eq!(read(&signer, mine, &text[..at]), Err(BadSession::Forged), "cut off at {at}");
        }
    }

    proptest! {
        #[test]
        fn nothing_made_up_is_accepted(text in ".{0,300}", bytes in prop::collection::vec(any::<u8>(), 0..130)) {
            let (signer, mine) = (signer(&["secret"]), owner("api", "acme", None));
            for text in [text, URL_SAFE_NO_PAD.encode(bytes)] {
                prop_assert_eq!(read(&signer, mine, &text), Err(BadSession::Forged));
            }
        }
    }
}
