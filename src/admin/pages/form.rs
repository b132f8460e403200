//! Reading a form: bounded in size and time, and only with the word that our own pages put into it.

use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};

use super::super::body::receive;
use super::super::context::Cx;
use super::super::problem::Problem;
use super::layout::Visitor;
use super::session::Keys;

/// Name of the field that brings the session's word.
pub(super) const WORD: &str = "csrf";

/// The fields of a form of ours, in their order.
#[derive(Debug, Default, Clone)]
pub(super) struct Form(Vec<(String, String)>);

impl FromRequest<Cx> for Form {
    type Rejection = Problem;

    async fn from_request(request: Request, cx: &Cx) -> Result<Self, Problem> {
        let visitor = request.extensions().get::<Visitor>().cloned().unwrap_or_else(|| Visitor::nobody(cx));
        let (headers, bytes) = receive(request, cx).await?;
        let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !kind.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
            let detail = "this takes what the form of the page sends";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_a_form", detail));
        }
        let form = Self(parse(&bytes)?);
        let keys = Keys::of(&cx.control.view().routes.signer);
        if !keys.is_word(visitor.bound(), form.text(WORD)) {
            let detail = "the form is not of a page that you were shown, or of a session that has ended; load the page \
                          again and send it from there";
            return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_form", detail));
        }
        Ok(form)
    }
}

impl Form {
    /// The value of a field; an absent one is empty.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// Every field but the word, in their order.
    pub(super) fn fields(&self) -> Vec<(String, String)> {
        self.0.iter().filter(|(n, _)| n != WORD).cloned().collect()
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>, Problem> {
    serde_urlencoded::from_bytes(bytes).map_err(|e| Problem::bad("", format!("the form cannot be read: {e}")))
}
