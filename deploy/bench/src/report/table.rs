//! The readable form: Markdown whose columns are also straight on a terminal.

use super::{Report, ScenarioReport, Servers, StageReport};
use crate::measure::{LOAD_GENERATOR, Machine};
use std::fmt::Write;

/// Columns of equal width, numbers on the right; the first column on the left.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(head[column].chars().count())
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(index, (cell, width))| {
                if index == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    let names: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let mut text = line(&names);
    let rules = widths.iter().enumerate().map(|(index, width)| {
        if index == 0 {
            format!(":{}", "-".repeat(width + 1))
        } else {
            format!("{}:", "-".repeat(width + 1))
        }
    });
    writeln!(text, "|{}|", rules.collect::<Vec<_>>().join("|")).expect("a String takes any text");
    for row in rows {
        text.push_str(&line(row));
    }
    text
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => grouped(value),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `12,345`
pub fn grouped(value: f64) -> String {
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

pub fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), number)
}

pub(super) fn markdown(report: &Report) -> String {
    let mut text = describe(&report.machine, &report.servers);
    let heads = [
        "scenario, stage",
        "sagas/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "answer p99 ms",
        "late p99 ms",
        "turned away",
        "CPU µs a saga",
        "busy cores",
        "others' cores",
    ];
    let rows: Vec<Vec<String>> = stages(report)
        .map(|(scenario, stage)| latency_row(scenario, stage))
        .collect();
    text.push_str("\nLatency is from the 201 until the saga's end was seen; the answer's from when the order was meant to be sent; \
         late is by how much the load generator sent it later than that.\n\n");
    text.push_str(&table(&heads, &rows));
    text.push_str("\nSaturation, and what the machine allows for the same sagas (Postgres and Kafka alone, by the minimum):\n\n");
    text.push_str(&saturation(report));
    text.push_str("\nWhat a saga costs, at saturation:\n\n");
    text.push_str(&costs(report));
    text.push_str("\nMost memory, MiB:\n\n");
    text.push_str(&memory(report));
    text.push_str(&verdict(&report.mistakes));
    text
}

/// The last words of a report.
pub fn verdict(mistakes: &[String]) -> String {
    if mistakes.is_empty() {
        return "\nEvery accepted order ended as it must, and all sums add up.\n".to_owned();
    }
    let mut text = "\nBROKEN:\n\n".to_owned();
    for mistake in mistakes {
        writeln!(text, "- {mistake}").expect("a String takes any text");
    }
    text
}

/// What was measured on.
pub fn describe(machine: &Machine, servers: &Servers) -> String {
    let settings: Vec<String> = servers
        .postgres_settings
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!(
        "{}, commit {}, {}, {} cores, {} MiB, Linux {}, {} (8 KiB written and flushed in {} µs), PostgreSQL {}, \
         Kafka {} with {} partitions a topic, {}.\n\nPostgres: {}.\n",
        machine.date,
        machine.commit,
        machine.cpu,
        machine.cores,
        machine.memory_mib,
        machine.kernel,
        machine.filesystem,
        machine.flush_us,
        servers.postgres,
        servers.kafka,
        servers.partitions,
        machine.rustc,
        settings.join(", ")
    )
}

fn stages(report: &Report) -> impl Iterator<Item = (&ScenarioReport, &StageReport)> {
    report
        .scenarios
        .iter()
        .flat_map(|scenario| scenario.stages.iter().map(move |stage| (scenario, stage)))
}

/// The step that saturation was read from.
fn saturated(scenario: &ScenarioReport) -> Option<&StageReport> {
    let closed = scenario
        .stages
        .iter()
        .filter(|stage| stage.in_flight.is_some());
    closed.max_by(|a, b| a.sagas_a_second.total_cmp(&b.sagas_a_second))
}

/// Each scenario beside the first one, and beside its floor.
fn saturation(report: &Report) -> String {
    let heads = [
        "scenario",
        "sagas/s",
        "of the first, %",
        "in flight",
        "floor, sagas/s",
        "Postgres alone",
        "Kafka alone",
        "reached, %",
    ];
    let first = report
        .scenarios
        .first()
        .map_or(0.0, |scenario| scenario.saturation_a_second);
    let rows: Vec<Vec<String>> = report
        .scenarios
        .iter()
        .map(|scenario| {
            let reached = scenario.saturation_a_second;
            let in_flight = saturated(scenario).and_then(|stage| stage.in_flight);
            let floor = scenario.floor.as_ref();
            vec![
                scenario.scenario.name().to_owned(),
                number(reached),
                number(100.0 * reached / first),
                optional(in_flight.map(|count| count as f64)),
                optional(floor.map(|floor| floor.together)),
                optional(floor.map(|floor| floor.sql)),
                optional(floor.map(|floor| floor.log)),
                optional(floor.map(|floor| 100.0 * reached / floor.together)),
            ]
        })
        .collect();
    table(&heads, &rows)
}

fn latency_row(scenario: &ScenarioReport, stage: &StageReport) -> Vec<String> {
    let latency = &stage.accepted_to_ended;
    vec![
        format!("{}, {}", scenario.scenario.name(), stage.name),
        number(stage.sagas_a_second),
        optional(latency.p50_ms),
        optional(latency.p90_ms),
        optional(latency.p99_ms),
        optional(latency.p99_9_ms),
        optional(stage.intended_to_accepted.p99_ms),
        optional(stage.sending.p99_ms),
        grouped(stage.not_accepted.pushed_back as f64),
        optional(stage.cost.system_cpu_us_a_saga),
        format!("{:.2}", stage.cost.busy_cores),
        format!("{:.2}", stage.cost.others_cores + stage.cost.stolen_cores),
    ]
}

/// Every process that was watched, the load generator last.
fn process_names(report: &Report) -> Vec<String> {
    let all = stages(report).flat_map(|(_, stage)| stage.cost.processes.keys());
    let mut names: Vec<String> = all
        .filter(|name| *name != LOAD_GENERATOR)
        .cloned()
        .collect();
    names.sort();
    names.dedup();
    names.push(LOAD_GENERATOR.to_owned());
    names
}

fn costs(report: &Report) -> String {
    let names = process_names(report);
    let cpu: Vec<String> = names.iter().map(|name| format!("{name}, CPU µs")).collect();
    let mut heads = vec!["scenario", "all but load, CPU µs"];
    heads.extend(cpu.iter().map(String::as_str));
    heads.extend(["WAL bytes", "commits", "database bytes", "Kafka bytes"]);
    let rows: Vec<Vec<String>> = report
        .scenarios
        .iter()
        .filter_map(|scenario| {
            let cost = &saturated(scenario)?.cost;
            let mut row = vec![
                scenario.scenario.name().to_owned(),
                optional(cost.system_cpu_us_a_saga),
            ];
            row.extend(names.iter().map(|name| {
                optional(
                    cost.processes
                        .get(name)
                        .map(|process| process.cpu_us_a_saga),
                )
            }));
            row.push(number(cost.wal_bytes_a_saga));
            row.push(number(cost.commits_a_saga));
            row.push(number(cost.database_bytes_a_saga));
            row.push(optional(cost.kafka_bytes_a_saga));
            Some(row)
        })
        .collect();
    table(&heads, &rows)
}

fn memory(report: &Report) -> String {
    let names = process_names(report);
    let mut heads = vec!["scenario"];
    heads.extend(names.iter().map(String::as_str));
    let rows: Vec<Vec<String>> = report
        .scenarios
        .iter()
        .map(|scenario| {
            let most = |name: &String| {
                let stages = scenario.stages.iter();
                let found = stages.filter_map(|stage| stage.cost.processes.get(name));
                let most = found.map(|process| process.resident_max_mib);
                optional(most.max_by(f64::total_cmp))
            };
            let mut row = vec![scenario.scenario.name().to_owned()];
            row.extend(names.iter().map(most));
            row
        })
        .collect();
    table(&heads, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_straight() {
        let rows = vec![
            vec!["confirm".to_owned(), "12,345".to_owned()],
            vec!["µs".to_owned(), "1".to_owned()],
        ];
        let expected = "\
| scenario | sagas/s |
|:---------|--------:|
| confirm  |  12,345 |
| µs       |       1 |
";
        assert_eq!(table(&["scenario", "sagas/s"], &rows), expected);
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
    fn what_was_not_measured_is_a_dash() {
        assert_eq!(optional(None), "–");
        assert_eq!(optional(Some(5.0)), "5.00");
    }
}
