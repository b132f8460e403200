//! What a rollout is asked to do: from which version to which, for whom, in which steps, and when to give up.
//!
//! Everything here is checked before a rollout exists, so planning never meets a plan that makes no sense.

use serde::{Deserialize, Serialize};

use crate::model::names::{GroupName, VersionName};
use crate::model::schedule::Schedule;
use crate::model::share::BasisPoints;
use crate::model::unknown::Unknown;

/// The plan of a rollout, as it was started. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutSpec {
    /// Where traffic is.
    pub from: VersionName,
    /// Where it shall be.
    pub to: VersionName,
    /// Whose traffic.
    pub target: Target,
    /// The shares that each unit goes through, rising, the last one 100 %.
    pub steps: Vec<Step>,
    /// Tenants moved at a time; none: all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// From the end of one batch to the begin of the next.
    #[serde(default)]
    pub batch_delay_ms: u64,
    /// Share of the tenants that goes first, after which the rollout waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<BasisPoints>,
    /// In which order tenants go.
    #[serde(default)]
    pub order: Order,
    /// What happens when a step is neither proven nor refuted after its longest bake time.
    pub on_insufficient: OnInsufficient,
    /// Requests that the new version must have answered in a step before it may advance without proof.
    pub min_requests: u64,
    /// What the old version keeps of each unit while its last step bakes, so that there is something to compare with.
    pub keep: BasisPoints,
    /// How many tenants may go back before all do.
    pub tolerate: Tolerance,
    /// What the rollout may cost at most.
    #[serde(default)]
    pub blast_radius: BlastRadius,
    /// Shares on the way back, falling, without the final 0; empty: at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub back: Vec<BasisPoints>,
    /// Time between two steps back.
    #[serde(default)]
    pub back_every_ms: u64,
    /// Not before this time, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at_ms: Option<u64>,
    /// Days and hours in which it may begin, and in which steps may take effect.
    #[serde(default, skip_serializing_if = "is_always")]
    pub schedule: Schedule,
    /// Who is asked on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// How long the old version must stay usable after the end.
    pub keep_warm_ms: u64,
    /// Versions to go on to when this rollout is complete, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<VersionName>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

fn is_always(schedule: &Schedule) -> bool {
    schedule.windows.is_empty()
}

/// Whose traffic a rollout moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Everyone's, and at the end the service's baseline.
    Service,
    /// That of these groups.
    Groups(Vec<GroupName>),
    /// That of single tenants, which are listed with the rollout's units.
    Tenants,
}

/// One step of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Share of the new version.
    pub share: BasisPoints,
    /// The shortest time in the step.
    pub bake_ms: u64,
    /// How long to wait for proof; then [`OnInsufficient`] decides.
    pub max_bake_ms: u64,
    /// Whether a person must approve the step by name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
    /// From this step on, going back is for people to decide.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_return: bool,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// In which order tenants go. Whatever is equal goes by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Groups whose tenants go first, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupName>,
    /// Seed of a random order; none: those with the least traffic first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What happens to a step that is neither proven nor refuted after its longest bake time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInsufficient {
    /// A person decides.
    Hold,
    /// It goes on, and says that nothing was proven; but not without [`RolloutSpec::min_requests`].
    #[default]
    Advance,
    /// All goes back.
    Abort,
}

/// How many tenants may go back before the whole rollout does. Going back begins when either is exceeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tolerance {
    /// So many tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<u32>,
    /// This share of the tenants that were moved so far; does not count below [`Tolerance::FEW`] tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<BasisPoints>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Tolerance {
    /// So few tenants going back are never a share of anything.
    pub const FEW: u32 = 3;

    /// Whether so many tenants of those moved are too many.
    pub fn is_exceeded(&self, gone_back: u32, moved: u32) -> bool {
        let share = |most: BasisPoints| u64::from(gone_back) * 10_000 > u64::from(moved) * u64::from(most.points());
        self.tenants.is_some_and(|most| gone_back > most) || gone_back > Self::FEW && self.share.is_some_and(share)
    }
}

/// What a rollout may cost at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlastRadius {
    /// Tenants that may be on the new version while nothing is proven about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<u32>,
    /// Requests of users that may fail on the new version; then all goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_requests: Option<u64>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Somebody who is asked by a webhook before the rollout goes on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Its name, unique within the rollout.
    pub name: String,
    /// When it is asked.
    pub at: GateAt,
    /// Only at this step, counted from 1; none: at each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// Where the question goes.
    pub url: String,
    /// What signs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gate {{ name: {:?}, at: {:?}, step: {:?}, url: {:?} }}", self.name, self.at, self.step, self.url)
    }
}

/// When a gate is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateAt {
    /// Before anything moves.
    Start,
    /// Before each step.
    BeforeStep,
    /// After each step.
    AfterStep,
    /// Before the rollout is complete.
    Completion,
    /// After traffic went back; the answer changes nothing.
    Rollback,
    /// Again and again while the rollout runs: it does not go on while the gate is closed.
    Hold,
}

impl GateAt {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::BeforeStep => "before_step",
            Self::AfterStep => "after_step",
            Self::Completion => "completion",
            Self::Rollback => "rollback",
            Self::Hold => "hold",
        }
    }
}

impl RolloutSpec {
    /// The most steps.
    pub const MAX_STEPS: usize = 100;
    /// The most gates.
    pub const MAX_GATES: usize = 20;
    /// The most units.
    pub const MAX_UNITS: usize = 100_000;

    /// What the new version gets in a step: at the last one the old version keeps a little until the bake is over.
    pub fn share_at(&self, step: u32) -> BasisPoints {
        let share = self.steps.get(step as usize).map_or(BasisPoints::ALL, |s| s.share);
        let most = BasisPoints::ALL.points() - self.keep.points();
        BasisPoints::new(share.points().min(most)).unwrap_or(share)
    }

    /// Whether it is about this version.
    pub fn names(&self, version: &VersionName) -> bool {
        self.from == *version || self.to == *version || self.then.contains(version)
    }

    /// Whether a step is the last one.
    pub fn is_last(&self, step: u32) -> bool {
        step as usize + 1 >= self.steps.len()
    }

    /// What is wrong with the plan: the field, and what is allowed.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), SpecError> {
        let wrong = |field: &'static str, why: String| Err(SpecError { field, why });
        if self.from == self.to {
            return wrong("to", format!("{} is where traffic is already; name another version", self.to));
        }
        if !self.then.is_empty() && self.target != Target::Service {
            return wrong("then", "goes on from the baseline, so it needs a rollout of the whole service".to_owned());
        }
        let path: Vec<_> = [&self.from, &self.to].into_iter().chain(&self.then).collect();
        if let Some(twice) = path.iter().enumerate().find(|(i, version)| path[..*i].contains(version)) {
            return wrong("then", format!("{} stands twice on the way", twice.1));
        }
        let count = self.steps.len();
        if count == 0 || count > Self::MAX_STEPS {
            return wrong("steps", format!("there are {count} steps; allowed are 1 to {}", Self::MAX_STEPS));
        }
        if let Some(pair) = self.steps.windows(2).find(|p| p[0].share >= p[1].share) {
            return wrong("steps", format!("{} comes after {}; shares must rise", pair[1].share, pair[0].share));
        }
        if self.steps[0].share == BasisPoints::ZERO {
            return wrong("steps", "a step of 0 % moves nobody; allowed are 0.01 to 100".to_owned());
        }
        if self.steps[count - 1].share != BasisPoints::ALL {
            return wrong("steps", format!("the last step is {}; it must be 100", self.steps[count - 1].share));
        }
        if let Some(step) = self.steps.iter().find(|s| s.max_bake_ms < s.bake_ms) {
            let why = format!("the longest bake of the step of {} is shorter than its bake", step.share);
            return wrong("max_bake", why);
        }
        if self.keep.points() > 5_000 {
            return wrong("keep", format!("{} is too much; allowed are 0 to 50", self.keep));
        }
        if self.batch == Some(0) {
            return wrong("batch.size", "is 0; allowed are 1 and more".to_owned());
        }
        if self.canary.is_some_and(|c| c == BasisPoints::ZERO) {
            return wrong("canary", "is 0; allowed are 0.01 to 100 percent of the tenants".to_owned());
        }
        if let Some(pair) = self.back.windows(2).find(|p| p[0] <= p[1]) {
            return wrong("rollback.steps", format!("{} comes after {}; shares must fall", pair[1], pair[0]));
        }
        if self.gates.len() > Self::MAX_GATES {
            return wrong("gates", format!("there are {}; allowed are up to {}", self.gates.len(), Self::MAX_GATES));
        }
        for (i, gate) in self.gates.iter().enumerate() {
            if self.gates[..i].iter().any(|g| g.name == gate.name) {
                return wrong("gates", format!("two gates have the name {:?}", gate.name));
            }
        }
        Ok(())
    }
}

/// A plan that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct SpecError {
    /// Which part.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub why: String,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plan with these shares and a bake time of a minute.
    pub(crate) fn plan(shares: &[u16]) -> RolloutSpec {
        let step = |share: &u16| Step {
            share: BasisPoints::new(share * 100).unwrap(),
            bake_ms: 60_000,
            max_bake_ms: 600_000,
            approval: false,
            no_return: false,
            unknown: Default::default(),
        };
        RolloutSpec {
            from: VersionName::new("1").unwrap(),
            to: VersionName::new("2").unwrap(),
            target: Target::Service,
            steps: shares.iter().map(step).collect(),
            batch: None,
            batch_delay_ms: 0,
            canary: None,
            order: Order::default(),
            on_insufficient: OnInsufficient::Hold,
            min_requests: 100,
            keep: BasisPoints::new(500).unwrap(),
            tolerate: Tolerance { tenants: None, share: BasisPoints::new(1_000), unknown: Default::default() },
            blast_radius: BlastRadius::default(),
            back: Vec::new(),
            back_every_ms: 0,
            start_at_ms: None,
            schedule: Schedule::default(),
            gates: Vec::new(),
            keep_warm_ms: 0,
            then: Vec::new(),
            unknown: Default::default(),
        }
    }

    #[test]
    fn mistakes_name_the_field() {
        let field = |spec: RolloutSpec| spec.check().unwrap_err().field;
        assert_eq!(plan(&[10, 50, 100]).check(), Ok(()));
        assert_eq!(field(plan(&[])), "steps");
        assert_eq!(field(plan(&[50, 10, 100])), "steps");
        assert_eq!(field(plan(&[0, 100])), "steps");
        assert_eq!(field(plan(&[10, 50])), "steps");
        assert_eq!(field(RolloutSpec { to: VersionName::new("1").unwrap(), ..plan(&[100]) }), "to");
        let then = |versions: &[&str], target| RolloutSpec {
            then: versions.iter().map(|v| VersionName::new(v).unwrap()).collect(),
            target,
            ..plan(&[100])
        };
        assert_eq!(then(&["3", "4"], Target::Service).check(), Ok(()));
        assert_eq!(field(then(&["3"], Target::Tenants)), "then");
        assert_eq!(field(then(&["3", "1"], Target::Service)), "then");
        assert_eq!(field(RolloutSpec { batch: Some(0), ..plan(&[100]) }), "batch.size");
        assert_eq!(field(RolloutSpec { canary: Some(BasisPoints::ZERO), ..plan(&[100]) }), "canary");
        let back = [10, 20].map(|p| BasisPoints::new(p).unwrap()).to_vec();
        assert_eq!(field(RolloutSpec { back, ..plan(&[100]) }), "rollback.steps");
        let mut short = plan(&[100]);
        short.steps[0].max_bake_ms = 1;
        assert_eq!(field(short), "max_bake");
    }

    #[test]
    fn the_old_version_keeps_a_little_at_the_last_step() {
        let spec = plan(&[10, 100]);
        assert_eq!(spec.share_at(0).points(), 1_000);
        assert_eq!(spec.share_at(1).points(), 9_500);
        assert!(!spec.is_last(0) && spec.is_last(1));
    }

    #[test]
    fn few_tenants_are_never_a_share() {
        let share = Tolerance { tenants: None, share: BasisPoints::new(1_000), unknown: Default::default() };
        assert!(!share.is_exceeded(3, 3));
        assert!(share.is_exceeded(4, 39));
        assert!(!share.is_exceeded(4, 40));
        let count = Tolerance { tenants: Some(2), share: None, unknown: Default::default() };
        assert!(!count.is_exceeded(2, 2) && count.is_exceeded(3, 10_000));
    }
}
