//! Snapshots: splits, pins, holds and baselines of one moment, to come back to.
//!
//! A snapshot has what people decided, as it was in effect: bars are worked in, and a brake, which only holds a share back
//! for a moment, is not taken along. It may be as large as the state, so it is kept in the archive, in parts, and only a
//! summary of it is part of the state. In the parts, tenants with alike slices share them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::{DOCUMENT_FORMAT, DocumentKey};
use super::event::Author;
use super::names::{GroupName, ServiceName, SnapshotName, TenantName, VersionName};
use super::share::Weights;
use super::split::{Slices, Split};
use super::state::{Hold, Pins, ServiceState, State};
use super::stored::body_of;
use super::unknown::Unknown;

/// Tenants in one document of the archive: about half a megabyte, so that no value is too large for a store.
const PART: usize = 10_000;
/// What is said of slices that do not cover all buckets.
const INCOMPLETE: &str = "the slices of a split are not complete";

/// What the list of snapshots tells of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSummary {
    /// Who took it.
    pub author: Author,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Revision of the state that it shows.
    pub revision: u64,
    /// What it has of each service.
    pub services: BTreeMap<ServiceName, SnapshotCounts>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// How much a snapshot has of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotCounts {
    /// Groups with a split of their own.
    pub groups: usize,
    /// Tenants with a split of their own.
    pub tenants: usize,
    /// Pins.
    pub pins: usize,
    /// Whether automation was held.
    pub held: bool,
    /// Documents in the archive.
    pub parts: usize,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The list of snapshots, one document of the state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// Format of the document.
    pub format: u32,
    /// Revision that last changed this document.
    #[serde(skip)]
    pub revision: u64,
    /// By name.
    pub all: BTreeMap<SnapshotName, SnapshotSummary>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Snapshots {
    /// The most snapshots that are kept.
    pub const MAX: usize = 100;
}

/// A whole snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Revision of the state that it shows.
    pub revision: u64,
    /// What each service was like.
    pub services: BTreeMap<ServiceName, ServiceSnapshot>,
}

/// What one service was like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSnapshot {
    /// Where traffic went back to.
    pub baseline: VersionName,
    /// The service's own split.
    pub split: SplitSnapshot,
    /// Splits of groups.
    pub groups: BTreeMap<GroupName, SplitSnapshot>,
    /// Pins.
    pub pins: Pins,
    /// The hold, if there was one.
    pub hold: Option<Hold>,
    /// Splits of tenants.
    pub tenants: BTreeMap<TenantName, SplitSnapshot>,
}

/// Who had which buckets under which salt: enough to give every key back to the version that it was on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitSnapshot {
    /// Seed of the key hash.
    pub salt: u64,
    /// The slices that were asked for, bars worked in.
    pub slices: Slices,
}

/// A document of the archive: some tenants of a service, and in the first one what is not about tenants.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Part {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<ServicePart>,
    /// Different slices of the tenants.
    shapes: Vec<Slices>,
    /// Name, place among the shapes, salt.
    tenants: Vec<(TenantName, usize, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ServicePart {
    baseline: VersionName,
    split: SplitSnapshot,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    groups: BTreeMap<GroupName, SplitSnapshot>,
    #[serde(default, skip_serializing_if = "Pins::is_empty")]
    pins: Pins,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<Hold>,
}

impl Snapshot {
    /// What the services of a state are like; services that the state does not have are left out.
    pub fn of<'a>(state: &State, services: impl IntoIterator<Item = &'a ServiceName>) -> Self {
        let one = |name: &ServiceName| Some((name.clone(), ServiceSnapshot::of(state, name)?));
        Self { revision: state.revision, services: services.into_iter().filter_map(one).collect() }
    }

    /// What the list of snapshots tells of it.
    pub fn summary(&self, author: Author, reason: String, at_ms: u64) -> SnapshotSummary {
        let services = self.services.iter().map(|(name, service)| (name.clone(), service.counts())).collect();
        SnapshotSummary { author, reason, at_ms, revision: self.revision, services, unknown: Default::default() }
    }

    /// What goes to the archive.
    pub fn to_documents(&self, name: &SnapshotName) -> Vec<(DocumentKey, String)> {
        let parts = self.services.iter().flat_map(|(service, of)| {
            let parts = of.to_parts().into_iter().enumerate();
            parts.map(move |(n, part)| (part_key(name, service, n), body_of(&part)))
        });
        parts.collect()
    }

    /// The snapshot of one service's documents, in their order.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn read_service<'a>(bodies: impl IntoIterator<Item = &'a str>) -> Result<ServiceSnapshot, String> {
        let mut read: Option<ServiceSnapshot> = None;
        for body in bodies {
            let part: Part = serde_json::from_str(body).map_err(|e| e.to_string())?;
            if part.format > DOCUMENT_FORMAT {
                let (found, known) = (part.format, DOCUMENT_FORMAT);
                return Err(format!("its format is {found}, this release knows formats up to {known}"));
            }
            if let Some(ServicePart { baseline, split, groups, pins, hold }) = part.service {
                read = Some(ServiceSnapshot { baseline, split, groups, pins, hold, tenants: BTreeMap::new() });
            }
            let service = read.as_mut().ok_or("its first part is missing")?;
            if !part.shapes.iter().all(|slices| SplitSnapshot { salt: 0, slices: slices.clone() }.is_sound()) {
                return Err(INCOMPLETE.to_owned());
            }
            for (tenant, shape, salt) in part.tenants {
                let slices = part.shapes.get(shape).ok_or("a tenant has slices that are not there")?.clone();
                service.tenants.insert(tenant, SplitSnapshot { salt, slices });
            }
        }
        let service = read.ok_or("it is empty")?;
        let sound = service.groups.values().chain([&service.split]).all(SplitSnapshot::is_sound);
        match sound {
            true => Ok(service),
            false => Err(INCOMPLETE.to_owned()),
        }
    }
}

impl SnapshotSummary {
    /// Where its documents are, service by service in their order.
    pub fn keys<'a>(
        &'a self,
        name: &'a SnapshotName,
    ) -> impl Iterator<Item = (&'a ServiceName, Vec<DocumentKey>)> + 'a {
        self.services.iter().map(move |(service, counts)| {
            (service, (0..counts.parts).map(|part| part_key(name, service, part)).collect())
        })
    }
}

impl ServiceSnapshot {
    fn of(state: &State, service: &ServiceName) -> Option<Self> {
        let live = state.service(service.as_str())?;
        let own = |split: &Split| split.follows().is_none().then(|| SplitSnapshot::of(live, split));
        let groups = live.groups.iter().filter_map(|(name, split)| Some((name.clone(), own(split)?)));
        let tenants = state.tenants.get(service).into_iter().flat_map(|t| t.iter());
        Some(Self {
            baseline: live.baseline.clone(),
            split: SplitSnapshot::of(live, &live.split),
            groups: groups.collect(),
            pins: live.pins.clone(),
            hold: live.hold.clone(),
            tenants: tenants.filter_map(|(name, of)| Some((name.clone(), own(&of.split)?))).collect(),
        })
    }

    fn counts(&self) -> SnapshotCounts {
        SnapshotCounts {
            groups: self.groups.len(),
            tenants: self.tenants.len(),
            pins: self.pins.len(),
            held: self.hold.is_some(),
            parts: self.tenants.len().div_ceil(PART).max(1),
            unknown: Default::default(),
        }
    }

    fn to_parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = (0..self.counts().parts).map(|_| Part::default()).collect();
        let mut tenants = self.tenants.iter();
        for part in &mut parts {
            part.format = DOCUMENT_FORMAT;
            let mut places = std::collections::HashMap::new();
            for (tenant, split) in tenants.by_ref().take(PART) {
                let shape = *places.entry(&split.slices).or_insert_with(|| {
                    part.shapes.push(split.slices.clone());
                    part.shapes.len() - 1
                });
                part.tenants.push((tenant.clone(), shape, split.salt));
            }
        }
        parts[0].service = Some(ServicePart {
            baseline: self.baseline.clone(),
            split: self.split.clone(),
            groups: self.groups.clone(),
            pins: self.pins.clone(),
            hold: self.hold.clone(),
        });
        parts
    }
}

impl SplitSnapshot {
    /// The shares.
    pub fn weights(&self) -> Weights {
        self.to_split(0).weights()
    }

    /// How many of a hundred keys another split gives to another version, to be expected where the salts differ.
    pub fn moved_percent(&self, other: &Split) -> f64 {
        let own = self.to_split(0);
        if self.salt == other.salt {
            return own.moved_buckets(other) as f64 / 100.0;
        }
        let (before, after) = (own.weights(), other.weights());
        let stay: f64 = before.iter().map(|(v, share)| share.ratio() * after.share(v.as_str()).ratio()).sum();
        ((1.0 - stay) * 10_000.0).round() / 100.0
    }

    /// What a split asks for while these bars stand.
    pub(super) fn of(live: &ServiceState, split: &Split) -> Self {
        let asked = split.brake.as_ref().map_or(&split.slices, |brake| &brake.slices);
        Self { salt: split.salt, slices: live.owners(asked, split) }
    }

    /// Whether every key is on the same version.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        // The salt decides nothing where everyone is on one version.
        self.slices == other.slices && (self.salt == other.salt || self.slices.len() == 1)
    }

    /// The split that gives every key back to its version.
    pub(super) fn to_split(&self, revision: u64) -> Split {
        Split {
            epoch: revision,
            attempt: revision,
            salt: self.salt,
            slices: self.slices.clone(),
            brake: None,
            rolled_back: None,
            recalls: Default::default(),
            unknown: Default::default(),
        }
    }

    fn is_sound(&self) -> bool {
        self.to_split(0).is_sound()
    }
}

fn part_key(name: &SnapshotName, service: &ServiceName, part: usize) -> DocumentKey {
    DocumentKey::Archive(format!("snapshot/{name}/{service}/{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BasisPoints;

    #[test]
    fn keys_that_move_are_counted_or_expected() {
        let version = |name: &str| VersionName::new(name).unwrap();
        let split = |canary, salt| {
            let shares =
                [("2", canary), ("1", 10_000 - canary)].map(|(v, p)| (version(v), BasisPoints::new(p).unwrap()));
            Split::new(&Weights::new(shares).unwrap(), &version("1"), salt, 1)
        };
        let all = Weights::all_on(version("1"));
        let live = ServiceState::new(version("1"), &all, 1, 1);
        let half = SplitSnapshot::of(&live, &split(5_000, 7));
        assert_eq!(half.moved_percent(&split(2_000, 7)), 30.0);
        assert_eq!(half.moved_percent(&split(2_000, 8)), 50.0, "half of the keys, whatever their version");
        assert_eq!(half.moved_percent(&split(5_000, 7)), 0.0);
    }

    #[test]
    fn many_tenants_come_back_from_their_parts() {
        let version = |name: &str| VersionName::new(name).unwrap();
        let service = ServiceName::new("api").unwrap();
        let mut state = State { revision: 7, ..State::default() };
        let all = Weights::all_on(version("1"));
        let live = ServiceState::new(version("1"), &all, 1, 1);
        state.services.insert(service.clone(), live.into());
        let tenants = (0..2 * PART as u64 + 1).map(|n| {
            let canary = BasisPoints::new((n % 50) as u16).unwrap();
            let rest = BasisPoints::new(10_000 - (n % 50) as u16).unwrap();
            let weights = Weights::new([(version("2"), canary), (version("1"), rest)]).unwrap();
            let split = Split::new(&weights, &version("1"), u64::MAX - n, n);
            let own = crate::model::TenantState {
                format: DOCUMENT_FORMAT,
                revision: n,
                split,
                by: None,
                unknown: Default::default(),
            };
            (TenantName::new(&format!("t{n}")).unwrap(), own)
        });
        state.tenants.insert(service.clone(), tenants.collect());

        let snapshot = Snapshot::of(&state, [&service]);
        let name = SnapshotName::new("monday").unwrap();
        let documents = snapshot.to_documents(&name);
        let summary = snapshot.summary(Author::File, String::new(), 5);
        let keys: Vec<_> = summary.keys(&name).flat_map(|(_, keys)| keys).collect();
        assert_eq!(documents.iter().map(|(k, _)| k).collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
        assert_eq!((documents.len(), documents[2].0.to_string().as_str()), (3, "archive/snapshot/monday/api/2"));
        assert!(documents.iter().all(|(_, body)| body.len() < 1 << 20));

        let bodies = || documents.iter().map(|(_, body)| body.as_str());
        assert_eq!(Snapshot::read_service(bodies()).unwrap(), snapshot.services[&service]);
        assert_eq!(Snapshot::read_service(bodies().skip(1)).unwrap_err(), "its first part is missing");
        assert_eq!(Snapshot::read_service([]).unwrap_err(), "it is empty");
        let cut = documents[0].1.replace("\"end\":10000", "\"end\":9999");
        assert!(Snapshot::read_service([cut.as_str()]).unwrap_err().contains("not complete"));
        let newer = documents[0].1.replacen("\"format\":1", "\"format\":9", 1);
        assert!(Snapshot::read_service([newer.as_str()]).unwrap_err().contains("format is 9"));
    }
}
