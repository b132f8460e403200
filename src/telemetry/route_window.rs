//! What happened lately by route. Routes are read at most once a second or when somebody asks, and only those that moved.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::route_table::{Entry, RouteTable};
use super::totals::TotalsReading;
use super::window::{BUCKET_MS, History, TotalsDelta, VersionStats};
use crate::model::{ServiceName, VersionName};

/// Entries of sparse latency counts that may be kept, 4 bytes each. Beyond it new buckets of time have no percentiles.
const MAX_ENTRIES: usize = 4 << 20;

/// The history of every route.
#[derive(Default)]
pub(super) struct RouteWindows {
    services: HashMap<ServiceName, HashMap<u64, RouteHistory>>,
    entries: usize,
}

/// What each version did for one route.
#[derive(Debug, Clone)]
pub struct RouteStats {
    /// Name of the route.
    pub route: Arc<str>,
    /// Whether the operator named it.
    pub configured: bool,
    /// By version, with the counts of latencies per bucket of [`super::latency`]. `in_flight` is always 0.
    pub versions: Vec<(VersionStats, Box<[u64]>)>,
}

struct RouteHistory {
    route: Arc<str>,
    configured: bool,
    history: History,
    /// The last reading of each version, to take differences from.
    last: Vec<TotalsReading>,
}

impl RouteWindows {
    /// Takes in what is new, and forgets routes and versions that lost their place.
    pub(super) fn record(&mut self, now_ms: u64, service: &ServiceName, table: &RouteTable) {
        let entries = table.entries();
        if entries.is_empty() {
            self.forget_service(service);
            return;
        }
        let detailed = self.entries < MAX_ENTRIES;
        let routes = self.services.entry(service.clone()).or_default();
        let before = routes.len();
        routes.retain(|id, _| entries.iter().any(|e| e.route.id == *id));
        let lost = routes.len() < before;
        for entry in entries.iter() {
            let made = || RouteHistory::new(entry);
            let grown = routes.entry(entry.route.id).or_insert_with(made).record(now_ms, entry, detailed);
            self.entries = self.entries.saturating_add_signed(grown);
        }
        if lost {
            self.count_entries();
        }
    }

    /// The routes of a service: their ids for [`stats`](Self::stats).
    pub(super) fn ids(&self, service: &ServiceName) -> Vec<u64> {
        self.services.get(service).into_iter().flat_map(HashMap::keys).copied().collect()
    }

    pub(super) fn id_of(&self, service: &ServiceName, name: &str) -> Option<u64> {
        let mut routes = self.services.get(service)?.iter();
        routes.find(|(_, r)| *r.route == *name).map(|(id, _)| *id)
    }

    pub(super) fn stats(
        &self,
        service: &ServiceName,
        id: u64,
        window_ms: Option<u64>,
        now_ms: u64,
    ) -> Option<RouteStats> {
        let route = self.services.get(service)?.get(&id)?;
        let versions = route.history.detailed(window_ms, now_ms);
        Some(RouteStats { route: route.route.clone(), configured: route.configured, versions })
    }

    pub(super) fn forget_service(&mut self, service: &ServiceName) {
        if self.services.remove(service).is_some() {
            self.count_entries();
        }
    }

    /// Frees what is too old.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        let routes = self.services.values_mut().flat_map(HashMap::values_mut);
        routes.for_each(|r| r.history.drop_old(now_ms));
        self.count_entries();
    }

    fn count_entries(&mut self) {
        self.entries = self.services.values().flat_map(HashMap::values).map(|r| r.history.entries()).sum();
    }
}

impl RouteHistory {
    fn new(entry: &Entry) -> Self {
        Self { route: entry.route.name.clone(), configured: false, history: History::default(), last: Vec::new() }
    }

    /// Answers by how many entries it grew.
    fn record(&mut self, now_ms: u64, entry: &Entry, detailed: bool) -> isize {
        self.configured = entry.route.configured.load(Relaxed);
        let mut grown = 0;
        for counts in &entry.versions {
            let before = self.last.iter().position(|b| b.version == counts.version);
            if before.is_some_and(|at| self.last[at].ended() == counts.ended()) {
                continue;
            }
            let now = counts.read();
            let delta = TotalsDelta::between(before.map(|at| &self.last[at]), &now);
            let version = self.history.version(&counts.version, now_ms);
            let size = version.entries();
            version.add(now_ms / BUCKET_MS, &delta, detailed);
            grown += version.entries() as isize - size as isize;
            match before {
                Some(at) => self.last[at] = now,
                None => self.last.push(now),
            }
        }
        if self.last.len() > entry.versions.len() {
            let stays = |version: &VersionName| entry.versions.iter().any(|c| c.version == *version);
            self.last.retain(|r| stays(&r.version));
            self.history.retain(stays);
        }
        grown
    }
}
