//! What requests know of the connection that they came on, and what they may tell it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;

use futures::task::AtomicWaker;
use pingora::proxy::Session;

/// A connection, as its requests see it.
#[derive(Debug)]
pub(in crate::proxy) struct Link {
    /// Where it comes from: the socket's address, or what the load balancer in front says.
    pub client: IpAddr,
    /// Present with TLS.
    pub tls: Option<Handshake>,
    /// Whether a request has come on it.
    used: AtomicBool,
    state: AtomicU8,
    waker: AtomicWaker,
    /// Microseconds by which the head of an answer must be there.
    head_by_us: AtomicU64,
    /// Whether a client that closes its side may wait for its answer all the same.
    patient: AtomicBool,
    /// Whether it has closed its side.
    closed: AtomicBool,
}

/// What is remembered of a handshake.
#[derive(Debug)]
pub(in crate::proxy) struct Handshake {
    /// The name that the client asked for, lower case.
    pub server_name: Option<Box<str>>,
    /// Whether the client has shown a certificate, which was then verified.
    pub certified: bool,
}

/// What a client did to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::proxy) enum Fault {
    /// A body that is not framed as it should be.
    Malformed = 2,
    /// A body that hardly moves.
    Slow = 3,
    /// Frames without content, and nothing else.
    Flood = 4,
}

impl Fault {
    /// The status of the answer, where one can still be given.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::Flood => 400,
            Self::Slow => 408,
        }
    }

    /// One word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Slow => "slow_body",
            Self::Flood => "flood",
        }
    }
}

const MESSAGES: u8 = 0;
const TUNNEL: u8 = 1;

/// No head is waited for.
const NONE: u64 = 0;
/// It was waited for in vain.
const LATE: u64 = u64::MAX;

impl Link {
    pub(super) fn new(client: IpAddr, tls: Option<Handshake>) -> Arc<Self> {
        Arc::new(Self {
            client,
            tls,
            used: AtomicBool::new(false),
            state: AtomicU8::new(MESSAGES),
            waker: AtomicWaker::new(),
            head_by_us: AtomicU64::new(NONE),
            patient: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    /// The connection that a request came on.
    pub fn of(session: &Session) -> Option<&Self> {
        let carried = session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?;
        carried.downcast_ref::<Arc<Self>>().map(|link| &**link)
    }

    /// A request has come.
    pub fn use_for_request(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// From here on there are no messages, only bytes: the service has agreed to switch protocols.
    pub fn open_tunnel(&self) {
        self.state.store(TUNNEL, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.state.load(Ordering::Acquire) == TUNNEL
    }

    /// Who waits for a tunnel to open is called when it does.
    pub(super) fn wait(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// The request is complete, and the head of its answer must be there by then, in microseconds of the clock. Not for
    /// HTTP/2, where many requests share the connection.
    pub fn await_head(&self, by_us: u64) {
        self.head_by_us.store(by_us.clamp(NONE + 1, LATE - 1), Ordering::Relaxed);
    }

    /// The head is there, or is waited for no more.
    pub fn head_came(&self) {
        self.head_by_us.store(NONE, Ordering::Relaxed);
    }

    /// When the head must be there, if one is waited for.
    pub(super) fn head_by_us(&self) -> Option<u64> {
        Some(self.head_by_us.load(Ordering::Relaxed)).filter(|by| !matches!(*by, NONE | LATE))
    }

    /// It is not there.
    pub(super) fn head_is_late(&self) {
        self.head_by_us.store(LATE, Ordering::Relaxed);
    }

    /// Whether the head of an answer did not come in time. True once.
    pub fn was_late(&self) -> bool {
        self.head_by_us.swap(NONE, Ordering::Relaxed) == LATE
    }

    /// Whether the client may close its side and still have its answer.
    pub fn tolerate_close(&self, patient: bool) {
        self.patient.store(patient, Ordering::Relaxed);
    }

    /// The client has closed its side. Whether its request goes on.
    pub(super) fn close(&self) -> bool {
        self.closed.store(true, Ordering::Relaxed);
        self.patient.load(Ordering::Relaxed)
    }

    /// Whether the client has closed its side.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn blame(&self, fault: Fault) {
        self.state.store(fault as u8, Ordering::Release);
    }

    /// What the client did wrong, if it did.
    pub fn fault(&self) -> Option<Fault> {
        [Fault::Malformed, Fault::Slow, Fault::Flood]
            .into_iter()
            .find(|fault| *fault as u8 == self.state.load(Ordering::Acquire))
    }
}
