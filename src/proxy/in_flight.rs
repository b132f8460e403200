//! How many requests the process works on at a time, of all services together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The word that such refusals are counted under.
pub(super) const WORD: &str = "too_many_requests";

/// Counts requests. Clones count together.
#[derive(Clone, Default)]
pub(super) struct InFlight(Arc<AtomicUsize>);

/// A request's place, given back when dropped.
pub(super) struct Working(Arc<AtomicUsize>);

impl InFlight {
    /// A place among `most`; none when all are taken.
    pub fn take(&self, most: usize) -> Option<Working> {
        // The place exists before the look, so that whatever happens it is counted down once.
        let before = self.0.fetch_add(1, Relaxed);
        let place = Working(self.0.clone());
        (before < most).then_some(place)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_by_those_that_got_one_and_those_that_did_not() {
        let all = InFlight::default();
        let (first, second) = (all.take(2), all.take(2));
        assert!(first.is_some() && second.is_some() && all.take(2).is_none() && all.take(2).is_none());
        drop(first);
        assert!(all.take(2).is_some());
        drop(second);
        assert_eq!(all.0.load(Relaxed), 0);
    }
}
