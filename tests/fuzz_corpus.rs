//! The bodies of the fuzz targets over their corpus, and over inputs made from it by chance with a fixed seed: what has
//! gone wrong once does not again, with any toolchain and in seconds. README says how to fuzz for longer.

#[path = "fuzz/bodies.rs"]
mod bodies;

use std::panic::catch_unwind;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Inputs made from the corpus, for each target.
const MADE: usize = 3_000;
/// The longest input.
const LONGEST: usize = 4 << 10;

/// What parsers stumble over.
const PIECES: [&[u8]; 20] = [
    b"\0",
    b"\r\n",
    b"\n",
    b":",
    b";",
    b",",
    b"=",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b".",
    b"..",
    b"-1",
    b"\xff",
    b"99999999999999999999",
    b"\xc3\xa9",
    b"{tenant}",
    b"chunked",
];

#[test]
fn every_target_holds_over_its_corpus_and_what_is_made_from_it() {
    for (name, body) in bodies::TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 3, "{name} has a corpus of {}", corpus.len());
        let mut chance = StdRng::seed_from_u64(xxhash_rust::xxh3::xxh3_64(name.as_bytes()));
        let made = (0..MADE).map(|_| made(&corpus, &mut chance)).collect::<Vec<_>>();
        for input in corpus.iter().chain(&made) {
            let held = catch_unwind(|| body(input));
            assert!(held.is_ok(), "{name} does not hold for {:?}", String::from_utf8_lossy(input));
        }
    }
}

/// The corpus reaches what it is for: accepted inputs as well as refused ones.
#[test]
fn the_corpus_has_what_is_accepted() {
    let some = |name: &str, accepts: &dyn Fn(&[u8]) -> bool| {
        let corpus = corpus(name);
        let accepted = corpus.iter().filter(|input| accepts(input)).count();
        assert!(accepted > 0 && accepted < corpus.len(), "{name}: {accepted} of {}", corpus.len());
    };
    let file = Path::new("/etc/switchback.toml");
    some("configuration", &|input| {
        let text = String::from_utf8_lossy(input);
        switchback::config::parse(&text, file, &|_| None).is_ok()
    });
    some("version", &|input| {
        serde_json::from_slice(input).is_ok_and(|value| switchback::config::version_from_json(&value).is_ok())
    });
    some("headers", &|input| matches!(switchback::proxy::bare::head(input), Ok(Some(_))));
    some("proxy_protocol", &|input| matches!(switchback::proxy::bare::proxy_protocol(input), Ok(Some(_))));
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn made(corpus: &[Vec<u8>], chance: &mut StdRng) -> Vec<u8> {
    let mut input = corpus[chance.random_range(0..corpus.len())].clone();
    for _ in 0..chance.random_range(1..6) {
        let at = chance.random_range(0..=input.len());
        let until = (at + chance.random_range(0..12)).min(input.len());
        match chance.random_range(0..5) {
            0 if at < input.len() => input[at] ^= 1 << chance.random_range(0..8),
            1 => drop(input.drain(at..until)),
            2 => {
                let piece = PIECES[chance.random_range(0..PIECES.len())];
                input.splice(at..at, piece.iter().copied());
            }
            3 => {
                let again = input[at..until].to_vec();
                input.splice(at..at, again);
            }
            _ => {
                let other = &corpus[chance.random_range(0..corpus.len())];
                let from = chance.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
        input.truncate(LONGEST);
    }
    input
}
