//! Listening sockets, bound before anything else starts so that an address in use is an error and not a panic.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd as _;
use std::sync::Arc;

use pingora::server::{Fds, ListenFds};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// A bound socket.
#[derive(Debug)]
pub(super) struct Bound {
    /// The address, with the port that the system chose when none was asked for.
    pub address: SocketAddr,
    listener: TcpListener,
}

/// Binds an address.
///
/// # Errors
/// What the system says.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<Bound> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?.into_std()?;
    Ok(Bound { address: listener.local_addr()?, listener })
}

/// Hands the sockets to Pingora, which finds them by their address.
pub(super) fn hand_over(bound: Vec<Bound>) -> ListenFds {
    let mut fds = Fds::new();
    for socket in bound {
        fds.add(socket.address.to_string(), socket.listener.into_raw_fd());
    }
    Arc::new(parking_lot::Mutex::new(fds))
}
