//! The reason why a saga compensates or asks for its pivot's outcome.

use crate::message::Fault;
use serde::{Deserialize, Serialize};

/// The first failure that was applied, or whatever else made the saga start compensating.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Cause {
    /// `None` for a deadline or a cancel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    pub code: String,
    pub message: String,
}

impl Cause {
    /// Makes a cause that does not come from a step.
    pub fn of_saga(code: &str, message: impl Into<String>) -> Self {
        Self {
            step: None,
            code: code.to_owned(),
            message: message.into(),
        }
    }

    pub fn of_step(step: &str, fault: &Fault) -> Self {
        Self {
            step: Some(step.to_owned()),
            code: fault.code.clone(),
            message: fault.message.clone(),
        }
    }
}
