//! Why a request goes where it goes: a request is made up from the query and sent through the real decision.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::context::{Cx, Found};
use super::parameters::{Names, Parameters};
use super::problem::{Problem, echo};
use crate::model::{KeySource, MatchRule, TenantName, TenantSource};
use crate::routing::{Head, explain, has_prefix};

/// The chain of decisions for one request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(super) struct ExplainAnswer {
    /// The service that the request belongs to, which may be another one; none when it is refused.
    #[schema(required)]
    pub service: Option<String>,
    #[schema(required)]
    pub tenant: Option<String>,
    /// The version that serves it; none when it is refused.
    #[schema(required)]
    pub version: Option<String>,
    pub endpoints: Vec<String>,
    /// The path as the endpoint sees it.
    pub path: String,
    pub steps: Vec<StepAnswer>,
}

/// One step of a decision.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Step)]
pub(super) struct StepAnswer {
    /// What was looked at.
    pub step: &'static str,
    /// What came of it, as a sentence.
    pub detail: String,
}

/// The made-up request.
struct MadeUp {
    method: Method,
    host: String,
    path: String,
    headers: HeaderMap,
    address: IpAddr,
    trusted: bool,
}

/// The chain of decisions for a request
#[utoipa::path(
    get, path = "/v1/services/{service}/explain", tag = "evidence",
    params(
        ("tenant" = Option<String>, Query, description = "Its tenant, put where tenants.identify looks first"),
        ("key" = Option<String>, Query, description = "Its key, put where the service's sticky sources look first"),
        ("path" = Option<String>, Query, description = "Its path; one that the service matches unless given"),
        ("host" = Option<String>, Query, description = "Its host; one that the service matches unless given"),
        ("method" = Option<String>, Query, description = "Its method"),
        ("header" = Option<Vec<String>>, Query, description = "A header as `Name:value`; may be repeated"),
        ("address" = Option<String>, Query, description = "The client's address; a trusted one unless given"),
    ),
    responses((status = 200, description = "Every step", body = ExplainAnswer)),
)]
pub(super) async fn explain_request(
    State(cx): State<Cx>,
    names: Names,
    parameters: Parameters,
) -> Result<Json<ExplainAnswer>, Problem> {
    let parameters = parameters.only(&["tenant", "key", "path", "host", "method", "address"], &["header"])?;
    let found = Found::service(&cx, &names.service()?)?;
    explained(&found, &parameters).map(Json)
}

/// The chain of decisions for the request that the parameters describe.
pub(super) fn explained(found: &Found, parameters: &Parameters) -> Result<ExplainAnswer, Problem> {
    let request = make_up(found, parameters)?;
    let head = Head {
        method: &request.method,
        host: &request.host,
        path: &request.path,
        headers: &request.headers,
        address: request.address,
        trusted: request.trusted,
        random: [rand::random(), rand::random()],
        now_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
    };
    let explanation = explain(&found.view.routes, &head);
    let steps = explanation.steps.into_iter().map(|s| StepAnswer { step: s.step, detail: s.detail });
    Ok(ExplainAnswer {
        service: explanation.service,
        tenant: explanation.tenant,
        version: explanation.version,
        endpoints: explanation.endpoints,
        path: explanation.path,
        steps: steps.collect(),
    })
}

fn make_up(found: &Found, parameters: &Parameters) -> Result<MadeUp, Problem> {
    let settings = &found.view.settings;
    let path = parameters.text("path");
    if path.is_some_and(|p| !p.starts_with('/')) {
        return Err(Problem::bad("path", "does not begin with \"/\""));
    }
    let path = path.map(|p| p.split(['?', '#']).next().unwrap_or(p));
    let address: Option<IpAddr> = parameters.text("address").map(|text| read_address("address", text)).transpose()?;
    let trusted = address.is_none_or(|a| settings.proxy.trusted.iter().any(|net| net.contains(&a.to_canonical())));
    let method = parameters.text("method").map(|text| {
        Method::from_bytes(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| Problem::bad("method", format!("{:?} is not a method", echo(text))))
    });
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    // What is not given is taken from the service's own rule, so that the request is one of the service.
    let fits = |rule: &&MatchRule| path.is_none_or(|p| rule.path.as_ref().is_none_or(|prefix| has_prefix(p, prefix)));
    let rule = found.route.spec.rules.iter().find(fits).cloned().unwrap_or_default();
    let mut request = MadeUp {
        method: method.transpose()?.or(rule.methods.first().cloned()).unwrap_or(Method::GET),
        host: parameters.text("host").map_or_else(|| host_of(&rule), |h| h.to_ascii_lowercase()),
        path: path.map_or_else(|| rule.path.clone().unwrap_or_else(|| "/".to_owned()), str::to_owned),
        headers: HeaderMap::new(),
        address,
        trusted,
    };
    for (name, value) in &rule.headers {
        request.headers.insert(name, header_value(name.as_str(), value.as_deref().unwrap_or("1"))?);
    }
    if let Some(tenant) = parameters.name::<TenantName>("tenant")? {
        request.put_tenant(found, tenant.as_str())?;
    }
    if let Some(key) = parameters.text("key") {
        request.put_key(found, key)?;
    }
    for text in parameters.all("header") {
        let pair =
            text.split_once(':').and_then(|(n, v)| Some((n.parse::<HeaderName>().ok()?, v.trim_start_matches(' '))));
        let wrong = || Problem::bad("header", format!("{:?} is not a header; allowed is Name:value", echo(text)));
        let (name, value) = pair.ok_or_else(wrong)?;
        let value = header_value("header", value)?;
        request.headers.append(name, value);
    }
    Ok(request)
}

impl MadeUp {
    /// Puts the tenant where the first source that can be made up looks for it.
    fn put_tenant(&mut self, found: &Found, tenant: &str) -> Result<(), Problem> {
        for source in &found.view.settings.structure.tenants.identify {
            match source {
                TenantSource::Host { prefix, suffix } => self.host = format!("{prefix}{tenant}{suffix}"),
                TenantSource::Path { prefix, .. } => self.path = format!("{prefix}{tenant}{}", self.path),
                TenantSource::Header { name, .. } => {
                    self.headers.insert(name, header_value("tenant", tenant)?);
                }
                TenantSource::Jwt(_) => continue,
            }
            return Ok(());
        }
        let message = "no source of tenants.identify can be made up; send a signed token as \
                       header=Authorization:Bearer TOKEN";
        Err(Problem::bad("tenant", message))
    }

    /// Puts the key where the first source that can be made up looks for it.
    fn put_key(&mut self, found: &Found, key: &str) -> Result<(), Problem> {
        for sticky in &found.route.spec.sticky {
            match &sticky.source {
                KeySource::Header(name) => {
                    self.headers.insert(name, header_value("key", key)?);
                }
                KeySource::Cookie(name) => {
                    self.headers.insert(header::COOKIE, header_value("key", &format!("{name}={key}"))?);
                }
                KeySource::Address => self.address = read_address("key", key)?,
                KeySource::Issued { .. } | KeySource::Tenant => continue,
            }
            return Ok(());
        }
        let message = "the service has no sticky source that a key can be put into; \
                       a tenant or a cookie of the proxy can be given as tenant= or header=Cookie:name=value";
        Err(Problem::bad("key", message))
    }
}

/// A host that a rule holds for.
fn host_of(rule: &MatchRule) -> String {
    match rule.host.as_deref() {
        Some(host) => host.strip_prefix("*.").map_or_else(|| host.to_owned(), |rest| format!("any.{rest}")),
        None => "localhost".to_owned(),
    }
}

fn header_value(field: &str, text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|_| Problem::bad(field, format!("{:?} cannot stand in a header", echo(text))))
}

fn read_address(field: &str, text: &str) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_| Problem::bad(field, format!("{:?} is not an IP address", echo(text))))
}
