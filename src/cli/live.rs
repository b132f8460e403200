//! `-w`: a document shown again and again, until it is over or Ctrl-C.
//!
//! On a terminal it is one picture on a screen of its own, rewritten in place. What was on the terminal before comes back
//! at the end, however it ends, with the last picture below. Elsewhere, each document that differs from the one before is
//! written below it, and no control sequence.

use std::io::IsTerminal as _;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use serde_json::Value;

use super::address::Resource;
use super::args::Format;
use super::client::Client;
use super::error::{CliError, with_causes};
use super::fit::fit;
use super::output::{Output, note, write};
use super::signals::{Told, listen};
use super::table::{Ink, Look};

/// A screen of its own, without a cursor and with nothing on it.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
/// The cursor and the screen from before.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// What is watched, and how it is shown.
pub(super) struct Watched {
    /// The document.
    pub(super) resource: Resource,
    /// Between two looks.
    pub(super) every: Duration,
    /// The document as people read it.
    pub(super) people: fn(&Value, Look) -> String,
    /// Whether nothing more will happen to it.
    pub(super) is_over: fn(&Value) -> bool,
    /// Fields that change by themselves and are no news.
    pub(super) no_news: &'static [&'static str],
}

/// What can happen while one watches.
enum News {
    Told(Told),
    Document(Value),
    /// No answer this time.
    Trouble(String),
    Failed(CliError),
}

/// Shows the document until it is over or somebody ends it. Goes on when the server is away for a while: that is when one
/// watches.
///
/// # Errors
/// What the API refuses; that the output is gone; that signals cannot be watched.
pub(super) fn watch(client: &Client, output: Output, first: Value, watched: &Watched) -> Result<(), CliError> {
    let (sender, news) = channel();
    let redraws = output.is_terminal() && output.format() == Format::Table;
    let told: &[Told] = if redraws { &[Told::End, Told::Stop, Told::Resized] } else { &[Told::End] };
    listen(told, sender.clone(), News::Told)?;
    ask(client, watched, sender)?;
    let mut show = match redraws {
        true => Show::Picture(Screen::enter()?),
        false => Show::Lines,
    };
    let mut document = first;
    let mut trouble: Option<String> = None;
    show.first(output, &document, watched)?;
    while !(watched.is_over)(&document) {
        match news.recv().map_err(|_| CliError::Ended)? {
            News::Told(Told::End) => break,
            News::Told(Told::Stop) => show.stopped()?,
            News::Told(Told::Resized) => {}
            News::Document(next) => {
                trouble = None;
                show.next(output, &document, &next, watched)?;
                document = next;
            }
            News::Trouble(text) => {
                show.trouble(&text, trouble.as_deref());
                trouble = Some(text);
            }
            News::Failed(error) => return Err(error),
        }
        show.draw(output, &document, trouble.as_deref(), watched)?;
    }
    drop(show);
    // The screen with the picture is gone; what was seen last stays to be read.
    if redraws { output.measured().show(&document, |look| (watched.people)(&document, look)) } else { Ok(()) }
}

/// Asks for the document, again and again.
fn ask(client: &Client, watched: &Watched, to: Sender<News>) -> Result<(), CliError> {
    let (client, resource, every) = (client.clone(), watched.resource.clone(), watched.every);
    let work = move || {
        loop {
            thread::sleep(every);
            let news = match client.get(&resource) {
                Ok(document) => News::Document(document),
                Err(e) if e.may_pass() => News::Trouble(first_line(&e)),
                Err(e) => News::Failed(e),
            };
            if to.send(news).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().spawn(work).map(drop).map_err(CliError::Watch)
}

fn first_line(error: &CliError) -> String {
    with_causes(error).lines().next().unwrap_or_default().to_owned()
}

/// Where it is shown.
enum Show {
    Picture(Screen),
    Lines,
}

impl Show {
    fn first(&self, output: Output, document: &Value, watched: &Watched) -> Result<(), CliError> {
        match self {
            Self::Picture(_) => self.draw(output, document, None, watched),
            Self::Lines => line(output, document, watched),
        }
    }

    /// The next document: for lines, only if it is news.
    fn next(&self, output: Output, before: &Value, next: &Value, watched: &Watched) -> Result<(), CliError> {
        match self {
            Self::Lines if is_news(before, next, watched.no_news) => line(output, next, watched),
            _ => Ok(()),
        }
    }

    fn trouble(&self, text: &str, before: Option<&str>) {
        // On a terminal, the picture says so.
        if matches!(self, Self::Lines) && before != Some(text) {
            note(text);
        }
    }

    fn draw(&self, output: Output, document: &Value, trouble: Option<&str>, watched: &Watched) -> Result<(), CliError> {
        let Self::Picture(_) = self else { return Ok(()) };
        let output = output.measured();
        let look = output.look();
        let mut text = (watched.people)(document, look);
        if let Some(trouble) = trouble {
            let head = look.paint(Ink::Bad, &format!("what follows is old: {trouble}"));
            text = format!("{head}\n{text}");
        }
        write(&picture(&fit(&text, look.width), output.rows()))
    }

    /// Gives the terminal back until somebody continues the program.
    fn stopped(&mut self) -> Result<(), CliError> {
        if let Self::Picture(screen) = self {
            screen.leave();
            kill_process(getpid(), Signal::STOP).map_err(|e| CliError::Watch(e.into()))?;
            *screen = Screen::enter()?;
        }
        Ok(())
    }
}

fn line(output: Output, document: &Value, watched: &Watched) -> Result<(), CliError> {
    output.show_one(document, |look| format!("{}\n", (watched.people)(document, look)))
}

/// Whether two documents differ in more than what changes by itself.
fn is_news(before: &Value, next: &Value, no_news: &[&str]) -> bool {
    let (Some(a), Some(b)) = (before.as_object(), next.as_object()) else { return before != next };
    let told = |name: &String| !no_news.contains(&name.as_str());
    a.keys().filter(|name| told(name)).any(|name| a.get(name) != b.get(name))
        || b.keys().any(|name| told(name) && !a.contains_key(name))
}

/// The terminal while there is a picture on it.
struct Screen {
    entered: bool,
}

impl Screen {
    fn enter() -> Result<Self, CliError> {
        write(ENTER)?;
        Ok(Self { entered: true })
    }

    fn leave(&mut self) {
        if std::mem::take(&mut self.entered) && std::io::stdout().is_terminal() {
            // Fails only when the terminal is gone; then there is nothing to restore.
            let _ = write(LEAVE);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A picture over the last one: from the top, each line cleared to its end, then everything below. Nothing is blank in
/// between, so nothing flickers. Terminals that can hold a picture back until it is whole are told to.
fn picture(text: &str, rows: Option<usize>) -> String {
    let rows = rows.unwrap_or(usize::MAX).saturating_sub(1).max(1);
    let mut picture = "\x1b[?2026h\x1b[?7l\x1b[H".to_owned();
    for line in text.lines().take(rows) {
        picture.push_str(line);
        picture.push_str("\x1b[K\r\n");
    }
    picture.push_str("\x1b[J\x1b[?7h\x1b[?2026l");
    picture
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_picture_covers_the_last_one_and_fits() {
        let expected = "\x1b[?2026h\x1b[?7l\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J\x1b[?7h\x1b[?2026l";
        assert_eq!(picture("a\nb\nc\n", Some(3)), expected);
        assert_eq!(picture("a\nb\n", None), expected);
    }

    #[test]
    fn what_changes_by_itself_is_no_news() {
        let first = json!({"revision": 1, "uptime_seconds": 3.0});
        let news = |next| is_news(&first, &next, &["uptime_seconds"]);
        assert!(!news(json!({"revision": 1, "uptime_seconds": 5.0})));
        assert!(news(json!({"revision": 2, "uptime_seconds": 3.0})));
        assert!(news(json!({"uptime_seconds": 3.0})));
        assert!(news(json!({"revision": 1, "uptime_seconds": 3.0, "freeze": {}})));
    }
}
