//! How a rollout moves splits: the units of a step forward, one tenant back, all of them back. Another part of `apply`.
//!
//! A rollout owns a split as long as the attempt of the split is the one that it set. As soon as somebody else set it, the
//! rollout leaves the unit alone, whatever its plan says.

use serde_json::json;

use super::apply::{Next, Outcome, as_in_effect, inherited};
use super::apply_rollout::{WrittenRollout, covers, not_now};
use super::change::{Change, ChangeError, NewRollout};
use super::event::{Author, EventKind};
use super::names::{RolloutId, TenantName, VersionName};
use super::rollout::{
    GoingBack, Pause, PauseKind, Phase, Rollout, RolloutSpec, Stage, Target, Unit, UnitStatus, Units,
};
use super::share::{BUCKETS, BasisPoints, Weights};
use super::split::{RolledBack, Split};
use super::state::{Bar, Pin, Scope, TenantState};

impl Next<'_> {
    /// The units of a new rollout. Those whose split is not of its two versions alone are somebody else's business.
    pub(super) fn units_of(&self, new: &NewRollout) -> Result<Units, ChangeError> {
        let mut units = Vec::with_capacity(new.batches.iter().map(Vec::len).sum());
        for scope in new.batches.iter().flatten() {
            if let Scope::Group(group) = scope {
                self.known_group(group)?;
            }
            let unit = Unit::new(scope.clone(), UnitStatus::Pending, String::new());
            units.push(match self.why_not(&new.spec, scope)? {
                Some(why) => Unit { status: UnitStatus::Overridden, note: why, ..unit },
                None => unit,
            });
        }
        units.extend(new.left.iter().cloned());
        if units.is_empty() || new.batches.iter().any(Vec::is_empty) {
            return Err(ChangeError::Invalid(
                "there is nobody to move; name tenants, groups or the service".to_owned(),
            ));
        }
        let (count, most) = (units.len(), RolloutSpec::MAX_UNITS);
        if count > most {
            return Err(ChangeError::Invalid(format!("a rollout may move {most} tenants at most, not {count}")));
        }
        let units = Units::new(units);
        if units.len() as usize != count {
            return Err(ChangeError::Invalid("a tenant is named twice".to_owned()));
        }
        Ok(units)
    }

    /// Why a scope's split cannot be moved.
    fn why_not(&self, spec: &RolloutSpec, scope: &Scope) -> Result<Option<String>, ChangeError> {
        let (split, _) = self.current(scope)?;
        let weights = self.live()?.weights_in_effect(&split);
        let other = weights.iter().map(|(v, _)| v).find(|v| **v != spec.from && **v != spec.to);
        Ok(other.map(|v| format!("{v} has a share of its split")))
    }

    /// Tenants that are to stay get what they have as a split of their own, so that the service's does not take them along.
    pub(super) fn keep_in_place(&mut self, rollout: &Rollout, units: &Units) -> Result<(), ChangeError> {
        let stays = |u: &&Unit| u.status == UnitStatus::Excluded;
        for unit in units.iter().filter(stays) {
            let Scope::Tenant(tenant) = &unit.scope else { continue };
            let (split, owner) = self.current(&unit.scope)?;
            if owner != unit.scope {
                let own = self.own(tenant, split, Some(rollout.id.clone()));
                self.writes.tenants.push((tenant.clone(), Some(own)));
            }
        }
        Ok(())
    }

    /// The step takes effect for the units of the batch that are not in it yet.
    pub(super) fn enter(
        &mut self,
        written: &mut WrittenRollout,
        only: Option<&[Scope]>,
    ) -> Result<EventKind, ChangeError> {
        let rollout = written.rollout.clone();
        let stage = rollout.stage;
        let share = rollout.spec.share_at(stage.step);
        let wanted = |u: &Unit| is_due(u, stage) && only.is_none_or(|only| only.contains(&u.scope));
        let due: Vec<_> = written.units.range(rollout.batch_range(stage.batch)).filter(|(_, u)| wanted(u)).collect();
        let due: Vec<_> = due.into_iter().map(|(place, unit)| (place, unit.clone())).collect();
        for (place, unit) in due {
            self.advance(written, &rollout, (place, &unit), share)?;
        }
        let mut batch = written.units.range(rollout.batch_range(stage.batch));
        written.rollout.in_effect = !batch.any(|(_, u)| is_due(u, stage));
        written.rollout.bake_over = false;
        written.rollout.approved = None;
        Ok(EventKind::RolloutStep)
    }

    fn advance(
        &mut self,
        written: &mut WrittenRollout,
        rollout: &Rollout,
        (place, unit): (u32, &Unit),
        share: BasisPoints,
    ) -> Result<(), ChangeError> {
        if let Some(why) = self.lost(rollout, unit)? {
            written.edit(place, |u| (u.status, u.note) = (UnitStatus::Overridden, why));
            return Ok(());
        }
        let (before, _) = self.current(&unit.scope)?;
        let after = self.set_share(rollout, &unit.scope, share)?;
        self.keep_brakes(&rollout.spec.to, &unit.scope, &before, &after)?;
        let (revision, now_ms, step) = (self.revision, self.now_ms, rollout.stage.step);
        written.edit(place, |u| {
            u.status = UnitStatus::InProgress;
            u.step = Some(step);
            u.attempt = revision;
            u.started_ms.get_or_insert(now_ms);
        });
        Ok(())
    }

    /// Why a unit is no longer the rollout's to move.
    fn lost(&self, rollout: &Rollout, unit: &Unit) -> Result<Option<String>, ChangeError> {
        let (split, owner) = self.current(&unit.scope)?;
        if unit.status.has_moved() && (owner != unit.scope || split.attempt != unit.attempt) {
            return Ok(Some("somebody else set its split".to_owned()));
        }
        self.why_not(&rollout.spec, &unit.scope)
    }

    /// Gives the new version this share of a scope, or leaves it what it has if that is more, and the old one the rest.
    fn set_share(&mut self, rollout: &Rollout, scope: &Scope, share: BasisPoints) -> Result<Split, ChangeError> {
        let live = self.live()?.clone();
        let (now, _) = self.current(scope)?;
        let has = live.weights_in_effect(&now).share(rollout.spec.to.as_str());
        let weights = pair(&rollout.spec, share.max(has))?;
        let weights = self.with_shared_names(&live, &weights);
        let next = as_in_effect(&live, now).reweighted(&weights, &live.baseline, self.fresh_salt(), self.revision);
        self.put_rollout_split(&rollout.id, scope, next.clone())?;
        Ok(next)
    }

    fn put_rollout_split(&mut self, id: &RolloutId, scope: &Scope, split: Split) -> Result<(), ChangeError> {
        let Scope::Tenant(tenant) = scope else { return self.put_split(scope, split) };
        let own = self.own(tenant, split, Some(id.clone()));
        self.writes.tenants.push((tenant.clone(), Some(own)));
        Ok(())
    }

    /// The step has proved itself: the last one of a batch leaves nothing on the old version.
    pub(super) fn pass(&mut self, written: &mut WrittenRollout) -> Result<EventKind, ChangeError> {
        let rollout = written.rollout.clone();
        let stage = rollout.stage;
        if rollout.spec.is_last(stage.step) {
            let batch = written.units.range(rollout.batch_range(stage.batch));
            let moving: Vec<_> = batch.filter(|(_, u)| u.status == UnitStatus::InProgress).collect();
            let moving: Vec<_> = moving.into_iter().map(|(place, unit)| (place, unit.clone())).collect();
            for (place, unit) in moving {
                self.settle_unit(written, &rollout, (place, &unit))?;
            }
        }
        let next = rollout.next_stage();
        if let Some(next) = next {
            let waits = rollout.spec.canary.is_some() && stage.batch == 0 && next.batch == 1;
            if waits && rollout.paused.is_none() {
                let reason = "the canary tenants are through; resume to let the others follow".to_owned();
                let (author, since_ms) = (Author::Autopilot, self.now_ms);
                written.rollout.paused =
                    Some(Pause { kind: PauseKind::Canary, author, reason, since_ms, unknown: Default::default() });
            }
            written.rollout.stage = next;
            written.rollout.in_effect = false;
        }
        written.rollout.bake_over = false;
        // The answers of the step that is over are in the history.
        written.rollout.gates.retain(|key, _| !key.contains('@'));
        Ok(EventKind::RolloutPassed)
    }

    fn settle_unit(
        &mut self,
        written: &mut WrittenRollout,
        rollout: &Rollout,
        (place, unit): (u32, &Unit),
    ) -> Result<(), ChangeError> {
        if let Some(why) = self.lost(rollout, unit)? {
            written.edit(place, |u| (u.status, u.note) = (UnitStatus::Overridden, why));
            return Ok(());
        }
        self.set_share(rollout, &unit.scope, BasisPoints::ALL)?;
        let (revision, now_ms) = (self.revision, self.now_ms);
        let (event, evidence, note) = (self.next_event, self.request.evidence.clone(), self.request.reason.clone());
        written.edit(place, |u| {
            u.status = UnitStatus::Completed;
            u.attempt = revision;
            u.ended_ms = Some(now_ms);
            u.event = Some(event);
            u.note = note;
            u.evidence = evidence;
        });
        Ok(())
    }

    /// Everyone is there. A service trusts the new version from now on, unless somebody stayed behind.
    pub(super) fn complete(&mut self, written: &mut WrittenRollout) -> Result<EventKind, ChangeError> {
        let rollout = written.rollout.clone();
        let to = &rollout.spec.to;
        let excluded = |p: &Pin| matches!(p, Pin::Exclude(v) if v == to);
        let alone = rollout.counts.left_behind() == 0 && !self.live()?.pins.iter().any(excluded);
        if rollout.spec.target == Target::Service && alone {
            self.lift_bar(to)?;
            self.edit()?.baseline = to.clone();
            self.follow_the_service(&rollout)?;
        }
        self.go_on(written, alone)?;
        Ok(EventKind::RolloutCompleted)
    }

    /// Tenants whose split the rollout made, and that is the service's by now, follow the service again.
    fn follow_the_service(&mut self, rollout: &Rollout) -> Result<(), ChangeError> {
        let live = self.live()?.clone();
        let Some(tenants) = self.state.tenants.get(&rollout.service) else { return Ok(()) };
        let to = &rollout.spec.to;
        let same = |name: &TenantName, own: &TenantState| {
            let whole = own.split.weights().sole() == Some(to) && own.split.brake.is_none();
            // Recalls end sessions of former rollbacks, and only the split knows them.
            let plain = own.split.recalls.is_empty() && live.barred(to, &own.split).is_none();
            // The split of a group may stand in between.
            let above = || inherited(self.structure, &live, &Scope::Tenant(name.clone())).0;
            let is_mine = own.by.as_ref() == Some(&rollout.id);
            is_mine && whole && plain && live.weights_in_effect(above()).sole() == Some(to)
        };
        let done: Vec<_> =
            tenants.iter().filter(|(name, own)| same(name, own)).map(|(name, _)| (name.clone(), None)).collect();
        self.writes.tenants.extend(done);
        Ok(())
    }

    /// Traffic goes back, at once or in the steps of the plan.
    pub(super) fn go_back(
        &mut self,
        written: &mut WrittenRollout,
        cause: &str,
        at_once: bool,
    ) -> Result<EventKind, ChangeError> {
        let (author, reason) = (self.request.author.clone(), self.request.reason.clone());
        let back = GoingBack {
            cause: cause.to_owned(),
            author,
            reason,
            since_ms: self.now_ms,
            step: 0,
            unknown: Default::default(),
        };
        if written.rollout.phase == Phase::GoingBack && !at_once {
            return Err(not_now(&written.rollout, "goes back already; ask for all of it at once".to_owned()));
        }
        written.rollout.going_back = Some(back);
        written.rollout.paused = None;
        if written.rollout.phase == Phase::Pending {
            return Ok(EventKind::RolloutGoingBack);
        }
        match written.rollout.spec.back.first().copied() {
            Some(share) if !at_once => self.lower(written, share)?,
            _ => self.revert(written)?,
        }
        Ok(EventKind::RolloutGoingBack)
    }

    /// The next share on the way back; after the last one everything.
    pub(super) fn step_back(&mut self, written: &mut WrittenRollout) -> Result<EventKind, ChangeError> {
        let Some(back) = &mut written.rollout.going_back else {
            return Err(not_now(&written.rollout, "does not go back".to_owned()));
        };
        back.step += 1;
        back.since_ms = self.now_ms;
        match written.rollout.spec.back.get(back.step as usize).copied() {
            Some(share) => self.lower(written, share)?,
            None => self.revert(written)?,
        }
        Ok(EventKind::RolloutGoingBack)
    }

    /// The units that moved have at most this share on the new version.
    fn lower(&mut self, written: &mut WrittenRollout, share: BasisPoints) -> Result<(), ChangeError> {
        let rollout = written.rollout.clone();
        let live = self.live()?.clone();
        for (place, unit) in self.mine(written)? {
            let (now, _) = self.current(&unit.scope)?;
            let has = live.weights_in_effect(&now).share(rollout.spec.to.as_str());
            let weights = pair(&rollout.spec, share.min(has))?;
            let from = as_in_effect(&live, now.clone());
            let next = from.reweighted(&weights, &live.baseline, self.fresh_salt(), self.revision);
            self.put_rollout_split(&rollout.id, &unit.scope, next.clone())?;
            self.keep_brakes(&rollout.spec.to, &unit.scope, &now, &next)?;
            let revision = self.revision;
            written.edit(place, |u| u.attempt = revision);
        }
        Ok(())
    }

    /// Units that the rollout moved and that nobody else has set since.
    fn mine(&self, written: &WrittenRollout) -> Result<Vec<(u32, Unit)>, ChangeError> {
        let mut mine = Vec::new();
        for (place, unit) in written.units.range(0..written.units.len()).filter(|(_, u)| u.status.has_moved()) {
            let (split, owner) = self.current(&unit.scope)?;
            let follows = owner == Scope::Service && written.rollout.spec.target == Target::Service;
            if owner == unit.scope && split.attempt == unit.attempt || follows {
                mine.push((place, unit.clone()));
            }
        }
        Ok(mine)
    }

    /// All of it back, for good: what this attempt set never serves the new version again.
    fn revert(&mut self, written: &mut WrittenRollout) -> Result<(), ChangeError> {
        let rollout = written.rollout.clone();
        let (from, to) = (rollout.spec.from.clone(), rollout.spec.to.clone());
        let rolled_back =
            RolledBack { version: to.clone(), at_ms: self.now_ms, event: self.next_event, unknown: Default::default() };
        let mine = self.mine(written)?;
        if rollout.spec.target == Target::Service {
            // One document for a million tenants: the bar takes back what every split from before it gives.
            let revision = self.revision;
            let live = self.live()?.clone();
            let kept = pair_without(&live.weights_in_effect(&live.split), &to, &from)?;
            self.lift_bar(&from)?;
            let edit = self.edit()?;
            edit.baseline = if edit.baseline == to { from.clone() } else { edit.baseline.clone() };
            edit.split = as_in_effect(&live, live.split.clone()).reweighted(&kept, &from, live.split.salt, revision);
            edit.split.rolled_back = Some(rolled_back.clone());
            edit.bars.insert(to.clone(), Bar { revision, to: from, rolled_back, unknown: Default::default() });
        } else {
            let live = self.live()?.clone();
            for (_, unit) in &mine {
                let (now, _) = self.current(&unit.scope)?;
                let kept = pair_without(&live.weights_in_effect(&now), &to, &from)?;
                let mut next = as_in_effect(&live, now.clone()).reweighted(&kept, &from, now.salt, self.revision);
                next.rolled_back = Some(rolled_back.clone());
                next.recalls.note(&to, self.revision);
                self.put_rollout_split(&rollout.id, &unit.scope, next)?;
            }
        }
        self.note_reverted(written, &mine);
        let by_person = matches!(rollout.going_back.as_ref().map(|b| &b.author), Some(Author::Person { .. }));
        let undone = rollout.going_back.as_ref().is_some_and(|b| b.cause == "undo");
        written.rollout.phase = if by_person && !undone { Phase::Aborted } else { Phase::RolledBack };
        Ok(())
    }

    fn note_reverted(&self, written: &mut WrittenRollout, mine: &[(u32, Unit)]) {
        let (revision, now_ms, event) = (self.revision, self.now_ms, self.next_event);
        let note = written.rollout.going_back.as_ref().map(|b| b.reason.clone()).unwrap_or_default();
        for (place, _) in mine {
            written.edit(*place, |u| {
                u.status = UnitStatus::Reverted;
                u.attempt = revision;
                u.ended_ms = Some(now_ms);
                u.event = Some(event);
                u.note = note.clone();
            });
        }
    }

    /// Wider units whose split somebody else set, as the guard does when it probes, are the rollout's again.
    pub(super) fn take_over(&self, written: &mut WrittenRollout) -> Result<(), ChangeError> {
        let moving: Vec<_> =
            written.units.range(0..written.units.len()).filter(|(_, u)| u.status.has_moved()).collect();
        let wide: Vec<_> = moving.into_iter().filter(|(_, u)| !matches!(u.scope, Scope::Tenant(_))).collect();
        let wide: Vec<_> = wide.into_iter().map(|(place, unit)| (place, unit.scope.clone())).collect();
        for (place, scope) in wide {
            let (split, owner) = self.current(&scope)?;
            if owner == scope && self.why_not(&written.rollout.spec, &scope)?.is_none() {
                written.edit(place, |u| u.attempt = split.attempt);
            }
        }
        Ok(())
    }

    /// Past the point of no return the guard does not take traffic back: it stops the rollout and people decide.
    pub(super) fn hold_instead(&mut self, change: &Change) -> Result<Option<Outcome>, ChangeError> {
        let Change::Rollback { scope, canary, .. } = change else { return Ok(None) };
        if self.request.author != Author::Autopilot {
            return Ok(None);
        }
        let Some(live) = self.state.running_rollout(&self.request.service).cloned() else { return Ok(None) };
        let rollout = &live.rollout;
        let about = canary.as_ref().is_none_or(|c| *c == rollout.spec.to);
        if !about || !rollout.is_beyond_return() || !covers(self, &live, scope) {
            return Ok(None);
        }
        if rollout.paused.as_ref().is_some_and(|p| p.kind == PauseKind::NoReturn) {
            return Err(ChangeError::Nothing(format!("rollout {} is past its point of no return", rollout.id)));
        }
        let mut written = WrittenRollout::new(&live);
        let reason = format!(
            "Traffic would have gone back, but the rollout is past its point of no return. {}",
            self.request.reason
        );
        let (author, since_ms) = (Author::Autopilot, self.now_ms);
        written.rollout.paused =
            Some(Pause { kind: PauseKind::NoReturn, author, reason, since_ms, unknown: Default::default() });
        let after = json!({ "phase": rollout.phase, "step": rollout.stage.to_string(), "paused": "no_return" });
        let mut outcome = Outcome::new(EventKind::RolloutPaused, serde_json::Value::Null, after);
        outcome.rollout = Some(rollout.id.clone());
        self.writes.rollouts.push(written);
        Ok(Some(outcome.about(&rollout.spec.to)))
    }

    /// What others do to splits that a rollout moves is written into the rollout in the same breath.
    pub(super) fn note_in_rollout(&mut self, change: &Change, outcome: &mut Outcome) {
        let Some(live) = self.state.running_rollout(&self.request.service).cloned() else { return };
        let mut written = WrittenRollout::new(&live);
        let noted = match change {
            Change::Rollback { scope, canary, .. } if *scope != Scope::Service => {
                let about = canary.as_ref().is_none_or(|c| *c == live.rollout.spec.to);
                let touched = live.units.position(scope).is_some() || self.has_some(scope, &live.rollout.spec.to);
                let members = about && self.note_members(&mut written, scope);
                about && touched && covers(self, &live, scope) && self.note_gone_back(&mut written, scope) || members
            }
            Change::Probe { scope, .. } => {
                let place = live.units.get(scope).filter(|u| u.status.has_moved()).and(live.units.position(scope));
                let revision = self.revision;
                place.map(|place| written.edit(place, |u| u.attempt = revision)).is_some()
            }
            Change::SetSplit { scope, .. } | Change::ClearSplit { scope } => {
                let members = self.note_members(&mut written, scope);
                self.note_overridden(&mut written, scope) || members
            }
            _ => false,
        };
        if noted {
            outcome.rollout = Some(live.rollout.id.clone());
            self.writes.rollouts.push(written);
        }
    }

    /// Whether a version had a share of a scope before this change.
    fn has_some(&self, scope: &Scope, version: &VersionName) -> bool {
        let (Ok((split, _)), Ok(live)) = (self.current(scope), self.live()) else { return false };
        live.weights_in_effect(&split).share(version.as_str()) > BasisPoints::ZERO
    }

    fn note_gone_back(&self, written: &mut WrittenRollout, scope: &Scope) -> bool {
        let (revision, now_ms, event) = (self.revision, self.now_ms, self.next_event);
        let (note, mut evidence) = (self.request.reason.clone(), self.request.evidence.clone());
        // The event has it; two hundred units share a document.
        evidence.as_object_mut().and_then(|evidence| evidence.remove("series"));
        let back = move |unit: &mut Unit| {
            unit.status = UnitStatus::RolledBack;
            unit.attempt = revision;
            unit.ended_ms = Some(now_ms);
            unit.event = Some(event);
            unit.note = note;
            unit.evidence = evidence;
        };
        match written.units.position(scope) {
            Some(place) => {
                let status = written.units.at(place).map(|u| u.status);
                if !status.is_some_and(|s| s.has_moved() || s == UnitStatus::Pending) {
                    return false;
                }
                written.edit(place, back);
            }
            None => {
                let mut unit = Unit::new(scope.clone(), UnitStatus::RolledBack, String::new());
                unit.started_ms = written.rollout.started_ms;
                back(&mut unit);
                written.push(unit);
            }
        }
        true
    }

    /// Whoever decides about a group decides about those of its tenants that follow it and whose turn has not come.
    fn note_members(&self, written: &mut WrittenRollout, scope: &Scope) -> bool {
        let Scope::Group(group) = scope else { return false };
        let Some(members) = self.structure.tenants.groups.get(group) else { return false };
        let service = self.request.service.as_str();
        let own = |tenant: &TenantName| self.state.tenant(service, tenant.as_str());
        let follows = |tenant: &&TenantName| own(tenant).is_none_or(|own| own.split.follows().is_some());
        let places = members.iter().filter(follows).filter_map(|t| written.units.position(&Scope::Tenant(t.clone())));
        let waits = |place: &u32| written.units.at(*place).is_some_and(|u| u.status == UnitStatus::Pending);
        let places: Vec<_> = places.filter(waits).collect();
        let why = format!("{} decided about {scope}", self.request.author);
        for place in &places {
            written.edit(*place, |u| (u.status, u.note) = (UnitStatus::Overridden, why.clone()));
        }
        !places.is_empty()
    }

    fn note_overridden(&self, written: &mut WrittenRollout, scope: &Scope) -> bool {
        let place = written.units.position(scope);
        let Some((place, unit)) = place.and_then(|place| Some((place, written.units.at(place)?))) else { return false };
        let author = self.request.author.clone();
        let why = format!("{author} set its split");
        match (scope, unit.status) {
            (_, UnitStatus::Pending) | (Scope::Tenant(_), UnitStatus::InProgress) => {
                written.edit(place, |u| (u.status, u.note) = (UnitStatus::Overridden, why));
            }
            // Without its widest unit a rollout has nothing to do, so a person has to say what shall become of it.
            (_, UnitStatus::InProgress) => {
                let since_ms = self.now_ms;
                written.rollout.paused = Some(Pause {
                    kind: PauseKind::Overridden,
                    author,
                    reason: why,
                    since_ms,
                    unknown: Default::default(),
                });
            }
            _ => return false,
        }
        true
    }
}

/// Whether a unit of the batch is not in this step yet.
pub(super) fn is_due(unit: &Unit, stage: Stage) -> bool {
    match unit.status {
        UnitStatus::Pending => true,
        UnitStatus::InProgress => unit.step != Some(stage.step),
        _ => false,
    }
}

/// The share of the new version, and the rest for the old one.
fn pair(spec: &RolloutSpec, share: BasisPoints) -> Result<Weights, ChangeError> {
    let rest = BasisPoints::new(BUCKETS - share.points()).unwrap_or_default();
    let both = [(spec.to.clone(), share), (spec.from.clone(), rest)];
    Weights::new(both).map_err(|e| ChangeError::Invalid(e.to_string()))
}

/// The shares when one version has those of the other.
fn pair_without(before: &Weights, gone: &VersionName, heir: &VersionName) -> Result<Weights, ChangeError> {
    super::apply::weights_without(before, std::slice::from_ref(gone), heir)
}
