//! Entity tags: the revision of a document in quotes, and what `If-Match` and `If-None-Match` say about it.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// What a header of entity tags says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    /// `*`: whatever there is.
    Any,
    /// These revisions; a tag that is no revision of ours is left out, because it matches nothing.
    Revisions(Vec<u64>),
}

/// The conditions of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    matches: Option<Tags>,
    none_match: Option<Tags>,
}

impl Conditions {
    /// Reads both headers.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self { matches: tags(headers, header::IF_MATCH)?, none_match: tags(headers, header::IF_NONE_MATCH)? })
    }

    /// The revision that a change must be made against. `current` is the document's now, 0 when there is none. The
    /// writer compares again; this only chooses which of several revisions it is given, so a document that is changed
    /// in between is still noticed.
    pub(super) fn expected(&self, current: u64) -> Option<u64> {
        // `If-None-Match: *` asks that there be no document yet.
        let must_be_new = self.none_match == Some(Tags::Any);
        match &self.matches {
            None => must_be_new.then_some(0),
            // There is something, and it may not vanish in between.
            Some(Tags::Any) if current > 0 => Some(current),
            Some(Tags::Any) => Some(u64::MAX),
            Some(Tags::Revisions(list)) if list.contains(&current) => Some(current),
            // Not the document's revision, whatever it is: the writer refuses and tells the current one.
            Some(Tags::Revisions(list)) => Some(list.iter().copied().max().unwrap_or(u64::MAX)),
        }
    }

    /// Whether the client has this revision already.
    pub(super) fn is_known(&self, revision: u64) -> bool {
        match &self.none_match {
            Some(Tags::Any) => true,
            Some(Tags::Revisions(list)) => list.contains(&revision),
            None => false,
        }
    }
}

/// The tag of a revision.
pub(super) fn tag(revision: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// An answer with the revision of its document.
pub(super) fn tagged(revision: u64, answer: impl IntoResponse) -> Response {
    ([(header::ETAG, tag(revision))], answer).into_response()
}

/// Weak tags count like strong ones: proxies that compress make tags weak, and ours name a revision, not bytes.
fn tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>, Problem> {
    let mut revisions = None;
    for value in headers.get_all(&name) {
        let text = value.to_str().unwrap_or("?");
        for tag in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            if tag == "*" {
                return Ok(Some(Tags::Any));
            }
            let quoted = tag.strip_prefix("W/").unwrap_or(tag);
            let inner = quoted.strip_prefix('"').and_then(|t| t.strip_suffix('"')).filter(|t| !t.contains('"'));
            let inner = inner.ok_or_else(|| {
                Problem::bad(name.as_str(), "is not a list of entity tags; allowed is such as \"17\" in quotes, or *")
            })?;
            revisions.get_or_insert_with(Vec::new).extend(inner.parse::<u64>().ok());
        }
    }
    Ok(revisions.map(Tags::Revisions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(name: &'static str, value: &str) -> Result<Conditions, Problem> {
        let headers = [(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())].into_iter().collect();
        Conditions::read(&headers)
    }

    #[test]
    fn if_match_chooses_what_the_writer_compares() {
        let expected = |value: &str, current| conditions("if-match", value).unwrap().expected(current);
        assert_eq!(Conditions::default().expected(5), None);
        assert_eq!(expected("\"5\"", 5), Some(5));
        assert_eq!(expected("W/\"5\"", 5), Some(5));
        assert_eq!(expected("\"3\", \"5\"", 5), Some(5));
        assert_eq!(expected("\"3\", \"4\"", 5), Some(4));
        assert_eq!(expected("*", 5), Some(5));
        assert_eq!(expected("*", 0), Some(u64::MAX), "there is nothing to match");
        assert_eq!(expected("\"abc\"", 5), Some(u64::MAX), "no revision is called abc");
        assert_eq!(conditions("if-none-match", "*").unwrap().expected(5), Some(0), "only when there is none yet");
        for bad in ["5", "\"5", "\"5\"6\"", "'5'"] {
            assert!(conditions("if-match", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn if_none_match_knows_what_the_client_has() {
        let known = |value: &str| conditions("if-none-match", value).unwrap().is_known(5);
        assert!(known("\"5\"") && known("W/\"4\", W/\"5\"") && known("*") && !known("\"4\"") && !known("\"\""));
    }
}
