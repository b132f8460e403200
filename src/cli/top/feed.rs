//! Where the news come from: the API once a second, its event stream, and the keyboard.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event;
use serde_json::Value;

use super::News;
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::{CliError, with_causes};
use crate::cli::stream::follow;
use crate::cli::text::Fields;
use crate::cli::verb_args::TopArgs;

/// How far statistics look back.
const WINDOW: &str = "1m";
/// How far the comparison with the worst tenants looks back.
const SINCE: &str = "10m";
/// A server that takes longer counts as away for the moment.
const PATIENCE: Duration = Duration::from_secs(5);
/// Past events that the screen begins with.
const PAST: u32 = 100;

/// What was seen at one look.
#[derive(Debug, Default, Clone)]
pub(super) struct Look {
    /// `/v1/status`.
    pub(super) status: Value,
    /// `/v1/services/{service}/stats`, by service, of those that are looked at.
    pub(super) stats: BTreeMap<String, Value>,
    /// `/v1/services/{service}/compare` of the service whose detail is shown.
    pub(super) compare: Value,
}

/// What the screen shows, so that nothing else is asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// Services whose statistics are shown.
    pub(super) services: Vec<String>,
    /// The service, baseline and canary whose comparison is shown.
    pub(super) compared: Option<[String; 3]>,
    /// Nothing is to be asked for now.
    pub(super) paused: bool,
}

/// What the screen shows, told to who asks.
#[derive(Debug, Default)]
pub(super) struct Interest(Mutex<Shown>);

impl Interest {
    /// From now on, this.
    pub(super) fn set(&self, shown: Shown) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    fn get(&self) -> Shown {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The first look and the past events; whoever refuses here ends it before there is a screen.
pub(super) fn first(client: &Client, service: Option<&str>) -> Result<(Look, Vec<Value>), CliError> {
    let look = look(client, &Shown::default())?;
    if let Some(service) = service {
        // So that a wrong name is told, and what was probably meant.
        client.get(&Resource::new(&["services", service]))?;
    }
    let past =
        Resource::new(&["events"]).with("service", service).with("limit", Some(PAST)).with("order", Some("desc"));
    let mut events = client.get(&past)?.list("events").to_vec();
    events.sort_by_key(|event| event.count("id"));
    Ok((look, events))
}

/// Begins to bring news. The threads end when nobody takes them any more.
pub(super) fn start(
    client: &Client,
    args: &TopArgs,
    last_event: u64,
    interest: &Arc<Interest>,
    to: &Sender<News>,
) -> Result<(), CliError> {
    let begin = |work: Box<dyn FnOnce() + Send>| thread::Builder::new().spawn(work).map(drop).map_err(CliError::Watch);
    let (every, interest, asked, answers) = (args.interval, interest.clone(), client.within(PATIENCE), to.clone());
    begin(Box::new(move || ask(&asked, every, &interest, &answers)))?;
    let (client, told) = (client.clone(), to.clone());
    let resource = Resource::new(&["events"]).with("service", args.service.as_ref());
    begin(Box::new(move || {
        let show = |event: &Value| told.send(News::Event(event.clone())).map_err(|_| CliError::Ended);
        // That the server is away, who asks for the status says; what it refuses, too.
        let _ended = follow(&client, &resource, last_event, show, |_| {});
    }))?;
    let keys = to.clone();
    begin(Box::new(move || {
        while let Ok(event) = event::read() {
            if keys.send(News::Terminal(event)).is_err() {
                return;
            }
        }
    }))
}

fn ask(client: &Client, every: Duration, interest: &Interest, to: &Sender<News>) {
    loop {
        let shown = interest.get();
        if !shown.paused {
            let news = match look(client, &shown) {
                Ok(look) => News::Looked(Box::new(look)),
                Err(e) if e.may_pass() => News::Away(with_causes(&e).lines().next().unwrap_or_default().to_owned()),
                Err(e) => News::Refused(e),
            };
            if to.send(news).is_err() {
                return;
            }
        }
        thread::sleep(every);
    }
}

fn look(client: &Client, shown: &Shown) -> Result<Look, CliError> {
    let mut look = Look { status: client.get(&Resource::new(&["status"]))?, ..Look::default() };
    for service in &shown.services {
        let resource = Resource::new(&["services", service, "stats"]).with("window", Some(WINDOW));
        if let Some(stats) = unless_gone(client.get(&resource))? {
            look.stats.insert(service.clone(), stats);
        }
    }
    if let Some([service, baseline, canary]) = &shown.compared {
        let resource = Resource::new(&["services", service, "compare"]).with("since", Some(SINCE));
        let resource = resource.with("a", Some(baseline)).with("b", Some(canary));
        look.compare = unless_gone(client.get(&resource))?.unwrap_or_default();
    }
    Ok(look)
}

/// A service or version may go between two looks, which is no reason to end.
fn unless_gone(answer: Result<Value, CliError>) -> Result<Option<Value>, CliError> {
    match answer {
        Err(CliError::Refused(problem)) if matches!(problem.status, 400 | 404 | 422) => Ok(None),
        answer => answer.map(Some),
    }
}
