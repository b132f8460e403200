//! Reading the configuration file again: when somebody asks, or when it has changed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::unix_ms;
use crate::admin::{Reload, ReloadError};
use crate::config;
use crate::control::{Control, ReloadReport, SubmitError};
use crate::model::{Event, EventKind};
use crate::proxy;
use crate::telemetry::Metrics;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The longest list of mistakes that is kept in the history.
const MAX_TOLD: usize = 4_000;

/// What the admin API, signals and the watch call.
pub(super) fn door(control: Control, metrics: Arc<Metrics>) -> Reload {
    Arc::new(move || {
        let (control, metrics) = (control.clone(), metrics.clone());
        Box::pin(async move {
            let result = reload(&control, &metrics).await;
            if let Err(error) = &result {
                let mut event = Event::of_proxy(EventKind::ReloadFailed, control.view().state.revision, unix_ms());
                event.reason = error.to_string().chars().take(MAX_TOLD).collect();
                control.note(event);
            }
            result
        })
    })
}

async fn reload(control: &Control, metrics: &Metrics) -> Result<ReloadReport, ReloadError> {
    let file = control.view().settings.file.clone();
    // Files that cannot be used are as wrong as any other mistake: all stays as it was.
    let read = tokio::task::spawn_blocking(move || config::load_with(&file, &proxy::bad_files)).await;
    let settings = match read {
        Ok(Ok(settings)) => settings,
        Ok(Err(mistakes)) => {
            metrics.reload(false);
            return Err(mistakes.into());
        }
        Err(_) => return Err(SubmitError::Closed.into()),
    };
    Ok(control.reload(settings).await?)
}

/// Reads the file again whenever it has changed, as long as `proxy.watch` says so.
pub(super) fn watch(control: Control, reload: Reload) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut known = None;
        let mut changing = false;
        loop {
            every.tick().await;
            let settings = control.settings();
            if !settings.proxy.watch {
                known = None;
                continue;
            }
            let file = settings.file.clone();
            let Ok(Some(found)) = tokio::task::spawn_blocking(move || Stamp::of(&file)).await else { continue };
            let same = known.replace(found).is_none_or(|before| before == found);
            // Whoever writes it may not be done: it is read when it has stayed the same for one look.
            if !std::mem::replace(&mut changing, !same) || !same {
                continue;
            }
            match reload().await {
                Ok(report) => tracing::info!(?report, "the configuration has changed and was read again"),
                Err(error) => tracing::error!(%error, "the configuration has changed and cannot be used"),
            }
        }
    })
}

/// What tells one content of a file from another without reading it. Symbolic links are followed, so a mounted
/// configuration that is swapped as a whole is seen too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(file).ok()?;
        Some(Self {
            place: (found.dev(), found.ino()),
            size: found.size(),
            changed: (found.mtime(), found.mtime_nsec()),
        })
    }
}
