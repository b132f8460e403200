//! The guard as one of a fleet. Every member tells what it counts; the one that joined first judges the sum and advances, and
//! the second knows the sum, too, so that it goes on when the first is gone. All call the same requests slow, by the
//! leader's cuts. A member that is cut off from the others judges what it sees itself, and only ever goes back.

mod notes;
mod others;
mod publisher;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub(super) use self::notes::{CutTable, Whose};
use self::notes::{ServiceTotals, Totals, encode};
use self::others::Others;
pub(super) use self::others::Seen;
use self::publisher::Publisher;
use super::evidence::{EpochNews, Readings};
use super::spoken::Keys;
use super::wall_ms;
use crate::model::{ServiceName, TenantName, VersionName};
use crate::store::{Heard, Membership, Note, Role, Standing};
use crate::telemetry::{ScopeTally, TotalsDelta, latency};

/// How often latencies and the leader's cuts go out, in milliseconds.
const SLOWLY_MS: u64 = 10_000;
/// Tenants or services of one page of cuts: about 40 KiB with names of usual length; a note has 64.
const CUTS: usize = 1_000;
/// Services of one page of totals: the latencies of each take up to 2 KiB.
const TOTALS: usize = 24;

/// What the guard may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    /// Everything: it leads, or there is no fleet.
    Advance,
    /// Only take traffic back, on what it saw itself: it is cut off.
    GoBack,
    /// Nothing: somebody else judges.
    Watch,
}

/// This process's place in its fleet.
pub(super) struct Members {
    membership: Arc<dyn Membership>,
    standing: watch::Receiver<Standing>,
    role: Role,
    /// What is followed, and whether it is everything or only the leader's cuts.
    heard: Option<(mpsc::Receiver<Heard>, bool)>,
    others: Others,
    publisher: Publisher,
    /// By service: its baseline and the buckets of its latencies.
    latencies: HashMap<ServiceName, (VersionName, Vec<u64>)>,
    totals_ms: u64,
    told_failed: Vec<(ServiceName, VersionName, u64, u64)>,
    cuts_ms: u64,
    cut_pages: usize,
    /// Whether nobody takes what this process tells.
    unheard: bool,
    /// Whether this process goes on from evidence that has in it what others counted.
    resumed: bool,
}

impl Members {
    pub fn new(membership: Arc<dyn Membership>) -> Self {
        let standing = membership.standing();
        Self {
            membership,
            standing,
            role: Role::Alone,
            heard: None,
            others: Others::default(),
            publisher: Publisher::default(),
            latencies: HashMap::new(),
            totals_ms: 0,
            told_failed: Vec::new(),
            cuts_ms: 0,
            cut_pages: 0,
            unheard: false,
            resumed: false,
        }
    }

    /// Looks where this process stands and hears what others told; whether the role is another one than before.
    pub fn look(&mut self, now_ms: u64) -> bool {
        let role = self.standing.borrow_and_update().role(Instant::now());
        let changed = std::mem::replace(&mut self.role, role) != role;
        // Whoever is cut off hears nothing, and goes on listening for when it does.
        if role != Role::Alone {
            let everything = matches!(role, Role::Leader | Role::Standby);
            if self.heard.as_ref().is_none_or(|(_, all)| *all != everything) {
                let names = if everything { "" } else { "cuts/" };
                self.heard = Some((self.membership.follow(names), everything));
                self.others.doubt(now_ms);
                if everything && std::mem::take(&mut self.resumed) {
                    self.others.skip(self.standing.borrow().members.iter().map(|member| member.id.clone()));
                }
            }
        }
        let unheard = self.publisher.is_unheard(now_ms);
        if std::mem::replace(&mut self.unheard, unheard) != unheard {
            tracing::warn!(unheard, "whether the other proxies hear what this one counts is another than before");
        }
        let wall = wall_ms();
        while let Some((heard, _)) = &mut self.heard {
            match heard.try_recv() {
                Ok(heard) => self.others.hear(heard, now_ms, |at| now_ms.saturating_sub(wall.saturating_sub(at))),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => self.heard = None,
            }
        }
        changed
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn may(&self) -> May {
        match self.role {
            _ if self.unheard => May::GoBack,
            Role::Leader => May::Advance,
            Role::Alone => May::GoBack,
            Role::Standby | Role::Follower => May::Watch,
        }
    }

    /// How many members there are, as far as is known.
    pub fn count(&self) -> usize {
        self.standing.borrow().members.len()
    }

    /// How many members' counts are judged here together.
    pub fn judged(&self) -> usize {
        match self.role {
            Role::Leader | Role::Standby => 1 + self.others.telling(),
            Role::Follower | Role::Alone => 1,
        }
    }

    /// What others counted since the last look.
    pub fn take_news(&mut self) -> BTreeMap<Whose, Vec<EpochNews>> {
        self.others.take_news()
    }

    /// Keys that spoke at others, as far as they were told since the last look.
    pub fn take_keys(&mut self) -> BTreeMap<Whose, Vec<Keys>> {
        self.others.take_keys()
    }

    /// Latencies that others saw since the last look.
    pub fn take_latencies(&mut self) -> Vec<Seen> {
        self.others.take_latencies()
    }

    /// Requests of users that failed elsewhere since the last look.
    pub fn take_failed(&mut self) -> BTreeMap<(ServiceName, VersionName), i64> {
        self.others.take_failed()
    }

    /// The leader's cuts, for everyone who does not lead.
    pub fn leaders_cuts(
        &self,
        service: &ServiceName,
        tenant: Option<&TenantName>,
        baseline: &VersionName,
    ) -> Option<(u32, u32)> {
        if !matches!(self.role, Role::Standby | Role::Follower) {
            return None;
        }
        let standing = self.standing.borrow();
        self.others.cuts(&standing.leader()?.id, service, tenant, baseline)
    }

    /// A scope in which versions are compared counted something.
    pub fn counted(&mut self, scope: &ScopeTally, news: &[EpochNews], baseline: &VersionName) {
        if !news.is_empty() {
            let whose = || (scope.service().clone(), scope.tenant().cloned());
            self.publisher.touch(scope.id(), whose, news.iter().any(|epoch| epoch.fails_beside(baseline)));
        }
    }

    /// Latencies of the baseline that were seen here.
    pub fn timed(&mut self, service: &ServiceName, baseline: &VersionName, news: &[TotalsDelta]) {
        let Some(delta) = news.iter().find(|delta| delta.version == *baseline) else { return };
        let fresh = || (baseline.clone(), vec![0; latency::BUCKETS]);
        let known = self.latencies.entry(service.clone()).or_insert_with(fresh);
        if known.0 != *baseline {
            *known = fresh();
        }
        delta.latency.add_to(&mut known.1);
    }

    /// Lets go of the scopes for which `stays` does not hold.
    pub fn retain(&mut self, stays: impl Fn(u64) -> bool) {
        self.publisher.retain(stays);
    }

    /// This process goes on from evidence that has in it what others counted: when it first hears of all that they have
    /// counted, it is not known what of it is new.
    pub fn resume(&mut self) {
        self.resumed = true;
    }

    /// Lets go of members that have been gone for long.
    pub fn sweep(&mut self, now_ms: u64) {
        // Whoever hears cuts only does not know who is gone.
        if self.heard.as_ref().is_some_and(|(_, everything)| *everything) {
            self.others.sweep(now_ms);
        }
    }

    /// Tells the others what is due. `failed` gives the requests that failed by service and version, and those of them
    /// that were rescued; `cuts` the cuts of this process.
    pub fn tell(
        &mut self,
        now_ms: u64,
        readings: &Readings,
        failed: impl FnOnce() -> Vec<(ServiceName, VersionName, u64, u64)>,
        cuts: impl FnOnce() -> CutTable,
    ) {
        if self.publisher.settle(now_ms) {
            (self.totals_ms, self.cuts_ms) = (0, 0);
        }
        if self.role == Role::Alone {
            return;
        }
        let wall = wall_ms();
        let to_wall = |at: u64| wall.saturating_sub(now_ms.saturating_sub(at));
        let Some((mut notes, pages)) = self.publisher.due(now_ms, self.count(), readings, &to_wall) else { return };
        notes.extend(self.totals(now_ms, failed()));
        if self.role == Role::Leader && (self.cuts_ms == 0 || now_ms.saturating_sub(self.cuts_ms) >= SLOWLY_MS) {
            self.cuts_ms = now_ms.max(1);
            notes.extend(self.cut_notes(&cuts()));
        }
        if notes.is_empty() {
            return;
        }
        let (answer, written) = oneshot::channel();
        let membership = self.membership.clone();
        tokio::spawn(async move {
            let result = membership.write(notes).await;
            if let Err(error) = &result {
                tracing::debug!(%error, "the other members do not hear what this one counts");
            }
            let _nobody_waits = answer.send(result);
        });
        self.publisher.sent(pages, written);
    }

    /// What the services have seen as a whole, when it is due.
    fn totals(&mut self, now_ms: u64, failed: Vec<(ServiceName, VersionName, u64, u64)>) -> Vec<Note> {
        let slowly = self.totals_ms == 0 || now_ms.saturating_sub(self.totals_ms) >= SLOWLY_MS;
        if !slowly && failed == self.told_failed {
            return Vec::new();
        }
        self.totals_ms = now_ms.max(1);
        let mut all = Vec::new();
        for (service, (baseline, counts)) in &self.latencies {
            let some = (0u16..).zip(counts).filter(|(_, count)| **count > 0).map(|(bucket, count)| (bucket, *count));
            let of = failed.iter().filter(|(name, ..)| name == service).map(|(_, v, f, r)| (v.clone(), *f, *r));
            let (service, baseline) = (service.clone(), baseline.clone());
            let (latencies, failed) = (some.collect(), of.collect());
            all.push(ServiceTotals { service, baseline, latencies, failed });
        }
        all.sort_by(|a, b| a.service.cmp(&b.service));
        self.told_failed = failed;
        let page = |(number, services): (usize, &[ServiceTotals])| {
            let body = encode(&Totals { services: services.to_vec() });
            Note { name: format!("totals/{number:03}"), body: Some(body) }
        };
        all.chunks(TOTALS).enumerate().map(page).collect()
    }

    fn cut_notes(&mut self, table: &CutTable) -> Vec<Note> {
        let services = table.services.chunks(CUTS).map(<[_]>::to_vec);
        let tenants = table.tenants.chunks(CUTS).map(<[_]>::to_vec);
        let tables = services
            .map(|services| CutTable { services, ..CutTable::default() })
            .chain(tenants.map(|tenants| CutTable { tenants, ..CutTable::default() }));
        let tables: Vec<_> = tables.collect();
        let name = |page: usize| format!("cuts/{page:03}");
        let written = (0..).zip(&tables).map(|(page, table)| Note { name: name(page), body: Some(encode(table)) });
        let gone = (tables.len()..self.cut_pages).map(|page| Note { name: name(page), body: None });
        let notes = written.chain(gone).collect();
        self.cut_pages = tables.len();
        notes
    }
}
