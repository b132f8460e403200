//! The process's monotone clock: one axis for requests, the guard and the endpoints.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Time since the clock was made. Copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Instant,
}

impl Clock {
    /// Begins now, one second in, so that no time is zero.
    pub fn start() -> Self {
        let now = Instant::now();
        Self { base: now.checked_sub(std::time::Duration::from_secs(1)).unwrap_or(now) }
    }

    /// Goes on where the clock of another process of this machine stood; none when the machine is younger than that.
    pub fn resume(now_us: u64) -> Option<Self> {
        Instant::now().checked_sub(std::time::Duration::from_micros(now_us)).map(|base| Self { base })
    }

    /// Microseconds.
    pub fn now_us(&self) -> u64 {
        self.base.elapsed().as_micros() as u64
    }

    /// The moment at which it shows this many microseconds.
    pub(super) fn at(&self, us: u64) -> Instant {
        self.base + std::time::Duration::from_micros(us)
    }

    /// Milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.base.elapsed().as_millis() as u64
    }
}

/// Seconds since the Unix epoch.
pub(super) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
