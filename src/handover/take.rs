//! The side of the new process: asks for the sockets, then for the rest, then says that it serves.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::give::unexpected;
use super::wire::{self, Message, PROTOCOL};
use super::{HandoverError, STEP, Sockets};

/// The process that serves until this one does. Dropping it leaves that one as it was.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    path: PathBuf,
    /// Its process number.
    pub pid: u32,
}

/// Gets copies of the listening sockets of the process that serves. Blocks.
///
/// # Errors
/// [`HandoverError`]; the other process goes on.
pub fn take_over(path: &Path) -> Result<(Predecessor, Sockets), HandoverError> {
    let broken = HandoverError::broken("it hands over its sockets");
    let nobody = |source| HandoverError::Nobody { path: path.to_owned(), source };
    let mut stream = UnixStream::connect(path).map_err(nobody)?;
    stream.set_read_timeout(Some(STEP)).map_err(&broken)?;
    stream.set_write_timeout(Some(STEP)).map_err(&broken)?;
    let release = env!("CARGO_PKG_VERSION").to_owned();
    wire::say(&mut stream, &Message::Hello { protocol: PROTOCOL, release, pid: std::process::id() })
        .map_err(&broken)?;
    match wire::hear(&mut stream).map_err(&broken)? {
        Message::Sockets { pid, labels } => {
            let sockets = wire::take(&stream, &labels).map_err(&broken)?;
            Ok((Predecessor { stream, path: path.to_owned(), pid }, sockets))
        }
        Message::No { why } => Err(HandoverError::Refused(why)),
        _ => Err(broken(unexpected())),
    }
}

impl Predecessor {
    /// From here on the other process neither writes nor judges; the answer is what its guard knows. Blocks.
    ///
    /// # Errors
    /// [`HandoverError`]; the other process goes on.
    pub fn pause(&mut self) -> Result<Value, HandoverError> {
        let broken = HandoverError::broken("it pauses its writer");
        wire::say(&mut self.stream, &Message::Pause).map_err(&broken)?;
        match wire::hear(&mut self.stream).map_err(&broken)? {
            Message::Paused { carried } => Ok(carried),
            Message::No { why } => Err(HandoverError::Refused(why)),
            _ => Err(broken(unexpected())),
        }
    }

    /// This process serves: the other one stops accepting, and this one may write. Blocks.
    ///
    /// # Errors
    /// [`HandoverError`] when the other process goes on after all; this one must end then.
    pub fn retire(mut self) -> Result<(), HandoverError> {
        let said = wire::say(&mut self.stream, &Message::Serving).and_then(|()| wire::hear(&mut self.stream));
        match said {
            Ok(Message::Done) => Ok(()),
            Ok(_) => Err(HandoverError::Broken { step: "it retires", source: unexpected() }),
            Err(source) => self.who_is_left(source),
        }
    }

    /// It did not answer. If it was killed at this very moment, this process is the one that is left.
    fn who_is_left(self, source: io::Error) -> Result<(), HandoverError> {
        match UnixStream::connect(&self.path) {
            Ok(_) => Err(HandoverError::Broken { step: "it retires", source }),
            Err(_) => Ok(()),
        }
    }
}
