//! Who is told of what happens: Slack, PagerDuty, e-mail, and any receiver of CloudEvents.
//!
//! The feed follows the history and puts every event on every target's desk, together with what can only be known while the
//! event is fresh. Nothing waits for anything here: the feed does not wait for desks, desks do not wait for each other, and
//! nothing that shifts traffic knows that they exist.

mod channel;
mod desk;
mod feed;
mod forms;
mod gather;
mod incidents;
mod notice;
mod severity;
mod story;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use tokio::task::JoinHandle;

use self::channel::{Attempt, Message};
use self::desk::Desk;
use self::feed::Feed;
use self::notice::Notice;
use crate::control::Control;
use crate::model::{NotifyReport, NotifyTest};
use crate::proxy::Clock;
use crate::telemetry::{Metrics, Tallies, Windows};

/// How long a test may take: whoever asked for it waits for the answer.
const TEST: Duration = Duration::from_secs(20);

/// What notifications are built from.
pub struct NotifyParts {
    /// The door to the state: settings and history.
    pub control: Control,
    /// Where requests are counted.
    pub tallies: Arc<Tallies>,
    /// The history of the counts.
    pub windows: Arc<Mutex<Windows>>,
    /// Metric families.
    pub metrics: Arc<Metrics>,
    /// The process's clock.
    pub clock: Clock,
    /// Name of this process among others.
    pub instance: String,
}

/// The desks of now. Cheap to clone.
#[derive(Clone, Default)]
pub struct Notifier {
    desks: Arc<Mutex<Vec<Arc<Desk>>>>,
}

/// Starts to follow the history; events from before are not told. Runs until the task is aborted.
pub fn start(parts: NotifyParts) -> (Notifier, JoinHandle<()>) {
    let notifier = Notifier::default();
    let feed = Feed::new(parts, notifier.clone());
    (notifier, tokio::spawn(feed.run()))
}

impl Notifier {
    /// The targets and how they fare, in the order of the file.
    pub fn targets(&self) -> Vec<NotifyReport> {
        self.desks().iter().map(|desk| desk.report()).collect()
    }

    /// Sends a test message to a target, or to all of them at once; each is tried once. Empty when there is no such target.
    pub async fn test(&self, name: Option<&str>) -> Vec<NotifyTest> {
        let desks = self.desks();
        join_all(desks.iter().filter(|d| name.is_none_or(|name| d.target.name == name)).map(|d| test(d))).await
    }

    fn desks(&self) -> Vec<Arc<Desk>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Desk>>> {
        // The list is replaced as a whole.
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn test(desk: &Desk) -> NotifyTest {
    let began = Instant::now();
    let notice = Notice::test(&desk.target.name, unix_ms(), desk.public_url.as_deref());
    let matter = notice.matter.clone();
    let send = async {
        let attempt = desk.channel.send(&Message::Tell(Box::new(notice))).await;
        // Whoever keeps open what it is told must not keep open a test.
        if !desk.channel.keeps_open() || !matches!(attempt, Attempt::Sent(_)) {
            return attempt;
        }
        let id = format!("msg_{:032x}", rand::random::<u128>());
        desk.channel.send(&Message::Over { id, matter }).await
    };
    let late = |_| Attempt::Refused(format!("no answer within {} s", TEST.as_secs()));
    let attempt = tokio::time::timeout(TEST, send).await.unwrap_or_else(late);
    let (ok, detail) = match attempt {
        Attempt::Sent(detail) => (true, detail),
        Attempt::Later(detail, _) | Attempt::Refused(detail) => (false, detail),
    };
    desk.tried(ok, &detail);
    NotifyTest { name: desk.target.name.clone(), ok, detail, seconds: began.elapsed().as_secs_f64() }
}

/// Milliseconds since the Unix epoch.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
