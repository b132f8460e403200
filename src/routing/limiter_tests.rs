//! The table of places: each tenant by itself, whatever comes and goes, and in whatever number.

use super::*;
use crate::model::Rate;
use proptest::prelude::*;

const MS: u64 = 1_000_000;

fn limiter() -> Arc<Limiter> {
    Arc::new(Limiter::new(7))
}

fn limit(rate: Option<(f64, u32)>, concurrency: Option<u32>) -> Limit {
    Limit { rate: rate.and_then(|(r, b)| Rate::new(r, Some(b))), concurrency }
}

fn hash(name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), 7)
}

/// Hashes that fall into the same two lines, which are one.
fn of_line(line: u64, n: u64) -> u64 {
    line << (64 - LINE_BITS) | line << (64 - 2 * LINE_BITS) | (n + 1)
}

#[test]
fn each_tenant_has_a_bucket_of_its_own() {
    let (limiter, limit) = (limiter(), limit(Some((10.0, 5)), None));
    let granted = |name: &str, now| (0..20).filter(|_| limiter.enter(hash(name), limit, now).is_ok()).count();
    assert_eq!((granted("acme", 0), granted("acme", 0), granted("globex", 0)), (5, 0, 5));
    assert_eq!((granted("acme", 200 * MS), granted("globex", 300 * MS)), (2, 3));
    assert_eq!(limiter.enter(hash("acme"), limit, 200 * MS).unwrap_err(), OverLimit::Rate { wait_ns: 100 * MS });
}

#[test]
fn a_permit_counts_until_it_is_dropped_and_a_refusal_takes_nothing() {
    let (limiter, limit) = (limiter(), limit(Some((1.0, 100)), Some(2)));
    let enter = || limiter.enter(hash("acme"), limit, 0);
    let (a, b) = (enter().unwrap(), enter().unwrap());
    for _ in 0..200 {
        assert_eq!(enter().unwrap_err(), OverLimit::Concurrency);
    }
    drop(a);
    let c = enter().unwrap();
    assert_eq!(enter().unwrap_err(), OverLimit::Concurrency);
    drop((b, c));
    assert_eq!((0..200).filter(|_| enter().is_ok()).count(), 97, "refusals by concurrency took no token");
    assert!(matches!(enter(), Err(OverLimit::Rate { .. })), "and a refusal by rate holds no place");
}

#[test]
fn waits_are_told_in_whole_seconds() {
    let s = |wait_ns| OverLimit::Rate { wait_ns }.retry_after_s();
    assert_eq!((s(1), s(1_000 * MS), s(1_000 * MS + 1), OverLimit::Concurrency.retry_after_s()), (1, 1, 2, 1));
}

#[test]
fn who_is_idle_is_forgotten_and_who_is_busy_is_not() {
    let (limiter, strict) = (limiter(), limit(Some((1.0, 1)), Some(1)));
    let busy = limiter.enter(of_line(3, 0), strict, 0).unwrap();
    // Far more names than places, each of which comes once and goes.
    for n in 1..1_000 {
        let now = n * 2_000 * MS;
        drop(limiter.enter(of_line(3, n), strict, now).unwrap());
        assert_eq!(limiter.enter(of_line(3, 0), strict, now).unwrap_err(), OverLimit::Concurrency);
    }
    drop(busy);
}

#[test]
fn without_a_place_the_limit_is_shared_and_holds() {
    let (limiter, strict) = (limiter(), limit(Some((1.0, 4)), Some(4)));
    let kept: Vec<_> = (0..PLACES as u64).map(|n| limiter.enter(of_line(5, n), strict, 0).unwrap()).collect();
    let late: Vec<_> = (100..200).filter_map(|n| limiter.enter(of_line(5, n), strict, 0).ok()).collect();
    assert_eq!(late.len(), 4);
    assert_eq!(limiter.enter(of_line(5, 0), strict, 0).map(|_| ()), Ok(()), "who has a place does not notice");
    drop((kept, late));
    assert!(limiter.enter(of_line(5, 300), strict, 60_000 * MS).is_ok());
}

#[test]
fn lines_fill_evenly() {
    let (limiter, strict) = (limiter(), limit(Some((0.01, 1)), None));
    let places = (LINES * PLACES) as u64;
    let shared = |n: u64| limiter.enter(hash(&format!("t{n}")), strict, 0).is_err();
    let first = (0..places).position(|n| shared(n) || n + 1 == places).unwrap() as u64;
    assert!(first > places * 8 / 10, "{first} of {places}");
}

#[test]
fn the_memory_is_fixed() {
    assert_eq!(size_of::<Line>() * LINES, 1 << 20);
}

#[test]
fn threads_share_one_limit() {
    for round in 0..20 {
        let (limiter, limit) = (limiter(), limit(Some((0.01, 1_000)), None));
        let enter = |name: &str| limiter.enter(hash(name), limit, 1).is_ok();
        // A first request takes the place; at the very first moment two could take one each.
        let name = format!("t{round}");
        assert!(enter(&name));
        let granted: usize = std::thread::scope(|s| {
            let all: Vec<_> = (0..4).map(|_| s.spawn(|| (0..1_000).filter(|_| enter(&name)).count())).collect();
            all.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(granted, 999);
    }
}

proptest! {
    /// Whatever comes and goes, nobody has more in flight than allowed, and at the end nothing is left over.
    #[test]
    fn counts_never_drift(steps in proptest::collection::vec((0u64..12, any::<bool>(), 0u64..50), 1..400)) {
        let (limiter, limit) = (limiter(), limit(Some((100.0, 3)), Some(2)));
        let mut held: Vec<(u64, Permit)> = Vec::new();
        let mut now = 0;
        for (n, leave, pause) in steps {
            now += pause * MS;
            if leave {
                held.pop();
            } else if let Ok(permit) = limiter.enter(of_line(1, n), limit, now) {
                held.push((n, permit));
            }
            let shared = held.iter().filter(|(_, p)| p.at.1 == PLACES).count();
            prop_assert!(shared <= 2);
            for n in 0..12 {
                let own = held.iter().filter(|(m, p)| *m == n && p.at.1 < PLACES).count();
                prop_assert!(own <= 2, "{n} has {own}");
            }
        }
        held.clear();
        let counts: u64 = limiter.lines[1].places.iter().map(|p| p.word.load(Relaxed) & COUNT).sum();
        prop_assert_eq!(counts, 0);
    }
}
