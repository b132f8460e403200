//! Fleets in virtual time: ten or a hundred proxies with the real control room and the real guard share a store and a
//! membership in memory. Leaders are killed, members are cut off, frozen and begin, the store goes away, people change the
//! split wherever they like, and canaries fail so little that no proxy alone could prove it, or do not fail at all.

mod checks;
mod proxy;
mod world;

use tokio::runtime::Builder;

use crate::seeds;
use proxy::Trouble;
use world::{Size, World};

const TEN: Size = Size { proxies: 10, groups: 5, attempts: 2 };
const HUNDRED: Size = Size { proxies: 100, groups: 2, attempts: 1 };

/// The longest that a bad version keeps its traffic while somebody leads who can judge, in milliseconds. With the mildest
/// fault of these stories the sum proves it within half a minute; a step of the split and a dead proxy take some away.
/// Time under a brake counts a tenth.
const IN_TIME_MS: u64 = 90_000;

#[test]
fn fleets_of_ten_keep_every_promise() {
    seeds::each("fleets_of_ten", 5, |seed| {
        tell(seed, TEN);
    });
}

#[test]
fn fleets_of_a_hundred_keep_every_promise() {
    seeds::each("fleets_of_a_hundred", 1, |seed| {
        tell(seed, HUNDRED);
    });
}

#[test]
fn the_same_seed_tells_the_same_story_of_a_fleet() {
    let small = Size { attempts: 1, ..TEN };
    assert_eq!(tell(1, small), tell(1, small));
}

/// Tells one story; the answer is the same whenever it is the same story.
fn tell(seed: u64, size: Size) -> u64 {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let mut world = World::new(seed, size).await;
        let (requests, busy) = (world.dice.within(10_000, 40_000), *world.dice.pick(&[0, 5, 15]));
        world.permille = requests / size.proxies as u64;
        for _ in 0..size.attempts {
            match world.dice.permille(500) {
                true => bad(&mut world, busy).await,
                false => good(&mut world, busy).await,
            }
        }
        the_end(&mut world, busy).await;
        world.digest()
    })
}

/// The canary begins with a share, wherever a person gets through.
async fn begin(world: &mut World) {
    while world.watch.is_open() {
        world.set_split(0).await;
        pass(world, 1, 0, true).await;
    }
    world.broken = 0;
    // What is on its way arrives where it can.
    pass(world, 50, 0, true).await;
    let share = world.dice.within(500, 4_000) as u16;
    while !world.set_split(share).await {
        pass(world, 1, 0, true).await;
    }
    pass(world, 1, 0, true).await;
}

/// So many tenths of a second, in which something happens `busy` times in a thousand.
async fn pass(world: &mut World, ticks: u64, busy: u64, gently: bool) {
    for _ in 0..ticks {
        world.pass().await;
        if world.dice.permille(busy) {
            world.happen(gently).await;
        }
        if world.dice.permille(20) {
            world.try_to_lead().await;
        }
    }
}

/// A version that is bad from some moment on goes back everywhere.
async fn bad(world: &mut World, busy: u64) {
    begin(world).await;
    let healthy = *world.dice.pick(&[0, 0, 100, 300]);
    pass(world, healthy, busy, false).await;
    // About one request in a second fails on all proxies together.
    let share = u64::from(world.proxies.iter().map(|proxy| proxy.share()).max().unwrap_or_default()).max(1);
    let in_a_second = world.permille * world.proxies.len() as u64 / 100;
    let failing = world.dice.within(5_000, 20_000);
    world.broken = (failing * 10_000 / (in_a_second * share).max(1)).clamp(150, 8_000);
    world.tell(&format!("it fails {} of 10,000 from now on", world.broken));
    while world.watch.is_open() {
        pass(world, 1, busy, false).await;
        if world.watch.attempt.is_some_and(|attempt| attempt.bad_ms > IN_TIME_MS) {
            world.fail("a bad version keeps its traffic");
        }
    }
    pass(world, 60, busy, false).await;
}

/// A good version keeps its traffic, unless a proxy that is cut off meets nothing but failures.
async fn good(world: &mut World, busy: u64) {
    begin(world).await;
    let ticks = world.dice.within(300, 600);
    if world.dice.permille(500) {
        pass(world, ticks / 2, busy, false).await;
        let one = world.dice.below(world.proxies.len() as u64) as usize;
        let seconds = world.dice.within(10, 40);
        world.suffer(one, Trouble::Lonely, seconds);
    }
    pass(world, ticks, busy, false).await;
}

/// Everything becomes well: all show the same, and whoever knows the sum knows all of it.
async fn the_end(world: &mut World, busy: u64) {
    world.mend();
    pass(world, 100, 0, true).await;
    begin(world).await;
    pass(world, 300, busy, true).await;
    world.mend();
    pass(world, 200, 0, true).await;
    world.converged();
    world.permille = 0;
    pass(world, 150, 0, true).await;
    world.converged();
    world.counts_are_equal();
}
