//! What the tests of the room share.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::feed::Feed;
use super::severity::severity_of;
use super::story::Story;
use super::{Notifier, NotifyParts};
use crate::config;
use crate::control::{Parts, start};
use crate::model::{Author, Change, ChangeRequest, Event, EventKind, Severity};
use crate::proxy::Clock;
use crate::store::MemoryStore;
use crate::telemetry::{Metrics, Tallies};

/// An event about version 2.0.0 of the service shop.
pub(super) fn event(kind: EventKind, tenant: Option<&str>) -> Event {
    Event {
        id: 7,
        revision: 3,
        at_ms: 1_700_000_000_000,
        kind,
        service: Some("shop".parse().unwrap()),
        tenant: tenant.map(|t| t.parse().unwrap()),
        group: None,
        rollout: None,
        version: Some("2.0.0".parse().unwrap()),
        author: Author::Autopilot,
        reason: String::new(),
        cause: None,
        before: Value::Null,
        after: Value::Null,
        evidence: Value::Null,
        first_bad_to_rollback_ms: None,
    }
}

/// Its story, when nothing else is known.
pub(super) fn story(event: Event) -> Arc<Story> {
    let baseline = Some("1.0.0".parse().unwrap());
    Arc::new(Story { event, baseline, routes: Vec::new(), tenants: Vec::new(), over: Vec::new() })
}

#[test]
fn only_rollbacks_wake_people() {
    let critical: Vec<_> = EventKind::ALL.into_iter().filter(|k| severity_of(*k) == Severity::Critical).collect();
    assert_eq!(critical, [EventKind::Rollback, EventKind::RolloutRolledBack]);
    assert_eq!(severity_of(EventKind::HoldSlo), Severity::Warning);
    assert_eq!(severity_of(EventKind::SplitSet), Severity::Info);
}

/// A target whose receiver does not exist.
const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:0"]
[services.shop]
match = [{ path = "/" }]
baseline = "1.0.0"
versions = { "1.0.0" = { endpoints = ["a:1"] }, "2.0.0" = { endpoints = ["a:2"] } }
[[notify]]
name = "nobody"
type = "slack"
url = "http://127.0.0.1:1/"
"#;

#[tokio::test]
async fn who_lags_behind_reads_the_history_from_where_it_was() {
    let tallies = Arc::new(Tallies::new(10));
    let metrics = Arc::new(Metrics::new(tallies.clone(), 1));
    let parts = Parts {
        settings: config::parse(FILE, Path::new("/etc/switchback.toml"), &|_| None).unwrap(),
        store: Arc::new(MemoryStore::new()),
        last_good: None,
        salvaged: None,
        returns: false,
        tallies: tallies.clone(),
        metrics: metrics.clone(),
        fresh_secret: "s".repeat(32),
    };
    let control = start(parts).await.unwrap().control;
    let parts = NotifyParts {
        control: control.clone(),
        tallies,
        windows: Arc::default(),
        metrics,
        clock: Clock::start(),
        instance: "test".to_owned(),
    };
    let mut feed = Feed::new(parts, Notifier::default());
    feed.remember().await;
    let hold = |set: bool| ChangeRequest {
        service: "shop".parse().unwrap(),
        change: if set { Change::SetHold } else { Change::ClearHold },
        author: Author::File,
        reason: String::new(),
        if_revision: None,
        if_attempt: None,
        evidence: Value::Null,
    };
    // More than the history gives at a time.
    for n in 0..1_101 {
        control.submit(hold(n % 2 == 0), false).await.unwrap();
    }
    assert_eq!(feed.resume().await, 1_101, "what was before is not told");
    assert_eq!(feed.resume().await, 0, "nothing is told twice");
}
