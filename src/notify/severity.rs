//! How much each kind of event matters, and which kinds say that a matter is over.

use crate::model::{EventKind, Severity};

/// How much an event of this kind matters. What people do on purpose is news for those who want all news.
pub(super) fn severity_of(kind: EventKind) -> Severity {
    use EventKind as Kind;
    match kind {
        Kind::Rollback | Kind::RolloutRolledBack => Severity::Critical,
        Kind::Brake
        | Kind::Probe
        | Kind::HoldSlo
        | Kind::SplitOff
        | Kind::VersionDisabled
        | Kind::RolloutPaused
        | Kind::RolloutGoingBack
        | Kind::RolloutAborted
        | Kind::ReloadFailed => Severity::Warning,
        Kind::ServiceAdded
        | Kind::SplitSet
        | Kind::SplitCleared
        | Kind::BrakeReleased
        | Kind::PinSet
        | Kind::PinCleared
        | Kind::HoldSet
        | Kind::HoldCleared
        | Kind::BaselineSet
        | Kind::VersionPut
        | Kind::VersionDeleted
        | Kind::KeysRotated
        | Kind::MaintenanceOn
        | Kind::MaintenanceOff
        | Kind::VersionEnabled
        | Kind::RolloutStarted
        | Kind::RolloutBegun
        | Kind::RolloutStep
        | Kind::RolloutPassed
        | Kind::RolloutCompleted
        | Kind::RolloutResumed
        | Kind::RolloutPromoted
        | Kind::RolloutGate
        | Kind::RolloutRetried
        | Kind::RolloutCounted
        | Kind::FreezeSet
        | Kind::FreezeCleared
        | Kind::SnapshotTaken
        | Kind::SnapshotRestored
        | Kind::SnapshotDeleted
        | Kind::Reloaded
        | Kind::Started => Severity::Info,
    }
}

/// The kind under which an event of this kind is told. A rollout that went back is told together with the rollback that
/// took it back, or nobody would sleep through either.
pub(super) fn told_as(kind: EventKind) -> EventKind {
    match kind {
        EventKind::RolloutRolledBack => EventKind::Rollback,
        kind => kind,
    }
}

/// What an event says to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing.
    Nothing,
    /// Everything about its service, group or tenant.
    Scope,
    /// Everything about its service, for all groups and tenants.
    Service,
    /// Everything about its version.
    Version,
    /// What is of this kind, about its service, group or tenant.
    Kind(EventKind),
}

/// What an event of this kind says to be over.
pub(super) fn over(kind: EventKind) -> Over {
    match kind {
        EventKind::SplitSet | EventKind::SplitCleared => Over::Scope,
        EventKind::BaselineSet | EventKind::SnapshotRestored => Over::Service,
        EventKind::VersionDeleted | EventKind::VersionEnabled => Over::Version,
        // Somebody tries the version again, or all is well.
        EventKind::RolloutBegun | EventKind::RolloutRetried | EventKind::RolloutCompleted => Over::Version,
        EventKind::RolloutResumed => Over::Kind(EventKind::RolloutPaused),
        EventKind::BrakeReleased => Over::Kind(EventKind::Brake),
        _ => Over::Nothing,
    }
}
