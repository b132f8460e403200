//! A client's connection as Pingora sees it. Each request gets the bytes of its own message and no more: what belongs to
//! the next one waits here, and what is not framed as it should be ends the connection before anybody acts on it.

use std::fmt::Write as _;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::os::fd::{AsRawFd as _, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf as _, BytesMut};
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::chunks::Chunks;
use super::h2_frames::{BadFrames, Frames};
use super::head::{BodyKind, Head};
use super::link::{Fault, Link};
use super::places::Place;
use super::transport::Transport;
use crate::config::Limits;
use crate::proxy::clock::Clock;

/// Header and body of a small answer leave in one piece.
const WRITE_BUFFER: usize = 4 << 10;
/// What is read at once while nobody asks for the bytes.
const READ_AHEAD: usize = 4 << 10;
/// What is read at once of a chunked body.
const READ_BODY: usize = 32 << 10;
/// How long a client may take to notice that it should stop sending, and how much it may send until then.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 4 << 20;

/// What the bytes that come next belong to.
#[derive(Debug)]
enum Reading {
    /// The head of a request: so many bytes of it are still to be handed over. Then its body.
    Head(usize, BodyKind),
    Length(u64),
    Chunked(Box<Chunks>),
    /// The body is complete, and not all of it has been handed over.
    LastChunk,
    /// The request is complete; more bytes are another request's.
    Complete,
    Tunnel,
    Frames(Box<Frames>),
}

/// How slowly a client may send a body.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Pace {
    /// Bytes per second; 0: any.
    pub min_rate: u64,
    /// For this long a client may be slower.
    pub grace: Duration,
}

impl Pace {
    /// The pace that the limits allow.
    pub fn of(limits: &Limits) -> Self {
        Self { min_rate: limits.min_body_rate, grace: limits.body_timeout }
    }

    /// Whether so many bytes are too few for a wait of this long.
    pub fn is_missed(self, bytes: u64, waited: Duration) -> bool {
        waited > self.grace && (bytes as f64) < self.min_rate as f64 * waited.as_secs_f64()
    }
}

/// A client's connection.
pub(super) struct Wire {
    io: BufWriter<Transport>,
    fd: RawFd,
    link: Arc<Link>,
    carried: Arc<ProxyDigest>,
    socket: Arc<SocketDigest>,
    established: SystemTime,
    clock: Clock,
    pace: Pace,
    /// Bytes that have arrived and were not asked for yet.
    ahead: BytesMut,
    /// Of a chunked body: what has been looked at and not been asked for yet.
    framed: BytesMut,
    reading: Reading,
    /// Of the body at hand: bytes, how long they were waited for, and since when they are waited for now.
    body_bytes: u64,
    waited: Duration,
    waiting: Option<Instant>,
    /// Rings when the head of an answer may be late.
    alarm: Option<Pin<Box<Sleep>>>,
    place: Option<Place>,
}

/// What a connection is made of.
pub(super) struct WireParts {
    pub transport: Transport,
    pub fd: RawFd,
    pub socket: SocketDigest,
    pub link: Arc<Link>,
    pub place: Place,
    pub clock: Clock,
    pub pace: Pace,
}

impl Wire {
    /// # Errors
    /// Pingora does not take the header that it wants beside the link.
    pub fn new(parts: WireParts) -> pingora::Result<Self> {
        let WireParts { transport, fd, socket, link, place, clock, pace } = parts;
        let carried = Box::new(link.clone());
        // Pingora's place for what a proxy before this one has said; the header is needed and means nothing.
        let carried = ProxyDigest::new(Box::new(ResponseHeader::build(200, None)?), Some(carried));
        Ok(Self {
            io: BufWriter::with_capacity(WRITE_BUFFER, transport),
            fd,
            link,
            carried: Arc::new(carried),
            socket: Arc::new(socket),
            established: SystemTime::now(),
            clock,
            pace,
            ahead: BytesMut::new(),
            framed: BytesMut::new(),
            reading: Reading::Complete,
            body_bytes: 0,
            waited: Duration::ZERO,
            waiting: None,
            alarm: None,
            place: Some(place),
        })
    }

    /// What requests know of this connection.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// What has arrived of the next message.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Waits for more bytes. 0: there are no more.
    ///
    /// # Errors
    /// What the system says.
    pub async fn read_ahead(&mut self) -> Result<usize> {
        self.ahead.reserve(READ_AHEAD);
        self.io.get_mut().read_buf(&mut self.ahead).await
    }

    /// The next request: what `ahead` begins with.
    pub fn begin_request(&mut self, head: Head) {
        self.ahead.advance(head.skip);
        self.reading = Reading::Head(head.length, head.body);
        self.framed.clear();
        (self.body_bytes, self.waited, self.waiting) = (0, Duration::ZERO, None);
    }

    /// From here on it is HTTP/2.
    pub fn begin_frames(&mut self, per_second: u32) {
        self.reading = Reading::Frames(Box::new(Frames::new(per_second, self.clock.now_ms())));
    }

    /// Whether the last request has been read to its end, so that another may follow.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.reading, Reading::Complete)
    }

    fn is_half_read(&self) -> bool {
        let between = matches!(self.reading, Reading::Complete | Reading::Tunnel | Reading::Frames(_));
        !between || !self.ahead.is_empty() && !matches!(self.reading, Reading::Tunnel)
    }

    /// Bytes of this message only, at most `most` of them, as they are.
    fn poll_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, most: u64) -> Poll<Result<usize>> {
        let room = most.min(buf.remaining() as u64) as usize;
        if !self.ahead.is_empty() {
            let here = room.min(self.ahead.len());
            buf.put_slice(&self.ahead[..here]);
            self.ahead.advance(here);
            return Poll::Ready(Ok(here));
        }
        let before = buf.filled().len();
        let mut limited = self.io.get_mut().take(room as u64);
        ready!(Pin::new(&mut limited).poll_read(cx, buf))?;
        Poll::Ready(Ok(buf.filled().len() - before))
    }

    /// A body must move, but time in which nobody asked for it is not the client's.
    fn note_pace(&mut self, polled: &Poll<Result<usize>>) -> Result<()> {
        match polled {
            Poll::Pending => {
                self.waiting.get_or_insert_with(Instant::now);
            }
            Poll::Ready(Ok(here)) => {
                self.body_bytes += *here as u64;
                let Some(since) = self.waiting.take() else { return Ok(()) };
                self.waited += since.elapsed();
                if self.pace.is_missed(self.body_bytes, self.waited) {
                    self.link.blame(Fault::Slow);
                    return Err(Error::new(ErrorKind::TimedOut, "the request body hardly moves"));
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        Ok(())
    }

    fn poll_length(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, left: u64) -> Poll<Result<()>> {
        let polled = self.poll_some(cx, buf, left);
        self.note_pace(&polled)?;
        let left = left - ready!(polled)? as u64;
        self.reading = if left == 0 { Reading::Complete } else { Reading::Length(left) };
        Poll::Ready(Ok(()))
    }

    /// The body is framed anew: without extensions and trailers, which nobody is told of, and each chunk's head in one
    /// piece.
    fn poll_chunks(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        while self.framed.is_empty() {
            if self.ahead.is_empty() {
                let polled = self.poll_ahead(cx, READ_BODY);
                self.note_pace(&polled)?;
                if ready!(polled)? == 0 {
                    return Poll::Ready(Ok(()));
                }
            }
            let Reading::Chunked(chunks) = &mut self.reading else { return Poll::Ready(Ok(())) };
            let framed = &mut self.framed;
            let followed = chunks.follow(&self.ahead, |data| {
                let _cannot_fail = write!(framed, "{:x}\r\n", data.len());
                framed.extend_from_slice(data);
                framed.extend_from_slice(b"\r\n");
            });
            let Ok(taken) = followed else {
                self.link.blame(Fault::Malformed);
                return Poll::Ready(Err(Error::new(
                    ErrorKind::InvalidData,
                    "the request body is not chunked as it should be",
                )));
            };
            let done = chunks.is_done();
            self.ahead.advance(taken);
            if done {
                self.framed.extend_from_slice(b"0\r\n\r\n");
                self.reading = Reading::LastChunk;
            }
        }
        self.take_framed(buf);
        Poll::Ready(Ok(()))
    }

    fn take_framed(&mut self, buf: &mut ReadBuf<'_>) {
        let here = buf.remaining().min(self.framed.len());
        buf.put_slice(&self.framed[..here]);
        self.framed.advance(here);
        if self.framed.is_empty() && matches!(self.reading, Reading::LastChunk) {
            self.reading = Reading::Complete;
        }
    }

    /// Reads what comes, as much as there is room for. 0: there is no more.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Result<usize>> {
        self.ahead.reserve(room);
        let read = self.io.get_mut().read_buf(&mut self.ahead);
        tokio::pin!(read);
        std::future::Future::poll(read, cx)
    }

    /// Nothing more belongs to this request. Whether the client is still there can be seen, and that is all.
    ///
    /// Pingora listens here whenever it waits for more of an answer, and keeps back what is too little to fill a packet. So
    /// this is the moment to let it go.
    fn poll_nothing(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.io.buffer().is_empty() {
            // An error here comes again with the next write.
            let _later = Pin::new(&mut self.io).poll_flush(cx);
        }
        let head_by_us = self.link.head_by_us();
        if self.ahead.is_empty()
            && let Poll::Ready(read) = self.poll_ahead(cx, READ_AHEAD)
            // Once Pingora knows of an end it asks no more, and then nobody would see that the head is late.
            && (read? == 0 && (!self.link.close() || head_by_us.is_none()))
        {
            return Poll::Ready(Ok(()));
        }
        head_by_us.map_or(Poll::Pending, |by_us| self.poll_late(cx, by_us))
    }

    /// Fails once the head of an answer is late.
    ///
    /// The alarm is not put off with each request, which would cost all of them: when it rings it looks how long there is
    /// left.
    fn poll_late(&mut self, cx: &mut Context<'_>, by_us: u64) -> Poll<Result<()>> {
        let by = tokio::time::Instant::from_std(self.clock.at(by_us));
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(by)));
        if alarm.deadline() > by {
            alarm.as_mut().reset(by);
        }
        ready!(alarm.as_mut().poll(cx));
        if alarm.deadline() < by {
            alarm.as_mut().reset(by);
            ready!(alarm.as_mut().poll(cx));
        }
        self.link.head_is_late();
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the head of the answer is late")))
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = buf.filled().len();
        ready!(self.poll_some(cx, buf, u64::MAX))?;
        let now_ms = self.clock.now_ms();
        let Reading::Frames(frames) = &mut self.reading else { return Poll::Ready(Ok(())) };
        let (fault, why) = match frames.follow(&buf.filled()[before..], now_ms) {
            Ok(()) => return Poll::Ready(Ok(())),
            Err(BadFrames::Flood) => (Fault::Flood, "a flood of frames without content"),
            Err(BadFrames::NoSettings) => (Fault::Malformed, "the first frame is not the client's settings"),
        };
        self.link.blame(fault);
        Poll::Ready(Err(Error::new(ErrorKind::InvalidData, why)))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        match this.reading {
            Reading::Head(left, body) => {
                let left = left - ready!(this.poll_some(cx, buf, left as u64))?;
                this.reading = match body {
                    _ if left > 0 => Reading::Head(left, body),
                    BodyKind::None => Reading::Complete,
                    BodyKind::Length(n) => Reading::Length(n),
                    BodyKind::Chunked => Reading::Chunked(Box::new(Chunks::new())),
                };
                Poll::Ready(Ok(()))
            }
            Reading::Length(left) => this.poll_length(cx, buf, left),
            Reading::Chunked(_) => this.poll_chunks(cx, buf),
            Reading::LastChunk => {
                this.take_framed(buf);
                Poll::Ready(Ok(()))
            }
            Reading::Complete => {
                this.link.wait(cx.waker());
                if this.link.is_tunnel() {
                    this.reading = Reading::Tunnel;
                    return this.poll_some(cx, buf, u64::MAX).map_ok(drop);
                }
                this.poll_nothing(cx)
            }
            Reading::Tunnel => this.poll_some(cx, buf, u64::MAX).map_ok(drop),
            Reading::Frames(_) => this.poll_frames(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// A socket that is closed while bytes arrive is reset, and the reset can overtake the answer. So who is still sending is
/// listened to for a moment.
impl Drop for Wire {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.is_half_read() {
            return;
        }
        let io = std::mem::replace(&mut self.io, BufWriter::with_capacity(0, Transport::Gone));
        let place = self.place.take();
        runtime.spawn(async move {
            let _late = tokio::time::timeout(LINGER, linger(io)).await;
            drop(place);
        });
    }
}

async fn linger(mut io: BufWriter<Transport>) -> Result<()> {
    io.shutdown().await?;
    let mut scrap = [0; 4 << 10];
    let mut left = LINGER_BYTES;
    while left > 0 {
        match io.get_mut().read(&mut scrap).await? {
            0 => break,
            n => left = left.saturating_sub(n),
        }
    }
    Ok(())
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("fd", &self.fd).field("reading", &self.reading).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        // Whoever is gone already cannot be told that it is over.
        let _gone = tokio::io::AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.fd
    }
}

impl Ssl for Wire {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        matches!(self.reading, Reading::Frames(_)).then_some(ALPN::H2)
    }
}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: self.established, ..TimingDigest::default() })]
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.carried.clone())
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}

impl Peek for Wire {}

/// The number of a socket and what Pingora remembers of it.
pub(super) fn identity(socket: &TcpStream) -> (RawFd, SocketDigest) {
    let fd = socket.as_raw_fd();
    (fd, SocketDigest::from_raw_fd(fd))
}
