//! The arguments of the verbs that call the admin API. The texts here are the help that users see.

use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::values::{duration, header, interval, rewrite};
use super::weights::WeightArg;
use crate::model::{EndpointSpec, EventKind};

/// `status`.
#[derive(Args)]
pub struct StatusArgs {
    /// Keep showing until Ctrl-C; with -o json, one document per line
    #[arg(short, long)]
    pub watch: bool,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    pub interval: Duration,
}

/// `top`.
#[derive(Args)]
pub struct TopArgs {
    /// Only this service, with its detail
    #[arg(long, value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    pub service: Option<String>,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
}

/// `services …`.
#[derive(Subcommand)]
pub enum ServicesVerb {
    /// All services
    List,
    /// One service with its versions, splits and pins
    Get {
        /// Name of the service
        service: String,
    },
}

/// Options of everything that changes something.
#[derive(Args)]
pub struct ChangeArgs {
    /// Why; it stands in the history
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub reason: Option<String>,
    /// How to change.
    #[command(flatten)]
    pub how: HowArgs,
}

/// How a change is made.
#[derive(Args)]
pub struct HowArgs {
    /// Check and show the outcome, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Refuse when the document is no longer at this revision
    #[arg(long, value_name = "N")]
    pub if_revision: Option<u64>,
}

/// Whose split: the service's when neither is given.
#[derive(Args)]
pub struct ScopeArgs {
    /// Of this tenant
    #[arg(long, value_name = "TENANT", conflicts_with = "group", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
    /// Of this group of tenants
    #[arg(long, value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
    pub group: Option<String>,
}

/// `split …`.
#[derive(Subcommand)]
pub enum SplitVerb {
    /// Show which version gets which share
    Get {
        /// Name of the service
        service: String,
        /// Whose split.
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// Set the shares; they add up to 100
    Set {
        /// Name of the service
        service: String,
        /// Shares in percent with at most two decimals; one version may leave it out and get the rest
        #[arg(required = true, value_name = "VERSION[=PERCENT]")]
        weights: Vec<WeightArg>,
        /// Whose split.
        #[command(flatten)]
        scope: ScopeArgs,
        /// Why and how.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Let a tenant or group follow the less specific split again
    #[command(group(ArgGroup::new("whose").args(["tenant", "group"]).required(true)))]
    Clear {
        /// Name of the service
        service: String,
        /// Whose split.
        #[command(flatten)]
        scope: ScopeArgs,
        /// Why and how.
        #[command(flatten)]
        change: ChangeArgs,
    },
}

/// `versions …`.
#[derive(Subcommand)]
pub enum VersionsVerb {
    /// All versions of a service
    List {
        /// Name of the service
        service: String,
    },
    /// Register a version or change a registered one; it gets no traffic by that
    Register(Box<RegisterArgs>),
    /// Remove a registered version that has no traffic
    Remove {
        /// Name of the service
        service: String,
        /// Name of the version
        version: String,
        /// Why and how.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Take a version out of every split, at once; its keys go to the baseline
    Disable {
        /// Name of the service
        service: String,
        /// Name of the version
        version: String,
        /// Why and how.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Let splits and pins name a disabled version again; no traffic moves by that
    Enable {
        /// Name of the service
        service: String,
        /// Name of the version
        version: String,
        /// Why and how.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Tenants that still use a version, most requests first
    Tenants {
        /// Name of the service
        service: String,
        /// Name of the version
        version: String,
        /// How far to look back, up to 15m; without it, since the proxy began
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        window: Option<String>,
        /// At most this many
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
}

/// `maintenance …`.
#[derive(Subcommand)]
pub enum MaintenanceVerb {
    /// Answer with 503 from now on, or change what clients read
    On {
        /// Name of the service
        service: String,
        /// Only this tenant's requests
        #[arg(long, value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
        tenant: Option<String>,
        /// What clients read
        #[arg(long, value_name = "TEXT")]
        message: Option<String>,
        /// When clients should try again
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
        retry_after: String,
        /// Why and how.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Serve again
    Off {
        /// Name of the service
        service: String,
        /// Only this tenant's requests
        #[arg(long, value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
        tenant: Option<String>,
        /// Why and how.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show what is in maintenance
    Get {
        /// Name of the service
        service: String,
        /// Only this tenant
        #[arg(long, value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
        tenant: Option<String>,
    },
}

/// `versions register`: the same fields as in the configuration.
#[derive(Args)]
pub struct RegisterArgs {
    /// Name of the service
    pub service: String,
    /// Name of the version
    pub version: String,
    /// Address of the version, may be repeated; a host may contain {tenant}
    #[arg(long = "endpoint", value_name = "HOST:PORT", required = true)]
    pub endpoints: Vec<EndpointSpec>,
    /// Path that must answer with 2xx
    #[arg(long, value_name = "PATH")]
    pub health_path: Option<String>,
    /// Time between two health checks
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub health_interval: Option<String>,
    /// Until a connection stands
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub connect_timeout: Option<String>,
    /// Until the first byte of the answer
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub response_timeout: Option<String>,
    /// Between two reads or writes of a body
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub idle_timeout: Option<String>,
    /// Beginning of the path that selects this version whatever the split says
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Replace the beginning of the path on the way to the endpoints
    #[arg(long, value_name = "FROM=TO", value_parser = rewrite)]
    pub rewrite: Option<(String, String)>,
    /// What the host header says towards the endpoints
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Since when it is deprecated, such as 2026-06-01
    #[arg(long, value_name = "DATE")]
    pub deprecated_since: Option<String>,
    /// When it will stop being served
    #[arg(long, value_name = "DATE", requires = "deprecated_since")]
    pub sunset: Option<String>,
    /// Page about the deprecation
    #[arg(long, value_name = "URL", requires = "deprecated_since")]
    pub deprecation_link: Option<String>,
    /// Speak HTTP/2 to the endpoints
    #[arg(long)]
    pub http2: bool,
    /// Speak TLS to the endpoints
    #[arg(long)]
    pub tls: bool,
    /// Name that the endpoints' certificate must have
    #[arg(long, value_name = "HOST", requires = "tls")]
    pub tls_server_name: Option<String>,
    /// File on the proxy's machine with the authorities that the certificate must come from
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub tls_ca: Option<String>,
    /// File on the proxy's machine with the certificate that the proxy shows
    #[arg(long, value_name = "FILE", requires = "tls", requires = "tls_key")]
    pub tls_cert: Option<String>,
    /// File on the proxy's machine with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls", requires = "tls_cert")]
    pub tls_key: Option<String>,
    /// Why and how.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `tenants …`.
#[derive(Subcommand)]
pub enum TenantsVerb {
    /// Tenants with a split of their own
    List {
        /// Name of the service
        service: String,
        /// Only names that contain this
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// Only names after this one
        #[arg(long, value_name = "TENANT")]
        after: Option<String>,
        /// At most this many
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
}

/// Who is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PinKind {
    /// A customer of the operator
    Tenant,
    /// A user, as the service's sticky key names it
    User,
    /// A group of tenants
    Group,
}

impl PinKind {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

/// `pin`.
#[derive(Args)]
pub struct PinArgs {
    /// Name of the service
    pub service: String,
    /// Who is pinned
    #[arg(value_enum)]
    pub kind: PinKind,
    /// Name of the tenant, user or group
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub name: String,
    /// To which version
    pub version: String,
    /// Keep away from the version instead of sending there
    #[arg(long)]
    pub exclude: bool,
    /// Why and how.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `unpin`.
#[derive(Args)]
pub struct UnpinArgs {
    /// Name of the service
    pub service: String,
    /// Who is pinned
    #[arg(value_enum)]
    pub kind: PinKind,
    /// Name of the tenant, user or group
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub name: String,
    /// Why and how.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `hold`.
#[derive(Args)]
pub struct HoldArgs {
    /// Name of the service
    pub service: String,
    /// Why and how.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `release`.
#[derive(Args)]
pub struct ReleaseArgs {
    /// Name of the service
    pub service: String,
    /// Why and how.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `baseline`.
#[derive(Args)]
pub struct BaselineArgs {
    /// Name of the service
    pub service: String,
    /// The version to trust
    pub version: String,
    /// Why and how.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `keys …`.
#[derive(Subcommand)]
pub enum KeysVerb {
    /// Sign cookies with a new key; the three before it are still accepted
    Rotate {
        /// Why; it stands in the history
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: Option<String>,
    },
}

/// `notify …`.
#[derive(Subcommand)]
pub enum NotifyVerb {
    /// The targets and how they fare
    List,
    /// Send a test message, and say whether it arrived
    Test {
        /// Name of the target; without it, all of them
        target: Option<String>,
    },
}

/// `rollback`.
#[derive(Args)]
pub struct RollbackArgs {
    /// Name of the service
    pub service: String,
    /// Only this tenant's traffic
    #[arg(long, value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
    /// Only the share of this canary
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Why; it stands in the history
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,
    /// How to change.
    #[command(flatten)]
    pub how: HowArgs,
}

/// `compare`.
#[derive(Args)]
pub struct CompareArgs {
    /// Name of the service
    pub service: String,
    /// The one version, usually the baseline
    pub a: String,
    /// The other version, usually the canary
    pub b: String,
    /// Only this tenant's requests
    #[arg(long, value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
    /// How far to look back
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub since: String,
    /// Only by this, and all routes that are known instead of the worst
    #[arg(long, value_name = "WHAT", conflicts_with = "tenant")]
    pub by: Option<By>,
}

/// What two versions are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Method and path
    Route,
    /// Tenant
    Tenant,
}

/// `shadow`.
#[derive(Args)]
pub struct ShadowArgs {
    /// Name of the service
    pub service: String,
}

/// `stats`.
#[derive(Args)]
pub struct StatsArgs {
    /// Name of the service
    pub service: String,
    /// Only this tenant's requests
    #[arg(long, value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
    /// Only this route, such as "GET /v1/orders/{id}"
    #[arg(long, value_name = "ROUTE", conflicts_with = "tenant", value_parser = NonEmptyStringValueParser::new())]
    pub route: Option<String>,
    /// How far to look back; without it, since the split was set
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub window: Option<String>,
}

/// `explain`.
#[derive(Args)]
pub struct ExplainArgs {
    /// Name of the service
    pub service: String,
    /// The tenant
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// What stays together on one version: user, session, address
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Path of the request
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Host of the request
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Method of the request
    #[arg(long, value_name = "METHOD")]
    pub method: Option<String>,
    /// Header of the request, may be repeated
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header)]
    pub headers: Vec<String>,
    /// Address the request comes from
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<std::net::IpAddr>,
}

/// `events`.
#[derive(Args)]
pub struct EventsArgs {
    /// Go on with new events until Ctrl-C; with -o json, one document per line
    #[arg(short, long)]
    pub follow: bool,
    /// Only events of this service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// Only events of this tenant
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Only events of this kind
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(EventKind::ALL.map(EventKind::as_str)))]
    pub kind: Option<String>,
    /// At most this many of the past, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Only events with a larger id; without it, the newest
    #[arg(long, value_name = "ID")]
    pub after: Option<u64>,
}
