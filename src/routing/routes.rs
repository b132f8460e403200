//! The routes: the state compiled for reading. Requests see nothing else.
//!
//! Compiling is pure and can fail; publishing what was compiled cannot. A change recompiles only the service that it
//! touches, and a service's tenants are shared with the state, so the cost does not grow with their number.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::HeaderValue;

use super::budget::RescueBudget;
use super::cookie::CookieSigner;
use super::deprecation::DeprecationHeaders;
use super::endpoints::EndpointSet;
use super::limiter::Limiter;
use super::matching::Matcher;
use super::route_patterns::RoutePatterns;
use super::shadow::ShadowRoute;
use super::tenant::{Identifier, TokenKeyError};
use crate::model::{
    EndpointSpec, GroupName, KeySource, Pin, Reach, ServiceName, ServiceSpec, ServiceState, Split, State, Sticky,
    Structure, TenantMap, TenantName, TenantState, VersionName, VersionSpec,
};
use crate::telemetry::{ServiceTally, Tallies};

/// Everything a request needs, at one revision.
pub struct Routes {
    /// Revision of the state that this was compiled from.
    pub revision: u64,
    /// How tenants are found.
    pub identifier: Arc<Identifier>,
    /// Which service a request belongs to.
    pub matcher: Arc<Matcher>,
    /// Services, in the order that the matcher knows.
    pub services: Vec<Arc<ServiceRoute>>,
    /// Groups of each tenant that is in any, by name.
    pub groups: Arc<HashMap<TenantName, Box<[GroupName]>>>,
    /// Signs the cookies that the services issue, and what else must hold at every proxy.
    pub signer: Arc<CookieSigner>,
    /// Whether any service keeps sessions.
    sessions: bool,
}

/// One service, compiled.
pub struct ServiceRoute {
    /// Its structure.
    pub spec: Arc<ServiceSpec>,
    /// Its live part.
    pub state: Arc<ServiceState>,
    /// Tenants with settings of their own.
    pub tenants: TenantMap,
    /// Its versions, those of the file and those registered, by name.
    pub versions: Vec<Arc<VersionRoute>>,
    /// Place of the baseline among the versions.
    pub baseline: usize,
    /// Path prefixes that select a version, longest first.
    pub paths: Vec<(String, usize)>,
    /// Where its requests are counted.
    pub tally: Arc<ServiceTally>,
    /// The version that gets copies, if one does.
    pub shadow: Option<Arc<ShadowRoute>>,
    /// Signs the cookies that it issues.
    pub signer: Arc<CookieSigner>,
    /// How many failed requests its baseline may still take over.
    pub budget: Arc<RescueBudget>,
    /// What its tenants use; none: nobody is limited.
    pub limiter: Option<Arc<Limiter>>,
    /// The routes that the operator names; none: requests are not counted by route.
    pub route_patterns: Option<Arc<RoutePatterns>>,
}

/// One version, compiled.
#[derive(Debug)]
pub struct VersionRoute {
    /// Its name.
    pub name: VersionName,
    /// Its name as a header value, made once instead of for every request.
    pub header: HeaderValue,
    /// What it is made of.
    pub spec: Arc<VersionSpec>,
    /// Where it listens.
    pub endpoints: Arc<EndpointSet>,
    /// Whether each tenant has endpoints of its own.
    pub per_tenant: bool,
    /// Whether it has no other endpoints than those.
    pub needs_tenant: bool,
    /// What clients are told when it is deprecated.
    pub deprecation: Option<Box<DeprecationHeaders>>,
    /// Keeps connections of different versions and settings apart.
    pub group_key: u64,
}

/// What compiling needs besides the state.
#[derive(Clone)]
pub struct Context {
    /// Where requests are counted.
    pub tallies: Arc<Tallies>,
    /// Signs cookies.
    pub signer: Arc<CookieSigner>,
    /// Where endpoints of registered versions may lie.
    pub reach: Arc<Reach>,
}

/// Why a state does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A split or pin names a version that does not exist.
    #[error("services.{service}: {place} names version {version}, which has no endpoints here; versions are: {known}")]
    MissingVersion {
        /// Which service.
        service: ServiceName,
        /// Where the version is named.
        place: String,
        /// The version.
        version: VersionName,
        /// The versions that exist.
        known: String,
    },
    /// A service of the file has no live part.
    #[error("services.{service}: the state has no such service")]
    MissingService {
        /// Which service.
        service: ServiceName,
    },
    /// A key for tokens cannot be used.
    #[error(transparent)]
    TokenKey(#[from] TokenKeyError),
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let services: Vec<_> = self.services.iter().map(|s| s.spec.name.as_str()).collect();
        f.debug_struct("Routes").field("revision", &self.revision).field("services", &services).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ServiceRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceRoute")
            .field("name", &self.spec.name)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Routes {
    /// Routes without any service.
    pub fn empty() -> Self {
        Self {
            revision: 0,
            identifier: Arc::default(),
            matcher: Arc::default(),
            services: Vec::new(),
            groups: Arc::default(),
            signer: Arc::new(CookieSigner::new([])),
            sessions: false,
        }
    }

    /// Compiles everything. Endpoints whose description did not change keep their health and load from `before`.
    ///
    /// # Errors
    /// [`CompileError`] names what does not fit together.
    pub fn compile(
        structure: &Structure,
        state: &State,
        context: &Context,
        before: Option<&Self>,
    ) -> Result<Self, CompileError> {
        let mut groups: HashMap<TenantName, Vec<GroupName>> = HashMap::new();
        for (group, tenants) in &structure.tenants.groups {
            for tenant in tenants {
                groups.entry(tenant.clone()).or_default().push(group.clone());
            }
        }
        let services = structure.services.iter().map(|(name, spec)| {
            let old = before.and_then(|b| b.service(name.as_str()));
            let route = ServiceRoute::compile(spec, state, context, old.map(|s| &**s))?;
            route.check_tenants()?;
            Ok(Arc::new(route))
        });
        Ok(Self {
            revision: state.revision,
            identifier: Arc::new(Identifier::new(&structure.tenants)?),
            matcher: Arc::new(Matcher::new(structure.services.values().map(|s| &**s))),
            services: services.collect::<Result<_, CompileError>>()?,
            groups: Arc::new(groups.into_iter().map(|(t, g)| (t, g.into_boxed_slice())).collect()),
            signer: context.signer.clone(),
            sessions: structure.services.values().any(|s| s.sticky.iter().any(|s| s.session.is_some())),
        })
    }

    /// Compiles again only the service that a change touched. The result is the same as that of [`Routes::compile`].
    ///
    /// # Errors
    /// [`CompileError`] names what does not fit together.
    pub fn with_service(&self, service: &ServiceName, state: &State, context: &Context) -> Result<Self, CompileError> {
        self.with_services(&[service], state, context)
    }

    /// The same for a change that touched several services, or none.
    ///
    /// # Errors
    /// [`CompileError`] names what does not fit together.
    pub fn with_services(
        &self,
        touched: &[&ServiceName],
        state: &State,
        context: &Context,
    ) -> Result<Self, CompileError> {
        let mut services = self.services.clone();
        for route in &mut services {
            if touched.contains(&&route.spec.name) {
                *route = Arc::new(ServiceRoute::compile(&route.spec, state, context, Some(route))?);
            }
        }
        Ok(Self {
            revision: state.revision,
            identifier: self.identifier.clone(),
            matcher: self.matcher.clone(),
            services,
            groups: self.groups.clone(),
            signer: context.signer.clone(),
            sessions: self.sessions,
        })
    }

    /// The same for changes that were made by a process whose configuration may name other versions than this one's.
    ///
    /// # Errors
    /// [`CompileError`] names what does not fit together.
    pub fn with_services_of_others(
        &self,
        touched: &[&ServiceName],
        state: &State,
        context: &Context,
    ) -> Result<Self, CompileError> {
        let routes = self.with_services(touched, state, context)?;
        let pairs = routes.services.iter().zip(&self.services);
        let mut touched = pairs.filter(|(route, _)| touched.contains(&&route.spec.name));
        touched.try_for_each(|(route, before)| route.check_tenants_after(before))?;
        Ok(routes)
    }

    /// Whether a decision needs to know the time.
    pub fn needs_time(&self) -> bool {
        self.sessions || self.identifier.needs_time()
    }

    /// Whether a header of this name decides where requests of the service go.
    pub fn believes(&self, service: &ServiceRoute, name: &str) -> bool {
        let is_key = |s: &Sticky| matches!(&s.source, KeySource::Header(own) if own == name);
        let chooses = service.spec.choose.as_ref().and_then(|c| c.header.as_ref()).is_some_and(|own| own == name);
        chooses || service.spec.sticky.iter().any(is_key) || self.identifier.believes(name)
    }

    /// A service by name.
    pub fn service(&self, name: &str) -> Option<&Arc<ServiceRoute>> {
        self.services.iter().find(|s| s.spec.name.as_str() == name)
    }
}

impl ServiceRoute {
    fn compile(
        spec: &Arc<ServiceSpec>,
        state: &State,
        context: &Context,
        before: Option<&Self>,
    ) -> Result<Self, CompileError> {
        let live = state
            .service(spec.name.as_str())
            .ok_or_else(|| CompileError::MissingService { service: spec.name.clone() })?;
        // What the file says of a version wins over what was registered under the same name.
        let mut specs: BTreeMap<&VersionName, &Arc<VersionSpec>> = live.versions.iter().collect();
        specs.extend(spec.versions.iter());
        let versions: Vec<_> = specs
            .into_iter()
            .map(|(name, version)| {
                // What the file says is the operator's own word.
                let reach = (!spec.versions.contains_key(name)).then_some(&context.reach);
                let same = |v: &&Arc<VersionRoute>| v.spec == *version && v.endpoints.reach() == reach;
                let old = before.and_then(|b| b.version(name.as_str())).filter(same);
                old.cloned().unwrap_or_else(|| Arc::new(VersionRoute::new(&spec.name, name, version, reach)))
            })
            .collect();
        let mut paths: Vec<_> =
            versions.iter().enumerate().filter_map(|(i, v)| v.spec.path.clone().map(|p| (p, i))).collect();
        paths.sort_by_key(|(p, _)| std::cmp::Reverse(p.len()));
        let baseline = versions.iter().position(|v| v.name == live.baseline);
        let route_patterns = match before.filter(|b| Arc::ptr_eq(&b.spec, spec)) {
            Some(before) => before.route_patterns.clone(),
            None => spec.route_stats.then(|| Arc::new(RoutePatterns::new(&spec.routes))),
        };
        let mut route = Self {
            spec: spec.clone(),
            state: live.clone(),
            tenants: state.tenants.get(&spec.name).cloned().unwrap_or_default(),
            versions,
            baseline: 0,
            paths,
            tally: context.tallies.service(&spec.name),
            shadow: None,
            signer: context.signer.clone(),
            budget: before.map(|b| b.budget.clone()).unwrap_or_default(),
            limiter: limiter(spec, context, before),
            route_patterns,
        };
        route.baseline = baseline.ok_or_else(|| route.missing("the baseline", &live.baseline))?;
        route.shadow = route.shadow_after(before)?;
        route.check(live)?;
        Ok(route)
    }

    /// The shadow of the settings, with what the one before has counted if it compares the same.
    fn shadow_after(&self, before: Option<&Self>) -> Result<Option<Arc<ShadowRoute>>, CompileError> {
        let Some(spec) = &self.spec.shadow else { return Ok(None) };
        let version = self.version(spec.version.as_str()).ok_or_else(|| self.missing("the shadow", &spec.version))?;
        let old = before.and_then(|b| b.shadow.as_ref()).filter(|s| s.is_of(spec, version, self.baseline()));
        let fresh = || {
            let counts = self.tally.metrics(&version.name).shadow().clone();
            Arc::new(ShadowRoute::new(spec, version, self.baseline(), counts))
        };
        Ok(Some(old.cloned().unwrap_or_else(fresh)))
    }

    fn check(&self, live: &ServiceState) -> Result<(), CompileError> {
        self.check_split(|| "the split".to_owned(), &live.split)?;
        for (group, split) in &live.groups {
            self.check_split(|| format!("the split of group {group}"), split)?;
        }
        for pin in live.pins.iter() {
            if let Pin::Version(version) = pin
                && self.version(version.as_str()).is_none()
            {
                return Err(self.missing("a pin", version));
            }
        }
        Ok(())
    }

    /// Only when the structure changes can a tenant's split come to name a version that is gone: a change of the state
    /// checks what it names.
    fn check_tenants(&self) -> Result<(), CompileError> {
        self.tenants.iter().try_for_each(|(name, own)| self.check_tenant(name, own))
    }

    /// The same, where the routes before are known to be good: among 100,000 tenants only those that changed are looked at,
    /// unless what their splits are held against changed too.
    fn check_tenants_after(&self, before: &Self) -> Result<(), CompileError> {
        if !Arc::ptr_eq(&self.state, &before.state) || !Arc::ptr_eq(&self.spec, &before.spec) {
            return self.check_tenants();
        }
        self.tenants.beside(&before.tenants).try_for_each(|(name, own)| self.check_tenant(name, own))
    }

    fn check_tenant(&self, name: &TenantName, own: &TenantState) -> Result<(), CompileError> {
        self.check_split(|| format!("the split of tenant {name}"), &own.split)
    }

    fn check_split(&self, place: impl Fn() -> String, split: &Split) -> Result<(), CompileError> {
        if self.state.is_over(split) {
            return Ok(());
        }
        let held = split.brake.iter().flat_map(|b| b.slices.iter());
        for slice in split.slices.iter().chain(held) {
            // What a bar has taken out of traffic may be gone.
            if self.version(slice.version.as_str()).is_none() && self.state.barred(&slice.version, split).is_none() {
                return Err(self.missing(&place(), &slice.version));
            }
        }
        Ok(())
    }

    fn missing(&self, place: &str, version: &VersionName) -> CompileError {
        let known: Vec<_> = self.versions.iter().map(|v| v.name.as_str()).collect();
        CompileError::MissingVersion {
            service: self.spec.name.clone(),
            place: place.to_owned(),
            version: version.clone(),
            known: known.join(", "),
        }
    }

    /// A version by name.
    pub fn version(&self, name: &str) -> Option<&Arc<VersionRoute>> {
        self.versions.iter().find(|v| v.name.as_str() == name)
    }

    /// The version that is trusted now.
    pub fn baseline(&self) -> &Arc<VersionRoute> {
        &self.versions[self.baseline]
    }
}

/// What tenants have used counts on when limits change.
fn limiter(spec: &ServiceSpec, context: &Context, before: Option<&ServiceRoute>) -> Option<Arc<Limiter>> {
    if spec.limits.is_empty() {
        return None;
    }
    let fresh = || Arc::new(Limiter::new(context.signer.seed(spec.name.as_str())));
    Some(before.and_then(|b| b.limiter.clone()).unwrap_or_else(fresh))
}

impl VersionRoute {
    fn new(service: &ServiceName, name: &VersionName, spec: &Arc<VersionSpec>, reach: Option<&Arc<Reach>>) -> Self {
        // Everything that decides whether a pooled connection may be used again: who it is for and how it was made.
        let of_tenant = |e: &EndpointSpec| matches!(e, EndpointSpec::PerTenant { .. });
        let identity = format!("{service}\0{name}\0{:?}\0{}\0{:?}", spec.tls, spec.http2, spec.host);
        Self {
            name: name.clone(),
            header: HeaderValue::from_str(name.as_str()).unwrap_or(HeaderValue::from_static("unknown")),
            spec: spec.clone(),
            endpoints: Arc::new(EndpointSet::new(&spec.endpoints, reach.cloned())),
            per_tenant: spec.endpoints.iter().any(of_tenant),
            needs_tenant: spec.endpoints.iter().all(of_tenant),
            deprecation: spec.deprecated.as_ref().and_then(DeprecationHeaders::new).map(Box::new),
            group_key: xxhash_rust::xxh3::xxh3_64(identity.as_bytes()),
        }
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
