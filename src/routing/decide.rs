//! The decision: which version serves a request, made once, before any I/O.
//!
//! Exclusions win over everything; then come pins (user, tenant, group), a tester's choice, a version's own path, the
//! session that the client is in, and at last the split of the tenant, its group or the service. `explain` walks the same code with a trace.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::cookie;
use super::matching::has_prefix;
use super::routes::{Routes, ServiceRoute, VersionRoute};
use super::session::{Session, SessionOutcome};
use super::session_cookie::SessionOwner;
use crate::model::{
    Bucket, GroupName, KeySource, Pin, ServiceState, SessionSpec, Split, Sticky, UserName, VersionName,
};

/// What the decision looks at: the head of a request and two things that only the shell can know.
#[derive(Debug, Clone, Copy)]
pub struct Head<'h> {
    /// Method.
    pub method: &'h Method,
    /// Host without port.
    pub host: &'h str,
    /// Path without query.
    pub path: &'h str,
    /// Headers.
    pub headers: &'h HeaderMap,
    /// The client's address.
    pub address: IpAddr,
    /// Whether the connection comes from a trusted address.
    pub trusted: bool,
    /// Fresh random numbers.
    pub random: [u64; 2],
    /// Seconds since the Unix epoch; any number unless [`Routes::needs_time`].
    pub now_s: u64,
}

/// Why no version serves a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No service matches: 404.
    NoService,
    /// A tenant is needed and none is named: 404.
    UnknownTenant,
    /// A source names the tenant ambiguously or with characters that no tenant has: 400.
    BadTenant,
    /// Two sources name different tenants: 400.
    TenantConflict,
}

impl Refusal {
    /// The status that the client gets.
    pub fn status(self) -> u16 {
        match self {
            Self::NoService | Self::UnknownTenant => 404,
            Self::BadTenant | Self::TenantConflict => 400,
        }
    }

    /// One word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoService => "no_service",
            Self::UnknownTenant => "unknown_tenant",
            Self::BadTenant => "bad_tenant",
            Self::TenantConflict => "tenant_conflict",
        }
    }
}

/// How the version came about, which decides whether the request is evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawn {
    /// A coin was flipped for this request alone.
    Coin,
    /// A coin was flipped for the key once; its hash tells keys apart.
    Key(u64),
    /// Somebody chose: no coin, no evidence.
    Chosen,
}

/// Which version serves a request and how that came about.
#[derive(Debug, Clone)]
pub struct Decision<'r, 'h> {
    /// The service.
    pub service: &'r Arc<ServiceRoute>,
    /// The version.
    pub version: &'r Arc<VersionRoute>,
    /// The tenant, if there is one.
    pub tenant: Option<Cow<'h, str>>,
    /// The split that the request followed; none when a barred version makes its shares void as evidence.
    pub split: Option<&'r Split>,
    /// How the version came about.
    pub drawn: Drawn,
    /// Whether the key is the tenant, so that evidence is counted over tenants.
    pub by_tenant: bool,
    /// A key to give to the client: name of the cookie, its value, and how long it lasts in seconds.
    pub issue: Option<(&'r str, String, u64)>,
    /// What the request's session came to; none where no session is kept, or where somebody chose.
    pub session: Option<SessionOutcome<'r>>,
    /// Length of the path prefix that is removed, in bytes.
    pub strip: usize,
    /// Whether the client asked for this version: no other may answer in its place.
    pub wanted: bool,
    /// Whether some version must never serve this request.
    pub restricted: bool,
}

/// Takes note of the steps of a decision.
pub trait Trace {
    /// One step; the sentence is only made when somebody listens.
    fn step(&mut self, step: &'static str, detail: impl FnOnce() -> String);
}

/// Nobody listens.
#[derive(Debug)]
pub struct Silent;

impl Trace for Silent {
    fn step(&mut self, _: &'static str, _: impl FnOnce() -> String) {}
}

/// The key of a request, before it is hashed with a split's salt.
enum Key<'h> {
    Text(Cow<'h, str>),
    Address([u8; 16]),
    Nothing,
}

impl Key<'_> {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text.as_bytes()),
            Self::Address(address) => Some(address),
            Self::Nothing => None,
        }
    }
}

/// The key of a request and what is known about it.
struct Keyed<'r, 'h> {
    key: Key<'h>,
    /// Whether the key names a user.
    named: bool,
    /// Whether the key is the tenant.
    by_tenant: bool,
    /// How sessions are kept, if they are.
    session: Option<&'r SessionSpec>,
}

/// Decides.
///
/// # Errors
/// [`Refusal`] when no service matches or the tenant cannot be told.
pub fn decide<'r, 'h>(
    routes: &'r Routes,
    head: &Head<'h>,
    trace: &mut impl Trace,
) -> Result<Decision<'r, 'h>, Refusal> {
    let found = routes.identifier.find(head)?;
    let path = match &head.path[found.strip..] {
        "" => "/",
        rest => rest,
    };
    let Some((at, rule)) = routes.matcher.find(head.method, head.host, path, head.headers) else {
        return Err(Refusal::NoService);
    };
    let service = &routes.services[at];
    trace.step("match", || format!("service {} matches by {}", service.spec.name, describe_rule(rule)));
    trace.step("tenant", || match &found.tenant {
        Some(tenant) => format!("tenant {tenant}, by source {} of tenants.identify", found.source.map_or(0, |s| s + 1)),
        None => "no tenant; the service's own split applies".to_owned(),
    });
    let mut issue = None;
    let Keyed { key, named, by_tenant, session } = find_key(service, head, found.tenant.as_ref(), &mut issue, trace);
    let user = if named && let Key::Text(text) = &key { Some(&**text) } else { None };
    let tenant = found.tenant.as_deref();
    let groups = tenant.and_then(|t| routes.groups.get(t)).map_or(&[][..], |g| g);
    let split = effective_split(service, tenant, groups, trace);
    let chosen = chosen(service, head, path, user, tenant, groups, trace);
    let wanted = matches!(chosen, Some((_, By::Client)));
    let owner =
        SessionOwner { service: service.spec.name.as_str(), tenant: tenant.unwrap_or_default(), key: key.bytes() };
    let mut session = session.filter(|_| chosen.is_none()).map(|spec| Session::read(spec, service, owner, head));
    let (name, drawn) = match (chosen, &mut session) {
        (Some((version, _)), _) => (version, Drawn::Chosen),
        (None, None) => draw(service, split, &key, head.random[0], None, trace),
        (None, Some(session)) => {
            let (given, drawn) = draw(service, split, &key, head.random[0], Some(session.id), trace);
            session.keep(service, split, given, drawn)
        }
    };
    let (name, drawn) = switch_off(service, name, drawn, trace);
    let (name, drawn, restricted) = exclude(service, name, drawn, user, tenant, groups, trace);
    let version = service.version(name.as_str()).unwrap_or_else(|| service.baseline());
    let session = session.map(|session| session.finish(service, split, &version.name, trace));
    trace.step("version", || format!("version {} serves the request", version.name));
    let sound =
        service.state.bars.is_empty() || split.slices.iter().all(|s| service.state.barred(&s.version, split).is_none());
    Ok(Decision {
        service,
        version,
        tenant: found.tenant,
        split: sound.then_some(split),
        drawn,
        by_tenant,
        issue,
        session,
        strip: found.strip,
        wanted,
        restricted,
    })
}

fn keyed(hash: u64) -> (u64, Drawn) {
    (hash, Drawn::Key(hash))
}

/// What the split gives the key, bars considered. Without a key, a session's id takes its place, so that a session is
/// one throw of the coin and not as many as it has requests.
fn draw<'r>(
    service: &'r ServiceRoute,
    split: &'r Split,
    key: &Key<'_>,
    coin: u64,
    session: Option<u64>,
    trace: &mut impl Trace,
) -> (&'r VersionName, Drawn) {
    let (hash, drawn) = match (key.bytes(), session) {
        (Some(bytes), _) => keyed(xxh3_64_with_seed(bytes, split.salt)),
        (None, Some(id)) => keyed(xxh3_64_with_seed(&id.to_le_bytes(), split.salt)),
        (None, None) => (coin, Drawn::Coin),
    };
    let bucket = Bucket::of_hash(hash);
    let version = service.state.version_for(split, bucket);
    trace.step("bucket", || describe_bucket(&service.state, split, bucket, version));
    (version, drawn)
}

/// The first sticky source that is present.
fn find_key<'r, 'h>(
    service: &'r ServiceRoute,
    head: &Head<'h>,
    tenant: Option<&Cow<'h, str>>,
    issue: &mut Option<(&'r str, String, u64)>,
    trace: &mut impl Trace,
) -> Keyed<'r, 'h> {
    for Sticky { source, session } in &service.spec.sticky {
        let found = |key, named, by_tenant| Keyed { key, named, by_tenant, session: session.as_ref() };
        match source {
            KeySource::Header(name) => {
                if let Some(value) = head.headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty()) {
                    trace.step("key", || format!("key {value:?} from header {name}"));
                    return found(Key::Text(Cow::Borrowed(value)), true, false);
                }
            }
            KeySource::Cookie(name) => {
                if let Some(value) = cookie::find(head.headers, name).filter(|v| !v.is_empty()) {
                    trace.step("key", || format!("key {value:?} from cookie {name}"));
                    return found(Key::Text(Cow::Borrowed(value)), true, false);
                }
            }
            KeySource::Issued { name, max_age } => {
                let (service_name, tenant) = (service.spec.name.as_str(), tenant.map_or("", |t| &**t));
                if let Some(value) = cookie::find(head.headers, name)
                    && service.signer.accepts(service_name, tenant, value)
                {
                    trace.step("key", || format!("key from the proxy's own cookie {name}"));
                    return found(Key::Text(Cow::Borrowed(value)), false, false);
                }
                let value = service.signer.issue(service_name, tenant, head.random);
                *issue = Some((name, value.clone(), max_age.as_secs()));
                trace.step("key", || format!("a new key, given to the client in cookie {name}"));
                return found(Key::Text(Cow::Owned(value)), false, false);
            }
            KeySource::Address => {
                trace.step("key", || format!("key from the address {}", head.address));
                return found(Key::Address(address_key(head.address)), false, false);
            }
            KeySource::Tenant => {
                if let Some(tenant) = tenant {
                    trace.step("key", || format!("the key is the tenant {tenant}"));
                    return found(Key::Text(tenant.clone()), false, true);
                }
            }
        }
    }
    let session = service.spec.sticky.iter().find_map(|s| s.session.as_ref());
    trace.step("key", || match session {
        Some(_) => "no key; a coin is flipped for each session".to_owned(),
        None => "no key; a coin is flipped for each request".to_owned(),
    });
    Keyed { key: Key::Nothing, named: false, by_tenant: false, session }
}

/// IPv6 clients own a /64 and change addresses within it, so only the network part is the key.
pub(super) fn address_key(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            octets
        }
    }
}

/// The split that a tenant follows, and whose it is; without a tenant, the service's own.
pub fn split_for<'r>(routes: &Routes, service: &'r ServiceRoute, tenant: Option<&str>) -> (&'r Split, SplitOwner) {
    let groups = tenant.and_then(|t| routes.groups.get(t)).map_or(&[][..], |g| g);
    let split = effective_split(service, tenant, groups, &mut Silent);
    let owner = if std::ptr::eq(split, &raw const service.state.split) {
        SplitOwner::Service
    } else if service.state.groups.values().any(|g| std::ptr::eq(g, split)) {
        SplitOwner::Group
    } else {
        SplitOwner::Tenant
    };
    (split, owner)
}

/// Whose split it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitOwner {
    /// The service's.
    Service,
    /// A group's.
    Group,
    /// The tenant's own.
    Tenant,
}

/// Tenant before group before service.
fn effective_split<'r>(
    service: &'r ServiceRoute,
    tenant: Option<&str>,
    groups: &[GroupName],
    trace: &mut impl Trace,
) -> &'r Split {
    let live = &service.state;
    let group = match live.groups.is_empty() {
        true => None,
        false => groups.iter().find_map(|g| live.group_split(g.as_str()).map(|split| (g, split))),
    };
    let parent = group.map_or(&live.split, |(_, split)| split);
    // A brake on a tenant that has no split of its own lasts only as long as what it inherits.
    let own = tenant.and_then(|t| service.tenants.get(t)).map(|own| &own.split).filter(|s| s.lasts_under(parent));
    let split = own.unwrap_or(parent);
    trace.step("split", || {
        let whose = match (own, group) {
            (Some(_), _) => format!("tenant {}", tenant.unwrap_or_default()),
            (None, Some((group, _))) => format!("group {group}"),
            (None, None) => "the service".to_owned(),
        };
        format!("the split of {whose}: {} (epoch {})", split.weights(), split.epoch)
    });
    split
}

/// Who chose a version where no coin did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Operator,
    Client,
}

/// Pins before a tester's choice before a version's own path.
fn chosen<'r>(
    service: &'r ServiceRoute,
    head: &Head<'_>,
    path: &str,
    user: Option<&str>,
    tenant: Option<&str>,
    groups: &[GroupName],
    trace: &mut impl Trace,
) -> Option<(&'r VersionName, By)> {
    let pins = &service.state.pins;
    if !pins.is_empty() {
        let user = user.filter(|u| UserName::allows(u)).and_then(|u| pins.users.get(u)).map(|p| ("user", p));
        let tenant = || tenant.and_then(|t| pins.tenants.get(t)).map(|p| ("tenant", p));
        let group = || groups.iter().find_map(|g| pins.groups.get(g)).map(|p| ("group", p));
        let to = |found: Option<(&'static str, &'r Pin)>| match found {
            Some((kind, pin @ (Pin::Version(_) | Pin::Suspended(_)))) => Some((kind, pin)),
            _ => None,
        };
        if let Some((kind, pin)) = to(user).or_else(|| to(tenant())).or_else(|| to(group())) {
            return Some((pinned(service, kind, pin, trace), By::Operator));
        }
    }
    if let Some(choose) = &service.spec.choose {
        let header = choose.header.as_ref().and_then(|n| head.headers.get(n)).and_then(|v| v.to_str().ok());
        let wish = header.or_else(|| choose.cookie.as_deref().and_then(|n| cookie::find(head.headers, n)));
        if let Some(version) = wish.and_then(|w| granted(service, w, head.trusted, choose.secret.as_deref())) {
            trace.step("choice", || format!("the client chose {version}, with the secret or from a trusted address"));
            return Some((version, By::Client));
        }
    }
    let by_path = service.paths.iter().find(|(prefix, _)| has_prefix(path, prefix));
    by_path.map(|(prefix, at)| {
        let version = &service.versions[*at].name;
        trace.step("path", || format!("the path {prefix} belongs to {version}"));
        (version, By::Client)
    })
}

/// Where a pin leads: one whose version was disabled leads to the baseline until it is set again.
fn pinned<'r>(service: &'r ServiceRoute, kind: &'static str, pin: &'r Pin, trace: &mut impl Trace) -> &'r VersionName {
    let version = pin.version();
    if let Pin::Suspended(_) = pin {
        let baseline = &service.baseline().name;
        trace.step("pin", || {
            format!("the {kind} was pinned to {version} when it was disabled; the baseline {baseline} takes its place")
        });
        return baseline;
    }
    trace.step("pin", || format!("the {kind} is pinned to {version}"));
    version
}

/// A disabled version gives way to the baseline, however it was come to.
fn switch_off<'r>(
    service: &'r ServiceRoute,
    version: &'r VersionName,
    drawn: Drawn,
    trace: &mut impl Trace,
) -> (&'r VersionName, Drawn) {
    if !service.state.is_disabled(version) {
        return (version, drawn);
    }
    let baseline = &service.baseline().name;
    trace.step("disabled", || format!("{version} is disabled; the baseline {baseline} takes its place"));
    (baseline, Drawn::Chosen)
}

/// The version that a tester asks for, if the tester may.
fn granted<'r>(service: &'r ServiceRoute, wish: &str, trusted: bool, secret: Option<&str>) -> Option<&'r VersionName> {
    use subtle::ConstantTimeEq as _;
    let (version, given) = wish.split_once(':').map_or((wish, None), |(v, s)| (v, Some(s)));
    let knows = match (secret, given) {
        (Some(secret), Some(given)) => bool::from(secret.as_bytes().ct_eq(given.as_bytes())),
        _ => false,
    };
    let version = (trusted || knows).then(|| service.version(version)).flatten()?;
    Some(&version.name)
}

/// An excluded version gives way to the baseline, and the request is no evidence. Also tells whether any is excluded.
fn exclude<'r>(
    service: &'r ServiceRoute,
    version: &'r VersionName,
    drawn: Drawn,
    user: Option<&str>,
    tenant: Option<&str>,
    groups: &[GroupName],
    trace: &mut impl Trace,
) -> (&'r VersionName, Drawn, bool) {
    let pins = &service.state.pins;
    if pins.is_empty() {
        return (version, drawn, false);
    }
    let user = user.filter(|u| UserName::allows(u)).and_then(|u| pins.users.get(u));
    let tenant = tenant.and_then(|t| pins.tenants.get(t));
    let group = groups.iter().filter_map(|g| pins.groups.get(g));
    let mut excluded = user.into_iter().chain(tenant).chain(group).filter_map(|p| match p {
        Pin::Exclude(excluded) => Some(excluded),
        Pin::Version(_) | Pin::Suspended(_) => None,
    });
    let first = excluded.next();
    let Some(any) = first else { return (version, drawn, false) };
    if any == version || excluded.any(|e| e == version) {
        let baseline = &service.baseline().name;
        trace.step("exclude", || format!("{version} is excluded here; the baseline {baseline} takes its place"));
        return (baseline, Drawn::Chosen, true);
    }
    // Who can never reach a canary is not part of the comparison either.
    (version, Drawn::Chosen, true)
}

/// A hash for evidence when the key is the tenant: the same for every split.
pub fn tenant_hash(tenant: &str) -> u64 {
    xxh3_64(tenant.as_bytes())
}

fn describe_bucket(live: &ServiceState, split: &Split, bucket: Bucket, version: &VersionName) -> String {
    let (index, seed, given) = (bucket.index(), split.salt, split.version_at(bucket));
    let sentence = format!("bucket {index} of 10000 under salt {seed:016x}; the split gives it to {given}");
    if given == version {
        return sentence;
    }
    let why = if live.is_disabled(given) { "is disabled" } else { "was taken back for the whole service" };
    format!("{sentence}, which {why}; {version} has its share")
}

fn describe_rule(rule: &crate::model::MatchRule) -> String {
    let mut parts = Vec::new();
    parts.extend(rule.host.as_ref().map(|h| format!("host {h}")));
    parts.extend(rule.path.as_ref().map(|p| format!("path {p}")));
    parts.extend(rule.headers.iter().map(|(n, v)| match v {
        Some(v) => format!("header {n}: {v}"),
        None => format!("header {n}"),
    }));
    if !rule.methods.is_empty() {
        parts.push(format!("method {}", rule.methods.iter().map(Method::as_str).collect::<Vec<_>>().join("|")));
    }
    parts.join(", ")
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
