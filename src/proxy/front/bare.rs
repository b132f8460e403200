//! The front's parsers as plain functions of bytes; see `proxy::bare`.

use std::net::SocketAddr;

use super::chunks::Chunks;
use super::head::{BodyKind, HeadLimits, scan};
use super::proxy_protocol;
use crate::proxy::bare::{Head, NoHeader};

pub(in crate::proxy) fn head(bytes: &[u8]) -> Result<Option<Head>, u16> {
    let found = scan(bytes, HeadLimits { size: 64 << 10, fields: 100 }).map_err(|bad| bad.status())?;
    Ok(found.map(|head| Head {
        skip: head.skip,
        length: head.length,
        body: if let BodyKind::Length(length) = head.body { Some(length) } else { None },
        chunked: head.body == BodyKind::Chunked,
    }))
}

pub(in crate::proxy) fn chunks(parts: &[&[u8]]) -> Option<(usize, Vec<u8>, bool)> {
    let mut chunks = Chunks::new();
    let (mut length, mut carried) = (0, Vec::new());
    for part in parts {
        length += chunks.follow(part, |data| carried.extend_from_slice(data)).ok()?;
    }
    Some((length, carried, chunks.is_done()))
}

pub(in crate::proxy) fn proxy_protocol(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, NoHeader> {
    proxy_protocol::read(bytes).map(|said| said.map(|said| (said.length, said.source))).map_err(|_| NoHeader)
}
