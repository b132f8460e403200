//! `top`: services, versions and evidence on one screen that follows what happens.
//!
//! Three threads bring news over one channel: one asks the API once a second, one follows the event stream, one
//! reads the keyboard. The [`Model`] takes them in, purely; drawing it is pure as well, so both are tested without a
//! terminal. The server may go away and come back: the picture stays, and says so.

mod detail;
mod draw;
mod feed;
mod model;
mod parts;
mod screen;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::args::Format;
use super::client::Client;
use super::error::CliError;
use super::output::Output;
use super::signals::{Told, listen};
use super::verb_args::TopArgs;
use feed::Interest;
use model::{Model, Next};
use screen::Screen;

/// Pictures are drawn no more often than this, however much happens.
const BETWEEN: Duration = Duration::from_millis(50);

/// What can happen while the screen is shown.
#[derive(Debug)]
enum News {
    /// The status, and the statistics of the services that are looked at.
    Looked(Box<feed::Look>),
    /// Something happened.
    Event(Value),
    /// The server did not answer this time.
    Away(String),
    /// The server refuses.
    Refused(CliError),
    /// A key, or another size.
    Terminal(ratatui::crossterm::event::Event),
    /// A signal.
    Told(Told),
}

/// Shows the screen until somebody leaves it.
///
/// # Errors
/// Without a terminal; what the API refuses; that the terminal is gone.
pub(super) fn top(client: &Client, output: Output, args: &TopArgs) -> Result<(), CliError> {
    if !output.is_terminal() || output.format() != Format::Table {
        let why = "top draws on a terminal; for programs there is: switchback status -w -o json";
        return Err(CliError::Usage(why.to_owned()));
    }
    let client = client.silent();
    let (first, events) = feed::first(&client, args.service.as_deref())?;
    let mut model = Model::new(first, events, args.service.clone());
    let interest = Arc::new(Interest::default());
    interest.set(model.interest());
    let (sender, news) = channel();
    listen(&[Told::End], sender.clone(), News::Told)?;
    let mut screen = Screen::enter(output.look().colour)?;
    feed::start(&client, args, model.last_event(), &interest, &sender)?;
    loop {
        screen.draw(&model)?;
        let until = Instant::now() + BETWEEN;
        let mut next = news.recv().map_err(|_| CliError::Ended)?;
        // Whatever comes at once is drawn at once.
        loop {
            match model.take_in(next) {
                Next::Quit => return Ok(()),
                Next::Stop => screen.stop()?,
                Next::Fail(error) => return Err(error),
                Next::GoOn => {}
            }
            match news.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(more) => next = more,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(CliError::Ended),
            }
        }
        interest.set(model.interest());
    }
}
