//! Who is told of what happens, and whether they can be reached. Addresses and keys are never shown.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answers::time;
use super::bodies::NotifyTestBody;
use super::body::MaybeBody;
use super::context::Cx;
use super::problem::Problem;
use crate::model::{EventKind, NotifyReport, NotifyTest, ServiceName, Severity};

/// Who is told.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotifyTargets)]
pub(super) struct TargetsAnswer {
    /// In the order of the file.
    targets: Vec<TargetAnswer>,
}

/// Somebody who is told.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotifyTarget)]
pub(super) struct TargetAnswer {
    name: String,
    /// `slack`, `pagerduty`, `email` or `webhook`.
    r#type: &'static str,
    /// Scheme, host and port of the receiver; its path may be a secret.
    address: String,
    /// The least severity that is told of: `info`, `warning` or `critical`.
    #[schema(value_type = String)]
    severity: Severity,
    /// Only events of these services; empty: all.
    #[schema(value_type = Vec<String>)]
    services: Vec<ServiceName>,
    /// Only events of these kinds; empty: all.
    #[schema(value_type = Vec<String>)]
    kinds: Vec<EventKind>,
    /// Messages that the receiver took.
    sent: u64,
    /// Messages that were given up.
    failed: u64,
    /// Attempts that were repeated.
    retried: u64,
    /// Messages that were dropped because too many waited.
    dropped: u64,
    /// Events that were told before and only counted.
    suppressed: u64,
    /// Messages that wait.
    waiting: u64,
    /// The last attempt; none before the first.
    #[schema(required)]
    last: Option<AttemptAnswer>,
}

/// One attempt to tell somebody.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotifyAttempt)]
pub(super) struct AttemptAnswer {
    at: String,
    /// Whether the receiver took the message.
    ok: bool,
    /// What happened.
    detail: String,
}

/// What test messages came to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotifyTests)]
pub(super) struct TestsAnswer {
    /// Whether every receiver took its message.
    ok: bool,
    results: Vec<TestAnswer>,
}

/// What a test message came to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotifyTest)]
pub(super) struct TestAnswer {
    target: String,
    /// Whether the receiver took it.
    ok: bool,
    /// What happened.
    detail: String,
    seconds: f64,
}

/// Who is told of what happens
#[utoipa::path(
    get, path = "/v1/notify", tag = "process",
    responses((status = 200, description = "The targets and how they fare", body = TargetsAnswer)),
)]
pub(super) async fn get_notify(State(cx): State<Cx>) -> Json<TargetsAnswer> {
    Json(TargetsAnswer { targets: (cx.notify.targets)().into_iter().map(TargetAnswer::from).collect() })
}

/// Send a test message
///
/// To one target or to all of them at once. Each is tried once; PagerDuty's incident is resolved at once.
#[utoipa::path(
    post, path = "/v1/notify/test", tag = "process",
    request_body(content = Option<NotifyTestBody>),
    responses((status = 200, description = "What came of each", body = TestsAnswer)),
)]
pub(super) async fn test_notify(
    State(cx): State<Cx>,
    MaybeBody(body): MaybeBody<NotifyTestBody>,
) -> Result<Json<TestsAnswer>, Problem> {
    let known = (cx.notify.targets)();
    if let Some(target) = &body.target
        && !known.iter().any(|t| t.name == *target)
    {
        return Err(Problem::unknown("target", target, known.iter().map(|t| t.name.as_str())));
    }
    let results: Vec<_> = (cx.notify.test)(body.target).await.into_iter().map(TestAnswer::from).collect();
    Ok(Json(TestsAnswer { ok: results.iter().all(|r| r.ok), results }))
}

impl From<NotifyReport> for TargetAnswer {
    fn from(report: NotifyReport) -> Self {
        let NotifyReport { name, type_name, address, severity, services, kinds, counts, waiting, last } = report;
        Self {
            name,
            r#type: type_name,
            address,
            severity,
            services,
            kinds,
            sent: counts.sent,
            failed: counts.failed,
            retried: counts.retried,
            dropped: counts.dropped,
            suppressed: counts.suppressed,
            waiting,
            last: last.map(|last| AttemptAnswer { at: time(last.at_ms), ok: last.ok, detail: last.detail }),
        }
    }
}

impl From<NotifyTest> for TestAnswer {
    fn from(NotifyTest { name, ok, detail, seconds }: NotifyTest) -> Self {
        Self { target: name, ok, detail, seconds }
    }
}
