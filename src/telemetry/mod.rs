//! What the proxy counts, measures and writes down.
//!
//! * [`Tallies`]: cumulative counts and latencies per service, tenant and version, and the evidence per split epoch.
//!   The request path only adds; the tick and the admin API only read.
//! * [`RouteTable`]: the same by route, for people only: the guard does not look at it.
//! * [`Windows`]: a bounded history of those counts, for people and for plain limits.
//! * [`Metrics`]: everything under `/metrics`, read from the same counters at each scrape.
//! * [`Tracer`]: spans for a collector of OpenTelemetry, where one is configured.
//! * [`AccessLog`] and [`tracing`]: one line per request, and what the process has to say about itself.
//!
//! The request path takes no lock here, makes no system call and, once a scope is known, allocates at most one small
//! block per request.

mod access_log;
mod cells;
mod collector;
mod detours;
mod epoch;
mod families;
mod keys;
pub mod latency;
mod messages;
mod metrics;
mod outcome;
mod route_table;
mod route_window;
mod scope;
mod service;
mod sessions;
mod shadow;
mod sketch;
mod span_export;
mod spoken;
mod streams;
mod tally;
#[cfg(test)]
mod tests;
mod ticket;
mod top_tenants;
mod totals;
mod trace_context;
mod tracer;
pub mod tracing;
mod window;

pub use access_log::{AccessLine, AccessLog, AccessLogError, LogTarget};
pub use cells::VersionMetrics;
pub use detours::{Detour, DetourCounts, Rescue};
pub use epoch::{ArmReading, BadKey, EpochTally, SignalReading, TallySignal};
pub use keys::KeySet;
pub use metrics::{Guarded, Metrics};
pub use outcome::{FailureKind, Fault, Outcome, code_class};
pub use route_table::{OTHER_ROUTE, RouteRequest, RouteTable};
pub use route_window::RouteStats;
pub use scope::{OTHER_TENANT, ScopeTally};
pub use service::{Draw, ServiceTally, Start};
pub use sessions::SessionResult;
pub use shadow::{ShadowCounts, ShadowResult};
pub use streams::{OpenStream, StreamClose, StreamCounts};
pub use tally::{ScopeHandle, Tallies};
pub use ticket::Ticket;
pub use top_tenants::{TenantSeries, TopTenants};
pub use totals::{TotalsReading, VersionTotals};
pub use trace_context::TraceParent;
pub use tracer::{SpanCounts, Tracer, TracerError, TracerSettings};
pub use window::{
    BothTimes, CarriedWindows, Point, Recorded, RecordedVersion, Series, TotalsDelta, VersionSeries, VersionStats,
    Windows,
};
