//! Tests of the comparison, beside it because they would make its file too long to read.

use super::*;
use crate::analysis::signal::ArmCounts;
use proptest::prelude::*;

fn batch(share: f64, errors: SignalCounts) -> Batch {
    Batch {
        routed_share: share,
        requests: errors,
        signals: [(Signal::Error, errors)].into_iter().collect(),
        coins: (errors.baseline.n, errors.canary.n),
        first_canary_failure_ms: None,
    }
}

fn good(share: f64, n: u64) -> Batch {
    let canary = (share * n as f64) as u64;
    batch(share, SignalCounts::new(n - canary, 0, canary, 0))
}

fn with_slow(mut batch: Batch, slow: SignalCounts) -> Batch {
    batch.signals.add(Signal::Slow, slow);
    batch
}

#[test]
fn silence_is_not_health() {
    let mut comparison = Comparison::new(&Parameters::default(), 0);
    comparison.observe(3_600_000, 0.1, &[]);
    let assessment = comparison.assess(3_600_000, 0.1, 0.0);
    assert_eq!(assessment.action, Action::None);
    assert_eq!(assessment.verdict, Verdict::NotEnoughEvidence);
    assert!(!assessment.promotion_ready);
}

#[test]
fn every_signal_with_data_must_be_proven() {
    let mut comparison = Comparison::new(&Parameters::default(), 0);
    comparison.observe(1000, 0.1, &[good(0.1, 20_000)]);
    assert_eq!(comparison.assess(1000, 0.1, 200.0).verdict, Verdict::Healthy);
    comparison.observe(2000, 0.1, &[with_slow(good(0.1, 100), SignalCounts::new(90, 9, 10, 1))]);
    let assessment = comparison.assess(2000, 0.1, 200.0);
    assert_eq!(assessment.verdict, Verdict::NotEnoughEvidence);
    assert!(assessment.signals.iter().any(|s| s.signal == Signal::Slow && s.has_data && !s.promotion_ready));
    comparison.observe(3000, 0.1, &[with_slow(good(0.1, 100), SignalCounts::new(18_000, 1800, 2000, 200))]);
    assert_eq!(comparison.assess(3000, 0.1, 200.0).verdict, Verdict::Healthy);
    comparison.step(4000);
    assert_eq!(comparison.assess(4000, 0.2, 200.0).verdict, Verdict::NotEnoughEvidence);
    comparison.observe(5000, 0.1, &[good(0.1, 20_000)]);
    assert_eq!(comparison.assess(5000, 0.1, 200.0).verdict, Verdict::Healthy, "the slow signal is inert in this step");
}

#[test]
fn traffic_of_the_baseline_alone_is_no_proof() {
    let mut comparison = Comparison::new(&Parameters::default(), 0);
    comparison.observe(1000, 0.1, &[batch(0.1, SignalCounts::new(1_000_000, 0, 0, 0))]);
    assert_eq!(comparison.assess(1000, 0.1, 0.0).verdict, Verdict::NotEnoughEvidence);
}

#[test]
fn the_window_covers_the_time_of_the_evidence_only() {
    let mut comparison = Comparison::new(&Parameters::default(), 0);
    for second in 1..=100 {
        comparison.observe(second * 1000, 0.1, &[good(0.1, 100)]);
    }
    for second in 101..=106 {
        let mut failing = batch(0.1, SignalCounts::new(90, 0, 10, 10));
        failing.first_canary_failure_ms = Some(second * 1000 - 700);
        comparison.observe(second * 1000, 0.1, &[failing]);
    }
    let window = comparison.window();
    assert_eq!((window.signal, window.started_ms, window.seconds), (Signal::Error, 100_000, 6.0));
    assert_eq!((window.baseline, window.canary), (ArmCounts::new(540, 0), ArmCounts::new(60, 60)));
    assert_eq!((window.first_bad_ms, window.canary_bad_keys), (Some(100_300), 60));
    assert!((window.share - 0.1).abs() < 1e-12);
    comparison.step(106_500);
    assert_eq!(comparison.window().started_ms, 100_000, "a step keeps evidence and window");
}

#[test]
fn the_brake_is_pulled_once_and_releases_itself() {
    let mut comparison = Comparison::new(&Parameters::default(), 0);
    comparison.observe(100, 0.5, &[batch(0.5, SignalCounts::new(10, 0, 10, 10))]);
    assert_eq!(comparison.assess(100, 0.5, 100.0).action, Action::Brake { share: 0.05 });
    assert_eq!(comparison.assess(200, 0.05, 1.0).action, Action::Brake { share: 0.05 });
    assert_eq!(comparison.assess(300, 0.05, 1.0).verdict, Verdict::NotEnoughEvidence);
    assert_eq!(comparison.assess(60_100, 0.05, 1.0).action, Action::None);
    comparison.observe(61_000, 0.3, &[batch(0.3, SignalCounts::new(10, 0, 10, 10))]);
    assert_eq!(
        comparison.assess(61_000, 0.3, 100.0).action,
        Action::Brake { share: 0.03 },
        "braked from the share of now"
    );
}

#[test]
fn a_brake_that_changes_nothing_can_be_pulled_later() {
    let mut comparison = Comparison::new(&Parameters::default(), 0);
    comparison.observe(100, 0.5, &[batch(0.5, SignalCounts::new(10, 0, 10, 10))]);
    assert_eq!(comparison.assess(100, 0.5, 1.0).action, Action::Brake { share: 0.5 });
    assert_eq!(comparison.assess(200, 0.5, 100.0).action, Action::Brake { share: 0.05 });
}

#[test]
fn requests_routed_before_the_rollout_are_booked_at_the_share_of_now() {
    let mut with_old = Comparison::new(&Parameters::default(), 0);
    let mut without = with_old.clone();
    let canary = batch(0.1, SignalCounts::new(0, 0, 10, 3));
    let in_flight = batch(0.0, SignalCounts::new(90, 27, 0, 0));
    with_old.observe(1000, 0.1, &[canary, in_flight]);
    without.observe(1000, 0.1, &[canary]);
    let (log_with, log_without) = (with_old.detector.log_evidence(), without.detector.log_evidence());
    assert!(log_with < 0.0 && log_without > 1.0, "{log_with} {log_without}");
}

#[test]
fn promotion_never_sees_a_larger_share_than_the_true_one() {
    let comparison = Comparison::new(&Parameters::default(), 0);
    assert_eq!(comparison.shares(0.5, 0.1), (0.5, 0.1), "just after a step up");
    assert_eq!(comparison.shares(0.02, 0.1), (0.1, 0.1), "just after a brake");
}

#[test]
fn a_braked_canary_is_not_healthy_even_with_proof_from_before() {
    let mut comparison = Comparison::new(&Parameters::default(), 0);
    for second in 1..=10 {
        comparison.observe(second * 1000, 0.1, &[good(0.1, 20_000)]);
    }
    assert_eq!(comparison.assess(10_000, 0.1, 100.0).verdict, Verdict::Healthy);
    comparison.observe(10_500, 0.1, &[batch(0.1, SignalCounts::new(0, 0, 12, 12))]);
    let assessment = comparison.assess(10_500, 0.1, 100.0);
    assert_eq!(assessment.action, Action::Brake { share: 0.02 });
    assert!(assessment.promotion_ready && assessment.log_evidence < 2f64.ln(), "{assessment:?}");
    assert_eq!(assessment.verdict, Verdict::NotEnoughEvidence);
}

#[test]
fn a_wrong_split_is_reported_and_no_longer_trusted() {
    let mut comparison = Comparison::new(&Parameters::default(), 0);
    comparison.observe(1000, 0.1, &[batch(0.1, SignalCounts::new(8000, 0, 2000, 0))]);
    assert!(comparison.assess(1000, 0.1, 200.0).split_off);
    let (share, promotion_share) = comparison.shares(0.1, 0.1);
    assert!((share - 0.2).abs() < 1e-9, "the realised share");
    assert_eq!(promotion_share, 0.1);
    comparison.step(2000);
    comparison.observe(3000, 0.1, &[good(0.1, 1_000_000)]);
    assert!(!comparison.split_check.is_off());
    assert!(comparison.assess(3000, 0.1, 200.0).split_off, "it stays reported");
}

#[test]
fn a_comparison_handed_to_an_earlier_clock_is_not_deaf() {
    let hour = 3_600_000;
    let mut comparison = Comparison::new(&Parameters::default(), hour);
    comparison.observe(hour + 500, 0.1, &[batch(0.1, SignalCounts::new(90, 0, 10, 10))]);
    comparison.resume(700);
    for second in 1..5 {
        comparison.observe(second * 1000, 0.1, &[batch(0.1, SignalCounts::new(90, 0, 10, 10))]);
    }
    assert!(matches!(comparison.assess(4000, 0.1, 10.0).action, Action::Rollback { .. }));
    let window = comparison.window();
    assert_eq!((window.started_ms, window.first_bad_ms), (200, Some(700)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_restored_comparison_has_the_same_future(
        stream in prop::collection::vec((1u64..3000, 0.01..0.9f64, 0u64..50, 0u64..9, 0u64..20, 0u64..9), 2..40),
        cut in 0usize..40,
    ) {
        let mut original = Comparison::new(&Parameters::default().with_client_errors(), 0);
        let mut restored = None;
        let mut now_ms = 0;
        for (position, (gap, share, n, bad, canary_n, canary_bad)) in stream.iter().enumerate() {
            if position == cut.min(stream.len() - 1) {
                let stored = serde_json::to_string(&original).unwrap();
                restored = Some(serde_json::from_str::<Comparison>(&stored).unwrap());
            }
            now_ms += gap;
            let counts = SignalCounts::new(n + bad, *bad, canary_n + canary_bad, *canary_bad);
            let batch = with_slow(batch(*share, counts), counts);
            for comparison in std::iter::once(&mut original).chain(&mut restored) {
                comparison.observe(now_ms, *share, &[batch]);
            }
        }
        let mut restored = restored.unwrap();
        let (a, b) = (original.assess(now_ms, 0.3, 50.0), restored.assess(now_ms, 0.3, 50.0));
        prop_assert_eq!((a.action, a.verdict, a.leading), (b.action, b.verdict, b.leading));
        prop_assert!((a.log_evidence - b.log_evidence).abs() < 1e-9);
        prop_assert!((a.log_brake - b.log_brake).abs() < 1e-9);
        prop_assert!((a.log_ceiling_canary - b.log_ceiling_canary).abs() < 1e-9);
        for (x, y) in a.signals.iter().zip(&b.signals) {
            prop_assert!((x.log_promotion - y.log_promotion).abs() < 1e-9);
        }
        prop_assert_eq!(original.window().started_ms, restored.window().started_ms);
        prop_assert_eq!(original.window().canary, restored.window().canary);
    }
}
