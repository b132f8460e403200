//! What the guard sees right now, for people to look at: written by the guard, read by the admin API.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::analysis::{EvidenceWindow, Verdict};
use crate::model::{ServiceName, TenantName, VersionName};

/// Whose comparison it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// The counts behind the evidence.
    pub window: EvidenceWindow,
}

/// The comparisons of now.
#[derive(Debug, Default)]
pub struct Board {
    reports: Mutex<HashMap<ScopeKey, ComparisonReport>>,
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

    /// The worst verdict of a service over all its scopes: breach before not enough evidence before healthy.
    pub fn verdict(&self, service: &ServiceName) -> Option<Verdict> {
        let rank = |v: &Verdict| match v {
            Verdict::Breach => 2,
            Verdict::NotEnoughEvidence => 1,
            Verdict::Healthy => 0,
        };
        self.lock().iter().filter(|(k, _)| k.service == *service).map(|(_, r)| r.verdict).max_by_key(rank)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ScopeKey, ComparisonReport>> {
        // A report is a plain value, so one that was being written when a thread died is still a whole one.
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
