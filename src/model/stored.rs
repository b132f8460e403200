//! The state as documents and back: what is read when a process starts, and what a copy of the whole consists of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::document::{DOCUMENT_FORMAT, Document, DocumentKey};
use super::global::Freeze;
use super::names::{RolloutId, ServiceName, TenantName};
use super::rollout::{Rollout, Unit, Units};
use super::snapshot::Snapshots;
use super::split::Split;
use super::state::{LiveRollout, ServiceState, State, TenantState};

/// A stored document that this release cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the document {key} cannot be read: {detail}")]
pub struct DocumentError {
    /// Which document.
    pub key: DocumentKey,
    /// What is wrong with it.
    pub detail: String,
}

/// What a document of the state holds.
pub(super) trait Stored: DeserializeOwned {
    /// The format that it says it has.
    fn format(&self) -> u32;
    /// It was written under this revision.
    fn stamp(&mut self, revision: u64);
    /// Whether its splits are as this program makes them.
    fn is_sound(&self) -> bool {
        true
    }
}

impl Stored for ServiceState {
    fn format(&self) -> u32 {
        self.format
    }

    fn stamp(&mut self, revision: u64) {
        self.revision = revision;
    }

    fn is_sound(&self) -> bool {
        self.split.is_sound() && self.groups.values().all(Split::is_sound)
    }
}

impl Stored for TenantState {
    fn format(&self) -> u32 {
        self.format
    }

    fn stamp(&mut self, revision: u64) {
        self.revision = revision;
    }

    fn is_sound(&self) -> bool {
        self.split.is_sound()
    }
}

impl Stored for Rollout {
    fn format(&self) -> u32 {
        self.format
    }

    fn stamp(&mut self, revision: u64) {
        self.revision = revision;
    }
}

impl Stored for Freeze {
    fn format(&self) -> u32 {
        self.format
    }

    fn stamp(&mut self, revision: u64) {
        self.revision = revision;
    }
}

impl Stored for Snapshots {
    fn format(&self) -> u32 {
        self.format
    }

    fn stamp(&mut self, revision: u64) {
        self.revision = revision;
    }
}

/// Reads one document.
pub(super) fn read<T: Stored>(document: &Document) -> Result<T, DocumentError> {
    let unreadable = |detail: String| DocumentError { key: document.key.clone(), detail };
    let mut stored: T = serde_json::from_str(&document.body)
        .map_err(|e| newer(document).unwrap_or_else(|| unreadable(e.to_string())))?;
    if stored.format() > DOCUMENT_FORMAT {
        return Err(too_new(document, stored.format()));
    }
    if !stored.is_sound() {
        return Err(unreadable("the slices of a split are not complete".to_owned()));
    }
    stored.stamp(document.revision);
    Ok(stored)
}

/// A format that this release does not know may look like anything, so what is wrong with it must not be said in terms of
/// the known one.
fn newer(document: &Document) -> Option<DocumentError> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_str(&document.body).ok()?;
    (format > DOCUMENT_FORMAT).then(|| too_new(document, format))
}

fn too_new(document: &Document, format: u32) -> DocumentError {
    let detail = format!(
        "its format is {format}, this release knows formats up to {DOCUMENT_FORMAT}; it was written by a newer release, \
         so start that one"
    );
    DocumentError { key: document.key.clone(), detail }
}

/// The error, or the newer format that is behind it: units say no format of their own, and those of a newer rollout may be
/// what could not be read.
pub(super) fn said_plainly(error: DocumentError, documents: &[Document]) -> DocumentError {
    documents.iter().find_map(newer).unwrap_or(error)
}

/// Reads one page of a rollout's units. The format is that of the rollout.
pub(super) fn read_units(document: &Document) -> Result<Vec<Unit>, DocumentError> {
    serde_json::from_str(&document.body).map_err(|e| DocumentError { key: document.key.clone(), detail: e.to_string() })
}

/// The JSON text of a document.
pub(super) fn body_of(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("documents hold only text, numbers, lists and maps with text keys")
}

/// Pages of a rollout's units with the revision that wrote each.
type Pages = BTreeMap<u32, (u64, Vec<Unit>)>;

impl State {
    /// Reads the state back from its documents. Secrets and the archive are left to whoever made them.
    ///
    /// # Errors
    /// [`DocumentError`] names the document that cannot be read.
    pub fn from_documents(revision: u64, documents: &[Document]) -> Result<Self, DocumentError> {
        Self::read_all(revision, documents).map_err(|e| said_plainly(e, documents))
    }

    fn read_all(revision: u64, documents: &[Document]) -> Result<Self, DocumentError> {
        let mut state = Self { revision, ..Self::default() };
        let mut tenants: BTreeMap<&ServiceName, Vec<(TenantName, TenantState)>> = BTreeMap::new();
        let mut names = BTreeSet::new();
        let mut rollouts: BTreeMap<&RolloutId, (Option<Rollout>, Pages)> = BTreeMap::new();
        for document in documents {
            match &document.key {
                DocumentKey::Rollout(id) => rollouts.entry(id).or_default().0 = Some(read(document)?),
                DocumentKey::Units(id, page) => {
                    let units = (document.revision, read_units(document)?);
                    rollouts.entry(id).or_default().1.insert(*page, units);
                }
                DocumentKey::Secret(_) | DocumentKey::Archive(_) => {}
                DocumentKey::Freeze => state.freeze = Some(read(document)?),
                DocumentKey::Snapshots => state.snapshots = Arc::new(read(document)?),
                DocumentKey::Service(name) => drop(state.services.insert(name.clone(), Arc::new(read(document)?))),
                DocumentKey::Tenant(name, tenant) => {
                    let mut own: TenantState = read(document)?;
                    own.split.share_names(&mut names);
                    tenants.entry(name).or_default().push((tenant.clone(), own));
                }
            }
        }
        state.tenants =
            tenants.into_iter().map(|(service, own)| (service.clone(), own.into_iter().collect())).collect();
        state.rollouts = rollouts
            .into_iter()
            .filter_map(|(id, (rollout, pages))| {
                let units = Units::from_pages(pages.into_values());
                Some((id.clone(), Arc::new(LiveRollout { rollout: rollout?, units })))
            })
            .collect();
        Ok(state)
    }

    /// Every document of the state.
    pub fn to_documents(&self) -> impl Iterator<Item = Document> + '_ {
        let services = self.services.iter().map(|(name, service)| Document {
            key: DocumentKey::Service(name.clone()),
            revision: service.revision,
            body: body_of(&**service),
        });
        let tenants = self.tenants.iter().flat_map(|(name, tenants)| {
            tenants.iter().map(|(tenant, own)| Document {
                key: DocumentKey::Tenant(name.clone(), tenant.clone()),
                revision: own.revision,
                body: body_of(own),
            })
        });
        let rollouts = self.rollouts.iter().flat_map(|(id, live)| {
            let pages = live.units.pages().enumerate().map(move |(page, (revision, units))| Document {
                key: DocumentKey::Units(id.clone(), page as u32),
                revision,
                body: body_of(&units),
            });
            let (key, revision) = (DocumentKey::Rollout(id.clone()), live.rollout.revision);
            std::iter::once(Document { key, revision, body: body_of(&live.rollout) }).chain(pages)
        });
        let freeze = self.freeze.iter().map(|freeze| Document {
            key: DocumentKey::Freeze,
            revision: freeze.revision,
            body: body_of(freeze),
        });
        let snapshots = (self.snapshots.revision > 0).then(|| Document {
            key: DocumentKey::Snapshots,
            revision: self.snapshots.revision,
            body: body_of(&*self.snapshots),
        });
        services.chain(tenants).chain(rollouts).chain(freeze).chain(snapshots)
    }
}
