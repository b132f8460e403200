//! Starts and ends the data plane: Pingora's services on a tokio runtime of our own, so that a drain can wait for the
//! last connection instead of a fixed time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::apps::HttpServerOptions;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::clock::Clock;
use super::endpoints::EndpointKeeper;
use super::front::Front;
use super::gateway::Gateway;
use super::listen::{Bound, bind, hand_over};
use super::shadow;
use super::tls;
use crate::config::Settings;
use crate::routing::Routes;
use crate::telemetry::{AccessLog, Metrics};

/// How often Pingora may ask for another peer; how often it really happens is decided by each service's `retries`.
const MAX_RETRIES: usize = 16;
/// How often the files of certificates are looked at.
const CERTIFICATES_LOOK: Duration = Duration::from_secs(1);
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
    /// Metric families.
    pub metrics: Arc<Metrics>,
    /// One line for each request.
    pub access_log: Option<Arc<AccessLog>>,
    /// The process's clock.
    pub clock: Clock,
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
    open: Arc<AtomicI64>,
    draining: Arc<AtomicBool>,
    shutdown: watch::Sender<bool>,
    runtime: Option<Runtime>,
    _shadows: shadow::Worker,
}

/// Binds the addresses and starts to serve.
///
/// # Errors
/// [`StartProxyError`]; nothing runs then.
pub fn start(parts: ProxyParts) -> Result<ProxyHandle, StartProxyError> {
    let settings = (parts.settings)();
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
    let entered = runtime.enter();
    let bind_as = |key, address| bind(address).map_err(|source| StartProxyError::Bind { key, address, source });
    let plain: Vec<Bound> =
        settings.proxy.listen.iter().map(|a| bind_as("proxy.listen", *a)).collect::<Result<_, _>>()?;
    let secure: Vec<Bound> =
        settings.proxy.tls.iter().map(|t| bind_as("proxy.tls.listen", t.listen)).collect::<Result<_, _>>()?;
    let addresses = |bound: &[Bound]| bound.iter().map(|b| b.address).collect::<Vec<_>>();
    let (listen, listen_tls) = (addresses(&plain), addresses(&secure));
    let open = parts.metrics.open_connections();
    let draining = Arc::new(AtomicBool::new(false));
    let (shutdown, watch) = watch::channel(false);
    let (shadows, queue) =
        shadow::Worker::start(parts.keeper.clone(), parts.clock).map_err(StartProxyError::Runtime)?;
    let mut service = service(&parts, &settings, threads, open.clone(), draining.clone(), queue);
    for address in &listen {
        service.add_tcp(&address.to_string());
    }
    let mut listeners = Vec::new();
    for (address, spec) in listen_tls.iter().zip(&settings.proxy.tls) {
        let listener = tls::ListenerTls::new(spec)?;
        service.add_tls_with_settings(&address.to_string(), None, listener.settings()?);
        listeners.push(listener);
    }
    if !listeners.is_empty() {
        runtime.spawn(watch_certificates(Arc::new(listeners), parts.metrics.clone()));
    }
    let fds = hand_over(plain.into_iter().chain(secure).collect());
    runtime.spawn(async move { service.start_service(Some(fds), watch, 1).await });
    drop(entered);
    Ok(ProxyHandle { listen, listen_tls, open, draining, shutdown, runtime: Some(runtime), _shadows: shadows })
}

/// Looks now and then whether the files of certificates have changed. Files on a slow disk must not hold requests up.
async fn watch_certificates(listeners: Arc<Vec<tls::ListenerTls>>, metrics: Arc<Metrics>) {
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

fn service(
    parts: &ProxyParts,
    settings: &Settings,
    threads: usize,
    open: Arc<AtomicI64>,
    draining: Arc<AtomicBool>,
    shadow: shadow::Queue,
) -> Service<Front<Gateway>> {
    let gateway = Gateway {
        routes: parts.routes.clone(),
        settings: parts.settings.clone(),
        keeper: parts.keeper.clone(),
        metrics: parts.metrics.clone(),
        access_log: parts.access_log.clone(),
        clock: parts.clock,
        draining,
        shadow,
    };
    let conf = ServerConf {
        threads,
        max_retries: MAX_RETRIES,
        upstream_keepalive_pool_size: settings.proxy.upstream_keepalive.div_ceil(threads),
        ..ServerConf::default()
    };
    let mut proxy = http_proxy(&Arc::new(conf), gateway);
    let limits = &settings.proxy.limits;
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.keepalive_request_limit = limits.keepalive_requests;
    options.h2_idle_timeout = Some(limits.keepalive_timeout);
    proxy.server_options = Some(options);
    let mut h2 = pingora::protocols::http::v2::server::default_h2_options();
    h2.max_concurrent_streams(limits.h2_streams);
    h2.max_header_list_size(u32::try_from(limits.header_size).unwrap_or(u32::MAX));
    proxy.h2_options = Some(h2);
    let metrics = parts.metrics.clone();
    let front = Front {
        inner: Arc::new(proxy),
        open,
        settings: parts.settings.clone(),
        refused: Arc::new(move || metrics.refused("too_many_connections")),
    };
    Service::new("switchback".to_owned(), front)
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

    /// Closes the listeners, waits until the last connection is gone or the time is over, and ends the threads.
    /// Answers whether every connection ended by itself.
    pub async fn stop(mut self, within: Duration) -> bool {
        self.begin_drain();
        let _nobody_listens = self.shutdown.send(true);
        let deadline = tokio::time::Instant::now() + within;
        while self.open_connections() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        let idle = self.open_connections() <= 0;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        idle
    }
}

impl Drop for ProxyHandle {
    fn drop(&mut self) {
        let _nobody_listens = self.shutdown.send(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
