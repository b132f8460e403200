//! Signing in with a token, and out again.

use axum::extract::{ConnectInfo, Extension, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use maud::{DOCTYPE, Markup, html};

use super::super::auth::{known_token, must_not_wait};
use super::super::context::{Cx, Shared};
use super::super::freeze::now_ms;
use super::super::problem::Problem;
use super::form::Form;
use super::layout::{Nav, Visitor, page_response, see_other};
use super::session::{Keys, set_cookie};

/// Where one signs in.
pub(super) const PATH: &str = "/sign-in";
/// The longest token that is looked at.
const MAX_TOKEN: usize = 4_096;

/// To the form, and from there to where one wanted to go.
pub(super) fn redirect_to(to: &str) -> Response {
    let query = serde_urlencoded::to_string([("to", to)]).unwrap_or_default();
    if to == "/" { see_other(PATH) } else { see_other(&format!("{PATH}?{query}")) }
}

/// Comes here again from a page of ours. A link of another site, as in a chat or a mail, brings no cookie that is for this
/// site alone, so whoever follows one is asked who it is only when there is no cookie from here either.
pub(super) fn come_again(to: &str) -> Response {
    page_response(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="refresh" content={ "0;url=" (to) };
                title { "Switchback" }
            }
            body { p { a href=(to) { "Go on" } } }
        }
    })
}

/// The form.
pub(super) async fn show(State(cx): State<Cx>, visitor: Extension<Visitor>, RawQuery(query): RawQuery) -> Response {
    let to = wanted(query.as_deref().unwrap_or_default());
    if visitor.caller().is_some() {
        return see_other(&to);
    }
    visitor.page(&cx, Nav::None, "Sign in", form(&visitor, &to, None))
}

/// Takes the token.
pub(super) async fn enter(
    State(cx): State<Cx>,
    visitor: Extension<Visitor>,
    peer: Option<Extension<ConnectInfo<std::net::SocketAddr>>>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Problem> {
    let peer = peer.map_or(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), |info| info.0.0.ip());
    must_not_wait(&cx, peer)?;
    let view = cx.control.view();
    let to = local_path(form.text("to"));
    let given = form.text("token").trim();
    let tokens = &view.settings.admin.tokens;
    let known = if given.is_empty() || given.len() > MAX_TOKEN {
        None
    } else {
        known_token(&cx, tokens, given.as_bytes(), peer)
    };
    let Some(token) = known else {
        let wrong = if given.is_empty() { "Enter a token." } else { "This token is not known." };
        let mut response = visitor.page(&cx, Nav::None, "Sign in", self::form(&visitor, &to, Some(wrong)));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(response);
    };
    let session = Keys::of(&view.routes.signer).issue(token, now_ms() / 1_000, rand::random());
    let session = session.ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_key", "there is no key to sign sessions with yet")
            .retry_after(1)
    })?;
    let mut response = see_other(&to);
    response.headers_mut().insert(header::SET_COOKIE, set_cookie(Some(&session), is_secure(&cx, &headers)));
    Ok(response)
}

/// Forgets the session.
pub(super) async fn leave(State(cx): State<Cx>, headers: HeaderMap, _form: Form) -> Response {
    let mut response = see_other(PATH);
    response.headers_mut().insert(header::SET_COOKIE, set_cookie(None, is_secure(&cx, &headers)));
    response
}

fn form(visitor: &Visitor, to: &str, wrong: Option<&str>) -> Markup {
    html! {
        section.card.narrow {
            form method="post" action=(PATH) {
                (visitor.word())
                input type="hidden" name="to" value=(to);
                // Those who keep passwords for people want a name to keep them by.
                input type="text" name="user" value="switchback" autocomplete="username" hidden readonly;
                label for="token" { "Token" }
                @if let Some(wrong) = wrong { p.wrong id="wrong" role="alert" { (wrong) } }
                input id="token" name="token" type="password" autocomplete="current-password" required autofocus
                    spellcheck="false" aria-describedby=(if wrong.is_some() { "wrong hint" } else { "hint" })
                    aria-invalid=(wrong.is_some());
                p.hint id="hint" { "One of " code { "admin.tokens" } " in the configuration. You stay signed in for twelve hours." }
                button.primary type="submit" { "Sign in" }
            }
        }
    }
}

/// Where the query wants to go.
fn wanted(query: &str) -> String {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    local_path(pairs.iter().find(|(name, _)| name == "to").map_or("/", |(_, to)| to))
}

/// A path of this host; anything that could lead elsewhere becomes the overview.
fn local_path(to: &str) -> String {
    let stays =
        to.starts_with('/') && !to.starts_with("//") && !to.contains('\\') && to.bytes().all(|b| b.is_ascii_graphic());
    let loops = to.starts_with(PATH) || to.starts_with("/ui/") || to.starts_with("/sign-out");
    if stays && !loops { to.to_owned() } else { "/".to_owned() }
}

/// Whether the browser came by https, as whoever ends TLS before us says. A client that lies here only harms itself.
fn is_secure(cx: &Shared, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let host = text("host");
    let settings = &cx.control.view().settings.admin;
    let public = settings.public_url.as_deref().and_then(|url| url.strip_prefix("https://"));
    text("x-forwarded-proto").split(',').next().is_some_and(|p| p.trim() == "https")
        || text("forwarded").split([';', ',']).any(|p| p.trim().trim_matches('"') == "proto=https")
        || text("origin").starts_with("https://")
        || public.is_some_and(|p| p.split('/').next().is_some_and(|h| h.eq_ignore_ascii_case(&host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_comes_back_to_a_page_of_this_host_only() {
        for good in ["/", "/services/shop?x=1", "/services/a%2Fb"] {
            assert_eq!(local_path(good), good);
        }
        for bad in
            ["", "//evil.example", "/\\evil.example", "https://evil.example", "/sign-in?to=/", "/a\r\nb", "/ui/events"]
        {
            assert_eq!(local_path(bad), "/", "{bad:?}");
        }
        assert_eq!(wanted("to=%2Fexplain%3Fkey%3D1&x=2"), "/explain?key=1");
        assert_eq!(redirect_to("/explain?a=b&c").headers()["location"], "/sign-in?to=%2Fexplain%3Fa%3Db%26c");
    }
}
