//! That a version is deprecated: since when, until when it is served, and where to read about it.

use serde::{Deserialize, Serialize};

use super::unknown::Unknown;

/// What clients of a deprecated version are told. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deprecation {
    /// Since when, or from when on, it is deprecated.
    pub since_s: i64,
    /// When it will stop being served; not before `since_s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sunset_s: Option<i64>,
    /// Page about it: an absolute `http` or `https` address of visible ASCII without `<`, `>` and `"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}
