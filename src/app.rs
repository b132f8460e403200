//! Builds and joins everything: the only file that names every room. What it returns can be driven by tests.

mod machines;
mod relay;
mod reload;
mod store;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::machines::{notify_door, start_machines};
use self::relay::{Carried, Relay};
use self::store::{Opened, open_store};
use crate::admin::{self, AdminParts, ProxyStatus, Readiness, Reload, ReloadError, UpgradeError, Upgraded};
use crate::config::{Hidden, Settings};
use crate::control::{self, Card, Control, ReloadReport, StartError};
use crate::handover::{self, CommandLine, HandoverError, Post, Predecessor, Role, Sockets};
use crate::notify::Notifier;
use crate::proxy::{self, Clock, EndpointKeeper, ProxyHandle, ProxyParts, StartProxyError, StreamKeeper};
use crate::store::StoreError;
use crate::telemetry::{
    AccessLog, AccessLogError, LogTarget, Metrics, Tallies, Tracer, TracerError, TracerSettings, Windows,
};
use crate::webhook::SetUpError;

/// How long the admin API may take to finish its answers at the end.
const ADMIN_STOP: Duration = Duration::from_secs(2);
/// How long the first look-up of names may hold up the start.
const PRIME: Duration = Duration::from_secs(2);

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

/// The running program.
pub struct App {
    /// The door to the state.
    pub control: Control,
    /// Where the proxy listens in plain text.
    pub listen: Vec<SocketAddr>,
    /// Where the proxy listens with TLS.
    pub listen_tls: Vec<SocketAddr>,
    /// Where the admin API listens.
    pub admin: Option<SocketAddr>,
    /// Metric families.
    pub metrics: Arc<Metrics>,
    proxy: Option<ProxyHandle>,
    phase: Arc<AtomicU8>,
    tasks: Vec<JoinHandle<()>>,
    stop_admin: watch::Sender<Option<Duration>>,
    admin_task: Option<JoinHandle<()>>,
    writer: JoinHandle<()>,
    reload: Reload,
    relay: Arc<Relay>,
    post: Option<Post>,
    tracer: Option<Arc<Tracer>>,
}

/// How a process begins.
#[derive(Debug, Default)]
pub struct Start {
    /// Listening sockets that are open already.
    pub sockets: Sockets,
    /// The process that serves until this one does.
    pub predecessor: Option<Predecessor>,
    /// How to start a process that takes over from this one; none where nobody can.
    pub command_line: Option<CommandLine>,
}

/// Why the program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store cannot be opened and there is no good copy.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StartError),
    /// Nobody can be called.
    #[error("gates cannot be asked")]
    Caller(#[from] SetUpError),
    /// The data plane cannot start.
    #[error("the proxy cannot start")]
    Proxy(#[from] StartProxyError),
    /// The admin API cannot start.
    #[error("admin.listen: cannot listen on {address}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The access log cannot be written.
    #[error("the access log cannot be written")]
    AccessLog(#[from] AccessLogError),
    /// No spans can be made.
    #[error("proxy.tracing: requests cannot be recorded")]
    Tracing(#[from] TracerError),
    /// The process that serves goes on.
    #[error("this process cannot take over")]
    Handover(#[from] HandoverError),
}

impl App {
    /// Starts everything; requests are served when this returns. Must be called within a tokio runtime, on which the
    /// control plane runs; the proxy has threads of its own.
    ///
    /// # Errors
    /// [`AppError`]; nothing runs then.
    pub async fn start(settings: Settings) -> Result<Self, AppError> {
        Self::start_as(settings, Start::default()).await
    }

    /// Starts as [`App::start`] does, with what another process has opened, and with what it knows.
    ///
    /// # Errors
    /// [`AppError`]; nothing runs then, and a process that serves until now goes on.
    pub async fn start_as(settings: Settings, start: Start) -> Result<Self, AppError> {
        let (predecessor, carried) = relay::pause(start.predecessor).await?;
        let takes_over = predecessor.is_some();
        let mut app = Self::join(settings, start.sockets, carried, start.command_line).await?;
        relay::retire(predecessor).await?;
        app.open_post(takes_over);
        Ok(app)
    }

    async fn join(
        settings: Settings,
        mut sockets: Sockets,
        carried: Carried,
        command_line: Option<CommandLine>,
    ) -> Result<Self, AppError> {
        let (clock, mut carried) = carried.resume();
        let Opened { store, last_good, salvaged, returns } = open_store(&settings, carried.takes_over()).await?;
        let tallies = Arc::new(Tallies::new(settings.metrics.tracked_tenants));
        let metrics = Arc::new(Metrics::new(tallies.clone(), settings.metrics.tenants));
        let (access_log, tracer) = (open_access_log(&settings, &metrics)?, tracer(&settings, &metrics)?);
        let admin_socket = settings.admin.listen.and_then(|address| sockets.take(Role::Admin, address));
        let parts = control::Parts {
            settings,
            store,
            last_good,
            salvaged,
            returns,
            tallies: tallies.clone(),
            metrics: metrics.clone(),
            fresh_secret: control::fresh_secret(),
        };
        let control::Started { control, writer } = control::start(parts).await?;
        let mut windows = Windows::default();
        windows.resume(std::mem::take(&mut carried.windows));
        let windows = Arc::new(Mutex::new(windows));
        let keeper = EndpointKeeper::new(control.published(), &control.settings(), metrics.clone(), clock);
        let _late = tokio::time::timeout(PRIME, keeper.prime()).await;
        let streams = StreamKeeper::new(control.published(), clock);
        let mut proxy = proxy::start(ProxyParts {
            settings: current_settings(&control),
            routes: control.published(),
            keeper: keeper.clone(),
            streams: streams.clone(),
            metrics: metrics.clone(),
            access_log,
            tracer: tracer.clone(),
            clock,
            sockets,
        })?;
        control.note(carried.story());
        let (notifier, told, machines) = start_machines(&control, &tallies, &windows, &metrics, clock, carried)?;
        let (stop_admin, _) = watch::channel(None);
        let sockets = std::mem::take(&mut proxy.copies);
        let ends = stop_admin.clone();
        let relay = Relay::new(control.clone(), clock, machines, windows.clone(), sockets, ends, command_line);
        let reload = reload::door(control.clone(), metrics.clone());
        let rereads = reload::watch(control.clone(), reload.clone());
        let mut app = Self {
            listen: proxy.listen.clone(),
            listen_tls: proxy.listen_tls.clone(),
            admin: None,
            metrics,
            proxy: Some(proxy),
            phase: Arc::new(AtomicU8::new(STARTING)),
            tasks: vec![tokio::spawn(keeper.run()), tokio::spawn(streams.run()), told, rereads],
            stop_admin,
            admin_task: None,
            writer,
            reload,
            control,
            relay: Arc::new(relay),
            post: None,
            tracer,
        };
        app.tasks.push(tokio::spawn(app.control.clone().show_card(card(app.phase.clone()))));
        app.start_admin(admin_socket, tallies, windows, clock, notifier).await?;
        app.phase.store(READY, Relaxed);
        Ok(app)
    }

    /// Hands over to whoever asks. A proxy that cannot do that is still a proxy.
    fn open_post(&mut self, replace: bool) {
        let Some(path) = self.control.settings().proxy.handover.clone() else { return };
        match handover::open(&path, self.relay.clone(), replace) {
            Ok(post) => self.post = Some(post),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "no other process will be able to take over from this one"
            ),
        }
    }

    async fn start_admin(
        &mut self,
        socket: Option<TcpListener>,
        tallies: Arc<Tallies>,
        windows: Arc<Mutex<Windows>>,
        clock: Clock,
        notifier: Notifier,
    ) -> Result<(), AppError> {
        let Some(address) = self.control.view().settings.admin.listen else { return Ok(()) };
        let failed = |source| AppError::Admin { address, source };
        let (listener, copy) = listen_for_admin(address, socket).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        self.relay.add_socket(Role::Admin, address, copy);
        self.admin = Some(bound);
        let phase = self.phase.clone();
        let open = self.metrics.open_connections();
        let proxy_listen: Vec<_> = self.listen.iter().chain(&self.listen_tls).copied().collect();
        let router = admin::router(AdminParts {
            control: self.control.clone(),
            metrics: self.metrics.clone(),
            windows,
            tallies,
            now_ms: Arc::new(move || clock.now_ms()),
            ready: Arc::new(move || readiness(phase.load(Relaxed))),
            proxy: Arc::new(move || ProxyStatus { listen: proxy_listen.clone(), open_connections: open.load(Relaxed) }),
            reload: self.reload.clone(),
            upgrade: self.relay.upgrade_door(),
            notify: notify_door(notifier),
            listen: bound,
            instance: instance(),
            started: jiff::Timestamp::now(),
        });
        let mut stop = self.stop_admin.subscribe();
        let stopped = async move {
            stop.wait_for(Option::is_some).await.map_or(Duration::ZERO, |linger| linger.unwrap_or_default())
        };
        self.admin_task = Some(tokio::spawn(admin::serve(listener, router, stopped)));
        Ok(())
    }

    /// Reads the configuration file again.
    ///
    /// # Errors
    /// [`ReloadError`]; everything is as before.
    pub async fn reload(&self) -> Result<ReloadReport, ReloadError> {
        (self.reload)().await
    }

    /// Starts a process like this one that takes over from it, and waits until it serves.
    ///
    /// # Errors
    /// [`UpgradeError`]; this process goes on.
    pub fn upgrade(&self) -> BoxFuture<'static, Result<Upgraded, UpgradeError>> {
        (self.relay.upgrade_door())()
    }

    /// Waits until another process serves instead of this one; answers its number.
    pub async fn retired(&self) -> u32 {
        self.relay.retired().await
    }

    /// Ends in good order: first says that it is not ready, then closes the listeners, waits for the last connection or
    /// the configured time, and leaves the store in one piece. Answers whether every connection ended by itself.
    pub async fn stop(mut self) -> bool {
        let view = self.control.view();
        let proxy_settings = &view.settings.proxy;
        self.phase.store(DRAINING, Relaxed);
        let mut clean = true;
        if let Some(mut post) = self.post.take() {
            match self.relay.is_retired() {
                true => post.leave(),
                false => drop(post),
            }
        }
        if let Some(proxy) = self.proxy.take() {
            clean = match self.relay.is_retired() {
                true => proxy.retire(proxy_settings.drain_timeout).await,
                false => {
                    proxy.begin_drain();
                    tokio::time::sleep(proxy_settings.ready_delay).await;
                    self.relay.close_sockets();
                    proxy.stop(proxy_settings.drain_timeout).await
                }
            };
        }
        if let Some(tracer) = self.tracer.take()
            && let Err(error) = tokio::task::spawn_blocking(move || tracer.close()).await
        {
            tracing::error!(%error, "the last spans could not be waited for");
        }
        self.relay.abort();
        for task in &self.tasks {
            task.abort();
        }
        if !self.relay.is_retired() {
            let _nobody_listens = self.stop_admin.send(Some(Duration::ZERO));
        }
        if let Some(mut task) = self.admin_task.take()
            && tokio::time::timeout(ADMIN_STOP, &mut task).await.is_err()
        {
            task.abort();
        }
        self.control.close().await;
        let _ended = (&mut self.writer).await;
        clean
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.relay.abort();
        for task in self.tasks.iter().chain(self.admin_task.as_ref()) {
            task.abort();
        }
        self.writer.abort();
    }
}

/// What this process says of itself to others.
fn card(phase: Arc<AtomicU8>) -> impl Fn() -> Card + Send {
    let started_ms = unix_ms();
    move || {
        let phase = match phase.load(Relaxed) {
            READY => "ready",
            DRAINING => "draining",
            _ => "starting",
        };
        let (release, phase) = (env!("CARGO_PKG_VERSION").to_owned(), phase.to_owned());
        Card { instance: instance(), release, phase, started_ms, ..Card::default() }
    }
}

fn readiness(phase: u8) -> Readiness {
    let (ready, draining, reason) = match phase {
        READY => (true, false, ""),
        DRAINING => (false, true, "the process is ending"),
        _ => (false, false, "the process is starting"),
    };
    Readiness { ready, draining, reason: reason.to_owned() }
}

/// The host's name and the process's number: different for every process of a fleet.
fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}-{}", if host.is_empty() { "switchback" } else { host }, std::process::id())
}

/// The admin API's socket, and the same once more to be handed over.
async fn listen_for_admin(
    address: SocketAddr,
    given: Option<TcpListener>,
) -> std::io::Result<(tokio::net::TcpListener, TcpListener)> {
    let listener = match given {
        Some(socket) => socket,
        None => tokio::net::TcpListener::bind(address).await?.into_std()?,
    };
    listener.set_nonblocking(true)?;
    let copy = listener.try_clone()?;
    Ok((tokio::net::TcpListener::from_std(listener)?, copy))
}

fn current_settings(control: &Control) -> Arc<dyn Fn() -> Arc<Settings> + Send + Sync> {
    let control = control.clone();
    Arc::new(move || control.settings())
}

/// Milliseconds since the Unix epoch.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

fn open_access_log(settings: &Settings, metrics: &Metrics) -> Result<Option<Arc<AccessLog>>, AppError> {
    let log = &settings.proxy.access_log;
    if !log.enabled {
        return Ok(None);
    }
    let target = log.path.clone().map_or(LogTarget::Stdout, LogTarget::File);
    Ok(Some(Arc::new(AccessLog::start(target, log.queue, metrics.access_log_dropped())?)))
}

/// What makes spans, if there is somebody who takes them.
fn tracer(settings: &Settings, metrics: &Metrics) -> Result<Option<Arc<Tracer>>, TracerError> {
    let tracing = &settings.proxy.tracing;
    let Some(endpoint) = tracing.endpoint.as_deref().map(|endpoint| endpoint.trim_end_matches('/')) else {
        return Ok(None);
    };
    let path = if endpoint.ends_with("/v1/traces") { "" } else { "/v1/traces" };
    let header = |(name, value): &(http::HeaderName, Hidden)| {
        let mut value = http::HeaderValue::from_str(value.reveal()).ok()?;
        value.set_sensitive(true);
        Some((name.clone(), value))
    };
    let settings = TracerSettings {
        url: format!("{endpoint}{path}"),
        headers: tracing.headers.iter().filter_map(header).collect(),
        service_name: tracing.service_name.clone(),
        instance: instance(),
        sample: tracing.sample,
        queue: tracing.queue,
        batch: tracing.batch,
        delay: tracing.delay,
        timeout: tracing.timeout,
    };
    Ok(Some(Arc::new(Tracer::start(settings, metrics.spans())?)))
}
