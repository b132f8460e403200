//! Active checks: asks each endpoint whether it is well, as often as its version says.

use std::sync::Arc;

use pingora::lb::Backend;
use pingora::lb::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};

use crate::model::HealthSpec;
use crate::routing::{Endpoint, VersionRoute};

/// How one version's endpoints are checked.
pub(super) struct Checker {
    check: Box<dyn HealthCheck + Send + Sync>,
    spec: HealthSpec,
}

impl Checker {
    /// The checker of a version; `None` when it is not checked.
    pub fn new(version: &VersionRoute) -> Option<Self> {
        let spec = version.spec.health.clone()?;
        let tls = version.spec.tls.as_ref();
        let check: Box<dyn HealthCheck + Send + Sync> = match &spec.path {
            None => {
                let mut check = TcpHealthCheck::new();
                check.peer_template.options.connection_timeout = Some(spec.timeout);
                check
            }
            Some(path) => {
                let name = tls.and_then(|t| t.server_name.clone());
                let host = version.spec.host.clone().or(name).unwrap_or_else(|| "health.switchback".to_owned());
                let mut check = HttpHealthCheck::new(&host, tls.is_some());
                check.peer_template.group_key = version.group_key;
                let options = &mut check.peer_template.options;
                options.connection_timeout = Some(spec.timeout);
                options.read_timeout = Some(spec.timeout);
                options.write_timeout = Some(spec.timeout);
                options.verify_cert = tls.is_none_or(|t| t.verify);
                options.verify_hostname = tls.is_none_or(|t| t.verify);
                if version.spec.http2 {
                    options.alpn = pingora::protocols::ALPN::H2;
                }
                check.req.set_uri(path.parse().ok()?);
                check.validator = Some(Box::new(|answer| match answer.status.is_success() {
                    true => Ok(()),
                    false => pingora::Error::e_explain(
                        pingora::ErrorType::HTTPStatus(answer.status.as_u16()),
                        "the health check was not answered with 2xx",
                    ),
                }));
                Box::new(check)
            }
        };
        Some(Self { check, spec })
    }

    /// How often.
    pub fn interval(&self) -> std::time::Duration {
        self.spec.interval
    }

    /// Checks one endpoint, and says so when its health changed.
    pub async fn check(&self, endpoint: &Arc<Endpoint>, version: &VersionRoute) {
        let Ok(backend) = Backend::new(&endpoint.address.to_string()) else { return };
        // The check's own deadlines are per step; this one is for the whole.
        let result = tokio::time::timeout(self.spec.timeout, self.check.check(&backend)).await;
        let good = matches!(result, Ok(Ok(())));
        if endpoint.checked(good, self.spec.healthy_after, self.spec.unhealthy_after) {
            let why = match result {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {:?}", self.spec.timeout),
            };
            match good {
                true => {
                    tracing::info!(version = %version.name, endpoint = %endpoint.name, "the endpoint is healthy again")
                }
                false => {
                    tracing::warn!(version = %version.name, endpoint = %endpoint.name, why, "the endpoint is unhealthy")
                }
            }
        }
    }
}
