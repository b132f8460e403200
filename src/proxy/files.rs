//! How many connections the limit of open files leaves room for. Where files run out, no endpoint is reached and no change is
//! written, which would look like the failure of a version: so connections are refused before.

use rustix::process::{Resource, getrlimit};

/// Files beside connections: the store, logs, listeners, the admin API, health checks.
const OTHERS: u64 = 96;

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Connections of clients, with as many to endpoints.
    pub connections: usize,
    /// Connections to endpoints that nobody uses.
    pub idle: usize,
}

impl Room {
    /// What this process has, when it is to keep `idle` unused connections to endpoints.
    pub fn of_process(idle: usize) -> Self {
        Self::among(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), idle)
    }

    fn among(files: u64, idle: usize) -> Self {
        // Connections that nobody uses are worth less than a client.
        let idle = usize::try_from(files / 4).map_or(idle, |most| idle.min(most));
        let rest = files.saturating_sub(OTHERS.min(files / 2)).saturating_sub(idle as u64) / 2;
        Self { connections: usize::try_from(rest).unwrap_or(usize::MAX).max(1), idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_two_files_each_and_all_else() {
        let room = |files, idle| {
            let room = Room::among(files, idle);
            (room.connections, room.idle)
        };
        assert_eq!(room(65_536, 1_024), (32_208, 1_024));
        assert_eq!(room(1_024, 1_024), (336, 256));
        assert_eq!((room(64, 1_024), room(0, 0)), ((8, 16), (1, 0)));
        assert!(room(u64::MAX, 1_024).0 > 1 << 60);
    }
}
