//! Starts and ends the data plane: Pingora's services on a tokio runtime of our own, so that a drain can wait for the
//! last connection instead of a fixed time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::apps::{HttpServerApp as _, HttpServerOptions};
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::clock::Clock;
use super::endpoints::EndpointKeeper;
use super::files::Room;
use super::front::{Front, Listening, Places, TurnedAway, Watches, accept};
use super::gateway::Gateway;
use super::in_flight::InFlight;
use super::listen::{Bound, bind};
use super::shadow;
use super::spans::Tracing;
use super::streams::StreamKeeper;
use super::tls;
use crate::config::{Limits, ProxySettings, Settings};
use crate::handover::{Role, Sockets};
use crate::model::{ServiceName, VersionName};
use crate::routing::Routes;
use crate::telemetry::{AccessLog, Metrics, Tracer};

/// How often Pingora may ask for another peer; how often it really happens is decided by each service's `retries`.
const MAX_RETRIES: usize = 16;
/// How often the files of certificates are looked at.
const CERTIFICATES_LOOK: Duration = Duration::from_secs(1);
/// How much of one request body may wait here: enough for 20 MB/s at 13 ms.
const H2_STREAM_WINDOW: u32 = 256 << 10;
/// How much of all request bodies of one connection may wait here.
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
/// What it may cost to keep bodies that come in many small frames, beside their bytes: some 8 000 frames, of 250 bytes
/// each. Messages of gRPC are that small, and come in bursts; the library's default ends the connection at 2 000.
const H2_FRAMES_COST: usize = 2 << 20;
/// How much of one answer may wait for the client.
const H2_SEND_BUFFER: usize = 64 << 10;
/// How often the drain looks at the gauge.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// What the data plane is built from.
pub struct ProxyParts {
    /// The settings, as they are at any moment.
    pub settings: Arc<dyn Fn() -> Arc<Settings> + Send + Sync>,
    /// The published routes.
    pub routes: Arc<ArcSwap<Routes>>,
    /// Keeps the endpoints current.
    pub keeper: Arc<EndpointKeeper>,
    /// Keeps the streams that a shift closes.
    pub streams: Arc<StreamKeeper>,
    /// Metric families.
    pub metrics: Arc<Metrics>,
    /// One line for each request.
    pub access_log: Option<Arc<AccessLog>>,
    /// What makes spans, where they are wanted.
    pub tracer: Option<Arc<Tracer>>,
    /// The process's clock.
    pub clock: Clock,
    /// Listening sockets that are open already; the others are opened.
    pub sockets: Sockets,
}

/// Why the data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartProxyError {
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}")]
    Bind {
        /// Key in the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A TLS listener cannot be set up.
    #[error("proxy.tls: {0}")]
    Tls(#[from] tls::TlsError),
    /// A version of the file cannot be spoken to with TLS.
    #[error("services.{service}.versions.{version}.tls: {source}")]
    VersionTls {
        /// Which service.
        service: ServiceName,
        /// Which version.
        version: VersionName,
        /// What is wrong.
        source: tls::TlsError,
    },
    /// The runtime cannot be made.
    #[error("the threads of the proxy cannot be started")]
    Runtime(#[source] std::io::Error),
}

/// The running data plane.
pub struct ProxyHandle {
    /// Where it listens in plain text.
    pub listen: Vec<SocketAddr>,
    /// Where it listens with TLS.
    pub listen_tls: Vec<SocketAddr>,
    /// Copies of the listening sockets, to be handed over. As long as one is there, the system takes connections.
    pub copies: Sockets,
    open: Arc<AtomicI64>,
    draining: Arc<AtomicBool>,
    ends: Ends,
    threads: Threads,
    _shadows: shadow::Worker,
}

/// The runtime of the proxy. Dropping a runtime waits for its threads, which panics on a thread of another one.
struct Threads(Option<Runtime>);

impl Threads {
    fn end(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

/// The two ends of serving.
struct Ends {
    /// Nothing is accepted any more, and HTTP/2 clients are told to go elsewhere.
    accept: watch::Sender<bool>,
    /// Connections without a request are closed.
    idle: watch::Sender<bool>,
}

/// Binds the addresses and starts to serve.
///
/// # Errors
/// [`StartProxyError`]; nothing runs then.
pub fn start(mut parts: ProxyParts) -> Result<ProxyHandle, StartProxyError> {
    let settings = (parts.settings)();
    tls::check_versions(&settings).map_err(|(service, version, source)| StartProxyError::VersionTls {
        service,
        version,
        source,
    })?;
    let threads = match settings.proxy.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("switchback-proxy")
        .enable_all()
        .build()
        .map_err(StartProxyError::Runtime)?;
    let handle = runtime.handle().clone();
    let running = Threads(Some(runtime));
    let entered = handle.enter();
    let (plain, secure) = bind_all(&settings.proxy, &mut parts.sockets)?;
    for address in parts.sockets.left() {
        tracing::warn!(%address, "a listening socket that was handed over is not in the configuration and is closed");
    }
    let addresses = |bound: &[(SocketAddr, Bound)]| bound.iter().map(|(_, b)| b.address).collect::<Vec<_>>();
    let (listen, listen_tls) = (addresses(&plain), addresses(&secure));
    let open = parts.metrics.open_connections();
    let draining = Arc::new(AtomicBool::new(false));
    let ((accepts, accepting), (idle, idling)) = (watch::channel(false), watch::channel(false));
    let watches = Watches { accept: accepting, idle: idling };
    let (shadows, queue) =
        shadow::Worker::start(parts.keeper.clone(), parts.clock).map_err(StartProxyError::Runtime)?;
    let front = Arc::new(front(&parts, &settings, threads, open.clone(), draining.clone(), queue));
    let listeners = settings.proxy.tls.iter().map(|spec| tls::ListenerTls::new(spec).map(Arc::new));
    let listeners: Arc<[Arc<tls::ListenerTls>]> = listeners.collect::<Result<_, _>>()?;
    let tls = std::iter::repeat_n(None, plain.len()).chain(listeners.iter().cloned().map(Some));
    let roles = std::iter::repeat_n(Role::Plain, plain.len()).chain(std::iter::repeat(Role::Tls));
    let mut copies = Sockets::default();
    for (((wanted, bound), tls), role) in plain.into_iter().chain(secure).zip(tls).zip(roles) {
        copies.add(role, wanted, bound.copy);
        handle.spawn(accept(front.clone(), Listening { listener: bound.listener, tls }, watches.clone()));
    }
    if !listeners.is_empty() {
        handle.spawn(watch_certificates(listeners, parts.metrics.clone()));
    }
    handle.spawn(tell_of_the_end(front, watches.idle));
    drop(entered);
    Ok(ProxyHandle {
        listen,
        listen_tls,
        copies,
        open,
        draining,
        ends: Ends { accept: accepts, idle },
        threads: running,
        _shadows: shadows,
    })
}

/// Each listening socket with its address in the configuration.
type Listeners = Vec<(SocketAddr, Bound)>;

/// The sockets for plain text and for TLS: those that are open already, and fresh ones.
fn bind_all(settings: &ProxySettings, open: &mut Sockets) -> Result<(Listeners, Listeners), StartProxyError> {
    let mut bind_as = |key, role, address| {
        let bound = bind(address, open.take(role, address));
        bound.map(|b| (address, b)).map_err(|source| StartProxyError::Bind { key, address, source })
    };
    let plain = settings.listen.iter().map(|a| bind_as("proxy.listen", Role::Plain, *a)).collect::<Result<_, _>>()?;
    let secure =
        settings.tls.iter().map(|t| bind_as("proxy.tls.listen", Role::Tls, t.listen)).collect::<Result<_, _>>()?;
    Ok((plain, secure))
}

/// Looks now and then whether the files of certificates have changed. Files on a slow disk must not hold requests up.
async fn watch_certificates(listeners: Arc<[Arc<tls::ListenerTls>]>, metrics: Arc<Metrics>) {
    let mut every = tokio::time::interval(CERTIFICATES_LOOK);
    loop {
        every.tick().await;
        let (listeners, metrics) = (listeners.clone(), metrics.clone());
        let look = move || listeners.iter().for_each(|listener| refresh(listener, &metrics));
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "the certificates could not be looked at");
        }
    }
}

fn refresh(listener: &tls::ListenerTls, metrics: &Metrics) {
    match listener.refresh() {
        None => {}
        Some(Ok(())) => {
            metrics.certificate_reload(true);
            tracing::info!("certificates were read again because a file had changed");
        }
        Some(Err(error)) => {
            metrics.certificate_reload(false);
            tracing::error!(%error, "certificates have changed and cannot be used; those from before stay");
        }
    }
    for (file, ends_s) in listener.expiries() {
        metrics.set_certificate(file.display().to_string(), ends_s);
    }
}

/// Connections that wait for a request inside Pingora are told when the process ends.
async fn tell_of_the_end(front: Arc<Front>, mut shutdown: watch::Receiver<bool>) {
    drop(shutdown.wait_for(|ending| *ending).await);
    front.proxy.http_cleanup().await;
}

fn front(
    parts: &ProxyParts,
    settings: &Settings,
    threads: usize,
    open: Arc<AtomicI64>,
    draining: Arc<AtomicBool>,
    shadow: shadow::Queue,
) -> Front {
    let room = Room::of_process(settings.proxy.upstream_keepalive);
    let wanted = settings.proxy.limits.connections;
    if room.connections < wanted {
        let room = room.connections;
        tracing::warn!(
            wanted,
            room,
            "proxy.limits.connections: the limit of open files (ulimit -n) leaves room for fewer"
        );
    }
    let gateway = Gateway {
        routes: parts.routes.clone(),
        settings: parts.settings.clone(),
        keeper: parts.keeper.clone(),
        metrics: parts.metrics.clone(),
        access_log: parts.access_log.clone(),
        tracing: parts.tracer.clone().map(|tracer| Tracing { tracer, follow: settings.proxy.tracing.parent }),
        clock: parts.clock,
        draining,
        shadow,
        streams: parts.streams.clone(),
        in_flight: InFlight::default(),
        room,
    };
    let conf = ServerConf {
        threads,
        max_retries: MAX_RETRIES,
        upstream_keepalive_pool_size: room.idle.div_ceil(threads),
        ..ServerConf::default()
    };
    let mut proxy = http_proxy(&Arc::new(conf), gateway);
    let limits = &settings.proxy.limits;
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(limits.keepalive_timeout);
    proxy.server_options = Some(options);
    proxy.h2_options = Some(h2_options(limits));
    let metrics = parts.metrics.clone();
    Front {
        proxy: Arc::new(proxy),
        settings: parts.settings.clone(),
        refused: Arc::new(move |word| metrics.refused(word)),
        places: Places::new(open),
        turned_away: TurnedAway::new(),
        room,
        clock: parts.clock,
    }
}

/// What one connection of HTTP/2 may hold: 32 streams of 64 KiB of header each, a window of 1 MiB for all bodies that come
/// in and 2 MiB to keep their frames, and 64 KiB of each answer that the client does not take.
fn h2_options(limits: &Limits) -> H2Options {
    let mut h2 = default_h2_options();
    h2.max_concurrent_streams(limits.h2_streams);
    h2.max_header_list_size(u32::try_from(limits.header_size).unwrap_or(u32::MAX));
    h2.initial_window_size(H2_STREAM_WINDOW);
    h2.initial_connection_window_size(H2_CONNECTION_WINDOW);
    h2.data_frame_budget(H2_FRAMES_COST);
    h2.max_send_buffer_size(H2_SEND_BUFFER);
    h2
}

impl ProxyHandle {
    /// Connections that are open now.
    pub fn open_connections(&self) -> i64 {
        self.open.load(Relaxed)
    }

    /// Answers from now on tell clients not to use their connection again.
    pub fn begin_drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Another process accepts now. Connections that are open are served on: each answer tells the client not to use it
    /// again, so none is closed while a request may be on its way. Those that are still open after the time are closed.
    /// Answers whether every connection ended by itself.
    pub async fn retire(mut self, within: Duration) -> bool {
        self.begin_drain();
        self.copies = Sockets::default();
        let _nobody_listens = self.ends.accept.send(true);
        let idle = self.wait_for_the_last(within).await;
        self.end();
        idle
    }

    /// Closes the listeners and the connections without a request, waits until the last one is gone or the time is over,
    /// and ends the threads. Answers whether every connection ended by itself.
    pub async fn stop(mut self, within: Duration) -> bool {
        self.begin_drain();
        self.copies = Sockets::default();
        let _nobody_listens = (self.ends.accept.send(true), self.ends.idle.send(true));
        let idle = self.wait_for_the_last(within).await;
        self.end();
        idle
    }

    async fn wait_for_the_last(&self, within: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + within;
        while self.open_connections() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        self.open_connections() <= 0
    }

    fn end(&mut self) {
        let _nobody_listens = (self.ends.accept.send(true), self.ends.idle.send(true));
        self.threads.end();
    }
}

impl Drop for ProxyHandle {
    fn drop(&mut self) {
        self.end();
    }
}
