//! `switchback serve` and `switchback check`: the verbs that run something here.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::config::{self, Settings};
use crate::proxy::bad_files;
use crate::telemetry::tracing as logging;

/// Threads of the control plane: the writer, the guard, health checks and the admin API. They mostly wait.
const CONTROL_THREADS: usize = 2;

/// Wrong usage or configuration.
const WRONG: u8 = 2;

/// Runs the proxy until SIGTERM or SIGINT, which end it in good order. SIGHUP reads the configuration file again.
pub fn serve(path: &Path) -> ExitCode {
    let settings = match config::load(path) {
        Ok(settings) => settings,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(WRONG);
        }
    };
    logging::init(false);
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match Builder::new_multi_thread().worker_threads(CONTROL_THREADS).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(run(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

async fn run(settings: Settings) -> Result<(), Box<dyn Error>> {
    // Before anything is served: a signal that comes early must not kill the process half started.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let app = App::start(settings).await?;
    tracing::info!(listen = ?app.listen, tls = ?app.listen_tls, admin = ?app.admin, "serving");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match app.reload().await {
                Ok(report) => tracing::info!(?report, "the configuration was read again"),
                Err(error) => tracing::error!("the configuration was not changed: {}", chain(&error)),
            },
        }
    }
    tracing::info!("ending: no new connections, requests in flight are finished");
    match app.stop().await {
        true => tracing::info!("ended; every connection was finished"),
        false => tracing::warn!("ended; some connections were cut because the drain timeout was over"),
    }
    Ok(())
}

/// Reads the configuration, opens certificates, starts nothing.
pub fn check(path: &Path) -> ExitCode {
    let settings = match config::check(path, &bad_files) {
        Ok(settings) => settings,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(WRONG);
        }
    };
    for warning in &settings.warnings {
        eprintln!("{}: warning: {warning}", path.display());
    }
    let services = settings.structure.services.len();
    println!("{}: fine, {services} {}", path.display(), if services == 1 { "service" } else { "services" });
    ExitCode::SUCCESS
}

fn failed(error: &dyn Error) -> ExitCode {
    eprintln!("switchback: {}", chain(error));
    ExitCode::FAILURE
}

/// An error with its causes, each once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}
