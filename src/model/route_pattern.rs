//! Routes of a service that the operator names: an optional method and a path in which segments may stand for anything.
//!
//! `GET /v1/orders/{id}` is one route whatever the order; `/files/*` is everything at and below `/files`.

use http::Method;

/// A route that the operator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePattern {
    method: Option<Method>,
    segments: Vec<RouteSegment>,
    text: String,
}

/// One segment of its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteSegment {
    /// Exactly this text, as it stands in the request: what is percent-encoded stays so.
    Literal(String),
    /// Any one segment.
    Any,
    /// Whatever follows, also nothing. Always the last.
    Rest,
}

/// Why a text is not a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutePatternError {
    /// The method has small letters or other characters that no method has.
    #[error("has no method in capital letters before the space")]
    Method,
    /// No slash at the beginning.
    #[error("has a path that does not begin with \"/\"")]
    Slash,
    /// Too many characters or segments.
    #[error("is too long")]
    TooLong,
    /// A character that cannot stand in a path.
    #[error("has the character {0:?}, which no path has")]
    Character(char),
    /// A segment that no request has.
    #[error("has empty or dotted segments, which no request reaches")]
    Segment,
    /// Braces or a star beside other text.
    #[error("has braces or a star that are not a segment of their own")]
    Wildcard,
    /// A star that is not at the end.
    #[error("has a star before its end")]
    Star,
}

impl RoutePattern {
    /// How many a service may have. With the routes that the proxy finds by itself there are never more.
    pub const MAX_PER_SERVICE: usize = 100;

    const MAX_LENGTH: usize = 200;
    const MAX_SEGMENTS: usize = 32;

    /// The method; none: any.
    pub fn method(&self) -> Option<&Method> {
        self.method.as_ref()
    }

    /// The segments of the path.
    pub fn segments(&self) -> &[RouteSegment] {
        &self.segments
    }

    /// The text without what means nothing, such as a slash at the end: the name of the route.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it stands for the same requests as the other.
    pub fn is_same(&self, other: &Self) -> bool {
        self.method == other.method && self.segments == other.segments
    }
}

impl std::str::FromStr for RoutePattern {
    type Err = RoutePatternError;

    fn from_str(text: &str) -> Result<Self, RoutePatternError> {
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => (Some(read_method(method)?), path),
            None => (None, text),
        };
        let below = path.strip_prefix('/').ok_or(RoutePatternError::Slash)?;
        if path.len() > Self::MAX_LENGTH {
            return Err(RoutePatternError::TooLong);
        }
        let stranger = |c: &char| !c.is_ascii_graphic() || matches!(c, '"' | '\\' | '<' | '>' | '?' | '#');
        if let Some(c) = path.chars().find(stranger) {
            return Err(RoutePatternError::Character(c));
        }
        let below = below.strip_suffix('/').unwrap_or(below);
        let parts: Vec<_> = if below.is_empty() { Vec::new() } else { below.split('/').collect() };
        if parts.len() > Self::MAX_SEGMENTS {
            return Err(RoutePatternError::TooLong);
        }
        let last = parts.len().saturating_sub(1);
        let segments = parts.iter().enumerate().map(|(i, part)| segment(part, i == last)).collect::<Result<_, _>>()?;
        let text = match &method {
            Some(method) => format!("{method} /{below}"),
            None => format!("/{below}"),
        };
        Ok(Self { method, segments, text })
    }
}

fn read_method(text: &str) -> Result<Method, RoutePatternError> {
    let method = Method::from_bytes(text.as_bytes()).map_err(|_| RoutePatternError::Method)?;
    if text.bytes().any(|b| b.is_ascii_lowercase()) { Err(RoutePatternError::Method) } else { Ok(method) }
}

fn segment(text: &str, last: bool) -> Result<RouteSegment, RoutePatternError> {
    if let Some(name) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        return if named { Ok(RouteSegment::Any) } else { Err(RoutePatternError::Wildcard) };
    }
    match text {
        "*" if last => Ok(RouteSegment::Rest),
        "*" => Err(RoutePatternError::Star),
        "" | "." | ".." => Err(RoutePatternError::Segment),
        _ if text.contains(['{', '}', '*']) => Err(RoutePatternError::Wildcard),
        _ => Ok(RouteSegment::Literal(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RoutePattern, RoutePatternError> {
        text.parse()
    }

    #[test]
    fn patterns_have_a_method_and_segments() {
        let order = parse("GET /v1/orders/{id}/").unwrap();
        let literal = |t: &str| RouteSegment::Literal(t.to_owned());
        assert_eq!(order.method(), Some(&Method::GET));
        assert_eq!(order.segments(), [literal("v1"), literal("orders"), RouteSegment::Any]);
        assert_eq!(order.as_str(), "GET /v1/orders/{id}");
        assert!(order.is_same(&parse("GET /v1/orders/{order-id}").unwrap()));
        assert!(!order.is_same(&parse("/v1/orders/{id}").unwrap()));
        assert_eq!(parse("/files/*").unwrap().segments(), [literal("files"), RouteSegment::Rest]);
        let root = parse("/").unwrap();
        assert_eq!((root.segments(), root.as_str()), (&[][..], "/"));
        assert_eq!(parse("/*").unwrap().segments(), [RouteSegment::Rest]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("", RoutePatternError::Slash),
            ("orders", RoutePatternError::Slash),
            ("GET orders", RoutePatternError::Slash),
            ("get /orders", RoutePatternError::Method),
            (" /orders", RoutePatternError::Method),
            ("/a b", RoutePatternError::Method),
            ("GET /a b", RoutePatternError::Character(' ')),
            ("/a?b=c", RoutePatternError::Character('?')),
            ("/ä", RoutePatternError::Character('ä')),
            ("/a//b", RoutePatternError::Segment),
            ("/a/../b", RoutePatternError::Segment),
            ("/a/x{id}", RoutePatternError::Wildcard),
            ("/a/{}", RoutePatternError::Wildcard),
            ("/a/{rest...}", RoutePatternError::Wildcard),
            ("/a*", RoutePatternError::Wildcard),
            ("/a/*/b", RoutePatternError::Star),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(parse(&format!("/{}", "a".repeat(300))), Err(RoutePatternError::TooLong));
        assert_eq!(parse(&"/a".repeat(40)), Err(RoutePatternError::TooLong));
    }
}
