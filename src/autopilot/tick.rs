//! One look at everything that moved: counts in, requests for changes out. The only state is what evidence needs.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::AutopilotParts;
use super::alone;
use super::cuts::Cuts;
use super::entry::{Entry, guarded, report};
use super::evidence::{self, EpochNews, Readings};
use super::fleet::Fleets;
use super::lead_up;
use super::members::{May, Members};
use super::settle::{self, Findings};
use super::spoken::{Keys, Spoken, speak_once};
use super::together::Elsewhere;
use crate::analysis::{EvidenceWindow, Parameters, Rate};
use crate::control::{ComparisonReport, Control, ScopeKey, SubmitError, View};
use crate::model::{BasisPoints, Change, ChangeRequest, GuardSpec, Scope, ServiceName, VersionName};
use crate::routing::{ServiceRoute, SplitOwner, split_for};
use crate::telemetry::{Metrics, ScopeHandle, Tallies, TotalsDelta, Windows};

/// How often things that need no hurry are done, in milliseconds.
const EVERY_SECOND_MS: u64 = 1_000;
/// Tenants without requests for this long are let go, in microseconds.
const IDLE_US: u64 = 15 * 60 * 1_000_000;
/// How long all endpoints of a canary must be unhealthy before it goes back, in milliseconds.
const UNHEALTHY_MS: u64 = 2_000;

/// The guard.
pub struct Autopilot {
    pub(super) control: Control,
    pub(super) tallies: Arc<Tallies>,
    pub(super) windows: Arc<Mutex<Windows>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readings: Readings,
    pub(super) cuts: Cuts,
    pub(super) fleets: Fleets,
    /// The fleet of proxies; none when this one is alone with its store.
    pub(super) members: Option<Members>,
    /// Who has spoken, by scope, at whichever proxy.
    spoken: HashMap<u64, Spoken>,
    pub(super) entries: HashMap<ScopeKey, Entry>,
    /// Requests per second of each scope, known before a canary begins.
    pub(super) rates: HashMap<u64, Rate>,
    parameters: HashMap<ServiceName, (Arc<GuardSpec>, Parameters)>,
    /// Scopes that are looked at although nothing moved: brakes end by time.
    braked: HashMap<ScopeKey, ScopeHandle>,
    unhealthy_since: HashMap<(ServiceName, VersionName), u64>,
    slow_jobs_ms: u64,
    /// Endpoints that the metrics show.
    shown: HashMap<(ServiceName, VersionName), BTreeSet<Arc<str>>>,
    done: mpsc::UnboundedReceiver<Done>,
    report_done: mpsc::UnboundedSender<Done>,
}

/// What one look goes by.
struct Look<'a> {
    view: &'a View,
    may: May,
    now_us: u64,
    now_ms: u64,
}

/// What was counted in a scope since the last look.
struct Seen<'a> {
    news: &'a [TotalsDelta],
    /// By epoch: first what was counted here, then what other proxies counted.
    epochs: Vec<EpochNews>,
    /// How many of them are of this proxy.
    here: usize,
    /// Keys that spoke.
    keys: Vec<Keys>,
}

/// What became of a change.
struct Done {
    key: Option<ScopeKey>,
    request: ChangeRequest,
    made: bool,
}

/// A change that the guard asks for, and the comparison that waits for its answer.
pub struct Wanted {
    /// The change.
    pub request: ChangeRequest,
    /// The comparison.
    pub(super) key: Option<ScopeKey>,
}

impl Autopilot {
    /// A guard that knows nothing yet, for those who tell it the time themselves.
    pub fn new(parts: AutopilotParts) -> Self {
        let (report_done, done) = mpsc::unbounded_channel();
        let members = parts.control.membership().map(Members::new);
        Self {
            control: parts.control,
            tallies: parts.tallies,
            windows: parts.windows,
            metrics: parts.metrics,
            readings: Readings::default(),
            cuts: Cuts::default(),
            fleets: Fleets::default(),
            members,
            spoken: HashMap::new(),
            entries: HashMap::new(),
            rates: HashMap::new(),
            parameters: HashMap::new(),
            braked: HashMap::new(),
            unhealthy_since: HashMap::new(),
            slow_jobs_ms: 0,
            shown: HashMap::new(),
            done,
            report_done,
        }
    }

    /// One look. Answers the changes that follow from it.
    pub fn tick(&mut self, now_us: u64) -> Vec<Wanted> {
        let now_ms = now_us / 1_000;
        while let Ok(done) = self.done.try_recv() {
            self.settled(&done);
        }
        self.tallies.age(now_us);
        let view = self.control.view();
        let (may, mut elsewhere) = self.meet(&view, now_us);
        let mut scopes = self.tallies.take_active();
        for handle in self.braked.values() {
            if !scopes.iter().any(|s| s.tally.id() == handle.tally.id()) {
                scopes.push(ScopeHandle { service: handle.service.clone(), tally: handle.tally.clone() });
            }
        }
        let mut wanted = Vec::new();
        let look = Look { view: &view, may, now_us, now_ms };
        for handle in &scopes {
            let elsewhere = elsewhere.remove(&handle.tally.id()).unwrap_or_default();
            self.look_at(&look, handle, elsewhere, &mut wanted);
        }
        if may != May::Watch {
            wanted.extend(self.fleet_breaches(&view, now_ms));
        }
        if now_ms.saturating_sub(self.slow_jobs_ms) >= EVERY_SECOND_MS {
            self.slow_jobs_ms = now_ms;
            if may != May::Watch {
                wanted.extend(self.health_breaches(&view, now_ms));
            }
            self.housekeeping(&view, now_us);
            self.tidy_members(now_ms);
        }
        self.tell_members(now_ms);
        wanted.iter_mut().for_each(|w| lead_up::keep(&mut w.request, &view, &self.windows, now_ms));
        wanted
    }

    /// Sends a change on its way; the tick does not wait for it.
    pub fn submit(&self, wanted: Wanted) {
        let (control, report_done) = (self.control.clone(), self.report_done.clone());
        tokio::spawn(async move {
            let Wanted { request, key } = wanted;
            let answer = control.submit(request.clone(), false).await;
            let (service, change) = (&request.service, &request.change);
            match &answer {
                Ok(_) => {}
                Err(SubmitError::Refused(refused)) => {
                    tracing::debug!(%service, ?change, %refused, "a change of the guard came too late");
                }
                Err(error) => tracing::error!(%service, ?change, %error, "a change of the guard failed"),
            }
            let _tick_ended = report_done.send(Done { key, request, made: answer.is_ok() });
        });
    }

    /// A change was answered. Evidence that led to a rollback has done its work: what comes after is another attempt, and
    /// must begin with a fresh stake even if it comes at once.
    fn settled(&mut self, done: &Done) {
        if let Some(entry) = done.key.as_ref().and_then(|key| self.entries.get_mut(key)) {
            entry.pending = false;
        }
        let Change::Rollback { scope, canary: Some(canary), .. } = &done.request.change else { return };
        let service = &done.request.service;
        if *scope == Scope::Service {
            self.fleets.settled(service, canary, done.made);
        }
        if done.made {
            let within = |key: &ScopeKey| match scope {
                Scope::Tenant(tenant) => key.tenant.as_ref() == Some(tenant),
                Scope::Service | Scope::Group(_) => true,
            };
            self.entries.retain(|key, _| key.service != *service || key.canary != *canary || !within(key));
        }
    }

    fn look_at(&mut self, look: &Look<'_>, handle: &ScopeHandle, elsewhere: Elsewhere, wanted: &mut Vec<Wanted>) {
        let Look { view, now_us, now_ms, .. } = *look;
        let scope = &handle.tally;
        let news = lock(&self.windows).record(now_ms, scope);
        self.metrics.add_tenant(&handle.service, scope.tenant(), &news);
        for delta in &news {
            let failed: u64 = delta.failures.iter().sum();
            if failed > 0 {
                self.control.board().add_failed(&handle.service, &delta.version, failed);
            }
        }
        let ended = news.iter().map(|d| d.requests).chain(elsewhere.epochs.iter().map(EpochNews::requests)).sum();
        self.rates.entry(scope.id()).or_default().add(now_ms, ended);
        let Some(route) = view.routes.service(handle.service.as_str()) else { return };
        let baseline = route.baseline().name.clone();
        let guard = route.spec.guard.clone();
        let tolerance = guard.latency_tolerance;
        if guard.latency {
            let leaders = self.members.as_mut().and_then(|members| {
                members.timed(&handle.service, &baseline, &news);
                members.leaders_cuts(&handle.service, handle.tenant(), &baseline)
            });
            self.cuts.update(scope, &baseline, tolerance, &news, leaders, now_ms);
        } else {
            scope.set_cuts(0, 0, tolerance, &baseline);
        }
        if scope.is_other() {
            return;
        }
        let mut keys = elsewhere.keys;
        if self.members.is_some() {
            keys.push(self.readings.keys(scope, now_ms));
        }
        let epochs = self.readings.news(scope);
        scope.retire_epochs(now_us);
        if guard.enabled {
            let here = epochs.len();
            let epochs = epochs.into_iter().chain(elsewhere.epochs).collect();
            let mut seen = Seen { news: &news, epochs, here, keys };
            self.compare(look, route, handle, &mut seen, wanted);
        }
    }

    fn compare(
        &mut self,
        look: &Look<'_>,
        route: &ServiceRoute,
        handle: &ScopeHandle,
        seen: &mut Seen<'_>,
        wanted: &mut Vec<Wanted>,
    ) {
        let Look { view, may, now_ms, .. } = *look;
        let tenant = handle.tenant();
        let (split, owner) = split_for(&view.routes, route, tenant.map(|t| t.as_str()));
        // None of those that were counted here is late.
        seen.epochs.retain(|epoch| !epoch.late || epoch.epoch >= split.attempt);
        let in_effect = route.state.weights_in_effect(split);
        let intended = if in_effect == split.weights() { split.intended() } else { in_effect.clone() };
        let baseline = &route.baseline().name;
        let proxies = self.proxies();
        let rate = self.rates.entry(handle.tally.id()).or_default().rate(now_ms);
        let parameters = self.parameters_of(&handle.service, &route.spec.guard);
        let alone = alone::is_alone(route, tenant.is_some(), owner);
        if intended.sole() != Some(baseline) {
            self.share(route, handle, split.attempt, alone, seen);
        }
        let Seen { epochs, .. } = &*seen;
        for (canary, _) in intended.iter().filter(|(v, _)| *v != baseline) {
            let key = ScopeKey { service: handle.service.clone(), tenant: tenant.cloned(), canary: canary.clone() };
            let share = in_effect.share_between(baseline, canary);
            let entry =
                self.entries.entry(key.clone()).or_insert_with(|| Entry::new(&parameters, split, handle, now_ms));
            let (since, client_errors) = (entry.since_epoch, route.spec.guard.client_errors);
            let (batches, counted) = match alone {
                true => {
                    let of = |version| alone::counted(seen.news, &epochs[seen.here..], version);
                    (vec![alone::batch(of(baseline), of(canary), now_ms)], of(canary))
                }
                false => evidence::since(epochs, baseline, canary, since, client_errors),
            };
            entry.follow(split, &parameters, now_ms);
            entry.count(now_ms, counted);
            entry.comparison.observe(now_ms, share, &batches);
            let assessment = entry.comparison.assess(now_ms, share, share * rate);
            if route.spec.guard.fleet && !alone {
                let attempt = route.state.split.attempt;
                self.fleets.add(&parameters, handle, canary, attempt, share, &batches, now_ms);
            }
            let braked = split.brake.is_some() && owner_is(owner, tenant.is_some());
            let report = report(&key, baseline, entry, &assessment, share, braked);
            let report = ComparisonReport { proxies, slow_after_us: handle.tally.cuts(), ..report };
            self.control.board().put(key.clone(), report);
            let findings = Findings {
                key: &key,
                route,
                split,
                baseline,
                weights: &in_effect,
                braked,
                alone,
                assessment: &assessment,
                may,
            };
            let entry_wants = settle::settle(&findings, entry, &self.windows, now_ms);
            self.remember_brake(&key, handle, braked);
            for note in entry_wants.notes {
                self.control.note(note);
            }
            wanted.extend(entry_wants.change.map(|request| Wanted { request, key: Some(key) }));
        }
    }

    /// Tells other proxies what was counted here, and lets each user speak once wherever the requests came to.
    fn share(&mut self, route: &ServiceRoute, handle: &ScopeHandle, attempt: u64, alone: bool, seen: &mut Seen<'_>) {
        let Some(members) = &mut self.members else { return };
        members.counted(&handle.tally, &seen.epochs[..seen.here], &route.baseline().name);
        if !route.spec.sticky.is_empty() && !alone {
            let new = self.spoken.entry(handle.tally.id()).or_default().first(attempt, &seen.keys);
            let proxies = members.judged();
            if proxies > 1 {
                speak_once(&mut seen.epochs, new, proxies);
            }
        }
    }

    /// Brakes end by time, so a scope that has one is looked at although nothing moves.
    fn remember_brake(&mut self, key: &ScopeKey, handle: &ScopeHandle, braked: bool) {
        if !braked {
            self.braked.remove(key);
            return;
        }
        let scope = || ScopeHandle { service: handle.service.clone(), tally: handle.tally.clone() };
        self.braked.entry(key.clone()).or_insert_with(scope);
    }

    fn parameters_of(&mut self, service: &ServiceName, guard: &Arc<GuardSpec>) -> Parameters {
        let known = self.parameters.get(service).filter(|(g, _)| Arc::ptr_eq(g, guard) || g == guard);
        if let Some((_, parameters)) = known {
            return parameters.clone();
        }
        let made = Parameters::of(guard);
        self.parameters.insert(service.clone(), (guard.clone(), made.clone()));
        made
    }

    fn fleet_breaches(&mut self, view: &View, now_ms: u64) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for breach in self.fleets.breaches(now_ms) {
            let Some(route) = view.routes.service(breach.service.as_str()) else { continue };
            let windows = self
                .entries
                .iter()
                .filter(|(k, _)| k.service == breach.service && k.canary == breach.canary)
                .map(|(_, e)| e.comparison.window_of(breach.signal));
            let parameters = self.parameters.get(&breach.service).map(|(_, p)| p.clone()).unwrap_or_default();
            let request = settle::fleet_rollback(route, &breach, EvidenceWindow::joined(windows), &parameters, now_ms);
            wanted.push(Wanted { request, key: None });
        }
        wanted
    }

    /// A canary of which no endpoint passes its checks while the baseline has a healthy one.
    fn health_breaches(&mut self, view: &View, now_ms: u64) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for route in view.routes.services.iter().filter(|r| r.spec.guard.enabled && r.spec.guard.health) {
            let baseline = route.baseline();
            let service = &route.spec.name;
            for version in route.versions.iter().filter(|v| v.name != baseline.name) {
                let key = (service.clone(), version.name.clone());
                let all = version.endpoints.all();
                let down = version.spec.health.is_some() && !all.is_empty() && all.iter().all(|e| !e.is_healthy());
                let has_share = route.state.weights_in_effect(&route.state.split).share(version.name.as_str())
                    > BasisPoints::ZERO
                    || self.entries.keys().any(|k| k.service == *service && k.canary == version.name);
                if !down || !has_share || baseline.endpoints.available(now_ms).0 == 0 {
                    self.unhealthy_since.remove(&key);
                    continue;
                }
                let since = *self.unhealthy_since.entry(key.clone()).or_insert(now_ms);
                if now_ms.saturating_sub(since) >= UNHEALTHY_MS {
                    self.unhealthy_since.remove(&key);
                    wanted
                        .push(Wanted { request: settle::health_rollback(route, &version.name, all.len()), key: None });
                }
            }
        }
        wanted
    }

    /// What is done once a second: metrics of endpoints and evidence, memory of what is gone.
    fn housekeeping(&mut self, view: &View, now_us: u64) {
        let now_ms = now_us / 1_000;
        self.metrics.choose_tenants(now_ms);
        self.show_endpoints(view, now_ms);
        self.forget_settled(view);
        self.metrics.show_guarded(guarded(&self.entries));
        let keep = |service: &ServiceName, scope: &crate::telemetry::ScopeTally| {
            self.braked.keys().any(|k| k.service == *service && k.tenant.as_ref() == scope.tenant())
        };
        let gone = self.tallies.evict_idle(now_us, IDLE_US, &keep);
        for handle in gone {
            let id = handle.tally.id();
            self.readings.forget(id);
            self.cuts.forget(id);
            self.rates.remove(&id);
            self.fleets.forget_scope(id);
            self.spoken.remove(&id);
            lock(&self.windows).forget(&handle.tally);
            self.entries.retain(|_, e| e.scope != id);
        }
        self.read_routes(view, now_ms);
        lock(&self.windows).sweep(now_ms);
    }

    /// Routes are for people only, so once a second is often enough.
    fn read_routes(&self, view: &View, now_ms: u64) {
        for tally in self.tallies.services() {
            let route = view.routes.service(tally.service().as_str());
            if route.is_none_or(|r| r.route_patterns.is_none()) {
                tally.routes().clear();
            }
            lock(&self.windows).record_routes(now_ms, &tally);
        }
    }

    /// Puts the health of every endpoint into the metrics, and takes out those that are gone.
    fn show_endpoints(&mut self, view: &View, now_ms: u64) {
        let mut shown: HashMap<(ServiceName, VersionName), BTreeSet<Arc<str>>> = HashMap::new();
        for route in &view.routes.services {
            for version in &route.versions {
                let names = shown.entry((route.spec.name.clone(), version.name.clone())).or_default();
                for endpoint in version.endpoints.all().iter() {
                    let up = endpoint.is_available(now_ms);
                    self.metrics.set_endpoint(&route.spec.name, &version.name, &endpoint.name, up);
                    names.insert(endpoint.name.clone());
                }
            }
        }
        for ((service, version), before) in std::mem::take(&mut self.shown) {
            let names = shown.get(&(service.clone(), version.clone()));
            for gone in before.iter().filter(|name| names.is_none_or(|names| !names.contains(*name))) {
                self.metrics.forget_endpoint(&service, &version, gone);
            }
        }
        self.shown = shown;
    }

    /// Comparisons of versions that have no share any more are over.
    fn forget_settled(&mut self, view: &View) {
        let routes = &view.routes;
        self.entries.retain(|key, _| {
            let Some(route) = routes.service(key.service.as_str()) else { return false };
            let (split, _) = split_for(routes, route, key.tenant.as_ref().map(|t| t.as_str()));
            let has = route.state.weights_in_effect(split).share(key.canary.as_str()) > BasisPoints::ZERO;
            has && key.canary != route.baseline().name
        });
        let entries = &self.entries;
        self.control.board().retain(|key| entries.contains_key(key));
        self.braked.retain(|key, _| entries.contains_key(key));
    }
}

/// A brake is released by whoever owns the split that carries it.
fn owner_is(owner: SplitOwner, has_tenant: bool) -> bool {
    match owner {
        SplitOwner::Tenant => has_tenant,
        SplitOwner::Service => !has_tenant,
        SplitOwner::Group => false,
    }
}

pub(super) fn lock(windows: &Mutex<Windows>) -> std::sync::MutexGuard<'_, Windows> {
    // Plain counters: what a thread that died had half written is off by one look at most.
    windows.lock().unwrap_or_else(PoisonError::into_inner)
}
