//! Whether a scenario's orders ended as they must, by what stands in the four databases, and whether all sums add up.

pub mod plans;
mod store;

use crate::{
    load::Tally,
    scenario::{Kind, Shop},
    system::System,
};
use anyhow::Result;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use store::{Group, Stock};

/// An intent is closed, and an outbox row removed, with the next batch or the next sweep.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const SETTLE_POLL: Duration = Duration::from_millis(200);
/// Of payments: the gateway was asked and nothing is settled.
const UNCLEAR_PAYMENTS: [&str; 4] = ["charging", "charge_failed", "refunding", "refund_failed"];

/// What all stages of a scenario came to together, as the load generator saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    pub orders: BTreeMap<Kind, u64>,
    /// Whose answer got lost: each may have been accepted.
    pub unknown: u64,
}

impl Accepted {
    pub fn add(&mut self, tally: &Tally) {
        for (kind, orders) in &tally.orders {
            *self.orders.entry(*kind).or_default() += orders.accepted;
        }
        self.unknown += tally.not_accepted.unknown;
    }
}

/// What the databases hold of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub groups: Vec<Group>,
    pub stock: Stock,
    /// Pieces by state of reservation.
    pub reserved: BTreeMap<String, i64>,
    /// Minor units by status of payment.
    pub payments: BTreeMap<String, i64>,
    /// Sagas under way, rows of the outbox, open intents: all gone when everything is quiet.
    pub unsettled: i64,
}

/// What is wrong; empty if all is well.
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
        let broken = self.rules().into_iter().filter(|(holds, _)| !holds);
        wrong.extend(broken.map(|(_, mistake)| mistake));
        wrong
    }

    /// What must hold, and what is wrong if it does not.
    fn rules(&self) -> [(bool, String); 8] {
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
        let unsettled = self.unsettled;
        [
            (
                received == available + reserved + sold,
                format!(
                    "stock: {received} received, but {available} available, {reserved} reserved and {sold} sold"
                ),
            ),
            (
                reserved == 0,
                format!("stock: {reserved} pieces are still reserved"),
            ),
            (
                sold == pieces,
                format!("stock: {sold} pieces sold, {pieces} confirmed"),
            ),
            (
                held == 0,
                format!("reservations: {held} pieces are still held"),
            ),
            (
                given == pieces,
                format!("reservations: {given} pieces sold, {pieces} confirmed"),
            ),
            (
                kept == amount,
                format!("payments: {kept} minor units kept, {amount} confirmed"),
            ),
            (
                unclear == 0,
                format!("payments: {unclear} minor units neither charged nor given back"),
            ),
            (
                unsettled == 0,
                format!("{unsettled} sagas, outbox rows and intents are still there"),
            ),
        ]
    }

    /// Pieces and minor units of confirmed orders.
    fn confirmed(&self) -> (i64, i64) {
        let confirmed = self
            .groups
            .iter()
            .filter(|group| group.status == "CONFIRMED");
        confirmed.fold((0, 0), |(pieces, amount), group| {
            (pieces + group.pieces, amount + group.amount_minor)
        })
    }

    /// Every accepted order is there and ended as its kind must, and no other is there.
    fn wrong_orders(&self, accepted: &Accepted) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut unclaimed: u64 = 0;
        let is_of = |group: &Group, kind: Kind| {
            let end = kind.end();
            (
                group.definition.as_str(),
                group.status.as_str(),
                group.reason.as_str(),
            ) == (end.definition, end.status, end.reason)
        };
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
        let end = kind.end();
        Group {
            definition: end.definition.to_owned(),
            status: end.status.to_owned(),
            reason: end.reason.to_owned(),
            orders,
            amount_minor: orders * 100,
            pieces: orders * 2,
        }
    }

    /// Ten confirmed orders and four declined ones, all in order.
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
    fn an_order_whose_answer_got_lost_may_be_there_or_not() {
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
