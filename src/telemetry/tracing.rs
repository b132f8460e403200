//! What the process has to say about itself: to standard error, so that data on standard output stays clean.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::messages::Messages;
pub use super::messages::flush;

/// The variable that says which messages are wanted, such as `info` or `switchback=debug,pingora=warn`.
pub const FILTER_VARIABLE: &str = "RUST_LOG";

/// Begins to write messages, as lines for people or as JSON. Messages of level `info` and above unless
/// [`FILTER_VARIABLE`] says otherwise. Without effect when something else was set up before, such as by a test.
pub fn init(json: bool) {
    let filter = EnvFilter::builder()
        .with_env_var(FILTER_VARIABLE)
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let colours = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let Some(messages) = Messages::of_process() else {
        return eprintln!("switchback: the thread that writes messages cannot be started");
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(messages).with_ansi(colours);
    let done = if json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
    if let Err(error) = done {
        ::tracing::debug!(error, "messages are written by somebody else already");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_second_setup_does_no_harm() {
        super::init(true);
        super::init(false);
    }
}
