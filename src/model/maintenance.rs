//! What people take out of service on purpose: a service or a tenant that is in maintenance, a version that is disabled.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::Author;
use super::names::TenantName;
use super::unknown::Unknown;

/// A service or a tenant is not served for now; clients are told when to come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// What clients read; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When clients should try again, in seconds, 1 to [`Maintenance::MAX_RETRY_AFTER_S`].
    pub retry_after_s: u64,
    /// Who said so last.
    pub author: Author,
    /// When it began, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Maintenance {
    /// The most tenants of one service that may be in maintenance one by one.
    pub const MAX_TENANTS: usize = 10_000;
    /// The longest message in characters.
    pub const MAX_MESSAGE: usize = 1_000;
    /// The longest time to tell clients, in seconds: 30 days.
    pub const MAX_RETRY_AFTER_S: u64 = 30 * 24 * 3_600;
}

/// Everything of a service that is in maintenance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InMaintenance {
    /// The whole service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Maintenance>,
    /// Single tenants.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<TenantName, Maintenance>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl InMaintenance {
    /// Whether everything is served, and a newer release put nothing beside that.
    pub fn is_empty(&self) -> bool {
        self.service.is_none() && self.tenants.is_empty() && self.unknown.is_empty()
    }

    /// What holds for a tenant: its own maintenance before the service's.
    pub fn of(&self, tenant: Option<&str>) -> Option<&Maintenance> {
        tenant.and_then(|t| self.tenants.get(t)).or(self.service.as_ref())
    }
}

/// A person's word that a version gets no traffic at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// Who said so.
    pub author: Author,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Disabled {
    /// The most versions of one service that may be disabled.
    pub const MAX: usize = 1_000;
}

/// How a service in maintenance answers, and who passes all the same.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MaintenanceSpec {
    /// The operator's own HTML page; `{message}` and `{retry_after}` in it are replaced.
    pub page: Option<Arc<str>>,
    /// Requests that bring this secret in `x-switchback-bypass` are served.
    pub bypass_secret: Option<String>,
    /// Requests from these networks are served.
    pub bypass: Vec<ipnet::IpNet>,
}

impl std::fmt::Debug for MaintenanceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let page = self.page.as_ref().map(|p| format!("{} bytes", p.len()));
        let secret = self.bypass_secret.as_ref().map(|_| "[secret]");
        write!(f, "MaintenanceSpec {{ page: {page:?}, bypass_secret: {secret:?}, bypass: {:?} }}", self.bypass)
    }
}
