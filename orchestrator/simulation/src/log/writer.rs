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
    /// A part of each partition's records is written, and another part may be written later.
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

    /// Appends a part of each partition's records, and the rest later or never.
    fn tear(&self, parts: BTreeMap<(String, i32), Vec<OutgoingRecord>>) {
        let world = &self.process.world;
        let name = self.process.name();
        for ((_, partition), records) in parts {
            let stands = world.dice().below(records.len() as u64 + 1, "torn", name) as usize;
            for record in &records[..stands] {
                self.append(record, partition);
            }
            if world.dice().percent(50, "late", name) {
                let at = Append {
                    partition,
                    timestamp_ms: self.process.now().timestamp_millis(),
                    injected: false,
                };
                self.later(records[stands..].to_vec(), at, 5_000);
            }
        }
    }

    fn parts(&self, records: &[OutgoingRecord]) -> BTreeMap<(String, i32), Vec<OutgoingRecord>> {
        let mut parts: BTreeMap<(String, i32), Vec<OutgoingRecord>> = BTreeMap::new();
        for record in records {
            let partition = self.partition(record);
            parts
                .entry((record.topic.clone(), partition))
                .or_default()
                .push(record.clone());
        }
        parts
    }

    fn partition(&self, record: &OutgoingRecord) -> i32 {
        let broker = &self.process.world.broker;
        broker.partition_for(self.process.name(), record)
    }

    /// Appends all records, in the given order within each partition.
    async fn write(&self, records: &[OutgoingRecord]) -> Vec<Delivered> {
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
        delivered.into_iter().flatten().collect()
    }
}

#[async_trait]
impl LogWriter for SimWriter {
    async fn publish(&self, records: &[OutgoingRecord]) -> Result<Vec<Delivered>, LogError> {
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
            return Err(self.unavailable("the broker is away"));
        }
        if process.strikes(Site::ProduceRefused) {
            return Err(self.unavailable("nothing was written"));
        }
        if process.strikes(Site::CrashInProduce) {
            self.tear(self.parts(records));
            process.kill();
            std::future::pending::<()>().await;
        }
        let delivered = match self.fate() {
            Fate::Torn => {
                self.tear(self.parts(records));
                process.latency().await;
                return Err(self.unavailable("part of it may have been written"));
            }
            Fate::Unacknowledged => {
                self.write(records).await;
                process.latency().await;
                return Err(self.unavailable("the acknowledgment was lost"));
            }
            Fate::Written => self.write(records).await,
        };
        process.gate(Site::CrashAfterProduce).await;
        process.latency().await;
        Ok(delivered)
    }
}
