//! What going back to a snapshot changes: a pure comparison of a service as it is with the service as it was.
//!
//! What is the same stays untouched, with its attempt and its evidence; what differs becomes a fresh attempt with the salt
//! and the slices of then, so that the same keys return to the same versions. Two things come before the snapshot's word:
//! a disabled version gets no traffic, and a version that was rolled back since in a scope where it has none now does not
//! come back unless that is asked for by `force`. The baseline takes its share. A rollback of a tenant or group is known
//! by the split it left; when somebody removed that split, the rollback is forgotten with it.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::inherited;
use super::change::{ChangeError, PinTarget};
use super::names::{ServiceName, TenantName, VersionName};
use super::snapshot::{ServiceSnapshot, Snapshot, SplitSnapshot};
use super::spec::{ServiceSpec, Structure};
use super::split::{Slice, Slices, Split};
use super::state::{Hold, Pin, Pins, Scope, ServiceState, State};

/// Names that a refusal lists.
const MOST_NAMED: usize = 20;

/// What a restore changes, service by service; those that stay as they are are among them.
#[derive(Debug, Clone, PartialEq)]
pub struct Restore {
    /// By name.
    pub services: BTreeMap<ServiceName, ServiceRestore>,
}

/// What a restore changes in one service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceRestore {
    /// The baseline now and then, if they differ.
    pub baseline: Option<(VersionName, VersionName)>,
    /// The hold now and then, if they differ.
    pub hold: Option<(Option<Hold>, Option<Hold>)>,
    /// The splits that change: the service's, then groups', then tenants'.
    pub splits: Vec<SplitStep>,
    /// The pins that change: whose, now, and then.
    pub pins: Vec<(PinTarget, Option<Pin>, Option<Pin>)>,
    /// What the snapshot has and does not come back.
    pub withheld: Vec<Withheld>,
    /// The service's document afterwards.
    pub(super) next: ServiceState,
}

/// A split that a restore changes.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitStep {
    /// Whose.
    pub scope: Scope,
    /// The scope's own split now; none while it follows the less specific one.
    pub before: Option<SplitSnapshot>,
    /// Afterwards; none when it follows the less specific one again.
    pub after: Option<Split>,
}

/// Traffic that a restore does not give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// Whose traffic or pin.
    pub whose: String,
    /// The version that does not get it.
    pub version: VersionName,
    /// `disabled` or `rolled_back`.
    pub why: &'static str,
}

impl State {
    /// What going back to a snapshot would change; none for `services` means all that the snapshot has.
    ///
    /// # Errors
    /// [`ChangeError`] when the snapshot does not have one of the services, when something that it names exists no more,
    /// or when its baseline may not be trusted again.
    pub fn plan_restore(
        &self,
        structure: &Structure,
        snapshot: &Snapshot,
        services: Option<&[ServiceName]>,
        force: bool,
    ) -> Result<Restore, ChangeError> {
        let chosen = chosen(snapshot, services)?;
        let gone: Vec<_> = chosen.iter().flat_map(|(name, was)| self.gone(structure, name, was)).collect();
        if !gone.is_empty() {
            let named = gone.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = gone.len().saturating_sub(MOST_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(ChangeError::Invalid(format!(
                "the snapshot names what exists no more: {named}{more}; add it again, or restore other services only"
            )));
        }
        let plan = |(name, was): (&ServiceName, &ServiceSnapshot)| {
            let (Some(spec), Some(live)) = (structure.services.get(name), self.service(name.as_str())) else {
                return Ok(None);
            };
            let names = spec.versions.keys().chain(live.versions.keys()).cloned().collect();
            let next = ServiceState::clone(live);
            let (taken_at, revision) = (snapshot.revision, self.revision + 1);
            let (splits, withheld) = (Vec::new(), Vec::new());
            let plan = Plan {
                structure,
                state: self,
                spec,
                live,
                was,
                taken_at,
                revision,
                force,
                next,
                names,
                splits,
                withheld,
            };
            plan.run().map(|restore| Some((name.clone(), restore)))
        };
        let services = chosen.into_iter().filter_map(|of| plan(of).transpose()).collect::<Result<_, _>>()?;
        Ok(Restore { services })
    }

    /// What a snapshot of a service names and is not there, in words.
    fn gone(&self, structure: &Structure, name: &ServiceName, was: &ServiceSnapshot) -> Vec<String> {
        let (Some(spec), Some(live)) = (structure.services.get(name), self.service(name.as_str())) else {
            return vec![format!("service {name}")];
        };
        let splits = was.tenants.values().chain(was.groups.values()).chain([&was.split]);
        let mut versions: BTreeSet<_> = splits.flat_map(|s| s.slices.iter().map(|slice| &slice.version)).collect();
        versions.insert(&was.baseline);
        versions.extend(was.pins.iter().filter(|p| matches!(p, Pin::Version(_))).map(Pin::version));
        let versions =
            versions.into_iter().filter(|v| !spec.versions.contains_key(*v) && !live.versions.contains_key(*v));
        let groups: BTreeSet<_> = was.groups.keys().chain(was.pins.groups.keys()).collect();
        let groups = groups.into_iter().filter(|group| !structure.tenants.groups.contains_key(*group));
        let versions = versions.map(|version| format!("version {version} of {name}"));
        versions.chain(groups.map(|group| format!("group {group} of {name}"))).collect()
    }
}

impl Restore {
    /// Whether everything is as it was.
    pub fn is_empty(&self) -> bool {
        self.services.values().all(ServiceRestore::is_empty)
    }
}

impl ServiceRestore {
    /// Whether the service is as it was.
    pub fn is_empty(&self) -> bool {
        !self.changes_service() && self.splits.is_empty()
    }

    /// Whether the service's own document changes.
    pub(super) fn changes_service(&self) -> bool {
        let own = |step: &SplitStep| !matches!(step.scope, Scope::Tenant(_));
        self.baseline.is_some() || self.hold.is_some() || !self.pins.is_empty() || self.splits.iter().any(own)
    }

    /// How many groups' and tenants' splits change.
    pub fn groups_and_tenants(&self) -> (usize, usize) {
        let count = |is: fn(&Scope) -> bool| self.splits.iter().filter(|step| is(&step.scope)).count();
        (count(|s| matches!(s, Scope::Group(_))), count(|s| matches!(s, Scope::Tenant(_))))
    }
}

/// The services that are wanted, with what they were like.
fn chosen<'s>(
    snapshot: &'s Snapshot,
    services: Option<&[ServiceName]>,
) -> Result<BTreeMap<&'s ServiceName, &'s ServiceSnapshot>, ChangeError> {
    let Some(services) = services else { return Ok(snapshot.services.iter().collect()) };
    let find = |name: &ServiceName| {
        snapshot.services.get_key_value(name).ok_or_else(|| {
            let known: Vec<_> = snapshot.services.keys().map(ServiceName::as_str).collect();
            ChangeError::Invalid(format!("the snapshot has no service {name:?}; it has: {}", known.join(", ")))
        })
    };
    services.iter().map(find).collect()
}

struct Plan<'a> {
    structure: &'a Structure,
    state: &'a State,
    spec: &'a ServiceSpec,
    live: &'a ServiceState,
    was: &'a ServiceSnapshot,
    /// Revision of the state that the snapshot shows.
    taken_at: u64,
    /// Revision of the restore.
    revision: u64,
    force: bool,
    next: ServiceState,
    /// The copies of versions' names that all splits share.
    names: BTreeSet<VersionName>,
    splits: Vec<SplitStep>,
    withheld: Vec<Withheld>,
}

impl<'a> Plan<'a> {
    fn run(mut self) -> Result<ServiceRestore, ChangeError> {
        let baseline = self.baseline()?;
        self.service();
        self.groups();
        self.tenants();
        let pins = self.pins();
        let hold = (self.live.hold != self.was.hold).then(|| (self.live.hold.clone(), self.was.hold.clone()));
        self.next.hold = self.was.hold.clone();
        let Self { splits, withheld, next, .. } = self;
        Ok(ServiceRestore { baseline, hold, splits, pins, withheld, next })
    }

    fn baseline(&mut self) -> Result<Option<(VersionName, VersionName)>, ChangeError> {
        let (now, then) = (&self.live.baseline, &self.was.baseline);
        if now == then {
            return Ok(None);
        }
        let name = &self.spec.name;
        match self.why_not(then, &self.live.split) {
            None => {}
            Some("disabled") => {
                return Err(ChangeError::Invalid(format!(
                    "{then}, the baseline of {name} in the snapshot, is disabled; enable it first, or restore other \
                     services only"
                )));
            }
            Some(_) => {
                return Err(ChangeError::Invalid(format!(
                    "{then}, the baseline of {name} in the snapshot, was rolled back since; restore with force to trust \
                     it all the same, or restore other services only"
                )));
            }
        }
        self.next.baseline = then.clone();
        // As when a person trusts it: a bar on the version that is trusted would contradict that.
        self.next.bars.remove(then);
        Ok(Some((now.clone(), then.clone())))
    }

    fn service(&mut self) {
        let now = &self.live.split;
        let wanted = self.allowed(&self.was.split, &Scope::Service, now);
        if SplitSnapshot::of(&self.next, now).is_same(&wanted) {
            return;
        }
        let after = self.fresh(&wanted, now);
        self.next.split = after.clone();
        self.step(Scope::Service, Some(now), Some(after));
    }

    fn groups(&mut self) {
        let live = self.live;
        for (group, was) in &self.was.groups {
            let (scope, of_group) = (Scope::Group(group.clone()), live.group_split(group.as_str()));
            let (now, own) = (of_group.unwrap_or(&live.split), of_group.filter(|split| split.follows().is_none()));
            let wanted = self.allowed(was, &scope, now);
            if own.is_some_and(|own| SplitSnapshot::of(&self.next, own).is_same(&wanted)) {
                continue;
            }
            let after = self.fresh(&wanted, now);
            self.next.groups.insert(group.clone(), after.clone());
            self.step(scope, own, Some(after));
        }
        for (group, own) in live.groups.iter().filter(|(_, split)| split.follows().is_none()) {
            let scope = Scope::Group(group.clone());
            if !self.was.groups.contains_key(group) && !self.would_come_back(&scope, own, &self.next.split.clone()) {
                self.next.groups.remove(group);
                self.step(scope, Some(own), None);
            }
        }
    }

    fn tenants(&mut self) {
        let (live, service) = (self.live, &self.spec.name);
        for (tenant, was) in &self.was.tenants {
            let scope = Scope::Tenant(tenant.clone());
            let now = self.of_tenant(tenant);
            let own = self.state.tenant(service.as_str(), tenant.as_str()).map(|own| &own.split);
            let own = own.filter(|split| split.follows().is_none());
            let wanted = self.allowed(was, &scope, now);
            if own.is_some_and(|own| SplitSnapshot::of(&self.next, own).is_same(&wanted)) {
                continue;
            }
            let after = self.fresh(&wanted, now);
            self.step(scope, own, Some(after));
        }
        let all = self.state.tenants.get(service).into_iter().flat_map(|tenants| tenants.iter());
        for (tenant, own) in all.filter(|(_, own)| own.split.follows().is_none()) {
            if self.was.tenants.contains_key(tenant) {
                continue;
            }
            let scope = Scope::Tenant(tenant.clone());
            let above = inherited(self.structure, &self.next, &scope).0.clone();
            if !self.would_come_back(&scope, &own.split, &above) {
                self.splits.push(SplitStep { scope, before: Some(SplitSnapshot::of(live, &own.split)), after: None });
            }
        }
    }

    fn pins(&mut self) -> Vec<(PinTarget, Option<Pin>, Option<Pin>)> {
        let (was, now) = (&self.was.pins, &self.live.pins);
        let mut after = Pins { unknown: now.unknown.clone(), ..Pins::default() };
        for (tenant, pin) in &was.tenants {
            let target = PinTarget::Tenant(tenant.clone());
            let pin = self.allowed_pin(&target, pin, now.tenants.get(tenant), self.of_tenant(tenant));
            after.tenants.insert(tenant.clone(), pin);
        }
        for (user, pin) in &was.users {
            let target = PinTarget::User(user.clone());
            let pin = self.allowed_pin(&target, pin, now.users.get(user), &self.live.split);
            after.users.insert(user.clone(), pin);
        }
        for (group, pin) in &was.groups {
            let split = self.live.group_split(group.as_str()).unwrap_or(&self.live.split);
            let target = PinTarget::Group(group.clone());
            let pin = self.allowed_pin(&target, pin, now.groups.get(group), split);
            after.groups.insert(group.clone(), pin);
        }
        let mut steps = pin_steps(&now.tenants, &after.tenants, PinTarget::Tenant);
        steps.extend(pin_steps(&now.users, &after.users, PinTarget::User));
        steps.extend(pin_steps(&now.groups, &after.groups, PinTarget::Group));
        self.next.pins = after;
        steps
    }

    /// A pin that may not come back leads to the baseline until it is set again, as after its version was disabled.
    fn allowed_pin(&mut self, target: &PinTarget, pin: &Pin, now: Option<&Pin>, split: &Split) -> Pin {
        let Pin::Version(version) = pin else { return pin.clone() };
        match self.why_not(version, split).filter(|_| now != Some(pin) && *version != self.was.baseline) {
            None => pin.clone(),
            Some(why) => {
                let whose = format!("the pin of {target}");
                self.withheld.push(Withheld { whose, version: version.clone(), why });
                Pin::Suspended(version.clone())
            }
        }
    }

    /// The split that a tenant follows now.
    fn of_tenant(&self, tenant: &TenantName) -> &'a Split {
        let own = self.state.tenant(self.spec.name.as_str(), tenant.as_str()).map(|own| &own.split);
        if let Some(own) = own.filter(|split| split.follows().is_none()) {
            return own;
        }
        let (parent, _) = inherited(self.structure, self.live, &Scope::Tenant(tenant.clone()));
        own.filter(|split| split.lasts_under(parent)).unwrap_or(parent)
    }

    /// The slices of then, with the baseline in the place of versions that may not come back.
    fn allowed(&mut self, was: &SplitSnapshot, scope: &Scope, now: &Split) -> SplitSnapshot {
        let mut slices = Slices::new();
        for slice in &was.slices {
            let why = self.why_not(&slice.version, now).filter(|_| slice.version != self.was.baseline);
            let version = if why.is_some() { &self.was.baseline } else { &slice.version };
            if let Some(why) = why {
                let withheld = Withheld { whose: scope.to_string(), version: slice.version.clone(), why };
                if self.withheld.last() != Some(&withheld) {
                    self.withheld.push(withheld);
                }
            }
            match slices.last_mut().filter(|last| last.version == *version) {
                Some(last) => last.end = slice.end,
                None => slices.push(Slice { end: slice.end, version: version.clone() }),
            }
        }
        SplitSnapshot { salt: was.salt, slices }
    }

    /// Why a version gets nothing in a scope that has this split now.
    fn why_not(&self, version: &VersionName, now: &Split) -> Option<&'static str> {
        if self.live.is_disabled(version) {
            return Some("disabled");
        }
        (!self.force && self.rolled_back_since(version, now)).then_some("rolled_back")
    }

    /// A version that was rolled back since and has traffic now was given it anew by somebody.
    fn rolled_back_since(&self, version: &VersionName, now: &Split) -> bool {
        let barred = self.live.bars.get(version).is_some_and(|bar| bar.revision > self.taken_at);
        let recalled = || now.recalls.ended(version, self.taken_at + 1);
        let has = || SplitSnapshot::of(self.live, now).slices.iter().any(|slice| slice.version == *version);
        (barred || recalled()) && !has()
    }

    /// Whether a scope that follows the split above it again would be back on a version that it was taken from since.
    fn would_come_back(&mut self, scope: &Scope, own: &Split, above: &Split) -> bool {
        let follows = SplitSnapshot::of(&self.next, above).slices;
        let mut versions = follows.iter().map(|slice| &slice.version).filter(|v| **v != self.next.baseline);
        let Some(version) = versions.find(|v| !self.force && self.rolled_back_since(v, own)) else { return false };
        self.withheld.push(Withheld { whose: scope.to_string(), version: version.clone(), why: "rolled_back" });
        true
    }

    /// A fresh attempt.
    fn fresh(&mut self, wanted: &SplitSnapshot, now: &Split) -> Split {
        let mut split = Split { recalls: now.recalls.clone(), ..wanted.to_split(self.revision) };
        split.share_names(&mut self.names);
        split
    }

    fn step(&mut self, scope: Scope, before: Option<&Split>, after: Option<Split>) {
        let before = before.map(|split| SplitSnapshot::of(self.live, split));
        self.splits.push(SplitStep { scope, before, after });
    }
}

fn pin_steps<K: Ord + Clone>(
    before: &BTreeMap<K, Pin>,
    after: &BTreeMap<K, Pin>,
    target: fn(K) -> PinTarget,
) -> Vec<(PinTarget, Option<Pin>, Option<Pin>)> {
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differing = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    differing.map(|key| (target(key.clone()), before.get(key).cloned(), after.get(key).cloned())).collect()
}
