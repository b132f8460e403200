//! Plans of rollouts by chance: every kind of step, batch, gate and limit, and whom they move.

use std::collections::{BTreeMap, BTreeSet};

use switchback::model::{
    BasisPoints, BlastRadius, Gate, GateAt, GroupName, NewRollout, OnInsufficient, Order, RolloutSpec, Schedule, Scope,
    Step, Structure, Target, TenantName, Tolerance, Unit, UnitStatus, VersionName,
};
use switchback::planning::{Candidate, batches};

use crate::dice::Dice;

/// How many tenants there are, `t0` and so on; some are in groups.
pub const TENANTS: u64 = 14;

pub fn tenant(n: u64) -> TenantName {
    TenantName::new(&format!("t{n}")).expect("a tenant's name")
}

pub fn version(n: u64) -> VersionName {
    VersionName::new(&n.to_string()).expect("a version's name")
}

pub fn points(n: u64) -> BasisPoints {
    BasisPoints::new(n as u16).expect("at most 10 000")
}

/// What one rollout is drawn from.
pub struct Draw<'a> {
    pub dice: &'a mut Dice,
    pub structure: &'a Structure,
    pub from: VersionName,
    pub to: VersionName,
    pub wall_ms: u64,
    /// Tenants whose split a person set; a rollout of everyone leaves them out.
    pub wished: BTreeSet<TenantName>,
}

impl Draw<'_> {
    pub fn rollout(&mut self) -> NewRollout {
        let mut spec = self.spec();
        let (all, excluded) = self.units(&spec);
        if spec.target == Target::Service && self.dice.permille(250) {
            spec.then.extend((1..=3).map(version).find(|further| *further != spec.from && *further != spec.to));
        }
        let tenants_only = all.iter().flatten().all(|scope| matches!(scope, Scope::Tenant(_)));
        if tenants_only && self.dice.permille(400) {
            let largest = all.iter().map(Vec::len).max().unwrap_or(1);
            spec.blast_radius.tenants = Some(largest as u32);
        }
        let kept = |tenant: TenantName| Unit::new(Scope::Tenant(tenant), UnitStatus::Excluded, "it was to stay".into());
        NewRollout { spec, batches: all, left: excluded.into_iter().map(kept).collect() }
    }

    fn spec(&mut self) -> RolloutSpec {
        let steps = self.steps();
        let dice = &mut *self.dice;
        let target = match dice.below(10) {
            0..=3 => Target::Service,
            4..=5 => {
                Target::Groups(self.structure.tenants.groups.keys().take(dice.within(1, 2) as usize).cloned().collect())
            }
            _ => Target::Tenants,
        };
        let on_insufficient = *dice.pick(&[
            OnInsufficient::Hold,
            OnInsufficient::Advance,
            OnInsufficient::Advance,
            OnInsufficient::Abort,
        ]);
        let ways: [&[u64]; 4] = [&[], &[], &[5_000, 1_000], &[2_000]];
        let back = *dice.pick(&ways);
        let share = dice.permille(500).then(|| points(dice.within(500, 6_000)));
        RolloutSpec {
            from: self.from.clone(),
            to: self.to.clone(),
            target,
            steps,
            batch: dice.permille(500).then(|| dice.within(1, 5) as u32),
            batch_delay_ms: dice.below(3) * 20_000,
            canary: dice.permille(250).then(|| points(dice.within(500, 4_000))),
            order: Order {
                groups: Vec::new(),
                seed: dice.permille(500).then(|| dice.next()),
                unknown: Default::default(),
            },
            on_insufficient,
            min_requests: dice.below(200),
            keep: points(*dice.pick(&[0, 500, 500, 5_000])),
            tolerate: Tolerance {
                tenants: dice.permille(400).then(|| dice.below(4) as u32),
                share,
                unknown: Default::default(),
            },
            blast_radius: BlastRadius {
                tenants: None,
                failed_requests: dice.permille(200).then(|| dice.within(50, 2_000)),
                unknown: Default::default(),
            },
            back: back.iter().map(|n| points(*n)).collect(),
            back_every_ms: dice.within(0, 20) * 1_000,
            start_at_ms: dice.permille(150).then(|| self.wall_ms + dice.within(0, 600_000)),
            schedule: schedule(dice),
            gates: gates(dice),
            keep_warm_ms: 0,
            then: Vec::new(),
            unknown: Default::default(),
        }
    }

    fn steps(&mut self) -> Vec<Step> {
        let dice = &mut *self.dice;
        let all: [&[u64]; 4] = [&[10_000], &[1_000, 10_000], &[100, 2_500, 10_000], &[1_000, 5_000, 9_900, 10_000]];
        let shares = *dice.pick(&all);
        let one = |share: &u64| {
            let bake_ms = dice.within(0, 30) * 1_000;
            let max_bake_ms = bake_ms + dice.within(0, 60) * 1_000;
            let (approval, no_return) = (dice.permille(150), dice.permille(60));
            Step { share: points(*share), bake_ms, max_bake_ms, approval, no_return, unknown: Default::default() }
        };
        shares.iter().map(one).collect()
    }

    /// Whose traffic moves, as the admin API has it, and whose stays.
    fn units(&mut self, spec: &RolloutSpec) -> (Vec<Vec<Scope>>, BTreeSet<TenantName>) {
        let groups: &BTreeMap<GroupName, BTreeSet<TenantName>> = &self.structure.tenants.groups;
        let by_tenants = spec.batch.is_some() || spec.canary.is_some();
        let excludes = self.dice.permille(300);
        let excluded: BTreeSet<_> = (0..TENANTS).filter(|_| excludes && self.dice.permille(150)).map(tenant).collect();
        let (tenants, wide): (BTreeSet<_>, Vec<Scope>) = match &spec.target {
            Target::Tenants => ((0..TENANTS).filter(|_| self.dice.permille(600)).map(tenant).collect(), Vec::new()),
            Target::Groups(names) if by_tenants => {
                (names.iter().filter_map(|g| groups.get(g)).flatten().cloned().collect(), Vec::new())
            }
            Target::Groups(names) => (BTreeSet::new(), names.iter().cloned().map(Scope::Group).collect()),
            Target::Service if by_tenants => {
                ((0..TENANTS).map(tenant).filter(|t| !self.wished.contains(t)).collect(), vec![Scope::Service])
            }
            Target::Service => (BTreeSet::new(), vec![Scope::Service]),
        };
        let candidates = tenants.into_iter().filter(|tenant| !excluded.contains(tenant));
        let candidates = candidates.map(|tenant| Candidate { tenant, rate: self.dice.below(50) as f64 }).collect();
        let mut all = batches(spec, candidates, groups, None);
        all.extend((!wide.is_empty()).then_some(wide));
        (all, excluded)
    }
}

fn schedule(dice: &mut Dice) -> Schedule {
    if !dice.permille(150) {
        return Schedule::default();
    }
    let (from, to) = *dice.pick(&[("09:00", "17:00"), ("00:00", "12:00"), ("22:00", "04:00")]);
    let zone = *dice.pick(&["UTC", "Europe/Berlin", "America/New_York"]);
    let days = [*dice.pick(&["mon-fri", "tue-thu", "mon-sun"])];
    let windows = serde_json::json!({ "windows": [{ "days": days, "from": from, "to": to, "timezone": zone }] });
    serde_json::from_value(windows).expect("a good schedule")
}

fn gates(dice: &mut Dice) -> Vec<Gate> {
    let kinds =
        [GateAt::Start, GateAt::BeforeStep, GateAt::AfterStep, GateAt::Completion, GateAt::Rollback, GateAt::Hold];
    let count = *dice.pick(&[0, 0, 0, 1, 2, 4]);
    let one = |i: u64| Gate {
        name: format!("g{i}"),
        at: *dice.pick(&kinds),
        step: dice.permille(300).then(|| dice.within(1, 3) as u32),
        url: "http://127.0.0.1:1/".to_owned(),
        secret: None,
        timeout_ms: dice.within(1, 10) * 1_000,
        unknown: Default::default(),
    };
    (0..count).map(one).collect()
}

/// A schedule that is closed at this minute: its only window is half a day away.
pub fn closed_at(minute: u64) -> Schedule {
    let clock = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    let (from, to) = (clock(minute + 12 * 60), clock(minute + 12 * 60 + 1));
    let windows =
        serde_json::json!({ "windows": [{ "days": ["mon-sun"], "from": from, "to": to, "timezone": "UTC" }] });
    serde_json::from_value(windows).expect("a good schedule")
}
