//! A watch that notices when it is deaf: a stream by itself stays silent for ever when the member behind it hangs.
//!
//! etcd answers a question for progress on the same stream at once. One that gets no answer tells of a broken stream,
//! whatever other connections say.

use std::time::Duration;

use etcd_client::{Event, WatchOptions, WatchStream};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::link::{CALL, LARGEST_ANSWER, Line, Link, Trouble, sort};

/// How often the stream is asked for a sign of life.
const ASK: Duration = Duration::from_millis(700);
/// How long it may take to answer. A member of etcd that lost its leader is silent for about a second.
const DEAF: Duration = Duration::from_millis(1_800);

/// A watch on one range of keys.
pub struct Watch<'a> {
    link: &'a Link,
    line: Line,
    stream: WatchStream,
    ask: Interval,
    asked: Option<Instant>,
}

impl<'a> Watch<'a> {
    /// Watches a key, or with a range in the options many, from a revision on.
    pub async fn open(link: &'a Link, key: &str, options: WatchOptions, from: i64) -> Result<Self, Trouble> {
        let line = link.line().await?;
        let mut client = line.client.watch_client().max_decoding_message_size(LARGEST_ANSWER);
        let opening = client.watch(key, Some(options.with_start_revision(from)));
        let late = |_| Trouble::Away("etcd opened no watch in time".to_owned());
        let stream = match tokio::time::timeout(CALL, opening).await.map_err(late).and_then(|o| o.map_err(sort)) {
            Ok(stream) => stream,
            Err(trouble) => return link.broke(&line, trouble),
        };
        let mut ask = tokio::time::interval(ASK);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { link, line, stream, ask, asked: None })
    }

    /// Waits for what changes next. Whoever stops waiting loses nothing.
    pub async fn next(&mut self) -> Result<Vec<Event>, Trouble> {
        loop {
            let heard = tokio::select! {
                // What has arrived counts before any silence.
                biased;
                message = self.stream.message() => match message {
                    Ok(Some(message)) => {
                        self.asked = None;
                        read(&message)
                    }
                    Ok(None) => Err(Trouble::Away("the watch ended".to_owned())),
                    Err(error) => Err(sort(error)),
                },
                _ = self.ask.tick() => self.ask_for_progress().await.map(|()| Vec::new()),
            };
            match heard {
                Ok(events) if events.is_empty() => {}
                Ok(events) => return Ok(events),
                Err(trouble) => return self.link.broke(&self.line, trouble),
            }
        }
    }

    async fn ask_for_progress(&mut self) -> Result<(), Trouble> {
        match self.asked {
            Some(asked) if asked.elapsed() >= DEAF => Err(Trouble::Away("the watch is silent".to_owned())),
            Some(_) => Ok(()),
            None => {
                self.asked = Some(Instant::now());
                self.stream.request_progress().await.map_err(sort)
            }
        }
    }
}

fn read(message: &etcd_client::WatchResponse) -> Result<Vec<Event>, Trouble> {
    if message.compact_revision() > 0 {
        return Err(Trouble::Compacted);
    }
    if message.canceled() {
        return Err(Trouble::Away(format!("etcd cancelled the watch: {}", message.cancel_reason())));
    }
    Ok(message.events().to_vec())
}
