//! How one state becomes the next by a change that concerns the whole proxy: like `apply`, pure, and refusing before
//! anything is written; unlike it, with any number of documents and events in one commit.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::change::{Applied, ChangeError};
use super::document::{Commit, DOCUMENT_FORMAT, DocumentKey};
use super::event::{Author, Event, EventKind};
use super::global::{Freeze, GlobalChange, GlobalRequest};
use super::names::{ServiceName, SnapshotName, TenantName};
use super::restore::ServiceRestore;
use super::snapshot::{Snapshot, SnapshotSummary, Snapshots};
use super::spec::Structure;
use super::split::Split;
use super::state::{Scope, ServiceState, State, TenantState};
use super::stored::body_of;
use super::tenant_map::TenantMap;

/// From so many tenants on, their map is made anew rather than changed one by one.
const MANY: usize = 1_000;

impl State {
    /// The next state, if the change may happen. `next_event` is the id that the first event will get, `now_ms` the time
    /// in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`ChangeError`] says what is wrong; this state is untouched.
    pub fn apply_global(
        &self,
        structure: &Structure,
        request: &GlobalRequest,
        next_event: u64,
        now_ms: u64,
    ) -> Result<Applied, ChangeError> {
        let what = match &request.change {
            GlobalChange::SetFreeze { .. } | GlobalChange::ClearFreeze => "a freeze is set and cleared by people only",
            _ => "snapshots are taken, restored and deleted by people only",
        };
        if request.author == Author::Autopilot {
            return Err(ChangeError::Invalid(what.to_owned()));
        }
        let revision = self.revision + 1;
        let commit = Commit { expected: self.revision, revision, ..Commit::default() };
        let state = State { revision, ..self.clone() };
        let mut next = Next { before: self, structure, request, next_event, now_ms, state, commit };
        let (document_revision, after) = match &request.change {
            GlobalChange::SetFreeze { until_ms } => next.set_freeze(*until_ms)?,
            GlobalChange::ClearFreeze => next.clear_freeze()?,
            GlobalChange::TakeSnapshot { name, summary, documents } => next.take(name, summary, documents)?,
            GlobalChange::RestoreSnapshot { name, snapshot, services, force } => {
                next.restore(name, snapshot, services.as_deref(), *force)?
            }
            GlobalChange::DeleteSnapshot(name) => next.delete(name)?,
        };
        Ok(Applied { state: next.state, commit: next.commit, document_revision, after })
    }
}

struct Next<'a> {
    before: &'a State,
    structure: &'a Structure,
    request: &'a GlobalRequest,
    next_event: u64,
    now_ms: u64,
    state: State,
    commit: Commit,
}

/// Revision of the document concerned, and the document.
type Outcome = Result<(u64, Value), ChangeError>;

impl Next<'_> {
    fn set_freeze(&mut self, until_ms: Option<u64>) -> Outcome {
        let now_ms = self.now_ms;
        self.check_revision(self.before.freeze_at(now_ms).map_or(0, |freeze| freeze.revision))?;
        if until_ms.is_some_and(|until| !(now_ms + 1..=now_ms + Freeze::MAX_MS).contains(&until)) {
            let why = "a freeze ends in the future, within 366 days; leave the end out for one that somebody ends";
            return Err(ChangeError::Invalid(why.to_owned()));
        }
        let before = self.before.freeze_at(now_ms);
        let freeze = Freeze {
            format: DOCUMENT_FORMAT,
            revision: self.state.revision,
            author: self.request.author.clone(),
            reason: self.request.reason.clone(),
            since_ms: before.map_or(now_ms, |before| before.since_ms),
            until_ms,
            unknown: before.map(|before| before.unknown.clone()).unwrap_or_default(),
        };
        let after = json!(freeze);
        self.event(EventKind::FreezeSet, None, json!(before), after.clone());
        self.commit.puts.push((DocumentKey::Freeze, body_of(&freeze)));
        self.state.freeze = Some(freeze);
        Ok((self.state.revision, after))
    }

    fn clear_freeze(&mut self) -> Outcome {
        let before = self.before.freeze_at(self.now_ms);
        let before = before.ok_or_else(|| ChangeError::NotThere { what: "a freeze".to_owned() })?;
        self.check_revision(before.revision)?;
        self.event(EventKind::FreezeCleared, None, json!(before), Value::Null);
        self.commit.deletes.push(DocumentKey::Freeze);
        self.state.freeze = None;
        Ok((0, Value::Null))
    }

    fn take(
        &mut self,
        name: &SnapshotName,
        summary: &SnapshotSummary,
        documents: &Arc<Vec<(DocumentKey, String)>>,
    ) -> Outcome {
        let all = &self.before.snapshots.all;
        if all.contains_key(name) {
            let why = format!("there is a snapshot {name:?} already; choose another name, or delete that one first");
            return Err(ChangeError::Invalid(why));
        }
        if all.len() >= Snapshots::MAX {
            let oldest = all.iter().min_by_key(|(_, s)| s.at_ms).map_or_else(String::new, |(name, _)| name.to_string());
            return Err(ChangeError::Invalid(format!(
                "there are {} snapshots, which is the most that are kept; delete one first, such as the oldest, {oldest:?}",
                all.len()
            )));
        }
        self.commit.puts.extend(documents.iter().cloned());
        self.edit_list(|all| drop(all.all.insert(name.clone(), summary.clone())));
        let after = json!({ "snapshot": name, "services": summary.services });
        self.event(EventKind::SnapshotTaken, None, Value::Null, after.clone());
        Ok((self.state.revision, after))
    }

    fn delete(&mut self, name: &SnapshotName) -> Outcome {
        let summary = self.summary(name)?;
        self.commit.deletes.extend(summary.keys(name).flat_map(|(_, keys)| keys));
        self.edit_list(|all| drop(all.all.remove(name)));
        let before = json!({ "snapshot": name, "services": summary.services });
        self.event(EventKind::SnapshotDeleted, None, before, Value::Null);
        Ok((0, Value::Null))
    }

    fn restore(
        &mut self,
        name: &SnapshotName,
        snapshot: &Snapshot,
        services: Option<&[ServiceName]>,
        force: bool,
    ) -> Outcome {
        // It may have been deleted, or another one given its name, since it was read.
        if self.summary(name)?.revision != snapshot.revision {
            return Err(ChangeError::NotThere { what: format!("the snapshot {name:?} that was read") });
        }
        let plan = self.before.plan_restore(self.structure, snapshot, services, force)?;
        let mut after = Map::new();
        for (service, restore) in plan.services {
            let told = told(name, &restore);
            after.insert(service.to_string(), told.clone());
            if !restore.is_empty() {
                if let Some(running) = self.before.running_rollout(&service) {
                    return Err(ChangeError::Running { service, id: running.rollout.id.clone() });
                }
                let live = self.before.service(service.as_str());
                let before = live.map_or(
                    Value::Null,
                    |live| json!({ "baseline": live.baseline, "weights": live.weights_in_effect(&live.split) }),
                );
                self.write(&service, restore);
                self.event(EventKind::SnapshotRestored, Some(service), before, told);
            }
        }
        let after = json!({ "snapshot": name, "services": after });
        if self.commit.events.is_empty() {
            self.event(EventKind::SnapshotRestored, None, Value::Null, after.clone());
        }
        Ok((self.state.revision, after))
    }

    fn write(&mut self, service: &ServiceName, restore: ServiceRestore) {
        let revision = self.state.revision;
        let changes_service = restore.changes_service();
        let tenants = restore.splits.into_iter().filter_map(|step| match step.scope {
            Scope::Tenant(tenant) => Some((tenant, step.after)),
            _ => None,
        });
        let tenants: Vec<_> = tenants
            .map(|(tenant, after)| {
                let before = self.before.tenant(service.as_str(), tenant.as_str());
                let own = after.map(|split| own(before, split, revision));
                (tenant, own)
            })
            .collect();
        for (tenant, own) in &tenants {
            let key = DocumentKey::Tenant(service.clone(), tenant.clone());
            match own {
                Some(own) => self.commit.puts.push((key, body_of(own))),
                None => self.commit.deletes.push(key),
            }
        }
        if !tenants.is_empty() {
            let all = self.state.tenants.entry(service.clone()).or_default();
            *all = with(all, tenants);
        }
        if changes_service {
            let live = ServiceState { revision, ..restore.next };
            self.commit.puts.push((DocumentKey::Service(service.clone()), body_of(&live)));
            self.state.services.insert(service.clone(), Arc::new(live));
        }
    }

    fn summary(&self, name: &SnapshotName) -> Result<SnapshotSummary, ChangeError> {
        let found = self.before.snapshots.all.get(name).cloned();
        found.ok_or_else(|| ChangeError::NotThere { what: format!("the snapshot {name:?}") })
    }

    fn edit_list(&mut self, edit: impl FnOnce(&mut Snapshots)) {
        let list = Arc::make_mut(&mut self.state.snapshots);
        (list.format, list.revision) = (DOCUMENT_FORMAT, self.commit.revision);
        edit(list);
        self.commit.puts.push((DocumentKey::Snapshots, body_of(list)));
    }

    /// The document concerned must be the one that the author saw.
    fn check_revision(&self, current: u64) -> Result<(), ChangeError> {
        match self.request.if_revision {
            Some(expected) if expected != current => Err(ChangeError::StaleRevision { expected, current }),
            _ => Ok(()),
        }
    }

    fn event(&mut self, kind: EventKind, service: Option<ServiceName>, before: Value, after: Value) {
        self.commit.events.push(Event {
            id: self.next_event + self.commit.events.len() as u64,
            revision: self.commit.revision,
            at_ms: self.now_ms,
            kind,
            service,
            tenant: None,
            group: None,
            rollout: None,
            version: None,
            author: self.request.author.clone(),
            reason: self.request.reason.clone(),
            cause: None,
            before,
            after,
            evidence: Value::Null,
            first_bad_to_rollback_ms: None,
        });
    }
}

/// What a restore comes to, in numbers.
fn told(name: &SnapshotName, restore: &ServiceRestore) -> Value {
    let next = &restore.next;
    let (groups, tenants) = restore.groups_and_tenants();
    let mut versions: Vec<_> = restore.withheld.iter().map(|w| w.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    json!({
        "snapshot": name,
        "baseline": next.baseline,
        "weights": next.weights_in_effect(&next.split),
        "changed": {
            "baseline": restore.baseline.is_some(),
            "split": restore.splits.iter().any(|step| step.scope == Scope::Service),
            "groups": groups,
            "tenants": tenants,
            "pins": restore.pins.len(),
            "hold": restore.hold.is_some(),
        },
        "withheld": restore.withheld.len(),
        "withheld_versions": versions,
    })
}

/// A tenant's document with this split, and with what a newer release keeps there.
fn own(before: Option<&TenantState>, split: Split, revision: u64) -> TenantState {
    let unknown = before.map(|own| own.unknown.clone()).unwrap_or_default();
    TenantState { format: DOCUMENT_FORMAT, revision, split, by: None, unknown }
}

/// The tenants after these changes.
fn with(tenants: &TenantMap, changes: Vec<(TenantName, Option<TenantState>)>) -> TenantMap {
    if changes.len() < MANY {
        let mut tenants = tenants.clone();
        for (name, own) in changes {
            match own {
                Some(own) => tenants.insert(name, own),
                None => tenants.remove(name.as_str()),
            }
        }
        return tenants;
    }
    let changes: std::collections::HashMap<_, _> = changes.into_iter().collect();
    let unchanged = tenants.iter().filter(|(name, _)| !changes.contains_key(*name));
    let unchanged: Vec<_> = unchanged.map(|(name, own)| (name.clone(), own.clone())).collect();
    let changed = changes.into_iter().filter_map(|(name, own)| Some((name, own?)));
    unchanged.into_iter().chain(changed).collect()
}
