//! Starting the process that is to take over.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;

use tokio::process::{Child, Command};

/// The option that makes `serve` take over from the process that serves.
const TAKE_OVER: &str = "--take-over";

/// How this process was started, so that another can be started like it. The program is looked up again each time: that
/// is where its new release is.
#[derive(Debug, Clone)]
pub struct CommandLine(Vec<OsString>);

impl CommandLine {
    /// That of this process.
    pub fn own() -> Self {
        Self(std::env::args_os().collect())
    }

    /// Starts a process like this one that takes over from it. Must be called within a runtime.
    ///
    /// # Errors
    /// What the system says, or that the command line is empty.
    pub fn spawn(&self) -> io::Result<Child> {
        let (program, arguments) = self.0.split_first().ok_or_else(|| io::Error::other("the command line is empty"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        if !arguments.iter().any(|argument| argument == TAKE_OVER) {
            command.arg(TAKE_OVER);
        }
        command.spawn()
    }
}
