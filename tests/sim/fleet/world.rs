//! One story: the proxies on their fleet, what people and chance do to them, and what is known about them from outside.

use std::collections::{BTreeMap, VecDeque};

use switchback::model::{BasisPoints, Change, Scope, VersionName, Weights};
use switchback::store::{MemoryFleet, Role, Store as _};
use tokio::time::{Duration, Instant, sleep};

use super::checks::Watch;
use super::proxy::{Count, Proxy, SHOP, Trouble};
use crate::control::plain;
use crate::dice::Dice;

/// The time between two ticks of one proxy.
pub const TICK_MS: u64 = 100;
/// Lines that a story which fails is told with.
const LINES: usize = 60;

/// How large a story is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub proxies: usize,
    /// How many groups of proxies look one after the other within a tenth of a second.
    pub groups: usize,
    pub attempts: u64,
}

pub struct World {
    pub size: Size,
    pub dice: Dice,
    pub fleet: MemoryFleet,
    pub proxies: Vec<Proxy>,
    pub since: Instant,
    /// Whether the store can be reached, and since when.
    pub up: (bool, Instant),
    /// When the store comes back.
    pub down_until: Instant,
    /// Requests of each proxy in a tenth of a second, in thousandths.
    pub permille: u64,
    /// How many of ten thousand requests of the canary fail beside the noise.
    pub broken: u64,
    /// What all proxies together really counted of the canary, by epoch, and of the baseline.
    pub canary: BTreeMap<u64, Count>,
    pub baseline: Count,
    pub watch: Watch,
    begun: usize,
    log: VecDeque<String>,
    digest: u64,
}

impl World {
    pub async fn new(seed: u64, size: Size) -> Self {
        let now = Instant::now();
        let mut world = Self {
            size,
            dice: Dice::new(seed ^ 0x666c_6565_7400),
            fleet: MemoryFleet::new(),
            proxies: Vec::new(),
            since: now,
            up: (true, now),
            down_until: now,
            permille: 0,
            broken: 0,
            canary: BTreeMap::new(),
            baseline: Count::default(),
            watch: Watch::default(),
            begun: 0,
            log: VecDeque::new(),
            digest: 0,
        };
        let at_once = size.proxies - world.dice.below(size.proxies as u64 / 4) as usize;
        for _ in 0..at_once {
            world.join().await;
        }
        world
    }

    pub fn tell(&mut self, what: &str) {
        let line = format!("{:>7} ms  {what}", self.since.elapsed().as_millis());
        self.digest =
            line.bytes().fold(self.digest, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        self.log.push_back(line);
        if self.log.len() > LINES {
            self.log.pop_front();
        }
    }

    /// What was told, as a number: the same story has the same.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn fail(&self, why: &str) -> ! {
        let log: Vec<_> = self.log.iter().cloned().collect();
        panic!("{why}\nafter\n{}", log.join("\n"));
    }

    /// A proxy begins.
    pub async fn join(&mut self) {
        self.begun += 1;
        let dice = Dice::new(self.dice.next());
        let proxy = Proxy::begin(&self.fleet, self.begun, dice).await;
        self.tell(&format!("proxy {} begins", self.begun));
        self.proxies.push(proxy);
    }

    /// A tenth of a second.
    pub async fn pass(&mut self) {
        self.end_troubles();
        for group in 0..self.size.groups {
            let now_us = self.since.elapsed().as_micros() as u64;
            for proxy in self.proxies.iter_mut().filter(|proxy| proxy.name % self.size.groups == group) {
                for answered in proxy.serve(now_us, self.permille, self.broken) {
                    let count = match answered.canary {
                        true => self.canary.entry(answered.epoch).or_default(),
                        false => &mut self.baseline,
                    };
                    count.requests += 1;
                    count.failed += u64::from(answered.failed);
                }
                proxy.look(now_us);
            }
            sleep(Duration::from_millis(TICK_MS / self.size.groups as u64)).await;
            self.look_over().await;
        }
    }

    fn end_troubles(&mut self) {
        let now = Instant::now();
        if !self.up.0 && self.down_until <= now {
            self.set_down(None);
        }
        for place in 0..self.proxies.len() {
            let proxy = &self.proxies[place];
            if proxy.trouble.is_some() && proxy.until <= now {
                self.recover(place);
            }
        }
    }

    /// Everything is well from now on.
    pub fn mend(&mut self) {
        if !self.up.0 {
            self.set_down(None);
        }
        for place in 0..self.proxies.len() {
            if self.proxies[place].trouble.is_some() {
                self.recover(place);
            }
        }
    }

    fn recover(&mut self, place: usize) {
        let proxy = &mut self.proxies[place];
        let (trouble, name) = (proxy.trouble, proxy.name);
        self.watch.returns(proxy);
        proxy.suffer(None, Instant::now());
        self.tell(&format!("proxy {name} is well again, it was {trouble:?}"));
    }

    fn set_down(&mut self, down: Option<u64>) {
        let now = Instant::now();
        self.up = (down.is_none(), now);
        self.down_until = now + Duration::from_secs(down.unwrap_or_default());
        self.fleet.set_down(down.is_some());
        self.tell(&down.map_or_else(|| "the store is back".to_owned(), |s| format!("the store is away for {s} s")));
    }

    pub fn suffer(&mut self, place: usize, trouble: Trouble, seconds: u64) {
        let proxy = &mut self.proxies[place];
        if proxy.trouble.is_some() {
            return;
        }
        let name = proxy.name;
        proxy.suffer(Some(trouble), Instant::now() + Duration::from_secs(seconds));
        self.tell(&format!("proxy {name} is {trouble:?} for {seconds} s"));
    }

    fn kill(&mut self, place: usize) {
        let proxy = self.proxies.remove(place);
        self.tell(&format!("proxy {} is killed", proxy.name));
        proxy.kill();
    }

    pub fn leader(&self) -> Option<usize> {
        self.proxies.iter().position(|proxy| proxy.role() == Role::Leader)
    }

    /// A proxy that can reach the store and the others.
    fn anyone(&mut self) -> Option<usize> {
        let well: Vec<_> = (0..self.proxies.len()).filter(|place| self.proxies[*place].trouble.is_none()).collect();
        (!well.is_empty() && self.up.0).then(|| *self.dice.pick(&well))
    }

    /// Something happens. Whoever dies takes counts away that nobody else knows: `gently` nobody does.
    pub async fn happen(&mut self, gently: bool) {
        let living = self.proxies.len();
        let most = self.size.proxies / 3;
        let ill = self.proxies.iter().filter(|proxy| proxy.trouble.is_some()).count();
        let someone = self.dice.below(living as u64) as usize;
        let leader = self.leader().unwrap_or(someone);
        match self.dice.below(12) {
            0 if !gently && living > self.size.proxies / 2 => self.kill(leader),
            1 if !gently && living > self.size.proxies / 2 => self.kill(someone),
            2..=3 if ill < most => {
                let seconds = self.dice.within(1, 30);
                self.suffer(leader, Trouble::Cut, seconds);
            }
            4 if ill < most => {
                let seconds = self.dice.within(1, 40);
                for _ in 0..self.dice.within(1, (most - ill) as u64) {
                    let one = self.dice.below(living as u64) as usize;
                    self.suffer(one, Trouble::Cut, seconds);
                }
            }
            5 if ill < most => {
                let one = if self.dice.permille(500) { leader } else { someone };
                self.suffer(one, Trouble::Frozen, 30);
            }
            6 if ill < most => {
                let one = if self.dice.permille(500) { leader } else { someone };
                self.suffer(one, Trouble::Stuck, 30);
            }
            7 if self.up.0 => {
                let seconds = self.dice.within(1, 20);
                self.set_down(Some(seconds));
            }
            8..=9 if living < self.size.proxies && self.up.0 && !gently => self.join().await,
            10 if self.watch.is_open() => {
                let share = self.dice.within(500, 4_000);
                self.set_split(share as u16).await;
            }
            _ => {}
        }
    }

    /// A person sets the split on some proxy; whether it was done.
    pub async fn set_split(&mut self, points: u16) -> bool {
        let Some(place) = self.anyone() else { return false };
        let version = |name: &str| VersionName::new(name).expect("a name");
        let share = |points| BasisPoints::new(points).expect("a share");
        let weights = [(version("2"), share(points)), (version("1"), share(10_000 - points))];
        let weights = Weights::new(weights).expect("they add up");
        let change = Change::SetSplit { scope: Scope::Service, weights };
        let proxy = &self.proxies[place];
        let (name, control) = (proxy.name, proxy.control.clone());
        let answer = control.submit(plain("a person", change, SHOP), false).await;
        let said = answer.as_ref().map_or_else(ToString::to_string, |receipt| format!("revision {}", receipt.revision));
        self.tell(&format!("a person sets {points} of 10,000 on proxy {name}: {said}"));
        answer.is_ok()
    }

    /// The revision that the store has.
    pub fn revision(&self) -> u64 {
        *self.fleet.store().watch().borrow()
    }
}
