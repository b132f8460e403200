//! The tallies as their users see them: what is counted where, once, and under which epoch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::model::{BasisPoints, ServiceName, Split, TenantName, VersionName, Weights};

const OK: Outcome = Outcome::served(200);
const FAILED: Outcome = Outcome::failed(FailureKind::Status, 500);
const LEFT: Outcome = Outcome { fault: Fault::ClientLeft, status: 0 };

fn version(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

fn weights(canary_points: u16) -> Weights {
    let share = |points| BasisPoints::new(points).unwrap();
    Weights::new([(version("1"), share(10_000 - canary_points)), (version("2"), share(canary_points))]).unwrap()
}

/// A split in which version 2 has this many basis points.
fn split(canary_points: u16, epoch: u64, attempt: u64) -> Split {
    Split { epoch, attempt, ..Split::new(&weights(canary_points), &version("1"), 7, epoch) }
}

/// One service, one tenant and a clock that stands still unless told otherwise.
struct Bench {
    tallies: Tallies,
    service: Arc<ServiceTally>,
    tenant: &'static str,
}

impl Bench {
    fn new() -> Self {
        let tallies = Tallies::new(4);
        let service = tallies.service(&ServiceName::new("accounting").unwrap());
        Self { tallies, service, tenant: "acme" }
    }

    fn begin(&self, name: &str, split: &Split, draw: Draw, now_us: u64) -> Ticket {
        let version = version(name);
        let (tenant, split) = (Some(self.tenant), Some(split));
        self.service.begin(&Start { tenant, version: &version, now_us, draw, split, pooled: false })
    }

    fn run(&self, name: &str, split: &Split, draw: Draw, outcome: Outcome) {
        let mut ticket = self.begin(name, split, draw, 1_000);
        ticket.answered(3_000);
        ticket.finish(outcome, 4_000);
    }

    fn scope(&self) -> Arc<ScopeTally> {
        self.service.scope(Some(self.tenant)).unwrap()
    }

    fn arm(&self, epoch: u64, name: &str) -> ArmReading {
        let epochs = self.scope().epochs();
        let readings = epochs.iter().find(|e| e.epoch == epoch).unwrap().read();
        readings.into_iter().find(|a| a.version.as_str() == name).unwrap()
    }

    fn signal(&self, epoch: u64, name: &str, signal: TallySignal) -> (u64, u64) {
        let reading = self.arm(epoch, name).signal(signal);
        (reading.n, reading.bad)
    }
}

#[test]
fn coins_count_requests() {
    let (bench, split) = (Bench::new(), split(1_000, 5, 5));
    for outcome in [OK, FAILED, FAILED, Outcome::served(404), LEFT] {
        bench.run("2", &split, Draw::Coin, outcome);
    }
    assert_eq!(bench.signal(5, "2", TallySignal::Error), (4, 2));
    assert_eq!(bench.signal(5, "2", TallySignal::ClientError), (4, 1));
    assert_eq!(bench.signal(5, "2", TallySignal::Slow), (0, 0), "no cuts yet");
    assert_eq!((bench.arm(5, "2").requests, bench.arm(5, "2").failures), (4, 2));
    let totals = bench.scope().totals().remove(0);
    assert_eq!((totals.requests, totals.failed(), totals.client_aborts, totals.in_flight), (4, 2, 1, 0));
    assert_eq!(totals.latency.iter().sum::<u32>(), 5, "an answer has a latency even if the client left later");
}

#[test]
fn keys_count_once_per_attempt_and_signal() {
    let bench = Bench::new();
    let (first, braked, next) = (split(5_000, 5, 5), split(500, 6, 5), split(5_000, 7, 7));
    for outcome in [OK, FAILED, FAILED, FAILED] {
        bench.run("2", &first, Draw::Key(42), outcome);
    }
    bench.run("2", &first, Draw::Key(43), FAILED);
    assert_eq!(bench.signal(5, "2", TallySignal::Error), (2, 2));
    assert_eq!((bench.arm(5, "2").requests, bench.arm(5, "2").failures), (5, 4), "ceilings count requests");
    bench.run("2", &braked, Draw::Key(42), FAILED);
    assert_eq!(bench.signal(6, "2", TallySignal::Error), (0, 0), "a brake is the same attempt");
    assert_eq!(bench.arm(6, "2").failures, 1);
    bench.run("1", &braked, Draw::Key(42), FAILED);
    assert_eq!(bench.signal(6, "1", TallySignal::Error), (1, 1), "but another version");
    bench.run("2", &next, Draw::Key(42), FAILED);
    assert_eq!(bench.signal(7, "2", TallySignal::Error), (1, 1), "a new attempt");
}

#[test]
fn requests_are_booked_where_they_were_routed() {
    let bench = Bench::new();
    let (before, after) = (split(0, 1, 1), split(1_000, 2, 2));
    let mut slow = bench.begin("1", &before, Draw::Coin, 0);
    bench.run("1", &after, Draw::Coin, OK);
    slow.finish(FAILED, 30_000_000);
    assert_eq!(bench.signal(1, "1", TallySignal::Error), (1, 1));
    assert_eq!(bench.signal(2, "1", TallySignal::Error), (1, 0));
}

#[test]
fn what_chance_did_not_choose_is_no_evidence() {
    let (bench, split) = (Bench::new(), split(1_000, 5, 5));
    bench.run("2", &split, Draw::Chosen, FAILED);
    bench
        .service
        .begin(&Start {
            tenant: Some("acme"),
            version: &version("2"),
            now_us: 0,
            draw: Draw::Coin,
            split: None,
            pooled: false,
        })
        .finish(OK, 1);
    assert!(bench.scope().epochs().is_empty());
    assert_eq!(bench.scope().totals()[0].requests, 2);
}

#[test]
fn a_canary_with_everything_is_still_counted() {
    let (bench, split) = (Bench::new(), split(10_000, 5, 5));
    bench.run("2", &split, Draw::Key(1), FAILED);
    bench.run("2", &split, Draw::Key(1), FAILED);
    assert_eq!((bench.arm(5, "2").requests, bench.arm(5, "2").failures), (2, 2));
    assert_eq!(bench.tallies.age(u64::MAX / 2), 0);
}

#[test]
fn tenants_as_keys_speak_for_the_service() {
    let (bench, split) = (Bench::new(), split(1_000, 5, 5));
    for tenant in ["a", "a", "b", "c", "d", "beyond-the-limit"] {
        let v = version("2");
        let draw = Draw::Key(0);
        let start = Start { tenant: Some(tenant), version: &v, now_us: 0, draw, split: Some(&split), pooled: true };
        bench.service.begin(&start).finish(FAILED, 1);
    }
    let service = bench.service.scope(None).unwrap();
    let arm = service.epochs()[0].read().into_iter().find(|a| a.version.as_str() == "2").unwrap();
    assert_eq!((arm.requests, arm.signal(TallySignal::Error).bad), (6, 5));
    assert!(service.totals().is_empty(), "totals stay with the tenants");
    assert_eq!(bench.service.scope(Some("a")).unwrap().totals()[0].requests, 2);
    assert_eq!(bench.tallies.take_active().len(), 6, "four tenants, the others, and the service");
}

#[test]
fn slow_is_beyond_the_cut_that_held_when_the_request_began() {
    let (bench, split) = (Bench::new(), split(5_000, 5, 5));
    bench.run("1", &split, Draw::Coin, OK);
    bench.scope().set_cuts(2_000, 10_000, 1.5, &version("1"));
    let mut early = bench.begin("1", &split, Draw::Coin, 0);
    bench.scope().set_cuts(1, 1, 1.0, &version("1"));
    early.answered(2_001);
    early.answered(90_000);
    early.finish(OK, 90_000);
    assert_eq!(early.latency_us(), Some(2_001));
    assert_eq!(bench.signal(5, "1", TallySignal::Slow), (1, 1));
    assert_eq!(bench.signal(5, "1", TallySignal::VerySlow), (1, 0), "the body's time does not count");

    bench.scope().set_cuts(2_000, 0, 1.5, &version("1"));
    let mut canary = bench.begin("2", &split, Draw::Coin, 0);
    canary.answered(3_000);
    canary.finish(OK, 3_000);
    assert_eq!(bench.signal(5, "2", TallySignal::Slow), (1, 0), "a canary is given the tolerance");
    assert_eq!(bench.signal(5, "2", TallySignal::VerySlow), (0, 0), "a cut of zero judges nothing");
    bench.begin("2", &split, Draw::Coin, 0).finish(FAILED, 3_001);
    assert_eq!(bench.signal(5, "2", TallySignal::Slow), (2, 1), "a failure without an answer is as slow as it was");
    bench.begin("2", &split, Draw::Coin, 0).finish(LEFT, 9_000_000);
    assert_eq!(bench.signal(5, "2", TallySignal::Slow), (2, 1), "who leaves decides nothing");
}

#[test]
fn the_baseline_is_known_to_epochs_of_before_and_after() {
    let bench = Bench::new();
    bench.run("1", &split(5_000, 5, 5), Draw::Coin, OK);
    bench.scope().set_cuts(2_000, 0, 2.0, &version("1"));
    for epoch in [5, 6] {
        let split = split(5_000, epoch, 5);
        for name in ["1", "2"] {
            let mut ticket = bench.begin(name, &split, Draw::Coin, 0);
            ticket.answered(3_000);
            ticket.finish(OK, 3_000);
        }
        assert_eq!(bench.signal(epoch, "1", TallySignal::Slow), (1, 1));
        assert_eq!(bench.signal(epoch, "2", TallySignal::Slow), (1, 0));
    }
}

#[test]
fn a_hanging_request_is_slow_at_the_cut_and_once() {
    let (bench, split) = (Bench::new(), split(5_000, 5, 5));
    bench.run("1", &split, Draw::Coin, OK);
    bench.scope().set_cuts(2_000, 10_000, 1.0, &version("1"));
    bench.tallies.take_active();
    let mut hanging = bench.begin("2", &split, Draw::Coin, 0);
    assert_eq!(bench.tallies.age(2_000), 1);
    assert_eq!(bench.signal(5, "2", TallySignal::Slow), (0, 0));
    bench.tallies.take_active();
    assert_eq!(bench.tallies.age(2_001), 1);
    assert_eq!(bench.signal(5, "2", TallySignal::Slow), (1, 1));
    assert_eq!(bench.tallies.take_active().len(), 1, "the tick is told");
    assert_eq!(bench.tallies.age(10_001), 0, "nothing left to decide");
    hanging.answered(20_000);
    hanging.finish(OK, 20_000);
    assert_eq!(bench.signal(5, "2", TallySignal::Slow), (1, 1));
    assert_eq!(bench.signal(5, "2", TallySignal::VerySlow), (1, 1));
    let mut left = bench.begin("2", &split, Draw::Coin, 0);
    left.finish(LEFT, 1_000);
    drop(bench.begin("2", &split, Draw::Coin, 0));
    assert_eq!(bench.tallies.age(1_000_000), 0);
    assert_eq!(bench.signal(5, "2", TallySignal::Slow), (1, 1), "who is gone does not age");
}

#[test]
fn a_slow_upload_is_not_the_versions_fault() {
    let (bench, split) = (Bench::new(), split(5_000, 5, 5));
    bench.run("1", &split, Draw::Coin, OK);
    bench.scope().set_cuts(2_000, 10_000, 1.0, &version("1"));
    let mut ticket = bench.begin("2", &split, Draw::Coin, 0);
    ticket.uploading();
    assert_eq!(bench.tallies.age(60_000_000), 1);
    ticket.restart(60_000_000);
    bench.tallies.age(60_001_000);
    ticket.answered(60_001_500);
    ticket.restart(0);
    ticket.finish(OK, 60_001_500);
    assert_eq!(ticket.latency_us(), Some(1_500));
    assert_eq!(bench.signal(5, "2", TallySignal::Slow), (1, 0));
}

#[test]
fn ageing_and_answering_at_once_count_once() {
    let (bench, split) = (Bench::new(), split(5_000, 5, 5));
    bench.run("1", &split, Draw::Coin, OK);
    bench.scope().set_cuts(10, 20, 1.0, &version("1"));
    let stop = AtomicBool::new(false);
    const EACH: u64 = 20_000;
    std::thread::scope(|scope| {
        let requests: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for i in 0..EACH {
                        let mut ticket = bench.begin("2", &split, Draw::Coin, 0);
                        if i % 64 == 0 {
                            std::thread::yield_now();
                        }
                        ticket.answered(100);
                        ticket.finish(OK, 100);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                bench.tallies.age(50);
                bench.tallies.take_active();
            }
        });
        requests.into_iter().for_each(|r| r.join().unwrap());
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(bench.tallies.age(1_000), 0);
    assert_eq!(bench.signal(5, "2", TallySignal::Slow), (2 * EACH, 2 * EACH));
    assert_eq!(bench.signal(5, "2", TallySignal::VerySlow), (2 * EACH, 2 * EACH));
    assert_eq!(bench.scope().totals().iter().map(|t| t.in_flight).sum::<i64>(), 0);
}

#[test]
fn the_first_bad_time_is_taken_once() {
    let (bench, split) = (Bench::new(), split(5_000, 5, 5));
    for at in [900, 300, 600] {
        bench.begin("2", &split, Draw::Coin, 0).finish(FAILED, at);
    }
    let epoch = bench.scope().epochs().remove(0);
    assert_eq!(epoch.take_first_bad_us("2", TallySignal::Error), Some(300));
    assert_eq!(epoch.take_first_bad_us("2", TallySignal::Error), None);
    assert_eq!(epoch.take_first_bad_us("1", TallySignal::Error), None);
}

#[test]
fn a_lost_ticket_is_counted_and_leaves_the_gauges() {
    let (bench, split) = (Bench::new(), split(5_000, 5, 5));
    let ticket = bench.begin("2", &split, Draw::Coin, 0);
    assert_eq!(bench.service.metrics(&version("2")).in_flight(), 1);
    assert_eq!(bench.scope().totals()[0].in_flight, 1);
    let panicked = std::thread::scope(|s| {
        s.spawn(move || {
            let _held = ticket;
            std::panic::resume_unwind(Box::new(()));
        })
        .join()
        .is_err()
    });
    assert!(panicked);
    let totals = bench.scope().totals().remove(0);
    assert_eq!((totals.in_flight, totals.abandoned, totals.requests, totals.ended()), (0, 1, 0, 1));
    assert_eq!(bench.service.metrics(&version("2")).in_flight(), 0);
    let mut twice = bench.begin("2", &split, Draw::Coin, 0);
    twice.finish(OK, 1);
    twice.finish(FAILED, 2);
    drop(twice);
    assert_eq!(bench.scope().totals()[0].ended(), 2);
}

#[test]
fn tenants_are_bounded_and_idle_ones_make_room() {
    let bench = Bench::new();
    let split = split(5_000, 5, 5);
    let v = version("1");
    let run = |tenant: &str, now_us| {
        let start =
            Start { tenant: Some(tenant), version: &v, now_us, draw: Draw::Coin, split: Some(&split), pooled: false };
        bench.service.begin(&start).finish(OK, now_us);
    };
    for i in 0..10 {
        run(&format!("tenant-{i}"), 1_000);
    }
    run(OTHER_TENANT, 1_000);
    run("no name", 1_000);
    assert_eq!(bench.tallies.tracked_tenants(), 4);
    let other = bench.service.scope(Some(OTHER_TENANT)).unwrap();
    assert_eq!(other.totals()[0].requests, 8);
    assert!(other.epochs().is_empty());
    let open = bench.service.begin(&Start {
        tenant: Some("tenant-1"),
        version: &v,
        now_us: 2_000,
        draw: Draw::Coin,
        split: None,
        pooled: false,
    });
    assert_eq!(bench.tallies.evict_idle(u64::MAX, 0, &|_, _| false).len(), 0, "not read yet");
    bench.tallies.take_active();
    let keep = |_: &ServiceName, scope: &ScopeTally| scope.tenant().is_some_and(|t| t.as_str() == "tenant-0");
    let gone = bench.tallies.evict_idle(10_000_000, 5_000_000, &keep);
    assert_eq!(gone.len(), 2, "one is kept and one has a request on its way");
    assert_eq!(bench.tallies.tracked_tenants(), 2);
    run("newcomer", 10_000_000);
    assert!(bench.service.scope(Some("newcomer")).is_some());
    drop(open);
}

#[test]
fn a_service_that_was_forgotten_makes_room() {
    let (bench, split) = (Bench::new(), split(5_000, 5, 5));
    let open = bench.begin("1", &split, Draw::Coin, 0);
    bench.tallies.forget_service(&ServiceName::new("accounting").unwrap());
    assert_eq!(bench.tallies.tracked_tenants(), 1, "old routes still hold it");
    let Bench { tallies, service, .. } = bench;
    drop(open);
    drop(service);
    tallies.take_active();
    // The map lets go of what was removed when no thread can be reading it any more.
    for i in 0..10_000 {
        let name = ServiceName::new(&format!("s{i}")).unwrap();
        tallies.service(&name);
        tallies.forget_service(&name);
    }
    assert_eq!(tallies.tracked_tenants(), 0);
}

#[test]
fn active_scopes_are_told_once() {
    let (bench, split) = (Bench::new(), split(5_000, 5, 5));
    (0..10).for_each(|_| bench.run("1", &split, Draw::Coin, OK));
    let active = bench.tallies.take_active();
    assert_eq!(active.len(), 1);
    assert_eq!((active[0].service.as_str(), active[0].tenant().map(TenantName::as_str)), ("accounting", Some("acme")));
    assert!(bench.tallies.take_active().is_empty());
    bench.run("1", &split, Draw::Coin, OK);
    assert_eq!(bench.tallies.take_active().len(), 1);
}

#[test]
fn more_scopes_than_can_wait_are_all_told() {
    let tallies = Tallies::new(0);
    let v = version("1");
    for i in 0..1_500 {
        let service = tallies.service(&ServiceName::new(&format!("s{i}")).unwrap());
        let start = Start { tenant: None, version: &v, now_us: 0, draw: Draw::Coin, split: None, pooled: false };
        service.begin(&start).finish(OK, 1);
    }
    let told: std::collections::BTreeSet<_> = tallies.take_active().into_iter().map(|s| s.service).collect();
    assert_eq!(told.len(), 1_500);
    assert!(tallies.take_active().is_empty());
}

#[test]
fn old_epochs_go_when_nobody_can_add_to_them() {
    let bench = Bench::new();
    let mut late = bench.begin("1", &split(0, 1, 1), Draw::Coin, 0);
    bench.run("1", &split(1_000, 2, 2), Draw::Coin, OK);
    let epochs = || bench.scope().epochs().iter().map(|e| e.epoch).collect::<Vec<_>>();
    for now_us in [1_000_000, 100_000_000, 100_100_000, 100_200_000] {
        bench.scope().retire_epochs(now_us);
        assert_eq!(epochs(), [1, 2], "a request is on its way");
    }
    late.finish(FAILED, 100_300_000);
    drop(late);
    bench.scope().retire_epochs(100_400_000);
    assert_eq!(bench.signal(1, "1", TallySignal::Error), (1, 1), "the last reading");
    bench.scope().retire_epochs(100_500_000);
    assert_eq!(epochs(), [2]);
    bench.scope().retire_epochs(u64::MAX);
    assert_eq!(epochs(), [2], "the newest stays");
}

#[test]
fn a_version_that_was_forgotten_begins_at_zero() {
    let (bench, split) = (Bench::new(), split(5_000, 5, 5));
    let name = ServiceName::new("accounting").unwrap();
    bench.run("1", &split, Draw::Coin, OK);
    bench.tallies.forget_version(&name, &version("1"));
    assert!(bench.scope().totals().is_empty());
    bench.run("1", &split, Draw::Coin, OK);
    assert_eq!(bench.service.metrics(&version("1")).requests(), 1);
}

#[test]
fn nothing_is_lost_between_threads_epochs_and_ticks() {
    let bench = Bench::new();
    const EACH: u64 = 10_000;
    let stop = AtomicBool::new(false);
    let mut seen = std::collections::HashMap::<u64, u64>::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|t| {
                let bench = &bench;
                scope.spawn(move || {
                    for i in 0..EACH {
                        // Every thread sees the same changes of the split, each at its own time.
                        let epoch = 1 + (i + t * 37) / 1_000;
                        bench.run("1", &split(1_000, epoch, epoch), Draw::Coin, OK);
                    }
                })
            })
            .collect();
        let tick = scope.spawn(|| {
            let mut seen = std::collections::HashMap::<u64, u64>::new();
            let mut last = false;
            while !last {
                last = stop.load(Ordering::Acquire);
                for active in bench.tallies.take_active() {
                    for epoch in active.tally.epochs() {
                        let n = epoch.read().iter().map(|a| a.signal(TallySignal::Error).n).sum();
                        let before = seen.insert(epoch.epoch, n).unwrap_or(0);
                        assert!(before <= n, "cumulative");
                    }
                    active.tally.retire_epochs(0);
                }
            }
            seen
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
        stop.store(true, Ordering::Release);
        seen.extend(tick.join().unwrap());
    });
    assert_eq!(seen.values().sum::<u64>(), 3 * EACH);
}
