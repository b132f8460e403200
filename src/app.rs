//! Builds and joins everything: the only file that names every room. What it returns can be driven by tests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{self, AdminParts, NotifyDoor, ProxyStatus, Readiness, Reload, ReloadError};
use crate::autopilot::{self, AutopilotParts, RolloutParts};
use crate::config::{self, Settings};
use crate::control::{self, Control, ReloadReport, StartError, SubmitError};
use crate::notify::{self, Notifier, NotifyParts};
use crate::proxy::{self, Clock, EndpointKeeper, ProxyHandle, ProxyParts, StartProxyError, StreamKeeper};
use crate::store::{EmbeddedStore, LastGood, Loaded, MemoryStore, Options, Store, StoreError};
use crate::telemetry::{AccessLog, AccessLogError, LogTarget, Metrics, Tallies, Windows};
use crate::webhook::{Caller, SetUpError};

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
    stop_admin: watch::Sender<bool>,
    admin_task: Option<JoinHandle<()>>,
    writer: JoinHandle<()>,
    reload: Reload,
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
}

impl App {
    /// Starts everything; requests are served when this returns. Must be called within a tokio runtime, on which the
    /// control plane runs; the proxy has threads of its own.
    ///
    /// # Errors
    /// [`AppError`]; nothing runs then.
    pub async fn start(settings: Settings) -> Result<Self, AppError> {
        let clock = Clock::start();
        let (store, last_good, salvaged) = open_store(&settings).await?;
        let tallies = Arc::new(Tallies::new(settings.metrics.tracked_tenants));
        let metrics = Arc::new(Metrics::new(tallies.clone(), settings.metrics.tenants));
        let access_log = open_access_log(&settings, &metrics)?;
        let parts = control::Parts {
            settings,
            store,
            last_good,
            salvaged,
            tallies: tallies.clone(),
            metrics: metrics.clone(),
            fresh_secret: control::fresh_secret(),
        };
        let control::Started { control, writer } = control::start(parts).await?;
        let windows = Arc::new(Mutex::new(Windows::default()));
        let keeper = EndpointKeeper::new(control.published(), &control.settings(), metrics.clone(), clock);
        let _late = tokio::time::timeout(PRIME, keeper.prime()).await;
        let streams = StreamKeeper::new(control.published(), clock);
        let proxy = proxy::start(ProxyParts {
            settings: current_settings(&control),
            routes: control.published(),
            keeper: keeper.clone(),
            streams: streams.clone(),
            metrics: metrics.clone(),
            access_log,
            clock,
        })?;
        let (notifier, machines) = start_machines(&control, &tallies, &windows, &metrics, clock)?;
        let mut tasks = vec![tokio::spawn(keeper.run()), tokio::spawn(streams.run())];
        tasks.extend(machines);
        let phase = Arc::new(AtomicU8::new(STARTING));
        let (stop_admin, _) = watch::channel(false);
        let mut app = Self {
            listen: proxy.listen.clone(),
            listen_tls: proxy.listen_tls.clone(),
            admin: None,
            metrics: metrics.clone(),
            proxy: Some(proxy),
            phase,
            tasks,
            stop_admin,
            admin_task: None,
            writer,
            reload: reload(control.clone(), metrics),
            control,
        };
        app.start_admin(tallies, windows, clock, notifier).await?;
        app.phase.store(READY, Relaxed);
        Ok(app)
    }

    async fn start_admin(
        &mut self,
        tallies: Arc<Tallies>,
        windows: Arc<Mutex<Windows>>,
        clock: Clock,
        notifier: Notifier,
    ) -> Result<(), AppError> {
        let Some(address) = self.control.view().settings.admin.listen else { return Ok(()) };
        let failed = |source| AppError::Admin { address, source };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
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
            notify: notify_door(notifier),
            listen: bound,
            instance: instance(),
            started: jiff::Timestamp::now(),
        });
        let mut stop = self.stop_admin.subscribe();
        let stopped = async move {
            let _sender_gone = stop.wait_for(|stop| *stop).await;
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

    /// Ends in good order: first says that it is not ready, then closes the listeners, waits for the last connection or
    /// the configured time, and leaves the store in one piece. Answers whether every connection ended by itself.
    pub async fn stop(mut self) -> bool {
        let view = self.control.view();
        let proxy_settings = &view.settings.proxy;
        self.phase.store(DRAINING, Relaxed);
        let mut clean = true;
        if let Some(proxy) = self.proxy.take() {
            proxy.begin_drain();
            tokio::time::sleep(proxy_settings.ready_delay).await;
            clean = proxy.stop(proxy_settings.drain_timeout).await;
        }
        for task in &self.tasks {
            task.abort();
        }
        let _nobody_listens = self.stop_admin.send(true);
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
        for task in self.tasks.iter().chain(self.admin_task.as_ref()) {
            task.abort();
        }
        self.writer.abort();
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

fn current_settings(control: &Control) -> Arc<dyn Fn() -> Arc<Settings> + Send + Sync> {
    let control = control.clone();
    Arc::new(move || control.settings())
}

fn reload(control: Control, metrics: Arc<Metrics>) -> Reload {
    Arc::new(move || {
        let (control, metrics) = (control.clone(), metrics.clone());
        Box::pin(async move {
            let file = control.view().settings.file.clone();
            // Files that cannot be used are as wrong as any other mistake: all stays as it was.
            let read = tokio::task::spawn_blocking(move || config::load_with(&file, &proxy::bad_files)).await;
            let settings = match read {
                Ok(Ok(settings)) => settings,
                Ok(Err(mistakes)) => {
                    metrics.reload(false);
                    return Err(mistakes.into());
                }
                Err(_) => return Err(SubmitError::Closed.into()),
            };
            Ok(control.reload(settings).await?)
        })
    })
}

/// Starts what acts by itself: who is told, the guard and the rollouts. Nobody must miss what the guard does first.
fn start_machines(
    control: &Control,
    tallies: &Arc<Tallies>,
    windows: &Arc<Mutex<Windows>>,
    metrics: &Arc<Metrics>,
    clock: Clock,
) -> Result<(Notifier, [JoinHandle<()>; 3]), AppError> {
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
    Ok((notifier, [notify, autopilot::start(guard), autopilot::start_rollouts(rollouts)]))
}

/// Gates are named by whoever may start rollouts, so they lie where registered endpoints may.
fn gates_caller(control: &Control) -> Result<Caller, AppError> {
    let control = control.clone();
    Ok(Caller::restricted(Arc::new(move || control.view().settings.admin.reach()))?)
}

fn notify_door(notifier: Notifier) -> NotifyDoor {
    let targets = notifier.clone();
    NotifyDoor {
        targets: Arc::new(move || targets.targets()),
        test: Arc::new(move |name| {
            let notifier = notifier.clone();
            Box::pin(async move { notifier.test(name.as_deref()).await })
        }),
    }
}

type Opened = (Arc<dyn Store>, Option<LastGood>, Option<Loaded>);

/// Opens the store; when that fails, traffic still flows from the last good copy, and changes are refused.
async fn open_store(settings: &Settings) -> Result<Opened, AppError> {
    let path = settings.store.path.clone();
    let last_good = settings.store.last_good.then(|| LastGood::beside(&path));
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, Options::default())).await;
    let error = match opened {
        Ok(Ok(store)) => return Ok((Arc::new(store), last_good, None)),
        Ok(Err(error)) => error,
        Err(_) => StoreError::Closed,
    };
    match last_good.as_ref().map(LastGood::load) {
        Some(Ok(Some(saved))) => {
            tracing::error!(%error, revision = saved.revision,
                "the store cannot be opened; traffic is served from the last good copy and changes are refused");
            let absent = MemoryStore::new();
            absent.set_down(true);
            Ok((Arc::new(absent), None, Some(saved.into())))
        }
        Some(Err(copy)) => {
            tracing::error!(%copy, "the last good copy cannot be read either");
            Err(error.into())
        }
        _ => Err(error.into()),
    }
}

fn open_access_log(settings: &Settings, metrics: &Metrics) -> Result<Option<Arc<AccessLog>>, AppError> {
    let log = &settings.proxy.access_log;
    if !log.enabled {
        return Ok(None);
    }
    let target = log.path.clone().map_or(LogTarget::Stdout, LogTarget::File);
    Ok(Some(Arc::new(AccessLog::start(target, log.queue, metrics.access_log_dropped())?)))
}
