//! Statistics over rollouts: how they ended, how long they took, and how fast what was bad went back.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::context::{Cx, Shared};
use super::super::parameters::{Parameters, read_name};
use super::super::problem::Problem;
use crate::control::View;
use crate::model::{EventKind, EventQuery, Phase, Rollout, ServiceName, VersionName};
use crate::store::MAX_EVENTS;

/// How rollouts went.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RolloutStatistics)]
pub(in crate::admin) struct StatisticsAnswer {
    /// Rollouts by phase.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub phases: BTreeMap<&'static str, u64>,
    /// Completed ones among those that are over, 0 to 1; none while none is over.
    #[schema(required)]
    pub success_rate: Option<f64>,
    /// From the first step to the end, of completed ones; none without any.
    #[schema(required)]
    pub duration_seconds: Option<Quantiles>,
    /// Tenants that went back alone, of all rollouts.
    pub tenants_rolled_back: u64,
    /// Tenants that were moved for good, of all rollouts.
    pub tenants_completed: u64,
    /// From the first bad request to traffic being back, of the last thousand rollbacks of the guard.
    #[schema(required)]
    pub first_bad_to_rollback_seconds: Option<Quantiles>,
    /// By service and version: tenants of which the version has the larger share by a split of their own.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, u64>>)]
    tenants_by_version: BTreeMap<ServiceName, BTreeMap<VersionName, u64>>,
}

/// Of several values.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Quantiles)]
pub(in crate::admin) struct Quantiles {
    pub count: usize,
    pub p50: f64,
    pub p90: f64,
    pub max: f64,
}

/// How rollouts went
#[utoipa::path(
    get, path = "/v1/rollouts/statistics", tag = "rollouts",
    params(("service" = Option<String>, Query, description = "Only rollouts of this service")),
    responses((status = 200, description = "Numbers over all rollouts that are listed", body = StatisticsAnswer)),
)]
pub(in crate::admin) async fn rollout_statistics(
    State(cx): State<Cx>,
    parameters: Parameters,
) -> Result<Json<StatisticsAnswer>, Problem> {
    let parameters = parameters.only(&["service"], &[])?;
    let service: Option<ServiceName> = parameters.text("service").map(|t| read_name("service", t)).transpose()?;
    Ok(Json(gathered(&cx, service).await?))
}

/// The numbers over all rollouts that are listed, or those of one service.
pub(in crate::admin) async fn gathered(cx: &Shared, service: Option<ServiceName>) -> Result<StatisticsAnswer, Problem> {
    let view = cx.control.view();
    let wanted = |name: &ServiceName| service.as_ref().is_none_or(|s| s == name);
    let rollouts: Vec<_> =
        view.state.rollouts.values().map(|live| &live.rollout).filter(|r| wanted(&r.service)).collect();
    let mut phases = BTreeMap::new();
    rollouts.iter().for_each(|r| *phases.entry(r.phase.as_str()).or_default() += 1);
    let ended = rollouts.iter().filter(|r| r.phase.is_final()).count();
    let completed = || rollouts.iter().filter(|r| r.phase == Phase::Completed);
    let took = |r: &&&Rollout| Some(r.ended_ms?.saturating_sub(r.started_ms?) as f64 / 1_000.0);
    let durations = completed().filter_map(|r| took(&r)).collect();
    Ok(StatisticsAnswer {
        success_rate: (ended > 0).then(|| completed().count() as f64 / ended as f64),
        duration_seconds: quantiles(durations),
        tenants_rolled_back: rollouts.iter().map(|r| u64::from(r.counts.rolled_back)).sum(),
        tenants_completed: rollouts.iter().map(|r| u64::from(r.counts.completed)).sum(),
        first_bad_to_rollback_seconds: quantiles(rollback_times(cx, service.clone()).await?),
        tenants_by_version: tenants_by_version(&view, wanted),
        phases,
    })
}

async fn rollback_times(cx: &Shared, service: Option<ServiceName>) -> Result<Vec<f64>, Problem> {
    let kind = Some(EventKind::Rollback);
    let query = EventQuery { service, kind, limit: MAX_EVENTS, newest_first: true, ..EventQuery::default() };
    let events = cx.control.events(query).await?;
    Ok(events.iter().filter_map(|e| e.first_bad_to_rollback_ms).map(|ms| ms as f64 / 1_000.0).collect())
}

fn tenants_by_version(
    view: &View,
    wanted: impl Fn(&ServiceName) -> bool,
) -> BTreeMap<ServiceName, BTreeMap<VersionName, u64>> {
    let mut all = BTreeMap::new();
    for (service, tenants) in view.state.tenants.iter().filter(|(service, _)| wanted(service)) {
        let Some(live) = view.state.service(service.as_str()) else { continue };
        let counts: &mut BTreeMap<VersionName, u64> = all.entry(service.clone()).or_default();
        for own in tenants.values() {
            let weights = live.weights_in_effect(&own.split);
            if let Some((version, _)) = weights.iter().max_by_key(|(_, share)| *share) {
                *counts.entry(version.clone()).or_default() += 1;
            }
        }
    }
    all
}

fn quantiles(mut values: Vec<f64>) -> Option<Quantiles> {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values.get(((values.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied();
    Some(Quantiles { count: values.len(), p50: at(0.5)?, p90: at(0.9)?, max: at(1.0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        assert_eq!(quantiles(Vec::new()), None);
        let of = |n: usize| quantiles((1..=n).rev().map(|i| i as f64).collect()).unwrap();
        assert_eq!(of(1), Quantiles { count: 1, p50: 1.0, p90: 1.0, max: 1.0 });
        assert_eq!(of(10), Quantiles { count: 10, p50: 5.0, p90: 9.0, max: 10.0 });
    }
}
