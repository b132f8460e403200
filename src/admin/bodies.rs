//! The bodies that changes take. Unknown fields are refused: a field that is misspelt must not be silently ignored.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::model::{VersionName, Weights};

/// Shares of a split.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SplitBody {
    /// Percent by version, at most two decimals, adding up to 100.
    #[schema(value_type = BTreeMap<String, f64>, example = json!({ "1.0.0": 90, "2.0.0": 10 }))]
    pub weights: Weights,
    /// Why; shown in the history.
    pub reason: Option<String>,
}

/// A pin; exactly one of `version` and `exclude`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PinBody {
    /// Goes to this version, whatever the split says.
    #[schema(value_type = Option<String>, example = "2.0.0")]
    pub version: Option<VersionName>,
    /// Never goes to this version.
    #[schema(value_type = Option<String>)]
    pub exclude: Option<VersionName>,
    /// Why; shown in the history.
    pub reason: Option<String>,
}

/// Taking traffic back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackBody {
    /// Why; shown in the history, must not be empty.
    #[schema(example = "checkout fails for customers with two carts")]
    pub reason: String,
    /// Only the traffic of this version; without it, of every canary.
    #[schema(value_type = Option<String>)]
    pub version: Option<VersionName>,
}

/// Why a version is disabled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DisableBody {
    /// Why; shown with the version and in the history.
    #[schema(example = "CVE in its PDF library")]
    pub reason: Option<String>,
}

/// Why a service is held.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HoldBody {
    /// Why; shown in the history.
    pub reason: Option<String>,
}

/// Why a new key signs cookies.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateBody {
    /// Why; shown in the history.
    pub reason: Option<String>,
}

/// Who gets a test message.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NotifyTestBody {
    /// Name of the target; all of them without it.
    pub target: Option<String>,
}

/// The version to trust.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BaselineBody {
    /// Where traffic goes back to from now on.
    #[schema(value_type = String, example = "2.0.0")]
    pub version: VersionName,
    /// Why; shown in the history.
    pub reason: Option<String>,
}

/// A version: the same fields as in the configuration file.
#[derive(Debug, ToSchema)]
#[schema(as = Version)]
#[expect(dead_code, reason = "describes the body; the configuration room reads it, so that file and API agree")]
pub(super) struct VersionBody {
    /// Addresses `host:port`; the host may contain `{tenant}`. At least one.
    #[schema(example = json!(["10.0.0.1:7101"]))]
    endpoints: Vec<String>,
    /// Active checks: `path`, `interval`, `timeout`, `healthy_after`, `unhealthy_after`.
    health: Option<BTreeMap<String, serde_json::Value>>,
    /// Deadlines: `connect`, `response`, `read`, `idle`, `stream`, `keepalive`.
    timeouts: Option<BTreeMap<String, String>>,
    /// Path prefix that selects this version whatever the split says.
    path: Option<String>,
    /// Replaces a path prefix: `from`, `to`.
    rewrite: Option<BTreeMap<String, String>>,
    /// Speak HTTP/2 to the endpoints.
    http2: Option<bool>,
    /// TLS towards the endpoints: `server_name`, `verify`, `ca`, `cert`, `key`.
    tls: Option<BTreeMap<String, serde_json::Value>>,
    /// What the `host` header says towards the endpoints.
    host: Option<String>,
    /// Tells clients to move away: `since`, `sunset`, `link`.
    deprecated: Option<BTreeMap<String, String>>,
    /// Versions from which a rollout may go to it directly; any unless given.
    upgrade_from: Option<Vec<String>>,
}
