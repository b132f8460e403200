//! Starting: load the state, begin the services that are new, compile, publish, and only then let the writer run.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use super::keys::{document_key, signer};
use super::seal::{resealed, sealed};
use super::writer::Writer;
use super::{Board, Control, LISTENER_LAG, QUEUE, StartError, View};
use crate::config::Settings;
use crate::model::{Author, Change, ChangeRequest, Commit, Document, DocumentError, DocumentKey, ServiceName, State};
use crate::routing::{Context, Routes};
use crate::store::{LastGood, Loaded, Store, StoreError};
use crate::telemetry::{Metrics, Tallies};

/// How often a start adds what the store lacks while others write there, too: more often than a large fleet needs, since
/// each of them writes a service or the key only once.
const TRIES: usize = 20;

/// What the control room is built from.
pub struct Parts {
    /// The settings.
    pub settings: Settings,
    /// Where the state is kept.
    pub store: Arc<dyn Store>,
    /// The copy for bad days.
    pub last_good: Option<LastGood>,
    /// Set when the store could not be opened and this was read from the copy instead.
    pub salvaged: Option<Loaded>,
    /// Whether a store that could not be opened may be there later, as one across a network.
    pub returns: bool,
    /// Where requests are counted.
    pub tallies: Arc<Tallies>,
    /// Metric families.
    pub metrics: Arc<Metrics>,
    /// A fresh secret, used when none is configured and none is stored.
    pub fresh_secret: String,
}

/// The control room and its writer.
pub struct Started {
    /// The door.
    pub control: Control,
    /// The writer; ends after [`Control::close`].
    pub writer: JoinHandle<()>,
}

/// Loads, compiles and publishes; must be called within a tokio runtime.
///
/// # Errors
/// [`StartError`] when the state cannot be read or does not fit the configuration.
pub async fn start(parts: Parts) -> Result<Started, StartError> {
    let Parts { settings, store, last_good, salvaged, returns, tallies, metrics, fresh_secret } = parts;
    let adrift = salvaged.is_some() && returns;
    let read_only = salvaged.is_some() && !returns;
    let Basis { state, next_event, secrets } = match salvaged {
        Some(loaded) => Basis::read(loaded)?,
        None => complete(&settings, &*store, &fresh_secret).await?,
    };
    let signer = Arc::new(signer(&settings, &secrets)?);
    let context = Context { tallies, signer, reach: Arc::new(settings.admin.reach()) };
    let routes = Arc::new(Routes::compile(&settings.structure, &state, &context, None)?);
    for (name, live) in &state.services {
        metrics.set_split(name, &live.weights_in_effect(&live.split));
        routes.service(name.as_str()).iter().for_each(|route| metrics.set_baseline(name, &route.baseline().name));
    }
    metrics.set_revision(state.revision);
    metrics.set_store_up(!read_only && !adrift);
    let published = Arc::new(ArcSwap::new(routes.clone()));
    let view = View { state, settings: Arc::new(settings), routes, confirmed: true, read_only, refused: None };
    let view = Arc::new(ArcSwap::from_pointee(view));
    let (commands, queue) = mpsc::channel(QUEUE);
    let (events, made) = (broadcast::channel(LISTENER_LAG).0, broadcast::channel(LISTENER_LAG).0);
    let control = Control {
        commands,
        view: view.clone(),
        published: published.clone(),
        events: events.clone(),
        made: made.clone(),
        store: store.clone(),
        board: Arc::new(Board::default()),
    };
    let writer =
        Writer::new(view, published, (events, made), adrift, store, last_good, context, metrics, secrets, next_event);
    let writer = tokio::spawn(writer.run(queue));
    Ok(Started { control, writer })
}

/// What a process starts from.
struct Basis {
    state: State,
    next_event: u64,
    secrets: Vec<Document>,
}

impl Basis {
    fn read(loaded: Loaded) -> Result<Self, DocumentError> {
        let state = State::from_documents(loaded.revision, &loaded.documents)?;
        Ok(Self { state, next_event: loaded.next_event, secrets: secrets_of(loaded.documents) })
    }
}

/// What the store has, after it was given what it lacks. When a fleet starts on an empty store, another process may be ahead
/// with that: then it is read again, and this one adds what is still missing.
async fn complete(settings: &Settings, store: &dyn Store, fresh: &str) -> Result<Basis, StartError> {
    let mut tries = 1;
    loop {
        let mut basis = Basis::read(store.load().await?)?;
        let mut done = begin_services(settings, store, &mut basis.state, &mut basis.next_event).await;
        if done.is_ok() {
            done = keep_secret(settings, store, &mut basis.state, &mut basis.secrets, fresh).await;
        }
        match done {
            Err(StartError::Store(StoreError::Conflict { .. })) if tries < TRIES => tries += 1,
            done => return done.map(|()| basis),
        }
    }
}

/// Services of the file that the store does not know begin with their initial split.
async fn begin_services(
    settings: &Settings,
    store: &dyn Store,
    state: &mut State,
    next_event: &mut u64,
) -> Result<(), StartError> {
    for name in settings.structure.services.keys() {
        if state.service(name.as_str()).is_some() {
            continue;
        }
        let applied = state.apply(&settings.structure, &begin(name), *next_event, now_ms())?;
        *next_event = store.commit(applied.commit).await? + 1;
        *state = applied.state;
    }
    Ok(())
}

/// The change that begins a service.
pub(super) fn begin(service: &ServiceName) -> ChangeRequest {
    ChangeRequest {
        service: service.clone(),
        change: Change::AddService,
        author: Author::File,
        reason: "the service is new in the configuration file".to_owned(),
        if_revision: None,
        if_attempt: None,
        evidence: Value::Null,
    }
}

/// Makes the key that signs cookies unless there is one, and seals what is not sealed, or not by the first secret.
async fn keep_secret(
    settings: &Settings,
    store: &dyn Store,
    state: &mut State,
    secrets: &mut Vec<Document>,
    fresh: &str,
) -> Result<(), StartError> {
    let key = document_key();
    let seals = &settings.store.secret;
    let body = match secrets.iter().find(|d| d.key == key) {
        Some(document) => resealed(seals, document)?,
        None => settings.proxy.cookie_secret.is_empty().then(|| sealed(seals, &key, fresh)),
    };
    let Some(body) = body else { return Ok(()) };
    let revision = state.revision + 1;
    let puts = vec![(key.clone(), body.clone())];
    store.commit(Commit { expected: state.revision, revision, puts, ..Commit::default() }).await?;
    state.revision = revision;
    secrets.retain(|d| d.key != key);
    secrets.push(Document { key, revision, body });
    Ok(())
}

/// The documents that are not part of the state.
pub(super) fn secrets_of(documents: Vec<Document>) -> Vec<Document> {
    documents.into_iter().filter(|d| matches!(d.key, DocumentKey::Secret(_))).collect()
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
