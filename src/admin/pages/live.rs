//! What the script follows: the fragments of a page that changed, once a second, while the session lasts.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt as _};
use maud::Markup;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};
use xxhash_rust::xxh3::xxh3_64;

use super::super::auth::Caller;
use super::super::context::{Cx, Found, MAX_STREAMS};
use super::super::freeze::now_ms;
use super::super::parameters::Parameters;
use super::super::problem::{Problem, echo};
use super::super::serve::Ending;
use super::super::status::store_is_up;
use super::layout::Visitor;
use super::{overview, past, proxies, rollout, rollouts, service};
use crate::config::Role;
use crate::model::{Event, ServiceName};

/// How often a page is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// After how many looks the store and what is long to count is asked again although nothing was told.
const ASK_EVERY: u32 = 5;
/// How long the history may take.
const STORE_TIME: Duration = Duration::from_secs(2);
/// How long a reader waits for what was asked before it is shown what is known without.
const HELD_UP: Duration = Duration::from_millis(250);
/// Events that a page chooses from.
const EVENTS: usize = 200;
/// How often a comment is sent, so that nobody between us takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A page that follows what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Watched {
    /// The overview.
    Overview,
    /// A service.
    Service(ServiceName),
    /// The list of rollouts.
    Rollouts(rollouts::Wanted),
    /// A rollout.
    Rollout(rollout::Wanted),
    /// The proxies.
    Proxies,
}

/// A part of a page that is put in place when it changes: one element with this id.
pub(super) struct Fragment {
    /// Its element's id.
    pub id: &'static str,
    /// The whole element.
    pub markup: Markup,
}

/// What takes the store or a while to know.
#[derive(Default)]
pub(super) struct Seen {
    /// Whether the store takes changes.
    pub up: bool,
    /// The newest events, the newest first; none: the history cannot be read.
    pub events: Option<Vec<Event>>,
    /// The tenants that suffer most, of a service.
    pub worst: Vec<service::Worst>,
    /// Units and log of a rollout.
    pub rollout: rollout::Looked,
}

impl Watched {
    /// What the page's script asks for.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Overview => "overview".to_owned(),
            Self::Service(name) => format!("service {name}"),
            Self::Rollouts(wanted) => format!("rollouts {}", wanted.query()),
            Self::Rollout(wanted) => format!("rollout {} {}", wanted.id, wanted.query()),
            Self::Proxies => "proxies".to_owned(),
        }
    }

    /// `operator`: whether the reader may change things.
    fn parse(text: &str, operator: bool) -> Result<Self, Problem> {
        let unknown = || Problem::bad("page", format!("{:?} is no page that can be followed", echo(text)));
        match text.split_once(' ') {
            None if text == "overview" => Ok(Self::Overview),
            None if text == "proxies" => Ok(Self::Proxies),
            Some(("service", name)) => name.parse().map(Self::Service).map_err(|_| unknown()),
            Some(("rollouts", query)) => {
                rollouts::Wanted::read(&Parameters::of(query)?.only(&rollouts::PARAMETERS, &[])?).map(Self::Rollouts)
            }
            Some(("rollout", rest)) => {
                let (id, query) = rest.split_once(' ').ok_or_else(unknown)?;
                let parameters = Parameters::of(query)?.only(&rollout::PARAMETERS, &[])?;
                rollout::Wanted::read(id.parse().map_err(|_| unknown())?, &parameters, operator).map(Self::Rollout)
            }
            _ => Err(unknown()),
        }
    }

    /// Looks at what takes a while.
    pub(super) async fn look(&self, cx: &Cx) -> Seen {
        let events = async {
            match self {
                Self::Overview | Self::Service(_) => in_time(cx.control.events(self.query())).await,
                Self::Rollouts(_) | Self::Rollout(_) | Self::Proxies => None,
            }
        };
        let (up, events) = tokio::join!(store_is_up(cx), events);
        let mut seen = Seen { up, events, ..Seen::default() };
        match self {
            Self::Service(name) => seen.worst = service::worst(cx, name).await,
            Self::Rollout(wanted) => seen.rollout = wanted.look(cx).await,
            Self::Overview | Self::Rollouts(_) | Self::Proxies => {}
        }
        seen
    }

    fn query(&self) -> crate::model::EventQuery {
        let service = match self {
            Self::Service(name) => Some(name.clone()),
            _ => None,
        };
        crate::model::EventQuery { service, ..past::newest(EVENTS) }
    }

    /// Every fragment of the page, in its order.
    ///
    /// # Errors
    /// [`Problem`] when what is watched is gone.
    pub(super) fn fragments(&self, cx: &Cx, seen: &Seen) -> Result<Vec<Fragment>, Problem> {
        match self {
            Self::Overview => Ok(overview::fragments(cx, seen)),
            Self::Service(name) => Ok(service::fragments(cx, &Found::service(cx, name)?, seen)),
            Self::Rollouts(wanted) => Ok(rollouts::fragments(cx, wanted)),
            Self::Rollout(wanted) => rollout::fragments(cx, wanted, seen),
            Self::Proxies => Ok(proxies::fragments(cx, seen)),
        }
    }
}

/// What the store answers; none when it cannot, or does not in time.
pub(super) async fn in_time<T, E>(asked: impl Future<Output = Result<T, E>>) -> Option<T> {
    tokio::time::timeout(STORE_TIME, asked).await.ok()?.ok()
}

/// One reader.
struct Reader {
    cx: Cx,
    caller: Caller,
    expires_s: Option<u64>,
    ending: Option<Ending>,
    watched: Watched,
    told: broadcast::Receiver<Arc<Event>>,
    beat: Interval,
    looks: u32,
    seen: Seen,
    /// What is being asked: a store that hangs must not hold up what the guard does.
    asked: Option<JoinHandle<Seen>>,
    /// What the reader has, by fragment.
    sent: HashMap<&'static str, u64>,
    waiting: VecDeque<Message>,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

/// The stream of a page.
pub(super) async fn follow(
    State(cx): State<Cx>,
    visitor: Visitor,
    caller: Extension<Caller>,
    ending: Option<Extension<Ending>>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let parameters = parameters.only(&["page"], &[])?;
    let watched = Watched::parse(parameters.text("page").unwrap_or_default(), visitor.can(Role::Operator))?;
    let permit = cx.streams.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("{MAX_STREAMS} event streams are open, and no more are allowed");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail).retry_after(5)
    })?;
    // Subscribed before anything is looked at, so that nothing can happen in between.
    let told = cx.control.subscribe();
    let seen = watched.look(&cx).await;
    watched.fragments(&cx, &seen)?;
    let mut beat = tokio::time::interval(EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reader = Reader {
        expires_s: visitor.expires_s(),
        caller: caller.0,
        ending: ending.map(|e| e.0),
        sent: HashMap::new(),
        waiting: VecDeque::new(),
        looks: 0,
        asked: None,
        over: false,
        _permit: permit,
        cx,
        watched,
        told,
        beat,
        seen,
    };
    Ok(Sse::new(messages(reader)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn messages(reader: Reader) -> impl Stream<Item = Result<Message, Infallible>> {
    let messages = futures::stream::unfold(reader, |mut reader| async move {
        let message = reader.next().await?;
        Some((Ok(message), reader))
    });
    messages.fuse()
}

impl Reader {
    /// The next message; none ends the stream.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Some(message);
            }
            if self.over {
                return None;
            }
            let news = self.wait().await?;
            if let Some(why) = self.end() {
                self.over = true;
                return Some(Message::default().event("end").data(why));
            }
            self.looks += 1;
            self.ask(news || self.looks.is_multiple_of(ASK_EVERY)).await;
            self.queue();
        }
    }

    /// Until it is time to look again; whether something was told meanwhile. None: the process is on its way out.
    async fn wait(&mut self) -> Option<bool> {
        let Self { beat, ending, .. } = self;
        match ending {
            None => drop(beat.tick().await),
            Some(ending) => tokio::select! {
                _ = beat.tick() => {}
                () = ending.wait() => return None,
            },
        }
        let mut news = false;
        loop {
            match self.told.try_recv() {
                Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) => news = true,
                Err(broadcast::error::TryRecvError::Empty) => return Some(news),
                Err(broadcast::error::TryRecvError::Closed) => return None,
            }
        }
    }

    /// Takes in what was asked, and asks again if it is time.
    async fn ask(&mut self, again: bool) {
        if again && self.asked.is_none() {
            let (cx, watched) = (self.cx.clone(), self.watched.clone());
            self.asked = Some(tokio::spawn(async move { watched.look(&cx).await }));
        }
        let Some(asked) = &mut self.asked else { return };
        if let Ok(answer) = tokio::time::timeout(HELD_UP, asked).await {
            self.asked = None;
            // One that died leaves what is known.
            self.seen = answer.unwrap_or_else(|_| std::mem::take(&mut self.seen));
        }
    }

    /// Why the reader may not see more.
    fn end(&self) -> Option<&'static str> {
        let welcome = self.caller.still_welcome(&self.cx.control.view().settings.admin);
        let expired = self.expires_s.is_some_and(|at| at <= now_ms() / 1_000);
        (!welcome || expired).then_some("Your session has ended: load the page again to sign in.")
    }

    /// Queues what changed.
    fn queue(&mut self) {
        let Ok(fragments) = self.watched.fragments(&self.cx, &self.seen) else {
            self.over = true;
            let why = "What this page shows is gone.";
            return self.waiting.push_back(Message::default().event("end").data(why));
        };
        for Fragment { id, markup } in fragments {
            let html = markup.into_string();
            let hash = xxh3_64(html.as_bytes());
            if self.sent.insert(id, hash) != Some(hash) {
                let data = json!({ "id": id, "html": html }).to_string();
                self.waiting.push_back(Message::default().event("fragment").data(data));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_is_told_and_read_alike() {
        let service = Watched::Service(ServiceName::new("shop+1").unwrap());
        let of = |text: &str| Watched::parse(text, true).unwrap();
        let rollout = of("rollout r17 search=%3Ca%3E+%26&status=rolled_back&batch=3&after=50&before=9");
        let rollouts = of("rollouts service=shop%2B1&phase=going_back&page=2");
        for watched in [Watched::Overview, Watched::Proxies, service, rollout, rollouts] {
            assert_eq!(of(&watched.text()), watched);
        }
        let odd = ["rollout r17", "rollout r/1 ", "rollouts page=x", "rollout r1 status=odd", "rollouts x=1"];
        for bad in ["", "service", "service a b", "tenant x", "overview x"].into_iter().chain(odd) {
            assert!(Watched::parse(bad, true).is_err(), "{bad}");
        }
    }
}
