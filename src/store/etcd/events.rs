//! The history: pages of events, one for each write in most cases, under the id of their first event.
//!
//! Ids have no gaps and their counter is in the manifest, so a page is true when its write is. Queries read windows of
//! ids from one end to the other. Retention removes the oldest pages, a few with each write.

use etcd_client::{DeleteOptions, GetOptions, TxnOp};

use super::super::event_limit;
use super::Inner;
use super::blob::Stage;
use super::layout::{Manifest, Page, decode_events, encode_events};
use super::link::Trouble;
use super::read::{Pages, Seen};
use crate::model::{Event, EventQuery};

/// Most events of one page.
const PAGE_EVENTS: usize = 2_048;
/// Most pages of one write, which is one transaction of at most 128 operations; of more events each page has more.
const PAGES: usize = 64;
/// Most bytes of a page in its place; larger ones stand in a blob.
const PAGE_BYTES: usize = 64 << 10;
/// Ids of the first window of a query, and of the largest one.
const WINDOW: (u64, u64) = (256, 16_384);
/// Old pages are removed when this many events are too many, so that not every write has to look for them.
const SLACK: u64 = 64;
/// Most pages that one write removes.
const REMOVE_PAGES: i64 = 32;

/// A page that is ready to be written under an id.
pub struct ReadyPage {
    pub page: Page,
    pub lines: Vec<u8>,
}

impl Inner {
    /// Makes pages of events, with blobs on the stage for those that are large.
    pub async fn ready_pages(&self, events: &[Event], stage: &mut Option<Stage>) -> Result<Vec<ReadyPage>, Trouble> {
        let mut ready = Vec::new();
        for events in events.chunks(PAGE_EVENTS.max(events.len().div_ceil(PAGES))) {
            let count = events.len() as u64;
            let lines = encode_events(events).map_err(|e| Trouble::Refused(format!("an event is no JSON: {e}")))?;
            // Pages of one write share its request.
            if lines.len() <= PAGE_BYTES && ready.is_empty() {
                ready.push(ReadyPage { page: Page { count, blob: None }, lines });
                continue;
            }
            let blob = Some(self.write_blob(self.staged(stage).await?, &lines).await?);
            ready.push(ReadyPage { page: Page { count, blob }, lines: Vec::new() });
        }
        Ok(ready)
    }

    /// The operations that write the pages, from the manifest's next id on.
    pub fn put_pages(&self, pages: &[ReadyPage], manifest: &mut Manifest) -> Vec<TxnOp> {
        let mut ops = Vec::new();
        for ReadyPage { page, lines } in pages {
            ops.push(TxnOp::put(self.keys.events(manifest.next_event), page.encode(lines), None));
            manifest.next_event += page.count;
            manifest.widest_page = manifest.widest_page.max(page.count);
        }
        ops
    }

    /// The operations that remove what is too old, if it is time.
    pub async fn drop_pages(&self, manifest: &mut Manifest) -> Result<Vec<TxnOp>, Trouble> {
        let floor = self.floor(manifest);
        if manifest.first_event + SLACK > floor {
            return Ok(Vec::new());
        }
        let from = self.keys.events(manifest.first_event);
        let options = GetOptions::new().with_range(self.keys.events(floor + 1)).with_limit(REMOVE_PAGES);
        let found = self.link.get(&from, options).await?;
        // A page ends where the next begins, so the last one found stays: it may hold events that are wanted.
        let Some((last, old)) = found.kvs().split_last() else { return Ok(Vec::new()) };
        manifest.first_event = self.first_of(last.key())?;
        let until = self.keys.events(manifest.first_event);
        let mut ops = vec![TxnOp::delete(from, Some(DeleteOptions::new().with_range(until)))];
        for kv in old {
            let (page, _) = page(kv.value())?;
            ops.extend(page.blob.iter().map(|blob| self.remove_blob(blob)));
        }
        Ok(ops)
    }

    /// Events before this one are not shown any more.
    fn floor(&self, manifest: &Manifest) -> u64 {
        manifest.next_event.saturating_sub(self.keep_events.max(1))
    }

    fn first_of(&self, key: &[u8]) -> Result<u64, Trouble> {
        let id = self.keys.after("event", key).and_then(|id| id.parse().ok());
        id.ok_or_else(|| Trouble::Damaged(format!("{:?} is no page of events", String::from_utf8_lossy(key))))
    }

    /// The events that a query wants.
    pub async fn query(&self, query: &EventQuery) -> Result<Vec<Event>, Trouble> {
        self.again_when_compacted(|| self.query_once(query)).await
    }

    async fn query_once(&self, query: &EventQuery) -> Result<Vec<Event>, Trouble> {
        let seen = self.see().await?;
        let limit = event_limit(query);
        let next = query.before.map_or(seen.manifest.next_event, |before| before.min(seen.manifest.next_event));
        let first = query.after.saturating_add(1).max(self.floor(&seen.manifest)).max(1);
        let wanted = |event: &Event| event.id >= first && event.id < next && query.wants(event);
        // A page that begins before the first wanted event may hold it.
        let begin = first.saturating_sub(seen.manifest.widest_page - 1).max(seen.manifest.first_event);
        let (mut low, mut high) = (begin, next);
        let mut width = WINDOW.0.max(limit as u64);
        let mut events = Vec::new();
        while low < high && events.len() < limit {
            let window = if query.newest_first {
                let window = (high.saturating_sub(width).max(begin), high);
                high = window.0;
                window
            } else {
                let window = (low, low.saturating_add(width).min(next));
                low = window.1;
                window
            };
            let mut found = self.window(&seen, window).await?;
            found.retain(wanted);
            if query.newest_first {
                found.reverse();
            }
            events.extend(found);
            width = (width * 4).min(WINDOW.1);
        }
        events.truncate(limit);
        Ok(events)
    }

    /// The events of the pages that begin in a window of ids.
    async fn window(&self, seen: &Seen, (low, high): (u64, u64)) -> Result<Vec<Event>, Trouble> {
        let mut pages = Pages::new(self.keys.events(low), self.keys.events(high), seen.at);
        let mut events = Vec::new();
        while let Some(found) = pages.next(&self.link).await? {
            for kv in found {
                let first = self.first_of(kv.key())?;
                let (page, lines) = page(kv.value())?;
                let lines = match &page.blob {
                    Some(blob) => self.read_blob(blob, seen.at).await?,
                    None => lines.to_vec(),
                };
                let damaged = |e| Trouble::Damaged(format!("the events from {first} on cannot be read: {e}"));
                events.extend(decode_events(first, &lines).map_err(damaged)?);
            }
        }
        Ok(events)
    }
}

fn page(bytes: &[u8]) -> Result<(Page, &[u8]), Trouble> {
    Page::decode(bytes).ok_or_else(|| Trouble::Damaged("there is a page of events without its first line".to_owned()))
}
