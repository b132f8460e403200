//! Plain values that every room shares: names, shares, splits, the structure of services and the state.
//!
//! Nothing here does I/O, reads a clock or draws a random number. Time and randomness come in as parameters, so every
//! function gives the same answer in every process and in every test.

mod apply;
mod apply_bars;
mod apply_chain;
mod apply_global;
mod apply_operations;
mod apply_rollout;
mod apply_settings;
mod apply_units;
mod change;
mod deprecation;
mod document;
mod event;
mod global;
mod guard;
mod json_path;
mod limits;
mod maintenance;
mod names;
mod notification;
mod rate;
mod reach;
mod recall;
mod restore;
mod rollout;
mod route_pattern;
mod schedule;
mod severity;
mod shadow;
mod share;
mod signing_secret;
mod snapshot;
mod spec;
mod split;
mod state;
mod stored;
mod streams;
mod tenant_map;
mod unknown;
mod updated;

pub use apply_rollout::archived_units;
pub use change::{Applied, Change, ChangeError, ChangeRequest, NewRollout, PinTarget, RolloutCommand, scope_of};
pub use deprecation::Deprecation;
pub use document::{Commit, DOCUMENT_FORMAT, Document, DocumentKey};
pub use event::{Author, Event, EventKind, EventQuery};
pub use global::{Freeze, GlobalChange, GlobalRequest};
pub use guard::{GuardSpec, PlainLimits};
pub use json_path::{JsonPath, JsonPathError, PathSegment};
pub use limits::{Limit, LimitOverride, LimitsSpec, WithoutTenant};
pub use maintenance::{Disabled, InMaintenance, Maintenance, MaintenanceSpec};
pub use names::{GroupName, NameError, RolloutId, ServiceName, SnapshotName, TenantName, UserName, VersionName};
pub use notification::{NotifyAttempt, NotifyCounts, NotifyReport, NotifyTest};
pub use rate::Rate;
pub use reach::{OutOfReach, Reach};
pub use recall::Recalls;
pub use restore::{Restore, ServiceRestore, SplitStep, Withheld};
#[cfg(test)]
pub(crate) use rollout::plan as plan_of;
pub use rollout::{
    BlastRadius, Counts, Gate, GateAt, GateRecord, GoingBack, Input, OnInsufficient, Order, PAGE, Pause, PauseKind,
    Phase, Rollout, RolloutSpec, SpecError, Stage, Step, Target, Tolerance, Unit, UnitStatus, Units,
};
pub use route_pattern::{RoutePattern, RoutePatternError, RouteSegment};
pub use schedule::{Blackout, NoTime, Schedule, ScheduleError, TimeOfDay, TimeWindow, Weekday, Zone};
pub use severity::Severity;
pub use shadow::ShadowSpec;
pub use share::{BUCKETS, BasisPoints, ShareError, Weights};
pub use signing_secret::{SigningSecret, SigningSecretError};
pub use snapshot::{ServiceSnapshot, Snapshot, SnapshotCounts, SnapshotSummary, Snapshots, SplitSnapshot};
pub use spec::{
    ChooseSpec, ClientFiles, Conflict, EndpointError, EndpointSpec, HeaderSpec, HealthSpec, JwtKey, JwtSpec, KeySource,
    MatchRule, RescueSpec, Rewrite, ServiceSpec, SessionSpec, Sticky, Structure, TenantSource, TenantsSpec, Timeouts,
    UnknownTenant, UpstreamTls, VersionSpec,
};
pub use split::{Brake, Bucket, RolledBack, Slice, Slices, Split, derive_salt};
pub use state::{Bar, Hold, LiveRollout, Pin, Pins, Scope, ServiceState, State, TenantState};
pub use stored::DocumentError;
pub use streams::{OnShift, StreamsSpec};
pub use tenant_map::TenantMap;
pub use unknown::Unknown;
pub use updated::Updated;
