//! The batch of inventory commands: lock the shelf once, decide in log order, write the difference.

use crate::{
    domain::{Refusal, Shelf},
    store,
};
use async_trait::async_trait;
use saga_contracts::{
    fault_code,
    message_type::{
        INVENTORY_COMPLETE, INVENTORY_COMPLETED, INVENTORY_FAILED, INVENTORY_RELEASE,
        INVENTORY_RELEASED, INVENTORY_RESERVE, INVENTORY_RESERVED,
    },
    payload::{OrderRef, ReserveStock, StockItem, StockMoved},
};
use saga_core::message::{Command, Fault};
use saga_messaging::participant::{Answer, BatchHandler, HandlerError, read_payload};
use sqlx::PgConnection;
use tracing::{debug, info};
use uuid::Uuid;

/// Handles `inventory.reserve`, `inventory.release` and `inventory.complete`.
#[derive(Clone, Copy, Debug, Default)]
pub struct InventoryHandler;

/// What is asked, read from the payload.
enum Wish {
    Reserve(ReserveStock),
    Release(Uuid),
    Complete(Uuid),
}

/// Why a command cannot even be decided.
enum Unreadable {
    UnknownType,
    Payload(String),
}

impl Wish {
    fn of(command: &Command) -> Result<Self, Unreadable> {
        let order = || read_payload::<OrderRef>(command).map(|order| order.order_id);
        let read = match command.command_type.as_str() {
            INVENTORY_RESERVE => read_payload(command).map(Self::Reserve),
            INVENTORY_RELEASE => order().map(Self::Release),
            INVENTORY_COMPLETE => order().map(Self::Complete),
            _ => return Err(Unreadable::UnknownType),
        };
        read.map_err(Unreadable::Payload)
    }

    fn order_id(&self) -> Uuid {
        match self {
            Self::Reserve(command) => command.order_id,
            Self::Release(order_id) | Self::Complete(order_id) => *order_id,
        }
    }

    fn items(&self) -> &[StockItem] {
        match self {
            Self::Reserve(command) => &command.items,
            Self::Release(_) | Self::Complete(_) => &[],
        }
    }

    /// The reply's type and the pieces that moved.
    fn decide(self, rows: &mut Shelf) -> Result<(&'static str, Vec<StockItem>), Refusal> {
        Ok(match self {
            Self::Reserve(command) => (INVENTORY_RESERVED, rows.reserve(&command)?),
            Self::Release(order_id) => (INVENTORY_RELEASED, rows.release(order_id)),
            Self::Complete(order_id) => (INVENTORY_COMPLETED, rows.complete(order_id)?),
        })
    }
}

#[async_trait]
impl BatchHandler for InventoryHandler {
    type Rows = Shelf;

    async fn load(
        &self,
        tx: &mut PgConnection,
        commands: &[&Command],
    ) -> Result<Shelf, HandlerError> {
        let wishes: Vec<Wish> = commands.iter().filter_map(|c| Wish::of(c).ok()).collect();
        let orders = wishes.iter().map(Wish::order_id).collect();
        let products = wishes
            .iter()
            .flat_map(Wish::items)
            .map(|item| item.product_id)
            .collect();
        Ok(store::lock(tx, orders, products).await?)
    }

    async fn handle(
        &self,
        _tx: &mut PgConnection,
        rows: &mut Shelf,
        command: &Command,
    ) -> Result<Answer, HandlerError> {
        let wish = match Wish::of(command) {
            Ok(wish) => wish,
            Err(Unreadable::Payload(why)) => {
                return Ok(refuse(command, None, &Refusal::InvalidPayload(why)));
            }
            Err(Unreadable::UnknownType) => {
                let message = format!("inventory does not know '{}'", command.command_type);
                return Ok(Answer::Error {
                    fault: Fault::new(fault_code::UNKNOWN_COMMAND, message),
                });
            }
        };
        let order_id = wish.order_id();
        match wish.decide(rows) {
            Ok((reply_type, items)) => answer(command, reply_type, StockMoved { order_id, items }),
            Err(refusal) => Ok(refuse(command, Some(order_id), &refusal)),
        }
    }

    async fn store(&self, tx: &mut PgConnection, rows: Shelf) -> Result<(), HandlerError> {
        Ok(store::write(tx, &rows.changes()).await?)
    }
}

fn answer(command: &Command, reply_type: &str, moved: StockMoved) -> Result<Answer, HandlerError> {
    debug!(
        saga.id = %command.saga_id,
        order.id = %moved.order_id,
        correlation.id = command.trace.correlation_id,
        products = moved.items.len(),
        "{reply_type}"
    );
    let result = serde_json::to_value(moved)
        .map_err(|error| HandlerError::Broken(format!("a reply cannot be written: {error}")))?;
    Ok(Answer::Success {
        reply_type: reply_type.to_owned(),
        result,
    })
}

fn refuse(command: &Command, order_id: Option<Uuid>, refusal: &Refusal) -> Answer {
    info!(
        saga.id = %command.saga_id,
        order.id = order_id.map(tracing::field::display),
        correlation.id = command.trace.correlation_id,
        fault.code = refusal.code(),
        "{} refused: {refusal}",
        command.command_type
    );
    Answer::Failure {
        reply_type: INVENTORY_FAILED.to_owned(),
        fault: Fault::new(refusal.code(), refusal.to_string()),
    }
}
