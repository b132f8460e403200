//! What was seen of a step: the evidence of all its scopes together.
//!
//! Tenants too small to prove anything alone are promoted together: the logarithms of their promotion evidence add up, since
//! each tenant's requests are coins of their own (analysis section 2.5).

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What one scope says about the step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScopeEvidence {
    /// Requests that the new version answered in this step.
    pub requests: u64,
    /// Failures among them.
    pub failures: u64,
    /// Natural logarithm of the promotion evidence by signal.
    pub promotion: BTreeMap<&'static str, f64>,
    /// Natural logarithm of the evidence against the new version.
    pub against: f64,
    /// It is worse, and traffic is about to go back.
    pub breach: bool,
    /// Its share is held back.
    pub braked: bool,
    /// Both versions fail more than is allowed.
    pub hold_slo: bool,
}

/// What is known about a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StageEvidence {
    /// How long this process has watched the rollout where it stands now, in milliseconds. After a restart it begins anew,
    /// as the evidence does.
    pub observed_ms: u64,
    /// Scopes that said something.
    pub scopes: u32,
    /// Requests that the new version answered in this step.
    pub requests: u64,
    /// Failures among them.
    pub failures: u64,
    /// Natural logarithm of the pooled promotion evidence by signal.
    pub promotion: BTreeMap<&'static str, f64>,
    /// The strongest evidence against the new version in any scope, as a natural logarithm.
    pub against: f64,
    /// Some scope is about to go back.
    pub breach: bool,
    /// Some scope's share is held back.
    pub braked: bool,
    /// In some scope both versions fail more than is allowed.
    pub hold_slo: bool,
    /// Requests of users that failed on the new version since the rollout began.
    pub failed_requests: u64,
}

/// The signal that must always be shown.
const ERROR: &str = "error";

impl StageEvidence {
    /// Adds what a scope says.
    pub fn add(&mut self, scope: &ScopeEvidence) {
        self.scopes += 1;
        self.requests += scope.requests;
        self.failures += scope.failures;
        for (signal, log) in &scope.promotion {
            *self.promotion.entry(signal).or_default() += log;
        }
        self.against = self.against.max(scope.against);
        self.breach |= scope.breach;
        self.braked |= scope.braked;
        self.hold_slo |= scope.hold_slo;
    }

    /// Whether the new version is shown not to be worse: each signal that said anything speaks for it with at least
    /// `log_at`, and nothing speaks against it.
    pub fn is_proven(&self, log_at: f64) -> bool {
        // A signal without data has no evidence at all, neither way.
        let enough = |signal: &&str, log: f64| log >= log_at || **signal != *ERROR && log == 0.0;
        let shown = self.promotion.get(ERROR).is_some_and(|log| *log >= log_at);
        shown && self.promotion.iter().all(|(signal, log)| enough(signal, *log)) && !self.is_suspicious()
    }

    /// Whether something speaks against the new version that is not settled yet: M of at least 2, or a brake.
    pub fn is_suspicious(&self) -> bool {
        self.against >= 2_f64.ln() || self.breach || self.braked
    }

    /// For the history.
    pub fn to_json(&self) -> Value {
        json!({
            "seconds": self.observed_ms / 1_000,
            "tenants": self.scopes,
            "requests": self.requests,
            "failures": self.failures,
            "log_promotion": self.promotion,
            "log_evidence_against": self.against,
            "failed_requests": self.failed_requests,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(error: f64, slow: f64) -> ScopeEvidence {
        ScopeEvidence {
            requests: 50,
            promotion: BTreeMap::from([("error", error), ("slow", slow)]),
            ..Default::default()
        }
    }

    #[test]
    fn small_tenants_prove_together_what_none_could_alone() {
        let at = 20_f64.ln();
        let mut all = StageEvidence::default();
        assert!(!all.is_proven(at), "silence is no proof");
        all.add(&scope(1.6, 0.0));
        assert!(!all.is_proven(at));
        all.add(&scope(1.6, 0.0));
        assert!(all.is_proven(at));
        all.add(&scope(0.0, 0.5));
        assert!(!all.is_proven(at), "a signal that speaks must be shown too");
        all.add(&scope(0.0, 2.6));
        assert!(all.is_proven(at));
        all.add(&ScopeEvidence { against: 0.7, ..ScopeEvidence::default() });
        assert!(!all.is_proven(at), "something speaks against it");
    }
}
