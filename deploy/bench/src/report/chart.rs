//! Draws a chart as SVG.

use anyhow::{Result, anyhow};
use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    drawing::IntoDrawingArea,
    element::PathElement,
    prelude::{IntoLogRange, SVGBackend},
    series::LineSeries,
    style::{BLACK, Color, RGBColor, WHITE},
};
use std::{error::Error, ops::Range};

const SIZE: (u32, u32) = (900, 480);
const LINE_WIDTH: u32 = 2;
const TITLE: (&str, u32) = ("sans-serif", 18);
const MARGIN: u32 = 14;
const LABELS: u32 = 50;
const LABELS_LEFT: u32 = 70;
/// The length of a line's sample in the key, before the line's name.
const SAMPLE: i32 = 18;
/// Colors that can be distinguished on white, also by color-blind readers: Okabe and Ito's, without the yellow, and
/// gray.
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(128, 128, 128),
];

/// One line of a chart, such as that of a stage.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// The meaning of the axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axes {
    /// Both are linear and begin at zero.
    Linear,
    /// A logarithm of values over the [`nines`] of their quantiles, which leaves room for the tail.
    Tail,
}

/// Lines over two axes.
#[derive(Clone, Debug)]
pub struct Chart {
    pub title: String,
    pub across: &'static str,
    pub up: &'static str,
    pub axes: Axes,
    pub lines: Vec<Line>,
}

impl Chart {
    pub fn draw(&self) -> Result<String> {
        let mut text = String::new();
        let up = self.range(|point| point.1);
        let drawn = match self.axes {
            Axes::Linear => self.draw_into(&mut text, 0.0..up.end),
            Axes::Tail => self.draw_into(&mut text, up.log_scale()),
        };
        drawn.map_err(|error| anyhow!("drawing {}: {error}", self.title))?;
        Ok(text)
    }

    fn draw_into<Y>(&self, text: &mut String, up: Y) -> Result<(), Box<dyn Error>>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let across = 0.0..self.range(|point| point.0).end;
        let nines_across = across.end.ceil() as usize + 1;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, TITLE)
            .margin(MARGIN)
            .x_label_area_size(LABELS)
            .y_label_area_size(LABELS_LEFT)
            .build_cartesian_2d(across, up)?;
        let percentile = |nines: &f64| percentile(*nines);
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(self.across)
            .y_desc(self.up)
            .light_line_style(WHITE);
        if self.axes == Axes::Tail {
            mesh.x_labels(nines_across).x_label_formatter(&percentile);
        }
        mesh.draw()?;
        for (index, line) in self.lines.iter().enumerate() {
            let color = COLORS[index % COLORS.len()].stroke_width(LINE_WIDTH);
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

    /// Returns a range that holds the values of all points, with a little room above. It is never empty and never
    /// reaches down to zero, since neither could be drawn.
    fn range(&self, of: fn(&(f64, f64)) -> f64) -> Range<f64> {
        const LEAST: f64 = 0.01;
        const ROOM: f64 = 1.05;
        let points = || self.lines.iter().flat_map(|line| &line.points).map(of);
        let least = points().fold(f64::INFINITY, f64::min);
        let most = points().fold(LEAST, f64::max);
        least.clamp(LEAST, most)..most * ROOM
    }
}

/// Returns the number of nines of a quantile: 1 for 0.9, 2 for 0.99, 3 for 0.999.
pub fn nines(quantile: f64) -> f64 {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(axes: Axes, lines: Vec<Line>) -> Chart {
        Chart {
            title: "a <title>".to_owned(),
            across: "across",
            up: "up",
            axes,
            lines,
        }
    }

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line {
            name: name.to_owned(),
            points: points.to_vec(),
        }
    }

    #[test]
    fn a_chart_is_an_svg_with_a_line_for_each_stage() {
        for axes in [Axes::Linear, Axes::Tail] {
            let slow = line("slow", &[(0.0, 1.0), (1.0, 5.0), (2.0, 2.0)]);
            let fast = line("fast", &[(0.0, 1.0), (1.0, 50.0), (2.0, 2.0)]);
            let svg = chart(axes, vec![slow, fast]).draw().expect("a plot");
            assert!(
                svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
                "{svg}"
            );
            assert!(svg.contains("slow") && svg.contains("fast") && svg.contains("&lt;title&gt;"));
            // Each line has a polyline, and another for its sample in the key.
            assert!(svg.matches("<polyline").count() >= 4, "{svg}");
        }
    }

    #[test]
    fn a_chart_of_the_tail_is_labeled_with_percentiles() {
        let points = [0.5, 0.9, 0.99, 0.999].map(|quantile| (nines(quantile), 7.0 + quantile));
        let svg = chart(Axes::Tail, vec![line("a", &points)]).draw();
        let svg = svg.expect("a plot");
        for label in ["90", "99.00", "99.90"] {
            assert!(
                svg.lines().any(|line| line.trim() == label),
                "{label}: {svg}"
            );
        }
    }

    #[test]
    fn a_chart_without_points_is_drawn_too() {
        for axes in [Axes::Linear, Axes::Tail] {
            assert!(chart(axes, Vec::new()).draw().is_ok());
            assert!(chart(axes, vec![line("nothing", &[])]).draw().is_ok());
            assert!(
                chart(axes, vec![line("zero", &[(0.0, 0.0)])])
                    .draw()
                    .is_ok()
            );
        }
    }

    #[test]
    fn percentile_axes_are_labeled_with_their_percentiles() {
        let check =
            |quantile: f64, expected: &str| assert_eq!(percentile(nines(quantile)), expected);
        check(0.5, "50");
        check(0.9, "90");
        check(0.99, "99.00");
        check(0.999, "99.90");
    }
}
