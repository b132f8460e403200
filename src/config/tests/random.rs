//! Arbitrary and broken texts: settings or mistakes with a line of the file, never a panic.

use std::path::Path;

use proptest::prelude::*;

use super::super::{parse_with, version_from_json};
use super::{SMALL, env, load};

const REFERENCE: &str = include_str!("../../../conf/switchback.toml");

fn sound(text: &str) -> Result<(), TestCaseError> {
    let Err(mistakes) = load(text) else { return Ok(()) };
    let lines = text.lines().count().max(1);
    prop_assert!(!mistakes.list().is_empty());
    for mistake in mistakes.list() {
        prop_assert!((1..=lines).contains(&mistake.line), "{:?} of {} lines", mistake, lines);
        prop_assert!(!mistake.message.is_empty());
    }
    Ok(())
}

/// The text with something put in place of some of its characters.
fn mutated(text: &str, at: usize, length: usize, with: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let from = at % (chars.len() + 1);
    let to = (from + length).min(chars.len());
    chars[..from].iter().copied().chain(with.chars()).chain(chars[to..].iter().copied()).collect()
}

fn any_piece() -> impl Strategy<Value = String> {
    const WORDS: &[&str] =
        &["", "\n", "\"", "[", "]", "{", "}", "=", ",", "-1", "0", "1e999", "true", "${", "${X}", "{tenant}", "'''"];
    prop_oneof![proptest::sample::select(WORDS).prop_map(str::to_owned), "\\PC{0,8}", "[a-z_]{1,8}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        sound(&text)?;
    }

    #[test]
    fn any_bytes_that_are_text(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        sound(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn a_mutated_reference(at: usize, length in 0usize..12, piece in any_piece(), again: usize, other in any_piece()) {
        let once = mutated(REFERENCE, at, length, &piece);
        sound(&once)?;
        sound(&mutated(&once, again, 1, &other))?;
    }

    #[test]
    fn a_mutated_small_file(at: usize, length in 0usize..12, piece in any_piece()) {
        sound(&mutated(SMALL, at, length, &piece))?;
    }

    /// Any value at any key: lines are removed or take another line's value.
    #[test]
    fn a_reference_with_exchanged_values(a: prop::sample::Index, b: prop::sample::Index) {
        let mut lines: Vec<String> = REFERENCE.lines().map(str::to_owned).collect();
        let (a, b) = (a.index(lines.len()), b.index(lines.len()));
        let value = lines[b].split_once(" = ").map(|(_, v)| v.to_owned()).unwrap_or_default();
        lines[a] = lines[a].split_once(" = ").map(|(k, _)| format!("{k} = {value}")).unwrap_or_default();
        sound(&lines.join("\n"))?;
    }

    #[test]
    fn any_json(text in "[\\[\\]{}\",:a-z0-9]{0,60}") {
        if let Ok(value) = serde_json::from_str(&text) {
            let _ = version_from_json(&value);
        }
    }
}

#[test]
fn deep_texts_are_refused() {
    let deep = ["[".repeat(100_000), "a.".repeat(50_000) + "a = 1", format!("a = {}", "[".repeat(50_000))];
    for text in deep {
        let found = parse_with(&text, Path::new("x"), &env, &super::read).unwrap_err();
        assert_eq!(found.list()[0].line, 1);
    }
}
