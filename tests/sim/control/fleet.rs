//! Processes begin, die anywhere, and hand over to each other in the order of `src/app.rs` and `src/app/relay.rs`: the old
//! one pauses, the new one begins and serves, and only then the old one follows.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use switchback::control::{Parts, Paused, start};
use switchback::model::{Author, Change, Event, EventKind};
use switchback::telemetry::{Metrics, Tallies};
use tokio::time::{sleep, timeout};

use super::clients::plain;
use super::disk::Connection;
use super::link::{End, Said, link};
use super::world::{Process, SERVICES, World};

/// Who does not answer a step within this time is given up.
const STEP: Duration = Duration::from_secs(60);

/// A process begins by itself, whoever else there is.
pub fn begin(world: &Rc<World>) -> Rc<Process> {
    let process = world.process();
    world.tell(format!("process {} begins", process.id));
    world.spawn(Some(&process), serve(world.clone(), process.clone()));
    process
}

async fn serve(world: Rc<World>, process: Rc<Process>) {
    if load(&world, &process, None).await {
        process.post.set(true);
    }
}

/// A process begins and asks the one that serves to hand over.
pub fn hand_over(world: &Rc<World>, old: &Rc<Process>) {
    // One conversation at a time.
    old.post.set(false);
    let new = world.process();
    world.tell(format!("process {} begins to take over from {}", new.id, old.id));
    let lost = if world.calm.get() { 0 } else { *world.dice.borrow_mut().pick(&[0, 0, 100, 300]) };
    let (of_old, of_new) = link(&world.dice, lost);
    world.spawn(Some(old), give(world.clone(), old.clone(), of_old));
    world.spawn(Some(&new), take(world.clone(), new.clone(), old.clone(), of_new));
}

/// The side of the process that serves, as in `src/handover/give.rs`.
async fn give(world: Rc<World>, old: Rc<Process>, mut end: End) {
    let retired = talk(&world, &old, &mut end).await;
    if !retired {
        world.tell(format!("process {} goes on", old.id));
        old.post.set(true);
        return;
    }
    let ms = world.dice.borrow_mut().within(1_000, 60_000);
    sleep(Duration::from_millis(ms)).await;
    if !world.calm.get() {
        world.kill(&old, "its last request is answered");
    }
}

async fn talk(world: &World, old: &Process, end: &mut End) -> bool {
    let Ok(Some(Said::Pause)) = timeout(STEP, end.hear()).await else { return false };
    let Some(control) = old.control() else { return false };
    let paused = match control.pause().await {
        Ok(paused) => paused,
        Err(error) => {
            world.tell(format!("process {} does not pause: {error}", old.id));
            end.say(Said::No).await;
            return false;
        }
    };
    old.disturbed.set(true);
    end.say(Said::Paused).await;
    let Ok(Some(Said::Serving)) = timeout(STEP, end.hear()).await else {
        go_on(world, old, paused).await;
        return false;
    };
    world.tell(format!("process {} follows", old.id));
    old.open.set(false);
    old.follows.set(true);
    paused.follow();
    end.say(Said::Done).await;
    true
}

/// The writer goes on, and knows what the other one wrote before anybody asks it for anything.
async fn go_on(world: &World, old: &Process, paused: Paused) {
    let (newest, well) = (world.disk.truth(|truth| truth.revision), world.disk.is_well());
    drop(paused);
    let Some(control) = old.control() else { return };
    let _refused_or_not = control.submit(plain("a dry run", Change::SetHold, SERVICES[0]), true).await;
    let shown = control.view().state.revision;
    world.check(shown >= newest || !well || !world.disk.is_well(), || {
        format!("process {} goes on at revision {shown}, the store was at {newest}", old.id)
    });
}

/// The side of the new process, as in `src/handover/take.rs` and `src/app.rs`.
async fn take(world: Rc<World>, new: Rc<Process>, old: Rc<Process>, mut end: End) {
    end.say(Said::Pause).await;
    let paused = timeout(STEP, end.hear()).await;
    if !matches!(paused, Ok(Some(Said::Paused))) {
        return world.kill(&new, "nothing is handed over");
    }
    if !load(&world, &new, Some(&old)).await {
        return;
    }
    end.say(Said::Serving).await;
    let done = timeout(STEP, end.hear()).await;
    // Without an answer it looks who is left.
    if !matches!(done, Ok(Some(Said::Done))) && old.is_writer() {
        return world.kill(&new, "the other one goes on");
    }
    new.post.set(true);
}

/// Loads the state and serves; whether it did. `old` is the process that pauses meanwhile.
async fn load(world: &Rc<World>, process: &Rc<Process>, old: Option<&Rc<Process>>) -> bool {
    let tallies = Arc::new(Tallies::new(10));
    let parts = Parts {
        settings: world.settings.clone(),
        store: Connection::new(&world.disk),
        // A copy is written on a thread, which no virtual clock waits for.
        last_good: None,
        salvaged: None,
        returns: false,
        metrics: Arc::new(Metrics::new(tallies.clone(), 1)),
        tallies,
        fresh_secret: "s".repeat(32),
    };
    match start(parts).await {
        Ok(started) => {
            started.control.note(story());
            world.began(process, started.control, started.writer);
            process.open.set(true);
            disturb(world, process, old);
            world.tell(format!("process {} serves", process.id));
            true
        }
        Err(error) => {
            world.kill(process, &format!("{error}"));
            false
        }
    }
}

/// Two that may write disturb each other, unless one of them is paused.
fn disturb(world: &World, process: &Process, old: Option<&Rc<Process>>) {
    let paused = |other: &Process| old.is_some_and(|old| old.id == other.id);
    let other = |other: &Rc<Process>| other.id != process.id && other.is_writer() && !paused(other);
    for other in world.living().into_iter().filter(other) {
        other.disturbed.set(true);
        process.disturbed.set(true);
    }
}

/// The first line of a process in the history.
fn story() -> Event {
    Event {
        id: 0,
        revision: 0,
        at_ms: 0,
        kind: EventKind::Started,
        service: None,
        tenant: None,
        group: None,
        rollout: None,
        version: None,
        author: Author::Autopilot,
        reason: "a process has started".to_owned(),
        cause: None,
        before: serde_json::Value::Null,
        after: serde_json::Value::Null,
        evidence: serde_json::Value::Null,
        first_bad_to_rollback_ms: None,
    }
}
