//! What every fleet must do, tested once for all of them: `fleet_suite!` makes a test of each function.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::conformance::put;
use super::{Heard, MemberId, Membership, Note, Role, Standing, Store, StoreError};
use crate::model::Commit;

/// One process of a fleet, which can be cut off from all others.
pub struct Process {
    pub store: Arc<dyn Store>,
    pub fleet: Arc<dyn Membership>,
    pub cut: Box<dyn Fn(bool) + Send + Sync>,
}

/// Where processes start.
#[async_trait::async_trait]
pub trait Ground: Send {
    /// Starts one; it joins by itself.
    async fn start(&mut self) -> Process;
}

/// Tests the fleets on the ground that `$make` makes.
macro_rules! fleet_suite {
    ($attribute:meta, $make:path) => {
        membership_suite::fleet_suite!($attribute, $make:
            who_joined_first_leads the_next_leads_when_the_leader_is_cut_off notes_are_told_and_told_again
            notes_vanish_with_their_writer who_missed_something_hears_everything_again
            who_was_taken_for_gone_joins_anew only_the_leader_writes_what_is_the_leaders
            who_leaves_hands_over_at_once who_stands_back_joins_again_behind_the_others
            nonsense_is_no_note);
    };
    ($attribute:meta, $make:path: $($name:ident)*) => {
        $(#[$attribute]
        async fn $name() {
            let mut ground = $make();
            membership_suite::$name(&mut ground).await;
        })*
    };
}
pub(super) use fleet_suite;

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

impl Process {
    pub fn standing(&self) -> Standing {
        self.fleet.standing().borrow().clone()
    }

    pub fn role(&self) -> Role {
        self.standing().role(Instant::now())
    }

    pub fn joined(&self) -> Option<u64> {
        self.standing().joined
    }
}

/// Waits until something is so, and tells how long that took.
pub async fn until(what: &str, mut is: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

/// That many processes, one after the other.
pub async fn started(ground: &mut dyn Ground, count: usize) -> Vec<Process> {
    let mut all: Vec<Process> = Vec::new();
    for n in 0..count {
        all.push(ground.start().await);
        until("joins", || all.iter().all(|p| p.joined().is_some() && p.standing().members.len() == n + 1)).await;
    }
    all
}

pub fn note(name: &str, body: &str) -> Note {
    Note { name: name.to_owned(), body: Some(body.as_bytes().to_vec()) }
}

fn told(member: &MemberId, name: &str, body: Option<&str>) -> Heard {
    let body = body.map(|body| body.as_bytes().to_vec());
    Heard::Note { member: member.clone(), name: name.to_owned(), body }
}

pub async fn hear(receiver: &mut mpsc::Receiver<Heard>) -> Heard {
    tokio::time::timeout(LONG, receiver.recv()).await.expect("somebody should tell").expect("somebody should follow")
}

async fn hears(receiver: &mut mpsc::Receiver<Heard>, mut wanted: Vec<Heard>) {
    let mut found = Vec::new();
    while found.len() < wanted.len() {
        found.push(hear(receiver).await);
    }
    // Of different names nobody says which comes first.
    found.sort_by_key(|heard| format!("{heard:?}"));
    wanted.sort_by_key(|heard| format!("{heard:?}"));
    assert_eq!(found, wanted);
}

fn leads(expected: u64) -> Commit {
    Commit { leads: true, ..put(expected, expected + 1, "a") }
}

pub async fn who_joined_first_leads(ground: &mut dyn Ground) {
    let all = started(ground, 4).await;
    assert_eq!(
        all.iter().map(Process::role).collect::<Vec<_>>(),
        [Role::Leader, Role::Standby, Role::Follower, Role::Follower]
    );
    let joined: Vec<_> = all.iter().map(|p| p.joined().unwrap()).collect();
    assert!(joined.is_sorted_by(|a, b| a < b), "{joined:?}");
    let ids: Vec<_> = all.iter().map(|p| p.fleet.id()).collect();
    for process in &all {
        let standing = process.standing();
        let known: Vec<_> = standing.members.iter().map(|m| (m.id.clone(), m.joined)).collect();
        assert_eq!(known, ids.iter().cloned().zip(joined.iter().copied()).collect::<Vec<_>>());
        assert_eq!(standing.leader().unwrap().id, ids[0]);
        assert!(standing.members.iter().all(|m| m.card.is_empty()));
    }
    // A card is what others know of a member, and it may change without anybody joining anew.
    for text in ["first", "second"] {
        assert_eq!(all[1].fleet.write(vec![note("card", text)]).await.unwrap(), joined[1]);
        until("the card is seen", || {
            all.iter().all(|p| p.standing().members.iter().any(|m| m.joined == joined[1] && m.card == text.as_bytes()))
        })
        .await;
    }
    assert_eq!(all[1].fleet.write(vec![Note { name: "card".to_owned(), body: None }]).await.unwrap(), joined[1]);
    until("no card is no reason to go", || all[0].standing().members[1].card.is_empty()).await;
    assert_eq!(all[1].role(), Role::Standby);
}

pub async fn the_next_leads_when_the_leader_is_cut_off(ground: &mut dyn Ground) {
    let all = started(ground, 3).await;
    let before = all[0].joined();
    (all[0].cut)(true);
    let mut both = false;
    let took = until("another one leads", || {
        let led = all[0].role() == Role::Leader;
        let leads = all[1].role() == Role::Leader;
        both |= led && leads;
        leads
    })
    .await;
    println!("another one leads after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!both, "the old leader gave up before");
    assert_eq!(all[0].role(), Role::Alone);
    until("the third is next", || all[2].role() == Role::Standby).await;
    (all[0].cut)(false);
    until("comes back as the last", || all[0].role() == Role::Follower).await;
    assert!(all[0].joined() > before);
    assert_eq!((all[1].role(), all[2].role()), (Role::Leader, Role::Standby));
}

pub async fn notes_are_told_and_told_again(ground: &mut dyn Ground) {
    let all = started(ground, 2).await;
    let (one, two) = (all[0].fleet.id(), all[1].fleet.id());
    all[0].fleet.write(vec![note("counts/1", "a"), note("counts/2", "b"), note("other", "c")]).await.unwrap();
    all[1].fleet.write(vec![note("counts/1", "own")]).await.unwrap();
    let mut some = all[1].fleet.follow("counts/");
    let mut every = all[1].fleet.follow("");
    hears(&mut some, vec![told(&one, "counts/1", Some("a")), told(&one, "counts/2", Some("b"))]).await;
    let stands = [("card", ""), ("counts/1", "a"), ("counts/2", "b"), ("other", "c")];
    hears(&mut every, stands.map(|(name, body)| told(&one, name, Some(body))).to_vec()).await;

    let removed = Note { name: "counts/1".to_owned(), body: None };
    all[0].fleet.write(vec![removed, note("counts/2", "d"), note("count", "e")]).await.unwrap();
    hears(&mut some, vec![told(&one, "counts/1", None), told(&one, "counts/2", Some("d"))]).await;
    let changes = vec![told(&one, "counts/1", None), told(&one, "counts/2", Some("d")), told(&one, "count", Some("e"))];
    hears(&mut every, changes).await;
    // The other direction, and many notes in one call.
    let mut other = all[0].fleet.follow("counts");
    hears(&mut other, vec![told(&two, "counts/1", Some("own"))]).await;
    let many = |text: &str| (0..250).map(|n| note(&format!("counts/{n:03}"), text)).collect::<Vec<_>>();
    let heard = |text: &str| (0..250).map(|n| told(&two, &format!("counts/{n:03}"), Some(text))).collect::<Vec<_>>();
    let large = "x".repeat(30_000);
    for text in ["y", &large] {
        let (written, ()) = tokio::join!(all[1].fleet.write(many(text)), hears(&mut other, heard(text)));
        written.unwrap();
    }
    assert!(some.try_recv().is_err(), "own notes are not told");
}

pub async fn notes_vanish_with_their_writer(ground: &mut dyn Ground) {
    let all = started(ground, 2).await;
    let one = all[0].fleet.id();
    let names: Vec<_> = (0..120).map(|n| format!("n/{n}")).collect();
    all[0].fleet.write(names.iter().map(|name| note(name, "x")).collect()).await.unwrap();
    let mut follow = all[1].fleet.follow("n/");
    hears(&mut follow, names.iter().map(|name| told(&one, name, Some("x"))).collect()).await;
    (all[0].cut)(true);
    hears(&mut follow, names.iter().map(|name| told(&one, name, None)).collect()).await;
}

pub async fn who_missed_something_hears_everything_again(ground: &mut dyn Ground) {
    let all = started(ground, 2).await;
    let one = all[0].fleet.id();
    all[0].fleet.write(vec![note("n/1", "a"), note("n/2", "b")]).await.unwrap();
    let mut follow = all[1].fleet.follow("n/");
    hears(&mut follow, vec![told(&one, "n/1", Some("a")), told(&one, "n/2", Some("b"))]).await;
    (all[1].cut)(true);
    until("is cut off", || all[1].role() == Role::Alone).await;
    all[0].fleet.write(vec![Note { name: "n/1".to_owned(), body: None }, note("n/3", "c")]).await.unwrap();
    (all[1].cut)(false);
    // Whatever is told on the way: who applies it all knows what stands.
    let mut known =
        std::collections::BTreeMap::from([("n/1".to_owned(), b"a".to_vec()), ("n/2".to_owned(), b"b".to_vec())]);
    let wanted =
        std::collections::BTreeMap::from([("n/2".to_owned(), b"b".to_vec()), ("n/3".to_owned(), b"c".to_vec())]);
    while known != wanted {
        match hear(&mut follow).await {
            Heard::Afresh => known.clear(),
            Heard::Note { name, body: Some(body), .. } => drop(known.insert(name, body)),
            Heard::Note { name, body: None, .. } => drop(known.remove(&name)),
        }
    }
}

pub async fn who_was_taken_for_gone_joins_anew(ground: &mut dyn Ground) {
    let all = started(ground, 2).await;
    let (two, before) = (all[1].fleet.id(), all[1].joined());
    assert_eq!(Some(all[1].fleet.write(vec![note("n", "old")]).await.unwrap()), before);
    let mut follow = all[0].fleet.follow("n");
    hears(&mut follow, vec![told(&two, "n", Some("old"))]).await;
    (all[1].cut)(true);
    until("is gone", || all[0].standing().members.len() == 1).await;
    hears(&mut follow, vec![told(&two, "n", None)]).await;
    let error = all[1].fleet.write(vec![note("n", "lost")]).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    (all[1].cut)(false);
    until("joins again", || all[1].joined().is_some_and(|joined| Some(joined) > before)).await;
    assert_eq!(Some(all[1].fleet.write(vec![note("n", "new")]).await.unwrap()), all[1].joined());
    hears(&mut follow, vec![told(&two, "n", Some("new"))]).await;
    until("is known again", || all[0].standing().members.len() == 2).await;
    assert_eq!(all[0].role(), Role::Leader);
}

pub async fn only_the_leader_writes_what_is_the_leaders(ground: &mut dyn Ground) {
    let all = started(ground, 2).await;
    all[0].store.commit(leads(0)).await.unwrap();
    let refused = all[1].store.commit(leads(1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotLeading), "{refused}");
    assert!(refused.is_temporary());
    all[1].store.commit(put(1, 2, "b")).await.unwrap();
    // Nothing else changes while the leadership does.
    (all[0].cut)(true);
    until("another one leads", || all[1].role() == Role::Leader).await;
    (all[0].cut)(false);
    until("comes back", || all[0].role() == Role::Standby).await;
    let refused = all[0].store.commit(leads(2)).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotLeading), "{refused}");
    assert_eq!(all[1].store.load().await.unwrap().revision, 2);
    all[1].store.commit(leads(2)).await.unwrap();
    let stale = all[1].store.commit(leads(2)).await.unwrap_err();
    assert!(matches!(stale, StoreError::Conflict { expected: 2, found: 3 }), "{stale}");
}

pub async fn who_leaves_hands_over_at_once(ground: &mut dyn Ground) {
    let all = started(ground, 3).await;
    let mut follow = all[2].fleet.follow("n");
    all[0].fleet.write(vec![note("n", "x")]).await.unwrap();
    hears(&mut follow, vec![told(&all[0].fleet.id(), "n", Some("x"))]).await;
    let began = Instant::now();
    all[0].fleet.leave().await;
    assert_eq!(all[0].role(), Role::Alone);
    until("another one leads", || all[1].role() == Role::Leader).await;
    println!("handed over after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    hears(&mut follow, vec![told(&all[0].fleet.id(), "n", None)]).await;
    assert!(all[0].fleet.write(vec![note("n", "y")]).await.is_err());
    all[0].store.load().await.unwrap();
    all[0].fleet.leave().await;
    // Closing leaves, too.
    let began = Instant::now();
    all[1].store.close().await;
    until("the last one leads", || all[2].role() == Role::Leader).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

pub async fn who_stands_back_joins_again_behind_the_others(ground: &mut dyn Ground) {
    let all = started(ground, 3).await;
    let before = all[0].fleet.standing().borrow().joined;
    all[0].fleet.stand_back().await;
    until("another one leads", || all[1].role() == Role::Leader).await;
    until("it is the last", || all[0].role() == Role::Follower).await;
    let after = all[0].fleet.standing().borrow().joined;
    assert!(after > before, "{before:?} {after:?}");
    assert_eq!(all[2].role(), Role::Standby);
    assert_eq!(all[0].fleet.write(vec![note("n", "x")]).await.ok(), after);
}

pub async fn nonsense_is_no_note(ground: &mut dyn Ground) {
    let all = started(ground, 1).await;
    let large = "x".repeat((64 << 10) + 1);
    for (name, body) in [("", "x"), ("a b", "x"), ("/a", "x"), ("a//b", "x"), ("ü", "x"), ("a", large.as_str())] {
        let error = all[0].fleet.write(vec![note("good", "x"), note(name, body)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{name:?}: {error}");
    }
    all[0].fleet.write(vec![note("a", &large[1..])]).await.unwrap();
    all[0].fleet.write(vec![]).await.unwrap();
}
