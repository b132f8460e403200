//! The writer task: takes commands one after the other, so that no two changes ever see the same state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::doubt::Unconfirmed;
use super::follow::Heard;
use super::keys::{document_key, fresh_secret, rotated, signer};
use super::late::{Late, SHORT, answered, heard, patience_for};
use super::reload::{ReloadReport, differences, keeps_warm};
use super::start::{begin, now_ms};
use super::{Command, Receipt, SubmitError, View};
use crate::config::Settings;
use crate::model::{Applied, Author, Change, ChangeError, ChangeRequest, Commit, Document, Event, EventKind, State};
use crate::routing::{Context, Routes};
use crate::store::{LastGood, Store, StoreError};
use crate::telemetry::Metrics;

/// How long after a change the last good copy is written, so that a burst of changes costs one copy.
const COPY_AFTER: Duration = Duration::from_secs(5);
/// How often the store is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(10);

/// How long the end waits for each of the store's last words.
const END: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    pub(super) view: Arc<ArcSwap<View>>,
    pub(super) published: Arc<ArcSwap<Routes>>,
    pub(super) events: broadcast::Sender<Arc<Event>>,
    /// Those of this process alone.
    pub(super) made: broadcast::Sender<Arc<Event>>,
    pub(super) heard: Heard,
    /// Whether this process began without the store and has not seen it yet.
    pub(super) adrift: bool,
    pub(super) store: Arc<dyn Store>,
    last_good: Option<Arc<LastGood>>,
    pub(super) context: Context,
    pub(super) metrics: Arc<Metrics>,
    pub(super) secrets: Vec<Document>,
    pub(super) next_event: u64,
    /// Changes of the guard that are in effect and wait for the store, oldest first.
    pub(super) unconfirmed: VecDeque<Unconfirmed>,
    /// When the store is looked at again, if it may have something else than what is shown.
    pub(super) retry_at: Option<Instant>,
    /// Whether the next event will get the number `next_event`.
    pub(super) numbered: bool,
    /// A write that the store has not answered in time.
    pub(super) late: Option<Late>,
    /// The question whether the store takes changes.
    pub(super) asked: Option<JoinHandle<Result<(), StoreError>>>,
    copy_at: Option<Instant>,
    copying: Option<JoinHandle<()>>,
}

impl Writer {
    #[expect(clippy::too_many_arguments, reason = "called once, from start, which owns every part")]
    pub(super) fn new(
        view: Arc<ArcSwap<View>>,
        published: Arc<ArcSwap<Routes>>,
        (events, made): (broadcast::Sender<Arc<Event>>, broadcast::Sender<Arc<Event>>),
        adrift: bool,
        store: Arc<dyn Store>,
        last_good: Option<LastGood>,
        context: Context,
        metrics: Arc<Metrics>,
        secrets: Vec<Document>,
        next_event: u64,
    ) -> Self {
        let last_good = last_good.map(Arc::new);
        let copy_at = Some(Instant::now() + COPY_AFTER);
        Self {
            view,
            published,
            events,
            made,
            heard: Heard::new(next_event),
            adrift,
            store,
            last_good,
            context,
            metrics,
            secrets,
            next_event,
            unconfirmed: VecDeque::new(),
            retry_at: adrift.then(Instant::now),
            numbered: !adrift,
            late: None,
            asked: None,
            copy_at,
            copying: None,
        }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut news = self.store.watch();
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let (copy, retry) = (when(self.copy_at), when(self.retry_at));
            tokio::select! {
                // What is due by time is rare, and must not wait for a queue that is never empty.
                biased;
                answer = answered(&mut self.late) => self.settle(answer).await,
                answer = heard(&mut self.asked) => self.hear(answer).await,
                () = retry => self.retry().await,
                () = copy => self.copy().await,
                _ = ping.tick() => self.ask(),
                Ok(()) = news.changed() => match self.adrift {
                    true => self.land().await,
                    false => self.catch_up_if_behind().await,
                },
                command = queue.recv() => match command {
                    Some(Command::Close { reply }) => {
                        self.close().await;
                        let _nobody_waits = reply.send(());
                        return;
                    }
                    Some(Command::Pause { reply }) => {
                        if self.pause(reply).await {
                            return self.follow(queue).await;
                        }
                    }
                    Some(command) => self.handle(command).await,
                    None => return,
                },
            }
        }
    }

    /// A disk that hangs must not keep the process from ending.
    async fn close(&mut self) {
        if let Ok(answer) = tokio::time::timeout(END, answered(&mut self.late)).await {
            self.settle(answer).await;
        }
        self.confirm().await;
        self.copy().await;
        if let Some(copying) = self.copying.take() {
            let _ended = tokio::time::timeout(END, copying).await;
        }
        if tokio::time::timeout(END, self.store.close()).await.is_err() {
            tracing::error!("the store does not answer; what it has not confirmed may be lost");
        }
    }

    async fn handle(&mut self, command: Command) {
        let hurries = match &command {
            Command::Submit { request, .. } => goes_back(request),
            Command::Note { .. } => true,
            _ => false,
        };
        if !hurries {
            self.wait_for_late().await;
        }
        match command {
            Command::Submit { request, dry_run, reply } => {
                let result = self.submit(&request, dry_run).await;
                let _nobody_waits = reply.send(result);
            }
            Command::Reload { settings, reply } => {
                let result = self.reload(*settings).await;
                self.metrics.reload(result.is_ok());
                let _nobody_waits = reply.send(result);
            }
            Command::RotateKeys { author, reason, reply } => {
                let result = self.rotate_keys(author, reason).await;
                let _nobody_waits = reply.send(result);
            }
            Command::Global { request, prepared, dry_run, reply } => {
                let result = self.submit_global(&request, prepared, dry_run).await;
                let _nobody_waits = reply.send(result);
            }
            Command::Note { event } => self.note(*event).await,
            Command::Pause { .. } | Command::Close { .. } => {}
        }
    }

    async fn submit(&mut self, request: &ChangeRequest, dry_run: bool) -> Result<Receipt, SubmitError> {
        let view = self.view.load_full();
        if view.read_only {
            return Err(SubmitError::ReadOnly);
        }
        let result = self.attempt(&view, request, dry_run, false).await;
        if !matches!(result, Err(SubmitError::Store(StoreError::Conflict { .. }))) {
            return result;
        }
        // Another process wrote in between: look again, once.
        let caught_up = self.catch_up(&view).await;
        // What users get here must not wait until the store's state fits this process.
        let alone = caught_up.is_err() && goes_back(request);
        if !alone {
            caught_up?;
        }
        let view = self.view.load_full();
        self.attempt(&view, request, dry_run, alone).await
    }

    /// `alone`: whether the change is made here without asking the store.
    async fn attempt(
        &mut self,
        view: &View,
        request: &ChangeRequest,
        dry_run: bool,
        alone: bool,
    ) -> Result<Receipt, SubmitError> {
        let goes_back = goes_back(request);
        if !goes_back {
            self.number().await;
        }
        let mut applied = view.state.apply(&view.settings.structure, request, self.next_event, now_ms())?;
        let routes = view.routes.with_service(&request.service, &applied.state, &self.context)?;
        let mut receipt = Receipt {
            revision: applied.state.revision,
            document_revision: applied.document_revision,
            event: None,
            dry_run,
            unconfirmed: false,
            before: applied.commit.events.first().map_or(Value::Null, |e| e.before.clone()),
            after: applied.after.clone(),
        };
        if dry_run {
            receipt.revision = view.state.revision;
            return Ok(receipt);
        }
        if !self.unconfirmed.is_empty() && !goes_back {
            return Err(SubmitError::Unconfirmed { waiting: self.unconfirmed.len() });
        }
        applied.commit.leads = request.author == Author::Autopilot && !goes_back;
        let committed = match self.unconfirmed.is_empty() && !alone {
            true => {
                let patience = if goes_back { SHORT } else { patience_for(&applied.commit) };
                self.write(applied.commit.clone(), patience, goes_back).await
            }
            false => Err(StoreError::Away { detail: "earlier changes wait".to_owned() }),
        };
        receipt.event = Some(self.next_event);
        match committed {
            Ok(first) => receipt.event = Some(self.numbers(first, &mut applied.commit.events)),
            Err(conflict @ StoreError::Conflict { .. }) => return Err(conflict.into()),
            Err(error) if goes_back => {
                tracing::error!(%error, "the store is away; traffic goes back all the same and will be committed later");
                self.unconfirmed.push_back(Unconfirmed { request: request.clone(), commit: applied.commit.clone() });
                self.metrics.set_store_up(false);
                self.doubt();
                self.next_event += applied.commit.events.len() as u64;
                receipt.unconfirmed = true;
            }
            Err(error) => {
                self.not_taken(&error);
                return Err(error.into());
            }
        }
        self.publish(view, applied, routes);
        Ok(receipt)
    }

    /// Nothing here can fail: the change is durable.
    pub(super) fn publish(&mut self, view: &View, applied: Applied, routes: Routes) {
        let routes = Arc::new(routes);
        self.published.store(routes.clone());
        self.forget_gone(&view.routes, &routes);
        for event in &applied.commit.events {
            if let Some(service) = &event.service {
                if let Some(live) = applied.state.service(service.as_str()) {
                    self.metrics.set_split(service, &live.weights_in_effect(&live.split));
                }
                if let Some(route) = routes.service(service.as_str()) {
                    self.metrics.set_baseline(service, &route.baseline().name);
                }
                if takes_back(event) {
                    self.metrics.rollback(service, event.cause.as_deref().unwrap_or("person"));
                }
            }
            tracing::info!(kind = %event.kind, service = ?event.service, tenant = ?event.tenant, author = %event.author,
                revision = event.revision, reason = %event.reason, "changed");
        }
        let confirmed = self.unconfirmed.is_empty();
        let next = View { state: applied.state, routes, confirmed, read_only: false, ..view.clone() };
        self.show(next);
        self.tell_of_ours(applied.commit.events);
        self.copy_soon();
    }

    /// The last good copy is not what is shown.
    pub(super) fn copy_soon(&mut self) {
        self.copy_at.get_or_insert_with(|| Instant::now() + COPY_AFTER);
    }

    /// Everybody sees this from now on.
    pub(super) fn show(&self, view: View) {
        self.metrics.set_revision(view.state.revision);
        self.view.store(Arc::new(view));
    }

    /// Versions that exist no more leave the metrics with all their counts.
    pub(super) fn forget_gone(&self, before: &Routes, after: &Routes) {
        for service in &before.services {
            let name = &service.spec.name;
            let still = after.service(name.as_str());
            for version in &service.versions {
                if still.is_none_or(|s| s.version(version.name.as_str()).is_none()) {
                    self.metrics.forget_version(name, &version.name);
                }
            }
        }
    }

    pub(super) async fn reload(&mut self, settings: Settings) -> Result<ReloadReport, SubmitError> {
        let view = self.view.load_full();
        let (changed, needs_restart) = differences(&view.settings, &settings);
        let context = Context {
            signer: Arc::new(signer(&settings, &self.secrets)?),
            reach: Arc::new(settings.admin.reach()),
            ..self.context.clone()
        };
        keeps_warm(&view, &settings)?;
        let mut state = view.state.clone();
        let mut commits = Vec::new();
        for name in settings.structure.services.keys().filter(|n| view.state.service(n.as_str()).is_none()) {
            let id = self.next_event + commits.len() as u64;
            let applied = state.apply(&settings.structure, &begin(name), id, now_ms())?;
            state = applied.state;
            commits.push(applied.commit);
        }
        let routes = Arc::new(Routes::compile(&settings.structure, &state, &context, Some(&view.routes))?);
        if view.read_only && !commits.is_empty() {
            return Err(SubmitError::ReadOnly);
        }
        let mut begun = Vec::new();
        for commit in commits {
            let mut events = commit.events.clone();
            let patience = patience_for(&commit);
            let first = self.write(commit, patience, false).await.inspect_err(|e| self.not_taken(e))?;
            self.numbers(first, &mut events);
            begun.extend(events);
        }
        self.context = context;
        self.published.store(routes.clone());
        self.forget_gone(&view.routes, &routes);
        self.tell_of_ours(begun);
        let report =
            ReloadReport { revision: state.revision, changed, needs_restart, warnings: settings.warnings.clone() };
        self.show(View { state, settings: Arc::new(settings), routes, refused: None, ..(*view).clone() });
        let mut event = Event::of_proxy(EventKind::Reloaded, report.revision, now_ms());
        event.reason = "the configuration file was read again".to_owned();
        event.after = json!(report);
        self.note(event).await;
        // What did not fit the settings before may fit these.
        self.catch_up_if_behind().await;
        Ok(report)
    }

    async fn rotate_keys(&mut self, author: Author, reason: String) -> Result<Receipt, SubmitError> {
        let view = self.view.load_full();
        match self.attempt_rotation(&view, &author, &reason).await {
            Err(SubmitError::Store(StoreError::Conflict { .. })) => {
                self.catch_up(&view).await?;
                let view = self.view.load_full();
                self.attempt_rotation(&view, &author, &reason).await
            }
            other => other,
        }
    }

    async fn attempt_rotation(&mut self, view: &View, author: &Author, reason: &str) -> Result<Receipt, SubmitError> {
        if view.read_only {
            return Err(SubmitError::ReadOnly);
        }
        if !view.settings.proxy.cookie_secret.is_empty() {
            let why = "proxy.cookie_secret of the configuration signs cookies; \
                       put the new secret in front of the present one there, as [\"new\", \"old\"], and reload";
            return Err(ChangeError::Invalid(why.to_owned()).into());
        }
        if !self.unconfirmed.is_empty() {
            return Err(SubmitError::Unconfirmed { waiting: self.unconfirmed.len() });
        }
        let (body, before, after) = rotated(&view.settings.store.secret, &self.secrets, &fresh_secret())?;
        let (before, after) = (json!({ "keys": before }), json!({ "keys": after }));
        let expected = view.state.revision;
        let revision = expected + 1;
        let secrets = vec![Document { key: document_key(), revision, body }];
        let context = Context { signer: Arc::new(signer(&view.settings, &secrets)?), ..self.context.clone() };
        let state = State { revision, ..view.state.clone() };
        let routes = Routes::compile(&view.settings.structure, &state, &context, Some(&view.routes))?;
        let mut event = Event::of_proxy(EventKind::KeysRotated, revision, now_ms());
        (event.id, event.author, event.reason) = (self.next_event, author.clone(), reason.to_owned());
        (event.before, event.after) = (before.clone(), after.clone());
        let puts = secrets.iter().map(|d| (d.key.clone(), d.body.clone())).collect();
        let mut commit = Commit { expected, revision, puts, deletes: Vec::new(), events: vec![event], leads: false };
        let committed = self.write(commit.clone(), patience_for(&commit), false).await;
        let first = committed.inspect_err(|e| self.not_taken(e))?;
        self.numbers(first, &mut commit.events);
        (self.context, self.secrets) = (context, secrets);
        self.publish(view, Applied { state, commit, document_revision: revision, after: after.clone() }, routes);
        let (event, dry_run, unconfirmed) = (Some(first), false, false);
        Ok(Receipt { revision, document_revision: revision, event, dry_run, unconfirmed, before, after })
    }

    /// Writes the last good copy on a thread that may block.
    async fn copy(&mut self) {
        self.copy_at = None;
        let (Some(last_good), view) = (self.last_good.clone(), self.view.load_full()) else { return };
        if view.read_only || self.adrift || !view.confirmed {
            return;
        }
        // One copy at a time, and no change waits for it.
        if let Some(before) = self.copying.take() {
            let _ended = before.await;
        }
        let secrets = self.secrets.clone();
        self.copying = Some(tokio::task::spawn_blocking(move || {
            let documents = view.state.to_documents().chain(secrets);
            if let Err(error) = last_good.save(view.state.revision, documents) {
                tracing::warn!(%error, "the last good copy could not be written");
            }
        }));
    }
}

/// Whether it is the guard's way back, which waits for nothing.
fn goes_back(request: &ChangeRequest) -> bool {
    request.author == Author::Autopilot && matches!(request.change, Change::Rollback { .. } | Change::Brake { .. })
}

/// Ends at this time, or never.
async fn when(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whether traffic went back by this event. A rollout that ends because a rollback took its traffic says so by its cause.
fn takes_back(event: &Event) -> bool {
    let of_rollout = matches!(event.kind, EventKind::RolloutRolledBack | EventKind::RolloutAborted);
    event.kind == EventKind::Rollback || of_rollout && event.cause.as_deref() != Some("rollback")
}
