//! Answers that several handlers share: splits, holds, events, and how stored values are shown.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::maintenance::MaintenanceAnswer;
use crate::config::version_to_json;
use crate::model::{
    Author, Disabled, Event, EventKind, GroupName, Hold, Maintenance, RolledBack, RolloutId, Scope, ServiceName,
    ServiceState, Split, TenantName, VersionName, VersionSpec, Weights,
};

/// A split in effect.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Split)]
pub(super) struct SplitAnswer {
    /// Percent by version, in effect.
    #[schema(value_type = BTreeMap<String, f64>)]
    pub weights: Weights,
    /// What was asked for, while a brake holds some of it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, f64>>)]
    pub intended: Option<Weights>,
    /// Revision at which the shares in effect were set.
    pub epoch: u64,
    /// Revision at which the split was last decided, brakes not counted.
    pub attempt: u64,
    /// Whose split it is: `service`, `group NAME` or `tenant NAME`.
    pub source: String,
    /// Whether a canary's share is held back.
    pub braked: bool,
    /// Set after a rollback until the split is set again.
    #[schema(required)]
    pub rolled_back: Option<RolledBackAnswer>,
}

/// What a rollback left behind.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RolledBack)]
pub(super) struct RolledBackAnswer {
    /// The version that lost its traffic.
    #[schema(value_type = String)]
    pub version: VersionName,
    /// When.
    pub at: String,
    /// The event that tells why.
    pub event: u64,
}

/// A person's word that automation may not advance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hold)]
pub(super) struct HoldAnswer {
    #[schema(value_type = AuthorSchema)]
    author: Author,
    reason: String,
    since: String,
}

/// A person's word that a version gets no traffic.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Disabled)]
pub(super) struct DisabledAnswer {
    #[schema(value_type = AuthorSchema)]
    author: Author,
    reason: String,
    since: String,
}

/// Who did something: `person` with a name, `autopilot` or `file`.
#[derive(ToSchema)]
#[schema(as = Author)]
#[expect(dead_code, reason = "describes the model's type, which knows nothing of schemas")]
pub(super) struct AuthorSchema {
    kind: String,
    /// Name of the token; `local` where no token is needed.
    name: Option<String>,
}

/// One entry of the history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventAnswer {
    /// The place to resume from.
    pub id: u64,
    /// Revision of the state that the event made or saw.
    pub revision: u64,
    /// When.
    pub at: String,
    /// What happened.
    #[schema(value_type = String, example = "rollback")]
    pub kind: EventKind,
    /// Service concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub service: Option<ServiceName>,
    /// Tenant concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantName>,
    /// Group concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub group: Option<GroupName>,
    /// Rollout concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub rollout: Option<RolloutId>,
    /// Version concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub version: Option<VersionName>,
    /// Who did it.
    #[schema(value_type = AuthorSchema)]
    pub author: Author,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One word for the reason of a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The document before.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(required = false)]
    pub before: Value,
    /// The document after.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(required = false)]
    pub after: Value,
    /// The counts and statistics that the change was based on. With rollbacks of the guard, `series` has the minutes before:
    /// `seconds` (length of a bucket), `begin_ms` (of the first one, since the Unix epoch), and for `baseline` and `canary`
    /// their `version` and, by bucket, `requests` and `failed`, as the proxy that took traffic back counted them.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(required = false)]
    pub evidence: Value,
    /// Milliseconds from the first bad request until traffic was back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad_to_rollback_ms: Option<u64>,
}

impl SplitAnswer {
    /// The split of an owner, bars of the service considered.
    pub(super) fn new(live: &ServiceState, split: &Split, owner: &Scope) -> Self {
        let weights = live.weights_in_effect(split);
        let bar = split.weights().iter().find_map(|(v, _)| live.barred(v, split).map(|b| b.rolled_back.clone()));
        Self {
            intended: split.brake.as_ref().map(|_| split.intended()).filter(|i| *i != weights),
            weights,
            epoch: split.epoch,
            attempt: split.attempt,
            source: owner.to_string(),
            braked: split.brake.is_some(),
            rolled_back: split.rolled_back.clone().or(bar).map(RolledBackAnswer::from),
        }
    }
}

impl From<RolledBack> for RolledBackAnswer {
    fn from(left: RolledBack) -> Self {
        Self { version: left.version, at: time(left.at_ms), event: left.event }
    }
}

impl DisabledAnswer {
    pub(super) fn new(disabled: &Disabled) -> Self {
        let Disabled { author, reason, since_ms, unknown: _ } = disabled;
        Self { author: author.clone(), reason: reason.clone(), since: time(*since_ms) }
    }
}

impl HoldAnswer {
    pub(super) fn new(hold: &Hold) -> Self {
        Self { author: hold.author.clone(), reason: hold.reason.clone(), since: time(hold.since_ms) }
    }
}

impl EventAnswer {
    pub(super) fn new(event: &Event) -> Self {
        Self {
            id: event.id,
            revision: event.revision,
            at: time(event.at_ms),
            kind: event.kind,
            service: event.service.clone(),
            tenant: event.tenant.clone(),
            group: event.group.clone(),
            rollout: event.rollout.clone(),
            version: event.version.clone(),
            author: event.author.clone(),
            reason: Some(event.reason.clone()).filter(|r| !r.is_empty()),
            cause: event.cause.clone(),
            before: present(Some(event.kind), &event.before),
            after: present(Some(event.kind), &event.after),
            evidence: event.evidence.clone(),
            first_bad_to_rollback_ms: event.first_bad_to_rollback_ms,
        }
    }
}

/// A document of the history as the API shows it elsewhere: versions with the fields of the file, times as text.
pub(super) fn present(kind: Option<EventKind>, stored: &Value) -> Value {
    let shown = match kind {
        Some(EventKind::VersionPut | EventKind::VersionDeleted) => {
            serde_json::from_value::<VersionSpec>(stored.clone()).ok().map(|spec| version_to_json(&spec))
        }
        Some(EventKind::HoldSet | EventKind::HoldCleared) => {
            serde_json::from_value::<Hold>(stored.clone()).ok().map(|hold| json!(HoldAnswer::new(&hold)))
        }
        Some(EventKind::FreezeSet | EventKind::FreezeCleared) => super::freeze::shown(stored),
        Some(EventKind::MaintenanceOn | EventKind::MaintenanceOff) => {
            serde_json::from_value::<Maintenance>(stored.clone()).ok().map(|m| json!(MaintenanceAnswer::new(&m)))
        }
        _ => None,
    };
    // A document of an older release may look different; it is then shown as it is.
    shown.unwrap_or_else(|| stored.clone())
}

/// RFC 3339.
pub(super) fn time(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(jiff::Timestamp::MAX).to_string()
}
