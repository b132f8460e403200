//! The screen: a line about the process, the services, the chosen one, what happened, and which keys there are.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};
use serde_json::Value;

use super::detail;
use super::model::{Model, View};
use super::parts::{
    Ink, at_right, bar, comparison_lines, event_line, name_room, padded, remarks, shown, version_lines, worst,
};
use crate::cli::text::{Fields, counted, cut, latency, per_second, ratio};

/// Columns of the bar of a split and of the gauge of evidence.
const CELLS: usize = 10;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, ink: Ink) {
    let rows = [Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)];
    let [head, middle, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(Paragraph::new(heading(model, head.width.into(), ink)), head);
    match model.view {
        View::Overview => overview(frame, model, middle, ink),
        View::Detail => detail::service(frame, model, middle, ink),
        View::Events => detail::events(frame, model, middle, ink),
    }
    if model.help {
        detail::help(frame, middle, ink);
    }
    let keys = match model.view {
        View::Overview => "↑↓ choose  ⏎ detail  e events  p pause  ? help  q quit",
        View::Detail => "↑↓ other service  esc back  e events  p pause  ? help  q quit",
        View::Events => "↑↓ scroll  esc back  p pause  ? help  q quit",
    };
    frame.render_widget(Paragraph::new(Line::styled(keys, ink.dim())), foot);
}

/// The process in a line, and first of all whether the picture is old.
fn heading(model: &Model, room: usize, ink: Ink) -> Line<'static> {
    let status = &model.look.status;
    let mut spans = Vec::new();
    if let Some(why) = &model.away {
        let text = cut(&format!("reconnecting… {why} "), room).into_owned();
        spans.push(Span::styled(text, ink.of(Color::Red).add_modifier(Modifier::BOLD)));
    } else if model.paused {
        spans.push(Span::styled("paused  ", ink.of(Color::Yellow).add_modifier(Modifier::BOLD)));
    }
    let (state, colour) = match (status.is("draining"), status.is("ready")) {
        (true, _) => ("draining", Color::Yellow),
        (false, true) => ("ready", Color::Green),
        (false, false) => ("not ready", Color::Red),
    };
    let text = |key| status.text(key).unwrap_or_default();
    spans.push(Span::styled(format!("switchback {}", text("version")), ink.bold()));
    spans.push(Span::raw(format!("  {}  ", text("instance"))));
    spans.push(Span::styled(state, ink.of(colour)));
    let store = if status.at("store").is("up") { "up" } else { "away" };
    let count = counted(model.services().count() as u64, "service");
    spans.push(Span::raw(format!("  store {store}  revision {}  {count}", status.count("revision").unwrap_or(0))));
    if status.at("freeze").is_object() {
        spans.push(Span::styled("  frozen", ink.of(Color::Yellow)));
    }
    Line::from(spans)
}

fn overview(frame: &mut Frame<'_>, model: &Model, area: Rect, ink: Ink) {
    let services = model.services().count();
    let chosen = chosen_lines(model, area.width.saturating_sub(2).into(), ink);
    let wanted = u16::try_from(services + 3).unwrap_or(u16::MAX);
    let in_short = u16::try_from(chosen.len() + 2).unwrap_or(u16::MAX);
    let rows = [
        Constraint::Max(wanted.min((area.height / 2).max(4))),
        Constraint::Max(in_short.min(area.height / 2)),
        Constraint::Min(3),
    ];
    let [list, one, events] = Layout::vertical(rows).areas(area);
    services_list(frame, model, list, ink);
    let name = model.chosen().and_then(|service| service.text("name")).unwrap_or_default();
    frame.render_widget(Paragraph::new(chosen).block(titled(&name, ink)), one);
    let inside = usize::from(events.height.saturating_sub(2));
    let first = model.events.len().saturating_sub(inside);
    let room = usize::from(events.width.saturating_sub(2));
    let lines: Vec<_> = model.events.iter().skip(first).map(|event| event_line(event, room, ink)).collect();
    frame.render_widget(Paragraph::new(lines).block(titled("Events", ink)), events);
}

/// A frame with a heading.
pub(super) fn titled(title: &str, ink: Ink) -> Block<'static> {
    Block::new().borders(Borders::ALL).border_style(ink.dim()).title(Span::styled(format!(" {title} "), ink.bold()))
}

fn chosen_lines(model: &Model, room: usize, ink: Ink) -> Vec<Line<'static>> {
    let Some(service) = model.chosen() else { return vec![Line::raw("there are no services")] };
    let stats = model.stats(service);
    let mut lines = version_lines(stats, room, ink);
    lines.extend(comparison_lines(stats, room, ink));
    let remarks = remarks(service).join("; ");
    if !remarks.is_empty() {
        lines.push(Line::styled(cut(&remarks, room).into_owned(), ink.of(Color::Yellow)));
    }
    lines
}

fn services_list(frame: &mut Frame<'_>, model: &Model, area: Rect, ink: Ink) {
    let room = usize::from(area.width.saturating_sub(2));
    // Marks, verdict, bar, numbers, gauge, and what lies between them.
    let name = name_room(model.services(), "name", 7, room.saturating_sub(67).max(10));
    let head = format!(
        "  {}  {}  {}{}{}{}  {}",
        padded("SERVICE", name),
        padded("VERDICT", 8),
        padded("SPLIT", CELLS),
        at_right("RATE", 10),
        at_right("ERRORS", 9),
        at_right("P99", 9),
        "EVIDENCE"
    );
    let mut lines = vec![Line::styled(cut(&head, room).into_owned(), ink.dim())];
    let inside = usize::from(area.height.saturating_sub(3));
    let first = (model.chosen_at() + 1).saturating_sub(inside);
    for service in model.services().skip(first).take(inside) {
        lines.push(service_line(model, service, (name, room), ink));
    }
    frame.render_widget(Paragraph::new(lines).block(titled("Services", ink)), area);
}

/// A line with so many columns for the name, of so many in all.
fn service_line(model: &Model, service: &Value, (name, room): (usize, usize), ink: Ink) -> Line<'static> {
    let chosen = model.chosen().is_some_and(|chosen| std::ptr::eq(chosen, service));
    let stats = model.stats(service);
    let p99 = stats.list("versions").iter().filter(|v| v.number("share").is_some_and(|share| share > 0.0));
    let p99 = p99.filter_map(|version| version.at("latency").number("p99")).max_by(f64::total_cmp);
    let (verdict, style) = ink.verdict(service.at("verdict"));
    let evidence = worst(stats).map_or_else(|| padded("-", CELLS), |far| bar(far, CELLS));
    let numbers = [
        at_right(&shown(service.number("requests_per_second"), per_second), 10),
        at_right(&shown(service.number("error_rate"), ratio), 9),
        at_right(&shown(p99, latency), 9),
    ];
    let (base, rest) = split_bar(service);
    let mut spans = vec![
        Span::raw(if chosen { "▶ " } else { "  " }),
        Span::styled(padded(&service.text("name").unwrap_or_default(), name), ink.bold()),
        Span::styled(format!("  {}  ", padded(&verdict, 8)), style),
        Span::styled(base, ink.of(Color::Blue)),
        Span::styled(rest, ink.of(Color::Magenta)),
        Span::raw(format!("{}  {evidence}", numbers.concat())),
    ];
    // The chosen service's remarks stand below in any case.
    let left = room.saturating_sub(spans.iter().map(Span::width).sum::<usize>() + 2);
    if let Some(remark) = remarks(service).first().filter(|_| left >= 8) {
        spans.push(Span::styled(format!("  {}", cut(remark, left)), ink.of(Color::Yellow)));
    }
    let line = Line::from(spans);
    if chosen { line.patch_style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
}

/// The baseline's share solid, everything else shaded.
fn split_bar(service: &Value) -> (String, String) {
    let weights = service.at("weights").as_object().cloned().unwrap_or_default();
    let base = service.at("baseline").as_str().and_then(|name| weights.get(name)?.as_f64()).unwrap_or(0.0);
    let mut full = (base / 100.0 * CELLS as f64).round() as usize;
    // No share above zero is invisible.
    if base > 0.0 && base < 100.0 {
        full = full.clamp(1, CELLS - 1);
    }
    let full = full.min(CELLS);
    ("█".repeat(full), "▒".repeat(CELLS - full))
}
