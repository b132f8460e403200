//! A service on its way into a configuration.

use std::fmt::Write as _;

/// What is known of a service.
#[derive(Debug, Default)]
pub(super) struct Service {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub namespace: String,
    /// Host and path of each rule.
    pub rules: Vec<(Option<String>, Option<String>)>,
    /// Names of the versions with their addresses; the first is the baseline.
    pub versions: Vec<(String, String)>,
    /// Percent of the second version.
    pub share: f64,
    /// Further lines of its table, such as `retries = 2`.
    pub keys: Vec<String>,
    /// Lines of tables below it, with the tables' names.
    pub tables: Vec<(&'static str, Vec<String>)>,
    /// What else there is to say or to do.
    pub notes: Vec<String>,
}

impl Service {
    /// Says something beside the service, once.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Adds the service to a configuration.
    pub fn write(&self, to: &mut String) {
        to.push('\n');
        for note in &self.notes {
            wrapped(note).iter().for_each(|line| line_to(to, format_args!("# {line}")));
        }
        line_to(to, format_args!("[services.{}]", key(&self.name)));
        let rules = self.rules.iter().map(|(host, path)| {
            let host = host.iter().map(|host| format!("host = {}", quoted(host)));
            let both = host.chain(path.iter().map(|path| format!("path = {}", quoted(path))));
            format!("{{ {} }}", both.collect::<Vec<_>>().join(", "))
        });
        line_to(to, format_args!("match = [{}]", rules.collect::<Vec<_>>().join(", ")));
        self.keys.iter().for_each(|line| line_to(to, format_args!("{line}")));
        if let Some((baseline, _)) = self.versions.first() {
            line_to(to, format_args!("baseline = {}", quoted(baseline)));
        }
        if let [(old, _), (new, _), ..] = &self.versions[..]
            && self.share > 0.0
        {
            let (old, new, rest) = (quoted(old), quoted(new), 100.0 - self.share);
            line_to(to, format_args!("split = {{ {old} = {}, {new} = {} }}", round(rest), round(self.share)));
        }
        for (table, lines) in &self.tables {
            line_to(to, format_args!("[services.{}.{table}]", key(&self.name)));
            lines.iter().for_each(|line| line_to(to, format_args!("{line}")));
        }
        for (version, address) in &self.versions {
            line_to(to, format_args!("[services.{}.versions.{}]", key(&self.name), quoted(version)));
            line_to(to, format_args!("endpoints = [{}]", quoted(address)));
        }
    }
}

fn line_to(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a text cannot fail.
    let _ = writeln!(text, "{line}");
}

/// A text as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn key(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if plain && !name.is_empty() { name.to_owned() } else { quoted(name) }
}

/// With two decimals at most.
pub(super) fn round(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}

/// Lines of at most about 110 characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    // What was read may hold line breaks, which would end the comment.
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].chars().count() + word.chars().count() > 110 {
            lines.push(word.to_owned());
        } else {
            let line = &mut lines[last];
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines
}
