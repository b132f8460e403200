//! What became of the sessions' cookies, counted for each service.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What one request's session came to. The names are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SessionResult {
    /// No cookie came: a session begins.
    New,
    /// The session stays on its version.
    Kept,
    /// The same, and the client got the cookie anew for the time to come.
    Renewed,
    /// A rollback, an exclusion, a brake, a drain or the removal of its version ended the session; another begins.
    Overridden,
    /// Nothing came for longer than a session lasts; another begins.
    Expired,
    /// The cookie is one of this proxy, for another key, tenant or service; another session begins.
    Foreign,
    /// The cookie was never signed here, or altered since; another session begins.
    Forged,
}

impl SessionResult {
    /// Every result, in the order of its index.
    pub const ALL: [Self; 7] =
        [Self::New, Self::Kept, Self::Renewed, Self::Overridden, Self::Expired, Self::Foreign, Self::Forged];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Kept => "kept",
            Self::Renewed => "renewed",
            Self::Overridden => "overridden",
            Self::Expired => "expired",
            Self::Foreign => "foreign",
            Self::Forged => "forged",
        }
    }
}

/// Counts by result.
#[derive(Default)]
pub(super) struct SessionCounts([AtomicU64; SessionResult::ALL.len()]);

impl SessionCounts {
    pub(super) fn add(&self, result: SessionResult) {
        self.0[result as usize].fetch_add(1, Relaxed);
    }

    /// Counts by the index of the result; nothing while the service has no sessions.
    pub(super) fn read(&self) -> Option<[u64; SessionResult::ALL.len()]> {
        let counts = self.0.each_ref().map(|n| n.load(Relaxed));
        counts.iter().any(|n| *n > 0).then_some(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_its_own_place() {
        let counts = SessionCounts::default();
        assert_eq!(counts.read(), None);
        for (i, result) in SessionResult::ALL.into_iter().enumerate() {
            (0..=i).for_each(|_| counts.add(result));
        }
        assert_eq!(counts.read(), Some([1, 2, 3, 4, 5, 6, 7]));
        let names: std::collections::BTreeSet<_> = SessionResult::ALL.map(SessionResult::as_str).into();
        assert_eq!(names.len(), SessionResult::ALL.len());
    }
}
