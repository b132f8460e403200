//! Where in a command line the cursor stands: at a verb, an option or a value, and of what. Pure.

use std::collections::HashMap;

use clap::{Arg, ArgAction, Command, ValueHint};

use super::Candidate;
use super::names::Kind;

/// What may stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One of these.
    Choice(Vec<Candidate>),
    /// A name that the admin API knows.
    Name(Kind),
    /// A file or folder.
    Files,
}

/// A place in a command line.
#[derive(Debug)]
pub(super) struct Place {
    /// What may stand there.
    pub(super) wanted: Wanted,
    /// The beginning of it that was typed.
    pub(super) begun: String,
    /// What belongs to the same word and stands before it: `--service=`.
    pub(super) before: String,
    /// The values of arguments before it, by the arguments' ids.
    values: HashMap<String, String>,
}

/// What was read of the line so far.
struct Reader {
    command: Command,
    values: HashMap<String, String>,
    /// The option whose value comes next.
    pending: Option<Arg>,
    /// How many positional arguments there were.
    positional: usize,
    /// After `--` nothing is an option.
    no_options: bool,
}

impl Place {
    /// The place of the last word, after the ones before it.
    pub(super) fn find(mut command: Command, words: &[String]) -> Self {
        command.build();
        let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
        let mut reader = Reader { command, values: HashMap::new(), pending: None, positional: 0, no_options: false };
        before.iter().for_each(|word| reader.read(word));
        reader.place(last)
    }

    /// The value of an argument before the place.
    pub(super) fn value(&self, id: &str) -> Option<&str> {
        self.values.get(id).map(String::as_str)
    }
}

impl Reader {
    fn read(&mut self, word: &str) {
        if let Some(option) = self.pending.take() {
            self.values.insert(option.get_id().to_string(), word.to_owned());
        } else if self.no_options || !word.starts_with('-') || word == "-" {
            self.read_plain(word);
        } else if word == "--" {
            self.no_options = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let found = self.command.get_arguments().find(|arg| arg.get_long() == Some(name)).cloned();
            self.take(found, value);
        } else {
            self.read_short(&word[1..]);
        }
    }

    /// `-o json`, `-ojson`, `-fw`.
    fn read_short(&mut self, letters: &str) {
        for (at, letter) in letters.char_indices() {
            let found = self.command.get_arguments().find(|arg| arg.get_short() == Some(letter)).cloned();
            let rest = &letters[at + letter.len_utf8()..];
            if found.as_ref().is_some_and(takes_value) {
                let value = rest.strip_prefix('=').unwrap_or(rest);
                return self.take(found, (!rest.is_empty()).then_some(value));
            }
            self.take(found, None);
        }
    }

    fn take(&mut self, found: Option<Arg>, value: Option<&str>) {
        let Some(arg) = found else { return };
        match value {
            Some(value) => drop(self.values.insert(arg.get_id().to_string(), value.to_owned())),
            None if takes_value(&arg) => self.pending = Some(arg),
            None => drop(self.values.insert(arg.get_id().to_string(), String::new())),
        }
    }

    fn read_plain(&mut self, word: &str) {
        let verb = self.command.find_subcommand(word).cloned();
        if let Some(verb) = verb.filter(|_| self.positional == 0) {
            self.command = verb;
            return;
        }
        if let Some(arg) = self.next_positional() {
            self.values.insert(arg.get_id().to_string(), word.to_owned());
        }
        self.positional += 1;
    }

    /// The positional argument that comes next; the last one may come again and again.
    fn next_positional(&self) -> Option<Arg> {
        let all: Vec<&Arg> = self.command.get_positionals().collect();
        let again = |arg: &&&Arg| matches!(arg.get_action(), ArgAction::Append);
        all.get(self.positional).or_else(|| all.last().filter(again)).map(|arg| (*arg).clone())
    }

    fn place(self, last: &str) -> Place {
        let place = |wanted, before: &str, begun: &str| (wanted, before.to_owned(), begun.to_owned());
        let (wanted, before, begun) = if let Some(option) = &self.pending {
            place(self.wanted(option), "", last)
        } else if !self.no_options && last.starts_with('-') {
            match last.split_once('=') {
                Some((name, begun)) if name.starts_with("--") => {
                    let found = self.command.get_arguments().find(|arg| arg.get_long() == Some(&name[2..]));
                    let wanted = found.map_or(Wanted::Choice(Vec::new()), |arg| self.wanted(arg));
                    place(wanted, &format!("{name}="), begun)
                }
                _ => place(Wanted::Choice(self.options()), "", last),
            }
        } else {
            let wanted = match self.next_positional() {
                Some(arg) => self.wanted(&arg),
                None => Wanted::Choice(self.verbs()),
            };
            place(wanted, "", last)
        };
        Place { wanted, begun, before, values: self.values }
    }

    fn verbs(&self) -> Vec<Candidate> {
        if self.positional > 0 {
            return Vec::new();
        }
        let verbs = self.command.get_subcommands().filter(|verb| !verb.is_hide_set());
        verbs.map(|verb| candidate(verb.get_name(), verb.get_about())).collect()
    }

    /// Options that were not given yet, or that may be given again.
    fn options(&self) -> Vec<Candidate> {
        let free = |arg: &&Arg| {
            !arg.is_hide_set()
                && (matches!(arg.get_action(), ArgAction::Append) || !self.values.contains_key(arg.get_id().as_str()))
        };
        let options = self.command.get_arguments().filter(free);
        options.filter_map(|arg| Some(candidate(&format!("--{}", arg.get_long()?), arg.get_help()))).collect()
    }

    fn wanted(&self, arg: &Arg) -> Wanted {
        let choices = arg.get_possible_values();
        if !choices.is_empty() {
            let choices = choices.iter().filter(|value| !value.is_hide_set());
            return Wanted::Choice(choices.map(|value| candidate(value.get_name(), value.get_help())).collect());
        }
        let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        if matches!(name, "FILE" | "DIR") || arg.get_value_hint() == ValueHint::AnyPath {
            return Wanted::Files;
        }
        match self.kind(name) {
            Some(kind) => Wanted::Name(kind),
            None => Wanted::Choice(Vec::new()),
        }
    }

    /// What a value is the name of, by what the help calls it.
    fn kind(&self, value: &str) -> Option<Kind> {
        let verb = self.command.get_display_name().unwrap_or_default();
        Some(match value {
            "SERVICE" => Kind::Service,
            // A new version is registered by a name that nobody knows.
            "VERSION" if verb.ends_with("versions-register") => return None,
            "VERSION" | "VERSION[=PERCENT]" | "A" | "B" => Kind::Version,
            "TENANT" => Kind::Tenant,
            "GROUP" => Kind::Group,
            "ID" if verb.contains("-rollout") => Kind::Rollout,
            "TARGET" => Kind::Target,
            "NAME" if verb.ends_with("snapshot-create") => return None,
            "NAME" if verb.contains("-snapshot") => Kind::Snapshot,
            "NAME" => match self.values.get("kind").map(String::as_str) {
                Some("tenant") => Kind::Tenant,
                Some("group") => Kind::Group,
                _ => return None,
            },
            _ => return None,
        })
    }
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn candidate(text: &str, about: Option<&clap::builder::StyledStr>) -> Candidate {
    let about = about.map(|about| about.to_string().lines().next().unwrap_or_default().to_owned());
    Candidate { text: text.to_owned(), about: about.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Place {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Place::find(crate::cli::help::command(), &words)
    }

    fn offered(line: &str) -> Vec<String> {
        let place = at(line);
        let Wanted::Choice(all) = place.wanted else { panic!("{line}: {:?}", place.wanted) };
        all.into_iter().map(|c| c.text).filter(|text| text.starts_with(&place.begun)).collect()
    }

    #[test]
    fn verbs_options_and_choices_are_offered() {
        assert_eq!(offered("sp"), ["split"]);
        assert_eq!(offered("rollout sta"), ["start", "status", "statistics"]);
        assert_eq!(offered("-o yaml split "), ["get", "set", "clear", "help"]);
        assert_eq!(offered("status -o j"), ["json"]);
        assert_eq!(offered("pin accounting t"), ["tenant"]);
        assert_eq!(offered("rollback accounting --re"), ["--reason"]);
        assert_eq!(offered("rollback accounting --reason x --re"), Vec::<String>::new());
        assert_eq!(offered("rollout start a 2 --tenant t --te"), ["--tenant"]);
        assert!(!offered("").contains(&"complete".to_owned()), "it is hidden");
        assert_eq!(offered("events --kind rollb"), ["rollback"]);
        assert_eq!(offered("status extra "), Vec::<String>::new());
    }

    #[test]
    fn names_are_known_by_what_the_help_calls_them() {
        let kind = |line: &str| match at(line).wanted {
            Wanted::Name(kind) => Some(kind),
            _ => None,
        };
        assert_eq!(kind("split get "), Some(Kind::Service));
        assert_eq!(kind("split set accounting 2.0.0=10 "), Some(Kind::Version));
        assert_eq!(kind("compare accounting 1.0.0 "), Some(Kind::Version));
        assert_eq!(kind("split get accounting --tenant "), Some(Kind::Tenant));
        assert_eq!(kind("split get accounting --group=b"), Some(Kind::Group));
        assert_eq!(kind("rollout pause "), Some(Kind::Rollout));
        assert_eq!(kind("snapshot restore "), Some(Kind::Snapshot));
        assert_eq!(kind("snapshot create "), None);
        assert_eq!(kind("pin accounting tenant "), Some(Kind::Tenant));
        assert_eq!(kind("pin accounting user "), None);
        assert_eq!(kind("notify test "), Some(Kind::Target));
        assert_eq!(kind("events --after "), None);
        assert_eq!(kind("versions register accounting "), None);
        assert_eq!(at("serve --config ").wanted, Wanted::Files);
        assert_eq!(at("status --token-file=/e").before, "--token-file=");
    }

    #[test]
    fn values_before_the_place_are_remembered() {
        let place = at("--admin http://h:1 versions disable accounting ");
        assert_eq!((place.value("admin"), place.value("service")), (Some("http://h:1"), Some("accounting")));
        let place = at("events -fojson --service=a --tenant t");
        assert_eq!((place.value("service"), place.value("output")), (Some("a"), Some("json")));
        assert_eq!((place.wanted, place.begun.as_str()), (Wanted::Name(Kind::Tenant), "t"));
    }
}
