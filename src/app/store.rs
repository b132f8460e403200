//! Opening the store.

use std::sync::Arc;

use super::AppError;
use crate::config::{EtcdSettings, Settings};
use crate::store::{
    Access, EmbeddedStore, EtcdStore, KEEP_EVENTS, LastGood, Loaded, MemoryStore, Options, Store, StoreError,
};

/// The store, the copy for bad days, and what was read from that when the store cannot be opened.
pub(super) type Opened = (Arc<dyn Store>, Option<LastGood>, Option<Loaded>);

/// Opens the store; when that fails, traffic still flows from the last good copy, and changes are refused. Not when this
/// process takes over from one that has the store: that one does better.
pub(super) async fn open_store(settings: &Settings, takes_over: bool) -> Result<Opened, AppError> {
    let path = settings.store.path.clone();
    let last_good = settings.store.last_good.then(|| LastGood::beside(&path));
    let (error, absent): (_, Arc<dyn Store>) = match &settings.store.etcd {
        Some(etcd) => {
            let store = Arc::new(EtcdStore::open(access(etcd), KEEP_EVENTS));
            match store.ping().await {
                Ok(()) => return Ok((store, last_good, None)),
                // It is there again when etcd is.
                Err(error) => (error, store),
            }
        }
        None => match tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, Options::default())).await {
            Ok(Ok(store)) => return Ok((Arc::new(store), last_good, None)),
            Ok(Err(error)) => (error, away()),
            Err(_) => (StoreError::Closed, away()),
        },
    };
    match last_good.as_ref().filter(|_| !takes_over).map(LastGood::load) {
        Some(Ok(Some(saved))) => {
            tracing::error!(%error, revision = saved.revision,
                "the store cannot be opened; traffic is served from the last good copy and changes are refused");
            Ok((absent, None, Some(saved.into())))
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
    let EtcdSettings { endpoints, prefix, user, ca, identity } = etcd.clone();
    let user = user.map(|(name, password)| (name, password.reveal().to_owned()));
    let identity = identity.map(|(cert, key)| (cert, key.reveal().to_owned()));
    Access { endpoints, prefix, user, ca, identity }
}
