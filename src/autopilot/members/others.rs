//! What the other members have counted: their pages are cumulative, so the difference to the page before is what is new,
//! and a page that is lost or told twice does no harm. Adding differences up is all the merging there is.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::notes::{Counts, CutTable, ServiceTotals, Totals, Whose, decode, decode_counts};
use crate::autopilot::evidence::{EpochNews, EpochReading};
use crate::autopilot::spoken::Keys;
use crate::model::{ServiceName, TenantName, VersionName};
use crate::store::{Heard, MemberId};

/// How long a member that is gone may come back and go on where it was, in milliseconds.
const GONE_MS: u64 = 15 * 60 * 1_000;
/// A member that was silent for longer tells what may be long ago, in milliseconds. Whoever counts writes every second.
const SILENT_MS: u64 = 10_000;
/// Epochs of one scope of one member that are remembered.
const EPOCHS: usize = 32;

/// Latencies of a service's baseline that others saw: counts by bucket.
pub type Seen = (ServiceName, VersionName, Vec<(u16, u64)>);

/// The other members.
#[derive(Default)]
pub struct Others {
    members: HashMap<MemberId, Told>,
    news: BTreeMap<Whose, Vec<EpochNews>>,
    /// Keys that spoke, told again and again for a while.
    keys: BTreeMap<Whose, Vec<Keys>>,
    latencies: Vec<Seen>,
    /// Requests that failed on a version for their users: what was added since the last look.
    failed: BTreeMap<(ServiceName, VersionName), i64>,
    cuts: HashMap<MemberId, BTreeMap<String, Cuts>>,
    /// Members of which it is not known any more what was counted already.
    forgotten: HashSet<MemberId>,
}

/// What one member told last.
#[derive(Default)]
struct Told {
    scopes: HashMap<Whose, Vec<EpochReading>>,
    latencies: HashMap<(ServiceName, VersionName), BTreeMap<u16, u64>>,
    failed: HashMap<(ServiceName, VersionName), (u64, u64)>,
    /// Since when it has no notes.
    gone_ms: Option<u64>,
    /// Its notes that stand, and when each was heard last, on the clock of the ticks.
    names: HashMap<String, u64>,
    /// Whether the first that it tells of an epoch may have been counted before, and is not counted again.
    skips: bool,
}

/// One page of cuts.
#[derive(Default)]
struct Cuts {
    services: HashMap<ServiceName, (VersionName, u32, u32)>,
    tenants: HashMap<ServiceName, HashMap<TenantName, (u32, u32)>>,
}

impl Others {
    /// Takes in what was heard. `from_wall` turns a wall clock's time into one on the clock of the ticks.
    pub fn hear(&mut self, heard: Heard, now_ms: u64, from_wall: impl Fn(u64) -> u64) {
        let Heard::Note { member, name, body } = heard else {
            // What stands is told again, and it is cumulative.
            return self.doubt(now_ms);
        };
        if name.starts_with("cuts/") {
            return self.hear_cuts(member, name, body.as_deref());
        }
        let skips = self.forgotten.contains(&member);
        let seen = self.members.entry(member).or_insert_with(|| Told { skips, ..Told::default() });
        let Some(body) = body else {
            seen.names.remove(&name);
            if seen.names.is_empty() {
                seen.gone_ms.get_or_insert(now_ms);
            }
            return;
        };
        seen.gone_ms = None;
        let before_ms = seen.names.insert(name.clone(), now_ms);
        let late = before_ms.is_none_or(|before_ms| now_ms.saturating_sub(before_ms) > SILENT_MS);
        match name.split_once('/').map_or(name.as_str(), |(kind, _)| kind) {
            "counts" => {
                for Counts { whose, epochs, keys } in decode_counts(&body).unwrap_or_default() {
                    if !keys.keys.is_empty() {
                        self.keys.entry(whose.clone()).or_default().push(keys);
                    }
                    let mut news =
                        seen.count(&whose, epochs, |at| from_wall(at).clamp(before_ms.unwrap_or_default(), now_ms));
                    news.iter_mut().for_each(|epoch| epoch.late = late);
                    if !news.is_empty() {
                        self.news.entry(whose).or_default().extend(news);
                    }
                }
            }
            "totals" => {
                let Some(totals) = decode::<Totals>(&body) else { return };
                for ServiceTotals { service, baseline, latencies, failed } in totals.services {
                    for (version, failed, rescued) in failed {
                        let (key, of) = ((service.clone(), version), (failed, rescued));
                        if let Some(before) = seen.failed.insert(key.clone(), of) {
                            let cost = |(failed, rescued): (u64, u64)| failed as i64 - rescued as i64;
                            *self.failed.entry(key).or_default() += cost(of) - cost(before);
                        }
                    }
                    let news = seen.time((service.clone(), baseline.clone()), latencies);
                    if !news.is_empty() {
                        self.latencies.push((service, baseline, news));
                    }
                }
            }
            _ => {}
        }
    }

    fn hear_cuts(&mut self, member: MemberId, name: String, body: Option<&[u8]>) {
        let pages = self.cuts.entry(member.clone()).or_default();
        match body.and_then(decode::<CutTable>) {
            Some(table) => drop(pages.insert(name, Cuts::from(table))),
            None => drop(pages.remove(&name)),
        }
        if pages.is_empty() {
            self.cuts.remove(&member);
        }
    }

    /// What was counted since the last look.
    pub fn take_news(&mut self) -> BTreeMap<Whose, Vec<EpochNews>> {
        std::mem::take(&mut self.news)
    }

    /// The keys that were told since the last look.
    pub fn take_keys(&mut self) -> BTreeMap<Whose, Vec<Keys>> {
        std::mem::take(&mut self.keys)
    }

    /// Latencies since the last look.
    pub fn take_latencies(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.latencies)
    }

    /// Requests that failed for their users since the last look; fewer when some were rescued after all.
    pub fn take_failed(&mut self) -> BTreeMap<(ServiceName, VersionName), i64> {
        std::mem::take(&mut self.failed)
    }

    /// The cuts of a member for a service with this baseline: of a tenant where there are some, otherwise of the service.
    pub fn cuts(
        &self,
        member: &MemberId,
        service: &ServiceName,
        tenant: Option<&TenantName>,
        baseline: &VersionName,
    ) -> Option<(u32, u32)> {
        let pages = self.cuts.get(member)?;
        let of_service = pages.values().find_map(|page| page.services.get(service));
        let (_, p90, p99) = of_service.filter(|(version, ..)| version == baseline)?;
        let own = tenant.and_then(|t| pages.values().find_map(|page| page.tenants.get(service)?.get(t)));
        let (own90, own99) = own.copied().unwrap_or_default();
        Some((if own90 > 0 { own90 } else { *p90 }, if own99 > 0 { own99 } else { *p99 }))
    }

    /// How many members have told something that stands.
    pub fn telling(&self) -> usize {
        self.members.values().filter(|seen| seen.gone_ms.is_none()).count()
    }

    /// What these members counted so far is counted already, or it is not known what of it is.
    pub fn skip(&mut self, members: impl IntoIterator<Item = MemberId>) {
        self.forgotten.extend(members);
    }

    /// Whoever ended unheard is gone: what stands is told now.
    pub fn doubt(&mut self, now_ms: u64) {
        self.cuts.clear();
        self.members.values_mut().for_each(|told| told.gone_ms = told.gone_ms.or(Some(now_ms)));
    }

    /// Forgets members that have been gone for long.
    pub fn sweep(&mut self, now_ms: u64) {
        let forgotten = &mut self.forgotten;
        self.members.retain(|id, seen| {
            let stays = seen.gone_ms.is_none_or(|gone| now_ms.saturating_sub(gone) < GONE_MS);
            if !stays {
                forgotten.insert(id.clone());
            }
            stays
        });
    }
}

impl Told {
    fn count(&mut self, whose: &Whose, epochs: Vec<EpochReading>, bad_at: impl Fn(u64) -> u64) -> Vec<EpochNews> {
        let known = self.scopes.entry(whose.clone()).or_default();
        let mut news = Vec::new();
        for now in epochs {
            let place = known.iter().position(|epoch| epoch.epoch == now.epoch && epoch.weights == now.weights);
            let first_bad_ms = now.bad_since_ms.iter().map(|at| at.map(&bad_at)).collect();
            if place.is_some() || !self.skips {
                news.extend(now.since(place.map(|place| &known[place]), first_bad_ms));
            }
            match place {
                Some(place) => known[place] = now,
                None => known.push(now),
            }
        }
        known.sort_by_key(|epoch| epoch.epoch);
        let extra = known.len().saturating_sub(EPOCHS);
        known.drain(..extra);
        news
    }

    fn time(&mut self, of: (ServiceName, VersionName), counts: Vec<(u16, u64)>) -> Vec<(u16, u64)> {
        let known = self.latencies.entry(of).or_default();
        let new = counts.into_iter().filter_map(|(bucket, count)| {
            let before = known.insert(bucket, count).unwrap_or_default();
            Some((bucket, count.checked_sub(before)?)).filter(|(_, new)| *new > 0)
        });
        new.collect()
    }
}

impl From<CutTable> for Cuts {
    fn from(table: CutTable) -> Self {
        let services = table.services.into_iter().map(|(service, baseline, p90, p99)| (service, (baseline, p90, p99)));
        let mut cuts = Self { services: services.collect(), tenants: HashMap::new() };
        for (service, tenant, p90, p99) in table.tenants {
            cuts.tenants.entry(service).or_default().insert(tenant, (p90, p99));
        }
        cuts
    }
}

#[cfg(test)]
#[path = "others_tests.rs"]
mod tests;
