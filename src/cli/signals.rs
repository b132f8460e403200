//! What a terminal tells a program that goes on for a while, as words on a channel.

use std::sync::mpsc::Sender;
use std::thread;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// To end: Ctrl-C, SIGTERM, or the terminal is gone.
    End,
    /// To stop until it is continued: Ctrl-Z.
    Stop,
    /// The terminal has another size.
    Resized,
}

/// Sends on what is told, in the listener's own words. The handlers stand when this returns.
///
/// # Errors
/// When signals cannot be watched.
pub(super) fn listen<E: Send + 'static>(
    told: &[Told],
    to: Sender<E>,
    word: impl Fn(Told) -> E + Send + 'static,
) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(CliError::Watch)?;
    let mut signals: Vec<(Told, Signal)> = Vec::new();
    {
        let _inside = runtime.enter();
        for told in told {
            for kind in kinds(*told) {
                signals.push((*told, signal(*kind).map_err(CliError::Watch)?));
            }
        }
    }
    let wait = move || {
        runtime.block_on(async {
            loop {
                let next = signals.iter_mut().map(|(told, signal)| {
                    Box::pin(async {
                        signal.recv().await;
                        *told
                    })
                });
                let (told, ..) = futures::future::select_all(next).await;
                // Nobody listens any more.
                if to.send(word(told)).is_err() {
                    return;
                }
            }
        });
    };
    thread::Builder::new().spawn(wait).map(drop).map_err(CliError::Watch)
}

fn kinds(told: Told) -> &'static [SignalKind] {
    const END: [SignalKind; 3] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    const STOP: [SignalKind; 1] = [SignalKind::from_raw(Number::TSTP.as_raw())];
    const RESIZED: [SignalKind; 1] = [SignalKind::window_change()];
    match told {
        Told::End => &END,
        Told::Stop => &STOP,
        Told::Resized => &RESIZED,
    }
}
