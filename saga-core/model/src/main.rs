//! Runs as `cargo run --release -p saga-model`: explores every scenario, then knocks out one rule after the other.

use anyhow::{Result, bail};
use clap::Parser;
use saga_model::{
    explore::{Broken, Explored, explore},
    properties::reach,
    scenarios::{as_built, knock_outs},
};
use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write, stderr, stdout},
    time::Duration,
};

/// Explores the protocol completely, under bounded trouble.
///
/// Every scenario of the protocol as built must hold all properties in all states. Every rule that is knocked out must
/// break the property that is named for it. The exit status is 0 only if all of this is true.
#[derive(Parser)]
struct Options {
    /// Seconds for each scenario; a scenario that is not finished by then counts as failed.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Explore only scenarios and rules whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
    /// Print the events that lead to each broken property.
    #[arg(long)]
    show: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let as_built = scenarios_hold(&options)?;
    let knocked_out = rules_are_needed(&options)?;
    writeln!(
        stdout(),
        "\n{} states of the protocol as built, {} on the way to what breaks without a rule",
        as_built.states,
        knocked_out.states
    )?;
    if options.only.is_empty() && as_built.reached != BTreeSet::from(reach::ALL) {
        bail!("the scenarios only reach {:?}", as_built.reached);
    }
    if as_built.failed + knocked_out.failed > 0 {
        bail!(
            "{} scenarios do not hold, {} rules break nothing",
            as_built.failed,
            knocked_out.failed
        );
    }
    Ok(())
}

#[derive(Default)]
struct Sum {
    states: usize,
    failed: usize,
    reached: BTreeSet<&'static str>,
}

fn scenarios_hold(options: &Options) -> Result<Sum> {
    let mut sum = Sum::default();
    writeln!(stdout(), "The protocol as built\n")?;
    for scenario in as_built() {
        if !scenario.name.contains(&options.only) {
            continue;
        }
        let name = format!("{} ({})", scenario.name, scenario.definition.name);
        let found = explore_with_progress(options, &name, |limit, progress| {
            explore(scenario, None, limit, progress)
        })?;
        let holds = found.finished && found.broken.is_empty();
        let verdict = match (&found.broken[..], found.finished) {
            ([], true) => "holds".to_owned(),
            ([], false) => "NOT THROUGH".to_owned(),
            (broken, _) => format!("BROKEN: {}", names(broken)),
        };
        writeln!(stdout(), "{name:<64} {} {verdict}", figures(&found))?;
        show(options, &found.broken)?;
        sum.states += found.states;
        sum.failed += usize::from(!holds);
        sum.reached.extend(found.reached);
    }
    Ok(sum)
}

fn rules_are_needed(options: &Options) -> Result<Sum> {
    let mut sum = Sum::default();
    writeln!(stdout(), "\nWithout one rule\n")?;
    for knock_out in knock_outs() {
        let rule = format!("{:?}", knock_out.rule);
        if !rule.contains(&options.only) {
            continue;
        }
        let name = format!("{rule}: {}", knock_out.needs);
        let found = explore_with_progress(options, &name, |limit, progress| {
            explore(knock_out.scenario, Some(knock_out.breaks), limit, progress)
        })?;
        let broken = found
            .broken
            .iter()
            .find(|broken| broken.property == knock_out.breaks);
        let verdict = match broken {
            Some(broken) => {
                format!(
                    "breaks {} in {} events",
                    broken.property,
                    broken.events.len()
                )
            }
            None => format!("DOES NOT BREAK {}", knock_out.breaks),
        };
        writeln!(stdout(), "{name:<64} {} {verdict}", figures(&found))?;
        show(options, broken)?;
        sum.states += found.states;
        sum.failed += usize::from(broken.is_none());
    }
    Ok(sum)
}

/// Explores, and shows the number of states so far on the terminal, if there is a terminal.
fn explore_with_progress(
    options: &Options,
    name: &str,
    run: impl FnOnce(Duration, &mut dyn FnMut(usize)) -> Explored,
) -> Result<Explored> {
    let is_terminal = stderr().is_terminal();
    let mut told = Ok(());
    let found = run(Duration::from_secs(options.seconds), &mut |states| {
        if is_terminal && told.is_ok() {
            told = write!(stderr(), "\r{name:<64} {states:>9} states ");
        }
    });
    told?;
    if is_terminal {
        write!(stderr(), "\r{:<96}\r", "")?;
    }
    Ok(found)
}

fn figures(found: &Explored) -> String {
    format!(
        "{:>9} states, depth {:>3}, {:>6.1} s:",
        found.states,
        found.depth,
        found.time.as_secs_f64()
    )
}

fn names(broken: &[Broken]) -> String {
    let names: Vec<&str> = broken.iter().map(|broken| broken.property).collect();
    names.join("; ")
}

fn show<'a>(options: &Options, broken: impl IntoIterator<Item = &'a Broken>) -> Result<()> {
    if !options.show {
        return Ok(());
    }
    for broken in broken {
        writeln!(stdout(), "  {}", broken.property)?;
        for event in &broken.events {
            writeln!(stdout(), "    {event:?}")?;
        }
    }
    Ok(())
}
