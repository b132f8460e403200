//! Opening the store.

use std::sync::Arc;

use super::AppError;
use crate::config::Settings;
use crate::store::{EmbeddedStore, LastGood, Loaded, MemoryStore, Options, Store, StoreError};

/// The store, the copy for bad days, and what was read from that when the store cannot be opened.
pub(super) type Opened = (Arc<dyn Store>, Option<LastGood>, Option<Loaded>);

/// Opens the store; when that fails, traffic still flows from the last good copy, and changes are refused. Not when this
/// process takes over from one that has the store: that one does better.
pub(super) async fn open_store(settings: &Settings, takes_over: bool) -> Result<Opened, AppError> {
    let path = settings.store.path.clone();
    let last_good = settings.store.last_good.then(|| LastGood::beside(&path));
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, Options::default())).await;
    let error = match opened {
        Ok(Ok(store)) => return Ok((Arc::new(store), last_good, None)),
        Ok(Err(error)) => error,
        Err(_) => StoreError::Closed,
    };
    match last_good.as_ref().filter(|_| !takes_over).map(LastGood::load) {
        Some(Ok(Some(saved))) => {
            tracing::error!(%error, revision = saved.revision,
                "the store cannot be opened; traffic is served from the last good copy and changes are refused");
            let absent = MemoryStore::new();
            absent.set_down(true);
            Ok((Arc::new(absent), None, Some(saved.into())))
        }
        Some(Err(copy)) => {
            tracing::error!(%copy, "the last good copy cannot be read either");
            Err(error.into())
        }
        _ => Err(error.into()),
    }
}
