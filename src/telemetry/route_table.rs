//! What came to each route of a service on each version: a table that no stranger can fill.
//!
//! Names of routes come from requests, so their number has a limit, and a name gets a place only when a version shows that
//! it knows it: by any answer but a client error, or by failing over it. Requests of other names are counted together. A
//! request of a known route takes no lock and allocates nothing; places change rarely and are replaced as a whole.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use xxhash_rust::xxh3::xxh3_64;

use super::latency::LatencyHistogram;
use super::outcome::{FailureKind, Fault, Outcome};
use super::totals::TotalsReading;
use crate::model::{RoutePattern, VersionName};

/// The name under which requests of routes without a place are counted together.
pub const OTHER_ROUTE: &str = "_other";

/// Routes with a place of their own.
const MAX_ROUTES: usize = RoutePattern::MAX_PER_SERVICE;
/// A route that no request came to for this long gives its place away when another needs it.
const IDLE_S: u32 = 15 * 60;

/// The routes of one service.
#[derive(Default)]
pub struct RouteTable {
    /// By hash of the name.
    routes: ArcSwap<Vec<Entry>>,
    /// Held while the list is replaced.
    changing: Mutex<()>,
    /// There is no place before this second, so that nobody need look for one.
    full_until_s: AtomicU32,
    ids: AtomicU64,
}

/// A request that came to its end.
#[derive(Debug, Clone, Copy)]
pub struct RouteRequest<'a> {
    /// Name of its route.
    pub route: &'a str,
    /// Whether the operator named the route.
    pub configured: bool,
    /// The version that served it.
    pub version: &'a VersionName,
    /// What it came to.
    pub outcome: Outcome,
    /// Status of the version's answer, if there was one.
    pub answered: Option<u16>,
    /// Microseconds until the response header, if there was one.
    pub latency_us: Option<u64>,
    /// Microseconds on the process's monotone clock.
    pub now_us: u64,
}

/// A route with its counts by version.
#[derive(Clone)]
pub(super) struct Entry {
    hash: u64,
    pub(super) route: Arc<Route>,
    pub(super) versions: Vec<Arc<RouteCounts>>,
}

/// A route that has a place.
pub(super) struct Route {
    /// Different for each route of a table, also when one goes and comes back.
    pub(super) id: u64,
    pub(super) name: Arc<str>,
    pub(super) configured: AtomicBool,
    last_seen_s: AtomicU32,
}

/// Cumulative counts of one route on one version.
pub(super) struct RouteCounts {
    pub(super) version: VersionName,
    requests: AtomicU64,
    failures: [AtomicU64; FailureKind::COUNT],
    client_aborts: AtomicU64,
    refused: AtomicU64,
    latency: LatencyHistogram,
}

impl RouteTable {
    /// Counts a request, by the same rules as the totals of a scope.
    pub fn count(&self, request: &RouteRequest<'_>) {
        let hash = xxh3_64(request.route.as_bytes());
        {
            let routes = self.routes.load();
            let entry = match find(&routes, hash, request.route) {
                None if !self.admits(request) => find(&routes, xxh3_64(OTHER_ROUTE.as_bytes()), OTHER_ROUTE),
                entry => entry,
            };
            if let Some(entry) = entry
                && let Some(counts) = entry.of(request.version)
            {
                entry.route.saw(request);
                counts.add(request);
                return;
            }
        }
        self.count_unknown(hash, request);
    }

    /// Forgets a version that was removed, and routes that only it had.
    pub fn forget_version(&self, version: &VersionName) {
        self.change(|routes| {
            routes.iter_mut().for_each(|entry| entry.versions.retain(|c| c.version != *version));
            routes.retain(|entry| !entry.versions.is_empty());
        });
    }

    /// Forgets everything.
    pub fn clear(&self) {
        if !self.routes.load().is_empty() {
            self.change(Vec::clear);
        }
    }

    /// Names of the routes that have a place, in order; last that of all others together, if there are any.
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.routes.load().iter().map(|entry| entry.route.name.clone()).collect();
        names.sort_by(|a, b| (**a == *OTHER_ROUTE).cmp(&(**b == *OTHER_ROUTE)).then_with(|| a.cmp(b)));
        names
    }

    /// Every route that has a place.
    pub(super) fn entries(&self) -> Arc<Vec<Entry>> {
        self.routes.load_full()
    }

    /// A route or one of its versions is met for the first time, or there is no place for it.
    #[cold]
    fn count_unknown(&self, hash: u64, request: &RouteRequest<'_>) {
        let known = find(&self.routes.load(), hash, request.route).is_some();
        let counted = (known || self.admits(request)) && {
            let mut counts = None;
            self.change(|routes| counts = self.enter(routes, hash, request));
            counts.inspect(|counts| counts.add(request)).is_some()
        };
        if counted {
            return;
        }
        let hash = xxh3_64(OTHER_ROUTE.as_bytes());
        let known = find(&self.routes.load(), hash, OTHER_ROUTE).and_then(|e| e.of(request.version)).cloned();
        let other = known.or_else(|| {
            let mut counts = None;
            self.change(|routes| counts = self.place(routes, hash, OTHER_ROUTE, request));
            counts
        });
        if let Some(counts) = other {
            counts.add(request);
        }
    }

    /// Whether a name that is new may ask for a place. What a version refuses, as it refuses paths that it does not have,
    /// is no sign of a route, and neither is a version that cannot be reached.
    fn admits(&self, request: &RouteRequest<'_>) -> bool {
        let answered = request.answered.is_some_and(|status| !(400..500).contains(&status));
        let failed = matches!(request.outcome.fault, Fault::Backend(kind) if kind != FailureKind::Connect);
        let may = request.configured || answered || failed;
        may && (request.configured || self.full_until_s.load(Relaxed) <= seconds(request.now_us))
    }

    /// The counts of a request's route and version, which get a place if there is one.
    fn enter(&self, routes: &mut Vec<Entry>, hash: u64, request: &RouteRequest<'_>) -> Option<Arc<RouteCounts>> {
        let is_place = |entry: &Entry| *entry.route.name != *OTHER_ROUTE;
        let known = find(routes, hash, request.route).is_some();
        if !known && routes.iter().filter(|e| is_place(e)).count() >= MAX_ROUTES {
            let now_s = seconds(request.now_us);
            let last_seen = |entry: &Entry| entry.route.last_seen_s.load(Relaxed);
            // A route that the operator named takes the place of one that named itself, however busy that is.
            let gives = |e: &Entry| request.configured && !e.route.configured.load(Relaxed);
            let leaves = |e: &Entry| gives(e) || now_s.saturating_sub(last_seen(e)) >= IDLE_S;
            let oldest =
                routes.iter().enumerate().filter(|(_, e)| is_place(e)).min_by_key(|(_, e)| (!leaves(e), last_seen(e)));
            match oldest {
                Some((at, entry)) if leaves(entry) => _ = routes.remove(at),
                Some((_, entry)) => {
                    self.full_until_s.store(last_seen(entry).saturating_add(IDLE_S), Relaxed);
                    return None;
                }
                None => return None,
            }
        }
        self.place(routes, hash, request.route, request)
    }

    /// The counts of a name and a version, made if they are not there.
    fn place(
        &self,
        routes: &mut Vec<Entry>,
        hash: u64,
        name: &str,
        request: &RouteRequest<'_>,
    ) -> Option<Arc<RouteCounts>> {
        let at = routes.binary_search_by_key(&hash, |e| e.hash).unwrap_or_else(|at| {
            let route = Route {
                id: self.ids.fetch_add(1, Relaxed),
                name: name.into(),
                configured: AtomicBool::new(request.configured && name == request.route),
                last_seen_s: AtomicU32::new(seconds(request.now_us)),
            };
            routes.insert(at, Entry { hash, route: Arc::new(route), versions: Vec::new() });
            at
        });
        let entry = routes.get_mut(at).filter(|e| *e.route.name == *name)?;
        if let Some(known) = entry.of(request.version) {
            return Some(known.clone());
        }
        let counts = Arc::new(RouteCounts::new(request.version));
        entry.versions.push(counts.clone());
        Some(counts)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Entry>)) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.routes.load_full();
        let mut routes = Vec::clone(&before);
        change(&mut routes);
        if routes.len() < before.len() {
            self.full_until_s.store(0, Relaxed);
        }
        self.routes.store(Arc::new(routes));
    }
}

/// The entry of a name. Two names of one hash can be made on purpose; then the first has the place.
fn find<'e>(routes: &'e [Entry], hash: u64, name: &str) -> Option<&'e Entry> {
    let at = routes.binary_search_by_key(&hash, |e| e.hash).ok()?;
    routes.get(at).filter(|e| *e.route.name == *name)
}

fn seconds(us: u64) -> u32 {
    u32::try_from(us / 1_000_000).unwrap_or(u32::MAX)
}

impl Entry {
    fn of(&self, version: &VersionName) -> Option<&Arc<RouteCounts>> {
        self.versions.iter().find(|c| c.version == *version)
    }
}

impl Route {
    fn saw(&self, request: &RouteRequest<'_>) {
        // Written only when there is news, so that cores need not hand the line around.
        let now_s = seconds(request.now_us);
        if self.last_seen_s.load(Relaxed) < now_s {
            self.last_seen_s.store(now_s, Relaxed);
        }
        if self.configured.load(Relaxed) != request.configured {
            self.configured.store(request.configured, Relaxed);
        }
    }
}

impl RouteCounts {
    fn new(version: &VersionName) -> Self {
        Self {
            version: version.clone(),
            requests: AtomicU64::default(),
            failures: Default::default(),
            client_aborts: AtomicU64::default(),
            refused: AtomicU64::default(),
            latency: LatencyHistogram::default(),
        }
    }

    fn add(&self, request: &RouteRequest<'_>) {
        // The latency first: whoever sees the request sees its latency too.
        if let Some(latency) = request.latency_us {
            self.latency.record(latency);
        }
        match request.outcome.fault {
            Fault::Served => _ = self.requests.fetch_add(1, Relaxed),
            Fault::Backend(kind) => {
                self.requests.fetch_add(1, Relaxed);
                self.failures[kind.index()].fetch_add(1, Relaxed);
            }
            Fault::ClientLeft => _ = self.client_aborts.fetch_add(1, Relaxed),
            Fault::Refused | Fault::Proxy => _ = self.refused.fetch_add(1, Relaxed),
        }
    }

    /// Requests that came to an end, whatever it was.
    pub(super) fn ended(&self) -> u64 {
        self.requests.load(Relaxed) + self.client_aborts.load(Relaxed) + self.refused.load(Relaxed)
    }

    /// The numbers now; a failure is never seen without its request.
    pub(super) fn read(&self) -> TotalsReading {
        let failures = std::array::from_fn(|i| self.failures[i].load(Relaxed));
        TotalsReading {
            version: self.version.clone(),
            failures,
            requests: self.requests.load(Relaxed).max(failures.iter().sum()),
            client_aborts: self.client_aborts.load(Relaxed),
            refused: self.refused.load(Relaxed),
            abandoned: 0,
            in_flight: 0,
            latency: self.latency.read(),
        }
    }
}

#[cfg(test)]
#[path = "route_table_tests.rs"]
mod tests;
