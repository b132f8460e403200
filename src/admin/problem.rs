//! Errors as RFC 9457 problem documents: what is wrong, with which field, and what would be allowed instead.

use std::error::Error;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::ReloadError;
use super::UpgradeError;
use crate::control::SubmitError;
use crate::model::ChangeError;
use crate::store::StoreError;

/// The longest piece of a request that an answer repeats.
const MAX_ECHO: usize = 100;
/// Most names that an answer lists.
const MAX_LISTED: usize = 30;
/// Most names that are held against a wrong one. There may be a million tenants, and a guess is worth a few milliseconds.
const MAX_GUESSED: usize = 20_000;

/// An error as it is told to the client.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    suggestion: Option<Box<str>>,
    current_revision: Option<u64>,
    /// In seconds.
    retry_after: Option<u16>,
    challenge: Option<&'static str>,
}

/// What a problem says, beside its answer: whoever shows it to people in another form finds it there.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// In a few words.
    pub title: String,
    /// What went wrong this time, and what would be allowed.
    pub detail: String,
}

/// One field that is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// Field of the body, parameter of the query or name in the path.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// RFC 9457 problem document.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// `about:blank`, or `urn:switchback:` and one word for what went wrong.
    r#type: String,
    /// The same in a few words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What went wrong this time, and what would be allowed.
    detail: String,
    /// Fields that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// The known name that is closest to one that nobody has, when one is close.
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<String>,
    /// The revision of the document, when the change was made against another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_revision: Option<u64>,
}

impl Problem {
    /// A problem of a kind; an empty kind says no more than the status does.
    pub(super) fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            suggestion: None,
            current_revision: None,
            retry_after: None,
            challenge: None,
        }
    }

    /// 400: the request cannot be read.
    pub(super) fn bad(field: &str, message: impl Into<String>) -> Self {
        Self::of_field(StatusCode::BAD_REQUEST, "bad_request", field, message)
    }

    /// 422: the request can be read and makes no sense.
    pub(super) fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::of_field(StatusCode::UNPROCESSABLE_ENTITY, "invalid", field, message)
    }

    fn of_field(status: StatusCode, kind: &'static str, field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let detail = if field.is_empty() { message.clone() } else { format!("{field}: {message}") };
        Self::new(status, kind, detail).field(field, message)
    }

    /// 404: a name in the path is one that nobody has.
    pub(super) fn unknown<'k>(what: &'static str, given: &str, known: impl IntoIterator<Item = &'k str>) -> Self {
        let known: Vec<_> = known.into_iter().filter(|name| !name.is_empty()).collect();
        let near = closest(given, known.iter().copied());
        let ends = match near {
            Some(name) => format!("did you mean {name:?}?"),
            None => format!("there are: {}", listed(&known)),
        };
        let detail = format!("there is no {what} {:?}; {ends}", echo(given));
        Self::new(StatusCode::NOT_FOUND, "not_found", detail).suggest(near)
    }

    /// Names what was probably meant, for programs; `detail` says so already.
    pub(super) fn suggest(mut self, name: Option<&str>) -> Self {
        self.suggestion = name.map(Into::into);
        self
    }

    /// Says what was probably meant, if one of the known names is close to the given one.
    pub(super) fn guess<'k>(mut self, given: &str, known: impl IntoIterator<Item = &'k str>) -> Self {
        let near = closest(given, known);
        self.detail.push_str(&asking(near));
        self.suggest(near)
    }

    /// How the answer begins.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// What went wrong this time.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Names one more field that is wrong.
    pub(super) fn field(mut self, field: &str, message: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.to_owned(), message: message.into() });
        self
    }

    /// When to try again, in seconds; 18 hours at most.
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(u16::try_from(seconds).unwrap_or(u16::MAX));
        self
    }

    /// How to prove who one is, for 401.
    pub(super) fn challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// 412: the tags of `If-Match` are no revisions, or there is no document to match.
    pub(super) fn no_match(current: u64) -> Self {
        let detail = match current {
            0 => "If-Match asks for a document that does not exist yet".to_owned(),
            n => format!("If-Match does not name the document's revision, which is {n}"),
        };
        Self::new(StatusCode::PRECONDITION_FAILED, "stale_revision", detail).revision(current)
    }

    fn revision(mut self, current: u64) -> Self {
        self.current_revision = Some(current);
        self
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        let unavailable =
            |kind, seconds| Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, error.to_string()).retry_after(seconds);
        match error {
            SubmitError::Refused(refused) => refused.into(),
            SubmitError::DoesNotFit(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "does_not_fit", error.to_string())
            }
            SubmitError::Sealed(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "sealed", error.to_string()),
            SubmitError::Store(_) => unavailable("store", 1).with_detail(chain(&error)),
            SubmitError::NotUnderstood(_) => unavailable("not_understood", 60),
            SubmitError::ReadOnly => unavailable("read_only", 60),
            SubmitError::Unconfirmed { .. } => unavailable("unconfirmed", 1),
            SubmitError::HandedOver => unavailable("handed_over", 1),
            SubmitError::Closed => unavailable("closed", 1),
        }
    }
}

impl From<UpgradeError> for Problem {
    fn from(error: UpgradeError) -> Self {
        let (status, kind) = match &error {
            UpgradeError::NotNow(_) => {
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_now", error.to_string()).retry_after(5);
            }
            UpgradeError::Busy => (StatusCode::CONFLICT, "busy"),
            UpgradeError::NoCommand | UpgradeError::First => (StatusCode::CONFLICT, "not_possible"),
            UpgradeError::Spawn(_) | UpgradeError::Ended(_) | UpgradeError::TooSlow(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "not_upgraded")
            }
        };
        Self::new(status, kind, error.to_string())
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let text = error.to_string();
        let new = |status, kind, detail| Self::new(status, kind, detail);
        let unknown = |kind, field: &str, given: &str, known: &str| {
            let near = closest(given, known.split(", "));
            let detail = format!("{text}{}", asking(near));
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Self::new(status, kind, detail.clone()).field(field, detail).suggest(near)
        };
        match &error {
            ChangeError::UnknownService { name, known } => Self::unknown("service", name, known.split(", ")),
            ChangeError::NotThere { .. } => new(StatusCode::NOT_FOUND, "not_found", text),
            ChangeError::UnknownVersion { version, known, .. } => {
                unknown("unknown_version", "version", version.as_str(), known)
            }
            ChangeError::UnknownGroup { group, known } => unknown("unknown_group", "group", group.as_str(), known),
            ChangeError::Invalid(_) => new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", text),
            ChangeError::Disabled { .. } => new(StatusCode::CONFLICT, "disabled", text),
            ChangeError::UnknownRollout { .. } => new(StatusCode::NOT_FOUND, "not_found", text),
            ChangeError::Running { .. } => new(StatusCode::CONFLICT, "running", text),
            ChangeError::NotNow { .. } => new(StatusCode::CONFLICT, "not_now", text),
            ChangeError::InUse { .. } => new(StatusCode::CONFLICT, "in_use", text),
            ChangeError::StaleRevision { current, .. } => {
                new(StatusCode::PRECONDITION_FAILED, "stale_revision", text).revision(*current)
            }
            ChangeError::StaleAttempt { .. } => new(StatusCode::CONFLICT, "stale_attempt", text),
            ChangeError::Nothing(_) => new(StatusCode::CONFLICT, "nothing_to_change", text),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", chain(&error)).retry_after(1)
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        let mistakes = match error {
            ReloadError::Refused(refused) => return refused.into(),
            ReloadError::Mistakes(mistakes) => mistakes,
        };
        let file = mistakes.file().display();
        let count = mistakes.list().len();
        let detail = format!("{file} has {count} mistake(s); the settings in effect were left as they are");
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "configuration", detail);
        mistakes
            .list()
            .iter()
            .fold(problem, |problem, m| problem.field(&m.key, format!("{file}:{}: {}", m.line, m.message)))
    }
}

impl Problem {
    fn with_detail(mut self, detail: String) -> Self {
        self.detail = detail;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let reason = self.status.canonical_reason().unwrap_or("Error");
        let body = ProblemBody {
            r#type: if self.kind.is_empty() {
                "about:blank".to_owned()
            } else {
                format!("urn:switchback:{}", self.kind)
            },
            title: if self.kind.is_empty() { reason.to_owned() } else { title(self.kind) },
            status: self.status.as_u16(),
            detail: self.detail,
            errors: self.errors,
            suggestion: self.suggestion.map(String::from),
            current_revision: self.current_revision,
        };
        let told = Told { title: body.title.clone(), detail: body.detail.clone() };
        let mut response = (self.status, axum::Json(body)).into_response();
        response.extensions_mut().insert(told);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

/// `stale_revision` becomes `Stale revision`.
fn title(kind: &str) -> String {
    let text = kind.replace('_', " ");
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// The error and its causes, once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A piece of the request, short enough to be repeated in an answer.
pub(super) fn echo(text: &str) -> String {
    match text.char_indices().nth(MAX_ECHO) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `; did you mean "X"?` when a known name is close to the given one.
pub(super) fn did_you_mean<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    asking(closest(given, known))
}

fn asking(near: Option<&str>) -> String {
    near.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// The known name that is closest to the given one, if one is close.
fn closest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // A third of the letters may be wrong; beyond that a guess is more confusing than none.
    let length = given.chars().count();
    let limit = (length / 3).max(1);
    let given = given.to_lowercase();
    let near = known.into_iter().take(MAX_GUESSED).filter(|name| name.chars().count().abs_diff(length) <= limit);
    let near = near.map(|name| (strsim::damerau_levenshtein(&given, &name.to_lowercase()), name));
    near.filter(|(distance, _)| *distance <= limit).min().map(|(_, name)| name)
}

/// The names, or how many more there are.
fn listed(known: &[&str]) -> String {
    match known.len() {
        0 => "none".to_owned(),
        n if n <= MAX_LISTED => known.join(", "),
        n => format!("{}, and {} more", known[..MAX_LISTED].join(", "), n - MAX_LISTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::SealError;
    use crate::model::DocumentKey;

    #[test]
    fn close_names_are_suggested() {
        assert_eq!(did_you_mean("acounting", ["billing", "accounting"]), "; did you mean \"accounting\"?");
        assert_eq!(did_you_mean("2.0.1", ["1.0.0", "2.0.0"]), "; did you mean \"2.0.0\"?");
        assert_eq!(did_you_mean("payroll", ["accounting"]), "");
        assert_eq!(did_you_mean("x", []), "");
    }

    #[test]
    fn an_unknown_name_comes_with_what_was_meant_or_what_there_is() {
        let close = Problem::unknown("service", "acounting", ["billing", "accounting"]);
        assert_eq!(close.detail, "there is no service \"acounting\"; did you mean \"accounting\"?");
        assert_eq!(close.suggestion.as_deref(), Some("accounting"));
        let far = Problem::unknown("service", "x", ["billing", "accounting"]);
        assert_eq!(far.detail, "there is no service \"x\"; there are: billing, accounting");
        assert_eq!(far.suggestion, None);
        assert_eq!(Problem::unknown("rollout", "x", []).detail, "there is no rollout \"x\"; there are: none");
        let many: Vec<_> = (0..40).map(|i| format!("service-{i}")).collect();
        let text = Problem::unknown("service", "x", many.iter().map(String::as_str)).detail;
        assert!(text.ends_with("service-29, and 10 more"), "{text}");
        let version = ChangeError::UnknownVersion {
            service: "a".parse().unwrap(),
            version: "2.0.1".parse().unwrap(),
            known: "1.0.0, 2.0.0".to_owned(),
        };
        assert_eq!(Problem::from(version).suggestion.as_deref(), Some("2.0.0"));
    }

    #[test]
    fn every_refusal_has_a_status() {
        let store = StoreError::Away { detail: "no route".to_owned() };
        let cases: Vec<(SubmitError, u16, &str)> = vec![
            (ChangeError::NotThere { what: "a pin".to_owned() }.into(), 404, "not_found"),
            (ChangeError::Invalid("no".to_owned()).into(), 422, "invalid"),
            (ChangeError::StaleRevision { expected: 1, current: 2 }.into(), 412, "stale_revision"),
            (ChangeError::StaleAttempt { expected: 1, current: 2 }.into(), 409, "stale_attempt"),
            (ChangeError::Nothing("no".to_owned()).into(), 409, "nothing_to_change"),
            (SubmitError::Store(store), 503, "store"),
            (SealError::NoSecret { key: DocumentKey::Freeze }.into(), 422, "sealed"),
            (SubmitError::ReadOnly, 503, "read_only"),
            (SubmitError::Unconfirmed { waiting: 1 }, 503, "unconfirmed"),
            (SubmitError::HandedOver, 503, "handed_over"),
            (SubmitError::Closed, 503, "closed"),
        ];
        for (error, status, kind) in cases {
            let response = Problem::from(error).into_response();
            assert_eq!(response.status(), status, "{kind}");
            assert_eq!(response.headers().contains_key("retry-after"), status == 503, "{kind}");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
        let away = SubmitError::Store(StoreError::Away { detail: "no route".to_owned() });
        assert!(Problem::from(away).detail.contains("no route"));
        assert_eq!(title("stale_revision"), "Stale revision");
    }
}
