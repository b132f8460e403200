//! Completions in the shells they are for, and manual pages before the tools that read them. `tests/run` installs both.

mod fake;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use fake::{Fake, Ran, cli, problem};

/// An API with names to offer; it is asked with a token.
fn api() -> Fake {
    Fake::new(|seen, _| {
        if seen.header("authorization") != Some("Bearer secret") {
            return problem(401, json!({"title": "No token"}));
        }
        let document: Value = match seen.line.as_str() {
            "GET /v1/services" => {
                json!({"services": [{"name": "accounting", "baseline": "1.0.0"}, {"name": "billing", "baseline": "3"}]})
            }
            "GET /v1/services/accounting" => {
                json!({"versions": [{"name": "1.0.0", "role": "baseline"}, {"name": "2.0.0", "role": "canary"}],
                "pins": [{"kind": "tenant", "name": "acme & sons"}], "groups": {"beta": {}}})
            }
            "GET /v1/services/accounting/tenants?search=ac&limit=200" => {
                json!({"tenants": [{"name": "acme"}, {"name": "not-at-its-beginning-ac"}]})
            }
            "GET /v1/rollouts" => {
                json!({"rollouts": [{"id": "r7", "service": "accounting", "to": "2.0.0", "phase": "progressing"}]})
            }
            "GET /v1/snapshots" => json!({"snapshots": [{"name": "monday", "reason": "a sale"}]}),
            _ => return problem(404, json!({"title": "Not found", "detail": seen.line})),
        };
        fake::json_answer(200, "application/json", &document)
    })
}

/// Runs a shell with the completion script, the program on its path and the API in its environment.
fn shell(fake: &Fake, name: &str, text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("switchback.completion");
    std::fs::write(&script, Ran::from(cli(&["completions", name]).output().unwrap()).done()).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_switchback"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(name);
    if name == "zsh" {
        command.arg("-f");
    }
    let output = command
        .args(["-c", text])
        .env("SCRIPT", &script)
        .env("PATH", path)
        .env("HOME", dir.path())
        .env("SWITCHBACK_ADMIN", format!("http://{}", fake.address))
        .env("SWITCHBACK_TOKEN", "secret")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{name} is needed, tests/run installs it: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{name}: {errors}");
    let mut lines: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn in_bash(fake: &Fake, words: &str) -> Vec<String> {
    // The last word is the one that is completed; `''` is an empty one.
    let text = format!(
        "source \"$SCRIPT\" && COMP_WORDS=(switchback {words}) && COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) && _switchback && \
         (( ${{#COMPREPLY[@]}} == 0 )) || printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    shell(fake, "bash", &text)
}

#[test]
fn scripts_are_accepted_by_their_shells() {
    let fake = api();
    for name in ["bash", "zsh", "fish"] {
        shell(&fake, name, &format!("{name} -n \"$SCRIPT\""));
    }
}

#[test]
fn bash_completes_verbs_options_and_names() {
    let fake = api();
    assert_eq!(in_bash(&fake, "rollo"), ["rollout"]);
    assert_eq!(in_bash(&fake, "rollout sta"), ["start", "statistics", "status"]);
    assert_eq!(in_bash(&fake, "split set accounting --re"), ["--reason"]);
    assert_eq!(in_bash(&fake, "services get ''"), ["accounting", "billing"]);
    assert_eq!(in_bash(&fake, "rollback acc"), ["accounting"]);
    assert_eq!(in_bash(&fake, "split set accounting ''"), ["1.0.0", "2.0.0"]);
    assert_eq!(in_bash(&fake, "split get accounting --tenant ac"), ["acme", "acme\\ \\&\\ sons"]);
    assert_eq!(in_bash(&fake, "split get accounting --tenant = ac"), ["acme", "acme\\ \\&\\ sons"], "bash breaks at =");
    assert_eq!(in_bash(&fake, "split get accounting --group ''"), ["beta"]);
    assert_eq!(in_bash(&fake, "rollout get r"), ["r7"]);
    assert_eq!(in_bash(&fake, "snapshot restore ''"), ["monday"]);
    assert_eq!(in_bash(&fake, "status -o ''"), ["json", "table", "yaml"]);
    assert_eq!(in_bash(&fake, "services get nothing-like-it"), Vec::<String>::new());
    let files = in_bash(&fake, "check --config Cargo.to");
    assert_eq!(files, ["Cargo.toml"]);
}

#[test]
fn zsh_and_fish_complete_with_descriptions() {
    let fake = api();
    let zsh = |words: &str, prefix: &str| {
        let text = format!(
            "compdef() {{ }}; compadd() {{ print -rl -- \"${{shown[@]}}\" }}; source \"$SCRIPT\"; \
             words=(switchback {words} '{prefix}'); CURRENT=$#words; PREFIX='{prefix}'; _switchback"
        );
        shell(&fake, "zsh", &text)
    };
    assert_eq!(zsh("services get", "acc"), ["accounting  -- baseline 1.0.0"]);
    assert_eq!(zsh("", "rollo"), ["rollout  -- Planned moves from one version to another"]);
    assert_eq!(
        zsh("split get accounting", "--tenant=ac"),
        ["--tenant=acme  -- has a split of its own", "--tenant=acme & sons  -- is pinned"]
    );
    let fish = |line: &str| shell(&fake, "fish", &format!("source $SCRIPT; complete -C '{line}'"));
    assert_eq!(fish("switchback services get acc"), ["accounting\tbaseline 1.0.0"]);
    assert_eq!(fish("switchback rollout get "), ["r7\taccounting to 2.0.0, progressing"]);
    assert_eq!(fish("switchback rollo"), ["rollout\tPlanned moves from one version to another"]);
    assert_eq!(fish("switchback split get accounting --group "), ["beta\thas a split of its own"]);
}

#[test]
fn whoever_completes_never_waits_long_nor_reads_errors() {
    // Takes connections and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    for url in [silent.as_str(), "http://127.0.0.1:1", "nonsense://"] {
        let begin = std::time::Instant::now();
        let args = ["complete", "--shell", "bash", "--", "--admin", url, "services", "get", ""];
        let ran = Ran::from(cli(&args).output().unwrap());
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "names\n", ""), "{url}");
        assert!(begin.elapsed() < std::time::Duration::from_secs(3), "{url}: {:?}", begin.elapsed());
    }
}

/// Every command that the help names, such as `["split", "set"]`.
fn all_verbs(of: &[String]) -> Vec<Vec<String>> {
    let mut args: Vec<&str> = vec!["complete", "--shell", "bash", "--"];
    args.extend(of.iter().map(String::as_str));
    args.push("");
    let answer = Ran::from(cli(&args).env("SWITCHBACK_ADMIN", "http://127.0.0.1:1").output().unwrap()).done();
    let help = Ran::from(
        cli(&[&of.iter().map(String::as_str).collect::<Vec<_>>()[..], &["--help"]].concat()).output().unwrap(),
    );
    let has_verbs = help.out.contains("<COMMAND>") || help.out.contains("[COMMAND]");
    let mut all = vec![of.to_vec()];
    for verb in answer.lines().skip(1).filter(|verb| has_verbs && *verb != "help") {
        all.extend(all_verbs(&[of, &[verb.to_owned()]].concat()));
    }
    all
}

#[test]
fn every_verb_has_a_manual_page_that_is_well_formed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    let out = Ran::from(cli(&["man", folder.to_str().unwrap()]).output().unwrap()).done();
    let mut pages: Vec<_> = out.lines().map(str::to_owned).collect();
    pages.sort();
    let mut expected: Vec<_> = all_verbs(&[])
        .iter()
        .map(|verb| format!("{}.1", [&["switchback".to_owned()][..], verb].concat().join("-")))
        .collect();
    expected.sort();
    assert!(expected.len() > 50, "{expected:?}");
    assert_eq!(pages, expected);
    for page in &pages {
        let file = folder.join(page);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}");
        let lint = Command::new("mandoc").args(["-Tlint", "-W", "warning"]).arg(&file).output();
        let lint = lint.expect("mandoc is needed, tests/run installs it");
        assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    }
    let json = Ran::from(cli(&["man", folder.to_str().unwrap(), "-o", "json"]).output().unwrap()).done();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["pages"].as_array().unwrap().len(), pages.len());
    let set = std::fs::read_to_string(folder.join("switchback-split-set.1")).unwrap();
    assert!(set.contains(".SH EXAMPLES") && set.contains(".BR switchback\\-split (1)"), "{set}");
    let all = std::fs::read_to_string(folder.join("switchback.1")).unwrap();
    assert!(all.contains("EXIT STATUS") && all.contains("SWITCHBACK_ADMIN"), "{all}");
    let nowhere = Ran::from(cli(&["man", "/proc/no/such/folder"]).output().unwrap()).failed(1);
    assert!(nowhere.contains("/proc/no/such/folder cannot be written"), "{nowhere}");
}
