//! What only etcd does: several processes, outages, large commits in parts, compaction, authentication.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::conformance::{self, event, key, put};
use super::testing::{Etcd, knows};
use super::*;
use crate::model::{EventKind, ServiceName, TenantName};

fn make() -> (Arc<dyn Store>, Etcd) {
    let etcd = Etcd::start();
    (Arc::new(etcd.store()), etcd)
}

conformance::suite!(make);
