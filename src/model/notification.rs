//! What people can ask about notifications: the targets and how they fare. Nothing here is secret.

use super::event::EventKind;
use super::names::ServiceName;
use super::severity::Severity;

/// A target and how it fares since it began.
#[derive(Debug, Clone, PartialEq)]
pub struct NotifyReport {
    /// Its name.
    pub name: String,
    /// `slack`, `pagerduty`, `email` or `webhook`.
    pub type_name: &'static str,
    /// Scheme, host and port of its receiver, without a path.
    pub address: String,
    /// The least severity that is told of.
    pub severity: Severity,
    /// Only events of these services; empty: all.
    pub services: Vec<ServiceName>,
    /// Only events of these kinds; empty: all.
    pub kinds: Vec<EventKind>,
    /// What became of its messages.
    pub counts: NotifyCounts,
    /// Messages that wait.
    pub waiting: u64,
    /// The last attempt; none before the first.
    pub last: Option<NotifyAttempt>,
}

/// What became of a target's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotifyCounts {
    /// Taken by the receiver.
    pub sent: u64,
    /// Given up.
    pub failed: u64,
    /// Attempts that were repeated.
    pub retried: u64,
    /// Dropped because too many waited.
    pub dropped: u64,
    /// Events that were told before.
    pub suppressed: u64,
}

/// One attempt to tell somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyAttempt {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Whether the receiver took the message.
    pub ok: bool,
    /// What happened, in words.
    pub detail: String,
}

/// What a test message came to.
#[derive(Debug, Clone, PartialEq)]
pub struct NotifyTest {
    /// The target.
    pub name: String,
    /// Whether the receiver took it.
    pub ok: bool,
    /// What happened, in words.
    pub detail: String,
    /// How long it took, seconds.
    pub seconds: f64,
}
