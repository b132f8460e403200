//! Who belongs to the fleet in memory, and their notes.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::membership::{Heard, Member, MemberId, Note};

/// Changes that are remembered for those who follow slowly.
const LOG: usize = 10_000;
/// The note that others see among the members.
pub const CARD: &str = "card";

/// Who is there, and what they tell.
#[derive(Debug, Default)]
pub struct Seats {
    /// By when they joined.
    pub seats: BTreeMap<u64, Seat>,
    /// The latest number given to a member.
    pub joined: u64,
    /// How many processes there ever were.
    pub processes: u64,
    /// The last changes of notes.
    log: VecDeque<Heard>,
    /// How many changes came before those.
    forgotten: u64,
    pub down: bool,
}

/// One member.
#[derive(Debug)]
pub struct Seat {
    pub id: MemberId,
    pub ends: Instant,
    pub notes: BTreeMap<String, Vec<u8>>,
}

impl Seats {
    /// Somebody whose lease has ended.
    pub fn late(&self, now: Instant) -> Option<u64> {
        self.seats.iter().find(|(_, seat)| !self.down && seat.ends <= now).map(|(joined, _)| *joined)
    }

    /// Ends a membership.
    pub fn end(&mut self, joined: u64) {
        let Some(seat) = self.seats.remove(&joined) else { return };
        for name in seat.notes.into_keys() {
            self.log(Heard::Note { member: seat.id.clone(), name, body: None });
        }
    }

    fn log(&mut self, heard: Heard) {
        self.log.push_back(heard);
        if self.log.len() > LOG {
            self.log.pop_front();
            self.forgotten += 1;
        }
    }

    /// Writes a note of a member, or removes it.
    pub fn put(&mut self, joined: u64, note: Note) {
        let Some(seat) = self.seats.get_mut(&joined) else { return };
        let body = match note.body {
            // Without a card it would be no member.
            None if note.name == CARD => Some(Vec::new()),
            body => body,
        };
        let member = seat.id.clone();
        match &body {
            Some(body) => drop(seat.notes.insert(note.name.clone(), body.clone())),
            None if seat.notes.remove(&note.name).is_none() => return,
            None => {}
        }
        self.log(Heard::Note { member, name: note.name, body });
    }

    /// The members in the order in which they joined.
    pub fn members(&self) -> Vec<Member> {
        let member = |(joined, seat): (&u64, &Seat)| {
            let card = seat.notes.get(CARD).cloned().unwrap_or_default();
            Member { id: seat.id.clone(), joined: *joined, card }
        };
        self.seats.iter().map(member).collect()
    }

    /// What those who heard `heard` changes have to hear next: all that stands, or the changes since.
    pub fn news(&self, heard: Option<u64>) -> (Vec<Heard>, u64) {
        let latest = self.forgotten + self.log.len() as u64;
        let known = heard.and_then(|heard| heard.checked_sub(self.forgotten)).and_then(|n| usize::try_from(n).ok());
        if let Some(known) = known {
            return (self.log.iter().skip(known).cloned().collect(), latest);
        }
        let note = |seat: &Seat| {
            let member = seat.id.clone();
            let notes = seat.notes.clone().into_iter();
            notes.map(move |(name, body)| Heard::Note { member: member.clone(), name, body: Some(body) })
        };
        let stands = self.seats.values().flat_map(note);
        (std::iter::once(Heard::Afresh).chain(stands).collect(), latest)
    }
}
