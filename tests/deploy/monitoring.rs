//! `deploy/prometheus` and `deploy/grafana`: what promtool says of them, and that every alert is explained and tested. What
//! they say of a proxy that runs is in `tests/it/monitoring.rs`.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::{path, read, yaml};

const RULES: [&str; 2] = ["deploy/prometheus/rules.yaml", "deploy/prometheus/alerts.yaml"];

fn promtool(arguments: &[&str], files: &[String]) {
    let mut command = Command::new("promtool");
    let output = command.args(arguments).args(files.iter().map(|file| path(file))).output();
    let output = output.expect("these tests need the command promtool: use tests/run");
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "promtool {arguments:?} {files:?}\n{told:?}");
}

/// Files of promtool's tests.
fn tests() -> Vec<String> {
    let files = std::fs::read_dir(path("deploy/prometheus/tests")).unwrap();
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
    files.map(|entry| format!("deploy/prometheus/tests/{}", name(entry.unwrap()))).collect()
}

fn alerts() -> Vec<Value> {
    let file = yaml(&read("deploy/prometheus/alerts.yaml"));
    let rules = file["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.collect()
}

#[test]
fn promtool_accepts_rules_alerts_and_the_example() {
    promtool(&["check", "rules"], &RULES.map(str::to_owned));
    promtool(&["check", "config"], &["deploy/prometheus/prometheus.yml".to_owned()]);
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    promtool(&["test", "rules"], &tests());
    let named = tests().into_iter().flat_map(|file| {
        let file = yaml(&read(&file));
        let names = file["tests"].as_array().unwrap().iter().map(|test| test["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    });
    let named: BTreeSet<String> = named.collect();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        for what in ["fires", "is silent"] {
            assert!(named.iter().any(|test| test.starts_with(&format!("{name} {what}"))), "no test says {name} {what}");
        }
    }
}

/// The lines of a section of a document, by the heading that it has.
fn section<'a>(document: &'a str, heading: &str) -> Vec<&'a str> {
    let level = heading.split(' ').next().unwrap().len();
    let mut lines = document.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "no {heading}");
    let ends = |line: &str| line.starts_with('#') && line.split(' ').next().unwrap().len() <= level;
    lines.take_while(|line| !ends(line)).collect()
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let readme = read("deploy/README.md");
    let runbooks = section(&readme, "## Runbooks");
    let explained: BTreeSet<&str> = runbooks.iter().filter_map(|line| line.strip_prefix("### ")).collect();
    let mut known = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap().to_owned();
        let notes = &alert["annotations"];
        let link = notes["runbook_url"].as_str().unwrap();
        assert_eq!(link, format!("deploy/README.md#{}", name.to_lowercase()));
        assert!(["critical", "warning", "info"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}");
        assert!(notes["summary"].as_str().unwrap().ends_with('.'), "{name}");
        assert!(notes["description"].as_str().unwrap().len() > 60, "{name} says what happens, and to whom");
        let book = section(&readme, &format!("### {name}")).join("\n");
        assert!(book.contains("\n- Look: ") && book.contains("\n- Do: "), "{name}");
        known.insert(name);
    }
    assert_eq!(explained, known.iter().map(String::as_str).collect());
}

#[test]
fn the_commands_of_the_runbooks_exist() {
    let readme = read("deploy/README.md");
    let text = section(&readme, "## Runbooks").join(" ");
    // What stands between backquotes is every other part.
    let commands = text.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("switchback "));
    let mut asked = BTreeSet::new();
    for command in commands {
        // The address of a proxy may come before the verb; names, shares and options after it.
        let command = command.strip_prefix("--admin ").map_or(command, |rest| rest.split_once(' ').unwrap().1);
        let is_verb = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase());
        let verbs: Vec<_> = command.split_whitespace().take_while(is_verb).collect();
        assert!(!verbs.is_empty(), "{command}");
        let options = command.split_whitespace().filter(|word| word.starts_with("--"));
        asked.insert((verbs, options.collect::<Vec<_>>()));
    }
    assert!(asked.len() > 15, "{asked:?}");
    for (verbs, options) in asked {
        let help = Command::new(env!("CARGO_BIN_EXE_switchback")).args(&verbs).arg("--help").output().unwrap();
        assert!(help.status.success(), "switchback {verbs:?}");
        let help = String::from_utf8(help.stdout).unwrap();
        for option in options {
            assert!(help.contains(option), "switchback {verbs:?} {option}");
        }
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_can_draw() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/switchback.json")).unwrap();
    assert_eq!(dashboard["uid"], "switchback");
    assert_eq!(dashboard["id"], Value::Null, "Grafana gives it a number");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "service", "version", "tenant"]);
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels of one number");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let title = panel["title"].as_str().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}");
        for (x, y) in (place("y")..place("y") + place("h"))
            .flat_map(|y| (place("x")..place("x") + place("w")).map(move |x| (x, y)))
        {
            assert!(taken.insert((x, y)), "{title} lies over another panel");
        }
        if panel["type"] != "row" {
            assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{title} explains itself");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title}");
        }
    }
    let source = yaml(&read("deploy/grafana/provisioning/datasources/switchback.yaml"));
    assert_eq!(source["datasources"][0]["type"], "prometheus");
    let scraped = yaml(&read("deploy/prometheus/prometheus.yml"));
    assert_eq!(source["datasources"][0]["jsonData"]["timeInterval"], scraped["global"]["scrape_interval"]);
    let provider = yaml(&read("deploy/grafana/provisioning/dashboards/switchback.yaml"));
    let folder = provider["providers"][0]["options"]["path"].as_str().unwrap();
    assert!(read("deploy/README.md").contains(&format!("`{folder}/switchback.json`")), "{folder}");
}
