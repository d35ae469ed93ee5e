//! Checks the plans of statements, which Postgres logs (`auto_explain`).
//!
//! Every run starts on empty tables without statistics, where generic plans go wrong. A wrong plan is visible in the
//! log long before it is slow: a join that compares each row of a range with each key of a batch discards nearly all
//! pairs. Only statements that take a batch's keys (`unnest`) are checked; reports may read as much as they like.

use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

/// How many pairs one execution may discard: one batch's keys against a handful of rows.
const THROWN_AWAY_MAX: u64 = 1_000;
/// The end of the line after which a plan is logged.
const PLAN: &str = " plan:";

/// Returns the mistakes that the log shows; empty if all is well.
pub fn check(log: &Path) -> Result<Vec<String>> {
    let file = File::open(log).with_context(|| format!("reading {}", log.display()))?;
    mistakes(BufReader::new(file))
}

fn mistakes(log: impl BufRead) -> Result<Vec<String>> {
    let mut worst: BTreeMap<String, u64> = BTreeMap::new();
    let (mut plans, mut text) = (Plans::default(), None::<String>);
    for line in log.lines() {
        let line = line?;
        match (line.strip_prefix('\t'), &mut text) {
            (Some(more), Some(text)) => text.push_str(more),
            (Some(_), None) => {}
            (None, _) => {
                plans.look(text.take(), &mut worst);
                text = line.ends_with(PLAN).then(String::new);
            }
        }
    }
    plans.look(text, &mut worst);
    let told = |(query, pairs)| format!("a join discards {pairs} pairs: {query}");
    let mut mistakes: Vec<String> = worst.into_iter().map(told).collect();
    if plans.of_batches == 0 {
        mistakes.push("Postgres has logged no plan of a batch's statement".to_owned());
    }
    if plans.unreadable > 0 {
        mistakes.push(format!("{} logged plans cannot be read", plans.unreadable));
    }
    Ok(mistakes)
}

/// Counts the plans that were found.
#[derive(Default)]
struct Plans {
    of_batches: u64,
    unreadable: u64,
}

impl Plans {
    fn look(&mut self, text: Option<String>, worst: &mut BTreeMap<String, u64>) {
        let Some(text) = text else { return };
        let Ok(logged) = serde_json::from_str::<Value>(&text) else {
            self.unreadable += 1;
            return;
        };
        let query = logged["Query Text"].as_str().unwrap_or_default();
        if !query.to_ascii_lowercase().contains("unnest(") {
            return;
        }
        self.of_batches += 1;
        let pairs = thrown_away(&logged["Plan"], false);
        if pairs > THROWN_AWAY_MAX {
            let words: Vec<&str> = query.split_whitespace().collect();
            let seen = worst.entry(words.join(" ")).or_default();
            *seen = pairs.max(*seen);
        }
    }
}

/// Returns how many pairs the worst node discards: rows that a join compared in vain, or that were read for it in vain.
fn thrown_away(node: &Value, joined: bool) -> u64 {
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let mut removed = number("Rows Removed by Join Filter");
    if joined {
        removed += number("Rows Removed by Filter");
    }
    // The logged number is the mean over the node's loops.
    let own = removed * number("Actual Loops");
    let joins = joined || node["Node Type"] == "Nested Loop";
    let below = node["Plans"].as_array().into_iter().flatten();
    below
        .map(|node| thrown_away(node, joins))
        .fold(own as u64, u64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(removed: u64) -> String {
        of(
            "UPDATE a\n  SET b FROM unnest($1)",
            "Rows Removed by Join Filter",
            removed,
        )
    }

    fn of(query: &str, what: &str, removed: u64) -> String {
        let plan = serde_json::json!({
            "Query Text": query,
            "Plan": { "Node Type": "ModifyTable", "Actual Loops": 1, "Plans": [
                { "Node Type": "Nested Loop", "Actual Loops": 1, "Plans": [
                    { "Node Type": "Index Scan", "Actual Loops": 2, what: removed }
                ]}
            ]}
        });
        let lines = serde_json::to_string_pretty(&plan).unwrap();
        let lines: Vec<String> = lines.lines().map(|line| format!("\t{line}")).collect();
        format!(
            "2026-11-28 UTC [7] LOG:  duration: 0.1 ms  plan:\n{}\n2026-11-28 UTC [7] LOG:  checkpoint\n",
            lines.join("\n")
        )
    }

    fn check(log: &str, expected: &[&str]) {
        assert_eq!(mistakes(log.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn a_join_that_compares_everything_with_everything_is_found_once() {
        let worst = "a join discards 60000 pairs: UPDATE a SET b FROM unnest($1)";
        check(&(entry(900) + &entry(30_000) + &entry(10)), &[worst]);
        let filtered = of(
            "UPDATE a SET b FROM unnest($1)",
            "Rows Removed by Filter",
            30_000,
        );
        check(&filtered, &[worst]);
    }

    #[test]
    fn joins_of_reports_are_not_checked() {
        let report = of("SELECT a", "Rows Removed by Join Filter", 30_000);
        check(&(entry(4) + &report), &[]);
    }

    #[test]
    fn unreadable_plans_are_reported() {
        let cut = entry(4).replace('}', "");
        check(&(entry(4) + &cut), &["1 logged plans cannot be read"]);
    }

    #[test]
    fn a_join_by_the_index_is_right() {
        check(&entry(4), &[]);
    }

    #[test]
    fn without_plans_nothing_was_checked() {
        let none = "Postgres has logged no plan of a batch's statement";
        check("starting\n\tbecause\n", &[none]);
    }
}
