//! Stopping a task of this room for a moment: while another process takes over, nothing may be judged twice.

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// A task of this room. Dropping it lets the task run on.
#[derive(Debug)]
pub struct Machine<T> {
    /// The task itself; it runs until it is aborted.
    pub task: JoinHandle<()>,
    pauses: mpsc::Sender<Pause<T>>,
}

/// A wish to pause.
pub(super) struct Pause<T> {
    /// Takes what the task knows.
    pub known: oneshot::Sender<T>,
    /// Ends when the task is to go on.
    pub over: oneshot::Receiver<()>,
}

/// A task that is paused; it goes on when this is dropped.
#[derive(Debug)]
pub struct StandStill {
    _over: oneshot::Sender<()>,
}

impl<T> Machine<T> {
    /// Starts a task that hears of pauses through the receiver.
    pub(super) fn start<F>(make: impl FnOnce(mpsc::Receiver<Pause<T>>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (pauses, heard) = mpsc::channel(1);
        Self { task: tokio::spawn(make(heard)), pauses }
    }

    /// Pauses the task and answers what it knows; none when it has ended.
    pub async fn pause(&self) -> Option<(T, StandStill)> {
        let ((known, answer), (go_on, over)) = (oneshot::channel(), oneshot::channel());
        self.pauses.send(Pause { known, over }).await.ok()?;
        Some((answer.await.ok()?, StandStill { _over: go_on }))
    }
}

impl<T> Pause<T> {
    /// Tells what is known and waits until the pause is over.
    pub(super) async fn wait(self, known: T) {
        if self.known.send(known).is_ok() {
            let _over = self.over.await;
        }
    }
}
