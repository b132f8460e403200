//! What is copied to a version that users do not see, and how its answers are compared.

use std::time::Duration;

use super::json_path::JsonPath;
use super::names::VersionName;
use super::share::BasisPoints;

/// The shadow of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowSpec {
    /// The version that gets the copies.
    pub version: VersionName,
    /// Share of the eligible requests that are copied.
    pub share: BasisPoints,
    /// Methods whose requests are eligible; safe ones only.
    pub methods: Vec<http::Method>,
    /// Whether copies carry what clients prove with who they are.
    pub credentials: bool,
    /// Fields of JSON answers that may differ.
    pub ignore: Vec<JsonPath>,
    /// Share of the copied requests that are sent to the baseline a second time, to learn what differs by itself. Zero:
    /// the baseline is never asked twice.
    pub noise_share: BasisPoints,
    /// The largest answer that is compared, in bytes, compressed or not.
    pub body: u64,
    /// How long a copy may take as a whole.
    pub timeout: Duration,
    /// Copies on their way at a time.
    pub concurrency: u32,
    /// Copies that may wait; more are dropped.
    pub queue: u32,
    /// Share of compared requests that may differ, above zero.
    pub max_difference: BasisPoints,
}

impl ShadowSpec {
    /// The defaults, with copies to this version.
    pub fn new(version: VersionName) -> Self {
        Self {
            version,
            share: points(1_000),
            methods: vec![http::Method::GET, http::Method::HEAD],
            credentials: false,
            ignore: Vec::new(),
            noise_share: points(1_000),
            body: 256 << 10,
            timeout: Duration::from_secs(5),
            concurrency: 16,
            queue: 100,
            max_difference: points(100),
        }
    }
}

fn points(points: u16) -> BasisPoints {
    BasisPoints::new(points).unwrap_or_default()
}
