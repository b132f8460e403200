//! The fleet in memory: what every store and every fleet must do, in virtual time; and what tests do to it.

use super::super::conformance::{self, put};
use super::super::membership_suite::{self, Ground, Process, note, started, until};
use super::*;

fn make_store() -> (Arc<dyn Store>, ()) {
    (Arc::new(MemoryFleet::new().member("one")), ())
}

conformance::suite!(make_store);

#[async_trait]
impl Ground for MemoryFleet {
    async fn start(&mut self) -> Process {
        let store = Arc::new(self.member("m"));
        let cable = store.clone();
        Process { fleet: store.membership().unwrap(), store, cut: Box::new(move |cut| cable.cut(cut)) }
    }
}

membership_suite::fleet_suite!(tokio::test(start_paused = true), MemoryFleet::new);

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_reaches_nothing_and_hears_of_no_commit() {
    let mut fleet = MemoryFleet::new();
    let all = started(&mut fleet, 2).await;
    (all[0].cut)(true);
    assert!(matches!(all[0].store.load().await, Err(StoreError::Away { .. })));
    assert!(matches!(all[0].store.commit(put(0, 1, "a")).await, Err(StoreError::Away { .. })));
    all[1].store.commit(put(0, 1, "a")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*all[0].store.watch().borrow(), 0);
    (all[0].cut)(false);
    until("hears of it", || *all[0].store.watch().borrow() == 1).await;
    assert_eq!(fleet.store().load().await.unwrap().revision, 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_for_all_keeps_everything() {
    let mut fleet = MemoryFleet::new();
    let all = started(&mut fleet, 2).await;
    let joined: Vec<_> = all.iter().map(Process::joined).collect();
    all[0].fleet.write(vec![note("n", "x")]).await.unwrap();
    fleet.set_down(true);
    assert!(all[0].fleet.write(vec![note("n", "y")]).await.is_err());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(all.iter().all(|process| process.role() == Role::Alone));
    fleet.set_down(false);
    until("one leads", || all[0].role() == Role::Leader && all[1].role() == Role::Standby).await;
    assert_eq!(all.iter().map(Process::joined).collect::<Vec<_>>(), joined);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_is_missed_after_its_lease() {
    let fleet = MemoryFleet::new();
    let (one, two) = (fleet.member("one"), fleet.member("two"));
    let standing = two.membership().unwrap().standing();
    let began = Instant::now();
    drop(one);
    until("one is missed", || standing.borrow().members.len() == 1).await;
    assert!(began.elapsed() <= LEASE + EVERY, "{:?}", began.elapsed());
    assert_eq!(standing.borrow().role(Instant::now()), Role::Leader);
}
