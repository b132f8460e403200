//! How many rollouts are in which phase, and how long those took that are over.

use std::collections::BTreeSet;

use prometheus::{HistogramOpts, HistogramVec, IntGaugeVec, Opts, Registry};

use crate::model::{Phase, RolloutId, ServiceName, State};
use crate::planning::WaitFor;

/// From a minute to two weeks, in seconds.
const DURATIONS: [f64; 10] =
    [60.0, 300.0, 900.0, 3_600.0, 10_800.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0, 1_209_600.0];

pub(super) struct RolloutMetrics {
    phases: Option<IntGaugeVec>,
    waiting: Option<IntGaugeVec>,
    durations: Option<HistogramVec>,
    /// Rollouts whose duration was counted; none before the first look, since those were over before this process began.
    counted: Option<BTreeSet<RolloutId>>,
}

impl RolloutMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let phases = Opts::new("switchback_rollouts", "Rollouts by the phase that they are in.");
        let phases = IntGaugeVec::new(phases, &["service", "phase"]);
        let waiting = Opts::new(
            "switchback_rollouts_waiting",
            "Rollouts by what they wait for, as the process that leads sees it; a pause is waiting for a person.",
        );
        let waiting = IntGaugeVec::new(waiting, &["service", "on"]);
        let durations = HistogramOpts::new(
            "switchback_rollout_duration_seconds",
            "From the first step of a rollout until it was over, by how it ended.",
        );
        let durations = HistogramVec::new(durations.buckets(DURATIONS.to_vec()), &["status"]);
        let (phases, waiting, durations) = (phases.ok(), waiting.ok(), durations.ok());
        for status in [Phase::Completed, Phase::RolledBack, Phase::Aborted] {
            // From the start, so that the first that ends shows as an increase.
            durations.iter().for_each(|durations| drop(durations.with_label_values(&[status.as_str()])));
        }
        let gauges = [phases.clone().map(boxed), waiting.clone().map(boxed)];
        for collector in gauges.into_iter().chain([durations.clone().map(boxed)]).flatten() {
            if let Err(error) = registry.register(collector) {
                tracing::error!(%error, "the metrics of rollouts could not be registered");
            }
        }
        Self { phases, waiting, durations, counted: None }
    }

    /// Shows what rollouts wait for that are not over.
    pub(super) fn show_waiting<'a>(&self, waiting: impl Iterator<Item = (&'a ServiceName, WaitFor)>) {
        let Some(gauges) = &self.waiting else { return };
        gauges.reset();
        for (service, on) in waiting {
            gauges.with_label_values(&[service.as_str(), on.as_str()]).inc();
        }
    }

    /// Shows the rollouts of a state.
    pub(super) fn show(&mut self, state: &State) {
        if let Some(phases) = &self.phases {
            phases.reset();
            for live in state.rollouts.values() {
                phases.with_label_values(&[live.rollout.service.as_str(), live.rollout.phase.as_str()]).inc();
            }
        }
        let over = |phase: Phase| phase.is_final();
        let ended: BTreeSet<_> =
            state.rollouts.iter().filter(|(_, l)| over(l.rollout.phase)).map(|(id, _)| id.clone()).collect();
        if let (Some(durations), Some(counted)) = (&self.durations, &self.counted) {
            for live in ended.difference(counted).filter_map(|id| state.rollouts.get(id)) {
                if let (Some(from), Some(to)) = (live.rollout.started_ms, live.rollout.ended_ms) {
                    let seconds = to.saturating_sub(from) as f64 / 1_000.0;
                    durations.with_label_values(&[live.rollout.phase.as_str()]).observe(seconds);
                }
            }
        }
        self.counted = Some(ended);
    }
}

fn boxed<C: prometheus::core::Collector + 'static>(collector: C) -> Box<dyn prometheus::core::Collector> {
    Box::new(collector)
}
