//! Who goes first: the units of a rollout in their batches.
//!
//! Smallest risk first: groups in the order that the operator gives, then tenants by how much traffic they have, so that what
//! is wrong is found where it hurts least. Or at random by a seed, which anyone can repeat.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::model::{GroupName, RolloutSpec, Scope, TenantName};

/// A tenant that may be moved.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Who.
    pub tenant: TenantName,
    /// Requests per second, as far as is known.
    pub rate: f64,
}

/// The batches in which these tenants go, and behind them `rest` as a batch of its own: the scope of everyone who is not
/// named, if the rollout moves them too.
pub fn batches(
    spec: &RolloutSpec,
    candidates: Vec<Candidate>,
    groups: &BTreeMap<GroupName, BTreeSet<TenantName>>,
    rest: Option<Scope>,
) -> Vec<Vec<Scope>> {
    let rank = |tenant: &TenantName| {
        let member = |g: &GroupName| groups.get(g).is_some_and(|members| members.contains(tenant));
        spec.order.groups.iter().position(member).unwrap_or(usize::MAX)
    };
    let mut ranked: Vec<_> = candidates.into_iter().map(|c| (rank(&c.tenant), c)).collect();
    ranked.sort_by(|(a_rank, a), (b_rank, b)| {
        let by_risk = || a.rate.total_cmp(&b.rate);
        let drawn = |seed| {
            let draw = |c: &Candidate| xxh3_64_with_seed(c.tenant.as_str().as_bytes(), seed);
            draw(a).cmp(&draw(b))
        };
        let order = spec.order.seed.map_or_else(by_risk, drawn);
        a_rank.cmp(b_rank).then(order).then_with(|| a.tenant.cmp(&b.tenant))
    });
    let mut scopes: Vec<_> = ranked.into_iter().map(|(_, c)| Scope::Tenant(c.tenant)).collect();
    let mut batches = Vec::new();
    if let Some(share) = spec.canary
        && !scopes.is_empty()
    {
        let first = (scopes.len() * usize::from(share.points())).div_ceil(10_000);
        batches.push(scopes.drain(..first).collect());
    }
    let size = spec.batch.map_or(usize::MAX, |size| size as usize);
    batches.extend(scopes.chunks(size.max(1)).map(<[Scope]>::to_vec));
    batches.extend(rest.map(|scope| vec![scope]));
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BasisPoints, Order, plan_of};
    use proptest::prelude::*;

    fn candidate(name: &str, rate: f64) -> Candidate {
        Candidate { tenant: TenantName::new(name).unwrap(), rate }
    }

    fn names(batches: &[Vec<Scope>]) -> Vec<Vec<String>> {
        let text = |scope: &Scope| scope.to_string().trim_start_matches("tenant ").to_owned();
        batches.iter().map(|batch| batch.iter().map(text).collect()).collect()
    }

    #[test]
    fn groups_first_then_the_quietest() {
        let group = GroupName::new("beta").unwrap();
        let members = ["loud", "z"].map(|n| TenantName::new(n).unwrap());
        let groups = BTreeMap::from([(group.clone(), BTreeSet::from(members))]);
        let all = vec![candidate("a", 5.0), candidate("b", 0.0), candidate("loud", 90.0), candidate("z", 1.0)];
        let order = Order { groups: vec![group], seed: None, unknown: Default::default() };
        let spec = RolloutSpec { batch: Some(3), order, ..plan_of(&[100]) };
        let batches = batches(&spec, all, &groups, Some(Scope::Service));
        assert_eq!(names(&batches), [vec!["z", "loud", "b"], vec!["a"], vec!["service"]]);
    }

    #[test]
    fn the_canary_tenants_are_a_batch_of_their_own() {
        let all = || (0..21).map(|i| candidate(&format!("t{i:02}"), 0.0)).collect::<Vec<_>>();
        let spec = RolloutSpec { canary: BasisPoints::new(1_000), batch: Some(10), ..plan_of(&[100]) };
        let sizes = |spec: &RolloutSpec| -> Vec<usize> {
            batches(spec, all(), &BTreeMap::new(), None).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&spec), [3, 10, 8]);
        assert_eq!(sizes(&RolloutSpec { batch: None, ..spec }), [3, 18]);
    }

    proptest! {
        /// Everyone exactly once, in the same order for the same seed.
        #[test]
        fn everyone_goes_once(count in 0usize..300, size in 1u32..40, seed in prop::option::of(0u64..5), canary in 0u16..10_000) {
            let all = || (0..count).map(|i| candidate(&format!("t{i}"), (i % 7) as f64)).collect::<Vec<_>>();
            let order = Order { groups: Vec::new(), seed, unknown: Default::default() };
            let canary = BasisPoints::new(canary).filter(|c| *c > BasisPoints::ZERO);
            let spec = RolloutSpec { batch: Some(size), order, canary, ..plan_of(&[100]) };
            let first = batches(&spec, all(), &BTreeMap::new(), None);
            let mut backwards = all();
            backwards.reverse();
            prop_assert_eq!(&first, &batches(&spec, backwards, &BTreeMap::new(), None));
            let distinct: BTreeSet<_> = first.iter().flatten().collect();
            prop_assert_eq!((distinct.len(), first.iter().flatten().count()), (count, count));
            prop_assert!(first.iter().all(|batch| !batch.is_empty()));
            let rest = &first[usize::from(canary.is_some() && count > 0)..];
            prop_assert!(rest.iter().all(|batch| batch.len() <= size as usize));
        }
    }
}
