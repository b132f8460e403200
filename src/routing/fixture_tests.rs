//! A house of services for the tests of this room: one for each kind of key, with changes and requests made in a line.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

use crate::config;
use crate::model::{
    Applied, Author, BasisPoints, Change, ChangeError, ChangeRequest, GroupName, PinTarget, Scope, ServiceName, State,
    Structure, TenantName, UserName, VersionName, Weights,
};
use crate::routing::{Context, CookieSigner, Decision, Head, Refusal, Routes, Silent, decide};
use crate::telemetry::Tallies;

/// Services `api` (key from a header or cookie), `web` (issued cookie), `net` (address), `crm` (tenant), `coin` (none).
pub const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:8080"]
[tenants]
identify = [{ host = "{tenant}.example.com" }, { header = "x-tenant" }, { path = "/t/{tenant}", strip = true }]
groups = { beta = ["acme", "globex"], early = ["acme", "initech"] }
[services.api]
match = [{ path = "/api" }]
sticky = [{ header = "x-user" }, { cookie = "sid" }]
baseline = "b"
choose = { header = "x-version", cookie = "version", secret = "0123456789abcdef" }
[services.api.versions]
b = { endpoints = ["127.0.0.1:7001"] }
s = { endpoints = ["127.0.0.1:7002"] }
g = { endpoints = ["127.0.0.1:7003"] }
t = { endpoints = ["127.0.0.1:7004"] }
p = { endpoints = ["{tenant}.p.internal:80"], path = "/api/p", rewrite = { from = "/api/p", to = "/v2" } }
c = { endpoints = ["127.0.0.1:7006"] }
pg = { endpoints = ["127.0.0.1:7007"] }
pt = { endpoints = ["127.0.0.1:7008"] }
pu = { endpoints = ["127.0.0.1:7009"] }
[services.web]
match = [{ path = "/web" }]
sticky = [{ cookie = "sb", issue = true, max_age = "1h" }]
baseline = "b"
versions = { b = { endpoints = ["127.0.0.1:7001"] }, s = { endpoints = ["127.0.0.1:7002"] }, t = { endpoints = ["127.0.0.1:7003"] } }
[services.net]
match = [{ path = "/net" }]
sticky = [{ address = true }]
baseline = "b"
versions = { b = { endpoints = ["127.0.0.1:7001"] }, s = { endpoints = ["127.0.0.1:7002"] } }
[services.crm]
match = [{ path = "/crm" }]
sticky = [{ tenant = true }]
baseline = "b"
versions = { b = { endpoints = ["127.0.0.1:7001"] }, s = { endpoints = ["127.0.0.1:7002"] } }
[services.coin]
match = [{ path = "/coin" }]
baseline = "b"
versions = { b = { endpoints = ["127.0.0.1:7001"] }, s = { endpoints = ["127.0.0.1:7002"] } }
"#;

pub fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub fn version(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

pub fn of_tenant(name: &str) -> Scope {
    Scope::Tenant(TenantName::new(name).unwrap())
}

pub fn of_group(name: &str) -> Scope {
    Scope::Group(GroupName::new(name).unwrap())
}

pub fn pin_user(name: &str) -> PinTarget {
    PinTarget::User(UserName::new(name).unwrap())
}

pub fn pin_tenant(name: &str) -> PinTarget {
    PinTarget::Tenant(TenantName::new(name).unwrap())
}

pub fn pin_group(name: &str) -> PinTarget {
    PinTarget::Group(GroupName::new(name).unwrap())
}

/// Some points for one version, the rest for the baseline.
pub fn share(canary: &str, points: u16) -> Weights {
    let points = BasisPoints::new(points).unwrap();
    let rest = BasisPoints::new(10_000 - points.points()).unwrap();
    Weights::new([(version(canary), points), (version("b"), rest)]).unwrap()
}

pub fn set(scope: Scope, canary: &str, points: u16) -> Change {
    Change::SetSplit { scope, weights: share(canary, points) }
}

pub fn rollback(scope: Scope, canary: &str) -> Change {
    Change::Rollback { scope, canary: Some(version(canary)), cause: "errors".to_owned(), first_bad_ms: None }
}

/// What compiling needs. Each call makes one as another process would.
pub fn context() -> Context {
    let signer = CookieSigner::new([b"a secret of the cookies".as_slice()]);
    Context { tallies: Arc::new(Tallies::new(100)), signer: Arc::new(signer), reach: Arc::default() }
}

pub fn structure(text: &str) -> Structure {
    let settings = config::parse(text, Path::new("/etc/sb.toml"), &|_| None);
    settings.unwrap_or_else(|mistakes| panic!("{mistakes}")).structure
}

/// A state, its structure, and routes that are patched with every change.
pub struct House {
    pub structure: Structure,
    pub state: State,
    pub context: Context,
    pub routes: Routes,
}

impl House {
    pub fn new() -> Self {
        Self::of(FILE)
    }

    pub fn of(text: &str) -> Self {
        let structure = structure(text);
        let mut state = State::default();
        for name in structure.services.keys() {
            state = ask(&state, &structure, name.as_str(), Change::AddService).unwrap().state;
        }
        let context = context();
        let routes = Routes::compile(&structure, &state, &context, None).unwrap();
        Self { structure, state, context, routes }
    }

    /// Makes a change and patches the routes; false when the change is refused.
    pub fn tries(&mut self, name: &str, change: Change) -> bool {
        let Ok(applied) = ask(&self.state, &self.structure, name, change) else { return false };
        self.state = applied.state;
        self.routes = self.routes.with_service(&service(name), &self.state, &self.context).unwrap();
        true
    }

    pub fn does(&mut self, name: &str, change: Change) {
        assert!(self.tries(name, change.clone()), "{change:?} is refused");
    }

    /// Routes as another process compiles them from the same state.
    pub fn elsewhere(&self) -> Routes {
        Routes::compile(&self.structure, &self.state, &context(), None).unwrap()
    }

    pub fn decides<'r, 'h>(&'r self, request: &'h Request) -> Decision<'r, 'h> {
        decide(&self.routes, &request.head(), &mut Silent).unwrap()
    }

    pub fn refuses(&self, request: &Request) -> Refusal {
        decide(&self.routes, &request.head(), &mut Silent).unwrap_err()
    }

    pub fn version_of(&self, request: &Request) -> &str {
        decide(&self.routes, &request.head(), &mut Silent).unwrap().version.name.as_str()
    }
}

fn ask(state: &State, structure: &Structure, name: &str, change: Change) -> Result<Applied, ChangeError> {
    let request = ChangeRequest {
        service: service(name),
        change,
        author: Author::File,
        reason: String::new(),
        if_revision: None,
        if_attempt: None,
        evidence: serde_json::Value::Null,
    };
    state.apply(structure, &request, 1, 0)
}

/// A request, put together in a line.
#[derive(Debug, Clone)]
pub struct Request {
    pub host: String,
    pub path: String,
    pub headers: HeaderMap,
    pub address: IpAddr,
    pub trusted: bool,
    pub random: [u64; 2],
    pub now_s: u64,
}

impl Request {
    pub fn to(path: &str) -> Self {
        Self {
            host: "localhost".to_owned(),
            path: path.to_owned(),
            headers: HeaderMap::new(),
            address: [10, 0, 0, 1].into(),
            trusted: false,
            random: [0, 0],
            now_s: 1_000,
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        self
    }

    pub fn head(&self) -> Head<'_> {
        Head {
            method: &Method::GET,
            host: &self.host,
            path: &self.path,
            headers: &self.headers,
            address: self.address,
            trusted: self.trusted,
            random: self.random,
            now_s: self.now_s,
        }
    }
}
