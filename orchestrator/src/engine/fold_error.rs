//! The reasons why a batch cannot be decided, and how the consumer handles each of them.

use saga_core::{definition::DefinitionHash, ids::SagaId};
use saga_messaging::consumer::BatchError;
use thiserror::Error;

/// The reason why a batch cannot be decided.
#[derive(Debug, Error)]
pub enum FoldError {
    /// A saga is pinned to a definition that is not registered.
    #[error("no definition with hash {} is registered", .0.0)]
    MissingDefinition(DefinitionHash),
    /// The start's definition can only be read by a later release of this program, so only that release can start the
    /// saga.
    #[error("{0}")]
    Unreadable(String),
    /// The saga that holds the business key ends in the same batch. Its row must be deleted before another saga can
    /// hold the key.
    #[error("saga {0} ends in the same batch, and its business key is not free before")]
    KeyNotFreeYet(SagaId),
}

impl From<FoldError> for BatchError {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Unreadable(_) => Self::Retry(Box::new(error)),
            // The consumer retries with smaller batches, until each input is decided by itself.
            FoldError::MissingDefinition(_) | FoldError::KeyNotFreeYet(_) => {
                Self::Data(Box::new(error))
            }
        }
    }
}
