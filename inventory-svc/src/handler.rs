//! Handles a batch of inventory commands: lock the rows once, decide in log order, write the difference.

use crate::{
    domain::{Refusal, StockBatch},
    store,
};
use async_trait::async_trait;
use saga_contracts::{
    message_type::{
        INVENTORY_COMPLETE, INVENTORY_COMPLETED, INVENTORY_RELEASE, INVENTORY_RELEASED,
        INVENTORY_RESERVE, INVENTORY_RESERVED,
    },
    payload::{OrderRef, ReserveStock, StockItem, StockMoved},
};
use saga_participant::{
    Answer, Command, Failure, HandlerError,
    batch::{BatchHandler, Commands},
};
use sqlx::PgConnection;
use tracing::{debug, info};
use uuid::Uuid;

/// Handles `inventory.reserve`, `inventory.release` and `inventory.complete`.
#[derive(Clone, Copy, Debug, Default)]
pub struct InventoryHandler;

/// The payload of a command.
pub enum StockCommand {
    Reserve(ReserveStock),
    Release(OrderRef),
    Complete(OrderRef),
}

impl StockCommand {
    fn order_id(&self) -> Uuid {
        match self {
            Self::Reserve(command) => command.order_id,
            Self::Release(order) | Self::Complete(order) => order.order_id,
        }
    }

    fn items(&self) -> &[StockItem] {
        match self {
            Self::Reserve(command) => &command.items,
            Self::Release(_) | Self::Complete(_) => &[],
        }
    }

    /// Decides the command. Returns the pieces that moved.
    fn decide(&self, rows: &mut StockBatch, saga: Uuid) -> Result<Vec<StockItem>, Refusal> {
        match self {
            Self::Reserve(wanted) => rows.reserve(saga, wanted),
            Self::Release(order) => rows.release(saga, order.order_id),
            Self::Complete(order) => rows.complete(saga, order.order_id),
        }
    }
}

#[async_trait]
impl BatchHandler for InventoryHandler {
    type Command = StockCommand;
    type Rows = StockBatch;

    fn commands() -> Commands<StockCommand> {
        Commands::new()
            .on(INVENTORY_RESERVE, INVENTORY_RESERVED, StockCommand::Reserve)
            .on(INVENTORY_RELEASE, INVENTORY_RELEASED, StockCommand::Release)
            .on(
                INVENTORY_COMPLETE,
                INVENTORY_COMPLETED,
                StockCommand::Complete,
            )
    }

    async fn load(
        &self,
        tx: &mut PgConnection,
        commands: &[Command<StockCommand>],
    ) -> Result<StockBatch, HandlerError> {
        let orders = commands.iter().map(|command| command.payload.order_id());
        let items = commands.iter().flat_map(|command| command.payload.items());
        let products = items.map(|item| item.product_id);
        Ok(store::lock(tx, orders.collect(), products.collect()).await?)
    }

    fn handle(
        &self,
        rows: &mut StockBatch,
        command: Command<StockCommand>,
    ) -> Result<Answer, Failure> {
        let order_id = command.payload.order_id();
        match command.payload.decide(rows, command.saga_id.0) {
            Ok(items) => {
                debug!(
                    saga.id = %command.saga_id,
                    order.id = %order_id,
                    correlation.id = command.trace.correlation_id,
                    products = items.len(),
                    "{} done",
                    command.command_type
                );
                Answer::success(StockMoved { order_id, items })
            }
            Err(refusal) => {
                info!(
                    saga.id = %command.saga_id,
                    order.id = %order_id,
                    correlation.id = command.trace.correlation_id,
                    fault.code = refusal.code(),
                    "{} refused: {refusal}",
                    command.command_type
                );
                Err(Failure::business(refusal.code(), refusal.to_string()))
            }
        }
    }

    async fn store(&self, tx: &mut PgConnection, rows: StockBatch) -> Result<(), HandlerError> {
        Ok(store::write(tx, &rows.changes()).await?)
    }
}
