//! The keys that sign the proxy's cookies. They are never shown; all that can be asked for is a new one.

use axum::extract::State;
use axum::{Extension, Json};

use super::asked::{ReceiptAnswer, tidy};
use super::auth::Caller;
use super::bodies::RotateBody;
use super::body::MaybeBody;
use super::context::Cx;
use super::problem::Problem;

/// Sign cookies with a new key
///
/// The three keys before it are still accepted, so that no session ends and nobody loses an issued key. `before` and
/// `after` tell how many keys there are. Refused while `proxy.cookie_secret` is configured: then the file has the keys.
#[utoipa::path(
    post, path = "/v1/keys/rotate", tag = "process",
    request_body(content = Option<RotateBody>),
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn rotate_keys(
    State(cx): State<Cx>,
    Extension(caller): Extension<Caller>,
    MaybeBody(body): MaybeBody<RotateBody>,
) -> Result<Json<ReceiptAnswer>, Problem> {
    let reason = tidy(body.reason.unwrap_or_default())?;
    let receipt = cx.control.rotate_keys(caller.author(), reason).await?;
    Ok(Json(ReceiptAnswer {
        revision: receipt.revision,
        event: receipt.event,
        dry_run: false,
        unconfirmed: false,
        before: receipt.before,
        after: receipt.after,
    }))
}
