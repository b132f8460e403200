//! One process takes over from another on the same machine, and no connection notices.
//!
//! The two talk over a Unix socket that the serving process listens on. The new one gets the listening sockets, so that
//! connections which wait to be accepted are accepted by whoever is faster; then the old one pauses its writer and its
//! guard and says what the guard knows; the new one loads the state, serves, and says so; only then does the old one
//! stop accepting. At any step but the last, a conversation that breaks off leaves the old process as it was. The order
//! makes sure that of two processes that overlap only one writes.
//!
//! Nginx and HAProxy hand over sockets too; what they do not do is tell clients beforehand, so that requests on
//! connections which are open are lost. Here the old process goes on answering those, each answer with
//! `Connection: close` (GOAWAY in HTTP/2), until none is left or the drain timeout is over.

mod error;
mod give;
mod sockets;
mod spawn;
mod take;
mod wire;

#[cfg(test)]
mod tests;

pub use error::HandoverError;
pub use give::{Incumbent, Post, open};
pub use sockets::{Role, Sockets};
pub use spawn::CommandLine;
pub use take::{Predecessor, take_over};

/// Who does not answer a step within this time is given up: loading a million tenants takes seconds.
pub const STEP: std::time::Duration = std::time::Duration::from_secs(60);
