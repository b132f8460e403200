//! What is said over the Unix socket: length, then JSON; and descriptors, which the kernel copies from one process into the
//! other.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sockets::{Label, Named, Sockets};

/// Changes when processes of different releases could misunderstand each other.
pub(super) const PROTOCOL: u32 = 1;
/// The longest message: the evidence about some 100,000 tenants.
const MAX_MESSAGE: usize = 1 << 30;
/// Sockets in one go; the kernel takes at most 253.
const AT_ONCE: usize = 64;
/// More listening sockets than any configuration has.
const MAX_SOCKETS: usize = 1024;

/// One thing that is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum Message {
    /// New: here I am.
    Hello { protocol: u32, release: String, pid: u32 },
    /// Old: my listening sockets; their descriptors follow.
    Sockets { pid: u32, labels: Vec<Label> },
    /// Old: no.
    No { why: String },
    /// New: I can serve; pause your writer and your guard.
    Pause,
    /// Old: they are paused; this is what the guard knows.
    Paused { carried: Value },
    /// New: I serve.
    Serving,
    /// Old: then I do not any more.
    Done,
}

pub(super) fn say(stream: &mut UnixStream, message: &Message) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| too_long(body.len()))?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&body)
}

pub(super) fn hear(stream: &mut UnixStream) -> io::Result<Message> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(too_long(length));
    }
    // Grows with what comes: a length alone costs nothing.
    let mut body = Vec::new();
    Read::by_ref(stream).take(length as u64).read_to_end(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

fn too_long(length: usize) -> io::Error {
    io::Error::other(format!("a message of {length} bytes"))
}

/// Sends the descriptors of listening sockets.
pub(super) fn give(stream: &UnixStream, sockets: &Sockets) -> io::Result<()> {
    for some in sockets.named().chunks(AT_ONCE) {
        let fds: Vec<BorrowedFd<'_>> = some.iter().map(|named| named.listener.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("descriptors do not fit"));
        }
        // Descriptors travel with at least one byte.
        rustix::net::sendmsg(stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives the sockets that belong to the labels.
pub(super) fn take(stream: &UnixStream, labels: &[Label]) -> io::Result<Sockets> {
    if labels.len() > MAX_SOCKETS {
        return Err(io::Error::other(format!("{} sockets", labels.len())));
    }
    let mut fds: Vec<OwnedFd> = Vec::with_capacity(labels.len());
    while fds.len() < labels.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = rustix::net::recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            // Or every process that is started from here would have them too.
            RecvFlags::CMSG_CLOEXEC,
        )?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                fds.extend(some);
            }
        }
    }
    let mut sockets = Sockets::default();
    for (label, fd) in labels.iter().zip(fds) {
        sockets.push(Named { label: *label, listener: TcpListener::from(fd) });
    }
    Ok(sockets)
}
