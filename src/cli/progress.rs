//! What is being waited for, in one line of standard error that is rewritten while it lasts and then goes away.
//!
//! Only on a terminal, and only when the wait is long enough to be noticed: logs and scripts never see it. The cursor stays
//! visible, so that nothing has to be restored when the program is ended.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::text::cut;

/// What takes less needs no explanation.
const NOTICED: Duration = Duration::from_millis(700);
/// Between two pictures.
const STEP: Duration = Duration::from_millis(120);
/// Turning, so that one sees that the program lives.
const TURNING: [&str; 8] = ["⠋", "⠙", "⠸", "⢰", "⣠", "⣄", "⡆", "⠇"];

/// A line that is shown until this is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    shown: Option<(Sender<String>, JoinHandle<()>)>,
}

impl Progress {
    /// Begins to say what is being done.
    pub(super) fn begin(what: String) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        if dumb || !io::stderr().is_terminal() {
            return Self { shown: None };
        }
        let (say, said) = channel();
        let begun = Instant::now();
        let drawing = thread::Builder::new().spawn(move || draw(what, &said, begun));
        // Without a thread there is no line; the work goes on.
        Self { shown: drawing.ok().map(|drawing| (say, drawing)) }
    }

    /// Says something else from now on.
    pub(super) fn say(&self, what: String) {
        if let Some((say, _)) = &self.shown {
            let _ = say.send(what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((say, drawing)) = self.shown.take() {
            drop(say);
            let _ = drawing.join();
        }
    }
}

fn draw(mut what: String, said: &Receiver<String>, begun: Instant) {
    let mut wait = NOTICED;
    let mut turns = TURNING.iter().cycle();
    let mut drawn = false;
    loop {
        match said.recv_timeout(wait.saturating_sub(if drawn { Duration::ZERO } else { begun.elapsed() })) {
            Ok(next) => what = next,
            Err(RecvTimeoutError::Timeout) => {
                let room = terminal_size::terminal_size_of(io::stderr()).map_or(80, |(w, _)| usize::from(w.0));
                let turn = turns.next().copied().unwrap_or_default();
                let line = format!("{turn} {what} ({} s)", begun.elapsed().as_secs());
                put(&format!("\r{}\x1b[K", cut(&line, room.saturating_sub(1))));
                (wait, drawn) = (STEP, true);
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if drawn {
        put("\r\x1b[K");
    }
}

/// Nobody can be told when that fails.
fn put(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
