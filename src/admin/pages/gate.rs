//! Who may see a page: a session where the API wants a token, and refusals as pages.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use maud::html;

use super::super::auth::{self, Caller};
use super::super::context::{Cx, Shared};
use super::super::freeze::now_ms;
use super::super::problem::{Problem, Told};
use super::layout::{Nav, Visitor};
use super::session::Keys;
use super::sign_in;
use crate::config::Role;

/// What a page's route wants to know before anybody sees it.
#[derive(Clone)]
pub(in super::super) struct Gate {
    /// Everything.
    pub cx: Cx,
    /// The role that the page takes; none: open to everyone who reaches the listener.
    pub role: Option<Role>,
}

/// Lets through who may use the page, with its [`Visitor`] and the [`Caller`] in the request's extensions. Whatever is
/// refused on the way is told as a page.
pub(in super::super) async fn require(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let visitor = identify(&gate.cx, &request);
    let admitted = match (gate.role, &visitor) {
        (None, _) => Ok(()),
        (Some(role), Ok(visitor)) => visitor.caller().map_or_else(|| Err(not_signed_in()), |c| c.may(role)),
        (Some(_), Err(_)) => Err(not_signed_in()),
    };
    let path = request.uri().path();
    let is_page = request.method().is_safe() && !path.starts_with("/ui/");
    let visitor = match visitor {
        Ok(visitor) => visitor,
        Err(problem) if gate.role.is_some() => return finished(&gate.cx, None, problem.into_response()),
        Err(_) => Visitor::nobody(&gate.cx),
    };
    if let Err(problem) = admitted {
        if visitor.caller().is_none() && is_page {
            let to = request.uri().path_and_query().map_or("/", |p| p.as_str());
            let from_elsewhere = request.headers().get("sec-fetch-site").is_some_and(|site| site == "cross-site");
            let answer = if from_elsewhere { sign_in::come_again(to) } else { sign_in::redirect_to(to) };
            return finished(&gate.cx, None, answer);
        }
        return finished(&gate.cx, Some(&visitor), problem.into_response());
    }
    if let Some(caller) = visitor.caller() {
        request.extensions_mut().insert::<Caller>(caller.clone());
    }
    request.extensions_mut().insert(visitor.clone());
    let response = next.run(request).await;
    finished(&gate.cx, Some(&visitor), response)
}

/// Who looks at the page; an error where nobody may.
fn identify(cx: &Cx, request: &Request) -> Result<Visitor, Problem> {
    let view = cx.control.view();
    let tokens = &view.settings.admin.tokens;
    if tokens.is_empty() {
        return auth::local(cx).map(|caller| Visitor::local(cx, caller));
    }
    let keys = Keys::of(&view.routes.signer);
    let found = keys.find(request.headers(), tokens, now_ms() / 1_000);
    Ok(found.map_or_else(|| Visitor::nobody(cx), |(session, token)| Visitor::signed_in(cx, Caller::of(token), session)))
}

fn not_signed_in() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "you are not signed in, or your session has ended")
}

fn finished(cx: &Shared, visitor: Option<&Visitor>, response: Response) -> Response {
    let mut response = dressed(cx, visitor, response);
    let headers = response.headers_mut();
    // Files have names of their own; all else is of this moment and this reader.
    if !headers.get(header::CACHE_CONTROL).is_some_and(|kept| kept.as_bytes().ends_with(b"immutable")) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    response
}

/// A problem as a page; whatever else is an answer stays as it is.
pub(in super::super) fn dressed(cx: &Shared, visitor: Option<&Visitor>, mut response: Response) -> Response {
    let Some(Told { title, detail }) = response.extensions_mut().remove() else { return response };
    let nobody;
    let visitor = match visitor {
        Some(visitor) => visitor,
        None => {
            nobody = Visitor::outside();
            &nobody
        }
    };
    let status = response.status();
    let signs_in = status == StatusCode::UNAUTHORIZED && !cx.control.view().settings.admin.tokens.is_empty();
    let body = html! {
        section.card.problem {
            p.lead { (sentence(&detail)) }
            p {
                @if signs_in { a.button href=(sign_in::PATH) { "Sign in" } }
                @else if status == StatusCode::PRECONDITION_FAILED {
                    "Nothing was changed. Go back, load the page again to see what it is now, and decide anew."
                }
                @else { a href="/" { "To the overview" } }
            }
        }
    };
    let title = match status {
        StatusCode::FORBIDDEN => "Not allowed".to_owned(),
        StatusCode::PRECONDITION_FAILED => "It changed in between".to_owned(),
        _ => title,
    };
    let page = visitor.page(cx, Nav::None, &title, body);
    let (mut parts, _) = response.into_parts();
    let (page_parts, body) = page.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(page_parts.headers);
    Response::from_parts(parts, body)
}

/// Details begin in lower case where they follow a name; a page begins a sentence.
pub(super) fn sentence(detail: &str) -> String {
    let mut letters = detail.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if detail.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}
