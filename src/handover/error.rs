//! Why a hand-over did not happen.

use std::io;
use std::path::PathBuf;

/// Why a hand-over did not happen. The process that served before goes on.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Nobody listens on the socket.
    #[error("nobody hands over at {path}: no process serves with this configuration")]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The socket cannot be listened on.
    #[error("cannot listen on the socket {path}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else listens on the socket.
    #[error("another process serves at {path}")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The other process says no.
    #[error("the other process does not hand over: {0}")]
    Refused(String),
    /// The other process is gone, hangs, or cannot be understood.
    #[error("the other process does not go on while {step}")]
    Broken {
        /// What was being done.
        step: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl HandoverError {
    pub(super) fn broken(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Broken { step, source }
    }
}
