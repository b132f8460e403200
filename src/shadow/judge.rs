//! Counts what the comparisons found, learns what is noise, and reports what remains.

use std::collections::{BTreeMap, HashMap};

use super::compare::{Difference, Differences};
use super::verdict::{Verdict, verdict};
use crate::model::ShadowSpec;
use crate::telemetry::latency::{BUCKETS, bucket_of, quantile};

/// Requests that the baseline must have answered twice before fields are reported.
pub const NOISE_NEEDED: u64 = 20;

/// Paths that are told apart; what differs elsewhere shares one place.
const PATHS_MAX: usize = 1_000;
/// Sets of paths that are counted apart; rarer ones are counted by one of their paths.
const SETS_MAX: usize = 1_000;
/// Pairs of statuses that are told apart.
const STATUSES_MAX: usize = 64;
/// How often a new difference is checked against the baseline's own second answer.
const CONFIRM: u8 = 3;
/// The place of what is not told apart.
const OTHER: u16 = u16::MAX;

/// One of the two answers to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// Status.
    pub status: u16,
    /// From the request's head sent to the answer's head received, in microseconds.
    pub latency_us: u64,
}

/// A request that both have answered.
#[derive(Debug)]
pub struct Exchange {
    /// The answer that the client got.
    pub baseline: Side,
    /// The answer to the copy.
    pub shadow: Side,
    /// What differs in the bodies; none when one cannot be read.
    pub bodies: Option<Differences>,
}

/// Why a copy has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// No connection, or a broken answer.
    Failed,
    /// Not within the time.
    Timeout,
}

/// What came of one exchange, as far as is known when it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Result {
    /// Nothing differs but noise.
    Same,
    /// Something differs.
    Different,
    /// The bodies cannot be compared.
    Unjudged,
}

/// The counts of one shadow against one baseline.
#[derive(Debug)]
pub struct Judge {
    since_ms: Option<u64>,
    places: HashMap<String, u16>,
    fields: Vec<Field>,
    other: Field,
    noise_samples: u64,
    compared: u64,
    /// Requests by the set of fields that differ, without noise; never an empty set.
    sets: HashMap<Box<[u16]>, u64>,
    statuses: BTreeMap<(u16, u16), u64>,
    other_statuses: u64,
    unjudged: u64,
    failed: u64,
    timeouts: u64,
    latency: [Vec<u64>; 2],
}

#[derive(Debug, Default)]
struct Field {
    path: String,
    noisy: bool,
    confirmed: u8,
    requests: u64,
    example: Option<Difference>,
}

/// What is known, without any value of any answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// When the first copy was answered or given up, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// The verdict.
    pub verdict: Verdict,
    /// Requests without any difference but noise.
    pub same: u64,
    /// Requests with another status or a difference that is not noise.
    pub different: u64,
    /// Requests whose bodies cannot be compared.
    pub unjudged: u64,
    /// Copies that were not answered.
    pub failed: u64,
    /// Copies that were not answered in time.
    pub timeouts: u64,
    /// Requests that the baseline has answered twice.
    pub noise_samples: u64,
    /// How many of them there must be before fields are reported.
    pub noise_needed: u64,
    /// Fields that differ by themselves.
    pub noise: Vec<String>,
    /// Fields that differ, the most frequent first. Empty until there are enough noise samples.
    pub fields: Vec<FieldReport>,
    /// Requests that differ in fields beyond those that are told apart.
    pub other_fields: u64,
    /// Baseline's status, shadow's status, requests; only where they differ. The most frequent first.
    pub statuses: Vec<(u16, u16, u64)>,
    /// Of the baseline.
    pub baseline_latency: Quantiles,
    /// Of the shadow, for the same requests.
    pub shadow_latency: Quantiles,
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldReport {
    /// Its path.
    pub path: String,
    /// Requests in which it differs.
    pub requests: u64,
    /// Share of the compared requests, 0 to 1.
    pub rate: f64,
    /// The first time that it differed.
    pub example: Difference,
}

/// Latencies in seconds; none without requests.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quantiles {
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            since_ms: None,
            places: HashMap::new(),
            fields: Vec::new(),
            other: Field::default(),
            noise_samples: 0,
            compared: 0,
            sets: HashMap::new(),
            statuses: BTreeMap::new(),
            other_statuses: 0,
            unjudged: 0,
            failed: 0,
            timeouts: 0,
            latency: [vec![0; BUCKETS], vec![0; BUCKETS]],
        }
    }
}

impl Judge {
    /// Whether the baseline should be asked again for this request: the first ones always are, and those that show
    /// something new, so that what changes rarely by itself is not taken for a difference.
    pub fn wants_noise(&self, bodies: Option<&Differences>) -> bool {
        let is_new = |path: &String| match self.places.get(path) {
            Some(place) => {
                let field = self.field(*place);
                !field.noisy && field.confirmed < CONFIRM
            }
            None => self.fields.len() < PATHS_MAX,
        };
        bodies.is_some_and(|found| self.noise_samples < NOISE_NEEDED || found.fields.keys().any(is_new))
    }

    /// Takes in what differs between two answers of the baseline to one request, of which the shadow's answer differed
    /// in `found`.
    pub fn learn(&mut self, noise: &Differences, found: &Differences) {
        self.noise_samples += 1;
        for path in noise.fields.keys() {
            let place = self.place(path);
            self.mark(place);
        }
        if noise.more {
            self.mark(OTHER);
        }
        for path in found.fields.keys().filter(|path| !noise.fields.contains_key(*path)) {
            let place = self.place(path);
            let field = self.field_mut(place);
            field.confirmed = field.confirmed.saturating_add(1);
        }
    }

    /// Counts a request that both have answered.
    pub fn record(&mut self, now_ms: u64, exchange: &Exchange) -> Result {
        self.since_ms.get_or_insert(now_ms);
        let (baseline, shadow) = (exchange.baseline, exchange.shadow);
        self.latency[0][bucket_of(baseline.latency_us)] += 1;
        self.latency[1][bucket_of(shadow.latency_us)] += 1;
        if baseline.status != shadow.status {
            // Bodies of different statuses have nothing in common.
            self.compared += 1;
            self.count_status((baseline.status, shadow.status));
            return Result::Different;
        }
        let Some(found) = &exchange.bodies else {
            self.unjudged += 1;
            return Result::Unjudged;
        };
        self.compared += 1;
        let mut set: Vec<u16> = found.fields.iter().map(|(path, d)| self.count_field(path, d)).collect();
        if found.more {
            set.push(OTHER);
        }
        set.sort_unstable();
        set.dedup();
        if set.contains(&OTHER) {
            self.other.requests += 1;
        }
        set.retain(|place| !self.field(*place).noisy);
        if set.is_empty() {
            return Result::Same;
        }
        if self.sets.len() >= SETS_MAX && !self.sets.contains_key(set.as_slice()) {
            set.truncate(1);
        }
        *self.sets.entry(set.into_boxed_slice()).or_default() += 1;
        Result::Different
    }

    /// Counts a copy that has no answer.
    pub fn missed(&mut self, now_ms: u64, why: Missed) {
        self.since_ms.get_or_insert(now_ms);
        match why {
            Missed::Failed => self.failed += 1,
            Missed::Timeout => self.timeouts += 1,
        }
    }

    /// What is known now.
    pub fn report(&self, spec: &ShadowSpec) -> Report {
        let noise_needed = if spec.noise_share.points() == 0 { 0 } else { NOISE_NEEDED };
        let learned = self.noise_samples >= noise_needed;
        let by_status = self.statuses.values().sum::<u64>() + self.other_statuses;
        let different = by_status + self.sets.values().sum::<u64>();
        let mut statuses: Vec<_> = self.statuses.iter().map(|((a, b), n)| (*a, *b, *n)).collect();
        statuses.sort_by_key(|(_, _, n)| std::cmp::Reverse(*n));
        let mut noise: Vec<_> = self.fields.iter().filter(|f| f.noisy).map(|f| f.path.clone()).collect();
        noise.sort();
        Report {
            since_ms: self.since_ms,
            verdict: self.verdict(spec, learned, by_status, different),
            same: self.compared - different,
            different,
            unjudged: self.unjudged,
            failed: self.failed,
            timeouts: self.timeouts,
            noise_samples: self.noise_samples,
            noise_needed,
            noise,
            fields: if learned { self.field_reports() } else { Vec::new() },
            other_fields: if self.other.noisy { 0 } else { self.other.requests },
            statuses,
            baseline_latency: Quantiles::of(&self.latency[0]),
            shadow_latency: Quantiles::of(&self.latency[1]),
        }
    }

    /// Copies without an answer and with another status are worse whatever is noise; differing fields count when it is
    /// known what is noise.
    fn verdict(&self, spec: &ShadowSpec, learned: bool, by_status: u64, different: u64) -> Verdict {
        let missed = self.failed + self.timeouts;
        let judged = self.compared + missed;
        let sure = verdict(by_status + missed, judged, spec.max_difference);
        match (sure, learned) {
            (Verdict::Breach, _) => Verdict::Breach,
            (_, true) => verdict(different + missed, judged, spec.max_difference),
            (_, false) => Verdict::NotEnoughEvidence,
        }
    }

    fn field_reports(&self) -> Vec<FieldReport> {
        let report = |field: &Field| {
            let example = field.example.clone().filter(|_| !field.noisy)?;
            let rate = field.requests as f64 / self.compared.max(1) as f64;
            Some(FieldReport { path: field.path.clone(), requests: field.requests, rate, example })
        };
        let mut fields: Vec<_> = self.fields.iter().filter_map(report).collect();
        fields.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.path.cmp(&b.path)));
        fields
    }

    /// The place of a path, made when there is room.
    fn place(&mut self, path: &str) -> u16 {
        if let Some(place) = self.places.get(path) {
            return *place;
        }
        if self.fields.len() >= PATHS_MAX {
            return OTHER;
        }
        let place = self.fields.len() as u16;
        self.fields.push(Field { path: path.to_owned(), ..Field::default() });
        self.places.insert(path.to_owned(), place);
        place
    }

    fn field(&self, place: u16) -> &Field {
        self.fields.get(usize::from(place)).unwrap_or(&self.other)
    }

    fn field_mut(&mut self, place: u16) -> &mut Field {
        self.fields.get_mut(usize::from(place)).unwrap_or(&mut self.other)
    }

    fn count_field(&mut self, path: &str, difference: &Difference) -> u16 {
        let place = self.place(path);
        if place != OTHER {
            let field = self.field_mut(place);
            field.requests += 1;
            field.example.get_or_insert_with(|| difference.clone());
        }
        place
    }

    fn count_status(&mut self, pair: (u16, u16)) {
        let known = self.statuses.len();
        match self.statuses.get_mut(&pair) {
            Some(count) => *count += 1,
            None if known < STATUSES_MAX => _ = self.statuses.insert(pair, 1),
            None => self.other_statuses += 1,
        }
    }

    /// A field turned out to be noise: what was counted for it no longer differs.
    fn mark(&mut self, place: u16) {
        let field = self.field_mut(place);
        if std::mem::replace(&mut field.noisy, true) {
            return;
        }
        for (set, count) in std::mem::take(&mut self.sets) {
            let rest: Box<[u16]> = set.iter().copied().filter(|p| *p != place).collect();
            if !rest.is_empty() {
                *self.sets.entry(rest).or_default() += count;
            }
        }
    }
}

impl Quantiles {
    fn of(counts: &[u64]) -> Self {
        Self { p50: quantile(counts, 0.5), p90: quantile(counts, 0.9), p99: quantile(counts, 0.99) }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
