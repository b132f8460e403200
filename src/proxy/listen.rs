//! Listening sockets, bound before anything else starts so that an address in use is an error and not a panic.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// A bound socket.
#[derive(Debug)]
pub(super) struct Bound {
    /// The address, with the port that the system chose when none was asked for.
    pub address: SocketAddr,
    pub listener: TcpListener,
    /// The same socket, to be handed over.
    pub copy: std::net::TcpListener,
}

/// Binds an address, unless somebody has done so already. Must be called within a runtime.
///
/// # Errors
/// What the system says.
pub(super) fn bind(address: SocketAddr, given: Option<std::net::TcpListener>) -> std::io::Result<Bound> {
    let socket = match given {
        Some(socket) => socket,
        None => fresh(address)?,
    };
    socket.set_nonblocking(true)?;
    let copy = socket.try_clone()?;
    let listener = TcpListener::from_std(socket)?;
    Ok(Bound { address: listener.local_addr()?, listener, copy })
}

fn fresh(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}
