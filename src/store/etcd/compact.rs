//! Compaction: etcd keeps every old version of every key until somebody tells it that nobody needs them.
//!
//! Notes are rewritten every second, so without it etcd's quota would be full within days. The leader of the fleet does it
//! once a minute, up to what was true a minute before: whoever reads or watches and is not as late as that loses nothing.

use std::time::Duration;

use super::Inner;
use super::link::{CALL, Trouble};

/// How often, and how much of the past stays.
pub const EVERY: Duration = Duration::from_secs(60);

impl Inner {
    /// Compacts for ever, while this process leads.
    pub async fn keep_compact(&self, every: Duration) {
        let (mut before, mut refused) = (None, false);
        loop {
            match self.see().await {
                Ok(seen) => {
                    if let Some(before) = before.filter(|_| self.me.leading().is_some()) {
                        self.compact(before, &mut refused).await;
                    }
                    before = Some(seen.at);
                }
                Err(trouble) => tracing::debug!(?trouble, "etcd is compacted later"),
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Compacts up to a revision of etcd.
    async fn compact(&self, revision: i64, refused: &mut bool) {
        match self.link.call(CALL, async |client| client.kv_client().compact(revision, None).await).await {
            // Or somebody else did, and further than that.
            Ok(_) | Err(Trouble::Compacted) => *refused = false,
            Err(Trouble::Away(why)) => tracing::debug!(why, "etcd is compacted later"),
            Err(trouble) if !*refused => {
                *refused = true;
                let error = self.error(trouble);
                tracing::warn!(%error, "etcd does not let us remove old versions, and would be full one day: let it \
                    compact by itself (--auto-compaction-retention=1h), and set [store] compact = false");
            }
            Err(_) => {}
        }
    }
}
