//! Checks by the contents of the four databases that a scenario's orders ended as they must, and that all sums add up.

pub mod plans;
mod store;

use crate::{
    load::Orders,
    scenario::{Kind, Shop},
    system::System,
};
use anyhow::Result;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use store::{Books, Group, Stock};

/// How long to wait until intents are closed and outbox rows removed, which happens with the next batch or the next
/// sweep.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const SETTLE_POLL: Duration = Duration::from_millis(200);
/// Statuses of payments for which the gateway was asked and that are not settled.
const UNCLEAR_PAYMENTS: [&str; 4] = ["charging", "charge_failed", "refunding", "refund_failed"];

/// The orders of all stages of a scenario together, as the load generator saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    pub orders: BTreeMap<Kind, u64>,
    /// Orders whose answer was lost. Each may have been accepted.
    pub unknown: u64,
}

impl Accepted {
    pub fn add(&mut self, orders: &BTreeMap<Kind, Orders>, unknown: u64) {
        for (kind, orders) in orders {
            *self.orders.entry(*kind).or_default() += orders.accepted;
        }
        self.unknown += unknown;
    }
}

/// Returns the mistakes that the databases show; empty if all is well.
pub async fn scenario(system: &System, shop: &Shop, accepted: &Accepted) -> Result<Vec<String>> {
    let began = Instant::now();
    loop {
        let books = Books::read(system, shop).await?;
        if books.unsettled == 0 || began.elapsed() > SETTLE_LIMIT {
            return Ok(books.mistakes(accepted));
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
}

impl Books {
    fn mistakes(&self, accepted: &Accepted) -> Vec<String> {
        let mut wrong = self.wrong_orders(accepted);
        let of = |all: &BTreeMap<String, i64>, names: &[&str]| -> i64 {
            names.iter().filter_map(|name| all.get(*name)).sum()
        };
        let (pieces, amount) = self.confirmed();
        let Stock {
            received,
            available,
            reserved,
            sold,
        } = self.stock;
        let held = of(&self.reserved, &["reserved"]);
        let given = of(&self.reserved, &["sold"]);
        let kept = of(&self.payments, &["charged"]);
        let unclear = of(&self.payments, &UNCLEAR_PAYMENTS);
        let mut equal = |one: i64, other: i64, mistake: String| {
            if one != other {
                wrong.push(mistake);
            }
        };
        let text = format!(
            "stock: {received} received, but {available} available, {reserved} reserved and {sold} sold"
        );
        equal(received, available + reserved + sold, text);
        let text = format!("stock: {reserved} pieces are still reserved");
        equal(reserved, 0, text);
        let text = format!("stock: {sold} pieces sold, {pieces} confirmed");
        equal(sold, pieces, text);
        let text = format!("reservations: {held} pieces are still held");
        equal(held, 0, text);
        let text = format!("reservations: {given} pieces sold, {pieces} confirmed");
        equal(given, pieces, text);
        let text = format!("payments: {kept} minor units kept, {amount} confirmed");
        equal(kept, amount, text);
        let text = format!("payments: {unclear} minor units neither charged nor given back");
        equal(unclear, 0, text);
        let unsettled = self.unsettled;
        let text = format!("{unsettled} sagas, outbox rows and intents are still there");
        equal(unsettled, 0, text);
        wrong
    }

    /// The pieces and minor units of confirmed orders.
    fn confirmed(&self) -> (i64, i64) {
        let confirmed = self
            .groups
            .iter()
            .filter(|group| group.status == "CONFIRMED");
        confirmed.fold((0, 0), |(pieces, amount), group| {
            (pieces + group.pieces, amount + group.amount_minor)
        })
    }

    /// Checks that every accepted order is in the database and ended as its kind must, and that no other order is
    /// there.
    fn wrong_orders(&self, accepted: &Accepted) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut unclaimed: u64 = 0;
        let is_of = |group: &Group, kind: Kind| group.end() == kind.end();
        for kind in Kind::ALL {
            let expected = accepted.orders.get(&kind).copied().unwrap_or(0);
            let groups = self.groups.iter().filter(|group| is_of(group, kind));
            let found: u64 = groups.map(|group| group.orders.unsigned_abs()).sum();
            if found < expected {
                wrong.push(format!(
                    "{}: {expected} accepted, but {found} ended so",
                    kind.name()
                ));
            }
            unclaimed += found.saturating_sub(expected);
        }
        for group in &self.groups {
            if !Kind::ALL.into_iter().any(|kind| is_of(group, kind)) {
                wrong.push(format!(
                    "{} orders of {} are {} {}",
                    group.orders, group.definition, group.status, group.reason
                ));
            }
        }
        if unclaimed > accepted.unknown {
            wrong.push(format!(
                "{unclaimed} orders more than were accepted, and only {} answers got lost",
                accepted.unknown
            ));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(kind: Kind, orders: i64) -> Group {
        let (definition, status, reason) = kind.end();
        Group {
            definition: definition.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            orders,
            amount_minor: orders * 100,
            pieces: orders * 2,
        }
    }

    /// Ten confirmed orders and four declined ones, with sums that add up.
    fn books() -> Books {
        Books {
            groups: vec![group(Kind::Confirmed, 10), group(Kind::Declined, 4)],
            stock: Stock {
                received: 1_000,
                available: 980,
                reserved: 0,
                sold: 20,
            },
            reserved: [("sold".to_owned(), 20), ("released".to_owned(), 8)].into(),
            payments: [("charged".to_owned(), 1_000), ("declined".to_owned(), 400)].into(),
            unsettled: 0,
        }
    }

    fn accepted() -> Accepted {
        Accepted {
            orders: [(Kind::Confirmed, 10), (Kind::Declined, 4)].into(),
            unknown: 0,
        }
    }

    #[test]
    fn books_that_add_up_have_no_mistake() {
        assert_eq!(books().mistakes(&accepted()), Vec::<String>::new());
    }

    fn set(all: &mut BTreeMap<String, i64>, name: &str, value: i64) {
        all.insert(name.to_owned(), value);
    }

    #[test]
    fn every_mistake_is_found_and_named() {
        let check = |spoil: fn(&mut Books), expected: &str| {
            let mut books = books();
            spoil(&mut books);
            let found = books.mistakes(&accepted());
            assert!(
                found.iter().any(|text| text.contains(expected)),
                "{expected}: {found:?}"
            );
        };
        check(|books| books.groups[0].orders = 9, "10 accepted, but 9");
        check(
            |books| books.groups[0].status = "PENDING".to_owned(),
            "are PENDING",
        );
        check(
            |books| books.groups[1].reason = "deadline".to_owned(),
            "CANCELLED deadline",
        );
        check(
            |books| books.groups[0].orders = 11,
            "1 orders more than were accepted",
        );
        check(|books| books.stock.available = 979, "1000 received");
        check(|books| books.stock.reserved = 1, "still reserved");
        check(|books| books.stock.sold = 21, "21 pieces sold");
        check(
            |books| set(&mut books.reserved, "reserved", 2),
            "still held",
        );
        check(
            |books| set(&mut books.reserved, "sold", 18),
            "18 pieces sold",
        );
        check(
            |books| set(&mut books.payments, "charged", 1_100),
            "1100 minor units kept",
        );
        check(
            |books| set(&mut books.payments, "refunding", 5),
            "neither charged",
        );
        check(|books| books.unsettled = 3, "still there");
    }

    #[test]
    fn an_order_with_a_lost_answer_may_exist_or_not() {
        let lost = Accepted {
            unknown: 1,
            ..accepted()
        };
        assert_eq!(books().mistakes(&lost), Vec::<String>::new());
        let mut more = books();
        more.groups[1].orders = 5;
        assert_eq!(more.mistakes(&lost), Vec::<String>::new());
        assert_eq!(more.mistakes(&accepted()).len(), 1);
    }
}
