//! What many runs come to.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::world::{End, Run};
use crate::model::{Rollout, Stage};
use crate::planning::{PlannedStep, Report};

/// Of several values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[schema(as = SimulatedQuantiles)]
pub struct Quantiles {
    /// Half of them are not larger.
    pub p50: f64,
    /// Nine of ten are not larger.
    pub p90: f64,
    /// The largest.
    pub max: f64,
}

/// The plan that was run.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = SimulatedPlan)]
pub struct Plan {
    /// The steps, the first hundred of them: `step`, `share`, `tenants`, `after_seconds`.
    #[schema(value_type = Vec<Object>)]
    pub steps: Vec<PlannedStep>,
    /// How many there are.
    pub steps_total: usize,
    /// Tenants that are moved one by one.
    pub tenants: usize,
    /// The shortest time that it can take.
    pub shortest_seconds: u64,
    /// The longest time without anybody's help; none: it may wait for a person somewhere.
    #[schema(required)]
    pub longest_seconds: Option<u64>,
}

/// How runs ended, each 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[schema(as = SimulatedEnds)]
pub struct Ends {
    /// Everyone went to the new version.
    pub completed: f64,
    /// It waited for a person, or did not end in the longest time of its plan and an hour.
    pub held: f64,
    /// All went back.
    pub went_back: f64,
}

/// Where bad versions were caught.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = SimulatedCatch)]
pub struct CaughtAt {
    /// The step, as `batch.step`.
    pub step: String,
    /// Share of the new version in that step, in percent.
    #[schema(value_type = f64)]
    pub share: crate::model::BasisPoints,
    /// Part of the runs that were caught there, 0 to 1.
    pub part: f64,
}

/// What becomes of a bad version.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = SimulatedRegression)]
pub struct Regressed {
    /// Rollouts that were run.
    pub runs: usize,
    /// Those that were still under way when the regression began; everything below is of these.
    pub reached: usize,
    /// Part of them in which traffic was taken back because of it, from a tenant at least; 0 to 1.
    pub detected: f64,
    /// From the begin of the regression to the first traffic that was taken back; none when it was never found.
    #[schema(required)]
    pub detection_seconds: Option<Quantiles>,
    /// Requests that failed on the new version from the begin of the regression to the end of the rollout.
    #[schema(required)]
    pub failed_requests: Option<Quantiles>,
    /// The same, less what the old version would have failed on average.
    #[schema(required)]
    pub extra_failed_requests: Option<Quantiles>,
    /// Tenants of whom one of these requests was; none without tenants.
    #[schema(required)]
    pub tenants_touched: Option<Quantiles>,
    /// In which step it was caught, by step.
    pub caught_at: Vec<CaughtAt>,
    /// What it was caught by: parts of the runs that were caught, by the cause of the rollback.
    pub causes: BTreeMap<String, f64>,
    /// How the rollouts ended.
    pub ends: Ends,
}

/// What becomes of a version that is as good as the old one.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = SimulatedHealthy)]
pub struct Healthy {
    /// Rollouts that were run.
    pub runs: usize,
    /// From the start to the end of those that completed; none when none did.
    #[schema(required)]
    pub duration_seconds: Option<Quantiles>,
    /// How the rollouts ended.
    pub ends: Ends,
    /// Part of the rollouts in which a share was held back for a while, 0 to 1.
    pub braked: f64,
    /// Rollouts in which traffic was taken back, from a tenant at least, per 1,000.
    pub false_alarms_per_1000: f64,
    /// With a confidence of 95 %, there are not more than this.
    pub false_alarms_per_1000_at_most: f64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Simulation)]
pub struct Answer {
    /// The seed; the same question with the same seed gives the same answer.
    pub seed: u64,
    /// Requests per second on average.
    pub rate: f64,
    /// The plan.
    pub plan: Plan,
    /// With the regression; none when none was asked about.
    #[schema(required)]
    pub regression: Option<Regressed>,
    /// When all is well.
    pub healthy: Healthy,
    /// What was not simulated, in sentences.
    pub assumptions: Vec<String>,
}

impl Quantiles {
    /// None of no values.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |part: f64| values.get(((values.len() as f64 * part).ceil() as usize).saturating_sub(1)).copied();
        Some(Self { p50: at(0.5)?, p90: at(0.9)?, max: at(1.0)? })
    }
}

impl Ends {
    fn of(runs: &[&Run]) -> Self {
        let of = |end: End| part(runs, |run| run.end == end);
        Self { completed: of(End::Completed), held: of(End::Held), went_back: of(End::WentBack) }
    }
}

impl Plan {
    pub(super) fn new(report: Report) -> Self {
        Self {
            steps: report.steps,
            steps_total: report.steps_total,
            tenants: report.tenants,
            shortest_seconds: report.shortest_seconds,
            longest_seconds: report.longest_seconds,
        }
    }
}

impl Regressed {
    pub(super) fn new(all: &[Run], after_ms: u64, rollout: &Rollout, has_tenants: bool) -> Self {
        let reached: Vec<&Run> = all.iter().filter(|run| !run.false_alarm && run.took_ms > after_ms).collect();
        let caught = || reached.iter().filter_map(|run| run.caught.as_ref());
        let each = |value: fn(&Run) -> f64| Quantiles::of(reached.iter().map(|run| value(run)).collect());
        let (mut stages, mut causes) = (BTreeMap::<Stage, usize>::new(), BTreeMap::<String, f64>::new());
        let count = caught().count().max(1) as f64;
        for catch in caught() {
            *stages.entry(catch.stage).or_default() += 1;
            *causes.entry(catch.cause.clone()).or_default() += 1.0 / count;
        }
        let at = |(stage, runs): (Stage, usize)| CaughtAt {
            step: stage.to_string(),
            share: rollout.spec.share_at(stage.step),
            part: runs as f64 / count,
        };
        Self {
            runs: all.len(),
            detected: part(&reached, |run| run.caught.is_some()),
            detection_seconds: Quantiles::of(caught().map(|c| (c.at_ms - after_ms) as f64 / 1_000.0).collect()),
            failed_requests: each(|run| run.failed as f64),
            extra_failed_requests: each(|run| ((run.failed as f64 - run.expected) * 10.0).round() / 10.0),
            tenants_touched: has_tenants.then(|| each(|run| f64::from(run.touched))).flatten(),
            caught_at: stages.into_iter().map(at).collect(),
            causes,
            ends: Ends::of(&reached),
            reached: reached.len(),
        }
    }
}

impl Healthy {
    pub(super) fn new(runs: &[Run]) -> Self {
        let all: Vec<&Run> = runs.iter().collect();
        let completed = all.iter().filter(|run| run.end == End::Completed);
        let alarms = all.iter().filter(|run| run.caught.is_some()).count();
        Self {
            runs: all.len(),
            duration_seconds: Quantiles::of(completed.map(|run| run.took_ms as f64 / 1_000.0).collect()),
            ends: Ends::of(&all),
            braked: part(&all, |run| run.braked),
            false_alarms_per_1000: alarms as f64 * 1_000.0 / all.len().max(1) as f64,
            false_alarms_per_1000_at_most: (at_most(alarms, all.len()) * 10_000.0).round() / 10.0,
        }
    }
}

fn part(runs: &[&Run], is: impl Fn(&Run) -> bool) -> f64 {
    runs.iter().filter(|run| is(run)).count() as f64 / runs.len().max(1) as f64
}

/// The largest probability with which so few of so many are no surprise at 5 %: the one-sided bound of Clopper and Pearson,
/// by bisection.
fn at_most(count: usize, of: usize) -> f64 {
    let so_few = |p: f64| {
        let mut term = (of as f64 * (-p).ln_1p()).exp();
        let mut sum = term;
        for k in 0..count {
            term *= (of - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
            sum += term;
        }
        sum
    };
    let (mut low, mut high) = (count as f64 / of.max(1) as f64, 1.0);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if so_few(middle) > 0.05 { low = middle } else { high = middle }
    }
    if count >= of { 1.0 } else { high }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        assert_eq!(Quantiles::of(Vec::new()), None);
        let of = |n: u32| Quantiles::of((1..=n).rev().map(f64::from).collect()).unwrap();
        assert_eq!(of(1), Quantiles { p50: 1.0, p90: 1.0, max: 1.0 });
        assert_eq!(of(10), Quantiles { p50: 5.0, p90: 9.0, max: 10.0 });
    }

    #[test]
    fn nothing_seen_is_not_never() {
        assert!((at_most(0, 1_000) - 0.002_991).abs() < 1e-5, "{}", at_most(0, 1_000));
        assert!((at_most(2, 100) - 0.061_6).abs() < 1e-3, "{}", at_most(2, 100));
        assert_eq!(at_most(5, 5), 1.0);
    }
}
