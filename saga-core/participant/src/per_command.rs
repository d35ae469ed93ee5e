//! Runs a handler of single commands under the batching command processor.

use super::{
    Answer, Failure, HandlerError, RawBatchHandler, RawCommandHandler, storage::Savepoints,
};
use async_trait::async_trait;
use saga_core::message::Command;
use std::sync::Arc;

/// Fault code of the `error` reply to a command whose handler has a bug.
const HANDLER_BROKEN: &str = "handler_broken";
/// Most commands in a batch, each with a savepoint. More subtransactions would overflow a Postgres backend's cache,
/// which slows down every snapshot on the server.
const SAVEPOINT_LIMIT: usize = 64;

/// Makes a [`RawBatchHandler`] of a [`RawCommandHandler`]: each command has its own savepoint, and its writes are rolled back
/// if it does not succeed.
#[derive(Debug)]
pub struct PerCommand<H> {
    handler: Arc<H>,
}

impl<H> PerCommand<H> {
    pub fn new(handler: Arc<H>) -> Self {
        Self { handler }
    }
}

#[async_trait]
impl<C: Savepoints + 'static, H: RawCommandHandler<C>> RawBatchHandler<C> for PerCommand<H> {
    type Rows = ();

    fn batch_limit(&self) -> Option<usize> {
        Some(SAVEPOINT_LIMIT)
    }

    async fn load(&self, _: &mut C, _: &[&Command]) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn handle(&self, tx: &mut C, (): &mut (), command: &Command) -> Result<Answer, Failure> {
        tx.savepoint().await.map_err(HandlerError::from)?;
        let handled = self.handler.handle(tx, command).await;
        match &handled {
            Ok(_) => tx.release_savepoint().await.map_err(HandlerError::from)?,
            Err(Failure::Handler(HandlerError::Database(_) | HandlerError::Transaction(_))) => {}
            Err(
                Failure::Business(_)
                | Failure::Technical(_)
                | Failure::Handler(HandlerError::Broken(_)),
            ) => {
                tx.roll_back_to_savepoint()
                    .await
                    .map_err(HandlerError::from)?;
            }
        }
        match handled {
            Err(Failure::Handler(HandlerError::Broken(why))) => {
                Err(Failure::technical(HANDLER_BROKEN, why))
            }
            handled => handled,
        }
    }

    async fn store(&self, _: &mut C, (): ()) -> Result<(), HandlerError> {
        Ok(())
    }
}
