//! The fleet in etcd: what every fleet must do, on a real etcd behind cables that can be cut; the fence; how fast it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::conformance::put;
use super::super::membership_suite::{self, Ground, Process, hear, note, started, until};
use super::super::{Heard, Role};
use super::cable::Cable;
use super::testing::Etcd;
use super::*;

/// Processes with a cable each to one etcd.
struct Cables(Etcd);

#[async_trait]
impl Ground for Cables {
    async fn start(&mut self) -> Process {
        let cable = Cable::to(self.0.port()).await;
        let access = Access { endpoints: vec![cable.url()], ..self.0.access() };
        let store = Arc::new(EtcdStore::open(access, KEEP_EVENTS));
        Process { fleet: store.membership().unwrap(), store, cut: Box::new(move |cut| cable.cut(cut)) }
    }
}

fn make() -> Cables {
    Cables(Etcd::start())
}

membership_suite::fleet_suite!(tokio::test, make);

/// A process whose store the test looks into.
async fn joined(etcd: &Etcd) -> Arc<EtcdStore> {
    let store = Arc::new(etcd.store());
    until("joins", || store.inner.me.place().is_some()).await;
    store
}

#[tokio::test]
async fn the_fence_holds_although_the_leader_knows_nothing_yet() {
    let etcd = Etcd::start();
    let one = joined(&etcd).await;
    let two = joined(&etcd).await;
    one.commit(Commit { leads: true, ..put(0, 1, "a") }).await.unwrap();
    // It hears nothing more, and its lease ends.
    one.fleet_tasks.iter().for_each(AbortHandle::abort);
    let place = one.inner.me.place().unwrap();
    etcd.client().await.lease_revoke(place.lease).await.unwrap();
    assert_eq!(one.inner.me.leading(), Some(place.joined), "it believes to lead");
    let refused = one.commit(Commit { leads: true, ..put(1, 2, "a") }).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotLeading), "{refused}");
    let refused = one.fleet.write(vec![note("n", "x")]).await.unwrap_err();
    assert!(refused.to_string().contains("no member of the fleet"), "{refused}");
    one.commit(put(1, 2, "b")).await.unwrap();
    until("another one leads", || two.inner.me.leading().is_some()).await;
    two.commit(Commit { leads: true, ..put(2, 3, "a") }).await.unwrap();
    // Also what is too large for one transaction, and it leaves nothing behind.
    let large = Commit { leads: true, ..testing::many(3, 4, 0..200, "x") };
    let refused = one.commit(large.clone()).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotLeading), "{refused}");
    assert_eq!(testing::keys_of(&etcd, "staging").await, 0);
    two.commit(large).await.unwrap();
    assert_eq!(two.load().await.unwrap().revision, 4);
}

#[tokio::test]
async fn a_late_write_of_a_note_never_comes_after_a_newer_one() {
    let etcd = Etcd::start();
    let cable = Cable::to(etcd.port()).await;
    let access = Access { endpoints: vec![cable.url()], ..etcd.access() };
    let one = EtcdStore::open(access, KEEP_EVENTS);
    until("joins", || one.inner.me.place().is_some()).await;
    let two = joined(&etcd).await;
    let mut follow = two.fleet.follow("n");
    one.fleet.write(vec![note("n", "0")]).await.unwrap();
    hear(&mut follow).await;
    // Short cuts, after which what was on the way arrives; the lease survives them.
    for round in 1..=3 {
        cable.cut(true);
        let lost = tokio::time::timeout(Duration::from_millis(300), one.fleet.write(vec![note("n", "late")])).await;
        assert!(lost.is_err(), "nothing passes");
        let newer = note("n", &round.to_string());
        let (written, ()) = tokio::join!(one.fleet.write(vec![newer]), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cable.cut(false);
        });
        written.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let last = std::iter::from_fn(|| follow.try_recv().ok()).last().unwrap();
        let Heard::Note { body: Some(body), .. } = last else { panic!("{last:?}") };
        assert_eq!(String::from_utf8(body).unwrap(), round.to_string());
    }
}

#[tokio::test]
async fn a_card_that_somebody_removed_by_hand_is_put_again() {
    let etcd = Etcd::start();
    let one = joined(&etcd).await;
    let before = one.inner.me.place().unwrap();
    one.fleet.write(vec![note("n", "x")]).await.unwrap();
    etcd.client().await.delete(one.inner.keys.note(members::CARD, &one.inner.me.id), None).await.unwrap();
    until("joins again", || one.inner.me.place().is_some_and(|place| place.joined > before.joined)).await;
    assert_eq!(testing::keys_of(&etcd, "member").await, 1, "the old notes went with the old lease");
}

#[tokio::test]
async fn a_note_is_heard_within_milliseconds() {
    let etcd = Etcd::start();
    let mut ground = Cables(etcd);
    let all = started(&mut ground, 2).await;
    let mut follow = all[1].fleet.follow("n");
    let mut delays = Vec::new();
    for n in 0..400 {
        let began = Instant::now();
        let notes = vec![note("n", &format!("{n} {}", "x".repeat(2_000)))];
        let (written, _) = tokio::join!(all[0].fleet.write(notes), hear(&mut follow));
        written.unwrap();
        delays.push(began.elapsed());
    }
    delays.sort();
    let (median, slowest) = (delays[200], delays[395]);
    println!("a note of 2 kB is heard after {median:?}, p99 {slowest:?}");
    assert!(median < Duration::from_millis(50), "{median:?}");
    assert_eq!(all[0].role(), Role::Leader);
}

#[tokio::test]
async fn the_leader_compacts_and_whoever_listens_loses_nothing() {
    let etcd = Etcd::start();
    let one = joined(&etcd).await;
    let two = joined(&etcd).await;
    let old = one.inner.see().await.unwrap().at;
    let mut follow = one.fleet.follow("n");
    let is_gone = async || {
        let options = etcd_client::GetOptions::new().with_revision(old);
        one.inner.link.get("/switchback/manifest", options).await.is_err_and(|trouble| trouble == Trouble::Compacted)
    };
    let compacting = |store: &Arc<EtcdStore>| {
        let inner = store.inner.clone();
        tokio::spawn(async move { inner.keep_compact(Duration::from_millis(100)).await })
    };
    let follower = compacting(&two);
    let mut leader = None;
    for n in 0..60 {
        assert!(n >= 20 || !is_gone().await, "who does not lead compacts nothing");
        if n == 20 {
            leader = Some(compacting(&one));
        }
        two.fleet.write(vec![note("n", &n.to_string())]).await.unwrap();
        let Heard::Note { body: Some(body), .. } = hear(&mut follow).await else { panic!("nothing was missed") };
        assert_eq!(String::from_utf8(body).unwrap(), n.to_string());
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    assert!(is_gone().await);
    follower.abort();
    leader.unwrap().abort();
}
