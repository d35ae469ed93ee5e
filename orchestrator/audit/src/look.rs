//! A look: reads the whole system once, causes before effects.

use crate::{
    Settings,
    error::AuditError,
    sources::Sources,
    store::{self, inbox::Inbox, orders::Orders, payments::Payments, sagas::Sagas, stock::Stock},
    topics::{self, Topics},
};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The data that was read. The crate's documentation gives the reason for the order.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Committed offsets by partition of `saga.inputs`. The orchestrator had handled the inputs below them before
    /// anything else was read.
    pub(crate) handled: BTreeMap<i32, i64>,
    pub(crate) sagas: Sagas,
    pub(crate) orders: Orders,
    pub(crate) stock: Stock,
    pub(crate) payments: Payments,
    /// Barriers by participant: `order`, `inventory`, `payment`.
    pub(crate) inboxes: BTreeMap<&'static str, Inbox>,
    pub(crate) topics: Topics,
}

/// The progress of a saga. If it is the same in two looks, the saga has not changed in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    saga: Option<(String, i64)>,
    order: Option<String>,
}

impl Look {
    pub async fn take(sources: &Sources, settings: &Settings) -> Result<Self, AuditError> {
        let since = settings.since.map_or(Uuid::nil(), least_id);
        let handled = topics::handled(sources).await?;
        let sagas = read_sagas(sources, since).await?;
        let mut inboxes = BTreeMap::new();
        let orders = read_orders(sources, since, &mut inboxes).await?;
        let stock = read_stock(sources, since, &mut inboxes).await?;
        let payments = read_payments(sources, since, &mut inboxes).await?;
        let topics = topics::read(sources, since).await?;
        Ok(Self {
            handled,
            sagas,
            orders,
            stock,
            payments,
            inboxes,
            topics,
        })
    }

    pub(crate) fn progress(&self, saga: Uuid) -> Progress {
        let row = self.sagas.by_id.get(&saga);
        Progress {
            saga: row.map(|row| match &row.state {
                store::sagas::RowState::Live { version, .. } => (row.status.clone(), *version),
                store::sagas::RowState::Ended { at } => (row.status.clone(), at.timestamp_micros()),
            }),
            order: self
                .orders
                .by_id
                .get(&saga)
                .map(|order| order.status.clone()),
        }
    }

    /// Returns true if all messages that follow from these inputs are published: the orchestrator commits an input's
    /// offset only after that.
    pub(crate) fn is_sent(&self, inputs: &BTreeMap<i32, i64>) -> bool {
        inputs.iter().all(|(partition, offset)| {
            let handled = self.handled.get(partition).copied().unwrap_or_default();
            *offset < handled
        })
    }
}

/// Returns the least UUIDv7 of an instant.
fn least_id(at: DateTime<Utc>) -> Uuid {
    let ms = u128::from(at.timestamp_millis().max(0).cast_unsigned());
    Uuid::from_u128(ms << 80)
}

async fn read_sagas(sources: &Sources, since: Uuid) -> Result<Sagas, AuditError> {
    let database = "orchestrator";
    let failed = |source| AuditError::Database { database, source };
    let mut connection = store::connect(database, &sources.orchestrator).await?;
    let mut snapshot = store::snapshot(&mut connection).await.map_err(failed)?;
    store::sagas::read(&mut snapshot, since)
        .await
        .map_err(failed)
}

/// Defines a function that reads a participant's own tables and its barrier in one snapshot.
macro_rules! participant {
    ($name:ident, $database:literal, $url:ident, $room:ident, $what:ty) => {
        async fn $name(
            sources: &Sources,
            since: Uuid,
            inboxes: &mut BTreeMap<&'static str, Inbox>,
        ) -> Result<$what, AuditError> {
            let database = $database;
            let failed = |source| AuditError::Database { database, source };
            let mut connection = store::connect(database, &sources.$url).await?;
            let mut snapshot = store::snapshot(&mut connection).await.map_err(failed)?;
            let own = store::$room::read(&mut snapshot, since)
                .await
                .map_err(failed)?;
            let inbox = store::inbox::read(&mut snapshot, since)
                .await
                .map_err(failed)?;
            inboxes.insert(database, inbox);
            Ok(own)
        }
    };
}

participant!(read_orders, "order", order, orders, Orders);
participant!(read_stock, "inventory", inventory, stock, Stock);
participant!(read_payments, "payment", payment, payments, Payments);
