//! The command line: reads the arguments, calls the admin API and shows the answer.
//!
//! Verbs that run something here rather than call the API (`serve`, `check`, `demo`, `schema`) come in through [`Local`],
//! so that this room needs to know nothing of the rest of the program.

mod address;
mod args;
mod bars;
mod client;
mod complete;
mod demo;
mod error;
mod examples;
mod fit;
mod global_args;
mod help;
mod import;
mod live;
mod local;
mod man;
mod output;
mod progress;
mod rollout_args;
mod serve;
mod signals;
mod stream;
mod table;
mod text;
mod top;
mod values;
mod verb_args;
mod verbs;
mod watch;
mod weights;
mod yaml;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ColorChoice, FromArgMatches as _};

pub use args::{Command, CommandLine};
pub use local::Program;

use address::AdminUrl;
use args::{DEFAULT_ADMIN, Format, Global};
use client::Client;
use error::CliError;
use output::Output;

/// What the program does itself instead of asking the admin API.
pub trait Local {
    /// Runs the proxy until it is told to stop, or until another process takes over. `take_over`: from the process that
    /// serves with this configuration.
    fn serve(&self, config: &Path, take_over: bool) -> ExitCode;
    /// Reads the configuration and prints what is wrong with it, in that form.
    fn check(&self, config: &Path, form: Format) -> ExitCode;
    /// Shows a canary that goes bad and is shifted back.
    fn demo(&self, keep: bool, plain: bool) -> ExitCode;
    /// The JSON Schema of the configuration.
    fn schema(&self) -> String;
    /// The version of the program, such as `0.1.0`.
    fn version(&self) -> &str;
}

/// Does what the arguments say; the first one is the name of the program.
pub fn run(args: impl IntoIterator<Item = OsString>, local: &dyn Local) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let line = match parse(&args) {
        Ok(line) => line,
        Err(e) => return usage(&e, local),
    };
    let no_color = line.global.no_color;
    match dispatch(line, local) {
        Ok(code) => code,
        Err(e) if e.is_broken_pipe() => ExitCode::SUCCESS,
        Err(e) => {
            output::complain(&e, no_color);
            ExitCode::from(e.exit_code())
        }
    }
}

fn parse(args: &[OsString]) -> Result<CommandLine, clap::Error> {
    // Help and mistakes are written before the option could be read, so it is looked for beforehand.
    let no_color = args.iter().any(|arg| arg == "--no-color");
    let color = if no_color { ColorChoice::Never } else { ColorChoice::Auto };
    let mut command = help::command().color(color);
    let matches = command.try_get_matches_from_mut(args)?;
    CommandLine::from_arg_matches(&matches).map_err(|e| e.format(&mut command))
}

/// Prints help, version or what is wrong with the arguments.
fn usage(error: &clap::Error, local: &dyn Local) -> ExitCode {
    if error.kind() == ErrorKind::DisplayVersion {
        return written(&format!("switchback {}\n", local.version()));
    }
    // Fails only when nobody reads it.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

fn dispatch(line: CommandLine, local: &dyn Local) -> Result<ExitCode, CliError> {
    match &line.command {
        Command::Serve(args) => return Ok(local.serve(&args.config.config, args.take_over)),
        Command::Check(args) => return Ok(local.check(&args.config, line.global.output)),
        Command::Demo { keep, plain } => return Ok(local.demo(*keep, *plain)),
        Command::Import { files } => return import::import(files).map(|text| written(&text)),
        Command::Completions { shell } => return Ok(written(&complete::script(*shell, help::command()))),
        Command::Complete { shell, words } => {
            return Ok(written(&complete::answer(help::command(), *shell, words, &line.global, local.version())));
        }
        _ => {}
    }
    let output = Output::new(line.global.output, line.global.no_color);
    if let Command::Schema = line.command {
        let schema = serde_json::from_str(&local.schema()).unwrap_or_default();
        output.show(&schema, |_| with_line_break(local.schema()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Version = line.command {
        let version = serde_json::json!({"version": local.version()});
        output.show(&version, |_| format!("switchback {}\n", local.version()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Man { folder } = &line.command {
        let pages = serde_json::json!({"pages": man::write_pages(help::command(), folder, local.version())?});
        output.show(&pages, |_| man::listed(&pages))?;
        return Ok(ExitCode::SUCCESS);
    }
    let client = client(&line.global, local.version())?;
    verbs::call(line.command, &client, output)?;
    Ok(ExitCode::SUCCESS)
}

/// A client by the options and the environment.
fn client(global: &Global, version: &str) -> Result<Client, CliError> {
    Client::new(admin(global)?, token(global)?.as_deref(), version)
}

/// The address of the admin API. An empty variable in the environment counts as none.
fn admin(global: &Global) -> Result<AdminUrl, CliError> {
    let text = if global.admin.is_empty() { DEFAULT_ADMIN } else { &global.admin };
    text.parse().map_err(|e| CliError::Usage(format!("--admin or SWITCHBACK_ADMIN: {e}")))
}

/// The token by option, then file, then environment.
fn token(global: &Global) -> Result<Option<String>, CliError> {
    let token = match (&global.token, &global.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => {
            let text =
                std::fs::read_to_string(file).map_err(|source| CliError::TokenFile { file: file.clone(), source })?;
            if text.trim().is_empty() {
                return Err(CliError::Usage(format!("there is no token in {}", file.display())));
            }
            Some(text)
        }
        (None, None) => std::env::var("SWITCHBACK_TOKEN").ok(),
    };
    Ok(token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()))
}

/// Writes to standard output; a reader that went away is no mistake.
fn written(text: &str) -> ExitCode {
    match output::write(text) {
        Err(e) if !e.is_broken_pipe() => {
            output::complain(&e, true);
            ExitCode::from(e.exit_code())
        }
        _ => ExitCode::SUCCESS,
    }
}

fn with_line_break(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
