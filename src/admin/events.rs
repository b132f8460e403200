//! The history: read in pages, or followed as it happens.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::answers::EventAnswer;
use super::auth::Caller;
use super::context::Cx;
use super::parameters::{Parameters, read_name};
use super::problem::{Problem, did_you_mean, echo};
use super::serve::Ending;
use super::stream;
use crate::model::{EventKind, EventQuery};
use crate::store::MAX_EVENTS;

/// Events of a page unless the request says otherwise.
const PAGE: u64 = 100;

/// A page of the history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventPage)]
pub(super) struct EventPage {
    events: Vec<EventAnswer>,
    /// Pass it as `after` for the next page, or as `before` when the newest came first; none after the last one.
    #[schema(required)]
    next: Option<u64>,
}

/// The history, in pages or as it happens
///
/// With `Accept: text/event-stream` the answer goes on as long as the client stays: first what came after
/// `Last-Event-ID` (or `after`), then what happens from now on, without gap or repetition. `id` is the event's id,
/// `event` its kind, `data` the event.
#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    params(
        ("after" = Option<u64>, Query, description = "Only events with a larger id"),
        ("before" = Option<u64>, Query, description = "Only events with a smaller id: how to page from the newest on"),
        ("service" = Option<String>, Query, description = "Only events of this service"),
        ("tenant" = Option<String>, Query, description = "Only events of this tenant"),
        ("kind" = Option<String>, Query, description = "Only events of this kind"),
        ("limit" = Option<u64>, Query, description = "At most this many, 1 to 1000; 100 unless given"),
        ("order" = Option<String>, Query, description = "`asc` (oldest first) or `desc`"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Where a stream resumes; comes before `after`"),
    ),
    responses((status = 200, description = "Events", body = EventPage)),
)]
pub(super) async fn list_events(
    State(cx): State<Cx>,
    caller: Extension<Caller>,
    ending: Option<Extension<Ending>>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let parameters = parameters.only(&["after", "before", "service", "tenant", "kind", "limit", "order"], &[])?;
    let query = query(&parameters)?;
    if wants_stream(&headers) {
        if query.before.is_some() {
            return Err(Problem::bad("before", "does not go with a stream, which has no end"));
        }
        let after =
            match headers.get("last-event-id").and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty()) {
                Some(text) => Some(text.parse().map_err(|_| {
                    Problem::bad("last-event-id", format!("{:?} is not the id of an event", echo(text)))
                })?),
                None => parameters.number("after", 0..=u64::MAX)?,
            };
        return stream::open(cx, caller.0, ending.map(|e| e.0), query, after).await;
    }
    let limit = query.limit;
    let events: Vec<_> = cx.control.events(query).await?.iter().map(EventAnswer::new).collect();
    let more = events.len() == limit;
    let next = events.last().map(|e| e.id).filter(|_| more);
    Ok(Json(EventPage { events, next }).into_response())
}

fn query(parameters: &Parameters) -> Result<EventQuery, Problem> {
    let kind = parameters.text("kind").map(|text| {
        EventKind::parse(text).ok_or_else(|| {
            let known = || EventKind::ALL.into_iter().map(EventKind::as_str);
            let (list, guess) = (known().collect::<Vec<_>>().join(", "), did_you_mean(text, known()));
            Problem::bad("kind", format!("{:?} is no kind of event; there are: {list}{guess}", echo(text)))
        })
    });
    Ok(EventQuery {
        after: parameters.number("after", 0..=u64::MAX)?.unwrap_or(0),
        before: parameters.number("before", 1..=u64::MAX)?,
        service: parameters.text("service").map(|t| read_name("service", t)).transpose()?,
        tenant: parameters.text("tenant").map(|t| read_name("tenant", t)).transpose()?,
        kind: kind.transpose()?,
        limit: parameters.number("limit", 1..=MAX_EVENTS as u64)?.unwrap_or(PAGE) as usize,
        newest_first: match parameters.text("order") {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(other) => return Err(Problem::bad("order", format!("{:?} is neither asc nor desc", echo(other)))),
        },
    })
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    accepted
        .flat_map(|v| v.split(','))
        .any(|t| t.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("text/event-stream")))
}
