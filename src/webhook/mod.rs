//! Calls to other people's receivers: one POST, signed, with a deadline for all of it, and as much of the answer as is
//! worth reading.
//!
//! Receivers are strangers: they hang, redirect, and answer without end. So a call follows no redirects, reads no more than
//! the beginning of an answer, and is over at its deadline whatever the receiver does. What to do then is the caller's
//! decision; [`Backoff`] says how long to wait.

mod backoff;
mod caller;
mod retry_after;
mod sign;
mod within;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

pub use backoff::Backoff;
pub use caller::{Caller, SetUpError};
pub use sign::{ID, SIGNATURE, TIMESTAMP, signature};
pub use within::{Within, check_url};

use crate::model::{OutOfReach, SigningSecret};

/// Bytes of an answer that are read; the rest is left where it is.
pub const ANSWER_BYTES: usize = 4 << 10;

/// Where a call goes.
#[derive(Clone, PartialEq)]
pub struct Target {
    /// `http://` or `https://`; a user and password before the host become basic authentication. May hold a secret, so it
    /// is not shown: see [`origin`].
    pub url: String,
    /// Signs the call; none: it is not signed.
    pub secret: Option<SigningSecret>,
    /// The deadline for everything, from the look-up of the name to the last byte that is read of the answer.
    pub timeout: Duration,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = origin(&self.url);
        write!(f, "Target {{ url: {origin:?}, secret: {:?}, timeout: {:?} }}", self.secret, self.timeout)
    }
}

/// Scheme, host and port of an address: what can be shown of it, since its path may be what opens the door.
pub fn origin(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(url) => url.origin().ascii_serialization(),
        Err(_) => "[not an address]".to_owned(),
    }
}

/// What a receiver said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status, 100 to 999.
    pub status: u16,
    /// How long it asks to be left alone, by `retry-after`.
    pub retry_after: Option<Duration>,
    /// The first [`ANSWER_BYTES`] of the body.
    pub body: Bytes,
}

impl Answer {
    /// Whether the receiver took the call: 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the same call may succeed later: 408, 425, 429 and 5xx.
    pub fn may_pass(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500..)
    }
}

/// Why there is no answer. None of these holds the address, whose path may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The address is none that can be called.
    #[error("the address cannot be called")]
    Url(#[source] reqwest::Error),
    /// Nobody may be called there.
    #[error("the address may not be called")]
    OutOfReach(#[source] OutOfReach),
    /// The deadline passed.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The receiver was not reached: its name, its port, or its certificate.
    #[error("the receiver cannot be reached")]
    Connect(#[source] reqwest::Error),
    /// The connection broke, or what came is not HTTP.
    #[error("the call broke off")]
    Broken(#[source] reqwest::Error),
}

impl CallError {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Url(_))
    }

    /// The message with all its causes.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_what_opens_the_door() {
        assert_eq!(origin("https://hooks.slack.com/services/T0/B0/secret"), "https://hooks.slack.com");
        assert_eq!(origin("http://user:password@10.0.0.1:8080/?token=1"), "http://10.0.0.1:8080");
        let url = "https://hooks.slack.com/services/T0/B0/hidden".to_owned();
        let target = Target { url, secret: None, timeout: Duration::from_secs(1) };
        assert!(!format!("{target:?}").contains("hidden"));
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_is_wrong_is_not() {
        let answer = |status| Answer { status, retry_after: None, body: Bytes::new() };
        for status in [408, 429, 500, 503, 599] {
            assert!(answer(status).may_pass() && !answer(status).is_success(), "{status}");
        }
        for status in [200, 204, 301, 400, 401, 404, 410] {
            assert!(!answer(status).may_pass(), "{status}");
        }
        assert!(answer(204).is_success() && !answer(302).is_success());
    }
}
