//! Promises about transactions, which apply completely or not at all, and about floors.

use super::*;

pub async fn what_is_not_committed_is_not_there<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let at = now(&store).await;
    let saga = sagas(&store, 1).await[0];
    let mut tx = begin(&store).await;
    let terms = terms_of(&mut tx).await;
    let forward = key(saga, Direction::Forward);
    tx.insert_barrier(&[(&forward, &entry(Mark::Done, at))])
        .await
        .unwrap();
    tx.write_intents(&[(&forward, &intent(saga, at))])
        .await
        .unwrap();
    tx.raise_seen_floor(terms.seen_floor_ms + 1).await.unwrap();
    bench.write(tx.connection(), "lost").await.unwrap();
    drop(tx);
    assert_eq!(barrier_of(&store, &[saga]).await, []);
    assert_eq!(intents_of(&store, &[saga]).await, []);
    assert_eq!(
        terms_of(&mut begin(&store).await).await.seen_floor_ms,
        terms.seen_floor_ms
    );
    assert_eq!(bench.effects(&store).await, [""; 0]);
}

pub async fn what_is_committed_stands_as_it_was_written<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let at = now(&store).await;
    let sagas = sagas(&store, 4).await;
    let marks = [Mark::Pending, Mark::Done, Mark::Failed, Mark::Refused];
    let rows: Vec<(RowKey, BarrierRow)> = sagas
        .iter()
        .zip(marks)
        .flat_map(|(saga, mark)| {
            let row = |direction| (key(*saga, direction), entry(mark, at));
            [row(Direction::Forward), row(Direction::Compensation)]
        })
        .collect();
    let states = [
        IntentState::Open,
        IntentState::Settled,
        IntentState::Released,
        IntentState::Expired,
    ];
    let intents: Vec<(RowKey, Intent)> = sagas
        .iter()
        .zip(states)
        .map(|(saga, state)| {
            let full = Intent {
                generation: 3,
                state,
                cancel: Some(command(*saga, Direction::Compensation)),
                resolve: Some(command(*saga, Direction::Resolve)),
                replies: Some(vec![prepared(*saga, at), prepared(*saga, at)]),
                ..intent(*saga, at)
            };
            (key(*saga, Direction::Forward), full)
        })
        .collect();
    let mut tx = begin(&store).await;
    let count = tx.insert_barrier(&borrowed(&rows)).await.unwrap();
    assert_eq!(count, 8);
    tx.write_intents(&borrowed(&intents)).await.unwrap();
    bench.write(tx.connection(), "kept").await.unwrap();
    tx.commit().await.unwrap();
    let mut asked = sagas.clone();
    asked.push(unknown_saga());
    assert_eq!(barrier_of(&store, &asked).await, rows);
    assert_eq!(intents_of(&store, &asked).await, intents);
    assert_eq!(barrier_of(&store, &sagas[1..2]).await, rows[2..4]);
    assert_eq!(bench.effects(&store).await, ["kept"]);
}

pub async fn the_seen_floor_only_rises<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let begun = terms_of(&mut begin(&store).await).await.seen_floor_ms;
    for (raised, stands) in [(5, 5), (3, 5), (9, 9)] {
        let mut tx = begin(&store).await;
        tx.raise_seen_floor(begun + raised).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(
            terms_of(&mut begin(&store).await).await.seen_floor_ms,
            begun + stands
        );
    }
}

pub async fn a_transaction_sees_what_it_wrote<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let at = now(&store).await;
    let saga = sagas(&store, 1).await[0];
    let forward = key(saga, Direction::Forward);
    let row = (forward.clone(), entry(Mark::Done, at));
    let intent = (forward, intent(saga, at));
    let mut tx = begin(&store).await;
    tx.insert_barrier(&[(&row.0, &row.1)]).await.unwrap();
    tx.write_intents(&[(&intent.0, &intent.1)]).await.unwrap();
    assert_eq!(tx.read_barrier(&[saga]).await.unwrap().rows, [row]);
    assert_eq!(tx.lock_intents(&[saga]).await.unwrap(), [intent]);
}

pub async fn what_follows_a_savepoint_is_undone_alone<B: ParticipantBench>(bench: &B) {
    use saga_participant::storage::Savepoints;
    let store = bench.store().await;
    let mut tx = begin(&store).await;
    let connection = tx.connection();
    bench.write(connection, "before").await.unwrap();
    for (effect, kept) in [("first", false), ("second", true), ("third", false)] {
        connection.savepoint().await.unwrap();
        bench.write(connection, effect).await.unwrap();
        if kept {
            connection.release_savepoint().await.unwrap();
        } else {
            connection.roll_back_to_savepoint().await.unwrap();
        }
    }
    bench.write(connection, "behind").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(bench.effects(&store).await, ["before", "behind", "second"]);
}
