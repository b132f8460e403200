//! Sessions: a signed cookie keeps a user on a version while new sessions follow the split.
//!
//! A session gives way to everything that is about safety: a rollback since it began, an exclusion, a brake while it
//! holds, the version's removal. Then the split decides and the client gets a new cookie, so it does not flap back.
//!
//! Only what chance decided under the shares of now is evidence. A session that began under earlier shares is none, even
//! if the split gives its key the same version: were those counted, then after a canary's share went from 90 % to 10 %,
//! half of the evidence would be the canary's, who would be blamed for its larger part.

use super::cookie;
use super::decide::{Drawn, Head, Trace};
use super::routes::ServiceRoute;
use super::session_cookie::{BadSession, EMPTY, SessionClaims, SessionOwner};
use crate::model::{SessionSpec, Split, VersionName};
use crate::telemetry::SessionResult;

/// How many cookies of the same name are looked at: a stranger's may stand before the good one.
const MAX_COOKIES: usize = 4;
/// By how much clocks of different nodes may differ, in seconds.
const CLOCK_SKEW_S: u64 = 60;

/// What a request's session came to.
#[derive(Debug, Clone)]
pub struct SessionOutcome<'r> {
    /// For the metrics.
    pub result: SessionResult,
    /// The cookie to give to the client: its name, its value, and how long it lasts in seconds.
    pub cookie: Option<(&'r str, String, u64)>,
}

/// The session that a request brings, or would begin.
pub(super) struct Session<'r, 'o> {
    spec: &'r SessionSpec,
    owner: SessionOwner<'o>,
    brought: Result<Brought<'r>, End>,
    /// The key of a session whose requests have no other.
    pub id: u64,
    now_s: u64,
}

/// A session that may be kept.
#[derive(Clone, Copy)]
struct Brought<'r> {
    /// None when it exists no more.
    version: Option<&'r VersionName>,
    attempt: u64,
    expires_s: u64,
    /// Whether the cookie should be given anew.
    renew: bool,
}

/// Why there is no session that could be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    None,
    Forged,
    Foreign,
    Expired,
    Removed,
    RolledBack,
    Braked,
    Drained,
    Excluded,
}

impl End {
    fn result(self) -> SessionResult {
        match self {
            Self::None => SessionResult::New,
            Self::Forged => SessionResult::Forged,
            Self::Foreign => SessionResult::Foreign,
            Self::Expired => SessionResult::Expired,
            Self::Removed | Self::RolledBack | Self::Braked | Self::Drained | Self::Excluded => {
                SessionResult::Overridden
            }
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::None => "no cookie came; a session begins where the split says",
            Self::Forged => "ignored: the cookie was not signed here, or was altered",
            Self::Foreign => "ignored: the cookie belongs to another key, tenant or service",
            Self::Expired => "ignored: it has expired",
            Self::Removed => "ignored: its version exists no more",
            Self::RolledBack => "ignored: its version was rolled back since the session began",
            Self::Braked => "ignored: a brake holds its version back",
            Self::Drained => "ignored: its version has no share, and the service drains",
            Self::Excluded => "ignored: its version is excluded here",
        }
    }
}

impl<'r, 'o> Session<'r, 'o> {
    /// Reads the cookie. Allocates nothing.
    pub fn read(spec: &'r SessionSpec, service: &'r ServiceRoute, owner: SessionOwner<'o>, head: &Head<'_>) -> Self {
        let mut session = Self { spec, owner, brought: Err(End::None), id: head.random[0], now_s: head.now_s };
        for text in cookie::all(head.headers, &spec.cookie).take(MAX_COOKIES) {
            let mut room = EMPTY;
            match service.signer.read_session(&owner, text, &mut room) {
                Ok((claims, signed_before)) => {
                    session.take(service, &claims, signed_before);
                    break;
                }
                Err(BadSession::Foreign) => session.brought = Err(End::Foreign),
                Err(BadSession::Forged) if matches!(session.brought, Err(End::Foreign)) => {}
                Err(BadSession::Forged) => session.brought = Err(End::Forged),
            }
        }
        session
    }

    fn take(&mut self, service: &'r ServiceRoute, claims: &SessionClaims<'_>, signed_before: bool) {
        self.id = claims.id;
        let left = claims.expires_s.saturating_sub(self.now_s);
        let ttl = self.spec.ttl.as_secs();
        self.brought = if left == 0 {
            Err(End::Expired)
        } else {
            let version = service.version(claims.version).map(|v| &v.name);
            // The last: the configuration has become shorter since.
            let renew = signed_before || left < ttl / 2 || left > ttl + CLOCK_SKEW_S;
            Ok(Brought { version, attempt: claims.attempt, expires_s: claims.expires_s, renew })
        };
    }

    /// The version that serves the request before exclusions: the session's own, or the one that the split has given.
    pub fn keep(
        &mut self,
        service: &'r ServiceRoute,
        split: &Split,
        given: &'r VersionName,
        drawn: Drawn,
    ) -> (&'r VersionName, Drawn) {
        match self.brought.and_then(|brought| brought.stays(service, split, given).map(|v| (v, brought.attempt))) {
            Ok((version, attempt)) if version == given && attempt == split.attempt => (version, drawn),
            Ok((version, _)) => (version, Drawn::Chosen),
            Err(end) => {
                self.brought = Err(end);
                (given, drawn)
            }
        }
    }

    /// What the session came to, now that the version is certain.
    pub fn finish(
        mut self,
        service: &'r ServiceRoute,
        split: &Split,
        version: &VersionName,
        trace: &mut impl Trace,
    ) -> SessionOutcome<'r> {
        if self.brought.is_ok_and(|b| b.version != Some(version)) {
            self.brought = Err(End::Excluded);
        }
        let name = &self.spec.cookie;
        let (result, attempt) = match self.brought {
            Ok(Brought { renew: false, expires_s, .. }) => {
                let left = expires_s.saturating_sub(self.now_s);
                trace.step("session", || format!("kept on {version} by the cookie {name}, for {left} s"));
                return SessionOutcome { result: SessionResult::Kept, cookie: None };
            }
            Ok(Brought { attempt, .. }) => {
                trace.step("session", || format!("kept on {version} by the cookie {name}, which is renewed"));
                (SessionResult::Renewed, attempt)
            }
            Err(end) => {
                trace.step("session", || end.sentence().to_owned());
                (end.result(), split.attempt)
            }
        };
        let ttl = self.spec.ttl.as_secs();
        let claims = SessionClaims { version: version.as_str(), attempt, expires_s: self.now_s + ttl, id: self.id };
        let cookie = service.signer.sign_session(&self.owner, &claims).map(|value| (name.as_str(), value, ttl));
        SessionOutcome { result, cookie }
    }
}

impl<'r> Brought<'r> {
    fn stays(&self, service: &'r ServiceRoute, split: &Split, given: &VersionName) -> Result<&'r VersionName, End> {
        let live = &service.state;
        let version = self.version.ok_or(End::Removed)?;
        let barred_since = live.bars.get(version).is_some_and(|bar| self.attempt <= bar.revision);
        if *version != live.baseline && (barred_since || split.recalls.ended(version, self.attempt)) {
            return Err(End::RolledBack);
        }
        if version == given {
            return Ok(version);
        }
        if live.barred(version, split).is_some() {
            return Err(End::RolledBack);
        }
        if split.holds_back(version.as_str()) {
            return Err(End::Braked);
        }
        let has_share = || split.slices.iter().any(|slice| live.owner(&slice.version, split) == version);
        if service.spec.drain && !has_share() {
            return Err(End::Drained);
        }
        Ok(version)
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
