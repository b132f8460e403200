//! Keeps endpoints current: watches the published routes, and for each version in them resolves its names and checks
//! its endpoints. Also knows the endpoints of tenants that have instances of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use pingora_core::connectors::http::Connector;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use super::clock::Clock;
use super::health::Checker;
use super::resolve::resolve;
use super::tls::{self, Identities, Identity};
use crate::config::Settings;
use crate::model::{EndpointSpec, OutOfReach, VersionSpec};
use crate::routing::{EndpointSet, Routes, VersionRoute};
use crate::telemetry::Metrics;

/// How often published routes are looked at for versions that came or went.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often names are looked up.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// How soon a failed look-up is tried again.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);
/// How often the files of versions are looked at.
const FILES_EVERY: Duration = Duration::from_secs(1);
/// The most tenants whose own endpoints are remembered.
const TENANTS_MAX: usize = 100_000;
/// Own endpoints that no request asked for this long are forgotten, in milliseconds.
const TENANT_IDLE_MS: u64 = 600_000;

/// How many tenants' names are looked up at a time: each holds a thread while the name server is silent.
const TENANTS_AT_A_TIME: usize = 8;

/// The endpoints of one tenant's instance.
struct Own {
    spec: Arc<VersionSpec>,
    set: Arc<EndpointSet>,
    used_ms: AtomicU64,
}

type OwnKey = (u64, String);

/// Keeps endpoints current.
pub struct EndpointKeeper {
    published: Arc<ArcSwap<Routes>>,
    clock: Clock,
    own: papaya::HashMap<OwnKey, Arc<Own>>,
    identities: Arc<Identities>,
    /// Of the active checks.
    connector: OnceCell<Connector>,
}

impl EndpointKeeper {
    /// A keeper of the endpoints in these routes.
    pub fn new(published: Arc<ArcSwap<Routes>>, settings: &Settings, metrics: Arc<Metrics>, clock: Clock) -> Arc<Self> {
        let identities = Arc::new(Identities::new(tls::folder(settings), metrics));
        Arc::new(Self { published, clock, own: papaya::HashMap::new(), identities, connector: OnceCell::new() })
    }

    /// Looks up every name once and reads every file, so that the first requests find their endpoints.
    pub async fn prime(&self) {
        let routes = self.published.load_full();
        let versions = routes.services.iter().flat_map(|s| s.versions.iter());
        let prime = |version: &Arc<VersionRoute>| {
            let version = version.clone();
            async move {
                let _said_already = self.identity(&version).await;
                refresh(&version.spec, &version.endpoints, None).await
            }
        };
        futures::future::join_all(versions.map(prime)).await;
    }

    /// What a version trusts and shows when TLS is spoken to it.
    ///
    /// # Errors
    /// Its files cannot be used.
    pub(super) async fn identity(&self, version: &VersionRoute) -> pingora::Result<Option<Arc<Identity>>> {
        self.identities.of(version).await
    }

    /// The connector of the active checks. Made for the first one, since it reads the system's authorities.
    pub(super) async fn connector(&self) -> &Connector {
        self.connector.get_or_init(async || Connector::new(None)).await
    }

    /// Runs until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut tasks: HashMap<usize, (Arc<VersionRoute>, Vec<Task>)> = HashMap::new();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut tenants_at = tokio::time::Instant::now() + RESOLVE_EVERY;
        let mut files_at = tokio::time::Instant::now() + FILES_EVERY;
        let mut seen: Option<Arc<Routes>> = None;
        let mut looks: Option<Task> = None;
        loop {
            tick.tick().await;
            let routes = self.published.load_full();
            if seen.as_ref().is_none_or(|s| !Arc::ptr_eq(s, &routes)) {
                let now: HashMap<usize, &Arc<VersionRoute>> =
                    routes.services.iter().flat_map(|s| &s.versions).map(|v| (Arc::as_ptr(v).addr(), v)).collect();
                tasks.retain(|id, _| now.contains_key(id));
                for (id, version) in now {
                    tasks.entry(id).or_insert_with(|| (version.clone(), start(&self, version)));
                }
                seen = Some(routes.clone());
            }
            if tokio::time::Instant::now() >= files_at {
                self.identities.refresh(&routes).await;
                files_at = tokio::time::Instant::now() + FILES_EVERY;
            }
            if tokio::time::Instant::now() >= tenants_at {
                // A name server that does not answer must not hold up what is done for the others.
                if looks.as_ref().is_none_or(|Task(looks)| looks.is_finished()) {
                    let keeper = self.clone();
                    looks = Some(Task(tokio::spawn(async move { keeper.refresh_own().await })));
                }
                tenants_at = tokio::time::Instant::now() + RESOLVE_EVERY;
            }
        }
    }

    /// The endpoints of a tenant's own instance; the first request waits for the look-up.
    pub async fn of_tenant(&self, version: &VersionRoute, tenant: &str) -> Arc<EndpointSet> {
        let key = (version.group_key, tenant.to_owned());
        let now_ms = self.clock.now_ms();
        if let Some(own) = self.own.pin().get(&key)
            && Arc::ptr_eq(&own.spec, &version.spec)
            && own.set.reach() == version.endpoints.reach()
        {
            own.used_ms.store(now_ms, Relaxed);
            return own.set.clone();
        }
        let set = Arc::new(EndpointSet::within(version.endpoints.reach().cloned()));
        refresh(&version.spec, &set, Some(tenant)).await;
        // A name that does not resolve is not remembered: strangers could fill the table with made-up tenants.
        if set.available(now_ms).1 > 0 && self.own.len() < TENANTS_MAX {
            let own = Own { spec: version.spec.clone(), set: set.clone(), used_ms: AtomicU64::new(now_ms) };
            self.own.pin().insert(key, Arc::new(own));
        }
        set
    }

    async fn refresh_own(&self) {
        let now_ms = self.clock.now_ms();
        let used = |own: &Arc<Own>| now_ms.saturating_sub(own.used_ms.load(Relaxed)) < TENANT_IDLE_MS;
        self.own.pin().retain(|_, own| used(own));
        let all: Vec<_> = self.own.pin().iter().map(|(k, own)| (k.1.clone(), own.clone())).collect();
        let look = async |(tenant, own): (String, Arc<Own>)| {
            refresh(&own.spec, &own.set, Some(&tenant)).await;
        };
        futures::stream::iter(all).for_each_concurrent(TENANTS_AT_A_TIME, look).await;
    }
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn start(keeper: &Arc<EndpointKeeper>, version: &Arc<VersionRoute>) -> Vec<Task> {
    let mut tasks = Vec::new();
    if let Some(reach) = version.endpoints.reach() {
        let fixed = version.spec.endpoints.iter().filter_map(|e| match e {
            EndpointSpec::Address(address) => reach.check(address.ip()).err().map(|out| (e.to_string(), out)),
            EndpointSpec::Name { .. } | EndpointSpec::PerTenant { .. } => None,
        });
        tell(fixed);
    }
    if version.spec.endpoints.iter().any(|e| matches!(e, EndpointSpec::Name { .. })) {
        let (spec, set) = (version.spec.clone(), version.endpoints.clone());
        tasks.push(Task(tokio::spawn(async move {
            loop {
                let good = refresh(&spec, &set, None).await;
                tokio::time::sleep(if good { RESOLVE_EVERY } else { RESOLVE_AGAIN }).await;
            }
        })));
    }
    if let Some(checker) = Checker::new(version) {
        let (keeper, version) = (keeper.clone(), version.clone());
        tasks.push(Task(tokio::spawn(async move {
            let mut tick = tokio::time::interval(checker.interval());
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                tick.tick().await;
                let all = version.endpoints.all();
                futures::future::join_all(all.iter().map(|e| checker.check(&keeper, e, &version))).await;
            }
        })));
    }
    tasks
}

/// Looks up the names; false when one failed. What was known of a name that fails stays: old addresses beat none.
async fn refresh(spec: &VersionSpec, set: &EndpointSet, tenant: Option<&str>) -> bool {
    let mut good = true;
    let mut addresses = Vec::new();
    for endpoint in &spec.endpoints {
        let (host, port) = match (endpoint, tenant) {
            (EndpointSpec::Address(address), _) => {
                addresses.push((*address, endpoint.to_string()));
                continue;
            }
            (EndpointSpec::Name { host, port }, _) => (host.clone(), *port),
            (EndpointSpec::PerTenant { host, port }, Some(tenant)) if is_label(tenant) => {
                (host.replace("{tenant}", tenant), *port)
            }
            (EndpointSpec::PerTenant { .. }, _) => continue,
        };
        let name = format!("{host}:{port}");
        match resolve(&host, port).await {
            Ok(found) => addresses.extend(found.into_iter().map(|a| (a, name.clone()))),
            Err(error) => {
                good = false;
                tracing::warn!(%name, %error, "the name of an endpoint could not be looked up");
                let known = set.all();
                addresses.extend(known.iter().filter(|e| *e.name == name).map(|e| (e.address, name.clone())));
            }
        }
    }
    tell(set.update(addresses));
    good
}

fn tell(refused: impl IntoIterator<Item = (String, OutOfReach)>) {
    for (name, out) in refused {
        tracing::warn!(%name, %out, "the endpoint is not used: admin.endpoint_networks does not list it");
    }
}

/// Only a tenant that is a single DNS label may become part of a host name; anything else could name another host.
pub(super) fn is_label(tenant: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    tenant.len() <= 63 && !tenant.starts_with('-') && !tenant.ends_with('-') && tenant.bytes().all(fine)
}
