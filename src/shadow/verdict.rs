//! From counts to a verdict: may a rollout to the shadow's version go on? Rollouts ask this; people see it.

use crate::model::BasisPoints;

/// Judged copies below which nothing is said.
const JUDGED_MIN: u64 = 20;
/// One-sided 99 %: each look is wrong in at most about one of a hundred cases.
const Z: f64 = 2.326;

/// What the copies say of the shadow's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Shown to differ in fewer requests than allowed.
    Healthy,
    /// Shown to differ in more requests than allowed.
    Breach,
    /// Neither.
    NotEnoughEvidence,
}

impl Verdict {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Breach => "breach",
            Self::NotEnoughEvidence => "not_enough_evidence",
        }
    }
}

/// Whether `worse` of `judged` copies are fewer or more than `allowed`, by Wilson's interval for a share: around 540
/// copies without a difference show that fewer than 1 % differ.
pub fn verdict(worse: u64, judged: u64, allowed: BasisPoints) -> Verdict {
    if judged < JUDGED_MIN {
        return Verdict::NotEnoughEvidence;
    }
    let n = judged as f64;
    let share = worse.min(judged) as f64 / n;
    let middle = share + Z * Z / (2.0 * n);
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let (low, high) = ((middle - half) / (1.0 + Z * Z / n), (middle + half) / (1.0 + Z * Z / n));
    if low > allowed.ratio() {
        Verdict::Breach
    } else if high < allowed.ratio() {
        Verdict::Healthy
    } else {
        Verdict::NotEnoughEvidence
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(worse: u64, judged: u64) -> Verdict {
        verdict(worse, judged, BasisPoints::new(100).unwrap())
    }

    #[test]
    fn few_copies_say_nothing_and_many_say_what_they_show() {
        assert_eq!(at(0, 0), Verdict::NotEnoughEvidence);
        assert_eq!(at(19, 19), Verdict::NotEnoughEvidence);
        assert_eq!(at(20, 20), Verdict::Breach);
        assert_eq!(at(0, 500), Verdict::NotEnoughEvidence);
        assert_eq!(at(0, 540), Verdict::Healthy);
        assert_eq!(at(5, 2_000), Verdict::Healthy);
        assert_eq!(at(10, 1_000), Verdict::NotEnoughEvidence, "exactly what is allowed");
        assert_eq!(at(30, 1_000), Verdict::Breach);
    }

    proptest! {
        #[test]
        fn more_differences_never_look_better(judged in 1u64..100_000, worse: u64, more: u64, allowed in 1u16..=9_999) {
            let rank = |v| match v { Verdict::Healthy => 0, Verdict::NotEnoughEvidence => 1, Verdict::Breach => 2 };
            let allowed = BasisPoints::new(allowed).unwrap();
            let worse = worse % (judged + 1);
            let worst = worse + more % (judged - worse + 1);
            prop_assert!(rank(verdict(worse, judged, allowed)) <= rank(verdict(worst, judged, allowed)));
            prop_assert!(verdict(0, judged, allowed) != Verdict::Breach);
            prop_assert!(verdict(judged, judged, allowed) != Verdict::Healthy);
        }
    }
}
