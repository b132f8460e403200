//! Following: the manifest is watched, so that every process learns of each commit at once.
//!
//! A watch goes on after the last revision that was seen. When etcd has removed that one from its history, or the
//! connection broke, the manifest is read and the watch begins behind that reading. A heartbeat reads it all the same.

use std::time::Duration;

use etcd_client::{Event, WatchOptions};

use super::super::publish;
use super::Inner;
use super::link::Trouble;
use super::read::read_manifest;
use super::stream::Watch;

/// How often the manifest is read although the watch is silent.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Waits between attempts: the first, and the longest.
pub const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

impl Inner {
    /// Watches for ever.
    pub async fn follow(&self) {
        let (mut retry, mut after) = (RETRY.0, None);
        loop {
            let known = after;
            let trouble = self.watch_on(&mut after).await;
            if known != after {
                retry = RETRY.0;
            }
            if trouble == Trouble::Compacted {
                after = None;
                continue;
            }
            tracing::debug!(?trouble, "the watch on etcd begins again");
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY.1);
        }
    }

    /// Watches what comes after an etcd revision, until something is wrong.
    pub async fn watch_on(&self, after: &mut Option<i64>) -> Trouble {
        let mut watch = match self.begin(after).await {
            Ok(watch) => watch,
            Err(trouble) => return trouble,
        };
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let heard = tokio::select! {
                events = watch.next() => events.and_then(|events| self.hear(&events, after)),
                _ = heartbeat.tick() => self.see().await.and_then(|seen| {
                    publish(&self.revision, seen.manifest.revision);
                    // An etcd that was restored from a backup would let the watch wait for what has been already.
                    if after.is_some_and(|after| seen.at < after) { Err(Trouble::Compacted) } else { Ok(()) }
                }),
            };
            if let Err(trouble) = heard {
                return trouble;
            }
        }
    }

    async fn begin(&self, after: &mut Option<i64>) -> Result<Watch<'_>, Trouble> {
        let from = match *after {
            Some(after) => after,
            None => {
                let seen = self.see().await?;
                publish(&self.revision, seen.manifest.revision);
                seen.at
            }
        };
        *after = Some(from);
        Watch::open(&self.link, &self.keys.manifest(), WatchOptions::new(), from + 1).await
    }

    fn hear(&self, events: &[Event], after: &mut Option<i64>) -> Result<(), Trouble> {
        for kv in events.iter().filter_map(Event::kv) {
            *after = Some(kv.mod_revision());
            // A removed key has no value: somebody tidied by hand, and the next reading says so.
            if !kv.value().is_empty() {
                publish(&self.revision, read_manifest(kv.value())?.revision);
            }
        }
        Ok(())
    }
}
