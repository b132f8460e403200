//! The phases of a rollout and what may happen in each: one table, every cell of which a test holds.

use serde::{Deserialize, Serialize};

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It waits for its time, its window or its first gate; nothing has moved.
    Pending,
    /// It moves and bakes.
    Progressing,
    /// Everything moved and proved itself; it waits for its last gate.
    Finishing,
    /// Done.
    Completed,
    /// Traffic goes back step by step.
    GoingBack,
    /// Traffic went back, by the machine or because a completed rollout was undone.
    RolledBack,
    /// A person ended it, and traffic went back.
    Aborted,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Progressing,
        Self::Finishing,
        Self::Completed,
        Self::GoingBack,
        Self::RolledBack,
        Self::Aborted,
    ];

    /// The name in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Progressing => "progressing",
            Self::Finishing => "finishing",
            Self::Completed => "completed",
            Self::GoingBack => "going_back",
            Self::RolledBack => "rolled_back",
            Self::Aborted => "aborted",
        }
    }

    /// Whether it is over, unless somebody begins it again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack | Self::Aborted)
    }

    /// What becomes of the phase; none: this cannot happen now.
    pub fn after(self, input: Input) -> Option<Self> {
        use Input as I;
        match (self, input) {
            (Self::Pending, I::Begin) => Some(Self::Progressing),
            (Self::Progressing, I::Enter | I::Pass | I::Promote | I::PromoteFull) => Some(Self::Progressing),
            (Self::Progressing, I::PassLast) => Some(Self::Finishing),
            (Self::Finishing, I::Complete) => Some(Self::Completed),
            // What has not moved has nothing to go back to.
            (Self::Pending, I::Abort) => Some(Self::Aborted),
            (Self::Pending, I::GoBack) => Some(Self::RolledBack),
            (Self::Progressing | Self::Finishing, I::GoBack | I::Abort) => Some(Self::GoingBack),
            (Self::Completed, I::Undo) => Some(Self::GoingBack),
            // Whoever is impatient may have all of it at once.
            (Self::GoingBack, I::Abort | I::GoBack | I::StepBack) => Some(Self::GoingBack),
            (Self::GoingBack, I::Returned) => Some(Self::RolledBack),
            (Self::GoingBack, I::ReturnedForPerson) => Some(Self::Aborted),
            (Self::RolledBack | Self::Aborted, I::Retry) => Some(Self::Pending),
            (phase, I::Pause | I::Resume) if !phase.is_final() && phase != Self::GoingBack => Some(phase),
            (phase, I::Gate | I::Count) => Some(phase),
            _ => None,
        }
    }
}

/// What can happen to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// Its time has come.
    Begin,
    /// A step takes effect.
    Enter,
    /// A step has proved itself and another one follows.
    Pass,
    /// The last step has proved itself.
    PassLast,
    /// It is complete.
    Complete,
    /// The machine takes traffic back.
    GoBack,
    /// The next share on the way back.
    StepBack,
    /// All traffic is back.
    Returned,
    /// All traffic is back, as a person wanted.
    ReturnedForPerson,
    /// A person or the machine stops the clock.
    Pause,
    /// A person lets it go on.
    Resume,
    /// A person approves a step, or ends a bake.
    Promote,
    /// A person moves everyone at once.
    PromoteFull,
    /// A person takes traffic back.
    Abort,
    /// A person begins it again.
    Retry,
    /// A person takes a completed rollout back.
    Undo,
    /// A gate answered.
    Gate,
    /// A tenant went back, or failed requests were counted.
    Count,
}

impl Input {
    /// Everything that can happen.
    pub const ALL: [Self; 18] = [
        Self::Begin,
        Self::Enter,
        Self::Pass,
        Self::PassLast,
        Self::Complete,
        Self::GoBack,
        Self::StepBack,
        Self::Returned,
        Self::ReturnedForPerson,
        Self::Pause,
        Self::Resume,
        Self::Promote,
        Self::PromoteFull,
        Self::Abort,
        Self::Retry,
        Self::Undo,
        Self::Gate,
        Self::Count,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row for each input, one column for each phase, in the order of the types. `.` is refused, `=` stays.
    const TABLE: [&str; 18] = [
        // pending progressing finishing completed going_back rolled_back aborted
        "Pr . . . . . .",   // Begin
        ". = . . . . .",    // Enter
        ". = . . . . .",    // Pass
        ". Fi . . . . .",   // PassLast
        ". . Co . . . .",   // Complete
        "RB GB GB . = . .", // GoBack
        ". . . . = . .",    // StepBack
        ". . . . RB . .",   // Returned
        ". . . . Ab . .",   // ReturnedForPerson
        "= = = . . . .",    // Pause
        "= = = . . . .",    // Resume
        ". = . . . . .",    // Promote
        ". = . . . . .",    // PromoteFull
        "Ab GB GB . = . .", // Abort
        ". . . . . Pe Pe",  // Retry
        ". . . GB . . .",   // Undo
        "= = = = = = =",    // Gate
        "= = = = = = =",    // Count
    ];

    #[test]
    fn every_cell_is_as_the_table_says() {
        for (input, row) in Input::ALL.into_iter().zip(TABLE) {
            for (phase, cell) in Phase::ALL.into_iter().zip(row.split_whitespace()) {
                let expected = match cell {
                    "." => None,
                    "=" => Some(phase),
                    "Pe" => Some(Phase::Pending),
                    "Pr" => Some(Phase::Progressing),
                    "Fi" => Some(Phase::Finishing),
                    "Co" => Some(Phase::Completed),
                    "GB" => Some(Phase::GoingBack),
                    "RB" => Some(Phase::RolledBack),
                    "Ab" => Some(Phase::Aborted),
                    other => panic!("{other}"),
                };
                assert_eq!(phase.after(input), expected, "{phase:?} {input:?}");
            }
        }
    }

    #[test]
    fn names_are_those_of_the_api() {
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
    }
}
