//! Tests that Kafka keeps the promises of the simulated log, and the outbox on Postgres those of the simulated outbox.

use crate::Bench;
use async_trait::async_trait;
use saga_messaging::kafka::{KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions};
use saga_test_support::{
    contract::{log::LogBench, outbox::OutboxBench},
    environment::TestEnv,
    log_contract, outbox_store_contract,
};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

struct Kafka;

#[async_trait]
impl LogBench for Kafka {
    type Reader = KafkaReader;
    type Writer = KafkaWriter;

    async fn topic(&self, partitions: i32) -> String {
        Bench::new("contract", partitions).await.topic
    }

    async fn writer(&self) -> KafkaWriter {
        let brokers = TestEnv::shared().await.brokers();
        KafkaWriter::connect(&KafkaConfig::plaintext(brokers)).unwrap()
    }

    /// Joins a group whose name includes the topic, so that groups of the same name on different topics are separate.
    async fn join(&self, group: &str, topic: &str) -> KafkaReader {
        let brokers = TestEnv::shared().await.brokers();
        KafkaReader::subscribe(
            &KafkaConfig::plaintext(brokers),
            &format!("{group}-{topic}"),
            &[topic],
            ReaderOptions::default(),
        )
        .unwrap()
    }
}

mod log {
    use super::*;

    log_contract!(Kafka, #[tokio::test(flavor = "multi_thread")]);
}

struct Table;

#[async_trait]
impl OutboxBench for Table {
    type Store = PgPool;
    type Tx = Transaction<'static, Postgres>;
    type Stager = PgConnection;

    async fn store(&self) -> PgPool {
        crate::outbox::database().await
    }

    async fn begin(&self, store: &PgPool) -> Self::Tx {
        store.begin().await.unwrap()
    }

    fn stager<'a>(&self, tx: &'a mut Self::Tx) -> &'a mut PgConnection {
        tx
    }

    async fn commit(&self, tx: Self::Tx) {
        tx.commit().await.unwrap();
    }
}

mod outbox {
    use super::*;

    outbox_store_contract!(Table, #[tokio::test]);
}
