//! Whether a request meets a closed door: what is in maintenance, and who passes all the same.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use subtle::ConstantTimeEq as _;

use super::routes::ServiceRoute;
use crate::model::Maintenance;

/// The header that brings the secret with which one passes. Endpoints never see it.
pub const X_BYPASS: HeaderName = HeaderName::from_static("x-switchback-bypass");

/// The maintenance that a request meets; none when its service and tenant are served, or when it may pass.
pub fn closed<'r>(
    service: &'r ServiceRoute,
    tenant: Option<&str>,
    headers: &HeaderMap,
    address: IpAddr,
) -> Option<&'r Maintenance> {
    if service.state.maintenance.is_empty() {
        return None;
    }
    service.state.maintenance.of(tenant).filter(|_| !passes(service, headers, address))
}

fn passes(service: &ServiceRoute, headers: &HeaderMap, address: IpAddr) -> bool {
    let spec = &service.spec.maintenance;
    let address = address.to_canonical();
    let given = headers.get(X_BYPASS);
    let knows = match (&spec.bypass_secret, given) {
        (Some(secret), Some(given)) => bool::from(secret.as_bytes().ct_eq(given.as_bytes())),
        _ => false,
    };
    knows || spec.bypass.iter().any(|net| net.contains(&address))
}
