//! Compares a tree with the table of keys: unknown and missing keys, wrong types, values out of range.

use super::context::Context;
use super::formats;
use super::kinds::{Absent, Format, Key, Kind, Table};
use super::tree::{Node, Value, join};

/// Notes everything about the node that the table does not allow.
pub(super) fn check(node: &Node, kind: &Kind, cx: &Context<'_>) {
    match (&node.value, kind) {
        (Value::Broken, _) => {}
        (Value::Text(text), Kind::Text(format)) => check_text(node, text, format, cx),
        (Value::Bool(_), Kind::Bool) | (Value::Bool(true), Kind::Mark) => {}
        (Value::Bool(false), Kind::Mark) => cx.wrong(node, "is false; allowed is true, or leave the key out"),
        (Value::List(list), Kind::List(of, least)) => {
            if list.len() < *least {
                cx.wrong(node, "is empty; at least one element is needed");
            }
            list.iter().for_each(|element| check(element, of, cx));
        }
        (Value::Table(entries), Kind::Map(names, of)) => {
            for (name, value) in entries {
                if let Err(wrong) = (names.check)(name) {
                    cx.wrong(value, format!("the name {wrong}; allowed is {}", names.allowed));
                }
                check(value, of, cx);
            }
        }
        (Value::Table(entries), Kind::Table(table)) => check_table(node, entries, table, cx),
        (_, Kind::Either(one, _)) if same_type(node, one) => check(node, one, cx),
        (_, Kind::Either(_, other)) if same_type(node, other) => check(node, other, cx),
        _ => match scalar(node, kind) {
            Some(Ok(())) => {}
            Some(Err(message)) => cx.wrong(node, message),
            None => cx.wrong(node, format!("is {}; allowed is {}", node.kind(), allowed(kind))),
        },
    }
}

/// Numbers and what is written as text or number. `None`: the type is wrong.
fn scalar(node: &Node, kind: &Kind) -> Option<Result<(), String>> {
    let bad = |shown: &str, wrong: &str| Err(format!("{shown} {wrong}; allowed is {}", allowed(kind)));
    let range = |ok: bool, shown: &str| if ok { Ok(()) } else { bad(shown, "is out of range") };
    Some(match (&node.value, kind) {
        (Value::Integer(n), Kind::Integer(min, max)) => range((min..=max).contains(&n), &n.to_string()),
        (Value::Integer(n), Kind::Number(min, max)) => range((*min..=*max).contains(&(*n as f64)), &n.to_string()),
        (Value::Float(n), Kind::Number(min, max)) => range((min..=max).contains(&n), &n.to_string()),
        (Value::Integer(_) | Value::Float(_), Kind::Percent) => percent(node).map(drop),
        (Value::Integer(n), Kind::Size(min, max)) => {
            range(u64::try_from(*n).is_ok_and(|n| (*min..=*max).contains(&n)), &n.to_string())
        }
        (Value::Text(text), Kind::Size(min, max)) => match formats::size(text) {
            Ok(size) => range((*min..=*max).contains(&size), &format!("{text:?}")),
            Err(wrong) => bad(&format!("{text:?}"), &wrong),
        },
        (Value::Text(text), Kind::Duration(min, max)) => match formats::duration(text) {
            Ok(duration) => range((*min..=*max).contains(&duration), &format!("{text:?}")),
            Err(wrong) => bad(&format!("{text:?}"), &wrong),
        },
        (Value::Text(text) | Value::Date(text), Kind::Date) => match formats::date(text) {
            Ok(_) => Ok(()),
            Err(wrong) => bad(&shorten(text), &wrong),
        },
        (Value::Text(text), Kind::Choice(words)) => match words.contains(&text.as_str()) {
            true => Ok(()),
            false => bad(&format!("{text:?}"), &format!("is not known{}", suggestion(text, words.iter().copied()))),
        },
        _ => return None,
    })
}

/// The share that a number of percent stands for.
pub(super) fn percent(node: &Node) -> Result<crate::model::BasisPoints, String> {
    let number = match node.value {
        Value::Integer(n) => n as f64,
        Value::Float(n) => n,
        _ => return Err(format!("is {}; allowed is {}", node.kind(), allowed(&Kind::Percent))),
    };
    crate::model::BasisPoints::from_percent(number).map_err(|e| e.to_string())
}

fn check_text(node: &Node, text: &str, format: &Format, cx: &Context<'_>) {
    if let Err(wrong) = (format.check)(text) {
        let shown = if format.secret || text.is_empty() { String::new() } else { format!("{} ", shorten(text)) };
        cx.wrong(node, format!("{shown}{wrong}; allowed is {}", format.allowed));
    }
}

/// Text in quotes; the middle of long text is left out.
fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}

fn check_table(node: &Node, entries: &[(String, Node)], table: &'static Table, cx: &Context<'_>) {
    for (name, value) in entries {
        match table.keys.iter().find(|key| key.name == name) {
            Some(key) => {
                check(value, &key.kind, cx);
                if !key.with.is_empty() && node.get(key.with).is_none() {
                    cx.wrong(value, format!("means nothing here; allowed is it beside the key {}", key.with));
                }
            }
            None => cx.wrong(value, unknown(name, table)),
        }
    }
    for key in table.keys {
        if matches!(key.absent, Absent::Mistake) && node.get(key.name).is_none() {
            cx.mistake(
                node.line,
                &join(&node.path, key.name),
                format!("is missing; allowed is {}", allowed(&key.kind)),
            );
        }
    }
    let present = |names: &[&str]| names.iter().filter(|name| node.get(name).is_some()).count();
    if !table.any_of.is_empty() && present(table.any_of) == 0 {
        cx.wrong(node, format!("is without effect; at least one of {} is needed", table.any_of.join(", ")));
    }
    if !table.one_of.is_empty() {
        match present(table.one_of) {
            0 => cx.wrong(node, format!("says nothing; exactly one of {} is needed", table.one_of.join(", "))),
            1 => {}
            n => cx.wrong(node, format!("has {n} of {}; exactly one is allowed", table.one_of.join(", "))),
        }
    }
}

fn unknown(name: &str, table: &Table) -> String {
    let names = || table.keys.iter().map(|key| key.name);
    let list = names().collect::<Vec<_>>().join(", ");
    format!("unknown key{}; allowed are {list}", suggestion(name, names()))
}

/// `, did you mean …?` when a word is near.
fn suggestion<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> String {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let near = words.map(|known| (distance(&word, known), known)).min();
    match near {
        // About a third of the letters may be wrong: enough for slips, too few for chance.
        Some((distance, known)) if distance <= known.len().div_ceil(3).min(3) => {
            format!(", did you mean {known:?}?")
        }
        _ => String::new(),
    }
}

/// How many letters must be added, removed, replaced or swapped with their neighbour to come from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    // Unknown keys can be as long as the file; none that long is a slip.
    const LONGEST: usize = 64;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(LONGEST).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped { best.min(rows[i - 2][j - 2] + 1) } else { best }
            };
        }
    }
    rows[a.len()][b.len()]
}

fn same_type(node: &Node, kind: &Kind) -> bool {
    match kind {
        Kind::Text(_) | Kind::Duration(..) | Kind::Choice(_) => matches!(node.value, Value::Text(_)),
        Kind::Date => matches!(node.value, Value::Text(_) | Value::Date(_)),
        Kind::Bool | Kind::Mark => matches!(node.value, Value::Bool(_)),
        Kind::Integer(..) => matches!(node.value, Value::Integer(_)),
        Kind::Number(..) | Kind::Percent => matches!(node.value, Value::Integer(_) | Value::Float(_)),
        Kind::Size(..) => matches!(node.value, Value::Integer(_) | Value::Text(_)),
        Kind::List(..) => matches!(node.value, Value::List(_)),
        Kind::Map(..) | Kind::Table(_) => matches!(node.value, Value::Table(_)),
        Kind::Either(one, other) => same_type(node, one) || same_type(node, other),
    }
}

/// What a key takes, in words that end the sentence "allowed is …".
pub(super) fn allowed(kind: &Kind) -> String {
    match kind {
        Kind::Text(format) => format.allowed.to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Mark => "true".to_owned(),
        Kind::Integer(min, max) => format!("an integer from {min} to {max}"),
        Kind::Number(min, max) => format!("a number from {min} to {max}"),
        Kind::Percent => "percent from 0 to 100 with at most two decimals".to_owned(),
        Kind::Duration(min, max) => {
            let (min, max) = (formats::duration_text(*min), formats::duration_text(*max));
            format!("a duration from \"{min}\" to \"{max}\", in ms, s, m, h or d")
        }
        Kind::Size(min, max) => {
            let (min, max) = (formats::size_text(*min), formats::size_text(*max));
            format!("a size from \"{min}\" to \"{max}\", in B, KiB, MiB, GiB or TiB, or as bytes")
        }
        Kind::Date => "a date such as \"2026-12-31\", or a time such as \"2026-12-31T08:00:00Z\"".to_owned(),
        Kind::Choice(words) => words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", "),
        Kind::List(of, _) => format!("a list, each element {}", allowed(of)),
        Kind::Map(names, of) => format!("a table, each name {}, each value {}", names.allowed, allowed(of)),
        Kind::Table(table) => {
            let names: Vec<_> = table.keys.iter().map(|key: &Key| key.name).collect();
            format!("a table with {}", names.join(", "))
        }
        Kind::Either(one, other) => format!("{}, or {}", allowed(one), allowed(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_chance_is_not() {
        let words = || ["listen", "threads", "tls", "drain_timeout"].into_iter();
        assert_eq!(suggestion("lsiten", words()), ", did you mean \"listen\"?");
        assert_eq!(suggestion("drain-timeout", words()), ", did you mean \"drain_timeout\"?");
        assert_eq!(suggestion("thread", words()), ", did you mean \"threads\"?");
        assert_eq!(suggestion("colour", words()), "");
        assert_eq!(suggestion(&"x".repeat(100_000), words()), "");
        assert_eq!((distance("", ""), distance("ab", "ba"), distance("abc", "")), (0, 1, 3));
    }
}
