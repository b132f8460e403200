//! What several parts of the screen are made of: inks, bars, gauges, and lines for versions, comparisons and events.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use serde_json::Value;

use crate::cli::text::{Fields, NOTHING, clean, cut, evidence, latency, per_second, percent, ratio, time, width};

/// Whether there are colours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ink {
    pub(super) colour: bool,
}

impl Ink {
    /// That colour, if there are any.
    pub(super) fn of(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// Headings.
    pub(super) fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Less important.
    pub(super) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// A verdict; the word says it as well.
    pub(super) fn verdict(self, verdict: &Value) -> (String, Style) {
        match verdict.as_str() {
            Some("healthy") => ("healthy".to_owned(), self.of(Color::Green)),
            Some("breach") => ("BREACH".to_owned(), self.of(Color::Red).add_modifier(Modifier::BOLD)),
            Some("not_enough_evidence") => ("unproven".to_owned(), self.of(Color::Yellow)),
            Some(other) => (clean(other).into_owned(), Style::new()),
            None => (NOTHING.to_owned(), Style::new()),
        }
    }
}

/// A field in so many columns, filled up or cut.
pub(super) fn padded(text: &str, room: usize) -> String {
    let text = cut(text, room);
    format!("{text}{}", " ".repeat(room.saturating_sub(width(&text))))
}

/// The same with the text at the right.
pub(super) fn at_right(text: &str, room: usize) -> String {
    let text = cut(text, room);
    format!("{}{text}", " ".repeat(room.saturating_sub(width(&text))))
}

/// A part of a whole; what is above zero is never invisible.
pub(super) fn bar(part: f64, cells: usize) -> String {
    let full = if part > 0.0 { ((part * cells as f64).round() as usize).clamp(1, cells) } else { 0 };
    format!("{}{}", "█".repeat(full), "░".repeat(cells - full))
}

/// How far the evidence has come from fine (0) to go back (1): on the scale of its logarithm, as it grows.
pub(super) fn gone_so_far(comparison: &Value) -> Option<f64> {
    let threshold = comparison.number("threshold").filter(|t| *t > 1.0)?;
    let log = comparison.number("log_evidence").or_else(|| comparison.number("evidence").map(f64::ln))?;
    Some((log / threshold.ln()).clamp(0.0, 1.0))
}

/// The worst comparison of a service.
pub(super) fn worst(stats: &Value) -> Option<f64> {
    stats.list("comparisons").iter().filter_map(gone_so_far).max_by(f64::total_cmp)
}

/// A number shown that way, or a dash.
pub(super) fn shown(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| NOTHING.to_owned(), show)
}

/// The widest name among them, within reason.
pub(super) fn name_room<'v>(values: impl Iterator<Item = &'v Value>, key: &str, least: usize, most: usize) -> usize {
    values.filter_map(|value| value.text(key)).map(|name| width(&name)).max().unwrap_or(0).clamp(least, most)
}

/// The versions of a service, one line each below a heading.
pub(super) fn version_lines(stats: &Value, room: usize, ink: Ink) -> Vec<Line<'static>> {
    let versions = stats.list("versions");
    let name = name_room(versions.iter(), "version", 7, 16);
    let cells = room.saturating_sub(name + 58).clamp(6, 30);
    let head = format!(
        "{}  {}  {}{}{}{}{}",
        padded("VERSION", name),
        padded("ROLE", 8),
        padded("SHARE", cells + 8),
        at_right("RATE", 10),
        at_right("ERRORS", 9),
        at_right("P50", 9),
        at_right("P99", 9),
    );
    let mut lines = vec![Line::styled(head, ink.dim())];
    for version in versions {
        let share = version.number("share");
        let colour = if version.at("role") == "baseline" { Color::Blue } else { Color::Magenta };
        let latency_of = |key| shown(version.at("latency").number(key), latency);
        let numbers = [
            (shown(version.number("requests_per_second"), per_second), 10),
            (shown(version.number("error_rate"), ratio), 9),
            (latency_of("p50"), 9),
            (latency_of("p99"), 9),
        ];
        let text = |key| version.text(key).unwrap_or_default();
        lines.push(Line::from(vec![
            Span::styled(padded(&text("version"), name), ink.bold()),
            Span::raw(format!("  {}  ", padded(&text("role"), 8))),
            Span::styled(bar(share.unwrap_or_default() / 100.0, cells), ink.of(colour)),
            Span::raw(at_right(&shown(share, percent), 8)),
            Span::raw(numbers.map(|(number, room)| at_right(&number, room)).concat()),
        ]));
    }
    lines
}

/// What the guard makes of each canary: a verdict, and the evidence as a gauge.
pub(super) fn comparison_lines(stats: &Value, room: usize, ink: Ink) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for comparison in stats.list("comparisons") {
        let (canary, baseline) = (comparison.text("canary"), comparison.text("baseline"));
        let (word, style) = ink.verdict(comparison.at("verdict"));
        let whose = format!("{} against {}: ", canary.unwrap_or_default(), baseline.unwrap_or_default());
        let mut spans = vec![Span::raw(cut(&whose, room / 2).into_owned()), Span::styled(word, style)];
        if comparison.is("braked") {
            spans.push(Span::styled(", share held back", ink.of(Color::Yellow)));
        }
        if comparison.is("promotion_ready") {
            spans.push(Span::styled(", may be promoted", ink.of(Color::Green)));
        }
        lines.push(Line::from(spans));
        lines.push(gauge(comparison, room, ink));
    }
    lines
}

/// `fine ███░░░ go back   12 of 10000`.
fn gauge(comparison: &Value, room: usize, ink: Ink) -> Line<'static> {
    let Some(far) = gone_so_far(comparison) else { return Line::raw("") };
    let colour = match far {
        far if far >= 1.0 => Color::Red,
        far if far >= 0.5 => Color::Yellow,
        _ => Color::Green,
    };
    let of = |key| shown(comparison.number(key), evidence);
    let numbers = format!("  evidence {} of {}", of("evidence"), of("threshold"));
    let cells = room.saturating_sub("  fine  go back".len() + width(&numbers)).clamp(4, 40);
    Line::from(vec![
        Span::styled("  fine ", ink.dim()),
        Span::styled(bar(far, cells), ink.of(colour)),
        Span::styled(" go back", ink.dim()),
        Span::raw(numbers),
    ])
}

/// What holds for a service beyond numbers, in a few words each.
pub(super) fn remarks(service: &Value) -> Vec<String> {
    let mut remarks = Vec::new();
    if service.at("intended").is_object() {
        remarks.push("braked".to_owned());
    }
    if let Some(version) = service.at("rolled_back").text("version") {
        remarks.push(format!("{version} rolled back"));
    }
    if service.at("hold").is_object() {
        remarks.push("on hold".to_owned());
    }
    if service.at("maintenance").is_object() {
        remarks.push("in maintenance".to_owned());
    }
    let rollout = service.at("rollout");
    if let Some(id) = rollout.text("id") {
        let text = |key| rollout.text(key).unwrap_or_default();
        remarks.push(format!(
            "rollout {id} to {}: {}, step {}",
            text("to"),
            text("phase").replace('_', " "),
            text("step")
        ));
    }
    remarks
}

/// One event in one line.
pub(super) fn event_line(event: &Value, room: usize, ink: Ink) -> Line<'static> {
    let text = |key| event.text(key).unwrap_or_default();
    let at = time(event.at("at"));
    // The day is left out where the hour is there.
    let at = at.split_once(' ').map_or(at.as_str(), |(_, hour)| hour).to_owned();
    let kind = text("kind");
    let style = match kind.as_str() {
        "rollback" => ink.of(Color::Red).add_modifier(Modifier::BOLD),
        "brake" | "probe" | "hold_slo" | "split_off" | "reload_failed" => ink.of(Color::Yellow),
        _ => Style::new(),
    };
    let tenant = event.text("tenant").map(|tenant| format!("/{tenant}")).unwrap_or_default();
    let version = event.text("version").map(|version| format!(" {version}")).unwrap_or_default();
    let about = cut(&format!("{}{tenant}{version}", text("service")), room / 2).into_owned();
    let by = event.at("author");
    let by = by.text("name").or_else(|| by.text("kind")).unwrap_or_default();
    let rest = format!("  {about}  {by}: {}", text("reason"));
    let rest = cut(&rest, room.saturating_sub(width(&at) + 2 + width(&kind))).into_owned();
    Line::from(vec![Span::styled(at, ink.dim()), Span::raw("  "), Span::styled(kind, style), Span::raw(rest)])
}
