//! The head of an HTTP/1 request, looked at strictly before anything acts on it: a pure function of bytes.
//!
//! Proxies and services that read one message differently are how requests are smuggled, so whatever the standard calls
//! malformed or leaves open is refused here (RFC 9110, RFC 9112). Everything behind this point may assume that lines end
//! with CRLF, that there is one way to say where the body ends, and one host.

/// What a request head may use up.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct HeadLimits {
    /// Bytes of the whole head.
    pub size: usize,
    /// Fields.
    pub fields: usize,
}

/// Where the body of a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum BodyKind {
    /// Where the head ends.
    None,
    /// After this many bytes.
    Length(u64),
    /// After its last chunk and trailers.
    Chunked,
}

/// What is known of a complete, well-formed head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Head {
    /// Empty lines before it, in bytes. They are no part of the request.
    pub skip: usize,
    /// Bytes of the head itself, with the empty line that ends it.
    pub length: usize,
    pub body: BodyKind,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum BadHead {
    /// 400.
    Malformed,
    /// 405: CONNECT.
    Method,
    /// 414.
    TargetTooLong,
    /// 417.
    Expectation,
    /// 431.
    TooLarge,
    /// 501: a transfer coding other than chunked.
    Coding,
    /// 505.
    Version,
}

impl BadHead {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Method => 405,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::TooLarge => 431,
            Self::Coding => 501,
            Self::Version => 505,
        }
    }

    /// One word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::TooLarge | Self::TargetTooLong => "header_too_large",
            _ => "malformed",
        }
    }
}

/// Empty lines that may come before a head, in bytes: some old clients send one after a body (RFC 9112, section 2.2).
const EMPTY_LINES: usize = 4;
/// The longest method.
const METHOD_MAX: usize = 32;

/// Looks at what has arrived. `None`: the head is not complete yet.
///
/// # Errors
/// [`BadHead`], as soon as no further byte could mend it.
pub(in crate::proxy) fn scan(bytes: &[u8], limits: HeadLimits) -> Result<Option<Head>, BadHead> {
    let skip = bytes.chunks(2).take_while(|pair| *pair == b"\r\n").count() * 2;
    if skip > EMPTY_LINES {
        return Err(BadHead::Malformed);
    }
    let Some(rest) = bytes.get(skip..).filter(|rest| !rest.is_empty() && *rest != b"\r") else { return Ok(None) };
    let mut lines = Lines { rest, size: limits.size, taken: 0 };
    let Some(line) = lines.next_line()? else {
        return begins_like_a_request(rest).map(|()| None);
    };
    let request = request_line(line)?;
    let mut fields = Fields::default();
    let mut count = 0;
    loop {
        let Some(line) = lines.next_line()? else { return Ok(None) };
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > limits.fields {
            return Err(BadHead::TooLarge);
        }
        fields.take(line)?;
    }
    let body = fields.body(&request)?;
    Ok(Some(Head { skip, length: lines.taken, body }))
}

/// Takes complete lines from the front. A line ends with CRLF, and neither half may stand alone.
struct Lines<'a> {
    rest: &'a [u8],
    size: usize,
    taken: usize,
}

impl<'a> Lines<'a> {
    fn next_line(&mut self) -> Result<Option<&'a [u8]>, BadHead> {
        let Some(end) = self.rest.iter().position(|b| *b == b'\n') else {
            if self.taken + self.rest.len() > self.size {
                return Err(if self.taken == 0 { BadHead::TargetTooLong } else { BadHead::TooLarge });
            }
            return Ok(None);
        };
        let line = self.rest[..end].strip_suffix(b"\r").ok_or(BadHead::Malformed)?;
        self.taken += end + 1;
        if self.taken > self.size {
            return Err(BadHead::TooLarge);
        }
        self.rest = &self.rest[end + 1..];
        Ok(Some(line))
    }
}

struct Request {
    version_1_1: bool,
    /// The authority in an absolute target must be the host field's.
    authority: Option<Box<[u8]>>,
}

/// Binary rubbish, or another protocol, need not be waited for.
fn begins_like_a_request(bytes: &[u8]) -> Result<(), BadHead> {
    let method = bytes.split(|b| *b == b' ').next().unwrap_or(bytes);
    let fine = method.len() <= METHOD_MAX && method.iter().all(|b| is_token(*b)) && !bytes.starts_with(b" ");
    if fine { Ok(()) } else { Err(BadHead::Malformed) }
}

fn request_line(line: &[u8]) -> Result<Request, BadHead> {
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BadHead::Malformed);
    };
    if method.is_empty() || method.len() > METHOD_MAX || !method.iter().all(|b| is_token(*b)) {
        return Err(BadHead::Malformed);
    }
    let version_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(BadHead::Version);
        }
        _ => return Err(BadHead::Malformed),
    };
    if method == b"CONNECT" {
        return Err(BadHead::Method);
    }
    let authority = target_authority(method, target)?.map(Box::from);
    Ok(Request { version_1_1, authority })
}

/// The authority of an absolute target; none for a path or `*`.
fn target_authority<'a>(method: &[u8], target: &'a [u8]) -> Result<Option<&'a [u8]>, BadHead> {
    // Beyond the standard, and what many clients send as it was typed: text that is not percent-encoded.
    let visible = |b: &u8| matches!(b, 0x21..=0x7e | 0x80..) && *b != b'#';
    if target.is_empty() || !target.iter().all(visible) || std::str::from_utf8(target).is_err() {
        return Err(BadHead::Malformed);
    }
    if target[0] == b'/' || target == b"*" && method == b"OPTIONS" {
        return Ok(None);
    }
    let after = |scheme: &[u8]| {
        target.get(..scheme.len()).filter(|t| t.eq_ignore_ascii_case(scheme)).map(|_| &target[scheme.len()..])
    };
    let rest = after(b"http://").or_else(|| after(b"https://")).ok_or(BadHead::Malformed)?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let authority = &rest[..end];
    if is_authority(authority) { Ok(Some(authority)) } else { Err(BadHead::Malformed) }
}

/// What the fields say about the message.
#[derive(Default)]
struct Fields {
    host: Option<Box<[u8]>>,
    length: Option<u64>,
    chunked: bool,
}

impl Fields {
    fn take(&mut self, line: &[u8]) -> Result<(), BadHead> {
        let colon = line.iter().position(|b| *b == b':').ok_or(BadHead::Malformed)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // A space before the colon or at the begin of a line (a folded line) is in no token.
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) || !line[colon + 1..].iter().all(|b| is_text(*b)) {
            return Err(BadHead::Malformed);
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            6 if name.eq_ignore_ascii_case(b"expect") => {
                let fine = value.eq_ignore_ascii_case(b"100-continue");
                if fine { Ok(()) } else { Err(BadHead::Expectation) }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), BadHead> {
        if self.host.is_some() || !is_authority(value) {
            return Err(BadHead::Malformed);
        }
        self.host = Some(value.into());
        Ok(())
    }

    /// Digits without padding, once: what a lenient reader makes of anything else is anybody's guess.
    fn content_length(&mut self, value: &[u8]) -> Result<(), BadHead> {
        let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        if self.length.is_some() || !digits || value.len() > 1 && value[0] == b'0' {
            return Err(BadHead::Malformed);
        }
        self.length = Some(value.iter().fold(0, |n, b| n * 10 + u64::from(b - b'0')));
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), BadHead> {
        if value.eq_ignore_ascii_case(b"chunked") {
            let again = std::mem::replace(&mut self.chunked, true);
            return if again { Err(BadHead::Malformed) } else { Ok(()) };
        }
        // A single coding that nobody here knows is well formed and not implemented; lists and tricks are refused.
        let one_name = !value.is_empty() && value.iter().all(|b| is_token(*b));
        Err(if one_name { BadHead::Coding } else { BadHead::Malformed })
    }

    fn body(&self, request: &Request) -> Result<BodyKind, BadHead> {
        let host_needed = request.version_1_1 && self.host.is_none();
        let conflict = match (&request.authority, &self.host) {
            (Some(target), Some(host)) => !target.eq_ignore_ascii_case(host),
            _ => false,
        };
        if host_needed || conflict || self.chunked && (self.length.is_some() || !request.version_1_1) {
            return Err(BadHead::Malformed);
        }
        Ok(match self.length {
            _ if self.chunked => BodyKind::Chunked,
            None | Some(0) => BodyKind::None,
            Some(n) => BodyKind::Length(n),
        })
    }
}

/// Whether this is `host` or `host:port`: a name or an IPv4 address of letters, digits, `.`, `-` and `_`, or an IPv6
/// address in brackets; a port of 1 to 65535.
pub(in crate::proxy) fn is_authority(bytes: &[u8]) -> bool {
    let (host_fine, port) = match bytes.strip_prefix(b"[") {
        Some(v6) => {
            let Some(end) = v6.iter().position(|b| *b == b']') else { return false };
            let text = std::str::from_utf8(&v6[..end]).unwrap_or_default();
            (text.parse::<std::net::Ipv6Addr>().is_ok(), &v6[end + 1..])
        }
        None => {
            let end = bytes.iter().position(|b| *b == b':').unwrap_or(bytes.len());
            let name = &bytes[..end];
            let fine = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            (!name.is_empty() && name.len() <= 255 && name.iter().all(fine), &bytes[end..])
        }
    };
    host_fine && (port.is_empty() || port.strip_prefix(b":").is_some_and(is_port))
}

fn is_port(digits: &[u8]) -> bool {
    let number = || digits.iter().fold(0_u32, |n, b| n * 10 + u32::from(b - b'0'));
    // Only digits are few and small enough to be added up.
    (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) && (1..=65_535).contains(&number())
}

/// What may stand in a method or a field's name (RFC 9110, section 5.6.2).
pub(in crate::proxy) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What may stand in a field's value (RFC 9110, section 5.5).
pub(in crate::proxy) fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
