//! A client's journal: the orders that were acknowledged to the client, and the stock that was put in. Without a
//! journal, the audit cannot find an order that was accepted and then lost completely.
//!
//! A file of JSON lines:
//!
//! ```json
//! {"accepted": {"order": "01a1…", "customer": "c000…", "sole": true}}
//! {"stocked": {"product": "a000…", "pieces": 100}}
//! ```

use crate::error::AuditError;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};
use uuid::Uuid;

/// One line of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum JournalEntry {
    /// An order was answered with 201.
    Accepted {
        order: Uuid,
        customer: Uuid,
        /// The client has requested only one order of this customer, perhaps several times.
        #[serde(default)]
        sole: bool,
    },
    /// Pieces were added to the available stock, before the first order of the product or later.
    Stocked { product: Uuid, pieces: i64 },
}

/// All lines of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    pub accepted: BTreeMap<Uuid, Accepted>,
    /// Added pieces by product.
    pub stocked: BTreeMap<Uuid, i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub customer: Uuid,
    pub sole: bool,
}

impl Journal {
    pub fn add(&mut self, entry: JournalEntry) {
        match entry {
            JournalEntry::Accepted {
                order,
                customer,
                sole,
            } => {
                self.accepted.insert(order, Accepted { customer, sole });
            }
            JournalEntry::Stocked { product, pieces } => {
                *self.stocked.entry(product).or_default() += pieces;
            }
        }
    }

    pub fn read(path: &Path) -> Result<Self, AuditError> {
        let failed = |why: String| AuditError::File {
            path: path.to_owned(),
            why,
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let mut journal = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let entry = serde_json::from_str(line)
                .map_err(|error| failed(format!("line {number}: {error}")))?;
            journal.add(entry);
        }
        Ok(journal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up() {
        let mut journal = Journal::default();
        let product = Uuid::from_u128(1);
        for line in [
            r#"{"stocked": {"product": "00000000-0000-0000-0000-000000000001", "pieces": 10}}"#,
            r#"{"stocked": {"product": "00000000-0000-0000-0000-000000000001", "pieces": 5}}"#,
            r#"{"accepted": {"order": "00000000-0000-0000-0000-000000000002", "customer": "00000000-0000-0000-0000-000000000003"}}"#,
        ] {
            journal.add(serde_json::from_str(line).unwrap());
        }
        assert_eq!(journal.stocked[&product], 15);
        let accepted = Accepted {
            customer: Uuid::from_u128(3),
            sole: false,
        };
        assert_eq!(journal.accepted[&Uuid::from_u128(2)], accepted);
    }
}
