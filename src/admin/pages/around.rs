//! The minutes around a rollback: requests and failures of baseline and canary, and when traffic went back.

use maud::{Markup, PreEscaped, html};
use plotters::prelude::*;

use super::super::context::Shared;
use super::super::freeze::now_ms;
use super::chart::{INK, LETTERS, RULE, SIZE, classed, nice, runs, tint};
use super::words::count;
use crate::model::{Event, EventKind, VersionName};
use crate::telemetry::{BothTimes, Recorded, RecordedVersion};

/// Full buckets after a rollback's own that are shown: four minutes.
const AFTER: usize = 24;

/// What is known of the minutes around a rollback; none: too little, or it is no rollback.
pub(super) fn of(cx: &Shared, event: &Event) -> Option<Recorded> {
    let (EventKind::Rollback, Some(service)) = (event.kind, &event.service) else { return None };
    let now = BothTimes { now_ms: cx.now(), wall_ms: now_ms() };
    let kept = event.evidence.get("series").and_then(|series| serde_json::from_value::<Recorded>(series.clone()).ok());
    let windows = cx.lock_windows();
    let record = kept.filter(|record| record.points() > 0 && record.seconds > 0).or_else(|| {
        let (baseline, canary) = (trusted(event)?, event.version.as_ref()?);
        windows.recalled(service, event.tenant.as_ref(), [&baseline, canary], event.at_ms, now)
    })?;
    Some(windows.extended(record, service, event.tenant.as_ref(), AFTER, now))
}

/// The version that has everything after a rollback.
fn trusted(event: &Event) -> Option<VersionName> {
    let weights = event.after.get("weights")?.as_object()?;
    let (name, _) =
        weights.iter().max_by(|a, b| a.1.as_f64().unwrap_or(0.0).total_cmp(&b.1.as_f64().unwrap_or(0.0)))?;
    name.parse().ok()
}

/// Two charts with a legend. `at_ms`: when traffic went back.
pub(super) fn charts(record: &Recorded, at_ms: u64) -> Markup {
    let Recorded { baseline, canary, seconds, .. } = record;
    html! {
        div.around {
            div.row.spread {
                p.soft.small { "Every " (seconds) " seconds, as one proxy counted them. The line across marks when traffic went back." }
                ul.legend {
                    li { span { span.dot.base aria-hidden="true" {} " " bdi { (baseline.version) } " (baseline)" } }
                    li { span { span.dot.c1 aria-hidden="true" {} " " bdi { (canary.version) } } }
                }
            }
            div.charts {
                (chart("Requests", record, at_ms, |version| &version.requests))
                (chart("Failures", record, at_ms, |version| &version.failed))
            }
        }
    }
}

fn chart(title: &str, record: &Recorded, at_ms: u64, pick: fn(&RecordedVersion) -> &Vec<u64>) -> Markup {
    let lines = [("base", &record.baseline), ("c1", &record.canary)].map(|(class, version)| (class, pick(version)));
    let drawing = draw(record, at_ms, &lines).unwrap_or_default();
    html! {
        figure {
            figcaption { (title) }
            svg.chart viewBox={ "0 0 " (SIZE.0) " " (SIZE.1) } role="img" aria-label=(in_words(title, record, at_ms, pick)) {
                (PreEscaped(classed(&drawing)))
            }
        }
    }
}

/// What the lines show, for people who do not see them.
fn in_words(title: &str, record: &Recorded, at_ms: u64, pick: fn(&RecordedVersion) -> &Vec<u64>) -> String {
    let split = (at_ms.saturating_sub(record.begin_ms) / (record.seconds * 1_000) + 1) as usize;
    let mut text = format!("{title} before and after the rollback.");
    for version in [&record.baseline, &record.canary] {
        let all = pick(version);
        let (before, after) = all.split_at(split.min(all.len()));
        let sum = |part: &[u64]| count(part.iter().sum());
        text.push_str(&format!(" {}: {} before, {} after.", version.version, sum(before), sum(after)));
    }
    text
}

fn draw(
    record: &Recorded,
    at_ms: u64,
    lines: &[(&'static str, &Vec<u64>)],
) -> Result<String, DrawingAreaErrorKind<std::io::Error>> {
    let step = record.seconds as f64 / 60.0;
    let back = at_ms.saturating_sub(record.begin_ms) as f64 / 60_000.0;
    let minutes = |bucket: usize| (bucket as f64 + 0.5) * step - back;
    let most = lines.iter().flat_map(|(_, values)| values.iter()).copied().max().unwrap_or_default();
    let top = nice((most as f64).max(3.0));
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let end = minutes(record.points().saturating_sub(1)).max(step);
        let mut chart = ChartBuilder::on(&area)
            .margin_top(8)
            .margin_right(18)
            .x_label_area_size(24)
            .y_label_area_size(56)
            .build_cartesian_2d(minutes(0)..end, 0f64..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(5)
            .y_labels(4)
            .axis_style(RULE)
            .bold_line_style(RULE)
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", LETTERS, &INK))
            .x_label_formatter(&|m: &f64| mark(*m))
            .y_label_formatter(&|v: &f64| count(v.round() as u64))
            .draw()?;
        chart.draw_series(LineSeries::new([(0.0, 0.0), (0.0, top)], INK.stroke_width(1)))?;
        for (class, values) in lines {
            let values: Vec<_> = values.iter().map(|v| Some(*v as f64)).collect();
            for run in runs(&values) {
                let points = run.iter().map(|(bucket, value)| (minutes(*bucket), *value));
                chart.draw_series(LineSeries::new(points, ShapeStyle::from(tint(class)).stroke_width(2)))?;
            }
        }
        area.present()?;
    }
    Ok(text)
}

fn mark(minutes: f64) -> String {
    match minutes {
        m if m.abs() < 0.05 => "back".to_owned(),
        m if (m - m.round()).abs() < 0.05 => format!("{m:+.0} min"),
        m => format!("{m:+.1} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_and_the_moment_are_drawn_and_told() {
        let of = |name: &str, requests: &[u64], failed: &[u64]| RecordedVersion {
            version: VersionName::new(name).unwrap(),
            requests: requests.to_vec(),
            failed: failed.to_vec(),
        };
        let record = Recorded {
            seconds: 10,
            begin_ms: 1_000_000,
            baseline: of("1", &[90, 90, 90, 100], &[0, 0, 1, 0]),
            canary: of("2", &[10, 10, 9, 0], &[0, 0, 8, 0]),
        };
        let text = charts(&record, 1_025_000).into_string();
        assert!(
            text.contains("Failures before and after the rollback. 1: 1 before, 0 after. 2: 8 before, 0 after."),
            "{text}"
        );
        assert!(
            text.contains("Requests before and after the rollback. 1: 270 before, 100 after. 2: 29 before, 0 after.")
        );
        for class in ["base", "c1", "ink"] {
            assert!(text.contains(&format!("class=\"{class}\"")), "{class}: {text}");
        }
        assert!(!text.contains("#0000") && !text.contains("style="), "{text}");
        assert!(text.contains("\nback\n"), "the moment has a name: {text}");
    }
}
