//! Chores: putting the documents of large commits into their places, and sweeping what dead writers left.
//!
//! Each step of folding reads the manifest and a few places, and writes those that the overlay hides if nobody wrote
//! meanwhile. A reader sees the same before and after, so any number of processes may fold the same overlay and die doing
//! it. The oldest overlay goes first, hence an older place never overwrites a newer one. An overlay that is folded is
//! marked; then the marks of removed documents go, and at last its blob.

use std::collections::HashMap;
use std::time::Duration;

use etcd_client::{Txn, TxnOp};
use tokio::time::Instant;

use super::Inner;
use super::layout::{Content, Overlay, Stored};
use super::link::Trouble;
use super::read::Seen;

/// Places of one step. Each may need a second operation, and etcd takes 128 in one transaction.
const STEP: usize = 60;
/// Most bytes of one step.
const STEP_BYTES: usize = 512 << 10;
/// How long another process's overlay may wait for that process before this one folds it.
const FOR_OTHERS: Duration = Duration::from_secs(20);
/// How long a stage may stand before its writer counts as dead; it writes a part within seconds.
const DEAD: Duration = Duration::from_secs(600);

impl Inner {
    /// Folds what this process commits at once, and what dead processes left after a while.
    pub async fn chores(&self) {
        let mut seen_stages: HashMap<String, Instant> = HashMap::new();
        loop {
            let _told_or_late = tokio::time::timeout(FOR_OTHERS, self.folding.notified()).await;
            if let Err(trouble) = self.fold().await {
                tracing::debug!(?trouble, "a large commit is put into its places later");
            }
            if let Err(trouble) = self.sweep_dead(&mut seen_stages, DEAD).await {
                tracing::debug!(?trouble, "what dead writers left in etcd is removed later");
            }
        }
    }

    /// Sweeps the stages that were seen for that long.
    pub async fn sweep_dead(&self, seen: &mut HashMap<String, Instant>, dead: Duration) -> Result<(), Trouble> {
        let stages = self.stages().await?;
        seen.retain(|name, _| stages.contains(name));
        for name in stages {
            let since = seen.entry(name.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= dead {
                self.sweep(&name).await?;
            }
        }
        Ok(())
    }

    /// Puts the documents of all overlays into their places.
    pub async fn fold(&self) -> Result<(), Trouble> {
        loop {
            let seen = self.see().await?;
            let Some(overlay) = seen.manifest.overlays.first().cloned() else { return Ok(()) };
            let documents = match self.overlay(&overlay, seen.at).await {
                // Somebody else was faster and removed it.
                Err(Trouble::Compacted) => continue,
                documents => documents?,
            };
            let all: Vec<(&String, &Stored)> = documents.iter().collect();
            if !overlay.folded && self.steps(&overlay, false, &all, Self::places).await? {
                self.change(&overlay, |seen, index| {
                    seen.manifest.overlays[index].folded = true;
                    Vec::new()
                })
                .await?;
            }
            if self.steps(&overlay, true, &all, Self::marks).await? {
                self.change(&overlay, |seen, index| {
                    seen.manifest.overlays.remove(index);
                    vec![self.remove_blob(&overlay.blob)]
                })
                .await?;
            }
        }
    }

    /// Goes through the documents in steps; false when the overlay is gone, or is folded but should not be: a document
    /// that is removed then leaves no mark, and putting it into its place would bring it back.
    async fn steps(
        &self,
        overlay: &Overlay,
        folded: bool,
        mut documents: &[(&String, &Stored)],
        operations: impl Fn(&Self, &[(&String, &Stored)], &[Option<Stored>], &[bool]) -> Vec<TxnOp>,
    ) -> Result<bool, Trouble> {
        while !documents.is_empty() {
            let mut bytes = 0;
            let fits = documents.iter().take(STEP).take_while(|(_, stored)| {
                let before = bytes;
                if let Content::Text(text) = &stored.content {
                    bytes += text.len();
                }
                before == 0 || bytes <= STEP_BYTES
            });
            let (step, rest) = documents.split_at(fits.count());
            let keys: Vec<_> = step.iter().map(|(key, _)| *key).collect();
            let (seen, olds) = self.see_with(&keys).await?;
            if !seen.manifest.overlays.iter().any(|o| o.blob.id == overlay.blob.id && o.folded == folded) {
                return Ok(false);
            }
            let hidden = self.hidden(&seen).await?;
            let still: Vec<_> = keys.iter().map(|key| hidden.iter().any(|o| o.contains_key(*key))).collect();
            let operations = operations(self, step, &olds, &still);
            if operations.is_empty() {
                documents = rest;
                continue;
            }
            let txn = Txn::new().when([self.unchanged(&seen)]).and_then(operations);
            // Who wrote meanwhile may have changed one of these places, so the step is looked at again.
            if self.link.txn(txn).await?.succeeded() {
                documents = rest;
            }
        }
        Ok(true)
    }

    /// Puts documents into places that are older.
    fn places(&self, step: &[(&String, &Stored)], olds: &[Option<Stored>], _: &[bool]) -> Vec<TxnOp> {
        let mut operations = Vec::new();
        for ((key, new), old) in step.iter().zip(olds) {
            let unused = match old {
                Some(old) if old == *new => None,
                Some(old) if old.revision >= new.revision => new.blob(),
                Some(old) => {
                    operations.push(TxnOp::put(self.keys.document(key), new.encode(), None));
                    old.blob()
                }
                None if new.content == Content::Gone => None,
                None => {
                    operations.push(TxnOp::put(self.keys.document(key), new.encode(), None));
                    None
                }
            };
            operations.extend(unused.map(|blob| self.remove_blob(blob)));
        }
        operations
    }

    /// Removes the marks of removed documents that no overlay needs any more.
    fn marks(&self, step: &[(&String, &Stored)], olds: &[Option<Stored>], still_hidden: &[bool]) -> Vec<TxnOp> {
        let is_mark = |old: &Option<Stored>| old.as_ref().is_some_and(|old| old.content == Content::Gone);
        let marks = step.iter().zip(olds).zip(still_hidden).filter(|((_, old), hidden)| is_mark(old) && !**hidden);
        marks.map(|(((key, _), _), _)| TxnOp::delete(self.keys.document(key), None)).collect()
    }

    /// Changes what the manifest says of an overlay, unless it says nothing any more.
    async fn change(&self, overlay: &Overlay, change: impl Fn(&mut Seen, usize) -> Vec<TxnOp>) -> Result<(), Trouble> {
        loop {
            let before = self.see().await?;
            let mut seen = before.clone();
            let index = seen.manifest.overlays.iter().position(|o| o.blob.id == overlay.blob.id);
            let Some(index) = index else { return Ok(()) };
            let operations = change(&mut seen, index);
            if self.replace(&before, seen.manifest, Vec::new(), operations, false).await? {
                return Ok(());
            }
        }
    }
}
