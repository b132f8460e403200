//! Completions: scripts for shells that ask this program what may come next, and the answer.
//!
//! The scripts know nothing of the verbs: they hand the words of the line to the hidden verb `complete`, which reads them
//! by the same description that the arguments are read by, and asks the admin API for names. So what is offered fits the
//! program that is installed. clap_complete has such an engine as well, but calls it unstable; its own scripts, which offer
//! no names, serve the shells that are not served here.

mod names;
mod place;

use clap::ValueEnum;
use clap_complete::Shell;

use super::args::Global;
use names::Names;
use place::{Place, Wanted};

const BASH: &str = include_str!("switchback.bash");
const ZSH: &str = include_str!("switchback.zsh");
const FISH: &str = include_str!("switchback.fish");

/// Shells whose scripts ask this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Asking {
    /// Splits words at `=` and `:` and wants what comes after them.
    Bash,
    /// Takes a description after a tab.
    Zsh,
    /// Takes a description after a tab.
    Fish,
}

/// One of the things that may come next.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    text: String,
    about: String,
}

/// The script for a shell.
pub(super) fn script(shell: Shell, mut command: clap::Command) -> String {
    match shell {
        Shell::Bash => BASH.to_owned(),
        Shell::Zsh => ZSH.to_owned(),
        Shell::Fish => FISH.to_owned(),
        other => {
            let mut script = Vec::new();
            clap_complete::generate(other, &mut command, "switchback", &mut script);
            String::from_utf8_lossy(&script).into_owned()
        }
    }
}

/// What may stand in the place of the last of the words, for a script: `files`, or `names` and one name per line. Never
/// fails: whoever presses the tab key does not want to read why there is nothing.
pub(super) fn answer(
    command: clap::Command,
    asking: Asking,
    words: &[String],
    global: &Global,
    version: &str,
) -> String {
    let words = if asking == Asking::Bash { joined(words) } else { words.to_vec() };
    let place = Place::find(command, &words);
    let candidates = match &place.wanted {
        Wanted::Files => return "files\n".to_owned(),
        Wanted::Choice(candidates) => candidates.clone(),
        Wanted::Name(kind) => Names::new(&place, global, version).all(*kind),
    };
    let mut text = "names\n".to_owned();
    for Candidate { text: name, about } in candidates {
        let whole = format!("{}{name}", place.before);
        // Line breaks and the like are in no name that may be typed.
        if !name.starts_with(place.begun.as_str()) || whole.contains(char::is_control) {
            continue;
        }
        text.push_str(&match asking {
            Asking::Bash => quoted(&whole[broken_at(&whole, words.last())..]),
            Asking::Zsh | Asking::Fish if about.is_empty() => whole,
            Asking::Zsh | Asking::Fish => format!("{whole}\t{about}"),
        });
        text.push('\n');
    }
    text
}

/// The words as they were typed: Bash makes words of `=` and `:` within them.
fn joined(words: &[String]) -> Vec<String> {
    let breaks = |word: &str| !word.is_empty() && word.chars().all(|c| matches!(c, '=' | ':'));
    let mut out: Vec<String> = Vec::new();
    let mut glue = false;
    for word in words {
        match out.last_mut() {
            Some(last) if glue || breaks(word) => last.push_str(word),
            _ => out.push(word.clone()),
        }
        glue = breaks(word) && !out.is_empty();
    }
    out
}

/// Where in a candidate the piece begins that Bash replaces.
fn broken_at(candidate: &str, typed: Option<&String>) -> usize {
    let typed = typed.map_or("", String::as_str);
    match typed.rfind(['=', ':']) {
        Some(at) if candidate.starts_with(&typed[..=at]) => at + 1,
        _ => 0,
    }
}

/// The name as Bash reads it.
fn quoted(name: &str) -> String {
    let harmless =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '@' | ':' | '+' | ',' | '=' | '%');
    let mut out = String::new();
    for c in name.chars() {
        if !harmless(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn words_that_bash_broke_are_put_together() {
        assert_eq!(joined(&words("split set a 2.0.0 = 10")), words("split set a 2.0.0=10"));
        assert_eq!(joined(&words("events --service =")), words("events --service="));
        assert_eq!(joined(&words("explain a --header x : 1 --key k")), words("explain a --header x:1 --key k"));
        assert_eq!(joined(&words("status ")), words("status "));
    }

    #[test]
    fn bash_gets_what_comes_after_the_break_and_quotes() {
        assert_eq!(broken_at("--service=accounting", Some(&"--service=acc".to_owned())), "--service=".len());
        assert_eq!(broken_at("accounting", Some(&"acc".to_owned())), 0);
        assert_eq!(quoted("acme & sons"), "acme\\ \\&\\ sons");
        assert_eq!(quoted("Zürich-1.0"), "Zürich-1.0");
    }
}
