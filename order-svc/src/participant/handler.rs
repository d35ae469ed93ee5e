//! order-svc as a participant: handles a whole batch of `order.confirm` and `order.cancel` at once.
//!
//! Every order of the batch is locked in key order, each command is decided in memory in log order, and the resulting
//! changes are written by one statement. The barrier handles duplicates, late actions and `resolve`, which do not reach
//! this handler.

use crate::{
    domain::{
        decide::{Asking, Decision, Wanted, decide, reason_of},
        order::OrderStatus,
    },
    intake::waiting::Waiters,
    store::{
        self,
        order::{End, OrderState},
    },
};
use async_trait::async_trait;
use metrics::{counter, histogram};
use saga_contracts::{
    message_type::{ORDER_CANCEL, ORDER_CANCELLED, ORDER_CONFIRM, ORDER_CONFIRMED},
    payload::{CancelOrder, OrderDecided, OrderRef},
};
use saga_participant::{
    Answer, Command, Failure, HandlerError,
    batch::{BatchHandler, Commands},
};
use saga_service::clock;
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

/// The orders of a batch, and their ends so far.
pub struct Rows {
    states: HashMap<Uuid, OrderState>,
    ends: Vec<End>,
}

/// The payload of a command.
pub enum OrderCommand {
    Confirm(OrderRef),
    Cancel(CancelOrder),
}

impl OrderCommand {
    fn order_id(&self) -> Uuid {
        match self {
            Self::Confirm(order) => order.order_id,
            Self::Cancel(order) => order.order_id,
        }
    }

    /// Returns the end that the command asks for.
    fn wanted(self) -> Wanted {
        match self {
            Self::Confirm(_) => Wanted::Confirmed,
            Self::Cancel(order) => Wanted::Cancelled(reason_of(order.cause)),
        }
    }
}

fn success(order_id: Uuid, status: OrderStatus) -> Result<Answer, Failure> {
    Answer::success(OrderDecided {
        order_id,
        status: status.as_str().to_owned(),
    })
}

impl Rows {
    fn decide(&mut self, saga_id: Uuid, command: OrderCommand) -> Result<Answer, Failure> {
        let order_id = command.order_id();
        let status = self.states.get(&order_id).map(|state| state.status);
        let asking = Asking { order_id, saga_id };
        match decide(asking, status, command.wanted()) {
            Decision::End(wanted) => {
                let (status, reason) = match wanted {
                    Wanted::Confirmed => (OrderStatus::Confirmed, None),
                    Wanted::Cancelled(reason) => (OrderStatus::Cancelled, Some(reason)),
                };
                if let Some(state) = self.states.get_mut(&order_id) {
                    state.status = status;
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
            Decision::Refuse(fault) => Err(Failure::Business(fault)),
            Decision::Retry(fault) => Err(Failure::Technical(fault)),
        }
    }

    fn report(&self) {
        for end in &self.ends {
            counter!("orders_ended_total", "status" => end.status.as_str()).increment(1);
            if let Some(state) = self.states.get(&end.id) {
                let took = (end.at - state.created_at).to_std().unwrap_or_default();
                histogram!("order_duration_seconds", "status" => end.status.as_str())
                    .record(took.as_secs_f64());
            }
        }
    }
}

#[async_trait]
impl BatchHandler for OrderParticipant {
    type Command = OrderCommand;
    type Rows = Rows;

    fn commands() -> Commands<OrderCommand> {
        Commands::new()
            .on(ORDER_CONFIRM, ORDER_CONFIRMED, OrderCommand::Confirm)
            .on(ORDER_CANCEL, ORDER_CANCELLED, OrderCommand::Cancel)
    }

    async fn load(
        &self,
        tx: &mut PgConnection,
        commands: &[Command<OrderCommand>],
    ) -> Result<Rows, HandlerError> {
        let ids: BTreeSet<Uuid> = commands
            .iter()
            .map(|command| command.payload.order_id())
            .collect();
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let states = store::order::lock_all(tx, &ids).await?;
        Ok(Rows {
            states: states.into_iter().map(|state| (state.id, state)).collect(),
            ends: Vec::new(),
        })
    }

    fn handle(&self, rows: &mut Rows, command: Command<OrderCommand>) -> Result<Answer, Failure> {
        let (order_id, saga_id) = (command.payload.order_id(), command.saga_id);
        let answer = rows.decide(saga_id.0, command.payload);
        match &answer {
            Ok(_) => info!(
                order.id = %order_id,
                saga.id = %saga_id,
                correlation.id = command.trace.correlation_id,
                "order ended by {}",
                command.command_type
            ),
            Err(failure) => warn!(
                order.id = %order_id,
                saga.id = %saga_id,
                saga.step = command.step,
                correlation.id = command.trace.correlation_id,
                "{} refused: {failure}",
                command.command_type
            ),
        }
        answer
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
        // The metrics are recorded before the commit. A batch that is rolled back and run again counts twice, which is
        // acceptable for a metric.
        rows.report();
        self.waiters.nudge();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_contracts::{fault_code, payload::CancelCause};

    const ORDER: Uuid = Uuid::from_u128(7);

    fn rows(status: Option<OrderStatus>) -> Rows {
        let created_at = clock::now();
        let state = status.map(|status| OrderState {
            id: ORDER,
            status,
            created_at,
        });
        Rows {
            states: state.into_iter().map(|state| (ORDER, state)).collect(),
            ends: Vec::new(),
        }
    }

    fn confirm() -> OrderCommand {
        OrderCommand::Confirm(OrderRef { order_id: ORDER })
    }

    fn cancel(cause: Option<CancelCause>) -> OrderCommand {
        OrderCommand::Cancel(CancelOrder {
            order_id: ORDER,
            cause,
        })
    }

    /// Returns the new status, or the fault's code.
    fn outcome(answer: &Result<Answer, Failure>) -> &str {
        match answer {
            Ok(Answer::Success(result)) => result["status"].as_str().expect("a status"),
            Ok(Answer::CallOutside) => "call",
            Err(Failure::Business(fault) | Failure::Technical(fault)) => &fault.code,
            Err(Failure::Handler(_)) => "broken",
        }
    }

    /// Decides a command of the order's own saga.
    fn own(rows: &mut Rows, command: OrderCommand) -> Result<Answer, Failure> {
        rows.decide(ORDER, command)
    }

    #[test]
    fn a_confirmation_and_a_cancellation_in_one_batch_leave_the_first() {
        let mut rows = rows(Some(OrderStatus::Pending));
        let confirmed = own(&mut rows, confirm());
        let cancelled = own(&mut rows, cancel(None));
        assert_eq!(outcome(&confirmed), "CONFIRMED");
        assert_eq!(outcome(&cancelled), fault_code::ORDER_ENDED);
        assert_eq!(rows.ends.len(), 1);
        assert_eq!(rows.ends[0].status, OrderStatus::Confirmed);
    }

    #[test]
    fn a_cancellation_keeps_the_sagas_cause() {
        let mut rows = rows(Some(OrderStatus::Pending));
        let cause = CancelCause {
            step: Some("reserve".to_owned()),
            code: "out_of_stock".to_owned(),
            message: "none left".to_owned(),
        };
        let answer = own(&mut rows, cancel(Some(cause)));
        assert_eq!(outcome(&answer), "CANCELLED");
        let reason = rows.ends[0].reason.as_ref().expect("reason");
        assert_eq!(reason.code, "out_of_stock");
    }

    #[test]
    fn a_batch_of_several_sagas_about_one_order_ends_it_by_its_own() {
        let mut rows = rows(Some(OrderStatus::Pending));
        let another = Uuid::from_u128(8);
        for ended in [false, true] {
            if ended {
                let confirmed = own(&mut rows, confirm());
                assert_eq!(outcome(&confirmed), "CONFIRMED");
            }
            for command in [confirm(), cancel(None)] {
                let refused = rows.decide(another, command);
                assert_eq!(outcome(&refused), fault_code::ORDER_OF_ANOTHER_SAGA);
            }
            assert_eq!(rows.ends.len(), usize::from(ended));
        }
    }

    #[test]
    fn an_unknown_order_is_an_error_when_it_is_to_be_confirmed() {
        let answer = own(&mut rows(None), confirm());
        assert!(matches!(answer, Err(Failure::Technical(_))), "{answer:?}");
    }
}
