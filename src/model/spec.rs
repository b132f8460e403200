//! The structure of services as checked values: who belongs to a service, how tenants and keys are found, what versions
//! are made of. It comes from the configuration file (and, for versions, from the admin API) and changes only there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deprecation::Deprecation;
use super::guard::GuardSpec;
use super::limits::LimitsSpec;
use super::maintenance::MaintenanceSpec;
use super::names::{GroupName, ServiceName, TenantName, VersionName};
use super::route_pattern::RoutePattern;
use super::schedule::Schedule;
use super::shadow::ShadowSpec;
use super::share::{BasisPoints, Weights};
use super::streams::StreamsSpec;
use super::unknown::Unknown;

/// Everything the routes are compiled from besides the state.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Structure {
    /// How tenants are found.
    pub tenants: TenantsSpec,
    /// Services by name.
    pub services: BTreeMap<ServiceName, Arc<ServiceSpec>>,
}

/// How the tenant is found in a request, and what happens to those without one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantsSpec {
    /// Sources in order; the first that is present wins.
    pub identify: Vec<TenantSource>,
    /// What happens when two sources name different tenants.
    pub conflict: Conflict,
    /// What happens when no source names a tenant.
    pub unknown: UnknownTenant,
    /// Groups of tenants. A tenant may be in several; the first by name that has a split of its own decides.
    pub groups: BTreeMap<GroupName, BTreeSet<TenantName>>,
    /// When rollouts may move a tenant, in all services; who is not named may be moved at any time.
    pub windows: BTreeMap<TenantName, Schedule>,
}

/// One place in a request where a tenant can be named.
#[derive(Debug, Clone, PartialEq)]
pub enum TenantSource {
    /// Host pattern such as `{tenant}.api.example.com`: what stands before and after the tenant, lower case.
    Host {
        /// Text before the tenant.
        prefix: String,
        /// Text after the tenant.
        suffix: String,
    },
    /// Request header.
    Header {
        /// Lower-case header name.
        name: http::HeaderName,
        /// Believe it only from trusted addresses.
        trusted_only: bool,
    },
    /// Path pattern such as `/t/{tenant}`: what stands before the tenant's segment.
    Path {
        /// Path before the tenant, ending in `/`.
        prefix: String,
        /// Whether prefix and tenant are removed before services are matched and requests forwarded.
        strip: bool,
    },
    /// Claim of a JSON Web Token in `Authorization: Bearer`; believed only when the signature holds.
    Jwt(Arc<JwtSpec>),
}

/// How a token is checked.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtSpec {
    /// Name of the claim that holds the tenant.
    pub claim: String,
    /// Keys by which tokens may be signed; `kid` in the token's header selects one, else each is tried.
    pub keys: Vec<JwtKey>,
    /// Required issuer, if any.
    pub issuer: Option<String>,
    /// Required audience, if any.
    pub audience: Option<String>,
}

/// A key for checking signatures.
#[derive(Clone, PartialEq)]
pub struct JwtKey {
    /// Key id as in the token's header.
    pub id: Option<String>,
    /// The only algorithm accepted with this key: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA.
    pub algorithm: String,
    /// Shared secret, or public key as PEM.
    pub material: Vec<u8>,
}

impl std::fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The material may be a shared secret, and settings end up in logs.
        write!(f, "JwtKey {{ id: {:?}, algorithm: {:?}, material: [secret] }}", self.id, self.algorithm)
    }
}

/// What happens when two sources name different tenants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conflict {
    /// The source that is configured first wins.
    #[default]
    First,
    /// The request is refused with 400.
    Reject,
}

/// What happens to requests without a tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownTenant {
    /// They follow the service's split.
    #[default]
    Default,
    /// They are refused with 404.
    Reject,
}

/// A service as the file describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// Requests that belong to it: any of these rules.
    pub rules: Vec<MatchRule>,
    /// Where the key comes from: the first source that is present. Empty: every request is drawn afresh.
    pub sticky: Vec<Sticky>,
    /// Whether sessions leave a version as soon as its share is 0.
    pub drain: bool,
    /// The baseline a service starts with.
    pub baseline: VersionName,
    /// The split a service starts with.
    pub split: Weights,
    /// Services with the same salt name put the same key into the same bucket.
    pub salt: Option<String>,
    /// How testers may choose a version.
    pub choose: Option<ChooseSpec>,
    /// Versions of the file.
    pub versions: BTreeMap<VersionName, Arc<VersionSpec>>,
    /// Limits that shift traffic back.
    pub guard: Arc<GuardSpec>,
    /// Headers added on the way.
    pub headers: HeaderSpec,
    /// How often a request may be sent to another endpoint of its version when nothing was sent yet, 0 to 5.
    pub retries: u32,
    /// From the request's head until its answer's head, all attempts together; not for streams.
    pub deadline: Duration,
    /// When a request that failed on the canary is answered by the baseline; none: never.
    pub rescue: Option<RescueSpec>,
    /// Whether clients must have shown a verified certificate.
    pub client_certificate: bool,
    /// Path prefixes below which a version's 404 is looked for at the other versions; each begins with `/`.
    pub skew: Vec<String>,
    /// Largest request body in bytes; none: the proxy's limit.
    pub body_limit: Option<u64>,
    /// What each tenant may use.
    pub limits: LimitsSpec,
    /// What is copied to a version that users do not see.
    pub shadow: Option<Arc<ShadowSpec>>,
    /// How it answers in maintenance, and who passes.
    pub maintenance: MaintenanceSpec,
    /// gRPC statuses that count as failures of the version, 1 to 16.
    pub grpc_failures: Vec<u16>,
    /// What becomes of streams when a shift takes their key elsewhere.
    pub streams: StreamsSpec,
    /// Whether requests are counted by route.
    pub route_stats: bool,
    /// Routes that the operator names, at most [`RoutePattern::MAX_PER_SERVICE`].
    pub routes: Vec<RoutePattern>,
    /// When rollouts may begin and take steps.
    pub windows: Schedule,
}

/// One rule: all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchRule {
    /// Host, lower case without port; a leading `*.` matches one or more labels.
    pub host: Option<String>,
    /// Path prefix at segment borders, begins with `/`.
    pub path: Option<String>,
    /// Headers that must be there, with a value when given.
    pub headers: Vec<(http::HeaderName, Option<String>)>,
    /// Methods of which one must be used; empty: any.
    pub methods: Vec<http::Method>,
}

/// A place that keys come from, and whether what it gives keeps a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// The place.
    pub source: KeySource,
    /// How sessions are kept; none: keys follow the split.
    pub session: Option<SessionSpec>,
}

/// How a session is kept on its version while new ones follow the split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSpec {
    /// Name of the cookie that holds it.
    pub cookie: String,
    /// How long it lasts without a request, 1 min to 30 days.
    pub ttl: Duration,
}

/// Where the key of a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A request header.
    Header(http::HeaderName),
    /// A cookie of the application.
    Cookie(String),
    /// A signed cookie that the proxy sets for clients that have nothing.
    Issued {
        /// Name of the cookie.
        name: String,
        /// How long the client keeps it.
        max_age: Duration,
    },
    /// The client's address.
    Address,
    /// The tenant: all its users stay together.
    Tenant,
}

/// How testers may choose a version; from a trusted address, or with the secret as `VERSION:SECRET`.
#[derive(Clone, PartialEq, Eq)]
pub struct ChooseSpec {
    /// Header that names the version.
    pub header: Option<http::HeaderName>,
    /// Cookie that names the version.
    pub cookie: Option<String>,
    /// The secret that others than trusted addresses must add.
    pub secret: Option<String>,
}

impl std::fmt::Debug for ChooseSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secret = self.secret.as_ref().map(|_| "[secret]");
        let Self { header, cookie, .. } = self;
        write!(f, "ChooseSpec {{ header: {header:?}, cookie: {cookie:?}, secret: {secret:?} }}")
    }
}

/// When a request that failed on the canary is answered by the baseline in the same breath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RescueSpec {
    /// Methods of requests that may be sent twice. Others are rescued only when nothing was sent, or when the client says
    /// by `idempotency-key` that twice is once.
    pub methods: Vec<http::Method>,
    /// Statuses of the canary that count as failed, 500 to 599.
    pub statuses: Vec<u16>,
    /// gRPC statuses in the header of an answer that count as failed, 1 to 16.
    pub grpc: Vec<u16>,
    /// At most so many rescues for each request that the baseline gets anyway.
    pub budget: BasisPoints,
    /// So many rescues per second are within the budget even when the baseline gets little.
    pub reserve: u32,
    /// No more rescues per second than this, whatever the budget; none: the budget alone.
    pub rate: Option<u32>,
}

impl Default for RescueSpec {
    fn default() -> Self {
        use http::Method;
        Self {
            methods: vec![Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE],
            statuses: vec![500, 502, 503, 504],
            grpc: vec![14],
            budget: BasisPoints::new(2_000).unwrap_or(BasisPoints::ALL),
            reserve: 5,
            rate: None,
        }
    }
}

/// Headers that are added on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderSpec {
    /// `x-switchback-version` towards clients.
    pub version: bool,
    /// `server-timing` towards clients.
    pub server_timing: bool,
    /// `forwarded` (RFC 7239) towards backends.
    pub forwarded: bool,
}

impl Default for HeaderSpec {
    fn default() -> Self {
        Self { version: true, server_timing: false, forwarded: false }
    }
}

/// One release of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSpec {
    /// Addresses `host:port`, where the host may contain `{tenant}`. At least one.
    pub endpoints: Vec<EndpointSpec>,
    /// Active checks; none: endpoints count as healthy until requests fail to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// Deadlines towards the endpoints.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Path prefix that selects this version whatever the split says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Replaces a path prefix on the way to the endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Speak HTTP/2 to the endpoints.
    #[serde(default)]
    pub http2: bool,
    /// TLS towards the endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// What the `host` header says towards the endpoints; none: what the client said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Set while clients are told to move away from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<Deprecation>,
    /// Versions from which a service may go to it directly; empty: from any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upgrade_from: Vec<VersionName>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// An address of a version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointSpec {
    /// An address that needs no look-up.
    Address(SocketAddr),
    /// A name that is looked up in the background.
    Name {
        /// DNS name, lower case.
        host: String,
        /// Port.
        port: u16,
    },
    /// A name for each tenant: `{tenant}` is replaced.
    PerTenant {
        /// DNS name or address with `{tenant}`.
        host: String,
        /// Port.
        port: u16,
    },
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an endpoint; allowed is host:port, such as \"10.0.0.1:7001\", \"[::1]:7001\" or \"{{tenant}}.internal:7001\""
)]
pub struct EndpointError {
    /// What was given.
    pub text: String,
}

impl std::str::FromStr for EndpointSpec {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let bad = || EndpointError { text: text.to_owned() };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(bad()) } else { Ok(Self::Address(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port: u16 = port.parse().ok().filter(|p| *p > 0).ok_or_else(bad)?;
        let host = host.to_ascii_lowercase();
        let plain = host.replace("{tenant}", "t");
        let label = |l: &str| {
            !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if plain.len() > 253
            || !plain.split('.').all(label)
            || plain.bytes().all(|b| b.is_ascii_digit() || b == b'.') && plain == host
        {
            return Err(bad());
        }
        Ok(if plain == host { Self::Name { host, port } } else { Self::PerTenant { host, port } })
    }
}

impl std::fmt::Display for EndpointSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } | Self::PerTenant { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Serialize for EndpointSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EndpointSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How endpoints are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// Path to ask for; none: a TCP connection is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Time between checks, 100 ms to 1 h.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good checks in a row until an endpoint counts as healthy again.
    pub healthy_after: u32,
    /// Failed checks in a row until an endpoint counts as unhealthy.
    pub unhealthy_after: u32,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            path: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            healthy_after: 2,
            unhealthy_after: 3,
            unknown: Default::default(),
        }
    }
}

/// Deadlines towards the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Until a connection stands, TLS included.
    pub connect: Duration,
    /// From the end of the request until the head of the answer is there, streams included.
    pub response: Duration,
    /// Between two parts of the answer.
    #[serde(default = "pause_in_answer")]
    pub read: Duration,
    /// Between two parts of a request body that the endpoint takes.
    pub idle: Duration,
    /// Instead of `read` and `idle` for WebSocket, server-sent events and gRPC.
    pub stream: Duration,
    /// How long an unused connection is kept; stay below the endpoint's own keep-alive.
    pub keepalive: Duration,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(30),
            read: pause_in_answer(),
            idle: Duration::from_secs(60),
            stream: Duration::from_secs(3600),
            keepalive: Duration::from_secs(30),
            unknown: Default::default(),
        }
    }
}

/// Replaces a path prefix at segment borders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// Prefix that is replaced, begins with `/`.
    pub from: String,
    /// What stands there instead, begins with `/`.
    pub to: String,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// TLS towards the endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamTls {
    /// Name the certificate must have; none: the endpoint's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Off only for test set-ups: any certificate is accepted.
    #[serde(default = "yes")]
    pub verify: bool,
    /// File with the authorities that endpoints' certificates may come from, seen from the configuration's folder; none:
    /// those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// What the proxy shows to endpoints that ask for a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientFiles>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Files of a client certificate, seen from the configuration's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFiles {
    /// The chain, the client's own certificate first.
    pub cert: String,
    /// Its private key.
    pub key: String,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl ServiceSpec {
    /// What would be a 5xx over HTTP: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. The
    /// others speak of the request, or of its client's quota.
    pub const GRPC_FAILURES: [u16; 6] = [2, 4, 12, 13, 14, 15];
}

impl VersionSpec {
    /// Whether a service may go from that version to this one directly.
    pub fn may_follow(&self, before: &VersionName) -> bool {
        self.upgrade_from.is_empty() || self.upgrade_from.contains(before)
    }

    /// Whether anyone could answer in the endpoints' place, since their certificates are not looked at.
    pub fn is_unverified(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.verify)
    }
}

/// Versions that were stored before there was such a limit have the default.
fn pause_in_answer() -> Duration {
    Duration::from_secs(30)
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_names_or_patterns() {
        let parse = |t: &str| t.parse::<EndpointSpec>();
        assert!(matches!(parse("127.0.0.1:7001"), Ok(EndpointSpec::Address(_))));
        assert!(matches!(parse("[::1]:7001"), Ok(EndpointSpec::Address(_))));
        assert!(
            matches!(parse("API.internal:80"), Ok(EndpointSpec::Name { host, port: 80 }) if host == "api.internal")
        );
        assert!(matches!(parse("{tenant}.internal:80"), Ok(EndpointSpec::PerTenant { .. })));
        for bad in [
            "",
            "host",
            "host:",
            "host:0",
            "host:99999",
            "127.0.0.1",
            "127.0.0.1:0",
            "1.2.3:80",
            "a b:80",
            "http://x:80",
            "a..b:80",
            "{user}.x:1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("{tenant}.x:80").unwrap().to_string(), "{tenant}.x:80");
    }
}
