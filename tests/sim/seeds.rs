//! Stories of many seeds, told by all processors at once. Each story is one thread's own, so it is the same however many run.

use std::any::Any;
use std::env;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Stories that may fail before no more are told: a mistake that breaks all of them need not be told by all of them.
const FAILURES: usize = 10;

/// Tells the story of each seed below this number, or of `SIM_SEEDS`, or only that of `SIM_SEED`. Fails with the commands
/// that tell again what failed, in which `test` is what the test's name begins with.
pub fn each(test: &str, seeds: u64, story: impl Fn(u64) + Sync) {
    let seeds = asked("SIM_SEED").map_or_else(|| 0..asked("SIM_SEEDS").unwrap_or(seeds), |seed| seed..seed + 1);
    let mut failed = failures(&seeds, story);
    failed.sort();
    let told: Vec<_> = failed
        .iter()
        .map(|(seed, why)| {
            format!("SIM_SEED={seed} cargo test --test sim -- {test}\n    {}", why.lines().next().unwrap_or(""))
        })
        .collect();
    let Some((seed, why)) = failed.first() else { return };
    panic!("{} stories fail; again with\n{}\nthat of seed {seed}: {why}", failed.len(), told.join("\n"));
}

/// The seeds whose stories fail, and why.
fn failures(seeds: &Range<u64>, story: impl Fn(u64) + Sync) -> Vec<(u64, String)> {
    let (next, failed) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let tell = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) || failed.lock().expect("no story holds it").len() >= FAILURES {
                return;
            }
            if let Err(why) = catch_unwind(AssertUnwindSafe(|| story(seed))) {
                failed.lock().expect("no story holds it").push((seed, text(&*why)));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(tell);
        }
    });
    failed.into_inner().expect("no story holds it")
}

fn text(why: &(dyn Any + Send)) -> String {
    let said = why.downcast_ref::<String>().cloned();
    said.or_else(|| why.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "it does not say".to_owned())
}

fn asked(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")))
}
