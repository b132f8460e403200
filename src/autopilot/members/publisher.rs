//! What this member tells the others: the counts of the scopes in which versions are compared, by pages, and only the pages
//! that changed. A page in which a canary fails goes out at once; others wait for their second.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::oneshot;

use super::notes::{Counts, Whose, encode_counts};
use crate::autopilot::evidence::Readings;
use crate::store::{Note, StoreError};

/// How often pages go out, in milliseconds.
const EVERY_MS: u64 = 1_000;
/// How often pages go out in which a canary fails, in milliseconds.
const URGENT_MS: u64 = 250;
/// How long notes may be refused before this member judges for itself, in milliseconds: as long as a lease lasts.
const UNHEARD_MS: u64 = 3_000;
/// Scopes of one page: about 4 KiB.
const SCOPES: usize = 64;
/// Epochs of one scope that are told, the newest ones. A brake makes one, and so does its release.
const EPOCHS: usize = 5;
/// Keys that one page tells, all scopes together: about 18 KiB, so that a page stays below the 64 KiB of a note.
const KEYS: usize = 2_048;
/// What all members together may write in a second, in bytes.
const BUDGET: usize = 2 << 20;
/// What one member may write in a second, in bytes: the least, and the most.
const SHARE: (usize, usize) = (8 << 10, 256 << 10);

/// What became of the last notes.
pub type Written = oneshot::Receiver<Result<u64, StoreError>>;

/// The pages of this member.
#[derive(Default)]
pub struct Publisher {
    pages: Vec<Page>,
    places: HashMap<u64, usize>,
    /// The pages that are on their way, and their answer.
    on_the_way: Option<(Vec<usize>, Written)>,
    /// As which member this process wrote last.
    joined: Option<u64>,
    sent_ms: u64,
    /// Since when nothing that was told has been taken.
    unheard_since_ms: Option<u64>,
}

#[derive(Default)]
struct Page {
    scopes: BTreeMap<u64, Whose>,
    dirty: bool,
    urgent: bool,
    sent_ms: u64,
}

impl Publisher {
    /// A scope in which versions are compared counted something.
    pub fn touch(&mut self, scope: u64, whose: impl FnOnce() -> Whose, urgent: bool) {
        let place = match self.places.get(&scope) {
            Some(place) => *place,
            None => self.admit(scope, whose()),
        };
        let page = &mut self.pages[place];
        page.dirty = true;
        page.urgent |= urgent;
    }

    fn admit(&mut self, scope: u64, whose: Whose) -> usize {
        let place = self.pages.iter().position(|page| page.scopes.len() < SCOPES).unwrap_or_else(|| {
            self.pages.push(Page::default());
            self.pages.len() - 1
        });
        self.pages[place].scopes.insert(scope, whose);
        self.places.insert(scope, place);
        place
    }

    /// Lets go of the scopes for which `stays` does not hold.
    pub fn retain(&mut self, stays: impl Fn(u64) -> bool) {
        for page in &mut self.pages {
            let before = page.scopes.len();
            page.scopes.retain(|scope, _| stays(*scope));
            page.dirty |= page.scopes.len() < before;
        }
        self.places.retain(|scope, _| stays(*scope));
    }

    /// Takes the answer to the last notes; whether the others lack something that was told before.
    pub fn settle(&mut self, now_ms: u64) -> bool {
        let Some((pages, written)) = &mut self.on_the_way else { return false };
        let answer = match written.try_recv() {
            Ok(answer) => answer.ok(),
            Err(oneshot::error::TryRecvError::Empty) => return false,
            Err(oneshot::error::TryRecvError::Closed) => None,
        };
        let pages = std::mem::take(pages);
        self.on_the_way = None;
        self.unheard_since_ms = answer.is_none().then(|| self.unheard_since_ms.unwrap_or(now_ms));
        let again = match answer {
            Some(joined) => self.joined.replace(joined).is_some_and(|before| before != joined),
            None => {
                pages.iter().for_each(|page| self.pages[*page].dirty = true);
                return true;
            }
        };
        // Another member than before has no notes but these.
        if again {
            self.pages.iter_mut().for_each(|page| page.dirty = true);
        }
        again
    }

    /// Whether the others have not heard of this member for so long that they cannot judge for it, although it belongs to
    /// them: as when etcd is full, or too slow to write.
    pub fn is_unheard(&self, now_ms: u64) -> bool {
        self.unheard_since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= UNHEARD_MS)
    }

    /// The notes that are to be written now, and their pages; nothing while earlier ones are on their way.
    pub fn due(
        &mut self,
        now_ms: u64,
        members: usize,
        readings: &Readings,
        wall: &impl Fn(u64) -> u64,
    ) -> Option<(Vec<Note>, Vec<usize>)> {
        let waited = now_ms.saturating_sub(self.sent_ms);
        let urgent = self.pages.iter().any(|page| page.dirty && page.urgent);
        if self.on_the_way.is_some() || waited < if urgent { URGENT_MS } else { EVERY_MS } {
            return None;
        }
        self.sent_ms = now_ms;
        // By the second, however often they go out.
        let budget =
            (BUDGET / members.max(1)).clamp(SHARE.0, SHARE.1) * waited.min(EVERY_MS) as usize / EVERY_MS as usize;
        let mut order: Vec<_> = (0..self.pages.len()).filter(|page| self.pages[*page].dirty).collect();
        order.sort_by_key(|page| (!self.pages[*page].urgent, self.pages[*page].sent_ms));
        let (mut notes, mut pages, mut bytes) = (Vec::new(), Vec::new(), 0);
        for place in order {
            let page = &mut self.pages[place];
            let body = (!page.scopes.is_empty()).then(|| encode_counts(&page.counts(readings, wall)));
            bytes += body.as_ref().map_or(0, Vec::len);
            if bytes > budget && !notes.is_empty() {
                break;
            }
            (page.dirty, page.urgent, page.sent_ms) = (false, false, now_ms);
            notes.push(Note { name: format!("counts/{place:03}"), body });
            pages.push(place);
        }
        Some((notes, pages))
    }

    /// These pages are on their way.
    pub fn sent(&mut self, pages: Vec<usize>, written: Written) {
        self.on_the_way = Some((pages, written));
    }
}

impl Page {
    fn counts(&self, readings: &Readings, wall: &impl Fn(u64) -> u64) -> Vec<Counts> {
        let of = |(scope, whose): (&u64, &Whose)| {
            let epochs = readings.of(*scope);
            let mut epochs: Vec<_> = epochs.iter().rev().take(EPOCHS).cloned().collect();
            epochs.reverse();
            for at in epochs.iter_mut().flat_map(|epoch| &mut epoch.bad_since_ms).flatten() {
                *at = wall(*at);
            }
            Counts { whose: whose.clone(), epochs, keys: readings.told_keys(*scope, KEYS / self.scopes.len().max(1)) }
        };
        self.scopes.iter().map(of).collect()
    }
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
