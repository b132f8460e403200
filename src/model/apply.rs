//! How one state becomes the next: a pure function of the state, the structure, the change and the time.
//!
//! Everything that can be refused is refused here, before anything is written: unknown names, stale revisions, versions
//! that still have traffic. What comes out is the next state, the documents to write and the event that tells of it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::apply_operations::tenant_of;
use super::apply_rollout::{self, WrittenRollout};
use super::change::{Applied, Change, ChangeError, ChangeRequest, scope_of};
use super::document::{Commit, DOCUMENT_FORMAT, DocumentKey};
use super::event::{Author, Event, EventKind};
use super::names::{GroupName, RolloutId, ServiceName, TenantName, VersionName};
use super::share::{BUCKETS, BasisPoints, Weights};
use super::spec::{ServiceSpec, Structure};
use super::split::{RolledBack, Split, derive_salt};
use super::state::{Bar, Pin, Pins, Scope, ServiceState, State, TenantState};
use super::stored::body_of;

impl State {
    /// The next state, if the change may happen. `next_event` is the id that the first event will get, `now_ms` the time in
    /// milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`ChangeError`] says what is wrong; this state is untouched.
    pub fn apply(
        &self,
        structure: &Structure,
        request: &ChangeRequest,
        next_event: u64,
        now_ms: u64,
    ) -> Result<Applied, ChangeError> {
        let spec = structure.services.get(&request.service).ok_or_else(|| ChangeError::UnknownService {
            name: request.service.to_string(),
            known: list(structure.services.keys()),
        })?;
        let revision = self.revision + 1;
        let mut next =
            Next { structure, spec, state: self, request, revision, next_event, now_ms, writes: Writes::default() };
        let outcome = next.run()?;
        Ok(next.finish(outcome))
    }

    /// The split that a scope follows and whose it is.
    pub fn split_of(&self, structure: &Structure, service: &ServiceName, scope: &Scope) -> Option<(Split, Scope)> {
        let live = self.service(service.as_str())?;
        let (parent, above) = inherited(structure, live, scope);
        let own = match scope {
            Scope::Service => None,
            Scope::Group(group) => live.group_split(group.as_str()),
            Scope::Tenant(tenant) => {
                let own = self.tenant(service.as_str(), tenant.as_str()).map(|own| &own.split);
                own.filter(|split| split.lasts_under(parent))
            }
        };
        Some(own.map_or((parent.clone(), above), |split| (split.clone(), scope.clone())))
    }
}

/// The split with the slices that it comes to. After a bar the slices say what was, not what is, and whoever sets the split
/// begins from what is.
pub(super) fn as_in_effect(live: &ServiceState, split: Split) -> Split {
    if live.weights_in_effect(&split) == split.weights() {
        return split;
    }
    Split { slices: live.slices_in_effect(&split), brake: None, ..split }
}

/// The split that a scope follows when it has none of its own, and whose that is.
pub(super) fn inherited<'a>(structure: &Structure, live: &'a ServiceState, scope: &Scope) -> (&'a Split, Scope) {
    let Scope::Tenant(tenant) = scope else { return (&live.split, Scope::Service) };
    let member = |g: &&GroupName| structure.tenants.groups.get(*g).is_some_and(|t| t.contains(tenant));
    let mut groups = live.groups.keys().filter(member);
    let group = groups.find_map(|g| live.group_split(g.as_str()).map(|split| (split, Scope::Group(g.clone()))));
    group.unwrap_or((&live.split, Scope::Service))
}

#[derive(Default)]
pub(super) struct Writes {
    service: Option<ServiceState>,
    pub(super) tenants: Vec<(TenantName, Option<TenantState>)>,
    pub(super) rollouts: Vec<WrittenRollout>,
    /// Rollouts whose units nobody needs any more.
    pub(super) archived: Vec<RolloutId>,
    /// Rollouts that are not listed any more.
    pub(super) forgotten: Vec<RolloutId>,
    /// What else happened, told by an event of its own.
    pub(super) further: Option<Outcome>,
}

pub(super) struct Outcome {
    kind: EventKind,
    before: Value,
    after: Value,
    version: Option<VersionName>,
    pub(super) rollout: Option<RolloutId>,
    pub(super) cause: Option<String>,
    took_ms: Option<u64>,
}

impl Outcome {
    pub(super) fn new(kind: EventKind, before: Value, after: Value) -> Self {
        Self { kind, before, after, version: None, rollout: None, cause: None, took_ms: None }
    }

    pub(super) fn about(mut self, version: &VersionName) -> Self {
        self.version = Some(version.clone());
        self
    }
}

pub(super) struct Next<'a> {
    pub(super) structure: &'a Structure,
    pub(super) spec: &'a ServiceSpec,
    pub(super) state: &'a State,
    pub(super) request: &'a ChangeRequest,
    pub(super) revision: u64,
    pub(super) next_event: u64,
    pub(super) now_ms: u64,
    pub(super) writes: Writes,
}

impl Next<'_> {
    fn run(&mut self) -> Result<Outcome, ChangeError> {
        let change = &self.request.change;
        if let Change::AddService = change {
            return self.add_service();
        }
        self.check_revision()?;
        if let Some(held) = self.hold_instead(change)? {
            return Ok(held);
        }
        let mut outcome = self.change(change)?;
        self.note_in_rollout(change, &mut outcome);
        Ok(outcome)
    }

    fn change(&mut self, change: &Change) -> Result<Outcome, ChangeError> {
        match change {
            Change::AddService => unreachable!("handled above"),
            Change::SetSplit { scope, weights } => self.set_split(scope, weights),
            Change::ClearSplit { scope } => self.clear_split(scope),
            Change::Rollback { scope, canary, cause, first_bad_ms } => {
                self.rollback(scope, canary.as_ref(), cause, *first_bad_ms)
            }
            Change::Brake { scope, canary, share } => self.brake(scope, canary, *share),
            Change::ReleaseBrake { scope } => self.release(scope),
            Change::Probe { scope, canary } => self.probe(scope, canary),
            Change::SetPin(target, pin) => self.set_pin(target, pin),
            Change::ClearPin(target) => self.clear_pin(target),
            Change::SetHold => self.set_hold(),
            Change::ClearHold => self.clear_hold(),
            Change::SetBaseline(version) => self.set_baseline(version),
            Change::PutVersion(version, spec) => self.put_version(version, spec),
            Change::DeleteVersion(version) => self.delete_version(version),
            Change::SetMaintenance { tenant, message, retry_after_s } => {
                self.set_maintenance(tenant.as_ref(), message, *retry_after_s)
            }
            Change::ClearMaintenance { tenant } => self.clear_maintenance(tenant.as_ref()),
            Change::DisableVersion(version) => self.disable_version(version),
            Change::EnableVersion(version) => self.enable_version(version),
            Change::StartRollout(new) => self.start_rollout(new),
            Change::Rollout(id, command) => self.command_rollout(id, command),
        }
    }

    fn finish(mut self, outcome: Outcome) -> Applied {
        let after = outcome.after.clone();
        let outcomes = [outcome].into_iter().chain(self.writes.further.take());
        let events = outcomes.enumerate().map(|(i, outcome)| self.event(i as u64, outcome)).collect();
        let service = self.request.service.clone();
        let mut state = self.state.clone();
        state.revision = self.revision;
        let mut commit = Commit { expected: self.state.revision, revision: self.revision, events, ..Commit::default() };
        let is_rollout = matches!(self.request.change, Change::StartRollout(_) | Change::Rollout(..));
        let mut document_revision = self.revision;
        if let Some(mut live) = self.writes.service {
            live.revision = self.revision;
            commit.puts.push((DocumentKey::Service(service.clone()), body_of(&live)));
            state.services.insert(service.clone(), Arc::new(live));
        }
        for (name, own) in self.writes.tenants {
            let tenants = state.tenants.entry(service.clone()).or_default();
            let key = DocumentKey::Tenant(service.clone(), name.clone());
            match own {
                Some(mut own) => {
                    own.revision = self.revision;
                    commit.puts.push((key, body_of(&own)));
                    tenants.insert(name, own);
                }
                None => {
                    commit.deletes.push(key);
                    tenants.remove(name.as_str());
                    document_revision = if is_rollout { self.revision } else { 0 };
                }
            }
        }
        for written in self.writes.rollouts {
            written.finish(self.revision, &mut state, &mut commit);
        }
        for id in &self.writes.archived {
            apply_rollout::archive(id, &mut state, &mut commit);
        }
        for id in &self.writes.forgotten {
            apply_rollout::forget(id, &mut state, &mut commit);
        }
        Applied { state, commit, document_revision, after }
    }

    /// The event that tells of an outcome, the `i`th of this change.
    fn event(&self, i: u64, outcome: Outcome) -> Event {
        let (mut tenant, mut group) = (tenant_of(&self.request.change).cloned(), None);
        match scope_of(&self.request.change) {
            Some(Scope::Group(g)) => group = Some(g.clone()),
            Some(Scope::Tenant(t)) => tenant = Some(t.clone()),
            Some(Scope::Service) | None => {}
        }
        Event {
            id: self.next_event + i,
            revision: self.revision,
            at_ms: self.now_ms,
            kind: outcome.kind,
            service: Some(self.request.service.clone()),
            tenant,
            group,
            rollout: outcome.rollout,
            version: outcome.version,
            author: self.request.author.clone(),
            reason: self.request.reason.clone(),
            cause: outcome.cause,
            before: outcome.before,
            after: outcome.after,
            evidence: self.request.evidence.clone(),
            first_bad_to_rollback_ms: outcome.took_ms,
        }
    }

    pub(super) fn live(&self) -> Result<&Arc<ServiceState>, ChangeError> {
        self.state.service(self.request.service.as_str()).ok_or_else(|| ChangeError::UnknownService {
            name: self.request.service.to_string(),
            known: list(self.state.services.keys()),
        })
    }

    /// The document concerned must be the one that the author saw.
    fn check_revision(&self) -> Result<(), ChangeError> {
        let live = self.live()?;
        if let Some(expected) = self.request.if_revision {
            let change = &self.request.change;
            let current = match (change, scope_of(change)) {
                (Change::Rollout(id, _), _) => self.live_rollout(id)?.rollout.revision,
                (_, Some(Scope::Tenant(t))) => {
                    self.state.tenant(self.request.service.as_str(), t.as_str()).map_or(0, |t| t.revision)
                }
                _ => live.revision,
            };
            if current != expected {
                return Err(ChangeError::StaleRevision { expected, current });
            }
        }
        if let (Some(expected), Some(scope)) = (self.request.if_attempt, scope_of(&self.request.change)) {
            let current = self.current(scope)?.0.attempt;
            if current != expected {
                return Err(ChangeError::StaleAttempt { expected, current });
            }
        }
        Ok(())
    }

    pub(super) fn current(&self, scope: &Scope) -> Result<(Split, Scope), ChangeError> {
        self.state.split_of(self.structure, &self.request.service, scope).ok_or_else(|| ChangeError::UnknownService {
            name: self.request.service.to_string(),
            known: list(self.state.services.keys()),
        })
    }

    pub(super) fn known(&self, version: &VersionName) -> Result<(), ChangeError> {
        let live = self.live()?;
        if self.spec.versions.contains_key(version) || live.versions.contains_key(version) {
            return Ok(());
        }
        Err(ChangeError::UnknownVersion {
            service: self.request.service.clone(),
            version: version.clone(),
            known: list(self.spec.versions.keys().chain(live.versions.keys())),
        })
    }

    pub(super) fn known_group(&self, group: &GroupName) -> Result<(), ChangeError> {
        let groups = &self.structure.tenants.groups;
        if groups.contains_key(group) {
            return Ok(());
        }
        Err(ChangeError::UnknownGroup { group: group.clone(), known: list(groups.keys()) })
    }

    pub(super) fn fresh_salt(&self) -> u64 {
        let family =
            self.spec.salt.as_deref().map_or_else(|| format!("service/{}", self.spec.name), |s| format!("salt/{s}"));
        match self.spec.salt {
            // Services that share a salt name must agree, so their salt never depends on when each began.
            Some(_) => derive_salt(&family, 0),
            None => derive_salt(&family, self.revision),
        }
    }

    pub(super) fn put_split(&mut self, scope: &Scope, split: Split) -> Result<(), ChangeError> {
        match scope {
            Scope::Service => self.edit()?.split = split,
            Scope::Group(group) => {
                self.known_group(group)?;
                self.edit()?.groups.insert(group.clone(), split);
            }
            Scope::Tenant(tenant) => {
                // What the guard does to a rollout's split leaves it the rollout's; what a person does makes it the person's.
                let before = self.state.tenant(self.request.service.as_str(), tenant.as_str());
                let keeps = self.request.author == Author::Autopilot;
                let by = before.filter(|_| keeps).and_then(|own| own.by.clone());
                let own = self.own(tenant, split, by);
                self.writes.tenants.push((tenant.clone(), Some(own)));
            }
        }
        Ok(())
    }

    /// A tenant's document with this split, and with what a newer release keeps there.
    pub(super) fn own(&self, tenant: &TenantName, split: Split, by: Option<RolloutId>) -> TenantState {
        let before = self.state.tenant(self.request.service.as_str(), tenant.as_str());
        let unknown = before.map(|own| own.unknown.clone()).unwrap_or_default();
        TenantState { format: DOCUMENT_FORMAT, revision: self.revision, split, by, unknown }
    }

    pub(super) fn edit(&mut self) -> Result<&mut ServiceState, ChangeError> {
        if self.writes.service.is_none() {
            self.writes.service = Some((**self.live()?).clone());
        }
        Ok(self.writes.service.as_mut().expect("set above"))
    }

    fn add_service(&mut self) -> Result<Outcome, ChangeError> {
        if self.live().is_ok() {
            return Err(ChangeError::Nothing(format!("service {} exists", self.request.service)));
        }
        let salt = self.fresh_salt();
        let live = ServiceState::new(self.spec.baseline.clone(), &self.spec.split, salt, self.revision);
        let after = json!({ "baseline": live.baseline, "weights": live.split.weights() });
        self.writes.service = Some(live);
        Ok(Outcome::new(EventKind::ServiceAdded, Value::Null, after))
    }

    fn set_split(&mut self, scope: &Scope, weights: &Weights) -> Result<Outcome, ChangeError> {
        for (version, share) in weights.iter() {
            self.known(version)?;
            if share > BasisPoints::ZERO {
                self.not_disabled(version)?;
            }
        }
        let live = self.live()?.clone();
        let weights = &self.with_shared_names(&live, weights);
        let (now, _) = self.current(scope)?;
        let in_effect = live.weights_in_effect(&now);
        let from = as_in_effect(&live, now);
        let next = from.reweighted(weights, &live.baseline, self.fresh_salt(), self.revision);
        let before = json!({ "weights": in_effect });
        let after = json!({ "weights": weights, "moved_percent": from.moved_buckets(&next) as f64 / 100.0 });
        self.put_split(scope, next)?;
        Ok(Outcome::new(EventKind::SplitSet, before, after))
    }

    /// The weights with the service's own copies of the versions' names: a million splits that share a few names find
    /// them in the cache.
    pub(super) fn with_shared_names(&self, live: &ServiceState, weights: &Weights) -> Weights {
        let own = |name: &VersionName| {
            let registered = || live.versions.get_key_value(name).map(|(own, _)| own);
            self.spec.versions.get_key_value(name).map(|(own, _)| own).or_else(registered).unwrap_or(name).clone()
        };
        let shared = weights.iter().map(|(name, share)| (own(name), share));
        Weights::new(shared).unwrap_or_else(|_| weights.clone())
    }

    fn clear_split(&mut self, scope: &Scope) -> Result<Outcome, ChangeError> {
        let (now, _) = self.current(scope)?;
        let before = json!({ "weights": self.live()?.weights_in_effect(&now) });
        match scope {
            Scope::Service => {
                return Err(ChangeError::Invalid("a service's own split cannot be removed, only set".to_owned()));
            }
            Scope::Group(group) => {
                if self.edit()?.groups.remove(group).is_none() {
                    return Err(ChangeError::NotThere { what: format!("a split of group {group}") });
                }
            }
            Scope::Tenant(tenant) => {
                if self.state.tenant(self.request.service.as_str(), tenant.as_str()).is_none() {
                    return Err(ChangeError::NotThere { what: format!("a split of tenant {tenant}") });
                }
                self.writes.tenants.push((tenant.clone(), None));
            }
        }
        Ok(Outcome::new(EventKind::SplitCleared, before, Value::Null))
    }

    fn rollback(
        &mut self,
        scope: &Scope,
        canary: Option<&VersionName>,
        cause: &str,
        first_bad_ms: Option<u64>,
    ) -> Result<Outcome, ChangeError> {
        if let Some(canary) = canary {
            self.known(canary)?;
        }
        let live = self.live()?.clone();
        let (now, _) = self.current(scope)?;
        let before = live.weights_in_effect(&now);
        let canaries: Vec<VersionName> = match canary {
            Some(canary) if *canary == live.baseline => {
                return Err(ChangeError::Invalid(format!("{canary} is the baseline; traffic cannot go back from it")));
            }
            Some(canary) => vec![canary.clone()],
            None => self
                .spec
                .versions
                .keys()
                .chain(live.versions.keys())
                .filter(|v| **v != live.baseline)
                .cloned()
                .collect(),
        };
        let has = |c: &VersionName| now.share(c.as_str()).max(now.intended().share(c.as_str())) > BasisPoints::ZERO;
        let has_share = canaries.iter().any(|c| has(c) && live.barred(c, &now).is_none());
        if !has_share && self.request.author == Author::Autopilot && *scope != Scope::Service {
            return Err(ChangeError::Nothing(format!("{scope} has no traffic on a canary")));
        }
        let weights = weights_without(&before, &canaries, &live.baseline)?;
        let named =
            canaries.iter().max_by_key(|c| before.share(c.as_str())).cloned().unwrap_or_else(|| live.baseline.clone());
        let rolled_back = RolledBack {
            version: named.clone(),
            at_ms: self.now_ms,
            event: self.next_event,
            unknown: Default::default(),
        };
        let mut next = now.reweighted(&weights, &live.baseline, now.salt, self.revision);
        next.rolled_back = Some(rolled_back.clone());
        if *scope != Scope::Service {
            // For the whole service the bars below say it.
            canaries.iter().for_each(|canary| next.recalls.note(canary, self.revision));
        }
        self.put_split(scope, next)?;
        if *scope == Scope::Service {
            // Groups and tenants with splits of their own go back too, without touching their documents.
            let revision = self.revision;
            let edit = self.edit()?;
            for canary in &canaries {
                let rolled_back = RolledBack { version: canary.clone(), ..rolled_back.clone() };
                edit.bars.insert(
                    canary.clone(),
                    Bar { revision, to: live.baseline.clone(), rolled_back, unknown: Default::default() },
                );
            }
        }
        let after = json!({ "weights": weights, "pins_left": pins_to(&live.pins, &canaries) });
        let mut outcome = Outcome::new(EventKind::Rollback, json!({ "weights": before }), after).about(&named);
        outcome.cause = Some(cause.to_owned());
        outcome.took_ms = first_bad_ms.map(|t| self.now_ms.saturating_sub(t));
        Ok(outcome)
    }

    fn brake(&mut self, scope: &Scope, canary: &VersionName, share: BasisPoints) -> Result<Outcome, ChangeError> {
        let live = self.live()?.clone();
        let (now, owner) = self.current(scope)?;
        let before = live.weights_in_effect(&now);
        let has = before.share(canary.as_str());
        let braked = now.braked(canary, &live.baseline, share, self.revision).filter(|_| share < has);
        let mut next = braked.ok_or_else(|| {
            ChangeError::Nothing(match now.brake {
                Some(_) => format!("{scope} is braked already"),
                None => format!("the share of {canary} is {has} and cannot be lowered to {share}"),
            })
        })?;
        if owner != *scope
            && let Some(brake) = &mut next.brake
        {
            brake.follows = Some(now.attempt);
        }
        let (before, after) = (json!({ "weights": before }), json!({ "weights": live.weights_in_effect(&next) }));
        self.put_split(scope, next)?;
        Ok(Outcome::new(EventKind::Brake, before, after).about(canary))
    }

    fn release(&mut self, scope: &Scope) -> Result<Outcome, ChangeError> {
        let live = self.live()?.clone();
        let (now, owner) = self.current(scope)?;
        let next = now.released(self.revision).filter(|_| owner == *scope);
        let next = next.ok_or_else(|| ChangeError::Nothing(format!("there is no brake on {scope}")))?;
        // Who had only a brake of its own follows again what stands above it now, which may be braked itself.
        let follows = now.follows();
        let after = follows.map_or(&next, |_| inherited(self.structure, &live, scope).0);
        let weights = |split| json!({ "weights": live.weights_in_effect(split) });
        let (before, after) = (weights(&now), weights(after));
        match (scope, follows) {
            (Scope::Tenant(tenant), Some(_)) => self.writes.tenants.push((tenant.clone(), None)),
            (Scope::Group(group), Some(_)) => {
                self.edit()?.groups.remove(group);
            }
            _ => self.put_split(scope, next)?,
        }
        Ok(Outcome::new(EventKind::BrakeReleased, before, after))
    }

    fn probe(&mut self, scope: &Scope, canary: &VersionName) -> Result<Outcome, ChangeError> {
        self.known(canary)?;
        let live = self.live()?.clone();
        let half = BasisPoints::new(BUCKETS / 2).unwrap_or_default();
        let weights = Weights::new([(canary.clone(), half), (live.baseline.clone(), half)]).map_err(|_| {
            ChangeError::Invalid(format!("{canary} is the baseline; there is nothing to compare it with"))
        })?;
        let mut outcome = self.set_split(scope, &weights)?;
        // A rollback of the whole service leaves the attempts of narrower splits as they are, so those do not fence it.
        let has = live.weights_in_effect(&self.current(scope)?.0).share(canary.as_str());
        if has < half {
            return Err(ChangeError::Nothing(format!(
                "{scope} has {has} of {canary}, and a probe gives nobody more of it"
            )));
        }
        outcome.kind = EventKind::Probe;
        Ok(outcome.about(canary))
    }
}

impl State {
    /// Which rollout may still be undone and needs a version for that, and until when, in words; `None` when none does at
    /// this time, in milliseconds since the Unix epoch.
    pub fn kept_warm(&self, service: &ServiceName, version: &VersionName, now_ms: u64) -> Option<String> {
        let rollouts = self.rollouts.values().map(|live| &live.rollout);
        let left = rollouts.filter(|rollout| rollout.service == *service && rollout.spec.from == *version);
        let warm = left.filter_map(|rollout| Some((&rollout.id, rollout.warm_until_ms()?)));
        let (rollout, until_ms) = warm.filter(|(_, until)| *until > now_ms).max_by_key(|(_, until)| *until)?;
        let until = i64::try_from(until_ms / 1_000).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
        Some(format!("kept warm until {} by rollout {rollout}", until.unwrap_or(jiff::Timestamp::MAX)))
    }

    /// What still needs a version at this time, in milliseconds since the Unix epoch, in words; `None` when nothing does.
    pub fn uses_of(&self, service: &ServiceName, version: &VersionName, now_ms: u64) -> Option<String> {
        let live = self.service(service.as_str())?;
        let has = |split: &Split| {
            let gets = live.weights_in_effect(split).share(version.as_str()) > BasisPoints::ZERO;
            let held = split.intended().share(version.as_str()) > BasisPoints::ZERO;
            (gets || held && live.barred(version, split).is_none()) && !live.is_over(split)
        };
        let mut uses = Vec::new();
        if live.baseline == *version {
            uses.push("it is the baseline".to_owned());
        }
        if has(&live.split) {
            uses.push(format!("{} of the service's split", live.split.intended().share(version.as_str())));
        }
        for (group, split) in &live.groups {
            if has(split) {
                uses.push(format!("the split of group {group}"));
            }
        }
        let tenants = self.tenants.get(service).map_or(0, |t| t.values().filter(|own| has(&own.split)).count());
        if tenants > 0 {
            uses.push(format!("the splits of {tenants} tenants"));
        }
        let pins = live.pins.iter().filter(|p| matches!(p, Pin::Version(v) if v == version)).count();
        if pins > 0 {
            uses.push(format!("{pins} pins"));
        }
        if let Some(live) = self.running_rollout(service).filter(|live| live.rollout.spec.names(version)) {
            uses.push(format!("rollout {}", live.rollout.id));
        }
        uses.extend(self.kept_warm(service, version, now_ms));
        (!uses.is_empty()).then(|| uses.join(", "))
    }

    /// Whether any split names the version, in effect or not.
    pub(super) fn is_named(&self, service: &ServiceName, version: &VersionName) -> bool {
        let names = |split: &Split| {
            let held = split.brake.iter().flat_map(|b| b.slices.iter());
            split.slices.iter().chain(held).any(|s| s.version == *version)
        };
        let live = self.service(service.as_str());
        live.is_some_and(|live| names(&live.split) || live.groups.values().any(names))
            || self.tenants.get(service).is_some_and(|t| t.values().any(|own| names(&own.split)))
    }
}

/// The shares when the baseline has those of these canaries.
pub(super) fn weights_without(
    before: &Weights,
    canaries: &[VersionName],
    baseline: &VersionName,
) -> Result<Weights, ChangeError> {
    let stays = |v: &VersionName| !canaries.contains(v) && v != baseline;
    let mut target: Vec<_> = before.iter().filter(|(v, _)| stays(v)).map(|(v, s)| (v.clone(), s)).collect();
    let kept: u16 = target.iter().map(|(_, s)| s.points()).sum();
    target.push((baseline.clone(), BasisPoints::new(BUCKETS - kept).unwrap_or(BasisPoints::ALL)));
    Weights::new(target).map_err(|e| ChangeError::Invalid(e.to_string()))
}

fn pins_to(pins: &Pins, versions: &[VersionName]) -> usize {
    pins.iter().filter(|p| matches!(p, Pin::Version(v) if versions.contains(v))).count()
}

fn list<T: ToString>(names: impl Iterator<Item = T>) -> String {
    let mut names: Vec<String> = names.map(|n| n.to_string()).collect();
    names.sort();
    names.dedup();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
pub(super) mod tests;
