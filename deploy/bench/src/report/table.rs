//! Tables, for programs and for people.

use serde::{Serialize, Serializer};
use std::fmt;

/// A table whose first column names the rows.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    pub heads: Vec<String>,
    pub rows: Vec<Row>,
}

pub type Row = Vec<Cell>;

/// The value of a cell. A program gets a number with all its digits, a person with those that count.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Text(String),
    Number(f64),
    Whole(f64),
    Missing,
}

/// Markdown's rule below the heads needs a colon and a dash.
const LEAST_WIDTH: usize = 2;

/// How a table is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Markdown,
    Terminal,
}

/// Returns the heads of a table from their names, separated by bars.
pub fn heads(names: &str) -> Vec<String> {
    names.split(" | ").map(str::to_owned).collect()
}

/// Makes a row of values of any types that a cell can hold.
macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$($crate::report::table::Cell::from($value)),*] };
}
pub(crate) use row;

impl Table {
    /// Draws the table with straight columns. The first column is aligned left, all others right.
    pub fn render(&self, style: Style) -> String {
        let rows = self
            .rows
            .iter()
            .map(|row| row.iter().map(ToString::to_string).collect());
        let rows: Vec<Vec<String>> = [self.heads.clone()].into_iter().chain(rows).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .fold(LEAST_WIDTH, usize::max)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let (left, between, right) = match style {
            Style::Markdown => ("| ", " | ", " |"),
            Style::Terminal => ("", "  ", ""),
        };
        let framed = |cells: Vec<String>| format!("{left}{}{right}\n", cells.join(between));
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate();
            let aligned = cells.map(|(index, (cell, width))| match index {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            framed(aligned.collect())
        };
        let rules = widths.iter().enumerate().map(|(index, width)| match style {
            Style::Terminal => "─".repeat(*width),
            Style::Markdown if index == 0 => format!(":{}", "-".repeat(width - 1)),
            Style::Markdown => format!("{}:", "-".repeat(width - 1)),
        });
        let mut lines: Vec<String> = rows.iter().map(line).collect();
        lines.insert(1, framed(rules.collect()));
        lines.concat()
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(value) => f.write_str(&number(*value)),
            Self::Whole(value) => f.write_str(&grouped(*value)),
            Self::Missing => f.write_str("–"),
        }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(value) | Self::Whole(value) => serializer.serialize_f64(*value),
            Self::Missing => serializer.serialize_none(),
        }
    }
}

/// Lets a cell be made of a value.
macro_rules! cell_from {
    ($($type:ty: $value:ident => $cell:expr;)*) => { $(impl From<$type> for Cell {
        fn from($value: $type) -> Self {
            $cell
        }
    })* };
}

cell_from! {
    &str: text => Self::Text(text.to_owned());
    String: text => Self::Text(text);
    f64: value => Self::Number(value);
    u64: value => Self::Whole(value as f64);
    i64: value => Self::Whole(value as f64);
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Into::into)
    }
}

/// Formats a number with two decimals, with one from 10 on, and with none from 100 on.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => grouped(value),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Formats a number as `12,345`.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            heads: heads("scenario | sagas/s"),
            rows: vec![row!["confirm", 12_345.0], row!["µs", 1_u64]],
        }
    }

    #[test]
    fn columns_are_straight() {
        let expected = "\
| scenario | sagas/s |
| :------- | ------: |
| confirm  |  12,345 |
| µs       |       1 |
";
        assert_eq!(table().render(Style::Markdown), expected);
        let expected = "\
scenario  sagas/s
────────  ───────
confirm    12,345
µs              1
";
        assert_eq!(table().render(Style::Terminal), expected);
    }

    #[test]
    fn a_program_gets_numbers_with_all_digits() {
        let row = row!["a", 1.234_5, Some(7_u64), None::<f64>];
        let json = serde_json::to_string(&row).expect("JSON");
        assert_eq!(json, r#"["a",1.2345,7.0,null]"#);
    }

    #[test]
    fn numbers_have_the_digits_that_count() {
        let check = |value: f64, expected: &str| assert_eq!(number(value), expected);
        check(0.0, "0.00");
        check(1.234, "1.23");
        check(12.34, "12.3");
        check(123.4, "123");
        check(1_234.5, "1,234");
        check(1_234_567.0, "1,234,567");
        check(-2_500.0, "-2,500");
    }

    #[test]
    fn a_missing_value_is_a_dash() {
        assert_eq!(Cell::from(None::<f64>).to_string(), "–");
        assert_eq!(Cell::from(Some(5.0)).to_string(), "5.00");
    }
}
