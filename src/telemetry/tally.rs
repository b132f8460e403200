//! The root of all tallies: counts that the request path adds to and that everyone else only reads.
//!
//! Counts are cumulative and every reader takes its own differences, so no reader disturbs another and a reading that
//! is lost or repeated does no harm. The path of a request: [`ServiceTally::begin`] → [`Ticket::answered`] →
//! [`Ticket::finish`](super::Ticket::finish). The path of the tick: [`Tallies::age`] → [`Tallies::take_active`] →
//! per scope `totals`, `epochs`, `set_cuts`, `retire_epochs` → now and then [`Tallies::evict_idle`].

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;

use super::scope::ScopeTally;
use super::service::ServiceTally;
use super::ticket::{Comparing, Evidence};
use crate::model::{ServiceName, TenantName, VersionName};

#[cfg(doc)]
use super::ticket::Ticket;

/// Scopes that can wait to be read; when more are touched between two ticks, the tick looks through all of them once.
const MAX_WAITING_SCOPES: usize = 1 << 16;

/// Compared requests that can begin between two ticks and still have their age watched: 650,000 per second at ten
/// ticks per second. The others are judged when they are answered, on all versions alike.
const MAX_WAITING_REQUESTS: usize = 1 << 16;

/// Every tally of the process.
pub struct Tallies {
    shared: Arc<Shared>,
    services: papaya::HashMap<ServiceName, Arc<ServiceTally>>,
    /// Requests whose age is watched; only the tick takes this lock.
    watched: Mutex<Vec<Arc<Comparing>>>,
}

/// A scope with something new to read.
#[derive(Clone)]
pub struct ScopeHandle {
    /// The service.
    pub service: ServiceName,
    /// Its scope.
    pub tally: Arc<ScopeTally>,
}

/// What all scopes need of the root.
pub(super) struct Shared {
    active: ArrayQueue<Arc<ScopeTally>>,
    overflowed: AtomicBool,
    started: ArrayQueue<Arc<Comparing>>,
    tenants: AtomicUsize,
    max_tenants: usize,
    ids: AtomicU64,
}

impl Tallies {
    /// `tracked_tenants`: how many tenants, over all services, have a scope of their own.
    pub fn new(tracked_tenants: usize) -> Self {
        let shared = Shared {
            active: ArrayQueue::new((tracked_tenants + 1024).min(MAX_WAITING_SCOPES)),
            overflowed: AtomicBool::new(false),
            started: ArrayQueue::new(MAX_WAITING_REQUESTS),
            tenants: AtomicUsize::new(0),
            max_tenants: tracked_tenants,
            ids: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), services: papaya::HashMap::new(), watched: Mutex::default() }
    }

    /// The tallies of a service, made on first use. Routes hold them, so that no request has to ask.
    pub fn service(&self, service: &ServiceName) -> Arc<ServiceTally> {
        let services = self.services.pin();
        let make = || Arc::new(ServiceTally::new(service.clone(), self.shared.clone()));
        match services.get(service) {
            Some(tally) => tally.clone(),
            None => services.get_or_insert_with(service.clone(), make).clone(),
        }
    }

    /// Every service that was asked for, by name.
    pub fn services(&self) -> Vec<Arc<ServiceTally>> {
        let mut all: Vec<_> = self.services.pin().values().cloned().collect();
        all.sort_by(|a, b| a.service().cmp(b.service()));
        all
    }

    /// Forgets a service that was removed. Its tenants make room for others.
    pub fn forget_service(&self, service: &ServiceName) {
        if let Some(tally) = self.services.pin().remove(service) {
            tally.evict(&|_| true);
        }
    }

    /// Forgets a version that was removed, with its counts and metrics.
    pub fn forget_version(&self, service: &ServiceName, version: &VersionName) {
        if let Some(tally) = self.services.pin().get(service) {
            tally.forget_version(version);
        }
    }

    /// How many tenants have a scope of their own, over all services.
    pub fn tracked_tenants(&self) -> usize {
        self.shared.tenants.load(Ordering::Relaxed)
    }

    /// Counts compared requests as slow as soon as they have waited longer than the cut, so that a version that hangs is
    /// seen at once and not only when its requests time out. Returns how many are still watched.
    pub fn age(&self, now_us: u64) -> usize {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted first: with requests coming in all the time, popping until it is empty might not end.
        for _ in 0..self.shared.started.len() {
            let Some(request) = self.shared.started.pop() else { break };
            watched.push(request);
        }
        watched.retain(|request| !request.age(now_us));
        watched.len()
    }

    /// The scopes that were touched since the last call, each once. What it costs depends on their number alone.
    pub fn take_active(&self) -> Vec<ScopeHandle> {
        let mut scopes = Vec::with_capacity(self.shared.active.len());
        for _ in 0..self.shared.active.len() {
            let Some(scope) = self.shared.active.pop() else { break };
            scopes.push(scope);
        }
        if self.shared.overflowed.swap(false, Ordering::AcqRel) {
            scopes.extend(self.services().iter().flat_map(|s| s.scopes()).filter(|s| s.is_dirty()));
        }
        scopes.retain(|scope| scope.taken());
        scopes.into_iter().map(ScopeHandle::from).collect()
    }

    /// Lets tenants go that had no request for `idle_us`, unless `keep` holds. Returns them, so that others forget too.
    pub fn evict_idle(
        &self,
        now_us: u64,
        idle_us: u64,
        keep: &dyn Fn(&ServiceName, &ScopeTally) -> bool,
    ) -> Vec<ScopeHandle> {
        let idle = |s: &ScopeTally| !s.is_dirty() && now_us.saturating_sub(s.last_touched_us()) > idle_us;
        let goes = |scope: &ScopeTally| idle(scope) && !keep(scope.service(), scope);
        let gone = self.services().into_iter().flat_map(|s| s.evict(&goes));
        gone.map(ScopeHandle::from).collect()
    }
}

impl Drop for Tallies {
    /// The queues hold scopes, and scopes hold the queues.
    fn drop(&mut self) {
        while self.shared.active.pop().is_some() {}
        while self.shared.started.pop().is_some() {}
    }
}

impl From<Arc<ScopeTally>> for ScopeHandle {
    fn from(tally: Arc<ScopeTally>) -> Self {
        Self { service: tally.service().clone(), tally }
    }
}

impl ScopeHandle {
    /// The tenant; none for the service itself.
    pub fn tenant(&self) -> Option<&TenantName> {
        self.tally.tenant()
    }
}

impl Shared {
    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn note_active(&self, scope: &Arc<ScopeTally>) {
        if self.active.push(scope.clone()).is_err() {
            self.overflowed.store(true, Ordering::Release);
        }
    }

    /// Has the tick watch a request's age, if there is room.
    pub(super) fn watch(&self, comparing: Comparing) -> Evidence {
        let comparing = Arc::new(comparing);
        // A full queue is no error: the request is then judged when it is answered.
        let _ = self.started.push(comparing.clone());
        Evidence::Shared(comparing)
    }

    pub(super) fn has_room(&self) -> bool {
        self.tenants.load(Ordering::Relaxed) < self.max_tenants
    }

    pub(super) fn enter(&self) -> bool {
        let entered = self.tenants.fetch_add(1, Ordering::Relaxed) < self.max_tenants;
        if !entered {
            self.leave();
        }
        entered
    }

    pub(super) fn leave(&self) {
        self.tenants.fetch_sub(1, Ordering::Relaxed);
    }
}
