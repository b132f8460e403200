//! Handing over to another process, seen from this one: what it gives away, what stands still meanwhile, and what it is told
//! when it begins.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{AppError, unix_ms};
use crate::admin::{Upgrade, UpgradeError, Upgraded};
use crate::autopilot::{CarriedGuard, CarriedRollouts, Machine, StandStill};
use crate::control::{Control, Paused};
use crate::handover::{CommandLine, Incumbent, Predecessor, Role, Sockets};
use crate::model::{Author, Event, EventKind};
use crate::proxy::Clock;
use crate::telemetry::{CarriedWindows, Windows};

/// How long a request to the admin API may be on its way when another process takes over.
const ADMIN_LINGER: Duration = Duration::from_secs(1);
/// How long a new process may take until it serves.
const UPGRADE: Duration = Duration::from_secs(180);

/// What one process knows and the next goes on with.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Carried {
    /// Number of the process that it comes from.
    pid: Option<u32>,
    /// What its clock showed, in microseconds.
    clock_us: u64,
    pub guard: CarriedGuard,
    pub rollouts: CarriedRollouts,
    pub windows: CarriedWindows,
}

/// What judges and advances.
#[derive(Debug)]
pub(super) struct Machines {
    pub guard: Machine<CarriedGuard>,
    pub rollouts: Machine<CarriedRollouts>,
}

/// This process, for one that wants to take over.
pub(super) struct Relay {
    control: Control,
    clock: Clock,
    machines: Machines,
    windows: Arc<Mutex<Windows>>,
    /// Copies of the listening sockets.
    sockets: Mutex<Sockets>,
    still: Mutex<Option<Still>>,
    retired: watch::Sender<Option<u32>>,
    /// Ends the admin API here, and says how long a request may be on its way.
    stop_admin: watch::Sender<Option<Duration>>,
    /// Why the last process that asked got nothing.
    refused: Mutex<Option<String>>,
    command_line: Option<CommandLine>,
    upgrading: tokio::sync::Mutex<()>,
}

/// What stands still while another process begins.
struct Still {
    writer: Paused,
    _guard: StandStill,
    _rollouts: StandStill,
}

/// Lets the process that serves pause, and hears what it knows.
pub(super) async fn pause(predecessor: Option<Predecessor>) -> Result<(Option<Predecessor>, Carried), AppError> {
    let Some(mut predecessor) = predecessor else { return Ok((None, Carried::default())) };
    let asked = tokio::task::spawn_blocking(move || predecessor.pause().map(|known| (predecessor, known)));
    let (predecessor, known) = joined(asked.await)?;
    let carried = serde_json::from_value(known).unwrap_or_else(|error| {
        tracing::warn!(%error, "what the guard of the other process knows is not understood; evidence begins anew");
        Carried::default()
    });
    let carried = Carried { pid: Some(predecessor.pid), ..carried };
    Ok((Some(predecessor), carried))
}

/// Tells the process that served until now that this one does.
pub(super) async fn retire(predecessor: Option<Predecessor>) -> Result<(), AppError> {
    let Some(predecessor) = predecessor else { return Ok(()) };
    Ok(joined(tokio::task::spawn_blocking(move || predecessor.retire()).await)?)
}

/// A panic of a thread is one of ours.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Carried {
    /// A clock that goes on where that of the other process stood. Where that is not possible, nothing that was measured
    /// on it is of use.
    pub fn resume(self) -> (Clock, Self) {
        match Clock::resume(self.clock_us).filter(|_| self.clock_us > 0) {
            Some(clock) => (clock, self),
            None => (Clock::start(), Self { pid: self.pid, ..Self::default() }),
        }
    }

    /// Whether another process serves until this one does.
    pub fn takes_over(&self) -> bool {
        self.pid.is_some()
    }

    /// The first line of this process in the history.
    pub fn story(&self) -> Event {
        let comparisons = self.guard.comparisons();
        let reason = match self.pid {
            None => "The process has started; evidence begins with a fresh stake.".to_owned(),
            Some(pid) => format!(
                "The process has taken over from process {pid}, and goes on with the evidence of {comparisons} \
                 comparisons."
            ),
        };
        let mut event = Event::of_proxy(EventKind::Started, 0, unix_ms());
        (event.author, event.reason) = (Author::Autopilot, reason);
        event.before = self.pid.map_or(Value::Null, |pid| json!({ "pid": pid }));
        event.after = json!({
            "pid": std::process::id(),
            "release": env!("CARGO_PKG_VERSION"),
            "comparisons": comparisons,
        });
        event
    }
}

impl Relay {
    pub fn new(
        control: Control,
        clock: Clock,
        machines: Machines,
        windows: Arc<Mutex<Windows>>,
        sockets: Sockets,
        stop_admin: watch::Sender<Option<Duration>>,
        command_line: Option<CommandLine>,
    ) -> Self {
        Self {
            control,
            clock,
            machines,
            windows,
            sockets: Mutex::new(sockets),
            still: Mutex::default(),
            retired: watch::Sender::new(None),
            stop_admin,
            refused: Mutex::default(),
            command_line,
            upgrading: tokio::sync::Mutex::default(),
        }
    }

    pub fn add_socket(&self, role: Role, wanted: SocketAddr, socket: TcpListener) {
        lock(&self.sockets).add(role, wanted, socket);
    }

    /// As long as a copy is open, the system takes connections that nobody would accept.
    pub fn close_sockets(&self) {
        *lock(&self.sockets) = Sockets::default();
    }

    pub fn is_retired(&self) -> bool {
        self.retired.borrow().is_some()
    }

    /// Waits until another process serves; answers its number.
    pub async fn retired(&self) -> u32 {
        let mut retired = self.retired.subscribe();
        match retired.wait_for(Option::is_some).await.map(|pid| *pid) {
            Ok(Some(pid)) => pid,
            _ => std::future::pending().await,
        }
    }

    /// Ends the guard and the rollouts.
    pub fn abort(&self) {
        self.machines.guard.task.abort();
        self.machines.rollouts.task.abort();
    }

    /// What the admin API calls.
    pub fn upgrade_door(self: &Arc<Self>) -> Upgrade {
        let relay = self.clone();
        Arc::new(move || {
            // Whoever asked may leave; the new process is on its way all the same.
            let relay = relay.clone();
            let task = tokio::spawn(async move { relay.upgrade().await });
            Box::pin(async move { joined(task.await) })
        })
    }

    async fn upgrade(&self) -> Result<Upgraded, UpgradeError> {
        let _one_at_a_time = self.upgrading.try_lock().map_err(|_| UpgradeError::Busy)?;
        let command_line = self.command_line.as_ref().ok_or(UpgradeError::NoCommand)?;
        if std::process::id() == 1 {
            return Err(UpgradeError::First);
        }
        if self.is_retired() {
            return Err(UpgradeError::Busy);
        }
        lock(&self.refused).take();
        let mut child = command_line.spawn().map_err(UpgradeError::Spawn)?;
        tokio::select! {
            pid = self.retired() => Ok(Upgraded { from: std::process::id(), to: pid }),
            ended = child.wait() => Err(match lock(&self.refused).take() {
                Some(why) => UpgradeError::NotNow(why),
                None => UpgradeError::Ended(ended.map_err(UpgradeError::Spawn)?),
            }),
            () = tokio::time::sleep(UPGRADE) => {
                let _ended_meanwhile = child.start_kill();
                Err(UpgradeError::TooSlow(UPGRADE))
            }
        }
    }
}

#[async_trait]
impl Incumbent for Relay {
    fn sockets(&self) -> Result<Sockets, String> {
        if self.is_retired() {
            return Err("another process has taken over already".to_owned());
        }
        lock(&self.sockets).try_clone().map_err(|error| format!("its sockets cannot be shared: {error}"))
    }

    async fn pause(&self) -> Result<Value, String> {
        self.stand_still().await.inspect_err(|why| *lock(&self.refused) = Some(why.clone()))
    }

    async fn resume(&self) {
        drop(lock(&self.still).take());
    }

    fn retire(&self, successor: u32) {
        self.abort();
        self.close_sockets();
        if let Some(still) = lock(&self.still).take() {
            still.writer.follow();
        }
        // Before anybody hears that the other process serves: who then asks for something must come to that one.
        self.stop_admin.send_replace(Some(ADMIN_LINGER));
        self.retired.send_replace(Some(successor));
    }
}

impl Relay {
    async fn stand_still(&self) -> Result<Value, String> {
        let ending = || "the process is ending".to_owned();
        // The guard first: what it asked for before is written before the writer pauses.
        let (guard, guard_still) = self.machines.guard.pause().await.ok_or_else(ending)?;
        let (rollouts, rollouts_still) = self.machines.rollouts.pause().await.ok_or_else(ending)?;
        let writer = self.control.pause().await.map_err(|error| error.to_string())?;
        let windows = lock(&self.windows).carry();
        let carried = Carried { pid: None, clock_us: self.clock.now_us(), guard, rollouts, windows };
        let known = serde_json::to_value(carried).map_err(|error| format!("its evidence cannot be told: {error}"))?;
        *lock(&self.still) = Some(Still { writer, _guard: guard_still, _rollouts: rollouts_still });
        Ok(known)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in between can leave it half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
