//! The end of answers that come over HTTP/2 and go on over HTTP/1.
//!
//! Pingora takes such an answer for whole once as many bytes are through as its length says, and resets the endpoint's
//! stream, though nothing but the end of it is still to come. Endpoints that count resets take a thousand of them for an
//! attack and close the connection, with all requests on it. So the last part of the body waits for the end.

use bytes::Bytes;
use http::Version;
use pingora::http::{RequestHeader, ResponseHeader};

use super::http1;

/// The last part of an answer's body.
#[derive(Debug)]
pub(super) struct LastPart {
    /// Bytes of the body that are still to come.
    left: u64,
    kept: Option<Bytes>,
}

impl LastPart {
    /// Of an answer by an endpoint of HTTP/2; none where nothing needs to wait.
    pub fn of(request: &RequestHeader, answer: &ResponseHeader) -> Option<Self> {
        let waits = request.version != Version::HTTP_2 && !http1::has_no_body(request, answer);
        let left = http1::length(&answer.headers).filter(|_| waits)?;
        Some(Self { left, kept: None })
    }

    /// Lets a part through, or keeps it until `end`.
    pub fn pass(&mut self, part: &mut Option<Bytes>, end: bool) {
        self.left = self.left.saturating_sub(part.as_ref().map_or(0, Bytes::len) as u64);
        match (end, self.left) {
            (true, _) if self.kept.is_some() => *part = self.kept.take(),
            (false, 0) if self.kept.is_none() => self.kept = part.take(),
            _ => {}
        }
    }

    /// What is kept when trailers are the end.
    pub fn rest(&mut self) -> Option<Bytes> {
        self.kept.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, version: Version, fields: &[(&'static str, &str)]) -> Option<LastPart> {
        let mut request = RequestHeader::build(method, b"/", None).unwrap();
        request.set_version(version);
        let mut answer = ResponseHeader::build(200, None).unwrap();
        for (name, value) in fields {
            answer.insert_header(*name, *value).unwrap();
        }
        LastPart::of(&request, &answer)
    }

    /// What comes through of these parts, the last of them with the end.
    fn through(last: &mut LastPart, parts: &[&'static str]) -> Vec<Option<String>> {
        let text = |part: Bytes| String::from_utf8(part.to_vec()).unwrap();
        let one = |(i, part): (usize, &&'static str)| {
            let mut part = Some(Bytes::from_static(part.as_bytes()));
            last.pass(&mut part, i + 1 == parts.len());
            part.map(text)
        };
        parts.iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_last_part_waits_for_the_end() {
        let some = |text: &str| Some(text.to_owned());
        let begin = || of("GET", Version::HTTP_11, &[("content-length", "6")]).unwrap();
        assert_eq!(through(&mut begin(), &["abc", "def", ""]), [some("abc"), None, some("def")]);
        assert_eq!(through(&mut begin(), &["abcdef"]), [some("abcdef")], "it is the end");
        assert_eq!(through(&mut begin(), &["abc", "def"]), [some("abc"), some("def")]);
        let mut last = begin();
        last.pass(&mut Some(Bytes::from_static(b"abcdef")), false);
        assert_eq!(last.rest().unwrap(), "abcdef");
        assert_eq!(last.rest(), None);
    }

    #[test]
    fn others_do_not_wait() {
        assert!(
            of("GET", Version::HTTP_2, &[("content-length", "6")]).is_none(),
            "the client's stream ends as this one"
        );
        assert!(of("GET", Version::HTTP_11, &[]).is_none(), "its end is the last chunk");
        assert!(of("GET", Version::HTTP_11, &[("content-length", "0")]).is_none());
        assert!(of("HEAD", Version::HTTP_11, &[("content-length", "6")]).is_none());
    }
}
