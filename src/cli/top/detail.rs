//! What fills the screen on request: one service with its worst tenants, all events, and what the keys do.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Color;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};
use serde_json::Value;

use super::draw::titled;
use super::model::Model;
use super::parts::{Ink, at_right, comparison_lines, event_line, name_room, padded, remarks, shown, version_lines};
use crate::cli::text::{Fields, cut, latency, ratio};

const KEYS: [(&str, &str); 9] = [
    ("↑ ↓ j k", "choose a service, or scroll the events"),
    ("page up, page down", "ten at a time"),
    ("enter", "the chosen service: versions, comparisons, worst tenants"),
    ("e", "the events, and back"),
    ("esc", "back to all services"),
    ("p", "hold the picture still, and go on"),
    ("?", "this"),
    ("q, Ctrl-C", "quit"),
    ("Ctrl-Z", "back to the shell for a while"),
];

/// Everything about the chosen service.
pub(super) fn service(frame: &mut Frame<'_>, model: &Model, area: Rect, ink: Ink) {
    let Some(service) = model.chosen() else {
        return frame.render_widget(Paragraph::new("there is no such service"), area);
    };
    let name = service.text("name").unwrap_or_default();
    let room = usize::from(area.width.saturating_sub(2));
    let stats = model.stats(service);
    let mut top = version_lines(stats, room, ink);
    top.extend(comparison_lines(stats, room, ink));
    for remark in remarks(service) {
        top.push(Line::styled(cut(&remark, room).into_owned(), ink.of(Color::Yellow)));
    }
    let height = u16::try_from(top.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let rows = [Constraint::Length(height), Constraint::Min(0), Constraint::Max(area.height / 4)];
    let [above, middle, below] = Layout::vertical(rows).areas(area);
    frame.render_widget(Paragraph::new(top).block(titled(&name, ink)), above);
    let halves = [Constraint::Percentage(50), Constraint::Percentage(50)];
    let [left, right] = Layout::horizontal(halves).areas(middle);
    // The comparison of another service may still be there for a moment.
    let compare = Some(&model.look.compare).filter(|c| c.text("service").as_ref() == Some(&name));
    let compare = compare.unwrap_or(&Value::Null);
    let inside = |area: Rect| usize::from(area.width.saturating_sub(2));
    frame.render_widget(Paragraph::new(tenants(compare, inside(left), ink)).block(titled("Worst tenants", ink)), left);
    frame.render_widget(Paragraph::new(routes(compare, inside(right), ink)).block(titled("Worst routes", ink)), right);
    let own: Vec<&Value> = model.events.iter().filter(|event| event.text("service").as_ref() == Some(&name)).collect();
    let first = own.len().saturating_sub(below.height.saturating_sub(2).into());
    let lines: Vec<_> = own[first..].iter().map(|event| event_line(event, inside(below), ink)).collect();
    frame.render_widget(Paragraph::new(lines).block(titled("Events", ink)), below);
}

fn failed(side: &Value) -> String {
    let count = side.count("failures_total").or_else(|| side.count("failures"));
    match (count, side.count("requests")) {
        (Some(failed), Some(requests)) => format!("{failed}/{requests}"),
        _ => "-".to_owned(),
    }
}

fn tenants(compare: &Value, room: usize, ink: Ink) -> Vec<Line<'static>> {
    let all = compare.list("tenants");
    if all.is_empty() {
        return vec![Line::styled("no tenant fails more than others", ink.dim())];
    }
    let name = name_room(all.iter(), "tenant", 6, room.saturating_sub(24).max(6));
    let head = format!("{}{}{}", padded("TENANT", name), at_right("FAILED A", 12), at_right("FAILED B", 12));
    let mut lines = vec![Line::styled(head, ink.dim())];
    for tenant in all {
        let worse = tenant.at("b").number("error_rate") > tenant.at("a").number("error_rate");
        lines.push(Line::from(vec![
            Span::raw(padded(&tenant.text("tenant").unwrap_or_default(), name)),
            Span::raw(at_right(&failed(tenant.at("a")), 12)),
            marked(at_right(&failed(tenant.at("b")), 12), worse, ink),
        ]));
    }
    lines
}

fn routes(compare: &Value, room: usize, ink: Ink) -> Vec<Line<'static>> {
    let all = compare.list("routes");
    if all.is_empty() {
        return vec![Line::styled("no route is known yet", ink.dim())];
    }
    let name = name_room(all.iter(), "route", 6, room.saturating_sub(20).max(6));
    let head = format!("{}{}{}", padded("ROUTE", name), at_right("ERRORS B", 10), at_right("P99 B", 10));
    let mut lines = vec![Line::styled(head, ink.dim())];
    for route in all {
        let more = |key: &str| route.number(key).is_some_and(|n| n > 0.0);
        let b = route.at("b");
        lines.push(Line::from(vec![
            Span::raw(padded(&route.text("route").unwrap_or_default(), name)),
            marked(at_right(&shown(b.number("error_rate"), ratio), 10), more("excess_failures"), ink),
            marked(at_right(&shown(b.at("latency").number("p99"), latency), 10), more("excess_slow"), ink),
        ]));
    }
    lines
}

/// What is worse has a mark, for those who see no colours.
fn marked(text: String, worse: bool, ink: Ink) -> Span<'static> {
    match worse {
        true => Span::styled(
            text.replacen(' ', "", 1).replacen(text.trim(), &format!("▲{}", text.trim()), 1),
            ink.of(Color::Red),
        ),
        false => Span::raw(text),
    }
}

/// All events, the newest at the bottom.
pub(super) fn events(frame: &mut Frame<'_>, model: &Model, area: Rect, ink: Ink) {
    let inside = usize::from(area.height.saturating_sub(2));
    let room = usize::from(area.width.saturating_sub(2));
    let end = model.events.len().saturating_sub(model.back).max(inside.min(model.events.len()));
    let lines: Vec<_> = model.events.range(end.saturating_sub(inside)..end).map(|e| event_line(e, room, ink)).collect();
    frame.render_widget(Paragraph::new(lines).block(titled("Events", ink)), area);
}

/// What the keys do, over everything else.
pub(super) fn help(frame: &mut Frame<'_>, area: Rect, ink: Ink) {
    let lines: Vec<_> = KEYS
        .iter()
        .map(|(key, does)| Line::from(vec![Span::styled(padded(key, 20), ink.bold()), Span::raw(*does)]))
        .collect();
    let (width, height) = (area.width.min(80), area.height.min(KEYS.len() as u16 + 2));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(titled("Keys", ink)), place);
}
