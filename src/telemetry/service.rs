//! The tallies of one service, and the door through which every request enters them.

use std::sync::Arc;

use super::cells::{ServiceCells, VersionMetrics};
use super::detours::{Detour, DetourCounts, Detours};
use super::route_table::RouteTable;
use super::scope::{OTHER_TENANT, ScopeKind, ScopeTally};
use super::sessions::{SessionCounts, SessionResult};
use super::streams::StreamCounts;
use super::tally::Shared;
use super::ticket::{Comparing, Evidence, Ticket};
use crate::model::{ServiceName, Split, TenantName, VersionName};
use xxhash_rust::xxh3::xxh3_64;

/// How the version of a request was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// By a coin thrown for this request.
    Coin,
    /// By the hash of a key that stays on its version; any 64-bit hash of the key that is the same within an attempt.
    Key(u64),
    /// By a pin, a header or anything else than chance. Such requests are no evidence.
    Chosen,
}

/// What is known about a request when its version is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The tenant, if there is one.
    pub tenant: Option<&'a str>,
    /// The version.
    pub version: &'a VersionName,
    /// Microseconds on the process's monotone clock.
    pub now_us: u64,
    /// How the version was chosen.
    pub draw: Draw,
    /// The split that was asked, if one was.
    pub split: Option<&'a Split>,
    /// Tenants are the keys: the evidence is the service's, with each tenant as one key.
    pub pooled: bool,
}

/// The tallies of one service.
pub struct ServiceTally {
    cells: Arc<ServiceCells>,
    shared: Arc<Shared>,
    whole: Arc<ScopeTally>,
    other: Arc<ScopeTally>,
    sessions: SessionCounts,
    tenants: papaya::HashMap<TenantName, Arc<ScopeTally>>,
    detours: Detours,
    routes: RouteTable,
}

impl Drop for ServiceTally {
    /// A service that was removed must not go on taking the room of its tenants.
    fn drop(&mut self) {
        self.tenants.pin().keys().for_each(|_| self.shared.leave());
    }
}

impl ServiceTally {
    pub(super) fn new(service: ServiceName, shared: Arc<Shared>) -> Self {
        let cells = Arc::new(ServiceCells::new(service));
        let scope = |kind, tenant| Arc::new(ScopeTally::new(kind, tenant, cells.clone(), shared.clone()));
        let whole = scope(ScopeKind::Whole, None);
        let other = scope(ScopeKind::Other, TenantName::new(OTHER_TENANT).ok());
        let (tenants, detours, routes, sessions) = Default::default();
        Self { whole, other, sessions, tenants, cells, shared, detours, routes }
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.cells.service
    }

    /// Counts a request in. Takes no lock and makes no system call; allocates only what is seen for the first time,
    /// and one small block when the request's age must be watched.
    pub fn begin(&self, start: &Start<'_>) -> Ticket {
        let scope = self.scope_of(start.tenant);
        let totals = scope.version(start.version);
        let evidence = self.comparing(start, &scope).map_or(Evidence::None, |comparing| {
            if comparing.ages() { self.shared.watch(comparing) } else { Evidence::Own(comparing) }
        });
        scope.touch_loosely(start.now_us);
        Ticket::new(scope, totals, evidence, start.now_us)
    }

    /// Counts what a request's session came to.
    pub fn session(&self, result: SessionResult) {
        self.sessions.add(result);
    }

    pub(super) fn sessions(&self) -> &SessionCounts {
        &self.sessions
    }

    /// What came to each route.
    pub fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// The cells of a version's metrics, made on first use.
    pub fn metrics(&self, version: &VersionName) -> Arc<VersionMetrics> {
        self.cells.version(version)
    }

    /// Streams of a version that are open now.
    pub fn open_streams(&self, version: &VersionName) -> i64 {
        let cells = self.cells.list();
        let known = cells.iter().find(|(v, _)| v == version).and_then(|(_, cells)| cells.known_streams());
        known.map_or(0, StreamCounts::open).max(0)
    }

    /// The scope of a tenant that is tracked, or with none that of the service itself.
    pub fn scope(&self, tenant: Option<&str>) -> Option<Arc<ScopeTally>> {
        match tenant {
            None => Some(self.whole.clone()),
            Some(OTHER_TENANT) => Some(self.other.clone()),
            Some(name) => self.tenants.pin().get(name).cloned(),
        }
    }

    /// The scope of a tenant, or with none that of the service, as if it had just had a request; none when there are too many
    /// tenants.
    pub fn touched(&self, tenant: Option<&TenantName>, now_us: u64) -> Option<Arc<ScopeTally>> {
        let scope = match tenant {
            None => self.whole.clone(),
            Some(name) => self.scope(Some(name.as_str())).or_else(|| self.admit(name.as_str()))?,
        };
        scope.touch(now_us);
        Some(scope)
    }

    /// Every scope: the service, the tenants beyond the limit, and each tenant that is tracked.
    pub fn scopes(&self) -> Vec<Arc<ScopeTally>> {
        let mut all = vec![self.whole.clone(), self.other.clone()];
        all.extend(self.tenants.pin().values().cloned());
        all
    }

    /// Forgets a version that was removed, with its counts.
    pub fn forget_version(&self, version: &VersionName) {
        // Cells first: a scope that meets the version again in between then finds fresh ones.
        self.cells.forget(version);
        self.detours.forget(version);
        self.scopes().iter().for_each(|s| s.forget_version(version));
        self.routes.forget_version(version);
    }

    /// The counts of requests that went from one version to another, made on first use.
    pub fn detour(&self, from: &VersionName, to: &VersionName) -> Arc<DetourCounts> {
        self.detours.between(from, to)
    }

    /// Every pair of versions with such requests: from, to, and the counts.
    pub fn detours(&self) -> Arc<Vec<Detour>> {
        self.detours.list()
    }

    pub(super) fn cells(&self) -> &Arc<ServiceCells> {
        &self.cells
    }

    /// Lets tenants go for which `goes` holds and that no request, reader or list still holds.
    pub(super) fn evict(&self, goes: &dyn Fn(&ScopeTally) -> bool) -> Vec<Arc<ScopeTally>> {
        let tenants = self.tenants.pin();
        let mut gone = Vec::new();
        for (name, scope) in &tenants {
            if Arc::strong_count(scope) == 1 && goes(scope) && tenants.remove(name).is_some() {
                self.shared.leave();
                gone.push(scope.clone());
            }
        }
        gone
    }

    fn scope_of(&self, tenant: Option<&str>) -> Arc<ScopeTally> {
        let Some(name) = tenant else { return self.whole.clone() };
        if let Some(scope) = self.tenants.pin().get(name) {
            return scope.clone();
        }
        self.admit(name).unwrap_or_else(|| self.other.clone())
    }

    /// Begins to track a tenant; none when there are too many, or when the text is no tenant's name.
    fn admit(&self, name: &str) -> Option<Arc<ScopeTally>> {
        if name == OTHER_TENANT || !self.shared.has_room() {
            return None;
        }
        let tenant = TenantName::new(name).ok()?;
        if !self.shared.enter() {
            return None;
        }
        let (cells, shared) = (self.cells.clone(), self.shared.clone());
        let scope = Arc::new(ScopeTally::new(ScopeKind::Tenant, Some(tenant.clone()), cells, shared));
        match self.tenants.pin().try_insert(tenant, scope) {
            Ok(scope) => Some(scope.clone()),
            Err(occupied) => {
                self.shared.leave();
                Some(occupied.current.clone())
            }
        }
    }

    /// The request's part in the comparison, if chance chose its version.
    fn comparing(&self, start: &Start<'_>, scope: &Arc<ScopeTally>) -> Option<Comparing> {
        let split = start.split?;
        let key = match (start.draw, start.tenant) {
            (Draw::Chosen, _) => return None,
            (Draw::Coin, _) => None,
            (Draw::Key(_), Some(tenant)) if start.pooled => Some(xxh3_64(tenant.as_bytes())),
            (Draw::Key(hash), _) => Some(hash),
        };
        let scope = if start.pooled { &self.whole } else { scope };
        if scope.is_other() {
            return None;
        }
        let epoch = scope.epoch(split, start.now_us)?;
        let arm = epoch.arm_of(start.version)?;
        epoch.begun(start.now_us);
        let coin = epoch.arm(arm).routed(key);
        Some(Comparing::new(scope.clone(), epoch, arm, key, coin, start.now_us))
    }
}
