//! Listening to notes: what stands is read at one revision of etcd, and the watch begins behind it.
//!
//! Whenever something is wrong, all is read again. Notes are rewritten within seconds anyway, and who resumes would have
//! to prove that nothing was missed: etcd may have removed its history, or may be another one than before.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::{EventType, GetOptions, KeyValue, WatchOptions};
use tokio::sync::mpsc;

use super::super::membership::{Heard, Member};
use super::Inner;
use super::follow::RETRY;
use super::link::Trouble;
use super::members::{CARD, Fleet};
use super::read::Pages;
use super::stream::Watch;

/// What is told.
enum Told<'a> {
    /// What was told before holds no more; everything that stands follows.
    Afresh,
    /// A note that stands, with its key's creation.
    Stands { name: &'a str, member: &'a str, kv: &'a KeyValue },
    /// A note that was removed.
    Gone { name: &'a str, member: &'a str },
    /// Everything up to that revision of etcd was told.
    Until(i64),
}

/// Somebody who listens.
#[async_trait]
trait Ear: Send {
    /// Hears it; whether it goes on listening.
    async fn hear(&mut self, told: Told<'_>) -> bool;
}

/// Why the listening stopped.
enum Stop {
    Unheard,
    Trouble(Trouble),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl Inner {
    /// Tells the notes of others until nobody listens.
    pub async fn tell_notes(&self, names: &str, sender: mpsc::Sender<Heard>) {
        let own = self.me.id.clone();
        self.listen(names, &mut Follower { sender, own: &own, names, began: false }).await;
    }

    async fn listen(&self, names: &str, ear: &mut impl Ear) {
        let mut retry = RETRY.0;
        loop {
            let mut watched = false;
            match self.listen_once(names, ear, &mut watched).await {
                Err(Stop::Unheard) => return,
                Err(Stop::Trouble(Trouble::Compacted)) => {}
                Err(Stop::Trouble(trouble)) => {
                    tracing::debug!(?trouble, names, "notes are read again");
                    retry = if watched { RETRY.0 } else { retry };
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY.1);
                }
            }
        }
    }

    /// Tells what stands and then what changes, until something is wrong.
    async fn listen_once(&self, names: &str, ear: &mut impl Ear, watched: &mut bool) -> Result<Infallible, Stop> {
        let (from, until) = self.keys.notes(names);
        let count = GetOptions::new().with_range(until.as_str()).with_count_only();
        let at = self.link.get(&from, count).await?.header().map_or(0, |header| header.revision());
        heard(ear.hear(Told::Afresh).await)?;
        let mut pages = Pages::new(from.clone(), until.clone(), at);
        while let Some(page) = pages.next(&self.link).await? {
            for kv in &page {
                if let Some((name, member)) = self.keys.note_of(kv.key()) {
                    heard(ear.hear(Told::Stands { name, member, kv }).await)?;
                }
            }
        }
        heard(ear.hear(Told::Until(at)).await)?;
        let mut watch = Watch::open(&self.link, &from, WatchOptions::new().with_range(until), at + 1).await?;
        loop {
            let events = watch.next().await?;
            *watched = true;
            let mut at = 0;
            for event in &events {
                let Some(kv) = event.kv() else { continue };
                at = at.max(kv.mod_revision());
                let Some((name, member)) = self.keys.note_of(kv.key()) else { continue };
                let told = match event.event_type() {
                    EventType::Put => Told::Stands { name, member, kv },
                    EventType::Delete => Told::Gone { name, member },
                };
                heard(ear.hear(told).await)?;
            }
            heard(ear.hear(Told::Until(at)).await)?;
        }
    }
}

fn heard(listens: bool) -> Result<(), Stop> {
    if listens { Ok(()) } else { Err(Stop::Unheard) }
}

/// Tells the notes of others whose names begin with a text.
struct Follower<'a> {
    sender: mpsc::Sender<Heard>,
    own: &'a str,
    names: &'a str,
    began: bool,
}

#[async_trait]
impl Ear for Follower<'_> {
    async fn hear(&mut self, told: Told<'_>) -> bool {
        let (name, member, body) = match told {
            // Nothing was told before the first time.
            Told::Afresh if !std::mem::replace(&mut self.began, true) => return true,
            Told::Afresh => return self.sender.send(Heard::Afresh).await.is_ok(),
            Told::Until(_) => return true,
            Told::Stands { name, member, kv } => (name, member, Some(kv.value().to_vec())),
            Told::Gone { name, member } => (name, member, None),
        };
        if member == self.own || !name.starts_with(self.names) {
            return true;
        }
        self.sender.send(Heard::Note { member: member.into(), name: name.to_owned(), body }).await.is_ok()
    }
}

/// Keeps the roster.
struct Roster<'a> {
    fleet: &'a Fleet,
    /// By their names.
    cards: BTreeMap<String, Member>,
}

#[async_trait]
impl Ear for Roster<'_> {
    async fn hear(&mut self, told: Told<'_>) -> bool {
        match told {
            // What is known stays known until all of the new is there.
            Told::Afresh => self.cards.clear(),
            Told::Stands { name, member, kv } if name == CARD => {
                let joined = u64::try_from(kv.create_revision()).unwrap_or(0);
                let card = Member { id: member.into(), joined, card: kv.value().to_vec() };
                self.cards.insert(member.to_owned(), card);
            }
            Told::Gone { name, member } if name == CARD => drop(self.cards.remove(member)),
            Told::Stands { .. } | Told::Gone { .. } => {}
            Told::Until(at) => {
                let mut members: Vec<_> = self.cards.values().cloned().collect();
                members.sort_by_key(|member| member.joined);
                self.fleet.me.change(|known| {
                    known.members = Arc::new(members);
                    known.at = at;
                });
            }
        }
        true
    }
}

impl Fleet {
    /// Knows who is there.
    pub async fn keep_roster(&self) {
        let cards = format!("{CARD}/");
        self.inner.listen(&cards, &mut Roster { fleet: self, cards: BTreeMap::new() }).await;
    }
}
