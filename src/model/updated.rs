//! The next state from what another process committed: the documents that it wrote and removed, put onto the state before.
//!
//! A fleet follows each other's changes this way. Reading the whole state anew would cost time in the number of tenants for
//! every change, and here it is the number of documents that changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::document::{Document, DocumentKey};
use super::names::{RolloutId, ServiceName, TenantName, VersionName};
use super::rollout::{Rollout, Unit, Units};
use super::state::{LiveRollout, State, TenantState};
use super::stored::{DocumentError, read, read_units, said_plainly};

/// A state after documents were written and removed, and what depends on those.
#[derive(Debug, Clone)]
pub struct Updated {
    /// The next state.
    pub state: State,
    /// Services whose document, or that of one of their tenants, was written or removed: their routes have to be compiled
    /// again. Routes do not depend on rollouts, the freeze and the list of snapshots.
    pub services: BTreeSet<ServiceName>,
    /// Whether a secret was written or removed. The state has none, but every service's routes hold who signs cookies, so
    /// the secrets have to be read again, and all routes compiled.
    pub secrets: bool,
}

impl State {
    /// The state after these documents were removed and those written, in this order. The result is that of
    /// [`State::from_documents`] with all documents; the cost is that of the changed ones, and of the units of a rollout
    /// whose units became more or fewer. This state is untouched.
    ///
    /// # Errors
    /// [`DocumentError`] names the document that cannot be read.
    pub fn updated(&self, revision: u64, puts: &[Document], deletes: &[DocumentKey]) -> Result<Updated, DocumentError> {
        let state = Self { revision, ..self.clone() };
        let updated = Updated { state, services: BTreeSet::new(), secrets: false };
        let mut next = Next { before: self, updated, rollouts: BTreeMap::new(), names: BTreeMap::new() };
        deletes.iter().for_each(|key| next.remove(key));
        puts.iter().try_for_each(|document| next.write(document)).map_err(|e| said_plainly(e, puts))?;
        Ok(next.finish())
    }
}

struct Next<'a> {
    before: &'a State,
    updated: Updated,
    rollouts: BTreeMap<&'a RolloutId, RolloutChange>,
    /// Names of versions that splits of a service share.
    names: BTreeMap<&'a ServiceName, BTreeSet<VersionName>>,
}

/// What became of a rollout's documents; each is written, or removed if there is none.
#[derive(Default)]
struct RolloutChange {
    rollout: Option<Option<Rollout>>,
    pages: BTreeMap<u32, Option<(u64, Vec<Unit>)>>,
}

impl<'a> Next<'a> {
    fn remove(&mut self, key: &'a DocumentKey) {
        let state = &mut self.updated.state;
        match key {
            DocumentKey::Service(name) => {
                state.services.remove(name);
                self.updated.services.insert(name.clone());
            }
            DocumentKey::Tenant(name, tenant) => {
                if let Some(tenants) = state.tenants.get_mut(name) {
                    tenants.remove(tenant.as_str());
                }
                self.updated.services.insert(name.clone());
            }
            DocumentKey::Rollout(id) => self.rollouts.entry(id).or_default().rollout = Some(None),
            DocumentKey::Units(id, page) => drop(self.rollouts.entry(id).or_default().pages.insert(*page, None)),
            DocumentKey::Freeze => state.freeze = None,
            DocumentKey::Snapshots => state.snapshots = Arc::default(),
            DocumentKey::Secret(_) => self.updated.secrets = true,
            DocumentKey::Archive(_) => {}
        }
    }

    fn write(&mut self, document: &'a Document) -> Result<(), DocumentError> {
        let state = &mut self.updated.state;
        match &document.key {
            DocumentKey::Service(name) => {
                state.services.insert(name.clone(), Arc::new(read(document)?));
                self.updated.services.insert(name.clone());
            }
            DocumentKey::Tenant(name, tenant) => self.write_tenant(name, tenant, read(document)?),
            DocumentKey::Rollout(id) => self.rollouts.entry(id).or_default().rollout = Some(Some(read(document)?)),
            DocumentKey::Units(id, page) => {
                let units = (document.revision, read_units(document)?);
                self.rollouts.entry(id).or_default().pages.insert(*page, Some(units));
            }
            DocumentKey::Freeze => state.freeze = Some(read(document)?),
            DocumentKey::Snapshots => state.snapshots = Arc::new(read(document)?),
            DocumentKey::Secret(_) => self.updated.secrets = true,
            DocumentKey::Archive(_) => {}
        }
        Ok(())
    }

    fn write_tenant(&mut self, service: &'a ServiceName, tenant: &TenantName, mut own: TenantState) {
        let names = self.names.entry(service).or_insert_with(|| {
            let live = self.before.service(service.as_str());
            live.into_iter().flat_map(|live| live.split.slices.iter().map(|slice| slice.version.clone())).collect()
        });
        let tenants = self.updated.state.tenants.entry(service.clone()).or_default();
        if let Some(before) = tenants.get(tenant.as_str()) {
            names.extend(before.split.slices.iter().map(|slice| slice.version.clone()));
        }
        own.split.share_names(names);
        tenants.insert(tenant.clone(), own);
        self.updated.services.insert(service.clone());
    }

    fn finish(mut self) -> Updated {
        let state = &mut self.updated.state;
        // A service without tenants has no entry, as when everything is read anew.
        for service in &self.updated.services {
            if state.tenants.get(service).is_some_and(|tenants| tenants.is_empty()) {
                state.tenants.remove(service);
            }
        }
        for (id, change) in self.rollouts {
            let before = self.before.rollouts.get(id);
            let rollout = change.rollout.unwrap_or_else(|| before.map(|live| live.rollout.clone()));
            let Some(rollout) = rollout else {
                state.rollouts.remove(id);
                continue;
            };
            let units = before.map_or_else(Units::default, |live| live.units.clone()).with_pages(change.pages);
            state.rollouts.insert(id.clone(), Arc::new(LiveRollout { rollout, units }));
        }
        self.updated
    }
}

#[cfg(test)]
#[path = "updated_tests.rs"]
mod tests;
