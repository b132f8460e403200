//! What must be true all the time, and what must be true in the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use switchback::control::View;
use switchback::model::{Document, DocumentKey, Event, EventKind, ServiceState, State};

use super::calls::{self, Answer, Call, operations};
use super::disk::{Picture, picture};
use super::history::explain;
use super::world::{Process, SERVICES, World};

/// Looks at what every process shows.
pub fn look_over(world: &World) {
    for process in world.living() {
        let Some(control) = process.control() else { continue };
        let view = control.view();
        let routes = control.published().load_full();
        world.check(Arc::ptr_eq(&routes, &view.routes), || {
            format!("process {} routes by something else than it shows", process.id)
        });
        let before = process.seen.replace(Some(view.clone()));
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &view)) {
            continue;
        }
        agree(world, &process, &view);
        if let Some(before) = before.filter(|before| before.confirmed && view.confirmed) {
            world.check(before.state.revision <= view.state.revision, || {
                let (from, to) = (before.state.revision, view.state.revision);
                format!("process {} went back from revision {from} to {to}", process.id)
            });
        }
    }
}

/// A state that is shown was committed, and the routes are made from it.
fn agree(world: &World, process: &Process, view: &View) {
    for (name, live) in &view.state.services {
        let route = view.routes.service(name.as_str());
        world.check(route.is_some_and(|route| *route.state == **live), || {
            format!("process {} does not route {name} as its state says", process.id)
        });
    }
    let revision = view.state.revision;
    let shown = picture(view.state.to_documents());
    let (committed, newest) = world.disk.truth(|truth| (truth.pictures.get(&revision).cloned(), truth.revision));
    if view.confirmed {
        world.check(committed.is_some_and(|committed| *committed == shown), || {
            format!(
                "process {} shows a revision {revision} that was never committed; the store is at {newest}",
                process.id
            )
        });
    } else {
        world.tell(format!("process {} shows revision {revision}, unconfirmed", process.id));
        unconfirmed(world, process, &view.state);
    }
}

/// What is not committed yet only takes traffic back to the baseline.
fn unconfirmed(world: &World, process: &Process, state: &State) {
    for (name, live) in &state.services {
        let key = format!("service/{name}");
        let body = json!(**live).to_string();
        let shown = |picture: &Picture| picture.get(&key).is_some_and(|(_, text)| *text == body);
        let committed = world.disk.truth(|truth| truth.pictures.values().any(|picture| shown(picture)));
        let back = live.weights_in_effect(&live.split).sole() == Some(&live.baseline);
        world.check(committed || back, || format!("process {} shows a {name} that was never committed", process.id));
    }
}

/// Everybody who lives is where the store is.
pub fn converged(world: &World) {
    let (newest, picture_of_newest) =
        world.disk.truth(|truth| (truth.revision, truth.pictures[&truth.revision].clone()));
    let living = world.living();
    world.check(living.iter().any(|process| process.is_writer()), || "nobody writes".to_owned());
    for process in living {
        let Some(control) = process.control() else {
            return world.fail(format!("process {} has not begun in all that time", process.id));
        };
        let view = control.view();
        let (at, id) = (view.state.revision, process.id);
        world.check(at == newest, || format!("process {id} is still at revision {at}, the store at {newest}"));
        world.check(view.confirmed, || format!("process {id} still has unconfirmed changes"));
        world.check(picture(view.state.to_documents()) == *picture_of_newest, || {
            format!("process {id} shows something else than what the store has at {newest}")
        });
    }
}

/// Everything that was told is held against the history and the documents of the store.
pub async fn audit(world: &World) {
    let events = world.disk.events().await;
    let mut by_reason: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in &events {
        by_reason.entry(&event.reason).or_default().push(event);
    }
    revisions(world, &events);
    let calls = world.calls.borrow();
    for call in calls.iter() {
        let found = by_reason.get(call.reason.as_str()).map_or(&[][..], Vec::as_slice);
        happened(world, call, found, (&calls, &events));
    }
    told(world, &events, &calls);
    for service in SERVICES {
        let Some(begin) = beginning(world, service) else { continue };
        let happened = |reason: &str| Some(by_reason.get(reason)?.first()?.revision);
        let history = operations(service, &calls, &world.looks.borrow(), happened);
        if let Err(why) = explain(&begin, history) {
            world.fail(format!("what clients were told of {service} cannot have happened: {why}"));
        }
    }
}

/// Each revision has an event, unless it only made a secret; the history has no gap.
fn revisions(world: &World, events: &[Event]) {
    world.disk.truth(|truth| {
        for revision in truth.pictures.keys().filter(|revision| **revision > 0) {
            let silent = truth.silent.contains(revision) && {
                let before = truth.pictures.range(..revision).next_back().expect("the beginning").1;
                **before == *truth.pictures[revision]
            };
            world.check(silent || events.iter().any(|event| event.revision == *revision), || {
                format!("no event tells of revision {revision}")
            });
        }
    });
    for (event, id) in events.iter().zip(1..) {
        world.check(event.id == id, || format!("the history has event {} in place {id}", event.id));
    }
}

/// What its author was told of a change is what happened.
fn happened(world: &World, call: &Call, found: &[&Event], (calls, events): (&[Call], &[Event])) {
    let Call { reason, answer, .. } = call;
    world.check(found.len() <= 1, || format!("{reason} happened {} times", found.len()));
    match answer {
        Answer::Done(receipt) => {
            let Some(event) = found.first() else {
                return world.fail(format!("{reason} was acknowledged at {} and is gone", receipt.revision));
            };
            let told = (receipt.event, receipt.revision);
            world.check(told == (Some(event.id), event.revision), || {
                format!("{reason} was told event {:?} at {}, it is {} at {}", told.0, told.1, event.id, event.revision)
            });
        }
        Answer::Refused(why) => {
            world.check(found.is_empty(), || format!("{reason} was refused ({why}) and happened all the same"));
        }
        Answer::Unconfirmed => {
            world.check(!found.is_empty() || excused(world, call, calls, events), || {
                format!("{reason} was in effect and was never confirmed")
            });
        }
        Answer::Unknown(_) => {}
    }
    let (Some(event), Some(expected)) = (found.first(), call.if_revision) else { return };
    let before = live_at(world, call.service, event.revision - 1).map(|live| live.revision);
    world.check(before == Some(expected), || {
        format!("{reason} won at {} against {expected}, but the service was at {before:?}", event.revision)
    });
}

/// Whether a change of the guard that was in effect need not stand in the history: the process died before it could confirm
/// it, or it was refused in the end because the split was set again by a change that the process could not know of. That is
/// the last one before or the first one after it, and one that its author was not told the end of or another process made.
fn excused(world: &World, call: &Call, calls: &[Call], events: &[Event]) -> bool {
    let of_split = |event: &&Event| {
        let of_service = event.service.as_ref().is_some_and(|service| service.as_str() == call.service);
        of_service && matches!(event.kind, EventKind::Rollback | EventKind::SplitSet)
    };
    let before = events.iter().rev().filter(of_split).find(|event| event.id < call.next_event);
    let after = events.iter().filter(of_split).find(|event| event.id >= call.next_event);
    let unknown = |event: &Event| {
        let made = calls.iter().find(|made| made.reason == event.reason);
        made.is_some_and(|made| made.process != call.process || !matches!(made.answer, Answer::Done(_)))
    };
    !world.processes.borrow()[call.process].alive.get() || before.into_iter().chain(after).any(unknown)
}

/// What processes told those who listen stands in the history under the same number. What was told while it was not
/// confirmed may have got another one.
fn told(world: &World, events: &[Event], calls: &[Call]) {
    for process in world.processes.borrow().iter() {
        for event in process.told.borrow().iter() {
            let unconfirmed =
                calls.iter().any(|call| call.reason == event.reason && !matches!(call.answer, Answer::Done(_)));
            let written = usize::try_from(event.id).ok().and_then(|id| events.get(id.checked_sub(1)?));
            let same = written.is_some_and(|written| {
                written.reason == event.reason && written.revision == event.revision && written.kind == event.kind
            });
            world.check(same || unconfirmed, || {
                format!(
                    "process {} told of event {} ({}), which the history has not",
                    process.id, event.id, event.reason
                )
            });
        }
    }
}

fn beginning(world: &World, service: &str) -> Option<super::history::Content> {
    let first = world.disk.truth(|truth| {
        let key = format!("service/{service}");
        truth.pictures.iter().find(|(_, picture)| picture.contains_key(&key)).map(|(revision, _)| *revision)
    })?;
    live_at(world, service, first).map(|live| calls::begin(first, &live))
}

/// A service as the store had it.
fn live_at(world: &World, service: &str, revision: u64) -> Option<ServiceState> {
    let key = DocumentKey::Service(service.parse().ok()?);
    let (revision, body) = world.disk.truth(|truth| {
        truth.pictures.range(..=revision).next_back().and_then(|(_, picture)| picture.get(&key.to_string()).cloned())
    })?;
    let state = State::from_documents(revision, &[Document { key, revision, body }]).ok()?;
    state.service(service).map(|live| (**live).clone())
}
