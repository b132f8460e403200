//! Where results go: data to standard output in the chosen form, messages to standard error.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};

use serde_json::Value;

use super::args::Format;
use super::error::{CliError, with_causes};
use super::table::{Ink, Look};
use super::yaml::to_yaml;

/// Writes what a verb found out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    format: Format,
    look: Look,
    terminal: bool,
}

impl Output {
    /// The output as the options and the environment want it.
    pub(super) fn new(format: Format, no_color: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let width = terminal.then(|| terminal_size::terminal_size().map(|(w, _)| usize::from(w.0))).flatten();
        Self { format, terminal, look: Look { colour: terminal && colours_wanted(no_color), width } }
    }

    /// How tables look.
    pub(super) fn look(&self) -> Look {
        self.look
    }

    /// Whether standard output is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The form of the output.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Writes a whole answer: the API's document, or what people read instead.
    pub(super) fn show(&self, value: &Value, people: impl FnOnce(Look) -> String) -> Result<(), CliError> {
        match self.format {
            Format::Table => write(&people(self.look)),
            Format::Json => write(&format!("{value:#}\n")),
            Format::Yaml => write(&to_yaml(value)),
        }
    }

    /// Writes one of many answers: JSON on one line, YAML as one document of several.
    pub(super) fn show_one(&self, value: &Value, people: impl FnOnce(Look) -> String) -> Result<(), CliError> {
        match self.format {
            Format::Table => write(&people(self.look)),
            Format::Json => write(&format!("{value}\n")),
            Format::Yaml => write(&format!("---\n{}", to_yaml(value))),
        }
    }

    /// Rows of the terminal, as it is now.
    pub(super) fn rows(&self) -> Option<usize> {
        terminal_size::terminal_size().map(|(_, h)| usize::from(h.0))
    }

    /// The same output with the terminal's width of now.
    pub(super) fn measured(mut self) -> Self {
        if self.terminal {
            self.look.width = terminal_size::terminal_size().map(|(w, _)| usize::from(w.0));
        }
        self
    }
}

/// Writes to standard output at once, so that a reader sees whole lines and a watcher whole pictures.
pub(super) fn write(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a message to standard error. Nobody can be told when that fails.
pub(super) fn note(message: &str) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// Writes an error with its causes to standard error.
pub(super) fn complain(error: &CliError, no_color: bool) {
    let colour = io::stderr().is_terminal() && colours_wanted(no_color);
    let head = Look { colour, width: None }.paint(Ink::Bad, "error:");
    note(&format!("{head} {}", with_causes(error)));
}

fn colours_wanted(no_color: bool) -> bool {
    !no_color && environment_allows_colours(std::env::var_os("NO_COLOR"), std::env::var_os("TERM"))
}

/// <https://no-color.org>: any text but the empty one forbids colours.
fn environment_allows_colours(no_color: Option<OsString>, term: Option<OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty()) && term.is_none_or(|value| value != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_may_forbid_colours() {
        let some = |text: &str| Some(OsString::from(text));
        assert!(environment_allows_colours(None, None));
        assert!(environment_allows_colours(some(""), some("xterm")));
        assert!(!environment_allows_colours(some("1"), some("xterm")));
        assert!(!environment_allows_colours(None, some("dumb")));
    }
}
