//! Tests of the counts: noise learned before, while and after it is counted, and every table at its limit.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::body::Body;
use super::super::compare::differences;
use super::*;
use crate::model::{BasisPoints, VersionName};

fn spec() -> ShadowSpec {
    ShadowSpec::new(VersionName::new("2").unwrap())
}

fn side(status: u16) -> Side {
    Side { status, latency_us: 1_000 }
}

fn found(a: Value, b: Value) -> Differences {
    differences(&Body::Json(a), &Body::Json(b), &[]).unwrap()
}

fn exchange(bodies: Differences) -> Exchange {
    Exchange { baseline: side(200), shadow: side(200), bodies: Some(bodies) }
}

/// What one request of the numbered kind differs in: bit 0 is `$.a`, bit 1 `$.b`, bit 2 `$.c`.
fn bits(bits: u8) -> Differences {
    let value = |on: bool| json!({ "a": on && bits & 1 > 0, "b": on && bits & 2 > 0, "c": on && bits & 4 > 0 });
    found(value(false), value(true))
}

fn learned(judge: &mut Judge, noise: &Differences) {
    (0..NOISE_NEEDED).for_each(|_| judge.learn(noise, &Differences::default()));
}

#[test]
fn noise_is_not_reported_before_or_after_it_is_learned() {
    let mut judge = Judge::default();
    for _ in 0..600 {
        assert_eq!(judge.record(7, &exchange(bits(1))), Result::Different, "nobody has said that $.a is noise");
    }
    assert_eq!(judge.report(&spec()).different, 600);
    assert_eq!(judge.report(&spec()).fields, [], "too few noise samples");
    assert_eq!(judge.report(&spec()).verdict, Verdict::NotEnoughEvidence);
    learned(&mut judge, &bits(1));
    let report = judge.report(&spec());
    assert_eq!((report.same, report.different, report.verdict), (600, 0, Verdict::Healthy));
    assert_eq!((report.fields, report.noise), (vec![], vec!["$.a".to_owned()]));
    assert_eq!(judge.record(8, &exchange(bits(1))), Result::Same);
    for _ in 0..60 {
        assert_eq!(judge.record(9, &exchange(bits(3))), Result::Different);
    }
    let report = judge.report(&spec());
    assert_eq!((report.same, report.different, report.since_ms), (601, 60, Some(7)));
    assert_eq!(report.verdict, Verdict::Breach);
    let fields: Vec<_> = report.fields.iter().map(|f| (f.path.as_str(), f.requests)).collect();
    assert_eq!(fields, [("$.b", 60)]);
    assert!((report.fields[0].rate - 60.0 / 661.0).abs() < 1e-9);
}

#[test]
fn the_baseline_is_asked_again_at_first_and_for_what_is_new() {
    let mut judge = Judge::default();
    let nothing = Differences::default();
    assert!(judge.wants_noise(Some(&nothing)) && !judge.wants_noise(None));
    learned(&mut judge, &bits(1));
    assert!(!judge.wants_noise(Some(&nothing)) && !judge.wants_noise(Some(&bits(1))));
    for _ in 0..CONFIRM {
        assert!(judge.wants_noise(Some(&bits(2))), "not yet shown to be no noise");
        judge.learn(&bits(1), &bits(3));
    }
    assert!(!judge.wants_noise(Some(&bits(3))), "confirmed often enough");
    assert!(judge.wants_noise(Some(&bits(4))));
}

#[test]
fn statuses_and_missing_answers_need_no_noise() {
    let mut judge = Judge::default();
    let broken = Exchange { baseline: side(200), shadow: side(500), bodies: None };
    (0..10).for_each(|_| assert_eq!(judge.record(0, &broken), Result::Different));
    (0..7).for_each(|_| judge.missed(0, Missed::Timeout));
    (0..3).for_each(|_| judge.missed(0, Missed::Failed));
    let unread = Exchange { baseline: side(200), shadow: side(200), bodies: None };
    assert_eq!(judge.record(0, &unread), Result::Unjudged);
    let report = judge.report(&spec());
    assert_eq!(report.verdict, Verdict::Breach);
    assert_eq!((report.different, report.timeouts, report.failed, report.unjudged, report.same), (10, 7, 3, 1, 0));
    assert_eq!(report.statuses, [(200, 500, 10)]);
    assert_eq!(report.baseline_latency, report.shadow_latency);
    assert!(report.baseline_latency.p99.is_some_and(|s| (0.001..0.0011).contains(&s)));
}

#[test]
fn without_noise_samples_wanted_fields_are_reported_at_once() {
    let mut judge = Judge::default();
    let spec = ShadowSpec { noise_share: BasisPoints::ZERO, ..spec() };
    (0..20).for_each(|_| _ = judge.record(0, &exchange(bits(2))));
    let report = judge.report(&spec);
    assert_eq!((report.noise_needed, report.fields.len(), report.verdict), (0, 1, Verdict::Breach));
}

#[test]
fn every_table_is_bounded() {
    let mut judge = Judge::default();
    let one = |path: String| {
        let mut all = Differences::default();
        all.fields.insert(path, bits(1).fields.remove("$.a").unwrap());
        all
    };
    for i in 0..3_000 {
        judge.record(0, &exchange(one(format!("$.f{i}"))));
    }
    for status in 100..400 {
        judge.record(0, &Exchange { baseline: side(status), shadow: side(status + 1), bodies: None });
    }
    let report = judge.report(&spec());
    assert_eq!((judge.fields.len(), judge.sets.len()), (PATHS_MAX, SETS_MAX + 1));
    assert_eq!((report.other_fields, report.different, report.statuses.len()), (2_000, 3_300, STATUSES_MAX));
    assert!(!judge.wants_noise(None));
    judge.learn(&one("$.unheard".to_owned()), &Differences::default());
    let report = judge.report(&spec());
    assert_eq!(
        (report.other_fields, report.different),
        (0, 1_300),
        "what is not told apart is noise as soon as some is"
    );
    for i in 0..2_000_u32 {
        let mut pair = one(format!("$.f{}", i % 1_000));
        pair.fields.extend(one(format!("$.f{}", (i * 7 + 1) % 1_000)).fields);
        judge.record(0, &exchange(pair));
    }
    assert!(judge.sets.len() <= SETS_MAX + PATHS_MAX);
    assert_eq!(judge.report(&spec()).different, 3_300);
}

proptest! {
    /// Whatever the order of requests and lessons, the end is that of having known the noise from the beginning.
    #[test]
    fn learning_late_ends_like_learning_first(
        requests in prop::collection::vec(0u8..8, 0..60), noise in 0u8..8, at: prop::sample::Index,
    ) {
        let mut late = Judge::default();
        let when = at.index(requests.len() + 1);
        for (i, request) in requests.iter().enumerate() {
            if i == when { learned(&mut late, &bits(noise)); }
            late.record(0, &exchange(bits(*request)));
        }
        if when == requests.len() { learned(&mut late, &bits(noise)); }
        let report = late.report(&spec());
        let real = |request: &&u8| **request & !noise > 0;
        prop_assert_eq!(report.different, requests.iter().filter(real).count() as u64);
        prop_assert_eq!(report.same + report.different, requests.len() as u64);
        for (bit, path) in [(1, "$.a"), (2, "$.b"), (4, "$.c")] {
            let wanted = if noise & bit > 0 { 0 } else { requests.iter().filter(|r| **r & bit > 0).count() as u64 };
            let shown = report.fields.iter().find(|f| f.path == path).map_or(0, |f| f.requests);
            prop_assert_eq!(shown, wanted, "{}", path);
        }
    }
}
