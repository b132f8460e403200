//! Rollouts and their units as people read them.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::answers::{AuthorSchema, time};
use super::super::describe::duration;
use crate::model::{
    Author, BasisPoints, Counts, Gate, GateAt, Rollout, RolloutId, RolloutSpec, Scope, ServiceName, Step, Target,
    TenantName, Unit, VersionName,
};
use crate::planning::Waiting;

/// A rollout.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rollout)]
pub(in crate::admin) struct RolloutAnswer {
    /// Its name.
    #[schema(value_type = String, example = "r17")]
    pub id: RolloutId,
    #[schema(value_type = String)]
    service: ServiceName,
    #[schema(value_type = String)]
    from: VersionName,
    #[schema(value_type = String)]
    to: VersionName,
    /// `pending`, `progressing`, `finishing`, `completed`, `going_back`, `rolled_back` or `aborted`.
    #[schema(value_type = String)]
    phase: &'static str,
    /// Where it is, or what comes next, as `batch.step`.
    step: String,
    /// Whether that step is in effect.
    in_effect: bool,
    /// Share of the new version in that step, in percent.
    #[schema(value_type = f64)]
    share: BasisPoints,
    /// How many batches there are.
    batches: u32,
    /// Set while it does not go on by itself: `kind`, `author`, `reason`, `since`.
    #[schema(required)]
    paused: Option<Value>,
    /// What it waits for: `on`, `message` and, where known, `until`.
    #[schema(required)]
    waiting: Option<Value>,
    /// Units by status, and `total`.
    counts: Value,
    /// Requests of users that failed on the new version, as far as they were written down.
    failed_requests: u64,
    /// Why it goes back or went back: `cause`, `author`, `reason`, `since`.
    #[schema(required)]
    going_back: Option<Value>,
    /// What the gates said last.
    gates: Value,
    #[schema(value_type = AuthorSchema)]
    author: Author,
    /// Why it was started.
    reason: String,
    created: String,
    #[schema(required)]
    started: Option<String>,
    #[schema(required)]
    ended: Option<String>,
    /// Until when the old version cannot be removed, so that the rollout can be undone; none unless it is complete.
    #[schema(required)]
    warm_until: Option<String>,
    /// How often it was begun again.
    retries: u32,
    /// The rollout that this one goes on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    follows: Option<RolloutId>,
    /// The rollout that goes on from this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    followed_by: Option<RolloutId>,
    /// Versions that it goes on to when it is complete, in this order.
    #[schema(value_type = Vec<String>)]
    then: Vec<VersionName>,
    /// Why it ended without going on to the next of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_followed: Option<String>,
    /// The plan, in the words in which it was started.
    plan: Value,
    /// Revision of the document, for `If-Match`.
    pub revision: u64,
}

impl RolloutAnswer {
    pub(super) fn new(rollout: &Rollout, waiting: Option<&Waiting>) -> Self {
        let spec = &rollout.spec;
        Self {
            id: rollout.id.clone(),
            service: rollout.service.clone(),
            from: spec.from.clone(),
            to: spec.to.clone(),
            phase: rollout.phase.as_str(),
            step: rollout.stage.to_string(),
            in_effect: rollout.in_effect,
            share: spec.steps.get(rollout.stage.step as usize).map_or(BasisPoints::ALL, |step| step.share),
            batches: rollout.batches(),
            paused: rollout.paused.as_ref().map(|pause| {
                json!({ "kind": pause.kind, "author": pause.author, "reason": pause.reason, "since": time(pause.since_ms) })
            }),
            waiting: waiting.map(|waiting| {
                json!({ "on": waiting.on, "message": waiting.message, "until": waiting.until_ms.map(time) })
            }),
            counts: counts(&rollout.counts),
            failed_requests: rollout.failed_requests,
            going_back: rollout.going_back.as_ref().map(|back| {
                json!({ "cause": back.cause, "author": back.author, "reason": back.reason, "since": time(back.since_ms) })
            }),
            gates: gates(rollout),
            author: rollout.author.clone(),
            reason: rollout.reason.clone(),
            created: time(rollout.created_ms),
            started: rollout.started_ms.map(time),
            ended: rollout.ended_ms.map(time),
            warm_until: rollout.warm_until_ms().map(time),
            retries: rollout.retries,
            follows: rollout.follows.clone(),
            followed_by: rollout.followed_by.clone(),
            then: spec.then.clone(),
            not_followed: rollout.not_followed.clone(),
            plan: plan(spec),
            revision: rollout.revision,
        }
    }
}

fn counts(counts: &Counts) -> Value {
    let mut value = json!(counts);
    value["total"] = json!(counts.total());
    value["failed"] = json!(counts.rolled_back);
    value
}

fn gates(rollout: &Rollout) -> Value {
    let record = |(key, record): (&String, &crate::model::GateRecord)| {
        let shown = json!({
            "open": record.open, "failures": record.failures, "said": record.said, "at": time(record.at_ms),
        });
        (key.clone(), shown)
    };
    Value::Object(rollout.gates.iter().map(record).collect())
}

fn span(ms: u64) -> String {
    duration(std::time::Duration::from_millis(ms))
}

/// The plan in the words in which it can be started again. Secrets are not among them.
fn plan(spec: &RolloutSpec) -> Value {
    let mut plan = json!({
        "from": spec.from,
        "to": spec.to,
        "steps": spec.steps.iter().map(step).collect::<Vec<_>>(),
        "on_insufficient": spec.on_insufficient,
        "min_requests": spec.min_requests,
        "keep": spec.keep,
        "tolerate": spec.tolerate,
        "keep_warm": span(spec.keep_warm_ms),
    });
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            plan[name] = value;
        }
    };
    add(
        "target",
        Some(match &spec.target {
            Target::Service => json!("service"),
            Target::Groups(groups) => json!({ "groups": groups }),
            Target::Tenants => json!("tenants"),
        }),
    );
    add("batch", spec.batch.map(|size| json!({ "size": size, "delay": span(spec.batch_delay_ms) })));
    add("canary", spec.canary.map(|share| json!(share)));
    let ordered = !spec.order.groups.is_empty() || spec.order.seed.is_some();
    add("order", ordered.then(|| json!({ "groups": spec.order.groups, "random": spec.order.seed })));
    let radius = &spec.blast_radius;
    let bounded = radius.tenants.is_some() || radius.failed_requests.is_some();
    add("blast_radius", bounded.then(|| json!(radius)));
    let back = !spec.back.is_empty();
    add("rollback", back.then(|| json!({ "steps": spec.back, "every": span(spec.back_every_ms) })));
    add("start_at", spec.start_at_ms.map(|at| json!(time(at))));
    add("windows", (!spec.schedule.windows.is_empty()).then(|| json!(spec.schedule.windows)));
    add("gates", (!spec.gates.is_empty()).then(|| json!(spec.gates.iter().map(gate).collect::<Vec<_>>())));
    add("then", (!spec.then.is_empty()).then(|| json!(spec.then)));
    plan
}

fn step(step: &Step) -> Value {
    let mut shown = json!({ "share": step.share, "bake": span(step.bake_ms), "max_bake": span(step.max_bake_ms) });
    if step.approval {
        shown["approval"] = json!(true);
    }
    if step.no_return {
        shown["no_return"] = json!(true);
    }
    shown
}

/// The path of an address may be what opens the door, so only where it leads is shown.
fn gate(gate: &Gate) -> Value {
    let mut shown = json!({
        "name": gate.name, "at": at(gate.at), "url": crate::webhook::origin(&gate.url),
        "signed": gate.secret.is_some(), "timeout": span(gate.timeout_ms),
    });
    if let Some(step) = gate.step {
        shown["step"] = json!(step);
    }
    shown
}

fn at(at: GateAt) -> &'static str {
    at.as_str()
}

/// What became of one unit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RolloutUnit)]
pub(super) struct UnitAnswer {
    /// `tenant`, `group` or `service`.
    scope: &'static str,
    /// Name of the tenant or group.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The tenant, when it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    tenant: Option<TenantName>,
    #[schema(value_type = String)]
    from: VersionName,
    #[schema(value_type = String)]
    to: VersionName,
    /// `pending`, `in_progress`, `completed`, `rolled_back`, `reverted`, `excluded` or `overridden`.
    status: &'static str,
    /// Its batch, counted from 1; none for tenants that went back out of a wider unit.
    #[schema(required)]
    batch: Option<u32>,
    /// The step in effect, counted from 1.
    #[schema(required)]
    step: Option<u32>,
    #[schema(required)]
    started: Option<String>,
    #[schema(required)]
    ended: Option<String>,
    /// Why it ended as it did.
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    /// Why it is where it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
    /// What that was based on.
    #[serde(skip_serializing_if = "Value::is_null")]
    evidence: Value,
    /// The event that tells of its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<u64>,
}

impl UnitAnswer {
    pub(super) fn new(rollout: &Rollout, place: u32, unit: &Unit) -> Self {
        use crate::model::UnitStatus as S;
        let (scope, name, tenant) = match &unit.scope {
            Scope::Service => ("service", None, None),
            Scope::Group(group) => ("group", Some(group.to_string()), None),
            Scope::Tenant(tenant) => ("tenant", Some(tenant.to_string()), Some(tenant.clone())),
        };
        let went_back = matches!(unit.status, S::RolledBack | S::Reverted);
        let (error, note) =
            if went_back { (unit.note.clone(), String::new()) } else { (String::new(), unit.note.clone()) };
        let batch = rollout.bounds.partition_point(|begin| *begin <= place);
        Self {
            scope,
            name,
            tenant,
            from: rollout.spec.from.clone(),
            to: rollout.spec.to.clone(),
            status: unit.status.as_str(),
            batch: (batch < rollout.bounds.len()).then_some(batch as u32),
            step: unit.step.map(|step| step + 1),
            started: unit.started_ms.map(time),
            ended: unit.ended_ms.map(time),
            error,
            note,
            evidence: unit.evidence.clone(),
            event: unit.event,
        }
    }
}
