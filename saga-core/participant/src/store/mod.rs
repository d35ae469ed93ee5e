//! The statements on the participant's own tables. Keys arrive sorted, so that locks are always taken in one order. A
//! statement that reads a partitioned table by `= ANY` also carries the range of the ids, because `= ANY` alone does
//! not prune partitions. A statement that joins with the keys must not carry the range: Postgres would read the whole
//! range once and compare its rows with each key.

pub(super) mod floor;
pub(super) mod inbox;
pub(super) mod intent;
mod postgres;

use super::barrier::RowKey;
use saga_core::message::Direction;
use uuid::Uuid;

/// The columns of a list of keys.
struct Keys {
    sagas: Vec<Uuid>,
    steps: Vec<String>,
    directions: Vec<&'static str>,
}

impl Keys {
    fn of<'a>(keys: impl IntoIterator<Item = &'a RowKey>) -> Self {
        let mut columns = Self {
            sagas: Vec::new(),
            steps: Vec::new(),
            directions: Vec::new(),
        };
        for key in keys {
            columns.sagas.push(key.saga_id.0);
            columns.steps.push(key.step.clone());
            columns.directions.push(direction_code(key.direction));
        }
        columns
    }
}

fn direction_code(direction: Direction) -> &'static str {
    match direction {
        // A resolve asks about the forward row.
        Direction::Forward | Direction::Resolve => "F",
        Direction::Compensation => "C",
    }
}

fn key(saga: Uuid, step: String, code: &str) -> Result<RowKey, sqlx::Error> {
    let direction = match code {
        "F" => Direction::Forward,
        "C" => Direction::Compensation,
        other => return Err(undecodable(&format!("direction '{other}'"))),
    };
    Ok(RowKey {
        saga_id: saga.into(),
        step,
        direction,
    })
}

fn undecodable(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

fn to_json(value: &impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
