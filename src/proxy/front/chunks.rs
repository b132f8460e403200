//! Follows a chunked body byte by byte, strictly (RFC 9112, section 7.1): a pure function of bytes, so that a message
//! ends where everybody agrees that it ends.

use super::head::{is_text, is_token};

/// Bytes of extensions and trailers that a message may have; both are thrown away.
const EXTRA_MAX: u32 = 16 << 10;
/// Chunks below this many bytes are mostly framing.
const TINY: u64 = 5;
/// Tiny chunks that a message may have.
const TINY_MAX: u32 = 10_000;

/// Where in a chunked body one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a chunk's size, after this many digits.
    Size(u8),
    /// The space before an extension.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the begin of a line of the trailers.
    Line,
    Name,
    Value,
    ValueLf,
    EndLf,
    Done,
}

/// A chunked body on its way.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct Chunks {
    state: State,
    /// Of the chunk's size, what is known, then what is left.
    left: u64,
    extra: u32,
    tiny: u32,
}

/// The bytes are no chunked body, or one that is nearly all framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct BadChunks;

impl Chunks {
    pub fn new() -> Self {
        Self { state: State::Size(0), left: 0, extra: 0, tiny: 0 }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Follows the bytes up to the end of the body, and says how many belong to it. `data` gets what they carry, piece by
    /// piece.
    ///
    /// # Errors
    /// [`BadChunks`]; what came before the mistake has been followed.
    pub fn follow(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, BadChunks> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if self.state == State::Data {
                let here = self.left.min((bytes.len() - at) as u64) as usize;
                data(&bytes[at..at + here]);
                self.left -= here as u64;
                at += here;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, BadChunks> {
        match (self.state, byte) {
            (State::Size(n), _) if byte.is_ascii_hexdigit() && n < 15 => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                self.left = if n == 0 { 0 } else { self.left << 4 } | u64::from(digit);
                Ok(State::Size(n + 1))
            }
            (State::Size(1..), b'\r') | (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size(1..) | State::Space, b' ' | b'\t') => self.extra(State::Space),
            (State::Size(1..) | State::Space, b';') => self.extra(State::Extension),
            (State::Extension, _) if is_text(byte) => self.extra(State::Extension),
            (State::SizeLf, b'\n') => self.begin_chunk(),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size(0)),
            (State::Line, b'\r') => Ok(State::EndLf),
            (State::Line | State::Name, _) if is_token(byte) => self.extra(State::Name),
            (State::Name, b':') => self.extra(State::Value),
            (State::Value, b'\r') => Ok(State::ValueLf),
            (State::Value, _) if is_text(byte) => self.extra(State::Value),
            (State::ValueLf, b'\n') => Ok(State::Line),
            (State::EndLf, b'\n') => Ok(State::Done),
            _ => Err(BadChunks),
        }
    }

    fn begin_chunk(&mut self) -> Result<State, BadChunks> {
        if self.left == 0 {
            return Ok(State::Line);
        }
        if self.left < TINY {
            self.tiny += 1;
            if self.tiny > TINY_MAX {
                return Err(BadChunks);
            }
        }
        Ok(State::Data)
    }

    fn extra(&mut self, next: State) -> Result<State, BadChunks> {
        self.extra += 1;
        if self.extra > EXTRA_MAX { Err(BadChunks) } else { Ok(next) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn follow(bytes: &[u8]) -> Result<(usize, bool), BadChunks> {
        let mut chunks = Chunks::new();
        chunks.follow(bytes, |_| {}).map(|n| (n, chunks.is_done()))
    }

    #[test]
    fn a_body_ends_after_its_trailers() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "A;x=\"y\" \r\n0123456789\r\n000\r\n\r\n",
            "5 ;x\r\nhello\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n",
        ] {
            assert_eq!(follow(body.as_bytes()), Ok((body.len(), true)), "{body:?}");
            assert_eq!(follow(format!("{body}GET /").as_bytes()), Ok((body.len(), true)), "{body:?}");
            assert_eq!(follow(&body.as_bytes()[..body.len() - 1]), Ok((body.len() - 1, false)), "{body:?}");
        }
    }

    #[test]
    fn what_others_might_read_otherwise_is_refused() {
        for body in [
            "\r\n",
            "\r\n0\r\n\r\n",
            "5\nhello\r\n",
            "5\rhello\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "0x5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "-1\r\n",
            "5 \r\nhello\r\n",
            "5 5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "g\r\n",
            ";x\r\n",
            "5;a\nb\r\nhello\r\n",
            "5;a\0\r\nhello\r\n",
            "FFFFFFFFFFFFFFFF\r\n",
            "1000000000000000\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\n: x\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\n",
            "0\r\n\rx",
        ] {
            assert_eq!(follow(body.as_bytes()), Err(BadChunks), "{body:?}");
        }
    }

    #[test]
    fn framing_has_limits() {
        assert_eq!(follow(format!("5;{}", "x".repeat(17 << 10)).as_bytes()), Err(BadChunks));
        assert_eq!(follow(format!("0\r\nX: {}", "x".repeat(17 << 10)).as_bytes()), Err(BadChunks));
        assert_eq!(follow("1\r\nx\r\n".repeat(10_001).as_bytes()), Err(BadChunks));
        assert!(follow("1\r\nx\r\n".repeat(10_000).as_bytes()).is_ok());
        assert!(follow("5\r\nhello\r\n".repeat(50_000).as_bytes()).is_ok(), "small messages are no attack");
    }

    proptest! {
        /// However a body is cut, it ends at the same byte.
        #[test]
        fn pieces_make_no_difference(sizes in prop::collection::vec(1usize..300, 0..6), cut in 1usize..40) {
            let mut body: String = sizes.iter().map(|n| format!("{n:X}\r\n{}\r\n", "x".repeat(*n))).collect();
            body.push_str("0\r\n\r\nGET / HTTP/1.1");
            let mut chunks = Chunks::new();
            let (mut taken, mut data) = (0, 0);
            for piece in body.as_bytes().chunks(cut) {
                taken += chunks.follow(piece, |part| data += part.len()).unwrap();
            }
            prop_assert!(chunks.is_done());
            prop_assert_eq!(data, sizes.iter().sum::<usize>());
            prop_assert_eq!(taken, body.len() - "GET / HTTP/1.1".len());
        }

        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            let _any = follow(&bytes);
        }
    }
}
