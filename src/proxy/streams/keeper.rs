//! Keeps the streams of services that close them on a shift: looks after each publication which of them would go
//! elsewhere now, and asks those to close at the service's pace.
//!
//! Requests that are no such streams never come here. A stream comes twice, when it begins and when it ends.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::open::Open;
use super::pace::Pace;
use crate::model::{OnShift, ServiceName, StreamsSpec};
use crate::proxy::Clock;
use crate::routing::{Routes, ServiceRoute};

/// How often published routes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often, while streams wait to be closed, but not very many.
const CLOSE_EVERY: Duration = Duration::from_millis(20);
/// Streams are spread over so many maps, so that those that begin and end at once do not wait for each other.
const SHARDS: usize = 16;
/// The most streams that are kept: each costs some kilobytes. More are left alone.
const STREAMS_MAX: u64 = 200_000;
/// More waiting streams are looked at less often.
const MANY: usize = 10_000;
/// How many decisions are made again until other tasks get their turn.
const BATCH: usize = 256;
/// The longest that a stream may take for its goodbye, in microseconds.
const GOODBYE_US: u64 = 2_000_000;
/// A call that ends by itself within this time needs no goodbye, in microseconds.
const YOUNG_US: u64 = 1_000_000;

type Shard = Mutex<HashMap<u64, Arc<Open>>>;

/// The streams that are open, for as long as they are.
pub struct StreamKeeper {
    published: Arc<ArcSwap<Routes>>,
    clock: Clock,
    shards: [Shard; SHARDS],
    next: AtomicU64,
    kept: AtomicU64,
    /// Whether it was ever full.
    full: AtomicBool,
    /// Began while the routes changed, so that nobody may have looked at them under those of now.
    unsure: Mutex<Vec<Arc<Open>>>,
}

/// A stream's place among the kept ones, until it is dropped.
pub(super) struct Kept {
    keeper: Arc<StreamKeeper>,
    id: u64,
    pub open: Arc<Open>,
}

/// What the task remembers from one look to the next.
#[derive(Default)]
struct Memory {
    seen: HashMap<ServiceName, Arc<ServiceRoute>>,
    waiting: HashMap<ServiceName, Waiting>,
}

/// The streams of a service that wait to be closed, those that have waited longest first.
#[derive(Default)]
struct Waiting {
    streams: VecDeque<Arc<Open>>,
    pace: Pace,
}

impl StreamKeeper {
    /// A keeper that looks at these routes.
    pub fn new(published: Arc<ArcSwap<Routes>>, clock: Clock) -> Arc<Self> {
        let (shards, next, kept, full, unsure) = Default::default();
        Arc::new(Self { published, clock, shards, next, kept, full, unsure })
    }

    /// Takes a stream in; none when there are too many.
    pub(super) fn keep(self: &Arc<Self>, open: Open) -> Option<Kept> {
        if self.kept.fetch_add(1, Relaxed) >= STREAMS_MAX {
            self.kept.fetch_sub(1, Relaxed);
            if !self.full.swap(true, Relaxed) {
                tracing::warn!(
                    limit = STREAMS_MAX,
                    "more streams are open than can be kept; shifts leave the others alone"
                );
            }
            return None;
        }
        let (id, open) = (self.next.fetch_add(1, Relaxed), Arc::new(open));
        self.shard(id).lock().insert(id, open.clone());
        // Only now: what is published later finds it in its place.
        let routes = self.published.load();
        let now = routes.service(open.place.service.as_str());
        if now.is_none_or(|service| !Arc::ptr_eq(service, &open.service)) {
            self.unsure.lock().push(open.clone());
        }
        Some(Kept { keeper: self.clone(), id, open })
    }

    /// Runs until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut memory = Memory::default();
        loop {
            let waiting: usize = memory.waiting.values().map(|w| w.streams.len()).sum();
            tokio::time::sleep(if (1..MANY).contains(&waiting) { CLOSE_EVERY } else { LOOK_EVERY }).await;
            let routes = self.published.load_full();
            self.look(&routes, &mut memory).await;
            memory.close(&routes, self.clock.now_us());
        }
    }

    /// Judges the streams of services that have changed, and those that began meanwhile.
    async fn look(&self, routes: &Arc<Routes>, memory: &mut Memory) {
        let mut judged = std::mem::take(&mut *self.unsure.lock());
        let changed = memory.changed(routes);
        if !changed.is_empty() {
            for shard in &self.shards {
                judged.extend(shard.lock().values().filter(|s| changed.contains(&s.place.service)).cloned());
            }
        }
        for (i, open) in judged.into_iter().enumerate() {
            if i % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
            if !open.is_asked() && open.judge(routes, self.clock.now_us()) {
                let waiting = memory.waiting.entry(open.place.service.clone()).or_default();
                waiting.streams.push_back(open);
            }
        }
    }

    fn shard(&self, id: u64) -> &Shard {
        &self.shards[id as usize % SHARDS]
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.open.end();
        self.keeper.shard(self.id).lock().remove(&self.id);
        self.keeper.kept.fetch_sub(1, Relaxed);
    }
}

impl Memory {
    /// Services that are not what they were at the last look.
    fn changed(&mut self, routes: &Routes) -> Vec<ServiceName> {
        let mut changed = Vec::new();
        self.seen.retain(|name, _| {
            let stays = routes.service(name.as_str()).is_some();
            if !stays {
                changed.push(name.clone());
            }
            stays
        });
        for service in &routes.services {
            match self.seen.entry(service.spec.name.clone()) {
                Entry::Occupied(seen) if Arc::ptr_eq(seen.get(), service) => {}
                Entry::Occupied(mut seen) => {
                    seen.insert(service.clone());
                    changed.push(service.spec.name.clone());
                }
                Entry::Vacant(place) => {
                    place.insert(service.clone());
                    changed.push(service.spec.name.clone());
                }
            }
        }
        changed
    }

    /// Asks those whose turn it is to close.
    fn close(&mut self, routes: &Routes, now_us: u64) {
        self.waiting.retain(|name, waiting| {
            // A service that is gone still has its manner.
            let spec = match (routes.service(name.as_str()), waiting.streams.front()) {
                (Some(service), _) => service.spec.streams,
                (None, Some(open)) => open.service.spec.streams,
                (None, None) => return false,
            };
            waiting.close(&spec, now_us);
            !waiting.streams.is_empty()
        });
    }
}

impl Waiting {
    fn close(&mut self, spec: &StreamsSpec, now_us: u64) {
        self.streams.retain(|open| open.waits_since_us().is_some());
        if spec.on_shift == OnShift::Leave {
            // The file has changed its mind since.
            self.streams.drain(..).for_each(|open| open.stay());
            return;
        }
        let deadline_us = spec.deadline.as_micros() as u64;
        let goodbye_us = GOODBYE_US.min(deadline_us / 2);
        let ask_by = |open: &Open| open.waits_since_us().unwrap_or(now_us) + deadline_us - goodbye_us;
        let ripe = |open: &Open| open.opened_us + YOUNG_US <= now_us || ask_by(open) <= now_us;
        let dues = self.streams.iter().filter(|open| ripe(open)).map(|open| ask_by(open));
        let turn = self.pace.turn(now_us, spec.pace, dues);
        for open in self.streams.iter().filter(|open| ripe(open)).take(turn) {
            open.ask(ask_by(open) + goodbye_us);
        }
    }
}
