//! Tests the complete participant over a real Kafka.

use crate::world::{Obedient, World, forward};
use saga_core::{
    ids::Timestamp,
    message::{Command, IncomingRecord, Input, OutgoingRecord, ReplyTo},
};
use saga_messaging::{
    kafka::{KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions},
    log::{LogReader, LogWriter, PollResult},
};
use saga_participant::internal::{self, ParticipantConfig, PerCommand};
use saga_test_support::environment::TestEnv;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

struct Topics {
    commands: String,
    replies: String,
    letters: String,
}

impl Topics {
    async fn new(env: &TestEnv) -> Self {
        let commands = env.unique("commands");
        let topics = Self {
            replies: env.unique("replies"),
            letters: format!("{commands}.dlq"),
            commands,
        };
        env.create_topics(&[
            (&topics.commands, 2),
            (&topics.replies, 4),
            (&topics.letters, 1),
        ])
        .await;
        topics
    }
}

async fn read(reader: &mut KafkaReader, count: usize) -> Vec<IncomingRecord> {
    let mut records = Vec::new();
    let all = async {
        while records.len() < count {
            if let PollResult::Records(more) = reader.poll(100).await.unwrap() {
                records.extend(more);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(40), all)
        .await
        .expect("the answers arrive");
    records
}

fn reply_id(record: &IncomingRecord) -> String {
    assert_eq!(record.partition, 3);
    match Input::decode(record).unwrap() {
        Input::Reply(reply) => reply.id(),
        other @ (Input::Start(_) | Input::Timer(_) | Input::Operator(_)) => panic!("{other:?}"),
    }
}

fn times(records: &[IncomingRecord]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for record in records {
        *times.entry(reply_id(record)).or_default() += 1;
    }
    times
}

#[tokio::test]
async fn commands_are_answered_once_more_after_a_restart_and_never_done_again() {
    let (env, world) = (TestEnv::shared().await, World::new().await);
    let topics = Topics::new(env).await;
    let kafka = KafkaConfig::plaintext(env.brokers());
    let start = |stop: &CancellationToken| {
        let mut config = ParticipantConfig::new("test", &topics.commands, env.unique("group"));
        config.reply_topics = [topics.replies.clone()].into();
        let (pool, kafka) = (world.pool.clone(), kafka.clone());
        tokio::spawn(internal::run(
            config,
            Arc::new(PerCommand::new(Arc::new(Obedient))),
            None,
            pool,
            kafka,
            stop.clone(),
        ))
    };
    let command = |behavior| Command {
        reply_to: ReplyTo {
            topic: topics.replies.clone(),
            partition: 3,
        },
        ..forward(world.saga(), 1, behavior)
    };
    let sent: Vec<Command> = (0..90).map(|_| command("succeed")).collect();
    let mut records: Vec<OutgoingRecord> = sent
        .iter()
        .chain([&command("panic")])
        .map(|command| command.encode(&topics.commands, "/test", Timestamp::UNIX_EPOCH))
        .collect();
    records[7].payload = b"not json".to_vec();
    let writer = KafkaWriter::connect(&kafka).unwrap();
    writer.publish(&records).await.unwrap();

    let stop = CancellationToken::new();
    let running = start(&stop);
    let group = env.unique("reader");
    let subscribe =
        |topic| KafkaReader::subscribe(&kafka, &group, &[topic], ReaderOptions::default()).unwrap();
    let mut replies = subscribe(&topics.replies);
    let answered = read(&mut replies, 90).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    let first = times(&answered);
    // These are 89 successes and the `error` for the panic.
    assert_eq!(first.len(), 90);

    // A group that has committed nothing reads everything again.
    let stop = CancellationToken::new();
    let running = start(&stop);
    let again = times(&read(&mut replies, 90).await);
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(again, first);
    let done: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM effect")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(done, 89);
    replies.close().await;

    let mut letters = subscribe(&topics.letters);
    let dead = read(&mut letters, 4).await;
    assert_eq!(
        dead.iter()
            .filter(|r| r.payload.as_deref() == Some(b"not json"))
            .count(),
        2
    );
    letters.close().await;
}
