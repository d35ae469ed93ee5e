//! Tests batches of commands.

use crate::fixture::{
    batch, code, codes, command, complete, database, database_as_in_service, of_saga, product,
    release, reserve, scans, stock, undo,
};
use anyhow::Result;
use futures_util::future::try_join_all;
use inventory_svc::store;
use saga_core::message::Command;
use saga_test_support::participant::Reaction;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

#[tokio::test]
async fn an_order_s_stock_is_reserved_then_sold() -> Result<()> {
    let pool = database().await?;
    let (first, second, order) = (
        product(&pool, 5).await?,
        product(&pool, 2).await?,
        Uuid::new_v4(),
    );
    let answers = batch(&pool, &[reserve(order, &[(first, 2), (second, 1)])]).await?;
    let Reaction::Success { reply_type, result } = &answers[0] else {
        panic!("{answers:?}")
    };
    assert_eq!(reply_type, "inventory.reserved");
    assert_eq!(result["orderId"], json!(order));
    assert_eq!(result["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(stock(&pool, first).await?, (3, 2, 0));
    let answers = batch(&pool, &[complete(order)]).await?;
    assert!(
        matches!(&answers[0], Reaction::Success { reply_type, .. } if reply_type == "inventory.completed")
    );
    assert_eq!(stock(&pool, first).await?, (3, 0, 2));
    assert_eq!(stock(&pool, second).await?, (1, 0, 1));
    Ok(())
}

#[tokio::test]
async fn a_batch_folds_commands_of_one_order_in_their_order() -> Result<()> {
    let pool = database().await?;
    let (item, order) = (product(&pool, 1).await?, Uuid::new_v4());
    let rival = Uuid::new_v4();
    let requests = [
        reserve(order, &[(item, 1)]),
        reserve(rival, &[(item, 1)]),
        release(order),
        reserve(rival, &[(item, 1)]),
        complete(rival),
        release(order),
    ];
    let answers = batch(&pool, &requests).await?;
    assert_eq!(
        codes(&answers),
        ["ok", "out_of_stock", "ok", "ok", "ok", "ok"]
    );
    assert!(
        matches!(&answers[5], Reaction::Success { result, .. } if result["items"] == json!([]))
    );
    assert_eq!(stock(&pool, item).await?, (0, 0, 1));
    let states: Vec<_> = store::reservations_of(&pool, order).await?;
    assert_eq!(states.len(), 1);
    assert_eq!(states[0].1.state.as_str(), "released");
    Ok(())
}

#[tokio::test]
async fn a_final_sale_is_given_back_when_it_is_compensated() -> Result<()> {
    let pool = database().await?;
    let (item, order) = (product(&pool, 3).await?, Uuid::new_v4());
    let mut sale = reserve(order, &[(item, 2)]);
    sale.payload["final"] = json!(true);
    assert_eq!(codes(&batch(&pool, &[sale]).await?), ["ok"]);
    assert_eq!(stock(&pool, item).await?, (1, 0, 2));
    assert_eq!(codes(&batch(&pool, &[release(order)]).await?), ["ok"]);
    assert_eq!(stock(&pool, item).await?, (3, 0, 0));
    Ok(())
}

#[tokio::test]
async fn an_impossible_command_is_answered_and_changes_nothing() -> Result<()> {
    let pool = database().await?;
    let (item, order) = (product(&pool, 1).await?, Uuid::new_v4());
    let requests = [
        reserve(order, &[(item, 1), (Uuid::new_v4(), 1)]),
        reserve(order, &[(item, 2)]),
        reserve(order, &[]),
        command(
            "inventory.reserve",
            json!({"orderId": "not an id", "items": []}),
        ),
        command("inventory.release", json!([])),
        complete(order),
        command("inventory.paint", json!({})),
    ];
    let answers = batch(&pool, &requests).await?;
    assert_eq!(
        codes(&answers),
        [
            "unknown_product",
            "out_of_stock",
            "invalid_payload",
            "invalid_payload",
            "invalid_payload",
            "not_reserved",
            "unknown_command"
        ]
    );
    let Reaction::Failure { fault } = &answers[1] else {
        panic!("{answers:?}")
    };
    assert!(
        fault.message.contains(&item.to_string()),
        "{}",
        fault.message
    );
    assert!(
        fault.message.contains("2 wanted, 1 available"),
        "{}",
        fault.message
    );
    assert_eq!(stock(&pool, item).await?, (1, 0, 0));
    assert!(store::reservations_of(&pool, order).await?.is_empty());
    Ok(())
}

/// Regression: a second saga reserved another product for a confirmed order, and its release gave back the items that
/// the first saga had sold.
#[tokio::test]
async fn a_compensation_gives_back_nothing_that_another_saga_holds() -> Result<()> {
    let pool = database().await?;
    let (item, beside) = (product(&pool, 5).await?, product(&pool, 5).await?);
    let (order, other) = (Uuid::new_v4(), Uuid::new_v4());
    let reserve_beside = of_saga(
        other,
        "inventory.reserve",
        json!({"orderId": order, "items": [{"productId": beside, "quantity": 1}]}),
    );
    let back = undo(other, "inventory.release", json!({"orderId": order}));
    let own = reserve(order, &[(item, 2)]);
    // All in one batch, and then each alone, while the order is pending and when its stock is sold.
    let answers = batch(&pool, &[own, reserve_beside.clone(), back.clone()]).await?;
    let other_saga = "order_of_another_saga";
    assert_eq!(codes(&answers), ["ok", other_saga, other_saga]);
    for sold in [false, true] {
        if sold {
            assert_eq!(codes(&batch(&pool, &[complete(order)]).await?), ["ok"]);
        }
        for command in [&reserve_beside, &back] {
            let answers = batch(&pool, std::slice::from_ref(command)).await?;
            assert_eq!(codes(&answers), [other_saga]);
        }
        let expected = if sold { (3, 0, 2) } else { (3, 2, 0) };
        assert_eq!(stock(&pool, item).await?, expected);
    }
    assert_eq!(stock(&pool, beside).await?, (5, 0, 0));
    Ok(())
}

/// The two sagas have no row in common before one of them has written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_concurrent_sagas_of_one_order_holds_the_reservation() -> Result<()> {
    let pool = database().await?;
    let (first, second) = (product(&pool, 100).await?, product(&pool, 100).await?);
    for _ in 0..20 {
        let order = Uuid::new_v4();
        let request = |item: Uuid| {
            [of_saga(
                Uuid::new_v4(),
                "inventory.reserve",
                json!({"orderId": order, "items": [{"productId": item, "quantity": 1}]}),
            )]
        };
        let (one, two) = (request(first), request(second));
        let (one, two) = tokio::try_join!(batch(&pool, &one), batch(&pool, &two))?;
        let mut codes = [code(&one[0]), code(&two[0])];
        codes.sort_unstable();
        assert_eq!(codes, ["ok", "order_of_another_saga"]);
    }
    Ok(())
}

#[tokio::test]
async fn exactly_one_of_200_buyers_gets_the_last_item() -> Result<()> {
    let pool = database().await?;
    for _ in 0..5 {
        let item = product(&pool, 1).await?;
        let buyers: Vec<Command> = (0..200)
            .map(|_| reserve(Uuid::new_v4(), &[(item, 1)]))
            .collect();
        // Two members of the group, each with its own batches.
        let frames = buyers
            .chunks(100)
            .map(|mine| run_in_batches(&pool, mine, 20));
        let answers = try_join_all(frames).await?.concat();
        let winners = answers.iter().filter(|answer| code(answer) == "ok").count();
        let losers = answers
            .iter()
            .filter(|answer| code(answer) == "out_of_stock")
            .count();
        assert_eq!((winners, losers), (1, 199));
        assert_eq!(stock(&pool, item).await?, (0, 1, 0));
    }
    Ok(())
}

async fn run_in_batches(pool: &PgPool, commands: &[Command], size: usize) -> Result<Vec<Reaction>> {
    let mut answers = Vec::new();
    for commands in commands.chunks(size) {
        answers.extend(batch(pool, commands).await?);
    }
    Ok(answers)
}

/// A generator that gives the same sequence in every run (xorshift64, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Reserves every order, and completes or releases it in a later batch of the same caller.
async fn trade(pool: &PgPool, products: &[Uuid], seed: u64) -> Result<()> {
    const BATCHES: usize = 40;
    let mut dice = Dice(seed);
    let mut open: Vec<Uuid> = Vec::new();
    for _ in 0..BATCHES {
        let mut commands = Vec::new();
        for order in std::mem::take(&mut open) {
            commands.push(if dice.roll(2) == 0 {
                complete(order)
            } else {
                release(order)
            });
        }
        for _ in 0..10 {
            let mut line = || {
                (
                    products[dice.roll(products.len() as u64) as usize],
                    1 + dice.roll(2) as u32,
                )
            };
            let (order, lines) = (Uuid::new_v4(), [line(), line(), line()]);
            commands.push(reserve(order, &lines));
            open.push(order);
        }
        // A deadlock or a lost row would be an error here.
        let answers = batch(pool, &commands).await?;
        let refused: Vec<&Command> = answers
            .iter()
            .zip(&commands)
            .filter(|(answer, _)| code(answer) == "out_of_stock")
            .map(|(_, command)| command)
            .collect();
        open.retain(|order| !refused.iter().any(|c| c.payload["orderId"] == json!(order)));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_batches_never_deadlock_and_sums_stay_exact() -> Result<()> {
    const EACH: i64 = 200;
    let pool = database().await?;
    let mut products = Vec::new();
    for _ in 0..8 {
        products.push(product(&pool, EACH).await?);
    }
    try_join_all((1..=6_u64).map(|seed| trade(&pool, &products, seed * 7_919))).await?;
    for item in products {
        let (available, reserved, sold) = stock(&pool, item).await?;
        assert!(available >= 0 && reserved >= 0 && sold > 0);
        assert_eq!(available + reserved + sold, EACH);
        let held: Vec<(String, i64)> = sqlx::query_as(
            "SELECT state, SUM(quantity)::bigint FROM reservation WHERE product_id = $1 GROUP BY state",
        )
        .bind(item)
        .fetch_all(&pool)
        .await?;
        let sum = |state: &str| {
            held.iter()
                .find(|(name, _)| name == state)
                .map_or(0, |(_, quantity)| *quantity)
        };
        assert_eq!((sum("reserved"), sum("sold")), (reserved, sold));
    }
    Ok(())
}

#[tokio::test]
async fn a_restock_sets_the_available_quantity_and_keeps_reservations() -> Result<()> {
    let pool = database().await?;
    let (item, order) = (product(&pool, 3).await?, Uuid::new_v4());
    batch(&pool, &[reserve(order, &[(item, 2)])]).await?;
    let mut connection = pool.acquire().await?;
    let restock = store::restock(&mut connection, item, 10, Some("Lamp")).await?;
    assert!(!restock.created);
    assert_eq!(stock(&pool, item).await?, (10, 2, 0));
    let restock = store::restock(&mut connection, item, 4, None).await?;
    assert_eq!(restock.product.name.as_deref(), Some("Lamp"));
    // Received: 3 at first, 9 more when one was left, then 6 fewer. The sum is the 4 available and the 2 that the order
    // holds.
    let received: i64 = sqlx::query_scalar("SELECT received FROM stock WHERE product_id = $1")
        .bind(item)
        .fetch_one(&mut *connection)
        .await?;
    assert_eq!(received, 6);
    assert!(
        store::restock(&mut connection, Uuid::new_v4(), 0, None)
            .await?
            .created
    );
    Ok(())
}

#[tokio::test]
async fn no_batch_reads_a_table_from_end_to_end() -> Result<()> {
    let pool = database_as_in_service().await?;
    // Creating an index reads its table.
    let made = scans(&pool).await?;
    let mut products = Vec::new();
    for _ in 0..20 {
        products.push(product(&pool, 100).await?);
    }
    let orders: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    let reserve_all: Vec<Command> = orders
        .iter()
        .zip(&products)
        .map(|(order, item)| reserve(*order, &[(*item, 1)]))
        .collect();
    let complete_all: Vec<Command> = orders.iter().map(|order| complete(*order)).collect();
    assert!(
        batch(&pool, &reserve_all)
            .await?
            .iter()
            .all(|answer| code(answer) == "ok")
    );
    assert!(
        batch(&pool, &complete_all)
            .await?
            .iter()
            .all(|answer| code(answer) == "ok")
    );
    for ((table, before, _), (_, after, indexed)) in made.iter().zip(scans(&pool).await?) {
        assert_eq!(*before, after, "{table}");
        assert!(indexed >= 2, "{table}: {indexed}");
    }
    Ok(())
}
