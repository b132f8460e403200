//! The tick: reads the tallies, asks the analysis, and submits what follows through the same door as everyone else.
//!
//! Ten times a second, and at a cost that depends on the tenants that had requests, not on those that exist. The guard
//! shifts back, holds back, probes and reports; it never advances anything and never touches what a person pinned.

mod alone;
mod carry;
mod cuts;
mod entry;
mod evidence;
mod fleet;
mod lead_up;
mod members;
mod pause;
mod rollouts;
mod settle;
mod spoken;
mod tick;
mod together;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::control::Control;
use crate::proxy::Clock;
use crate::telemetry::{Metrics, Tallies, Windows};

pub use carry::CarriedGuard;
pub use pause::{Machine, StandStill};
pub use rollouts::{CarriedRollouts, RolloutParts, start as start_rollouts};
pub use tick::Autopilot;

/// Time between two ticks: the shortest patience that can be configured, since the statistics ask for one look per slot.
const TICK: Duration = Duration::from_millis(100);

/// What the guard is built from.
pub struct AutopilotParts {
    /// The door to the state.
    pub control: Control,
    /// Where requests are counted.
    pub tallies: Arc<Tallies>,
    /// The history of the counts.
    pub windows: Arc<Mutex<Windows>>,
    /// Metric families.
    pub metrics: Arc<Metrics>,
    /// The process's clock.
    pub clock: Clock,
}

/// Starts the guard, with what another process knew. It runs until the task is aborted.
pub fn start(parts: AutopilotParts, carried: CarriedGuard) -> Machine<CarriedGuard> {
    let clock = parts.clock;
    let mut autopilot = Autopilot::new(parts);
    autopilot.resume(carried, clock.now_us());
    Machine::start(|mut pauses| async move {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let pause = tokio::select! {
                _ = interval.tick() => None,
                Some(pause) = pauses.recv() => Some(pause),
            };
            for request in autopilot.tick(clock.now_us()) {
                autopilot.submit(request);
            }
            if let Some(pause) = pause {
                let known = autopilot.carry();
                pause.wait(known).await;
            }
        }
    })
}

/// Milliseconds since the Unix epoch.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
