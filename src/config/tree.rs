//! A tree of values that know their line and their dotted key, made from TOML or from JSON.
//!
//! serde stops at the first unknown key or wrong type; whoever repairs a file wants to see all of them. So the text is
//! parsed into this tree, which is then compared with the table of keys as a whole.

use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use super::mistake::Mistake;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Line from 1; 0 for JSON.
    pub line: usize,
    /// Dotted key from the root.
    pub path: String,
    /// What stands there.
    pub value: Value,
}

/// What can stand in a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Text, variables replaced.
    Text(String),
    /// Whole number.
    Integer(i64),
    /// Number with a point.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// Date or time as TOML writes them.
    Date(String),
    /// `[…]`.
    List(Vec<Node>),
    /// `{…}` or `[…]` on a line of its own, in the order of the file.
    Table(Vec<(String, Node)>),
    /// Something that was already reported.
    Broken,
}

impl Node {
    /// What stands here, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "text",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::Date(_) => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Broken => "something unreadable",
        }
    }

    /// The text, when this is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a key, when this is a table that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, node)| node),
            _ => None,
        }
    }
}

/// The dotted path of a key below a table: quoted where TOML wants quotes.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let dot = if path.is_empty() { "" } else { "." };
    if bare { format!("{path}{dot}{key}") } else { format!("{path}{dot}{key:?}") }
}

/// What the text is, and what is wrong with it. Without a tree the text cannot be looked at any further.
pub(super) fn from_toml(text: &str, env: &dyn Fn(&str) -> Option<String>) -> (Option<Node>, Vec<Mistake>) {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    // A key that stands twice leaves the tree whole; after any other mistake keys may be missing from it, and
    // complaints about them would only distract.
    let whole = errors.iter().all(|e| e.message() == "duplicate key");
    let mut reader = FromToml { lines, env, mistakes: Vec::new() };
    let mut places = Vec::with_capacity(errors.len());
    for error in &errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        let (line, column) = reader.lines.place(at);
        let found = error.span().and_then(|span| text.get(span)).unwrap_or_default();
        let wrong = match error.message() {
            "duplicate key" => format!("the key {found} stands here for the second time; once is allowed"),
            message => message.trim_end().to_owned(),
        };
        places.push((line, column, wrong));
    }
    // What follows the first slip of a line is mostly its consequence.
    places.sort_by_key(|(line, column, _)| (*line, *column));
    places.dedup_by_key(|(line, _, _)| *line);
    for (line, column, wrong) in places {
        let message = format!("column {column}: {wrong}");
        reader.mistakes.push(Mistake { line, key: String::new(), message });
    }
    let root = whole.then(|| Node { line: 1, path: String::new(), value: reader.table(table.get_ref(), "") });
    (root, reader.mistakes)
}

/// Finds the line of a place in the text.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(i, _)| i + 1).filter(|i| *i < text.len()))
            .collect();
        Self { text, starts }
    }

    /// Line and column from 1; the column counts characters.
    fn place(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let before = self.text.get(self.starts[line - 1]..at).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

struct FromToml<'a> {
    lines: Lines<'a>,
    env: &'a dyn Fn(&str) -> Option<String>,
    mistakes: Vec<Mistake>,
}

impl FromToml<'_> {
    fn table(&mut self, table: &DeTable<'_>, path: &str) -> Value {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table.iter() {
            let path = join(path, key.get_ref());
            // A table is where its name stands; its own span begins at the first key that mentions it.
            let at = if value.get_ref().is_table() { key.span().start } else { value.span().start };
            let line = self.lines.place(at).0;
            let value = self.value(value.get_ref(), &path, line);
            entries.push((key.span().start, (key.get_ref().to_string(), Node { line, path, value })));
        }
        entries.sort_by_key(|(at, _)| *at);
        Value::Table(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    fn list(&mut self, list: &DeArray<'_>, path: &str) -> Value {
        let element = |(i, element): (usize, &toml::Spanned<DeValue<'_>>)| {
            let path = format!("{path}[{i}]");
            let line = self.lines.place(element.span().start).0;
            let value = self.value(element.get_ref(), &path, line);
            Node { line, path, value }
        };
        Value::List(list.iter().enumerate().map(element).collect())
    }

    fn value(&mut self, value: &DeValue<'_>, path: &str, line: usize) -> Value {
        let checked = match value {
            DeValue::String(text) => replace_variables(text, self.env).map(Value::Text),
            DeValue::Integer(number) => integer(number).map(Value::Integer),
            DeValue::Float(number) => float(number.as_str()).map(Value::Float),
            DeValue::Boolean(flag) => Ok(Value::Bool(*flag)),
            DeValue::Datetime(date) => Ok(Value::Date(date.to_string())),
            DeValue::Array(list) => Ok(self.list(list, path)),
            DeValue::Table(table) => Ok(self.table(table, path)),
        };
        checked.unwrap_or_else(|message| {
            self.mistakes.push(Mistake { line, key: path.to_owned(), message });
            Value::Broken
        })
    }
}

fn integer(number: &DeInteger<'_>) -> Result<i64, String> {
    i64::from_str_radix(number.as_str(), number.radix())
        .map_err(|_| format!("{number} is too large; allowed are integers of 64 bits"))
}

fn float(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("{text} is not a finite number")),
    }
}

/// `${NAME}` becomes the variable's value, `$${` a plain `${`. What a variable holds is never looked at again.
fn replace_variables(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = from;
            continue;
        }
        out.push_str(before);
        let name = from.split_once('}').map(|(name, _)| name);
        let Some(name) = name.filter(|n| is_variable(n)) else {
            return Err(
                "\"${\" begins no variable; allowed are ${NAME}, and $${ for the characters themselves".to_owned()
            );
        };
        let value =
            env(name).ok_or_else(|| format!("the environment variable {name} is not set; set it, or write $${{"))?;
        out.push_str(&value);
        rest = &from[name.len() + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A JSON value as a tree. `null` counts as absent; variables are not replaced, since the text comes from elsewhere.
pub(super) fn from_json(value: &serde_json::Value, path: String) -> Node {
    use serde_json::Value as Json;
    let made = match value {
        Json::Null => Value::Broken,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(float)) => Value::Float(float),
            (None, None) => Value::Float(f64::MAX),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(list) => {
            Value::List(list.iter().enumerate().map(|(i, v)| from_json(v, format!("{path}[{i}]"))).collect())
        }
        Json::Object(object) => {
            let present = object.iter().filter(|(_, v)| !v.is_null());
            Value::Table(present.map(|(k, v)| (k.clone(), from_json(v, join(&path, k)))).collect())
        }
    };
    Node { line: 0, path, value: made }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root/${HOME}".to_owned())
    }

    #[test]
    fn variables_are_replaced_once() {
        let replace = |t: &str| replace_variables(t, &env);
        assert_eq!(replace("a ${HOME}/b"), Ok("a /root/${HOME}/b".to_owned()));
        assert_eq!(replace("$${HOME} $$ $ {tenant}"), Ok("${HOME} $$ $ {tenant}".to_owned()));
        assert!(replace("${AWAY}").unwrap_err().contains("AWAY is not set"));
        for bad in ["${", "${}", "${a b}", "x${1}", "${HOME"] {
            assert!(replace(bad).unwrap_err().contains("begins no variable"), "{bad}");
        }
    }

    #[test]
    fn every_value_knows_its_line_and_key() {
        let text = "[a.\"1.0\"]\nlist = [\n  1,\n  { b = 2 },\n]\n[[t]]\nx = 1\n[[t]]\nx = 2\n";
        let (root, mistakes) = from_toml(text, &env);
        assert_eq!(mistakes, []);
        let root = root.unwrap();
        let list = root.get("a").and_then(|a| a.get("1.0")).and_then(|v| v.get("list")).unwrap();
        assert_eq!((list.line, list.path.as_str()), (2, "a.\"1.0\".list"));
        let Value::List(elements) = &list.value else { panic!("{list:?}") };
        let two = elements[1].get("b").unwrap();
        assert_eq!((two.line, two.path.as_str()), (4, "a.\"1.0\".list[1].b"));
        let Value::List(tables) = &root.get("t").unwrap().value else { panic!("no list") };
        assert_eq!((tables[1].line, tables[1].path.as_str()), (8, "t[1]"));
    }

    #[test]
    fn syntax_mistakes_have_line_and_column_and_are_all_listed() {
        let (root, mistakes) = from_toml("a = 1\nb = \nc = 2\n d e\n", &env);
        assert!(root.is_none());
        assert_eq!(mistakes.iter().map(|m| m.line).collect::<Vec<_>>(), [2, 4], "{mistakes:?}");
        assert!(mistakes.iter().all(|m| m.message.starts_with("column ")), "{mistakes:?}");
        let (root, mistakes) = from_toml("a = 1\na = 2\n", &env);
        assert!(root.is_some());
        assert_eq!((mistakes[0].line, mistakes.len()), (2, 1));
    }

    #[test]
    fn numbers_out_of_range_are_mistakes() {
        let (_, mistakes) = from_toml("a = 99999999999999999999\nb = inf\nc = nan\n", &env);
        assert_eq!(mistakes.iter().map(|m| m.line).collect::<Vec<_>>(), [1, 2, 3], "{mistakes:?}");
    }
}
