//! Active checks: asks each endpoint whether it is well, as often as its version says, over a new connection each time, as
//! kept ones would hide that no new ones are taken.

use std::sync::Arc;
use std::time::Duration;

use pingora::ErrorType;
use pingora::http::RequestHeader;
use pingora::prelude::{Error, OrErr as _, Result};
use pingora::upstreams::peer::HttpPeer;
use tokio::net::TcpStream;

use super::endpoints::EndpointKeeper;
use super::shadow::into_http2;
use super::upstream;
use crate::model::HealthSpec;
use crate::routing::{Endpoint, VersionRoute};

/// How one version's endpoints are checked.
pub(super) struct Checker {
    /// What is asked; none: a TCP connection is enough.
    request: Option<RequestHeader>,
    spec: HealthSpec,
}

impl Checker {
    /// The checker of a version; `None` when it is not checked.
    pub fn new(version: &VersionRoute) -> Option<Self> {
        let spec = version.spec.health.clone()?;
        let request = match &spec.path {
            None => None,
            Some(path) => {
                let name = version.spec.tls.as_ref().and_then(|tls| tls.server_name.clone());
                let host = version.spec.host.clone().or(name).unwrap_or_else(|| "health.switchback".to_owned());
                let mut request = RequestHeader::build("GET", path.as_bytes(), None).ok()?;
                request.insert_header("host", host).ok()?;
                Some(request)
            }
        };
        Some(Self { request, spec })
    }

    /// How often.
    pub fn interval(&self) -> Duration {
        self.spec.interval
    }

    async fn ask(&self, keeper: &EndpointKeeper, endpoint: &Endpoint, version: &VersionRoute) -> Result<()> {
        let Some(request) = &self.request else {
            let connected = TcpStream::connect(endpoint.address).await;
            return connected.map(drop).or_err(ErrorType::ConnectError, "a connection for the health check");
        };
        let identity = keeper.identity(version).await?;
        let mut peer = upstream::peer(version, endpoint, identity.as_deref(), None);
        peer.options.max_h2_streams = 1;
        self.answer(keeper, &peer, Box::new(request.clone())).await
    }

    async fn answer(&self, keeper: &EndpointKeeper, peer: &HttpPeer, mut request: Box<RequestHeader>) -> Result<()> {
        let (mut session, _) = keeper.connector().await.get_http_session(peer).await?;
        if session.as_http2().is_some() {
            into_http2(&mut request, peer.is_tls())?;
        }
        session.write_request_header(request).await?;
        session.finish_request_body().await?;
        loop {
            session.read_response_header().await?;
            let status = session.response_header().map_or(0, |answer| answer.status.as_u16());
            match status {
                100..=199 => {}
                200..=299 => return Ok(()),
                _ => {
                    let why = "the health check was not answered with 2xx";
                    return Error::e_explain(ErrorType::HTTPStatus(status), why);
                }
            }
        }
    }

    /// Checks one endpoint, and says so when its health changed.
    pub async fn check(&self, keeper: &EndpointKeeper, endpoint: &Arc<Endpoint>, version: &VersionRoute) {
        // Pingora's deadlines are per step; this one is for the whole.
        let result = tokio::time::timeout(self.spec.timeout, self.ask(keeper, endpoint, version)).await;
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
