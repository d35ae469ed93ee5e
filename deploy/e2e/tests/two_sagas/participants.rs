//! In-memory participants: the barrier's table around the business rules of the three services.

use super::now;
use inventory_svc::domain::{Quantities, StockBatch};
use order_svc::domain::{
    decide::{Asking, Decision, Wanted, decide, reason_of},
    order::OrderStatus,
};
use payment_svc::domain::{Caller, Operation, PaymentBatch, PaymentStatus, RefundDecision};
use saga_contracts::{
    definition::STARTER_STEP,
    message_type,
    payload::{CancelOrder, ChargePayment, OrderRef, ReserveStock},
};
use saga_core::{
    barrier::{Admission, Mark, admit},
    ids::SagaId,
    message::{Command, Direction, Fault, Outcome, Reply, Trace},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The gateway declines charges above this amount.
pub const LIMIT_MINOR: i64 = 1_000;

type Said = (Outcome, Value);

#[derive(Default)]
struct Row {
    forward: Option<(Mark, Said)>,
    compensation: Option<(Mark, Said)>,
}

pub struct Participants {
    order_id: Uuid,
    /// The initial pieces in stock of each product.
    pieces: i64,
    status: OrderStatus,
    shelf: StockBatch,
    book: PaymentBatch,
    rows: BTreeMap<(SagaId, String), Row>,
}

impl Participants {
    /// Writes the order's row and the barrier's row of its first step, as order-svc does.
    pub fn new(order_id: Uuid, products: &[Uuid], pieces: i64) -> Self {
        let stock = products.iter().map(|product| {
            let quantities = Quantities {
                available: pieces,
                ..Quantities::default()
            };
            (*product, quantities)
        });
        let started = Row {
            forward: Some((Mark::Done, success())),
            compensation: None,
        };
        Self {
            order_id,
            pieces,
            status: OrderStatus::Pending,
            shelf: StockBatch::new(stock, []),
            book: PaymentBatch::default(),
            rows: [((SagaId(order_id), STARTER_STEP.to_owned()), started)].into(),
        }
    }

    pub fn answer(&mut self, command: &Command) -> Reply {
        let key = (command.saga_id, command.step.clone());
        let mut row = self.rows.remove(&key).unwrap_or_default();
        let mark = |said: &Option<(Mark, Said)>| said.as_ref().map(|(mark, _)| *mark);
        let said = match admit(
            mark(&row.forward),
            mark(&row.compensation),
            command.direction,
        ) {
            Admission::Run => self.run(command, &mut row),
            Admission::SavedForward => row.forward.as_ref().unwrap().1.clone(),
            Admission::SavedCompensation => row.compensation.as_ref().unwrap().1.clone(),
            Admission::RefuseAndCompensateEmpty => {
                row.forward = Some((Mark::Refused, not_done()));
                row.compensation = Some((Mark::Done, success()));
                success()
            }
            Admission::CompensateEmpty => {
                row.compensation = Some((Mark::Done, success()));
                success()
            }
            Admission::RefuseAndAnswerNotDone => {
                row.forward = Some((Mark::Refused, not_done()));
                not_done()
            }
            Admission::AnswerNotDone => not_done(),
            Admission::AnswerOnSettlement => unreachable!("the gateway answers at once"),
        };
        self.rows.insert(key, row);
        let (outcome, payload) = said;
        Reply {
            saga_id: command.saga_id,
            step: command.step.clone(),
            direction: match (command.direction, outcome) {
                (Direction::Resolve, Outcome::Success | Outcome::Failure) => Direction::Forward,
                (direction, _) => direction,
            },
            attempt: command.attempt,
            reply_type: format!("{}.answered", command.command_type),
            outcome,
            payload,
            trace: Trace::default(),
        }
    }

    fn run(&mut self, command: &Command, row: &mut Row) -> Said {
        let said = match self.business(command) {
            Ok(()) => success(),
            Err(fault) => (Outcome::Failure, json!(fault)),
        };
        let forward = command.direction == Direction::Forward;
        match (said.0, forward) {
            (Outcome::Success, true) => row.forward = Some((Mark::Done, said.clone())),
            (Outcome::Success, false) => row.compensation = Some((Mark::Done, said.clone())),
            (Outcome::Failure, true) if command.save_failure => {
                row.forward = Some((Mark::Failed, said.clone()));
            }
            (Outcome::Failure | Outcome::Error | Outcome::NotDone, _) => {}
        }
        said
    }

    fn business(&mut self, command: &Command) -> Result<(), Fault> {
        let saga = command.saga_id.0;
        let order = || payload::<OrderRef>(command).order_id;
        let of_stock = |refusal: inventory_svc::domain::Refusal| {
            Fault::new(refusal.code(), refusal.to_string())
        };
        match command.command_type.as_str() {
            message_type::INVENTORY_RESERVE => {
                let request: ReserveStock = payload(command);
                self.shelf
                    .reserve(saga, &request)
                    .map(drop)
                    .map_err(of_stock)
            }
            message_type::INVENTORY_RELEASE => self
                .shelf
                .release(saga, order())
                .map(drop)
                .map_err(of_stock),
            message_type::INVENTORY_COMPLETE => self
                .shelf
                .complete(saga, order())
                .map(drop)
                .map_err(of_stock),
            message_type::PAYMENT_CHARGE => self.charge(command),
            message_type::PAYMENT_REFUND => self.refund(command),
            message_type::ORDER_CONFIRM => self.end(order(), saga, Wanted::Confirmed),
            message_type::ORDER_CANCEL => {
                let cancel: CancelOrder = payload(command);
                let reason = reason_of(cancel.cause);
                self.end(cancel.order_id, saga, Wanted::Cancelled(reason))
            }
            other => unreachable!("{other} is no command of a shipped definition"),
        }
    }

    fn charge(&mut self, command: &Command) -> Result<(), Fault> {
        let charge: ChargePayment = payload(command);
        let refused = self.book.charge(&charge, &caller(command), now());
        refused.map_err(|refusal| Fault::new(refusal.code(), refusal.to_string()))?;
        let (order, operation) = (charge.order_id, Operation::Charge);
        if charge.amount_minor > LIMIT_MINOR {
            let (code, message) = ("payment_declined", "above the limit");
            self.book
                .not_done(order, operation, false, (code, message), now());
            return Err(Fault::new(code, message));
        }
        self.book.succeeded(order, operation, "reference", now());
        Ok(())
    }

    fn refund(&mut self, command: &Command) -> Result<(), Fault> {
        let order = payload::<OrderRef>(command).order_id;
        let decided = self.book.refund(order, &caller(command), now());
        match decided.map_err(|refusal| Fault::new(refusal.code(), refusal.to_string()))? {
            RefundDecision::CallGateway => {
                self.book
                    .succeeded(order, Operation::Refund, "reference", now());
            }
            RefundDecision::Answer(_) => {}
        }
        Ok(())
    }

    fn end(&mut self, order_id: Uuid, saga_id: Uuid, wanted: Wanted) -> Result<(), Fault> {
        let asking = Asking { order_id, saga_id };
        match decide(asking, Some(self.status), wanted) {
            Decision::End(Wanted::Confirmed) => self.status = OrderStatus::Confirmed,
            Decision::End(Wanted::Cancelled(_)) => self.status = OrderStatus::Cancelled,
            Decision::Already(_) => {}
            Decision::Refuse(fault) | Decision::Retry(fault) => return Err(fault),
        }
        Ok(())
    }

    /// Returns the id of a saga that has moved the order's stock or money although the order is not its own.
    pub fn moved_by_others(&self) -> Option<Uuid> {
        let reserved = self.shelf.changes().reservations;
        let holders = reserved.iter().map(|change| change.now.saga_id);
        let payer = self.book.payment(self.order_id);
        holders
            .chain(payer.map(|payment| payment.saga_id))
            .find(|holder| *holder != self.order_id)
    }

    /// Returns the available, reserved and sold pieces.
    pub fn pieces(&self, product: Uuid) -> (i64, i64, i64) {
        let changes = self.shelf.changes().stock;
        let moved = changes.iter().find(|change| change.product_id == product);
        let moved = moved.map(|change| change.delta).unwrap_or_default();
        (self.pieces + moved.available, moved.reserved, moved.sold)
    }

    pub fn kept_minor(&self) -> i64 {
        let payment = self.book.payment(self.order_id);
        payment
            .filter(|payment| payment.status == PaymentStatus::Charged)
            .map_or(0, |payment| payment.amount_minor)
    }

    pub fn is_confirmed(&self) -> bool {
        self.status == OrderStatus::Confirmed
    }
}

fn success() -> Said {
    (Outcome::Success, json!({}))
}

fn not_done() -> Said {
    (Outcome::NotDone, json!({}))
}

fn caller(command: &Command) -> Caller {
    Caller {
        saga_id: command.saga_id.0,
        command: format!("{}/{}", command.step, command.direction),
    }
}

fn payload<T: DeserializeOwned>(command: &Command) -> T {
    serde_json::from_value(command.payload.clone()).unwrap()
}
