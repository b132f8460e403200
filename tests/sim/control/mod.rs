//! The control room in virtual time: the real writer, several processes on one store that fails in every way, hand-overs
//! that break off, processes that die anywhere, and clients who note what they were told.
//!
//! Everything runs on one thread with a paused clock, so that the seed alone decides what happens. The wall clock shows in
//! times that are written down and decides nothing here. What waits for threads is left out: the last good copy and
//! snapshots, which are worked out on one.

mod calls;
mod checks;
mod clients;
mod disk;
mod fleet;
mod guard;
mod history;
mod history_tests;
mod link;
mod world;

use std::rc::Rc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::seeds;
use calls::Answer;
pub use clients::plain;
use disk::Weather;
use world::World;

/// Quiet for this long, and everybody has to be at the newest revision.
const QUIET: Duration = Duration::from_secs(30);

/// The longest that it takes until no process is about to begin or to hand over: a conversation breaks off after a minute
/// without an answer, and what it waited for ends.
const CALM_S: u64 = 300;

#[test]
fn changes_are_what_their_authors_were_told() {
    seeds::each("changes", 60, |seed| {
        run(seed);
    });
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 0..2 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

/// Tells one story; the answer is the same whenever it is the same story.
fn run(seed: u64) -> u64 {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let world = World::new(seed);
        let clients = world.dice.borrow_mut().within(2, 6);
        for number in 0..clients {
            world.spawn(None, clients::live(world.clone(), number, seed));
        }
        wild(&world).await;
        calm(&world).await;
        checks::audit(&world).await;
        world.look_for_failures();
        world.digest()
    })
}

/// Anything may happen.
async fn wild(world: &Rc<World>) {
    let steps = world.dice.borrow_mut().within(100, 500);
    let rough = *world.dice.borrow_mut().pick(&[0, 10, 50, 150, 400]);
    let events = *world.dice.borrow_mut().pick(&[5, 20, 60]);
    for _ in 0..steps {
        let ms = *world.dice.borrow_mut().pick(&[1, 10, 50, 100, 500]);
        pass(world, ms).await;
        if world.dice.borrow_mut().permille(50) {
            change_weather(world, rough);
        }
        if world.dice.borrow_mut().permille(events) {
            happen(world);
        }
    }
}

/// A moment passes; whoever is needed begins.
async fn pass(world: &Rc<World>, ms: u64) {
    sleep(Duration::from_millis(ms)).await;
    checks::look_over(world);
    world.look_for_failures();
    if !world.living().iter().any(|process| process.is_writer()) && world.dice.borrow_mut().permille(300) {
        fleet::begin(world);
    }
}

fn change_weather(world: &World, rough: u64) {
    let mut dice = world.dice.borrow_mut();
    let away = dice.permille(if rough > 0 { 250 } else { 0 });
    let mut some = |of: u64| if dice.permille(500) { 0 } else { of };
    let weather = Weather { before: some(rough), after: some(rough), read: some(rough), slow: some(rough / 2), away };
    drop(dice);
    world.tell(format!("{weather:?}"));
    world.disk.set_weather(|now| *now = weather);
}

fn happen(world: &Rc<World>) {
    let living = world.living();
    if living.is_empty() {
        return;
    }
    let (what, one) = {
        let mut dice = world.dice.borrow_mut();
        (dice.below(10), dice.pick(&living).clone())
    };
    match what {
        0..=2 => world.kill(&one, "it is killed"),
        3 if living.len() < 3 => {
            // Somebody starts it by hand beside the one that serves.
            fleet::begin(world);
        }
        _ if one.post.get() => fleet::hand_over(world, &one),
        _ => {}
    }
}

/// Nothing fails any more. Clients go on asking, which must keep nobody from coming to rest.
async fn calm(world: &Rc<World>) {
    world.tell("all is calm".to_owned());
    world.calm.set(true);
    world.disk.set_weather(|now| *now = Weather::default());
    // Conversations come to their ends, patience too.
    let mut seconds = 0;
    while !at_rest(world) {
        pass(world, 1_000).await;
        seconds += 1;
        world.check(seconds < CALM_S, || "processes begin and hand over for ever".to_owned());
    }
    quiet(world).await;
    for process in world.living().into_iter().filter(|process| process.is_writer()) {
        let Some(control) = process.control() else { continue };
        let said = clients::last_word(world, &process, &control).await;
        world.check(matches!(said, Answer::Done(_)), || {
            format!("all is well, and process {} says {said:?}", process.id)
        });
    }
    quiet(world).await;
    world.over.set(true);
    pass(world, 1_000).await;
}

/// Whether no process is about to begin or to hand over.
fn at_rest(world: &World) -> bool {
    let living = world.living();
    let busy = living.iter().any(|process| process.control().is_none() || process.is_writer() && !process.post.get());
    !living.is_empty() && !busy
}

async fn quiet(world: &Rc<World>) {
    let mut left = QUIET.as_millis() as u64;
    while left > 0 {
        let ms = left.min(500);
        pass(world, ms).await;
        left -= ms;
    }
    checks::converged(world);
    world.look_for_failures();
}
