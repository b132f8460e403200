//! Where all runs of a scenario begin: a state of its own in which the rollout was just started.

use serde_json::Value;

use super::scenario::Scenario;
use crate::analysis::Parameters;
use crate::model::{Author, Change, ChangeError, ChangeRequest, RolloutId, State, Structure};

/// The beginning that all runs of a scenario share.
pub(super) struct Beginning {
    pub structure: Structure,
    pub state: State,
    pub rollout: RolloutId,
    pub parameters: Parameters,
}

impl Beginning {
    /// The state in which the rollout is about to begin.
    ///
    /// # Errors
    /// What the writer has against the rollout.
    pub(super) fn new(scenario: &Scenario) -> Result<Self, ChangeError> {
        let structure = scenario.structure();
        let mut beginning = Self {
            structure,
            state: State::default(),
            rollout: RolloutId::new("r2").map_err(|e| ChangeError::Invalid(e.to_string()))?,
            parameters: Parameters::of(&scenario.guard),
        };
        for change in [Change::AddService, Change::StartRollout(Box::new(scenario.new_rollout()))] {
            let request = request(scenario, change, String::new());
            beginning.state = beginning.state.apply(&beginning.structure, &request, 1, 0)?.state;
        }
        let started = beginning.state.running_rollout(&scenario.service).map(|live| live.rollout.id.clone());
        beginning.rollout = started.unwrap_or(beginning.rollout);
        Ok(beginning)
    }
}

/// What the machine asks for.
pub(super) fn request(scenario: &Scenario, change: Change, reason: String) -> ChangeRequest {
    ChangeRequest {
        service: scenario.service.clone(),
        change,
        author: Author::Autopilot,
        reason,
        if_revision: None,
        if_attempt: None,
        evidence: Value::Null,
    }
}
