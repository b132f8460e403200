//! The freeze: while it stands, no automation advances anything.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::answers::{AuthorSchema, time};
use super::asked::ReceiptAnswer;
use super::asked_global::AskedGlobal;
use super::body::Body;
use super::context::Cx;
use super::precondition::tagged;
use super::problem::{Problem, echo};
use crate::config::read_duration;
use crate::model::{Author, Freeze, GlobalChange};

/// Why, and until when.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FreezeBody {
    /// Why; people who wait for their rollout read it.
    #[schema(example = "the database moves")]
    pub reason: String,
    /// When it ends by itself: a time with its offset, within 366 days.
    #[schema(example = "2026-12-01T06:00:00Z")]
    pub until: Option<String>,
    /// For how long, instead of `until`: `1s` to `366d`. Without both, until somebody ends it.
    #[schema(example = "2h")]
    pub r#for: Option<String>,
}

/// A freeze that stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Freeze)]
pub(super) struct FreezeAnswer {
    #[schema(value_type = AuthorSchema)]
    pub author: Author,
    pub reason: String,
    pub since: String,
    /// When it ends by itself; null: when somebody ends it.
    #[schema(required)]
    pub until: Option<String>,
}

/// How it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FreezeDocument)]
pub(super) struct FreezeDocument {
    /// Null: nothing is frozen. A freeze that has ended is none.
    #[schema(required)]
    freeze: Option<FreezeAnswer>,
    /// Revision of the freeze, for `If-Match`; 0 when there is none.
    revision: u64,
}

impl FreezeAnswer {
    pub(super) fn new(freeze: &Freeze) -> Self {
        Self {
            author: freeze.author.clone(),
            reason: freeze.reason.clone(),
            since: time(freeze.since_ms),
            until: freeze.until_ms.map(time),
        }
    }
}

/// Whether automation may advance
#[utoipa::path(
    get, path = "/v1/freeze", tag = "process",
    responses((status = 200, description = "The freeze that stands, if one does", body = FreezeDocument)),
)]
pub(super) async fn get_freeze(State(cx): State<Cx>) -> Response {
    let view = cx.control.view();
    let freeze = view.state.freeze_at(now_ms());
    let revision = freeze.map_or(0, |freeze| freeze.revision);
    tagged(revision, Json(FreezeDocument { freeze: freeze.map(FreezeAnswer::new), revision }))
}

/// Forbid automation to advance anything
///
/// Rollouts of all services stop where they are; shifting back goes on. Repeating it changes reason and end.
#[utoipa::path(
    put, path = "/v1/freeze", tag = "process",
    request_body = FreezeBody,
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn put_freeze(asked: AskedGlobal, Body(body): Body<FreezeBody>) -> Result<Response, Problem> {
    if body.reason.trim().is_empty() {
        return Err(Problem::invalid("reason", "is empty; say in a sentence why nothing may advance"));
    }
    let until_ms = match (&body.until, &body.r#for) {
        (None, None) => None,
        (Some(until), None) => Some(read_until(until)?),
        (None, Some(span)) => Some(now_ms() + read_span(span)?),
        (Some(_), Some(_)) => return Err(Problem::invalid("for", "stands beside until; allowed is one of them")),
    };
    let current = asked.view().state.freeze_at(now_ms()).map_or(0, |freeze| freeze.revision);
    let receipt = asked.submit(GlobalChange::SetFreeze { until_ms }, Some(body.reason), current).await?;
    Ok(receipt)
}

/// Allow automation to advance again
#[utoipa::path(
    delete, path = "/v1/freeze", tag = "process",
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn delete_freeze(asked: AskedGlobal) -> Result<Response, Problem> {
    let current = asked.view().state.freeze_at(now_ms()).map_or(0, |freeze| freeze.revision);
    let receipt = asked.submit(GlobalChange::ClearFreeze, None, current).await?;
    Ok(receipt)
}

/// Milliseconds since the Unix epoch: what until-times are compared with.
pub(super) fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// A freeze as the history shows it; none when it is not one.
pub(super) fn shown(stored: &Value) -> Option<Value> {
    let freeze = serde_json::from_value::<Freeze>(stored.clone()).ok()?;
    serde_json::to_value(FreezeAnswer::new(&freeze)).ok()
}

fn read_until(text: &str) -> Result<u64, Problem> {
    let time: Option<jiff::Timestamp> = text.parse().ok();
    time.and_then(|t| u64::try_from(t.as_millisecond()).ok()).ok_or_else(|| {
        let text = echo(text);
        Problem::invalid(
            "until",
            format!("{text:?} is no time with its offset; allowed is such as 2026-12-01T06:00:00Z"),
        )
    })
}

fn read_span(text: &str) -> Result<u64, Problem> {
    let span = read_duration(text).ok().and_then(|span| u64::try_from(span.as_millis()).ok());
    span.filter(|ms| (1_000..=Freeze::MAX_MS).contains(ms)).ok_or_else(|| {
        Problem::invalid("for", format!("{:?} is not a duration from 1s to 366d, such as 2h", echo(text)))
    })
}
