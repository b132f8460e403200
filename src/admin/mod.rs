//! The admin HTTP API: how people, scripts and dashboards look at the proxy and change it.
//!
//! It decides nothing by itself. A handler reads the request into a [`Change`](crate::model::Change), hands it to the
//! one writer and puts the answer into words; reading handlers show one [`View`](crate::control::View), so that what is
//! shown together belongs together. Around every handler stand the guard (hosts, origins, sizes) and the tokens.
//!
//! [`router`] is everything but the socket, so that tests need none; [`serve`] adds the socket with its deadlines.

mod answers;
mod asked;
mod asked_global;
mod auth;
mod bodies;
mod body;
mod changes;
mod compare;
mod compare_routes;
mod context;
mod describe;
mod detours;
mod events;
mod explain;
mod freeze;
mod guard;
mod keys;
mod maintenance;
mod notify;
mod openapi;
mod pages;
mod parameters;
mod precondition;
mod problem;
mod reach;
mod rollouts;
mod routes;
mod serve;
mod services;
mod shadow;
mod simulate;
mod snapshot_diff;
mod snapshots;
mod splits;
mod stats;
mod status;
mod stream;
mod throttle;
mod version_tenants;
mod versions;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;

pub use routes::router;
pub use serve::serve;

use crate::config::Mistakes;
use crate::control::{Control, ReloadReport, SubmitError};
use crate::model::{NotifyReport, NotifyTest};
use crate::telemetry::{Metrics, Tallies, Windows};

/// Reads the configuration file again and puts it into effect.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<ReloadReport, ReloadError>> + Send + Sync>;

/// Starts a process that takes over from this one, and waits until it serves.
pub type Upgrade = Arc<dyn Fn() -> BoxFuture<'static, Result<Upgraded, UpgradeError>> + Send + Sync>;

/// What the admin API is built from.
pub struct AdminParts {
    /// The door to the state.
    pub control: Control,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// The history of counts; the guard feeds it. Held for moments only.
    pub windows: Arc<Mutex<Windows>>,
    /// The counts themselves, which know the tenants that had traffic.
    pub tallies: Arc<Tallies>,
    /// Milliseconds on the monotone axis that windows and endpoints are kept on.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Whether the process takes traffic.
    pub ready: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// What the data plane says of itself.
    pub proxy: Arc<dyn Fn() -> ProxyStatus + Send + Sync>,
    /// Reads the configuration file again.
    pub reload: Reload,
    /// Hands over to a new process.
    pub upgrade: Upgrade,
    /// Who is told of what happens.
    pub notify: NotifyDoor,
    /// The address that the admin API really listens on. Without tokens it must be on loopback, or nobody is let in.
    pub listen: SocketAddr,
    /// Name of this process among others.
    pub instance: String,
    /// When the process began.
    pub started: jiff::Timestamp,
}

/// What the API asks of notifications.
pub struct NotifyDoor {
    /// The targets and how they fare.
    pub targets: Arc<dyn Fn() -> Vec<NotifyReport> + Send + Sync>,
    /// Sends a test message to the target of this name, or to all.
    pub test: Arc<dyn Fn(Option<String>) -> BoxFuture<'static, Vec<NotifyTest>> + Send + Sync>,
}

/// Whether the process takes traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Whether load balancers should send traffic here.
    pub ready: bool,
    /// Whether the process is on its way out.
    pub draining: bool,
    /// Why it is not ready, in words.
    pub reason: String,
}

/// What the data plane says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyStatus {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Client connections that are open.
    pub open_connections: i64,
}

/// One process has taken over from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgraded {
    /// Number of the process that only finishes its requests.
    pub from: u32,
    /// Number of the process that serves.
    pub to: u32,
}

/// Why no other process has taken over. This one goes on.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// One hand-over at a time.
    #[error("another process is about to take over already")]
    Busy,
    /// The process was not started by a command line.
    #[error("this process was not started by `switchback serve`, so nobody knows how to start another one like it")]
    NoCommand,
    /// The first process of a container.
    #[error("this is process 1, and its container ends with it: replace the container instead")]
    First,
    /// This process knows more than the store.
    #[error("nothing can be handed over now: {0}")]
    NotNow(String),
    /// The new process cannot be started.
    #[error("the new process cannot be started: {0}")]
    Spawn(std::io::Error),
    /// The new process ended.
    #[error("the new process did not come so far as to serve ({0}); its messages are in the log")]
    Ended(std::process::ExitStatus),
    /// The new process took too long.
    #[error("the new process did not serve within {} s and was ended", .0.as_secs())]
    TooSlow(std::time::Duration),
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file has mistakes.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// The settings do not fit the state.
    #[error(transparent)]
    Refused(#[from] SubmitError),
}
