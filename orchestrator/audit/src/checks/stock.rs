//! Checks of the stock: pieces must not be created or lost.

use super::finality::{ended, is_final};
use crate::{
    finding::{Check, Finding},
    journal::Journal,
    look::Look,
    store::stock::{Product, Reservation},
};
use std::collections::BTreeMap;
use uuid::Uuid;

pub fn check(look: &Look, journal: &Journal, found: &mut Vec<Finding>) {
    for (id, product) in &look.stock.products {
        sums(*id, product, found);
        let total = product.available + product.reserved + product.sold;
        let stocked = journal.stocked.get(id).copied();
        for put_in in [Some(product.received), stocked].into_iter().flatten() {
            if put_in != total {
                let detail = format!(
                    "{put_in} were put in; {} available, {} reserved and {} sold make {total}",
                    product.available, product.reserved, product.sold
                );
                found.push(Finding::of_subject(Check::StockTotalMismatch, id, detail));
                break;
            }
        }
    }
    for (order, reservations) in &look.stock.reservations {
        of_order(look, *order, reservations, found);
    }
    // A confirmed order without any reservation has not received its items either.
    for (id, order) in &look.orders.by_id {
        if is_final(look, *id, order)
            && order.status == "CONFIRMED"
            && !look.stock.reservations.contains_key(id)
        {
            let detail = "it is confirmed and holds no reservation";
            found.push(Finding::of_saga(Check::SoldMismatch, *id, detail));
        }
    }
}

fn sums(id: Uuid, product: &Product, found: &mut Vec<Finding>) {
    if product.available < 0 || product.reserved < 0 || product.sold < 0 {
        let detail = format!(
            "{} available, {} reserved, {} sold",
            product.available, product.reserved, product.sold
        );
        found.push(Finding::of_subject(Check::StockNegative, id, detail));
    }
    for (check, row, reservations) in [
        (
            Check::StockReservedMismatch,
            product.reserved,
            product.reservations_held,
        ),
        (
            Check::StockSoldMismatch,
            product.sold,
            product.reservations_sold,
        ),
    ] {
        if row != reservations {
            let detail = format!("its row says {row}, reservations add up to {reservations}");
            found.push(Finding::of_subject(check, id, detail));
        }
    }
}

fn of_order(look: &Look, id: Uuid, reservations: &[Reservation], found: &mut Vec<Finding>) {
    let held: i64 = pieces(reservations, "reserved").values().sum();
    let saga = look.sagas.by_id.get(&id);
    if held > 0 && saga.is_some_and(|saga| ended(saga).is_some()) {
        let detail = format!("{held} pieces are still reserved");
        found.push(Finding::of_saga(Check::ReservationOutlivesSaga, id, detail));
    }
    let sold = pieces(reservations, "sold");
    let Some(order) = look.orders.by_id.get(&id) else {
        let moved = held + sold.values().sum::<i64>();
        if moved > 0 {
            let detail = format!("{moved} pieces are held or sold");
            found.push(Finding::of_saga(Check::EffectWithoutOrder, id, detail).about("stock"));
        }
        return;
    };
    if !is_final(look, id, order) {
        return;
    }
    let wanted = if order.status == "CONFIRMED" {
        order.items.clone()
    } else {
        BTreeMap::new()
    };
    if sold != wanted {
        let detail = format!(
            "it is {} and {} pieces are sold to it, {} are right",
            order.status,
            sold.values().sum::<i64>(),
            wanted.values().sum::<i64>()
        );
        found.push(Finding::of_saga(Check::SoldMismatch, id, detail));
    }
}

fn pieces(reservations: &[Reservation], state: &str) -> BTreeMap<Uuid, i64> {
    let mut sums = BTreeMap::new();
    for reservation in reservations.iter().filter(|one| one.state == state) {
        *sums.entry(reservation.product).or_default() += reservation.quantity;
    }
    sums
}
