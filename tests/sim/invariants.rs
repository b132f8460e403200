//! What must hold after every commit. Each is a function of its own, so that a failure names the promise that was broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use switchback::model::{
    Change, Document, DocumentKey, GateAt, LiveRollout, Phase, RolloutCommand, RolloutId, Scope, ServiceName, State,
    Target, UnitStatus, Units, scope_of,
};

use crate::ledger::{Ledger, Setter, Turn};
use crate::view::Seen;

type Found = Result<(), String>;

/// Everything that is checked before the ledger takes the commit in.
pub fn of_the_turn(turn: &Turn<'_>, ledger: &Ledger) -> Found {
    documents_are_the_difference(turn)?;
    what_comes_late_finds_what_its_author_saw(turn)?;
    nobody_rises_above_the_step(turn)?;
    gates_and_approval_come_first(turn, ledger)?;
    nothing_advances_while_stopped(turn)?;
    a_persons_split_stays(turn, ledger)?;
    no_step_takes_effect_twice(turn, ledger)?;
    no_pass_before_the_bake(turn, ledger)?;
    the_end_is_clear(turn, ledger)
}

/// Everything that is checked of the state that came out.
pub fn of_the_state(turn: &Turn<'_>, ledger: &Ledger) -> Found {
    what_went_back_stays_back(turn, ledger)?;
    for live in turn.after.rollouts.values() {
        counts_are_those_of_the_units(live)?;
        the_blast_radius_holds(live, ledger)?;
        waiting_units_have_nothing_of_it(turn, live)?;
    }
    Ok(())
}

fn must(holds: bool, what: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(what()) }
}

/// A commit writes exactly the documents that differ, and removes exactly those that are no more.
fn documents_are_the_difference(turn: &Turn<'_>) -> Found {
    let (changed, gone) = difference(turn);
    let now = |key: &&DocumentKey| !key.is_archived();
    let mut puts: BTreeMap<_, _> = turn.commit.puts.iter().filter(|(key, _)| now(&key)).map(|(k, b)| (k, b)).collect();
    must(turn.commit.puts.iter().filter(|(key, _)| now(&key)).count() == puts.len(), || {
        format!("the commit writes a document twice: {:?}", puts.keys())
    })?;
    for document in &changed {
        let written = puts.remove(&document.key);
        must(written == Some(&document.body) && document.revision == turn.commit.revision, || {
            format!("{} is not written as it is: {written:?} instead of {document:?}", document.key)
        })?;
    }
    must(puts.is_empty(), || format!("the commit writes what did not change: {:?}", puts.keys()))?;
    let deletes: BTreeSet<_> = turn.commit.deletes.iter().filter(now).cloned().collect();
    must(deletes == gone, || format!("the commit removes {deletes:?}, and {gone:?} are no more"))
}

/// The documents that differ, and those that are no more. Only what is not shared with the state before is looked at.
fn difference(turn: &Turn<'_>) -> (Vec<Document>, BTreeSet<DocumentKey>) {
    let (before, after) = (turn.before, turn.after);
    let mut changed = State { revision: after.revision, ..State::default() };
    let mut gone = BTreeSet::new();
    let differs = |(name, live): &(&ServiceName, &Arc<_>)| before.services.get(*name).is_none_or(|was| was != *live);
    changed.services = after.services.iter().filter(differs).map(|(name, live)| (name.clone(), live.clone())).collect();
    let same = |id: &RolloutId, live| before.rollouts.get(id).is_some_and(|was| Arc::ptr_eq(was, live));
    let rollouts = after.rollouts.iter().filter(|(id, live)| !same(id, live));
    // Units take longer to write out than all else.
    let plain = |live: &LiveRollout| LiveRollout { rollout: live.rollout.clone(), units: Units::default() };
    let moved = |id, live: &LiveRollout| before.rollouts.get(id).is_none_or(|was| was.units != live.units);
    let rollouts = rollouts.map(|(id, live)| if moved(id, live) { live.clone() } else { Arc::new(plain(live)) });
    changed.rollouts = rollouts.map(|live| (live.rollout.id.clone(), live)).collect();
    changed.freeze = after.freeze.clone().filter(|_| after.freeze != before.freeze);
    for tenant in
        turn.scopes.iter().filter_map(|scope| if let Scope::Tenant(tenant) = scope { Some(tenant) } else { None })
    {
        let of = |state: &'_ State| state.tenant(turn.service.as_str(), tenant.as_str()).cloned();
        match (of(before), of(after)) {
            (Some(_), None) => drop(gone.insert(DocumentKey::Tenant(turn.service.clone(), tenant.clone()))),
            (was, Some(own)) if was.as_ref() != Some(&own) => {
                changed.tenants.entry(turn.service.clone()).or_default().insert(tenant.clone(), own);
            }
            _ => {}
        }
    }
    let page = |state: &State, id: &RolloutId, page: u32| {
        let (revision, units) = state.rollouts.get(id)?.units.pages().nth(page as usize)?;
        Some((revision, units.to_vec()))
    };
    let mut changed: Vec<_> = changed.to_documents().collect();
    changed.retain(|document| match &document.key {
        DocumentKey::Units(id, n) => page(before, id, *n) != page(after, id, *n),
        DocumentKey::Rollout(id) => {
            before.rollouts.get(id).map(|l| &l.rollout) != after.rollouts.get(id).map(|l| &l.rollout)
        }
        _ => true,
    });
    for (id, was) in &before.rollouts {
        let pages = |live: Option<&Arc<LiveRollout>>| live.map_or(0, |live| live.units.pages().count() as u32);
        let now = after.rollouts.get(id);
        gone.extend((pages(now)..pages(Some(was))).map(|page| DocumentKey::Units(id.clone(), page)));
        gone.extend(now.is_none().then(|| DocumentKey::Rollout(id.clone())));
    }
    gone.extend((before.freeze.is_some() && after.freeze.is_none()).then_some(DocumentKey::Freeze));
    (changed, gone)
}

/// Who asked for a change of what they saw gets it only while that is still there.
fn what_comes_late_finds_what_its_author_saw(turn: &Turn<'_>) -> Found {
    let Some(request) = turn.request else { return Ok(()) };
    let of_rollout = turn.command().map(|(id, _)| turn.before.rollouts[id].rollout.revision);
    let of_split = scope_of(&request.change).map(|scope| turn.was.attempt(scope));
    for (seen, is) in [(request.if_revision, of_rollout), (request.if_attempt, of_split)] {
        let as_seen = seen.is_none_or(|seen| is.is_none_or(|is| is == seen));
        must(as_seen, || format!("{:?} is made against {seen:?}, and it is {is:?} by now", request.change))?;
    }
    Ok(())
}

/// The machine gives nobody more of the new version than the step says, and nothing at all to those whose turn it is not.
fn nobody_rises_above_the_step(turn: &Turn<'_>) -> Found {
    let Some(request) = turn.request else { return Ok(()) };
    let (to, live) = match &request.change {
        Change::StartRollout(new) => (&new.spec.to, None),
        Change::Rollout(id, _) => (&turn.before.rollouts[id].rollout.spec.to, Some(&turn.before.rollouts[id])),
        Change::Rollback { canary: Some(canary), .. } | Change::Brake { canary, .. } | Change::Probe { canary, .. } => {
            (canary, None)
        }
        _ => return Ok(()),
    };
    for scope in turn.scopes {
        let (before, after) = turn.shares(scope, to);
        let most = most_after(turn, live.map(|l| &**l), &request.change, scope, before);
        let least = match &request.change {
            Change::Rollback { .. } | Change::Brake { .. } | Change::Probe { .. } => 0,
            Change::Rollout(_, C::GoBack { .. } | C::StepBack | C::Abort { .. } | C::Undo { .. }) => 0,
            _ => before,
        };
        must((least..=most).contains(&after), || {
            format!(
                "{scope} goes from {before} to {after} of {to}, allowed are {least} to {most}: {:?}",
                request.change
            )
        })?;
    }
    Ok(())
}

use RolloutCommand as C;

fn most_after(turn: &Turn<'_>, live: Option<&LiveRollout>, change: &Change, scope: &Scope, before: u16) -> u16 {
    let (Some(live), Change::Rollout(_, command)) = (live, change) else { return before };
    let rollout = &live.rollout;
    let owner = &turn.is.of(scope).owner;
    let place = live.units.position(owner).filter(|p| rollout.batch_range(rollout.stage.batch).contains(p));
    match (command, place.and_then(|place| live.units.at(place))) {
        (C::Enter { stage, .. }, Some(unit)) if matches!(unit.status, UnitStatus::Pending | UnitStatus::InProgress) => {
            before.max(rollout.spec.share_at(stage.step).points())
        }
        (C::Pass { stage }, Some(unit))
            if rollout.spec.is_last(stage.step) && unit.status == UnitStatus::InProgress =>
        {
            10_000
        }
        _ => before,
    }
}

/// A step takes effect, passes or completes only when its gates opened in this try, and after the approval by a person.
fn gates_and_approval_come_first(turn: &Turn<'_>, ledger: &Ledger) -> Found {
    let Some((id, command)) = turn.command() else { return Ok(()) };
    let at = match command {
        C::Begin => GateAt::Start,
        C::Enter { .. } => GateAt::BeforeStep,
        C::Pass { .. } => GateAt::AfterStep,
        C::Complete => GateAt::Completion,
        _ => return Ok(()),
    };
    let rollout = &turn.before.rollouts[id].rollout;
    for (key, _) in rollout.gates_at(at) {
        let open = ledger.opened.contains(&(id.clone(), rollout.retries, key.clone()));
        must(open, || format!("{command:?} of {id}, and gate {key} did not open in try {}", rollout.retries))?;
    }
    if let C::Enter { stage, .. } = command {
        let step = &rollout.spec.steps[stage.step as usize];
        let approved = !step.approval || ledger.approved.contains(&(id.clone(), rollout.retries, *stage));
        must(approved, || format!("step {stage} of {id} takes effect without its approval"))?;
    }
    Ok(())
}

/// While a person's pause, a hold or a freeze stands the machine moves nothing on.
fn nothing_advances_while_stopped(turn: &Turn<'_>) -> Found {
    let Some((id, C::Begin | C::Enter { .. } | C::Pass { .. } | C::Complete)) = turn.command() else { return Ok(()) };
    let held = turn.before.service(turn.service.as_str()).is_some_and(|s| s.hold.is_some());
    must(!held, || format!("{id} goes on although its service is held"))?;
    must(turn.before.freeze_at(turn.wall_ms).is_none(), || format!("{id} goes on although all is frozen"))?;
    must(turn.before.rollouts[id].rollout.paused.is_none(), || format!("{id} goes on although it is paused"))
}

/// A split that a person set while the rollout ran is not written by the rollout.
fn a_persons_split_stays(turn: &Turn<'_>, ledger: &Ledger) -> Found {
    let (true, Some((id, command))) = (turn.by_machine(), turn.command()) else { return Ok(()) };
    let rollout = &turn.before.rollouts[id].rollout;
    // All of a service goes back by one document, whoever set what in between: shifting back is what machines may do.
    let back = matches!(command, C::GoBack { .. } | C::StepBack) && rollout.spec.target == Target::Service;
    for scope in turn.scopes {
        let Seen { split, owner, .. } = turn.was.of(scope);
        let theirs = ledger.setters.get(&split.attempt) == Some(&Setter::Person);
        // What is only a brake or a probe is the guard's.
        let guards = split.follows().is_some() || ledger.probed.contains(&split.attempt);
        if owner != scope
            || !theirs
            || guards
            || split.attempt <= rollout.since_revision
            || back && *scope == Scope::Service
        {
            continue;
        }
        let Seen { split: now, owner, .. } = turn.is.of(scope);
        must(owner == scope && now == split, || {
            format!("{command:?} of {id} changes the split of {scope} that a person set")
        })?;
    }
    Ok(())
}

/// A step takes effect once in a try, unless a person sent everybody else after it.
fn no_step_takes_effect_twice(turn: &Turn<'_>, ledger: &Ledger) -> Found {
    let Some((id, C::Enter { stage, .. })) = turn.command() else { return Ok(()) };
    let again = ledger.entered.contains_key(&(id.clone(), turn.before.rollouts[id].rollout.retries, *stage));
    must(!again, || format!("step {stage} of {id} takes effect for the second time"))
}

/// A step passes after its bake, as seen by one process, unless a person ended the bake or nobody is left to bake.
fn no_pass_before_the_bake(turn: &Turn<'_>, ledger: &Ledger) -> Found {
    let Some((id, C::Pass { stage })) = turn.command() else { return Ok(()) };
    let live = &turn.before.rollouts[id];
    let rollout = &live.rollout;
    let mut batch = live.units.range(rollout.batch_range(stage.batch));
    if rollout.bake_over || !batch.any(|(_, u)| u.status == UnitStatus::InProgress) {
        return Ok(());
    }
    let entered = ledger.entered.get(&(id.clone(), rollout.retries, *stage));
    let since = entered.copied().unwrap_or(0).max(ledger.restart_ms);
    let (seen, bake) = (turn.process_ms - since, rollout.spec.steps[stage.step as usize].bake_ms);
    must(seen >= bake, || format!("step {stage} of {id} passes after {seen} of {bake} ms"))
}

/// When a rollout is over, everyone whom it moved is on exactly one version: the new one, or none of it. Not so where a
/// person or the guard set something else: a brake or a probe ends when the guard knows more.
fn the_end_is_clear(turn: &Turn<'_>, ledger: &Ledger) -> Found {
    let Some((id, _)) = turn.command() else { return Ok(()) };
    let (was, is) = (&turn.before.rollouts[id], &turn.after.rollouts[id]);
    if was.rollout.phase.is_final() || !is.rollout.phase.is_final() {
        return Ok(());
    }
    let to = &is.rollout.spec.to;
    for unit in is.units.iter() {
        let Seen { split, owner, .. } = turn.is.of(&unit.scope);
        let by_person = ledger.setters.get(&split.attempt) == Some(&Setter::Person);
        let probed = ledger.probed.contains(&split.attempt);
        let mine = *owner == unit.scope && unit.attempt == split.attempt;
        if by_person || probed || split.brake.is_some() || !mine {
            continue;
        }
        let (_, share) = turn.shares(&unit.scope, to);
        let good = match unit.status {
            UnitStatus::Completed => share == 10_000,
            UnitStatus::RolledBack | UnitStatus::Reverted => share == 0,
            UnitStatus::InProgress => false,
            _ => true,
        };
        must(good, || format!("{id} is {:?} and {} has {share} of {to}: {unit:?}", is.rollout.phase, unit.scope))?;
    }
    must(is.rollout.phase != Phase::Completed || is.rollout.counts.in_progress + is.rollout.counts.pending == 0, || {
        format!("{id} is complete with {:?}", is.rollout.counts)
    })
}

/// What was taken back serves nothing until a person or a newer try gives it something.
fn what_went_back_stays_back(turn: &Turn<'_>, ledger: &Ledger) -> Found {
    for ((scope, version), gone_at) in &ledger.gone {
        let (before, share) = turn.shares(scope, version);
        // Once somebody gave it something again, it is as good as any other.
        if share == 0 || before > 0 && *gone_at != turn.after.revision {
            continue;
        }
        let attempt = turn.is.attempt(scope);
        let newer = match ledger.setters.get(&attempt) {
            Some(Setter::Person) => attempt > *gone_at,
            Some(Setter::Rollout { since_revision }) => since_revision > gone_at,
            Some(Setter::Other) | None => false,
        };
        must(newer, || {
            format!(
                "{scope} lost {version} at {gone_at} and has {share} of it by attempt {attempt} of {:?}",
                ledger.setters.get(&attempt)
            )
        })?;
    }
    Ok(())
}

/// Counts are those of the units.
fn counts_are_those_of_the_units(live: &LiveRollout) -> Found {
    let counts = live.units.counts();
    must(live.units.is_empty() || live.rollout.counts == counts, || {
        format!("{:?} are not {counts:?}", live.rollout.counts)
    })
}

/// So many tenants at most are on the new version while nothing is proven about them.
fn the_blast_radius_holds(live: &LiveRollout, ledger: &Ledger) -> Found {
    let Some(most) = live.rollout.spec.blast_radius.tenants else { return Ok(()) };
    let unproven = live.rollout.counts.in_progress;
    let full = ledger.full.contains(&live.rollout.id);
    must(full || unproven <= most, || format!("{unproven} tenants are unproven at a time, allowed are {most}"))
}

/// Whose turn has not come has no split that this try set.
fn waiting_units_have_nothing_of_it(turn: &Turn<'_>, live: &LiveRollout) -> Found {
    for unit in live.units.iter().filter(|u| u.status == UnitStatus::Pending) {
        must(unit.attempt == 0 && unit.step.is_none(), || format!("{unit:?} waits and has a step"))?;
        let owner = &turn.is.of(&unit.scope).owner;
        let forward = matches!(turn.command(), Some((_, C::Enter { .. } | C::Pass { .. })));
        let moved = live.units.get(owner).is_some_and(|u| u.status.has_moved());
        must(moved || !forward || turn.is.attempt(&unit.scope) != turn.after.revision, || {
            format!("{} waits for its turn and was moved", unit.scope)
        })?;
    }
    Ok(())
}
