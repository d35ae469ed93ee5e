//! A simulated producer.

use super::Append;
use crate::{faults::Site, process::Process, workload::COMMAND_LIMIT_BYTES};
use async_trait::async_trait;
use saga_core::message::OutgoingRecord;
use saga_messaging::log::{Delivered, LogError, LogWriter};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::sleep;

/// The time after which a client gives up on an unavailable broker.
const PATIENCE: Duration = Duration::from_millis(1_500);

#[derive(Clone)]
pub struct SimWriter {
    process: Process,
}

/// The outcome of a produce call.
enum Fate {
    Written,
    /// The records are written, but the producer gets no acknowledgment.
    Unacknowledged,
    /// A part of each partition's records is written, of which the producer may know, and another part may be written
    /// later.
    Torn,
}

impl SimWriter {
    pub fn new(process: &Process) -> Self {
        Self {
            process: process.clone(),
        }
    }

    fn fate(&self) -> Fate {
        if self.process.strikes(Site::ProduceTorn) {
            Fate::Torn
        } else if self.process.strikes(Site::AckLost) {
            Fate::Unacknowledged
        } else {
            Fate::Written
        }
    }

    fn unavailable(&self, why: &'static str) -> LogError {
        let world = &self.process.world;
        world.note(self.process.name(), format_args!("PRODUCE fails: {why}"));
        world.history().excuse_in_hand(self.process.name());
        LogError::Unavailable(why.into())
    }

    /// Checks that nothing is sent that the broker would never accept.
    fn check_size(&self, record: &OutgoingRecord) {
        let bytes = record.payload.len();
        if record.topic.ends_with(".commands") && bytes > COMMAND_LIMIT_BYTES {
            let detail = format!("{} sends a command of {bytes} bytes", self.process.name());
            self.process.world.observe("commands_fit", detail);
        }
    }

    fn append(&self, record: &OutgoingRecord, partition: i32) -> Delivered {
        let world = &self.process.world;
        let at = Append {
            partition,
            timestamp_ms: self.process.now().timestamp_millis(),
            injected: false,
        };
        let delivered = world.broker.append(world, self.process.name(), record, at);
        self.duplicate(record, at);
        delivered
    }

    /// Appends the same record again later, if a fault strikes.
    fn duplicate(&self, record: &OutgoingRecord, at: Append) {
        let world = &self.process.world;
        let again = self.process.strikes(Site::Duplicate);
        let elsewhere = self.process.strikes(Site::DuplicateElsewhere);
        if !again && !elsewhere {
            return;
        }
        let mut at = Append {
            injected: true,
            ..at
        };
        if elsewhere {
            at.partition = (at.partition + 1) % world.broker.partition_count(&record.topic);
        }
        self.later(vec![record.clone()], at, 10_000);
    }

    /// Appends records after a random wait, even if the process dies meanwhile.
    fn later(&self, records: Vec<OutgoingRecord>, at: Append, longest_ms: u64) {
        let world = Arc::clone(&self.process.world);
        let name = self.process.name().to_owned();
        let wait = world.milliseconds(0, longest_ms, "later", &name);
        tokio::spawn(async move {
            sleep(wait).await;
            for record in records {
                world.broker.append(&world, &name, &record, at);
            }
        });
    }

    /// Appends a part of each partition's records, and the rest later or never. Returns the deliveries that the producer
    /// gets to know, in the order of the records.
    fn tear(&self, records: &[OutgoingRecord]) -> Vec<Option<Delivered>> {
        let world = &self.process.world;
        let name = self.process.name();
        let mut delivered = vec![None; records.len()];
        for ((_, partition), places) in self.parts(records) {
            let stands = world.dice().below(places.len() as u64 + 1, "torn", name) as usize;
            let known = world.dice().below(stands as u64 + 1, "known", name) as usize;
            for (n, place) in places[..stands].iter().enumerate() {
                let at = self.append(&records[*place], partition);
                delivered[*place] = (n < known).then_some(at);
            }
            if world.dice().percent(50, "late", name) {
                let at = Append {
                    partition,
                    timestamp_ms: self.process.now().timestamp_millis(),
                    injected: false,
                };
                let rest = places[stands..].iter();
                self.later(
                    rest.map(|place| records[*place].clone()).collect(),
                    at,
                    5_000,
                );
            }
        }
        delivered
    }

    /// Returns the places of the records by topic and partition.
    fn parts(&self, records: &[OutgoingRecord]) -> BTreeMap<(String, i32), Vec<usize>> {
        let mut parts: BTreeMap<(String, i32), Vec<usize>> = BTreeMap::new();
        for (place, record) in records.iter().enumerate() {
            let partition = self.partition(record);
            parts
                .entry((record.topic.clone(), partition))
                .or_default()
                .push(place);
        }
        parts
    }

    fn partition(&self, record: &OutgoingRecord) -> i32 {
        let broker = &self.process.world.broker;
        broker.partition_for(self.process.name(), record)
    }

    /// Appends all records, in the given order within each partition.
    async fn write(&self, records: &[OutgoingRecord]) -> Vec<Option<Delivered>> {
        let apart = self.process.strikes(Site::ProduceApart);
        let partitions: Vec<i32> = records
            .iter()
            .map(|record| self.partition(record))
            .collect();
        let mut places: Vec<(&str, i32)> = records
            .iter()
            .zip(&partitions)
            .map(|(record, partition)| (record.topic.as_str(), *partition))
            .collect();
        places.sort_unstable();
        places.dedup();
        let name = self.process.name();
        let order = if apart {
            self.process.world.dice().order(places.len(), "apart", name)
        } else {
            (0..places.len()).collect()
        };
        let mut delivered = vec![None; records.len()];
        for index in order {
            if apart {
                self.process.latency().await;
            }
            let (topic, partition) = places[index];
            for (place, record) in records.iter().enumerate() {
                if record.topic == topic && partitions[place] == partition {
                    delivered[place] = Some(self.append(record, partition));
                }
            }
        }
        delivered
    }
}

#[async_trait]
impl LogWriter for SimWriter {
    async fn publish_rest(
        &self,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        let (places, rest): (Vec<usize>, Vec<OutgoingRecord>) = (records.iter().enumerate())
            .filter(|(place, _)| delivered[*place].is_none())
            .map(|(place, record)| (place, record.clone()))
            .unzip();
        let (acknowledged, ended) = self.produce(&rest).await;
        for (place, at) in places.into_iter().zip(acknowledged) {
            delivered[place] = at;
        }
        ended
    }
}

impl SimWriter {
    /// Returns the known deliveries, which may be fewer than the records, and how the call ended.
    async fn produce(
        &self,
        records: &[OutgoingRecord],
    ) -> (Vec<Option<Delivered>>, Result<(), LogError>) {
        let failed = |why| (Vec::new(), Err(self.unavailable(why)));
        for record in records {
            self.check_size(record);
        }
        let process = &self.process;
        process.gate(Site::CrashBeforeProduce).await;
        if process.strikes(Site::ProduceSlow) {
            let wait = process
                .world
                .milliseconds(100, 3_000, "slow produce", process.name());
            sleep(wait).await;
        }
        process.latency().await;
        if process.world.broker.is_unavailable() {
            sleep(PATIENCE).await;
            process.latency().await;
            return failed("the broker is away");
        }
        if process.strikes(Site::ProduceRefused) {
            return failed("nothing was written");
        }
        if process.strikes(Site::CrashInProduce) {
            self.tear(records);
            process.kill();
            std::future::pending::<()>().await;
        }
        let delivered = match self.fate() {
            Fate::Torn => {
                let known = self.tear(records);
                process.latency().await;
                return (
                    known,
                    Err(self.unavailable("part of it may have been written")),
                );
            }
            Fate::Unacknowledged => {
                self.write(records).await;
                process.latency().await;
                return failed("the acknowledgment was lost");
            }
            Fate::Written => self.write(records).await,
        };
        process.gate(Site::CrashAfterProduce).await;
        process.latency().await;
        (delivered, Ok(()))
    }
}
