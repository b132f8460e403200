//! What can go wrong between the command line and the admin API, in words that say what to do next.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::text::{Fields, clean};

/// Why a verb did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments or settings make no sense; exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The file with the token cannot be read; exit code 2.
    #[error("the token cannot be read from {}", file.display())]
    TokenFile {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The API said no.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Nothing answers.
    #[error(
        "the admin API does not answer at {url}: {reason}\n  \
         Is `switchback serve` running, and does [admin] listen in its configuration match this address?\n  \
         Choose another address with --admin URL or SWITCHBACK_ADMIN."
    )]
    Unreachable {
        /// Address of the API.
        url: String,
        /// What happened to the connection.
        reason: String,
    },
    /// No answer in time.
    #[error("{url} gave no answer within {} s{}", after.as_secs(), late_change(*.changes))]
    Late {
        /// Address of the API.
        url: String,
        /// How long was waited.
        after: Duration,
        /// Whether the request was to change something.
        changes: bool,
    },
    /// The connection broke after it stood.
    #[error("the connection to {url} broke{}", late_change(*.changes))]
    Broken {
        /// Address of the API.
        url: String,
        /// Whether the request was to change something.
        changes: bool,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something else than the admin API answers.
    #[error("{url} answered {what}; is this really the address of the admin API?")]
    NotTheApi {
        /// Address of the API.
        url: String,
        /// What came instead.
        what: String,
    },
    /// Test messages did not arrive.
    #[error("not reached: {}", .0.join(", "))]
    NotReached(Vec<String>),
    /// The output cannot be written.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
    /// A file cannot be written.
    #[error("{} cannot be written", file.display())]
    File {
        /// Which file or folder.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Ctrl-C cannot be watched, or a thread cannot be started.
    #[error("watching cannot begin")]
    Watch(#[source] io::Error),
    /// What was waited for ended badly, or not in time.
    #[error("{0}")]
    EndedBadly(String),
    /// A thread ended with a panic, which has been printed already.
    #[error("watching ended by a mistake in this program")]
    Ended,
}

fn late_change(changes: bool) -> &'static str {
    if changes { "; the change may be in effect or not: look before you try again" } else { "" }
}

impl CliError {
    /// The exit code: 2 for wrong usage or settings, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::TokenFile { .. } => 2,
            _ => 1,
        }
    }

    /// Whether the reader of the output went away, which is no mistake.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether a stream may simply try again: the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused(problem) => matches!(problem.status, 429 | 500..),
            Self::Unreachable { .. } | Self::Late { .. } | Self::Broken { .. } => true,
            _ => false,
        }
    }
}

/// An answer that refuses, as RFC 9457 has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problem {
    /// Status of the answer.
    pub status: u16,
    /// What kind of problem it is, in a few words.
    pub title: String,
    /// What is wrong this time.
    pub detail: Option<String>,
    /// What is wrong with single fields: field and message.
    pub errors: Vec<(String, String)>,
    /// The revision of the document now, when the change was made against an older one.
    pub current_revision: Option<u64>,
}

impl Problem {
    /// Reads a problem document.
    pub fn from_json(status: u16, body: &Value) -> Self {
        let error = |e: &Value| (e.text("field").unwrap_or_default(), e.text("message").unwrap_or_default());
        Self {
            status,
            title: body.text("title").unwrap_or_else(|| format!("refused with status {status}")),
            detail: body.text("detail").filter(|d| !d.is_empty()),
            errors: body.list("errors").iter().map(error).collect(),
            current_revision: body.count("current_revision"),
        }
    }

    /// What the user can do about it, where the status alone tells.
    fn advice(&self) -> Option<String> {
        match (self.status, self.current_revision) {
            (401, _) => Some("Give a token with --token, --token-file or SWITCHBACK_TOKEN.".to_owned()),
            (403, _) => Some("The token's role does not allow this.".to_owned()),
            (412, Some(revision)) => Some(format!("The document is at revision {revision} now.")),
            _ => None,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.detail {
            // "There is no …" says it all.
            Some(detail) if self.status == 404 => f.write_str(detail)?,
            Some(detail) => write!(f, "{}: {detail}", self.title)?,
            None => f.write_str(&self.title)?,
        }
        for (field, message) in &self.errors {
            match field.is_empty() {
                true => write!(f, "\n  {message}")?,
                false => write!(f, "\n  {field}: {message}")?,
            }
        }
        self.advice().map_or(Ok(()), |advice| write!(f, "\n  {advice}"))
    }
}

/// The error with its causes, ready to be printed once.
pub(super) fn with_causes(error: &CliError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let next_text = next.to_string();
        // Some libraries repeat the cause in their own message.
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&clean(&next_text));
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_shows_every_field_on_its_own_line() {
        let body = json!({
            "title": "Not valid", "status": 422, "detail": "two fields are wrong",
            "errors": [{"field": "weights.2.0.0", "message": "is 101"}, {"field": "", "message": "all\u{1b} wrong"}],
        });
        let expected = "Not valid: two fields are wrong\n  weights.2.0.0: is 101\n  all\u{fffd} wrong";
        assert_eq!(Problem::from_json(422, &body).to_string(), expected);
        let stale = Problem::from_json(412, &json!({"title": "Stale", "current_revision": 18}));
        assert_eq!(stale.to_string(), "Stale\n  The document is at revision 18 now.");
        assert_eq!(Problem::from_json(500, &json!(null)).to_string(), "refused with status 500");
        assert!(Problem::from_json(401, &json!({})).to_string().contains("SWITCHBACK_TOKEN"));
    }

    #[test]
    fn exit_codes_and_second_tries() {
        assert_eq!(CliError::Usage("x".into()).exit_code(), 2);
        let refused = |status| CliError::Refused(Box::new(Problem { status, ..Problem::default() }));
        assert_eq!(refused(404).exit_code(), 1);
        assert!(!refused(404).may_pass() && refused(503).may_pass() && refused(429).may_pass());
        let pipe = CliError::Output(io::ErrorKind::BrokenPipe.into());
        assert!(pipe.is_broken_pipe() && !CliError::Output(io::ErrorKind::Other.into()).is_broken_pipe());
    }

    #[test]
    fn causes_are_printed_once() {
        let source = io::Error::other("no such thing");
        let text = with_causes(&CliError::TokenFile { file: "t".into(), source });
        assert_eq!(text, "the token cannot be read from t: no such thing");
        let late = CliError::Late { url: "http://x".into(), after: Duration::from_secs(30), changes: true };
        assert!(with_causes(&late).contains("30 s; the change may be in effect or not"));
    }
}
