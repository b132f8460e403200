//! The help: verbs in groups by what one wants to do, and examples below each verb.

use std::fmt::Write as _;

use anstyle::Style;
use clap::{Command, CommandFactory as _};

use super::args::CommandLine;
use super::examples::of;

/// Every verb, by what one wants to do.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Run the proxy", &["serve", "check", "health", "reload", "upgrade", "demo"]),
    ("See what goes on", &["status", "top", "services", "stats", "compare", "shadow", "explain", "events"]),
    ("Steer traffic", &["split", "rollback", "pin", "unpin", "versions", "baseline", "tenants", "maintenance"]),
    ("Move step by step", &["rollout", "simulate", "hold", "release", "freeze", "unfreeze", "snapshot"]),
    ("Set up", &["import", "notify", "keys", "schema", "completions", "man", "version", "help"]),
];

const AFTER: &str = "\
Begin with:
  switchback demo                                   see it work
  switchback status -w                              how services stand
  switchback split set accounting 2.0.0=10 1.0.0    10 % of the users to 2.0.0
  switchback rollback accounting --reason \"…\"       all of them back, at once
  switchback help VERB                              more, with examples

Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration.
Settings come from options, then from the environment: SWITCHBACK_ADMIN,
SWITCHBACK_TOKEN, SWITCHBACK_CONFIG.
NO_COLOR switches colours off, CLICOLOR_FORCE=1 on where there is no terminal.";

/// The whole command line with its help.
pub(super) fn command() -> Command {
    let command = with_examples(CommandLine::command(), "");
    let verbs = groups(&command);
    let heading = Style::new().bold().underline();
    command.after_help(AFTER).help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{verbs}{heading}Options of all verbs:{heading:#}\n{{options}}{{after-help}}"
    ))
}

/// The verbs below the headings of their groups.
fn groups(command: &Command) -> String {
    let (heading, literal) = (Style::new().bold().underline(), Style::new().bold());
    let width = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter()).map(|verb| verb.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, verbs) in GROUPS {
        let _infallible = writeln!(text, "{heading}{name}:{heading:#}");
        for verb in verbs {
            let about = match command.find_subcommand(verb).and_then(Command::get_about) {
                Some(about) => about.to_string(),
                None => "Print this, or the help of a verb".to_owned(),
            };
            let _infallible = writeln!(text, "  {literal}{verb:width$}{literal:#}  {about}");
        }
        text.push('\n');
    }
    text
}

/// The command with examples below it and below all that it contains. `path` is what comes before, with a space.
fn with_examples(mut command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    for name in names {
        let path = format!("{path}{name}");
        command = command.mut_subcommand(&name, |verb| {
            let examples: Vec<_> = of(&path).map(|line| format!("  {line}")).collect();
            let verb = with_examples(verb, &format!("{path} "));
            match examples.is_empty() {
                true => verb,
                false => verb.after_help(format!("Examples:\n{}", examples.join("\n"))),
            }
        });
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_one_group() {
        let command = command();
        let mut named: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter().copied()).collect();
        named.retain(|verb| *verb != "help");
        named.sort_unstable();
        let mut all: Vec<&str> =
            command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(Command::get_name).collect();
        all.sort_unstable();
        assert_eq!(named, all);
    }

    #[test]
    fn the_overview_fits_a_narrow_terminal() {
        let text = command().term_width(80).render_help().to_string();
        let long: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert_eq!(long, Vec::<&str>::new(), "{text}");
        for part in ["See what goes on:\n", "\n  rollback     All traffic back", "--admin <URL>", "Exit codes: 0 done"]
        {
            assert!(text.contains(part), "{part:?}: {text}");
        }
    }

    /// Visits everything that can be called.
    fn leaves(command: &Command, path: &str, visit: &mut dyn FnMut(&str)) {
        let verbs: Vec<_> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).collect();
        if verbs.is_empty() {
            visit(path);
        }
        for verb in verbs {
            leaves(verb, format!("{path} {}", verb.get_name()).trim_start(), visit);
        }
    }

    #[test]
    fn every_verb_has_an_example_that_is_right() {
        leaves(&command(), "", &mut |path| {
            assert!(of(path).count() > 0, "{path} has no example");
            for example in of(path) {
                let line = example.split("  #").next().unwrap_or_default();
                let line = line.split(" | ").next().unwrap_or_default().split(" > ").next().unwrap_or_default();
                let words = words(line);
                let matches = command().try_get_matches_from(&words);
                assert!(matches.is_ok(), "{example}: {}", matches.unwrap_err());
                assert!(line.starts_with(&format!("switchback {path}")), "{example} is no example of {path}");
            }
        });
    }

    /// The words of a line in which double quotes keep words together.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.trim().chars() {
            match c {
                '"' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().expect("never empty").push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }
}
