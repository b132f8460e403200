//! The history from the newest event back, in pages, and never through more of it than is bearable.

use super::super::context::Shared;
use super::super::problem::Problem;
use crate::model::{Event, EventQuery};
use crate::store::MAX_EVENTS;

/// Events that are read at first; most pages are full then.
const FIRST: usize = 200;
/// How often the store is asked for one page.
const READS: usize = 8;

/// A page of the history.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The newest first.
    pub events: Vec<Event>,
    /// Where the next page begins, as `before`; none: this was the last.
    pub next: Option<u64>,
    /// Whether the page ends because so much was looked through, not because it is full.
    pub tired: bool,
}

/// At most `limit` events that `wants` agrees with, the newest first.
///
/// # Errors
/// [`Problem`] when the history cannot be read.
pub(super) async fn back(
    cx: &Shared,
    mut query: EventQuery,
    limit: usize,
    wants: &(dyn Fn(&Event) -> bool + Sync),
) -> Result<Page, Problem> {
    query.newest_first = true;
    let mut page = Page::default();
    for read in 0..READS {
        query.limit = if read == 0 { FIRST.max(limit + 1) } else { MAX_EVENTS };
        let found = cx.control.events(query.clone()).await?;
        let is_end = found.len() < query.limit;
        for event in found {
            query.before = Some(event.id);
            if !wants(&event) {
                continue;
            }
            if page.events.len() == limit {
                page.next = page.events.last().map(|last| last.id);
                return Ok(page);
            }
            page.events.push(event);
        }
        if is_end {
            return Ok(page);
        }
    }
    (page.next, page.tired) = (query.before, true);
    Ok(page)
}

/// The id of the first event that is not older than a moment; one beyond the newest when there is none. Times of different
/// proxies may differ a little, so this is as exact as their clocks.
///
/// # Errors
/// [`Problem`] when the history cannot be read.
pub(super) async fn first_since(cx: &Shared, at_ms: u64) -> Result<u64, Problem> {
    let newest = EventQuery { limit: 1, newest_first: true, ..EventQuery::default() };
    let (mut low, mut high) = (1, cx.control.events(newest).await?.first().map_or(1, |event| event.id + 1));
    while low < high {
        let middle = low + (high - low) / 2;
        let query = EventQuery { after: middle - 1, limit: 1, ..EventQuery::default() };
        match cx.control.events(query).await?.first() {
            // The oldest ones are gone, so the first that is left may come later than the middle.
            Some(event) if event.at_ms < at_ms => low = event.id + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}
