//! Where a rollout stands, as far as waiting is concerned.

use serde::{Deserialize, Serialize};

use crate::model::{Phase, Rollout, Stage};

/// Where a rollout stands: another place begins another wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    phase: Phase,
    stage: Stage,
    in_effect: bool,
    retries: u32,
    step_back: u32,
}

impl Place {
    /// The place of a rollout now.
    pub fn of(rollout: &Rollout) -> Self {
        Self {
            phase: rollout.phase,
            stage: rollout.stage,
            in_effect: rollout.in_effect,
            retries: rollout.retries,
            step_back: rollout.going_back.as_ref().map_or(0, |back| back.step + 1),
        }
    }

    /// How often the rollout was begun again.
    pub fn retries(&self) -> u32 {
        self.retries
    }
}
