//! Tests commands, their calls, and the settlement of the calls.

use crate::fixture::{
    approved, batch, call, calls, charge, database, database_as_in_service, refund, scans, status,
};
use anyhow::Result;
use payment_svc::{domain::EntryOutcome, store};
use saga_core::{ids::SagaId, message::Command};
use saga_participant::external::CallOutcome;
use saga_test_support::participant::Reaction;
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
async fn a_charge_is_called_settled_and_refunded() -> Result<()> {
    let pool = database().await?;
    let (calls, order) = (calls(&pool, &json!([]))?, Uuid::new_v4());
    let (pay, back) = (charge(order, 1_050), refund(order));
    assert_eq!(
        batch(&pool, std::slice::from_ref(&pay)).await?,
        [Reaction::CallOutside]
    );
    assert_eq!(status(&pool, order).await?, "charging");
    let CallOutcome::Success(result) = call(&pool, &calls, "1", &pay).await? else {
        panic!("not approved")
    };
    assert_eq!(
        (&result["amountMinor"], &result["currency"]),
        (&json!(1_050), &json!("EUR"))
    );
    assert_eq!(status(&pool, order).await?, "charged");

    assert_eq!(
        batch(&pool, std::slice::from_ref(&back)).await?,
        [Reaction::CallOutside]
    );
    assert_eq!(status(&pool, order).await?, "refunding");
    let CallOutcome::Success(result) = call(&pool, &calls, "2", &back).await? else {
        panic!("not refunded")
    };
    assert_eq!(result["amountMinor"], json!(1_050));
    assert_eq!(approved(&pool).await?, (1_050, 1_050));
    let record = store::find_record(&pool, order).await?.expect("a payment");
    assert_eq!(record.payment.status.as_str(), "refunded");
    let outcomes: Vec<EntryOutcome> = record.history.iter().map(|entry| entry.outcome).collect();
    let (asked, done) = (EntryOutcome::Requested, EntryOutcome::Succeeded);
    assert_eq!(outcomes, [asked, done, asked, done]);
    // A repeated refund is already done.
    let answers = batch(&pool, &[back]).await?;
    assert!(
        matches!(&answers[0], Reaction::Success { result, .. } if result["amountMinor"] == 1_050)
    );
    Ok(())
}

#[tokio::test]
async fn a_whole_amount_is_charged_however_it_is_written_and_no_other() -> Result<()> {
    let pool = database().await?;
    let calls = calls(&pool, &json!([]))?;
    let written = |text: &str| -> Result<_> {
        let mut command = charge(Uuid::new_v4(), 1);
        command.payload["amountMinor"] = serde_json::from_str(text)?;
        Ok(command)
    };
    for text in ["100", "100.0", "1e2"] {
        let pay = written(text)?;
        let answers = batch(&pool, std::slice::from_ref(&pay)).await?;
        assert_eq!(answers, [Reaction::CallOutside], "{text}");
        let outcome = call(&pool, &calls, text, &pay).await?;
        assert!(
            matches!(&outcome, CallOutcome::Success(result) if result["amountMinor"] == 100),
            "{text}: {outcome:?}"
        );
    }
    for text in ["100.5", "1000000000000001", "9007199254740993", "1e300"] {
        let answers = batch(&pool, &[written(text)?]).await?;
        assert!(
            matches!(&answers[..], [Reaction::Failure { fault }] if fault.code == "invalid_payload"),
            "{text}: {answers:?}"
        );
    }
    assert_eq!(approved(&pool).await?, (300, 0));
    Ok(())
}

#[tokio::test]
async fn a_declined_charge_is_a_failure_and_has_nothing_to_refund() -> Result<()> {
    let pool = database().await?;
    let (calls, order) = (calls(&pool, &json!([]))?, Uuid::new_v4());
    let pay = charge(order, 100_001);
    batch(&pool, std::slice::from_ref(&pay)).await?;
    let outcome = call(&pool, &calls, "1", &pay).await?;
    let CallOutcome::Failure(fault) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(fault.code, "payment_declined");
    assert_eq!(status(&pool, order).await?, "declined");
    let answers = batch(&pool, &[refund(order), refund(Uuid::new_v4())]).await?;
    for answer in answers {
        let Reaction::Success { reply_type, result } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(
            (reply_type.as_str(), &result["amountMinor"]),
            ("payment.refunded", &json!(0))
        );
    }
    assert_eq!(approved(&pool).await?, (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_time_out_is_settled_by_the_same_key_and_charges_once() -> Result<()> {
    let pool = database().await?;
    let rules = json!([{"effect": "time_out", "operation": "charge", "times": 1}]);
    let (calls, order) = (calls(&pool, &rules)?, Uuid::new_v4());
    let pay = charge(order, 500);
    batch(&pool, std::slice::from_ref(&pay)).await?;
    let lost = call(&pool, &calls, "1", &pay).await?;
    assert!(
        matches!(lost, CallOutcome::Indeterminate { .. }),
        "{lost:?}"
    );
    assert_eq!(status(&pool, order).await?, "charging");
    let told = call(&pool, &calls, "1", &pay).await?;
    assert!(matches!(told, CallOutcome::Success(_)), "{told:?}");
    assert_eq!(
        (status(&pool, order).await?.as_str(), approved(&pool).await?),
        ("charged", (500, 0))
    );
    Ok(())
}

#[tokio::test]
async fn a_definite_error_leaves_the_payment_open_for_the_next_attempt() -> Result<()> {
    let pool = database().await?;
    let customer = Uuid::from_u128(2);
    let rules = json!([{"effect": "error", "times": 1, "customer_id": customer}]);
    let (calls, order) = (calls(&pool, &rules)?, Uuid::new_v4());
    let (pay, back) = (charge(order, 500), refund(order));
    batch(&pool, std::slice::from_ref(&pay)).await?;
    let outcome = call(&pool, &calls, "1", &pay).await?;
    let CallOutcome::Error(fault) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(fault.code, "gateway_error");
    assert_eq!(status(&pool, order).await?, "charge_failed");
    assert_eq!(
        batch(&pool, std::slice::from_ref(&pay)).await?,
        [Reaction::CallOutside]
    );
    call(&pool, &calls, "2", &pay).await?;
    assert_eq!(status(&pool, order).await?, "charged");

    // The rule matches the refund's customer although the command does not name one.
    batch(&pool, std::slice::from_ref(&back)).await?;
    let outcome = call(&pool, &calls, "3", &back).await?;
    assert!(matches!(outcome, CallOutcome::Error(_)), "{outcome:?}");
    assert_eq!(status(&pool, order).await?, "refund_failed");
    assert_eq!(
        batch(&pool, std::slice::from_ref(&back)).await?,
        [Reaction::CallOutside]
    );
    call(&pool, &calls, "4", &back).await?;
    assert_eq!(status(&pool, order).await?, "refunded");
    assert_eq!(approved(&pool).await?, (500, 500));
    Ok(())
}

#[tokio::test]
async fn bad_payloads_are_refused_and_leave_nothing_behind() -> Result<()> {
    let pool = database().await?;
    let order = Uuid::new_v4();
    let with = |key: &str, value: Value| {
        let mut command = charge(order, 100);
        command.payload[key] = value;
        command
    };
    let wishes = [
        charge(order, 0),
        charge(order, -1),
        with("currency", json!("euro")),
        with("amountMinor", json!("ten")),
        with("orderId", json!(7)),
    ];
    for answer in batch(&pool, &wishes).await? {
        let Reaction::Failure { fault } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(fault.code, "invalid_payload");
    }
    assert_eq!(status(&pool, order).await?, "none");
    Ok(())
}

#[tokio::test]
async fn a_second_step_of_the_saga_does_not_charge_the_order_again() -> Result<()> {
    let pool = database().await?;
    let (calls, order) = (calls(&pool, &json!([]))?, Uuid::new_v4());
    let pay = charge(order, 500);
    let mut rival = pay.clone();
    rival.step = "charge-again".to_owned();
    let answers = batch(&pool, &[pay.clone(), rival.clone()]).await?;
    assert_eq!(answers[0], Reaction::CallOutside);
    assert!(matches!(&answers[1], Reaction::Error { fault } if fault.code == "payment_busy"));
    call(&pool, &calls, "1", &pay).await?;
    let answers = batch(&pool, &[rival]).await?;
    assert!(matches!(&answers[0], Reaction::Failure { fault } if fault.code == "already_charged"));
    Ok(())
}

/// Regression: a saga whose charge was refused refunded the charge of the order's own saga.
#[tokio::test]
async fn another_saga_neither_charges_nor_refunds_an_order() -> Result<()> {
    let pool = database().await?;
    let (calls, order) = (calls(&pool, &json!([]))?, Uuid::new_v4());
    let pay = charge(order, 500);
    let by_another = |command: Command| Command {
        saga_id: SagaId(Uuid::new_v4()),
        ..command
    };
    let (rival, back) = (by_another(pay.clone()), by_another(refund(order)));
    // In the batch of the first charge, while the gateway is called, and afterwards.
    for moment in ["charging", "charging", "charged"] {
        let first = (moment, status(&pool, order).await?) == ("charging", "none".to_owned());
        let own = first.then(|| pay.clone());
        let wishes: Vec<Command> = own
            .into_iter()
            .chain([rival.clone(), back.clone()])
            .collect();
        let answers = batch(&pool, &wishes).await?;
        for answer in &answers[usize::from(first)..] {
            assert!(
                matches!(answer, Reaction::Failure { fault } if fault.code == "order_of_another_saga"),
                "{answer:?}"
            );
        }
        assert_eq!(status(&pool, order).await?, moment);
        if !first && moment == "charging" {
            call(&pool, &calls, "1", &pay).await?;
        }
    }
    assert_eq!(approved(&pool).await?, (500, 0));
    Ok(())
}

#[tokio::test]
async fn the_history_is_bounded_and_keeps_its_beginning_and_end() -> Result<()> {
    let pool = database().await?;
    let (calls, order) = (calls(&pool, &json!([{"effect": "error"}]))?, Uuid::new_v4());
    let pay = charge(order, 500);
    for attempt in 0..40 {
        batch(&pool, std::slice::from_ref(&pay)).await?;
        call(&pool, &calls, &attempt.to_string(), &pay).await?;
    }
    let record = store::find_record(&pool, order).await?.expect("a payment");
    assert_eq!(record.history.len(), 50);
    assert_eq!(record.history[0].outcome, EntryOutcome::Requested);
    assert!(record.history[0].at <= record.history[1].at);
    assert_eq!(record.history[49].outcome, EntryOutcome::Failed);
    Ok(())
}

#[tokio::test]
async fn payments_are_listed_newest_first_page_by_page() -> Result<()> {
    let pool = database().await?;
    let orders: Vec<Uuid> = (1..=5).map(Uuid::from_u128).collect();
    let commands: Vec<_> = orders.iter().map(|order| charge(*order, 100)).collect();
    batch(&pool, &commands).await?;
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = store::list_records(&pool, after, 2).await?;
        seen.extend(page.payments.iter().map(|record| record.payment.order_id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, orders.into_iter().rev().collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn no_batch_reads_a_table_from_end_to_end() -> Result<()> {
    let pool = database_as_in_service().await?;
    // Creating an index reads its table.
    let made = scans(&pool).await?;
    let calls = calls(&pool, &json!([]))?;
    let commands: Vec<_> = (0..20).map(|_| charge(Uuid::new_v4(), 100)).collect();
    assert!(
        batch(&pool, &commands)
            .await?
            .iter()
            .all(|answer| *answer == Reaction::CallOutside)
    );
    for (number, pay) in commands.iter().enumerate() {
        call(&pool, &calls, &number.to_string(), pay).await?;
        // The second call finds the key.
        call(&pool, &calls, &number.to_string(), pay).await?;
    }
    for ((table, before, _), (_, after, indexed)) in made.iter().zip(scans(&pool).await?) {
        assert_eq!(*before, after, "{table}");
        assert!(indexed >= 2, "{table}: {indexed}");
    }
    Ok(())
}
