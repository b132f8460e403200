//! Why the traffic was returned, in three sentences that a person can check against the numbers.

use super::parameters::{ChannelParameters, Parameters};
use super::signal::{ArmCounts, Signal};
use super::window::EvidenceWindow;

/// How the two versions are called where the reason is read.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The version the traffic went back to, for instance `1.0.0`.
    pub baseline: &'a str,
    /// The version it was taken from.
    pub canary: &'a str,
}

/// The words for a signal.
struct Wording {
    one: &'static str,
    many: &'static str,
    /// Continues "5.0 % of its requests".
    did: &'static str,
}

/// The reason for a rollback because of `signal`. `short_cut` is that of
/// [`Action::Rollback`](super::Action::Rollback).
#[must_use]
pub fn reason(
    window: &EvidenceWindow,
    parameters: &Parameters,
    signal: Signal,
    short_cut: bool,
    names: Names<'_>,
) -> String {
    let facts = facts(window, signal, names);
    let odds = odds(parameters, signal, short_cut, names);
    format!("{facts} {odds} Traffic was therefore returned to {}.", names.baseline)
}

fn facts(window: &EvidenceWindow, signal: Signal, names: Names<'_>) -> String {
    let wording = wording(signal);
    let Names { baseline, canary } = names;
    let share = shortest(100.0 * window.share);
    let produced = produced(window.canary.bad, window.canary.bad + window.baseline.bad, &wording);
    let time = duration(window.seconds);
    let did = wording.did;
    let rate = percent(window.canary);
    let against = match window.baseline.n {
        0 => format!("with no requests on {baseline} in that time"),
        _ => format!("against {} % on {baseline}", percent(window.baseline)),
    };
    format!(
        "Version {canary} was given {share} % of the requests but produced {produced} in the last {time} \
         ({rate} % of its requests {did}, {against})."
    )
}

fn odds(parameters: &Parameters, signal: Signal, short_cut: bool, names: Names<'_>) -> String {
    let Names { baseline, canary } = names;
    let margin = parameters.channel(signal).map_or_else(|| baseline.to_owned(), |channel| margin(channel, baseline));
    if short_cut {
        let ceiling = shortest(100.0 * parameters.ceiling);
        let rollouts = thousands(parameters.ceiling_needs);
        return format!(
            "It breaks the limit of {ceiling} % failures while {baseline} keeps it, and if {canary} were no worse than \
             {margin}, odds this bad would turn up less than once in {rollouts} rollouts."
        );
    }
    let rollouts = thousands(1.0 / parameters.alpha);
    format!("If it were no worse than {margin}, odds this bad would turn up less than once in {rollouts} rollouts.")
}

fn wording(signal: Signal) -> Wording {
    match signal {
        Signal::Error => Wording { one: "failure", many: "failures", did: "failed" },
        Signal::Slow => {
            Wording { one: "slow request", many: "slow requests", did: "took longer than nine in ten usually take" }
        }
        Signal::VerySlow => Wording {
            one: "very slow request",
            many: "very slow requests",
            did: "took longer than 99 in 100 usually take",
        },
        Signal::ClientError => {
            Wording { one: "client error (4xx)", many: "client errors (4xx)", did: "were answered with a client error" }
        }
    }
}

fn produced(canary: u64, total: u64, wording: &Wording) -> String {
    match (canary, total) {
        (1, 1) => format!("the only {}", wording.one),
        (2, 2) => format!("both {}", wording.many),
        (canary, total) if canary == total => format!("all {total} {}", wording.many),
        (canary, 1) => format!("{canary} of 1 {}", wording.one),
        (canary, total) => format!("{canary} of the {total} {}", wording.many),
    }
}

/// "1.1 times the rate of 1.0.0 plus 0.05 percentage points", leaving out what changes nothing.
fn margin(channel: &ChannelParameters, baseline: &str) -> String {
    let rate = if channel.rho == 1.0 {
        baseline.to_owned()
    } else {
        format!("{} times the rate of {baseline}", shortest(channel.rho))
    };
    if channel.delta == 0.0 {
        return rate;
    }
    let points = shortest(100.0 * channel.delta);
    let unit = if points == "1" { "point" } else { "points" };
    format!("{rate} plus {points} percentage {unit}")
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.5 => "second".to_owned(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// Two digits that mean something, and never 0 % or 100 % of what is not none or all.
fn percent(counts: ArmCounts) -> String {
    let value = 100.0 * counts.rate();
    if counts.bad == 0 {
        return "0".to_owned();
    }
    if counts.bad >= counts.n {
        return "100".to_owned();
    }
    if value >= 99.5 {
        return format!("{:.1}", value.min(99.9));
    }
    if value >= 9.95 {
        return format!("{value:.0}");
    }
    let decimals = (1.0 - value.log10().floor()).clamp(1.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

/// Up to three digits that mean something, without trailing zeros: for settings, which people chose round.
fn shortest(value: f64) -> String {
    if value <= 0.0 {
        return "0".to_owned();
    }
    let decimals = (2.0 - value.log10().floor()).clamp(0.0, 9.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A whole number with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'_> = Names { baseline: "1.0.0", canary: "2.0.0" };

    fn window(signal: Signal, baseline: ArmCounts, canary: ArmCounts, seconds: f64) -> EvidenceWindow {
        EvidenceWindow {
            signal,
            baseline,
            canary,
            baseline_bad_keys: baseline.bad,
            canary_bad_keys: canary.bad,
            share: 0.1,
            seconds,
            started_ms: 0,
            first_bad_ms: None,
        }
    }

    #[test]
    fn the_example_of_the_specification() {
        let window = window(Signal::Error, ArmCounts::new(3450, 9), ArmCounts::new(380, 19), 41.2);
        assert_eq!(
            reason(&window, &Parameters::default(), Signal::Error, false, NAMES),
            "Version 2.0.0 was given 10 % of the requests but produced 19 of the 28 failures in the last 41 s (5.0 % of \
             its requests failed, against 0.26 % on 1.0.0). If it were no worse than 1.1 times the rate of 1.0.0 plus \
             0.05 percentage points, odds this bad would turn up less than once in 10,000 rollouts. Traffic was \
             therefore returned to 1.0.0."
        );
    }

    #[test]
    fn latency_and_the_short_cut_have_their_own_words() {
        let parameters = Parameters::default();
        let slow = window(Signal::VerySlow, ArmCounts::new(9000, 90), ArmCounts::new(1000, 250), 700.0);
        let text = reason(&slow, &parameters, Signal::VerySlow, false, NAMES);
        assert!(
            text.contains("250 of the 340 very slow requests in the last 12 min (25 % of its requests took"),
            "{text}"
        );
        assert!(text.contains("against 1.0 % on 1.0.0). If it were no worse than 1.0.0 plus 0.05"), "{text}");
        let dead = window(Signal::Error, ArmCounts::new(12, 0), ArmCounts::new(10, 10), 22.0);
        let text = reason(&dead, &parameters, Signal::Error, true, NAMES);
        assert!(
            text.contains("produced all 10 failures in the last 22 s (100 % of its requests failed, against 0 %"),
            "{text}"
        );
        assert!(text.contains("It breaks the limit of 5 % failures while 1.0.0 keeps it"), "{text}");
        assert!(text.contains("once in 100 rollouts"), "{text}");
    }

    #[test]
    fn one_is_not_many() {
        let failures = wording(Signal::Error);
        assert_eq!(produced(1, 1, &failures), "the only failure");
        assert_eq!(produced(0, 1, &failures), "0 of 1 failure");
        assert_eq!(produced(2, 2, &failures), "both failures");
        assert_eq!(produced(1, 2, &wording(Signal::Slow)), "1 of the 2 slow requests");
        assert_eq!(duration(1.0), "second");
        assert_eq!(duration(9000.0), "2.5 h");
    }

    #[test]
    fn numbers_are_short_and_never_rounded_to_none_or_all() {
        assert_eq!(percent(ArmCounts::new(10_000, 9_999)), "99.9");
        assert_eq!(percent(ArmCounts::new(1_000, 996)), "99.6");
        assert_eq!(percent(ArmCounts::new(100_000, 1)), "0.0010");
        assert_eq!(percent(ArmCounts::new(0, 0)), "0");
        assert_eq!(percent(ArmCounts::new(1000, 99)), "9.9");
        assert_eq!(percent(ArmCounts::new(3, 1)), "33");
        assert_eq!(
            [shortest(0.1 * 100.0), shortest(0.05), shortest(1.1), shortest(12.34)],
            ["10", "0.05", "1.1", "12.3"]
        );
        assert_eq!([thousands(10_000.0), thousands(100.0), thousands(1_234_567.0)], ["10,000", "100", "1,234,567"]);
    }
}
