//! A cache of live sagas, as this process last wrote them. A saga that no other process has changed since need not be
//! read again: its owner decides from memory, and the saga's version is compared when it is written.
//!
//! A batch takes the entries of its sagas out when it begins, and puts newer entries back when it has committed. If
//! anything fails, and above all if the answer to a commit is lost, no entry remains that could be wrong. A batch that
//! failed because of a wrong entry reads the table when it is retried.

use super::saga_store::{LiveRow, Loaded, Plan, SagaRow};
use hashlink::LruCache;
use saga_core::{
    ids::SagaId,
    mutant::{self, Mutant},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The number of sagas in the cache: several times as many as change at once on one machine at its limit. An entry
/// takes some 10 KiB. Sagas that wait for longer are evicted, and read again.
const CAPACITY: usize = 10_000;

/// The cache of live sagas, shared by the batches of a process.
#[derive(Clone)]
pub struct Cache(Arc<Mutex<LruCache<SagaId, LiveRow>>>);

impl Default for Cache {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(CAPACITY))))
    }
}

impl Cache {
    fn rows(&self) -> MutexGuard<'_, LruCache<SagaId, LiveRow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes every entry, because other processes may change these sagas from now on. Entries that a batch has taken
    /// out are no longer in the cache anyway.
    pub fn forget(&self) {
        if mutant::on(Mutant::TrustMemory) {
            return;
        }
        self.rows().clear();
    }

    /// Separates a batch's sagas into those that are cached, which it takes out, and those that must be read.
    pub fn split(&self, sagas: &[SagaId]) -> Cached {
        let rows = self.take(sagas);
        let is_unknown = |id: &&SagaId| !rows.contains_key(id);
        Cached {
            unknown: sagas.iter().filter(is_unknown).copied().collect(),
            rows,
        }
    }

    /// Takes the cached rows of these sagas out of the cache, for one batch.
    pub fn take(&self, sagas: &[SagaId]) -> HashMap<SagaId, LiveRow> {
        let mut rows = self.rows();
        sagas
            .iter()
            .filter_map(|id| Some((*id, rows.remove(id)?)))
            .collect()
    }

    /// Stores the rows that a committed plan has written, and removes the sagas that it has ended.
    pub fn put(&self, plan: &Plan) {
        let mut rows = self.rows();
        for row in plan.starts.iter().chain(&plan.updates) {
            rows.insert(row.instance.id, written(row));
        }
        for row in &plan.ends {
            rows.remove(&row.instance.id);
        }
    }
}

/// The cached rows of one batch, and the sagas that it must read.
pub struct Cached {
    rows: HashMap<SagaId, LiveRow>,
    /// The sagas that must be read, in the order in which they were requested.
    pub unknown: Vec<SagaId>,
}

impl Cached {
    pub fn unread(&self) -> AssumedVersions {
        AssumedVersions::of(&self.rows)
    }

    /// Adds the cached rows to the rows that were read, in id order.
    pub fn join(self, loaded: &mut Loaded) {
        loaded.live.extend(self.rows.into_values());
        loaded.live.sort_unstable_by_key(|row| row.instance.id);
    }
}

/// The sagas that a batch did not read, with the versions that it decides from.
///
/// Sagas that the batch writes are compared when they are written. A saga that the batch does not write, because its
/// input seemed to be old, must be compared all the same: if a rival has changed the saga, the input may be the one
/// that the saga now waits for.
#[derive(Debug, Default)]
pub struct AssumedVersions(BTreeMap<SagaId, i64>);

impl AssumedVersions {
    pub fn of(known: &HashMap<SagaId, LiveRow>) -> Self {
        Self(known.iter().map(|(id, row)| (*id, row.version)).collect())
    }

    /// Returns the versions of the sagas that the plan does not write, in id order.
    pub fn unmodified(mut self, plan: &Plan) -> BTreeMap<SagaId, i64> {
        if mutant::on(Mutant::TrustMemory) {
            return BTreeMap::new();
        }
        for row in plan.updates.iter().chain(&plan.ends) {
            self.0.remove(&row.instance.id);
        }
        self.0
    }
}

/// Returns a row as the table holds it after the commit.
fn written(row: &SagaRow) -> LiveRow {
    LiveRow {
        instance: row.instance.clone(),
        version: row.version + 1,
        start_hash: row.start_hash.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::{
        definition::SagaDefinition,
        ids::Timestamp,
        instance::Position,
        message::{PayloadLimit, StartSaga, Trace},
        transition::{self, CommandContext},
    };
    use serde_json::Value;
    use uuid::Uuid;

    const YAML: &str = "
name: short
version: 1
deadline: 1h
steps:
  - name: do
    kind: compensatable
    participant: test
    command: test.do
    compensation: { command: test.undo }
";

    fn saga(number: u128) -> SagaId {
        SagaId(Uuid::from_u128(number))
    }

    fn a_start(saga_id: SagaId) -> SagaRow {
        let definition = SagaDefinition::parse("short.yaml", YAML).unwrap();
        let start = StartSaga {
            saga_id,
            start_type: "test.created".to_owned(),
            definition: "short".to_owned(),
            business_key: None,
            input: Value::Null,
            trace: Trace::default(),
        };
        let position = Position {
            partition: 0,
            offset: 0,
            at_ms: 0,
        };
        let command_context = CommandContext {
            reply_topic: "saga.inputs".to_owned(),
            floor: None,
            payload_limit: PayloadLimit::NONE,
        };
        let at = Timestamp::default();
        let instance =
            transition::start(&definition, &start, 0, at, position, &command_context).saga;
        SagaRow {
            version: 0,
            start_hash: Vec::new(),
            waiting: transition::waiting(&definition, &instance),
            next_due: None,
            queued: Vec::new(),
            last_error: None,
            has_key_to_itself: false,
            instance,
        }
    }

    fn started(number: u128) -> Plan {
        Plan {
            starts: vec![a_start(saga(number))],
            ..Plan::default()
        }
    }

    #[test]
    fn a_committed_saga_is_taken_from_the_cache_by_one_batch_until_that_batch_commits() {
        let cache = Cache::default();
        cache.put(&started(1));
        let known = cache.take(&[saga(1), saga(2)]);
        assert_eq!(known[&saga(1)].version, 1);
        assert_eq!(known.len(), 1);
        assert_eq!(cache.take(&[saga(1)]).len(), 0);
        let update = SagaRow {
            version: 1,
            ..a_start(saga(1))
        };
        cache.put(&Plan {
            updates: vec![update],
            ..Plan::default()
        });
        assert_eq!(cache.take(&[saga(1)])[&saga(1)].version, 2);
    }

    #[test]
    fn an_ended_saga_leaves_the_cache_even_if_it_began_in_the_same_batch() {
        let cache = Cache::default();
        let mut plan = started(1);
        plan.ends = vec![SagaRow {
            version: 1,
            ..a_start(saga(1))
        }];
        cache.put(&plan);
        assert_eq!(cache.take(&[saga(1)]).len(), 0);
    }

    #[test]
    fn versions_of_unmodified_sagas_are_returned_for_checking() {
        let cache = Cache::default();
        for number in 1..=3 {
            cache.put(&started(number));
        }
        let unread = AssumedVersions::of(&cache.take(&[saga(1), saga(2), saga(3), saga(4)]));
        let row = |number| SagaRow {
            version: 1,
            ..a_start(saga(number))
        };
        let plan = Plan {
            starts: vec![a_start(saga(4))],
            updates: vec![row(1)],
            ends: vec![row(3)],
            ..Plan::default()
        };
        assert_eq!(unread.unmodified(&plan), BTreeMap::from([(saga(2), 1)]));
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let cache = Cache::default();
        let row = a_start(saga(0));
        for number in 0..=CAPACITY as u128 {
            let mut row = row.clone();
            row.instance.id = saga(number);
            cache.put(&Plan {
                starts: vec![row],
                ..Plan::default()
            });
        }
        assert_eq!(cache.take(&[saga(0)]).len(), 0);
        assert_eq!(cache.take(&[saga(CAPACITY as u128)]).len(), 1);
    }
}
