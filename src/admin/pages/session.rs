//! Who is signed in: a cookie that says which token was shown and until when, and a signature.
//!
//! Nothing is kept here: every proxy that shares the store can check it, before and after a restart. The cookie holds for
//! as long as the settings have the token; one that is removed there ends its sessions with the next request.

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use subtle::ConstantTimeEq as _;

use crate::config::Token;
use crate::routing::{CookieSigner, cookies};

/// Name of the cookie.
pub(super) const COOKIE: &str = "switchback_session";
/// How long a session lasts, in seconds.
pub(super) const LASTS_S: u64 = 12 * 3_600;

const FORMAT: u8 = 1;
/// Bytes of the part that makes two sessions of one token different.
const NONCE: usize = 16;
/// Bytes of a signature.
const MAC: usize = 32;
/// Format, expiry in seconds since the Unix epoch, nonce, the token's tag.
const CLAIMS: usize = 1 + 8 + NONCE + MAC;

/// What sessions are signed with; follows from the keys that sign cookies.
pub(super) struct Keys(Vec<hmac::Key>);

/// A session that was signed here and has not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// The cookie's value.
    pub text: String,
    /// Until when it lasts, in seconds since the Unix epoch.
    pub expires_s: u64,
}

impl Keys {
    pub(super) fn of(signer: &CookieSigner) -> Self {
        Self(signer.derive("dashboard session"))
    }

    /// A session for whoever showed this token; none without a key to sign it.
    pub(super) fn issue(&self, token: &Token, now_s: u64, nonce: [u8; NONCE]) -> Option<Session> {
        let key = self.0.first()?;
        let expires_s = now_s + LASTS_S;
        let mut bytes = vec![FORMAT];
        bytes.extend(expires_s.to_be_bytes());
        bytes.extend(nonce);
        bytes.extend(mac(key, "token", &token.sha256).as_ref());
        let signature = mac(key, "session", &bytes);
        bytes.extend(signature.as_ref());
        Some(Session { text: URL_SAFE_NO_PAD.encode(bytes), expires_s })
    }

    /// The session of a request and the token that it stands for, if there is one that holds.
    pub(super) fn find<'t>(
        &self,
        headers: &HeaderMap,
        tokens: &'t [Token],
        now_s: u64,
    ) -> Option<(Session, &'t Token)> {
        cookies(headers, COOKIE).find_map(|text| self.read(text, tokens, now_s))
    }

    fn read<'t>(&self, text: &str, tokens: &'t [Token], now_s: u64) -> Option<(Session, &'t Token)> {
        let mut room = [0; CLAIMS + MAC];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut room).ok()?;
        if read != room.len() {
            return None;
        }
        let (claims, signature) = room.split_at(CLAIMS);
        let key = self.0.iter().find(|key| bool::from(mac(key, "session", claims).as_ref().ct_eq(signature)))?;
        let (head, tag) = claims.split_at(CLAIMS - MAC);
        let expires_s = u64::from_be_bytes(*head[1..].first_chunk()?);
        if head[0] != FORMAT || expires_s <= now_s {
            return None;
        }
        let token = tokens.iter().find(|t| bool::from(mac(key, "token", &t.sha256).as_ref().ct_eq(tag)))?;
        Some((Session { text: text.to_owned(), expires_s }, token))
    }

    /// What a form of this session has to bring. `bound`: the session's cookie, or what stands for it where there is none.
    pub(super) fn word(&self, bound: &str) -> String {
        self.0.first().map(|key| URL_SAFE_NO_PAD.encode(mac(key, "form", bound.as_bytes()))).unwrap_or_default()
    }

    /// Whether a form brought it. Words of former keys are taken, so that a form survives the rotation of keys.
    pub(super) fn is_word(&self, bound: &str, given: &str) -> bool {
        let mut room = [0; MAC];
        let decoded = URL_SAFE_NO_PAD.decode_slice(given, &mut room).ok();
        decoded == Some(MAC) && self.0.iter().any(|key| mac(key, "form", bound.as_bytes()).as_ref().ct_eq(&room).into())
    }
}

/// The header that sets the cookie, or takes it away.
pub(super) fn set_cookie(session: Option<&Session>, secure: bool) -> HeaderValue {
    let (value, age) = session.map_or(("", 0), |s| (s.text.as_str(), LASTS_S));
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{COOKIE}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}");
    // Base64 and digits are always a header.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

fn mac(key: &hmac::Key, purpose: &str, data: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in [purpose.as_bytes(), b"\0", data] {
        context.update(part);
    }
    context.sign()
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;
    use crate::config::Role;

    fn keys(secrets: &[&str]) -> Keys {
        Keys::of(&CookieSigner::new(secrets.iter().map(|s| s.as_bytes())))
    }

    fn token(byte: u8) -> Token {
        Token { name: format!("t{byte}"), role: Role::Viewer, sha256: [byte; 32] }
    }

    fn headers(text: &str) -> HeaderMap {
        [(header::COOKIE, format!("{COOKIE}={text}").parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn a_session_holds_while_its_token_and_its_time_do() {
        let (tokens, keys) = ([token(1), token(2)], keys(&["secret"]));
        let session = keys.issue(&tokens[1], 1_000, [7; NONCE]).unwrap();
        let sent = headers(&session.text);
        let (found, by) = keys.find(&sent, &tokens, 1_000 + LASTS_S - 1).unwrap();
        assert_eq!((&found, &by.name), (&session, &tokens[1].name));
        assert!(keys.find(&sent, &tokens, 1_000 + LASTS_S).is_none(), "expired");
        assert!(keys.find(&sent, &tokens[..1], 2_000).is_none(), "the token was removed");
        assert!(keys.find(&headers(""), &tokens, 2_000).is_none());
        let two = format!("bad; {COOKIE}={}", session.text);
        assert!(keys.find(&headers(&two), &tokens, 2_000).is_some(), "a stranger's cookie hides none of ours");
    }

    #[test]
    fn every_proxy_with_the_secret_takes_it_and_nobody_else() {
        let tokens = [token(1)];
        let session = keys(&["one"]).issue(&tokens[0], 0, [0; NONCE]).unwrap();
        let sent = headers(&session.text);
        assert!(keys(&["one"]).find(&sent, &tokens, 1).is_some());
        assert!(keys(&["two", "one"]).find(&sent, &tokens, 1).is_some(), "keys were rotated");
        assert!(keys(&["two"]).find(&sent, &tokens, 1).is_none());
        assert!(keys(&[]).find(&sent, &tokens, 1).is_none() && keys(&[]).issue(&tokens[0], 0, [0; NONCE]).is_none());
        for at in 0..session.text.len() {
            let with = if session.text.as_bytes()[at] == b'A' { "B" } else { "A" };
            let altered = format!("{}{with}{}", &session.text[..at], &session.text[at + 1..]);
            assert!(keys(&["one"]).find(&headers(&altered), &tokens, 1).is_none(), "{at}");
        }
    }

    #[test]
    fn words_belong_to_one_session() {
        let keys = keys(&["new", "old"]);
        assert!(keys.is_word("a", &keys.word("a")) && !keys.is_word("b", &keys.word("a")));
        assert!(!keys.is_word("a", "") && !keys.is_word("a", "AAAA"));
        assert!(keys.is_word("a", &self::keys(&["old"]).word("a")));
    }

    #[test]
    fn the_cookie_is_for_this_site_and_no_script() {
        let session = Session { text: "abc".to_owned(), expires_s: 5 };
        let set = set_cookie(Some(&session), true);
        assert_eq!(
            set.to_str().unwrap(),
            "switchback_session=abc; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"
        );
        assert!(!set_cookie(Some(&session), false).to_str().unwrap().contains("Secure"));
        assert!(set_cookie(None, false).to_str().unwrap().contains("Max-Age=0"));
    }
}
