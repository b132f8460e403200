//! Why a request goes where it goes: the same decision, with every step told.

use serde::Serialize;

use super::decide::{Head, Refusal, Trace, decide};
use super::maintenance::closed;
use super::matching::rewrite;
use super::routes::{Routes, ServiceRoute};

/// One step of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was looked at.
    pub step: &'static str,
    /// What came of it, as a sentence.
    pub detail: String,
}

/// The whole chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The service that the request belongs to.
    pub service: Option<String>,
    /// The tenant, if there is one.
    pub tenant: Option<String>,
    /// The version that serves it; none when it is refused.
    pub version: Option<String>,
    /// Where that version listens.
    pub endpoints: Vec<String>,
    /// The path as the endpoint sees it.
    pub path: String,
    /// The steps in order.
    pub steps: Vec<Step>,
}

#[derive(Default)]
struct Steps(Vec<Step>);

impl Trace for Steps {
    fn step(&mut self, step: &'static str, detail: impl FnOnce() -> String) {
        self.0.push(Step { step, detail: detail() });
    }
}

/// Decides, and tells each step.
pub fn explain(routes: &Routes, head: &Head<'_>) -> Explanation {
    let mut steps = Steps::default();
    match decide(routes, head, &mut steps) {
        Err(refusal) => {
            let detail = format!("refused with {}: {}", refusal.status(), sentence(refusal));
            steps.step("refused", || detail);
            Explanation {
                service: None,
                tenant: None,
                version: None,
                endpoints: Vec::new(),
                path: head.path.to_owned(),
                steps: steps.0,
            }
        }
        Ok(decision) => {
            let tenant = decision.tenant.as_deref();
            if let Some(maintenance) = closed(decision.service, tenant, head.headers, head.address) {
                steps.step("maintenance", || {
                    let own = tenant.is_some_and(|t| decision.service.state.maintenance.tenants.contains_key(t));
                    let what = if own { "the tenant" } else { "the service" };
                    format!("answered with 503: {what} is in maintenance, says {}", maintenance.author)
                });
                return refused_by(decision.service, tenant, head.path, steps);
            }
            let spec = &decision.version.spec;
            let stripped = if decision.strip == head.path.len() { "/" } else { &head.path[decision.strip..] };
            let rewritten = spec.rewrite.as_ref().and_then(|r| rewrite(stripped, &r.from, &r.to));
            let path = rewritten.unwrap_or_else(|| stripped.to_owned());
            if path != head.path {
                steps.step("rewrite", || format!("the path {} becomes {path}", head.path));
            }
            let endpoints: Vec<_> = spec
                .endpoints
                .iter()
                .map(|e| e.to_string().replace("{tenant}", tenant.unwrap_or("{tenant}")))
                .collect();
            steps.step("endpoint", || format!("the less busy of two among {}", endpoints.join(", ")));
            Explanation {
                service: Some(decision.service.spec.name.to_string()),
                tenant: tenant.map(str::to_owned),
                version: Some(decision.version.name.to_string()),
                endpoints,
                path,
                steps: steps.0,
            }
        }
    }
}

fn refused_by(service: &ServiceRoute, tenant: Option<&str>, path: &str, steps: Steps) -> Explanation {
    Explanation {
        service: Some(service.spec.name.to_string()),
        tenant: tenant.map(str::to_owned),
        version: None,
        endpoints: Vec::new(),
        path: path.to_owned(),
        steps: steps.0,
    }
}

fn sentence(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoService => "no service matches host, path, headers and method",
        Refusal::UnknownTenant => "no source names a tenant, and tenants.unknown is \"reject\"",
        Refusal::BadTenant => "a source names the tenant more than once or with characters that no tenant has",
        Refusal::TenantConflict => "two sources name different tenants, and tenants.conflict is \"reject\"",
    }
}
