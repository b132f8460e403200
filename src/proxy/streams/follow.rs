//! Follows what a stream carries, so that it can be ended where something ends: between two frames of a WebSocket, two
//! events, two messages. Bytes in, boundaries out; pieces may be cut anywhere.

/// The opcode of a WebSocket's close frame (RFC 6455, 5.5.1).
const CLOSE: u8 = 8;

/// What a stream carries.
#[derive(Debug)]
pub(super) enum Follow {
    /// WebSocket frames.
    Frames(Frames),
    /// Server-sent events, divided by empty lines.
    Events(Events),
    /// gRPC messages, each behind its length.
    Messages(Messages),
    /// Something that cannot be looked into, such as compressed events. It can end anywhere.
    Opaque,
}

impl Follow {
    /// Takes note of what passes.
    pub(super) fn pass(&mut self, data: &[u8]) {
        let mut rest = match self {
            Self::Opaque => return,
            // Only how it ends matters.
            Self::Events(_) => &data[data.len().saturating_sub(Events::TAIL)..],
            Self::Frames(_) | Self::Messages(_) => data,
        };
        while !rest.is_empty() {
            rest = &rest[self.step(rest)..];
        }
    }

    /// Takes note of what passes up to the next boundary, and says how much that is; none when all of it passes without
    /// one. 0 at a boundary.
    pub(super) fn pass_until_boundary(&mut self, data: &[u8]) -> Option<usize> {
        let mut used = 0;
        while !self.at_boundary() {
            if used == data.len() {
                return None;
            }
            used += self.step(&data[used..]);
        }
        Some(used)
    }

    /// Whether it may end here.
    pub(super) fn at_boundary(&self) -> bool {
        match self {
            Self::Frames(frames) => frames.at_boundary(),
            Self::Events(events) => events.at_boundary(),
            Self::Messages(messages) => messages.at_boundary(),
            Self::Opaque => true,
        }
    }

    /// Whether a WebSocket's sender has begun to close it.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self, Self::Frames(frames) if frames.closing)
    }

    /// Takes in at least one byte, and none beyond the next boundary.
    fn step(&mut self, data: &[u8]) -> usize {
        match self {
            Self::Frames(frames) => frames.step(data),
            Self::Events(events) => events.step(data),
            Self::Messages(messages) => messages.step(data),
            Self::Opaque => data.len(),
        }
    }
}

/// One direction of a WebSocket.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; 14],
    have: usize,
    left: u64,
    closing: bool,
}

impl Frames {
    fn at_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Whether a close frame has passed as a whole.
    pub(super) fn is_closed(&self) -> bool {
        self.closing && self.at_boundary()
    }

    /// Takes note of what passes.
    pub(super) fn pass(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            data = &data[self.step(data)..];
        }
    }

    fn step(&mut self, data: &[u8]) -> usize {
        if self.left > 0 {
            let n = usize::try_from(self.left).map_or(data.len(), |left| left.min(data.len()));
            self.left -= n as u64;
            return n;
        }
        let n = (self.head_len() - self.have).min(data.len());
        self.head[self.have..self.have + n].copy_from_slice(&data[..n]);
        self.have += n;
        if self.have == self.head_len() {
            self.left = self.payload();
            self.closing |= self.head[0] & 0x0f == CLOSE;
            self.have = 0;
        }
        n
    }

    /// As far as it is known yet: the second byte says how much follows.
    fn head_len(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.head[1] & 0x80 != 0 { 4 } else { 0 }
    }

    fn payload(&self) -> u64 {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n: u64, b| n << 8 | u64::from(*b));
        match self.head[1] & 0x7f {
            126 => number(&self.head[2..4]),
            127 => number(&self.head[2..10]),
            n => u64::from(n),
        }
    }
}

/// Server-sent events: lines end with CR, LF or both, an empty one ends an event.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The last bytes, the newest in the lowest place.
    last: u32,
    begun: bool,
}

impl Events {
    /// So many bytes tell whether an event has ended.
    const TAIL: usize = 4;

    fn at_boundary(&self) -> bool {
        let [_, a, b, c] = self.last.to_be_bytes();
        !self.begun
            || matches!((b, c), (b'\n', b'\n' | b'\r') | (b'\r', b'\r'))
            || matches!((a, b, c), (b'\n' | b'\r', b'\r', b'\n'))
    }

    fn step(&mut self, data: &[u8]) -> usize {
        for (i, byte) in data.iter().enumerate() {
            self.last = self.last << 8 | u32::from(*byte);
            self.begun = true;
            if self.at_boundary() {
                return i + 1;
            }
        }
        data.len()
    }
}

/// gRPC messages: a byte of flags, four of length, then the message.
#[derive(Debug, Default)]
pub(super) struct Messages {
    head: [u8; 5],
    have: usize,
    left: u32,
}

impl Messages {
    fn at_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    fn step(&mut self, data: &[u8]) -> usize {
        if self.left > 0 {
            let n = (self.left as usize).min(data.len());
            self.left -= n as u32;
            return n;
        }
        let n = (self.head.len() - self.have).min(data.len());
        self.head[self.have..self.have + n].copy_from_slice(&data[..n]);
        self.have += n;
        if self.have == self.head.len() {
            let [_, length @ ..] = self.head;
            self.left = u32::from_be_bytes(length);
            self.have = 0;
        }
        n
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
