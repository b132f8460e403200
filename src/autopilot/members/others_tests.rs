//! What is told is counted once, whatever is lost, told twice or told late.

use proptest::prelude::*;

use super::*;
use crate::autopilot::members::notes::{ServiceTotals, encode, encode_counts};
use crate::model::{BasisPoints, Weights};
use crate::telemetry::{ArmReading, SignalReading};

fn version(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

fn whose(tenant: &str) -> Whose {
    (ServiceName::new("shop").unwrap(), Some(TenantName::new(tenant).unwrap()))
}

/// An epoch in which each version got so many requests, and the canary failed so many.
fn epoch(epoch: u64, requests: u64, failed: u64) -> EpochReading {
    let arm = |name: &str, failures: u64| ArmReading {
        version: version(name),
        routed: requests,
        requests,
        failures,
        signals: [SignalReading { n: requests, bad: failures }, SignalReading::default(), SignalReading::default()]
            .into_iter()
            .chain([SignalReading::default()])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap(),
    };
    let half = BasisPoints::new(5_000).unwrap();
    EpochReading {
        epoch,
        weights: Weights::new([(version("1"), half), (version("2"), half)]).unwrap(),
        arms: vec![arm("1", 0), arm("2", failed)],
        bad_since_ms: vec![None, (failed > 0).then_some(900)],
    }
}

fn page(member: &str, number: u32, counts: &[(&str, EpochReading)]) -> Heard {
    let counts = counts.iter().map(|(tenant, epoch)| {
        let (whose, epochs) = (whose(tenant), vec![epoch.clone()]);
        Counts { whose, epochs, keys: Keys::default() }
    });
    let counts: Vec<_> = counts.collect();
    let body = Some(encode_counts(&counts));
    Heard::Note { member: member.into(), name: format!("counts/{number:03}"), body }
}

fn gone(member: &str, number: u32) -> Heard {
    Heard::Note { member: member.into(), name: format!("counts/{number:03}"), body: None }
}

/// Requests and failures of the canary by tenant.
fn sums(others: &mut Others) -> BTreeMap<String, (u64, u64)> {
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for ((_, tenant), news) in others.take_news() {
        let sum = sums.entry(tenant.unwrap().to_string()).or_default();
        for (requests, failed) in news.iter().map(|epoch| epoch.of(&version("2"), 0)) {
            *sum = (sum.0 + requests, sum.1 + failed);
        }
    }
    sums
}

proptest! {
    #[test]
    fn pages_that_are_lost_or_told_twice_change_nothing(
        told in proptest::collection::vec((0..3usize, 0..2usize, 0..20u64, 0..5u64, any::<bool>(), any::<bool>()), 1..60)
    ) {
        let (mut others, mut counted) = (Others::default(), [[(0, 0); 2]; 3]);
        let mut heard = BTreeMap::<usize, (u64, u64)>::new();
        let tell = |others: &mut Others, member: usize, tenant: usize, (requests, failed): (u64, u64)| {
            let reading = epoch(7, requests, failed);
            others.hear(page(&format!("m{member}"), tenant as u32, &[(["a", "b"][tenant], reading)]), 5_000, |at| at);
        };
        for (member, tenant, requests, failed, lost, twice) in told {
            let count = &mut counted[member][tenant];
            *count = (count.0 + requests + failed, count.1 + failed);
            if !lost {
                tell(&mut others, member, tenant, *count);
            }
            if twice {
                others.hear(Heard::Afresh, 5_000, |at| at);
                tell(&mut others, member, tenant, *count);
            }
        }
        for (member, of_tenants) in counted.into_iter().enumerate() {
            for (tenant, count) in of_tenants.into_iter().enumerate() {
                tell(&mut others, member, tenant, count);
                let sum = heard.entry(tenant).or_default();
                *sum = (sum.0 + count.0, sum.1 + count.1);
            }
        }
        let sums = sums(&mut others);
        for (tenant, sum) in heard {
            prop_assert_eq!(sums.get(["a", "b"][tenant]).copied().unwrap_or_default(), sum);
        }
    }
}

#[test]
fn a_member_that_comes_back_goes_on_where_it_was_and_what_it_tells_first_is_late() {
    let mut others = Others::default();
    others.hear(page("m", 0, &[("a", epoch(7, 10, 1))]), 1_000, |at| at);
    assert!(others.take_news().values().flatten().all(|news| news.late), "nobody knows how old that is");
    others.hear(page("m", 0, &[("a", epoch(7, 20, 2))]), 2_000, |at| at);
    assert!(others.take_news().values().flatten().all(|news| !news.late));
    others.hear(gone("m", 0), 3_000, |at| at);
    assert_eq!(others.telling(), 0);
    let card = |at| Heard::Note { member: "m".into(), name: "card".to_owned(), body: Some(vec![at]) };
    others.hear(card(1), 60_000, |at| at);
    others.hear(page("m", 0, &[("a", epoch(7, 50, 9))]), 60_000, |at| at);
    let news = others.take_news();
    assert!(news.values().flatten().all(|news| news.late), "it may have happened a minute ago");
    assert_eq!(news.values().flatten().map(|n| n.of(&version("2"), 0)).collect::<Vec<_>>(), [(30, 7)]);
}

#[test]
fn what_was_counted_before_it_is_known_by_whom_is_not_counted_again() {
    let mut others = Others::default();
    others.skip(["m".into()]);
    others.hear(page("m", 0, &[("a", epoch(7, 10, 1))]), 1_000, |at| at);
    others.hear(page("m", 1, &[("b", epoch(7, 10, 1))]), 1_000, |at| at);
    assert!(sums(&mut others).is_empty());
    others.hear(page("m", 1, &[("b", epoch(7, 12, 2))]), 2_000, |at| at);
    others.hear(page("n", 0, &[("b", epoch(7, 5, 0))]), 2_000, |at| at);
    assert_eq!(sums(&mut others), [("b".to_owned(), (7, 1))].into());
}

#[test]
fn costs_are_those_since_a_member_is_known_and_rescues_lower_them() {
    let mut others = Others::default();
    let totals = |failed, rescued| {
        let service = ServiceName::new("shop").unwrap();
        let failed = vec![(version("2"), failed, rescued)];
        let of = ServiceTotals { service, baseline: version("1"), latencies: vec![(3, 10 + failed[0].1)], failed };
        let body = Some(encode(&Totals { services: vec![of] }));
        Heard::Note { member: "m".into(), name: "totals/0".to_owned(), body }
    };
    others.hear(totals(100, 10), 1_000, |at| at);
    assert!(others.take_failed().is_empty(), "what a rollout cost before is written down with it");
    others.hear(totals(107, 10), 2_000, |at| at);
    others.hear(totals(107, 12), 3_000, |at| at);
    assert_eq!(others.take_failed().into_values().collect::<Vec<_>>(), [5]);
    let latencies: u64 = others.take_latencies().iter().flat_map(|(_, _, counts)| counts).map(|(_, n)| n).sum();
    assert_eq!(latencies, 117, "each once");
}

#[test]
fn the_leaders_cuts_are_a_tenants_own_or_the_services() {
    let mut others = Others::default();
    let (service, tenant) = (ServiceName::new("shop").unwrap(), TenantName::new("acme").unwrap());
    let table = CutTable {
        services: vec![(service.clone(), version("1"), 90, 99)],
        tenants: vec![(service.clone(), tenant.clone(), 40, 0)],
    };
    let member: MemberId = "m".into();
    let body = Some(encode(&table));
    others.hear(Heard::Note { member: member.clone(), name: "cuts/000".to_owned(), body }, 0, |at| at);
    let cuts = |tenant, baseline| others.cuts(&member, &service, tenant, &version(baseline));
    assert_eq!(cuts(None, "1"), Some((90, 99)));
    assert_eq!(cuts(Some(&tenant), "1"), Some((40, 99)));
    assert_eq!(cuts(Some(&tenant), "2"), None, "another baseline is another measure");
}

#[test]
fn who_ended_unheard_is_not_counted_among_those_who_tell() {
    let mut others = Others::default();
    others.hear(page("m", 0, &[("a", epoch(7, 10, 1))]), 1_000, |at| at);
    others.hear(page("n", 0, &[("a", epoch(7, 10, 1))]), 1_000, |at| at);
    assert_eq!(others.telling(), 2);
    others.hear(Heard::Afresh, 2_000, |at| at);
    others.hear(page("n", 0, &[("a", epoch(7, 12, 1))]), 2_000, |at| at);
    assert_eq!(others.telling(), 1);
    others.take_news();
    others.sweep(2_000 + GONE_MS);
    others.hear(page("m", 0, &[("a", epoch(7, 15, 2))]), 2_000 + GONE_MS, |at| at);
    assert!(sums(&mut others).is_empty(), "it was forgotten, so nobody knows what of it is counted");
}
