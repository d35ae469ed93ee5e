//! Tests a broker whose connections go silent: no data is forwarded, and no side is notified.

use crate::{SOON, join, next_records, text};
use saga_core::message::{Headers, OutgoingRecord};
use saga_messaging::{
    kafka::{
        GroupOffsets, KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions, TopicSpec,
        ensure_topics, health,
    },
    log::{LogError, LogReader, LogWriter},
};
use saga_servers::{KafkaOptions, KafkaServer, free_port};
use saga_test_support::{environment::until, proxy::Proxy};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// Time to recover: the connection to a silent broker is given up after ten seconds; then a new connection is made and,
/// for a consumer, the group is joined.
const RECOVERY: Duration = Duration::from_secs(37);

/// A broker that clients reach only through a proxy, which is also the address that the broker advertises.
struct Behind {
    proxy: Proxy,
    directory: PathBuf,
    _server: KafkaServer,
}

impl Behind {
    async fn start() -> Self {
        let (port, controller, listener) = (free_port(), free_port(), free_port());
        let proxy = Proxy::start(listener).await.unwrap();
        let through = proxy.port;
        let properties = [
            (
                "listeners",
                format!(
                    "PLAINTEXT://127.0.0.1:{port},THROUGH://127.0.0.1:{listener},CONTROLLER://127.0.0.1:{controller}"
                ),
            ),
            (
                "advertised.listeners",
                format!("PLAINTEXT://127.0.0.1:{port},THROUGH://127.0.0.1:{through}"),
            ),
            (
                "listener.security.protocol.map",
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,THROUGH:PLAINTEXT".to_owned(),
            ),
            ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
            (
                "controller.quorum.voters",
                format!("1@127.0.0.1:{controller}"),
            ),
        ];
        let directory = std::env::temp_dir().join(format!("saga-silence-{}", std::process::id()));
        let options = KafkaOptions {
            quick_start: true,
            heap_mb: 384,
            extra_properties: properties
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            ..KafkaOptions::new(directory.join("kafka"), port)
        };
        Self {
            proxy,
            _server: KafkaServer::start(options).await.unwrap(),
            directory,
        }
    }

    fn config(&self) -> KafkaConfig {
        KafkaConfig::plaintext(format!("127.0.0.1:{}", self.proxy.port))
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

fn record(payload: &str) -> OutgoingRecord {
    OutgoingRecord {
        topic: "silence".to_owned(),
        partition: Some(0),
        key: b"key".to_vec(),
        headers: Headers::default(),
        payload: payload.as_bytes().to_vec(),
    }
}

/// Publishes like a consumer: until the log has acknowledged the record.
async fn publish(writer: &KafkaWriter, payload: &str) {
    loop {
        match writer.publish(&[record(payload)]).await {
            Ok(_) => return,
            Err(LogError::Unavailable(_)) => {}
            Err(refused @ (LogError::Refused(_) | LogError::TooLarge(_))) => panic!("{refused:?}"),
        }
    }
}

async fn read(reader: &mut KafkaReader, payload: &str) {
    loop {
        let records = next_records(reader, 10).await;
        reader.done(&records).unwrap();
        if records.iter().any(|record| text(record) == payload) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_of_a_broker_that_went_silent_finds_it_again() {
    let broker = Behind::start().await;
    let config = broker.config();
    ensure_topics(&config, &[TopicSpec::new("silence", 1)])
        .await
        .unwrap();
    let writer = KafkaWriter::connect(&config).unwrap();
    let offsets = GroupOffsets::connect(&config, "group").unwrap();
    let mut reader =
        KafkaReader::subscribe(&config, "group", &["silence"], ReaderOptions::default()).unwrap();
    join(&mut reader).await;
    publish(&writer, "before").await;
    read(&mut reader, "before").await;
    offsets.committed("silence").await.unwrap();

    broker.proxy.forget();
    let began = Instant::now();
    let producing = async {
        publish(&writer, "after").await;
        began.elapsed()
    };
    let consuming = async {
        tokio::time::timeout(RECOVERY, read(&mut reader, "after"))
            .await
            .expect("the record is read");
        began.elapsed()
    };
    let asking = async {
        until("offsets are told", SOON, || offsets.committed("silence")).await;
        began.elapsed()
    };
    let looking = async {
        until("the cluster answers", SOON, || health(&config)).await;
        began.elapsed()
    };
    let took: [Duration; 4] = tokio::join!(producing, consuming, asking, looking).into();
    assert!(took.iter().all(|took| *took < RECOVERY), "{took:?}");
    reader.close().await;
}
