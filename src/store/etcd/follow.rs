//! Following: the manifest is watched, so that every process learns of each commit at once.
//!
//! A watch goes on after the last revision that was seen. When etcd has removed that one from its history, or the
//! connection broke, the manifest is read and the watch begins behind that reading. A heartbeat notices a member that
//! hangs: the stream alone would stay silent for ever.

use std::time::Duration;

use etcd_client::{WatchOptions, WatchStream};

use super::super::publish;
use super::Inner;
use super::link::{CALL, Trouble, sort};
use super::read::read_manifest;

/// How often the manifest is read although the watch is silent.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Waits between attempts: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

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
        let mut stream = match self.begin(after).await {
            Ok(stream) => stream,
            Err(trouble) => return trouble,
        };
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let heard = tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(message)) => self.hear(&message, after),
                    Ok(None) => Err(Trouble::Away("the watch ended".to_owned())),
                    Err(error) => Err(sort(error)),
                },
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

    async fn begin(&self, after: &mut Option<i64>) -> Result<WatchStream, Trouble> {
        let from = match *after {
            Some(after) => after,
            None => {
                let seen = self.see().await?;
                publish(&self.revision, seen.manifest.revision);
                seen.at
            }
        };
        *after = Some(from);
        let mut watch = self.link.client().await?.watch_client();
        let options = WatchOptions::new().with_start_revision(from + 1);
        let opening = watch.watch(self.keys.manifest(), Some(options));
        let late = |_| Trouble::Away("etcd opened no watch in time".to_owned());
        tokio::time::timeout(CALL, opening).await.map_err(late)?.map_err(sort)
    }

    fn hear(&self, message: &etcd_client::WatchResponse, after: &mut Option<i64>) -> Result<(), Trouble> {
        if message.compact_revision() > 0 {
            return Err(Trouble::Compacted);
        }
        if message.canceled() {
            return Err(Trouble::Away(format!("etcd cancelled the watch: {}", message.cancel_reason())));
        }
        for kv in message.events().iter().filter_map(|event| event.kv()) {
            *after = Some(kv.mod_revision());
            // A removed key has no value: somebody tidied by hand, and the next reading says so.
            if !kv.value().is_empty() {
                publish(&self.revision, read_manifest(kv.value())?.revision);
            }
        }
        Ok(())
    }
}
