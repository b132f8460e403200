//! What if: how soon would a plan and a guard catch a bad version, what would it cost, and how often would they cry wolf?
//!
//! The rollout and the guard are the real ones: [`planning::plan`](crate::planning::plan) says what is next,
//! [`State::apply`](crate::model::State::apply) does it, and a [`Comparison`](crate::analysis::Comparison) for each tenant
//! and a [`Fleet`](crate::analysis::Fleet) for all judge what is counted. Only the requests are drawn, and time is a number.
//!
//! The room is pure: chance comes from a seed, so the same question gives the same answer.

mod answer;
mod beginning;
mod dice;
mod scenario;
mod scope;
mod traffic;
mod world;

#[cfg(test)]
mod tests;

pub use answer::{Answer, CaughtAt, Ends, Healthy, Plan, Quantiles, Regressed};
pub use scenario::{Scenario, Spread};
pub use traffic::{Failing, Load, Regression};

use beginning::Beginning;
use dice::Dice;
use world::{Run, World};

use crate::model::{ChangeError, Scope};
use crate::planning::{Facts, validate};

/// A simulation looks at scopes so often at most: a tenant for a second, or a tenth of a second while something is up. Half
/// of it is for the runs with the regression. It takes some ten seconds of one core.
pub const MAX_LOOKS: u64 = 20_000_000;
/// Runs with the regression unless the question says otherwise.
const RUNS: u32 = 200;
/// Runs with a healthy version unless the question says otherwise.
const HEALTHY_RUNS: u32 = 1_000;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The rollout could not even begin.
    #[error("the rollout would be refused: {0}")]
    Rollout(#[from] ChangeError),
    /// More work than is allowed.
    #[error(
        "is {asked}, which is more work than the {MAX_LOOKS} looks of a simulation allow (one for each tenant and second); \
         allowed are about {fit} here"
    )]
    TooManyRuns {
        /// Runs that were asked for.
        asked: u32,
        /// Runs that fit.
        fit: u32,
        /// Whether it was about the runs with a healthy version.
        healthy: bool,
    },
    /// Not even one run fits.
    #[error(
        "one rollout by this plan needs more than half of the {MAX_LOOKS} looks that a simulation may take (one for each \
         tenant and second); shorten the steps, or simulate fewer tenants"
    )]
    TooLong,
    /// Nobody waits for the answer.
    #[error("the simulation was stopped because nobody waits for it")]
    Stopped,
}

/// Runs a question, as long as `goes_on` says so; it is asked before each run of the rollout.
///
/// # Errors
/// [`Refused`] when the rollout could not begin, would take more than [`MAX_LOOKS`], or was stopped.
pub fn simulate(scenario: &Scenario, goes_on: &dyn Fn() -> bool) -> Result<Answer, Refused> {
    within(scenario, MAX_LOOKS, goes_on)
}

fn within(scenario: &Scenario, most_looks: u64, goes_on: &dyn Fn() -> bool) -> Result<Answer, Refused> {
    let beginning = Beginning::new(scenario)?;
    let plan = Plan::new(validate(&scenario.new_rollout(), &Facts::default()));
    let has_tenants = scenario.audience.iter().any(|(scope, _)| matches!(scope, Scope::Tenant(_)));
    let rollout = &beginning.state.rollouts[&beginning.rollout].rollout;
    let regression = match &scenario.regression {
        Some(regression) => {
            let runs = runs(scenario, &beginning, Some(regression), most_looks / 2, goes_on)?;
            Some(Regressed::new(&runs, regression.after_ms, rollout, has_tenants))
        }
        None => None,
    };
    let healthy = Healthy::new(&runs(scenario, &beginning, None, most_looks / 2, goes_on)?);
    Ok(Answer {
        seed: scenario.seed,
        rate: scenario.load.mean_rate(),
        plan,
        regression,
        healthy,
        assumptions: assumptions(scenario),
    })
}

fn runs(
    scenario: &Scenario,
    beginning: &Beginning,
    regression: Option<&Regression>,
    mut left: u64,
    goes_on: &dyn Fn() -> bool,
) -> Result<Vec<Run>, Refused> {
    let (regression, healthy) = (regression.unwrap_or(&Regression::NONE), regression.is_none());
    let asked = if healthy { scenario.healthy_runs } else { scenario.runs };
    let count = asked.unwrap_or(if healthy { HEALTHY_RUNS } else { RUNS });
    let mut runs = Vec::new();
    for run in 0..count {
        if !goes_on() {
            return Err(Refused::Stopped);
        }
        let dice = Dice::new(scenario.seed, u64::from(healthy), u64::from(run));
        match World::new(scenario, beginning, regression, dice).run(left) {
            Ok(done) => {
                left -= done.looks.min(left);
                runs.push(done);
            }
            Err(world::TooLong) if run == 0 => return Err(Refused::TooLong),
            // Fewer runs are an answer too, unless somebody wants just so many.
            Err(world::TooLong) => match asked {
                Some(asked) => return Err(Refused::TooManyRuns { asked, fit: run, healthy }),
                None => break,
            },
        }
    }
    Ok(runs)
}

/// Where the simulation is simpler than the world.
fn assumptions(scenario: &Scenario) -> Vec<String> {
    let (spec, guard) = (&scenario.spec, &scenario.guard);
    let mut all = vec![
        "Each request is a user of its own, and fails or is slow by chance alone; none is rescued.".to_owned(),
        "Endpoints stay healthy, and nobody else changes anything.".to_owned(),
    ];
    let mut when = |holds: bool, text: &str| {
        if holds {
            all.push(text.to_owned());
        }
    };
    when(!guard.enabled, "The guard of the service is off: nothing goes back and nothing is proven.");
    when(!spec.gates.is_empty(), "Gates are open at once.");
    when(!spec.schedule.windows.is_empty() || spec.start_at_ms.is_some(), "It begins at once, and windows are open.");
    let approves = spec.steps.iter().any(|step| step.approval) || spec.canary.is_some();
    when(approves, "People approve at once, and let the others follow the canary tenants at once.");
    when(!spec.then.is_empty(), "Only the first of the versions is simulated.");
    when(guard.limits.max_p99.is_some(), "The limit on the 99th percentile of latency does not trip.");
    when(guard.client_errors, "There are no 4xx answers.");
    when(guard.latency, "Latencies are log-normal, the 99th percentile four times the median.");
    all
}
