//! The ticket of one request: handed out when its version is chosen, given back when it ends, never lost in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::epoch::{ArmTally, EpochTally, TallySignal};
use super::outcome::{Fault, Outcome};
use super::scope::ScopeTally;
use super::totals::VersionTotals;

const SLOW_DECIDED: u8 = 1;
const VERY_SLOW_DECIDED: u8 = 2;
const ALL_DECIDED: u8 = SLOW_DECIDED | VERY_SLOW_DECIDED;

/// The start of a request that must not age yet.
const PAUSED: u64 = u64::MAX;

/// A request on its way. Dropping it without [`finish`](Self::finish) counts it as abandoned.
#[must_use = "a ticket that is dropped counts as an abandoned request"]
pub struct Ticket {
    scope: Arc<ScopeTally>,
    totals: Arc<VersionTotals>,
    evidence: Evidence,
    start_us: u64,
    latency_us: Option<u64>,
    ended: Option<Outcome>,
}

/// The part of a request in the comparison. Shared with the tick when its age is watched, which costs the one
/// allocation of a request.
pub(super) enum Evidence {
    None,
    Own(Comparing),
    Shared(Arc<Comparing>),
}

/// A request whose version was chosen by the coin.
pub(super) struct Comparing {
    scope: Arc<ScopeTally>,
    epoch: Arc<EpochTally>,
    arm: usize,
    key: Option<u64>,
    /// Whether a coin fell for this request, and not for an earlier one with its key.
    coin: bool,
    /// Microseconds from which on a request is slow and very slow; 0: not judged.
    cuts: (u32, u32),
    start_us: AtomicU64,
    /// Which signals were decided, by the answer or by age: whoever sets a bit first counts it.
    decided: AtomicU8,
}

impl Comparing {
    pub(super) fn new(
        scope: Arc<ScopeTally>,
        epoch: Arc<EpochTally>,
        arm: usize,
        key: Option<u64>,
        coin: bool,
        start_us: u64,
    ) -> Self {
        let is_baseline = epoch.arm(arm).is_baseline.load(Ordering::Relaxed);
        let cuts = scope.cuts_for(is_baseline);
        let judged = |cut: u32, bit: u8| if cut == 0 { bit } else { 0 };
        let decided = judged(cuts.0, SLOW_DECIDED) | judged(cuts.1, VERY_SLOW_DECIDED);
        let (start_us, decided) = (AtomicU64::new(start_us), AtomicU8::new(decided));
        Self { scope, epoch, arm, key, coin, cuts, start_us, decided }
    }

    /// Whether its age must be watched: versions are compared by latency.
    pub(super) fn ages(&self) -> bool {
        self.epoch.compares() && self.cuts != (0, 0)
    }

    /// Counts the cuts that the request has passed unanswered. True when nothing is left to watch.
    pub(super) fn age(&self, now_us: u64) -> bool {
        let start = self.start_us.load(Ordering::Relaxed);
        let age = now_us.saturating_sub(start);
        let mut counted = false;
        for (signal, bit, cut) in self.signals() {
            if age > u64::from(cut) && self.claim(bit) {
                self.arm().timed(std::iter::once(signal), self.key);
                self.arm().slow(signal, self.key, now_us);
                counted = true;
            }
        }
        if counted {
            self.scope.touch(now_us);
        }
        self.decided.load(Ordering::Relaxed) & ALL_DECIDED == ALL_DECIDED
    }

    fn answered(&self, latency_us: u64, now_us: u64) {
        if self.decided.load(Ordering::Relaxed) & ALL_DECIDED == ALL_DECIDED {
            return;
        }
        let claimed = self.signals().map(|(signal, bit, cut)| self.claim(bit).then_some((signal, cut)));
        self.arm().timed(claimed.iter().flatten().map(|(signal, _)| *signal), self.key);
        for (signal, cut) in claimed.into_iter().flatten() {
            if latency_us > u64::from(cut) {
                self.arm().slow(signal, self.key, now_us);
            }
        }
        self.scope.touch_loosely(now_us);
    }

    fn ended(&self, outcome: Outcome, now_us: u64) {
        if outcome.fault.concerns_version() {
            let failed = matches!(outcome.fault, Fault::Backend(_));
            self.arm().ended(failed, outcome.is_client_error(), self.key, self.coin, now_us);
        }
        self.close();
    }

    /// Nothing is decided any more.
    fn close(&self) {
        if self.decided.load(Ordering::Relaxed) & ALL_DECIDED != ALL_DECIDED {
            self.decided.fetch_or(ALL_DECIDED, Ordering::Relaxed);
        }
    }

    fn claim(&self, bit: u8) -> bool {
        self.decided.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn signals(&self) -> [(TallySignal, u8, u32); 2] {
        [(TallySignal::Slow, SLOW_DECIDED, self.cuts.0), (TallySignal::VerySlow, VERY_SLOW_DECIDED, self.cuts.1)]
    }

    fn arm(&self) -> &ArmTally {
        self.epoch.arm(self.arm)
    }
}

impl Ticket {
    pub(super) fn new(scope: Arc<ScopeTally>, totals: Arc<VersionTotals>, evidence: Evidence, start_us: u64) -> Self {
        totals.began();
        Self { scope, totals, evidence, start_us, latency_us: None, ended: None }
    }

    /// The client is still sending the request's body: the version is not to blame for the time that takes. Until
    /// [`restart`](Self::restart) the request does not age.
    pub fn uploading(&mut self) {
        if let Some(comparing) = self.comparing() {
            comparing.start_us.store(PAUSED, Ordering::Relaxed);
        }
    }

    /// Latency runs from here, microseconds of the caller's clock. Without effect once answered. What the request has
    /// been counted as because of its age stays, so say [`uploading`](Self::uploading) when the upload begins.
    pub fn restart(&mut self, now_us: u64) {
        if self.latency_us.is_none() {
            self.start_us = now_us;
            if let Some(comparing) = self.comparing() {
                comparing.start_us.store(now_us, Ordering::Relaxed);
            }
        }
    }

    /// The final response header came: the latency is fixed, and with it whether the request was slow. Only the first
    /// call counts; the body's time never does.
    pub fn answered(&mut self, now_us: u64) {
        if self.latency_us.is_some() || self.ended.is_some() {
            return;
        }
        let latency = now_us.saturating_sub(self.start_us);
        self.latency_us = Some(latency);
        self.totals.answered(latency);
        self.scope.touch_loosely(now_us);
        if let Some(comparing) = self.comparing() {
            comparing.answered(latency, now_us);
        }
    }

    /// The request came to an end. Only the first call counts. A backend that never answered is as slow as the time
    /// until now; a client that left, a refusal or a fault of the proxy decides nothing about the version.
    pub fn finish(&mut self, outcome: Outcome, now_us: u64) {
        if self.ended.is_some() {
            return;
        }
        if outcome.fault.concerns_version() {
            self.answered(now_us);
        }
        self.ended = Some(outcome);
        if let Some(comparing) = self.comparing() {
            comparing.ended(outcome, now_us);
            if !Arc::ptr_eq(&comparing.scope, &self.scope) {
                comparing.scope.touch(now_us);
            }
        }
        self.totals.ended(outcome);
        self.scope.touch(now_us);
    }

    /// What the request came to for its version, once it has ended.
    pub fn outcome(&self) -> Option<Outcome> {
        self.ended
    }

    /// The time until the response header in microseconds, once it is known.
    pub fn latency_us(&self) -> Option<u64> {
        self.latency_us
    }

    fn comparing(&self) -> Option<&Comparing> {
        match &self.evidence {
            Evidence::None => None,
            Evidence::Own(comparing) => Some(comparing),
            Evidence::Shared(comparing) => Some(comparing),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.ended.is_none() {
            if let Some(comparing) = self.comparing() {
                comparing.close();
            }
            self.totals.abandoned();
            self.scope.touch(self.start_us);
        }
    }
}
