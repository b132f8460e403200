//! Live events: reads server-sent events and comes back after a broken connection where it left off.
//!
//! [`Frames`] is pure: lines in, events out. [`follow`] is the loop around it that connects again with the id of the last
//! event, so that nothing is lost or shown twice, and waits longer after each failure, up to a limit.

use std::io::{self, BufRead, Read};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::address::Resource;
use super::client::Client;
use super::error::CliError;

/// The first wait after a broken connection; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Longest line that is read: far more than an event with all its evidence.
const LONGEST_LINE: u64 = 16 << 20;

/// Puts events together from lines, by the rules of the HTML standard as far as this API needs them.
#[derive(Debug, Default)]
struct Frames {
    id: Option<String>,
    data: String,
}

/// One event of the stream.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    id: Option<String>,
    data: String,
}

impl Frames {
    /// Takes a line without its line break; an empty one ends an event.
    fn line(&mut self, line: &str) -> Option<Frame> {
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            let id = self.id.take();
            return (!data.is_empty()).then_some(Frame { id, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // `event` repeats the kind in the data; comments (an empty field) only keep the connection alive.
            _ => {}
        }
        None
    }
}

/// Shows every event after the id `after`, for ever. Ends only when the API refuses or the output is gone.
///
/// # Errors
/// The first attempt's error whatever it is; later only refusals and errors of `show`.
pub(super) fn follow(
    client: &Client,
    resource: &Resource,
    mut after: u64,
    mut show: impl FnMut(&Value) -> Result<(), CliError>,
    note: impl Fn(&str),
) -> Result<(), CliError> {
    let mut wait = FIRST_WAIT;
    let mut ever_connected = false;
    loop {
        let ended = match client.stream(resource, after) {
            Ok(mut reader) => {
                ever_connected = true;
                let ended = read_events(&mut reader, &mut |id, event| {
                    wait = FIRST_WAIT;
                    show(event)?;
                    after = id.or_else(|| event.get("id").and_then(Value::as_u64)).unwrap_or(after);
                    Ok(())
                })?;
                format!("the event stream ended ({ended})")
            }
            Err(e) if ever_connected && e.may_pass() => super::error::with_causes(&e),
            Err(e) => return Err(e),
        };
        let first_line = ended.lines().next().unwrap_or_default();
        note(&format!("{first_line}; trying again in {:.1} s", wait.as_secs_f64()));
        thread::sleep(wait);
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

type Show<'a> = dyn FnMut(Option<u64>, &Value) -> Result<(), CliError> + 'a;

/// Reads until the stream ends and says why it did.
fn read_events(reader: &mut impl BufRead, show: &mut Show<'_>) -> Result<String, CliError> {
    let mut frames = Frames::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return Ok("the server closed it".to_owned()),
            Ok(_) if line.last() != Some(&b'\n') => return Ok("in the middle of a line".to_owned()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Ok(e.to_string()),
        }
        let text = String::from_utf8_lossy(&line);
        let Some(frame) = frames.line(text.trim_end_matches(['\n', '\r'])) else { continue };
        // An event that cannot be read is skipped: a newer server may say things that this program does not know.
        if let Ok(event) = serde_json::from_str(&frame.data) {
            show(frame.id.and_then(|id| id.parse().ok()), &event)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(Option<u64>, Value)>, String) {
        let mut events = Vec::new();
        let ended = read_events(&mut text.as_bytes(), &mut |id, event| {
            events.push((id, event.clone()));
            Ok(())
        });
        (events, ended.unwrap())
    }

    #[test]
    fn events_are_put_together_from_lines() {
        let text = ": hello\n\nid: 7\nevent: rollback\ndata: {\"a\":\ndata: 1}\n\n:\nid:8\r\ndata:2\r\n\r\nid: 9\n\ndata: 3\n\n";
        let (events, ended) = read(text);
        assert_eq!(events, [(Some(7), serde_json::json!({"a": 1})), (Some(8), 2.into()), (None, 3.into())]);
        assert_eq!(ended, "the server closed it");
    }

    #[test]
    fn half_an_event_is_not_shown() {
        assert_eq!(read("id: 1\ndata: 1\n").0, []);
        let (events, ended) = read("id: 1\ndata: 1\n\nid: 2\ndata: 2");
        assert_eq!(events.len(), 1);
        assert_eq!(ended, "in the middle of a line");
        assert_eq!(read("data: not json\n\ndata: 1\n\n").0, [(None, 1.into())]);
    }
}
