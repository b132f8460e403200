//! What all pages share: the frame, the navigation, and who looks at them.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::super::auth::{Caller, role_name};
use super::super::context::{Cx, Shared};
use super::super::freeze::now_ms;
use super::super::problem::Problem;
use super::assets;
use super::form::WORD;
use super::session::{Keys, Session};
use super::words::{moment, zone};
use crate::config::Role;
use crate::model::{Change, ChangeRequest, ServiceName};

/// Where a page stands in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nav {
    /// What goes on, and everything about one service.
    Overview,
    /// Planned moves from one version to another.
    Rollouts,
    /// What happened.
    History,
    /// Why a request goes where it goes.
    Explain,
    /// The processes, their store, and who is told.
    Proxies,
    /// None of them.
    None,
}

/// The navigation, in its order.
pub(super) const NAV: [(Nav, &str, &str); 5] = [
    (Nav::Overview, "/", "Overview"),
    (Nav::Rollouts, "/rollouts", "Rollouts"),
    (Nav::History, "/history", "History"),
    (Nav::Explain, "/explain", "Explain"),
    (Nav::Proxies, "/proxies", "Proxies"),
];

/// Only our own files, and nobody frames us. No inline script or style, so that nothing that came in by a name can run.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// Who looks at a page.
#[derive(Debug, Clone)]
pub(in super::super) struct Visitor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None: nobody has signed in.
    caller: Option<Caller>,
    session: Option<Session>,
    word: String,
}

impl FromRequestParts<Cx> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Cx) -> Result<Self, Problem> {
        // The route's own middleware puts it there; without it nobody may see anything.
        let visitor = parts.extensions.get::<Self>().cloned();
        visitor.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "nobody asked who you are"))
    }
}

impl Visitor {
    /// A change that the visitor asks for, by the same door as the API.
    ///
    /// # Errors
    /// Nobody is signed in.
    pub(super) fn asks(
        &self,
        service: &ServiceName,
        change: Change,
        reason: String,
        if_revision: Option<u64>,
    ) -> Result<ChangeRequest, Problem> {
        let nobody = || Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "you are not signed in");
        let author = self.caller().map(Caller::author).ok_or_else(nobody)?;
        let (service, evidence) = (service.clone(), serde_json::Value::Null);
        Ok(ChangeRequest { service, change, author, reason, if_revision, if_attempt: None, evidence })
    }

    /// Whoever is let in without a token.
    pub(super) fn local(cx: &Shared, caller: Caller) -> Self {
        Self::with(cx, Some(caller), None)
    }

    /// Whoever has a session.
    pub(super) fn signed_in(cx: &Shared, caller: Caller, session: Session) -> Self {
        Self::with(cx, Some(caller), Some(session))
    }

    /// Nobody yet.
    pub(super) fn nobody(cx: &Shared) -> Self {
        Self::with(cx, None, None)
    }

    /// Whoever was refused before anybody asked.
    pub(super) fn outside() -> Self {
        Self(Arc::new(Inner { caller: None, session: None, word: String::new() }))
    }

    fn with(cx: &Shared, caller: Option<Caller>, session: Option<Session>) -> Self {
        let mut inner = Inner { caller, session, word: String::new() };
        inner.word = Keys::of(&cx.control.view().routes.signer).word(bound(&inner));
        Self(Arc::new(inner))
    }

    /// Who it is.
    pub(super) fn caller(&self) -> Option<&Caller> {
        self.0.caller.as_ref()
    }

    /// Whether what takes this role is to be offered.
    pub(super) fn can(&self, role: Role) -> bool {
        self.caller().is_some_and(|caller| caller.role() >= role)
    }

    /// Until when the session lasts, in seconds since the Unix epoch; none where there is no session.
    pub(super) fn expires_s(&self) -> Option<u64> {
        self.0.session.as_ref().map(|session| session.expires_s)
    }

    /// What forms of this visitor are bound to.
    pub(super) fn bound(&self) -> &str {
        bound(&self.0)
    }

    /// The hidden field that every form has.
    pub(super) fn word(&self) -> Markup {
        html! { input type="hidden" name=(WORD) value=(self.0.word); }
    }

    /// A whole page. `title` is the page's heading; names in it are shown as they are.
    pub(super) fn page(&self, cx: &Shared, nav: Nav, title: &str, body: Markup) -> Response {
        self.page_with(cx, nav, title, html! { h1 { bdi { (title) } } }, body, None)
    }

    /// A page with more of a heading than its title, that follows what happens. `watches`: what the script asks of
    /// [`live`](super::live).
    pub(super) fn page_with(
        &self,
        cx: &Shared,
        nav: Nav,
        title: &str,
        heading: Markup,
        body: Markup,
        watches: Option<&str>,
    ) -> Response {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " · Switchback" }
                    link rel="stylesheet" href=(assets::STYLE.path());
                    link rel="icon" href=(assets::ICON.path()) type="image/svg+xml";
                    script src=(assets::SCRIPT.path()) defer {}
                }
                body data-watches=[watches] {
                    a.skip href="#main" { "Skip to the content" }
                    (self.banner(nav))
                    main id="main" tabindex="-1" {
                        div.heading { (heading) }
                        (body)
                    }
                    (self.footer(cx))
                }
            }
        };
        page_response(page)
    }

    /// Whoever is not known is told nothing of the proxy.
    fn footer(&self, cx: &Shared) -> Markup {
        html! {
            footer.foot {
                @if self.caller().is_some() {
                    p {
                        "Switchback " (env!("CARGO_PKG_VERSION")) " on " bdi { (cx.instance) } ". Times are the proxy's ("
                        (zone()) "). This page was made at " (moment(now_ms())) "."
                    }
                } @else { p { "Switchback" } }
                p.live id="live" role="status" hidden {}
            }
        }
    }

    fn banner(&self, here: Nav) -> Markup {
        html! {
            header.banner {
                a.brand href="/" { span.mark aria-hidden="true" {} "Switchback" }
                @if let Some(caller) = self.caller() {
                    nav aria-label="Main" {
                        ul {
                            @for (nav, path, label) in NAV {
                                li { a href=(path) aria-current=[(nav == here).then_some("page")] { (label) } }
                            }
                        }
                    }
                    div.who {
                        span { bdi { (caller.name()) } " (" (role_name(caller.role())) ")" }
                        @if self.0.session.is_some() {
                            form method="post" action="/sign-out" {
                                (self.word())
                                button.quiet type="submit" { "Sign out" }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn bound(inner: &Inner) -> &str {
    match (&inner.session, &inner.caller) {
        (Some(session), _) => &session.text,
        (None, Some(_)) => "local",
        (None, None) => "nobody",
    }
}

/// A page with the headers that all have.
pub(super) fn page_response(page: Markup) -> Response {
    let body = page.into_string();
    let mut response = ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// To another page, to be got.
pub(super) fn see_other(to: &str) -> Response {
    let to = HeaderValue::try_from(to).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}
