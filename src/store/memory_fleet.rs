//! A fleet without etcd, for tests and simulation: processes that share a store in memory and can be cut off.
//!
//! Times are those of the fleet in etcd, by tokio's clock, so that a test with a paused clock plays hours at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::membership::{Heard, MemberId, Membership, Note, Role, Standing, check_notes};
use super::memory_seats::{CARD, Seat, Seats};
use super::{Loaded, MemoryStore, News, Store, StoreError, check_commit, publish};
use crate::model::{Commit, Document, DocumentKey, Event, EventQuery};

/// How long others wait for a sign of life before they take a member for gone.
const LEASE: Duration = Duration::from_secs(3);
/// How much earlier the member does.
const MARGIN: Duration = Duration::from_millis(200);
/// How often it gives a sign of life.
const EVERY: Duration = Duration::from_secs(1);
/// Changes that wait for somebody who follows.
const QUEUE: usize = 256;

/// Processes that share a store in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryFleet {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    store: MemoryStore,
    fleet: Mutex<Seats>,
    /// Counts everything that somebody may wait for.
    changed: watch::Sender<u64>,
}

impl MemoryFleet {
    /// Nobody, and an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a process, which joins at once if it can; must be called within a tokio runtime.
    pub fn member(&self, name: &str) -> MemberStore {
        let number = {
            let mut fleet = self.shared.fleet.lock();
            fleet.processes += 1;
            fleet.processes
        };
        let me = Arc::new(Me {
            id: format!("{name}-{number}").into(),
            shared: self.shared.clone(),
            joined: Mutex::new((None, Instant::now())),
            standing: watch::Sender::new(Standing::unknown()),
            revision: watch::Sender::new(0),
            cut: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        me.sign();
        let living = me.clone();
        MemberStore { me, task: tokio::spawn(async move { living.live().await }).abort_handle() }
    }

    /// The store that they share, as somebody beside them sees it.
    pub fn store(&self) -> &MemoryStore {
        &self.shared.store
    }

    /// Takes store and fleet away from everybody, or brings them back with everything they had. All members then have the
    /// time of a lease to give a sign of life.
    pub fn set_down(&self, down: bool) {
        self.shared.store.set_down(down);
        let mut fleet = self.shared.fleet.lock();
        fleet.down = down;
        let ends = Instant::now() + LEASE;
        fleet.seats.values_mut().for_each(|seat| seat.ends = ends);
        drop(fleet);
        self.shared.tell();
    }
}

impl Shared {
    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// The fleet as it is now.
    fn fleet(&self) -> MutexGuard<'_, Seats> {
        let mut fleet = self.fleet.lock();
        let now = Instant::now();
        while let Some(joined) = fleet.late(now) {
            fleet.end(joined);
            self.tell();
        }
        fleet
    }
}

/// The store as one process of the fleet sees it.
#[derive(Debug)]
pub struct MemberStore {
    me: Arc<Me>,
    task: AbortHandle,
}

impl MemberStore {
    /// Cuts the process off from store and fleet, or lets it reach them again.
    pub fn cut(&self, cut: bool) {
        self.me.cut.store(cut, Ordering::Release);
        self.me.shared.tell();
    }
}

impl Drop for MemberStore {
    fn drop(&mut self) {
        self.task.abort();
        self.me.gone.store(true, Ordering::Release);
        self.me.shared.tell();
    }
}

#[derive(Debug)]
struct Me {
    id: MemberId,
    shared: Arc<Shared>,
    /// As which member it belongs to the fleet, and until when it is sure.
    joined: Mutex<(Option<u64>, Instant)>,
    standing: watch::Sender<Standing>,
    revision: watch::Sender<u64>,
    cut: AtomicBool,
    /// It left, or ended.
    gone: AtomicBool,
    closed: AtomicBool,
}

impl Me {
    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    fn reach(&self) -> Result<&MemoryStore, StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        if self.is_cut() {
            return Err(StoreError::Away { detail: "this process is cut off".to_owned() });
        }
        Ok(&self.shared.store)
    }

    /// The fleet, if it can be reached.
    fn fleet(&self) -> Option<MutexGuard<'_, Seats>> {
        if self.is_cut() || self.is_gone() {
            return None;
        }
        Some(self.shared.fleet()).filter(|fleet| !fleet.down)
    }

    /// Gives a sign of life, and joins if need be.
    fn sign(&self) {
        let Some(mut fleet) = self.fleet() else { return };
        let now = Instant::now();
        let mut joined = self.joined.lock();
        let number = match joined.0.and_then(|number| Some((number, fleet.seats.get_mut(&number)?))) {
            Some((number, seat)) => {
                seat.ends = now + LEASE;
                number
            }
            None => {
                fleet.joined += 1;
                let number = fleet.joined;
                fleet.seats.insert(number, Seat { id: self.id.clone(), ends: now + LEASE, notes: BTreeMap::new() });
                fleet.put(number, Note { name: CARD.to_owned(), body: Some(Vec::new()) });
                self.shared.tell();
                number
            }
        };
        *joined = (Some(number), now + LEASE - MARGIN);
        drop((joined, fleet));
        self.look();
    }

    /// Looks who is there, and whether there was a commit.
    fn look(&self) {
        let Some(fleet) = self.fleet() else { return };
        let (joined, sure_until) = *self.joined.lock();
        let joined = joined.filter(|joined| fleet.seats.contains_key(joined));
        self.standing.send_replace(Standing { members: Arc::new(fleet.members()), joined, sure_until });
        publish(&self.revision, *self.shared.store.watch().borrow());
    }

    async fn live(&self) {
        let mut changed = self.shared.changed.subscribe();
        let mut commits = self.shared.store.watch();
        let mut next = Instant::now() + EVERY;
        while !self.is_gone() {
            let now = Instant::now();
            let was_lost = !self.is_cut() && self.joined.lock().1 <= now;
            if next <= now || was_lost {
                self.sign();
                next = now + EVERY;
            }
            self.look();
            let ends = self.fleet().and_then(|fleet| fleet.seats.values().map(|seat| seat.ends).min());
            tokio::select! {
                () = tokio::time::sleep_until(ends.unwrap_or(next).min(next)) => {}
                _ = changed.changed() => {}
                _ = commits.changed() => {}
            }
        }
    }

    /// Refuses what only the leader may write, unless this process leads.
    fn check_leads(&self) -> Result<(), StoreError> {
        let standing = self.standing.borrow().clone();
        let first = self.shared.fleet().seats.keys().next().copied();
        if standing.role(Instant::now()) == Role::Leader && first == standing.joined {
            Ok(())
        } else {
            Err(StoreError::NotLeading)
        }
    }

    async fn tell_notes(&self, names: &str, sender: &mpsc::Sender<Heard>) {
        let mut changed = self.shared.changed.subscribe();
        let (mut heard, mut began) = (None, false);
        while !self.is_gone() {
            changed.mark_unchanged();
            let Some((news, latest)) = self.fleet().map(|fleet| fleet.news(heard)) else {
                heard = None;
                let _gone = changed.changed().await;
                continue;
            };
            heard = Some(latest);
            for told in news {
                let wanted = match &told {
                    Heard::Afresh => std::mem::replace(&mut began, true),
                    Heard::Note { member, name, .. } => *member != self.id && name.starts_with(names),
                };
                if wanted && sender.send(told).await.is_err() {
                    return;
                }
            }
            let _gone = changed.changed().await;
        }
    }
}

/// What the process has of its fleet.
struct Fleet(Arc<Me>);

#[async_trait]
impl Membership for Fleet {
    fn id(&self) -> MemberId {
        self.0.id.clone()
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.0.standing.subscribe()
    }

    async fn write(&self, notes: Vec<Note>) -> Result<u64, StoreError> {
        check_notes(&notes)?;
        let me = &self.0;
        me.reach()?;
        let no_member = || StoreError::Away { detail: "this process is no member of the fleet now".to_owned() };
        let mut fleet = me.fleet().ok_or_else(no_member)?;
        let joined = me.joined.lock().0.filter(|joined| fleet.seats.contains_key(joined)).ok_or_else(no_member)?;
        notes.into_iter().for_each(|note| fleet.put(joined, note));
        drop(fleet);
        me.shared.tell();
        Ok(joined)
    }

    fn follow(&self, names: &str) -> mpsc::Receiver<Heard> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (me, names) = (self.0.clone(), names.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = me.tell_notes(&names, &sender) => {}
            }
        });
        receiver
    }

    async fn stand_back(&self) {
        let me = &self.0;
        if let (Some(mut fleet), Some(joined)) = (me.fleet(), me.joined.lock().0) {
            fleet.end(joined);
        }
        me.shared.tell();
    }

    async fn leave(&self) {
        let me = &self.0;
        if let (Some(mut fleet), Some(joined)) = (me.fleet(), me.joined.lock().0) {
            fleet.end(joined);
        }
        me.gone.store(true, Ordering::Release);
        me.standing.send_modify(|standing| standing.joined = None);
        me.shared.tell();
    }
}

#[async_trait]
impl Store for MemberStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        let loaded = self.me.reach()?.load().await?;
        publish(&self.me.revision, loaded.revision);
        Ok(loaded)
    }

    async fn since(&self, revision: u64) -> Result<Option<News>, StoreError> {
        self.me.reach()?.since(revision).await
    }

    async fn get(&self, key: &DocumentKey) -> Result<Option<Document>, StoreError> {
        self.me.reach()?.get(key).await
    }

    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<(DocumentKey, u64)>, StoreError> {
        self.me.reach()?.list(prefix, after, limit).await
    }

    async fn commit(&self, commit: Commit) -> Result<u64, StoreError> {
        check_commit(&commit)?;
        let store = self.me.reach()?;
        if commit.leads {
            self.me.check_leads()?;
        }
        let revision = commit.revision;
        let answer = store.commit(commit).await;
        match &answer {
            Ok(_) => publish(&self.me.revision, revision),
            Err(StoreError::Conflict { found, .. }) => publish(&self.me.revision, *found),
            Err(_) => {}
        }
        answer
    }

    async fn append(&self, events: Vec<Event>) -> Result<u64, StoreError> {
        self.me.reach()?.append(events).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError> {
        self.me.reach()?.events(query).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let store = self.me.reach()?;
        store.ping().await?;
        publish(&self.me.revision, *store.watch().borrow());
        Ok(())
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.me.revision.subscribe()
    }

    fn membership(&self) -> Option<Arc<dyn Membership>> {
        Some(Arc::new(Fleet(self.me.clone())))
    }

    async fn close(&self) {
        self.me.closed.store(true, Ordering::Release);
        Fleet(self.me.clone()).leave().await;
    }
}

#[cfg(test)]
#[path = "memory_fleet_tests.rs"]
mod tests;
