//! Checks of the money: the charged and not refunded amounts must be the amounts of confirmed orders.

use super::finality::{ended, is_final};
use crate::{
    finding::{Check, Finding},
    look::Look,
    store::{
        orders::Order,
        payments::{Movement, Payment},
    },
};
use std::collections::BTreeSet;
use uuid::Uuid;

pub fn check(look: &Look, found: &mut Vec<Finding>) {
    let payments = &look.payments;
    for (id, movements) in &payments.gateway {
        let charges = charges(movements);
        if charges > 1 {
            let detail = format!("the gateway has approved {charges} charges");
            found.push(Finding::of_saga(Check::ChargedTwice, *id, detail));
        }
        if kept(movements) < 0 {
            let detail = format!("{} more were refunded than charged", -kept(movements));
            found.push(Finding::of_saga(Check::MoneyMismatch, *id, detail));
        }
    }
    let paid: BTreeSet<Uuid> = payments
        .rows
        .keys()
        .chain(payments.gateway.keys())
        .copied()
        .collect();
    for id in &paid {
        without_order(look, *id, found);
    }
    for (id, order) in &look.orders.by_id {
        if is_final(look, *id, order) {
            of_order(look, *id, order, found);
        }
    }
}

fn without_order(look: &Look, id: Uuid, found: &mut Vec<Finding>) {
    let kept = match books(look, id) {
        Books::Gateway(movements) => kept(movements),
        Books::Row(payment) => kept_by_row(payment),
    };
    if kept != 0 && !look.orders.by_id.contains_key(&id) {
        let detail = format!("{kept} are charged");
        found.push(Finding::of_saga(Check::EffectWithoutOrder, id, detail).about("money"));
    }
}

fn of_order(look: &Look, id: Uuid, order: &Order, found: &mut Vec<Finding>) {
    let owed = if order.status == "CONFIRMED" {
        order.amount_minor
    } else {
        0
    };
    let row = look.payments.rows.get(&id);
    let by_row = kept_by_row(row);
    let (kept, currencies_fit) = match books(look, id) {
        Books::Gateway(movements) => (
            kept(movements),
            movements.iter().all(|one| one.currency == order.currency),
        ),
        Books::Row(row) => (by_row, row.is_none_or(|row| row.currency == order.currency)),
    };
    if kept != owed || !currencies_fit {
        let detail = format!(
            "it is {} and owes {owed} {}; charged less refunded is {kept}",
            order.status, order.currency
        );
        found.push(Finding::of_saga(Check::MoneyMismatch, id, detail).about("order"));
    }
    let open = row.is_some_and(|row| row.status == "charging" || row.status == "refunding");
    if by_row != kept || open {
        let status = row.map_or("missing", |row| row.status.as_str());
        let detail = format!("the payment is {status}, the gateway has kept {kept}");
        found.push(Finding::of_saga(
            Check::PaymentContradictsGateway,
            id,
            detail,
        ));
    }
    let saga = look.sagas.by_id.get(&id);
    for (participant, inbox) in &look.inboxes {
        let call = inbox.open_calls.get(&id);
        if let (Some(call), true) = (call, saga.is_some_and(|saga| ended(saga).is_some())) {
            let detail = format!("{call} of {participant} is still to be settled");
            found.push(Finding::of_saga(Check::CallOutlivesSaga, id, detail).about(participant));
        }
    }
}

/// The source of an order's payments. The gateway is trusted most, as far back as it has entries.
enum Books<'a> {
    Gateway(&'a [Movement]),
    Row(Option<&'a Payment>),
}

fn books(look: &Look, id: Uuid) -> Books<'_> {
    let row = look.payments.rows.get(&id);
    let remembers = look.payments.gateway_since.is_some_and(|since| {
        // The gateway may not have been asked yet: its entry is written after the row. A missing row has no age.
        row.is_none_or(|row| row.created_at >= since)
    });
    if remembers || look.payments.gateway.contains_key(&id) {
        let movements = look.payments.gateway.get(&id);
        Books::Gateway(movements.map_or(&[][..], Vec::as_slice))
    } else {
        Books::Row(row)
    }
}

fn charges(movements: &[Movement]) -> usize {
    let keys: BTreeSet<&str> = movements
        .iter()
        .filter(|one| one.operation == "charge")
        .map(|one| one.key.as_str())
        .collect();
    keys.len()
}

fn kept(movements: &[Movement]) -> i64 {
    movements
        .iter()
        .map(|one| match one.operation.as_str() {
            "charge" => one.amount_minor,
            _ => -one.amount_minor,
        })
        .sum()
}

fn kept_by_row(row: Option<&Payment>) -> i64 {
    row.filter(|row| {
        matches!(
            row.status.as_str(),
            "charged" | "refunding" | "refund_failed"
        )
    })
    .map_or(0, |row| row.amount_minor)
}
