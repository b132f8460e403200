//! Lines over the last fifteen minutes, drawn on the server.
//!
//! `plotters` places axes, marks and lines. It knows colours but no classes, so each tint is a colour that nothing else
//! has, which becomes a class in the end: the style sheet then says what it looks like, in light and in dark.

use maud::{Markup, PreEscaped, html};
use plotters::prelude::*;

use super::bar::Tints;
use crate::telemetry::{Point, Series, Windows};

/// Width and height in the drawing's own units; pages make it as wide as there is room.
pub(super) const SIZE: (u32, u32) = (480, 190);
/// The same of a drawing without axes.
const SPARK: (u32, u32) = (220, 40);
/// Letters' height, as the drawing counts it: about 13 units from top to bottom.
pub(super) const LETTERS: u32 = 16;

pub(super) const INK: RGBColor = RGBColor(0, 0, 1);
pub(super) const RULE: RGBColor = RGBColor(0, 0, 2);
/// What the tints are called in the style sheet, by the last part of their colour.
const CLASSES: [(u8, &str); 5] = [(16, "base"), (17, "c1"), (18, "c2"), (19, "c3"), (20, "idle")];

/// One line of a chart.
pub(super) struct Line {
    /// What it is of, for people who hear it.
    pub name: String,
    /// Its class in the style sheet.
    pub class: &'static str,
    /// A value for each point in time, the oldest first; where there is none the line is broken.
    pub values: Vec<Option<f64>>,
}

/// A line for each version of a series.
pub(super) fn lines(tints: &Tints, series: &Series, pick: impl Fn(&Point) -> Option<f64>) -> Vec<Line> {
    let line = |v: &crate::telemetry::VersionSeries| Line {
        name: v.version.to_string(),
        class: tints.class(&v.version),
        values: v.points.iter().map(&pick).collect(),
    };
    series.versions.iter().map(line).collect()
}

/// A chart with axes. `tell` puts a value into words.
pub(super) fn chart(title: &str, lines: &[Line], tell: impl Fn(f64) -> String) -> Markup {
    let top = nice(lines.iter().flat_map(|l| l.values.iter().flatten()).copied().fold(0.0, f64::max));
    // Drawing into memory cannot fail; should it all the same, the words are still there.
    let drawing = draw(lines, top, &tell).unwrap_or_default();
    html! {
        figure {
            figcaption { (title) }
            svg.chart viewBox={ "0 0 " (SIZE.0) " " (SIZE.1) } role="img" aria-label=(in_words(title, lines, &tell)) {
                (PreEscaped(classed(&drawing)))
            }
        }
    }
}

/// Lines without axes, for a quick look.
pub(super) fn spark(title: &str, lines: &[Line], tell: impl Fn(f64) -> String) -> Markup {
    let top = lines.iter().flat_map(|l| l.values.iter().flatten()).copied().fold(0.0, f64::max).max(1e-9);
    let drawing = draw_spark(lines, top).unwrap_or_default();
    html! {
        svg.spark viewBox={ "0 0 " (SPARK.0) " " (SPARK.1) } preserveAspectRatio="none" role="img"
            aria-label=(in_words(title, lines, &tell)) {
            (PreEscaped(classed(&drawing)))
        }
    }
}

/// What the lines show, for people who do not see them.
fn in_words(title: &str, lines: &[Line], tell: &impl Fn(f64) -> String) -> String {
    let mut text = format!("{title} over the last 15 minutes.");
    let mut any = false;
    for Line { name, values, .. } in lines {
        let Some(most) = values.iter().flatten().copied().reduce(f64::max) else { continue };
        any = true;
        let now = values.last().copied().flatten().map_or_else(|| "nothing".to_owned(), tell);
        let of = if name.is_empty() { String::new() } else { format!("{name}: ") };
        text.push_str(&format!(" {of}{now} in the last ten seconds, at most {}.", tell(most)));
    }
    if !any {
        text.push_str(" No requests.");
    }
    text
}

type Drawn = Result<String, DrawingAreaErrorKind<std::io::Error>>;

fn draw(lines: &[Line], top: f64, tell: &impl Fn(f64) -> String) -> Drawn {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let minutes = minutes(Windows::SERIES_POINTS - 1);
        let mut chart = ChartBuilder::on(&area)
            .margin_top(8)
            .margin_right(14)
            .x_label_area_size(28)
            .y_label_area_size(68)
            .build_cartesian_2d(minutes..0f64, 0f64..top)?;
        let letters = ("sans-serif", LETTERS, &INK);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(4)
            .y_labels(4)
            .axis_style(RULE)
            .bold_line_style(RULE)
            .light_line_style(TRANSPARENT)
            .label_style(letters)
            .x_label_formatter(&|m: &f64| if *m > -0.1 { "now".to_owned() } else { format!("−{:.0} min", m.abs()) })
            .y_label_formatter(&|v: &f64| tell(*v))
            .draw()?;
        for line in lines {
            for run in runs(&line.values) {
                let points = run.iter().map(|(at, value)| (self::minutes(Windows::SERIES_POINTS - 1 - at), *value));
                let tint = ShapeStyle::from(tint(line.class)).stroke_width(2);
                match run.as_slice() {
                    [_] => drop(chart.draw_series(points.map(|p| Circle::new(p, 2, tint.filled())))?),
                    _ => drop(chart.draw_series(LineSeries::new(points, tint))?),
                }
            }
        }
        area.present()?;
    }
    Ok(text)
}

fn draw_spark(lines: &[Line], top: f64) -> Drawn {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SPARK).into_drawing_area();
        let last = (Windows::SERIES_POINTS - 1) as f64;
        let mut chart = ChartBuilder::on(&area).margin(3).build_cartesian_2d(0f64..last, 0f64..top)?;
        for line in lines {
            for run in runs(&line.values) {
                let tint = ShapeStyle::from(tint(line.class)).stroke_width(2);
                chart.draw_series(LineSeries::new(run.iter().map(|(at, value)| (*at as f64, *value)), tint))?;
            }
        }
        area.present()?;
    }
    Ok(text)
}

/// How many minutes ago a point was, below zero.
fn minutes(back: usize) -> f64 {
    -((back as u64 * Windows::COUNT_SECONDS) as f64) / 60.0
}

/// Points that follow one another without a gap, with their places.
pub(super) fn runs(values: &[Option<f64>]) -> Vec<Vec<(usize, f64)>> {
    let mut runs: Vec<Vec<(usize, f64)>> = Vec::new();
    let mut open = false;
    for (at, value) in values.iter().enumerate() {
        match (value, open) {
            (Some(value), true) => runs.last_mut().into_iter().for_each(|run| run.push((at, *value))),
            (Some(value), false) => runs.push(vec![(at, *value)]),
            (None, _) => {}
        }
        open = value.is_some();
    }
    runs
}

/// The end of the axis: the next of 1, 2 or 5 times a power of ten.
pub(super) fn nice(most: f64) -> f64 {
    if most <= 0.0 {
        return 0.01;
    }
    let unit = 10f64.powf(most.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * unit).find(|top| *top >= most * 1.05).unwrap_or(20.0 * unit)
}

pub(super) fn tint(class: &str) -> RGBColor {
    let of = CLASSES.iter().find(|(_, name)| *name == class).or(CLASSES.last());
    RGBColor(0, 0, of.map_or(0, |(number, _)| *number))
}

/// The drawing without its frame, with classes for the colours.
pub(super) fn classed(drawing: &str) -> String {
    let inner = drawing.split_once('>').map_or("", |(_, rest)| rest);
    let mut text = inner.trim_end().trim_end_matches("</svg>").to_owned();
    let names = CLASSES.iter().map(|(number, class)| (RGBColor(0, 0, *number), *class));
    for (RGBColor(r, g, b), class) in names.chain([(INK, "ink"), (RULE, "rule")]) {
        let code = format!("#{r:02X}{g:02X}{b:02X}");
        for of in ["stroke", "fill"] {
            text = text.replace(&format!("{of}=\"{code}\""), &format!("class=\"{class}\""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(class: &'static str, values: &[Option<f64>]) -> Line {
        let mut all = vec![None; Windows::SERIES_POINTS - values.len()];
        all.extend(values);
        Line { name: "2.0.0".to_owned(), class, values: all }
    }

    #[test]
    fn every_colour_becomes_a_class_that_the_style_sheet_knows() {
        let style = include_str!("assets/style.css");
        for (_, class) in CLASSES {
            let one = [line(class, &[Some(0.1), Some(0.2)]), line(class, &[Some(0.1), None, Some(0.3)])];
            let text = chart("Errors", &one, |v| format!("{v}")).into_string();
            assert!(text.contains(&format!("class=\"{class}\"")), "{text}");
            assert!(!text.contains("#0000"), "a colour was left: {text}");
            assert!(!text.contains("style=") && text.matches("<svg").count() == 1, "{text}");
            assert!(style.contains(&format!("polyline.{class}")) && style.contains(&format!("--{class}:")), "{class}");
        }
    }

    #[test]
    fn a_chart_says_what_it_shows() {
        let text =
            chart("Error rate", &[line("c1", &[Some(0.5), Some(0.25)])], |v| format!("{}", v * 100.0)).into_string();
        assert!(
            text.contains("Error rate over the last 15 minutes. 2.0.0: 25 in the last ten seconds, at most 50."),
            "{text}"
        );
        assert!(spark("Requests", &[line("c1", &[])], |v| v.to_string()).into_string().contains("No requests."));
    }

    #[test]
    fn gaps_break_the_line_and_axes_end_on_round_numbers() {
        let runs = runs(&[None, Some(1.0), Some(2.0), None, Some(3.0)]);
        assert_eq!(runs, [vec![(1, 1.0), (2, 2.0)], vec![(4, 3.0)]]);
        assert_eq!([0.0, 0.003, 0.09, 0.1, 1.0, 97.0].map(nice), [0.01, 0.005, 0.1, 0.2, 2.0, 200.0]);
    }
}
