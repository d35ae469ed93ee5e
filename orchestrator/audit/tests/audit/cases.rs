//! Cases, each with one discrepancy: the change to the world, the checks that must find it, and how it is reverted.

use crate::world::{World, run};
use saga_audit::{Check, Journal, JournalEntry, Settings};
use sqlx::PgPool;
use uuid::Uuid;

/// All checks. The test fails if no case covers one of them.
pub const EVERY_CHECK: [Check; 30] = [
    Check::AcceptedOrderMissing,
    Check::OrderPlacedTwice,
    Check::OrderWithoutSaga,
    Check::OrderContradictsSaga,
    Check::EffectWithoutOrder,
    Check::EffectOfAnotherSaga,
    Check::ParkedWithoutReason,
    Check::SagaStandsStill,
    Check::NotEnded,
    Check::LiveAndHistoryOverlap,
    Check::StockNegative,
    Check::StockReservedMismatch,
    Check::StockSoldMismatch,
    Check::StockTotalMismatch,
    Check::ReservationOutlivesSaga,
    Check::SoldMismatch,
    Check::MoneyMismatch,
    Check::ChargedTwice,
    Check::PaymentContradictsGateway,
    Check::CallOutlivesSaga,
    Check::EffectAfterCompensation,
    Check::EffectNotCompensated,
    Check::CompensatedThoughCompleted,
    Check::ReplyContradicts,
    Check::TerminalEventMissing,
    Check::TerminalEventTwice,
    Check::TerminalEventContradicts,
    Check::EventDiffers,
    Check::EventGap,
    Check::EventWithoutSaga,
];

pub struct Case {
    pub name: &'static str,
    pub finds: &'static [Check],
    harm: Harm,
}

#[derive(Clone, Copy)]
enum Database {
    Orchestrator,
    Order,
    Inventory,
    Payment,
}

enum Harm {
    /// A statement, and the statement that reverts it.
    Sql(Database, fn(&World) -> String, fn(&World) -> String),
    /// An event, which cannot be reverted.
    Event(fn(&World) -> Uuid, i64, &'static str, &'static str),
    /// Both answers to one step, which cannot be reverted.
    Replies,
    Journal(fn(&World) -> JournalEntry),
    Drained,
}

impl Case {
    pub async fn arrange(&self, world: &World, mut settings: Settings) -> (Journal, Settings) {
        let mut journal = world.journal.clone();
        match &self.harm {
            Harm::Sql(database, harm, _) => run(pool(world, *database), &harm(world)).await,
            Harm::Event(saga, sequence, kind, note) => {
                world.event(saga(world), *sequence, kind, note).await;
            }
            Harm::Replies => {
                world.reply(world.parked, "reserve-stock", "success").await;
                world.reply(world.parked, "reserve-stock", "not_done").await;
            }
            Harm::Journal(entry) => journal.add(entry(world)),
            Harm::Drained => settings.drained = true,
        }
        (journal, settings)
    }

    pub async fn undo(&self, world: &World) {
        if let Harm::Sql(database, _, undo) = &self.harm {
            run(pool(world, *database), &undo(world)).await;
        }
    }

    pub fn stays(&self) -> bool {
        matches!(self.harm, Harm::Event(..) | Harm::Replies)
    }
}

fn pool(world: &World, database: Database) -> &PgPool {
    match database {
        Database::Orchestrator => &world.orchestrator,
        Database::Order => &world.order,
        Database::Inventory => &world.inventory,
        Database::Payment => &world.payment,
    }
}

fn sql(
    name: &'static str,
    finds: &'static [Check],
    database: Database,
    harm: fn(&World) -> String,
    undo: fn(&World) -> String,
) -> Case {
    let harm = Harm::Sql(database, harm, undo);
    Case { name, finds, harm }
}

pub fn all() -> Vec<Case> {
    let mut cases = orders();
    cases.extend(sagas());
    cases.extend(stock());
    cases.extend(money());
    cases.extend(effects());
    cases.extend(topics());
    cases
}

fn orders() -> Vec<Case> {
    vec![
        Case {
            name: "an accepted order is not there",
            finds: &[Check::AcceptedOrderMissing],
            harm: Harm::Journal(|_| JournalEntry::Accepted {
                order: Uuid::from_u128(404),
                customer: Uuid::from_u128(404),
                sole: true,
            }),
        },
        sql(
            "a request has made two orders",
            &[Check::OrderPlacedTwice],
            Database::Order,
            |w| set("orders", "customer_id", &w.confirmed, &w.parked),
            |w| set("orders", "customer_id", &w.parked, &w.parked),
        ),
        sql(
            "a history row is removed",
            &[Check::OrderWithoutSaga, Check::EventWithoutSaga],
            Database::Orchestrator,
            |w| moved("saga_history", "kept", w.confirmed),
            |w| moved("kept", "saga_history", w.confirmed) + "; DROP TABLE kept",
        ),
        sql(
            "a completed saga's order is pending",
            &[
                Check::OrderContradictsSaga,
                Check::SoldMismatch,
                Check::MoneyMismatch,
            ],
            Database::Order,
            |w| {
                format!(
                    "UPDATE orders SET status = 'PENDING', ended_at = NULL WHERE id = '{}'",
                    w.confirmed
                )
            },
            |w| {
                format!(
                    "UPDATE orders SET status = 'CONFIRMED', ended_at = now() WHERE id = '{}'",
                    w.confirmed
                )
            },
        ),
    ]
}

fn sagas() -> Vec<Case> {
    vec![
        sql(
            "a parked saga does not say why",
            &[Check::ParkedWithoutReason],
            Database::Orchestrator,
            |w| {
                format!(
                    "UPDATE saga SET state = (state::jsonb - 'reason')::json WHERE id = '{}'",
                    w.parked
                )
            },
            |w| {
                format!(
                    "UPDATE saga SET state = (state::jsonb || '{{\"reason\": {{\"code\": \"x\"}}}}')::json WHERE id = '{}'",
                    w.parked
                )
            },
        ),
        sql(
            "a saga is long overdue",
            &[Check::SagaStandsStill],
            Database::Orchestrator,
            |w| {
                format!(
                    "UPDATE saga SET next_due = now() - interval '1 hour' WHERE id = '{}'",
                    w.running
                )
            },
            |w| format!("UPDATE saga SET next_due = NULL WHERE id = '{}'", w.running),
        ),
        sql(
            "a saga's command is queued for long",
            &[Check::SagaStandsStill],
            Database::Orchestrator,
            |w| {
                format!(
                    "UPDATE saga SET queued = json_build_array(json_build_object('sent_at', now() - interval '1 hour'))
                     WHERE id = '{}'",
                    w.running
                )
            },
            |w| format!("UPDATE saga SET queued = NULL WHERE id = '{}'", w.running),
        ),
        Case {
            name: "everything should have ended",
            finds: &[Check::NotEnded],
            harm: Harm::Drained,
        },
        sql(
            "a saga is live and ended",
            &[Check::LiveAndHistoryOverlap],
            Database::Orchestrator,
            |w| {
                format!("INSERT INTO saga (id, version, home_partition, definition, definition_version, definition_hash, status,
                           waiting_kind, waiting_since, correlation_id, start_hash, started_at, state)
                         SELECT id, 1, 0, definition, 1, 'h', status, 'nothing', now(), 'c', '', now(), state
                         FROM saga_history WHERE id = '{}'", w.confirmed)
            },
            |w| format!("DELETE FROM saga WHERE id = '{}'", w.confirmed),
        ),
    ]
}

fn stock() -> Vec<Case> {
    vec![
        sql(
            "stock is negative",
            &[Check::StockNegative, Check::StockTotalMismatch],
            Database::Inventory,
            |_| {
                "ALTER TABLE stock DROP CONSTRAINT stock_available_not_negative; UPDATE stock SET available = -1".to_owned()
            },
            |_| "UPDATE stock SET available = 96".to_owned(),
        ),
        sql(
            "a stock row's reserved is changed",
            &[Check::StockReservedMismatch, Check::StockTotalMismatch],
            Database::Inventory,
            |_| "UPDATE stock SET reserved = reserved + 1".to_owned(),
            |_| "UPDATE stock SET reserved = reserved - 1".to_owned(),
        ),
        sql(
            "a stock row's sold is changed",
            &[Check::StockSoldMismatch, Check::StockTotalMismatch],
            Database::Inventory,
            |_| "UPDATE stock SET sold = sold + 1".to_owned(),
            |_| "UPDATE stock SET sold = sold - 1".to_owned(),
        ),
        sql(
            "a piece has gone",
            &[Check::StockTotalMismatch],
            Database::Inventory,
            |_| "UPDATE stock SET available = available - 1".to_owned(),
            |_| "UPDATE stock SET available = available + 1".to_owned(),
        ),
        sql(
            "a cancelled order still holds its pieces",
            &[Check::ReservationOutlivesSaga, Check::StockReservedMismatch],
            Database::Inventory,
            |w| state_of("reserved", w.declined),
            |w| state_of("released", w.declined),
        ),
        sql(
            "a confirmed order has lost its pieces",
            &[Check::SoldMismatch, Check::StockSoldMismatch],
            Database::Inventory,
            |w| state_of("released", w.confirmed),
            |w| state_of("sold", w.confirmed),
        ),
        sql(
            "pieces are held for nobody",
            &[Check::EffectWithoutOrder, Check::StockReservedMismatch],
            Database::Inventory,
            |w| {
                format!(
                    "INSERT INTO reservation (order_id, saga_id, product_id, quantity, state)
                         VALUES ('{}', '{}', '{}', 1, 'reserved')",
                    Uuid::max(),
                    Uuid::max(),
                    w.product
                )
            },
            |_| format!("DELETE FROM reservation WHERE order_id = '{}'", Uuid::max()),
        ),
        sql(
            "another saga has reserved for the order",
            &[Check::EffectOfAnotherSaga],
            Database::Inventory,
            |w| reserved_by(w.confirmed, w.declined),
            |w| reserved_by(w.confirmed, w.confirmed),
        ),
    ]
}

fn money() -> Vec<Case> {
    vec![
        sql(
            "a second charge",
            &[
                Check::ChargedTwice,
                Check::MoneyMismatch,
                Check::PaymentContradictsGateway,
            ],
            Database::Payment,
            |w| {
                format!("INSERT INTO gateway_ledger (key, operation, amount_minor, currency, decision, reference)
                         VALUES ('{}/charge-payment/forward/2', 'charge', 1000, 'EUR', 'approved', 'r')", w.confirmed)
            },
            |w| {
                format!(
                    "DELETE FROM gateway_ledger WHERE key = '{}/charge-payment/forward/2'",
                    w.confirmed
                )
            },
        ),
        sql(
            "a refund has not been made",
            &[Check::MoneyMismatch, Check::PaymentContradictsGateway],
            Database::Payment,
            |w| {
                format!("UPDATE gateway_ledger SET decision = 'declined', reference = NULL, code = 'c', message = 'm'
                         WHERE operation = 'refund' AND key LIKE '{}%'", w.refunded)
            },
            |w| {
                format!("UPDATE gateway_ledger SET decision = 'approved', reference = 'r', code = NULL, message = NULL
                         WHERE operation = 'refund' AND key LIKE '{}%'", w.refunded)
            },
        ),
        sql(
            "a payment row says refunded, the gateway does not",
            &[Check::PaymentContradictsGateway],
            Database::Payment,
            |w| {
                format!(
                    "UPDATE payment SET status = 'refunded' WHERE order_id = '{}'",
                    w.confirmed
                )
            },
            |w| {
                format!(
                    "UPDATE payment SET status = 'charged' WHERE order_id = '{}'",
                    w.confirmed
                )
            },
        ),
        sql(
            "another saga has charged the order",
            &[Check::EffectOfAnotherSaga],
            Database::Payment,
            |w| charged_by(w.confirmed, w.declined),
            |w| charged_by(w.confirmed, w.confirmed),
        ),
        sql(
            "a call is open though the saga has ended",
            &[Check::CallOutlivesSaga],
            Database::Payment,
            |w| {
                format!("INSERT INTO intent (saga_id, step, direction, generation, state, lease_until, opened_at, command)
                         VALUES ('{}', 'charge-payment', 'F', 1, 'open', now(), now(), '{{}}')", w.declined)
            },
            |w| format!("DELETE FROM intent WHERE saga_id = '{}'", w.declined),
        ),
    ]
}

fn effects() -> Vec<Case> {
    vec![
        sql(
            "a step was done after its compensation",
            &[Check::EffectAfterCompensation],
            Database::Inventory,
            |w| {
                format!(
                    "UPDATE inbox SET handled_at = '2026-01-01 00:00:09Z' WHERE saga_id = '{}' AND direction = 'F'",
                    w.declined
                )
            },
            |w| {
                format!(
                    "UPDATE inbox SET handled_at = '2026-01-01 00:00:01Z' WHERE saga_id = '{}' AND direction = 'F'",
                    w.declined
                )
            },
        ),
        sql(
            "a step was not compensated",
            &[Check::EffectNotCompensated],
            Database::Inventory,
            |w| {
                format!(
                    "UPDATE inbox SET mark = 'P' WHERE saga_id = '{}' AND direction = 'C'",
                    w.declined
                )
            },
            |w| {
                format!(
                    "UPDATE inbox SET mark = 'D' WHERE saga_id = '{}' AND direction = 'C'",
                    w.declined
                )
            },
        ),
        sql(
            "a step of a completed saga was compensated",
            &[Check::CompensatedThoughCompleted],
            Database::Order,
            |w| {
                format!(
                    "INSERT INTO inbox (saga_id, step, direction, mark, handled_at)
                         VALUES ('{}', 'create-order', 'C', 'D', now())",
                    w.confirmed
                )
            },
            |w| {
                format!(
                    "DELETE FROM inbox WHERE saga_id = '{}' AND direction = 'C'",
                    w.confirmed
                )
            },
        ),
    ]
}

/// Cases whose findings stay, so they run last.
fn topics() -> Vec<Case> {
    let event = |name, finds, saga, sequence, kind, note| Case {
        name,
        finds,
        harm: Harm::Event(saga, sequence, kind, note),
    };
    vec![
        sql(
            "a terminal event and the one before it are missing",
            &[Check::EventGap, Check::TerminalEventMissing],
            Database::Orchestrator,
            |_| told_nowhere(),
            |_| format!("DELETE FROM saga_history WHERE id = '{NOWHERE}'"),
        ),
        Case {
            name: "a step was answered both ways",
            finds: &[Check::ReplyContradicts],
            harm: Harm::Replies,
        },
        event(
            "an event is told differently",
            &[Check::EventDiffers],
            |w| w.running,
            1,
            "started",
            "another",
        ),
        event(
            "an event has no saga",
            &[Check::EventWithoutSaga],
            |_| Uuid::max(),
            1,
            "started",
            "",
        ),
        event(
            "a running saga is said to have ended",
            &[Check::TerminalEventContradicts],
            |w| w.parked,
            2,
            "completed",
            "",
        ),
        event(
            "a saga ends twice",
            &[Check::TerminalEventTwice],
            |w| w.declined,
            3,
            "compensated",
            "",
        ),
    ]
}

fn set(table: &str, column: &str, value: &Uuid, id: &Uuid) -> String {
    format!("UPDATE {table} SET {column} = '{value}' WHERE id = '{id}'")
}

fn state_of(state: &str, order: Uuid) -> String {
    format!("UPDATE reservation SET state = '{state}' WHERE order_id = '{order}'")
}

fn reserved_by(order: Uuid, saga: Uuid) -> String {
    format!("UPDATE reservation SET saga_id = '{saga}' WHERE order_id = '{order}'")
}

fn charged_by(order: Uuid, saga: Uuid) -> String {
    format!(
        "UPDATE payment SET caller = '{saga}/charge-payment/forward' WHERE order_id = '{order}'"
    )
}

fn moved(from: &str, to: &str, id: Uuid) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {to} AS SELECT * FROM {from} WHERE false;
         INSERT INTO {to} SELECT * FROM {from} WHERE id = '{id}';
         DELETE FROM {from} WHERE id = '{id}'"
    )
}

const NOWHERE: Uuid = Uuid::from_u128(u128::MAX - 9);

/// Returns the statement that inserts a saga of which only a history row exists.
fn told_nowhere() -> String {
    format!(
        "INSERT INTO saga_history (id, definition, definition_version, definition_hash, status, correlation_id, start_hash,
           started_at, ended_at, state)
         VALUES ('{NOWHERE}', 'ship', 1, 'h', 'completed', 'c', '', now(), now(), '{{\"sequence\": 3, \"log\": []}}')"
    )
}
