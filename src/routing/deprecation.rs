//! What clients of a deprecated version are told, made once when the routes are compiled.

use http::HeaderValue;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::model::Deprecation;

/// The headers of a deprecated version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeprecationHeaders {
    /// `Deprecation` (RFC 9745).
    pub deprecation: HeaderValue,
    /// `Sunset` (RFC 8594).
    pub sunset: Option<HeaderValue>,
    /// `Link` with the relation `deprecation`.
    pub link: Option<HeaderValue>,
}

impl DeprecationHeaders {
    /// None when a value cannot stand in a header, which a checked configuration rules out.
    pub fn new(spec: &Deprecation) -> Option<Self> {
        let sunset = spec.sunset_s.and_then(http_date).and_then(|date| HeaderValue::try_from(date).ok());
        let link = spec.link.as_ref().map(|link| format!("<{link}>; rel=\"deprecation\"; type=\"text/html\""));
        Some(Self {
            deprecation: HeaderValue::try_from(format!("@{}", spec.since_s)).ok()?,
            sunset,
            link: link.and_then(|link| HeaderValue::try_from(link).ok()),
        })
    }
}

/// A time as HTTP writes it, such as `Thu, 31 Dec 2026 00:00:00 GMT`.
fn http_date(unix_s: i64) -> Option<String> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::from_second(unix_s).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_standards_write_them() {
        let spec = Deprecation {
            since_s: 1_780_272_000,
            sunset_s: Some(1_798_675_200),
            link: Some("https://docs.example.com/v1".to_owned()),
            unknown: Default::default(),
        };
        let headers = DeprecationHeaders::new(&spec).unwrap();
        assert_eq!(headers.deprecation, "@1780272000");
        assert_eq!(headers.sunset.unwrap(), "Thu, 31 Dec 2026 00:00:00 GMT");
        let link = "<https://docs.example.com/v1>; rel=\"deprecation\"; type=\"text/html\"";
        assert_eq!(headers.link.unwrap(), link);
        let bare = DeprecationHeaders::new(&Deprecation {
            since_s: 784_111_777,
            sunset_s: None,
            link: None,
            unknown: Default::default(),
        })
        .unwrap();
        assert_eq!((bare.deprecation, bare.sunset, bare.link), ("@784111777".parse().unwrap(), None, None));
        assert_eq!(http_date(784_111_777).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT", "the example of RFC 9110");
    }
}
