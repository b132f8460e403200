//! The minutes around a rollback: what baseline and canary did until then is kept with it, since windows forget it, and what
//! they did afterwards comes from the windows while it is there.

use serde::{Deserialize, Serialize};

use super::{BUCKET_MS, History, KEPT, Windows};
use crate::model::{ServiceName, TenantName, VersionName};

/// Buckets that are kept with a rollback at most, its own included: nearly seven minutes.
const KEPT_WITH: u64 = 40;
/// Buckets before a rollback of which nothing was kept.
const RECALLED: i64 = 30;
/// Fewer buckets make no picture, even if nothing happened in them.
const LEAST: usize = 6;

/// Requests and failures of baseline and canary by bucket, as one proxy counted them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Length of a bucket.
    pub seconds: u64,
    /// When the first bucket began, in milliseconds since the Unix epoch.
    pub begin_ms: u64,
    /// The version that was trusted.
    pub baseline: RecordedVersion,
    /// The version that went back.
    pub canary: RecordedVersion,
}

/// One version; both lists have one number for each bucket, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedVersion {
    /// The version.
    pub version: VersionName,
    /// Requests that it served or failed.
    pub requests: Vec<u64>,
    /// Those that it failed.
    pub failed: Vec<u64>,
}

/// The time of now on two axes, in milliseconds: that of the windows, and since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct BothTimes {
    /// Where the windows are.
    pub now_ms: u64,
    /// By the wall clock.
    pub wall_ms: u64,
}

impl BothTimes {
    /// The bucket that lies nearest to a moment; below zero before the axis began.
    fn bucket_near(self, at_ms: u64) -> i64 {
        let at = self.now_ms as i64 - (self.wall_ms as i64 - at_ms as i64);
        (at + BUCKET_MS as i64 / 2).div_euclid(BUCKET_MS as i64)
    }

    fn wall(self, bucket: i64) -> u64 {
        (self.wall_ms as i64 - self.now_ms as i64 + bucket * BUCKET_MS as i64).max(0) as u64
    }
}

impl Recorded {
    /// How many buckets there are.
    pub fn points(&self) -> usize {
        self.baseline.requests.len().min(self.canary.requests.len())
    }

    /// Without the buckets at the beginning in which nothing happened; none if nothing happened at all.
    fn trimmed(mut self) -> Option<Self> {
        let busy = |i: usize| self.baseline.requests[i] + self.canary.requests[i] > 0;
        let first = (0..self.points()).find(|i| busy(*i))?;
        let idle = first.min(self.points().saturating_sub(LEAST));
        for version in [&mut self.baseline, &mut self.canary] {
            drop(version.requests.drain(..idle));
            drop(version.failed.drain(..idle));
        }
        self.begin_ms += idle as u64 * BUCKET_MS;
        Some(self)
    }
}

impl Windows {
    /// What baseline and canary did in the minutes up to now, that of now included although it is not full: it is the one
    /// in which a version turns bad. None when nothing is known. Without a tenant: over all tenants.
    pub fn recorded(
        &self,
        service: &ServiceName,
        tenant: Option<&TenantName>,
        [baseline, canary]: [&VersionName; 2],
        now: BothTimes,
    ) -> Option<Recorded> {
        let history = self.history(service, tenant)?;
        let last = (now.now_ms / BUCKET_MS) as i64;
        let first = (last + 1 - KEPT_WITH as i64).max(0);
        cut(history, [baseline, canary], first..last + 1, now).trimmed()
    }

    /// The same of a moment that has passed, as far as it is still known.
    pub fn recalled(
        &self,
        service: &ServiceName,
        tenant: Option<&TenantName>,
        versions: [&VersionName; 2],
        at_ms: u64,
        now: BothTimes,
    ) -> Option<Recorded> {
        let history = self.history(service, tenant)?;
        let (at, last) = (now.bucket_near(at_ms), (now.now_ms / BUCKET_MS) as i64);
        let first = (at - RECALLED).max(last + 1 - KEPT as i64).max(0);
        if first >= at || at > last {
            return None;
        }
        cut(history, versions, first..at + 1, now).trimmed()
    }

    /// A record with at most `more` full buckets of what came later, where the windows reach back to it.
    #[must_use]
    pub fn extended(
        &self,
        mut record: Recorded,
        service: &ServiceName,
        tenant: Option<&TenantName>,
        more: usize,
        now: BothTimes,
    ) -> Recorded {
        let (first, last) = (now.bucket_near(record.begin_ms), (now.now_ms / BUCKET_MS) as i64);
        let end = first + record.points() as i64;
        let Some(history) = self.history(service, tenant) else { return record };
        let since = history.versions.iter().map(|v| (v.since_ms / BUCKET_MS) as i64).min().unwrap_or(i64::MAX);
        // Between the record and where the windows begin nothing is known; a gap would look like silence.
        if record.seconds * 1_000 != BUCKET_MS || since.max(last + 1 - KEPT as i64) > end {
            return record;
        }
        let until = last.min(end + more as i64);
        for version in [&mut record.baseline, &mut record.canary] {
            let known = row(history, &version.version, first..until.max(end));
            let (requests, failed) = (&mut version.requests, &mut version.failed);
            for (i, (now_requests, now_failed)) in known.into_iter().enumerate() {
                match requests.get_mut(i).zip(failed.get_mut(i)) {
                    // The last bucket of the record was not full.
                    Some((r, f)) => (*r, *f) = ((*r).max(now_requests), (*f).max(now_failed)),
                    None => {
                        requests.push(now_requests);
                        failed.push(now_failed);
                    }
                }
            }
        }
        record
    }

    fn history(&self, service: &ServiceName, tenant: Option<&TenantName>) -> Option<&History> {
        self.histories.get(service)?.get(&tenant.cloned())
    }
}

fn cut(
    history: &History,
    [baseline, canary]: [&VersionName; 2],
    buckets: std::ops::Range<i64>,
    now: BothTimes,
) -> Recorded {
    let of = |version: &VersionName| {
        let (requests, failed) = row(history, version, buckets.clone()).into_iter().unzip();
        RecordedVersion { version: version.clone(), requests, failed }
    };
    let begin_ms = now.wall(buckets.start);
    Recorded { seconds: Windows::COUNT_SECONDS, begin_ms, baseline: of(baseline), canary: of(canary) }
}

/// Requests and failures of a version in each bucket.
fn row(history: &History, version: &VersionName, buckets: std::ops::Range<i64>) -> Vec<(u64, u64)> {
    let mut row = vec![(0, 0); (buckets.end - buckets.start).max(0) as usize];
    let cells = history.versions.iter().filter(|v| v.version == *version).flat_map(|v| &v.cells);
    for cell in cells {
        let place = usize::try_from(cell.bucket as i64 - buckets.start).ok().and_then(|i| row.get_mut(i));
        if let Some(place) = place {
            *place = (u64::from(cell.requests), cell.failures.iter().map(|n| u64::from(*n)).sum());
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::super::tests::{reading, service};
    use super::*;
    use crate::telemetry::window::TotalsReading;

    const WALL: u64 = 1_700_000_000_000;

    fn version(name: &str) -> VersionName {
        VersionName::new(name).unwrap()
    }

    fn at(now_ms: u64) -> BothTimes {
        BothTimes { now_ms, wall_ms: WALL + now_ms }
    }

    fn of(name: &str, requests: u64, failed: u64) -> TotalsReading {
        TotalsReading { version: version(name), ..reading(requests, failed, 10_000) }
    }

    fn windows() -> (Windows, ServiceName) {
        let (mut windows, service) = (Windows::default(), service());
        windows.record_reading(600_000, 7, &service, None, vec![of("1", 60, 0), of("2", 6, 0)]);
        windows.record_reading(612_000, 7, &service, None, vec![of("1", 100, 1), of("2", 10, 4)]);
        (windows, service)
    }

    #[test]
    fn the_minutes_before_are_kept_without_silence_and_with_the_bucket_of_now() {
        let (windows, service) = windows();
        let (old, new) = (version("1"), version("2"));
        let record = windows.recorded(&service, None, [&old, &new], at(613_000)).unwrap();
        assert_eq!(record.points(), LEAST);
        assert_eq!(record.begin_ms, WALL + 560_000);
        assert_eq!(record.baseline.requests, [0, 0, 0, 0, 60, 40]);
        assert_eq!(
            (&record.canary.requests, &record.canary.failed),
            (&vec![0, 0, 0, 0, 6, 4], &vec![0, 0, 0, 0, 0, 4])
        );
        assert!(serde_json::to_string(&record).unwrap().len() < 400);
        let tenant = TenantName::new("acme").unwrap();
        assert_eq!(windows.recorded(&service, Some(&tenant), [&old, &new], at(613_000)), None);
        assert_eq!(windows.recorded(&service, None, [&old, &new], at(3_000_000)), None, "all of it is too old");
    }

    #[test]
    fn what_came_later_is_added_while_it_is_there() {
        let (mut windows, service) = windows();
        let (old, new) = (version("1"), version("2"));
        let record = windows.recorded(&service, None, [&old, &new], at(613_000)).unwrap();
        windows.record_reading(618_000, 7, &service, None, vec![of("1", 110, 1), of("2", 12, 6)]);
        windows.record_reading(635_000, 7, &service, None, vec![of("1", 160, 1), of("2", 12, 6)]);
        let more = windows.extended(record.clone(), &service, None, 30, at(645_000));
        assert_eq!(more.baseline.requests, [0, 0, 0, 0, 60, 50, 0, 50], "the bucket of the rollback is full now");
        assert_eq!(more.canary.failed, [0, 0, 0, 0, 0, 6, 0, 0]);
        let one = windows.extended(record.clone(), &service, None, 1, at(645_000));
        assert_eq!(one.baseline.requests.len(), 7);
        let later = windows.extended(record.clone(), &service, None, 30, at(613_000 + 1_200_000));
        assert_eq!(later, record, "nobody knows what came between");
    }

    #[test]
    fn a_record_is_bounded() {
        let (mut windows, service) = (Windows::default(), service());
        for n in 1..=80 {
            let counts = vec![of("1", n * 1_000, n), of("2", n * 1_000, n * 900)];
            windows.record_reading(n * 10_000, 7, &service, None, counts);
        }
        let record = windows.recorded(&service, None, [&version("1"), &version("2")], at(800_000)).unwrap();
        assert_eq!(record.points() as u64, KEPT_WITH);
        assert!(serde_json::to_string(&record).unwrap().len() < 1_000);
    }

    #[test]
    fn a_moment_that_has_passed_is_recalled() {
        let (windows, service) = windows();
        let (old, new) = (version("1"), version("2"));
        let recall = |at_ms, now_ms| windows.recalled(&service, None, [&old, &new], WALL + at_ms, at(now_ms));
        assert_eq!(recall(612_000, 700_000).unwrap().canary.failed.iter().sum::<u64>(), 4);
        assert_eq!(recall(612_000, 2_000_000), None, "too long ago");
    }
}
