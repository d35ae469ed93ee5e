//! Resolves the order of a definition's steps from the names in `after`.

use super::{
    document::{Document, Places},
    faults::Faults,
};
use std::collections::{BTreeSet, HashMap};

/// The predecessors and ancestors of a step, as indices.
#[derive(Clone, Debug, Default)]
pub(super) struct Before {
    pub after: Vec<usize>,
    pub ancestors: Vec<usize>,
}

/// Resolves every `after`. Returns `None` if the steps have no order (a cycle, or a name that is no step).
pub(super) fn resolve(
    document: &Document,
    places: &Places,
    faults: &mut Faults,
) -> Option<Vec<Before>> {
    let after = predecessors(document, places, faults)?;
    let mut ancestors: Vec<Option<BTreeSet<usize>>> = vec![None; after.len()];
    // Each round settles every step whose predecessors are settled. A round that settles none has found a cycle.
    loop {
        let mut settled = false;
        for (index, before) in after.iter().enumerate() {
            if ancestors[index].is_some() {
                continue;
            }
            let mut all: BTreeSet<usize> = before.iter().copied().collect();
            let known = before.iter().all(|step| {
                ancestors[*step].as_ref().is_some_and(|above| {
                    all.extend(above);
                    true
                })
            });
            if known {
                ancestors[index] = Some(all);
                settled = true;
            }
        }
        if !settled {
            break;
        }
    }
    report_cycle(document, places, &ancestors, faults);
    after
        .into_iter()
        .zip(ancestors)
        .map(|(after, ancestors)| {
            Some(Before {
                after,
                ancestors: ancestors?.into_iter().collect(),
            })
        })
        .collect()
}

fn predecessors(
    document: &Document,
    places: &Places,
    faults: &mut Faults,
) -> Option<Vec<Vec<usize>>> {
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (index, step) in document.steps.iter().enumerate() {
        by_name.entry(step.name.as_str()).or_insert(index);
    }
    let mut sound = true;
    let mut resolved = Vec::with_capacity(document.steps.len());
    for (step, place) in document.steps.iter().zip(&places.steps) {
        let mut after = BTreeSet::new();
        for (name, line) in step.after.iter().zip(&place.after) {
            let mut fault = |message: String| faults.add(*line, Some(&step.name), message);
            match by_name.get(name.as_str()) {
                None => {
                    fault(format!("after: there is no step '{name}'"));
                    sound = false;
                }
                Some(index) => {
                    if !after.insert(*index) {
                        fault(format!("after: '{name}' is named twice"));
                    }
                }
            }
        }
        resolved.push(after.into_iter().collect());
    }
    sound.then_some(resolved)
}

fn report_cycle(
    document: &Document,
    places: &Places,
    ancestors: &[Option<BTreeSet<usize>>],
    faults: &mut Faults,
) {
    let unsettled: Vec<usize> = (0..ancestors.len())
        .filter(|index| ancestors[*index].is_none())
        .collect();
    let Some(first) = unsettled.first() else {
        return;
    };
    let names: Vec<&str> = unsettled
        .iter()
        .map(|index| document.steps[*index].name.as_str())
        .collect();
    faults.add(
        places.steps[*first].step,
        Some(names[0]),
        format!(
            "after: a cycle; none of these can ever start: {}",
            names.join(", ")
        ),
    );
}
