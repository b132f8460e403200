//! What must be true all the time, and what must be true once everything is well.

use std::collections::VecDeque;
use std::time::Duration;

use switchback::analysis::Signal;
use switchback::control::ComparisonReport;
use switchback::model::{Author, Commit, Event, EventKind, EventQuery, ServiceName};
use switchback::store::{Role, Store as _, StoreError};
use tokio::time::Instant;

use super::proxy::{Count, Proxy, SHOP, Trouble};
use super::world::{TICK_MS, World};

/// Without a leader that the others know, another one leads within this time.
const LEADS_WITHIN: Duration = Duration::from_secs(5);
/// Whoever reaches the store again shows what it has within this time, and has written what it did.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(5);
/// Requests of the canary after which a proxy that is alone has to see that most of them fail.
const ENOUGH: u64 = 60;

/// What is known about the story so far.
#[derive(Default)]
pub struct Watch {
    /// The attempt of now, as the store has it.
    pub attempt: Option<Attempt>,
    /// Rollbacks that were committed in all.
    pub rollbacks: u64,
    /// The latest event that was looked at.
    event: u64,
    /// Since when nobody leads although somebody could.
    leaderless: Option<Instant>,
    /// Revisions of the store, and when each was first seen.
    revisions: VecDeque<(Instant, u64)>,
}

/// A split with a share for the canary, from when a person set it.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub revision: u64,
    /// The first one since the canary had no share: counts of the ones between may come late.
    pub first: u64,
    pub rolled_back: bool,
    /// How long it has been bad while there was a leader that could tell, in milliseconds.
    pub bad_ms: u64,
    /// Whether some proxy alone saw that it fails.
    pub lonely: bool,
    /// A proxy came back that had taken the canary back alone.
    pub owed: Option<Instant>,
}

impl Watch {
    /// Whether the canary has a share.
    pub fn is_open(&self) -> bool {
        self.attempt.is_some_and(|attempt| !attempt.rolled_back)
    }

    /// A proxy's trouble is over. What it took back alone is still right if the attempt is the same.
    pub fn returns(&mut self, proxy: &Proxy) {
        let alone = proxy.share() == 0 && !proxy.control.view().confirmed;
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| alone && attempt.revision == proxy.attempt) {
            attempt.owed.get_or_insert_with(Instant::now);
        }
    }
}

impl World {
    /// Looks at everybody. All happens at one moment of virtual time.
    pub async fn look_over(&mut self) {
        self.read_history().await;
        self.look_for_leaders();
        self.look_for_followers();
        self.look_at_counts();
        self.look_at_the_lonely();
        if let Some(attempt) = &self.watch.attempt
            && !attempt.rolled_back
            && attempt
                .owed
                .is_some_and(|since| since.elapsed() > FOLLOWS_WITHIN && self.up.1.elapsed() > FOLLOWS_WITHIN)
        {
            self.fail("what a proxy took back while it was cut off is not committed after its return");
        }
        if let Some(name) = self.proxies.iter().find(|proxy| proxy.has_ended()).map(|proxy| proxy.name) {
            self.fail(&format!("the writer of proxy {name} has ended; its message stands above"));
        }
    }

    /// What was committed since the last look.
    async fn read_history(&mut self) {
        let revision = self.revision();
        if self.watch.revisions.back().is_none_or(|(_, newest)| *newest < revision) {
            self.watch.revisions.push_back((Instant::now(), revision));
        }
        while let Ok(events) = self.fleet.store().events(self.query()).await
            && let Some(last) = events.last()
        {
            self.watch.event = last.id;
            events.iter().for_each(|event| self.committed(event));
        }
    }

    fn query(&self) -> EventQuery {
        EventQuery { after: self.watch.event, limit: 100, ..EventQuery::default() }
    }

    fn committed(&mut self, event: &Event) {
        self.tell(&format!("committed at {}: {} by {}", event.revision, event.kind, event.author));
        let open = self.watch.attempt.filter(|attempt| !attempt.rolled_back);
        match event.kind {
            EventKind::SplitSet => {
                let has_share = event.after["weights"]["2"].as_f64().is_some_and(|share| share > 0.0);
                let first = open.map_or(event.revision, |attempt| attempt.first);
                let revision = event.revision;
                let (rolled_back, bad_ms, lonely, owed) = (false, 0, false, None);
                self.watch.attempt =
                    has_share.then_some(Attempt { revision, first, rolled_back, bad_ms, lonely, owed });
            }
            EventKind::Rollback => {
                let Some(attempt) = open.filter(|_| event.author == Author::Autopilot) else {
                    self.fail("a rollback of what has no share was committed");
                };
                if self.broken == 0 && !attempt.lonely {
                    self.fail(&format!("a good version was taken back: {}", event.reason));
                }
                self.watch.rollbacks += 1;
                self.watch.attempt = Some(Attempt { rolled_back: true, ..attempt });
            }
            EventKind::Brake | EventKind::BrakeReleased if open.is_none() => {
                self.fail("a brake for what has no share was committed");
            }
            _ => {}
        }
    }

    fn look_for_leaders(&mut self) {
        let leads = |proxy: &&Proxy| proxy.role() == Role::Leader;
        let leaders: Vec<_> = self.proxies.iter().filter(leads).map(|proxy| proxy.name).collect();
        if leaders.len() > 1 {
            self.fail(&format!("the proxies {leaders:?} lead at once"));
        }
        let able = self.up.0 && self.proxies.iter().any(Proxy::reaches);
        if !able || !leaders.is_empty() {
            self.watch.leaderless = None;
        } else if self.watch.leaderless.get_or_insert_with(Instant::now).elapsed() > LEADS_WITHIN {
            self.fail("nobody leads");
        }
        let judges = self.proxies.iter().any(|proxy| leads(&proxy) && proxy.trouble.is_none());
        if let Some(attempt) = self.watch.attempt.as_mut().filter(|_| judges && self.up.0 && self.broken > 0) {
            // A brake leaves a tenth of the users to learn from, which is what it is for.
            let braked = self.proxies.iter().any(|proxy| proxy.is_braked());
            attempt.bad_ms += TICK_MS / self.size.groups as u64 / if braked { 10 } else { 1 };
        }
    }

    /// Whoever reaches the store shows what it has.
    fn look_for_followers(&mut self) {
        let now = Instant::now();
        let old = |at: Instant| now - at > FOLLOWS_WITHIN;
        while self.watch.revisions.get(1).is_some_and(|(at, _)| old(*at)) {
            self.watch.revisions.pop_front();
        }
        if !self.up.0 || !old(self.up.1) {
            return;
        }
        let Some((_, revision)) = self.watch.revisions.front().copied().filter(|(at, _)| old(*at)) else { return };
        for proxy in self.proxies.iter().filter(|proxy| proxy.reaches() && old(proxy.since)) {
            let view = proxy.control.view();
            if view.state.revision < revision || !view.confirmed {
                let (name, shown, confirmed) = (proxy.name, view.state.revision, view.confirmed);
                self.fail(&format!(
                    "proxy {name} shows revision {shown}, confirmed {confirmed}; the store has had {revision} for long"
                ));
            }
        }
    }

    /// Nobody judges more than what was really counted.
    fn look_at_counts(&self) {
        let all = self.counted_since(0);
        for proxy in &self.proxies {
            for report in reports(proxy) {
                let window = &report.window;
                let (baseline, canary) = (window.baseline, window.canary);
                let of = |count: Count| (count.requests, count.failed);
                let beyond = |(n, bad): (u64, u64), (most, most_bad): (u64, u64)| n > most || bad > most_bad;
                if window.signal == Signal::Error
                    && (beyond((canary.n, canary.bad), of(all))
                        || beyond((baseline.n, baseline.bad), of(self.baseline)))
                {
                    let counted = (all, self.baseline);
                    self.fail(&format!("proxy {} judges {window:?}, and counted were {counted:?}", proxy.name));
                }
                let Some(attempt) = self.watch.attempt.filter(|attempt| attempt.revision == report.attempt) else {
                    continue;
                };
                let counted = self.counted_since(attempt.first);
                if beyond((report.requests, report.failures), of(counted)) {
                    let told = (report.requests, report.failures, report.proxies);
                    self.fail(&format!(
                        "proxy {} judges {told:?} in attempt {}, and counted were {counted:?}",
                        proxy.name, attempt.revision
                    ));
                }
            }
        }
    }

    fn counted_since(&self, epoch: u64) -> Count {
        self.canary.range(epoch..).fold(Count::default(), |sum, (_, count)| Count {
            requests: sum.requests + count.requests,
            failed: sum.failed + count.failed,
        })
    }

    /// Who is cut off sees for itself that nearly everything fails.
    fn look_at_the_lonely(&mut self) {
        for proxy in self.proxies.iter().filter(|proxy| proxy.trouble == Some(Trouble::Lonely)) {
            if let Some(attempt) = self.watch.attempt.as_mut().filter(|attempt| attempt.revision == proxy.attempt) {
                attempt.lonely = true;
            }
            if proxy.met > ENOUGH && proxy.share() > 0 && proxy.shop().split.brake.is_none() {
                self.fail(&format!("proxy {} is alone, and sends users on to what fails", proxy.name));
            }
        }
    }

    /// Only the leader's commits are taken when they say that only the leader may make them.
    pub async fn try_to_lead(&mut self) {
        let place = self.dice.below(self.proxies.len() as u64) as usize;
        let (store, role) = (self.proxies[place].store.clone(), self.proxies[place].role());
        // It fits no revision, so that nothing comes of it.
        let revision = self.revision() + 1_000;
        let commit = Commit { expected: revision, revision: revision + 1, leads: true, ..Commit::default() };
        let answer = store.commit(commit).await;
        let right = match role {
            Role::Leader => !matches!(answer, Err(StoreError::NotLeading) | Ok(_)) || !self.proxies[place].reaches(),
            _ => matches!(answer, Err(StoreError::NotLeading | StoreError::Away { .. })),
        };
        if !right {
            self.fail(&format!("proxy {} is {}, and a commit of the leader's: {answer:?}", place, role.as_str()));
        }
    }

    /// Everything has been well for a while: all show the same.
    pub fn converged(&self) {
        let revision = self.revision();
        let split = self.proxies[0].shop();
        for proxy in &self.proxies {
            let view = proxy.control.view();
            if view.state.revision != revision || !view.confirmed || *proxy.shop() != *split {
                self.fail(&format!(
                    "all is well, proxy {} shows revision {}, confirmed {}, and the store has {revision}",
                    proxy.name, view.state.revision, view.confirmed
                ));
            }
        }
    }

    /// Nobody asks for anything any more, nobody died: those who know the sum know all of it.
    pub fn counts_are_equal(&mut self) {
        let Some(attempt) = self.watch.attempt.filter(|attempt| !attempt.rolled_back) else { return };
        // What was on its way when a person took a further step is counted after it.
        let (counted, most) = (self.counted_since(attempt.revision), self.counted_since(attempt.first));
        let knows = |proxy: &&Proxy| matches!(proxy.role(), Role::Leader | Role::Standby);
        for proxy in self.proxies.iter().filter(knows) {
            let right = |report: &ComparisonReport| {
                report.attempt == attempt.revision
                    && (counted.requests..=most.requests).contains(&report.requests)
                    && (counted.failed..=most.failed).contains(&report.failures)
                    && report.proxies == self.proxies.len()
            };
            let reports = reports(proxy);
            if reports.len() != 1 || !reports.iter().all(right) {
                let told: Vec<_> = reports.iter().map(|r| (r.attempt, r.requests, r.failures, r.proxies)).collect();
                self.fail(&format!("proxy {} judges {told:?}, and counted were {counted:?} to {most:?}", proxy.name));
            }
        }
        self.tell(&format!("all know of {counted:?}"));
    }
}

fn reports(proxy: &Proxy) -> Vec<ComparisonReport> {
    proxy.control.board().of(&ServiceName::new(SHOP).expect("a name"), None)
}
