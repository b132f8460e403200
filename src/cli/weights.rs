//! Weights as people type them: `2.0.0=10 1.0.0=90`, where one version may leave out its number and gets the rest.
//!
//! What cannot be a split is refused here, as wrong usage, with the value and what is allowed; nothing is sent then.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::model::{BUCKETS, BasisPoints, VersionName, Weights};

/// One argument: a version with its share, or a version that gets the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightArg {
    version: VersionName,
    share: Option<BasisPoints>,
}

/// Why an argument, or all of them together, are no split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// The name of the version cannot be one.
    #[error("the version {text:?} {reason}")]
    Version {
        /// What was given.
        text: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// The share is no number from 0 to 100 with two decimals.
    #[error("{text:?} is no share; allowed are numbers from 0 to 100 with at most two decimals, such as 10 or 0.25")]
    Share {
        /// What was given.
        text: String,
    },
    /// A version is named more than once.
    #[error("version {version} is given twice; each version is allowed once")]
    Twice {
        /// Which version.
        version: VersionName,
    },
    /// More than one version shall get the rest.
    #[error("{versions} have no number; only one version may leave it out and get the rest")]
    SeveralRests {
        /// Which versions.
        versions: String,
    },
    /// The numbers leave less than nothing for the rest.
    #[error("the weights add up to {total} %, which leaves nothing for {version}; at most 100 % is allowed")]
    NoRest {
        /// The sum in percent.
        total: String,
        /// The version without a number.
        version: VersionName,
    },
    /// The whole is no split.
    #[error("{0}")]
    Split(String),
}

impl FromStr for WeightArg {
    type Err = WeightsError;

    fn from_str(text: &str) -> Result<Self, WeightsError> {
        let (version, share) = match text.split_once('=') {
            Some((version, share)) => (version, Some(read_share(share)?)),
            None => (text, None),
        };
        let version = VersionName::new(version)
            .map_err(|e| WeightsError::Version { text: version.to_owned(), reason: e.to_string() })?;
        Ok(Self { version, share })
    }
}

impl fmt::Display for WeightArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.share {
            Some(share) => write!(f, "{}={}", self.version, share.percent()),
            None => write!(f, "{}", self.version),
        }
    }
}

/// Digits with at most one dot, and a percent sign if one likes. Other spellings of numbers are more likely mistakes.
fn read_share(text: &str) -> Result<BasisPoints, WeightsError> {
    let bad = || WeightsError::Share { text: text.to_owned() };
    let number = text.strip_suffix('%').unwrap_or(text);
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(bad());
    }
    number.parse().ok().and_then(|percent| BasisPoints::from_percent(percent).ok()).ok_or_else(bad)
}

/// A whole split: what the arguments say, the rest filled in, in the order of the arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitArg(Vec<(VersionName, BasisPoints)>);

impl SplitArg {
    /// Fills in the rest and checks that the shares add up.
    ///
    /// # Errors
    /// [`WeightsError`] says which argument is wrong, or what the sum is.
    pub fn new(args: &[WeightArg]) -> Result<Self, WeightsError> {
        for (i, arg) in args.iter().enumerate() {
            if args[..i].iter().any(|earlier| earlier.version == arg.version) {
                return Err(WeightsError::Twice { version: arg.version.clone() });
            }
        }
        let rests: Vec<&VersionName> = args.iter().filter(|a| a.share.is_none()).map(|a| &a.version).collect();
        let total: u32 = args.iter().filter_map(|a| a.share).map(|s| u32::from(s.points())).sum();
        let rest = match rests[..] {
            [] => BasisPoints::ZERO,
            [version] => u32::from(BUCKETS)
                .checked_sub(total)
                .filter(|rest| *rest > 0)
                .and_then(|rest| BasisPoints::new(u16::try_from(rest).ok()?))
                .ok_or_else(|| WeightsError::NoRest {
                    total: (f64::from(total) / 100.0).to_string(),
                    version: version.clone(),
                })?,
            _ => {
                let names: Vec<&str> = rests.iter().map(|v| v.as_str()).collect();
                return Err(WeightsError::SeveralRests { versions: names.join(" and ") });
            }
        };
        let shares: Vec<_> = args.iter().map(|a| (a.version.clone(), a.share.unwrap_or(rest))).collect();
        Weights::new(shares.iter().cloned()).map_err(|e| WeightsError::Split(e.to_string()))?;
        Ok(Self(shares))
    }

    /// The weights for the API. Versions with zero are named too, so that the server can refuse misspelt ones.
    pub fn to_json(&self) -> Value {
        let number = |share: &BasisPoints| serde_json::to_value(share).unwrap_or(Value::Null);
        Value::Object(self.0.iter().map(|(v, s)| (v.to_string(), number(s))).collect::<Map<_, _>>())
    }
}

impl fmt::Display for SplitArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (version, share)) in self.0.iter().enumerate() {
            write!(f, "{}{version}={}", if i == 0 { "" } else { " " }, share.percent())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &str) -> Result<SplitArg, WeightsError> {
        let args = text.split_whitespace().map(str::parse).collect::<Result<Vec<WeightArg>, _>>()?;
        SplitArg::new(&args)
    }

    #[test]
    fn one_version_may_get_the_rest() {
        assert_eq!(split("2.0.0=10 1.0.0=90").unwrap().to_string(), "2.0.0=10 1.0.0=90");
        assert_eq!(split("2.0.0=10 1.0.0").unwrap().to_string(), "2.0.0=10 1.0.0=90");
        assert_eq!(split("2.0.0=0.01% 1.0.0").unwrap().to_string(), "2.0.0=0.01 1.0.0=99.99");
        assert_eq!(split("1.0.0").unwrap().to_string(), "1.0.0=100");
        assert_eq!(
            split("2.0.0=0 1.0.0=33.3 3=66.7").unwrap().to_json().to_string(),
            r#"{"2.0.0":0,"1.0.0":33.3,"3":66.7}"#
        );
    }

    #[test]
    fn mistakes_name_the_value_and_what_is_allowed() {
        let cases = [
            (
                "a=x",
                "\"x\" is no share; allowed are numbers from 0 to 100 with at most two decimals, such as 10 or 0.25",
            ),
            ("a=101", "\"101\" is no share"),
            ("a=-1", "\"-1\" is no share"),
            ("a=0.005", "\"0.005\" is no share"),
            ("a=1e1", "\"1e1\" is no share"),
            ("a=NaN", "\"NaN\" is no share"),
            ("a=", "\"\" is no share"),
            ("a=1.2.3", "\"1.2.3\" is no share"),
            ("=10 b", "the version \"\" is empty; allowed are 1 to 63 characters"),
            ("a/b=10 b", "the version \"a/b\" has the character '/'; allowed are letters"),
            ("a=10 a=90", "version a is given twice; each version is allowed once"),
            ("a b", "a and b have no number; only one version may leave it out and get the rest"),
            ("a=60 b=60 c", "the weights add up to 120 %, which leaves nothing for c; at most 100 % is allowed"),
            ("a=100 b", "the weights add up to 100 %, which leaves nothing for b"),
            ("a=10 b=80", "the weights add up to 90 %, but must add up to 100 %"),
        ];
        for (text, expected) in cases {
            let error = split(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_then_formatting_is_stable(
            cuts in proptest::collection::btree_set(1..10_000_u16, 0..6),
            rest in any::<proptest::sample::Index>(),
            leave_out in any::<bool>(),
        ) {
            let ends: Vec<u16> = cuts.into_iter().chain([BUCKETS]).collect();
            let begins = std::iter::once(0).chain(ends.iter().copied());
            let shares: Vec<u16> = ends.iter().zip(begins).map(|(end, begin)| end - begin).collect();
            let rest = rest.index(shares.len());
            let text = |with_rest: bool| -> String {
                let part = |(i, s): (usize, &u16)| match leave_out && with_rest && i == rest {
                    true => format!("v{i}"),
                    false => format!("v{i}={}", f64::from(*s) / 100.0),
                };
                shares.iter().enumerate().map(part).collect::<Vec<_>>().join(" ")
            };
            let parsed = split(&text(true)).unwrap();
            prop_assert_eq!(parsed.to_string(), text(false));
            prop_assert_eq!(split(&parsed.to_string()).unwrap(), parsed);
        }

        #[test]
        fn no_argument_makes_it_panic(text in "\\PC{0,20}") {
            if let Ok(arg) = text.parse::<WeightArg>() {
                prop_assert_eq!(arg.to_string().parse::<WeightArg>(), Ok(arg));
            }
        }
    }
}
