//! The fleet in etcd: who is there, and the notes of this process.
//!
//! A note stands under `member/`, its name and the member's name, and ends with the lease of its writer. The note `card`
//! makes a member: its key is created when it joins and never again before it is gone.
//!
//! **Who leads.** The member whose card was created first. etcd's revisions only grow, so nobody can ever join before
//! it: once it leads, it leads exactly as long as its own card stands. That is why a commit that only the leader may make
//! compares nothing but the own card's creation (see `write`). To know that it leads, a process must have seen all who
//! joined before it. So it takes itself for a member only when its own card shows up in the roster, which is then no
//! older than that.
//!
//! **Late writes of notes.** A write that got no answer may still happen, but never after a newer one: each compares and
//! replaces the member's *pen*, a key beside the notes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::super::error::StoreError;
use super::super::membership::{Heard, Member, MemberId, Membership, Note, Role, Standing, check_notes};
use super::layout::Keys;
use super::link::{CALL, Link, Trouble};
use super::{Access, Inner};

/// The note that makes a member.
pub const CARD: &str = "card";
/// Most notes of one transaction; the pen is one more.
const BATCH: usize = 99;
/// Most bytes of one transaction, of the 1.5 MiB that etcd takes.
const BATCH_BYTES: usize = 1 << 20;
/// How often one transaction is tried.
const ATTEMPTS: usize = 4;
/// Changes that wait for somebody who follows.
const QUEUE: usize = 256;

/// As what this process belongs to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The lease that its notes end with.
    pub lease: i64,
    /// etcd's revision at which its card was created.
    pub joined: i64,
}

/// What is known of the fleet.
pub struct Known {
    /// In the order in which they joined.
    pub members: Arc<Vec<Member>>,
    /// Whether the members are those at this revision of etcd or a later one.
    pub at: i64,
    /// The card that was put, whether it is seen among the members or not.
    pub place: Option<Place>,
    pub sure_until: Instant,
}

/// This process as a member.
pub struct Me {
    pub id: MemberId,
    known: Mutex<Known>,
    standing: watch::Sender<Standing>,
    /// The latest lease.
    pub granted: Mutex<Option<i64>>,
    /// Told when the roster misses our card.
    pub vanished: Notify,
    pub leaving: watch::Sender<bool>,
    pub left: watch::Sender<bool>,
    /// The latest membership in which notes were written, and etcd's revision of the pen.
    pen: tokio::sync::Mutex<(i64, i64)>,
}

impl Me {
    /// Nobody yet.
    pub fn new() -> Self {
        let known = Known { members: Arc::default(), at: 0, place: None, sure_until: Instant::now() };
        Self {
            id: fresh_id().into(),
            known: Mutex::new(known),
            standing: watch::Sender::new(Standing::unknown()),
            granted: Mutex::new(None),
            vanished: Notify::new(),
            leaving: watch::Sender::new(false),
            left: watch::Sender::new(false),
            pen: tokio::sync::Mutex::new((0, 0)),
        }
    }

    /// Changes what is known, and tells it.
    pub fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock();
        change(&mut known);
        let joined = known.place.filter(|place| known.has(&self.id, *place)).map(|place| place.joined as u64);
        let (members, sure_until) = (known.members.clone(), known.sure_until);
        if known.place.is_some_and(|place| joined.is_none() && place.joined <= known.at) {
            self.vanished.notify_one();
        }
        // Under the lock, so that what is told last is what was known last.
        self.standing.send_replace(Standing { members, joined, sure_until });
    }

    /// Whether the roster, no older than that membership, misses its card.
    pub fn is_gone(&self, place: Place) -> bool {
        let known = self.known.lock();
        place.joined <= known.at && !known.has(&self.id, place)
    }

    /// The membership that the roster shows.
    pub fn place(&self) -> Option<Place> {
        let known = self.known.lock();
        known.place.filter(|place| known.has(&self.id, *place))
    }

    /// The condition that this process is the member that joined at that revision.
    pub fn is_member(&self, keys: &Keys, joined: i64) -> Compare {
        Compare::create_revision(keys.note(CARD, &self.id), CompareOp::Equal, joined)
    }

    /// The membership as the leader.
    pub fn leading(&self) -> Option<i64> {
        let leads = self.standing.borrow().role(Instant::now()) == Role::Leader;
        self.place().filter(|_| leads).map(|place| place.joined)
    }
}

impl Known {
    fn has(&self, id: &MemberId, place: Place) -> bool {
        self.members.iter().any(|member| member.id == *id && member.joined == place.joined as u64)
    }
}

/// The name of this process: nobody else has or had it.
fn fresh_id() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let host: String = host.chars().take(64).map(plain).collect();
    format!("{host}-{}-{:08x}", std::process::id(), rand::random::<u32>())
}

/// The fleet as this process sees it.
pub struct Fleet {
    pub inner: Arc<Inner>,
    pub me: Arc<Me>,
    /// The connection of the lease: no other call may hold it up.
    pub line: Link,
}

impl Fleet {
    /// Begins to join.
    pub fn start(inner: &Arc<Inner>, access: Access) -> (Arc<Self>, Vec<AbortHandle>) {
        let fleet = Arc::new(Self { inner: inner.clone(), me: inner.me.clone(), line: Link::new(access) });
        let (belonging, looking) = (fleet.clone(), fleet.clone());
        let tasks = vec![
            tokio::spawn(async move { belonging.belong().await }).abort_handle(),
            tokio::spawn(async move { looking.keep_roster().await }).abort_handle(),
        ];
        (fleet, tasks)
    }

    /// Writes notes in one transaction.
    async fn write_batch(&self, place: Place, notes: &[Note], pen: &mut i64) -> Result<(), StoreError> {
        let keys = &self.inner.keys;
        let (card, pen_key) = (keys.note(CARD, &self.me.id), keys.pen(&self.me.id));
        let leased = || Some(PutOptions::new().with_lease(place.lease));
        let operations = notes.iter().map(|note| {
            let key = keys.note(&note.name, &self.me.id);
            match &note.body {
                Some(body) => TxnOp::put(key, body.as_slice(), leased()),
                // Without its key it would be no member.
                None if note.name == CARD => TxnOp::put(key, "", leased()),
                None => TxnOp::delete(key, None),
            }
        });
        let mut operations: Vec<_> = operations.collect();
        operations.push(TxnOp::put(pen_key.as_str(), "", leased()));
        for _ in 0..ATTEMPTS {
            let member = self.me.is_member(keys, place.joined);
            let latest = Compare::mod_revision(pen_key.as_str(), CompareOp::Equal, *pen);
            let looks = [TxnOp::get(card.as_str(), None), TxnOp::get(pen_key.as_str(), None)];
            let txn = Txn::new().when([member, latest]).and_then(operations.clone()).or_else(looks);
            let answer = self.inner.link.repeatable(txn).await.map_err(|trouble| self.refusal(trouble))?;
            if answer.succeeded() {
                *pen = answer.header().map_or(0, |header| header.revision());
                self.inner.full.store(false, Ordering::Release);
                return Ok(());
            }
            let mut found = answer.op_responses().into_iter().map(|response| match response {
                TxnOpResponse::Get(mut get) => get.take_kvs().pop(),
                _ => None,
            });
            if found.next().flatten().is_none_or(|card| card.create_revision() != place.joined) {
                return Err(no_member());
            }
            *pen = found.next().flatten().map_or(0, |pen| pen.mod_revision());
        }
        Err(StoreError::Away { detail: "earlier notes of this process come late".to_owned() })
    }

    fn refusal(&self, trouble: Trouble) -> StoreError {
        match trouble {
            // The lease ended, and its keys are about to be removed.
            Trouble::Refused(why) if why.contains("lease not found") => no_member(),
            trouble => self.inner.error(trouble),
        }
    }
}

fn no_member() -> StoreError {
    StoreError::Away { detail: "this process is no member of the fleet now".to_owned() }
}

#[async_trait]
impl Membership for Fleet {
    fn id(&self) -> MemberId {
        self.me.id.clone()
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.me.standing.subscribe()
    }

    async fn write(&self, notes: Vec<Note>) -> Result<u64, StoreError> {
        self.inner.check_open()?;
        check_notes(&notes)?;
        let mut pen = self.me.pen.lock().await;
        let place = self.me.place().ok_or_else(no_member)?;
        if pen.0 != place.joined {
            *pen = (place.joined, 0);
        }
        let mut rest = notes.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(BATCH).take_while(|note| {
                bytes += note.name.len() + note.body.as_ref().map_or(0, Vec::len);
                bytes <= BATCH_BYTES
            });
            let (batch, later) = rest.split_at(fits.count().max(1));
            self.write_batch(place, batch, &mut pen.1).await?;
            rest = later;
        }
        Ok(place.joined as u64)
    }

    fn follow(&self, names: &str) -> mpsc::Receiver<Heard> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (inner, me, names) = (self.inner.clone(), self.me.clone(), names.to_owned());
        tokio::spawn(async move {
            let mut leaving = me.leaving.subscribe();
            tokio::select! {
                _ = leaving.wait_for(|leaving| *leaving) => {}
                () = sender.closed() => {}
                () = inner.tell_notes(&names, sender.clone()) => {}
            }
        });
        receiver
    }

    async fn stand_back(&self) {
        // Whoever keeps it alive sees that it ended, and joins again.
        if let Some(place) = self.me.place()
            && let Err(trouble) = self.line.revoke(place.lease).await
        {
            tracing::debug!(?trouble, "this process keeps its place in the fleet for now");
        }
    }

    async fn leave(&self) {
        self.me.leaving.send_replace(true);
        let mut left = self.me.left.subscribe();
        // Its task may have been stopped already; then the lease ends by itself.
        let _left_or_late = tokio::time::timeout(3 * CALL, left.wait_for(|left| *left)).await;
    }
}
