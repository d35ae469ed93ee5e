//! Runs the model within a test's time: the smaller scenarios, and every rule.

use saga_model::{
    explore::explore,
    properties::reach,
    rules::Rule,
    scenarios::{as_built, knock_outs},
};
use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

/// Far more than any scenario needs.
const LIMIT: Duration = Duration::from_mins(2);

const SMALL: [&str; 7] = [
    "a crash, a duplicate, a failure and a cancel",
    "a rival",
    "a person retries",
    "a person settles",
    "commands that are too large",
    "an unresolved pivot",
    "retention",
];

#[test]
fn the_protocol_as_built_holds_in_every_state_of_the_small_scenarios() {
    let mut reached = BTreeSet::new();
    let small = as_built()
        .into_iter()
        .filter(|scenario| SMALL.contains(&scenario.name));
    let mut explored = 0;
    for scenario in small {
        let found = explore(scenario, None, LIMIT, |_| {});
        assert!(found.finished, "'{}' is not through", scenario.name);
        assert!(
            found.broken.is_empty(),
            "'{}' breaks {:#?}",
            scenario.name,
            found.broken
        );
        reached.extend(found.reached);
        explored += 1;
        println!("{}: {} states", scenario.name, found.states);
    }
    assert_eq!(explored, SMALL.len());
    assert_eq!(reached, BTreeSet::from(reach::ALL));
}

#[test]
fn without_any_one_rule_the_named_promise_breaks() {
    for knock_out in knock_outs() {
        let found = explore(knock_out.scenario, Some(knock_out.breaks), LIMIT, |_| {});
        let mut broken = found.broken.iter();
        assert!(
            broken.any(|broken| broken.property == knock_out.breaks),
            "without {:?}, and with {}, '{}' holds in {} states; broken: {:#?}",
            knock_out.rule,
            knock_out.needs,
            knock_out.breaks,
            found.states,
            found.broken
        );
    }
}

#[test]
fn the_trouble_of_a_knock_out_breaks_nothing_while_its_rule_is_in_force() {
    for knock_out in knock_outs() {
        let mut scenario = knock_out.scenario;
        scenario.rules = saga_model::rules::Rules::ALL;
        let found = explore(scenario, None, LIMIT, |_| {});
        assert!(
            found.finished && found.broken.is_empty(),
            "with {:?}, {}: {:#?}",
            knock_out.rule,
            knock_out.needs,
            found.broken
        );
    }
}

#[test]
fn every_rule_is_in_the_table() {
    let knocked_out: HashSet<Rule> = knock_outs().iter().map(|one| one.rule).collect();
    for rule in Rule::ALL {
        assert!(knocked_out.contains(&rule), "{rule:?} is never knocked out");
    }
}
