//! What is asked: a plan, a guard, the traffic, and what the new version is like.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::traffic::{Load, Regression};
use crate::model::{
    GroupName, GuardSpec, NewRollout, RolloutSpec, Scope, ServiceName, ServiceSpec, Structure, Target, TenantName,
    TenantsSpec, Unit, UnitStatus, VersionSpec, Weights,
};
use crate::planning::{Candidate, batches};

/// What a run may take beyond the longest time of its plan, milliseconds: evidence may have to be confirmed.
const GRACE_MS: u64 = 3_600_000;
/// No run takes longer than this, milliseconds.
const LONGEST_MS: u64 = 90 * 24 * 3_600_000;

/// A what-if question, checked.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The service's name.
    pub service: ServiceName,
    /// The service as it is configured; its versions, split and baseline make no difference.
    pub base: ServiceSpec,
    /// What both versions are made of, which makes no difference either.
    pub version: Arc<VersionSpec>,
    /// Groups of tenants.
    pub groups: BTreeMap<GroupName, BTreeSet<TenantName>>,
    /// The plan. Gates, windows, the time of the start and the versions after the last one are left out.
    pub spec: RolloutSpec,
    /// Tenants that stay where they are.
    pub excluded: BTreeSet<TenantName>,
    /// The guard's settings.
    pub guard: GuardSpec,
    /// Whose requests come, and which part of all requests each has. Tenants, or the service for requests without one.
    pub audience: Vec<(Scope, f64)>,
    /// How many requests come, and how often the baseline fails.
    pub load: Load,
    /// What the new version is like; none: only the healthy one is asked about.
    pub regression: Option<Regression>,
    /// How many rollouts with the regression to run, 1 to [`Scenario::MAX_RUNS`]; none: 200, or as many as the limit allows.
    pub runs: Option<u32>,
    /// How many with a healthy version; none: 1,000, or as many as the limit allows.
    pub healthy_runs: Option<u32>,
    /// The same seed gives the same answer.
    pub seed: u64,
}

/// How requests are spread over tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spread {
    /// All have as many.
    #[default]
    Equal,
    /// The n-th has an n-th of what the first has.
    Zipf,
}

impl Scenario {
    /// The most runs of one kind.
    pub const MAX_RUNS: u32 = 10_000;
    /// The most tenants.
    pub const MAX_TENANTS: usize = 10_000;

    /// The parts of these tenants, together 1; without tenants, everything has none.
    pub fn audience_of(tenants: impl IntoIterator<Item = TenantName>, spread: Spread) -> Vec<(Scope, f64)> {
        let weight = |place: usize| match spread {
            Spread::Equal => 1.0,
            Spread::Zipf => 1.0 / (place + 1) as f64,
        };
        let all = tenants.into_iter().enumerate().map(|(place, tenant)| (Scope::Tenant(tenant), weight(place)));
        Self::in_parts(all.collect())
    }

    /// The same from requests per second.
    pub fn in_parts(rates: Vec<(Scope, f64)>) -> Vec<(Scope, f64)> {
        let sum: f64 = rates.iter().map(|(_, rate)| rate).sum();
        if rates.is_empty() || sum <= 0.0 {
            return vec![(Scope::Service, 1.0)];
        }
        rates.into_iter().map(|(scope, rate)| (scope, rate / sum)).collect()
    }

    /// The service with two versions, and everything on the old one.
    pub(super) fn structure(&self) -> Structure {
        let (from, to) = (&self.spec.from, &self.spec.to);
        let version = Arc::new(VersionSpec { upgrade_from: Vec::new(), ..(*self.version).clone() });
        let spec = ServiceSpec {
            name: self.service.clone(),
            baseline: from.clone(),
            split: Weights::all_on(from.clone()),
            versions: [from, to].map(|name| (name.clone(), version.clone())).into(),
            ..self.base.clone()
        };
        Structure {
            tenants: TenantsSpec { groups: self.groups.clone(), ..TenantsSpec::default() },
            services: BTreeMap::from([(self.service.clone(), Arc::new(spec))]),
        }
    }

    /// The rollout with the units of the simulated tenants.
    pub(super) fn new_rollout(&self) -> NewRollout {
        let spec = RolloutSpec {
            gates: Vec::new(),
            schedule: Default::default(),
            start_at_ms: None,
            then: Vec::new(),
            ..self.spec.clone()
        };
        let by_tenants = spec.batch.is_some() || spec.canary.is_some();
        let (single, wide) = match &spec.target {
            Target::Tenants => (true, Vec::new()),
            Target::Groups(_) if by_tenants => (true, Vec::new()),
            Target::Groups(names) => (false, names.iter().cloned().map(Scope::Group).collect()),
            Target::Service => (by_tenants, vec![Scope::Service]),
        };
        let candidates = self.audience.iter().filter_map(|(scope, part)| match scope {
            Scope::Tenant(tenant) if single && !self.excluded.contains(tenant) => {
                Some(Candidate { tenant: tenant.clone(), rate: *part })
            }
            _ => None,
        });
        let mut all = batches(&spec, candidates.collect(), &self.groups, None);
        all.extend((!wide.is_empty()).then_some(wide));
        let kept = |tenant: &TenantName| Unit::new(Scope::Tenant(tenant.clone()), UnitStatus::Excluded, String::new());
        NewRollout { spec, batches: all, left: self.excluded.iter().map(kept).collect() }
    }

    /// After this time a run ends wherever it is.
    pub(super) fn longest_ms(&self, batches: u64) -> u64 {
        let spec = &self.spec;
        let steps: u64 = spec.steps.iter().map(|step| step.max_bake_ms).fold(0, u64::saturating_add);
        let batch = steps.saturating_add(spec.batch_delay_ms);
        let back = spec.back_every_ms.saturating_mul(spec.back.len() as u64 + 1);
        let whole = batch.saturating_mul(batches).saturating_add(back).saturating_add(GRACE_MS);
        whole.min(LONGEST_MS)
    }
}
