//! The fleet while etcd itself is in trouble: it hangs, compacts behind a cut, loses one member of three and then two.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::conformance::put;
use super::super::membership_suite::{Process, hear, note, until};
use super::super::{Heard, Note, Role};
use super::cable::Cable;
use super::testing::{Etcd, commit_when_back};
use super::*;

/// Processes that joined one after the other.
async fn processes(access: &Access, count: usize) -> Vec<Process> {
    let mut all: Vec<Process> = Vec::new();
    for n in 0..count {
        let store = Arc::new(EtcdStore::open(access.clone(), KEEP_EVENTS));
        all.push(Process { fleet: store.membership().unwrap(), store, cut: Box::new(|_| {}) });
        until("joins", || all.iter().all(|p| p.joined().is_some() && p.standing().members.len() == n + 1)).await;
    }
    all
}

fn joined(all: &[Process]) -> Vec<Option<u64>> {
    all.iter().map(Process::joined).collect()
}

fn leaders(all: &[Process]) -> usize {
    all.iter().filter(|process| process.role() == Role::Leader).count()
}

#[tokio::test]
async fn an_etcd_that_hangs_for_two_seconds_costs_no_membership() {
    let etcd = Etcd::start();
    let all = processes(&etcd.access(), 2).await;
    let before = joined(&all);
    all[0].fleet.write(vec![note("n", "x")]).await.unwrap();
    etcd.stop();
    tokio::time::sleep(Duration::from_secs(2)).await;
    etcd.go_on();
    let began = Instant::now();
    // Longer than a lease: a lost one would show.
    while began.elapsed() < Duration::from_secs(4) {
        assert_eq!(joined(&all), before);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((all[0].role(), all[1].role()), (Role::Leader, Role::Standby));
    all[0].fleet.write(vec![note("n", "y")]).await.unwrap();
}

#[tokio::test]
async fn an_etcd_that_hangs_for_six_seconds_is_a_fleet_that_is_there_again() {
    let etcd = Etcd::start();
    let all = processes(&etcd.access(), 3).await;
    etcd.stop();
    let began = Instant::now();
    until("all know that they are cut off", || all.iter().all(|process| process.role() == Role::Alone)).await;
    println!("all know that they are cut off after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(4));
    tokio::time::sleep_until(began + Duration::from_secs(6)).await;
    etcd.go_on();
    let took = until("the fleet is whole again", || {
        assert!(leaders(&all) <= 1, "never two");
        let whole = |p: &Process| p.joined().is_some() && p.standing().members.len() == 3;
        all.iter().all(whole) && leaders(&all) == 1 && all.iter().any(|p| p.role() == Role::Standby)
    })
    .await;
    println!("the fleet is whole again after {took:?}, as {:?}", joined(&all));
    assert!(took < Duration::from_secs(8), "{took:?}");
    let members = all[0].standing().members;
    assert!(all.iter().all(|process| process.standing().members == members));
    let leader = all.iter().find(|process| process.role() == Role::Leader).unwrap();
    leader.store.commit(Commit { leads: true, ..put(0, 1, "a") }).await.unwrap();
}

#[tokio::test]
async fn what_is_compacted_behind_a_cut_is_read_again() {
    let etcd = Etcd::start();
    let cable = Cable::to(etcd.port()).await;
    let one = processes(&etcd.access(), 1).await.remove(0);
    let two = Arc::new(EtcdStore::open(Access { endpoints: vec![cable.url()], ..etcd.access() }, KEEP_EVENTS));
    let (fleet, standing) = (two.membership().unwrap(), || two.membership().unwrap().standing().borrow().clone());
    until("joins", || standing().joined.is_some()).await;
    let before = standing().joined;
    one.fleet.write(vec![note("n/1", "a"), note("n/2", "b")]).await.unwrap();
    let mut follow = fleet.follow("n/");
    hear(&mut follow).await;
    hear(&mut follow).await;
    cable.cut(true);
    until("is gone", || one.standing().members.len() == 1).await;
    one.fleet.write(vec![Note { name: "n/1".to_owned(), body: None }, note("n/2", "c")]).await.unwrap();
    one.fleet.write(vec![note("card", "seen")]).await.unwrap();
    let now = etcd.client().await.get("x", None).await.unwrap().header().unwrap().revision();
    etcd.client().await.compact(now, None).await.unwrap();
    cable.cut(false);
    until("joins again", || standing().joined > before).await;
    until("the roster is right", || standing().members.len() == 2 && standing().members[0].card == b"seen").await;
    // The stream may bring what was on the way before it breaks.
    let mut known = std::collections::BTreeMap::from([("n/1".to_owned(), vec![]), ("n/2".to_owned(), vec![])]);
    while known != std::collections::BTreeMap::from([("n/2".to_owned(), b"c".to_vec())]) {
        match hear(&mut follow).await {
            Heard::Afresh => known.clear(),
            Heard::Note { name, body: Some(body), .. } => drop(known.insert(name, body)),
            Heard::Note { name, body: None, .. } => drop(known.remove(&name)),
        }
    }
    assert!(follow.try_recv().is_err());
}

/// Waits until the fleet is whole: all belong to it, all know all, one leads.
async fn whole(all: &[Process]) -> Duration {
    until("the fleet is whole", || {
        let whole = |p: &Process| p.role() != Role::Alone && p.standing().members.len() == all.len();
        all.iter().all(whole) && leaders(all) == 1
    })
    .await
}

async fn commits(all: &[Process], revision: &mut u64) -> Duration {
    let began = Instant::now();
    for process in all {
        loop {
            match process.store.commit(put(*revision, *revision + 1, "a")).await {
                Ok(_) => break *revision += 1,
                Err(error) => assert!(error.is_temporary() && began.elapsed() < Duration::from_secs(15), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    began.elapsed()
}

#[tokio::test]
async fn of_three_members_of_etcd_one_may_be_lost_and_two_may_not() {
    let mut etcd = Etcd::start_three();
    let endpoints = etcd.iter().map(|member| member.url("http")).collect();
    let access = Access { endpoints, ..etcd[0].access() };
    let all = processes(&access, 3).await;
    let mut revision = 0;
    println!("three commits took {:?}", commits(&all, &mut revision).await);
    // Each process uses one of them at a time, so each is hit at least once.
    for hangs in [false, true] {
        for (lost, member) in etcd.iter_mut().enumerate() {
            let how = if hangs { "hangs" } else { "is dead" };
            if hangs {
                member.stop()
            } else {
                member.kill()
            }
            let began = Instant::now();
            println!("e{lost} {how}: three commits took {:?}", commits(&all, &mut revision).await);
            let signs = began + Duration::from_secs(3);
            until("signs of life are heard again", || all.iter().all(|p| p.standing().sure_until > signs)).await;
            let took = began.elapsed();
            whole(&all).await;
            println!("e{lost} {how}: signs of life are heard after {took:?}, as {:?}", joined(&all));
            if hangs { member.go_on() } else { member.restart() }
        }
    }
    whole(&all).await;
    etcd[0].kill();
    etcd[1].kill();
    let began = Instant::now();
    let refused = all[0].store.commit(put(revision, revision + 1, "a")).await.unwrap_err();
    println!("without two: a commit is refused after {:?}: {refused}", began.elapsed());
    assert!(refused.is_temporary() && began.elapsed() < Duration::from_secs(7), "{refused}");
    until("nobody is sure", || all.iter().all(|process| process.role() == Role::Alone)).await;
    println!("without two: all know that they are cut off after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10));
    let again = all[0].store.commit(put(revision, revision + 1, "a")).await.unwrap_err();
    assert!(matches!(again, StoreError::Away { .. } | StoreError::Write { .. }), "{again}");
    let (first, second) = etcd.split_at_mut(1);
    std::thread::scope(|scope| {
        scope.spawn(|| first[0].restart());
        second[0].restart();
    });
    // Whether the commit that got no answer happened is found out by loading.
    let began = Instant::now();
    revision = loop {
        match all[0].store.load().await {
            Ok(loaded) => break loaded.revision,
            Err(error) => assert!(error.is_temporary() && began.elapsed() < Duration::from_secs(15), "{error}"),
        }
    };
    println!("recovered: three commits took {:?}", commits(&all, &mut revision).await);
    println!("recovered: the fleet is whole after {:?}", whole(&all).await);
    assert_eq!(all[1].store.load().await.unwrap().revision, revision);
}

#[tokio::test]
async fn a_fleet_finds_together_after_etcd_lost_everything() {
    let mut etcd = Etcd::start();
    let mut client = etcd.client().await;
    for _ in 0..50 {
        client.put("/other", "", None).await.unwrap();
    }
    let all = processes(&etcd.access(), 2).await;
    all[0].fleet.write(vec![note("n", "x")]).await.unwrap();
    let before = joined(&all);
    etcd.kill();
    etcd.wipe();
    etcd.restart();
    let began = Instant::now();
    let new = |n: usize| joined(&all)[n].is_some_and(|joined| Some(joined) != before[n]);
    until("all join again", || new(0) && new(1)).await;
    whole(&all).await;
    println!("the fleet is whole after {:?}: {before:?} are {:?}", began.elapsed(), joined(&all));
    assert!(joined(&all) < before, "etcd counts from its beginning");
    all[0].fleet.write(vec![note("n", "x")]).await.unwrap();
}

#[tokio::test]
async fn a_restart_of_etcd_keeps_everybodys_place() {
    let mut etcd = Etcd::start();
    let all = processes(&etcd.access(), 2).await;
    let before = joined(&all);
    etcd.kill();
    etcd.restart();
    whole(&all).await;
    assert_eq!(joined(&all), before);
    let began = Instant::now();
    let store = etcd.store();
    commit_when_back(&store, put(0, 1, "a")).await;
    assert!(began.elapsed() < Duration::from_secs(5));
}
