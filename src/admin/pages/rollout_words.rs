//! Rollouts in words: where one is, what it waits for, how far it got.

use maud::{Markup, html};

use super::super::freeze::now_ms;
use super::verdict::Chip;
use super::words::{count, moment, part};
use crate::model::{PauseKind, Phase, Rollout, RolloutId, Stage};
use crate::planning::{WaitFor, Waiting};

/// The page of a rollout.
pub(super) fn rollout_path(id: &RolloutId) -> String {
    format!("/rollouts/{}", part(id.as_str()))
}

/// Where it is, in a few words.
pub(super) fn chip_of(rollout: &Rollout) -> Chip {
    match (rollout.phase, &rollout.paused) {
        (phase, Some(_)) if !phase.is_final() => ("paused", "warn"),
        (phase, _) => chip(phase),
    }
}

/// A phase in a few words.
pub(super) fn chip(phase: Phase) -> Chip {
    match phase {
        Phase::Pending => ("waits to begin", ""),
        Phase::Progressing => ("on its way", "ok"),
        Phase::Finishing => ("everyone has moved", "ok"),
        Phase::Completed => ("completed", "ok"),
        Phase::GoingBack => ("going back", "bad"),
        Phase::RolledBack => ("went back", "bad"),
        Phase::Aborted => ("ended by a person", "warn"),
    }
}

/// Where it is, in a sentence. Without numbers that change all the time, for it is read out when it changes.
pub(super) fn sentence(rollout: &Rollout) -> String {
    let (spec, stage) = (&rollout.spec, rollout.stage);
    let share = spec.steps.get(stage.step as usize).map_or_else(String::new, |s| super::words::share(s.share));
    let batch = match rollout.batches() {
        0 | 1 => String::new(),
        all => format!(" of batch {} of {}", stage.batch + 1, count(all.into())),
    };
    let step = format!("step {} of {}{batch} ({share} on {})", stage.step + 1, spec.steps.len(), spec.to);
    match rollout.phase {
        Phase::Pending => format!("Nothing has moved yet from {} to {}.", spec.from, spec.to),
        Phase::Progressing if rollout.in_effect => format!("In effect is {step}."),
        Phase::Progressing => format!("Next is {step}."),
        Phase::Finishing => format!("Everyone is on {}; the last word is outstanding.", spec.to),
        Phase::Completed => format!("Everyone who was to move is on {}.", spec.to),
        Phase::GoingBack => format!("Traffic goes back to {}.", spec.from),
        Phase::RolledBack => format!("Traffic went back to {}.", spec.from),
        Phase::Aborted => format!("A person ended it; traffic is on {}.", spec.from),
    }
}

/// Who waits for whom; nothing where nobody does.
pub(super) fn waits(rollout: &Rollout, waiting: Option<&Waiting>) -> Markup {
    let Some(Waiting { on, message, until_ms }) = waiting else { return html! {} };
    let whom = match (on, &rollout.paused) {
        (WaitFor::Nothing, _) => return html! {},
        (WaitFor::Person, Some(pause)) => match pause.kind {
            PauseKind::Person => "Waits for a person to resume it",
            PauseKind::Canary => "The canary tenants are through; waits for a person to let the others follow",
            PauseKind::Gate => "A gate failed; waits for a person",
            PauseKind::Evidence => "Nothing was proven; waits for a person to decide",
            PauseKind::NoReturn => "Past its point of no return; waits for a person to decide",
            PauseKind::Overridden => "Somebody else set a split that it moves; waits for a person",
        },
        (WaitFor::Person, None) => "Waits for a person",
        (WaitFor::Approval, _) => "Waits for a person's approval",
        (WaitFor::Start, _) => "Waits for its time",
        (WaitFor::Window, _) => "Waits for its days and hours",
        (WaitFor::Freeze, _) => "Waits for the freeze to end",
        (WaitFor::Hold, _) => "Waits for the hold on the service to be released",
        (WaitFor::Gate, _) => "Waits for a gate",
        (WaitFor::Bake, _) => "Bakes",
        (WaitFor::Evidence, _) => "Waits for evidence",
        (WaitFor::Delay, _) => "Waits for its delay",
    };
    html! {
        strong { (whom) } ": " bdi { (message) }
        @if let Some(at) = until_ms { ", until " (moment(*at)) @if let Some(left) = left(*at) { " (" (left) " left)" } }
        "."
    }
}

/// How long until a moment; none when it has come.
fn left(at_ms: u64) -> Option<String> {
    let left = at_ms.checked_sub(now_ms()).filter(|left| *left > 0)?;
    Some(span(left.div_ceil(1_000)))
}

/// Seconds as `4 min 10 s`.
pub(super) fn span(seconds: u64) -> String {
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let parts: &[(u64, &str)] = match seconds {
        0..60 => &[(rest, "s")],
        60..3_600 => &[(minutes, "min"), (rest, "s")],
        3_600..86_400 => &[(hours, "h"), (minutes, "min")],
        _ => &[(days, "d"), (hours, "h")],
    };
    let kept: Vec<_> = parts.iter().enumerate().filter(|(i, (n, _))| *i == 0 || *n > 0).collect();
    kept.iter().map(|(_, (n, unit))| format!("{n}\u{a0}{unit}")).collect::<Vec<_>>().join(" ")
}

/// How many of all the steps of all batches are done, how many are in effect, and how many there are.
pub(super) fn progress(rollout: &Rollout) -> (u64, u64, u64) {
    let steps = rollout.spec.steps.len() as u64;
    let all = (steps * u64::from(rollout.batches())).max(1);
    let Stage { batch, step } = rollout.stage;
    let done = (u64::from(batch) * steps + u64::from(step)).min(all);
    match rollout.phase {
        Phase::Completed | Phase::Finishing => (all, 0, all),
        Phase::Progressing => (done, u64::from(rollout.in_effect).min(all - done), all),
        _ => (0, 0, all),
    }
}

/// How far it is, as a bar.
pub(super) fn progress_bar(rollout: &Rollout) -> Markup {
    let (done, now, all) = progress(rollout);
    let label = match rollout.phase {
        phase if phase.is_final() => chip(phase).0.to_owned(),
        _ => format!("{done} of {all} steps done{}", if now > 0 { ", one in effect" } else { "" }),
    };
    let width = |n: u64| format!("{:.1}", n as f64 * 1_000.0 / all as f64);
    html! {
        svg.bar.progress viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label=(label) {
            @if matches!(rollout.phase, Phase::GoingBack | Phase::RolledBack | Phase::Aborted) {
                rect.idle data-key="back" x="0" y="0" width="1000" height="100" {}
            } @else {
                rect.done data-key="done" x="0" y="0" width=(width(done)) height="100" {}
                rect.c1 data-key="now" x=(width(done)) y="0" width=(width(now)) height="100" {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well() {
        let spans = [0, 9, 60, 250, 3_600, 3_725, 90_000].map(|s| span(s).replace('\u{a0}', " "));
        assert_eq!(spans, ["0 s", "9 s", "1 min", "4 min 10 s", "1 h", "1 h 2 min", "1 d 1 h"]);
    }
}
