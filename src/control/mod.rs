//! The one writer: every change goes apply → compile → commit → publish, in this order, one after the other.
//!
//! All that can fail comes before the commit; nothing after it can. Readers see whole states behind one pointer. There is
//! one exception to commit before publish: when the store is away, the guard's way back to the baseline is published at
//! once, shown as unconfirmed and committed when the store is back.

mod board;
mod doubt;
mod error;
mod follow;
mod global;
mod keys;
mod late;
mod members;
mod pause;
mod reload;
mod seal;
mod start;
mod writer;

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot};

pub use board::{Board, ComparisonReport, ScopeKey};
pub use error::{StartError, SubmitError};
pub use follow::Refused;
use global::Prepared;
pub use global::SnapshotError;
pub use keys::fresh_secret;
pub use members::{Card, Fleet, FleetMember};
pub use pause::Paused;
pub use reload::ReloadReport;
pub use seal::SealError;
pub use start::{Parts, Started, start};

use crate::config::Settings;
use crate::model::{Author, ChangeRequest, Document, DocumentKey, Event, EventQuery, GlobalRequest, State};
use crate::routing::Routes;
use crate::store::{Membership, Store, StoreError};

/// Changes that may wait for the writer.
const QUEUE: usize = 256;
/// Events that a slow listener may lag behind before it has to read the history instead.
const LISTENER_LAG: usize = 1024;

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Receipt {
    /// Revision of the state.
    pub revision: u64,
    /// Revision of the document concerned; 0 when it was removed.
    #[serde(skip)]
    pub document_revision: u64,
    /// The event that tells of it; none for a dry run.
    pub event: Option<u64>,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Set when the store is away: the change is in effect here and will be committed when the store is back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unconfirmed: bool,
    /// The document before.
    pub before: Value,
    /// The document after.
    pub after: Value,
}

/// One whole picture: state, settings and routes that belong together.
#[derive(Debug, Clone)]
pub struct View {
    /// The state.
    pub state: State,
    /// The settings.
    pub settings: Arc<Settings>,
    /// The routes.
    pub routes: Arc<Routes>,
    /// Whether every change so far is durable.
    pub confirmed: bool,
    /// Whether changes are refused because the process runs on the last good copy.
    pub read_only: bool,
    /// The store's state, when it does not fit this process, which goes on with the one before.
    pub refused: Option<Arc<Refused>>,
}

/// What waits for the writer.
enum Command {
    Submit {
        request: Box<ChangeRequest>,
        dry_run: bool,
        reply: oneshot::Sender<Result<Receipt, SubmitError>>,
    },
    Reload {
        settings: Box<Settings>,
        reply: oneshot::Sender<Result<ReloadReport, SubmitError>>,
    },
    RotateKeys {
        author: Author,
        reason: String,
        reply: oneshot::Sender<Result<Receipt, SubmitError>>,
    },
    Global {
        request: Box<GlobalRequest>,
        prepared: Option<Box<Prepared>>,
        dry_run: bool,
        reply: oneshot::Sender<Result<Receipt, SubmitError>>,
    },
    Note {
        event: Box<Event>,
    },
    Pause {
        reply: oneshot::Sender<Result<Paused, SubmitError>>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// The door to the state. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    view: Arc<ArcSwap<View>>,
    published: Arc<ArcSwap<Routes>>,
    events: broadcast::Sender<Arc<Event>>,
    made: broadcast::Sender<Arc<Event>>,
    store: Arc<dyn Store>,
    board: Arc<Board>,
}

impl Control {
    /// Makes a change, or tells what it would do. The answer comes when the change is durable and in effect here.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing has changed then.
    pub async fn submit(&self, request: ChangeRequest, dry_run: bool) -> Result<Receipt, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Submit { request: Box::new(request), dry_run, reply };
        self.commands.send(command).await.map_err(|_| SubmitError::Closed)?;
        answer.await.map_err(|_| SubmitError::Closed)?
    }

    /// Puts other settings in place of the present ones: structure, limits, tokens.
    ///
    /// # Errors
    /// [`SubmitError`] when they do not fit the state; the present ones stay.
    pub async fn reload(&self, settings: Settings) -> Result<ReloadReport, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Reload { settings: Box::new(settings), reply };
        self.commands.send(command).await.map_err(|_| SubmitError::Closed)?;
        answer.await.map_err(|_| SubmitError::Closed)?
    }

    /// Signs cookies with a new key from now on; former ones are still accepted. The answer comes when the key is durable
    /// and in effect here.
    ///
    /// # Errors
    /// [`SubmitError`]; the present keys stay.
    pub async fn rotate_keys(&self, author: Author, reason: String) -> Result<Receipt, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::RotateKeys { author, reason, reply };
        self.commands.send(command).await.map_err(|_| SubmitError::Closed)?;
        answer.await.map_err(|_| SubmitError::Closed)?
    }

    /// Writes an event to the history that changes nothing. Lost when the writer is swamped: the guard repeats itself.
    pub fn note(&self, event: Event) {
        let _full = self.commands.try_send(Command::Note { event: Box::new(event) });
    }

    /// The picture of now.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// The settings of now.
    pub fn settings(&self) -> Arc<Settings> {
        self.view.load().settings.clone()
    }

    /// The pointer that requests read.
    pub fn published(&self) -> Arc<ArcSwap<Routes>> {
        self.published.clone()
    }

    /// Past events.
    ///
    /// # Errors
    /// [`StoreError`] when the history cannot be read.
    pub async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError> {
        self.store.events(query).await
    }

    /// A document that is kept beside the state.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub async fn document(&self, key: &DocumentKey) -> Result<Option<Document>, StoreError> {
        self.store.get(key).await
    }

    /// Events from now on, whichever process made them.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    /// Events that this process makes from now on. Of a fleet each event is here in one process only.
    pub fn subscribe_to_ours(&self) -> broadcast::Receiver<Arc<Event>> {
        self.made.subscribe()
    }

    /// Whether the store takes changes.
    ///
    /// # Errors
    /// [`StoreError`] says why not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }

    /// The fleet of the processes that share the store; none when this one is alone with it.
    pub fn membership(&self) -> Option<Arc<dyn Membership>> {
        self.store.membership()
    }

    /// What the guard sees.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Finishes what is waiting, saves the last good copy and lets go of the store.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Close { reply }).await.is_ok() {
            let _closed = answer.await;
        }
    }
}
