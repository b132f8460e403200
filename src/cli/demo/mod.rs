//! `switchback demo`: the main job on one screen, within a minute, with nothing installed.
//!
//! Two versions of a small API, a load of about 200 requests a second, and the real proxy between them, all in this
//! process on free ports. The new version gets 10 %, then 50 %, then breaks; the guard takes its traffic back.

mod backend;
mod load;
mod screen;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::backend::Backend;
use self::load::Load;
use self::screen::{Scene, Screen};
use crate::app::App;
use crate::config;
use crate::model::{
    Author, BasisPoints, Change, ChangeRequest, Event, EventKind, Scope, ServiceName, VersionName, Weights,
};

/// The service that is shown.
const SERVICE: &str = "shop";
const OLD: &str = "1.0.0";
const NEW: &str = "2.0.0";

/// How long each act lasts.
const ACT: Duration = Duration::from_secs(7);
/// How long the guard may take before the demo gives up on it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(250);

/// Shows a canary that goes bad and is shifted back. `keep`: leave everything running until Ctrl-C. `plain`: lines
/// instead of a screen that is redrawn.
pub fn demo(keep: bool, plain: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("switchback: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(play(keep, plain)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("switchback: the guard did not act in time");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("switchback: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that runs during the demo.
struct Stage {
    app: App,
    new: Backend,
    load: Load,
    screen: Screen,
    begun: Instant,
}

async fn play(keep: bool, plain: bool) -> Result<bool, Box<dyn Error>> {
    let folder = Folder::new()?;
    let old = Backend::start(OLD).await?;
    let new = Backend::start(NEW).await?;
    let text = configuration(&folder, &old, &new);
    let settings = config::parse(&text, &folder.0.join("switchback.toml"), &|_| None)?;
    let app = App::start(settings).await?;
    let proxy = *app.listen.first().ok_or("no listener")?;
    let load = Load::start(proxy);
    let mut stage = Stage { app, new, load, screen: Screen::new(plain), begun: Instant::now() };
    stage.screen.say(&format!("The same on the dashboard: http://{}/", stage.admin()));
    stage.show("All traffic goes to 1.0.0. The guard learns how fast it answers.", ACT).await;
    stage.split(10).await?;
    stage.show("Version 2.0.0 gets 10 % of the users. Each user stays on one version.", ACT).await;
    stage.split(50).await?;
    stage.show("It looks good, so 2.0.0 gets 50 %. Only users who must move do.", ACT).await;
    let broken = Instant::now();
    stage.new.break_it();
    let event = stage.await_rollback("Version 2.0.0 has just begun to fail 30 % of its requests.").await?;
    let took = broken.elapsed();
    if event.is_some() {
        stage.show("Traffic is back on 1.0.0.", Duration::from_secs(4)).await;
    }
    stage.load.stop();
    stage.finish(event.as_ref(), took).await;
    if keep {
        stage.screen.say(&format!(
            "Still running: proxy http://{proxy}, dashboard http://{}/. End with Ctrl-C.",
            stage.admin()
        ));
        tokio::signal::ctrl_c().await?;
    }
    stage.app.stop().await;
    Ok(event.is_some())
}

impl Stage {
    fn admin(&self) -> String {
        self.app.admin.map_or_else(|| "-".to_owned(), |a| a.to_string())
    }

    async fn split(&self, percent: u16) -> Result<(), Box<dyn Error>> {
        let share = BasisPoints::new(percent * 100).ok_or("share")?;
        let rest = BasisPoints::new(10_000 - percent * 100).ok_or("share")?;
        let weights = Weights::new([(VersionName::new(NEW)?, share), (VersionName::new(OLD)?, rest)])?;
        let request = ChangeRequest {
            service: ServiceName::new(SERVICE)?,
            change: Change::SetSplit { scope: Scope::Service, weights },
            author: Author::Person { name: "demo".to_owned() },
            reason: format!("{percent} % for the new version"),
            if_revision: None,
            if_attempt: None,
            evidence: Value::Null,
        };
        self.app.control.submit(request, false).await?;
        Ok(())
    }

    /// Draws for a while.
    async fn show(&mut self, caption: &str, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end {
            self.draw(caption);
            tokio::time::sleep(FRAME).await;
        }
    }

    /// Draws until the guard has shifted back.
    async fn await_rollback(&mut self, caption: &str) -> Result<Option<Event>, Box<dyn Error>> {
        let mut events = self.app.control.subscribe();
        let end = Instant::now() + PATIENCE;
        let mut frame = tokio::time::interval(FRAME);
        while Instant::now() < end {
            tokio::select! {
                event = events.recv() => {
                    let event: Arc<Event> = event?;
                    self.screen.note(&event);
                    if event.kind == EventKind::Rollback {
                        return Ok(Some((*event).clone()));
                    }
                }
                _ = frame.tick() => self.draw(caption),
            }
        }
        Ok(None)
    }

    fn draw(&mut self, caption: &str) {
        let view = self.app.control.view();
        let Some(live) = view.state.service(SERVICE) else { return };
        let weights = live.weights_in_effect(&live.split);
        let report = self.app.control.board().of(&view.routes.services[0].spec.name, None).into_iter().next();
        let scene = Scene {
            seconds: self.begun.elapsed().as_secs_f64(),
            caption,
            shares: [OLD, NEW].map(|v| (v, weights.share(v).percent())),
            seen: self.load.seen(),
            report: report.as_ref(),
        };
        self.screen.draw(&scene);
    }

    async fn finish(&mut self, event: Option<&Event>, took: Duration) {
        self.screen.say("");
        if let Some(event) = event {
            self.screen.say(&event.reason);
            self.screen.say("");
            self.screen.say(&format!(
                "Time from the first bad request to the rollback: {:.1} s (broken {:.1} s ago).",
                event.first_bad_to_rollback_ms.unwrap_or_default() as f64 / 1_000.0,
                took.as_secs_f64()
            ));
        }
        let seen = self.load.seen();
        let counted = self.counted_failures();
        self.screen.say(&format!(
            "Clients sent {} requests; {} failed, and the proxy counted {counted} failures.",
            seen.requests, seen.failures
        ));
    }

    /// Failures as the proxy's own metrics tell them.
    fn counted_failures(&self) -> u64 {
        let text = self.app.metrics.render();
        let lines = text.lines().filter(|l| l.starts_with("switchback_request_failures_total{"));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }
}

fn configuration(folder: &Folder, old: &Backend, new: &Backend) -> String {
    format!(
        r#"
[proxy]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
endpoint_networks = ["127.0.0.0/8"]
[store]
path = "{store}"
[services.{SERVICE}]
match = [{{ path = "/" }}]
sticky = [{{ header = "x-user-id" }}]
baseline = "{OLD}"
[services.{SERVICE}.versions."{OLD}"]
endpoints = ["{old}"]
[services.{SERVICE}.versions."{NEW}"]
endpoints = ["{new}"]
"#,
        store = folder.0.join("demo.db").display(),
        old = old.address,
        new = new.address,
    )
}

/// A folder that goes away with the demo.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("switchback-demo-{:x}", rand::random::<u64>()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_for_the_system = std::fs::remove_dir_all(&self.0);
    }
}
