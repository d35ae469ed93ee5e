//! Runs the contracts of Postgres and Kafka on the simulated stores and the simulated log.

use super::{
    log::{SimReader, SimWriter},
    process::Process,
    store::{
        Database, ParticipantTables, SagaTables, SimConnection, SimOutbox, SimParticipantStore,
        SimSagaStore,
    },
    world::{Plan, World, saga_id},
};
use crate::store_contract::SagaBench;
use async_trait::async_trait;
use saga_core::{definition::SagaDefinition, message::Direction};
use saga_messaging::consumer::BatchError;
use saga_test_support::contract::{
    log::LogBench, outbox::OutboxBench, participant::ParticipantBench,
};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Returns a process in a world without failures.
fn calm() -> Process {
    let world = World::new(&Plan::default());
    world.faults().stop();
    Process::new(world, "process")
}

fn database(process: &Process) -> Arc<Database<ParticipantTables>> {
    Database::new(
        Arc::clone(&process.world),
        "database",
        ParticipantTables::default(),
    )
}

struct Participant;

#[async_trait]
impl ParticipantBench for Participant {
    type Store = SimParticipantStore;

    async fn store(&self) -> SimParticipantStore {
        let process = calm();
        SimParticipantStore::new(&database(&process), &process)
    }

    async fn write(&self, connection: &mut SimConnection, effect: &str) -> Result<(), BatchError> {
        let saga = saga_id(connection.now(), 1);
        connection.record(saga, effect, Direction::Forward);
        Ok(())
    }

    async fn effects(&self, store: &SimParticipantStore) -> Vec<String> {
        let tables = store.database().tables();
        let mut effects: Vec<String> = tables
            .effects
            .iter()
            .map(|effect| effect.step.clone())
            .collect();
        effects.sort();
        effects
    }
}

mod participant {
    use super::*;

    saga_test_support::participant_store_contract!(Participant, #[tokio::test(start_paused = true)]);
}

struct Table;

#[async_trait]
impl OutboxBench for Table {
    type Store = SimOutbox;
    type Tx = SimConnection;
    type Stager = SimConnection;

    async fn store(&self) -> SimOutbox {
        let process = calm();
        SimOutbox::new(&database(&process), &process)
    }

    async fn begin(&self, store: &SimOutbox) -> SimConnection {
        store.begin().await.unwrap()
    }

    fn stager<'a>(&self, tx: &'a mut SimConnection) -> &'a mut SimConnection {
        tx
    }

    async fn commit(&self, tx: SimConnection) {
        tx.commit().await.unwrap();
    }
}

mod outbox {
    use super::*;

    saga_test_support::outbox_store_contract!(Table, #[tokio::test(start_paused = true)]);
}

/// A log with one world per test. Each of its members is a process of its own.
#[derive(Default)]
struct Log {
    world: OnceLock<Arc<World>>,
    processes: AtomicU64,
}

impl Log {
    fn process(&self) -> Process {
        let world = self.world.get_or_init(|| Arc::clone(&calm().world));
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        Process::new(Arc::clone(world), format!("process-{number}"))
    }
}

#[async_trait]
impl LogBench for Log {
    type Reader = SimReader;
    type Writer = SimWriter;

    async fn topic(&self, partitions: i32) -> String {
        let process = self.process();
        let topic = format!("topic-{}", process.name());
        process
            .world
            .broker
            .create(&topic, partitions.unsigned_abs() as usize);
        topic
    }

    async fn writer(&self) -> SimWriter {
        SimWriter::new(&self.process())
    }

    async fn join(&self, group: &str, topic: &str) -> SimReader {
        SimReader::subscribe(&self.process(), &format!("{group}-{topic}"), topic)
    }
}

mod log {
    use super::*;

    saga_test_support::log_contract!(Log::default(), #[tokio::test(start_paused = true)]);
}

struct Engine;

#[async_trait]
impl SagaBench for Engine {
    type Store = SimSagaStore;

    async fn store(&self, definition: &SagaDefinition) -> SimSagaStore {
        let process = calm();
        let mut tables = SagaTables::default();
        tables
            .definitions
            .insert(definition.hash.clone(), definition.clone());
        let database = Database::new(Arc::clone(&process.world), "saga", tables);
        SimSagaStore::new(&database, &process)
    }
}

mod saga {
    use super::*;

    crate::saga_store_contract!(Engine, #[tokio::test(start_paused = true)]);
}
