//! What each tenant may use of a service, so that none wears out the others.

use std::collections::BTreeMap;

use super::names::{GroupName, TenantName};
use super::rate::Rate;

/// What one tenant may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    /// Requests over time; none: any.
    pub rate: Option<Rate>,
    /// Requests at a time, 1 to [`Limit::MAX_CONCURRENCY`]; none: any.
    pub concurrency: Option<u32>,
}

impl Limit {
    /// The largest limit of requests at a time.
    pub const MAX_CONCURRENCY: u32 = 1_000_000;
}

/// What is different for some; `Some(None)` says that there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitOverride {
    /// Instead of the rate.
    pub rate: Option<Option<Rate>>,
    /// Instead of the concurrency.
    pub concurrency: Option<Option<u32>>,
}

/// Whose requests count together when they name no tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WithoutTenant {
    /// Those of one client address.
    #[default]
    Address,
    /// All of them.
    Together,
    /// They are not limited.
    Unlimited,
}

/// The limits of a service. Each tenant has its own; what one tenant uses says nothing about another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitsSpec {
    /// For each tenant.
    pub each: Limit,
    /// For each tenant of a group; of several groups, the first by name.
    pub groups: BTreeMap<GroupName, LimitOverride>,
    /// For single tenants; goes before the groups.
    pub tenants: BTreeMap<TenantName, LimitOverride>,
    /// For requests without a tenant.
    pub without_tenant: WithoutTenant,
}

impl LimitsSpec {
    /// Whether nobody is limited.
    pub fn is_empty(&self) -> bool {
        self.each == Limit::default() && self.groups.is_empty() && self.tenants.is_empty()
    }

    /// What a tenant may use: what is said of it, else of its first group, else of each. `groups`: its groups by name.
    pub fn of(&self, tenant: &str, groups: &[GroupName]) -> Limit {
        let own = self.tenants.get(tenant).copied().unwrap_or_default();
        let group = groups.iter().find_map(|g| self.groups.get(g)).copied().unwrap_or_default();
        Limit {
            rate: own.rate.or(group.rate).unwrap_or(self.each.rate),
            concurrency: own.concurrency.or(group.concurrency).unwrap_or(self.each.concurrency),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_word_counts_for_each_limit_by_itself() {
        let rate = |n| Rate::new(n, None);
        let group = |name: &str| GroupName::new(name).unwrap();
        let spec = LimitsSpec {
            each: Limit { rate: rate(1.0), concurrency: Some(1) },
            groups: BTreeMap::from([
                (group("gold"), LimitOverride { rate: Some(rate(5.0)), concurrency: Some(Some(5)) }),
                (group("silver"), LimitOverride { rate: Some(rate(3.0)), concurrency: None }),
            ]),
            tenants: BTreeMap::from([(
                TenantName::new("acme").unwrap(),
                LimitOverride { rate: Some(None), concurrency: None },
            )]),
            without_tenant: WithoutTenant::Address,
        };
        let of = |tenant, groups: &[&str]| {
            let limit = spec.of(tenant, &groups.iter().map(|g| group(g)).collect::<Vec<_>>());
            (limit.rate, limit.concurrency)
        };
        assert_eq!(of("globex", &[]), (rate(1.0), Some(1)));
        assert_eq!(of("globex", &["silver"]), (rate(3.0), Some(1)));
        assert_eq!(of("globex", &["bronze", "gold", "silver"]), (rate(5.0), Some(5)));
        assert_eq!(of("acme", &["gold"]), (None, Some(5)));
        assert!(!spec.is_empty() && LimitsSpec::default().is_empty());
    }
}
