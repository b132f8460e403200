//! Where results go: data to standard output in the chosen form, messages to standard error.

use std::io::{self, IsTerminal as _, Write as _};

use anstream::stream::RawStream;
use serde_json::Value;

use super::args::Format;
use super::error::{CliError, with_causes};
use super::fit::fit;
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
        let colour = colours_wanted(no_color, &io::stdout());
        Self { format, terminal, look: Look { colour, width: None } }.measured()
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
            Format::Table => write(&fit(&people(self.look), self.look.width)),
            Format::Json => write(&format!("{value:#}\n")),
            Format::Yaml => write(&to_yaml(value)),
        }
    }

    /// Writes one of many answers: JSON on one line, YAML as one document of several.
    pub(super) fn show_one(&self, value: &Value, people: impl FnOnce(Look) -> String) -> Result<(), CliError> {
        match self.format {
            Format::Table => write(&fit(&people(self.look), self.look.width)),
            Format::Json => write(&format!("{value}\n")),
            Format::Yaml => write(&format!("---\n{}", to_yaml(value))),
        }
    }

    /// Rows of the terminal, as it is now.
    pub(super) fn rows(&self) -> Option<usize> {
        size_of(io::stdout()).map(|(_, rows)| rows)
    }

    /// The same output with the terminal's width of now.
    pub(super) fn measured(mut self) -> Self {
        self.look.width = size_of(io::stdout()).map(|(columns, _)| columns);
        self
    }
}

/// Columns and rows of the terminal that a stream leads to. A terminal that does not know its size is none.
fn size_of(stream: impl std::os::fd::AsFd) -> Option<(usize, usize)> {
    let (columns, rows) = terminal_size::terminal_size_of(stream)?;
    (columns.0 > 0 && rows.0 > 0).then(|| (usize::from(columns.0), usize::from(rows.0)))
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
    let room = size_of(io::stderr()).map(|(columns, _)| columns);
    let _ = writeln!(io::stderr().lock(), "{}", fit(message, room));
}

/// Writes an error with its causes to standard error.
pub(super) fn complain(error: &CliError, no_color: bool) {
    let colour = colours_wanted(no_color, &io::stderr());
    let head = Look { colour, width: None }.paint(Ink::Bad, "error:");
    note(&format!("{head} {}", with_causes(error)));
}

/// Whether the options, the environment (`NO_COLOR`, `CLICOLOR_FORCE`, `CLICOLOR`, `TERM`, in this order) and the stream
/// want colours.
fn colours_wanted(no_color: bool, stream: &impl RawStream) -> bool {
    !no_color && anstream::AutoStream::choice(stream) != anstream::ColorChoice::Never
}
