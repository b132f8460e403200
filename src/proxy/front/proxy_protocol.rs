//! The PROXY protocol, versions 1 and 2: whom a connection comes from, said by the load balancer in front. A pure function
//! of bytes. (The protocol: "The PROXY protocol", versions 1 & 2, Willy Tarreau, 2020.)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The begin of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The begin of version 1.
const NAME: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, with its end.
const LINE_MAX: usize = 107;
/// The most that version 2 may say behind its 16 bytes: addresses and what load balancers add to them.
const EXTRA_MAX: usize = 4_096;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Said {
    /// Bytes that the header takes.
    pub length: usize,
    /// Where the client comes from. None: the load balancer speaks for itself (its health check), or does not say.
    pub source: Option<SocketAddr>,
}

/// The connection does not begin with such a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection does not begin with a PROXY protocol header")]
pub(in crate::proxy) struct NoHeader;

/// Reads what has arrived. `None`: the header is not complete yet.
///
/// # Errors
/// [`NoHeader`].
pub(in crate::proxy) fn read(bytes: &[u8]) -> Result<Option<Said>, NoHeader> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        return if bytes.len() < 16 { Ok(None) } else { version_2(bytes) };
    }
    if begins(NAME) { version_1(bytes) } else { Err(NoHeader) }
}

fn version_1(bytes: &[u8]) -> Result<Option<Said>, NoHeader> {
    let Some(end) = bytes.iter().take(LINE_MAX).position(|b| *b == b'\n') else {
        return if bytes.len() < LINE_MAX { Ok(None) } else { Err(NoHeader) };
    };
    let line = bytes[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok()).ok_or(NoHeader)?;
    let length = end + 1;
    let parts: Vec<&str> = line.split(' ').collect();
    let source = match parts[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4", from, to, from_port, to_port] => {
            checked(to.parse::<Ipv4Addr>().is_ok(), from.parse().map(IpAddr::V4), from_port, to_port)?
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] => {
            checked(to.parse::<Ipv6Addr>().is_ok(), from.parse().map(IpAddr::V6), from_port, to_port)?
        }
        _ => return Err(NoHeader),
    };
    Ok(Some(Said { length, source }))
}

fn checked<E>(
    to_fine: bool,
    from: Result<IpAddr, E>,
    port: &str,
    to_port: &str,
) -> Result<Option<SocketAddr>, NoHeader> {
    let number = |text: &str| if text.starts_with('+') { None } else { text.parse::<u16>().ok() };
    match (to_fine, from, number(port), number(to_port)) {
        (true, Ok(from), Some(port), Some(_)) => Ok(Some(SocketAddr::new(from, port))),
        _ => Err(NoHeader),
    }
}

fn version_2(bytes: &[u8]) -> Result<Option<Said>, NoHeader> {
    let extra = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let (version, command) = (bytes[12] >> 4, bytes[12] & 15);
    if version != 2 || command > 1 || extra > EXTRA_MAX {
        return Err(NoHeader);
    }
    let length = 16 + extra;
    let Some(said) = bytes.get(16..length) else { return Ok(None) };
    let source = match (command, bytes[13]) {
        // LOCAL, and families and transports that are not ours to understand.
        (0, _) | (_, 0x00) => None,
        (_, 0x11) => {
            let [a, b, c, d] = *said.first_chunk::<4>().ok_or(NoHeader)?;
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port(said, 8, 12)?))
        }
        (_, 0x21) => {
            let from = Ipv6Addr::from(*said.first_chunk::<16>().ok_or(NoHeader)?);
            Some(SocketAddr::new(from.into(), port(said, 32, 36)?))
        }
        _ => return Err(NoHeader),
    };
    Ok(Some(Said { length, source }))
}

/// The source's port, if the addresses are complete.
fn port(said: &[u8], at: usize, complete: usize) -> Result<u16, NoHeader> {
    match said.get(at..at + 2) {
        Some(&[a, b]) if said.len() >= complete => Ok(u16::from_be_bytes([a, b])),
        _ => Err(NoHeader),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, said: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend((said.len() as u16).to_be_bytes());
        bytes.extend(said);
        bytes
    }

    fn source(bytes: &[u8]) -> Result<Option<String>, NoHeader> {
        let said = read(bytes)?.expect("complete");
        assert_eq!(said.length, bytes.len());
        Ok(said.source.map(|s| s.to_string()))
    }

    #[test]
    fn version_1_is_a_line() {
        assert_eq!(source(b"PROXY TCP4 203.0.113.9 10.0.0.1 56324 443\r\n"), Ok(Some("203.0.113.9:56324".to_owned())));
        assert_eq!(source(b"PROXY TCP6 2001:db8::9 ::1 1 2\r\n"), Ok(Some("[2001:db8::9]:1".to_owned())));
        assert_eq!(source(b"PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(source(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), Ok(None));
        for bad in [
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 ::1 1 2\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            "proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        ] {
            assert_eq!(read(bad.as_bytes()), Err(NoHeader), "{bad}");
        }
        assert_eq!(read(&[&b"PROXY "[..], &[b'x'; 200]].concat()), Err(NoHeader));
    }

    #[test]
    fn version_2_is_binary() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        assert_eq!(source(&v2(1, 0x11, &v4)), Ok(Some("203.0.113.9:4660".to_owned())));
        assert_eq!(source(&v2(1, 0x11, &[&v4[..], b"\x04\0\x01x"].concat())), Ok(Some("203.0.113.9:4660".to_owned())));
        let mut v6 = [0; 36];
        (v6[0], v6[15], v6[33]) = (0x20, 9, 7);
        assert_eq!(source(&v2(1, 0x21, &v6)), Ok(Some("[2000::9]:7".to_owned())));
        assert_eq!(source(&v2(0, 0x00, b"")), Ok(None), "a health check of the load balancer");
        assert_eq!(source(&v2(1, 0x00, b"")), Ok(None));
        assert_eq!(read(&v2(1, 0x11, &v4[..11])), Err(NoHeader));
        assert_eq!(read(&v2(1, 0x21, &v6[..35])), Err(NoHeader));
        assert_eq!(read(&v2(2, 0x11, &v4)), Err(NoHeader));
        assert_eq!(read(&v2(1, 0x31, &[0; 216])), Err(NoHeader), "a Unix socket");
        assert_eq!(read(&v2(1, 0x11, &[0; 5_000])), Err(NoHeader));
        let mut old = v2(1, 0x11, &v4);
        old[12] = 0x11;
        assert_eq!(read(&old), Err(NoHeader));
    }

    #[test]
    fn a_part_is_waited_for() {
        for whole in [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), v2(1, 0x11, &[1; 12])] {
            for end in 0..whole.len() {
                assert_eq!(read(&whole[..end]), Ok(None), "{:?}", &whole[..end]);
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>, begin in 0usize..3) {
            let begin: &[u8] = [&b""[..], SIGNATURE, NAME][begin];
            let _any = read(&[begin, &bytes[..]].concat());
        }
    }
}
