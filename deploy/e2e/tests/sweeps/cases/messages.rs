//! Cases in which messages are duplicated, delayed or dropped.

use super::{actions, answers::failing, pivot};
use crate::script::{Act, Case, End, Message, Mishap, RequestedAction, Script, Starts};
use saga_core::{
    definition::SagaDefinition,
    instance::ActionVerdict,
    message::{ActionKind, Direction},
};
use std::{collections::BTreeSet, sync::Arc};

/// Returns the cases whose every message is then disturbed: one in which nothing goes wrong, one for each failing step,
/// and one in which the pivot's outcome is resolved.
pub fn bases(definition: &Arc<SagaDefinition>) -> Vec<Case> {
    let mut bases = vec![
        Case::new(
            definition,
            "all goes well",
            Script::default(),
            End::Completed,
        ),
        resolved(definition),
    ];
    bases.extend(actions(definition).map(|step| failing(definition, step)));
    bases
}

/// The saga is cancelled while the pivot, which in fact never ran, does not answer.
fn resolved(definition: &Arc<SagaDefinition>) -> Case {
    let pivot = &pivot(definition).name;
    let script = Script::default().and_holding(pivot, Direction::Forward);
    let cancel = RequestedAction {
        kind: ActionKind::Cancel,
        verdict: ActionVerdict::Pending,
    };
    let name = format!("cancelled at {pivot}");
    Case::new(definition, &name, script, End::Compensated).acting(vec![
        Act::Await {
            sent: (pivot.clone(), Direction::Forward),
            done: Vec::new(),
            undone: Vec::new(),
        },
        Act::Ask(vec![cancel]),
    ])
}

/// Returns the base once for each mishap of each message that the base sends when nothing else goes wrong.
pub fn disturbed(base: &Case, messages: &BTreeSet<Message>) -> Vec<Case> {
    let mut cases = Vec::new();
    let messages = messages.iter();
    for message in
        messages.filter(|message| !base.script.holds(message) && is_certain(base, message))
    {
        for mishap in Mishap::ALL {
            let name = format!("{} {mishap:?}", title(message));
            cases.push(base.with(&name, |script| {
                script.mishap = Some((message.clone(), mishap));
            }));
        }
    }
    for starts in [Starts::Twice, Starts::AgainAtTheEnd] {
        let name = format!("starts {starts:?}");
        cases.push(base.with(&name, |script| script.starts = starts));
    }
    cases
}

/// Returns true if every run of the base sends the message. On a busy machine a reply may come too late, and causes an
/// attempt that other runs do not make. The attempts that every run makes are the first, and those that a person asks
/// for after the saga was parked.
fn is_certain(base: &Case, message: &Message) -> bool {
    let part = &message.part;
    let has_parked = base
        .script
        .answers
        .iter()
        .any(|answers| answers.step == part.step && answers.direction == part.direction);
    let retries = if has_parked { base.parked.limit() } else { 0 };
    part.attempt as usize <= 1 + retries
}

fn title(message: &Message) -> String {
    let part = &message.part;
    let what = if message.is_reply { "reply" } else { "command" };
    format!("{what} {}/{}/{}", part.step, part.direction, part.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::shipped;
    use saga_core::{definition::StepKind, message::CommandRef};

    #[test]
    fn an_attempt_that_only_a_busy_machine_makes_is_not_disturbed() {
        let [place_order, _] = shipped();
        let definition = Arc::new(place_order);
        let check = |kind: StepKind, at: StepKind, expected: &[u32]| {
            let step = |kind| {
                actions(&definition)
                    .find(|step| step.kind == kind)
                    .expect("a step")
            };
            let base = failing(&definition, step(kind));
            let messages = (1..=3).map(|attempt| Message {
                part: CommandRef {
                    step: step(at).name.clone(),
                    direction: Direction::Forward,
                    attempt,
                },
                is_reply: true,
            });
            let struck: BTreeSet<u32> = disturbed(&base, &messages.collect())
                .into_iter()
                .filter_map(|case| Some(case.script.mishap?.0.part.attempt))
                .collect();
            assert_eq!(
                struck.into_iter().collect::<Vec<_>>(),
                expected,
                "{}",
                base.name
            );
        };
        check(StepKind::Pivot, StepKind::Pivot, &[1]);
        check(StepKind::Pivot, StepKind::Compensatable, &[1]);
        // The step parks the saga once, and a person lets it try again.
        check(StepKind::Retriable, StepKind::Retriable, &[1, 2]);
        check(StepKind::Retriable, StepKind::Pivot, &[1]);
    }
}
