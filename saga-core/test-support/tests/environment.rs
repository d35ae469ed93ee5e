//! Tests the test environment, on whichever backend it chooses.

use anyhow::Result;
use rdkafka::{
    ClientConfig, Message,
    consumer::{Consumer, StreamConsumer},
    producer::{FutureProducer, FutureRecord},
};
use saga_test_support::environment::{Server, TestEnv, until};
use sqlx::{Connection, PgConnection};
use std::time::{Duration, Instant};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

fn producer(env: &TestEnv) -> Result<FutureProducer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", env.brokers())
        .set("message.timeout.ms", "20000")
        .create()?)
}

async fn send(producer: &FutureProducer, topic: &str, text: &str) -> Result<()> {
    let record = FutureRecord::to(topic).key("key").payload(text);
    producer
        .send(record, SOON)
        .await
        .map_err(|(error, _)| error)?;
    Ok(())
}

async fn read_first(env: &TestEnv, topic: &str) -> Result<String> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", env.brokers())
        .set("group.id", env.unique("group"))
        .set("auto.offset.reset", "earliest")
        .create()?;
    consumer.subscribe(&[topic])?;
    let message = timeout(SOON, consumer.recv()).await??;
    Ok(message.payload_view::<str>().unwrap_or(Ok(""))?.to_owned())
}

async fn ask(url: &str) -> Result<i32, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let one = sqlx::query_scalar("SELECT 1")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(one)
}

#[tokio::test]
async fn databases_are_empty_and_apart() -> Result<()> {
    let postgres = TestEnv::postgres_only().await;
    let began = Instant::now();
    let (first, second) = tokio::join!(
        postgres.create_database("apart"),
        postgres.create_database("apart")
    );
    println!("two databases in {:?}", began.elapsed());
    assert_ne!(first, second);
    let mut connection = PgConnection::connect(&first).await?;
    sqlx::query("CREATE TABLE mine (id int)")
        .execute(&mut connection)
        .await?;
    let mut other = PgConnection::connect(&second).await?;
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            .fetch_one(&mut other)
            .await?;
    assert_eq!(tables, 0);
    Ok(())
}

#[tokio::test]
async fn role_reaches_its_own_database_only() -> Result<()> {
    let postgres = TestEnv::postgres_only().await;
    let (own, other) = tokio::join!(
        postgres.create_role_and_database("own"),
        postgres.create_role_and_database("other")
    );
    assert_eq!(ask(&own).await?, 1);
    let (_, other_database) = other.rsplit_once('/').expect("a database");
    let (base, _) = own.rsplit_once('/').expect("a database");
    let refused = ask(&format!("{base}/{other_database}")).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("permission denied")));
    Ok(())
}

#[tokio::test]
async fn message_travels_through_a_new_topic() -> Result<()> {
    let env = TestEnv::shared().await;
    let topic = env.unique("travel");
    env.create_topics(&[(&topic, 2)]).await;
    // The topics are created twice, as by services that start together.
    env.create_topics(&[(&topic, 2)]).await;
    send(&producer(env)?, &topic, "hello").await?;
    assert_eq!(read_first(env, &topic).await?, "hello");
    Ok(())
}

#[tokio::test]
async fn servers_recover_from_every_fault_with_their_data() -> Result<()> {
    let env = TestEnv::exclusive().await;
    let topic = env.unique("fault");
    env.create_topics(&[(&topic, 1)]).await;
    let producer = producer(&env)?;
    send(&producer, &topic, "kept").await?;
    let database = env.create_database("fault").await;

    for server in [Server::Postgres, Server::Kafka] {
        env.kill(server).await;
    }
    assert!(ask(&database).await.is_err(), "a killed Postgres answers");
    tokio::join!(env.start(Server::Postgres), env.start(Server::Kafka));
    assert_eq!(ask(&database).await?, 1);
    assert_eq!(read_first(&env, &topic).await?, "kept");

    env.pause(Server::Postgres).await;
    assert!(
        timeout(Duration::from_millis(300), ask(&database))
            .await
            .is_err(),
        "a paused one answers"
    );
    env.resume(Server::Postgres).await;
    until("Postgres goes on", SOON, || ask(&database)).await;

    env.pause(Server::Kafka).await;
    let sent = send(&producer, &topic, "held");
    tokio::pin!(sent);
    assert!(
        timeout(Duration::from_millis(300), &mut sent)
            .await
            .is_err(),
        "a paused Kafka acks"
    );
    env.resume(Server::Kafka).await;
    sent.await?;

    tokio::join!(env.stop(Server::Postgres), env.stop(Server::Kafka));
    tokio::join!(env.start(Server::Postgres), env.start(Server::Kafka));
    assert_eq!(ask(&database).await?, 1);
    assert_eq!(read_first(&env, &topic).await?, "kept");
    Ok(())
}
