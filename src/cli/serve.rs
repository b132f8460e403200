//! `switchback serve` and `switchback check`: the verbs that run something here.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use sd_notify::NotifyState;
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::args::Format;
use super::output::Output;
use crate::app::{App, Start};
use crate::config::{self, Mistake, Settings};
use crate::handover::{self, CommandLine, Sockets};
use crate::proxy::bad_files;
use crate::telemetry::tracing as logging;

/// Threads of the control plane: the writer, the guard, health checks and the admin API. They mostly wait.
const CONTROL_THREADS: usize = 2;

/// Wrong usage or configuration.
const WRONG: u8 = 2;

/// Runs the proxy until SIGTERM or SIGINT, which end it in good order, or until another process takes over. SIGHUP reads
/// the configuration file again; SIGQUIT starts a process that takes over.
pub fn serve(path: &Path, take_over: bool) -> ExitCode {
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
    use_all_files();
    let start = match beginning(&settings, take_over) {
        Ok(start) => start,
        Err(error) => return failed(&*error),
    };
    let runtime = match Builder::new_multi_thread().worker_threads(CONTROL_THREADS).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(run(settings, start)) {
        Ok(()) => {
            logging::flush();
            ExitCode::SUCCESS
        }
        Err(error) => failed(&*error),
    }
}

/// Many systems let a process have 1024 files unless it asks for what it may have, for the sake of programs that cannot
/// handle more.
fn use_all_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files cannot be raised to what is allowed");
    }
}

/// What others have opened for this process.
fn beginning(settings: &Settings, take_over: bool) -> Result<Start, Box<dyn Error>> {
    let mut sockets = Sockets::of_service_manager()?;
    let mut predecessor = None;
    if take_over {
        let Some(path) = &settings.proxy.handover else {
            return Err("--take-over needs a socket, but proxy.handover is \"off\"".into());
        };
        let (served, theirs) = handover::take_over(path)?;
        sockets.append(theirs);
        predecessor = Some(served);
    }
    Ok(Start { sockets, predecessor, command_line: Some(CommandLine::own()) })
}

async fn run(settings: Settings, start: Start) -> Result<(), Box<dyn Error>> {
    // Before anything is served: a signal that comes early must not kill the process half started.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    // A file that must not grow (ulimit -f) is an error of whoever writes it. Unless somebody listens it ends the process.
    let _never_read = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
    let app = App::start_as(settings, start).await?;
    tracing::info!(listen = ?app.listen, tls = ?app.listen_tls, admin = ?app.admin, "serving");
    tell_service_manager(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
    let retired = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            pid = app.retired() => break Some(pid),
            _ = hangup.recv() => match app.reload().await {
                Ok(report) => tracing::info!(?report, "the configuration was read again"),
                Err(error) => tracing::error!("the configuration was not changed: {}", chain(&error)),
            },
            _ = quit.recv() => upgrade(&app),
        }
    };
    match retired {
        Some(pid) => {
            // The manager believes the main process only, which is this one until now.
            tell_service_manager(&[NotifyState::MainPid(pid)]);
            tracing::info!(pid, "another process serves now; requests in flight are finished here");
        }
        None => {
            tell_service_manager(&[NotifyState::Stopping]);
            tracing::info!("ending: no new connections, requests in flight are finished");
        }
    }
    let ends = app.stop();
    tokio::pin!(ends);
    let clean = tokio::select! {
        clean = &mut ends => clean,
        // Who asks twice does not want to wait.
        _ = terminate.recv(), if retired.is_some() => false,
    };
    match clean {
        true => tracing::info!("ended; every connection was finished"),
        false => tracing::warn!("ended; some connections were cut because the drain timeout was over"),
    }
    Ok(())
}

/// Starts the process that takes over. Nothing waits for it: until it serves, this one does.
fn upgrade(app: &App) {
    let upgrade = app.upgrade();
    tokio::spawn(async move {
        if let Err(error) = upgrade.await {
            tracing::error!("no other process has taken over: {}", chain(&error));
        }
    });
}

/// Tells systemd how it stands, if that is who started this process.
fn tell_service_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Reads the configuration, opens certificates, starts nothing.
pub fn check(path: &Path, form: Format) -> ExitCode {
    let checked = config::check(path, &bad_files);
    let code = if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(WRONG) };
    if form != Format::Table {
        let report = match &checked {
            Ok(settings) => json!({ "file": path, "ok": true, "services": settings.structure.services.len(),
                "warnings": settings.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), "mistakes": [] }),
            Err(mistakes) => {
                json!({ "file": path, "ok": false, "mistakes": mistakes.list().iter().map(mistake).collect::<Vec<_>>() })
            }
        };
        // A reader that went away does not change whether the file is right.
        let _ = Output::new(form, true).show(&report, |_| String::new());
        return code;
    }
    match checked {
        Ok(settings) => {
            for warning in &settings.warnings {
                eprintln!("{}: warning: {warning}", path.display());
            }
            let services = settings.structure.services.len();
            println!("{}: fine, {services} {}", path.display(), if services == 1 { "service" } else { "services" });
        }
        Err(mistakes) => eprintln!("{mistakes}"),
    }
    code
}

fn mistake(mistake: &Mistake) -> Value {
    json!({ "line": mistake.line, "key": mistake.key, "message": mistake.message })
}

fn failed(error: &dyn Error) -> ExitCode {
    logging::flush();
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
