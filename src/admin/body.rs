//! Reading a JSON body: bounded in size and time, and refused with the field and the place of what is wrong.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;

use super::context::Cx;
use super::guard::too_large;
use super::problem::Problem;

/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A body that must be there.
#[derive(Debug)]
pub(super) struct Body<T>(pub T);

/// A body that may be left out.
#[derive(Debug)]
pub(super) struct MaybeBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Cx> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, cx: &Cx) -> Result<Self, Problem> {
        let (headers, bytes) = receive(request, cx).await?;
        parse(&headers, &bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Cx> for MaybeBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, cx: &Cx) -> Result<Self, Problem> {
        let (headers, bytes) = receive(request, cx).await?;
        if bytes.is_empty() { Ok(Self(T::default())) } else { parse(&headers, &bytes).map(Self) }
    }
}

/// The headers and the whole body.
pub(super) async fn receive(request: Request, cx: &Cx) -> Result<(HeaderMap, Vec<u8>), Problem> {
    let limit = cx.control.view().settings.admin.body_size;
    let (parts, body) = request.into_parts();
    let mut stream = body.into_data_stream();
    let whole = async {
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            let broken = |e| Problem::new(StatusCode::BAD_REQUEST, "bad_request", format!("the body broke off: {e}"));
            let piece = piece.map_err(broken)?;
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(too_large(limit));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    };
    let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not come within 30 s");
    let bytes = tokio::time::timeout(BODY_TIME, whole).await.map_err(late)??;
    Ok((parts.headers, bytes))
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Problem> {
    if !is_json(headers) {
        let detail = "the body must be JSON; send it with \"Content-Type: application/json\"";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        let path = e.path().to_string();
        // What is no JSON has no fields.
        refuse(if path == "." || !e.inner().is_data() { "" } else { &path }, e.inner())
    })?;
    deserializer.end().map_err(|e| refuse("", &e))?;
    Ok(value)
}

/// What is JSON already, read like a body.
pub(super) fn checked<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|e| refuse(&e.path().to_string(), e.inner()))
}

/// What is no JSON is 400; JSON that says the wrong thing is 422. Both tell the place.
fn refuse(field: &str, error: &serde_json::Error) -> Problem {
    match error.is_data() {
        true => Problem::invalid(field, error.to_string()),
        false => Problem::bad(field, format!("the body is not JSON: {error}")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.starts_with("application/") && essence.ends_with("+json")
}
