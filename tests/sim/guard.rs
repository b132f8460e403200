//! The guard and the traffic that it sees: which version is good for whom is the run's secret, and evidence grows with time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use switchback::model::{
    Author, Change, ChangeRequest, LiveRollout, Scope, ServiceName, State, TenantName, VersionName,
};
use switchback::planning::{ScopeEvidence, StageEvidence};

use crate::dice::Dice;
use crate::plans::{TENANTS, points, tenant};
use crate::view::View;

/// What the new version is like.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Truth {
    #[default]
    Good,
    Bad,
    BadFor(BTreeSet<TenantName>),
    /// Nobody asks for anything.
    Silent,
}

#[derive(Default)]
pub struct Guard {
    pub truth: Truth,
    /// False alarms, needless probes and slow hands.
    pub wild: bool,
    /// When this process first saw an attempt of a tenant's split.
    since: BTreeMap<(TenantName, u64), u64>,
}

impl Guard {
    pub fn forget(&mut self) {
        self.since.clear();
    }

    fn is_bad(&self, tenant: &TenantName) -> bool {
        match &self.truth {
            Truth::Bad => true,
            Truth::BadFor(some) => some.contains(tenant),
            Truth::Good | Truth::Silent => false,
        }
    }

    /// Requests that failed in so many milliseconds.
    pub fn count(
        &self,
        state: &State,
        view: &View,
        service: &ServiceName,
        failed: &mut HashMap<VersionName, u64>,
        ms: u64,
    ) {
        let Some(live) = state.running_rollout(service) else { return };
        let to = &live.rollout.spec.to;
        for tenant in (0..TENANTS).map(tenant).filter(|tenant| self.is_bad(tenant)) {
            let share = u64::from(view.share(&Scope::Tenant(tenant), to));
            *failed.entry(to.clone()).or_default() += share * ms.min(60_000) / 10_000 / 500;
        }
    }

    /// What was seen of the batch's units that moved.
    pub fn seen(&self, view: &View, live: &LiveRollout, now_ms: u64) -> StageEvidence {
        let rollout = &live.rollout;
        let batch = live.units.range(rollout.batch_range(rollout.stage.batch));
        let attempts: BTreeSet<_> = batch.filter(|(_, u)| u.status.has_moved()).map(|(_, u)| u.attempt).collect();
        let mut evidence = StageEvidence::default();
        for tenant in (0..TENANTS).map(tenant) {
            let scope = Scope::Tenant(tenant.clone());
            let split = &view.of(&scope).split;
            if !attempts.contains(&split.attempt) || self.truth == Truth::Silent {
                continue;
            }
            let since = self.since.get(&(tenant.clone(), split.attempt)).copied().unwrap_or(now_ms);
            let requests = (now_ms - since) / 300;
            let bad = self.is_bad(&tenant);
            let log = if bad { 0.0 } else { requests as f64 * 0.05 };
            evidence.add(&ScopeEvidence {
                requests,
                failures: if bad { requests / 3 } else { 0 },
                promotion: BTreeMap::from([("error", log)]),
                against: if bad { requests as f64 * 0.05 } else { 0.0 },
                breach: false,
                braked: split.brake.is_some(),
                hold_slo: false,
            });
        }
        evidence
    }

    /// What it does about what it sees.
    pub fn look(
        &mut self,
        state: &State,
        view: &View,
        service: &ServiceName,
        dice: &mut Dice,
        now_ms: u64,
    ) -> Vec<ChangeRequest> {
        let Some(live) = state.rollouts.values().max_by_key(|live| live.rollout.first_event) else { return Vec::new() };
        let (to, at) = (&live.rollout.spec.to, state.service(service.as_str()).expect("it is there"));
        if at.baseline == *to {
            return Vec::new();
        }
        let mut asked = Vec::new();
        for tenant in (0..TENANTS).map(tenant) {
            let scope = Scope::Tenant(tenant.clone());
            let (split, share) = (&view.of(&scope).split, view.share(&scope, to));
            if share == 0 {
                continue;
            }
            let since = *self.since.entry((tenant.clone(), split.attempt)).or_insert(now_ms);
            let age_ms = now_ms - since;
            let act = |dice: &mut Dice, often: u64| dice.permille(often);
            let (bad, wild, braked) = (self.is_bad(&tenant), self.wild, split.brake.is_some());
            let change = if bad && age_ms > 8_000 && act(dice, 300) {
                rollback(scope, to)
            } else if !braked && share > 200 && (bad && age_ms > 3_000 && act(dice, 200) || wild && act(dice, 3)) {
                Change::Brake { scope, canary: to.clone(), share: points(100) }
            } else if braked && !bad && act(dice, 200) {
                Change::ReleaseBrake { scope }
            } else if wild && share > 9_000 && act(dice, 2) {
                Change::Probe { scope, canary: to.clone() }
            } else {
                continue;
            };
            asked.push(request(service, change, split.attempt));
        }
        if self.truth == Truth::Bad && dice.permille(10) {
            asked.push(request(service, rollback(Scope::Service, to), at.split.attempt));
        }
        asked
    }
}

fn rollback(scope: Scope, to: &VersionName) -> Change {
    Change::Rollback { scope, canary: Some(to.clone()), cause: "errors".to_owned(), first_bad_ms: None }
}

fn request(service: &ServiceName, change: Change, attempt: u64) -> ChangeRequest {
    ChangeRequest {
        service: service.clone(),
        change,
        author: Author::Autopilot,
        reason: "what the guard saw".to_owned(),
        if_revision: None,
        if_attempt: Some(attempt),
        evidence: serde_json::Value::Null,
    }
}
