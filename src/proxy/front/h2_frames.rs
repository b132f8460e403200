//! Follows the frames that a client sends over HTTP/2 and counts those that cost work and carry nothing: floods of
//! resets, pings, settings, priorities, tiny data. A pure function of bytes and time.
//!
//! The HTTP/2 library has limits of its own for some of these; this one is for all of them together and for one
//! connection, before the library has done any work. Nor does the library mind which frame comes first.

/// The preface that a client begins with (RFC 9113, section 3.4).
pub(in crate::proxy) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Data below this many bytes is no message of any protocol: gRPC's prefix alone has five.
const TINY: u32 = 5;
/// Window updates below this many bytes are more work than they allow.
const SMALL_UPDATE: u32 = 256;
/// How many seconds' worth may come at once.
const BURST_S: u64 = 4;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const FRAME_HEAD: usize = 9;

/// The frames of one connection.
#[derive(Debug)]
pub(in crate::proxy) struct Frames {
    /// What is known of the frame head, or of the window update.
    part: [u8; FRAME_HEAD + 4],
    have: usize,
    /// Bytes of payload, or of the preface, that need no look.
    skip: u64,
    /// Whether the client has told its settings, which belong to its preface.
    begun: bool,
    budget: Budget,
}

/// Why a connection is not followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum BadFrames {
    /// More frames without content than anybody needs.
    Flood,
    /// The first frame is not the client's settings (RFC 9113, section 3.4).
    NoSettings,
}

impl Frames {
    /// Begins with the preface. `per_second`: how many frames without content a client may send, at least 1.
    pub fn new(per_second: u32, now_ms: u64) -> Self {
        let budget = Budget::new(per_second, now_ms);
        Self { part: [0; FRAME_HEAD + 4], have: 0, skip: PREFACE.len() as u64, begun: false, budget }
    }

    /// Follows the bytes that have arrived.
    ///
    /// # Errors
    /// [`BadFrames`].
    pub fn follow(&mut self, mut bytes: &[u8], now_ms: u64) -> Result<(), BadFrames> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let here = self.skip.min(bytes.len() as u64);
                self.skip -= here;
                bytes = &bytes[here as usize..];
                continue;
            }
            let wanted = if self.have < FRAME_HEAD { FRAME_HEAD } else { FRAME_HEAD + 4 };
            let here = (wanted - self.have).min(bytes.len());
            self.part[self.have..self.have + here].copy_from_slice(&bytes[..here]);
            self.have += here;
            bytes = &bytes[here..];
            if self.have == wanted {
                self.frame(now_ms)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, now_ms: u64) -> Result<(), BadFrames> {
        let length = u32::from_be_bytes([0, self.part[0], self.part[1], self.part[2]]);
        let (kind, flags) = (self.part[3], self.part[4]);
        if !self.begun && (kind != SETTINGS || flags & ACK != 0) {
            return Err(BadFrames::NoSettings);
        }
        self.begun = true;
        let is_update = kind == WINDOW_UPDATE && length == 4;
        if is_update && self.have == FRAME_HEAD {
            return Ok(());
        }
        self.skip = if is_update { 0 } else { u64::from(length) };
        self.have = 0;
        let empty = match kind {
            DATA => length < TINY && flags & END_STREAM == 0,
            HEADERS => false,
            WINDOW_UPDATE => {
                let [.., a, b, c, d] = self.part;
                !is_update || u32::from_be_bytes([a, b, c, d]) < SMALL_UPDATE
            }
            _ => true,
        };
        if empty { self.budget.spend(now_ms) } else { Ok(()) }
    }
}

/// A bucket of tokens.
#[derive(Debug)]
struct Budget {
    per_second: u64,
    /// Thousandths of a token.
    left: u64,
    at_ms: u64,
}

impl Budget {
    fn new(per_second: u32, now_ms: u64) -> Self {
        let per_second = u64::from(per_second.max(1));
        Self { per_second, left: per_second * BURST_S * 1_000, at_ms: now_ms }
    }

    fn spend(&mut self, now_ms: u64) -> Result<(), BadFrames> {
        let passed = now_ms.saturating_sub(self.at_ms).min(BURST_S * 1_000);
        self.at_ms = self.at_ms.max(now_ms);
        self.left = (self.left + passed * self.per_second).min(self.per_second * BURST_S * 1_000);
        self.left = self.left.checked_sub(1_000).ok_or(BadFrames::Flood)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    fn begun(per_second: u32) -> Frames {
        let mut frames = Frames::new(per_second, 0);
        frames.follow(PREFACE, 0).unwrap();
        frames.follow(&frame(SETTINGS, 0, &[0, 4, 0, 1, 0, 0]), 0).unwrap();
        frames.budget = Budget::new(per_second, 0);
        frames
    }

    /// How many of these frames are taken at once.
    fn taken(bytes: &[u8]) -> usize {
        let mut frames = begun(10);
        (0..1_000).take_while(|_| frames.follow(bytes, 0).is_ok()).count()
    }

    #[test]
    fn frames_without_content_are_counted() {
        assert_eq!(taken(&frame(3, 0, &[0; 4])), 40, "RST_STREAM");
        assert_eq!(taken(&frame(6, 0, &[0; 8])), 40, "PING");
        assert_eq!(taken(&frame(4, 0, &[])), 40, "SETTINGS");
        assert_eq!(taken(&frame(2, 0, &[0; 5])), 40, "PRIORITY");
        assert_eq!(taken(&frame(9, 0, &[0; 50])), 40, "CONTINUATION");
        assert_eq!(taken(&frame(77, 0, &[0; 50])), 40, "unknown");
        assert_eq!(taken(&frame(0, 0, &[])), 40, "DATA of nothing");
        assert_eq!(taken(&frame(0, 0, b"x")), 40, "DATA of a byte");
        assert_eq!(taken(&frame(8, 0, &[0, 0, 0, 1])), 40, "a window update of a byte");
    }

    #[test]
    fn frames_with_content_are_free() {
        assert_eq!(taken(&frame(0, 0, b"\0\0\0\0\0")), 1_000, "an empty gRPC message");
        assert_eq!(taken(&frame(0, END_STREAM, b"")), 1_000, "the end of a body");
        assert_eq!(taken(&frame(1, 4, &[0; 30])), 1_000, "HEADERS");
        assert_eq!(taken(&frame(8, 0, &[0, 1, 0, 0])), 1_000, "a window update of 64 KiB");
    }

    #[test]
    fn the_budget_comes_back_with_time() {
        let mut frames = begun(10);
        let ping = frame(6, 0, &[0; 8]);
        for _ in 0..40 {
            frames.follow(&ping, 0).unwrap();
        }
        assert_eq!(frames.follow(&ping, 99), Err(BadFrames::Flood));
        assert_eq!(frames.follow(&ping, 200), Ok(()));
        for at in 3..1_000 {
            frames.follow(&ping, at * 100).unwrap();
        }
    }

    #[test]
    fn settings_come_first() {
        let first = |bytes: &[u8]| Frames::new(10, 0).follow(&[PREFACE, bytes].concat(), 0);
        assert_eq!(first(&frame(SETTINGS, 0, &[])), Ok(()));
        assert_eq!(first(&frame(SETTINGS, ACK, &[])), Err(BadFrames::NoSettings));
        for kind in [DATA, HEADERS, 6, WINDOW_UPDATE, 77] {
            assert_eq!(first(&frame(kind, 4, &[0; 4])), Err(BadFrames::NoSettings), "{kind}");
        }
    }

    proptest! {
        /// However the bytes are cut, the same frames are seen.
        #[test]
        fn pieces_make_no_difference(kinds in prop::collection::vec((0u8..11, 0u8..2, 0usize..40), 0..60), cut in 1usize..50) {
            let mut bytes = [PREFACE, &frame(SETTINGS, 0, &[])].concat();
            for (kind, flags, length) in kinds {
                bytes.extend(frame(kind, flags, &vec![0; length]));
            }
            let mut whole = Frames::new(5, 0);
            let mut pieces = Frames::new(5, 0);
            let cut_up = bytes.chunks(cut).try_for_each(|piece| pieces.follow(piece, 0));
            prop_assert_eq!(whole.follow(&bytes, 0), cut_up);
        }
    }
}
