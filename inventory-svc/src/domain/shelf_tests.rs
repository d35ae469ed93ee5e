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

fn wish(order: u8, items: &[(u8, u32)]) -> ReserveStock {
    ReserveStock {
        order_id: id(order),
        items: lines(items),
        is_final: false,
    }
}

fn final_sale(order: u8, items: &[(u8, u32)]) -> ReserveStock {
    ReserveStock {
        is_final: true,
        ..wish(order, items)
    }
}

/// Products 1, 2, … with these quantities available.
fn shelf(available: &[i64]) -> Shelf {
    let stock = (1..).zip(available).map(|(product, available)| {
        (
            id(product),
            Quantities {
                available: *available,
                ..Quantities::default()
            },
        )
    });
    Shelf::new(stock, [])
}

fn check(shelf: &Shelf, product: u8, expected: (i64, i64, i64)) {
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
        shelf.reserve(&wish(9, &[(2, 1), (1, 2)])),
        Ok(lines(&[(1, 2), (2, 1)]))
    );
    check(&shelf, 1, (3, 2, 0));
    check(&shelf, 2, (2, 1, 0));
    assert_eq!(shelf.complete(id(9)), Ok(lines(&[(1, 2), (2, 1)])));
    check(&shelf, 1, (3, 0, 2));
    check(&shelf, 2, (2, 0, 1));
}

#[test]
fn lines_of_one_product_are_added_up() {
    let mut shelf = shelf(&[5]);
    assert_eq!(
        shelf.reserve(&wish(9, &[(1, 2), (1, 3)])),
        Ok(lines(&[(1, 5)]))
    );
    check(&shelf, 1, (0, 5, 0));
}

#[test]
fn a_loser_leaves_its_items_to_those_behind_it() {
    let mut shelf = shelf(&[1, 1]);
    assert_eq!(shelf.reserve(&wish(7, &[(2, 1)])), Ok(lines(&[(2, 1)])));
    let refused = shelf.reserve(&wish(8, &[(1, 1), (2, 1)]));
    assert_eq!(
        refused,
        Err(Refusal::OutOfStock {
            product_id: id(2),
            wanted: 1,
            available: 0
        })
    );
    assert_eq!(shelf.reserve(&wish(9, &[(1, 1)])), Ok(lines(&[(1, 1)])));
}

#[test]
fn a_refusal_says_what_is_wrong() {
    let mut shelf = shelf(&[2]);
    let code = |result: Result<Vec<StockItem>, Refusal>| result.map_err(|why| why.code());
    assert_eq!(
        code(shelf.reserve(&wish(9, &[(1, 1), (7, 1)]))),
        Err("unknown_product")
    );
    assert_eq!(
        code(shelf.reserve(&wish(9, &[(1, 3)]))),
        Err("out_of_stock")
    );
    assert_eq!(code(shelf.reserve(&wish(9, &[]))), Err("invalid_payload"));
    assert_eq!(
        code(shelf.reserve(&wish(9, &[(1, 0)]))),
        Err("invalid_payload")
    );
    let too_much = [(1, u32::MAX), (1, 1)];
    assert_eq!(
        code(shelf.reserve(&wish(9, &too_much))),
        Err("invalid_payload")
    );
    assert_eq!(code(shelf.complete(id(9))), Err("not_reserved"));
    assert_eq!(shelf.changes(), Changes::default());
    let text = shelf
        .reserve(&wish(9, &[(1, 3)]))
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
    shelf.reserve(&wish(9, &[(1, 2)])).expect("enough");
    assert_eq!(shelf.release(id(9)), lines(&[(1, 2)]));
    assert_eq!(shelf.release(id(9)), []);
    check(&shelf, 1, (5, 0, 0));
    assert_eq!(shelf.complete(id(9)), Err(Refusal::NotReserved(id(9))));
    shelf
        .reserve(&wish(9, &[(1, 4)]))
        .expect("what was given back can be reserved again");
    check(&shelf, 1, (1, 4, 0));
}

#[test]
fn a_final_sale_sells_at_once_and_can_be_given_back() {
    let mut shelf = shelf(&[5]);
    shelf.reserve(&final_sale(9, &[(1, 2)])).expect("enough");
    check(&shelf, 1, (3, 0, 2));
    assert_eq!(shelf.complete(id(9)), Ok(vec![]));
    assert_eq!(shelf.release(id(9)), lines(&[(1, 2)]));
    check(&shelf, 1, (5, 0, 0));
}

#[test]
fn an_order_does_not_hold_a_product_twice() {
    let mut shelf = shelf(&[5]);
    shelf.reserve(&wish(9, &[(1, 1)])).expect("enough");
    let again = shelf.reserve(&wish(9, &[(1, 1)])).map_err(|why| why.code());
    assert_eq!(again, Err("already_reserved"));
    check(&shelf, 1, (4, 1, 0));
}

#[test]
fn what_comes_to_nothing_is_not_written() {
    let mut shelf = shelf(&[5]);
    shelf.reserve(&wish(9, &[(1, 2)])).expect("enough");
    shelf.release(id(9));
    let changes = shelf.changes();
    assert_eq!(changes.stock, []);
    let row = Reservation {
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

/// What a participant may be asked, in any order.
#[derive(Clone, Debug)]
enum Move {
    Reserve {
        order: u8,
        items: Vec<(u8, u32)>,
        is_final: bool,
    },
    Release {
        order: u8,
    },
    Complete {
        order: u8,
    },
}

fn any_move() -> impl Strategy<Value = Move> {
    let order = 0_u8..6;
    prop_oneof![
        4 => (order.clone(), vec((1_u8..5, 1_u32..4), 1..4), any::<bool>())
            .prop_map(|(order, items, is_final)| Move::Reserve { order, items, is_final }),
        2 => order.clone().prop_map(|order| Move::Release { order }),
        2 => order.prop_map(|order| Move::Complete { order }),
    ]
}

fn apply(shelf: &mut Shelf, step: &Move) {
    match step {
        Move::Reserve {
            order,
            items,
            is_final,
        } => {
            let command = ReserveStock {
                is_final: *is_final,
                ..wish(*order, items)
            };
            drop(shelf.reserve(&command));
        }
        Move::Release { order } => drop(shelf.release(id(*order))),
        Move::Complete { order } => drop(shelf.complete(id(*order))),
    }
}

/// What the database holds after the changes are written.
fn written(shelf: &Shelf) -> Shelf {
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
    Shelf::new(stock, reservations)
}

fn assert_sums_are_exact(shelf: &Shelf, total: i64) {
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
                apply(&mut batched, step);
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
