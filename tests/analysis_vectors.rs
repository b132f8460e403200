//! Holds the analysis to reference vectors: every number to 1e-9, every decision exactly.
//!
//! Another file of the same form is read when `SWITCHBACK_VECTORS` names one.

use std::collections::BTreeMap;

use serde_json::Value;
use switchback::analysis::{
    Action, ArmCounts, Ceiling, ChannelParameters, Detector, Fleet, LogHistogram, Parameters, Promoter, Signal,
    SignalCounts, SplitCheck, bet, brake_share, decide, ebh, log_evalue, stake,
};

const TOLERANCE: f64 = 1e-9;
const KINDS: [&str; 10] =
    ["coef", "eprocess", "detector", "ceiling", "decide", "promote", "split", "ebh", "fleet", "latency"];

#[test]
fn every_case_agrees() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/vectors.json").to_owned();
    let path = std::env::var("SWITCHBACK_VECTORS").unwrap_or(default);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut run: BTreeMap<&str, usize> = BTreeMap::new();
    for case in list(&file["cases"]) {
        let kind = case["kind"].as_str().expect("every case has a kind");
        let compared = run_case(kind, case, &file["defaults"]);
        assert!(compared > 0, "{kind} {}: nothing was compared", case["name"]);
        *run.entry(kind).or_default() += 1;
    }
    println!("{path}: {run:?}");
    for kind in KINDS {
        assert!(run.contains_key(kind), "{path} has no case of kind {kind}");
    }
}

/// Returns how many expectations were compared.
fn run_case(kind: &str, case: &Value, defaults: &Value) -> usize {
    let name = format!("{kind} {}", case["name"]);
    match kind {
        "coef" => coefficients(&name, case),
        "eprocess" => e_process(&name, case),
        "detector" => detector(&name, case, defaults),
        "ceiling" => ceiling(&name, case, defaults),
        "decide" => decisions(&name, case, defaults),
        "promote" => promotion(&name, case, defaults),
        "split" => split(&name, case),
        "ebh" => e_bh(&name, case),
        "fleet" => fleet(&name, case, defaults),
        "latency" => latency(&name, case),
        other => panic!("unknown kind of case: {other}"),
    }
}

fn coefficients(name: &str, case: &Value) -> usize {
    for row in list(&case["rows"]) {
        let [g, share, rho, delta] = ["g", "share", "rho", "delta"].map(|field| number(&row[field]));
        let mu = stake(g, share, rho, delta);
        let bet = bet(mu, share, rho, delta);
        close(name, mu, &row["mu"]);
        close(name, bet.canary_bad, &row["ln_new_bad"]);
        close(name, bet.canary_good, &row["ln_new_ok"]);
        close(name, bet.baseline_bad, &row["ln_old_bad"]);
    }
    list(&case["rows"]).len()
}

fn e_process(name: &str, case: &Value) -> usize {
    let batches: Vec<SignalCounts> = list(&case["batches"]).iter().map(counts).collect();
    let [share, rho, delta] = ["share", "rho", "delta"].map(|field| number(&case[field]));
    compare(name, &log_evalue(&batches, share, rho, delta, &numbers(&case["multiples"])), &case["expect_ln_e"])
}

fn detector(name: &str, case: &Value, defaults: &Value) -> usize {
    let mut detector = Detector::new(&parameters(defaults, &case["config"]));
    let (events, expected) = (list(&case["events"]), list(&case["expect"]));
    assert_eq!(events.len(), expected.len(), "{name}");
    for (event, expected) in events.iter().zip(expected) {
        let now_ms = integer(&event[1]);
        match event[0].as_str() {
            Some("step") => detector.step(now_ms),
            Some("add") => detector.add(now_ms, number(&event[2]), &signals(&event[3])),
            other => panic!("{name}: unknown event {other:?}"),
        }
        close(name, detector.log_evidence(), &expected["ln_m"]);
        close(name, detector.log_brake(), &expected["ln_brake"]);
        close(name, detector.log_evidence_of(Signal::Error), &expected["ln_err"]);
        assert_eq!(detector.rollback(), expected["rollback"], "{name}: rollback at {now_ms}");
        assert_eq!(detector.brake(now_ms), expected["brake"], "{name}: brake at {now_ms}");
    }
    expected.len()
}

fn ceiling(name: &str, case: &Value, defaults: &Value) -> usize {
    let parameters = parameters(defaults, &case["config"]);
    let mut ceiling = Ceiling::with_limit(number(&case["ceiling"]), &parameters);
    let evidence = list(&case["events"]).iter().map(|event| {
        ceiling.add(integer(&event[0]), ArmCounts::new(integer(&event[1]), integer(&event[2])));
        ceiling.log_evidence()
    });
    compare(name, &evidence.collect::<Vec<_>>(), &case["expect_ln_e"])
}

fn decisions(name: &str, case: &Value, defaults: &Value) -> usize {
    let parameters = parameters(defaults, &case["config"]);
    let share = number(&case["share"]);
    let mut detector = Detector::new(&parameters);
    let (mut canary, mut baseline) = (Ceiling::new(&parameters), Ceiling::new(&parameters));
    let (events, expected) = (list(&case["events"]), list(&case["expect"]));
    assert_eq!(events.len(), expected.len(), "{name}");
    for (event, expected) in events.iter().zip(expected) {
        let now_ms = integer(&event[0]);
        let [n, bad, canary_n, canary_bad] = [1, 2, 3, 4].map(|position| integer(&event[position]));
        let counts = SignalCounts::new(n, bad, canary_n, canary_bad);
        detector.add(now_ms, share, &[(Signal::Error, counts)]);
        canary.add(now_ms, counts.canary);
        baseline.add(now_ms, counts.baseline);
        close(name, detector.log_evidence(), &expected["ln_m"]);
        close(name, canary.log_evidence(), &expected["ln_ceil_new"]);
        close(name, baseline.log_evidence(), &expected["ln_ceil_old"]);
        let braked = detector.brake(now_ms).then(|| brake_share(share, 100.0, &parameters));
        let verdict = match decide(&detector, &canary, &baseline, &parameters, share, braked) {
            Action::None => "ok",
            Action::Rollback { .. } => "rollback",
            Action::Probe => "probe",
            Action::Brake { .. } => "brake",
            Action::HoldSlo => "hold-slo",
        };
        assert_eq!(verdict, expected["verdict"], "{name} at {now_ms}");
    }
    expected.len()
}

fn promotion(name: &str, case: &Value, defaults: &Value) -> usize {
    let parameters = Parameters {
        promote_rho: number(&case["rho"]),
        promote_delta: number(&case["delta"]),
        promote_bets: numbers(&case["bets"]),
        ..parameters(defaults, &Value::Null)
    };
    let mut promoter = Promoter::new(&parameters);
    let evidence = list(&case["batches"]).iter().map(|batch| {
        promoter.add(number(&case["share"]), &counts(batch));
        promoter.log_evidence()
    });
    compare(name, &evidence.collect::<Vec<_>>(), &case["expect_ln_e"])
}

fn split(name: &str, case: &Value) -> usize {
    assert_eq!(numbers(&case["ratios"]), SplitCheck::RATIOS, "{name}");
    let mut check = SplitCheck::new();
    let evidence = list(&case["batches"]).iter().map(|batch| {
        check.add(number(&case["share"]), integer(&batch[0]), integer(&batch[1]));
        check.log_evidence()
    });
    compare(name, &evidence.collect::<Vec<_>>(), &case["expect_ln_e"])
}

fn e_bh(name: &str, case: &Value) -> usize {
    let chosen = ebh(&numbers(&case["ln_e"]), number(&case["fdr"]));
    let expected: Vec<usize> = list(&case["expect"]).iter().map(|index| integer(index) as usize).collect();
    assert_eq!(chosen, expected, "{name}");
    1
}

fn fleet(name: &str, case: &Value, defaults: &Value) -> usize {
    let base = parameters(defaults, &case["config"]);
    let parameters = Parameters { fleet_scope_cap: number(&case["tenant_cap"]), ..base };
    let mut fleet = Fleet::new(&parameters);
    let mut scopes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut evidence = Vec::new();
    for (slot, rows) in (0u64..).zip(list(&case["slots"])) {
        // The reference is read after the slot's close.
        fleet.advance(slot * parameters.slot_ms);
        for row in list(rows) {
            let next = scopes.len() as u64;
            let scope = *scopes.entry(row[0].as_str().expect("a tenant is a string")).or_insert(next);
            fleet.add(slot * parameters.slot_ms, scope, number(&row[1]), &signals(&row[2]));
        }
        fleet.advance((slot + 1) * parameters.slot_ms);
        evidence.push(fleet.log_evidence());
    }
    compare(name, &evidence, &case["expect_ln_e"])
}

fn latency(name: &str, case: &Value) -> usize {
    let mut histogram = LogHistogram::new(number(&case["half_life_s"]));
    numbers(&case["latencies"]).into_iter().for_each(|seconds| histogram.add(seconds));
    histogram.decay(number(&case["decay_s"]));
    let expected = case["expect"].as_object().expect("cuts by percentile");
    for (percentile, cut) in expected {
        let q = match percentile.as_str() {
            "p90" => 0.9,
            "p99" => 0.99,
            "p999" => 0.999,
            other => panic!("{name}: unknown percentile {other}"),
        };
        match histogram.cut(q) {
            Some(seconds) => close(name, seconds, cut),
            None => assert!(cut.is_null(), "{name}: {percentile} should be {cut}"),
        }
    }
    expected.len()
}

/// The file's defaults with a case's overrides.
fn parameters(defaults: &Value, overrides: &Value) -> Parameters {
    let mut parameters = Parameters::default();
    for (field, value) in [defaults, overrides].into_iter().filter_map(Value::as_object).flatten() {
        match field.as_str() {
            "alpha" => parameters.alpha = number(value),
            "kappa_per_hour" => parameters.refill_per_hour = number(value),
            "multiples" => parameters.multiples = numbers(value),
            "slot_ms" => parameters.slot_ms = integer(value),
            "cap" => parameters.cap = number(value),
            "channels" => parameters.channels = list(value).iter().map(channel).collect(),
            "latency_tolerance" => parameters.latency_tolerance = number(value),
            "brake_at" => parameters.brake_at = number(value),
            "brake_multiple" => parameters.brake_multiple = number(value),
            "brake_quiet_ms" => parameters.brake_quiet_ms = integer(value),
            "brake_div" => parameters.brake_divisor = number(value),
            "brake_floor" => parameters.brake_floor = number(value),
            "brake_min_new_rps" => parameters.brake_min_canary_rps = number(value),
            "ceiling" => parameters.ceiling = number(value),
            "ceiling_needs" => parameters.ceiling_needs = number(value),
            "promote_at" => parameters.promote_at = number(value),
            "promote_rho" => parameters.promote_rho = number(value),
            "promote_delta" => parameters.promote_delta = number(value),
            "promote_bets" => parameters.promote_bets = numbers(value),
            other => panic!("unknown setting: {other}"),
        }
    }
    assert_eq!(parameters.validate(), Ok(()));
    parameters
}

fn channel(value: &Value) -> ChannelParameters {
    let signal = signal(value[0].as_str().expect("a channel has a name"));
    ChannelParameters { signal, weight: number(&value[1]), rho: number(&value[2]), delta: number(&value[3]) }
}

fn signal(name: &str) -> Signal {
    match name {
        "err" => Signal::Error,
        "slow" => Signal::Slow,
        "vslow" => Signal::VerySlow,
        "4xx" | "client" | "client_error" => Signal::ClientError,
        other => panic!("unknown channel: {other}"),
    }
}

fn signals(value: &Value) -> Vec<(Signal, SignalCounts)> {
    let by_channel = value.as_object().expect("counts by channel");
    by_channel.iter().map(|(name, value)| (signal(name), counts(value))).collect()
}

fn counts(value: &Value) -> SignalCounts {
    SignalCounts::new(integer(&value[0]), integer(&value[1]), integer(&value[2]), integer(&value[3]))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).iter().map(number).collect()
}

fn integer(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a whole number: {value}"))
}

fn close(name: &str, actual: f64, expected: &Value) {
    let expected = number(expected);
    assert!((actual - expected).abs() <= TOLERANCE, "{name}: {actual} instead of {expected}");
}

fn compare(name: &str, actual: &[f64], expected: &Value) -> usize {
    let expected = list(expected);
    assert_eq!(actual.len(), expected.len(), "{name}");
    actual.iter().zip(expected).for_each(|(actual, expected)| close(name, *actual, expected));
    expected.len()
}
