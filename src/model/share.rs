//! Shares of traffic in basis points: people say percent with two decimals, the code counts in integers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::names::VersionName;

/// How many buckets the keys are spread over: one for each basis point.
pub const BUCKETS: u16 = 10_000;

/// A share of the traffic in basis points, 0 to 10 000 (0 % to 100 %).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct BasisPoints(u16);

impl BasisPoints {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(BUCKETS);

    /// Takes 0 to 10 000; `None` above.
    pub fn new(points: u16) -> Option<Self> {
        (points <= BUCKETS).then_some(Self(points))
    }

    /// Reads a percentage with at most two decimals.
    ///
    /// # Errors
    /// [`ShareError`] when the number is not within 0 to 100 or has more than two decimals.
    pub fn from_percent(percent: f64) -> Result<Self, ShareError> {
        let points = (percent * 100.0).round();
        if !(0.0..=f64::from(BUCKETS)).contains(&points) || !(0.0..=100.0).contains(&percent) {
            return Err(ShareError::Range { percent });
        }
        if (percent * 100.0 - points).abs() > 1e-6 {
            return Err(ShareError::Decimals { percent });
        }
        Ok(Self(points as u16))
    }

    /// The share in basis points.
    pub fn points(self) -> u16 {
        self.0
    }

    /// The share in percent.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// The share as a number from 0 to 1.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(BUCKETS)
    }
}

impl fmt::Display for BasisPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

impl Serialize for BasisPoints {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(100) {
            serializer.serialize_u16(self.0 / 100)
        } else {
            serializer.serialize_f64(self.percent())
        }
    }
}

impl<'de> Deserialize<'de> for BasisPoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        Self::from_percent(percent).map_err(serde::de::Error::custom)
    }
}

/// Why a number is not a share.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ShareError {
    /// Outside 0 to 100.
    #[error("{percent} is not a percentage; allowed are 0 to 100")]
    Range {
        /// What was given.
        percent: f64,
    },
    /// More than two decimals.
    #[error("{percent} has more than two decimals; the smallest step is 0.01")]
    Decimals {
        /// What was given.
        percent: f64,
    },
    /// The shares of a split do not add up.
    #[error("the weights add up to {total} %, but must add up to 100 %")]
    Total {
        /// The sum in percent.
        total: f64,
    },
    /// The split names no version.
    #[error("no version has a weight; at least one version is needed")]
    Empty,
    /// The split names too many versions.
    #[error("{count} versions have a weight; at most {max} are allowed")]
    TooMany {
        /// How many were given.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
}

/// Which share each version gets; the shares add up to 100 %. Versions with a share of zero are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Weights(BTreeMap<VersionName, BasisPoints>);

impl Weights {
    /// The most versions that one split may name.
    pub const MAX_VERSIONS: usize = 16;

    /// Checks that the shares add up to 100 %.
    ///
    /// # Errors
    /// [`ShareError`] when they do not, or when there are none or too many.
    pub fn new(shares: impl IntoIterator<Item = (VersionName, BasisPoints)>) -> Result<Self, ShareError> {
        let shares: BTreeMap<_, _> = shares.into_iter().filter(|(_, s)| *s > BasisPoints::ZERO).collect();
        if shares.is_empty() {
            return Err(ShareError::Empty);
        }
        if shares.len() > Self::MAX_VERSIONS {
            return Err(ShareError::TooMany { count: shares.len(), max: Self::MAX_VERSIONS });
        }
        let total: u64 = shares.values().map(|s| u64::from(s.points())).sum();
        if total != u64::from(BUCKETS) {
            return Err(ShareError::Total { total: total as f64 / 100.0 });
        }
        Ok(Self(shares))
    }

    /// Everything to one version.
    pub fn all_on(version: VersionName) -> Self {
        Self(BTreeMap::from([(version, BasisPoints::ALL)]))
    }

    /// The share of a version; zero when it is not named.
    pub fn share(&self, version: &str) -> BasisPoints {
        self.0.get(version).copied().unwrap_or_default()
    }

    /// Versions with their shares, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&VersionName, BasisPoints)> {
        self.0.iter().map(|(v, s)| (v, *s))
    }

    /// The canary's probability among these two versions, 0 to 1: the others are no part of a comparison.
    pub fn share_between(&self, baseline: &VersionName, canary: &VersionName) -> f64 {
        let (b, c) = (self.share(baseline.as_str()).points(), self.share(canary.as_str()).points());
        if b + c == 0 { 0.0 } else { f64::from(c) / f64::from(b + c) }
    }

    /// The canary's share among all versions when it is to have this one among the two, 0 to 1; none when that is not less
    /// than it has.
    pub fn points_between(&self, baseline: &VersionName, canary: &VersionName, share: f64) -> Option<BasisPoints> {
        let (b, c) = (self.share(baseline.as_str()).points(), self.share(canary.as_str()).points());
        BasisPoints::new((share * f64::from(b + c)).round() as u16).filter(|s| s.points() < c)
    }

    /// The one version that gets everything, if there is one.
    pub fn sole(&self) -> Option<&VersionName> {
        match self.0.len() {
            1 => self.0.keys().next(),
            _ => None,
        }
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (version, share)) in self.0.iter().enumerate() {
            write!(f, "{}{version}={}", if i == 0 { "" } else { " " }, share.percent())?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Weights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shares = BTreeMap::<VersionName, BasisPoints>::deserialize(deserializer)?;
        Self::new(shares).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str) -> VersionName {
        VersionName::new(name).unwrap()
    }

    #[test]
    fn percentages_have_two_decimals_at_most() {
        assert_eq!(BasisPoints::from_percent(0.01).unwrap().points(), 1);
        assert_eq!(BasisPoints::from_percent(99.99).unwrap().points(), 9_999);
        assert_eq!(BasisPoints::from_percent(100.0).unwrap(), BasisPoints::ALL);
        assert_eq!(BasisPoints::from_percent(0.005), Err(ShareError::Decimals { percent: 0.005 }));
        for percent in [-0.01, 100.01, f64::NAN, f64::INFINITY] {
            assert!(matches!(BasisPoints::from_percent(percent), Err(ShareError::Range { .. })), "{percent}");
        }
        for points in 0..=BUCKETS {
            let share = BasisPoints::new(points).unwrap();
            assert_eq!(BasisPoints::from_percent(share.percent()).unwrap(), share);
        }
    }

    #[test]
    fn weights_add_up() {
        let half = BasisPoints::from_percent(50.0).unwrap();
        assert!(Weights::new([(version("1"), half), (version("2"), half)]).is_ok());
        let error = Weights::new([(version("1"), half)]).unwrap_err();
        assert_eq!(error.to_string(), "the weights add up to 50 %, but must add up to 100 %");
        assert_eq!(Weights::new([]), Err(ShareError::Empty));
        let json = r#"{"1.0.0":89.99,"2.0.0":10.01}"#;
        let weights: Weights = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&weights).unwrap(), json);
        assert_eq!(weights.share("3"), BasisPoints::ZERO);
    }
}
