//! Plain values that every room shares: names, shares, splits, the structure of services and the state.
//!
//! Nothing here does I/O, reads a clock or draws a random number. Time and randomness come in as parameters, so every
//! function gives the same answer in every process and in every test.

mod guard;
mod names;
mod share;
mod spec;
mod split;

pub use guard::{GuardSpec, PlainLimits};
pub use names::{GroupName, NameError, ServiceName, TenantName, UserName, VersionName};
pub use share::{BUCKETS, BasisPoints, ShareError, Weights};
pub use spec::{
    ChooseSpec, Conflict, EndpointError, EndpointSpec, HeaderSpec, HealthSpec, JwtKey, JwtSpec, KeySource, MatchRule,
    Rewrite, ServiceSpec, Structure, TenantSource, TenantsSpec, Timeouts, UnknownTenant, UpstreamTls, VersionSpec,
};
pub use split::{Brake, Bucket, RolledBack, Slice, Split, derive_salt};
