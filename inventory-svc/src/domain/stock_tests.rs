use super::*;
use proptest::{collection::vec, prelude::*};

fn id(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

fn lines(items: &[(u8, u32)]) -> Vec<StockItem> {
    items
        .iter()
        .map(|(product, quantity)| StockItem {
            product_id: id(*product),
            quantity: *quantity,
        })
        .collect()
}

fn request(order: u8, items: &[(u8, u32)]) -> ReserveStock {
    ReserveStock {
        order_id: id(order),
        items: lines(items),
        is_final: false,
    }
}

fn final_sale(order: u8, items: &[(u8, u32)]) -> ReserveStock {
    ReserveStock {
        is_final: true,
        ..request(order, items)
    }
}

/// Returns a batch with products 1, 2, … that have these quantities available.
fn shelf(available: &[i64]) -> StockBatch {
    let stock = (1..).zip(available).map(|(product, available)| {
        (
            id(product),
            Quantities {
                available: *available,
                ..Quantities::default()
            },
        )
    });
    StockBatch::new(stock, [])
}

fn check(shelf: &StockBatch, product: u8, expected: (i64, i64, i64)) {
    let now = shelf.stock[&id(product)].now;
    assert_eq!(
        (now.available, now.reserved, now.sold),
        expected,
        "product {product}"
    );
}

#[test]
fn reserving_moves_available_to_reserved_and_completing_to_sold() {
    let mut shelf = shelf(&[5, 3]);
    assert_eq!(
        shelf.reserve(id(9), &request(9, &[(2, 1), (1, 2)])),
        Ok(lines(&[(1, 2), (2, 1)]))
    );
    check(&shelf, 1, (3, 2, 0));
    check(&shelf, 2, (2, 1, 0));
    assert_eq!(shelf.complete(id(9), id(9)), Ok(lines(&[(1, 2), (2, 1)])));
    check(&shelf, 1, (3, 0, 2));
    check(&shelf, 2, (2, 0, 1));
}

#[test]
fn lines_of_one_product_are_added_up() {
    let mut shelf = shelf(&[5]);
    assert_eq!(
        shelf.reserve(id(9), &request(9, &[(1, 2), (1, 3)])),
        Ok(lines(&[(1, 5)]))
    );
    check(&shelf, 1, (0, 5, 0));
}

#[test]
fn a_loser_leaves_its_items_to_those_behind_it() {
    let mut shelf = shelf(&[1, 1]);
    assert_eq!(
        shelf.reserve(id(7), &request(7, &[(2, 1)])),
        Ok(lines(&[(2, 1)]))
    );
    let refused = shelf.reserve(id(8), &request(8, &[(1, 1), (2, 1)]));
    assert_eq!(
        refused,
        Err(Refusal::OutOfStock {
            product_id: id(2),
            wanted: 1,
            available: 0
        })
    );
    assert_eq!(
        shelf.reserve(id(9), &request(9, &[(1, 1)])),
        Ok(lines(&[(1, 1)]))
    );
}

#[test]
fn a_refusal_carries_the_code_of_its_cause() {
    let mut shelf = shelf(&[2]);
    let code = |result: Result<Vec<StockItem>, Refusal>| result.map_err(|why| why.code());
    assert_eq!(
        code(shelf.reserve(id(9), &request(9, &[(1, 1), (7, 1)]))),
        Err("unknown_product")
    );
    assert_eq!(
        code(shelf.reserve(id(9), &request(9, &[(1, 3)]))),
        Err("out_of_stock")
    );
    assert_eq!(
        code(shelf.reserve(id(9), &request(9, &[]))),
        Err("invalid_payload")
    );
    assert_eq!(
        code(shelf.reserve(id(9), &request(9, &[(1, 0)]))),
        Err("invalid_payload")
    );
    let too_much = [(1, u32::MAX), (1, 1)];
    assert_eq!(
        code(shelf.reserve(id(9), &request(9, &too_much))),
        Err("invalid_payload")
    );
    assert_eq!(code(shelf.complete(id(9), id(9))), Err("not_reserved"));
    assert_eq!(shelf.changes(), Changes::default());
    let text = shelf
        .reserve(id(9), &request(9, &[(1, 3)]))
        .expect_err("too many")
        .to_string();
    assert!(
        text.contains(&id(1).to_string()) && text.contains("3 wanted, 2 available"),
        "{text}"
    );
}

#[test]
fn releasing_gives_back_once() {
    let mut shelf = shelf(&[5]);
    shelf
        .reserve(id(9), &request(9, &[(1, 2)]))
        .expect("enough");
    assert_eq!(shelf.release(id(9), id(9)), Ok(lines(&[(1, 2)])));
    assert_eq!(shelf.release(id(9), id(9)), Ok(vec![]));
    check(&shelf, 1, (5, 0, 0));
    assert_eq!(
        shelf.complete(id(9), id(9)),
        Err(Refusal::NotReserved(id(9)))
    );
    shelf
        .reserve(id(9), &request(9, &[(1, 4)]))
        .expect("what was given back can be reserved again");
    check(&shelf, 1, (1, 4, 0));
}

#[test]
fn a_final_sale_sells_at_once_and_can_be_given_back() {
    let mut shelf = shelf(&[5]);
    shelf
        .reserve(id(9), &final_sale(9, &[(1, 2)]))
        .expect("enough");
    check(&shelf, 1, (3, 0, 2));
    assert_eq!(shelf.complete(id(9), id(9)), Ok(vec![]));
    assert_eq!(shelf.release(id(9), id(9)), Ok(lines(&[(1, 2)])));
    check(&shelf, 1, (5, 0, 0));
}

#[test]
fn an_order_does_not_hold_a_product_twice() {
    let mut shelf = shelf(&[5]);
    shelf
        .reserve(id(9), &request(9, &[(1, 1)]))
        .expect("enough");
    let again = shelf
        .reserve(id(9), &request(9, &[(1, 1)]))
        .map_err(|why| why.code());
    assert_eq!(again, Err("already_reserved"));
    check(&shelf, 1, (4, 1, 0));
}

/// Regression: each of these moves released or sold the reservation of another saga, or reserved in addition to it.
#[test]
fn a_saga_moves_nothing_of_an_order_that_another_one_holds() {
    let code = |result: Result<Vec<StockItem>, Refusal>| result.map_err(|why| why.code());
    let other = Err(fault_code::ORDER_OF_ANOTHER_SAGA);
    let mut shelf = shelf(&[5, 5]);
    for state in ["reserved", "sold", "released"] {
        match state {
            "reserved" => drop(
                shelf
                    .reserve(id(9), &request(9, &[(1, 2)]))
                    .expect("enough"),
            ),
            "sold" => drop(shelf.complete(id(9), id(9)).expect("reserved")),
            _ => drop(shelf.release(id(9), id(9)).expect("sold")),
        }
        let before = shelf.changes();
        assert_eq!(
            code(shelf.reserve(id(8), &request(9, &[(2, 1)]))),
            other,
            "{state}"
        );
        assert_eq!(
            code(shelf.reserve(id(8), &final_sale(9, &[(1, 1)]))),
            other,
            "{state}"
        );
        assert_eq!(code(shelf.complete(id(8), id(9))), other, "{state}");
        assert_eq!(code(shelf.release(id(8), id(9))), other, "{state}");
        assert_eq!(shelf.changes(), before, "{state}");
    }
}

/// An order may have ended before anything was reserved for it, or a foreign saga may be faster than the order's own.
#[test]
fn an_order_of_order_svc_is_held_by_its_saga_before_that_has_done_anything() {
    let order = Uuid::from_u128(7 << 76 | 9);
    let request = ReserveStock {
        order_id: order,
        ..request(9, &[(1, 1)])
    };
    let mut shelf = shelf(&[5]);
    let refused = Refusal::OrderOfAnotherSaga {
        order_id: order,
        holder: order,
    };
    assert_eq!(shelf.reserve(id(8), &request), Err(refused.clone()));
    assert_eq!(shelf.complete(id(8), order), Err(refused.clone()));
    assert_eq!(shelf.release(id(8), order), Err(refused));
    assert_eq!(shelf.changes(), Changes::default());
    assert_eq!(shelf.reserve(order, &request), Ok(lines(&[(1, 1)])));
}

#[test]
fn changes_that_cancel_out_are_not_written() {
    let mut shelf = shelf(&[5]);
    shelf
        .reserve(id(9), &request(9, &[(1, 2)]))
        .expect("enough");
    shelf.release(id(9), id(9)).expect("it is held");
    let changes = shelf.changes();
    assert_eq!(changes.stock, []);
    let row = Reservation {
        saga_id: id(9),
        quantity: 2,
        state: ReservationState::Released,
    };
    assert_eq!(
        changes.reservations,
        [ReservationChange {
            key: ReservationKey {
                order_id: id(9),
                product_id: id(1)
            },
            before: None,
            now: row
        }]
    );
}

/// The commands that a participant may receive, in any order.
#[derive(Clone, Debug)]
enum Move {
    Reserve {
        saga: u8,
        order: u8,
        items: Vec<(u8, u32)>,
        is_final: bool,
    },
    Release {
        saga: u8,
        order: u8,
    },
    Complete {
        saga: u8,
        order: u8,
    },
}

fn any_move() -> impl Strategy<Value = Move> {
    let (saga, order) = (10_u8..13, 0_u8..6);
    let both = (saga.clone(), order.clone());
    prop_oneof![
        4 => (saga, order, vec((1_u8..5, 1_u32..4), 1..4), any::<bool>())
            .prop_map(|(saga, order, items, is_final)| Move::Reserve { saga, order, items, is_final }),
        2 => both.clone().prop_map(|(saga, order)| Move::Release { saga, order }),
        2 => both.prop_map(|(saga, order)| Move::Complete { saga, order }),
    ]
}

fn apply(shelf: &mut StockBatch, step: &Move) {
    match step {
        Move::Reserve {
            saga,
            order,
            items,
            is_final,
        } => {
            let command = ReserveStock {
                is_final: *is_final,
                ..request(*order, items)
            };
            drop(shelf.reserve(id(*saga), &command));
        }
        Move::Release { saga, order } => drop(shelf.release(id(*saga), id(*order))),
        Move::Complete { saga, order } => drop(shelf.complete(id(*saga), id(*order))),
    }
}

/// Returns the rows as the database has them after the changes are written.
fn written(shelf: &StockBatch) -> StockBatch {
    let mut stock: BTreeMap<Uuid, Quantities> = shelf
        .stock
        .iter()
        .map(|(product, row)| (*product, row.before))
        .collect();
    for change in shelf.changes().stock {
        let row = stock
            .get_mut(&change.product_id)
            .expect("a change has a row");
        row.available += change.delta.available;
        row.reserved += change.delta.reserved;
        row.sold += change.delta.sold;
    }
    let mut reservations: BTreeMap<ReservationKey, Reservation> = shelf
        .reservations
        .iter()
        .filter_map(|(key, row)| row.before.map(|before| (*key, before)))
        .collect();
    for change in shelf.changes().reservations {
        let replaced = reservations.insert(change.key, change.now);
        assert_eq!(replaced.map(|row| row.state), change.before);
    }
    StockBatch::new(stock, reservations)
}

/// Returns the saga that holds each order. Fails if two sagas hold one order.
fn holders(shelf: &StockBatch) -> BTreeMap<Uuid, Uuid> {
    let mut holders = BTreeMap::new();
    for (key, row) in &shelf.reservations {
        if let Some(reservation) = row.now {
            let holder = holders.entry(key.order_id).or_insert(reservation.saga_id);
            assert_eq!(*holder, reservation.saga_id, "order {}", key.order_id);
        }
    }
    holders
}

fn saga_and_order(step: &Move) -> (Uuid, Uuid) {
    match step {
        Move::Reserve { saga, order, .. }
        | Move::Release { saga, order }
        | Move::Complete { saga, order } => (id(*saga), id(*order)),
    }
}

fn assert_sums_are_exact(shelf: &StockBatch, total: i64) {
    for (product, row) in &shelf.stock {
        let Quantities {
            available,
            reserved,
            sold,
        } = row.now;
        assert!(
            available >= 0 && reserved >= 0 && sold >= 0,
            "{product}: {:?}",
            row.now
        );
        assert_eq!(available + reserved + sold, total, "{product}");
        let held = |state| {
            shelf
                .reservations
                .iter()
                .filter(|(key, _)| key.product_id == *product)
                .filter_map(|(_, row)| row.now)
                .filter(|reservation| reservation.state == state)
                .map(|reservation| reservation.quantity)
                .sum::<i64>()
        };
        assert_eq!(held(ReservationState::Reserved), reserved, "{product}");
        assert_eq!(held(ReservationState::Sold), sold, "{product}");
    }
}

proptest! {
    #[test]
    fn stock_is_never_negative_and_sums_are_exact_however_moves_are_batched(
        batches in vec(vec(any_move(), 1..10), 1..6),
    ) {
        const TOTAL: i64 = 5;
        let mut batched = shelf(&[TOTAL; 4]);
        let mut one_by_one = shelf(&[TOTAL; 4]);
        for batch in &batches {
            for step in batch {
                let (saga, order) = saga_and_order(step);
                let before = (holders(&batched), batched.changes());
                apply(&mut batched, step);
                if before.0.get(&order).is_some_and(|holder| *holder != saga) {
                    prop_assert_eq!(before.1, batched.changes(), "{:?} is not its saga's", step);
                }
                prop_assert!(before.0.iter().all(|(order, saga)| holders(&batched)[order] == *saga));
                assert_sums_are_exact(&batched, TOTAL);
                apply(&mut one_by_one, step);
                one_by_one = written(&one_by_one);
            }
            batched = written(&batched);
            assert_sums_are_exact(&batched, TOTAL);
        }
        for (product, row) in &batched.stock {
            prop_assert_eq!(row.now, one_by_one.stock[product].now);
        }
    }
}
