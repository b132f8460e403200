//! Rollouts in virtual time: hundreds of stories by chance, each from a seed, with people who do anything, a guard that errs,
//! gates that fail, clocks that jump and a process that dies. After every commit all promises are held against the state.
//!
//! No clock, no thread, no network: the pure code is driven directly, and the shell around it is modelled in `shell`. The real
//! control room has stories of its own, in `control`: several processes on one faulty store, and clients who compare; and so
//! have fleets of proxies, in `fleet`. A story that fails says how it is told again: `SIM_SEED=17 cargo test --test sim -- wild`.
//! `SIM_SEEDS=100000` tells more of them.

mod control;
mod dice;
mod fleet;
mod guard;
mod invariants;
mod ledger;
mod people;
mod plans;
mod post;
mod seeds;
mod shell;
mod store;
mod view;
mod world;

use switchback::model::Phase;

use guard::Truth;
use plans::{TENANTS, tenant};
use world::{Mood, World};

/// The longest that a calm end may take, in milliseconds beside the waiting that the plan itself asks for.
const CALM_MS: u64 = 3_600_000;

#[test]
fn wild_stories_keep_every_promise() {
    seeds::each("wild", 400, |seed| {
        let mut world = World::new(seed);
        wild(&mut world);
        calm(&mut world);
    });
}

#[test]
fn calm_rollouts_of_a_good_version_arrive_in_bounded_time() {
    seeds::each("calm", 200, |seed| {
        let mut world = World::new(seed);
        world.mood = Mood::Calm;
        people::start(&mut world);
        world.pass_time(1);
        if world.last_rollout().is_none() {
            return;
        }
        calm(&mut world);
        let rollout = &world.last_rollout().expect("it began").rollout;
        // The plan may be too impatient to see that the version is good.
        let impatient = rollout.going_back.as_ref().is_some_and(|back| back.cause == "insufficient");
        if rollout.phase != Phase::Completed && !impatient {
            world.fail(&format!("the version is good, and the rollout ended as {:?}", rollout.phase));
        }
    });
}

/// Anything may happen.
fn wild(world: &mut World) {
    let events = world.dice.within(200, 1_500);
    let busy = *world.dice.pick(&[10, 50, 200]);
    let faults = *world.dice.pick(&[0, 5, 20]);
    world.shut_permille = *world.dice.pick(&[0, 0, 300]);
    world.guard.wild = world.dice.permille(500);
    for _ in 0..4 * events {
        if world.events > events {
            break;
        }
        if people::is_over(world) && world.dice.permille(100) {
            draw_truth(world);
            people::start(world);
        }
        let ms = *world.dice.pick(&[100, 100, 500, 1_000, 1_000, 3_000, 10_000]);
        world.pass_time(ms);
        world.look();
        if world.dice.permille(busy) {
            people::do_something(world);
        }
        if world.dice.permille(100) {
            people::help(world);
        }
        if world.dice.permille(faults) {
            fault(world);
        }
        skip_a_long_wait(world);
    }
}

fn draw_truth(world: &mut World) {
    let few = (0..TENANTS).filter(|_| world.dice.permille(150)).map(tenant).collect();
    world.guard.truth = match world.dice.below(10) {
        0..=3 => Truth::Good,
        4..=5 => Truth::Bad,
        6..=8 => Truth::BadFor(few),
        _ => Truth::Silent,
    };
}

fn fault(world: &mut World) {
    match world.dice.below(3) {
        0 => world.crash(),
        1 => {
            let jump = world.dice.within(1_000, 7_200_000);
            world.wall_offset_ms += jump;
            world.tell(format!("the wall clock jumps forward by {jump} ms"));
        }
        _ => {
            let jump = world.dice.within(1_000, 7_200_000);
            world.wall_offset_ms -= jump;
            world.tell(format!("the wall clock jumps back by {jump} ms"));
        }
    }
}

/// Nights and weekends would fill a story with nothing.
fn skip_a_long_wait(world: &mut World) {
    let until = world.waiting().and_then(|waiting| waiting.until_ms);
    if let Some(ms) = until.and_then(|until| until.checked_sub(world.wall_ms())).filter(|ms| *ms > 300_000) {
        world.pass_time(ms);
    }
}

/// Nothing fails any more, the version is good, and people do what is waited for: every rollout comes to its end.
fn calm(world: &mut World) {
    world.mood = Mood::Calm;
    world.guard.truth = Truth::Good;
    world.guard.wild = false;
    world.shut_permille = 0;
    // What is still on its way arrives.
    world.pass_time(60_000);
    let mut spent_ms = 0;
    while !people::is_over(world) {
        world.pass_time(1_000);
        world.look();
        people::help(world);
        skip_a_long_wait(world);
        spent_ms += 1_000;
        if spent_ms > CALM_MS {
            world.fail("the rollout does not come to an end");
        }
    }
}
