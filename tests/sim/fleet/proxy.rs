//! One proxy of the fleet: the real control room and the real guard on a member of the fleet in memory, and the requests
//! that it answers under the split that it shows.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use http::{HeaderMap, Method};
use switchback::autopilot::{Autopilot, AutopilotParts};
use switchback::config::{self, Settings};
use switchback::control::{Control, Parts, start};
use switchback::model::{ServiceState, VersionName};
use switchback::proxy::Clock;
use switchback::routing::{Drawn, Head, Silent, decide};
use switchback::store::{MemberStore, MemoryFleet, Role, Store as _};
use switchback::telemetry::{Draw, FailureKind, Metrics, Outcome, Start, Tallies, Ticket, Windows};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::dice::Dice;

const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:0"]
[services.shop]
match = [{ path = "/" }]
baseline = "1"
versions = { "1" = { endpoints = ["127.0.0.1:7001"] }, "2" = { endpoints = ["127.0.0.1:7002"] } }
"#;

/// The service of the file.
pub const SHOP: &str = "shop";

/// Faults are introduced by the story, so what both versions fail by chance is rare, in ten thousand.
const NOISE: u64 = 20;

/// How long a request takes that is answered before the guard looks again, in microseconds.
const SOON_US: u64 = 5_000;

static SETTINGS: LazyLock<Settings> =
    LazyLock::new(|| config::parse(FILE, Path::new("/etc/sim.toml"), &|_| None).expect("a good file"));

/// What is wrong with a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It reaches neither the store nor the others.
    Cut,
    /// The same, and only here the canary fails.
    Lonely,
    /// It does nothing at all, as a machine that is put to sleep.
    Frozen,
    /// It serves, and its guard does not look.
    Stuck,
}

/// What was counted of one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub requests: u64,
    pub failed: u64,
}

/// A request that is answered later.
struct Flying {
    ticket: Ticket,
    ends_us: u64,
    answered: Answered,
}

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    pub canary: bool,
    /// The epoch of the split that it followed.
    pub epoch: u64,
    pub failed: bool,
}

pub struct Proxy {
    pub name: usize,
    pub store: Arc<MemberStore>,
    pub control: Control,
    pub trouble: Option<Trouble>,
    /// When its trouble began or ended last.
    pub since: Instant,
    /// When its trouble ends.
    pub until: Instant,
    /// Requests of the canary since its trouble began.
    pub met: u64,
    /// The latest attempt in which it gave the canary a share.
    pub attempt: u64,
    guard: Autopilot,
    writer: JoinHandle<()>,
    dice: Dice,
    /// What its clock shows when the story begins, in microseconds.
    clock_us: u64,
    flying: Vec<Flying>,
}

impl Proxy {
    /// Loads the state and serves. The store is well.
    pub async fn begin(fleet: &MemoryFleet, name: usize, mut dice: Dice) -> Self {
        let store = Arc::new(fleet.member(&format!("proxy{name}")));
        let tallies = Arc::new(Tallies::new(10));
        let metrics = Arc::new(Metrics::new(tallies.clone(), 1));
        let parts = Parts {
            settings: SETTINGS.clone(),
            store: store.clone(),
            // A copy is written on a thread, which no virtual clock waits for.
            last_good: None,
            salvaged: None,
            returns: true,
            metrics: metrics.clone(),
            tallies: tallies.clone(),
            fresh_secret: "s".repeat(32),
        };
        let started = start(parts).await.expect("the store is well");
        let control = started.control;
        let windows = Arc::new(Mutex::new(Windows::default()));
        // The clock is for those who start the task; here the tick is told what time it is.
        let parts = AutopilotParts { control: control.clone(), tallies, windows, metrics, clock: Clock::start() };
        let (since, clock_us) = (Instant::now(), dice.within(1_000_000, 1_000_000_000));
        Self {
            name,
            store,
            control,
            trouble: None,
            since,
            until: since,
            met: 0,
            attempt: 0,
            guard: Autopilot::new(parts),
            writer: started.writer,
            dice,
            clock_us,
            flying: Vec::new(),
        }
    }

    /// It is killed wherever it stands.
    pub fn kill(self) {
        self.store.cut(true);
        self.writer.abort();
    }

    pub fn suffer(&mut self, trouble: Option<Trouble>, until: Instant) {
        (self.trouble, self.since, self.until, self.met) = (trouble, Instant::now(), until, 0);
        self.store.cut(matches!(trouble, Some(Trouble::Cut | Trouble::Lonely | Trouble::Frozen)));
    }

    /// Whether it can reach the store and the others, when these are well.
    pub fn reaches(&self) -> bool {
        matches!(self.trouble, None | Some(Trouble::Stuck))
    }

    pub fn has_ended(&self) -> bool {
        self.writer.is_finished()
    }

    pub fn role(&self) -> Role {
        let membership = self.store.membership().expect("it is of a fleet");
        let standing = membership.standing();
        standing.borrow().role(Instant::now())
    }

    /// The service as it is shown here.
    pub fn shop(&self) -> Arc<ServiceState> {
        let view = self.control.view();
        view.routes.service(SHOP).expect("it is there").state.clone()
    }

    /// Share of the canary that is in effect here, in hundredths of a percent.
    pub fn share(&self) -> u16 {
        let live = self.shop();
        live.weights_in_effect(&live.split).share("2").points()
    }

    pub fn is_braked(&self) -> bool {
        self.shop().split.brake.is_some()
    }

    /// The guard looks.
    pub fn look(&mut self, now_us: u64) {
        if matches!(self.trouble, Some(Trouble::Frozen | Trouble::Stuck)) {
            return;
        }
        for wanted in self.guard.tick(self.clock_us + now_us) {
            self.guard.submit(wanted);
        }
    }

    /// Requests of a tenth of a second: `permille` in a thousandth of one each. `broken` of ten thousand of the canary's
    /// fail beside the noise. Tells which were answered.
    pub fn serve(&mut self, now_us: u64, permille: u64, broken: u64) -> Vec<Answered> {
        if self.trouble == Some(Trouble::Frozen) {
            return Vec::new();
        }
        let now_us = self.clock_us + now_us;
        let broken = if self.trouble == Some(Trouble::Lonely) { broken.max(8_000) } else { broken };
        let requests = permille / 1_000 + u64::from(self.dice.permille(permille % 1_000));
        let (mut done, mut flying) = (Vec::new(), std::mem::take(&mut self.flying));
        let routes = self.control.published().load_full();
        if self.share() > 0 {
            self.attempt = self.shop().split.attempt;
        }
        flying.extend((0..requests).map(|_| self.request(&routes, now_us, broken)));
        for mut request in flying {
            if request.ends_us > now_us + SOON_US {
                self.flying.push(request);
                continue;
            }
            request.ticket.answered(request.ends_us);
            let outcome = match request.answered.failed {
                true => Outcome::failed(FailureKind::Status, 500),
                false => Outcome::served(200),
            };
            request.ticket.finish(outcome, request.ends_us);
            self.met += u64::from(request.answered.canary);
            done.push(request.answered);
        }
        done
    }

    fn request(&mut self, routes: &switchback::routing::Routes, now_us: u64, broken: u64) -> Flying {
        let headers = HeaderMap::new();
        let head = Head {
            method: &Method::GET,
            host: "shop.example",
            path: "/",
            headers: &headers,
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
        let version: &VersionName = &decision.version.name;
        let begins = Start { tenant: None, version, now_us, draw, split: decision.split, pooled: false };
        let ticket = decision.service.tally.begin(&begins);
        let canary = version.as_str() == "2";
        let failed = self.dice.below(10_000) < NOISE + if canary { broken } else { 0 };
        // Some are still on their way when the split is another one.
        let takes_us = if self.dice.permille(50) { self.dice.within(100_000, 2_000_000) } else { SOON_US };
        let ends_us = now_us + takes_us;
        let epoch = decision.split.map_or(0, |split| split.epoch);
        Flying { ticket, ends_us, answered: Answered { canary, epoch, failed } }
    }
}
