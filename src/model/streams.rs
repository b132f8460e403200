//! What becomes of answers that last, when a shift takes their key to another version.

use std::time::Duration;

/// WebSockets, server-sent events and gRPC calls of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamsSpec {
    /// What happens to a stream whose next request would go elsewhere.
    pub on_shift: OnShift,
    /// How many of them are closed per second, at least 1; faster where the deadline needs it.
    pub pace: u32,
    /// From the shift until the last of them is closed.
    pub deadline: Duration,
}

/// What happens to a stream whose next request would go elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnShift {
    /// It stays until it ends by itself.
    #[default]
    Leave,
    /// It is closed, in the way its protocol has for "come again".
    Close,
}

impl Default for StreamsSpec {
    fn default() -> Self {
        Self { on_shift: OnShift::default(), pace: 50, deadline: Duration::from_secs(60) }
    }
}
