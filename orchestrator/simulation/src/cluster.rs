//! The processes of a run: two copies of each service, which are started again when they die.

use super::{
    intake::Intake,
    log::{SimOffsets, SimReader, SimWriter},
    participants::{Calls, Gateway, Handler, InBatches},
    process::Process,
    random::digest,
    reticent::ReticentWriter,
    store::{Database, ParticipantTables, SagaTables, SimParticipantStore, SimSagaStore},
    workload::{CALLER, COMMAND_LIMIT_BYTES, PARTICIPANTS, Workload},
    world::{World, lock},
};
use chrono::TimeDelta;
use orchestrator::engine::{
    Engine,
    settings::{EngineSettings, Participant, Participants},
    shared::Shared,
    timer_driver::TimerDriver,
    timers::offsets::OffsetReader,
};
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{
        PayloadLimit,
        topic::{ORCHESTRATOR_GROUP, SAGA_EVENTS, SAGA_INPUTS},
    },
};
use saga_messaging::{
    consumer::{self, ConsumerSettings},
    log::LogError,
    progress::Progress,
};
use saga_participant::internal::{
    CommandProcessor, ParticipantConfig, PerCommand, RawBatchHandler, RawCalls,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// The least time that participants keep their barrier rows.
pub const RETENTION: TimeDelta = TimeDelta::hours(2);
/// Time between two rounds of an orchestrator's upkeep.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Interval at which a process that is kept down checks whether it may start, and the coordinator checks for expired
/// sessions.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The number of processes of each service.
const COPIES: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Orchestrator,
    Participant(&'static str),
    Intake,
}

/// The cluster: its databases, the gateway, and the running processes.
pub struct Cluster {
    pub world: Arc<World>,
    pub workload: Arc<Workload>,
    pub sagas: Arc<Database<SagaTables>>,
    pub participants: BTreeMap<&'static str, Arc<Database<ParticipantTables>>>,
    gateway: Arc<Gateway>,
    running: Mutex<BTreeMap<String, Running>>,
    kept_down: Mutex<BTreeMap<String, Instant>>,
}

struct Running {
    role: Role,
    process: Process,
    shared: Option<Arc<Shared>>,
    intake: Option<Arc<Intake>>,
}

pub fn commands_topic(participant: &str) -> String {
    format!("{participant}.commands")
}

pub fn group_of(participant: &str) -> String {
    format!("{participant}-svc")
}

impl Cluster {
    pub fn new(world: &Arc<World>, workload: Workload) -> Arc<Self> {
        let mut tables = SagaTables {
            starts_from: world.now(-RETENTION),
            floor: world.now(-RETENTION),
            ..SagaTables::default()
        };
        for definition in &workload.definitions {
            tables
                .definitions
                .insert(definition.hash.clone(), (**definition).clone());
        }
        let partitions = |topic: &str| {
            let roll = digest(world.seed, [b"partitions".as_slice(), topic.as_bytes()]);
            1 + (roll % 3) as usize
        };
        world.broker.create(SAGA_INPUTS, partitions(SAGA_INPUTS));
        world.broker.create(SAGA_EVENTS, 2);
        let participants = PARTICIPANTS.map(|name| {
            let topic = commands_topic(name);
            world.broker.create(&topic, partitions(&topic));
            let database = Database::new(Arc::clone(world), name, ParticipantTables::default());
            (name, database)
        });
        Arc::new(Self {
            world: Arc::clone(world),
            workload: Arc::new(workload),
            sagas: Database::new(Arc::clone(world), "saga", tables),
            participants: participants.into(),
            gateway: Arc::default(),
            running: Mutex::default(),
            kept_down: Mutex::default(),
        })
    }

    /// Starts all processes, and starts each again when it dies.
    pub fn start(self: &Arc<Self>) {
        let participants = PARTICIPANTS.map(|name| (name, Role::Participant(name)));
        let services = [
            ("orchestrator", Role::Orchestrator),
            ("intake", Role::Intake),
        ];
        for (name, role) in participants.into_iter().chain(services) {
            for copy in 1..=COPIES {
                let this = Arc::clone(self);
                tokio::spawn(this.supervise(format!("{name}-{copy}"), role));
            }
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                sleep(LOOK_INTERVAL).await;
                this.world.broker.expire_sessions(&this.world);
            }
        });
    }

    async fn supervise(self: Arc<Self>, name: String, role: Role) {
        loop {
            let process = Process::new(Arc::clone(&self.world), name.clone());
            let running = self.launch(role, &process);
            lock(&self.running).insert(name.clone(), running);
            process.died().await;
            let busy = self.world.faults().is_active();
            let longest = if busy { 12_000 } else { 500 };
            sleep(self.world.milliseconds(50, longest, "restart", &name)).await;
            while lock(&self.kept_down)
                .get(&name)
                .is_some_and(|until| *until > Instant::now())
            {
                sleep(LOOK_INTERVAL).await;
            }
            self.world.note(&name, format_args!("starts again"));
        }
    }

    fn launch(&self, role: Role, process: &Process) -> Running {
        let mut running = Running {
            role,
            process: process.clone(),
            shared: None,
            intake: None,
        };
        match role {
            Role::Orchestrator => running.shared = Some(self.launch_orchestrator(process)),
            Role::Participant(name) => self.launch_participant(name, process),
            Role::Intake => {
                running.intake = Some(Intake::begin(process, &self.participants["order"]));
            }
        }
        running
    }

    fn consumer_settings(&self) -> ConsumerSettings {
        let roll = digest(self.world.seed, [b"batch limit".as_slice()]);
        ConsumerSettings {
            batch_limit: [1, 4, 20, 500][(roll % 4) as usize],
            ..ConsumerSettings::default()
        }
    }

    /// Returns the shared state with which an orchestrator starts.
    pub fn orchestrators_memory(&self) -> Arc<Shared> {
        let shared = Shared::new(settings());
        shared.learn(self.sagas.tables().catalog());
        Arc::new(shared)
    }

    fn launch_orchestrator(&self, process: &Process) -> Arc<Shared> {
        let shared = self.orchestrators_memory();
        let store = SimSagaStore::new(&self.sagas, process);
        let source = SimOffsets::new(process);
        let offsets = Arc::new(OffsetReader::new(source, Arc::clone(&shared.clock)));
        let engine = Engine::new(store.clone(), Arc::clone(&shared));
        let reader = SimReader::subscribe(process, ORCHESTRATOR_GROUP, SAGA_INPUTS);
        let writer = SimWriter::new(process);
        let stop = process.stopping().clone();
        let consuming = consumer::run(
            reader,
            writer.clone(),
            engine,
            self.consumer_settings(),
            stop.clone(),
        );
        vital(process, consuming);
        let driver = TimerDriver {
            store,
            writer,
            offsets: Arc::clone(&offsets),
            shared: Arc::clone(&shared),
            group: ORCHESTRATOR_GROUP.to_owned(),
            progress: Progress::default(),
        };
        process.spawn(driver.run(stop));
        let upkeep = Upkeep {
            process: process.clone(),
            sagas: Arc::clone(&self.sagas),
            shared: Arc::clone(&shared),
            offsets,
        };
        process.spawn(upkeep.run());
        shared
    }

    fn launch_participant(&self, name: &'static str, process: &Process) {
        let database = &self.participants[name];
        let workload = Arc::clone(&self.workload);
        let handler = Handler {
            workload: Arc::clone(&workload),
            process: process.clone(),
        };
        let calls = (name == CALLER).then(|| {
            let calls = Calls {
                gateway: Arc::clone(&self.gateway),
                workload,
                process: process.clone(),
            };
            Arc::new(calls) as Arc<dyn RawCalls<_>>
        });
        let store = SimParticipantStore::new(database, process);
        // One participant handles whole batches.
        if name == "inventory" {
            self.run_participant(name, process, InBatches(handler), calls, store);
        } else {
            let handler = PerCommand::new(Arc::new(handler));
            self.run_participant(name, process, handler, calls, store);
        }
    }

    fn run_participant<H: RawBatchHandler<super::store::SimConnection>>(
        &self,
        name: &'static str,
        process: &Process,
        handler: H,
        calls: Option<Arc<dyn RawCalls<super::store::SimConnection>>>,
        store: SimParticipantStore,
    ) {
        let config = ParticipantConfig {
            handler_timeout: Duration::from_secs(2),
            ..ParticipantConfig::new(name, commands_topic(name), group_of(name))
        };
        let mut settings = self.consumer_settings();
        if let Some(limit) = handler.batch_limit() {
            settings.batch_limit = settings.batch_limit.min(limit);
        }
        let reader = SimReader::subscribe(process, &config.group, &config.topic);
        let writer = ReticentWriter {
            writer: SimWriter::new(process),
            workload: Arc::clone(&self.workload),
            process: process.clone(),
        };
        let stop = process.stopping().clone();
        let (frame, open) = CommandProcessor::new(config, Arc::new(handler), calls, store);
        if let Some(open) = open {
            process.spawn(open.run(writer.clone(), stop.clone()));
        }
        vital(
            process,
            consumer::run(reader, writer, frame, settings, stop),
        );
    }

    /// Returns the living processes of the wanted services.
    pub fn processes(&self, wanted: impl Fn(Role) -> bool) -> Vec<Process> {
        let running = lock(&self.running);
        let found = running
            .values()
            .filter(|one| wanted(one.role) && !one.process.is_dead());
        found.map(|one| one.process.clone()).collect()
    }

    /// Copies the final sagas into the history, for the checks.
    pub fn note_final_sagas(&self) {
        let tables = self.sagas.tables();
        let mut history = self.world.history();
        let live = tables.live.iter();
        history.live = live
            .map(|(saga, live)| (*saga, live.row.instance.clone()))
            .collect();
        let ended = tables.history.iter();
        history.ended = ended
            .map(|(saga, row)| (*saga, row.instance.clone()))
            .collect();
    }

    pub fn an_intake(&self, who: &str) -> Option<Arc<Intake>> {
        let intakes: Vec<Arc<Intake>> = lock(&self.running)
            .values()
            .filter(|one| !one.process.is_dead())
            .filter_map(|one| one.intake.clone())
            .collect();
        let index = self.world.dice().below(intakes.len() as u64, "intake", who);
        intakes.get(index as usize).cloned()
    }

    /// Returns the shared state in the memory of a living orchestrator.
    pub fn shared(&self, process: &str) -> Option<Arc<Shared>> {
        let running = lock(&self.running);
        let one = running.get(process).filter(|one| !one.process.is_dead())?;
        one.shared.clone()
    }

    /// Kills every copy of the wanted services, and keeps them down for `time`.
    pub fn keep_down(&self, wanted: impl Fn(Role) -> bool, time: Duration) {
        let until = Instant::now() + time;
        for process in self.processes(wanted) {
            lock(&self.kept_down).insert(process.name().to_owned(), until);
            process.kill();
        }
    }

    /// Ends all failures.
    pub fn calm_down(&self) {
        self.world.faults().stop();
        self.world.broker.come_back();
        self.sagas.come_back();
        for database in self.participants.values() {
            database.come_back();
        }
        lock(&self.kept_down).clear();
        for process in self.processes(|_| true) {
            process.wake();
        }
        self.world.note("world", format_args!("calms down"));
    }

    /// Makes each participant and the history forget everything that they may forget.
    pub fn forget(&self) {
        for (name, database) in &self.participants {
            let mut tables = database.tables();
            let floor = tables.own_floor_ms.max(tables.seen_floor_ms);
            tables.own_floor_ms = floor;
            let began = |saga: &SagaId| saga.created_at_ms().unwrap_or_default();
            let mut live = self.sagas.tables();
            let history_floor = live.floor.timestamp_millis();
            live.history.retain(|saga, _| began(saga) >= history_floor);
            if let Some(saga) = live.live.keys().find(|saga| began(saga) < floor) {
                self.world.observe(
                    "barrier_outlives_saga",
                    format!("{name} forgets saga {saga}, which lives"),
                );
            }
            drop(live);
            tables.barrier.retain(|key, _| began(&key.saga_id) >= floor);
        }
    }
}

/// Runs a consumer. If the consumer fails, its process ends.
fn vital(
    process: &Process,
    consuming: impl Future<Output = Result<(), LogError>> + Send + 'static,
) {
    let owner = process.clone();
    process.spawn(async move {
        if let Err(error) = consuming.await {
            let world = &owner.world;
            world.note(owner.name(), format_args!("gives up: {error}"));
            owner.kill();
        }
    });
}

fn settings() -> EngineSettings {
    let participants = PARTICIPANTS.map(|name| {
        let participant = Participant {
            topic: commands_topic(name),
            group: group_of(name),
        };
        (name.to_owned(), participant)
    });
    EngineSettings {
        inputs_topic: SAGA_INPUTS.to_owned(),
        events_topic: SAGA_EVENTS.to_owned(),
        source: "/saga/orchestrator".to_owned(),
        participants: Participants::from(BTreeMap::from(participants)),
        payload_limit: PayloadLimit::of_bytes(COMMAND_LIMIT_BYTES),
    }
}

/// The part of an orchestrator's upkeep on which promises depend: the floor, and the committed offsets, below which
/// sagas' logs may be trimmed.
struct Upkeep {
    process: Process,
    sagas: Arc<Database<SagaTables>>,
    shared: Arc<Shared>,
    offsets: Arc<OffsetReader>,
}

impl Upkeep {
    async fn run(self) {
        let stop = self.process.stopping().clone();
        while !stop.is_cancelled() {
            self.round().await;
            sleep(UPKEEP_INTERVAL).await;
        }
    }

    async fn round(&self) {
        if self.sagas.round_trip(&self.process).await.is_err() {
            return;
        }
        let kept = self.sagas.now() - RETENTION;
        let floor = {
            let mut tables = self.sagas.tables();
            let oldest = tables.live.keys().next().copied();
            let oldest = oldest
                .and_then(SagaId::created_at_ms)
                .and_then(Timestamp::from_timestamp_millis);
            // Sagas below the last round's floor of starts can be forgotten, since none of them was started since then.
            let floor = oldest.map_or(tables.starts_from, |oldest| oldest.min(tables.starts_from));
            tables.floor = tables.floor.max(floor);
            tables.starts_from = tables.starts_from.max(kept);
            tables.floor
        };
        self.shared.raise_floor(floor);
        if let Some(seen) = self.offsets.seen(SAGA_INPUTS, ORCHESTRATOR_GROUP).await {
            let committed = seen.partitions.iter();
            self.shared.set_committed(
                committed
                    .map(|(number, seen)| (*number, seen.committed))
                    .collect(),
            );
        }
    }
}
