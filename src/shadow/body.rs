//! The body of an answer, read so far that it can be compared.

use std::io::Read;

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

/// The longest content type that is told apart from others.
const KIND_MAX: usize = 64;

/// A body that can be compared with another.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A JSON document.
    Json(Value),
    /// Anything else: what it is, and what makes two of them the same.
    Opaque {
        /// Content type without parameters, lower case; empty when there is none.
        kind: String,
        /// Hash of the bytes.
        hash: u64,
        /// Bytes.
        length: u64,
    },
    /// Too large, or in a coding that cannot be undone: nothing can be said about it.
    Unreadable,
}

impl Body {
    /// Reads a whole body. `content_type` and `encoding` are the answer's headers; a body that has more than `limit`
    /// bytes when its coding is undone is unreadable.
    pub fn read(content_type: Option<&str>, encoding: Option<&str>, bytes: &[u8], limit: u64) -> Self {
        let Some(plain) = decode(encoding.unwrap_or_default(), bytes, limit) else { return Self::Unreadable };
        let kind = kind(content_type.unwrap_or_default());
        if (is_json(&kind) || kind.is_empty() && looks_like_json(&plain))
            && let Ok(value) = serde_json::from_slice(&plain)
        {
            return Self::Json(value);
        }
        Self::Opaque { kind, hash: xxh3_64(&plain), length: plain.len() as u64 }
    }
}

/// The bytes as they were before they were coded; none when that is not known or they would be too many.
fn decode(encoding: &str, bytes: &[u8], limit: u64) -> Option<Vec<u8>> {
    let encoding = encoding.trim().to_ascii_lowercase();
    // The body of an answer to HEAD is empty whatever its header says.
    if bytes.is_empty() || matches!(encoding.as_str(), "" | "identity") {
        return (bytes.len() as u64 <= limit).then(|| bytes.to_vec());
    }
    let mut plain = Vec::new();
    let read = match encoding.as_str() {
        "gzip" | "x-gzip" => flate2::read::MultiGzDecoder::new(bytes).take(limit + 1).read_to_end(&mut plain),
        "deflate" => flate2::read::ZlibDecoder::new(bytes).take(limit + 1).read_to_end(&mut plain),
        "br" => brotli::Decompressor::new(bytes, 4 << 10).take(limit + 1).read_to_end(&mut plain),
        _ => return None,
    };
    (read.is_ok() && plain.len() as u64 <= limit).then_some(plain)
}

/// The content type without its parameters. It becomes part of reports, so only what looks like one is taken over.
fn kind(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'+' | b'-' | b'.' | b'_');
    if essence.len() <= KIND_MAX && essence.bytes().all(fine) { essence } else { "other".to_owned() }
}

fn is_json(kind: &str) -> bool {
    kind == "application/json" || kind == "text/json" || kind.ends_with("+json")
}

fn looks_like_json(bytes: &[u8]) -> bool {
    bytes.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|b| matches!(b, b'{' | b'['))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::json;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn json_is_known_by_its_type_or_its_look() {
        let read = |kind, text: &str| Body::read(kind, None, text.as_bytes(), 100);
        for kind in [None, Some("application/json"), Some("Application/Problem+JSON; charset=utf-8")] {
            assert_eq!(read(kind, " {\"a\": 1}"), Body::Json(json!({ "a": 1 })), "{kind:?}");
        }
        assert_eq!(read(Some("application/json"), "7"), Body::Json(json!(7)));
        for (kind, text) in [(Some("text/html"), "{}"), (None, "<p>"), (Some("application/json"), "{")] {
            assert!(matches!(read(kind, text), Body::Opaque { .. }), "{kind:?} {text}");
        }
        assert!(matches!(read(Some("a b\u{1}"), "x"), Body::Opaque { kind, length: 1, .. } if kind == "other"));
    }

    #[test]
    fn codings_are_undone_within_the_limit() {
        let text = "{\"a\": \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}";
        let packed = gzip(text.as_bytes());
        let value = Body::Json(serde_json::from_str(text).unwrap());
        let json = Some("application/json");
        assert_eq!(Body::read(json, Some("gzip"), &packed, text.len() as u64), value);
        assert_eq!(Body::read(json, Some("gzip"), &packed, text.len() as u64 - 1), Body::Unreadable);
        assert_eq!(Body::read(json, Some("gzip"), b"no gzip", 100), Body::Unreadable);
        assert_eq!(Body::read(json, Some("unheard-of"), &packed, 100), Body::Unreadable);
        assert_eq!(Body::read(json, None, text.as_bytes(), 10), Body::Unreadable);
        let mut brotli = Vec::new();
        brotli::BrotliCompress(&mut text.as_bytes(), &mut brotli, &brotli::enc::BrotliEncoderParams::default())
            .unwrap();
        assert_eq!(Body::read(json, Some("br"), &brotli, 100), value);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(text.as_bytes()).unwrap();
        assert_eq!(Body::read(json, Some("deflate"), &zlib.finish().unwrap(), 100), value);
        assert!(matches!(Body::read(json, Some("gzip"), b"", 0), Body::Opaque { length: 0, .. }), "an answer to HEAD");
    }
}
