//! The screen drawn from recorded answers, held against what it should look like, and what keys and news do to it.
//!
//! `SWITCHBACK_GOLDEN=write cargo test --lib top` writes the pictures anew; look at the difference before you commit it.

use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::draw::draw;
use super::feed::Look;
use super::model::{Model, Next, View};
use super::parts::{Ink, gone_so_far};
use super::{News, Told};
use crate::cli::text::Fields;

fn recorded() -> Value {
    serde_json::from_str(include_str!("recorded.json")).unwrap()
}

fn look() -> Look {
    let all = recorded();
    let stats = all.at("stats").as_object().unwrap().clone().into_iter().collect();
    Look { status: all.at("status").clone(), stats, compare: all.at("compare").clone() }
}

fn model() -> Model {
    Model::new(look(), recorded().list("events").to_vec(), None)
}

fn press(model: &mut Model, code: KeyCode) -> Next {
    model.take_in(News::Terminal(Event::Key(KeyEvent::new(code, KeyModifiers::NONE))))
}

fn picture(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, Ink { colour: false })).unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in 0..height {
        let mut line = String::new();
        let mut column = 0;
        while column < width {
            let symbol = buffer[(column, row)].symbol();
            line.push_str(symbol);
            column += unicode_width::UnicodeWidthStr::width(symbol).max(1) as u16;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[track_caller]
fn is_as_recorded(name: &str, picture: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/cli/top/golden/{name}.txt"));
    if std::env::var("SWITCHBACK_GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(&file, picture).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    // Times are shown in the time zone of whoever runs the tests.
    let hours = |text: &str| text.lines().map(|line| line.replacen(hour(line), "hh", 1)).collect::<Vec<_>>().join("\n");
    assert!(hours(&expected) == hours(picture), "{name} is:\n{picture}");
}

/// The hour and minute of a line that tells an event.
fn hour(line: &str) -> &str {
    let at = line.find(":05  ").and_then(|end| line.get(end.checked_sub(5)?..end));
    at.unwrap_or("none")
}

#[test]
fn the_overview_shows_services_the_chosen_one_and_events() {
    is_as_recorded("overview", &picture(&model(), 100, 24));
    is_as_recorded("narrow", &picture(&model(), 80, 20));
}

#[test]
fn the_detail_shows_worst_tenants_and_routes() {
    let mut model = model();
    press(&mut model, KeyCode::Enter);
    is_as_recorded("detail", &picture(&model, 100, 26));
    assert_eq!(model.interest().compared, Some(["accounting", "1.0.0", "2.0.0"].map(str::to_owned)));
    press(&mut model, KeyCode::Char('?'));
    is_as_recorded("help", &picture(&model, 100, 26));
}

#[test]
fn a_server_that_is_away_is_said_first_and_the_picture_stays() {
    let mut model = model();
    model.take_in(News::Away("connection refused".to_owned()));
    let text = picture(&model, 100, 24);
    assert!(text.starts_with("reconnecting… connection refused switchback 0.1.0"), "{text}");
    assert!(text.contains("accounting"));
    model.take_in(News::Looked(Box::new(look())));
    assert!(picture(&model, 100, 24).starts_with("switchback 0.1.0  edge-1  ready"));
}

#[test]
fn no_size_is_too_small() {
    let mut model = model();
    for view in [KeyCode::Esc, KeyCode::Enter, KeyCode::Char('e'), KeyCode::Char('?')] {
        press(&mut model, view);
        for (width, height) in [(1, 1), (5, 2), (20, 5), (40, 9), (300, 3), (79, 60)] {
            picture(&model, width, height);
        }
    }
}

#[test]
fn keys_choose_pause_and_leave() {
    let mut model = model();
    let name = |model: &Model| model.chosen().unwrap().text("name").unwrap();
    assert_eq!(name(&model), "accounting");
    press(&mut model, KeyCode::Char('j'));
    assert_eq!(name(&model), "billing-für-日本");
    press(&mut model, KeyCode::Down);
    press(&mut model, KeyCode::Down);
    assert!(name(&model).starts_with("a-service"), "the last stays the last");
    press(&mut model, KeyCode::Char('k'));
    assert_eq!(name(&model), "billing-für-日本");
    // The chosen service stays chosen wherever it moves, and the nearest is when it goes.
    let mut moved = look();
    moved.status["services"].as_array_mut().unwrap().reverse();
    model.take_in(News::Looked(Box::new(moved.clone())));
    assert_eq!(name(&model), "billing-für-日本");
    moved.status["services"].as_array_mut().unwrap().remove(1);
    model.take_in(News::Looked(Box::new(moved)));
    assert!(name(&model).starts_with("a-service"));

    press(&mut model, KeyCode::Char('e'));
    assert_eq!(model.view, View::Events);
    press(&mut model, KeyCode::Char('p'));
    assert!(model.paused && model.interest().paused);
    model.take_in(News::Event(json!({"id": 9, "kind": "rollback"})));
    assert_eq!(model.events.len(), 3, "the picture stands still");
    press(&mut model, KeyCode::Char('p'));
    assert_eq!((model.events.len(), model.last_event()), (4, 9));
    press(&mut model, KeyCode::Up);
    assert_eq!(model.back, 1);
    press(&mut model, KeyCode::Esc);
    assert_eq!(model.view, View::Overview);
    assert!(matches!(press(&mut model, KeyCode::Char('q')), Next::Quit));
    let control = |c| News::Terminal(Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)));
    assert!(matches!(model.take_in(control('c')), Next::Quit));
    assert!(matches!(model.take_in(control('z')), Next::Stop));
    assert!(matches!(model.take_in(News::Told(Told::End)), Next::Quit));
}

#[test]
fn evidence_is_shown_on_the_scale_on_which_it_grows() {
    let far = |log: f64| gone_so_far(&json!({"log_evidence": log, "threshold": 10_000.0})).unwrap();
    assert_eq!((far(-3.0), far(0.0), far(50.0)), (0.0, 0.0, 1.0));
    assert!((far(100f64.ln()) - 0.5).abs() < 1e-9);
    assert_eq!(gone_so_far(&json!({})), None);
}

#[test]
fn old_events_make_room_for_new_ones() {
    let mut model = model();
    for id in 0..600 {
        model.take_in(News::Event(json!({"id": id, "kind": "split_set"})));
    }
    assert_eq!(model.events.len(), 500);
    assert!(picture(&model, 80, 24).contains("split_set"));
}
