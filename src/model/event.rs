//! What happened: one entry of the history for every change and for every notable thing the guard saw.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names::{GroupName, RolloutId, ServiceName, TenantName, VersionName};

/// What an event tells. The names are part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A service was seen for the first time.
    ServiceAdded,
    /// A split was set.
    SplitSet,
    /// A group or tenant follows the less specific split again.
    SplitCleared,
    /// All of a scope's traffic went back to the baseline.
    Rollback,
    /// A canary's share is held back while evidence is being confirmed.
    Brake,
    /// A brake was released.
    BrakeReleased,
    /// The split went to 50/50 because too little traffic was left on the baseline to compare with.
    Probe,
    /// Baseline and canary fail alike: nothing is shifted, nothing advances.
    HoldSlo,
    /// The realised shares are not those that were configured.
    SplitOff,
    /// A pin was set.
    PinSet,
    /// A pin was removed.
    PinCleared,
    /// Automation may not advance.
    HoldSet,
    /// Automation may advance again.
    HoldCleared,
    /// Another version is trusted now.
    BaselineSet,
    /// A version was registered or changed.
    VersionPut,
    /// A version was removed.
    VersionDeleted,
    /// A new key signs cookies.
    KeysRotated,
    /// A service's or a tenant's requests are answered with 503, or otherwise than before.
    MaintenanceOn,
    /// They are served again.
    MaintenanceOff,
    /// A version was taken out of every split.
    VersionDisabled,
    /// Splits and pins may name the version again.
    VersionEnabled,
    /// A rollout was asked for.
    RolloutStarted,
    /// A rollout's time has come.
    RolloutBegun,
    /// A step of a rollout took effect.
    RolloutStep,
    /// A step of a rollout proved itself, or its time was over.
    RolloutPassed,
    /// A rollout is complete.
    RolloutCompleted,
    /// A rollout does not go on by itself.
    RolloutPaused,
    /// A rollout goes on.
    RolloutResumed,
    /// A person approved a step, ended a bake or moved everyone at once.
    RolloutPromoted,
    /// A gate answered.
    RolloutGate,
    /// Traffic of a rollout goes back step by step.
    RolloutGoingBack,
    /// Traffic of a rollout went back.
    RolloutRolledBack,
    /// A person ended a rollout, and its traffic went back.
    RolloutAborted,
    /// A rollout was begun again.
    RolloutRetried,
    /// What a rollout has cost so far was written down.
    RolloutCounted,
    /// No automation may advance anything.
    FreezeSet,
    /// Automation may advance again.
    FreezeCleared,
    /// A snapshot was taken.
    SnapshotTaken,
    /// A service went back to a snapshot.
    SnapshotRestored,
    /// A snapshot was deleted.
    SnapshotDeleted,
    /// The configuration file was read again.
    Reloaded,
    /// The configuration file was read again and cannot be used; everything is as before.
    ReloadFailed,
    /// A process has started.
    Started,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 43] = [
        Self::ServiceAdded,
        Self::SplitSet,
        Self::SplitCleared,
        Self::Rollback,
        Self::Brake,
        Self::BrakeReleased,
        Self::Probe,
        Self::HoldSlo,
        Self::SplitOff,
        Self::PinSet,
        Self::PinCleared,
        Self::HoldSet,
        Self::HoldCleared,
        Self::BaselineSet,
        Self::VersionPut,
        Self::VersionDeleted,
        Self::KeysRotated,
        Self::MaintenanceOn,
        Self::MaintenanceOff,
        Self::VersionDisabled,
        Self::VersionEnabled,
        Self::RolloutStarted,
        Self::RolloutBegun,
        Self::RolloutStep,
        Self::RolloutPassed,
        Self::RolloutCompleted,
        Self::RolloutPaused,
        Self::RolloutResumed,
        Self::RolloutPromoted,
        Self::RolloutGate,
        Self::RolloutGoingBack,
        Self::RolloutRolledBack,
        Self::RolloutAborted,
        Self::RolloutRetried,
        Self::RolloutCounted,
        Self::FreezeSet,
        Self::FreezeCleared,
        Self::SnapshotTaken,
        Self::SnapshotRestored,
        Self::SnapshotDeleted,
        Self::Reloaded,
        Self::ReloadFailed,
        Self::Started,
    ];

    /// The name in the API and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceAdded => "service_added",
            Self::SplitSet => "split_set",
            Self::SplitCleared => "split_cleared",
            Self::Rollback => "rollback",
            Self::Brake => "brake",
            Self::BrakeReleased => "brake_released",
            Self::Probe => "probe",
            Self::HoldSlo => "hold_slo",
            Self::SplitOff => "split_off",
            Self::PinSet => "pin_set",
            Self::PinCleared => "pin_cleared",
            Self::HoldSet => "hold_set",
            Self::HoldCleared => "hold_cleared",
            Self::BaselineSet => "baseline_set",
            Self::VersionPut => "version_put",
            Self::VersionDeleted => "version_deleted",
            Self::KeysRotated => "keys_rotated",
            Self::MaintenanceOn => "maintenance_on",
            Self::MaintenanceOff => "maintenance_off",
            Self::VersionDisabled => "version_disabled",
            Self::VersionEnabled => "version_enabled",
            Self::RolloutStarted => "rollout_started",
            Self::RolloutBegun => "rollout_begun",
            Self::RolloutStep => "rollout_step",
            Self::RolloutPassed => "rollout_passed",
            Self::RolloutCompleted => "rollout_completed",
            Self::RolloutPaused => "rollout_paused",
            Self::RolloutResumed => "rollout_resumed",
            Self::RolloutPromoted => "rollout_promoted",
            Self::RolloutGate => "rollout_gate",
            Self::RolloutGoingBack => "rollout_going_back",
            Self::RolloutRolledBack => "rollout_rolled_back",
            Self::RolloutAborted => "rollout_aborted",
            Self::RolloutRetried => "rollout_retried",
            Self::RolloutCounted => "rollout_counted",
            Self::FreezeSet => "freeze_set",
            Self::FreezeCleared => "freeze_cleared",
            Self::SnapshotTaken => "snapshot_taken",
            Self::SnapshotRestored => "snapshot_restored",
            Self::SnapshotDeleted => "snapshot_deleted",
            Self::Reloaded => "reloaded",
            Self::ReloadFailed => "reload_failed",
            Self::Started => "started",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == name)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who asked for a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Author {
    /// A person or script, by the name of its token; `local` where no token is needed.
    Person {
        /// Name of the token.
        name: String,
    },
    /// The guard.
    Autopilot,
    /// The configuration file.
    File,
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person { name } => f.write_str(name),
            Self::Autopilot => f.write_str("autopilot"),
            Self::File => f.write_str("file"),
        }
    }
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with each event; the place to resume from.
    pub id: u64,
    /// Revision of the state that the event made or saw.
    pub revision: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    pub kind: EventKind,
    /// Service concerned; none for events about the whole proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Tenant concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
    /// Group concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// Rollout concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutId>,
    /// Version concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionName>,
    /// Who did it.
    pub author: Author,
    /// Why, in sentences for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Short word for metrics on rollbacks: `errors`, `slow`, `very_slow`, `client_errors`, `max_error_rate`, `max_p99`, `health`, `fleet`, `person`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The document before the change.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub before: Value,
    /// The document after the change.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub after: Value,
    /// The counts and statistics that the change was based on.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub evidence: Value,
    /// Milliseconds from the first bad request of the evidence until traffic was back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_bad_to_rollback_ms: Option<u64>,
}

impl Event {
    /// An event about the whole proxy, by the configuration file. The id is given when it is written.
    pub fn of_proxy(kind: EventKind, revision: u64, at_ms: u64) -> Self {
        Self {
            id: 0,
            revision,
            at_ms,
            kind,
            service: None,
            tenant: None,
            group: None,
            rollout: None,
            version: None,
            author: Author::File,
            reason: String::new(),
            cause: None,
            before: Value::Null,
            after: Value::Null,
            evidence: Value::Null,
            first_bad_to_rollback_ms: None,
        }
    }
}

/// Which events are wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EventQuery {
    /// Only events with a larger id.
    pub after: u64,
    /// Only events with a smaller id; none: up to the newest.
    pub before: Option<u64>,
    /// Only events of this service.
    pub service: Option<ServiceName>,
    /// Only events of this tenant.
    pub tenant: Option<TenantName>,
    /// Only events of this kind.
    pub kind: Option<EventKind>,
    /// At most this many, 1 to 1000.
    pub limit: usize,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
}

impl EventQuery {
    /// Whether an event is wanted, limit and order aside.
    pub fn wants(&self, event: &Event) -> bool {
        event.id > self.after
            && self.before.is_none_or(|before| event.id < before)
            && self.service.as_ref().is_none_or(|s| event.service.as_ref() == Some(s))
            && self.tenant.as_ref().is_none_or(|t| event.tenant.as_ref() == Some(t))
            && self.kind.is_none_or(|k| event.kind == k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_one_name_everywhere() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(EventKind::parse("nonsense"), None);
    }
}
