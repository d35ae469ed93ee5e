//! One command at a time, under the frame that batches.

use super::{Answer, BatchHandler, CommandHandler, HandlerError, storage::Savepoints};
use async_trait::async_trait;
use saga_core::message::{Command, Fault};
use std::sync::Arc;

/// Fault code of the `error` that a bug in the handler is answered with.
const HANDLER_BROKEN: &str = "handler_broken";
/// More subtransactions than this overflow a backend's cache, and every snapshot on the server pays for it.
const SAVEPOINT_LIMIT: usize = 64;

/// Makes a [`BatchHandler`] of a [`CommandHandler`]: each command has its savepoint, and what it wrote goes when it
/// does not succeed.
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
impl<C: Savepoints + 'static, H: CommandHandler<C>> BatchHandler<C> for PerCommand<H> {
    type Rows = ();

    fn batch_limit(&self) -> Option<usize> {
        Some(SAVEPOINT_LIMIT)
    }

    async fn load(&self, _: &mut C, _: &[&Command]) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn handle(
        &self,
        tx: &mut C,
        (): &mut (),
        command: &Command,
    ) -> Result<Answer, HandlerError> {
        tx.savepoint().await?;
        let answer = match self.handler.handle(tx, command).await {
            Ok(answer) => answer,
            Err(HandlerError::Broken(why)) => Answer::Error {
                fault: Fault::new(HANDLER_BROKEN, why),
            },
            Err(error @ (HandlerError::Database(_) | HandlerError::Transaction(_))) => {
                return Err(error);
            }
        };
        match answer {
            Answer::Success { .. } | Answer::CallOutside => tx.release_savepoint().await?,
            Answer::Failure { .. } | Answer::Error { .. } => tx.roll_back_to_savepoint().await?,
        }
        Ok(answer)
    }

    async fn store(&self, _: &mut C, (): ()) -> Result<(), HandlerError> {
        Ok(())
    }
}
