//! What the compiler does not check: who may use whom, how long functions are, and what the pure rooms stay away from.
//!
//! The rooms and their order are those of ARCHITECTURE: a room uses what stands to its right and nothing else. Each check
//! is shown to fail on a small bad sample before it is run on the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who stands where: a room may use those of lower levels; rooms of one level do not use each other.
const LEVELS: [&[&str]; 11] = [
    &["model"],
    &["config", "telemetry", "handover"],
    &["shadow"],
    &["routing", "analysis", "planning", "flags"],
    &["simulation"],
    &["proxy", "store"],
    &["webhook"],
    &["control"],
    &["admin", "autopilot", "notify"],
    &["app"],
    &["cli"],
];

/// Rooms whose answers depend on nothing but their arguments.
const PURE: [&str; 7] = ["model", "shadow", "routing", "analysis", "planning", "flags", "simulation"];

/// What a pure room does not name: clocks, chance, and those who wait.
const IMPURE: [&str; 11] = [
    "Instant",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
    "rand",
    "fastrand",
    "getrandom",
    "thread_rng",
    "tokio",
    "pingora",
    "pingora_core",
];

/// The longest function, from `fn` to its closing brace.
const MAX_FUNCTION: usize = 70;
/// The longest `main.rs`.
const MAX_MAIN: usize = 40;

fn level(room: &str) -> Option<usize> {
    LEVELS.iter().position(|rooms| rooms.contains(&room))
}

/// One source file.
struct Source {
    /// Path below `src`.
    path: String,
    text: String,
    /// The text with comments, strings and characters blanked out, of the same length.
    code: String,
    /// Whether it is compiled for tests only.
    test: bool,
}

impl Source {
    fn new(path: &str, text: &str, test: bool) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank(text), test }
    }

    /// The room that the file belongs to.
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn at(&self, offset: usize) -> String {
        format!("src/{}:{}", self.path, line_of(&self.text, offset))
    }

    /// How many modules stand around a place in the file: 1 within a room's `mod.rs`.
    fn depth(&self, offset: usize) -> usize {
        let own = self.path.strip_suffix("/mod.rs").or_else(|| self.path.strip_suffix(".rs")).unwrap_or(&self.path);
        let inline = words(&self.code, "mod").filter_map(|at| {
            let open = at + self.code[at..].find(['{', ';'])?;
            (self.code.as_bytes()[open] == b'{').then(|| open..closing(&self.code, open))
        });
        own.split('/').count() + inline.filter(|body| body.contains(&offset)).count()
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].bytes().filter(|b| *b == b'\n').count() + 1
}

/// The text with everything blanked out that is no code. Line breaks stay where they are.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        if !text.is_char_boundary(at) {
            at += 1;
            continue;
        }
        let end = at + not_code(&text[at..], at.checked_sub(1).map(|i| bytes[i]));
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("whole characters are blanked")
}

/// Length of the comment, string or character that the text begins with, 0 when it begins with code.
fn not_code(text: &str, before: Option<u8>) -> usize {
    let in_word = before.is_some_and(is_word);
    let raw = text.trim_start_matches(['b', 'c']);
    if text.starts_with("//") {
        text.find('\n').unwrap_or(text.len())
    } else if text.starts_with("/*") {
        comment(text)
    } else if !in_word && text.len() - raw.len() <= 1 && raw.starts_with("r") {
        let hashes = raw[1..].bytes().take_while(|b| *b == b'#').count();
        let open = text.len() - raw.len() + 1 + hashes;
        if !text[open..].starts_with('"') {
            return 0;
        }
        let close = format!("\"{}", "#".repeat(hashes));
        text[open + 1..].find(&close).map_or(text.len(), |i| open + 1 + i + close.len())
    } else if text.starts_with('"') {
        quoted(text, b'"')
    } else if let Some(rest) = text.strip_prefix('\'') {
        let mut rest = rest.chars();
        match (rest.next(), rest.next()) {
            (Some('\\'), _) => quoted(text, b'\''),
            (Some(c), Some('\'')) => 2 + c.len_utf8(),
            _ => 0,
        }
    } else {
        0
    }
}

/// Length of a comment that may hold others.
fn comment(text: &str) -> usize {
    let mut open = 0;
    for (i, pair) in text.as_bytes().windows(2).enumerate() {
        match pair {
            b"/*" => open += 1,
            b"*/" if open == 1 => return i + 2,
            b"*/" => open -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a text in quotes, escapes considered.
fn quoted(text: &str, quote: u8) -> usize {
    let mut escaped = false;
    for (i, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            _ if byte == quote => return i + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where a word stands, as a whole.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).map(|i| code.as_bytes()[i]);
        let after = code.as_bytes().get(at + word.len()).copied();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Where the brace that opens at `open` is closed.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (i, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return i,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The parts of the code that are compiled for tests only, as ranges: what stands after `#[cfg(test)]`, up to its end.
fn test_parts(code: &str) -> Vec<std::ops::Range<usize>> {
    let part = |(at, mark): (usize, &str)| {
        let end = at + mark.len() + code[at + mark.len()..].find(['{', ';']).unwrap_or(0);
        at..if code.as_bytes()[end] == b'{' { closing(code, end) } else { end }
    };
    code.match_indices("#[cfg(test)]").map(part).collect()
}

/// Rooms that a file names, with the place: `crate::room`, `crate::{room, …}`, `switchback::room` and `super::…::room`.
fn named_rooms(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    for root in ["crate", "switchback"] {
        for at in words(code, root) {
            found.extend(firsts(&code[at + root.len()..]).into_iter().map(|room| (at, room)));
        }
    }
    for at in words(code, "super") {
        if code[..at].trim_end().ends_with("super::") {
            continue;
        }
        let mut rest = &code[at..];
        let mut ups = 0;
        while let Some(more) = rest.strip_prefix("super") {
            ups += 1;
            rest = more;
            match more.strip_prefix("::") {
                Some(more) if more.starts_with("super") => rest = more,
                _ => break,
            }
        }
        if ups >= source.depth(at) {
            found.extend(firsts(rest).into_iter().map(|room| (at, room)));
        }
    }
    found.retain(|(_, room)| level(room).is_some());
    found
}

/// The first names after `::`, one or those of a group in braces.
fn firsts(rest: &str) -> Vec<String> {
    let Some(rest) = rest.strip_prefix("::") else { return Vec::new() };
    let name = |text: &str| text.trim().bytes().take_while(|b| is_word(*b)).map(char::from).collect::<String>();
    if !rest.starts_with('{') {
        return vec![name(rest)];
    }
    let mut depth = 0;
    let body = &rest[1..closing(rest, 0)];
    let parts = body.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.map(name).filter(|n| !n.is_empty()).collect()
}

fn check_direction(source: &Source) -> Vec<String> {
    let room = source.room();
    let Some(own) = level(room) else { return Vec::new() };
    let wrong = named_rooms(source).into_iter().filter(|(_, used)| {
        let up = level(used).is_some_and(|l| l > own);
        let sideways = level(used) == Some(own) && used != room;
        up || sideways
    });
    wrong.map(|(at, used)| format!("{}: {room} may not use {used}", source.at(at))).collect()
}

fn check_functions(source: &Source) -> Vec<String> {
    let code = &source.code;
    let long = words(code, "fn").filter_map(|at| {
        let name = code[at + 2..].trim_start();
        let open = at + body_of(&code[at..])?;
        let lines = line_of(code, closing(code, open)) - line_of(code, at) + 1;
        let name: String = name.bytes().take_while(|b| is_word(*b)).map(char::from).collect();
        (!name.is_empty() && lines > MAX_FUNCTION).then(|| format!("{}: {name} has {lines} lines", source.at(at)))
    });
    long.collect()
}

/// Where the body of a function begins that the text begins with; none when it has no body.
fn body_of(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(i),
            b';' | b'}' if depth <= 0 => return None,
            _ => {}
        }
    }
    None
}

fn check_purpose(source: &Source) -> Vec<String> {
    let says = source.text.starts_with("//! ");
    if says { Vec::new() } else { vec![format!("src/{}: does not begin with a //! line", source.path)] }
}

fn check_main(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let long = source.path == "main.rs" && lines > MAX_MAIN;
    if long { vec![format!("src/main.rs has {lines} lines; allowed are {MAX_MAIN}")] } else { Vec::new() }
}

/// Tests of pure rooms are pure too: what proptest draws is drawn within proptest.
fn check_purity(source: &Source) -> Vec<String> {
    if !PURE.contains(&source.room()) {
        return Vec::new();
    }
    let found = IMPURE.iter().flat_map(|word| words(&source.code, word).map(move |at| (at, word)));
    found.map(|(at, word)| format!("{}: {} is pure and names {word}", source.at(at), source.room())).collect()
}

fn check_unsafe(source: &Source) -> Vec<String> {
    words(&source.code, "unsafe").map(|at| format!("{}: unsafe", source.at(at))).collect()
}

fn check_unwrap(source: &Source) -> Vec<String> {
    if source.test {
        return Vec::new();
    }
    let tests = test_parts(&source.code);
    let places = source.code.match_indices(".unwrap()").map(|(at, _)| at);
    let outside = places.filter(|at| !tests.iter().any(|part| part.contains(at)));
    outside.map(|at| format!("{}: unwrap outside of tests", source.at(at))).collect()
}

/// The rooms of `lib.rs` must be known and stand lowest first.
fn check_rooms(lib: &str) -> Vec<String> {
    let rooms = rooms_of(lib);
    let mut wrong: Vec<_> = rooms.iter().filter(|r| level(r).is_none()).map(|r| format!("unknown room {r}")).collect();
    let levels: Vec<_> = rooms.iter().filter_map(|r| level(r)).collect();
    if !levels.is_sorted() {
        wrong.push(format!("src/lib.rs: modules do not stand lowest first: {}", rooms.join(", ")));
    }
    wrong
}

fn rooms_of(lib: &str) -> Vec<String> {
    let code = blank(lib);
    let name = |at: usize| code[at + 3..].trim_start().bytes().take_while(|b| is_word(*b)).map(char::from).collect();
    words(&code, "mod").map(name).collect()
}

const EACH_FILE: [fn(&Source) -> Vec<String>; 7] =
    [check_direction, check_functions, check_purpose, check_main, check_purity, check_unsafe, check_unwrap];

/// Every file below a folder that ends in `.rs`, by path.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the entry can be read").path();
        // What building the fuzz targets leaves behind is nobody's source.
        if path.is_dir() && !path.ends_with("target") {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Files and folders that are compiled for tests only: what `#[cfg(test)] mod name;` leads to.
fn test_paths(folder: &Path, path: &str, text: &str) -> BTreeSet<String> {
    let code = blank(text);
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let below = match name.strip_suffix(".rs") {
        Some("mod" | "lib" | "main") | None => parent.to_owned(),
        Some(stem) => format!("{parent}/{stem}"),
    };
    let mut found = BTreeSet::new();
    for part in test_parts(&code).into_iter().filter(|p| code.as_bytes().get(p.end) == Some(&b';')) {
        if let Some((_, given)) = text[part.clone()].split_once("#[path = \"") {
            let given = given.split('"').next().unwrap_or_default();
            found.insert(format!("{parent}/{given}"));
        } else if let Some(at) = words(&code[part.clone()], "mod").next() {
            let name = code[part.start + at + 3..part.end].trim();
            found.insert(format!("{below}/{name}.rs"));
            found.insert(format!("{below}/{name}/"));
        }
    }
    found.retain(|f| folder.join(f).exists());
    found
}

fn sources() -> Vec<Source> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |path: PathBuf| {
        let below = path.strip_prefix(&folder).expect("it is below").to_string_lossy().replace('\\', "/");
        (below, fs::read_to_string(&path).expect("the file is text"))
    };
    let all: Vec<_> = rust_files(&folder).into_iter().map(read).collect();
    let tests: BTreeSet<_> = all.iter().flat_map(|(path, text)| test_paths(&folder, path, text)).collect();
    let is_test = |path: &str| tests.iter().any(|t| path == t || t.ends_with('/') && path.starts_with(t.as_str()));
    all.iter().map(|(path, text)| Source::new(path, text, is_test(path))).collect()
}

#[test]
fn the_sources_are_tidy() {
    let sources = sources();
    let lib = sources.iter().find(|s| s.path == "lib.rs").expect("there is a lib.rs");
    assert!(sources.len() > 50 && sources.iter().any(|s| s.test), "all sources are read, those of tests too");
    let mut wrong = check_rooms(&lib.text);
    wrong.extend(sources.iter().flat_map(|source| EACH_FILE.iter().flat_map(move |check| check(source))));
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn tests_and_benches_say_what_they_are_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files =
        ["tests", "benches"].into_iter().map(|f| root.join(f)).filter(|f| f.exists()).flat_map(|f| rust_files(&f));
    let silent: Vec<_> = files.filter(|f| !fs::read_to_string(f).is_ok_and(|t| t.starts_with("//! "))).collect();
    assert!(silent.is_empty(), "without a //! line: {silent:?}");
}

mod each_check_can_fail {
    use super::*;

    fn file(path: &str, text: &str) -> Source {
        Source::new(path, text, false)
    }

    #[test]
    fn nobody_looks_up_or_aside() {
        let bad = [
            ("model/a.rs", "use crate::config::Settings;"),
            ("proxy/a.rs", "fn f() { crate::store::open() }"),
            ("proxy/a.rs", "use crate::{model::State, control::Writer, routing};"),
            ("routing/mod.rs", "use super::analysis::Verdict;"),
            ("routing/deep/a.rs", "use super::super::super::proxy;"),
            ("routing/a.rs", "mod tests { use super::super::super::flags; }"),
            ("config/a.rs", "#[cfg(test)] mod tests { use crate::telemetry::Tallies; }"),
            ("control/a.rs", "use switchback::app::App;"),
        ];
        for (path, text) in bad {
            assert_eq!(check_direction(&file(path, text)).len(), 1, "{path}: {text}");
        }
        let good = [
            ("routing/a.rs", "use crate::model::State; use crate::telemetry::Tallies; use crate::routing::b;"),
            ("routing/a.rs", "use super::super::model; // crate::proxy\nconst A: &str = \"crate::control\";"),
            ("proxy/a.rs", "use super::control; use super::{store};"),
            ("proxy/deep/a.rs", "use super::super::store;"),
            ("app.rs", "use crate::admin; use crate::proxy; use crate::model;"),
            ("main.rs", "use switchback::cli;"),
            ("cli/mod.rs", "use crate::{app, admin::{self, control}};"),
        ];
        for (path, text) in good {
            assert_eq!(check_direction(&file(path, text)), [""; 0], "{path}: {text}");
        }
    }

    #[test]
    fn the_rooms_of_the_library_are_known_and_in_order() {
        assert_eq!(check_rooms("//! x\npub mod model;\npub mod routing; // mod z;\nmod store;"), [""; 0]);
        assert_eq!(check_rooms("pub mod utils;"), ["unknown room utils"]);
        assert_eq!(check_rooms("pub mod proxy;\npub mod model;").len(), 1);
    }

    #[test]
    fn long_functions_are_found_whatever_stands_in_them() {
        let with = |lines: usize| {
            let noise = "    let _ = ('{', '\\'', \"}\", r#\"}\"}\"#, b'}', /* } /* } */ */ 'a'..='}'); // }\n";
            format!(
                "//! x\nfn short() {{}}\nfn long<'a>(x: [u8; 3]) -> &'a str {{\n{}}}\nfn next() {{}}\n",
                noise.repeat(lines)
            )
        };
        assert_eq!(check_functions(&file("a.rs", &with(68))), [""; 0]);
        assert_eq!(check_functions(&file("a.rs", &with(69))), ["src/a.rs:3: long has 71 lines"]);
        let without_body = format!("trait T {{ fn f(&self); }}\nstruct S {{\n{}}}", "\n".repeat(80));
        assert_eq!(check_functions(&file("a.rs", &without_body)), [""; 0]);
        let pointer = format!("type F = fn(u8) -> u8;\nstruct S {{\n{}}}", "\n".repeat(80));
        assert_eq!(check_functions(&file("a.rs", &pointer)), [""; 0]);
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        assert_eq!(check_purpose(&file("a.rs", "// no\n")).len(), 1);
        assert_eq!(check_purpose(&file("a.rs", "//! yes\n")), [""; 0]);
    }

    #[test]
    fn main_stays_short() {
        assert_eq!(check_main(&file("main.rs", &"\n".repeat(41))).len(), 1);
        assert_eq!(check_main(&file("main.rs", &"\n".repeat(40))), [""; 0]);
        assert_eq!(check_main(&file("app.rs", &"\n".repeat(41))), [""; 0]);
    }

    #[test]
    fn pure_rooms_have_no_clock_no_chance_and_no_waiting() {
        let bad = [
            "use std::time::{Duration, Instant};",
            "let t = std::time::SystemTime::now();",
            "let x = rand::random::<u64>();",
            "use tokio::sync::mpsc;",
            "use pingora::proxy::Session;",
            "let t = jiff::Timestamp::now();",
            "#[cfg(test)] mod tests { fn f() { let _ = Instant::now(); } }",
        ];
        for text in bad {
            assert_eq!(check_purity(&file("planning/a.rs", text)).len(), 1, "{text}");
            assert_eq!(check_purity(&file("proxy/a.rs", text)), [""; 0], "{text}");
        }
        let good = "use std::time::Duration; // Instant::now()\nlet random = operand::x; use proptest::prelude::*;";
        assert_eq!(check_purity(&file("model/a.rs", good)), [""; 0]);
    }

    #[test]
    fn unsafe_is_found_and_its_prohibition_is_not() {
        assert_eq!(check_unsafe(&file("a.rs", "fn f() { unsafe { g() } }")).len(), 1);
        assert_eq!(check_unsafe(&file("a.rs", "#![forbid(unsafe_code)] // unsafe\n")), [""; 0]);
    }

    #[test]
    fn unwrap_is_for_tests() {
        assert_eq!(check_unwrap(&file("a.rs", "fn f() { g().unwrap(); }")), ["src/a.rs:1: unwrap outside of tests"]);
        let tested = "#[cfg(test)]\nmod tests { fn f() { g().unwrap(); } }\n";
        assert_eq!(check_unwrap(&file("a.rs", tested)), [""; 0]);
        assert_eq!(check_unwrap(&file("a.rs", &format!("{tested}fn f() {{ g().unwrap(); }}"))).len(), 1);
        assert_eq!(check_unwrap(&Source::new("a.rs", "fn f() { g().unwrap(); }", true)), [""; 0]);
        assert_eq!(check_unwrap(&file("a.rs", "fn f() { g().unwrap_or(1); } /// x.unwrap()\n")), [""; 0]);
    }

    #[test]
    fn what_only_tests_compile_is_known() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let text = "#[cfg(test)]\n#[path = \"apply_tests.rs\"]\nmod tests;\nmod apply;";
        assert_eq!(test_paths(&folder, "model/apply.rs", text), BTreeSet::from(["model/apply_tests.rs".to_owned()]));
        let found = test_paths(&folder, "config/mod.rs", "#[cfg(test)]\nmod tests;\npub mod tree;");
        assert_eq!(found, BTreeSet::from(["config/tests/".to_owned()]));
    }
}
