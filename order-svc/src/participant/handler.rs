//! order-svc as a participant: a whole batch of `order.confirm` and `order.cancel` at once.
//!
//! Every order of the batch is locked in key order, each command is decided in memory in log order, and the net
//! changes are written by one statement each. Duplicates, late actions and `resolve` are the barrier's and do not
//! get here.

use crate::{
    domain::{
        decide::{Decision, Wanted, decide, reason_of},
        order::OrderStatus,
    },
    intake::waiting::Waiters,
    store::{
        self,
        order::{End, Standing},
    },
};
use async_trait::async_trait;
use metrics::{counter, histogram};
use saga_contracts::{
    fault_code, message_type,
    payload::{CancelOrder, OrderDecided, OrderRef},
};
use saga_core::message::{Command, Fault};
use saga_messaging::participant::{Answer, BatchHandler, HandlerError, read_payload};
use saga_service::clock;
use serde_json::json;
use sqlx::PgConnection;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tracing::{info, warn};
use uuid::Uuid;

pub struct OrderParticipant {
    pub waiters: Arc<Waiters>,
}

/// The orders of a batch, and how they end.
pub struct Rows {
    standings: HashMap<Uuid, Standing>,
    ends: Vec<End>,
}

/// Why a command cannot even be decided.
enum Unreadable {
    /// A newer version may know it.
    UnknownType,
    Payload(String),
}

/// What a command asks for.
fn read(command: &Command) -> Result<(Uuid, Wanted), Unreadable> {
    let invalid = Unreadable::Payload;
    match command.command_type.as_str() {
        message_type::ORDER_CONFIRM => {
            let order: OrderRef = read_payload(command).map_err(invalid)?;
            Ok((order.order_id, Wanted::Confirmed))
        }
        message_type::ORDER_CANCEL => {
            let order: CancelOrder = read_payload(command).map_err(invalid)?;
            Ok((order.order_id, Wanted::Cancelled(reason_of(order.cause))))
        }
        _ => Err(Unreadable::UnknownType),
    }
}

fn success(order_id: Uuid, status: OrderStatus) -> Answer {
    let reply_type = match status {
        OrderStatus::Confirmed => message_type::ORDER_CONFIRMED,
        OrderStatus::Cancelled | OrderStatus::Pending => message_type::ORDER_CANCELLED,
    };
    let decided = OrderDecided {
        order_id,
        status: status.as_str().to_owned(),
    };
    Answer::Success {
        reply_type: reply_type.to_owned(),
        result: json!(decided),
    }
}

fn failure(fault: Fault) -> Answer {
    Answer::Failure {
        reply_type: message_type::ORDER_REFUSED.to_owned(),
        fault,
    }
}

impl Rows {
    fn decide(&mut self, command: &Command) -> Answer {
        let (order_id, wanted) = match read(command) {
            Ok(read) => read,
            Err(Unreadable::Payload(why)) => {
                let message = format!("the payload is not as expected: {why}");
                return failure(Fault::new(fault_code::INVALID_PAYLOAD, message));
            }
            Err(Unreadable::UnknownType) => {
                let message = format!("order-svc does not know '{}'", command.command_type);
                return Answer::Error {
                    fault: Fault::new(fault_code::UNKNOWN_COMMAND, message),
                };
            }
        };
        let status = self
            .standings
            .get(&order_id)
            .map(|standing| standing.status);
        match decide(status, wanted) {
            Decision::End(wanted) => {
                let (status, reason) = match wanted {
                    Wanted::Confirmed => (OrderStatus::Confirmed, None),
                    Wanted::Cancelled(reason) => (OrderStatus::Cancelled, Some(reason)),
                };
                if let Some(standing) = self.standings.get_mut(&order_id) {
                    standing.status = status;
                }
                self.ends.push(End {
                    id: order_id,
                    status,
                    at: clock::now(),
                    reason,
                });
                success(order_id, status)
            }
            Decision::Already(status) => success(order_id, status),
            Decision::Refuse(fault) => failure(fault),
            Decision::Retry(fault) => Answer::Error { fault },
        }
    }

    fn report(&self) {
        for end in &self.ends {
            counter!("orders_ended_total", "status" => end.status.as_str()).increment(1);
            if let Some(standing) = self.standings.get(&end.id) {
                let took = (end.at - standing.created_at).to_std().unwrap_or_default();
                histogram!("order_duration_seconds", "status" => end.status.as_str())
                    .record(took.as_secs_f64());
            }
        }
    }
}

#[async_trait]
impl BatchHandler for OrderParticipant {
    type Rows = Rows;

    async fn load(
        &self,
        tx: &mut PgConnection,
        commands: &[&Command],
    ) -> Result<Rows, HandlerError> {
        let ids: BTreeSet<Uuid> = commands
            .iter()
            .filter_map(|command| read(command).ok())
            .map(|(id, _)| id)
            .collect();
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let standings = store::order::lock_all(tx, &ids).await?;
        Ok(Rows {
            standings: standings
                .into_iter()
                .map(|standing| (standing.id, standing))
                .collect(),
            ends: Vec::new(),
        })
    }

    async fn handle(
        &self,
        _tx: &mut PgConnection,
        rows: &mut Rows,
        command: &Command,
    ) -> Result<Answer, HandlerError> {
        let answer = rows.decide(command);
        // A saga of somebody's own may end an order that is not its own id.
        let order_id = read(command).map_or(command.saga_id.0, |(id, _)| id);
        match &answer {
            Answer::Success { reply_type, .. } => info!(
                order.id = %order_id,
                saga.id = %command.saga_id,
                correlation.id = command.trace.correlation_id,
                reply = reply_type,
                "order ended"
            ),
            Answer::Failure { fault, .. } | Answer::Error { fault } => warn!(
                order.id = %order_id,
                saga.id = %command.saga_id,
                saga.step = command.step,
                correlation.id = command.trace.correlation_id,
                fault.code = fault.code,
                fault.message = fault.message,
                "a command for an order was refused"
            ),
            Answer::CallOutside => {}
        }
        Ok(answer)
    }

    async fn store(&self, tx: &mut PgConnection, rows: Rows) -> Result<(), HandlerError> {
        if rows.ends.is_empty() {
            return Ok(());
        }
        let changed = store::order::end(tx, &rows.ends).await?;
        if changed != rows.ends.len() as i64 {
            return Err(HandlerError::Broken(format!(
                "{changed} of {} locked orders could be ended",
                rows.ends.len()
            )));
        }
        // Before the commit: a batch that is rolled back and run again counts twice, which a metric may.
        rows.report();
        self.waiters.nudge();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::{ids::SagaId, message::Direction};
    use serde_json::Value;

    const ORDER: Uuid = Uuid::from_u128(7);

    fn rows(status: Option<OrderStatus>) -> Rows {
        let created_at = clock::now();
        let standing = status.map(|status| Standing {
            id: ORDER,
            status,
            created_at,
        });
        Rows {
            standings: standing
                .into_iter()
                .map(|standing| (ORDER, standing))
                .collect(),
            ends: Vec::new(),
        }
    }

    fn command(command_type: &str, payload: Value) -> Command {
        saga_testkit::participant::command(SagaId(ORDER), command_type, Direction::Forward, payload)
    }

    fn reply_type(answer: &Answer) -> &str {
        match answer {
            Answer::Success { reply_type, .. } | Answer::Failure { reply_type, .. } => reply_type,
            Answer::Error { .. } => "error",
            Answer::CallOutside => "call",
        }
    }

    #[test]
    fn a_confirmation_and_a_cancellation_in_one_batch_leave_the_first() {
        let mut rows = rows(Some(OrderStatus::Pending));
        let confirmed = rows.decide(&command("order.confirm", json!({"orderId": ORDER})));
        let cancelled = rows.decide(&command("order.cancel", json!({"orderId": ORDER})));
        assert_eq!(reply_type(&confirmed), "order.confirmed");
        assert_eq!(reply_type(&cancelled), message_type::ORDER_REFUSED);
        assert_eq!(rows.ends.len(), 1);
        assert_eq!(rows.ends[0].status, OrderStatus::Confirmed);
    }

    #[test]
    fn a_cancellation_keeps_the_sagas_cause() {
        let mut rows = rows(Some(OrderStatus::Pending));
        let payload = json!({
            "orderId": ORDER,
            "cause": {"step": "reserve", "code": "out_of_stock", "message": "none left"},
        });
        let answer = rows.decide(&command("order.cancel", payload));
        assert_eq!(reply_type(&answer), "order.cancelled");
        let reason = rows.ends[0].reason.as_ref().expect("reason");
        assert_eq!(reason.code, "out_of_stock");
    }

    #[test]
    fn a_payload_that_names_no_order_is_refused() {
        for payload in [json!(null), json!({}), json!({"orderId": 7}), json!("x")] {
            let answer = rows(None).decide(&command("order.confirm", payload));
            assert_eq!(reply_type(&answer), message_type::ORDER_REFUSED);
        }
    }

    #[test]
    fn a_command_that_is_not_known_may_be_known_to_a_newer_version() {
        let answer = rows(None).decide(&command("order.paint", json!({"orderId": ORDER})));
        assert!(
            matches!(&answer, Answer::Error { fault } if fault.code == fault_code::UNKNOWN_COMMAND)
        );
    }

    #[test]
    fn an_unknown_order_is_an_error_when_it_is_to_be_confirmed() {
        let answer = rows(None).decide(&command("order.confirm", json!({"orderId": ORDER})));
        assert_eq!(reply_type(&answer), "error");
    }
}
