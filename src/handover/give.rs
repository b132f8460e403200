//! The side of the process that serves: listens on the Unix socket and hands over to who asks.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::runtime::Handle;

use super::wire::{self, Message, PROTOCOL};
use super::{HandoverError, STEP, Sockets};

/// The process that serves, as far as a hand-over is concerned.
#[async_trait]
pub trait Incumbent: Send + Sync + 'static {
    /// Copies of the listening sockets, or why there is nothing to hand over now.
    fn sockets(&self) -> Result<Sockets, String>;
    /// Stops writing and judging, and says what is known; or why that cannot be done now.
    async fn pause(&self) -> Result<Value, String>;
    /// Goes on as if nothing had been asked.
    async fn resume(&self);
    /// Another process serves now.
    fn retire(&self, successor: u32);
}

/// The socket, as long as it is listened on.
#[derive(Debug)]
pub struct Post {
    path: PathBuf,
    /// Its identity: the successor puts its own socket into the same place.
    identity: Option<(u64, u64)>,
    task: tokio::task::JoinHandle<()>,
}

/// Listens on a Unix socket and hands over to whoever asks, one at a time. Only the own user and root may ask. Must be
/// called within a runtime. `replace`: the process that listened there has retired.
///
/// # Errors
/// [`HandoverError::Listen`] and [`HandoverError::Taken`].
pub fn open(path: &Path, incumbent: Arc<dyn Incumbent>, replace: bool) -> Result<Post, HandoverError> {
    let failed = |source| HandoverError::Listen { path: path.to_owned(), source };
    if !replace {
        clear(path)?;
    }
    // Bound beside its place and moved there when it is safe to find: nobody else must get in between.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let _not_there = std::fs::remove_file(&fresh);
    let bound = || {
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        std::fs::rename(&fresh, path)?;
        tokio::net::UnixListener::from_std(listener)
    };
    let listener = bound().map_err(|source| {
        let _not_there = std::fs::remove_file(&fresh);
        failed(source)
    })?;
    let identity = identity(path);
    let task = tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::error!(%error, "a process that wants to take over cannot be heard");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    continue;
                }
            };
            let (incumbent, handle) = (incumbent.clone(), Handle::current());
            let talked = tokio::task::spawn_blocking(move || talk(stream, &*incumbent, &handle)).await;
            match talked {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "a hand-over broke off; this process goes on"),
                Err(error) => tracing::error!(%error, "a hand-over failed; this process goes on"),
            }
        }
    });
    Ok(Post { path: path.to_owned(), identity, task })
}

impl Post {
    /// Leaves the place to the socket of another process.
    pub fn leave(&mut self) {
        self.identity = None;
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.task.abort();
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _gone_already = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket that nobody listens on was left behind by a process that was killed.
fn clear(path: &Path) -> Result<(), HandoverError> {
    let failed = |source| HandoverError::Listen { path: path.to_owned(), source };
    let kind = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !kind.is_socket() {
        return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "a file of that name is no socket")));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(HandoverError::Taken { path: path.to_owned() }),
        Err(_) => std::fs::remove_file(path).map_err(failed),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// One conversation; whether it ended with a hand-over.
fn talk(mut stream: UnixStream, incumbent: &dyn Incumbent, runtime: &Handle) -> io::Result<bool> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    if peer.uid != rustix::process::geteuid() && !peer.uid.is_root() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is of another user"));
    }
    let successor = match wire::hear(&mut stream) {
        Ok(Message::Hello { protocol: PROTOCOL, release, pid }) => {
            tracing::info!(pid, release, "another process wants to take over");
            pid
        }
        Ok(Message::Hello { protocol, release, .. }) => {
            let why = format!("release {release} speaks version {protocol} of the hand-over, this one {PROTOCOL}");
            return refuse(&mut stream, why);
        }
        Ok(_) => return Err(unexpected()),
        // Somebody only wanted to know whether anybody is here.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    let sockets = match incumbent.sockets() {
        Ok(sockets) => sockets,
        Err(why) => return refuse(&mut stream, why),
    };
    let labels = sockets.named().iter().map(|named| named.label).collect();
    wire::say(&mut stream, &Message::Sockets { pid: std::process::id(), labels })?;
    wire::give(&stream, &sockets)?;
    drop(sockets);
    let Message::Pause = wire::hear(&mut stream)? else { return Err(unexpected()) };
    let carried = match runtime.block_on(incumbent.pause()) {
        Ok(carried) => carried,
        Err(why) => return refuse(&mut stream, why),
    };
    let done = wire::say(&mut stream, &Message::Paused { carried }).and_then(|()| wire::hear(&mut stream));
    match done {
        Ok(Message::Serving) => {
            incumbent.retire(successor);
            // It serves already; whether it hears this changes nothing here, and it looks whether anybody is left.
            let _it_looks = wire::say(&mut stream, &Message::Done);
            Ok(true)
        }
        Ok(_) => {
            runtime.block_on(incumbent.resume());
            Err(unexpected())
        }
        Err(error) => {
            runtime.block_on(incumbent.resume());
            Err(error)
        }
    }
}

fn refuse(stream: &mut UnixStream, why: String) -> io::Result<bool> {
    tracing::warn!(why, "nothing is handed over");
    wire::say(stream, &Message::No { why })?;
    Ok(false)
}

pub(super) fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "something else was said than was due")
}
