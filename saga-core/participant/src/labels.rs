//! Command types as metric labels. Anyone who can write to the topic chooses a command type, and a label uses memory
//! forever, so only a type that a handler has answered gets its own label.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// Most labels: more types than any participant has.
const LABEL_LIMIT: usize = 100;
/// The label of all other types.
const OTHER: &str = "other";

#[derive(Debug, Default)]
pub(super) struct CommandLabels(Mutex<HashSet<String>>);

impl CommandLabels {
    /// Adds a type that a handler knows: it did the work, or refused it for a business reason.
    pub fn learn(&self, command_type: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < LABEL_LIMIT && !known.contains(command_type) {
            known.insert(command_type.to_owned());
        }
    }

    pub fn of(&self, command_type: &str) -> String {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let label = known.get(command_type).map_or(OTHER, String::as_str);
        label.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_types_share_one_label_and_cannot_take_the_place_of_others() {
        let labels = CommandLabels::default();
        for number in 0..10_000 {
            assert_eq!(labels.of(&format!("foreign.{number}")), OTHER);
        }
        labels.learn("stock.reserve");
        assert_eq!(labels.of("stock.reserve"), "stock.reserve");
    }

    #[test]
    fn the_number_of_labels_is_bounded() {
        let labels = CommandLabels::default();
        for number in 0..10_000 {
            labels.learn(&format!("type.{number}"));
        }
        let known = (0..10_000).filter(|number| labels.of(&format!("type.{number}")) != OTHER);
        assert_eq!(known.count(), LABEL_LIMIT);
    }
}
