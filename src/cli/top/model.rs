//! What the screen shows, and what news and keys make of it. Pure.

use std::collections::VecDeque;

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;

use super::News;
use super::feed::{Look, Shown};
use crate::cli::error::CliError;
use crate::cli::signals::Told;
use crate::cli::text::Fields;

/// Events that are kept.
const KEPT: usize = 500;
/// Services whose statistics are asked for at one look; more do not fit a screen.
const ASKED: usize = 40;

/// Which part fills the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// All services, and the chosen one in short.
    Overview,
    /// The chosen service.
    Detail,
    /// What happened.
    Events,
}

/// What comes of a piece of news.
#[derive(Debug)]
pub(super) enum Next {
    /// The picture is drawn again.
    GoOn,
    /// Somebody has seen enough.
    Quit,
    /// Somebody wants their shell for a while.
    Stop,
    /// There is nothing to show any more.
    Fail(CliError),
}

/// What the screen shows.
#[derive(Debug)]
pub(super) struct Model {
    /// The last look.
    pub(super) look: Look,
    /// The oldest first.
    pub(super) events: VecDeque<Value>,
    /// Why there are no newer ones.
    pub(super) away: Option<String>,
    /// Whether the picture stands still.
    pub(super) paused: bool,
    /// Which part is shown.
    pub(super) view: View,
    /// Whether the keys are explained.
    pub(super) help: bool,
    /// How far back in the events, in lines from the newest.
    pub(super) back: usize,
    /// The chosen service; none before there is one.
    chosen: Option<String>,
    /// The only service that is shown.
    only: Option<String>,
    /// What happened while the picture stood still.
    held: Vec<Value>,
}

impl Model {
    /// After the first look.
    pub(super) fn new(look: Look, events: Vec<Value>, only: Option<String>) -> Self {
        let view = if only.is_some() { View::Detail } else { View::Overview };
        let mut model = Self {
            look,
            events: events.into(),
            away: None,
            paused: false,
            view,
            help: false,
            back: 0,
            chosen: only.clone(),
            only,
            held: Vec::new(),
        };
        model.choose(0);
        model
    }

    /// The services that are shown.
    pub(super) fn services(&self) -> impl Iterator<Item = &Value> {
        let only = self.only.as_deref();
        self.look.status.list("services").iter().filter(move |s| only.is_none_or(|only| s.at("name") == only))
    }

    /// Where in the list the chosen one is.
    pub(super) fn chosen_at(&self) -> usize {
        let chosen = self.chosen.as_deref();
        self.services().position(|s| s.at("name").as_str() == chosen).unwrap_or(0)
    }

    /// The chosen service.
    pub(super) fn chosen(&self) -> Option<&Value> {
        self.services().nth(self.chosen_at())
    }

    /// The statistics of a service, or null.
    pub(super) fn stats(&self, service: &Value) -> &Value {
        service.at("name").as_str().and_then(|name| self.look.stats.get(name)).unwrap_or(&Value::Null)
    }

    /// The id of the newest event.
    pub(super) fn last_event(&self) -> u64 {
        self.events.iter().filter_map(|event| event.count("id")).max().unwrap_or(0)
    }

    /// What is to be asked for.
    pub(super) fn interest(&self) -> Shown {
        let name = |service: &Value| service.at("name").as_str().map(str::to_owned);
        let around = self.chosen_at().saturating_sub(ASKED / 2);
        let services = match self.view {
            View::Overview => self.services().skip(around).take(ASKED).filter_map(name).collect(),
            View::Detail => self.chosen().and_then(name).into_iter().collect(),
            View::Events => Vec::new(),
        };
        Shown { services, compared: self.compared(), paused: self.paused }
    }

    /// The chosen service, its baseline, and the canary that is compared with it first.
    fn compared(&self) -> Option<[String; 3]> {
        let service = self.chosen().filter(|_| self.view == View::Detail)?;
        let text = |value: &Value, key: &str| value.at(key).as_str().map(str::to_owned);
        let stats = self.stats(service);
        if let Some(first) = stats.list("comparisons").first() {
            return Some([text(service, "name")?, text(first, "baseline")?, text(first, "canary")?]);
        }
        let canary = stats.list("versions").iter().find(|version| version.at("role") == "canary")?;
        Some([text(service, "name")?, text(service, "baseline")?, text(canary, "version")?])
    }

    /// Takes in what happened.
    pub(super) fn take_in(&mut self, news: News) -> Next {
        match news {
            News::Looked(look) => {
                self.away = None;
                if !self.paused {
                    // What was not asked for this time is not gone.
                    let before = std::mem::replace(&mut self.look, *look);
                    for (service, stats) in before.stats {
                        self.look.stats.entry(service).or_insert(stats);
                    }
                    self.choose(0);
                }
            }
            News::Away(why) => self.away = Some(why),
            News::Event(event) if self.paused => self.held.push(event),
            News::Event(event) => self.happened(event),
            News::Refused(error) => return Next::Fail(error),
            News::Terminal(Event::Key(key)) if key.kind != KeyEventKind::Release => return self.key(key),
            News::Terminal(_) => {}
            News::Told(Told::Stop) => return Next::Stop,
            News::Told(_) => return Next::Quit,
        }
        Next::GoOn
    }

    fn happened(&mut self, event: Value) {
        if self.back > 0 {
            self.back += 1;
        }
        self.events.push_back(event);
        while self.events.len() > KEPT {
            self.events.pop_front();
        }
    }

    fn key(&mut self, key: KeyEvent) -> Next {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Next::Quit,
            KeyCode::Char('z') if control => return Next::Stop,
            KeyCode::Char('q') => return Next::Quit,
            _ if self.help => self.help = false,
            KeyCode::Char('?') | KeyCode::Char('h') => self.help = true,
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::PageDown => self.go(10),
            KeyCode::PageUp => self.go(-10),
            KeyCode::Enter => self.view = View::Detail,
            KeyCode::Char('e') => self.view = if self.view == View::Events { View::Overview } else { View::Events },
            KeyCode::Esc | KeyCode::Backspace => self.view = View::Overview,
            KeyCode::Char('p') | KeyCode::Char(' ') => self.pause(),
            _ => {}
        }
        Next::GoOn
    }

    fn go(&mut self, by: isize) {
        match self.view {
            View::Events => {
                let most = self.events.len().saturating_sub(1);
                self.back = self.back.saturating_add_signed(-by).min(most);
            }
            _ => self.choose(by),
        }
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        if !self.paused {
            std::mem::take(&mut self.held).into_iter().for_each(|event| self.happened(event));
        }
    }

    /// Chooses the service so many below the chosen one, and the nearest when that one is gone.
    fn choose(&mut self, by: isize) {
        let last = self.services().count().saturating_sub(1);
        let at = self.chosen_at().saturating_add_signed(by).min(last);
        let chosen = self.services().nth(at).and_then(|s| s.at("name").as_str()).map(str::to_owned);
        self.chosen = chosen;
    }
}
