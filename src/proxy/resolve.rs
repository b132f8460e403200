//! Names to addresses, in the background: no request ever waits for a name server, except the first one of a tenant
//! whose endpoints have names of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Longest time for one look-up.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The addresses of a name, sorted. Names below `localhost` are this machine by definition (RFC 6761, section 6.3).
///
/// # Errors
/// What the system says, or that it took too long.
pub async fn resolve(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))]);
    }
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let mut addresses: Vec<_> = found.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??.collect();
    addresses.sort_unstable();
    addresses.dedup();
    match addresses.is_empty() {
        true => Err(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address")),
        false => Ok(addresses),
    }
}
