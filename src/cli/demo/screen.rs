//! The demo's one screen: redrawn in place on a terminal, a line a second elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use super::load::Seen;
use crate::control::ComparisonReport;
use crate::model::Event;

const BAR: usize = 40;

/// What one picture shows.
pub(super) struct Scene<'a> {
    pub seconds: f64,
    pub caption: &'a str,
    pub shares: [(&'static str, f64); 2],
    pub seen: Seen,
    pub report: Option<&'a ComparisonReport>,
}

/// Where it is shown.
pub(super) struct Screen {
    live: bool,
    lines: usize,
    last_line: f64,
    before: Option<(f64, Seen)>,
    rates: [f64; 2],
}

impl Screen {
    /// `plain`: never redraw.
    pub fn new(plain: bool) -> Self {
        let live = !plain && std::io::stdout().is_terminal();
        Self { live, lines: 0, last_line: -1.0, before: None, rates: [0.0; 2] }
    }

    /// Shows a picture.
    pub fn draw(&mut self, scene: &Scene<'_>) {
        self.measure(scene);
        if !self.live {
            if scene.seconds - self.last_line >= 1.0 {
                self.last_line = scene.seconds;
                println!("{}", self.line(scene));
            }
            return;
        }
        let picture = self.picture(scene);
        let mut out = std::io::stdout().lock();
        let up = if self.lines > 0 { format!("\x1b[{}A", self.lines) } else { String::new() };
        let cleared = picture.replace('\n', "\x1b[K\n");
        let _closed_terminal = write!(out, "{up}{cleared}").and_then(|()| out.flush());
        self.lines = picture.lines().count();
    }

    /// Says an event.
    pub fn note(&mut self, event: &Event) {
        let first = event.reason.split_inclusive(". ").next().unwrap_or_default().trim();
        self.say(&format!("  * {} by {}: {first}", event.kind, event.author));
    }

    /// Says a line below the picture.
    pub fn say(&mut self, text: &str) {
        self.lines = 0;
        println!("{text}");
    }

    /// Requests per second of each version, over the last second or so.
    fn measure(&mut self, scene: &Scene<'_>) {
        let Some((at, seen)) = self.before else {
            self.before = Some((scene.seconds, scene.seen));
            return;
        };
        let elapsed = scene.seconds - at;
        if elapsed >= 1.0 {
            let rate = |i: usize| (scene.seen.by_version[i] - seen.by_version[i]) as f64 / elapsed;
            self.rates = [rate(0), rate(1)];
            self.before = Some((scene.seconds, scene.seen));
        }
    }

    fn line(&self, scene: &Scene<'_>) -> String {
        let [old, new] = scene.shares;
        format!(
            "{:5.1} s  {} {:.0} % ({:.0}/s)  {} {:.0} % ({:.0}/s)  failed {}  evidence {}  {}",
            scene.seconds,
            old.0,
            old.1,
            self.rates[0],
            new.0,
            new.1,
            self.rates[1],
            scene.seen.failures,
            scene.report.map_or_else(|| "-".to_owned(), |r| format!("{:.1} of {:.0}", r.evidence, r.threshold)),
            scene.caption
        )
    }

    fn picture(&self, scene: &Scene<'_>) -> String {
        let mut text = String::new();
        let _text = writeln!(text, "Switchback demo, {:.0} s", scene.seconds);
        let _text = writeln!(text, "{}", scene.caption);
        let _text = writeln!(text);
        for (i, (version, share)) in scene.shares.iter().enumerate() {
            let full = (share / 100.0 * BAR as f64).round() as usize;
            let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
            let failures = scene.seen.failures_by_version[i];
            let _text =
                writeln!(text, "  {version}  {bar} {share:5.1} %  {:4.0} requests/s  {failures} failed", self.rates[i]);
        }
        let evidence = scene.report.map_or_else(
            || "no comparison: one version has everything".to_owned(),
            |r| {
                format!(
                    "{:.1} of {:.0} needed to shift back{}",
                    r.evidence,
                    r.threshold,
                    if r.braked { ", share held back" } else { "" }
                )
            },
        );
        let _text = writeln!(text, "\n  evidence against 2.0.0: {evidence}");
        let _text = writeln!(text, "  requests {}, failed {}", scene.seen.requests, scene.seen.failures);
        text
    }
}
