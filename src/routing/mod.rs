//! From the head of a request to the version that serves it: a pure function over the compiled routes.
//!
//! Match the service, find the tenant, look at exclusions and pins, find the key, look up the split. Time and randomness
//! come in with the request head; nothing here waits, locks or, on the common path, allocates.

mod budget;
mod cookie;
mod decide;
mod deprecation;
mod endpoints;
mod explain;
#[cfg(test)]
#[path = "fixture_tests.rs"]
mod fixture;
mod limiter;
mod maintenance;
mod matching;
mod route_name;
mod route_patterns;
mod routes;
mod session;
mod session_cookie;
mod shadow;
mod skew;
mod stream;
mod tenant;

pub use budget::RescueBudget;
pub use cookie::{CookieSigner, all as cookies};
pub use decide::{Decision, Drawn, Head, Refusal, Silent, SplitOwner, Trace, decide, split_for, tenant_hash};
pub use deprecation::DeprecationHeaders;
pub use endpoints::{Endpoint, EndpointSet, InUse};
pub use explain::{Explanation, Step, explain};
pub use limiter::{Limiter, OverLimit, Permit, permit};
pub use maintenance::{X_BYPASS, closed};
pub use matching::{has_prefix, rewrite};
pub use route_name::RouteName;
pub use route_patterns::RoutePatterns;
pub use routes::{CompileError, Context, Routes, ServiceRoute, VersionRoute};
pub use session::SessionOutcome;
pub use session_cookie::{SessionClaims, SessionOwner};
pub use shadow::{ShadowRoute, Waiting};
pub use stream::{StreamHead, StreamLeaves, StreamPlace};
pub use tenant::TokenKeyError;
