//! How much each tenant uses of a service, and whether one more request is within its limits.
//!
//! Strangers can make up tenants, so the memory is fixed: a table of places. A tenant takes a free place in one of the two
//! lines that its name falls into, in the emptier one, so that lines fill evenly (Mitzenmacher, "The Power of Two Choices
//! in Randomized Load Balancing", 2001). A place whose bucket is full and that has nothing in flight says nothing about its
//! tenant, so it is free for the next one: no lock, no allocation, nothing to clean up. Only when nearly as many tenants as
//! there are places are busy in the same moment do those without a place share one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::decide::address_key;
use super::routes::{Routes, ServiceRoute};
use crate::model::{Limit, WithoutTenant};

/// Lines of the table, 128 bytes each: 1 MiB and some 57 000 places for each service that has limits.
const LINES: usize = 1 << LINE_BITS;
const LINE_BITS: u32 = 13;
/// Places of a line that belong to one tenant at a time.
const PLACES: usize = 7;
/// The bits of a place's word that count what is in flight; the others say whose place it is.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// Keeps addresses apart from tenants that are named like them.
const ADDRESSES: u64 = 0x6164_6472_6573_7365;
const TOGETHER: u64 = 0x746f_6765_7468_6572;

/// Why a request is over its tenant's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverLimit {
    /// Too many over time; the next one may come after so many nanoseconds.
    Rate {
        /// At least 1.
        wait_ns: u64,
    },
    /// Too many at a time.
    Concurrency,
}

impl OverLimit {
    /// One word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate { .. } => "rate",
            Self::Concurrency => "concurrency",
        }
    }

    /// When to try again, in whole seconds, at least 1.
    pub fn retry_after_s(self) -> u64 {
        match self {
            Self::Rate { wait_ns } => wait_ns.div_ceil(1_000_000_000),
            // Nobody knows when one of the others ends.
            Self::Concurrency => 1,
        }
    }
}

/// Whether a request may pass; a permit when its tenant is limited. `now_ns`: on any monotone axis.
///
/// # Errors
/// [`OverLimit`] when it may not.
pub fn permit(
    routes: &Routes,
    service: &ServiceRoute,
    tenant: Option<&str>,
    address: IpAddr,
    now_ns: u64,
) -> Result<Option<Permit>, OverLimit> {
    let Some(limiter) = &service.limiter else { return Ok(None) };
    let spec = &service.spec.limits;
    let (hash, limit) = match (tenant, spec.without_tenant) {
        (Some(tenant), _) => {
            let groups = || routes.groups.get(tenant).map_or(&[][..], |g| g);
            let limit = spec.of(tenant, if spec.groups.is_empty() { &[] } else { groups() });
            (xxh3_64_with_seed(tenant.as_bytes(), limiter.seed), limit)
        }
        (None, WithoutTenant::Address) => {
            (xxh3_64_with_seed(&address_key(address), limiter.seed ^ ADDRESSES), spec.each)
        }
        (None, WithoutTenant::Together) => (xxh3_64_with_seed(&[], limiter.seed ^ TOGETHER), spec.each),
        (None, WithoutTenant::Unlimited) => return Ok(None),
    };
    limiter.enter(hash, limit, now_ns).map(Some)
}

/// What the tenants of one service use.
pub struct Limiter {
    /// Unknown to clients, so that nobody can make up a name that falls onto another tenant's place.
    seed: u64,
    lines: Box<[Line]>,
}

#[derive(Default)]
#[repr(align(128))]
struct Line {
    /// The last place is for all who found no other.
    places: [Place; PLACES + 1],
}

/// What one tenant uses.
#[derive(Default)]
struct Place {
    /// Part of the tenant's hash, and how many requests are in flight.
    word: AtomicU64,
    /// When the bucket will be full again.
    full_at_ns: AtomicU64,
}

/// A line and a place in it.
type At = (usize, usize);

/// A request within its tenant's limits; in flight until it is dropped.
pub struct Permit {
    limiter: Arc<Limiter>,
    at: At,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.place(self.at).leave();
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Limiter({} lines)", self.lines.len())
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit({}, {})", self.at.0, self.at.1)
    }
}

impl Limiter {
    /// A limiter that has seen nobody. `seed`: known to nobody outside.
    pub fn new(seed: u64) -> Self {
        Self { seed, lines: (0..LINES).map(|_| Line::default()).collect() }
    }

    fn enter(self: &Arc<Self>, hash: u64, limit: Limit, now_ns: u64) -> Result<Permit, OverLimit> {
        let most = limit.concurrency.map_or(COUNT, u64::from).min(COUNT);
        let at = self.find_or_claim(hash, most, now_ns).ok_or(OverLimit::Concurrency)?;
        let permit = Permit { limiter: self.clone(), at };
        let Some(rate) = limit.rate else { return Ok(permit) };
        let full_at_ns = &self.place(at).full_at_ns;
        let mut seen = full_at_ns.load(Relaxed);
        loop {
            let next = rate.take(seen, now_ns).map_err(|wait_ns| OverLimit::Rate { wait_ns })?;
            match full_at_ns.compare_exchange_weak(seen, next, AcqRel, Relaxed) {
                Ok(_) => return Ok(permit),
                Err(other) => seen = other,
            }
        }
    }

    /// Counts one more request of a tenant, at most `most`; gives its place.
    fn find_or_claim(&self, hash: u64, most: u64, now_ns: u64) -> Option<At> {
        let lines = [hash, hash.rotate_left(LINE_BITS)].map(|h| (h >> (64 - LINE_BITS)) as usize);
        // 0 is nobody's.
        let tag = (hash & (u64::MAX >> COUNT_BITS)).max(1);
        if let Some(at) = self.find(lines, tag) {
            match self.place(at).enter(tag, most) {
                Entered::Yes => return Some(at),
                Entered::Full => return None,
                // Somebody took the place, which was free, between two looks.
                Entered::NotMine => {}
            }
        }
        let Some(at) = self.claim(lines, tag, now_ns) else {
            let shared = (lines[0], PLACES);
            return matches!(self.place(shared).enter(0, most), Entered::Yes).then_some(shared);
        };
        // Two requests of a new tenant may claim two places in the same moment: the first place counts.
        match self
            .find(lines, tag)
            .filter(|first| *first != at)
            .map(|first| (first, self.place(first).enter(tag, most)))
        {
            None | Some((_, Entered::NotMine)) => Some(at),
            Some((first, entered)) => {
                self.place(at).leave();
                matches!(entered, Entered::Yes).then_some(first)
            }
        }
    }

    fn place(&self, (line, place): At) -> &Place {
        &self.lines[line].places[place]
    }

    fn find(&self, lines: [usize; 2], tag: u64) -> Option<At> {
        let of = |line: usize| (0..PLACES).map(move |place| (line, place));
        lines.into_iter().flat_map(of).find(|at| self.place(*at).word.load(Acquire) >> COUNT_BITS == tag)
    }

    fn claim(&self, lines: [usize; 2], tag: u64, now_ns: u64) -> Option<At> {
        let free = |line: usize| self.lines[line].places[..PLACES].iter().filter(|p| p.is_free(now_ns)).count();
        let [a, b] = lines;
        let order = if free(b) > free(a) { [b, a] } else { [a, b] };
        let of = |line: usize| (0..PLACES).map(move |place| (line, place));
        order.into_iter().flat_map(of).find(|at| self.place(*at).claim(tag, now_ns))
    }
}

enum Entered {
    Yes,
    Full,
    NotMine,
}

impl Place {
    fn enter(&self, tag: u64, most: u64) -> Entered {
        let mut word = self.word.load(Acquire);
        loop {
            if word >> COUNT_BITS != tag {
                return Entered::NotMine;
            }
            if word & COUNT >= most {
                return Entered::Full;
            }
            match self.word.compare_exchange_weak(word, word + 1, AcqRel, Acquire) {
                Ok(_) => return Entered::Yes,
                Err(other) => word = other,
            }
        }
    }

    fn leave(&self) {
        self.word.fetch_sub(1, AcqRel);
    }

    /// Whether it says nothing about its tenant any more.
    fn is_free(&self, now_ns: u64) -> bool {
        self.word.load(Acquire) & COUNT == 0 && self.full_at_ns.load(Acquire) <= now_ns
    }

    /// Takes a free place over.
    fn claim(&self, tag: u64, now_ns: u64) -> bool {
        let word = self.word.load(Acquire);
        let free = word & COUNT == 0 && self.full_at_ns.load(Acquire) <= now_ns;
        free && self.word.compare_exchange(word, tag << COUNT_BITS | 1, AcqRel, Relaxed).is_ok()
    }
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
