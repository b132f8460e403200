//! The verdict in words, and evidence as a gauge.

use maud::{Markup, html};

use super::super::services::ServiceSummary;
use super::words::{count, rate};
use crate::analysis::{ArmCounts, Verdict};
use crate::control::ComparisonReport;
use crate::model::VersionName;

/// A word and how it looks.
pub(super) type Chip = (&'static str, &'static str);

/// How a service stands, in a word.
pub(super) fn chip_of(service: &ServiceSummary) -> Chip {
    match service.verdict {
        _ if service.maintenance.is_some() => ("in maintenance", "warn"),
        // What the guard saw stands for a moment longer than the split that it acted on.
        _ if service.rolled_back.is_some() => ("rolled back", "bad"),
        Some(verdict) => chip(verdict),
        None => ("settled", ""),
    }
}

/// A verdict in a word.
pub(super) fn chip(verdict: Verdict) -> Chip {
    match verdict {
        Verdict::Healthy => ("healthy", "ok"),
        Verdict::Breach => ("worse", "bad"),
        Verdict::NotEnoughEvidence => ("not enough evidence", "warn"),
    }
}

/// How a service stands, in a sentence. Without numbers that change all the time, for it is read out when it changes.
pub(super) fn sentence_of(service: &ServiceSummary) -> String {
    let ServiceSummary { baseline, weights, .. } = service;
    if service.maintenance.is_some() {
        return "In maintenance: its clients are told to come back later.".to_owned();
    }
    let canaries: Vec<_> = weights.iter().map(|(v, _)| v).filter(|v| *v != baseline).map(VersionName::as_str).collect();
    let canaries = canaries.join(" and ");
    if let Some(back) = &service.rolled_back {
        return format!("{} was rolled back; {baseline} has its traffic again.", back.version);
    }
    let rest = match service.intended {
        Some(_) => " Its share is held back for a moment.",
        None => "",
    };
    match service.verdict {
        _ if canaries.is_empty() && service.verdict.is_none() => format!("All traffic is on {baseline}."),
        None => format!("Nothing is known yet about {canaries} beside {baseline}.{rest}"),
        Some(_) if canaries.is_empty() => {
            format!("All traffic is on {baseline}, but for tenants with splits of their own.")
        }
        Some(Verdict::Healthy) => format!("{canaries} is shown to be no worse than {baseline}.{rest}"),
        Some(Verdict::Breach) => format!("{canaries} is worse than {baseline}; its traffic goes back.{rest}"),
        Some(Verdict::NotEnoughEvidence) => {
            format!("Not enough evidence yet to call {canaries} as good as {baseline}, nor to call it worse.{rest}")
        }
    }
}

/// What the guard sees of one canary.
pub(super) fn comparison(report: &ComparisonReport) -> Markup {
    let ComparisonReport { canary, baseline, window, .. } = report;
    let (word, class) = chip(report.verdict);
    html! {
        div.row.spread {
            h3 { bdi { (canary) } " beside " bdi { (baseline) } }
            span class={ "chip " (class) } { (word) }
        }
        p { (verdict_sentence(report)) }
        (gauge(report))
        p.soft.small {
            "In the last " (format!("{:.0} s", window.seconds)) " of evidence: " (arm(canary, window.canary)) "; "
            (arm(baseline, window.baseline)) "."
            @if report.proxies > 1 { " Counted by " (report.proxies) " proxies." }
        }
    }
}

/// The verdict as a sentence.
pub(super) fn verdict_sentence(report: &ComparisonReport) -> String {
    let ComparisonReport { canary, baseline, .. } = report;
    let mut text = match report.verdict {
        Verdict::Healthy => format!("{canary} is shown to be no worse than {baseline}."),
        Verdict::Breach => format!("{canary} is worse than {baseline}."),
        Verdict::NotEnoughEvidence => {
            format!("Not enough evidence yet to call {canary} as good as {baseline}, nor to call it worse.")
        }
    };
    text.push_str(match report.action {
        "rollback" => " Its traffic goes back.",
        "brake" => " Its share is held back while the evidence is confirmed.",
        "probe" => " It is probed at half of the traffic, because too little was left to compare with.",
        "hold_slo" => " Both fail too much, so nothing is shifted and nothing advances.",
        _ if report.split_off => " The realised shares are not those that were configured.",
        _ => "",
    });
    text
}

/// Evidence between "fine" and "go back", on a logarithmic scale.
pub(super) fn gauge(report: &ComparisonReport) -> Markup {
    let goal = report.threshold.max(1.0 + f64::EPSILON).ln();
    let part = (report.log_evidence / goal).clamp(0.0, 1.0);
    let class = match part {
        p if p >= 1.0 => "bad",
        p if p >= 0.5 => "warn",
        _ => "",
    };
    let (evidence, threshold) = (number(report.log_evidence.exp()), number(report.threshold));
    let label = format!(
        "Evidence against {}: {evidence}, traffic goes back at {threshold}; {:.0} percent of the way on a logarithmic scale",
        report.canary,
        part * 100.0
    );
    html! {
        div {
            svg.gauge viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label=(label) {
                rect.track x="0" y="20" width="1000" height="60" {}
                rect class={ "fill " (class) } x="0" y="20" width=(format!("{:.0}", part * 1000.0)) height="60" {}
                rect.goal x="992" y="0" width="8" height="100" {}
            }
            p.ends {
                span { "fine" }
                span { "evidence " strong { (evidence) } }
                span { "go back at " (threshold) }
            }
        }
    }
}

fn arm(version: &VersionName, counts: ArmCounts) -> String {
    let share = (counts.n > 0).then(|| counts.bad as f64 / counts.n as f64);
    format!("{version}: {} of {} bad ({})", count(counts.bad), count(counts.n), rate(share))
}

/// A large or small number in a few characters.
fn number(value: f64) -> String {
    match value {
        v if v >= 1e12 => "over 10¹²".to_owned(),
        v if v >= 9.95 => count(v.round() as u64),
        v if v >= 0.095 => format!("{v:.1}"),
        v if v > 0.0 => "< 0.1".to_owned(),
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 1e-9, 0.26, 1.0, 10_000.0, 3e13].map(|v| number(v).replace('\u{202f}', " "));
        assert_eq!(numbers, ["0", "< 0.1", "0.3", "1.0", "10 000", "over 10¹²"]);
    }
}
