//! The history of the last minutes, for a process that takes over.

use serde::{Deserialize, Serialize};

use super::{History, Windows};
use crate::model::{ServiceName, TenantName};

/// The history of every scope. Times are on the clock of the process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CarriedWindows(Vec<(ServiceName, Option<TenantName>, History)>);

impl Windows {
    /// What is known, for another process; that of routes stays here.
    pub fn carry(&self) -> CarriedWindows {
        let of = |(service, histories): (&ServiceName, &super::Histories)| {
            let all = histories.iter().map(|(tenant, history)| (service.clone(), tenant.clone(), history.clone()));
            all.collect::<Vec<_>>()
        };
        CarriedWindows(self.histories.iter().flat_map(of).collect())
    }

    /// Goes on from what another process knew. What was on its way there ends there.
    pub fn resume(&mut self, carried: CarriedWindows) {
        for (service, tenant, mut history) in carried.0 {
            history.versions.iter_mut().for_each(|version| version.in_flight = 0);
            self.histories.entry(service).or_default().insert(tenant, history);
        }
        self.count_entries();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VersionName;
    use crate::telemetry::TotalsReading;

    #[test]
    fn another_process_goes_on_where_this_one_stood() {
        let (service, tenant) = (ServiceName::new("shop").unwrap(), TenantName::new("acme").unwrap());
        let reading = |requests, in_flight| TotalsReading {
            version: VersionName::new("1").unwrap(),
            requests,
            failures: [1, 0, 0, 0, 0],
            client_aborts: 0,
            refused: 0,
            abandoned: 0,
            in_flight,
            latency: Vec::new().into(),
        };
        let mut here = Windows::default();
        here.record_reading(100_000, 1, &service, Some(&tenant), vec![reading(10, 3)]);
        let told = serde_json::to_value(here.carry()).unwrap();
        let mut there = Windows::default();
        there.resume(serde_json::from_value(told).unwrap());
        there.record_reading(110_000, 9, &service, Some(&tenant), vec![reading(5, 1)]);
        for tenant in [None, Some(&tenant)] {
            let stats = there.stats(&service, tenant, Some(60_000), 110_000).remove(0);
            assert_eq!((stats.requests, stats.failed, stats.in_flight), (15, 2, 1));
        }
    }
}
