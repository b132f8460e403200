//! People: some do anything at any time, and some do what a rollout waits for.

use switchback::model::{
    Author, Change, GlobalChange, GlobalRequest, Pin, PinTarget, RolloutCommand, Scope, Stage, Weights,
};
use switchback::planning::WaitFor;

use crate::dice::Dice;
use crate::plans::{Draw, TENANTS, points, tenant, version};
use crate::world::World;

fn somebody() -> Author {
    Author::Person { name: "somebody".to_owned() }
}

/// Begins a rollout from the baseline to another version.
pub fn start(world: &mut World) {
    let from = world.state.service("api").expect("it is there").baseline.clone();
    let to = loop {
        let to = version(world.dice.within(1, 3));
        if to != from {
            break to;
        }
    };
    let (wall_ms, wished) = (world.wall_ms(), world.wished());
    let new = Draw { dice: &mut world.dice, structure: &world.structure, from, to, wall_ms, wished }.rollout();
    if !new.batches.is_empty() {
        person(world, Change::StartRollout(Box::new(new)));
    }
}

fn person(world: &mut World, change: Change) {
    let request = world.request(change, somebody());
    world.send(request);
}

/// A command to the last rollout, now and then made against what somebody saw some time ago.
pub fn command(world: &mut World, command: RolloutCommand) {
    let Some(live) = world.last_rollout() else { return };
    let (id, revision) = (live.rollout.id.clone(), live.rollout.revision);
    let mut request = world.request(Change::Rollout(id, command), somebody());
    request.if_revision = world.dice.permille(300).then_some(revision);
    world.send(request);
}

/// Anything at all.
pub fn do_something(world: &mut World) {
    match world.dice.below(100) {
        0..=9 => start(world),
        10..=29 => steer(world),
        30..=37 => command(world, RolloutCommand::Resume),
        38..=45 => approve(world),
        46..=55 => set_splits(world),
        56..=59 => hold(world),
        60..=63 => freeze(world),
        64..=68 => roll_back(world),
        69..=71 => pins(world),
        72..=73 => switch(world),
        _ => help(world),
    }
}

fn steer(world: &mut World) {
    use RolloutCommand as C;
    let force = world.dice.permille(300);
    let what = match world.dice.below(12) {
        0..=3 => C::Pause,
        4 => C::Abort { force },
        5..=7 => C::Retry,
        8 => C::Undo { force },
        9 => C::Promote { stage: None, full: world.dice.permille(300) },
        _ => C::Promote { stage: Some(any_stage(&mut world.dice)), full: false },
    };
    command(world, what);
}

fn any_stage(dice: &mut Dice) -> Stage {
    Stage { batch: dice.below(3) as u32, step: dice.below(3) as u32 }
}

/// Approves the step that comes next.
fn approve(world: &mut World) {
    let Some(live) = world.last_rollout() else { return };
    let rollout = &live.rollout;
    let stage = if rollout.in_effect { rollout.next_stage() } else { Some(rollout.stage) };
    command(world, RolloutCommand::Promote { stage, full: false });
}

fn any_scope(world: &mut World) -> Scope {
    match world.dice.below(12) {
        0 => Scope::Service,
        1 => Scope::Group(world.structure.tenants.groups.keys().next().expect("there are groups").clone()),
        _ => Scope::Tenant(tenant(world.dice.below(TENANTS))),
    }
}

fn set_splits(world: &mut World) {
    let scope = any_scope(world);
    if world.dice.permille(300) {
        return person(world, Change::ClearSplit { scope });
    }
    let (a, b) = (version(world.dice.within(1, 3)), version(world.dice.within(1, 3)));
    let share = *world.dice.pick(&[0, 1_000, 5_000, 10_000]);
    let Ok(weights) = Weights::new([(a, points(share)), (b, points(10_000 - share))]) else { return };
    person(world, Change::SetSplit { scope, weights });
}

fn hold(world: &mut World) {
    let change = if world.dice.permille(400) { Change::SetHold } else { Change::ClearHold };
    person(world, change);
}

fn freeze(world: &mut World) {
    let until_ms = world.dice.permille(500).then(|| world.wall_ms() + world.dice.within(1_000, 120_000));
    let change = match world.dice.permille(400) {
        true => GlobalChange::SetFreeze { until_ms },
        false => GlobalChange::ClearFreeze,
    };
    global(world, change);
}

fn global(world: &mut World, change: GlobalChange) {
    world.send_global(GlobalRequest { change, author: somebody(), reason: "a person".to_owned(), if_revision: None });
}

fn roll_back(world: &mut World) {
    let scope = if world.dice.permille(150) { Scope::Service } else { any_scope(world) };
    let Some(canary) = world.canary() else { return };
    let change = Change::Rollback { scope, canary: Some(canary), cause: "person".to_owned(), first_bad_ms: None };
    person(world, change);
}

fn pins(world: &mut World) {
    let target = PinTarget::Tenant(tenant(world.dice.below(TENANTS)));
    let version = version(world.dice.within(1, 3));
    let change = match world.dice.below(3) {
        0 => Change::SetPin(target, Pin::Version(version)),
        1 => Change::SetPin(target, Pin::Exclude(version)),
        _ => Change::ClearPin(target),
    };
    person(world, change);
}

fn switch(world: &mut World) {
    let version = version(world.dice.within(1, 3));
    let change = match world.dice.permille(400) {
        true => Change::DisableVersion(version),
        false => Change::EnableVersion(version),
    };
    person(world, change);
}

/// What the rollout waits for.
pub fn help(world: &mut World) {
    let Some(waiting) = world.waiting() else { return };
    match waiting.on {
        WaitFor::Person => command(world, RolloutCommand::Resume),
        WaitFor::Approval => approve(world),
        WaitFor::Hold => person(world, Change::ClearHold),
        WaitFor::Freeze => global(world, GlobalChange::ClearFreeze),
        _ => {}
    }
}

/// Whether the last rollout is over.
pub fn is_over(world: &World) -> bool {
    world.last_rollout().is_none_or(|live| live.rollout.phase.is_final())
}
