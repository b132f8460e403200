//! The keys under the prefix and what stands under them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::recent::Recent;
use crate::model::Event;

/// The layout that this release writes and reads. A newer one is refused.
pub const LAYOUT: u32 = 1;

/// How many of the last writes the manifest names, so that a writer that heard no answer finds out whether it was one.
pub const WRITERS: usize = 32;

/// The keys.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys under `prefix`, with or without a slash at its end.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.trim_end_matches('/').to_owned() }
    }

    /// The manifest: the only key that every write touches.
    pub fn manifest(&self) -> String {
        format!("{}/manifest", self.prefix)
    }

    /// Documents by the text of their key.
    pub fn document(&self, key: &str) -> String {
        format!("{}/document/{key}", self.prefix)
    }

    /// A page of events by the id of its first one.
    pub fn events(&self, first: u64) -> String {
        format!("{}/event/{first:020}", self.prefix)
    }

    /// One part of a blob.
    pub fn part(&self, blob: &str, part: u32) -> String {
        format!("{}/blob/{blob}/{part:06}", self.prefix)
    }

    /// All parts of one blob, or with a stage's name and `-` of all its blobs: from, and up to without it.
    pub fn blobs(&self, begin: &str) -> (String, String) {
        let from = format!("{}/blob/{begin}", self.prefix);
        let until = end_of(&from);
        (from, until)
    }

    /// The marker of a write that is being prepared.
    pub fn staging(&self, stage: &str) -> String {
        format!("{}/staging/{stage}", self.prefix)
    }

    /// A note of a member. The name comes first, so that a watch on the beginning of a name brings nothing else.
    pub fn note(&self, name: &str, member: &str) -> String {
        format!("{}/member/{name}/{member}", self.prefix)
    }

    /// All notes whose names begin with this: from, and up to without it.
    pub fn notes(&self, names: &str) -> (String, String) {
        let from = format!("{}/member/{names}", self.prefix);
        let until = end_of(&from);
        (from, until)
    }

    /// The name and the member of a note's key.
    pub fn note_of<'a>(&self, key: &'a [u8]) -> Option<(&'a str, &'a str)> {
        self.after("member", key)?.rsplit_once('/')
    }

    /// What each write of a member's notes replaces, so that a late one cannot come after a newer one.
    pub fn pen(&self, member: &str) -> String {
        format!("{}/pen/{member}", self.prefix)
    }

    /// What a full key of that kind says behind `kind/`.
    pub fn after<'a>(&self, kind: &str, key: &'a [u8]) -> Option<&'a str> {
        let text = std::str::from_utf8(key).ok()?;
        text.strip_prefix(self.prefix.as_str())?.strip_prefix('/')?.strip_prefix(kind)?.strip_prefix('/')
    }
}

/// The first key after all that begin with this text, which must be ASCII at its end.
pub fn end_of(begin: &str) -> String {
    let mut end = begin.to_owned();
    if let Some(last) = end.pop() {
        end.push(char::from_u32(u32::from(last) + 1).unwrap_or(char::MAX));
    }
    end
}

/// What is true now. Each write replaces it in the transaction that makes the write true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub layout: u32,
    /// Latest committed revision: our own counter, not etcd's.
    pub revision: u64,
    /// Id that the next event gets.
    pub next_event: u64,
    /// No page of events begins before this.
    pub first_event: u64,
    /// Most events that any page has or had.
    pub widest_page: u64,
    /// Large commits whose documents are not in their places yet, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlays: Vec<Overlay>,
    /// How many writes there were.
    pub writes: u64,
    /// Names of the last of them, the latest at the end.
    pub writers: VecDeque<String>,
    /// What the last commits changed; absent when the latest was made by a release that does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent: Option<Recent>,
    /// What another release says.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            layout: LAYOUT,
            revision: 0,
            next_event: 1,
            first_event: 1,
            widest_page: 1,
            overlays: Vec::new(),
            writes: 0,
            writers: VecDeque::new(),
            recent: None,
            more: serde_json::Map::new(),
        }
    }
}

impl Manifest {
    /// The manifest after one more write.
    pub fn written_by(mut self, writer: &str) -> Self {
        self.writes += 1;
        self.writers.push_back(writer.to_owned());
        while self.writers.len() > WRITERS {
            self.writers.pop_front();
        }
        self
    }

    /// Who made the write of that number, when the manifest still knows.
    pub fn writer_of(&self, number: u64) -> Option<&str> {
        let back = usize::try_from(self.writes.checked_sub(number)?).ok()?;
        let index = self.writers.len().checked_sub(back + 1)?;
        self.writers.get(index).map(String::as_str)
    }
}

/// A large commit: a blob of documents that hide those in the places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    pub blob: BlobRef,
    /// Revision of the commit.
    pub revision: u64,
    /// Its documents are in their places and it hides nothing any more.
    #[serde(default)]
    pub folded: bool,
}

/// Bytes under keys of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    pub id: String,
    pub parts: u32,
}

/// A document as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Revision of the commit that wrote it.
    pub revision: u64,
    pub content: Content,
}

/// What a document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Text(String),
    /// The text is large and stands in a blob.
    Blob(BlobRef),
    /// The document was removed; what an older overlay says of it does not hold.
    Gone,
}

#[derive(Default, Serialize, Deserialize)]
struct Head {
    revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<BlobRef>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
    /// Only in overlays: in the places the text follows on the next line, so that people can read it with `etcdctl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Stored {
    /// Its blob, if it has one.
    pub fn blob(&self) -> Option<&BlobRef> {
        match &self.content {
            Content::Blob(blob) => Some(blob),
            Content::Text(_) | Content::Gone => None,
        }
    }

    /// As it stands in its place: a line of JSON, then the text.
    pub fn encode(&self) -> Vec<u8> {
        let (head, text) = match &self.content {
            Content::Text(text) => (Head { revision: self.revision, ..Head::default() }, text.as_str()),
            _ => (self.head(), ""),
        };
        let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    /// What stands in a place; nothing when it is not ours.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, text) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
        let head = Head { text: Some(text.to_owned()), ..serde_json::from_str(head).ok()? };
        Some(Self::from_head(head))
    }

    fn head(&self) -> Head {
        let head = Head { revision: self.revision, ..Head::default() };
        match &self.content {
            Content::Text(text) => Head { text: Some(text.clone()), ..head },
            Content::Blob(blob) => Head { blob: Some(blob.clone()), ..head },
            Content::Gone => Head { gone: true, ..head },
        }
    }

    fn from_head(head: Head) -> Self {
        let content = match (head.gone, head.blob) {
            (true, _) => Content::Gone,
            (false, Some(blob)) => Content::Blob(blob),
            (false, None) => Content::Text(head.text.unwrap_or_default()),
        };
        Self { revision: head.revision, content }
    }
}

/// The documents of an overlay as bytes.
pub fn encode_overlay<'a>(documents: impl Iterator<Item = (&'a String, &'a Stored)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, stored) in documents {
        bytes.extend(serde_json::to_vec(&(key, stored.head())).unwrap_or_default());
        bytes.push(b'\n');
    }
    bytes
}

/// The documents of an overlay; nothing when it is not ours.
pub fn decode_overlay(bytes: &[u8]) -> Option<Vec<(String, Stored)>> {
    let lines = std::str::from_utf8(bytes).ok()?.lines();
    lines
        .map(|line| {
            let (key, head): (String, Head) = serde_json::from_str(line).ok()?;
            Some((key, Stored::from_head(head)))
        })
        .collect()
}

/// A page of events: a line that says how many they are, then they or, when they are many, their blob.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<BlobRef>,
}

impl Page {
    /// The page as it stands under its key.
    pub fn encode(&self, lines: &[u8]) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(lines);
        bytes
    }

    /// The page and its lines.
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        Some((serde_json::from_slice(&bytes[..end]).ok()?, &bytes[end + 1..]))
    }
}

/// Events as lines. Their ids are not known yet: the place of a page and of a line in it tells them.
pub fn encode_events(events: &[Event]) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::new();
    for event in events {
        serde_json::to_writer(&mut bytes, event)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// The events of a page whose first one has this id.
pub fn decode_events(first: u64, lines: &[u8]) -> Result<Vec<Event>, serde_json::Error> {
    let lines = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    (first..).zip(lines).map(|(id, line)| Ok(Event { id, ..serde_json::from_slice(line)? })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_survive_in_their_places_and_in_overlays() {
        let blob = BlobRef { id: "a-0".to_owned(), parts: 3 };
        for content in [Content::Text("a\nb\0".to_owned()), Content::Blob(blob), Content::Gone] {
            let stored = Stored { revision: 7, content };
            assert_eq!(Stored::decode(&stored.encode()), Some(stored.clone()));
            let all = vec![("k".to_owned(), stored)];
            assert_eq!(decode_overlay(&encode_overlay(all.iter().map(|(k, s)| (k, s)))), Some(all));
        }
        assert_eq!(Stored::decode(b"nonsense"), None);
    }

    #[test]
    fn the_key_of_a_note_tells_whose_it_is() {
        let keys = Keys::new("/a/b/");
        let key = keys.note("counts/003", "host-1-0f");
        assert_eq!(key, "/a/b/member/counts/003/host-1-0f");
        assert_eq!(keys.note_of(key.as_bytes()), Some(("counts/003", "host-1-0f")));
        assert_eq!(keys.note_of(b"/a/b/members/x/y"), None);
        let (from, until) = keys.notes("counts/");
        assert!((from..until).contains(&key));
    }

    #[test]
    fn the_manifest_knows_its_last_writers() {
        let mut manifest = Manifest::default();
        for n in 1..=40 {
            manifest = manifest.written_by(&format!("w{n}"));
        }
        assert_eq!(manifest.writer_of(40), Some("w40"));
        assert_eq!(manifest.writer_of(9), Some("w9"));
        assert_eq!(manifest.writer_of(8), None, "forgotten");
        assert_eq!(manifest.writer_of(41), None, "not yet");
    }
}
