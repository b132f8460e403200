//! Standard error, behind a thread: who reads it may be slow or stuck, such as a full pipe or a disk that hangs, and no
//! request and no rollback may wait for that.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Messages that may wait: some minutes of an ordinary bad day. More are dropped and counted.
const QUEUE: usize = 4_096;
/// How long the end waits for the last ones.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What waits for the thread.
enum Item {
    Message(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Where messages go.
#[derive(Clone)]
pub(super) struct Messages {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

static MESSAGES: OnceLock<Messages> = OnceLock::new();

impl Messages {
    /// The process's own, with its thread; `None` when that cannot be started.
    pub fn of_process() -> Option<Self> {
        if let Some(running) = MESSAGES.get() {
            return Some(running.clone());
        }
        let messages = Self::start(io::stderr()).ok()?;
        Some(MESSAGES.get_or_init(|| messages).clone())
    }

    fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        std::thread::Builder::new().name("messages".to_owned()).spawn(move || write_all(sink, &waiting, &counted))?;
        Ok(Self { queue, dropped })
    }

    /// Waits until everything is written, but not for ever.
    fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            // Whoever should read them may not do it.
            let _in_time = written.recv_timeout(LAST_WORDS);
        }
    }
}

/// Waits until the messages so far are written, at most half a second.
pub fn flush() {
    if let Some(messages) = MESSAGES.get() {
        messages.flush();
    }
}

fn write_all(mut sink: impl Write, waiting: &Receiver<Item>, dropped: &AtomicU64) {
    while let Ok(item) = waiting.recv() {
        // Nobody can be told that it cannot be written.
        match item {
            Item::Message(text) => drop(sink.write_all(&text)),
            Item::Flush(done) => drop(done.try_send(())),
        }
        let lost = dropped.swap(0, Relaxed);
        if lost > 0 {
            drop(writeln!(sink, "{lost} messages are missing here: they came faster than they could be written"));
        }
    }
}

/// One message; handed over when it is whole.
pub(super) struct Line<'a> {
    to: &'a Messages,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if self.to.queue.try_send(Item::Message(text)).is_err() {
            self.to.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for Messages {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { to: self, text: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Writes to a text, as soon as nobody holds it.
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, part: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(part);
            Ok(part.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_whoever_reads_and_what_is_lost_is_told() {
        let text = Arc::new(Mutex::new(Vec::new()));
        let messages = Messages::start(Sink(text.clone())).unwrap();
        let held = text.lock().unwrap();
        for n in 0..QUEUE + 100 {
            messages.make_writer().write_all(format!("message {n}\n").as_bytes()).unwrap();
        }
        messages.flush();
        drop(held);
        let all = || String::from_utf8(text.lock().unwrap().clone()).unwrap();
        while !all().contains("messages are missing") {
            std::thread::yield_now();
        }
        while !all().contains(&format!("message {}\n", QUEUE - 1)) {
            std::thread::yield_now();
        }
        messages.make_writer().write_all(b"the last\n").unwrap();
        messages.flush();
        assert!(all().ends_with("the last\n"));
    }
}
