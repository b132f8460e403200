//! One JSON line per request, written by a thread of its own: a slow disk may cost lines but never a request its time.
//!
//! The request path copies its text into one block and puts that into a bounded queue. It does not even wake the
//! writer, which would be a system call; the writer looks by itself many times a second.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use serde::Serialize;

/// How long the writer rests when there is nothing to write. A line is on its way after at most this.
const REST: Duration = Duration::from_millis(20);

/// Longer paths are cut in the log.
const MAX_PATH: usize = 2_048;

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// The end of this file, which is made when it is not there.
    File(PathBuf),
}

/// What can go wrong at the start.
#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    /// The file cannot be opened.
    #[error("cannot open the access log {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The writer cannot be started.
    #[error("cannot start the writer of the access log")]
    Thread(#[source] io::Error),
}

/// What one line tells. Texts are borrowed; empty ones are left out of the line.
#[derive(Debug, Clone, Copy, Default)]
pub struct AccessLine<'a> {
    /// When the request came, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Service.
    pub service: &'a str,
    /// Tenant.
    pub tenant: &'a str,
    /// Version.
    pub version: &'a str,
    /// The version that answered in its place.
    pub answered_by: &'a str,
    /// Request method.
    pub method: &'a str,
    /// Path; with the query only if the operator wants it, since queries carry secrets.
    pub path: &'a str,
    /// Status sent to the client; 0 when none was.
    pub status: u16,
    /// From the first byte of the request to the last of the answer, microseconds.
    pub duration_us: u64,
    /// Body bytes sent to the client.
    pub bytes: u64,
    /// Address of the client.
    pub client: &'a str,
    /// Id of the request.
    pub request_id: &'a str,
    /// Whose fault it was: [`Fault::as_str`](super::Fault::as_str).
    pub fault: &'a str,
    /// Why the request went to this version, or why it failed.
    pub why: &'a str,
}

/// The access log. Lines that are waiting are written when it is dropped.
pub struct AccessLog {
    shared: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
}

struct Queue {
    lines: ArrayQueue<OwnedLine>,
    dropped: Arc<AtomicU64>,
    reopen: AtomicBool,
    stop: AtomicBool,
}

const TEXTS: usize = 10;

/// A line with all its texts in one block.
struct OwnedLine {
    at_ms: u64,
    status: u16,
    duration_us: u64,
    bytes: u64,
    texts: Box<str>,
    /// Where each text ends.
    ends: [u32; TEXTS],
}

#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    service: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tenant: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    answered_by: &'a str,
    method: &'a str,
    path: &'a str,
    status: u16,
    duration_ms: f64,
    bytes: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    client: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    fault: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    why: &'a str,
}

impl AccessLog {
    /// Opens the target and starts the writer. `capacity`: lines that may wait (at least 1); those beyond it are
    /// dropped and counted in `dropped`, like those that cannot be written.
    ///
    /// # Errors
    /// [`AccessLogError`] when the file cannot be opened or the thread not be started.
    pub fn start(target: LogTarget, capacity: usize, dropped: Arc<AtomicU64>) -> Result<Self, AccessLogError> {
        let sink = Sink::open(target)?;
        let lines = ArrayQueue::new(capacity.max(1));
        let (reopen, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Queue { lines, dropped, reopen, stop });
        let queue = shared.clone();
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || queue.write_all(sink));
        Ok(Self { shared, writer: Some(writer.map_err(AccessLogError::Thread)?) })
    }

    /// Hands a line to the writer. Never waits: a line that finds no room is dropped and counted.
    pub fn write(&self, line: &AccessLine<'_>) {
        if self.shared.lines.is_full() || self.shared.lines.push(OwnedLine::new(line)).is_err() {
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }

    /// The file was moved away: later lines go to a new one of the same name.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Relaxed);
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            ::tracing::error!("the writer of the access log had panicked");
        }
    }
}

impl Queue {
    fn write_all(&self, mut sink: Sink) {
        loop {
            // Read first: what was put in before the stop is then still found.
            let stop = self.stop.load(Relaxed);
            if self.reopen.swap(false, Relaxed) {
                sink.reopen();
            }
            let (mut taken, mut failed) = (0, 0);
            while let Some(line) = self.lines.pop() {
                taken += 1;
                failed += usize::from(sink.write(&line).is_err());
                // A steady stream must not keep the reopening waiting.
                if taken == self.lines.capacity() {
                    break;
                }
            }
            if taken > 0 && sink.flush().is_err() {
                // How many of them were written before, nobody knows.
                failed = taken;
            }
            if failed > 0 {
                self.dropped.fetch_add(failed as u64, Relaxed);
                // Perhaps the directory is back.
                sink.reopen();
            }
            if stop && self.lines.is_empty() {
                return;
            }
            if taken == 0 && !stop {
                std::thread::sleep(REST);
            }
        }
    }
}

enum Sink {
    Stdout(io::Stdout),
    File(PathBuf, BufWriter<File>),
}

impl Sink {
    fn open(target: LogTarget) -> Result<Self, AccessLogError> {
        match target {
            LogTarget::Stdout => Ok(Self::Stdout(io::stdout())),
            LogTarget::File(path) => match append_to(&path) {
                Ok(file) => Ok(Self::File(path, file)),
                Err(source) => Err(AccessLogError::Open { path, source }),
            },
        }
    }

    /// Keeps the old file when there is no new one.
    fn reopen(&mut self) {
        if let Self::File(path, file) = self {
            match append_to(path) {
                Ok(new) => *file = new,
                Err(error) => ::tracing::warn!(%error, path = %path.display(), "cannot reopen the access log"),
            }
        }
    }

    fn write(&mut self, line: &OwnedLine) -> io::Result<()> {
        let mut text = serde_json::to_vec(&line.json()).map_err(io::Error::other)?;
        text.push(b'\n');
        match self {
            Self::Stdout(out) => out.write_all(&text),
            Self::File(_, file) => file.write_all(&text),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(_, file) => file.flush(),
        }
    }
}

/// The text up to this many bytes, or a little less so that no character is torn.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|i| text.is_char_boundary(*i));
    &text[..end.unwrap_or(0)]
}

fn append_to(path: &PathBuf) -> io::Result<BufWriter<File>> {
    OpenOptions::new().create(true).append(true).open(path).map(BufWriter::new)
}

impl OwnedLine {
    fn new(line: &AccessLine<'_>) -> Self {
        let path = cut(line.path, MAX_PATH);
        let AccessLine { service, tenant, version, answered_by, method, client, request_id, fault, why, .. } = *line;
        let all: [&str; TEXTS] = [service, tenant, version, answered_by, method, path, client, request_id, fault, why];
        let mut end = 0;
        let ends = all.map(|text| {
            end += text.len() as u32;
            end
        });
        Self {
            at_ms: line.at_ms,
            status: line.status,
            duration_us: line.duration_us,
            bytes: line.bytes,
            texts: all.concat().into_boxed_str(),
            ends,
        }
    }

    fn json(&self) -> JsonLine<'_> {
        let text = |i: usize| {
            let from = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.texts[from as usize..self.ends[i] as usize]
        };
        let time = jiff::Timestamp::from_millisecond(self.at_ms.try_into().unwrap_or(i64::MAX)).unwrap_or_default();
        JsonLine {
            time: format!("{time:.3}"),
            service: text(0),
            tenant: text(1),
            version: text(2),
            answered_by: text(3),
            method: text(4),
            path: text(5),
            status: self.status,
            duration_ms: self.duration_us as f64 / 1e3,
            bytes: self.bytes,
            client: text(6),
            request_id: text(7),
            fault: text(8),
            why: text(9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn line(path: &str) -> AccessLine<'_> {
        AccessLine {
            at_ms: 1_700_000_000_123,
            service: "accounting",
            tenant: "acme",
            version: "2.0.0",
            answered_by: "1.0.0",
            method: "GET",
            path,
            status: 502,
            duration_us: 12_345,
            bytes: 17,
            client: "192.0.2.1:4711",
            request_id: "",
            fault: "backend",
            why: "split",
        }
    }

    fn lines(path: &std::path::Path) -> Vec<Value> {
        std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn a_line_is_json_whatever_strangers_send() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let dropped = Arc::new(AtomicU64::new(0));
        let log = AccessLog::start(LogTarget::File(file.clone()), 100, dropped.clone()).unwrap();
        log.write(&line("/a\"b\n{}ü"));
        log.write(&line(&"é".repeat(3_000)));
        drop(log);
        let lines = lines(&file);
        let expected = r#"{"time":"2023-11-14T22:13:20.123Z","service":"accounting","tenant":"acme","version":"2.0.0","answered_by":"1.0.0","method":"GET","path":"/a\"b\n{}ü","status":502,"duration_ms":12.345,"bytes":17,"client":"192.0.2.1:4711","fault":"backend","why":"split"}"#;
        assert_eq!(lines[0].to_string(), expected);
        assert_eq!(lines[1]["path"].as_str().unwrap().len(), MAX_PATH);
        assert_eq!(dropped.load(Relaxed), 0);
    }

    #[test]
    fn every_line_is_written_or_counted_and_a_moved_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (file, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let dropped = Arc::new(AtomicU64::new(0));
        let log = AccessLog::start(LogTarget::File(file.clone()), 8, dropped.clone()).unwrap();
        log.write(&line("/before"));
        while std::fs::metadata(&file).unwrap().len() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::fs::rename(&file, &moved).unwrap();
        log.reopen();
        while !file.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        (0..1_000).for_each(|_| log.write(&line("/after")));
        drop(log);
        assert_eq!(lines(&moved).len(), 1);
        assert_eq!(lines(&file).len() as u64 + dropped.load(Relaxed), 1_000);
        assert!(dropped.load(Relaxed) > 0, "the queue is bounded");
    }

    #[test]
    fn a_bad_target_is_an_error_at_once() {
        let error = AccessLog::start(LogTarget::File("/nowhere/at/all".into()), 8, Arc::default()).err().unwrap();
        assert_eq!(error.to_string(), "cannot open the access log /nowhere/at/all");
        assert!(std::error::Error::source(&error).is_some());
    }
}
