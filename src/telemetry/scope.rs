//! A scope: the requests of one tenant at one service, or those of the service without a tenant of their own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::cells::ServiceCells;
use super::epoch::EpochTally;
use super::tally::Shared;
use super::totals::{TotalsReading, VersionTotals};
use crate::model::{ServiceName, Split, TenantName, VersionName};

/// The tenant name under which those beyond the limit are counted together.
pub const OTHER_TENANT: &str = "_other";

/// A scope can meet many splits at once only when tenants are the keys and have splits of their own. Requests under
/// further splits are counted in the totals but give no evidence.
const MAX_EPOCHS: usize = 1024;

/// An epoch that no request was routed under for this long is let go; routes are replaced within milliseconds.
const EPOCH_IDLE_US: u64 = 60_000_000;

/// What a scope saw: totals per version, and evidence per epoch of its split.
pub struct ScopeTally {
    tenant: Option<TenantName>,
    kind: ScopeKind,
    id: u64,
    cells: Arc<ServiceCells>,
    shared: Arc<Shared>,
    dirty: AtomicBool,
    last_touched_us: AtomicU64,
    totals: ArcSwap<Vec<Arc<VersionTotals>>>,
    cuts: Cuts,
    /// By epoch, ascending.
    epochs: ArcSwap<Vec<Arc<EpochTally>>>,
    baseline: ArcSwapOption<VersionName>,
    /// Epochs that new requests no longer find but whose last counts may not have been read; for the tick alone.
    parting: Mutex<Vec<Parting>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScopeKind {
    Whole,
    Tenant,
    Other,
}

struct Parting {
    epoch: Arc<EpochTally>,
    /// Nobody could add to it any more when the tick last looked, so the reading after that is complete.
    quiet: bool,
}

/// Frozen into each request when it is routed; both cuts in one word, so that they belong together.
#[derive(Default)]
struct Cuts {
    baseline: AtomicU64,
    canary: AtomicU64,
}

impl ScopeTally {
    pub(super) fn new(
        kind: ScopeKind,
        tenant: Option<TenantName>,
        cells: Arc<ServiceCells>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            tenant,
            kind,
            id: shared.next_id(),
            cells,
            shared,
            dirty: AtomicBool::new(false),
            last_touched_us: AtomicU64::new(0),
            totals: ArcSwap::default(),
            cuts: Cuts::default(),
            epochs: ArcSwap::default(),
            baseline: ArcSwapOption::empty(),
            parting: Mutex::default(),
        }
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.cells.service
    }

    /// The tenant; none for the service itself, `_other` for the tenants beyond the limit together.
    pub fn tenant(&self) -> Option<&TenantName> {
        self.tenant.as_ref()
    }

    /// Whether this holds the tenants beyond the limit together. It gives no evidence.
    pub fn is_other(&self) -> bool {
        self.kind == ScopeKind::Other
    }

    /// Different for each scope of a process, also when a tenant is let go and comes back.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// When a request was last noted here, microseconds of the caller's clock; exact to one tick.
    pub fn last_touched_us(&self) -> u64 {
        self.last_touched_us.load(Ordering::Relaxed)
    }

    /// Sets from which latency on a request is slow and very slow, microseconds; 0: not judged. A canary's request is
    /// slow beyond the cut times `tolerance` (1 to 10). Holds for requests that are routed from now on.
    pub fn set_cuts(&self, cut90_us: u32, cut99_us: u32, tolerance: f64, baseline: &VersionName) {
        let stretch = |cut: u32| (f64::from(cut) * tolerance).round() as u32;
        self.cuts.baseline.store(pack(cut90_us, cut99_us), Ordering::Relaxed);
        self.cuts.canary.store(pack(stretch(cut90_us), stretch(cut99_us)), Ordering::Relaxed);
        if self.baseline.load().as_deref() != Some(baseline) {
            self.baseline.store(Some(Arc::new(baseline.clone())));
            self.epochs().iter().for_each(|e| e.set_baseline(baseline));
        }
    }

    /// The cuts of the baseline's requests in microseconds, 90th and 99th percentile; 0: not judged.
    pub fn cuts(&self) -> (u32, u32) {
        unpack(self.cuts.baseline.load(Ordering::Relaxed))
    }

    /// Cumulative totals of every version that was seen here.
    pub fn totals(&self) -> Vec<TotalsReading> {
        self.totals.load().iter().map(|t| t.read()).collect()
    }

    /// Every epoch with counts that may not have been read yet, oldest first.
    pub fn epochs(&self) -> Vec<Arc<EpochTally>> {
        let parting = self.parting.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.epochs.load();
        let mut all: Vec<_> = parting.iter().map(|p| &p.epoch).chain(current.iter()).cloned().collect();
        all.sort_by_key(|e| e.epoch);
        all
    }

    /// Lets old epochs go once no request can add to them and everything was read. For the tick, after it has read what
    /// [`epochs`](Self::epochs) gave and dropped it.
    pub fn retire_epochs(&self, now_us: u64) {
        let mut parting = self.parting.lock().unwrap_or_else(PoisonError::into_inner);
        parting.retain_mut(|p| {
            let quiet = Arc::strong_count(&p.epoch) == 1;
            !(quiet && std::mem::replace(&mut p.quiet, quiet))
        });
        let current = self.epochs.load_full();
        current.iter().for_each(|e| e.renew_full_keys());
        let older = &current[..current.len().saturating_sub(1)];
        let leaving: Vec<_> = older.iter().filter(|e| e.idle_us(now_us) > EPOCH_IDLE_US).cloned().collect();
        if leaving.is_empty() {
            return;
        }
        let stays = |epoch: &Arc<EpochTally>| !leaving.iter().any(|l| Arc::ptr_eq(l, epoch));
        self.epochs.rcu(|list| list.iter().filter(|e| stays(e)).cloned().collect::<Vec<_>>());
        parting.extend(leaving.into_iter().map(|epoch| Parting { epoch, quiet: false }));
    }

    /// The totals of a version, made on first use.
    pub(super) fn version(&self, version: &VersionName) -> Arc<VersionTotals> {
        let find = |list: &[Arc<VersionTotals>]| list.iter().find(|t| t.version() == version).cloned();
        if let Some(totals) = find(&self.totals.load()) {
            return totals;
        }
        let fresh = Arc::new(VersionTotals::new(version.clone(), self.cells.version(version)));
        let before = self.totals.rcu(|list| {
            let mut list = Vec::clone(list);
            if find(&list).is_none() {
                list.push(fresh.clone());
            }
            list
        });
        find(&before).unwrap_or(fresh)
    }

    pub(super) fn forget_version(&self, version: &VersionName) {
        self.totals.rcu(|list| list.iter().filter(|t| t.version() != version).cloned().collect::<Vec<_>>());
    }

    /// The tally of the split's epoch, made on first use; none when there are too many.
    pub(super) fn epoch(&self, split: &Split, now_us: u64) -> Option<Arc<EpochTally>> {
        let find = |list: &[Arc<EpochTally>]| {
            // The newest is last and nearly always the one.
            let newest = list.last().filter(|e| e.epoch == split.epoch);
            newest.or_else(|| list.binary_search_by_key(&split.epoch, |e| e.epoch).ok().map(|i| &list[i])).cloned()
        };
        {
            let list = self.epochs.load();
            let known = find(&list);
            // When the list is full, each further request would copy it in vain.
            if known.is_some() || list.len() >= MAX_EPOCHS {
                return known;
            }
        }
        self.epochs.rcu(|list| {
            let mut list = Vec::clone(list);
            let place = list.partition_point(|e| e.epoch < split.epoch);
            if list.get(place).is_none_or(|e| e.epoch != split.epoch) && list.len() < MAX_EPOCHS {
                let same_attempt = list.iter().find(|e| e.attempt == split.attempt).map(|e| &**e);
                let baseline = self.baseline.load();
                list.insert(place, Arc::new(EpochTally::new(split, same_attempt, baseline.as_deref(), now_us)));
            }
            list
        });
        find(&self.epochs.load())
    }

    /// The cuts for a request that is routed now.
    pub(super) fn cuts_for(&self, is_baseline: bool) -> (u32, u32) {
        let cuts = if is_baseline { &self.cuts.baseline } else { &self.cuts.canary };
        unpack(cuts.load(Ordering::Relaxed))
    }

    /// Puts the scope on the list of what the tick must read. Call it after counting: the fence orders the counts
    /// before the look at the flag, so that either the tick sees them or the scope is put on the list again.
    pub(super) fn touch(self: &Arc<Self>, now_us: u64) {
        std::sync::atomic::fence(Ordering::SeqCst);
        self.touch_loosely(now_us);
    }

    /// The same where a count may be seen one touch later.
    pub(super) fn touch_loosely(self: &Arc<Self>, now_us: u64) {
        if !self.dirty.load(Ordering::Relaxed) && !self.dirty.swap(true, Ordering::AcqRel) {
            self.last_touched_us.fetch_max(now_us, Ordering::Relaxed);
            self.shared.note_active(self);
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Relaxed)
    }

    /// The tick is about to read the scope.
    pub(super) fn taken(&self) -> bool {
        let was = self.dirty.swap(false, Ordering::AcqRel);
        std::sync::atomic::fence(Ordering::SeqCst);
        was
    }
}

fn pack(cut90: u32, cut99: u32) -> u64 {
    u64::from(cut90) | u64::from(cut99) << 32
}

fn unpack(cuts: u64) -> (u32, u32) {
    (cuts as u32, (cuts >> 32) as u32)
}
