//! The client behind every call.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use jiff::Timestamp;
use rand::Rng;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response};

use super::within::Resolver;
use super::{
    ANSWER_BYTES, Answer, CallError, ID, SIGNATURE, TIMESTAMP, Target, Within, check_url, retry_after, signature,
};

/// How long an unused connection is kept: shorter than the minute after which most receivers close it.
const IDLE: Duration = Duration::from_secs(30);

/// Calls receivers. Cheap to clone; clones share their connections. Proxies that the environment names (`HTTPS_PROXY`,
/// `NO_PROXY`) are used.
#[derive(Clone)]
pub struct Caller {
    client: Client,
    within: Option<Within>,
}

/// Why nobody can be called.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// What should hold authorities does not.
    #[error("holds no certificates in PEM")]
    Authorities,
    /// TLS cannot be set up, or an authority cannot be used.
    #[error("TLS for calls cannot be set up")]
    Tls(#[source] reqwest::Error),
}

impl Caller {
    /// Trusts the authorities of the system and, for machines without any, those that browsers trust.
    ///
    /// # Errors
    /// [`SetUpError::Tls`].
    pub fn new() -> Result<Self, SetUpError> {
        Self::build(Vec::new(), None)
    }

    /// As [`Caller::new`], for addresses that others than the operator may name: calls only go where `within` says. A name
    /// that leads elsewhere cannot be connected to, be it the receiver's or that of a proxy on the way.
    ///
    /// # Errors
    /// [`SetUpError::Tls`].
    pub fn restricted(within: Within) -> Result<Self, SetUpError> {
        Self::build(Vec::new(), Some(within))
    }

    /// Trusts the authorities in `pem` too.
    ///
    /// # Errors
    /// [`SetUpError`] when there are none in it or they cannot be used.
    pub fn with_authorities(pem: &[u8]) -> Result<Self, SetUpError> {
        match Certificate::from_pem_bundle(pem) {
            Ok(authorities) if !authorities.is_empty() => Self::build(authorities, None),
            _ => Err(SetUpError::Authorities),
        }
    }

    fn build(authorities: Vec<Certificate>, within: Option<Within>) -> Result<Self, SetUpError> {
        let mut builder = Client::builder()
            .user_agent(concat!("switchback/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .pool_idle_timeout(IDLE);
        for authority in authorities {
            builder = builder.add_root_certificate(authority);
        }
        if let Some(within) = within.clone() {
            builder = builder.dns_resolver(Arc::new(Resolver(within)));
        }
        Ok(Self { client: builder.build().map_err(SetUpError::Tls)?, within })
    }

    /// Posts a body, once. The headers are sent as they are; one named [`ID`] is the message's id, otherwise a new one is
    /// drawn. Whoever tries a message again gives it the same id.
    ///
    /// # Errors
    /// [`CallError`] when there is no answer. An answer of any status is an answer.
    pub async fn post(&self, target: &Target, body: Bytes, mut headers: HeaderMap) -> Result<Answer, CallError> {
        if let Some(within) = &self.within {
            // The resolver is not asked for addresses that need no look-up.
            check_url(&target.url, &within()).map_err(CallError::OutOfReach)?;
        }
        sign(target, &body, &mut headers);
        let request = self.client.post(&target.url).timeout(target.timeout).headers(headers).body(body);
        let response = request.send().await.map_err(|e| explain(e, target))?;
        read(response).await.map_err(|e| explain(e, target))
    }
}

fn sign(target: &Target, body: &[u8], headers: &mut HeaderMap) {
    let now = Timestamp::now().as_second();
    let given = headers.get(ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let id = given.unwrap_or_else(|| format!("msg_{:032x}", rand::rng().random::<u128>()));
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set(TIMESTAMP, &now.to_string());
    if let Some(secret) = &target.secret {
        set(SIGNATURE, &signature(secret, &id, now, body));
    }
    set(ID, &id);
}

/// The beginning of the answer. A receiver that sends more gets its connection closed; one that sends slowly meets the
/// deadline of the request, which covers the body too.
async fn read(mut response: Response) -> Result<Answer, reqwest::Error> {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|value| retry_after::read(value, Timestamp::now()));
    let mut body = BytesMut::new();
    while body.len() < ANSWER_BYTES
        && let Some(part) = response.chunk().await?
    {
        body.extend_from_slice(&part[..part.len().min(ANSWER_BYTES - body.len())]);
    }
    Ok(Answer { status, retry_after, body: body.freeze() })
}

fn explain(error: reqwest::Error, target: &Target) -> CallError {
    let error = error.without_url();
    if error.is_timeout() {
        CallError::Timeout(target.timeout)
    } else if error.is_builder() {
        CallError::Url(error)
    } else if error.is_connect() {
        CallError::Connect(error)
    } else {
        CallError::Broken(error)
    }
}
