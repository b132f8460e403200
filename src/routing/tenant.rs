//! Which tenant a request belongs to: the first configured source that names one.
//!
//! A stranger cannot choose twice: a header that comes more than once is refused, a source that is believed only from
//! trusted addresses is otherwise as good as absent, and when `conflict = "reject"` two sources must not disagree.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderName;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::decide::{Head, Refusal};
use crate::model::{Conflict, JwtSpec, TenantName, TenantSource, TenantsSpec, UnknownTenant};

/// What was found in a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found<'h> {
    /// The tenant's name.
    pub tenant: Option<Cow<'h, str>>,
    /// Length of the path prefix that named the tenant and is to be removed, in bytes.
    pub strip: usize,
    /// Which source it was: its place in the configuration.
    pub source: Option<usize>,
}

/// The sources, ready for use.
#[derive(Debug, Default)]
pub struct Identifier {
    spec: TenantsSpec,
    /// Verifiers of the token sources, at the place of their source.
    tokens: Vec<Option<TokenVerifier>>,
    /// Headers that are believed from trusted addresses only.
    trusted_headers: Option<Arc<[HeaderName]>>,
}

impl Identifier {
    /// Prepares the sources.
    ///
    /// # Errors
    /// A key that cannot be read.
    pub fn new(spec: &TenantsSpec) -> Result<Self, TokenKeyError> {
        let tokens = spec.identify.iter().map(|source| match source {
            TenantSource::Jwt(jwt) => TokenVerifier::new(jwt).map(Some),
            _ => Ok(None),
        });
        let trusted_headers = spec.identify.iter().filter_map(|source| match source {
            TenantSource::Header { name, trusted_only: true } => Some(name.clone()),
            _ => None,
        });
        let trusted_headers = Some(trusted_headers.collect::<Arc<[_]>>()).filter(|names| !names.is_empty());
        Ok(Self { tokens: tokens.collect::<Result<_, _>>()?, spec: spec.clone(), trusted_headers })
    }

    /// Headers that are believed from trusted addresses only, if there are any.
    pub fn trusted_headers(&self) -> Option<Arc<[HeaderName]>> {
        self.trusted_headers.clone()
    }

    /// Whether a header of this name can name a tenant.
    pub fn believes(&self, name: &str) -> bool {
        let is = |source: &TenantSource| matches!(source, TenantSource::Header { name: own, .. } if own == name);
        self.spec.identify.iter().any(is)
    }

    /// The configuration that this was made from.
    pub fn spec(&self) -> &TenantsSpec {
        &self.spec
    }

    /// Whether finding the tenant needs to know the time.
    pub fn needs_time(&self) -> bool {
        self.tokens.iter().any(Option::is_some)
    }

    /// Finds the tenant.
    ///
    /// # Errors
    /// [`Refusal`] when a source is ambiguous, sources contradict each other, or a tenant is needed and none is there.
    pub fn find<'h>(&self, head: &Head<'h>) -> Result<Found<'h>, Refusal> {
        let mut found = Found::default();
        for (i, source) in self.spec.identify.iter().enumerate() {
            let Some((name, strip)) = self.look(i, source, head)? else { continue };
            if !TenantName::allows(&name) {
                return Err(Refusal::BadTenant);
            }
            match &found.tenant {
                None => found = Found { tenant: Some(name), strip, source: Some(i) },
                Some(first) if *first != name => return Err(Refusal::TenantConflict),
                Some(_) => {}
            }
            if self.spec.conflict == Conflict::First {
                break;
            }
        }
        if found.tenant.is_none() && self.spec.unknown == UnknownTenant::Reject {
            return Err(Refusal::UnknownTenant);
        }
        Ok(found)
    }

    fn look<'h>(
        &self,
        i: usize,
        source: &TenantSource,
        head: &Head<'h>,
    ) -> Result<Option<(Cow<'h, str>, usize)>, Refusal> {
        Ok(match source {
            TenantSource::Host { prefix, suffix } => between(head.host, prefix, suffix).map(|t| (lower(t), 0)),
            TenantSource::Header { name, trusted_only } => {
                if *trusted_only && !head.trusted {
                    return Ok(None);
                }
                let mut values = head.headers.get_all(name).iter();
                let Some(value) = values.next() else { return Ok(None) };
                if values.next().is_some() {
                    return Err(Refusal::BadTenant);
                }
                let value = value.to_str().map_err(|_| Refusal::BadTenant)?;
                Some((Cow::Borrowed(value), 0))
            }
            TenantSource::Path { prefix, strip } => head.path.strip_prefix(prefix.as_str()).and_then(|rest| {
                let tenant = rest.split('/').next().filter(|t| !t.is_empty())?;
                Some((Cow::Borrowed(tenant), if *strip { prefix.len() + tenant.len() } else { 0 }))
            }),
            TenantSource::Jwt(_) => {
                let Some(verifier) = self.tokens.get(i).and_then(Option::as_ref) else { return Ok(None) };
                verifier.tenant(head).map(|t| (Cow::Owned(t), 0))
            }
        })
    }
}

/// What stands between prefix and suffix, if it is one label.
fn between<'h>(host: &'h str, prefix: &str, suffix: &str) -> Option<&'h str> {
    let middle = host.len().checked_sub(prefix.len() + suffix.len())?;
    let starts = host.as_bytes()[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes());
    let ends = host.as_bytes()[prefix.len() + middle..].eq_ignore_ascii_case(suffix.as_bytes());
    let name = host.get(prefix.len()..prefix.len() + middle)?;
    (starts && ends && !name.is_empty() && !name.contains('.')).then_some(name)
}

/// Host names have no case, tenants do.
fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// A key for tokens that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key {id:?} for tokens cannot be used with {algorithm}: {detail}")]
pub struct TokenKeyError {
    /// Id of the key, if it has one.
    pub id: Option<String>,
    /// The algorithm that it is configured for.
    pub algorithm: String,
    /// What is wrong.
    pub detail: String,
}

/// Checks tokens of one source.
struct TokenVerifier {
    claim: String,
    keys: Vec<(Option<String>, Algorithm, DecodingKey, Validation)>,
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenVerifier({}, {} keys)", self.claim, self.keys.len())
    }
}

impl TokenVerifier {
    fn new(spec: &JwtSpec) -> Result<Self, TokenKeyError> {
        let keys = spec.keys.iter().map(|key| {
            let fail = |detail: String| TokenKeyError { id: key.id.clone(), algorithm: key.algorithm.clone(), detail };
            let algorithm: Algorithm = key.algorithm.parse().map_err(|_| fail("unknown algorithm".to_owned()))?;
            let decoding = match algorithm {
                Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Ok(DecodingKey::from_secret(&key.material)),
                Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(&key.material),
                Algorithm::EdDSA => DecodingKey::from_ed_pem(&key.material),
                _ => DecodingKey::from_rsa_pem(&key.material),
            };
            let mut validation = Validation::new(algorithm);
            // Time is checked below against the time that comes with the request.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation.required_spec_claims.clear();
            validation.validate_aud = spec.audience.is_some();
            if let Some(audience) = &spec.audience {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            if let Some(issuer) = &spec.issuer {
                validation.set_issuer(&[issuer]);
                validation.required_spec_claims.insert("iss".to_owned());
            }
            Ok((key.id.clone(), algorithm, decoding.map_err(|e| fail(e.to_string()))?, validation))
        });
        Ok(Self { claim: spec.claim.clone(), keys: keys.collect::<Result<_, _>>()? })
    }

    /// The tenant of a token whose signature and times hold; a token that does not hold is as good as none.
    fn tenant(&self, head: &Head<'_>) -> Option<String> {
        let value = head.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let token = token.trim();
        let header = jsonwebtoken::decode_header(token.as_bytes()).ok()?;
        let claims = self.keys.iter().find_map(|(id, algorithm, key, validation)| {
            let mine = *algorithm == header.alg && (header.kid.is_none() || id.is_none() || header.kid == *id);
            let decode = || jsonwebtoken::decode::<serde_json::Value>(token.as_bytes(), key, validation).ok();
            mine.then(decode).flatten()
        })?;
        let claims = claims.claims;
        /// How far clocks may be apart, in seconds.
        const LEEWAY_S: u64 = 60;
        let time = |name: &str| claims.get(name).and_then(serde_json::Value::as_f64);
        let now = head.now_s as f64;
        if time("exp").is_some_and(|t| t + (LEEWAY_S as f64) < now)
            || time("nbf").is_some_and(|t| t - LEEWAY_S as f64 > now)
        {
            return None;
        }
        claims.get(&self.claim)?.as_str().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::JwtKey;
    use http::{HeaderMap, Method};

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (n.parse::<http::HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    fn head<'a>(host: &'a str, path: &'a str, headers: &'a HeaderMap, trusted: bool) -> Head<'a> {
        Head {
            method: &Method::GET,
            host,
            path,
            headers,
            address: [127, 0, 0, 1].into(),
            trusted,
            random: [0; 2],
            now_s: 1_000,
        }
    }

    fn identifier(identify: Vec<TenantSource>, conflict: Conflict) -> Identifier {
        Identifier::new(&TenantsSpec { identify, conflict, ..TenantsSpec::default() }).unwrap()
    }

    fn host() -> TenantSource {
        TenantSource::Host { prefix: String::new(), suffix: ".api.example.com".into() }
    }

    fn header(trusted_only: bool) -> TenantSource {
        TenantSource::Header { name: http::HeaderName::from_static("x-tenant-id"), trusted_only }
    }

    #[test]
    fn hosts_headers_and_paths_name_tenants() {
        let path = TenantSource::Path { prefix: "/t/".into(), strip: true };
        let id = identifier(vec![host(), header(false), path], Conflict::First);
        let none = HeaderMap::new();
        let named = headers(&[("x-tenant-id", "globex")]);
        let find = |h: &Head<'_>| id.find(h).map(|f| (f.tenant.map(Cow::into_owned), f.strip));
        assert_eq!(find(&head("ACME.api.example.com", "/", &none, false)), Ok((Some("acme".into()), 0)));
        assert_eq!(find(&head("a.b.api.example.com", "/", &none, false)), Ok((None, 0)));
        assert_eq!(find(&head("api.example.com", "/", &none, false)), Ok((None, 0)));
        assert_eq!(find(&head("x", "/t/initech/y", &none, false)), Ok((Some("initech".into()), 10)));
        assert_eq!(find(&head("x", "/t/initech/y", &named, false)), Ok((Some("globex".into()), 0)));
        assert_eq!(find(&head("acme.api.example.com", "/", &named, false)), Ok((Some("acme".into()), 0)));
    }

    #[test]
    fn a_stranger_cannot_choose_twice() {
        let twice = headers(&[("x-tenant-id", "acme"), ("x-tenant-id", "globex")]);
        let other = headers(&[("x-tenant-id", "globex")]);
        let same = headers(&[("x-tenant-id", "acme")]);
        let first = identifier(vec![host(), header(false)], Conflict::First);
        let strict = identifier(vec![host(), header(false)], Conflict::Reject);
        assert_eq!(
            identifier(vec![header(false)], Conflict::First).find(&head("x", "/", &twice, true)),
            Err(Refusal::BadTenant)
        );
        let at = |headers| head("acme.api.example.com", "/", headers, true);
        assert_eq!(first.find(&at(&other)).unwrap().tenant.as_deref(), Some("acme"));
        assert_eq!(strict.find(&at(&other)), Err(Refusal::TenantConflict));
        assert_eq!(strict.find(&at(&same)).unwrap().tenant.as_deref(), Some("acme"));
        let trusting = identifier(vec![header(true)], Conflict::First);
        assert_eq!(trusting.find(&head("x", "/", &same, false)).unwrap().tenant, None);
        assert_eq!(trusting.find(&head("x", "/", &same, true)).unwrap().tenant.as_deref(), Some("acme"));
        let hostile = headers(&[("x-tenant-id", "a b")]);
        assert_eq!(
            identifier(vec![header(false)], Conflict::First).find(&head("x", "/", &hostile, false)),
            Err(Refusal::BadTenant)
        );
    }

    #[test]
    fn unknown_tenants_are_refused_when_so_configured() {
        let spec = TenantsSpec { identify: vec![host()], unknown: UnknownTenant::Reject, ..TenantsSpec::default() };
        let none = HeaderMap::new();
        assert_eq!(Identifier::new(&spec).unwrap().find(&head("x", "/", &none, false)), Err(Refusal::UnknownTenant));
    }

    #[test]
    fn a_token_counts_only_when_its_signature_holds() {
        let key = |secret: &[u8]| JwtKey { id: None, algorithm: "HS256".into(), material: secret.to_vec() };
        let jwt =
            JwtSpec { claim: "tenant".into(), keys: vec![key(b"right")], issuer: Some("us".into()), audience: None };
        let id = identifier(vec![TenantSource::Jwt(Arc::new(jwt))], Conflict::First);
        let token = |secret: &[u8], claims: serde_json::Value| {
            let key = jsonwebtoken::EncodingKey::from_secret(secret);
            let token = jsonwebtoken::encode(&jsonwebtoken::Header::new(Algorithm::HS256), &claims, &key).unwrap();
            headers(&[("authorization", &format!("Bearer {token}"))])
        };
        let find = |h: &HeaderMap| id.find(&head("x", "/", h, false)).unwrap().tenant.map(Cow::into_owned);
        let claims = |exp: u64, iss: &str| serde_json::json!({ "tenant": "acme", "exp": exp, "iss": iss });
        assert_eq!(find(&token(b"right", claims(2_000, "us"))).as_deref(), Some("acme"));
        assert_eq!(
            find(&token(b"right", serde_json::json!({ "tenant": "acme", "iss": "us" }))).as_deref(),
            Some("acme")
        );
        assert_eq!(find(&token(b"wrong", claims(2_000, "us"))), None);
        assert_eq!(find(&token(b"right", claims(900, "us"))), None, "expired");
        assert_eq!(find(&token(b"right", claims(2_000, "them"))), None);
        let unsigned = "Bearer eyJhbGciOiJub25lIn0.eyJ0ZW5hbnQiOiJhY21lIiwiaXNzIjoidXMifQ.";
        assert_eq!(find(&headers(&[("authorization", unsigned)])), None);
    }
}
