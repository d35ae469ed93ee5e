//! The requests to the orchestrator about letters.

use crate::failure::Failure;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A selection of letters.
#[derive(Clone, Debug, Default, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Selection {
    /// Only letters of this topic's records.
    #[arg(long)]
    pub topic: Option<String>,
    /// Only letters with this reason, such as bad_payload.
    #[arg(long)]
    pub reason: Option<String>,
    /// Only letters of this saga.
    #[arg(long)]
    pub saga: Option<Uuid>,
}

/// The request about one letter.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub reason: String,
    pub actor: String,
    pub dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// The query of one page.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Query<'a> {
    pub topic: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub saga: Option<Uuid>,
    pub all: bool,
    pub cursor: Option<String>,
    pub limit: usize,
}

/// Makes the path of a letter's endpoint. The id comes from a person, so its characters are checked.
pub fn path(id: &str, below: &str) -> Result<String, Failure> {
    let parts: Vec<&str> = id.split('/').collect();
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    match parts[..] {
        [topic, partition, offset] if parts.iter().all(|part| plain(part)) => {
            Ok(format!("/dead-letters/{topic}/{partition}/{offset}{below}"))
        }
        _ => Err(Failure::Usage(format!(
            "'{id}' is no letter's id, which looks like saga.inputs.dlq/0/42"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_becomes_a_path_and_nothing_else_does() {
        assert_eq!(
            path("saga.inputs.dlq/0/42", "/replay").unwrap(),
            "/dead-letters/saga.inputs.dlq/0/42/replay"
        );
        for bad in [
            "", "a", "a/0", "a/0/1/2", "a?b/0/1", "/0/1", "a/0/1#", "a//1",
        ] {
            assert!(path(bad, "").is_err(), "{bad}");
        }
    }
}
