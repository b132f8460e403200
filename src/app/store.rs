//! Opening the store.

use std::sync::Arc;

use super::AppError;
use crate::config::{EtcdSettings, Settings};
use crate::store::{
    Access, EmbeddedStore, EtcdStore, KEEP_EVENTS, LastGood, Loaded, MemoryStore, Options, Store, StoreError,
};

/// The store and what goes with it.
pub(super) struct Opened {
    pub store: Arc<dyn Store>,
    /// The copy for bad days.
    pub last_good: Option<LastGood>,
    /// What was read from the copy, when the store cannot be opened.
    pub salvaged: Option<Loaded>,
    /// Whether a store that cannot be opened may be there later.
    pub returns: bool,
}

/// Opens the store; when that fails, traffic still flows from the last good copy, and changes are refused. Not when this
/// process takes over from one that has the store: that one does better.
pub(super) async fn open_store(settings: &Settings, takes_over: bool) -> Result<Opened, AppError> {
    let path = settings.store.path.clone();
    let last_good = settings.store.last_good.then(|| LastGood::beside(&path));
    let options = settings.store.keep_events.map_or_else(Options::default, |keep_events| Options { keep_events });
    let (error, absent): (_, Arc<dyn Store>) = match &settings.store.etcd {
        Some(etcd) => {
            let store = Arc::new(EtcdStore::open(access(etcd), settings.store.keep_events.unwrap_or(KEEP_EVENTS)));
            match store.ping().await {
                Ok(()) => return Ok(Opened { store, last_good, salvaged: None, returns: true }),
                // It is there again when etcd is.
                Err(error) => (error, store),
            }
        }
        None => match tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, options)).await {
            Ok(Ok(store)) => {
                return Ok(Opened { store: Arc::new(store), last_good, salvaged: None, returns: false });
            }
            Ok(Err(error)) => (error, away()),
            Err(_) => (StoreError::Closed, away()),
        },
    };
    match last_good.as_ref().filter(|_| !takes_over).map(LastGood::load) {
        Some(Ok(Some(saved))) => {
            tracing::error!(%error, revision = saved.revision,
                "the store cannot be opened; traffic is served from the last good copy and changes are refused");
            // What is not seen again must not take the place of what was.
            let returns = settings.store.etcd.is_some();
            Ok(Opened {
                store: absent,
                last_good: last_good.filter(|_| returns),
                salvaged: Some(saved.into()),
                returns,
            })
        }
        Some(Err(copy)) => {
            tracing::error!(%copy, "the last good copy cannot be read either");
            Err(error.into())
        }
        _ => Err(error.into()),
    }
}

fn away() -> Arc<dyn Store> {
    let absent = MemoryStore::new();
    absent.set_down(true);
    Arc::new(absent)
}

fn access(etcd: &EtcdSettings) -> Access {
    let EtcdSettings { endpoints, prefix, user, ca, identity, compact } = etcd.clone();
    let user = user.map(|(name, password)| (name, password.reveal().to_owned()));
    let identity = identity.map(|(cert, key)| (cert, key.reveal().to_owned()));
    Access { endpoints, prefix, user, ca, identity, compact }
}
