//! The notes that members write for each other, and their bytes: a format number, then the content in the compact form of
//! the crate postcard. A note of another format is not read, which its member's card shows by the release.

use serde::{Deserialize, Serialize};

use crate::autopilot::evidence::EpochReading;
use crate::autopilot::spoken::Keys;
use crate::model::{BasisPoints, ServiceName, TenantName, VersionName, Weights};
use crate::telemetry::{ArmReading, BadKey, SignalReading, TallySignal};

/// The format that this release writes and reads.
const FORMAT: u8 = 1;

/// A service, and the tenant or none: whose requests a count is of.
pub type Whose = (ServiceName, Option<TenantName>);

/// What a scope has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Which scope.
    pub whose: Whose,
    /// Since its process began, by epoch.
    pub epochs: Vec<EpochReading>,
    /// The keys that spoke last, where keys stay on their version.
    pub keys: Keys,
}

/// What a service has seen as a whole since its process began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// By service.
    pub services: Vec<ServiceTotals>,
}

/// One service's part of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTotals {
    /// The service.
    pub service: ServiceName,
    /// Its baseline.
    pub baseline: VersionName,
    /// How many answers of the baseline fell into each bucket of latency, empty buckets left out.
    pub latencies: Vec<(u16, u64)>,
    /// By version, the requests that failed and those of them that were rescued.
    pub failed: Vec<(VersionName, u64, u64)>,
}

/// From which latency on requests are slow and very slow, in microseconds; 0: not judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutTable {
    /// By service, with its baseline.
    pub services: Vec<(ServiceName, VersionName, u32, u32)>,
    /// By tenant of a service.
    pub tenants: Vec<(ServiceName, TenantName, u32, u32)>,
}

/// A page of counts as it is written. Versions are named once for each service.
#[derive(Serialize, Deserialize)]
struct Page(Vec<(ServiceName, Vec<VersionName>, Vec<Scope>)>);

#[derive(Serialize, Deserialize)]
struct Scope {
    tenant: Option<TenantName>,
    epochs: Vec<(u64, Vec<Arm>)>,
    attempt: u64,
    /// Version, signal and key.
    keys: Vec<(u8, u8, u64)>,
}

#[derive(Serialize, Deserialize)]
struct Arm {
    version: u8,
    share: u16,
    routed: u64,
    requests: u64,
    failures: u64,
    signals: [(u64, u64); TallySignal::COUNT],
    /// Milliseconds since the Unix epoch.
    bad_since_ms: Option<u64>,
}

/// The bytes of a note.
pub fn encode<T: Serialize>(content: &T) -> Vec<u8> {
    // Only maps and sequences of unknown length have no such form, and there are none.
    postcard::to_extend(content, vec![FORMAT]).unwrap_or_default()
}

/// The content of a note; none when this release cannot read it.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let content = bytes.strip_prefix(&[FORMAT])?;
    postcard::from_bytes(content).ok()
}

/// The bytes of a page of counts.
pub fn encode_counts(counts: &[Counts]) -> Vec<u8> {
    let mut services: Vec<(ServiceName, Vec<VersionName>, Vec<Scope>)> = Vec::new();
    for Counts { whose: (service, tenant), epochs, keys } in counts {
        let place = services.iter().position(|(name, ..)| name == service).unwrap_or_else(|| {
            services.push((service.clone(), Vec::new(), Vec::new()));
            services.len() - 1
        });
        let (_, versions, scopes) = &mut services[place];
        let epochs = epochs.iter().map(|reading| (reading.epoch, arms(reading, versions))).collect();
        let spoke = keys.keys.iter().filter_map(|k| Some((number(&k.version, versions)?, k.signal, k.key)));
        let spoke = spoke.collect();
        scopes.push(Scope { tenant: tenant.clone(), epochs, attempt: keys.attempt, keys: spoke });
    }
    encode(&Page(services))
}

/// The number of a version among those that were named.
fn number(version: &VersionName, versions: &mut Vec<VersionName>) -> Option<u8> {
    let place = versions.iter().position(|v| v == version).unwrap_or_else(|| {
        versions.push(version.clone());
        versions.len() - 1
    });
    u8::try_from(place).ok()
}

fn arms(reading: &EpochReading, versions: &mut Vec<VersionName>) -> Vec<Arm> {
    let arms = reading.arms.iter().zip(&reading.bad_since_ms).filter_map(|(arm, bad_since_ms)| {
        Some(Arm {
            version: number(&arm.version, versions)?,
            share: reading.weights.share(arm.version.as_str()).points(),
            routed: arm.routed,
            requests: arm.requests,
            failures: arm.failures,
            signals: arm.signals.map(|signal| (signal.n, signal.bad)),
            bad_since_ms: *bad_since_ms,
        })
    });
    arms.collect()
}

/// The counts of a page; none when this release cannot read it.
pub fn decode_counts(bytes: &[u8]) -> Option<Vec<Counts>> {
    let Page(services) = decode(bytes)?;
    let mut counts = Vec::new();
    for (service, versions, scopes) in services {
        for scope in scopes {
            let epochs = scope.epochs.into_iter().map(|(epoch, arms)| reading(epoch, &arms, &versions));
            let key = |(version, signal, key): (u8, u8, u64)| {
                let version = versions.get(usize::from(version))?.clone();
                Some(BadKey { version, signal, key })
            };
            let keys = scope.keys.into_iter().map(key).collect::<Option<_>>()?;
            counts.push(Counts {
                whose: (service.clone(), scope.tenant),
                epochs: epochs.collect::<Option<_>>()?,
                keys: Keys { attempt: scope.attempt, keys },
            });
        }
    }
    Some(counts)
}

fn reading(epoch: u64, arms: &[Arm], versions: &[VersionName]) -> Option<EpochReading> {
    let version = |arm: &Arm| versions.get(usize::from(arm.version)).cloned();
    let shares = arms.iter().map(|arm| Some((version(arm)?, BasisPoints::new(arm.share)?)));
    let weights = Weights::new(shares.collect::<Option<Vec<_>>>()?).ok()?;
    let arm = |arm: &Arm| {
        Some(ArmReading {
            version: version(arm)?,
            routed: arm.routed,
            requests: arm.requests.max(arm.failures),
            failures: arm.failures,
            // More bad ones than all would be a logarithm of nothing.
            signals: arm.signals.map(|(n, bad)| SignalReading { n: n.max(bad), bad }),
        })
    };
    Some(EpochReading {
        epoch,
        weights,
        bad_since_ms: arms.iter().map(|arm| arm.bad_since_ms).collect(),
        arms: arms.iter().map(arm).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Served, failed, signals and since when it fails.
    type ArmNumbers = (u64, u64, [u32; 4], Option<u64>);

    fn counts() -> impl Strategy<Value = Vec<Counts>> {
        let arm = (0u64..1 << 40, 0u64..1 << 20, any::<[u32; 4]>(), proptest::option::of(0u64..1 << 45));
        let epoch = (1u64..1 << 30, 1u16..10_000, [arm.clone(), arm]);
        let whose = (0..3u8, proptest::option::of("[a-z]{1,20}"));
        let scope = (whose, proptest::collection::vec(epoch, 0..4));
        proptest::collection::vec(scope, 0..20).prop_map(|all| {
            let epoch = |(epoch, share, arms): (u64, u16, [ArmNumbers; 2])| {
                let names = ["1.0.0", "2.0.0-rc.1"].map(|name| VersionName::new(name).unwrap());
                let shares = [share, 10_000 - share].map(|points| BasisPoints::new(points).unwrap());
                let arm = |i: usize| ArmReading {
                    version: names[i].clone(),
                    routed: arms[i].0 / 2,
                    requests: arms[i].0 + arms[i].1,
                    failures: arms[i].1,
                    signals: arms[i].2.map(|n| SignalReading { n: u64::from(n), bad: u64::from(n / 3) }),
                };
                EpochReading {
                    epoch,
                    weights: Weights::new(names.iter().cloned().zip(shares)).unwrap(),
                    arms: vec![arm(0), arm(1)],
                    bad_since_ms: arms.iter().map(|arm| arm.3).collect(),
                }
            };
            let scope = |((service, tenant), epochs): ((u8, Option<String>), Vec<_>)| {
                let service = ServiceName::new(&format!("service{service}")).unwrap();
                let tenant = tenant.map(|name| TenantName::new(&name).unwrap());
                let spoke = |(version, key)| BadKey { version: VersionName::new(version).unwrap(), signal: 2, key };
                let keys = Keys { attempt: 9, keys: vec![spoke(("2.0.0-rc.1", 1 << 39)), spoke(("1.0.0", 7))] };
                Counts { whose: (service, tenant), epochs: epochs.into_iter().map(epoch).collect(), keys }
            };
            let all: Vec<Counts> = all.into_iter().map(scope).collect();
            // Pages keep the order of scopes within a service.
            let mut sorted = all;
            sorted.sort_by(|a, b| a.whose.0.cmp(&b.whose.0));
            sorted
        })
    }

    proptest! {
        #[test]
        fn counts_survive(all in counts()) {
            prop_assert_eq!(decode_counts(&encode_counts(&all)), Some(all));
        }

        #[test]
        fn nonsense_is_no_note(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            // Whatever it is taken for, nothing breaks.
            let _counts = decode_counts(&bytes);
            let _totals: Option<Totals> = decode(&bytes);
            prop_assert!(bytes.first() == Some(&FORMAT) || decode_counts(&bytes).is_none());
        }
    }

    #[test]
    fn a_split_of_a_tenant_takes_few_bytes() {
        let names = ["1.0.0", "2.0.0"].map(|name| VersionName::new(name).unwrap());
        let arm = |i: usize, requests: u64| ArmReading {
            version: names[i].clone(),
            routed: requests,
            requests,
            failures: requests / 50,
            signals: [requests / 50, requests / 10, requests / 100, 0].map(|bad| SignalReading { n: requests, bad }),
        };
        let shares = [9_000, 1_000].map(|points| BasisPoints::new(points).unwrap());
        let counts = |n: usize| -> Counts {
            let whose = (ServiceName::new("accounting").unwrap(), TenantName::new(&format!("tenant-{n:04}")).ok());
            let weights = Weights::new(names.iter().cloned().zip(shares)).unwrap();
            let arms = vec![arm(0, 9_000), arm(1, 1_000)];
            let epochs = vec![EpochReading { epoch: 1_000_000, weights, arms, bad_since_ms: vec![None; 2] }];
            Counts { whose, epochs, keys: Keys::default() }
        };
        let page: Vec<_> = (0..64).map(counts).collect();
        let bytes = encode_counts(&page).len();
        assert!(bytes < 64 * 66, "{bytes}");
    }

    #[test]
    fn the_largest_page_fits_into_a_note() {
        let names = ["1.0.0", "2.0.0"].map(|name| VersionName::new(name).unwrap());
        let half = BasisPoints::new(5_000).unwrap();
        let weights = Weights::new(names.iter().map(|name| (name.clone(), half))).unwrap();
        let signals = [SignalReading { n: 1 << 27, bad: 1 << 20 }; TallySignal::COUNT];
        let arm = |name: &VersionName| ArmReading {
            version: name.clone(),
            routed: 1 << 27,
            requests: 1 << 27,
            failures: 1 << 20,
            signals,
        };
        let epoch = |epoch: u64| EpochReading {
            epoch,
            weights: weights.clone(),
            arms: names.iter().map(arm).collect(),
            bad_since_ms: vec![Some(1 << 41); 2],
        };
        // As many scopes, epochs and keys as the publisher puts into one.
        let counts = |n: usize| Counts {
            whose: (ServiceName::new("accounting").unwrap(), TenantName::new(&format!("{n:0128}")).ok()),
            epochs: (1_000_000..1_000_005).map(epoch).collect(),
            keys: Keys {
                attempt: 1_000_000,
                keys: vec![BadKey { version: names[1].clone(), signal: 3, key: (1 << 40) - 1 }; 32],
            },
        };
        let bytes = encode_counts(&(0..64).map(counts).collect::<Vec<_>>()).len();
        assert!(bytes < 64 << 10, "{bytes}");
    }
}
