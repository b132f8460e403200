//! One stream that can be asked to close: what is known of it, and the signal that its data path waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;

use crate::proxy::Clock;
use crate::routing::{Routes, ServiceRoute, StreamHead, StreamLeaves, StreamPlace};
use crate::telemetry::{StreamClose, StreamCounts};

/// The stream may stay.
const STAYS: u64 = 0;
/// Bits for why a stream leaves.
const WHY_BITS: u32 = 2;
const WHYS: [StreamLeaves; 3] = [StreamLeaves::Elsewhere, StreamLeaves::Maintenance, StreamLeaves::Refused];

/// A stream of a service whose streams are closed by a shift.
pub(super) struct Open {
    pub head: StreamHead,
    pub place: StreamPlace,
    /// The service as it was when the stream began.
    pub service: Arc<ServiceRoute>,
    pub opened_us: u64,
    clock: Clock,
    counts: Arc<StreamCounts>,
    /// Since when it should leave, in microseconds above two bits for why; 0 when it stays. Only the keeper changes it.
    leaves: AtomicU64,
    /// Microseconds by which it must be gone; 0 while nobody has asked.
    gone_by_us: AtomicU64,
    asked: Notify,
    /// Whether the proxy ended it.
    closed: AtomicBool,
    ended: AtomicBool,
}

impl Open {
    pub(super) fn new(
        head: StreamHead,
        place: StreamPlace,
        service: Arc<ServiceRoute>,
        counts: Arc<StreamCounts>,
        clock: Clock,
    ) -> Self {
        Self {
            head,
            place,
            service,
            opened_us: clock.now_us(),
            clock,
            counts,
            leaves: AtomicU64::new(STAYS),
            gone_by_us: AtomicU64::new(0),
            asked: Notify::new(),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Looks where it would go now. True when it should leave from now on, and did not so far.
    pub(super) fn judge(&self, routes: &Routes, now_us: u64) -> bool {
        let before = self.leaves.load(Relaxed);
        let now = self.head.leaves(routes, &self.place).map_or(STAYS, |why| {
            let since_us = if before == STAYS { now_us } else { before >> WHY_BITS };
            since_us << WHY_BITS | WHYS.iter().position(|w| *w == why).unwrap_or(0) as u64
        });
        self.leaves.store(now, Relaxed);
        before == STAYS && now != STAYS
    }

    /// It may stay after all.
    pub(super) fn stay(&self) {
        self.leaves.store(STAYS, Relaxed);
    }

    /// Since when it should leave, in microseconds; none when it may stay, has been asked or is over.
    pub(super) fn waits_since_us(&self) -> Option<u64> {
        let leaves = self.leaves.load(Relaxed);
        let waits = leaves != STAYS && !self.is_asked() && !self.ended.load(Relaxed);
        waits.then_some(leaves >> WHY_BITS)
    }

    /// Asks it to close, and to be gone by then.
    pub(super) fn ask(&self, gone_by_us: u64) {
        self.gone_by_us.store(gone_by_us.max(1), Relaxed);
        self.asked.notify_waiters();
    }

    pub(super) fn is_asked(&self) -> bool {
        self.gone_by_us.load(Relaxed) > 0
    }

    /// Ends when it is asked to close.
    pub(super) async fn asked(&self) {
        loop {
            let next = self.asked.notified();
            if self.is_asked() {
                return;
            }
            next.await;
        }
    }

    /// Ends when it should be gone.
    pub(super) async fn late(&self) {
        self.asked().await;
        let left_us = self.gone_by_us.load(Relaxed).saturating_sub(self.clock.now_us());
        tokio::time::sleep(Duration::from_micros(left_us)).await;
    }

    /// The proxy has ended it: with a goodbye, or without.
    pub(super) fn close(&self, goodbye: bool) {
        if self.closed.swap(true, Relaxed) {
            return;
        }
        let why = WHYS.get((self.leaves.load(Relaxed) & ((1 << WHY_BITS) - 1)) as usize);
        self.counts.close(match (goodbye, why) {
            (false, _) => StreamClose::Cut,
            (true, Some(StreamLeaves::Maintenance)) => StreamClose::Maintenance,
            (true, Some(StreamLeaves::Refused)) => StreamClose::Refused,
            (true, Some(StreamLeaves::Elsewhere) | None) => StreamClose::Shift,
        });
    }

    /// Whether the proxy has ended it.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// It is over, however that came.
    pub(super) fn end(&self) {
        self.ended.store(true, Relaxed);
    }
}
