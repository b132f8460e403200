//! Changes: what people, files and the guard may ask for, and why they may be refused. All use the same door.

use std::sync::Arc;

use serde_json::Value;

use super::document::Commit;
use super::event::Author;
use super::names::{GroupName, RolloutId, ServiceName, TenantName, UserName, VersionName};
use super::rollout::{PauseKind, RolloutSpec, Stage, Unit};
use super::share::{BasisPoints, Weights};
use super::spec::VersionSpec;
use super::state::{Pin, Scope, State};

/// What shall change in a service.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A service of the file begins with its initial split.
    AddService,
    /// Sets the shares of a scope.
    SetSplit {
        /// Whose split.
        scope: Scope,
        /// The shares.
        weights: Weights,
    },
    /// Makes a group or tenant follow the less specific split again.
    ClearSplit {
        /// Whose split.
        scope: Scope,
    },
    /// All of a scope's traffic back to the baseline.
    Rollback {
        /// Whose traffic.
        scope: Scope,
        /// Only the share of this version; none: of every canary.
        canary: Option<VersionName>,
        /// One word for metrics, such as `errors` or `person`.
        cause: String,
        /// When the first bad request of the evidence was seen, in milliseconds since the Unix epoch.
        first_bad_ms: Option<u64>,
    },
    /// Holds a canary's share back.
    Brake {
        /// Whose split.
        scope: Scope,
        /// Which version.
        canary: VersionName,
        /// The share it keeps.
        share: BasisPoints,
    },
    /// Gives the share back.
    ReleaseBrake {
        /// Whose split.
        scope: Scope,
    },
    /// Half to the canary and half to the baseline, so that there is something to compare with.
    Probe {
        /// Whose split.
        scope: Scope,
        /// Which version.
        canary: VersionName,
    },
    /// Pins or excludes.
    SetPin(PinTarget, Pin),
    /// Removes a pin.
    ClearPin(PinTarget),
    /// Forbids automation to advance.
    SetHold,
    /// Allows automation to advance.
    ClearHold,
    /// Trusts another version.
    SetBaseline(VersionName),
    /// Registers or changes a version.
    PutVersion(VersionName, Arc<VersionSpec>),
    /// Removes a registered version.
    DeleteVersion(VersionName),
    /// Answers a service's or a tenant's requests with 503, or changes how.
    SetMaintenance {
        /// Only this tenant's.
        tenant: Option<TenantName>,
        /// What clients read; may be empty.
        message: String,
        /// When clients should try again, in seconds.
        retry_after_s: u64,
    },
    /// Serves them again.
    ClearMaintenance {
        /// Only this tenant's.
        tenant: Option<TenantName>,
    },
    /// Takes a version out of every split, at once.
    DisableVersion(VersionName),
    /// Lets splits and pins name the version again.
    EnableVersion(VersionName),
    /// Begins a rollout.
    StartRollout(Box<NewRollout>),
    /// Something happens to a rollout.
    Rollout(RolloutId, RolloutCommand),
}

/// A rollout that shall begin.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRollout {
    /// What it does.
    pub spec: RolloutSpec,
    /// Whose traffic it moves, batch after batch.
    pub batches: Vec<Vec<Scope>>,
    /// Whose traffic it leaves where it is, and why.
    pub left: Vec<Unit>,
}

/// What happens to a rollout. Stages fence: a command about another stage than the one that the rollout is in is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum RolloutCommand {
    /// Its time has come.
    Begin,
    /// Its step takes effect.
    Enter {
        /// The step.
        stage: Stage,
        /// Only for these units of the batch; none: for all that are not in it.
        only: Option<Vec<Scope>>,
    },
    /// Its step proved itself.
    Pass {
        /// The step.
        stage: Stage,
    },
    /// It is complete.
    Complete,
    /// All its traffic goes back.
    GoBack {
        /// One word, such as `tenants`.
        cause: String,
        /// Whatever the plan says about going back in steps.
        at_once: bool,
    },
    /// The next share on the way back.
    StepBack,
    /// It does not go on until a person says so.
    Hold(PauseKind),
    /// A gate answered.
    Gate {
        /// The name under which the answer is kept.
        key: String,
        /// Whether it is open.
        open: bool,
        /// What it said.
        said: String,
    },
    /// So many requests of users failed on the new version by now.
    Count {
        /// How many.
        failed_requests: u64,
    },
    /// A person stops the clock.
    Pause,
    /// A person lets it go on.
    Resume,
    /// A person approves the next step or ends the bake of this one.
    Promote {
        /// The step to enter next.
        stage: Option<Stage>,
        /// Everyone at once, wholly.
        full: bool,
    },
    /// A person takes everything back.
    Abort {
        /// Even past the point of no return.
        force: bool,
    },
    /// A person begins it again.
    Retry,
    /// A person takes a completed rollout back.
    Undo {
        /// Even past the point of no return.
        force: bool,
    },
}

/// Who is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinTarget {
    /// A tenant.
    Tenant(TenantName),
    /// A user.
    User(UserName),
    /// A group.
    Group(GroupName),
}

impl std::fmt::Display for PinTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::User(user) => write!(f, "user {user}"),
            Self::Group(group) => write!(f, "group {group}"),
        }
    }
}

/// A change with everything that decides whether it may happen.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeRequest {
    /// Which service.
    pub service: ServiceName,
    /// What shall change.
    pub change: Change,
    /// Who asks.
    pub author: Author,
    /// Why, in sentences.
    pub reason: String,
    /// The revision the author saw of the document concerned; another one refuses the change.
    pub if_revision: Option<u64>,
    /// The attempt the evidence was gathered under; another one refuses the change.
    pub if_attempt: Option<u64>,
    /// What the change is based on.
    pub evidence: Value,
}

/// Why a change is refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ChangeError {
    /// No such service.
    #[error("there is no service {name:?}; there are: {known}")]
    UnknownService {
        /// What was given.
        name: String,
        /// What there is.
        known: String,
    },
    /// No such version.
    #[error("service {service} has no version {version:?}; it has: {known}")]
    UnknownVersion {
        /// The service.
        service: ServiceName,
        /// What was given.
        version: VersionName,
        /// What there is.
        known: String,
    },
    /// No such group.
    #[error("there is no group {group:?}; tenants.groups in the configuration has: {known}")]
    UnknownGroup {
        /// What was given.
        group: GroupName,
        /// What there is.
        known: String,
    },
    /// There is nothing of that name to remove.
    #[error("{what} does not exist")]
    NotThere {
        /// What was to be removed.
        what: String,
    },
    /// The author saw an older state.
    #[error("the document changed in between: it is at revision {current}, the change was made against {expected}")]
    StaleRevision {
        /// What the author saw.
        expected: u64,
        /// What it is.
        current: u64,
    },
    /// The evidence belongs to an earlier split.
    #[error("the split was set again in between: it is at attempt {current}, the evidence is of attempt {expected}")]
    StaleAttempt {
        /// What the evidence is of.
        expected: u64,
        /// What it is.
        current: u64,
    },
    /// The version still has traffic, pins or the baseline.
    #[error("version {version} of {service} is in use: {uses}")]
    InUse {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// By what.
        uses: String,
    },
    /// The version is disabled.
    #[error(
        "version {version} of {service} is disabled by {author} ({reason}) and gets no traffic; enable it first: \
         switchback versions enable {service} {version}"
    )]
    Disabled {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// Who disabled it.
        author: String,
        /// Why, in quotes, or that there is no reason.
        reason: String,
    },
    /// No such rollout.
    #[error("there is no rollout {id:?} of {service}")]
    UnknownRollout {
        /// The service.
        service: ServiceName,
        /// What was given.
        id: RolloutId,
    },
    /// A service has one rollout at a time.
    #[error("rollout {id} of {service} is not over yet; abort it or wait for its end")]
    Running {
        /// The service.
        service: ServiceName,
        /// Its rollout.
        id: RolloutId,
    },
    /// The rollout is not where this could happen.
    #[error("rollout {id} {why}")]
    NotNow {
        /// The rollout.
        id: RolloutId,
        /// Where it is, and what is possible there.
        why: String,
    },
    /// The change makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The change is allowed and changes nothing; asked of the guard only.
    #[error("nothing to change: {0}")]
    Nothing(String),
}

/// A change that may happen: everything needed to commit and publish it.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The next state.
    pub state: State,
    /// What to write.
    pub commit: Commit,
    /// Revision of the document concerned after the change.
    pub document_revision: u64,
    /// The document concerned after the change.
    pub after: Value,
}

/// The scope that a change is about, if it is about the split of one.
pub fn scope_of(change: &Change) -> Option<&Scope> {
    match change {
        Change::SetSplit { scope, .. }
        | Change::ClearSplit { scope }
        | Change::Rollback { scope, .. }
        | Change::Brake { scope, .. }
        | Change::ReleaseBrake { scope }
        | Change::Probe { scope, .. } => Some(scope),
        _ => None,
    }
}
