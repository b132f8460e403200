//! Stepping aside for another process: the writer pauses while the other one starts, and then either goes on or only
//! follows what the other one commits.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::late::{in_time, unanswered};
use super::writer::Writer;
use super::{Command, Control, SubmitError};

/// How often a process that only finishes its requests looks for changes: a version that went back must not serve on here.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// The paused writer. Changes wait; it goes on when this is dropped.
#[derive(Debug)]
pub struct Paused {
    follow: oneshot::Sender<()>,
}

impl Paused {
    /// Another process is the writer from now on. What waited is refused, and what that process commits is taken over.
    pub fn follow(self) {
        let _writer_ended = self.follow.send(());
    }
}

impl Control {
    /// Finishes what is waiting and pauses the writer, so that another process can write.
    ///
    /// # Errors
    /// [`SubmitError::ReadOnly`], [`SubmitError::Unconfirmed`] and [`SubmitError::Store`] when this process knows more than
    /// the store tells, so that another one would begin with an older state; [`SubmitError::Closed`].
    pub async fn pause(&self) -> Result<Paused, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Pause { reply }).await.map_err(|_| SubmitError::Closed)?;
        answer.await.map_err(|_| SubmitError::Closed)?
    }
}

impl Writer {
    /// Whether another process has become the writer.
    pub(super) async fn pause(&mut self, reply: oneshot::Sender<Result<Paused, SubmitError>>) -> bool {
        self.confirm().await;
        let refused = match (self.view.load().read_only, self.unconfirmed.len()) {
            (true, _) => Some(SubmitError::ReadOnly),
            // A write that the store has not answered yet would come after what the other process writes.
            (false, 0) if self.late.is_some() => Some(SubmitError::Store(unanswered())),
            (false, 0) => in_time(self.store.ping()).await.err().map(SubmitError::Store),
            (false, waiting) => Some(SubmitError::Unconfirmed { waiting }),
        };
        if let Some(refused) = refused {
            let _nobody_waits = reply.send(Err(refused));
            return false;
        }
        let (follow, decided) = oneshot::channel();
        if reply.send(Ok(Paused { follow })).is_err() {
            return false;
        }
        let follows = decided.await.is_ok();
        if !follows {
            // The other one may have written before it gave up, if only to the history.
            self.numbered = false;
            self.follow_once().await;
        }
        follows
    }

    /// Takes over what the other process commits, until this one ends.
    pub(super) async fn follow(mut self, mut queue: mpsc::Receiver<Command>) {
        // The fleet has another member in its place.
        if let Some(membership) = self.store.membership() {
            membership.leave().await;
        }
        let mut every = tokio::time::interval(FOLLOW_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                _ = every.tick() => self.follow_once().await,
                command = queue.recv() => match command {
                    Some(Command::Close { reply }) => {
                        self.store.close().await;
                        let _nobody_waits = reply.send(());
                        return;
                    }
                    Some(command) => command.refuse(|| SubmitError::HandedOver),
                    None => return,
                },
            }
        }
    }

    async fn follow_once(&mut self) {
        let answer = in_time(self.store.ping()).await;
        self.hear(answer).await;
    }
}

impl Command {
    /// Answers with an error instead of doing it.
    fn refuse(self, why: impl Fn() -> SubmitError) {
        match self {
            Self::Submit { reply, .. } | Self::RotateKeys { reply, .. } | Self::Global { reply, .. } => {
                drop(reply.send(Err(why())));
            }
            Self::Reload { reply, .. } => drop(reply.send(Err(why()))),
            Self::Pause { reply } => drop(reply.send(Err(why()))),
            Self::Note { .. } | Self::Close { .. } => {}
        }
    }
}
