//! What acts by itself: who is told, the guard and the rollouts.

use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;

use super::relay::{Carried, Machines};
use super::{AppError, instance};
use crate::admin::NotifyDoor;
use crate::autopilot::{self, AutopilotParts, RolloutParts};
use crate::control::Control;
use crate::notify::{self, Notifier, NotifyParts};
use crate::proxy::Clock;
use crate::telemetry::{Metrics, Tallies, Windows};
use crate::webhook::Caller;

/// Starts what acts by itself: who is told, the guard and the rollouts. Nobody must miss what the guard does first.
pub(super) fn start_machines(
    control: &Control,
    tallies: &Arc<Tallies>,
    windows: &Arc<Mutex<Windows>>,
    metrics: &Arc<Metrics>,
    clock: Clock,
    carried: Carried,
) -> Result<(Notifier, JoinHandle<()>, Machines), AppError> {
    let (notifier, notify) = notify::start(NotifyParts {
        control: control.clone(),
        tallies: tallies.clone(),
        windows: windows.clone(),
        metrics: metrics.clone(),
        clock,
        instance: instance(),
    });
    let guard = AutopilotParts {
        control: control.clone(),
        tallies: tallies.clone(),
        windows: windows.clone(),
        metrics: metrics.clone(),
        clock,
    };
    let rollouts = RolloutParts {
        control: control.clone(),
        tallies: tallies.clone(),
        metrics: metrics.clone(),
        caller: gates_caller(control)?,
        clock,
    };
    let guard = autopilot::start(guard, carried.guard);
    Ok((notifier, notify, Machines { guard, rollouts: autopilot::start_rollouts(rollouts, carried.rollouts) }))
}

/// Gates are named by whoever may start rollouts, so they lie where registered endpoints may.
fn gates_caller(control: &Control) -> Result<Caller, AppError> {
    let control = control.clone();
    Ok(Caller::restricted(Arc::new(move || control.view().settings.admin.reach()))?)
}

pub(super) fn notify_door(notifier: Notifier) -> NotifyDoor {
    let targets = notifier.clone();
    NotifyDoor {
        targets: Arc::new(move || targets.targets()),
        test: Arc::new(move |name| {
            let notifier = notifier.clone();
            Box::pin(async move { notifier.test(name.as_deref()).await })
        }),
    }
}
