//! The checked settings of the process. Whoever holds them need not look at them twice.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::notify::{Hidden, NotifyTarget};
use crate::model::{BasisPoints, Reach, Structure};

/// Everything that a configuration file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The file.
    pub file: PathBuf,
    /// Where requests come in, and their limits.
    pub proxy: ProxySettings,
    /// The admin API.
    pub admin: AdminSettings,
    /// Where the state is kept.
    pub store: StoreSettings,
    /// How much is counted by tenant.
    pub metrics: MetricsSettings,
    /// Who is told of what happens.
    pub notify: Vec<NotifyTarget>,
    /// Tenants and services.
    pub structure: Structure,
    /// What is allowed but hardly meant, as `key: why`; worth a line in the log.
    pub warnings: Vec<String>,
}

/// Where requests come in, and their limits.
#[derive(Clone, PartialEq)]
pub struct ProxySettings {
    /// Addresses for HTTP/1.1 and h2c. Port 0 is any free port.
    pub listen: Vec<SocketAddr>,
    /// Threads that serve requests, 0 to 1024; 0: one per core.
    pub threads: usize,
    /// Addresses for TLS.
    pub tls: Vec<TlsListener>,
    /// Addresses whose forwarded and tenant headers are believed.
    pub trusted: Vec<ipnet::IpNet>,
    /// Addresses whose connections begin with a PROXY protocol header.
    pub proxy_protocol: Vec<ipnet::IpNet>,
    /// What a client may use up.
    pub limits: Limits,
    /// One line for each request.
    pub access_log: AccessLog,
    /// A span for each request.
    pub tracing: Tracing,
    /// How long requests in flight may finish after SIGTERM, 0 to 1 day.
    pub drain_timeout: Duration,
    /// How long `/readyz` answers 503 before the listeners close, 0 to 1 h.
    pub ready_delay: Duration,
    /// Whether the file is read again by itself when it changes.
    pub watch: bool,
    /// Unix socket on which another process may ask to take over; none: nobody can. Relative paths were joined to the
    /// folder of the configuration file.
    pub handover: Option<PathBuf>,
    /// The first signs cookies, all are accepted; at least 32 characters each. Empty: made at the first start and kept
    /// in the store.
    pub cookie_secret: Vec<String>,
    /// Unused connections to endpoints that are kept open, all endpoints together.
    pub upstream_keepalive: usize,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            threads: 0,
            tls: Vec::new(),
            trusted: Vec::new(),
            proxy_protocol: Vec::new(),
            limits: Limits::default(),
            access_log: AccessLog::default(),
            tracing: Tracing::default(),
            drain_timeout: Duration::from_secs(30),
            ready_delay: Duration::ZERO,
            watch: false,
            handover: None,
            cookie_secret: Vec::new(),
            upstream_keepalive: 1024,
        }
    }
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxySettings")
            .field("listen", &self.listen)
            .field("threads", &self.threads)
            .field("tls", &self.tls)
            .field("trusted", &self.trusted)
            .field("proxy_protocol", &self.proxy_protocol)
            .field("limits", &self.limits)
            .field("access_log", &self.access_log)
            .field("tracing", &self.tracing)
            .field("drain_timeout", &self.drain_timeout)
            .field("ready_delay", &self.ready_delay)
            .field("watch", &self.watch)
            .field("handover", &self.handover)
            .field("cookie_secret", &self.cookie_secret.first().map(|_| "[secret]"))
            .field("upstream_keepalive", &self.upstream_keepalive)
            .finish()
    }
}

/// An address for HTTP/1.1 and h2 over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsListener {
    /// The address. Port 0 is any free port.
    pub listen: SocketAddr,
    /// Certificates, chosen by SNI. At least one.
    pub certificates: Vec<CertificateFiles>,
    /// Authorities of which clients must have a certificate; none: clients need none.
    pub client_ca: Option<PathBuf>,
    /// Clients without a certificate are refused only by services that need one.
    pub client_certificates_optional: bool,
    /// Clients that ask for a name without a certificate are refused instead of shown the first.
    pub refuse_unknown_names: bool,
    /// The oldest version of TLS that is spoken.
    pub min_version: TlsVersion,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    V1_2,
    /// 1.3.
    V1_3,
}

/// A certificate and its key in PEM files. Relative paths were joined to the folder of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Certificate, then its chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// What a client may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest request head in bytes, 1 KiB to 1 MiB.
    pub header_size: u64,
    /// Most headers of a request, 1 to 256.
    pub headers: usize,
    /// Time for the request head.
    pub header_timeout: Duration,
    /// Largest request body in bytes; none: any.
    pub body_size: Option<u64>,
    /// Longest pause between two parts of a request body.
    pub body_timeout: Duration,
    /// Bytes per second below which a request body is given up, once it was waited for longer than `body_timeout`; 0: any.
    pub min_body_rate: u64,
    /// Most client connections at a time, at least 1.
    pub connections: usize,
    /// Most connections of one client address (of IPv6: one /64) at a time, at least 1. Not for trusted addresses.
    pub connections_per_address: usize,
    /// Most requests at a time, of all services together; none: any.
    pub requests: Option<usize>,
    /// How long an unused client connection stays open.
    pub keepalive_timeout: Duration,
    /// Requests after which a client connection is closed; none: never.
    pub keepalive_requests: Option<u32>,
    /// How long a client may take nothing of the answer.
    pub write_timeout: Duration,
    /// Requests that one HTTP/2 connection may have open at a time, at least 1.
    pub h2_streams: u32,
    /// Frames without content that one HTTP/2 connection may send per second, at least 1; four times as many at once.
    pub h2_control_frames: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_size: 64 << 10,
            headers: 100,
            header_timeout: Duration::from_secs(10),
            body_size: Some(1 << 30),
            body_timeout: Duration::from_secs(30),
            min_body_rate: 256,
            connections: 20_000,
            connections_per_address: 2_000,
            requests: Some(20_000),
            keepalive_timeout: Duration::from_secs(75),
            keepalive_requests: Some(10_000),
            write_timeout: Duration::from_secs(30),
            h2_streams: 32,
            h2_control_frames: 1_000,
        }
    }
}

/// One line for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Whether it is written.
    pub enabled: bool,
    /// File to which lines are added; none: standard output.
    pub path: Option<PathBuf>,
    /// Lines that may wait to be written, at least 1.
    pub queue: usize,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { enabled: false, path: None, queue: 10_000 }
    }
}

/// A span for each request, sent to a collector of OpenTelemetry.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Where the collector listens; none: no spans are made.
    pub endpoint: Option<String>,
    /// Headers that are sent to it.
    pub headers: Vec<(http::HeaderName, Hidden)>,
    /// The resource's `service.name`.
    pub service_name: String,
    /// Share of the requests without a parent that are recorded.
    pub sample: BasisPoints,
    /// Whose parents say whether a request is recorded.
    pub parent: FollowParent,
    /// Requests whose spans may wait to be sent, at least 1.
    pub queue: usize,
    /// Most requests whose spans are sent together, at least 1.
    pub batch: usize,
    /// How long spans wait for others, 10 ms to 1 h.
    pub delay: Duration,
    /// How long the collector may take, 10 ms to 1 h.
    pub timeout: Duration,
}

/// Whose `traceparent` says whether a request is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowParent {
    /// Everybody's.
    All,
    /// That of trusted addresses.
    Trusted,
    /// Nobody's.
    None,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: Vec::new(),
            service_name: "switchback".to_owned(),
            sample: BasisPoints::new(100).unwrap_or(BasisPoints::ZERO),
            parent: FollowParent::All,
            queue: 4_096,
            batch: 512,
            delay: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
        }
    }
}

/// The admin API.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminSettings {
    /// The address; none: no admin API. Without tokens it is on loopback.
    pub listen: Option<SocketAddr>,
    /// Who may use the API; empty: everyone who reaches it.
    pub tokens: Vec<Token>,
    /// Further values of the host header, lower case, with or without port.
    pub allowed_hosts: Vec<String>,
    /// Largest body of a request in bytes, 1 KiB to 1 GiB.
    pub body_size: u64,
    /// Networks in which endpoints of registered versions may lie besides those that are open anyway.
    pub endpoint_networks: Vec<ipnet::IpNet>,
    /// Where people reach the dashboard, without a slash at the end; stands in notifications.
    pub public_url: Option<String>,
}

impl AdminSettings {
    /// Where endpoints of registered versions may lie.
    pub fn reach(&self) -> Reach {
        Reach::new(self.endpoint_networks.clone())
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9900))),
            tokens: Vec::new(),
            allowed_hosts: Vec::new(),
            body_size: 1 << 20,
            endpoint_networks: Vec::new(),
            public_url: None,
        }
    }
}

/// A token of the admin API.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Who it belongs to; the author of changes.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token {{ name: {:?}, role: {:?}, sha256: [secret] }}", self.name, self.role)
    }
}

/// What a token may do. Each role may do what the one before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Changes splits, pins and rollouts.
    Operator,
    /// Changes everything.
    Admin,
}

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The database. A relative path was joined to the folder of the configuration file.
    pub path: PathBuf,
    /// Whether the last good state is kept beside the database, or where the database would be.
    pub last_good: bool,
    /// Secrets that seal what the proxy keeps there for itself, each of at least 32 characters: the first seals, all open.
    pub secret: Vec<Hidden>,
    /// How many events of the history are kept, 1,000 to 10,000,000; none: as many as suits the store.
    pub keep_events: Option<u64>,
    /// Set when the state is kept in etcd instead.
    pub etcd: Option<EtcdSettings>,
}

/// How etcd is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// Addresses of its members, all `http://` or all `https://`.
    pub endpoints: Vec<String>,
    /// What the keys begin with.
    pub prefix: String,
    /// Name and password.
    pub user: Option<(String, Hidden)>,
    /// PEM text of the authorities that its certificates come from.
    pub ca: Option<String>,
    /// PEM texts of the certificate that it is shown, and of the key.
    pub identity: Option<(String, Hidden)>,
    /// Whether old versions are removed from it.
    pub compact: bool,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("switchback.db"),
            last_good: true,
            secret: Vec::new(),
            keep_events: None,
            etcd: None,
        }
    }
}

/// How much is counted by tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsSettings {
    /// How many of the busiest and of the worst tenants have metrics of their own.
    pub tenants: usize,
    /// Tenants that are counted one by one, at least 1.
    pub tracked_tenants: usize,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { tenants: 20, tracked_tenants: 50_000 }
    }
}
