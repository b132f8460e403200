//! Bars and brakes where a rollout sets splits anew: what lost its traffic does not come back by that. Another part of
//! `apply`.

use std::collections::BTreeMap;

use super::apply::{Next, inherited};
use super::change::ChangeError;
use super::names::{TenantName, VersionName};
use super::split::{Slice, Split};
use super::state::{Scope, TenantState};
use super::tenant_map::TenantMap;

impl Next<'_> {
    /// Ends the bar on a version that is trusted from now on. Splits that it took the version from are written as what they
    /// came to: what was rolled back does not come back because others went on.
    pub(super) fn lift_bar(&mut self, version: &VersionName) -> Result<(), ChangeError> {
        let live = self.live()?.clone();
        let Some(bar) = live.bars.get(version) else { return Ok(()) };
        let mut without = (*live).clone();
        without.bars.remove(version);
        let lifted = |split: &Split| {
            live.barred(version, split)?;
            // Whoever took over from another barred version may have been this one.
            let stays = |slices: &[Slice]| live.owners(slices, split) == without.owners(slices, split);
            if stays(&split.slices) && split.brake.as_ref().is_none_or(|brake| stays(&brake.slices)) {
                return None;
            }
            // What is only a brake on a split above it is of no use when that is written anew.
            let mut lifted = split.follows().is_none().then(|| split.clone());
            if let Some(split) = &mut lifted {
                (split.slices, split.brake) = (live.slices_in_effect(split), None);
                split.recalls.note(version, bar.revision);
            }
            Some(lifted)
        };
        let tenants = self.state.tenants.get(&self.request.service).into_iter().flat_map(TenantMap::iter);
        let own = |(name, own): (&TenantName, &TenantState)| {
            let split = lifted(&own.split)?;
            Some((name.clone(), split.map(|split| TenantState { split, ..own.clone() })))
        };
        let tenants: Vec<_> = tenants.filter_map(own).collect();
        self.writes.tenants.extend(tenants);
        let groups = live.groups.iter().filter_map(|(name, split)| {
            let split = lifted(split).unwrap_or_else(|| Some(split.clone()))?;
            Some((name.clone(), split))
        });
        let groups = groups.collect();
        let edit = self.edit()?;
        edit.groups = groups;
        edit.bars.remove(version);
        Ok(())
    }

    /// Whose share of a wider split the guard holds back does not get it because a rollout sets that split: the brake goes
    /// over to the new attempt until the guard releases it. Where the new share is no larger it just ends.
    pub(super) fn keep_brakes(
        &mut self,
        to: &VersionName,
        scope: &Scope,
        before: &Split,
        after: &Split,
    ) -> Result<(), ChangeError> {
        if let Scope::Tenant(_) = scope {
            return Ok(());
        }
        let (live, revision) = (self.live()?.clone(), self.revision);
        let next = self.edit()?.clone();
        let kept = |split: &Split| {
            split.follows().filter(|attempt| *attempt == before.attempt)?;
            let share = live.weights_in_effect(split).share(to.as_str());
            let mut kept = after.braked(to, &live.baseline, share, revision)?;
            kept.brake.as_mut()?.follows = Some(after.attempt);
            Some(kept)
        };
        let own = self.state.tenants.get(&self.request.service).into_iter().flat_map(TenantMap::iter);
        let own = own.filter_map(|(name, own)| {
            let split = kept(&own.split)?;
            // Splits of several groups may be set in one breath, and a group may leave the split that others follow.
            let (_, above) = inherited(self.structure, &next, &Scope::Tenant(name.clone()));
            (above == *scope).then(|| (name.clone(), Some(TenantState { split, ..own.clone() })))
        });
        let tenants: BTreeMap<_, _> = own.collect();
        self.writes.tenants.retain(|(name, _)| !tenants.contains_key(name));
        self.writes.tenants.extend(tenants);
        if *scope != Scope::Service {
            return Ok(());
        }
        let groups: Vec<_> = live.groups.iter().filter_map(|(g, split)| Some((g.clone(), kept(split)?))).collect();
        self.edit()?.groups.extend(groups);
        Ok(())
    }
}
