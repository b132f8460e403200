//! The form in which the state is kept: one JSON document for each service and for each tenant with settings of its own.
//!
//! Beside the state stands the archive: documents that are kept and read one at a time when somebody asks for them.

use super::event::Event;
use super::names::{RolloutId, ServiceName, TenantName};

/// The format of the documents that this release writes. A newer one is refused, never guessed at.
pub const DOCUMENT_FORMAT: u32 = 1;

/// One stored document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it belongs.
    pub key: DocumentKey,
    /// Revision of the commit that wrote it.
    pub revision: u64,
    /// JSON text.
    pub body: String,
}

/// Where a document belongs. As text: `service/NAME`, `tenant/SERVICE/TENANT`, `rollout/ID`, `units/ID/PAGE`,
/// `secret/NAME`, `archive/NAME`, `freeze`, `snapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DocumentKey {
    /// A service's live part.
    Service(ServiceName),
    /// A tenant's settings within a service.
    Tenant(ServiceName, TenantName),
    /// A rollout.
    Rollout(RolloutId),
    /// A page of a rollout's units.
    Units(RolloutId, u32),
    /// Something the proxy made for itself, such as the key that signs cookies.
    Secret(String),
    /// Something that is kept but is not part of the state: never loaded at the start nor copied, only read by its key.
    Archive(String),
    /// A person's word that no automation may advance.
    Freeze,
    /// The list of snapshots.
    Snapshots,
}

impl DocumentKey {
    /// What the texts of all keys of the archive begin with.
    pub const ARCHIVE: &'static str = "archive/";

    /// Whether the document is kept beside the state instead of being part of it.
    pub fn is_archived(&self) -> bool {
        matches!(self, Self::Archive(_))
    }

    /// The key of that text, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "freeze" => return Some(Self::Freeze),
            "snapshots" => return Some(Self::Snapshots),
            _ => {}
        }
        let (kind, rest) = text.split_once('/')?;
        match kind {
            "service" => ServiceName::new(rest).ok().map(Self::Service),
            "secret" => Some(Self::Secret(rest.to_owned())),
            "rollout" => RolloutId::new(rest).ok().map(Self::Rollout),
            "units" => {
                let (id, page) = rest.split_once('/')?;
                Some(Self::Units(RolloutId::new(id).ok()?, page.parse().ok()?))
            }
            "archive" => Some(Self::Archive(rest.to_owned())),
            "tenant" => {
                let (service, tenant) = rest.split_once('/')?;
                Some(Self::Tenant(ServiceName::new(service).ok()?, TenantName::new(tenant).ok()?))
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(service) => write!(f, "service/{service}"),
            Self::Tenant(service, tenant) => write!(f, "tenant/{service}/{tenant}"),
            Self::Rollout(id) => write!(f, "rollout/{id}"),
            Self::Units(id, page) => write!(f, "units/{id}/{page}"),
            Self::Secret(name) => write!(f, "secret/{name}"),
            Self::Archive(name) => write!(f, "archive/{name}"),
            Self::Freeze => f.write_str("freeze"),
            Self::Snapshots => f.write_str("snapshots"),
        }
    }
}

/// What one change writes: all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commit {
    /// The revision that the change was made against; another one in the store makes the commit fail.
    pub expected: u64,
    /// The revision after the commit, larger than `expected`.
    pub revision: u64,
    /// Documents to write; their revision is that of the commit.
    pub puts: Vec<(DocumentKey, String)>,
    /// Documents to remove.
    pub deletes: Vec<DocumentKey>,
    /// Events to append; ids continue those of the store.
    pub events: Vec<Event>,
    /// Whether only the leader of a fleet may write it.
    pub leads: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_as_text() {
        let service = ServiceName::new("accounting").unwrap();
        let tenant = TenantName::new("eu/acme").unwrap();
        for key in [
            DocumentKey::Service(service.clone()),
            DocumentKey::Tenant(service, tenant),
            DocumentKey::Rollout(RolloutId::new("r7").unwrap()),
            DocumentKey::Units(RolloutId::new("r7").unwrap(), 12),
            DocumentKey::Secret("cookie".to_owned()),
            DocumentKey::Archive("snapshot/monday".to_owned()),
            DocumentKey::Freeze,
            DocumentKey::Snapshots,
        ] {
            assert_eq!(DocumentKey::parse(&key.to_string()), Some(key));
        }
        assert_eq!(DocumentKey::parse("tenant/x"), None);
        assert_eq!(DocumentKey::parse("units/r7"), None);
        assert_eq!(DocumentKey::parse("other/x"), None);
    }
}
