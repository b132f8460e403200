//! What a rollout waits for, for people to read.

use serde::Serialize;

/// Why nothing happens now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// What for.
    pub on: WaitFor,
    /// In a sentence.
    pub message: String,
    /// Until when, where that is known, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// Nothing: it is over.
    Nothing,
    /// The time at which it is to start.
    Start,
    /// Allowed days and hours.
    Window,
    /// The end of a freeze.
    Freeze,
    /// The end of a hold on the service.
    Hold,
    /// A person to resume it.
    Person,
    /// A person to approve the step.
    Approval,
    /// An answer of a gate.
    Gate,
    /// The end of the bake time.
    Bake,
    /// More evidence.
    Evidence,
    /// The delay between batches, or between two steps back.
    Delay,
}

impl WaitFor {
    /// The name in metrics and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Start => "start",
            Self::Window => "window",
            Self::Freeze => "freeze",
            Self::Hold => "hold",
            Self::Person => "person",
            Self::Approval => "approval",
            Self::Gate => "gate",
            Self::Bake => "bake",
            Self::Evidence => "evidence",
            Self::Delay => "delay",
        }
    }
}

impl Waiting {
    /// Waits for this.
    pub fn new(on: WaitFor, message: impl Into<String>) -> Self {
        Self { on, message: message.into(), until_ms: None }
    }

    /// Until then, as far as is known.
    #[must_use]
    pub fn until(mut self, at_ms: u64) -> Self {
        self.until_ms = Some(at_ms);
        self
    }
}
