//! How each version fared over time, bucket by bucket: what charts are drawn from.

use super::{BUCKET_MS, KEPT, Sum, Windows, quantile};
use crate::model::{ServiceName, TenantName, VersionName};

/// What each version did in each of the last buckets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Versions that had traffic in this time, by name.
    pub versions: Vec<VersionSeries>,
}

/// What one version did. All versions have the same number of points, the oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionSeries {
    /// The version.
    pub version: VersionName,
    /// [`Windows::SERIES_POINTS`] of them; the last is the last full bucket.
    pub points: Vec<Point>,
}

/// Ten seconds of one version.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    /// Requests that the version served or failed.
    pub requests: u64,
    /// Those that it failed.
    pub failed: u64,
    /// Percentiles of the time until the response header in seconds; none without latencies.
    pub p50_s: Option<f64>,
    /// See `p50_s`.
    pub p90_s: Option<f64>,
    /// See `p50_s`.
    pub p99_s: Option<f64>,
}

impl Point {
    /// `failed / requests`, 0 to 1; none without requests.
    pub fn error_rate(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.failed as f64 / self.requests as f64)
    }
}

impl Windows {
    /// How many points a series has: one for each bucket of the time that is kept but that of now, which is not full.
    pub const SERIES_POINTS: usize = KEPT as usize - 1;

    /// What each version did, in steps of [`COUNT_SECONDS`](Self::COUNT_SECONDS). Without a tenant: over all tenants.
    pub fn series(&self, service: &ServiceName, tenant: Option<&TenantName>, now_ms: u64) -> Series {
        let Some(history) = self.histories.get(service).and_then(|h| h.get(&tenant.cloned())) else {
            return Series::default();
        };
        let now = now_ms / BUCKET_MS;
        let mut versions = Vec::new();
        for version in &history.versions {
            let mut points = vec![Point::default(); Self::SERIES_POINTS];
            let mut any = false;
            for cell in version.cells.iter().filter(|cell| cell.bucket < now) {
                let back = (now - cell.bucket) as usize;
                let Some(at) = Self::SERIES_POINTS.checked_sub(back) else { continue };
                let mut sum = Sum::new();
                sum.add_cell(cell);
                any |= sum.requests > 0;
                points[at] = Point {
                    requests: sum.requests,
                    failed: sum.failures.iter().sum(),
                    p50_s: quantile(&sum.latency, 0.5),
                    p90_s: quantile(&sum.latency, 0.9),
                    p99_s: quantile(&sum.latency, 0.99),
                };
            }
            if any {
                versions.push(VersionSeries { version: version.version.clone(), points });
            }
        }
        versions.sort_by(|a, b| a.version.cmp(&b.version));
        Series { versions }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{reading, service};
    use super::*;

    #[test]
    fn each_bucket_is_a_point_and_that_of_now_is_none() {
        let (mut windows, service) = (Windows::default(), service());
        windows.record_reading(600_000, 7, &service, None, vec![reading(60, 6, 10_000)]);
        windows.record_reading(620_000, 7, &service, None, vec![reading(100, 6, 10_000)]);
        windows.record_reading(630_000, 7, &service, None, vec![reading(101, 7, 10_000)]);
        let series = windows.series(&service, None, 635_000);
        let points = &series.versions[0].points;
        assert_eq!(points.len(), Windows::SERIES_POINTS);
        let last = &points[Windows::SERIES_POINTS - 3..];
        assert_eq!(last.iter().map(|p| (p.requests, p.failed)).collect::<Vec<_>>(), [(60, 6), (0, 0), (40, 0)]);
        assert_eq!((last[0].error_rate(), last[1].error_rate()), (Some(0.1), None));
        assert!(last[0].p99_s.is_some() && last[1].p99_s.is_none());
        assert!(points[..Windows::SERIES_POINTS - 3].iter().all(|p| p.requests == 0));
        let later = windows.series(&service, None, 600_000 + 900_000 - 10_000);
        assert_eq!(later.versions[0].points[0].requests, 60, "the oldest");
        assert!(windows.series(&service, None, 600_000 + 900_000 + 30_000).versions.is_empty());
        let tenant = TenantName::new("acme").unwrap();
        assert_eq!(windows.series(&service, Some(&tenant), 635_000), Series::default());
    }
}
