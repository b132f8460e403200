//! The endpoints of one version: which are up, how busy each is, and which one the next request gets.
//!
//! Power of two choices: of two endpoints drawn at random the less busy one is taken. That keeps queues short without a
//! shared counter, and does not send everyone to the same idle endpoint as "least loaded" would
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use crate::model::{EndpointSpec, OutOfReach, Reach};

/// How many failures to connect in a row take an endpoint out.
const EJECT_AFTER: u32 = 3;
/// How long an endpoint stays out the first time, in milliseconds; doubled each time, up to `EJECT_MAX_MS`.
const EJECT_MS: u64 = 5_000;
/// The longest time an endpoint stays out.
const EJECT_MAX_MS: u64 = 60_000;

/// One address that serves a version.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// As it is configured, `host:port`.
    pub name: Arc<str>,
    /// The host part of the name, for TLS.
    pub host: Arc<str>,
    in_flight: AtomicU32,
    healthy: AtomicBool,
    streak: AtomicU32,
    failures: AtomicU32,
    ejections: AtomicU32,
    ejected_until_ms: AtomicU64,
}

impl Endpoint {
    /// An endpoint that counts as healthy until shown otherwise.
    pub fn new(address: SocketAddr, name: &str) -> Self {
        let host = name.rsplit_once(':').map_or(name, |(h, _)| h).trim_matches(['[', ']']);
        Self {
            address,
            name: Arc::from(name),
            host: Arc::from(host),
            in_flight: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            streak: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
        }
    }

    /// Requests that it is working on.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// What the active checks say.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    /// Whether it is out because requests could not connect. `now_ms` is on any monotone axis that the caller keeps to.
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        self.ejected_until_ms.load(Relaxed) > now_ms
    }

    /// Whether requests should go there.
    pub fn is_available(&self, now_ms: u64) -> bool {
        self.is_healthy() && !self.is_ejected(now_ms)
    }

    /// Takes in the result of one active check; true when it changed the endpoint's health.
    pub fn checked(&self, good: bool, healthy_after: u32, unhealthy_after: u32) -> bool {
        let was = self.is_healthy();
        if good == was {
            self.streak.store(0, Relaxed);
            return false;
        }
        let streak = self.streak.fetch_add(1, Relaxed) + 1;
        if streak < if good { healthy_after } else { unhealthy_after } {
            return false;
        }
        self.streak.store(0, Relaxed);
        self.healthy.store(good, Relaxed);
        true
    }

    /// A request could not connect; true when that took the endpoint out.
    pub fn connect_failed(&self, now_ms: u64) -> bool {
        if self.failures.fetch_add(1, Relaxed) + 1 < EJECT_AFTER {
            return false;
        }
        self.failures.store(0, Relaxed);
        let times = self.ejections.fetch_add(1, Relaxed).min(16);
        let out = (EJECT_MS << times).min(EJECT_MAX_MS);
        self.ejected_until_ms.store(now_ms + out, Relaxed);
        true
    }

    /// A request was answered.
    pub fn answered(&self) {
        // Read before write: the common case leaves the cache line shared between threads.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if self.ejections.load(Relaxed) != 0 {
            self.ejections.store(0, Relaxed);
        }
    }
}

/// A request that an endpoint is working on; counts down when dropped.
#[derive(Debug)]
pub struct InUse(Arc<Endpoint>);

impl InUse {
    /// Counts one more request.
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Relaxed);
        Self(endpoint)
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// The endpoints of one version, or of one tenant's own instance of it.
#[derive(Debug, Default)]
pub struct EndpointSet {
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Where they may lie; none: anywhere.
    reach: Option<Arc<Reach>>,
}

impl EndpointSet {
    /// A set without endpoints. Those out of `reach` never become part of it, whoever finds them.
    pub fn within(reach: Option<Arc<Reach>>) -> Self {
        Self { reach, ..Self::default() }
    }

    /// The endpoints that need no look-up. Names join when they are resolved.
    pub fn new(specs: &[EndpointSpec], reach: Option<Arc<Reach>>) -> Self {
        let set = Self::within(reach);
        let fixed = specs.iter().filter_map(|spec| match spec {
            EndpointSpec::Address(address) => Some((*address, spec.to_string())),
            EndpointSpec::Name { .. } | EndpointSpec::PerTenant { .. } => None,
        });
        let _told_when_it_is_looked_up = set.update(fixed);
        set
    }

    /// Where they may lie; none: anywhere.
    pub fn reach(&self) -> Option<&Arc<Reach>> {
        self.reach.as_ref()
    }

    /// Takes over the addresses of now; those that were there before keep their health and load. Gives those that are out
    /// of reach, with their names.
    #[must_use]
    pub fn update(&self, addresses: impl IntoIterator<Item = (SocketAddr, String)>) -> Vec<(String, OutOfReach)> {
        let before = self.endpoints.load();
        let mut refused = Vec::new();
        let mut now = Vec::new();
        for (address, name) in addresses {
            if let Some(Err(out)) = self.reach.as_ref().map(|reach| reach.check(address.ip())) {
                refused.push((name, out));
                continue;
            }
            let known = before.iter().find(|e| e.address == address && *e.name == *name);
            now.push(known.cloned().unwrap_or_else(|| Arc::new(Endpoint::new(address, &name))));
        }
        self.endpoints.store(Arc::new(now));
        refused
    }

    /// All endpoints.
    pub fn all(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// How many are available and how many there are.
    pub fn available(&self, now_ms: u64) -> (usize, usize) {
        let all = self.endpoints.load();
        (all.iter().filter(|e| e.is_available(now_ms)).count(), all.len())
    }

    /// The endpoint for the next request: of two drawn by `random` the less busy available one, else any available one.
    /// When none is available, health is ignored: traffic that may fail beats traffic that surely fails. Endpoints for
    /// which `tried` holds are taken only when nothing else is left. `None` when there is no endpoint at all.
    pub fn pick(&self, random: u64, now_ms: u64, tried: impl Fn(&Endpoint) -> bool) -> Option<Arc<Endpoint>> {
        let all = self.endpoints.load();
        let n = all.len();
        if n <= 1 {
            return all.first().cloned();
        }
        let good = |e: &Endpoint| e.is_available(now_ms) && !tried(e);
        let first = ((u64::from(random as u32) * n as u64) >> 32) as usize;
        let second = (first + 1 + (((random >> 32) * (n as u64 - 1)) >> 32) as usize) % n;
        let (a, b) = (&all[first], &all[second]);
        let chosen = match (good(a), good(b)) {
            (true, true) => Some(if b.in_flight() < a.in_flight() { b } else { a }),
            (true, false) => Some(a),
            (false, true) => Some(b),
            (false, false) => {
                let rotated = || (0..n).map(|i| &all[(first + i) % n]);
                let least = |it: &mut dyn Iterator<Item = &'_ Arc<Endpoint>>| it.min_by_key(|e| e.in_flight()).cloned();
                return least(&mut rotated().filter(|e| good(e)))
                    .or_else(|| least(&mut rotated().filter(|e| !tried(e))))
                    .or_else(|| Some(a.clone()));
            }
        };
        chosen.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(n: u16) -> EndpointSet {
        let set = EndpointSet::default();
        let _all_in = set
            .update((0..n).map(|i| (SocketAddr::from(([127, 0, 0, 1], 7000 + i)), format!("127.0.0.1:{}", 7000 + i))));
        set
    }

    /// A small generator, so that the tests need no luck.
    fn numbers(seed: u64) -> impl Iterator<Item = u64> {
        (0..).map(move |i: u64| xxhash_rust::xxh3::xxh3_64_with_seed(&i.to_le_bytes(), seed))
    }

    #[test]
    fn idle_endpoints_share_alike() {
        for n in [2u16, 3, 7] {
            let set = set(n);
            let mut counts = vec![0u32; usize::from(n)];
            for random in numbers(1).take(20_000) {
                let endpoint = set.pick(random, 0, |_| false).unwrap();
                counts[usize::from(endpoint.address.port() - 7000)] += 1;
            }
            let mean = 20_000.0 / f64::from(n);
            assert!(counts.iter().all(|c| (f64::from(*c) - mean).abs() < mean * 0.1), "{n}: {counts:?}");
        }
    }

    /// With held requests the busiest endpoint stays close to the mean, as the theory of two choices says.
    #[test]
    fn load_stays_even() {
        let set = set(10);
        let held: Vec<_> = numbers(2).take(10_000).map(|r| InUse::new(set.pick(r, 0, |_| false).unwrap())).collect();
        let loads: Vec<_> = set.all().iter().map(|e| e.in_flight()).collect();
        assert!(loads.iter().all(|l| (995..=1_010).contains(l)), "{loads:?}");
        drop(held);
        assert!(set.all().iter().all(|e| e.in_flight() == 0));
    }

    #[test]
    fn a_slow_endpoint_gets_less() {
        let set = set(4);
        let slow: Vec<_> = (0..100).map(|_| InUse::new(set.all()[0].clone())).collect();
        let hits =
            numbers(3).take(10_000).filter(|r| set.pick(*r, 0, |_| false).unwrap().address.port() == 7000).count();
        assert_eq!(hits, 0, "two distinct endpoints are compared, so the busiest of four is never the lesser");
        drop(slow);
    }

    /// A name that was fine when it was registered and leads to the metadata address a moment later.
    #[test]
    fn a_name_that_turns_elsewhere_leaves_the_set() {
        let set = EndpointSet::within(Some(Arc::default()));
        let of = |address: [u8; 4]| [(SocketAddr::from((address, 80)), "api.example:80".to_owned())];
        assert_eq!((set.update(of([10, 0, 0, 1])).len(), set.all().len()), (0, 1));
        let refused = set.update(of([169, 254, 169, 254]));
        assert_eq!((refused.len(), set.all().len()), (1, 0), "{refused:?}");
        assert!(set.pick(0, 0, |_| false).is_none());
    }

    #[test]
    fn unavailable_endpoints_are_left_out_until_none_is_left() {
        let set = set(3);
        let all = set.all();
        for e in &all[..2] {
            assert!((0..3).map(|_| e.checked(false, 2, 3)).eq([false, false, true]));
        }
        assert!(numbers(4).take(1_000).all(|r| set.pick(r, 0, |_| false).unwrap().address == all[2].address));
        assert_eq!(set.available(0), (1, 3));
        assert!((0..3).map(|_| all[2].connect_failed(1_000)).eq([false, false, true]));
        let ports: std::collections::BTreeSet<_> =
            numbers(5).take(1_000).map(|r| set.pick(r, 1_000, |_| false).unwrap().address.port()).collect();
        assert_eq!(ports.len(), 3, "with nothing available every endpoint is tried");
        assert!(numbers(6).take(1_000).all(|r| set.pick(r, 6_001, |_| false).unwrap().address == all[2].address));
    }

    #[test]
    fn health_needs_a_streak_both_ways() {
        let e = Endpoint::new(SocketAddr::from(([127, 0, 0, 1], 1)), "x:1");
        assert!(!e.checked(false, 2, 2) && !e.checked(true, 2, 2) && !e.checked(false, 2, 2));
        assert!(e.is_healthy());
        assert!(e.checked(false, 2, 2));
        assert!(!e.checked(true, 2, 2) && e.checked(true, 2, 2));
        assert!(e.is_healthy());
    }

    #[test]
    fn each_time_out_is_longer_until_an_answer_comes() {
        let e = Endpoint::new(SocketAddr::from(([127, 0, 0, 1], 1)), "x:1");
        let fail = |now| (0..3).for_each(|_| _ = e.connect_failed(now));
        fail(0);
        assert!(e.is_ejected(4_999) && !e.is_ejected(5_000));
        fail(5_000);
        assert!(e.is_ejected(14_999) && !e.is_ejected(15_000));
        e.answered();
        fail(20_000);
        assert!(e.is_ejected(24_999) && !e.is_ejected(25_000));
    }

    proptest! {
        #[test]
        fn something_is_always_picked(n in 1u16..12, random: u64, out in proptest::collection::vec(any::<bool>(), 12), tried_port in 7000u16..7012) {
            let set = set(n);
            for (e, out) in set.all().iter().zip(out) {
                if out { (0..3).for_each(|_| _ = e.connect_failed(0)); }
            }
            let picked = set.pick(random, 1, |e| e.address.port() == tried_port);
            let picked = picked.expect("there are endpoints");
            let better = set.all().iter().any(|e| e.is_available(1) && e.address.port() != tried_port);
            prop_assert!(!better || picked.is_available(1) && picked.address.port() != tried_port || n == 1);
        }

        #[test]
        fn an_update_keeps_what_stays(n in 1u16..8, m in 1u16..8) {
            let set = set(n);
            let held = InUse::new(set.all()[0].clone());
            let _all_in = set.update((0..m).map(|i| (SocketAddr::from(([127, 0, 0, 1], 7000 + i)), format!("127.0.0.1:{}", 7000 + i))));
            prop_assert_eq!(set.all().len(), usize::from(m));
            prop_assert_eq!(set.all()[0].in_flight(), 1);
            drop(held);
        }
    }
}
