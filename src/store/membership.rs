//! What the members of a fleet tell each other while they live: who is there, who leads, and notes of what each saw.
//!
//! Notes are not state. Each belongs to the member that wrote it, and is gone when that member is. Membership is not
//! mutual exclusion either: a member that was frozen may believe to lead when another one does already. So whatever only
//! the leader may write is a commit that says so ([`Commit::leads`](crate::model::Commit::leads)), and the store refuses
//! it to everyone else.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::StoreError;

/// Name of a member: another one for each process that ever lived.
pub type MemberId = Arc<str>;

/// Something that a member tells the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is called among the member's notes, such as `card` or `counts/003`: ASCII letters, digits, `-` and `/`.
    pub name: String,
    /// What it says; none removes it. Up to 64 KiB.
    pub body: Option<Vec<u8>>,
}

/// Most bytes of a note's body.
const LARGEST_NOTE: usize = 64 << 10;

/// Refuses notes that no fleet could keep.
pub(super) fn check_notes(notes: &[Note]) -> Result<(), StoreError> {
    for Note { name, body } in notes {
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let detail = if name.split('/').all(plain) {
            let size = body.as_ref().map_or(0, Vec::len);
            (size > LARGEST_NOTE)
                .then(|| format!("the note {name:?} has {size} bytes, up to {LARGEST_NOTE} are allowed"))
        } else {
            Some(format!("a note is called {name:?}, allowed are ASCII letters, digits and - between single /"))
        };
        if let Some(detail) = detail {
            return Err(StoreError::Invalid { detail });
        }
    }
    Ok(())
}

/// One process of a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub id: MemberId,
    /// When it joined, as a number that grows with each who joins.
    pub joined: u64,
    /// The body of its note `card`; empty until it wrote one.
    pub card: Vec<u8>,
}

/// How this process stands in its fleet.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The members in the order in which they joined, as far as this process knows.
    pub members: Arc<Vec<Member>>,
    /// As which member this process belongs to them: the `joined` of it; none: it does not.
    pub joined: Option<u64>,
    /// Until then nobody takes this process for gone. In the past: it may be cut off, and another one may lead.
    pub sure_until: Instant,
}

/// What a process has to do for its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It judges what all members saw, and advances.
    Leader,
    /// It knows what all members saw, and leads when the leader is gone.
    Standby,
    /// It tells what it saw.
    Follower,
    /// It is cut off from the others, and looks after its own requests.
    Alone,
}

impl Role {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Standby => "standby",
            Self::Follower => "follower",
            Self::Alone => "alone",
        }
    }
}

impl Standing {
    /// Nobody is known yet.
    pub fn unknown() -> Self {
        Self { members: Arc::default(), joined: None, sure_until: Instant::now() }
    }

    /// What this process has to do now. The member that joined first leads.
    pub fn role(&self, now: Instant) -> Role {
        let Some(joined) = self.joined.filter(|_| now < self.sure_until) else { return Role::Alone };
        match self.members.iter().filter(|member| member.joined < joined).count() {
            0 => Role::Leader,
            1 => Role::Standby,
            _ => Role::Follower,
        }
    }

    /// The leader, as far as this process knows.
    pub fn leader(&self) -> Option<&Member> {
        self.members.iter().min_by_key(|member| member.joined)
    }
}

/// A change of what others tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A member wrote a note.
    Note {
        /// Who.
        member: MemberId,
        /// The note's name.
        name: String,
        /// What it says now; none: it was removed, or the member is gone.
        body: Option<Vec<u8>>,
    },
    /// Something may have been missed; every note that stands now is told again after this.
    Afresh,
}

/// The fleet as one of its members sees it. It joins by itself when it can, and again after it was taken for gone.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// The name of this process.
    fn id(&self) -> MemberId;

    /// Who is there, and how this process stands. The card of a member is in here; other notes have to be followed.
    fn standing(&self) -> watch::Receiver<Standing>;

    /// Writes notes of this process, each of them whole, and answers as which member (see [`Standing::joined`]). Another
    /// one than before tells that the earlier notes are gone.
    ///
    /// # Errors
    /// [`StoreError`] when this process is no member now, or the store does not take it; some notes may be written then.
    async fn write(&self, notes: Vec<Note>) -> Result<u64, StoreError>;

    /// Tells of every note of the other members whose name begins with this text, first of those that stand and then of
    /// every change, until the receiver is dropped.
    fn follow(&self, names: &str) -> mpsc::Receiver<Heard>;

    /// Gives up its place and joins again, behind everybody else: for a process that cannot lead now.
    async fn stand_back(&self);

    /// Leaves: the notes are gone and another one leads at once.
    async fn leave(&self);
}
