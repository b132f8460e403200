//! The verbs that this program does itself.

use std::path::Path;
use std::process::ExitCode;

use super::args::Format;
use super::{Local, demo, serve};

/// This program.
pub struct Program;

impl Local for Program {
    fn serve(&self, config: &Path, take_over: bool) -> ExitCode {
        serve::serve(config, take_over)
    }

    fn check(&self, config: &Path, form: Format) -> ExitCode {
        serve::check(config, form)
    }

    fn demo(&self, keep: bool, plain: bool) -> ExitCode {
        demo::demo(keep, plain)
    }

    fn schema(&self) -> String {
        serde_json::to_string_pretty(&crate::config::schema()).unwrap_or_default()
    }

    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }
}
