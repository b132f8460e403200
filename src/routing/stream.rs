//! Where the next request of a stream would go: the same decision as for its first one, over the routes of now.
//!
//! Everything that decided then is kept with the stream: the head, the random numbers and the time. So a change that does
//! not touch its key never moves it, and what else has passed since (a token that has expired, a coin) does not either.

use std::net::IpAddr;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Method};

use super::decide::{Head, Silent, decide};
use super::maintenance::closed;
use super::routes::Routes;
use crate::model::{ServiceName, VersionName};

/// What decided where a stream went.
#[derive(Debug, Clone)]
pub struct StreamHead {
    method: Method,
    host: Box<str>,
    path: Box<str>,
    headers: HeaderMap,
    address: IpAddr,
    trusted: bool,
    random: [u64; 2],
    now_s: u64,
}

/// The place that a stream has.
#[derive(Debug, Clone)]
pub struct StreamPlace {
    /// Its service.
    pub service: ServiceName,
    /// The version that it was routed to.
    pub assigned: VersionName,
    /// The version that has it: another one than the assigned when that had failed.
    pub serving: VersionName,
}

/// Why a stream should not stay where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamLeaves {
    /// Its next request would go to another version, or its version exists no more.
    Elsewhere,
    /// Its service or tenant is in maintenance, and it may not pass.
    Maintenance,
    /// Its next request would be refused.
    Refused,
}

impl StreamHead {
    /// Keeps a head. `issued`: the values of `set-cookie` that its answer carries, which the next request brings along.
    pub fn new<'c>(head: &Head<'_>, issued: impl IntoIterator<Item = &'c HeaderValue>) -> Self {
        let mut headers = head.headers.clone();
        let pair = |cookie: &HeaderValue| {
            let end = cookie.as_bytes().iter().position(|b| *b == b';').unwrap_or(cookie.len());
            HeaderValue::from_bytes(&cookie.as_bytes()[..end]).ok()
        };
        // Of two cookies with one name the first is read.
        let mut cookies: Vec<_> = issued.into_iter().filter_map(pair).collect();
        if !cookies.is_empty() {
            cookies.extend(headers.get_all(COOKIE).iter().cloned());
            headers.remove(COOKIE);
            cookies.into_iter().for_each(|cookie| _ = headers.append(COOKIE, cookie));
        }
        Self {
            method: head.method.clone(),
            host: head.host.into(),
            path: head.path.into(),
            headers,
            address: head.address,
            trusted: head.trusted,
            random: head.random,
            now_s: head.now_s,
        }
    }

    fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            headers: &self.headers,
            address: self.address,
            trusted: self.trusted,
            random: self.random,
            now_s: self.now_s,
        }
    }

    /// Why the stream should leave its place under these routes; none: it stays.
    pub fn leaves(&self, routes: &Routes, place: &StreamPlace) -> Option<StreamLeaves> {
        let head = self.head();
        let Ok(decision) = decide(routes, &head, &mut Silent) else { return Some(StreamLeaves::Refused) };
        if decision.service.spec.name != place.service {
            return Some(StreamLeaves::Elsewhere);
        }
        if closed(decision.service, decision.tenant.as_deref(), &self.headers, self.address).is_some() {
            return Some(StreamLeaves::Maintenance);
        }
        let now = &decision.version.name;
        let exists = decision.service.version(place.serving.as_str()).is_some();
        let stays = exists && (*now == place.serving || *now == place.assigned);
        (!stays).then_some(StreamLeaves::Elsewhere)
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
