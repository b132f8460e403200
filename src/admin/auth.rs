//! Who asks, and whether they may: bearer tokens by their SHA-256, and a role for every route.
//!
//! Tokens come from the settings of the moment, so a reload that removes one shuts its holder out with the next request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq as _;

use super::context::{Cx, Shared};
use super::problem::Problem;
use crate::config::{AdminSettings, Role, Token};
use crate::model::Author;

/// Author of changes where no token is needed.
const LOCAL: &str = "local";
/// The longest header that is looked at; a token is some dozen characters long.
const MAX_TOKEN: usize = 4_096;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    name: String,
    role: Role,
    /// Of the token; none where no token is needed.
    sha256: Option<[u8; 32]>,
}

impl Caller {
    /// Whoever holds this token.
    pub(super) fn of(token: &Token) -> Self {
        Self { name: token.name.clone(), role: token.role, sha256: Some(token.sha256) }
    }

    /// Name of the token; `local` where no token is needed.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the token may do.
    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// The author of what the caller changes.
    pub(super) fn author(&self) -> Author {
        Author::Person { name: self.name.clone() }
    }

    /// Refuses callers whose role is lower; for what takes more than its route does.
    pub(super) fn may(&self, needed: Role) -> Result<(), Problem> {
        allow(self.clone(), needed).map(drop)
    }

    /// Whether the settings still let the caller in; for answers that take hours.
    pub(super) fn still_welcome(&self, settings: &AdminSettings) -> bool {
        match self.sha256 {
            Some(sha256) => settings.tokens.iter().any(|t| t.sha256 == sha256),
            None => settings.tokens.is_empty(),
        }
    }
}

/// Lets through who may use a route of this role, with the [`Caller`] in the request's extensions.
pub(super) async fn require(State((cx, role)): State<(Cx, Role)>, mut request: Request, next: Next) -> Response {
    match identify(&cx, request.headers(), peer(request.extensions())).and_then(|caller| allow(caller, role)) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The address of the other side.
pub(super) fn peer(extensions: &Extensions) -> IpAddr {
    let connection = extensions.get::<ConnectInfo<SocketAddr>>();
    connection.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |info| info.0.ip())
}

fn identify(cx: &Shared, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, Problem> {
    let view = cx.control.view();
    let tokens = &view.settings.admin.tokens;
    if tokens.is_empty() {
        return local(cx);
    }
    must_not_wait(cx, peer)?;
    let Some(given) = bearer(headers)? else {
        let detail = "a token is needed: send it as \"Authorization: Bearer TOKEN\"";
        return Err(unauthorized(detail, "Bearer realm=\"switchback\""));
    };
    known_token(cx, tokens, given, peer)
        .map(Caller::of)
        .ok_or_else(|| unauthorized("the token is not known", "Bearer realm=\"switchback\", error=\"invalid_token\""))
}

/// Refuses an address that has sent too many wrong tokens. Asked before a token is looked at.
pub(super) fn must_not_wait(cx: &Shared, peer: IpAddr) -> Result<(), Problem> {
    if !cx.throttle.must_wait(peer, cx.now()) {
        return Ok(());
    }
    let detail = "too many wrong tokens from this address; wait a second";
    Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", detail).retry_after(1))
}

/// The token that was given; one that is not known counts against the address.
pub(super) fn known_token<'t>(cx: &Shared, tokens: &'t [Token], given: &[u8], peer: IpAddr) -> Option<&'t Token> {
    let given = digest(&SHA256, given);
    // Every token is compared in full and none is left out, so that the time tells nothing about a guess.
    let matched = tokens.iter().fold(None, |found, token| {
        if bool::from(token.sha256.as_slice().ct_eq(given.as_ref())) { Some(token) } else { found }
    });
    if matched.is_none() {
        cx.throttle.wrong(peer, cx.now());
    }
    matched
}

/// Without tokens everyone is let in, but only where strangers cannot come: a reload may have removed the tokens of a
/// listener that is open to other machines.
pub(super) fn local(cx: &Shared) -> Result<Caller, Problem> {
    if cx.listen.ip().to_canonical().is_loopback() {
        return Ok(Caller { name: LOCAL.to_owned(), role: Role::Admin, sha256: None });
    }
    let detail = format!("no tokens are configured, and {} is open to other machines; add admin.tokens", cx.listen);
    Err(unauthorized(detail, "Bearer realm=\"switchback\""))
}

fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let unreadable = || unauthorized("allowed is one \"Authorization: Bearer TOKEN\"", "Bearer realm=\"switchback\"");
    if values.next().is_some() || value.len() > MAX_TOKEN {
        return Err(unreadable());
    }
    let (scheme, token) = value.as_bytes().split_first_chunk::<7>().ok_or_else(unreadable)?;
    let token = token.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"bearer ") || token.is_empty() {
        return Err(unreadable());
    }
    Ok(Some(token))
}

fn allow(caller: Caller, needed: Role) -> Result<Caller, Problem> {
    if caller.role >= needed {
        return Ok(caller);
    }
    let (has, needs) = (role_name(caller.role), role_name(needed));
    let detail = format!("this needs the role {needs}; token {:?} has the role {has}", caller.name);
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
}

fn unauthorized(detail: impl Into<String>, challenge: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).challenge(challenge)
}

/// The role as the configuration file spells it.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}
