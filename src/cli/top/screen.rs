//! The terminal while the screen is shown: taken at the beginning, given back at the end, however that comes.

use std::io::{self, Stdout, stdout};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};
use rustix::process::{Signal, getpid, kill_process};

use super::draw::draw;
use super::model::Model;
use super::parts::Ink;
use crate::cli::error::CliError;

/// A terminal that shows the screen.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    size: (u16, u16),
    ink: Ink,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn enter(colour: bool) -> Result<Self, CliError> {
        // Made first: whatever fails below, dropping it gives the terminal back.
        let size = size()?;
        let mut screen = Self { terminal: blank(size)?, size, ink: Ink { colour } };
        screen.take()?;
        Ok(screen)
    }

    /// Draws what has changed.
    pub(super) fn draw(&mut self, model: &Model) -> Result<(), CliError> {
        let now = size()?;
        if now != self.size {
            self.clear(now)?;
        }
        let ink = self.ink;
        self.terminal.draw(|frame| draw(frame, model, ink))?;
        Ok(())
    }

    /// Gives the terminal back until somebody continues the program.
    pub(super) fn stop(&mut self) -> Result<(), CliError> {
        give_back();
        kill_process(getpid(), Signal::STOP).map_err(io::Error::from)?;
        self.take()
    }

    fn take(&mut self) -> Result<(), CliError> {
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        self.clear(size()?)
    }

    fn clear(&mut self, size: (u16, u16)) -> Result<(), CliError> {
        execute!(stdout(), Clear(ClearType::All))?;
        (self.terminal, self.size) = (blank(size)?, size);
        Ok(())
    }
}

/// A terminal of that size with nothing on it. Its size is told rather than found out: ratatui would ask the terminal where
/// the cursor is whenever it clears it, and the answer would go to the thread that reads the keyboard.
fn blank((width, height): (u16, u16)) -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    let viewport = Viewport::Fixed(Rect { x: 0, y: 0, width, height });
    Terminal::with_options(CrosstermBackend::new(stdout()), TerminalOptions { viewport })
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Fails only when the terminal is gone; then there is nothing to give back.
fn give_back() {
    let _ = execute!(stdout(), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}
