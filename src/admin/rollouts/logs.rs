//! The log of a rollout: what became of each tenant, and what happened in which order.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::answers::EventAnswer;
use super::super::context::{Cx, Shared};
use super::super::parameters::{Names, Parameters, read_name};
use super::super::problem::{Problem, did_you_mean, echo};
use super::answers::UnitAnswer;
use super::find;
use crate::model::{EventQuery, LiveRollout, PAGE, Rollout, Scope, TenantName, Unit, UnitStatus, archived_units};
use crate::store::MAX_EVENTS;

/// Units and events of an answer unless the request says otherwise.
const LISTED: u64 = 100;
/// The most of them.
const MAX_LISTED: u64 = 1_000;

/// What became of a rollout's units, and what happened.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RolloutLogs)]
pub(in crate::admin) struct LogsAnswer {
    /// In the order in which they go.
    units: Vec<UnitAnswer>,
    /// Pass it as `after` for the next page of units; none after the last one.
    #[schema(required)]
    next: Option<u32>,
    /// What happened to the rollout, oldest first; only with the first page.
    events: Vec<EventAnswer>,
}

/// The log of a rollout
#[utoipa::path(
    get, path = "/v1/rollouts/{id}/logs", tag = "rollouts",
    params(
        ("tenant" = Option<String>, Query, description = "Only this tenant"),
        ("status" = Option<String>, Query, description = "Only units of this status"),
        ("after" = Option<u64>, Query, description = "Only units after the one of this number"),
        ("limit" = Option<u64>, Query, description = "At most so many units and events, 1 to 1000; 100 unless given"),
    ),
    responses((status = 200, description = "Units and events", body = LogsAnswer)),
)]
pub(in crate::admin) async fn rollout_logs(
    State(cx): State<Cx>,
    names: Names,
    parameters: Parameters,
) -> Result<Json<LogsAnswer>, Problem> {
    let parameters = parameters.only(&["tenant", "status", "after", "limit"], &[])?;
    let tenant: Option<TenantName> = parameters.text("tenant").map(|t| read_name("tenant", t)).transpose()?;
    let status = parameters.text("status").map(status).transpose()?;
    let after = parameters.number("after", 0..=u64::from(u32::MAX))?.map_or(0, |after| after as u32);
    let limit = parameters.number("limit", 1..=MAX_LISTED)?.unwrap_or(LISTED) as usize;
    let live = find(&cx, &names.rollout()?)?;
    let units = units(&cx, &live).await?;
    let scope = tenant.clone().map(Scope::Tenant);
    let wanted = |unit: &Unit| {
        scope.as_ref().is_none_or(|scope| unit.scope == *scope) && status.is_none_or(|status| unit.status == status)
    };
    let numbered = units.iter().enumerate().skip(after as usize).filter(|(_, unit)| wanted(unit));
    let page: Vec<_> = numbered.take(limit + 1).collect();
    let next = (page.len() > limit).then(|| page[limit - 1].0 as u32 + 1);
    let shown = page.into_iter().take(limit);
    let units = shown.map(|(place, unit)| UnitAnswer::new(&live.rollout, place as u32, unit)).collect();
    let events = if after == 0 { events(&cx, &live.rollout, tenant, limit).await? } else { Vec::new() };
    Ok(Json(LogsAnswer { units, next, events }))
}

/// A status by its name.
pub(in crate::admin) fn status(text: &str) -> Result<UnitStatus, Problem> {
    UnitStatus::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
        let known = || UnitStatus::ALL.into_iter().map(UnitStatus::as_str);
        let (list, guess) = (known().collect::<Vec<_>>().join(", "), did_you_mean(text, known()));
        Problem::bad("status", format!("{:?} is no status; there are: {list}{guess}", echo(text)))
    })
}

/// The units from memory, or from the archive once another rollout has begun.
async fn units(cx: &Shared, live: &LiveRollout) -> Result<Vec<Unit>, Problem> {
    if !live.units.is_empty() {
        return Ok(live.units.iter().cloned().collect());
    }
    archived(cx, live).await
}

/// The units from the archive.
pub(in crate::admin) async fn archived(cx: &Shared, live: &LiveRollout) -> Result<Vec<Unit>, Problem> {
    let mut units = Vec::new();
    for page in 0..live.rollout.counts.total().div_ceil(PAGE as u32) {
        let key = archived_units(&live.rollout.id, page);
        let Some(document) = cx.control.document(&key).await? else { continue };
        let page: Vec<Unit> = serde_json::from_str(&document.body).map_err(|e| {
            let detail = format!("the units of {} cannot be read: {e}", live.rollout.id);
            Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "archive", detail)
        })?;
        units.extend(page);
    }
    Ok(units)
}

/// Events of the rollout, from the one that started it on.
async fn events(
    cx: &Shared,
    rollout: &Rollout,
    tenant: Option<TenantName>,
    limit: usize,
) -> Result<Vec<EventAnswer>, Problem> {
    let mut found = Vec::new();
    let mut after = rollout.first_event.saturating_sub(1);
    while found.len() < limit {
        let service = Some(rollout.service.clone());
        let query = EventQuery { after, service, tenant: tenant.clone(), limit: MAX_EVENTS, ..EventQuery::default() };
        let page = cx.control.events(query).await?;
        let Some(last) = page.last().map(|event| event.id) else { break };
        let whole = page.len() < MAX_EVENTS;
        found.extend(page.iter().filter(|e| e.rollout.as_ref() == Some(&rollout.id)).map(EventAnswer::new));
        after = last;
        let over = rollout.ended_ms.is_some_and(|end| page.iter().any(|e| e.at_ms > end + 60_000));
        if whole || over && rollout.phase.is_final() {
            break;
        }
    }
    found.truncate(limit);
    Ok(found)
}
