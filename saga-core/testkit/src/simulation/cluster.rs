//! The processes of a run: two copies of everything, started again when they die.

use super::{
    intake::Intake,
    log::{SimOffsets, SimReader, SimWriter},
    participants::{Calls, Gateway, Handler, InBatches},
    process::Process,
    random::digest,
    store::{Database, ParticipantTables, SagaTables, SimParticipantStore, SimSagaStore},
    workload::{CALLER, PARTICIPANTS, Workload},
    world::{World, lock},
};
use chrono::TimeDelta;
use orchestrator::{
    engine::{
        Engine,
        settings::{EngineSettings, Participant, Participants},
        shared::Shared,
        timers::{driver::TimerDriver, offsets::Offsets},
    },
    registry::Registry,
};
use saga_contracts::topic::{ORCHESTRATOR_GROUP, SAGA_EVENTS, SAGA_INPUTS};
use saga_core::ids::{SagaId, Timestamp};
use saga_messaging::{
    log::LogError,
    participant::{BatchHandler, ExternalCalls, Frame, ParticipantConfig, PerCommand},
    rule::{self, RuleSettings},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How long a participant remembers at least.
pub const RETENTION: TimeDelta = TimeDelta::hours(2);
/// Between two rounds of an orchestrator's upkeep.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Whoever is kept down looks this often whether it may come back; the coordinator, whose session is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Of every service.
const COPIES: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Orchestrator,
    Participant(&'static str),
    Intake,
}

/// See the module.
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

    /// Starts everything, and whatever dies from then on.
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

    fn rule(&self) -> RuleSettings {
        let roll = digest(self.world.seed, [b"batch limit".as_slice()]);
        RuleSettings {
            batch_limit: [1, 4, 20, 500][(roll % 4) as usize],
            ..RuleSettings::default()
        }
    }

    /// What an orchestrator begins with.
    pub fn orchestrators_memory(&self) -> Arc<Shared> {
        let shared = Shared::new(settings(), Registry::default());
        for definition in &self.workload.definitions {
            shared.hold((**definition).clone());
        }
        Arc::new(shared)
    }

    fn launch_orchestrator(&self, process: &Process) -> Arc<Shared> {
        let shared = self.orchestrators_memory();
        let store = SimSagaStore::new(&self.sagas, process);
        let source = SimOffsets::new(process);
        let offsets = Arc::new(Offsets::new(source, Arc::clone(&shared.clock)));
        let engine = Engine::new(store.clone(), Arc::clone(&shared));
        let reader = SimReader::subscribe(process, ORCHESTRATOR_GROUP, SAGA_INPUTS);
        let writer = SimWriter::new(process);
        let stop = process.stopping().clone();
        let consuming = rule::run(reader, writer.clone(), engine, self.rule(), stop.clone());
        vital(process, consuming);
        let driver = TimerDriver {
            store,
            writer,
            offsets: Arc::clone(&offsets),
            shared: Arc::clone(&shared),
            group: ORCHESTRATOR_GROUP.to_owned(),
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
            Arc::new(calls) as Arc<dyn ExternalCalls<_>>
        });
        let store = SimParticipantStore::new(database, process);
        // One of them takes whole batches.
        if name == "inventory" {
            self.run_participant(name, process, InBatches(handler), calls, store);
        } else {
            let handler = PerCommand::new(Arc::new(handler));
            self.run_participant(name, process, handler, calls, store);
        }
    }

    fn run_participant<H: BatchHandler<super::store::SimConnection>>(
        &self,
        name: &'static str,
        process: &Process,
        handler: H,
        calls: Option<Arc<dyn ExternalCalls<super::store::SimConnection>>>,
        store: SimParticipantStore,
    ) {
        let config = ParticipantConfig {
            handler_timeout: Duration::from_secs(2),
            ..ParticipantConfig::new(name, commands_topic(name), group_of(name))
        };
        let mut settings = self.rule();
        if let Some(limit) = handler.batch_limit() {
            settings.batch_limit = settings.batch_limit.min(limit);
        }
        let reader = SimReader::subscribe(process, &config.group, &config.topic);
        let writer = SimWriter::new(process);
        let stop = process.stopping().clone();
        let (frame, open) = Frame::new(config, Arc::new(handler), calls, store);
        if let Some(open) = open {
            process.spawn(open.run(writer.clone(), stop.clone()));
        }
        vital(process, rule::run(reader, writer, frame, settings, stop));
    }

    /// The living copies of a service.
    pub fn processes(&self, wanted: impl Fn(Role) -> bool) -> Vec<Process> {
        let running = lock(&self.running);
        let found = running
            .values()
            .filter(|one| wanted(one.role) && !one.process.is_dead());
        found.map(|one| one.process.clone()).collect()
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

    /// What an orchestrator has in memory.
    pub fn shared(&self, process: &str) -> Option<Arc<Shared>> {
        let running = lock(&self.running);
        let one = running.get(process).filter(|one| !one.process.is_dead())?;
        one.shared.clone()
    }

    /// Kills every copy of a service, for so long.
    pub fn keep_down(&self, wanted: impl Fn(Role) -> bool, time: Duration) {
        let until = Instant::now() + time;
        for process in self.processes(wanted) {
            lock(&self.kept_down).insert(process.name().to_owned(), until);
            process.kill();
        }
    }

    /// From here on everything is well.
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

    /// Everything that a participant may forget, it forgets.
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

/// A process whose consumer gives up ends.
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
        participants: Participants(participants.into()),
        id_window_after_ms: 300_000,
        message_limit_bytes: 1_000_000,
    }
}

/// The part of an orchestrator's upkeep that its promises rest on: the floor, and what may be dropped from logs.
struct Upkeep {
    process: Process,
    sagas: Arc<Database<SagaTables>>,
    shared: Arc<Shared>,
    offsets: Arc<Offsets>,
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
            // What nobody has started since the last round can be forgotten in this one.
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
