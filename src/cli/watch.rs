//! Verbs that go on until Ctrl-C: ended by it cleanly, with exit code 0, since that is how one ends them.

use std::sync::mpsc::channel;
use std::thread;

use super::error::CliError;
use super::output::{Output, write};
use super::signals::{Told, listen};

/// Runs the work until it ends by itself or Ctrl-C ends it.
///
/// The work runs beside and is left where it is: lines are written whole under a lock, so none is torn.
///
/// # Errors
/// What the work ended with; or that Ctrl-C cannot be watched.
pub(super) fn until_interrupted(
    output: Output,
    work: impl FnOnce() -> Result<(), CliError> + Send + 'static,
) -> Result<(), CliError> {
    enum End {
        Interrupted,
        Worked(Result<(), CliError>),
    }
    let (ended, ends) = channel();
    listen(&[Told::End], ended.clone(), |_| End::Interrupted)?;
    thread::Builder::new()
        .spawn(move || {
            let result = thread::Builder::new().spawn(work).map_err(CliError::Watch);
            let result = result.and_then(|worker| worker.join().unwrap_or(Err(CliError::Ended)));
            // Fails only when Ctrl-C came first; then nobody asks any more.
            let _ = ended.send(End::Worked(result));
        })
        .map_err(CliError::Watch)?;
    match ends.recv() {
        Ok(End::Worked(result)) => result,
        // The terminal has written `^C` where the cursor was.
        Ok(End::Interrupted) if output.is_terminal() => write("\n"),
        Ok(End::Interrupted) => Ok(()),
        Err(_) => Err(CliError::Ended),
    }
}
