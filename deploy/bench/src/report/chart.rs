//! A chart as SVG.

use anyhow::{Result, anyhow};
use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    drawing::IntoDrawingArea,
    element::PathElement,
    prelude::SVGBackend,
    series::LineSeries,
    style::{BLACK, Color, RGBColor, WHITE},
};
use std::ops::Range;

const SIZE: (u32, u32) = (900, 480);
const LINE_WIDTH: u32 = 2;
const TITLE: (&str, u32) = ("sans-serif", 18);
const MARGIN: u32 = 14;
const LABELS: u32 = 50;
const LABELS_LEFT: u32 = 70;
/// Of the key, before a line's name.
const SAMPLE: i32 = 18;
/// Told apart on white, also by those who see fewer colors: Okabe and Ito's, without the yellow, and gray.
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

/// One stage.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// What stands along an axis.
#[derive(Clone, Copy)]
pub struct Scale {
    pub name: &'static str,
    pub ticks: fn(&Range<f64>) -> Vec<f64>,
    pub label: fn(f64) -> String,
    /// However far from it the least value is.
    pub from_zero: bool,
}

/// Lines over two axes.
pub struct Chart {
    pub title: String,
    pub across: Scale,
    pub up: Scale,
    pub lines: Vec<Line>,
}

impl Chart {
    pub fn draw(self) -> Result<String> {
        let mut text = String::new();
        self.draw_into(&mut text)
            .map_err(|error| anyhow!("drawing {}: {error}", self.title))?;
        Ok(text)
    }

    fn draw_into(&self, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let across = self.axis(self.across, |point| point.0);
        let up = self.axis(self.up, |point| point.1);
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, TITLE)
            .margin(MARGIN)
            .x_label_area_size(LABELS)
            .y_label_area_size(LABELS_LEFT)
            .build_cartesian_2d(across, up)?;
        chart
            .configure_mesh()
            .x_desc(self.across.name)
            .y_desc(self.up.name)
            .light_line_style(WHITE)
            .draw()?;
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

    /// Holds all points of all lines, with a little room; never empty, which could not be drawn.
    fn axis(&self, scale: Scale, of: fn(&(f64, f64)) -> f64) -> Axis {
        const ROOM: f64 = 0.05;
        let points = || {
            self.lines
                .iter()
                .flat_map(|line| line.points.iter().map(of))
        };
        let least = points().fold(f64::INFINITY, f64::min);
        let most = points().fold(f64::NEG_INFINITY, f64::max);
        let (least, most) = if least <= most {
            (least, most)
        } else {
            (0.0, 1.0)
        };
        let least = if scale.from_zero { 0.0 } else { least };
        let room = (most - least).max(1e-3) * ROOM;
        let below = if scale.from_zero { 0.0 } else { room };
        Axis {
            scale,
            range: least - below..most + room,
        }
    }
}

struct Axis {
    scale: Scale,
    range: Range<f64>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        first + (share * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        (self.scale.ticks)(&self.range)
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        (self.scale.label)(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale {
        name: "numbers",
        ticks: |range| vec![range.start, 1.0],
        label: |value| format!("tick {value}"),
        from_zero: true,
    };

    fn chart(lines: Vec<Line>) -> Chart {
        Chart {
            title: "a <title>".to_owned(),
            across: SCALE,
            up: SCALE,
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
        assert!(svg.contains("tick 0") && svg.contains("tick 1"), "{svg}");
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
}
