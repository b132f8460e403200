//! What the guard sees right now, for people to look at: written by the guard, read by the admin API.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::analysis::{EvidenceWindow, Verdict};
use crate::model::{RolloutId, ServiceName, TenantName, VersionName};
use crate::planning::{ScopeEvidence, Waiting};

/// Whose comparison it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScopeKey {
    /// The service.
    pub service: ServiceName,
    /// The tenant; none for requests without one and for services whose key is the tenant.
    pub tenant: Option<TenantName>,
    /// The version that is compared with the baseline.
    pub canary: VersionName,
}

/// One comparison of a canary with the baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparisonReport {
    /// The canary.
    pub canary: VersionName,
    /// The baseline.
    pub baseline: VersionName,
    /// Share of the canary among the two, 0 to 1.
    pub share: f64,
    /// Healthy, breach, or not enough evidence.
    pub verdict: Verdict,
    /// What the guard does about it: `none`, `rollback`, `probe`, `brake`, `hold_slo`.
    pub action: &'static str,
    /// The evidence as a number: how much the bet against the canary has won, capped at 10^12.
    pub evidence: f64,
    /// Its natural logarithm, not capped.
    pub log_evidence: f64,
    /// Evidence at which traffic goes back.
    pub threshold: f64,
    /// Natural logarithm of each signal's part.
    pub signals: std::collections::BTreeMap<&'static str, f64>,
    /// Natural logarithm of the evidence that the canary breaks the service's objective.
    pub ceiling_canary: f64,
    /// The same for the baseline.
    pub ceiling_baseline: f64,
    /// Whether the canary's share is held back.
    pub braked: bool,
    /// Whether the realised shares are not those configured.
    pub split_off: bool,
    /// Whether the canary is shown not to be worse.
    pub promotion_ready: bool,
    /// The attempt of the split that the comparison is of.
    pub attempt: u64,
    /// Requests that the canary answered in this attempt.
    pub requests: u64,
    /// Those that it failed.
    pub failures: u64,
    /// Natural logarithm of each signal's evidence that the canary is not worse.
    pub promotion: std::collections::BTreeMap<&'static str, f64>,
    /// The counts behind the evidence.
    pub window: EvidenceWindow,
    /// How many proxies' counts these are.
    pub proxies: usize,
    /// From which latency on a request of the baseline is slow and very slow, microseconds; 0: not judged, or not known yet.
    pub slow_after_us: (u32, u32),
}

impl ComparisonReport {
    /// What the scope says about the step of a rollout.
    pub fn for_planning(&self) -> ScopeEvidence {
        ScopeEvidence {
            requests: self.requests,
            failures: self.failures,
            promotion: self.promotion.clone(),
            against: self.log_evidence,
            breach: self.verdict == Verdict::Breach,
            braked: self.braked || self.action == "brake",
            hold_slo: self.action == "hold_slo",
        }
    }
}

/// The comparisons of now, and what rollouts wait for.
#[derive(Debug, Default)]
pub struct Board {
    reports: Mutex<HashMap<ScopeKey, ComparisonReport>>,
    failed: Mutex<HashMap<(ServiceName, VersionName), u64>>,
    failed_elsewhere: Mutex<HashMap<(ServiceName, VersionName), i64>>,
    waiting: Mutex<HashMap<RolloutId, Waiting>>,
}

impl Board {
    /// Puts up a report.
    pub fn put(&self, key: ScopeKey, report: ComparisonReport) {
        self.lock().insert(key, report);
    }

    /// Takes down the reports for which `keep` does not hold.
    pub fn retain(&self, keep: impl Fn(&ScopeKey) -> bool) {
        self.lock().retain(|key, _| keep(key));
    }

    /// The reports of one scope.
    pub fn of(&self, service: &ServiceName, tenant: Option<&TenantName>) -> Vec<ComparisonReport> {
        let mut reports: Vec<_> = self
            .lock()
            .iter()
            .filter(|(k, _)| k.service == *service && k.tenant.as_ref() == tenant)
            .map(|(_, r)| r.clone())
            .collect();
        reports.sort_by(|a, b| a.canary.cmp(&b.canary));
        reports
    }

    /// The reports of a service with the most evidence against the canary, that first; at most `limit`.
    pub fn worst(&self, service: &ServiceName, limit: usize) -> Vec<(ScopeKey, ComparisonReport)> {
        let reports = self.lock();
        let mut all: Vec<_> = reports.iter().filter(|(key, _)| key.service == *service).collect();
        let order = |(a, x): &(&ScopeKey, &ComparisonReport), (b, y): &(&ScopeKey, &ComparisonReport)| {
            y.log_evidence.total_cmp(&x.log_evidence).then_with(|| a.cmp(b))
        };
        // There may be as many as tenants; only those that are wanted are put in order and copied.
        if all.len() > limit && limit > 0 {
            all.select_nth_unstable_by(limit - 1, order);
        }
        all.truncate(limit);
        all.sort_by(order);
        all.into_iter().map(|(key, report)| (key.clone(), report.clone())).collect()
    }

    /// The worst verdict of a service over all its scopes: breach before not enough evidence before healthy.
    pub fn verdict(&self, service: &ServiceName) -> Option<Verdict> {
        let rank = |v: &Verdict| match v {
            Verdict::Breach => 2,
            Verdict::NotEnoughEvidence => 1,
            Verdict::Healthy => 0,
        };
        self.lock().iter().filter(|(k, _)| k.service == *service).map(|(_, r)| r.verdict).max_by_key(rank)
    }

    /// Looks at each report of a service's canary.
    pub fn each_of(&self, service: &ServiceName, canary: &VersionName, mut look: impl FnMut(&ComparisonReport)) {
        let reports = self.lock();
        reports.iter().filter(|(k, _)| k.service == *service && k.canary == *canary).for_each(|(_, r)| look(r));
    }

    /// Requests failed on a version, those that were rescued included.
    pub fn add_failed(&self, service: &ServiceName, version: &VersionName, count: u64) {
        *held(&self.failed).entry((service.clone(), version.clone())).or_default() += count;
    }

    /// How many requests failed on a version since the process began.
    pub fn failed(&self, service: &ServiceName, version: &VersionName) -> u64 {
        held(&self.failed).get(&(service.clone(), version.clone())).copied().unwrap_or_default()
    }

    /// Requests failed on a version at other proxies; below 0 when some were rescued after all.
    pub fn add_failed_elsewhere(&self, service: &ServiceName, version: &VersionName, count: i64) {
        *held(&self.failed_elsewhere).entry((service.clone(), version.clone())).or_default() += count;
    }

    /// How many requests failed for their users at other proxies, as far as this one was told.
    pub fn failed_elsewhere(&self, service: &ServiceName, version: &VersionName) -> u64 {
        let count = held(&self.failed_elsewhere).get(&(service.clone(), version.clone())).copied().unwrap_or_default();
        u64::try_from(count).unwrap_or_default()
    }

    /// What a rollout waits for; none: it is on the move, or over.
    pub fn put_waiting(&self, id: &RolloutId, waiting: Option<Waiting>) {
        let mut all = held(&self.waiting);
        match waiting {
            Some(waiting) => drop(all.insert(id.clone(), waiting)),
            None => drop(all.remove(id)),
        }
    }

    /// What a rollout waits for.
    pub fn waiting(&self, id: &RolloutId) -> Option<Waiting> {
        held(&self.waiting).get(id).cloned()
    }

    /// Forgets the rollouts for which `keep` does not hold.
    pub fn retain_waiting(&self, keep: impl Fn(&RolloutId) -> bool) {
        held(&self.waiting).retain(|id, _| keep(id));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ScopeKey, ComparisonReport>> {
        // A report is a plain value, so one that was being written when a thread died is still a whole one.
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Plain values too: see `Board::lock`.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
