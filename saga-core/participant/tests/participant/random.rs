//! Tests random commands: neither batching nor concurrent transactions change the results.

use crate::world::{
    Instance, Outside, World, Written, all_told, compensation, forward, records, replies, resolve,
    take,
};
use saga_core::{ids::SagaId, message::Command};
use saga_messaging::consumer::{BatchError, Processor};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A small random generator (splitmix64, <https://prng.di.unimi.it/splitmix64.c>), so that a failing seed can be run
/// again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn command(&mut self, sagas: &[SagaId]) -> Command {
        let saga = sagas[self.below(sagas.len())];
        let attempt = 1 + self.below(3) as u32;
        let behavior = ["succeed", "succeed", "fail", "error"][self.below(4)];
        match self.below(6) {
            0..3 => forward(saga, attempt, behavior),
            3 | 4 => compensation(saga, attempt, behavior),
            _ => resolve(saga, attempt),
        }
    }
}

/// Returns the same command for another saga.
fn moved(command: &Command, from: &[SagaId], to: &[SagaId]) -> Command {
    let place = from.iter().position(|saga| *saga == command.saga_id);
    Command {
        saga_id: to[place.unwrap()],
        ..command.clone()
    }
}

#[tokio::test]
async fn any_batching_of_the_same_commands_gives_the_same_answers() {
    let world = World::new().await;
    let mut frame = world.frame();
    for seed in 0..12 {
        let mut random = Random(seed);
        let batched: Vec<SagaId> = (0..5).map(|_| world.saga()).collect();
        let alone: Vec<SagaId> = (0..5).map(|_| world.saga()).collect();
        let commands: Vec<Command> = (0..60).map(|_| random.command(&batched)).collect();
        let mut answers = Vec::new();
        let mut left = &commands[..];
        while !left.is_empty() {
            let (batch, rest) = left.split_at(1 + random.below(left.len().min(20)));
            answers.extend(all_told(&take(&mut frame, batch).await));
            left = rest;
        }
        for (command, answer) in commands.iter().zip(&answers) {
            let single = take(&mut frame, &[moved(command, &batched, &alone)]).await;
            assert_eq!(&all_told(&single)[0], answer, "seed {seed}");
        }
        for (one, other) in batched.iter().zip(&alone) {
            assert_eq!(
                world.rows(*one).await,
                world.rows(*other).await,
                "seed {seed}"
            );
            let effects = world.effects(*one).await;
            assert_eq!(effects, world.effects(*other).await, "seed {seed}");
            assert!(effects.iter().filter(|what| *what == "test.do").count() <= 1);
            assert!(effects.iter().filter(|what| *what == "test.undo").count() <= 1);
        }
    }
}

async fn insist(instance: &mut Instance, commands: &[Command]) {
    let batch = records(commands);
    loop {
        match instance.frame.process(&batch).await {
            Ok(_) => return,
            Err(BatchError::Retry(_)) => tokio::task::yield_now().await,
            Err(error @ BatchError::Data(_)) => panic!("{error:?}"),
        }
    }
}

/// Two processes both assume that they own the partition. Their leases are so short that each also claims the other's
/// calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_beside_the_owner_changes_nothing() {
    let world = World::new().await;
    let outside = Outside::with_lease(Duration::from_millis(30));
    let (mut owner, mut zombie) = (world.instance(&outside), world.instance(&outside));
    let sagas: Vec<SagaId> = (0..40).map(|_| world.saga()).collect();
    let mut commands: Vec<Command> = sagas.iter().map(|saga| forward(*saga, 1, "call")).collect();
    let undone = &sagas[..20];
    commands.extend(undone.iter().map(|saga| compensation(*saga, 1, "call")));
    tokio::join!(
        async {
            for batch in commands.chunks(7) {
                insist(&mut owner, batch).await;
            }
        },
        async {
            for batch in commands.chunks(11) {
                insist(&mut zombie, batch).await;
            }
        }
    );
    let (written, shutdown) = (Written::default(), CancellationToken::new());
    let running = [owner, zombie]
        .map(|instance| tokio::spawn(instance.open.run(written.clone(), shutdown.clone())));
    let settled = async {
        loop {
            let open: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM intent")
                .fetch_one(&world.pool)
                .await
                .unwrap();
            if open == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), settled)
        .await
        .unwrap();
    shutdown.cancel();
    for instance in running {
        instance.await.unwrap();
    }
    assert_eq!(outside.effects().len(), 60);
    let all = ["test.do", "test.done", "test.undo", "test.undone"];
    for (n, saga) in sagas.iter().enumerate() {
        let (rows, effects) = if n < 20 {
            ("F=D C=D", &all[..])
        } else {
            ("F=D", &all[..2])
        };
        assert_eq!(world.rows(*saga).await, rows);
        assert_eq!(world.effects(*saga).await, effects);
    }
    let answered: std::collections::BTreeSet<String> = replies(&written.taken())
        .iter()
        .map(saga_core::message::Reply::id)
        .collect();
    assert_eq!(answered.len(), 60);
}
