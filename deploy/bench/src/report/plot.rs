//! Plots as SVG: two a scenario, a line a stage.

use super::{ScenarioReport, StageReport};
use anyhow::{Result, anyhow};
use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    drawing::IntoDrawingArea,
    element::PathElement,
    prelude::SVGBackend,
    series::LineSeries,
    style::{BLACK, Color, Palette, Palette99, WHITE},
};
use std::ops::Range;

const SIZE: (u32, u32) = (900, 480);
const LINE_WIDTH: u32 = 2;
const TITLE: (&str, u32) = ("sans-serif", 18);
const MARGIN: u32 = 14;
const LABELS: u32 = 50;
const LABELS_LEFT: u32 = 70;
/// Of the key, before a stage's name.
const SAMPLE: i32 = 18;

/// Milliseconds over the percentile, on axes that leave room for the tail.
pub(super) fn latency(scenario: &ScenarioReport) -> Result<String> {
    let lines: Vec<Line> = open_loops(scenario)
        .map(|stage| {
            let point =
                |(quantile, ms): &(f64, f64)| (nines(*quantile), ms.max(SHORTEST_MS).log10());
            Line {
                name: named(stage),
                points: stage.curve.iter().map(point).collect(),
            }
        })
        .collect();
    Chart {
        title: format!("{}: from accepted to ended", scenario.scenario.name()),
        across: "percentile",
        up: "milliseconds",
        label_across: |nines| percentile(*nines),
        label_up: |power| milliseconds(*power),
        from_zero: false,
        lines,
    }
    .draw()
}

/// Sagas that ended, second by second.
pub(super) fn throughput(scenario: &ScenarioReport) -> Result<String> {
    let lines: Vec<Line> = scenario
        .stages
        .iter()
        .map(|stage| Line {
            name: named(stage),
            points: (0_u32..)
                .zip(&stage.timeline)
                .map(|(second, found)| (f64::from(second), found.ended as f64))
                .collect(),
        })
        .collect();
    Chart {
        title: format!("{}: sagas that ended, a second", scenario.scenario.name()),
        across: "seconds from the stage's beginning, warm-up included",
        up: "sagas a second",
        label_across: |seconds| format!("{seconds:.0}"),
        label_up: |sagas| format!("{sagas:.0}"),
        from_zero: true,
        lines,
    }
    .draw()
}

fn open_loops(scenario: &ScenarioReport) -> impl Iterator<Item = &StageReport> {
    let stages = scenario.stages.iter();
    stages.filter(|stage| stage.offered_a_second.is_some())
}

fn named(stage: &StageReport) -> String {
    match stage.offered_a_second {
        Some(rate) => format!("{} ({rate:.0}/s)", stage.name),
        None => stage.name.clone(),
    }
}

/// What a logarithm can still be taken of.
const SHORTEST_MS: f64 = 0.01;

/// 0.9 is 1, 0.99 is 2, 0.999 is 3.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

fn percentile(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    if percent < 99.0 {
        format!("{percent:.0}")
    } else {
        format!("{percent:.2}")
    }
}

fn milliseconds(power: f64) -> String {
    let ms = 10_f64.powf(power);
    if ms < 10.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

struct Chart {
    title: String,
    across: &'static str,
    up: &'static str,
    label_across: fn(&f64) -> String,
    label_up: fn(&f64) -> String,
    from_zero: bool,
    lines: Vec<Line>,
}

impl Chart {
    fn draw(self) -> Result<String> {
        let mut text = String::new();
        self.draw_into(&mut text)
            .map_err(|error| anyhow!("drawing {}: {error}", self.title))?;
        Ok(text)
    }

    fn draw_into(&self, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, TITLE)
            .margin(MARGIN)
            .x_label_area_size(LABELS)
            .y_label_area_size(LABELS_LEFT)
            .build_cartesian_2d(
                self.range(|point| point.0, true),
                self.range(|point| point.1, self.from_zero),
            )?;
        chart
            .configure_mesh()
            .x_desc(self.across)
            .y_desc(self.up)
            .x_label_formatter(&self.label_across)
            .y_label_formatter(&self.label_up)
            .light_line_style(WHITE)
            .draw()?;
        for (index, line) in self.lines.iter().enumerate() {
            let color = Palette99::pick(index).stroke_width(LINE_WIDTH);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), color))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + SAMPLE, y)], color));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        area.present()?;
        Ok(())
    }

    /// What holds all points of all lines, with a little room; never empty, which could not be drawn.
    fn range(&self, of: fn(&(f64, f64)) -> f64, from_zero: bool) -> Range<f64> {
        const ROOM: f64 = 0.05;
        let values = || {
            self.lines
                .iter()
                .flat_map(|line| line.points.iter().map(of))
        };
        let least = values().fold(f64::INFINITY, f64::min);
        let most = values().fold(f64::NEG_INFINITY, f64::max);
        let (least, most) = if least <= most {
            (least, most)
        } else {
            (0.0, 1.0)
        };
        let least = if from_zero { 0.0 } else { least };
        let span = (most - least).max(1e-3);
        let below = if from_zero { 0.0 } else { span * ROOM };
        least - below..most + span * ROOM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(lines: Vec<Line>) -> Chart {
        Chart {
            title: "a <title>".to_owned(),
            across: "x",
            up: "y",
            label_across: |x| format!("{x:.0}"),
            label_up: |y| format!("{y:.0}"),
            from_zero: true,
            lines,
        }
    }

    #[test]
    fn a_chart_is_an_svg_with_a_line_for_each_stage() {
        let line = |name: &str, high: f64| Line {
            name: name.to_owned(),
            points: vec![(0.0, 1.0), (1.0, high), (2.0, 2.0)],
        };
        let svg = chart(vec![line("slow", 5.0), line("fast", 50.0)])
            .draw()
            .expect("a plot");
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
            "{svg}"
        );
        assert!(svg.contains("slow") && svg.contains("fast") && svg.contains("&lt;title&gt;"));
        // Each line, and its sample in the key.
        assert!(svg.matches("<polyline").count() >= 4, "{svg}");
    }

    #[test]
    fn a_chart_without_points_is_drawn_too() {
        assert!(chart(Vec::new()).draw().is_ok());
        let empty = Line {
            name: "nothing".to_owned(),
            points: Vec::new(),
        };
        assert!(chart(vec![empty]).draw().is_ok());
    }

    #[test]
    fn axes_are_labeled_with_what_was_measured() {
        let check =
            |quantile: f64, expected: &str| assert_eq!(percentile(nines(quantile)), expected);
        check(0.5, "50");
        check(0.9, "90");
        check(0.99, "99.00");
        check(0.999, "99.90");
        assert_eq!(milliseconds(250_f64.log10()), "250");
        assert_eq!(milliseconds(7.6_f64.log10()), "7.6");
    }
}
