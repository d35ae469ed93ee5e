//! What two systems side by side came to: for programs (JSON) and for people (tables).

use super::history::Loaded;
use crate::{
    measure::Machine,
    report::{
        Findings, Servers, StageReport, put,
        table::{describe, grouped, number, optional, table},
    },
};
use anyhow::Result;
use serde::Serialize;
use std::{fmt::Write, path::Path};

/// Ended sagas must fill so many times Postgres's own memory, or all of them are in it and nothing is shown.
const SHARED_BUFFERS_TIMES: f64 = 10.0;
/// What speed may differ by and still be called the same.
const TOLERANCE: f64 = 0.1;

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub machine: Machine,
    pub servers: Servers,
    pub history: Loaded,
    /// Of the open loops.
    pub offered_a_second: f64,
    pub comparison: Comparison,
    pub rounds: Vec<Round>,
    /// Empty if all results are right.
    pub mistakes: Vec<String>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    Empty,
    Loaded,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Empty, Self::Loaded];

    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Loaded => "loaded",
        }
    }
}

/// What one system did in one round.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    pub number: u32,
    pub side: Side,
    pub saturation: StageReport,
    pub open_loop: StageReport,
}

/// Of the rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    pub throughput_a_second: Compared,
    pub p99_ms: Compared,
    pub cpu_us_a_saga: Compared,
}

/// One figure of both. What too few sagas tell is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    pub empty: Option<Middle>,
    pub loaded: Option<Middle>,
    /// Of the medians, loaded by empty.
    pub ratio: Option<f64>,
}

/// The median of some rounds, and between what they lay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Middle {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Middle {
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let upper = values[values.len() / 2];
        let lower = values[(values.len() - 1) / 2];
        Some(Self {
            median: f64::midpoint(lower, upper),
            least,
            most,
        })
    }

    /// Between what the rounds lay, by their median.
    pub fn spread(self) -> f64 {
        (self.most - self.least) / self.median
    }
}

impl Compared {
    fn of(rounds: &[Round], pick: fn(&Round) -> Option<f64>) -> Self {
        let middle = |side| {
            let of_side = rounds.iter().filter(|round| round.side == side);
            Middle::of(of_side.filter_map(pick).collect())
        };
        Self::between(middle(Side::Empty), middle(Side::Loaded))
    }

    fn between(empty: Option<Middle>, loaded: Option<Middle>) -> Self {
        let ratio = empty
            .zip(loaded)
            .map(|(empty, loaded)| loaded.median / empty.median);
        Self {
            empty,
            loaded,
            ratio,
        }
    }

    fn is_same(&self) -> Option<bool> {
        self.ratio.map(|ratio| (ratio - 1.0).abs() <= TOLERANCE)
    }
}

impl Comparison {
    pub fn of(rounds: &[Round]) -> Self {
        Self {
            throughput_a_second: Compared::of(rounds, |round| {
                Some(round.saturation.sagas_a_second)
            }),
            p99_ms: Compared::of(rounds, |round| round.open_loop.accepted_to_ended.p99_ms),
            cpu_us_a_saga: Compared::of(rounds, |round| round.saturation.cost.system_cpu_us_a_saga),
        }
    }

    fn named(&self) -> [(&'static str, &Compared); 3] {
        [
            ("saturation, sagas/s", &self.throughput_a_second),
            ("open loop, p99 ms", &self.p99_ms),
            ("saturation, CPU µs a saga", &self.cpu_us_a_saga),
        ]
    }
}

impl Findings for Report {
    /// `flat.json` and `flat.md`.
    fn write(&self, directory: &Path) -> Result<()> {
        let put = |name: &str, text: String| put(directory, name, &text);
        put("flat.json", serde_json::to_string_pretty(self)?)?;
        put("flat.md", self.table())
    }

    /// Markdown whose columns are also straight on a terminal.
    fn table(&self) -> String {
        let mut text = describe(&self.machine, &self.servers);
        text.push_str(&history(&self.history));
        text.push_str("\nMedians of the rounds, and between what they lay:\n\n");
        text.push_str(&comparison(&self.comparison));
        write!(
            text,
            "\nThe open loops were offered {} orders a second.\n\n",
            number(self.offered_a_second)
        )
        .expect("a String takes any text");
        text.push_str(&rounds(&self.rounds));
        text.push_str("\nWhat history consists of:\n\n");
        text.push_str(&tables(&self.history));
        match self.mistakes.as_slice() {
            [] => text.push_str(
                "\nEvery accepted order ended as it must, all sums add up, and history is whole.\n",
            ),
            mistakes => {
                text.push_str("\nBROKEN:\n\n");
                for mistake in mistakes {
                    writeln!(text, "- {mistake}").expect("a String takes any text");
                }
            }
        }
        text
    }

    fn mistakes(&self) -> &[String] {
        &self.mistakes
    }
}

fn history(loaded: &Loaded) -> String {
    let times = loaded.database_bytes as f64 / loaded.shared_buffers_bytes as f64;
    let mut text = format!(
        "\n{} sagas that ended within {} days were loaded in {:.0} s and settled in {:.0} s: {} bytes a saga, \
         {:.2} GiB in all, {:.1} times shared_buffers.\n",
        grouped(loaded.sagas as f64),
        loaded.days,
        loaded.load_seconds,
        loaded.settle_seconds,
        grouped(loaded.bytes_a_saga),
        loaded.database_bytes as f64 / f64::from(1 << 30),
        times,
    );
    if times < SHARED_BUFFERS_TIMES {
        writeln!(
            text,
            "That is less than {SHARED_BUFFERS_TIMES:.0} times: too little to show that size does not matter."
        )
        .expect("a String takes any text");
    }
    text
}

fn comparison(comparison: &Comparison) -> String {
    let heads = [
        "figure",
        "empty",
        "rounds, ± %",
        "loaded",
        "rounds, ± %",
        "loaded by empty",
        "within 10 %",
    ];
    let median = |middle: Option<Middle>| optional(middle.map(|middle| middle.median));
    let spread = |middle: Option<Middle>| optional(middle.map(|middle| 50.0 * middle.spread()));
    let rows: Vec<Vec<String>> = comparison
        .named()
        .into_iter()
        .map(|(name, compared)| {
            let same = match compared.is_same() {
                Some(true) => "yes",
                Some(false) => "no",
                None => "–",
            };
            vec![
                name.to_owned(),
                median(compared.empty),
                spread(compared.empty),
                median(compared.loaded),
                spread(compared.loaded),
                compared
                    .ratio
                    .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.3}")),
                same.to_owned(),
            ]
        })
        .collect();
    table(&heads, &rows)
}

fn rounds(rounds: &[Round]) -> String {
    let heads = [
        "round, system",
        "saturation, sagas/s",
        "p99 ms",
        "CPU µs a saga",
        "others' cores",
        "open loop, sagas/s",
        "p50 ms",
        "p99 ms",
        "CPU µs a saga",
        "others' cores",
    ];
    let rows: Vec<Vec<String>> = rounds
        .iter()
        .map(|round| {
            let mut row = vec![format!("{}, {}", round.number, round.side.name())];
            row.extend(figures(&round.saturation, false));
            row.extend(figures(&round.open_loop, true));
            row
        })
        .collect();
    table(&heads, &rows)
}

fn figures(stage: &StageReport, with_p50: bool) -> Vec<String> {
    let mut row = vec![number(stage.sagas_a_second)];
    if with_p50 {
        row.push(optional(stage.accepted_to_ended.p50_ms));
    }
    row.extend([
        optional(stage.accepted_to_ended.p99_ms),
        optional(stage.cost.system_cpu_us_a_saga),
        format!("{:.2}", stage.cost.others_cores + stage.cost.stolen_cores),
    ]);
    row
}

fn tables(loaded: &Loaded) -> String {
    let heads = ["table", "rows", "rows a saga", "MiB with indexes"];
    let rows: Vec<Vec<String>> = loaded
        .tables
        .iter()
        .map(|filled| {
            vec![
                format!("{}.{}", filled.database, filled.table),
                grouped(filled.rows as f64),
                number(filled.rows as f64 / loaded.sagas as f64),
                number(filled.bytes as f64 / f64::from(1 << 20)),
            ]
        })
        .collect();
    table(&heads, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_what_lies_in_the_middle() {
        let check = |values: &[f64], expected: (f64, f64, f64)| {
            let found = Middle::of(values.to_vec()).expect("a middle");
            let (median, least, most) = expected;
            let expected = Middle {
                median,
                least,
                most,
            };
            assert_eq!(found, expected, "{values:?}");
        };
        check(&[7.0], (7.0, 7.0, 7.0));
        check(&[3.0, 1.0, 2.0], (2.0, 1.0, 3.0));
        check(&[4.0, 1.0, 2.0, 10.0], (3.0, 1.0, 10.0));
        assert_eq!(Middle::of(Vec::new()), None);
    }

    fn compared(empty: f64, loaded: f64) -> Compared {
        Compared::between(Middle::of(vec![empty]), Middle::of(vec![loaded]))
    }

    #[test]
    fn what_differs_by_a_tenth_at_most_is_the_same() {
        let check = |empty, loaded, expected| {
            assert_eq!(
                compared(empty, loaded).is_same(),
                expected,
                "{empty} {loaded}"
            );
        };
        check(100.0, 100.0, Some(true));
        check(100.0, 91.0, Some(true));
        check(100.0, 109.0, Some(true));
        check(100.0, 89.0, Some(false));
        check(100.0, 111.0, Some(false));
        assert_eq!(Compared::default().is_same(), None);
    }

    #[test]
    fn a_figure_that_is_missing_on_one_side_is_not_compared() {
        let one_sided = Compared::between(Middle::of(vec![1.0]), None);
        assert_eq!(one_sided.ratio, None);
        let all = Comparison {
            throughput_a_second: compared(1_000.0, 950.0),
            p99_ms: one_sided,
            cpu_us_a_saga: compared(1_000.0, 1_200.0),
        };
        let text = comparison(&all);
        let line = |name: &str| {
            let found = text.lines().find(|line| line.contains(name));
            found.expect("a line").to_owned()
        };
        assert!(line("sagas/s").contains("0.950") && line("sagas/s").contains("yes"));
        assert!(line("p99").contains('–'));
        assert!(line("CPU").contains("1.200") && line("CPU").contains("no"));
    }

    #[test]
    fn a_history_that_fits_into_memory_is_said_to_show_nothing() {
        let loaded = |database_bytes| Loaded {
            sagas: 1_000,
            days: 1,
            load_seconds: 1.0,
            settle_seconds: 1.0,
            bytes: 1,
            bytes_a_saga: 2_500.0,
            database_bytes,
            shared_buffers_bytes: 1 << 30,
            tables: Vec::new(),
        };
        assert!(history(&loaded(9 << 30)).contains("too little"));
        let enough = history(&loaded(11 << 30));
        assert!(!enough.contains("too little"), "{enough}");
        assert!(enough.contains("2,500 bytes a saga"), "{enough}");
    }
}
