//! Answers that last: WebSockets, server-sent events and gRPC calls. How many are open on a version, and how many were
//! closed because a shift took their key elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Why the proxy closed a stream. The names are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamClose {
    /// Its next request would go to another version, or its version exists no more.
    Shift,
    /// Its service or tenant went into maintenance.
    Maintenance,
    /// Its next request would be refused.
    Refused,
    /// It was to be closed for one of these reasons and could not say goodbye before the deadline.
    Cut,
}

impl StreamClose {
    /// Every reason, in the order of its index.
    pub const ALL: [Self; 4] = [Self::Shift, Self::Maintenance, Self::Refused, Self::Cut];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shift => "shift",
            Self::Maintenance => "maintenance",
            Self::Refused => "refused",
            Self::Cut => "cut",
        }
    }
}

/// The streams of one version.
#[derive(Debug, Default)]
pub struct StreamCounts {
    open: AtomicI64,
    closed: [AtomicU64; StreamClose::ALL.len()],
}

impl StreamCounts {
    /// How many are open now.
    pub fn open(&self) -> i64 {
        self.open.load(Relaxed)
    }

    /// The proxy closed one.
    pub fn close(&self, why: StreamClose) {
        self.closed[why as usize].fetch_add(1, Relaxed);
    }

    /// How many the proxy closed for this reason.
    pub fn closed(&self, why: StreamClose) -> u64 {
        self.closed[why as usize].load(Relaxed)
    }
}

/// Counts a stream as long as it lives.
#[derive(Debug)]
pub struct OpenStream(Arc<StreamCounts>);

impl OpenStream {
    /// One more is open.
    pub fn new(counts: Arc<StreamCounts>) -> Self {
        counts.open.fetch_add(1, Relaxed);
        Self(counts)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_know_their_place_and_the_gauge_comes_back() {
        for (i, why) in StreamClose::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, i);
        }
        let counts = Arc::new(StreamCounts::default());
        let open: Vec<_> = (0..3).map(|_| OpenStream::new(counts.clone())).collect();
        counts.close(StreamClose::Cut);
        assert_eq!((counts.open(), counts.closed(StreamClose::Cut), counts.closed(StreamClose::Shift)), (3, 1, 0));
        drop(open);
        assert_eq!(counts.open(), 0);
    }
}
