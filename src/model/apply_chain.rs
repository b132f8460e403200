//! Ways through intermediate versions: which version may follow which, and what comes after a rollout that is complete.
//! Another part of `apply`.

use serde_json::{Value, json};

use super::apply::{Next, Outcome};
use super::apply_rollout::WrittenRollout;
use super::change::ChangeError;
use super::event::EventKind;
use super::names::VersionName;
use super::rollout::{Rollout, RolloutSpec, Unit, Units};

impl Next<'_> {
    /// The versions of the plan must exist, may have traffic, and may follow one another.
    pub(super) fn check_way(&self, spec: &RolloutSpec) -> Result<(), ChangeError> {
        let way: Vec<_> = [&spec.from, &spec.to].into_iter().chain(&spec.then).collect();
        for version in &way {
            self.known(version)?;
            self.not_disabled(version)?;
        }
        way.windows(2).try_for_each(|leg| self.may_follow(leg[0], leg[1]))
    }

    fn may_follow(&self, from: &VersionName, to: &VersionName) -> Result<(), ChangeError> {
        let registered = self.live()?.versions.get(to);
        let Some(spec) = self.spec.versions.get(to).or(registered).filter(|spec| !spec.may_follow(from)) else {
            return Ok(());
        };
        let allowed: Vec<_> = spec.upgrade_from.iter().map(VersionName::as_str).collect();
        let allowed = allowed.join(", ");
        Err(ChangeError::Invalid(format!("{to} cannot follow {from}; its upgrade_from allows {allowed}")))
    }

    /// Begins the rollout to the next version by the same plan, in the commit that completes this one; or this one says
    /// why it ends here.
    pub(super) fn go_on(&mut self, written: &mut WrittenRollout, alone: bool) -> Result<(), ChangeError> {
        let Some(spec) = next_leg(&written.rollout.spec) else { return Ok(()) };
        let why_not = match self.check_way(&spec) {
            Ok(()) if alone => None,
            Ok(()) => Some(match written.rollout.counts.left_behind() {
                0 => format!("a pin keeps somebody from {}", written.rollout.spec.to),
                left => format!("{left} of {} stayed behind", written.rollout.counts.total()),
            }),
            Err(refused) => Some(refused.to_string()),
        };
        if let Some(why) = why_not {
            written.rollout.not_followed = Some(format!("It does not go on to {}: {why}.", spec.to));
            return Ok(());
        }
        let (next, mut outcome) = self.follower(&written.rollout, &written.units, spec)?;
        written.rollout.followed_by = Some(next.rollout.id.clone());
        outcome.rollout = Some(next.rollout.id.clone());
        self.forget_old_rollouts();
        self.writes.archived.push(written.rollout.id.clone());
        self.writes.rollouts.push(next);
        self.writes.further = Some(outcome);
        Ok(())
    }

    /// The next rollout of the chain, with the same units in the same batches.
    fn follower(
        &self,
        before: &Rollout,
        units: &Units,
        spec: RolloutSpec,
    ) -> Result<(WrittenRollout, Outcome), ChangeError> {
        let end = before.bounds.last().copied().unwrap_or_default();
        let units = Units::new(units.range(0..end).map(|(_, unit): (u32, &Unit)| unit.renewed()).collect());
        let outcome = Outcome::new(
            EventKind::RolloutStarted,
            Value::Null,
            json!({ "from": spec.from, "to": spec.to, "units": units.len(), "follows": before.id }),
        );
        let outcome = outcome.about(&spec.to);
        let mut rollout = self.pending(spec, before.bounds.clone(), &units)?;
        rollout.author = before.author.clone();
        rollout.reason = format!("it goes on from {}", before.id);
        rollout.first_event += 1;
        rollout.follows = Some(before.id.clone());
        let pages = (0..units.pages().count()).collect();
        Ok((WrittenRollout { rollout, units, pages }, outcome))
    }
}

/// The same plan, one version on; none at the end of the chain.
fn next_leg(spec: &RolloutSpec) -> Option<RolloutSpec> {
    let (to, then) = spec.then.split_first()?;
    let (from, to, then) = (spec.to.clone(), to.clone(), then.to_vec());
    Some(RolloutSpec { from, to, then, start_at_ms: None, ..spec.clone() })
}
