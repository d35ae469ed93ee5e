//! Describes the servers that are measured on.

use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Servers {
    pub postgres: String,
    pub postgres_settings: BTreeMap<String, String>,
    pub kafka: String,
    pub partitions: i32,
}
