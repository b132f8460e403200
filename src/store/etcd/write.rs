//! Writing: one transaction that compares the manifest and replaces it, whatever the size of the write.
//!
//! **All or nothing.** A reader takes the manifest and everything else at one revision of etcd, so it sees a transaction
//! whole or not at all. A small write is one transaction: documents, a page of events, the manifest. etcd takes 128
//! operations and 1.5 MiB in one, so what is larger goes first into blobs that nobody refers to; the one transaction then
//! puts references to them. For many documents that is an *overlay* in the manifest, which hides the documents in their
//! places; `fold` puts them there later, in small steps that change nothing that a reader sees. A writer that dies before
//! the transaction has written blobs that no reader ever looks at, and they are swept (see `blob`); one that dies after it
//! has made the write true, and any process folds it.
//!
//! **Stale writes lose.** Every write replaces the manifest and compares etcd's revision of the one that it read. So the
//! documents, overlays and numbers of events that a write was computed from are those that it changes.
//!
//! **Only the leader.** A write that says so compares the creation of the own member's card besides. The leader is the
//! member that joined first, and nobody can ever join before it: once it leads, it leads exactly as long as its card
//! stands, and whether it did lead is in what it knew when it began (see `members`). So no word of others is needed.
//!
//! **Unknown outcomes.** A transaction that got no answer may have happened, or may still lie in a queue of etcd and
//! happen in a minute. Each write has a random name and a number in the manifest. Before anything else is loaded or
//! written, the writer reads the manifest: a later one tells whether the write of that number was ours. If it is still
//! the one before, the writer replaces it by itself under another name; then the old transaction's comparison can never
//! hold again, and the write has not happened for good.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use etcd_client::{Compare, CompareOp, Txn, TxnOp};

use super::super::error::StoreError;
use super::super::publish;
use super::Inner;
use super::blob::{Stage, fresh_name};
use super::events::ReadyPage;
use super::layout::{Content, Manifest, Overlay, Stored, encode_overlay};
use super::link::Trouble;
use super::read::Seen;
use crate::model::{Commit, DocumentKey, Event};

/// Most documents that are written to their places at once. Each may need a second operation, which removes the blob of
/// the one before; the manifest, events, the stage and retention need up to 100 more in the worst case, but then less.
const SMALL: usize = 40;
/// Most bytes of documents that are written to their places at once.
const SMALL_BYTES: usize = 512 << 10;
/// Most operations of documents and pages of events; retention and the rest have the others of etcd's 128.
const OPERATIONS: usize = 90;
/// Texts up to this size stand in the place of their document.
const IN_PLACE: usize = 16 << 10;
/// How many overlays may wait before a large commit folds by itself.
const OVERLAYS: usize = 8;
/// How often a write is repeated because others wrote events meanwhile.
const ATTEMPTS: usize = 20;

/// A write that got no answer yet.
#[derive(Debug, Clone)]
pub struct Pending {
    writer: String,
    /// Its number, if it happened.
    number: u64,
    /// etcd's revision of the manifest that it was made against.
    against: i64,
}

#[cfg(test)]
impl Pending {
    pub fn new(writer: &str, number: u64, against: i64) -> Self {
        Self { writer: writer.to_owned(), number, against }
    }
}

/// What became of a pending write.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Happened,
    Not,
    /// So many others wrote that nobody knows any more.
    Lost,
}

/// What is written.
pub struct Draft {
    /// The revision before and after, when documents change.
    pub commit: Option<(u64, u64)>,
    /// Texts to put, or documents to remove.
    pub documents: BTreeMap<String, Option<String>>,
    pub events: Vec<Event>,
    /// Only the leader of the fleet may write it.
    pub leads: bool,
}

impl From<Commit> for Draft {
    fn from(commit: Commit) -> Self {
        let deletes = commit.deletes.iter().map(|key| (key.to_string(), None));
        let puts = commit.puts.into_iter().map(|(key, body)| (key.to_string(), Some(body)));
        let documents = deletes.chain(puts).collect();
        let (commit, events, leads) = (Some((commit.expected, commit.revision)), commit.events, commit.leads);
        Self { commit, documents, events, leads }
    }
}

/// A write whose blobs are written.
pub struct Ready {
    stage: Option<Stage>,
    /// Documents for their places.
    places: Vec<(String, Stored)>,
    overlay: Option<Overlay>,
    pages: Vec<ReadyPage>,
}

impl Inner {
    /// Writes; answers the id of the first event.
    pub async fn write(&self, draft: Draft) -> Result<u64, StoreError> {
        let _turn = self.writing.lock().await;
        self.check_open()?;
        let leadership = self.leadership(&draft)?;
        self.settle().await.map_err(|t| self.error(t))?;
        let mut seen = self.see().await.map_err(|t| self.error(t))?;
        self.check_revision(&draft, &seen)?;
        if draft.commit.is_none() && draft.events.is_empty() {
            return Ok(seen.manifest.next_event);
        }
        let mut ready = self.prepare(&draft).await.map_err(|t| self.error(t))?;
        if ready.overlay.is_some() && seen.manifest.overlays.len() >= OVERLAYS {
            self.fold().await.map_err(|t| self.error(t))?;
        }
        for _ in 0..ATTEMPTS {
            let places: Vec<_> = ready.places.iter().map(|(key, _)| key).collect();
            let olds;
            (seen, olds) = self.see_with(&places).await.map_err(|t| self.error(t))?;
            if let Err(conflict) = self.check_revision(&draft, &seen) {
                self.abandon(ready.stage).await;
                return Err(conflict);
            }
            let first = seen.manifest.next_event;
            let mut txn = self.transaction(&draft, &ready, &seen, &olds).await.map_err(|t| self.error(t))?;
            txn.1.extend(leadership.map(|joined| self.me.is_member(&self.keys, joined)));
            match self.attempt(txn, &seen).await? {
                true => {
                    self.written(&draft, &ready);
                    return Ok(first);
                }
                false if self.lost_leadership(leadership).await? => {
                    self.abandon(ready.stage).await;
                    return Err(StoreError::NotLeading);
                }
                false if self.was_swept(&ready).await? => {
                    ready = self.prepare(&draft).await.map_err(|t| self.error(t))?;
                }
                false => {}
            }
        }
        self.abandon(ready.stage).await;
        Err(StoreError::Away { detail: "other processes write all the time".to_owned() })
    }

    /// As which member this process leads, when only the leader may write that.
    fn leadership(&self, draft: &Draft) -> Result<Option<i64>, StoreError> {
        match self.me.leading() {
            _ if !draft.leads => Ok(None),
            Some(joined) => Ok(Some(joined)),
            None => Err(StoreError::NotLeading),
        }
    }

    /// Whether the card under which this process led is gone.
    async fn lost_leadership(&self, leadership: Option<i64>) -> Result<bool, StoreError> {
        let Some(joined) = leadership else { return Ok(false) };
        let holds = Txn::new().when([self.me.is_member(&self.keys, joined)]);
        Ok(!self.link.repeatable(holds).await.map_err(|t| self.error(t))?.succeeded())
    }

    fn check_revision(&self, draft: &Draft, seen: &Seen) -> Result<(), StoreError> {
        let found = seen.manifest.revision;
        match draft.commit {
            Some((expected, _)) if expected != found => {
                publish(&self.revision, found);
                Err(StoreError::Conflict { expected, found })
            }
            _ => Ok(()),
        }
    }

    /// Writes the blobs that the write needs.
    pub async fn prepare(&self, draft: &Draft) -> Result<Ready, Trouble> {
        let mut stage = None;
        let revision = draft.commit.map_or(0, |(_, revision)| revision);
        let mut documents = BTreeMap::new();
        for (key, text) in &draft.documents {
            let content = match text {
                None => Content::Gone,
                Some(text) if text.len() <= IN_PLACE => Content::Text(text.clone()),
                Some(text) => Content::Blob(self.write_blob(self.staged(&mut stage).await?, text.as_bytes()).await?),
            };
            documents.insert(key.clone(), Stored { revision, content });
        }
        let pages = self.ready_pages(&draft.events, &mut stage).await?;
        let bytes: usize = draft.documents.values().flatten().map(|text| text.len().min(IN_PLACE)).sum();
        let operations = 2 * documents.len() + pages.len();
        if documents.len() <= SMALL && bytes <= SMALL_BYTES && operations <= OPERATIONS {
            return Ok(Ready { stage, places: documents.into_iter().collect(), overlay: None, pages });
        }
        let bytes = encode_overlay(documents.iter());
        let blob = self.write_blob(self.staged(&mut stage).await?, &bytes).await?;
        let overlay = Some(Overlay { blob, revision, folded: false });
        Ok(Ready { stage, places: Vec::new(), overlay, pages })
    }

    /// The stage, opened when it is first needed.
    pub async fn staged<'a>(&self, stage: &'a mut Option<Stage>) -> Result<&'a mut Stage, Trouble> {
        let opened = match stage.take() {
            Some(stage) => stage,
            None => self.open_stage().await?,
        };
        Ok(stage.insert(opened))
    }

    /// The transaction that makes the write true. Its conditions and operations are whole but for the manifest's writer.
    pub async fn transaction(
        &self,
        draft: &Draft,
        ready: &Ready,
        seen: &Seen,
        olds: &[Option<Stored>],
    ) -> Result<(Manifest, Vec<Compare>, Vec<TxnOp>), Trouble> {
        let hidden = if ready.places.is_empty() { Vec::new() } else { self.hidden(seen).await? };
        let mut manifest = seen.manifest.clone();
        let mut operations = Vec::new();
        let mut conditions = Vec::new();
        for ((key, new), old) in ready.places.iter().zip(olds) {
            let place = self.keys.document(key);
            let is_hidden = hidden.iter().any(|overlay| overlay.contains_key(key));
            match (&new.content, old) {
                // Without it, what an overlay says of the document would be true again.
                (Content::Gone, _) if is_hidden => operations.push(TxnOp::put(place, new.encode(), None)),
                (Content::Gone, Some(_)) => operations.push(TxnOp::delete(place, None)),
                (Content::Gone, None) => {}
                _ => operations.push(TxnOp::put(place, new.encode(), None)),
            }
            operations.extend(old.iter().filter_map(Stored::blob).map(|blob| self.remove_blob(blob)));
        }
        operations.extend(self.put_pages(&ready.pages, &mut manifest));
        if !draft.events.is_empty() {
            operations.extend(self.drop_pages(&mut manifest).await?);
        }
        if let Some(stage) = &ready.stage {
            let (there, end) = self.end_stage(stage);
            conditions.push(there);
            operations.push(end);
        }
        manifest.overlays.extend(ready.overlay.clone());
        if let Some((_, revision)) = draft.commit {
            let state = |key: &&String| !key.starts_with(DocumentKey::ARCHIVE);
            let keys = || draft.documents.keys().filter(state).cloned().collect();
            manifest.committed(revision, ready.overlay.is_none().then(keys));
        }
        Ok((manifest, conditions, operations))
    }

    /// Sends a write; whether its conditions held.
    async fn attempt(
        &self,
        (manifest, conditions, operations): (Manifest, Vec<Compare>, Vec<TxnOp>),
        seen: &Seen,
    ) -> Result<bool, StoreError> {
        match self.replace(seen, manifest, conditions, operations, true).await {
            Ok(held) => Ok(held),
            // Whether it happened is found out at once, and before the next write if etcd does not even tell that.
            Err(Trouble::Away(detail)) => match self.settle().await {
                Ok(Some(Fate::Happened)) => Ok(true),
                Ok(Some(Fate::Not) | None) => Err(StoreError::Away { detail }),
                Ok(Some(Fate::Lost)) | Err(_) => Err(StoreError::Write { source: detail.into() }),
            },
            Err(trouble) => Err(self.error(trouble)),
        }
    }

    /// Replaces the manifest in a transaction if it is still the one that was seen.
    ///
    /// A write that `matters` stays pending until its outcome is known, even when the caller goes away.
    pub async fn replace(
        &self,
        seen: &Seen,
        manifest: Manifest,
        mut conditions: Vec<Compare>,
        mut operations: Vec<TxnOp>,
        matters: bool,
    ) -> Result<bool, Trouble> {
        let writer = fresh_name();
        let manifest = manifest.written_by(&writer);
        let pending = Pending { writer, number: manifest.writes, against: seen.mod_revision };
        conditions.push(self.unchanged(seen));
        let bytes = serde_json::to_vec(&manifest).map_err(|e| Trouble::Refused(e.to_string()))?;
        operations.push(TxnOp::put(self.keys.manifest(), bytes, None));
        if matters {
            *self.pending.lock() = Some(pending);
        }
        let answer = self.link.txn(Txn::new().when(conditions).and_then(operations)).await;
        if matters && !matches!(answer, Err(Trouble::Away(_))) {
            *self.pending.lock() = None;
        }
        Ok(answer?.succeeded())
    }

    /// The condition that nobody wrote since.
    pub fn unchanged(&self, seen: &Seen) -> Compare {
        Compare::mod_revision(self.keys.manifest(), CompareOp::Equal, seen.mod_revision)
    }

    /// Finds out what became of a write that got no answer, and makes sure that it stays that way.
    pub async fn settle(&self) -> Result<Option<Fate>, Trouble> {
        let Some(pending) = self.pending.lock().clone() else { return Ok(None) };
        let fate = loop {
            let seen = self.see().await?;
            if seen.mod_revision != pending.against {
                break match seen.manifest.writer_of(pending.number) {
                    Some(writer) if writer == pending.writer => Fate::Happened,
                    Some(_) => Fate::Not,
                    None => Fate::Lost,
                };
            }
            let same = seen.manifest.clone();
            if self.replace(&seen, same, Vec::new(), Vec::new(), false).await? {
                break Fate::Not;
            }
        };
        *self.pending.lock() = None;
        Ok(Some(fate))
    }

    /// After a write became true.
    fn written(&self, draft: &Draft, ready: &Ready) {
        self.full.store(false, Ordering::Release);
        if let Some((_, revision)) = draft.commit {
            publish(&self.revision, revision);
        }
        if ready.overlay.is_some() {
            self.folding.notify_one();
        }
    }

    /// Whether somebody took the writer for dead and removed its blobs.
    async fn was_swept(&self, ready: &Ready) -> Result<bool, StoreError> {
        match &ready.stage {
            Some(stage) => Ok(!self.has_stage(stage).await.map_err(|t| self.error(t))?),
            None => Ok(false),
        }
    }

    /// Removes the blobs of a write that lost. When that fails they are swept later.
    async fn abandon(&self, stage: Option<Stage>) {
        if let Some(stage) = stage
            && let Err(trouble) = self.sweep(stage.name()).await
        {
            tracing::debug!(?trouble, "what a write left in etcd is removed later");
        }
    }
}
