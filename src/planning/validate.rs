//! Looking before leaping: what is known about a rollout before it starts, and what speaks against it.

use serde::Serialize;

use crate::model::{BasisPoints, NewRollout, OnInsufficient, Scope, Step, VersionName};

/// What has to be known to look.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Endpoints of the old version, and how many of them pass their checks.
    pub from_endpoints: (usize, usize),
    /// The same of the new version.
    pub to_endpoints: (usize, usize),
    /// Whether the new version has active health checks.
    pub to_has_checks: bool,
    /// Whether the guard of the service is on.
    pub guarded: bool,
    /// Requests per second of everyone whom the rollout moves.
    pub rate: f64,
    /// Tenants with splits of their own that a person set and that the rollout therefore leaves alone.
    pub tenants_set_by_people: usize,
    /// Pins that lead to the old or the new version whatever the rollout does.
    pub pins: usize,
    /// Whether a hold, a freeze or a time window keeps it from beginning now, in a sentence.
    pub waits: Option<String>,
    /// Tenants whose own windows are closed now.
    pub outside_windows: usize,
    /// Whether the new version lies deprecated.
    pub to_deprecated: bool,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What.
    pub check: &'static str,
    /// Whether it is well.
    pub ok: bool,
    /// What was found.
    pub message: String,
}

/// One step of the plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedStep {
    /// The step, `batch.step`.
    pub step: String,
    /// Share of the new version in the step.
    pub share: BasisPoints,
    /// Tenants that it touches; none: everyone of the service or of groups who has no split of their own.
    pub tenants: Option<usize>,
    /// Earliest begin, in seconds from the start.
    pub after_seconds: u64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether nothing speaks against starting.
    pub ok: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
    /// The versions that it goes through, both ends included. Steps and times are those of the first leg.
    pub path: Vec<VersionName>,
    /// What may go wrong or take long although nothing speaks against it.
    pub risks: Vec<String>,
    /// The steps, the first hundred of them.
    pub steps: Vec<PlannedStep>,
    /// How many there are.
    pub steps_total: usize,
    /// Tenants that the rollout moves one by one.
    pub tenants: usize,
    /// Tenants that it was told to leave.
    pub excluded: usize,
    /// The shortest time that it can take, in seconds.
    pub shortest_seconds: u64,
    /// The longest time without anybody's help, in seconds; none: it waits for a person somewhere.
    pub longest_seconds: Option<u64>,
}

/// Steps that a report lists.
const LISTED: usize = 100;
/// Requests of the new version after which a step is proven when both versions never fail, at a share of 10 % (analysis
/// section 4.9).
const PROOF_REQUESTS: f64 = 870.0;

/// Looks at a rollout before it starts.
pub fn validate(new: &NewRollout, facts: &Facts) -> Report {
    let checks = checks(new, facts);
    let (steps, shortest) = steps(new);
    let spec = &new.spec;
    let batches = new.batches.len() as u64;
    let per_batch = |of: fn(&Step) -> u64| spec.steps.iter().map(of).sum::<u64>() * batches;
    let delays = spec.batch_delay_ms * batches.saturating_sub(1);
    let waits = spec.steps.iter().any(|s| s.approval)
        || spec.on_insufficient == OnInsufficient::Hold
        || spec.canary.is_some() && batches > 1;
    let longest = (per_batch(|s| s.max_bake_ms) + delays) / 1_000;
    let tenant = |scope: &&Scope| matches!(scope, Scope::Tenant(_));
    Report {
        ok: checks.iter().all(|check| check.ok),
        path: [&spec.from, &spec.to].into_iter().chain(&spec.then).cloned().collect(),
        risks: risks(new, facts),
        steps_total: steps.len(),
        steps: steps.into_iter().take(LISTED).collect(),
        tenants: new.batches.iter().flatten().filter(tenant).count(),
        excluded: new.left.len(),
        shortest_seconds: shortest,
        longest_seconds: (!waits).then_some(longest),
        checks,
    }
}

fn checks(new: &NewRollout, facts: &Facts) -> Vec<Check> {
    let (all, healthy) = facts.to_endpoints;
    let to = &new.spec.to;
    let endpoints = match (all, healthy) {
        (0, _) => format!("{to} has endpoints for single tenants only, which are known when they are first asked"),
        (all, 0) => format!("none of the {all} endpoints of {to} passes its checks"),
        (all, healthy) => format!("{healthy} of {all} endpoints of {to} can be reached"),
    };
    let (old, old_healthy) = facts.from_endpoints;
    let from = &new.spec.from;
    let guard = if facts.guarded {
        "the guard watches the service".to_owned()
    } else {
        "the guard of the service is off, so nothing would go back by itself and nothing can be proven".to_owned()
    };
    let catalogue = match new.spec.then.last() {
        None => format!("{to} may follow {from}"),
        Some(last) => {
            let between: Vec<_> = std::iter::once(to).chain(&new.spec.then).map(VersionName::as_str).collect();
            let legs = between.len();
            let between = between[..legs - 1].join(", ");
            format!("from {from} to {last} by way of {between}: {legs} rollouts one after the other by the same plan")
        }
    };
    let units: usize = new.batches.iter().map(Vec::len).sum();
    vec![
        Check { check: "endpoints", ok: all == 0 || healthy > 0, message: endpoints },
        Check {
            check: "way_back",
            ok: old == 0 || old_healthy > 0,
            message: format!("{old_healthy} of {old} endpoints of {from} can be reached"),
        },
        Check { check: "catalogue", ok: true, message: catalogue },
        Check { check: "guard", ok: facts.guarded, message: guard },
        Check {
            check: "units",
            ok: units > 0,
            message: format!("{units} scopes to move in {} batches", new.batches.len()),
        },
    ]
}

fn steps(new: &NewRollout) -> (Vec<PlannedStep>, u64) {
    let spec = &new.spec;
    let mut planned = Vec::new();
    let mut at_ms = 0;
    for (batch, scopes) in new.batches.iter().enumerate() {
        at_ms += if batch > 0 { spec.batch_delay_ms } else { 0 };
        let wide = scopes.iter().any(|scope| !matches!(scope, Scope::Tenant(_)));
        for (step, of) in spec.steps.iter().enumerate() {
            planned.push(PlannedStep {
                step: format!("{}.{}", batch + 1, step + 1),
                share: of.share,
                tenants: (!wide).then_some(scopes.len()),
                after_seconds: at_ms / 1_000,
            });
            at_ms += of.bake_ms;
        }
    }
    (planned, at_ms / 1_000)
}

fn risks(new: &NewRollout, facts: &Facts) -> Vec<String> {
    let spec = &new.spec;
    let mut risks = Vec::new();
    let mut risk = |applies: bool, text: String| risks.extend(applies.then_some(text));
    let (first, to) = (&spec.steps[0], &spec.to);
    let (old, new_count) = (facts.from_endpoints.0, facts.to_endpoints.0);
    risk(
        new_count > 0 && new_count < old,
        format!("{to} has {new_count} endpoints, {} has {old}: at 100 % each carries more", spec.from),
    );
    risk(
        !facts.to_has_checks,
        format!("{to} has no active health checks: that it is down shows by failing requests only"),
    );
    risk(facts.to_deprecated, format!("{to} is deprecated"));
    let needed = PROOF_REQUESTS / (facts.rate * first.share.ratio()).max(1e-9);
    let longest = first.max_bake_ms as f64 / 1_000.0;
    risk(
        needed > longest,
        format!(
            "at {:.1} requests per second the first step needs about {} to be proven, longer than its longest bake; then \
             on_insufficient decides",
            facts.rate,
            in_words(needed)
        ),
    );
    risk(
        spec.batch.is_none() && new.batches.iter().any(|b| b.len() > 100),
        "more than a hundred tenants move at the same time".to_owned(),
    );
    risk(first.share.points() >= 5_000, format!("the first step gives {to} {} at once", first.share));
    risk(first.bake_ms < 60_000, "steps of less than a minute show little of how a version behaves".to_owned());
    risk(
        facts.tenants_set_by_people > 0,
        format!("{} tenants have splits that people set; they stay as they are", facts.tenants_set_by_people),
    );
    risk(facts.pins > 0, format!("{} pins lead to {} or {to} whatever the rollout does", facts.pins, spec.from));
    risk(
        facts.outside_windows > 0,
        format!("{} tenants are outside their own windows now and come later than others", facts.outside_windows),
    );
    if let Some(waits) = &facts.waits {
        risk(true, waits.clone());
    }
    risks
}

fn in_words(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 1_000.0 * 3_600.0 => format!("{:.0} h", s / 3_600.0),
        _ => "more than 1,000 h".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RolloutSpec, TenantName, plan_of};

    fn new(spec: RolloutSpec) -> NewRollout {
        let scope = |i: usize| Scope::Tenant(TenantName::new(&format!("t{i}")).unwrap());
        let all: Vec<_> = (0..6).map(scope).collect();
        NewRollout { spec, batches: all.chunks(2).map(<[Scope]>::to_vec).collect(), left: Vec::new() }
    }

    fn well() -> Facts {
        let both = (2, 2);
        Facts {
            from_endpoints: both,
            to_endpoints: both,
            to_has_checks: true,
            guarded: true,
            rate: 1_000.0,
            ..Facts::default()
        }
    }

    #[test]
    fn the_plan_is_laid_out_in_time() {
        let spec = RolloutSpec { batch: Some(2), batch_delay_ms: 30_000, ..plan_of(&[10, 100]) };
        let report = validate(&new(spec), &well());
        assert!(report.ok && report.risks.is_empty(), "{report:?}");
        let at: Vec<_> = report.steps.iter().map(|s| (s.step.as_str(), s.after_seconds)).collect();
        assert_eq!(at, [("1.1", 0), ("1.2", 60), ("2.1", 150), ("2.2", 210), ("3.1", 300), ("3.2", 360)]);
        assert_eq!((report.shortest_seconds, report.longest_seconds, report.tenants), (420, None, 6));
        let spec = RolloutSpec { on_insufficient: OnInsufficient::Advance, ..plan_of(&[10, 100]) };
        assert_eq!(validate(&new(spec), &well()).longest_seconds, Some(3 * 1_200));
    }

    #[test]
    fn what_speaks_against_it_is_found() {
        let facts = Facts { to_endpoints: (3, 0), guarded: false, rate: 0.1, pins: 2, ..Facts::default() };
        let report = validate(&new(plan_of(&[60, 100])), &facts);
        assert!(!report.ok);
        let wrong: Vec<_> = report.checks.iter().filter(|c| !c.ok).map(|c| c.check).collect();
        assert_eq!(wrong, ["endpoints", "guard"]);
        for part in ["health checks", "to be proven", "60 % at once", "2 pins"] {
            assert!(report.risks.iter().any(|risk| risk.contains(part)), "{part}: {:?}", report.risks);
        }
    }
}
