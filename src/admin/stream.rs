//! Events as they happen, without gap or repetition.
//!
//! The listener subscribes first and reads the history after that, so nothing can fall between the two. From then on an
//! event that is told is passed on when it follows the one before it; otherwise it is only a hint that there is more in
//! the history: after a lag, and for the few events that another process or a reload wrote without telling.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt as _};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::answers::EventAnswer;
use super::auth::Caller;
use super::context::{Cx, MAX_STREAMS};
use super::problem::Problem;
use super::serve::Ending;
use crate::model::{Event, EventQuery};
use crate::store::StoreError;

/// How often a comment is sent, so that nobody between us takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that are read from the history at a time.
const CHUNK: usize = 200;

/// One listener.
struct Listener {
    cx: Cx,
    caller: Caller,
    ending: Option<Ending>,
    /// What is wanted; where to resume is kept below.
    query: EventQuery,
    receiver: broadcast::Receiver<Arc<Event>>,
    /// Read and not sent yet.
    waiting: VecDeque<Event>,
    /// Told, and to be sent unless the history brings it first.
    told: Option<Event>,
    /// The last event that was sent, or that the client had already; none: it wants only what comes.
    sent: Option<u64>,
    /// The last event that was told, while none was missed.
    heard: Option<u64>,
    /// Whether the history may hold more than what was sent.
    behind: bool,
    _permit: OwnedSemaphorePermit,
}

/// Begins a stream. `after`: the last event that the client has; without it, only what happens from now on.
pub(super) async fn open(
    cx: Cx,
    caller: Caller,
    ending: Option<Ending>,
    query: EventQuery,
    after: Option<u64>,
) -> Result<Response, Problem> {
    let permit = cx.streams.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("{MAX_STREAMS} event streams are open, and no more are allowed");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail).retry_after(5)
    })?;
    let receiver = cx.control.subscribe();
    let newest = newest(&cx).await;
    // Ids beyond the newest are of a store that was replaced since; waiting for them could take years.
    let sent = match (after, newest) {
        (Some(after), Ok(newest)) => Some(after.min(newest)),
        (Some(_), Err(error)) => return Err(error.into()),
        // Without the store there is no history, but what happens now can be told all the same.
        (None, newest) => newest.ok(),
    };
    let (waiting, behind) = (VecDeque::new(), after.is_some());
    let listener = Listener {
        cx,
        caller,
        ending,
        query,
        receiver,
        waiting,
        told: None,
        sent,
        heard: None,
        behind,
        _permit: permit,
    };
    let messages = messages(listener);
    Ok(Sse::new(messages).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

async fn newest(cx: &Cx) -> Result<u64, StoreError> {
    let query = EventQuery { limit: 1, newest_first: true, ..EventQuery::default() };
    Ok(cx.control.events(query).await?.first().map_or(0, |event| event.id))
}

fn messages(listener: Listener) -> impl Stream<Item = Result<Message, Infallible>> {
    let events = futures::stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        let message = Message::default().id(event.id.to_string()).event(event.kind.as_str());
        // An event is made of text and numbers; should one not become JSON, the stream ends and the client asks again.
        let message = message.json_data(EventAnswer::new(&event)).ok()?;
        Some((Ok(message), listener))
    });
    // Whoever asks once more after the end must not bring the connection's task down.
    events.fuse()
}

impl Listener {
    /// The next event; none ends the stream, and the client comes back with the last id it has.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.sent = Some(event.id);
                return Some(event);
            }
            if self.behind {
                self.read_history().await.ok()?;
                continue;
            }
            if let Some(event) = self.told.take().filter(|event| Some(event.id) > self.sent) {
                self.waiting.push_back(event);
                continue;
            }
            let told = match &mut self.ending {
                None => self.receiver.recv().await,
                Some(ending) => tokio::select! {
                    told = self.receiver.recv() => told,
                    () = ending.wait() => return None,
                },
            };
            match told {
                Ok(event) => self.take(&event)?,
                Err(RecvError::Lagged(_)) => self.heard = None,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Takes in an event that was told. None ends the stream.
    fn take(&mut self, event: &Arc<Event>) -> Option<()> {
        // The token may have been removed since; a reload that removes one is itself an event.
        if !self.caller.still_welcome(&self.cx.control.view().settings.admin) {
            return None;
        }
        let follows = self.sent.is_none() || self.heard.is_some_and(|heard| heard + 1 == event.id);
        self.behind = !follows;
        self.heard = Some(event.id);
        self.sent.get_or_insert(event.id.saturating_sub(1));
        // Kept even when the history is read first: while the store is away, the guard's events are told before they
        // are written.
        self.told = Some((**event).clone()).filter(|e| EventQuery { after: 0, ..self.query.clone() }.wants(e));
        Some(())
    }

    /// Reads on where the last event was.
    async fn read_history(&mut self) -> Result<(), StoreError> {
        let query =
            EventQuery { after: self.sent.unwrap_or(0), limit: CHUNK, newest_first: false, ..self.query.clone() };
        let events = self.cx.control.events(query).await?;
        self.behind = events.len() == CHUNK;
        self.waiting.extend(events);
        Ok(())
    }
}
