//! The guard on the real control room: requests are decided by the published routes and counted in the tallies, the tick
//! judges them, and what it asks for goes through the real writer to a store that fails. A bad version must lose its
//! traffic in time, whatever the store and the process do meanwhile, and a good one must keep it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Method};
use switchback::autopilot::{Autopilot, AutopilotParts};
use switchback::control::{Control, Parts, start};
use switchback::model::{Author, BasisPoints, Change, EventKind, Scope, VersionName, Weights};
use switchback::proxy::Clock;
use switchback::routing::{Drawn, Head, Silent, decide};
use switchback::telemetry::{Draw, FailureKind, Metrics, Outcome, Start, Tallies, Windows};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use super::clients::plain;
use super::disk::{Connection, Disk, Weather};
use super::world::settings;
use crate::dice::Dice;
use crate::seeds;

/// The time between two ticks.
const TICK_MS: u64 = 100;
/// The longest that a bad version may keep traffic. With the least traffic and the mildest fault of these stories it takes
/// some ten seconds; a crash takes the evidence away and costs as much again.
const IN_TIME_MS: u64 = 30_000;
/// Faults are introduced by the story, so what the baseline fails by chance is rare, in ten thousand.
const NOISE: u64 = 20;

#[test]
fn guards_shift_back_whatever_the_store_does() {
    seeds::each("guards", 24, |seed| {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(story(seed));
    });
}

/// One process.
struct Node {
    control: Control,
    guard: Autopilot,
}

struct Traffic {
    dice: Dice,
    /// Requests in each tick.
    requests: u64,
    /// How many of ten thousand requests of the canary fail beside the noise.
    broken: u64,
    begun: Instant,
    headers: HeaderMap,
}

async fn story(seed: u64) {
    let disk = Disk::new(seed);
    let mut dice = Dice::new(seed ^ 0x6775_6172);
    let (requests, share) = (dice.within(10, 40), *dice.pick(&[10.0, 20.0, 50.0]));
    let (broken, rough) = (dice.within(3_000, 10_000), *dice.pick(&[0, 50, 200]));
    let (dies, away) = (dice.permille(300), dice.permille(400));
    let healthy_s = dice.within(20, 120);
    let mut node = begin(&disk).await;
    let canary = canary_share(share);
    node.control.submit(plain("a canary", canary, "shop"), false).await.expect("the store is well");
    let mut traffic = Traffic { dice, requests, broken: 0, begun: Instant::now(), headers: HeaderMap::new() };
    disk.set_weather(|now| *now = weather(rough, false));
    for _ in 0..healthy_s * 1_000 / TICK_MS {
        traffic.tick(&mut node).await;
    }
    assert!(share_of(&node) > 0.0, "a good version lost its traffic: {requests} requests in a tick, {share} %");

    traffic.broken = broken;
    disk.set_weather(|now| *now = weather(rough, away));
    let mut since = Instant::now();
    let mut dies_after_ms = dies.then(|| traffic.dice.within(500, 3_000));
    while share_of(&node) > 0.0 {
        traffic.tick(&mut node).await;
        let ms = since.elapsed().as_millis() as u64;
        if dies_after_ms.is_some_and(|after| ms >= after) && share_of(&node) > 0.0 {
            // What was in effect and not written is gone, and so is the evidence.
            disk.set_weather(|now| *now = Weather::default());
            node = begin(&disk).await;
            (since, dies_after_ms) = (Instant::now(), None);
        }
        assert!(ms < IN_TIME_MS, "{broken} of 10,000 fail at {share} % of {requests} in a tick, and nothing happens");
    }
    calm(&disk, &mut node, &mut traffic).await;
}

/// All is well again: what went back is written, and stays.
async fn calm(disk: &Arc<Disk>, node: &mut Node, traffic: &mut Traffic) {
    disk.set_weather(|now| *now = Weather::default());
    for _ in 0..200 {
        traffic.tick(node).await;
    }
    assert!(node.control.view().confirmed, "what went back is not confirmed");
    assert_eq!(share_of(node), 0.0);
    let rollbacks = disk.events().await.into_iter().filter(|event| event.kind == EventKind::Rollback);
    let rollbacks: Vec<_> = rollbacks.collect();
    assert!(!rollbacks.is_empty() && rollbacks.iter().all(|event| event.author == Author::Autopilot), "{rollbacks:?}");
    let fresh = begin(disk).await;
    assert_eq!(share_of(&fresh), 0.0, "the next process serves it again");
}

fn weather(rough: u64, away: bool) -> Weather {
    Weather { before: rough, after: rough / 2, read: rough / 2, slow: rough, away }
}

fn canary_share(percent: f64) -> Change {
    let version = |name: &str| VersionName::new(name).expect("a name");
    let share = |percent: f64| BasisPoints::from_percent(percent).expect("a share");
    let weights = [(version("2"), share(percent)), (version("1"), share(100.0 - percent))];
    Change::SetSplit { scope: Scope::Service, weights: Weights::new(weights).expect("they add up") }
}

/// Share of the canary that is in effect.
fn share_of(node: &Node) -> f64 {
    let view = node.control.view();
    let live = view.state.service("shop").expect("it is there");
    live.weights_in_effect(&live.split).share("2").percent()
}

async fn begin(disk: &Arc<Disk>) -> Node {
    let tallies = Arc::new(Tallies::new(10));
    let metrics = Arc::new(Metrics::new(tallies.clone(), 1));
    let parts = Parts {
        settings: settings(),
        store: Connection::new(disk),
        last_good: None,
        salvaged: None,
        returns: false,
        metrics: metrics.clone(),
        tallies: tallies.clone(),
        fresh_secret: "s".repeat(32),
    };
    let control = start(parts).await.expect("the store is well").control;
    let windows = Arc::new(Mutex::new(Windows::default()));
    // The clock is for those who start the task; here the tick is told what time it is.
    let parts = AutopilotParts { control: control.clone(), tallies, windows, metrics, clock: Clock::start() };
    Node { control, guard: Autopilot::new(parts) }
}

impl Traffic {
    fn now_us(&self) -> u64 {
        1_000_000 + self.begun.elapsed().as_micros() as u64
    }

    /// A tenth of a second: requests, then the guard.
    async fn tick(&mut self, node: &mut Node) {
        let view = node.control.view();
        for _ in 0..self.requests {
            self.request(&view.routes);
        }
        drop(view);
        for wanted in node.guard.tick(self.now_us()) {
            node.guard.submit(wanted);
        }
        sleep(Duration::from_millis(TICK_MS)).await;
    }

    fn request(&mut self, routes: &switchback::routing::Routes) {
        let head = Head {
            method: &Method::GET,
            host: "shop.example",
            path: "/",
            headers: &self.headers,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            trusted: false,
            random: [self.dice.next(), self.dice.next()],
            now_s: 0,
        };
        let decision = decide(routes, &head, &mut Silent).expect("there is a service");
        let draw = match decision.drawn {
            Drawn::Coin => Draw::Coin,
            Drawn::Key(hash) => Draw::Key(hash),
            Drawn::Chosen => Draw::Chosen,
        };
        let version = &decision.version.name;
        let begins = Start { tenant: None, version, now_us: self.now_us(), draw, split: decision.split, pooled: false };
        let mut ticket = decision.service.tally.begin(&begins);
        let bad = NOISE + if version.as_str() == "2" { self.broken } else { 0 };
        ticket.answered(self.now_us() + 5_000);
        let outcome = match self.dice.below(10_000) < bad {
            true => Outcome::failed(FailureKind::Status, 500),
            false => Outcome::served(200),
        };
        ticket.finish(outcome, self.now_us() + 5_000);
    }
}
