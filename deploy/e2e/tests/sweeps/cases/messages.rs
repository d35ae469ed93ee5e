//! Messages that come twice, late, or not at all.

use super::{actions, answers::failing, pivot};
use crate::script::{Act, Case, End, Message, Mishap, Script, Starts, Wish};
use saga_core::{
    definition::SagaDefinition,
    instance::ActionVerdict,
    message::{ActionKind, Direction},
};
use std::{collections::BTreeSet, sync::Arc};

/// Sagas of which every message is disturbed: nothing goes wrong, one step fails, and one whose pivot's outcome is asked
/// for.
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

/// Cancelled while nothing is heard of the pivot, which in truth never ran.
fn resolved(definition: &Arc<SagaDefinition>) -> Case {
    let pivot = &pivot(definition).name;
    let script = Script::default().and_holding(pivot, Direction::Forward);
    let cancel = Wish {
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

/// A base once for each mishap of each of the messages that it sent when nothing more went wrong.
pub fn disturbed(base: &Case, messages: &BTreeSet<Message>) -> Vec<Case> {
    let mut cases = Vec::new();
    for message in messages
        .iter()
        .filter(|message| !base.script.holds(message))
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

fn title(message: &Message) -> String {
    let part = &message.part;
    let what = if message.is_reply { "reply" } else { "command" };
    format!("{what} {}/{}/{}", part.step, part.direction, part.attempt)
}
