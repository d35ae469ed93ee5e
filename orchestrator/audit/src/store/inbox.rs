//! Reads a participant's barrier: the marks of each step, and the open calls.

use super::Snapshot;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Marks of a step's forward row and its compensation row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepMarks {
    pub forward: Option<Mark>,
    pub compensation: Option<Mark>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// `P`ending, `D`one, failed (`X`), `R`efused.
    pub mark: String,
    pub at: DateTime<Utc>,
}

impl Mark {
    pub fn is_done(&self) -> bool {
        self.mark == "D"
    }
}

#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// Marks by saga and step.
    pub steps: BTreeMap<Uuid, BTreeMap<String, StepMarks>>,
    /// Calls that are to be made or in progress, by saga.
    pub open_calls: BTreeMap<Uuid, String>,
}

pub async fn read(snapshot: &mut Snapshot<'_>, since: Uuid) -> Result<Inbox, sqlx::Error> {
    let mut inbox = Inbox::default();
    let rows: Vec<(Uuid, String, String, String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT saga_id, step, direction::text, mark::text, handled_at FROM inbox WHERE saga_id >= $1",
    )
    .bind(since)
    .fetch_all(&mut **snapshot)
    .await?;
    for (saga, step, direction, mark, at) in rows {
        let marks = inbox
            .steps
            .entry(saga)
            .or_default()
            .entry(step)
            .or_default();
        let row = Some(Mark { mark, at });
        if direction == "F" {
            marks.forward = row;
        } else {
            marks.compensation = row;
        }
    }
    let open: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT saga_id, step || '/' || direction::text FROM intent WHERE state = 'open' AND saga_id >= $1",
    )
    .bind(since)
    .fetch_all(&mut **snapshot)
    .await?;
    inbox.open_calls = open.into_iter().collect();
    Ok(inbox)
}
