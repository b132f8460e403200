//! Listening sockets that somebody else has opened: the process before this one, or the service manager.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use serde::{Deserialize, Serialize};

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// `proxy.listen`.
    Plain,
    /// `proxy.tls.listen`.
    Tls,
    /// `admin.listen`.
    Admin,
}

/// A listening socket and what it was opened for.
#[derive(Debug)]
pub(super) struct Named {
    pub label: Label,
    pub listener: TcpListener,
}

/// What a socket was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    pub role: Role,
    /// The address in the configuration; its port is 0 where any will do.
    pub wanted: SocketAddr,
}

/// Listening sockets, to be taken by who needs them. What nobody takes is closed.
#[derive(Debug, Default)]
pub struct Sockets {
    named: Vec<Named>,
    /// From the service manager, which does not say what they are for; known by their addresses.
    loose: Vec<TcpListener>,
}

impl Sockets {
    /// Those that the service manager has opened for this process (`LISTEN_FDS`); none without one.
    ///
    /// # Errors
    /// What the system says of something that is handed over and is no listening TCP socket.
    pub fn of_service_manager() -> io::Result<Self> {
        let mut given = ListenFd::from_env();
        let mut loose = Vec::new();
        for index in 0..given.len() {
            if let Some(listener) = given.take_tcp_listener(index)? {
                // Or every process that is started from here would have it too.
                rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
                loose.push(listener);
            }
        }
        Ok(Self::loose(loose))
    }

    pub(super) fn loose(loose: Vec<TcpListener>) -> Self {
        Self { named: Vec::new(), loose }
    }

    /// Adds a socket.
    pub fn add(&mut self, role: Role, wanted: SocketAddr, listener: TcpListener) {
        self.push(Named { label: Label { role, wanted }, listener });
    }

    /// Moves all of the other's here.
    pub fn append(&mut self, mut other: Self) {
        self.named.append(&mut other.named);
        self.loose.append(&mut other.loose);
    }

    /// The same sockets once more.
    ///
    /// # Errors
    /// What the system says; most likely there are no more descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        let again = |n: &Named| Ok(Named { label: n.label, listener: n.listener.try_clone()? });
        let named = self.named.iter().map(again).collect::<io::Result<_>>()?;
        Ok(Self { named, loose: self.loose.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()? })
    }

    /// The socket for this purpose and this address of the configuration, if there is one.
    pub fn take(&mut self, role: Role, wanted: SocketAddr) -> Option<TcpListener> {
        let label = Label { role, wanted };
        if let Some(at) = self.named.iter().position(|named| named.label == label) {
            return Some(self.named.remove(at).listener);
        }
        let at = self.loose.iter().position(|l| l.local_addr().is_ok_and(|bound| is_for(bound, wanted)))?;
        Some(self.loose.remove(at))
    }

    /// The addresses of those that nobody has taken.
    pub fn left(&self) -> Vec<SocketAddr> {
        let all = self.named.iter().map(|named| &named.listener).chain(&self.loose);
        all.filter_map(|listener| listener.local_addr().ok()).collect()
    }

    pub(super) fn push(&mut self, named: Named) {
        self.named.push(named);
    }

    pub(super) fn named(&self) -> &[Named] {
        &self.named
    }
}

/// A socket on `[::]` takes IPv4 as well, which is what systemd opens for a bare port.
fn is_for(bound: SocketAddr, wanted: SocketAddr) -> bool {
    let any = bound.ip().is_unspecified() && wanted.ip().is_unspecified();
    bound.port() == wanted.port() && (bound.ip() == wanted.ip() || any)
}
