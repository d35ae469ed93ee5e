//! The nemesis: failures that happen at random times. Processes die and stall, servers become unavailable, clocks jump,
//! operators interfere, and bad records are written.

use super::{
    cluster::{Cluster, Role, commands_topic},
    faults::Site,
    intake,
    log::Append,
    process::Process,
    store::{Database, ParticipantTables},
    workload::PARTICIPANTS,
    world::saga_id,
};
use chrono::TimeDelta;
use saga_core::message::topic::SAGA_INPUTS;
use saga_core::{
    definition::SagaDefinition,
    ids::SagaId,
    message::{ActionKind, Headers, OperatorAction, OutgoingRecord, Trace, header},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use uuid::Uuid;

const WHO: &str = "nemesis";
const INTERVAL: Duration = Duration::from_millis(500);

/// More copies than any limit on the reactions to one stale input. They are sent slowly, so that each is in a batch of
/// its own.
const STALE_COPIES: usize = 60;
const STALE_INTERVAL: Duration = Duration::from_millis(150);

type Blow = fn(&Nemesis);

/// The failures. Each gets a chance twice a second.
const BLOWS: [(Site, Blow); 20] = [
    (Site::Kill, Nemesis::kill),
    (Site::Terminate, Nemesis::terminate),
    (Site::Freeze, Nemesis::freeze),
    (Site::Rebalance, Nemesis::rebalance),
    (Site::Expel, Nemesis::expel),
    (Site::DatabaseAway, Nemesis::take_database_away),
    (Site::BackendsTerminated, Nemesis::terminate_backends),
    (Site::BrokerAway, Nemesis::take_broker_away),
    (Site::ClockJump, Nemesis::make_clock_jump),
    (Site::OrchestratorsAway, Nemesis::take_orchestrators_away),
    (Site::ParticipantAway, Nemesis::take_participant_away),
    (Site::OffsetsReset, Nemesis::set_offset_back),
    (Site::TopicReplayed, Nemesis::replay),
    (Site::Cancel, Nemesis::cancel),
    (Site::Retry, Nemesis::retry),
    (Site::Meddle, Nemesis::meddle),
    (Site::StaleFlood, Nemesis::flood),
    (Site::OddStart, Nemesis::start_oddly),
    (Site::Poison, Nemesis::poison),
    (Site::Definitions, Nemesis::change_definitions),
];

pub async fn haunt(cluster: Arc<Cluster>) {
    loop {
        sleep(INTERVAL).await;
        if !cluster.world.faults().is_active() {
            return;
        }
        for (site, strike) in BLOWS {
            if cluster.world.strikes(site, WHO) {
                strike(&Nemesis {
                    cluster: Arc::clone(&cluster),
                    site,
                });
            }
        }
    }
}

struct Nemesis {
    cluster: Arc<Cluster>,
    site: Site,
}

impl Nemesis {
    fn below(&self, limit: u64, what: &str) -> u64 {
        let who = self.site.name();
        self.cluster.world.dice().below(limit, what, who)
    }

    fn seconds(&self, least: u64, most: u64) -> Duration {
        let who = self.site.name();
        self.cluster
            .world
            .milliseconds(least * 1_000, most * 1_000, "time", who)
    }

    fn a_process(&self) -> Option<Process> {
        let processes = self.cluster.processes(|_| true);
        let index = self.below(processes.len() as u64, "process") as usize;
        processes.get(index).cloned()
    }

    fn kill(&self) {
        if let Some(process) = self.a_process() {
            process.kill();
        }
    }

    fn freeze(&self) {
        if let Some(process) = self.a_process() {
            process.stall(self.seconds(1, 30));
        }
    }

    fn terminate(&self) {
        let Some(process) = self.a_process() else {
            return;
        };
        process.stopping().cancel();
        tokio::spawn(async move {
            // A process that does not stop in time is killed.
            for _ in 0..20 {
                sleep(INTERVAL).await;
                if process.has_finished() {
                    break;
                }
            }
            process.kill();
        });
    }

    /// Returns a random group and its topic.
    fn a_group(&self) -> Option<(String, String)> {
        let groups = self.cluster.world.broker.groups();
        let index = self.below(groups.len() as u64, "group") as usize;
        groups.get(index).cloned()
    }

    fn rebalance(&self) {
        if let Some((group, _)) = self.a_group() {
            self.cluster.world.broker.rotate(&group);
        }
    }

    fn expel(&self) {
        if let Some((group, _)) = self.a_group() {
            let member = self.below(2, "member") as usize;
            self.cluster.world.broker.expel(&group, member);
        }
    }

    fn set_offset_back(&self) {
        let broker = &self.cluster.world.broker;
        if let Some((group, topic)) = self.a_group() {
            let partition = self.a_partition(&topic);
            let committed = broker.committed(&group);
            let next = committed.get(&partition).copied().unwrap_or_default();
            let back = self.below(next.unsigned_abs() + 1, "offset") as i64;
            broker.reset(&group, partition, back);
        }
    }

    fn a_partition(&self, topic: &str) -> i32 {
        let count = self.cluster.world.broker.partition_count(topic);
        self.below(count.unsigned_abs().into(), "partition") as i32
    }

    /// Returns a random participant's database, or `None` for the orchestrator's.
    fn a_database(&self) -> Option<&Database<ParticipantTables>> {
        let which = self.below(PARTICIPANTS.len() as u64 + 1, "database") as usize;
        let name = PARTICIPANTS.get(which)?;
        Some(&self.cluster.participants[name])
    }

    fn take_database_away(&self) {
        let time = self.seconds(1, 20);
        match self.a_database() {
            Some(database) => database.go_away(time),
            None => self.cluster.sagas.go_away(time),
        }
    }

    fn terminate_backends(&self) {
        match self.a_database() {
            Some(database) => database.terminate_backends(),
            None => self.cluster.sagas.terminate_backends(),
        }
    }

    fn make_clock_jump(&self) {
        let by = [-2, -1, 3, 30, 120, 600][self.below(6, "jump") as usize];
        let by = TimeDelta::seconds(by);
        match self.a_database() {
            Some(database) => database.jump(by),
            None => self.cluster.sagas.jump(by),
        }
    }

    fn take_broker_away(&self) {
        let time = self.seconds(1, 20);
        self.cluster.world.broker.go_away(time);
    }

    fn take_orchestrators_away(&self) {
        let time = self.seconds(10, 120);
        self.cluster
            .keep_down(|role| role == Role::Orchestrator, time);
    }

    fn take_participant_away(&self) {
        let name = PARTICIPANTS[self.below(3, "participant") as usize];
        let time = self.seconds(5, 60);
        self.cluster
            .keep_down(|role| role == Role::Participant(name), time);
    }

    /// Sends some of a partition's records again, in order.
    fn replay(&self) {
        let world = &self.cluster.world;
        let topics: Vec<String> = PARTICIPANTS
            .iter()
            .map(|name| commands_topic(name))
            .chain([SAGA_INPUTS.to_owned()])
            .collect();
        let topic = &topics[self.below(topics.len() as u64, "topic") as usize];
        let partition = self.a_partition(topic);
        let end = world.broker.end(topic, partition);
        let first = self.below(end.unsigned_abs() + 1, "first") as i64;
        for offset in first..end.min(first + 20) {
            if let Some(stored) = world.broker.stored(topic, partition, offset) {
                let at = Append {
                    partition,
                    timestamp_ms: stored.timestamp_ms,
                    injected: true,
                };
                world.broker.append(world, WHO, &stored.record, at);
            }
        }
    }

    fn a_saga(&self) -> Option<SagaId> {
        let history = self.cluster.world.history();
        let sagas: Vec<SagaId> = history.accepted.keys().copied().collect();
        drop(history);
        let index = self.below(sagas.len() as u64, "saga") as usize;
        sagas.get(index).copied()
    }

    fn cancel(&self) {
        self.act(ActionKind::Cancel);
    }

    fn retry(&self) {
        self.act(ActionKind::Retry {
            step: None,
            input: None,
        });
    }

    /// Requests a random operator's action on a step or on the saga. Most of them are refused.
    fn meddle(&self) {
        let Some(saga) = self.a_saga() else { return };
        let steps = {
            let history = self.cluster.world.history();
            let Some(accepted) = history.accepted.get(&saga) else {
                return;
            };
            accepted.definition.steps.clone()
        };
        let step = &steps[self.below(steps.len() as u64, "step") as usize];
        let name = step.name.clone();
        let kind = match self.below(7, "kind") {
            0 => ActionKind::Retry {
                step: Some(name),
                input: Some(json!({"corrected": true})),
            },
            1 => ActionKind::Compensate,
            2 => ActionKind::Complete {
                step: name,
                result: by_hand(),
            },
            3 => ActionKind::Skip {
                step: name,
                compensation: false,
            },
            4 => ActionKind::Skip {
                step: name,
                compensation: true,
            },
            5 => ActionKind::NotDone { step: name },
            _ => ActionKind::Abandon,
        };
        self.send(saga, kind);
    }

    /// Sends the start of a live saga again and again while the saga is live, as a broken producer might.
    fn flood(&self) {
        let world = Arc::clone(&self.cluster.world);
        let Some((saga, home)) = self.a_live_saga() else {
            return;
        };
        let place = (0..world.broker.end(SAGA_INPUTS, home)).find(|offset| {
            let record = world.broker.read(SAGA_INPUTS, home, *offset);
            record.is_some_and(|record| record.parsed(header::SAGA_ID).ok() == Some(saga))
        });
        let Some(stored) = place.and_then(|offset| world.broker.stored(SAGA_INPUTS, home, offset))
        else {
            return;
        };
        tokio::spawn(async move {
            for _ in 0..STALE_COPIES {
                sleep(STALE_INTERVAL).await;
                if !world.faults().is_active() {
                    return;
                }
                let at = Append {
                    partition: home,
                    timestamp_ms: stored.timestamp_ms,
                    injected: true,
                };
                world.broker.append(&world, WHO, &stored.record, at);
            }
        });
    }

    /// Returns a random live saga, with its home partition.
    fn a_live_saga(&self) -> Option<(SagaId, i32)> {
        let tables = self.cluster.sagas.tables();
        let index = self.below(tables.live.len() as u64, "live saga") as usize;
        let (saga, live) = tables.live.iter().nth(index)?;
        Some((*saga, live.row.instance.home_partition))
    }

    fn act(&self, kind: ActionKind) {
        if let Some(saga) = self.a_saga() {
            self.send(saga, kind);
        }
    }

    fn send(&self, saga: SagaId, kind: ActionKind) {
        let number = self.below(u64::MAX, "action");
        self.cluster.world.history().meddled.insert(saga);
        act(&self.cluster, saga, kind, number);
    }

    /// Sends a start that must not become a saga.
    fn start_oddly(&self) {
        let world = &self.cluster.world;
        let now = world.now(TimeDelta::zero());
        let number = 1_000 + self.below(1_000_000, "odd");
        let kind = self.below(3, "oddity");
        let saga = match kind {
            0 => Some(saga_id(now - TimeDelta::hours(25), number)),
            1 => Some(saga_id(now + TimeDelta::hours(36), number)),
            // The start has a known id and other content.
            _ => self.a_saga().filter(|saga| {
                let tables = self.cluster.sagas.tables();
                tables.live.contains_key(saga) || tables.history.contains_key(saga)
            }),
        };
        let Some(saga) = saga else { return };
        let definition = &self.cluster.workload.definitions[0];
        let start = intake::start(saga, definition, number);
        let home =
            (number % u64::from(world.broker.partition_count(SAGA_INPUTS).unsigned_abs())) as i32;
        let record = start.encode(SAGA_INPUTS, home, "/nemesis", now);
        self.put_bad(&record, home);
    }

    /// Registers another version of a definition, or withdraws or restores one. The first version is never withdrawn,
    /// so that one always runs.
    fn change_definitions(&self) {
        let definitions = &self.cluster.workload.definitions;
        let first = &definitions[self.below(definitions.len() as u64, "definition") as usize];
        let mut tables = self.cluster.sagas.tables();
        let later: Vec<SagaDefinition> = tables
            .definitions
            .values()
            .filter(|one| one.name == first.name && one.version > 1)
            .cloned()
            .collect();
        let index = self.below(later.len() as u64 + 1, "version") as usize;
        if let Some(one) = later.get(index) {
            tables.withdraw_or_restore(&one.hash);
        } else {
            let mut document = first.document.clone();
            document["version"] = json!(later.len() + 2);
            match SagaDefinition::from_document(&document) {
                Ok(definition) => tables.register(definition),
                Err(errors) => unreachable!("another version is not valid: {errors:?}"),
            }
        }
    }

    /// Writes a record that cannot be decoded.
    fn poison(&self) {
        let topics: Vec<String> = PARTICIPANTS
            .iter()
            .map(|name| commands_topic(name))
            .chain([SAGA_INPUTS.to_owned()])
            .collect();
        let topic = topics[self.below(topics.len() as u64, "topic") as usize].clone();
        let headers = match self.below(3, "poison") {
            0 => Headers::default(),
            1 => [(header::CE_TYPE, "x"), (header::SAGA_ID, "nobody")].into(),
            _ => [(header::CE_TYPE, "saga.timer.due")].into(),
        };
        let partition = self.a_partition(&topic);
        let record = OutgoingRecord {
            topic,
            partition: Some(partition),
            key: b"poison".to_vec(),
            headers,
            payload: b"{not json".to_vec(),
        };
        self.put_bad(&record, partition);
    }

    fn put_bad(&self, record: &OutgoingRecord, partition: i32) {
        let world = &self.cluster.world;
        let at = Append {
            partition,
            timestamp_ms: world.now(TimeDelta::zero()).timestamp_millis(),
            injected: true,
        };
        let delivered = world.broker.append(world, WHO, record, at);
        let place = (record.topic.clone(), partition, delivered.offset);
        world.history().bad.push(place);
    }
}

/// Returns the result of a step that an operator completed.
pub fn by_hand() -> Value {
    json!({"by": "hand"})
}

/// Cancels an order shortly after it was placed, if a fault strikes.
pub async fn change_of_mind(cluster: &Cluster, saga: SagaId, number: u64) {
    let world = &cluster.world;
    let who = format!("client-{number}");
    if world.strikes(Site::EarlyCancel, &who) {
        sleep(world.milliseconds(0, 1_500, "cancels", &who)).await;
        world.history().meddled.insert(saga);
        act(cluster, saga, ActionKind::Cancel, 2_000_000_000 + number);
    }
}

/// Sends an operator's action on a saga.
pub fn act(cluster: &Cluster, saga: SagaId, kind: ActionKind, number: u64) {
    let world = &cluster.world;
    let now = world.now(TimeDelta::zero());
    let home = {
        let history = world.history();
        history
            .accepted
            .get(&saga)
            .map_or(0, |accepted| accepted.home_partition)
    };
    let action = OperatorAction {
        saga_id: saga,
        action_id: Uuid::from_u128(u128::from(number) | (4 << 76) | (2 << 126)),
        kind,
        actor: WHO.to_owned(),
        reason: "because".to_owned(),
        if_version: None,
        trace: Trace::default(),
    };
    let record = action.encode(SAGA_INPUTS, Some(home), "/operator", now);
    let at = Append {
        partition: home,
        timestamp_ms: now.timestamp_millis(),
        injected: false,
    };
    world.broker.append(world, "operator", &record, at);
}
