//! From the head of a request to the version that serves it: a pure function over the compiled routes.
//!
//! Match the service, find the tenant, look at exclusions and pins, find the key, look up the split. Time and randomness
//! come in with the request head; nothing here waits, locks or, on the common path, allocates.

mod cookie;
mod decide;
mod endpoints;
mod explain;
#[cfg(test)]
#[path = "fixture_tests.rs"]
mod fixture;
mod matching;
mod routes;
mod tenant;

pub use cookie::CookieSigner;
pub use decide::{Decision, Drawn, Head, Refusal, Silent, SplitOwner, Trace, decide, split_for, tenant_hash};
pub use endpoints::{Endpoint, EndpointSet, InUse};
pub use explain::{Explanation, Step, explain};
pub use matching::{has_prefix, rewrite};
pub use routes::{CompileError, Context, Routes, ServiceRoute, VersionRoute};
pub use tenant::TokenKeyError;
