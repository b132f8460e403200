//! Reading: everything at one revision of etcd, in pages, whatever is written meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use etcd_client::{GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse};

use super::super::{Loaded, News, list_limit};
use super::Inner;
use super::layout::{Content, LAYOUT, Manifest, Overlay, Stored, decode_overlay, end_of};
use super::link::{Link, Trouble};
use crate::model::{Document, DocumentKey};

/// Keys of the first page and of the largest one.
const PAGE: (i64, i64) = (500, 4_000);
/// Bytes that a page should have. A value has at most 16 KiB in its place (64 KiB for events, half a MiB for parts), so
/// the largest page of surprises has 64 MiB, and answers are allowed to be larger.
const PAGE_BYTES: usize = 4 << 20;
/// Most documents that one transaction reads, of the 128 operations that etcd takes.
const GETS: usize = 100;
/// How often a reading that etcd's compaction overtook begins anew.
const ATTEMPTS: usize = 3;

/// What the overlays say, the latest of each key.
pub type Hidden = BTreeMap<String, Stored>;

/// The manifest as it was read.
#[derive(Debug, Clone)]
pub struct Seen {
    pub manifest: Manifest,
    /// etcd's revision of the manifest; 0 when there is none.
    pub mod_revision: i64,
    /// etcd's revision at which it was read.
    pub at: i64,
}

/// A range, page by page, at one revision of etcd.
pub struct Pages {
    from: String,
    until: String,
    at: i64,
    limit: i64,
    done: bool,
}

impl Pages {
    /// The keys from `from` up to before `until` at etcd's revision `at`.
    pub fn new(from: String, until: String, at: i64) -> Self {
        Self { from, until, at, limit: PAGE.0, done: false }
    }

    /// The same, when no more than a few are needed.
    pub fn few(self, wanted: usize) -> Self {
        Self { limit: i64::try_from(wanted).unwrap_or(PAGE.0).clamp(1, PAGE.0), ..self }
    }

    /// The next page.
    pub async fn next(&mut self, link: &Link) -> Result<Option<Vec<KeyValue>>, Trouble> {
        if self.done || self.from >= self.until {
            return Ok(None);
        }
        let options = GetOptions::new().with_range(self.until.as_str()).with_limit(self.limit).with_revision(self.at);
        let mut page = link.get(&self.from, options).await?;
        self.done = !page.more();
        let kvs = page.take_kvs();
        let Some(last) = kvs.last() else { return Ok(None) };
        let last = last.key_str().map_err(|_| Trouble::Damaged("there is a key that is no text".to_owned()))?;
        self.from = format!("{last}\0");
        let bytes: usize = kvs.iter().map(|kv| kv.value().len() + kv.key().len()).sum();
        let fitting = PAGE_BYTES / (bytes / kvs.len()).max(1);
        self.limit = i64::try_from(fitting).unwrap_or(PAGE.1).clamp(8, PAGE.1);
        Ok(Some(kvs))
    }
}

impl Inner {
    /// Reads the manifest.
    pub async fn see(&self) -> Result<Seen, Trouble> {
        Ok(self.see_with(&[]).await?.0)
    }

    /// Reads the manifest and a few documents' places at one moment.
    pub async fn see_with(&self, places: &[&String]) -> Result<(Seen, Vec<Option<Stored>>), Trouble> {
        let mut gets = vec![TxnOp::get(self.keys.manifest(), None)];
        gets.extend(places.iter().map(|key| TxnOp::get(self.keys.document(key), None)));
        let answer = self.link.repeatable(Txn::new().and_then(gets)).await?;
        let at = answer.header().map_or(0, |h| h.revision());
        let mut found = answer.op_responses().into_iter().map(|op| match op {
            TxnOpResponse::Get(mut get) => get.take_kvs().pop(),
            _ => None,
        });
        let seen = match found.next().flatten() {
            Some(kv) => Seen { manifest: read_manifest(kv.value())?, mod_revision: kv.mod_revision(), at },
            None => Seen { manifest: Manifest::default(), mod_revision: 0, at },
        };
        let places = found.map(|kv| kv.map(|kv| self.stored(&kv).map(|(_, stored)| stored)).transpose());
        Ok((seen, places.collect::<Result<_, _>>()?))
    }

    /// The key and the content of a place.
    fn stored(&self, kv: &KeyValue) -> Result<(String, Stored), Trouble> {
        let key = self.keys.after("document", kv.key());
        match (key, Stored::decode(kv.value())) {
            (Some(key), Some(stored)) => Ok((key.to_owned(), stored)),
            _ => {
                let key = String::from_utf8_lossy(kv.key());
                Err(Trouble::Damaged(format!("what stands under {key:?} is not a document")))
            }
        }
    }

    /// The documents of one overlay. They never change, so they are read once.
    pub async fn overlay(&self, overlay: &Overlay, at: i64) -> Result<Arc<Hidden>, Trouble> {
        if let Some(known) = self.overlays.lock().get(&overlay.blob.id) {
            return Ok(known.clone());
        }
        let bytes = self.read_blob(&overlay.blob, at).await?;
        let documents = decode_overlay(&bytes)
            .ok_or_else(|| Trouble::Damaged(format!("the blob {} holds no documents", overlay.blob.id)))?;
        let documents: Arc<Hidden> = Arc::new(documents.into_iter().collect());
        self.overlays.lock().insert(overlay.blob.id.clone(), documents.clone());
        Ok(documents)
    }

    /// The overlays that hide places, oldest first.
    pub async fn hidden(&self, seen: &Seen) -> Result<Vec<Arc<Hidden>>, Trouble> {
        let overlays = &seen.manifest.overlays;
        self.overlays.lock().retain(|id, _| overlays.iter().any(|o| o.blob.id == *id));
        let mut hidden = Vec::new();
        for overlay in overlays.iter().filter(|o| !o.folded) {
            hidden.push(self.overlay(overlay, seen.at).await?);
        }
        Ok(hidden)
    }

    /// Everything but the archive at one revision.
    pub async fn load(&self) -> Result<Loaded, Trouble> {
        self.again_when_compacted(|| self.load_once()).await
    }

    async fn load_once(&self) -> Result<Loaded, Trouble> {
        let seen = self.see().await?;
        // Two ranges around the archive, which may be large.
        let ranges = [("", DocumentKey::ARCHIVE), ("archive0", "~")];
        let mut found = Vec::new();
        for (from, until) in ranges {
            let mut pages = Pages::new(self.keys.document(from), self.keys.document(until), seen.at);
            while let Some(page) = pages.next(&self.link).await? {
                for kv in &page {
                    found.push(self.stored(kv)?);
                }
            }
        }
        let hidden = self.hidden(&seen).await?;
        if !hidden.is_empty() {
            let mut merged: Hidden = found.into_iter().collect();
            for overlay in hidden {
                let state = overlay.iter().filter(|(key, _)| !key.starts_with(DocumentKey::ARCHIVE));
                state.for_each(|(key, stored)| newest(&mut merged, key, stored));
            }
            found = merged.into_iter().collect();
        }
        let mut documents = Vec::with_capacity(found.len());
        for (key, stored) in found {
            documents.extend(self.document(&key, stored, seen.at).await?);
        }
        Ok(Loaded { revision: seen.manifest.revision, next_event: seen.manifest.next_event, documents })
    }

    /// What changed since a revision, if the manifest names it.
    pub async fn since(&self, revision: u64) -> Result<Option<News>, Trouble> {
        self.again_when_compacted(|| self.since_once(revision)).await
    }

    async fn since_once(&self, revision: u64) -> Result<Option<News>, Trouble> {
        let seen = self.see().await?;
        let Some(changed) = seen.manifest.changed_since(revision) else { return Ok(None) };
        let (revision, next_event) = (seen.manifest.revision, seen.manifest.next_event);
        let mut news = News { revision, next_event, ..News::default() };
        let hidden = if changed.is_empty() { Vec::new() } else { self.hidden(&seen).await? };
        let changed: Vec<&String> = changed.into_iter().collect();
        for keys in changed.chunks(GETS) {
            let at = || Some(GetOptions::new().with_revision(seen.at));
            let gets: Vec<_> = keys.iter().map(|key| TxnOp::get(self.keys.document(key), at())).collect();
            let answer = self.link.repeatable(Txn::new().and_then(gets)).await?;
            for (key, response) in keys.iter().zip(answer.op_responses()) {
                let TxnOpResponse::Get(mut get) = response else { continue };
                let place = get.take_kvs().pop().map(|kv| self.stored(&kv)).transpose()?;
                let mut merged: Hidden = place.into_iter().collect();
                for stored in hidden.iter().filter_map(|overlay| overlay.get(*key)) {
                    newest(&mut merged, key, stored);
                }
                let document = match merged.remove(*key) {
                    Some(stored) => self.document(key, stored, seen.at).await?,
                    None => None,
                };
                match document {
                    Some(document) => news.puts.push(document),
                    None => news.deletes.push(parse(key)?),
                }
            }
        }
        Ok(Some(news))
    }

    /// One document.
    pub async fn get(&self, key: &DocumentKey) -> Result<Option<Document>, Trouble> {
        self.again_when_compacted(|| self.get_once(key)).await
    }

    async fn get_once(&self, key: &DocumentKey) -> Result<Option<Document>, Trouble> {
        let text = key.to_string();
        let (seen, mut places) = self.see_with(&[&text]).await?;
        let mut merged = Hidden::new();
        if let Some(stored) = places.pop().flatten() {
            merged.insert(text.clone(), stored);
        }
        for overlay in self.hidden(&seen).await? {
            if let Some(stored) = overlay.get(&text) {
                newest(&mut merged, &text, stored);
            }
        }
        match merged.remove(&text) {
            Some(stored) => self.document(&text, stored, seen.at).await,
            None => Ok(None),
        }
    }

    /// Keys and revisions of the documents that begin with a text and come after another.
    pub async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<(DocumentKey, u64)>, Trouble> {
        self.again_when_compacted(|| self.list_once(prefix, after, list_limit(limit))).await
    }

    async fn list_once(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<(DocumentKey, u64)>, Trouble> {
        let seen = self.see().await?;
        let hidden = self.hidden(&seen).await?;
        let after = format!("{after}\0");
        let from = self.keys.document(if after.as_str() > prefix { &after } else { prefix });
        let until = end_of(&self.keys.document(prefix));
        let mut listed = Vec::new();
        let mut pages = Pages::new(from.clone(), until.clone(), seen.at).few(limit);
        let mut low = from;
        loop {
            let page = pages.next(&self.link).await?;
            let high = match &page {
                Some(kvs) if !pages.done => format!("{}\0", String::from_utf8_lossy(kvs[kvs.len() - 1].key())),
                _ => until.clone(),
            };
            let mut merged = Hidden::new();
            for kv in page.iter().flatten() {
                let (key, stored) = self.stored(kv)?;
                merged.insert(key, stored);
            }
            for overlay in &hidden {
                let within = |key: &str| (low.as_str()..high.as_str()).contains(&self.keys.document(key).as_str());
                overlay.iter().filter(|(key, _)| within(key)).for_each(|(key, s)| newest(&mut merged, key, s));
            }
            for (key, stored) in merged.into_iter().filter(|(_, stored)| stored.content != Content::Gone) {
                listed.push((parse(&key)?, stored.revision));
            }
            if page.is_none() || listed.len() >= limit || high >= until {
                listed.truncate(limit);
                return Ok(listed);
            }
            low = high;
        }
    }

    /// A document with its text; nothing when it was removed.
    async fn document(&self, key: &str, stored: Stored, at: i64) -> Result<Option<Document>, Trouble> {
        let body = match stored.content {
            Content::Gone => return Ok(None),
            Content::Text(text) => text,
            Content::Blob(blob) => String::from_utf8(self.read_blob(&blob, at).await?)
                .map_err(|_| Trouble::Damaged(format!("the document {key:?} is no text")))?,
        };
        Ok(Some(Document { key: parse(key)?, revision: stored.revision, body }))
    }

    /// Reads again when etcd removed the revision from its history meanwhile.
    pub async fn again_when_compacted<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        read: impl Fn() -> F,
    ) -> Result<T, Trouble> {
        for _ in 1..ATTEMPTS {
            match read().await {
                Err(Trouble::Compacted) => {}
                answer => return answer,
            }
        }
        read().await
    }
}

/// Puts a document in the place of an older one.
fn newest(documents: &mut Hidden, key: &String, stored: &Stored) {
    match documents.get_mut(key) {
        Some(known) if known.revision >= stored.revision => {}
        Some(known) => *known = stored.clone(),
        None => drop(documents.insert(key.clone(), stored.clone())),
    }
}

fn parse(key: &str) -> Result<DocumentKey, Trouble> {
    DocumentKey::parse(key).ok_or_else(|| Trouble::Damaged(format!("there is a document with the key {key:?}")))
}

/// Reads a manifest.
pub fn read_manifest(bytes: &[u8]) -> Result<Manifest, Trouble> {
    #[derive(serde::Deserialize)]
    struct Format {
        layout: u64,
    }
    let wrong = |e: serde_json::Error| Trouble::Damaged(format!("the manifest cannot be read: {e}"));
    let Format { layout } = serde_json::from_slice(bytes).map_err(wrong)?;
    if layout > u64::from(LAYOUT) {
        return Err(Trouble::Newer(layout));
    }
    serde_json::from_slice(bytes).map_err(wrong)
}
