//! The store of the simulation: one disk, and for each process a connection that is slow, fails before or after a write
//! took effect, or is away for a while. What really happened is kept beside it, for the checks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use switchback::model::{Commit, Document, DocumentKey, Event, EventQuery};
use switchback::store::{Loaded, MemoryStore, Store, StoreError};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::dice::Dice;

/// Every document at one revision, by its key.
pub type Picture = BTreeMap<String, (u64, String)>;

/// What really happened.
#[derive(Default)]
pub struct Truth {
    pub revision: u64,
    /// The number that came after the events of the newest commit.
    pub next_event: u64,
    /// What was there at each revision that was ever committed.
    pub pictures: BTreeMap<u64, Arc<Picture>>,
    /// The revisions whose commit had no event.
    pub silent: Vec<u64>,
}

/// How often what fails, in permille.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// A write that does nothing.
    pub before: u64,
    /// A write that takes effect and says that it failed.
    pub after: u64,
    /// A read, or a look whether the store is there.
    pub read: u64,
    /// An answer that takes seconds.
    pub slow: u64,
    /// Nothing works.
    pub away: bool,
}

pub struct Disk {
    store: MemoryStore,
    inner: Mutex<Inner>,
}

struct Inner {
    dice: Dice,
    weather: Weather,
    truth: Truth,
}

impl Disk {
    pub fn new(seed: u64) -> Arc<Self> {
        let truth = Truth { pictures: BTreeMap::from([(0, Arc::default())]), ..Truth::default() };
        let inner = Inner { dice: Dice::new(seed), weather: Weather::default(), truth };
        Arc::new(Self { store: MemoryStore::new(), inner: Mutex::new(inner) })
    }

    pub fn set_weather(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.inner().weather);
    }

    /// Whether reads succeed.
    pub fn is_well(&self) -> bool {
        let weather = self.inner().weather;
        !weather.away && weather.read == 0
    }

    pub fn truth<T>(&self, look: impl FnOnce(&Truth) -> T) -> T {
        look(&self.inner().truth)
    }

    /// The whole history.
    pub async fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map_or(0, |event: &Event| event.id);
            let query = EventQuery { after, limit: 1_000, ..EventQuery::default() };
            let page = self.store.events(query).await.expect("the memory is there");
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no story panics here")
    }

    /// Takes what a part of an answer takes.
    async fn dawdle(&self) {
        let ms = {
            let mut inner = self.inner();
            let slow = inner.weather.slow;
            match inner.dice.permille(slow) {
                true => inner.dice.within(500, 6_000),
                false => *inner.dice.pick(&[0, 0, 1, 1, 2, 5, 20]),
            }
        };
        sleep(Duration::from_millis(ms)).await;
    }

    fn fails(&self, how_often: impl Fn(&Weather) -> u64) -> bool {
        let mut inner = self.inner();
        let permille = how_often(&inner.weather);
        inner.weather.away || inner.dice.permille(permille)
    }

    /// Why a write did nothing: any of the reasons that say so, or one that does not tell.
    fn why_not(&self) -> StoreError {
        let away = StoreError::Away { detail: "the simulation".to_owned() };
        match self.inner().dice.below(4) {
            0 => away,
            1 => StoreError::Busy { path: "/sim".into() },
            2 => StoreError::Full { path: "/sim".into() },
            _ => unknown(),
        }
    }

    /// Writes down what a commit has led to.
    async fn note(&self, silent: bool) {
        let loaded = self.store.load().await.expect("the memory is there");
        let picture = picture(loaded.documents);
        let truth = &mut self.inner().truth;
        (truth.revision, truth.next_event) = (loaded.revision, loaded.next_event);
        truth.pictures.insert(loaded.revision, Arc::new(picture));
        if silent {
            truth.silent.push(loaded.revision);
        }
    }
}

/// The documents as they are compared. Secrets are not part of the state.
pub fn picture(documents: impl IntoIterator<Item = Document>) -> Picture {
    let of_state = documents.into_iter().filter(|d| !matches!(d.key, DocumentKey::Secret(_)));
    of_state.map(|d| (d.key.to_string(), (d.revision, d.body))).collect()
}

/// A failure that does not tell whether the write happened.
fn unknown() -> StoreError {
    StoreError::Write { source: "the simulation".into() }
}

/// What one process has of the store.
pub struct Connection {
    disk: Arc<Disk>,
    known: watch::Sender<u64>,
}

impl Connection {
    pub fn new(disk: &Arc<Disk>) -> Arc<Self> {
        Arc::new(Self { disk: disk.clone(), known: watch::Sender::new(0) })
    }

    /// A read comes back, or does not.
    async fn read<T>(&self, get: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.disk.dawdle().await;
        let got = get.await;
        self.disk.dawdle().await;
        match self.disk.fails(|weather| weather.read) {
            true => Err(StoreError::Load { source: "the simulation".into() }),
            false => got,
        }
    }

    /// A write fails before it happened, or after, or not at all. Who waits may be gone in between.
    async fn write(&self, put: impl Future<Output = Result<u64, StoreError>>) -> Result<u64, StoreError> {
        self.disk.dawdle().await;
        if self.disk.fails(|weather| weather.before) {
            return Err(self.disk.why_not());
        }
        let answer = put.await?;
        self.disk.dawdle().await;
        match self.disk.fails(|weather| weather.after) {
            true => Err(unknown()),
            false => Ok(answer),
        }
    }

    fn learn(&self, revision: u64) {
        self.known.send_if_modified(|known| std::mem::replace(known, revision.max(*known)) < revision);
    }
}

#[async_trait]
impl Store for Connection {
    async fn load(&self) -> Result<Loaded, StoreError> {
        let loaded = self.read(self.disk.store.load()).await?;
        self.learn(loaded.revision);
        Ok(loaded)
    }

    async fn get(&self, key: &DocumentKey) -> Result<Option<Document>, StoreError> {
        self.read(self.disk.store.get(key)).await
    }

    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<(DocumentKey, u64)>, StoreError> {
        self.read(self.disk.store.list(prefix, after, limit)).await
    }

    async fn commit(&self, commit: Commit) -> Result<u64, StoreError> {
        let (revision, silent) = (commit.revision, commit.events.is_empty());
        let put = async {
            let first = self.disk.store.commit(commit).await?;
            self.disk.note(silent).await;
            Ok(first)
        };
        let answer = self.write(put).await;
        match &answer {
            Ok(_) => self.learn(revision),
            Err(StoreError::Conflict { found, .. }) => self.learn(*found),
            Err(_) => {}
        }
        answer
    }

    async fn append(&self, events: Vec<Event>) -> Result<u64, StoreError> {
        self.write(self.disk.store.append(events)).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError> {
        self.read(self.disk.store.events(query)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read(self.disk.store.ping()).await?;
        self.learn(self.disk.truth(|truth| truth.revision));
        Ok(())
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.known.subscribe()
    }
}
