//! Command types as metrics' labels. They come from whoever can write to the topic, and a label costs memory for ever: only
//! types that a handler has answered for get one.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// More types than any participant has.
const LABEL_LIMIT: usize = 100;
/// All others together.
const OTHER: &str = "other";

#[derive(Debug, Default)]
pub(super) struct CommandLabels(Mutex<HashSet<String>>);

impl CommandLabels {
    /// A handler knows this type: it did the work, or refused it as business.
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
    fn labels_are_bounded_whatever_a_handler_answers() {
        let labels = CommandLabels::default();
        for number in 0..10_000 {
            labels.learn(&format!("type.{number}"));
        }
        let known = (0..10_000).filter(|number| labels.of(&format!("type.{number}")) != OTHER);
        assert_eq!(known.count(), LABEL_LIMIT);
    }
}
