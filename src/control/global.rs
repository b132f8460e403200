//! Changes of the whole proxy on their way through the one writer, and snapshots between the state and the archive.
//!
//! What is large is done before the writer's turn, while changes and rollbacks go on: a snapshot is put into text and read
//! back from the archive, and a restore is worked out against the state of that moment. The writer takes that over when
//! nothing has changed since, and works it out itself otherwise.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::oneshot;

use super::late::patience_for;
use super::start::now_ms;
use super::writer::Writer;
use super::{Command, Control, Receipt, SubmitError, View};
use crate::config::Settings;
use crate::model::{
    Applied, Author, Event, GlobalChange, GlobalRequest, ServiceName, Snapshot, SnapshotName, SnapshotSummary,
};
use crate::store::StoreError;

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is none of that name.
    #[error("there is no snapshot {name:?}; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: SnapshotName,
        /// What there is.
        known: String,
    },
    /// The process runs on the last good copy, which has no archive.
    #[error("the store could not be opened, and the last good copy has no snapshots; mend the store and restart")]
    ReadOnly,
    /// The store does not give it.
    #[error("the snapshot cannot be read")]
    Store(#[from] StoreError),
    /// What the store gives is not a snapshot.
    #[error("the snapshot {name:?} cannot be read: {service}: {detail}")]
    Damaged {
        /// Its name.
        name: SnapshotName,
        /// The service whose part it is.
        service: ServiceName,
        /// What is wrong.
        detail: String,
    },
}

/// A change that was worked out ahead.
pub(super) struct Prepared {
    applied: Applied,
    settings: Arc<Settings>,
}

impl Prepared {
    /// Whether neither a change nor a reload came in between.
    fn fits(&self, view: &View) -> bool {
        self.applied.commit.expected == view.state.revision && Arc::ptr_eq(&self.settings, &view.settings)
    }
}

impl Control {
    /// Makes a change that concerns the whole proxy, or tells what it would do. The answer comes when the change is
    /// durable and in effect here.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing has changed then.
    pub async fn submit_global(&self, request: GlobalRequest, dry_run: bool) -> Result<Receipt, SubmitError> {
        let (request, prepared) = match &request.change {
            GlobalChange::RestoreSnapshot { .. } => self.prepare(request).await?,
            _ => (Box::new(request), None),
        };
        let (reply, answer) = oneshot::channel();
        let command = Command::Global { request, prepared, dry_run, reply };
        self.commands.send(command).await.map_err(|_| SubmitError::Closed)?;
        answer.await.map_err(|_| SubmitError::Closed)?
    }

    async fn prepare(
        &self,
        request: GlobalRequest,
    ) -> Result<(Box<GlobalRequest>, Option<Box<Prepared>>), SubmitError> {
        let view = self.view();
        let worked_out = tokio::task::spawn_blocking(move || {
            // The store numbers the events.
            let applied = view.state.apply_global(&view.settings.structure, &request, 0, now_ms());
            let settings = view.settings.clone();
            (Box::new(request), applied.ok().map(|applied| Box::new(Prepared { applied, settings })))
        });
        worked_out.await.map_err(|_| SubmitError::Closed)
    }

    /// Takes a snapshot of these services, or of all. It shows one revision, with every change that was answered before.
    ///
    /// # Errors
    /// [`SubmitError`]; there is no snapshot then.
    pub async fn take_snapshot(
        &self,
        name: SnapshotName,
        services: Option<Vec<ServiceName>>,
        author: Author,
        reason: String,
        dry_run: bool,
    ) -> Result<Receipt, SubmitError> {
        let view = self.view();
        let (by, why) = (author.clone(), reason.clone());
        let made = tokio::task::spawn_blocking(move || {
            let all = || view.settings.structure.services.keys().cloned().collect();
            let snapshot = Snapshot::of(&view.state, &services.unwrap_or_else(all));
            let summary = Box::new(snapshot.summary(by, why, now_ms()));
            let documents = Arc::new(snapshot.to_documents(&name));
            GlobalChange::TakeSnapshot { name, summary, documents }
        });
        let change = made.await.map_err(|_| SubmitError::Closed)?;
        self.submit_global(GlobalRequest { change, author, reason, if_revision: None }, dry_run).await
    }

    /// Reads a snapshot from the archive, or these services of it.
    ///
    /// # Errors
    /// [`SnapshotError`] says why not.
    pub async fn snapshot(
        &self,
        name: &SnapshotName,
        services: Option<&[ServiceName]>,
    ) -> Result<(SnapshotSummary, Snapshot), SnapshotError> {
        let view = self.view();
        if view.read_only {
            return Err(SnapshotError::ReadOnly);
        }
        let all = &view.state.snapshots.all;
        let summary = all.get(name).ok_or_else(|| {
            let known: Vec<_> = all.keys().map(SnapshotName::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            SnapshotError::Unknown { name: name.clone(), known }
        })?;
        let mut snapshot = Snapshot { revision: summary.revision, ..Snapshot::default() };
        let wanted = |service: &ServiceName| services.is_none_or(|list| list.contains(service));
        for (service, keys) in summary.keys(name).filter(|(service, _)| wanted(service)) {
            let damaged = |detail| SnapshotError::Damaged { name: name.clone(), service: service.clone(), detail };
            let mut bodies = Vec::with_capacity(keys.len());
            for key in keys {
                let found = self.store.get(&key).await?;
                bodies.push(found.ok_or_else(|| damaged(format!("the document {key} is missing")))?.body);
            }
            let read = tokio::task::spawn_blocking(move || Snapshot::read_service(bodies.iter().map(String::as_str)));
            let read = read.await.unwrap_or_else(|e| Err(e.to_string())).map_err(damaged)?;
            snapshot.services.insert(service.clone(), read);
        }
        Ok((summary.clone(), snapshot))
    }
}

impl Writer {
    pub(super) async fn submit_global(
        &mut self,
        request: &GlobalRequest,
        prepared: Option<Box<Prepared>>,
        dry_run: bool,
    ) -> Result<Receipt, SubmitError> {
        let view = self.view.load_full();
        if view.read_only {
            return Err(SubmitError::ReadOnly);
        }
        match self.attempt_global(&view, request, prepared, dry_run).await {
            // Another process wrote in between, as happens while an upgrade overlaps: look again, once.
            Err(SubmitError::Store(StoreError::Conflict { .. })) => {
                self.catch_up(&view).await?;
                let view = self.view.load_full();
                self.attempt_global(&view, request, None, dry_run).await
            }
            other => other,
        }
    }

    async fn attempt_global(
        &mut self,
        view: &View,
        request: &GlobalRequest,
        prepared: Option<Box<Prepared>>,
        dry_run: bool,
    ) -> Result<Receipt, SubmitError> {
        let structure = &view.settings.structure;
        let mut applied = match prepared.filter(|prepared| prepared.fits(view)) {
            Some(prepared) => prepared.applied,
            None => view.state.apply_global(structure, request, self.next_event, now_ms())?,
        };
        let touched: Vec<_> = applied.commit.events.iter().filter_map(|event| event.service.as_ref()).collect();
        let routes = view.routes.with_services(&touched, &applied.state, &self.context)?;
        let mut receipt = Receipt {
            revision: if dry_run { view.state.revision } else { applied.state.revision },
            document_revision: applied.document_revision,
            event: None,
            dry_run,
            unconfirmed: false,
            before: before(&applied),
            after: applied.after.clone(),
        };
        if dry_run {
            return Ok(receipt);
        }
        if !self.unconfirmed.is_empty() {
            return Err(SubmitError::Unconfirmed { waiting: self.unconfirmed.len() });
        }
        let commit = std::mem::take(&mut applied.commit);
        applied.commit.events = commit.events.clone();
        let patience = patience_for(&commit);
        let committed = self.write(commit, patience, false).await;
        let first = committed.inspect_err(|e| self.not_taken(e))?;
        receipt.event = Some(self.numbers(first, &mut applied.commit.events));
        self.publish(view, applied, routes);
        Ok(receipt)
    }
}

/// What was before: of the one event, or service by service.
fn before(applied: &Applied) -> Value {
    let of = |event: &Event| Some((event.service.as_ref()?.to_string(), event.before.clone()));
    match applied.commit.events.as_slice() {
        [one] if one.service.is_none() => one.before.clone(),
        events => Value::Object(events.iter().filter_map(of).collect()),
    }
}
