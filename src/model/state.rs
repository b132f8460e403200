//! The state: what should be, at one revision. Cheap to copy, so that a change builds the next state beside this one.
//!
//! A service's live part is one document; each tenant with settings of its own is another. A rollback of a whole service
//! does not touch the tenants' documents: it bars the version, and every split set before the bar gives the version's
//! share to the baseline. That makes going back equally fast for one tenant and for a million.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::DOCUMENT_FORMAT;
use super::event::Author;
use super::global::Freeze;
use super::maintenance::{Disabled, InMaintenance};
use super::names::{GroupName, RolloutId, ServiceName, TenantName, UserName, VersionName};
use super::rollout::{Rollout, Units};
use super::share::{BasisPoints, Weights};
use super::snapshot::Snapshots;
use super::spec::VersionSpec;
use super::split::{Bucket, RolledBack, Slice, Slices, Split};
use super::tenant_map::TenantMap;
use super::unknown::Unknown;

/// Everything that is not the process's own settings, at one revision.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Grows with every change. Epochs are revisions.
    pub revision: u64,
    /// Services by name.
    pub services: BTreeMap<ServiceName, Arc<ServiceState>>,
    /// Tenants by service.
    pub tenants: BTreeMap<ServiceName, TenantMap>,
    /// The freeze that was set last, if nobody ended it; ask [`State::freeze_at`] whether it still stands.
    pub freeze: Option<Freeze>,
    /// Which snapshots there are.
    pub snapshots: Arc<Snapshots>,
    /// Rollouts, those that are over included.
    pub rollouts: BTreeMap<RolloutId, Arc<LiveRollout>>,
}

/// A rollout with its units. Those of a rollout that is over are not kept in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveRollout {
    /// The rollout.
    pub rollout: Rollout,
    /// Its units.
    pub units: Units,
}

/// The live part of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Format of the document.
    pub format: u32,
    /// Revision that last changed this document; its ETag.
    #[serde(skip)]
    pub revision: u64,
    /// Where traffic goes back to.
    pub baseline: VersionName,
    /// The service's own split.
    pub split: Split,
    /// Splits of groups.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<GroupName, Split>,
    /// Pins by kind.
    #[serde(default, skip_serializing_if = "Pins::is_empty")]
    pub pins: Pins,
    /// Versions registered through the admin API.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<VersionName, Arc<VersionSpec>>,
    /// Set while automation may not advance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Versions rolled back for the whole service: splits of an epoch up to the bar's give their share to the baseline.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bars: BTreeMap<VersionName, Bar>,
    /// What is answered with 503 for now.
    #[serde(default, skip_serializing_if = "InMaintenance::is_empty")]
    pub maintenance: InMaintenance,
    /// Versions that get no traffic, however it would come to them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disabled: BTreeMap<VersionName, Disabled>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A version that lost all its traffic in every scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// Splits whose attempt is not newer than this give nothing to the version.
    pub revision: u64,
    /// Who has its share instead: the baseline of that time. Were it the baseline of any time, trusting another version
    /// would move the keys of everyone whose split was barred.
    pub to: VersionName,
    /// What the rollback left behind.
    pub rolled_back: RolledBack,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A person's word that automation may not advance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who said so.
    pub author: Author,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Pins of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// By tenant.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<TenantName, Pin>,
    /// By user.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<UserName, Pin>,
    /// By group.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<GroupName, Pin>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Pins {
    /// The most pins that one service may have.
    pub const MAX: usize = 10_000;

    /// Whether there are none, and nothing that a newer release put beside them.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.unknown.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tenants.len() + self.users.len() + self.groups.len()
    }

    /// Every pin.
    pub fn iter(&self) -> impl Iterator<Item = &Pin> {
        self.tenants.values().chain(self.users.values()).chain(self.groups.values())
    }
}

/// "Goes to that version", or "never goes to that version". An exclusion wins over everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pin {
    /// Goes to this version, whatever the weights say.
    Version(VersionName),
    /// Never goes to this version; the baseline takes its place.
    Exclude(VersionName),
    /// Went to this version until it was disabled; goes to the baseline until it is set again.
    Suspended(VersionName),
}

impl Pin {
    /// The version that the pin names.
    pub fn version(&self) -> &VersionName {
        match self {
            Self::Version(version) | Self::Exclude(version) | Self::Suspended(version) => version,
        }
    }
}

/// A tenant's own settings within a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantState {
    /// Format of the document.
    pub format: u32,
    /// Revision that last changed this document; its ETag.
    #[serde(skip)]
    pub revision: u64,
    /// The tenant's own split.
    pub split: Split,
    /// The rollout that made it; none: a person did, or the guard for a tenant that had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<RolloutId>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Which part of a service a change or a verdict is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The service and everyone without a more specific split.
    Service,
    /// A group of tenants.
    Group(GroupName),
    /// One tenant.
    Tenant(TenantName),
}

impl LiveRollout {
    /// The bar of a rollback of the whole service since the rollout began, if there was one.
    pub fn barred_since<'a>(&self, service: &'a ServiceState) -> Option<&'a Bar> {
        service.bars.get(&self.rollout.spec.to).filter(|bar| bar.revision > self.rollout.since_revision)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service => f.write_str("service"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
        }
    }
}

impl ServiceState {
    /// A service that begins here.
    pub fn new(baseline: VersionName, weights: &Weights, salt: u64, revision: u64) -> Self {
        let split = Split::new(weights, &baseline, salt, revision);
        Self {
            format: DOCUMENT_FORMAT,
            revision,
            baseline,
            split,
            groups: BTreeMap::new(),
            pins: Pins::default(),
            versions: BTreeMap::new(),
            hold: None,
            bars: BTreeMap::new(),
            maintenance: InMaintenance::default(),
            disabled: BTreeMap::new(),
            unknown: Default::default(),
        }
    }

    /// Whether a version gets no traffic because somebody said so.
    pub fn is_disabled(&self, version: &VersionName) -> bool {
        !self.disabled.is_empty() && self.disabled.contains_key(version)
    }

    /// Whether a split gives this version nothing because the version was rolled back for the whole service since.
    pub fn barred(&self, version: &VersionName, split: &Split) -> Option<&Bar> {
        if self.bars.is_empty() {
            return None;
        }
        self.bars.get(version).filter(|bar| split.attempt <= bar.revision)
    }

    /// Who has a version's share in a split: the version itself, or who took over when it was barred.
    pub fn owner<'a>(&'a self, version: &'a VersionName, split: &Split) -> &'a VersionName {
        let mut owner = version;
        // Whoever took over may have been barred later; more steps than bars would be a circle.
        for _ in 0..=self.bars.len() {
            match self.barred(owner, split) {
                Some(bar) => owner = &bar.to,
                None => return owner,
            }
        }
        &self.baseline
    }

    /// The version that a split gives a bucket to, bars considered.
    pub fn version_for<'a>(&'a self, split: &'a Split, bucket: Bucket) -> &'a VersionName {
        self.owner(split.version_at(bucket), split)
    }

    /// The slices that a split comes to, bars considered.
    pub fn slices_in_effect(&self, split: &Split) -> Slices {
        self.owners(&split.slices, split)
    }

    /// Who has these slices of a split, in effect or held back, bars considered.
    pub(super) fn owners(&self, of: &[Slice], split: &Split) -> Slices {
        let mut slices = Slices::new();
        for slice in of {
            let owner = self.owner(&slice.version, split);
            match slices.last_mut().filter(|last| last.version == *owner) {
                Some(last) => last.end = slice.end,
                None => slices.push(Slice { end: slice.end, version: owner.clone() }),
            }
        }
        slices
    }

    /// A group's own split; none when that is only a brake on a split of the service that was set again since.
    pub fn group_split(&self, group: &str) -> Option<&Split> {
        self.groups.get(group).filter(|split| split.lasts_under(&self.split))
    }

    /// Whether a tenant's or group's split is only a brake on a split that is no more. Attempts are never used again, so
    /// it stays without effect and what it names needs not exist.
    pub fn is_over(&self, split: &Split) -> bool {
        let stands = |attempt| {
            let mut groups = self.groups.keys().filter_map(|g| self.group_split(g.as_str()));
            self.split.attempt == attempt || groups.any(|g| g.attempt == attempt)
        };
        split.follows().is_some_and(|attempt| !stands(attempt))
    }

    /// The shares that a split comes to, bars considered.
    pub fn weights_in_effect(&self, split: &Split) -> Weights {
        let weights = split.weights();
        if weights.iter().all(|(v, _)| self.barred(v, split).is_none()) {
            return weights;
        }
        let mut points = BTreeMap::<VersionName, u16>::new();
        for (version, share) in weights.iter() {
            let owner = self.owner(version, split);
            *points.entry(owner.clone()).or_default() += share.points();
        }
        let shares = points.into_iter().map(|(v, p)| (v, BasisPoints::new(p).unwrap_or(BasisPoints::ALL)));
        Weights::new(shares).unwrap_or_else(|_| Weights::all_on(self.baseline.clone()))
    }
}

impl State {
    /// A service's live part.
    pub fn service(&self, service: &str) -> Option<&Arc<ServiceState>> {
        self.services.get(service)
    }

    /// A tenant's own settings within a service, if it has any.
    pub fn tenant(&self, service: &str, tenant: &str) -> Option<&TenantState> {
        self.tenants.get(service)?.get(tenant)
    }

    /// The freeze that stands at this time, in milliseconds since the Unix epoch: while there is one, no automation may
    /// advance anything.
    pub fn freeze_at(&self, now_ms: u64) -> Option<&Freeze> {
        self.freeze.as_ref().filter(|freeze| freeze.stands(now_ms))
    }

    /// The rollout of a service that is not over; there is one at most.
    pub fn running_rollout(&self, service: &ServiceName) -> Option<&Arc<LiveRollout>> {
        self.rollouts.values().find(|r| r.rollout.service == *service && !r.rollout.phase.is_final())
    }
}
