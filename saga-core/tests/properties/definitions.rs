//! Returns the shipped definitions, and random definitions.

#![expect(clippy::unwrap_used, reason = "writing to a string cannot fail")]

use proptest::{collection::vec, prelude::*};
use saga_core::definition::SagaDefinition;
use std::fmt::Write;

pub fn place_order() -> SagaDefinition {
    read(include_str!(
        "../../../orchestrator/definitions/place-order.yaml"
    ))
}

pub fn place_order_payment_first() -> SagaDefinition {
    read(include_str!(
        "../../../orchestrator/definitions/place-order-payment-first.yaml"
    ))
}

fn read(yaml: &str) -> SagaDefinition {
    SagaDefinition::parse("random.yaml", yaml).unwrap_or_else(|errors| {
        panic!("{yaml}\n{errors:#?}");
    })
}

/// Returns definitions with up to four compensatable steps in any order without a cycle, then perhaps a pivot and up to
/// three retriable steps. A number per step selects by its bits which of the earlier steps it comes after.
pub fn random_definition() -> impl Strategy<Value = SagaDefinition> {
    (
        vec((any::<u8>(), 1_u32..4), 0..5),
        any::<bool>(),
        vec((any::<u8>(), 1_u32..4), 0..4),
        any::<bool>(),
        1_u32..4,
    )
        .prop_filter_map(
            "a saga has a step",
            |(before, has_pivot, after, starter, attempts)| {
                let steps = before.len() + usize::from(has_pivot);
                (steps > 0).then(|| read(&yaml(&before, has_pivot, &after, starter, attempts)))
            },
        )
}

fn yaml(
    before: &[(u8, u32)],
    has_pivot: bool,
    after: &[(u8, u32)],
    starter: bool,
    attempts: u32,
) -> String {
    let mut yaml = "name: random\nversion: 1\ndeadline: 1h\nsteps:\n".to_owned();
    for (index, (bits, tries)) in before.iter().enumerate() {
        let names = chosen("c", index, *bits);
        let by_starter = starter && index == 0;
        write!(
            yaml,
            "  - name: c{index}\n    kind: compensatable\n    participant: p{index}\n"
        )
        .unwrap();
        if !by_starter {
            write!(
                yaml,
                "    command: p{index}.do\n    retry: {{attempts: {tries}}}\n"
            )
            .unwrap();
        }
        write!(
            yaml,
            "    after: [{}]\n    compensation: {{command: p{index}.undo, retry: {{attempts: {tries}}}, \
             input: {{own: \"$.steps.c{index}\", why: $.cause}}}}\n",
            names.join(", ")
        )
        .unwrap();
    }
    if has_pivot {
        let all: Vec<String> = (0..before.len()).map(|index| format!("c{index}")).collect();
        write!(
            yaml,
            "  - name: pivot\n    kind: pivot\n    participant: decider\n    command: decider.do\n    \
             retry: {{attempts: {attempts}}}\n    after: [{}]\n",
            all.join(", ")
        )
        .unwrap();
        for (index, (bits, tries)) in after.iter().enumerate() {
            let mut names = chosen("r", index, *bits);
            if names.is_empty() {
                names.push("pivot".to_owned());
            }
            write!(
                yaml,
                "  - name: r{index}\n    kind: retriable\n    participant: q{index}\n    command: q{index}.do\n    \
                 retry: {{attempts: {tries}}}\n    after: [{}]\n",
                names.join(", ")
            )
            .unwrap();
        }
    }
    yaml
}

fn chosen(prefix: &str, earlier: usize, bits: u8) -> Vec<String> {
    (0..earlier)
        .filter(|index| bits & (1 << index) != 0)
        .map(|index| format!("{prefix}{index}"))
        .collect()
}
