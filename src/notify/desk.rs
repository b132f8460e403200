//! One target's desk: gathers what it is told, and sends one message after the other. A receiver that hangs or refuses holds
//! up nobody else, since every desk is a task of its own and takes in events while a message is on its way.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::channel::{Attempt, Channel, Message};
use super::gather::{Gathered, Gatherer};
use super::incidents::{Matter, kinds_of};
use super::notice::Notice;
use super::severity::severity_of;
use super::story::Story;
use super::unix_ms;
use crate::config::NotifyTarget;
use crate::model::{EventKind, NotifyAttempt, NotifyCounts, NotifyReport, ServiceName};
use crate::telemetry::Metrics;
use crate::webhook::Backoff;

/// Events that may wait to be gathered; gathering them takes no time, so this is for bursts.
const INBOX: usize = 1_024;
/// Messages that may wait to be sent; of more, the oldest are dropped.
const OUTBOX: usize = 100;
/// Waits between attempts.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
/// How long a message is tried: what is older is in the history.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// What is known about a target from outside.
pub(super) struct Desk {
    pub target: NotifyTarget,
    pub public_url: Option<String>,
    pub channel: Channel,
    inbox: mpsc::Sender<Arc<Story>>,
    metrics: Arc<Metrics>,
    state: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    counts: NotifyCounts,
    waiting: u64,
    last: Option<NotifyAttempt>,
}

/// What becomes of messages; the labels of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    Failed,
    Retried,
    Dropped,
    Suppressed,
}

impl Fate {
    const ALL: [Self; 5] = [Self::Sent, Self::Failed, Self::Retried, Self::Dropped, Self::Suppressed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Retried => "retried",
            Self::Dropped => "dropped",
            Self::Suppressed => "suppressed",
        }
    }
}

impl Desk {
    /// Opens a desk; the task ends when the desk is dropped.
    pub(super) fn open(
        target: &NotifyTarget,
        public_url: Option<String>,
        source: String,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, BoxFuture<'static, ()>) {
        let (inbox, stories) = mpsc::channel(INBOX);
        let channel = Channel::new(target, source);
        let state = Mutex::default();
        let desk = Arc::new(Self { target: target.clone(), public_url, channel, inbox, metrics, state });
        for result in Fate::ALL {
            desk.count(result, 0);
        }
        // The clerk must not keep the inbox open, or it would wait for itself.
        let clerk = Clerk::new(Arc::downgrade(&desk), &desk.target);
        (desk, Box::pin(clerk.run(stories)))
    }

    /// Puts a story on the desk; never waits.
    pub(super) fn put(&self, story: &Arc<Story>) {
        if self.inbox.try_send(story.clone()).is_err() {
            self.count(Fate::Dropped, 1);
        }
    }

    /// How it fares.
    pub(super) fn report(&self) -> NotifyReport {
        let known = self.lock();
        NotifyReport {
            name: self.target.name.clone(),
            type_name: self.target.channel.type_name(),
            address: self.channel.address(),
            severity: self.target.severity,
            services: self.target.services.clone(),
            kinds: self.target.kinds.clone(),
            counts: known.counts,
            waiting: known.waiting,
            last: known.last.clone(),
        }
    }

    fn wants(&self, kind: EventKind, service: Option<&ServiceName>) -> bool {
        let target = &self.target;
        // Nobody wants to hear of every start who did not ask for it.
        let asked = || if target.kinds.is_empty() { kind != EventKind::Started } else { target.kinds.contains(&kind) };
        severity_of(kind) >= target.severity
            && asked()
            && (target.services.is_empty() || service.is_some_and(|s| target.services.contains(s)))
    }

    fn count(&self, result: Fate, n: u64) {
        let counts = &mut self.lock().counts;
        *match result {
            Fate::Sent => &mut counts.sent,
            Fate::Failed => &mut counts.failed,
            Fate::Retried => &mut counts.retried,
            Fate::Dropped => &mut counts.dropped,
            Fate::Suppressed => &mut counts.suppressed,
        } += n;
        self.metrics.notifications(&self.target.name, result.as_str(), n);
    }

    /// Notes how an attempt ended.
    pub(super) fn tried(&self, ok: bool, detail: &str) {
        self.lock().last = Some(NotifyAttempt { at_ms: unix_ms(), ok, detail: detail.to_owned() });
    }

    /// Tries until the receiver takes the message, refuses it, or the message is too old.
    async fn deliver(&self, message: Message) {
        let began = Instant::now();
        let seed = seed(&self.target.name, &message);
        for attempt in 0.. {
            let (detail, asked) = match self.channel.send(&message).await {
                Attempt::Sent(detail) => {
                    self.tried(true, &detail);
                    return self.count(Fate::Sent, 1);
                }
                Attempt::Refused(detail) => return self.give_up(&detail),
                Attempt::Later(detail, asked) => (detail, asked),
            };
            let wait = BACKOFF.delay(attempt, seed).max(asked);
            if began.elapsed() + wait > LIFETIME {
                return self.give_up(&detail);
            }
            self.tried(false, &detail);
            self.count(Fate::Retried, 1);
            tracing::warn!(to = %self.target.name, %detail, wait_ms = wait.as_millis() as u64,
                "a notification was not taken and will be tried again");
            tokio::time::sleep(wait).await;
        }
    }

    fn give_up(&self, detail: &str) {
        self.tried(false, detail);
        self.count(Fate::Failed, 1);
        tracing::error!(to = %self.target.name, %detail, "a notification was given up");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // Plain counters: nothing that a thread that died could leave half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seed(target: &str, message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    let id = match message {
        Message::Tell(notice) => &notice.id,
        Message::Over { id, .. } => id,
    };
    (target, id).hash(&mut hasher);
    hasher.finish()
}

/// Who sits at the desk.
struct Clerk {
    desk: std::sync::Weak<Desk>,
    gatherer: Gatherer,
    outbox: VecDeque<Message>,
    began: Instant,
}

impl Clerk {
    fn new(desk: std::sync::Weak<Desk>, target: &NotifyTarget) -> Self {
        let gatherer = Gatherer::new(target.gather.as_millis() as u64, target.repeat_after.as_millis() as u64);
        Self { desk, gatherer, outbox: VecDeque::new(), began: Instant::now() }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    async fn run(mut self, mut stories: mpsc::Receiver<Arc<Story>>) {
        let mut sending: Option<BoxFuture<'static, ()>> = None;
        loop {
            if sending.is_none() {
                sending = self.next();
            }
            let due = self.gatherer.next_due_ms().map(|at| Duration::from_millis(at.saturating_sub(self.now_ms())));
            tokio::select! {
                story = stories.recv() => match story {
                    Some(story) => self.take(&story),
                    None => return,
                },
                () = or_never(due.map(tokio::time::sleep)) => self.gather(),
                () = or_never(sending.as_mut()) => sending = None,
            }
        }
    }

    /// The next message on its way.
    fn next(&mut self) -> Option<BoxFuture<'static, ()>> {
        let desk = self.desk.upgrade()?;
        let message = self.outbox.pop_front()?;
        desk.lock().waiting = self.outbox.len() as u64;
        Some(Box::pin(async move { desk.deliver(message).await }))
    }

    fn take(&mut self, story: &Arc<Story>) {
        let Some(desk) = self.desk.upgrade() else { return };
        let now_ms = self.now_ms();
        self.gatherer.forget(&story.event);
        if desk.channel.keeps_open() {
            for matter in &story.over {
                self.close(&desk, matter);
            }
        }
        if !desk.wants(story.event.kind, story.event.service.as_ref()) {
            return;
        }
        if !self.gatherer.offer(story, now_ms) {
            desk.count(Fate::Suppressed, 1);
        }
        self.gather();
    }

    /// What is gathered goes out before it is said to be over, or it would stay open for ever.
    fn close(&mut self, desk: &Desk, matter: &Matter) {
        let told = kinds_of(matter).any(|kind| desk.wants(kind, matter.service.as_ref()));
        if let Some(gathered) = self.gatherer.take(matter, self.now_ms()) {
            self.push(desk, tell(desk, &gathered));
        }
        if told {
            let id = format!("msg_{:032x}", rand::random::<u128>());
            self.push(desk, Message::Over { id, matter: matter.clone() });
        }
    }

    fn gather(&mut self) {
        let Some(desk) = self.desk.upgrade() else { return };
        for gathered in self.gatherer.due(self.now_ms()) {
            self.push(&desk, tell(&desk, &gathered));
        }
    }

    fn push(&mut self, desk: &Desk, message: Message) {
        if self.outbox.len() >= OUTBOX {
            self.outbox.pop_front();
            desk.count(Fate::Dropped, 1);
        }
        self.outbox.push_back(message);
        desk.lock().waiting = self.outbox.len() as u64;
    }
}

fn tell(desk: &Desk, gathered: &Gathered) -> Message {
    Message::Tell(Box::new(Notice::new(gathered, desk.public_url.as_deref())))
}

async fn or_never<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
