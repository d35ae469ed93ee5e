//! Live sagas as this process wrote them last. A saga that nobody else has moved since need not be read again: its owner
//! decides from memory, and its version is compared when it is written.
//!
//! An entry is taken out when a batch begins with it, and put back, newer, when the batch has committed. So whatever
//! fails, and a commit whose answer is lost above all, leaves nothing here that could be wrong; and a batch that failed
//! because something was wrong here reads when it is run again.

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

/// Several times what moves at once on one machine at its limit; some 10 KiB each. What waits for longer is read again.
const CAPACITY: usize = 10_000;

/// Shared by the batches of a process.
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

    /// Others may move all of them from here on. What has been taken out is not known here any more in any case.
    pub fn forget(&self) {
        if mutant::on(Mutant::TrustMemory) {
            return;
        }
        self.rows().clear();
    }

    /// What a batch with these sagas need not read, and what it must.
    pub fn split(&self, sagas: &[SagaId]) -> Known {
        let rows = self.take(sagas);
        let is_unknown = |id: &&SagaId| !rows.contains_key(id);
        Known {
            unknown: sagas.iter().filter(is_unknown).copied().collect(),
            rows,
        }
    }

    /// What is known of these sagas, for one batch.
    pub fn take(&self, sagas: &[SagaId]) -> HashMap<SagaId, LiveRow> {
        let mut rows = self.rows();
        sagas
            .iter()
            .filter_map(|id| Some((*id, rows.remove(id)?)))
            .collect()
    }

    /// A plan has been committed.
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

/// What one batch knows of its sagas.
pub struct Known {
    rows: HashMap<SagaId, LiveRow>,
    /// To be read, in the order that was asked for.
    pub unknown: Vec<SagaId>,
}

impl Known {
    pub fn unread(&self) -> Unread {
        Unread::of(&self.rows)
    }

    /// Puts it beside what was read, in id order.
    pub fn join(self, loaded: &mut Loaded) {
        loaded.live.extend(self.rows.into_values());
        loaded.live.sort_unstable_by_key(|row| row.instance.id);
    }
}

/// What a batch takes for granted: sagas that it did not read, and the versions that it decides from.
///
/// Those that it writes are compared as they are written. One that it leaves alone, since its input seemed to be an old
/// one, must be looked at all the same: had a rival moved it, the input may be the very one that it waits for.
#[derive(Debug, Default)]
pub struct Unread(BTreeMap<SagaId, i64>);

impl Unread {
    pub fn of(known: &HashMap<SagaId, LiveRow>) -> Self {
        Self(known.iter().map(|(id, row)| (*id, row.version)).collect())
    }

    /// What the plan does not write, in id order.
    pub fn left_alone(mut self, plan: &Plan) -> BTreeMap<SagaId, i64> {
        if mutant::on(Mutant::TrustMemory) {
            return BTreeMap::new();
        }
        for row in plan.updates.iter().chain(&plan.ends) {
            self.0.remove(&row.instance.id);
        }
        self.0
    }
}

/// As it stands in the table now.
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
        message::{StartSaga, Trace},
        transition::{self, Outbound},
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
        };
        let outbound = Outbound {
            reply_topic: "saga.inputs".to_owned(),
            floor: None,
        };
        let at = Timestamp::default();
        let instance = transition::start(&definition, &start, 0, at, position, &outbound).saga;
        SagaRow {
            version: 0,
            start_hash: Vec::new(),
            waiting: transition::waiting(&definition, &instance),
            next_due: None,
            queued: Vec::new(),
            last_error: None,
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
    fn what_was_committed_is_known_to_one_batch_and_then_to_none_until_it_commits() {
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
    fn what_has_ended_is_forgotten_even_if_it_began_in_the_same_batch() {
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
    fn what_is_known_and_not_written_is_left_to_be_looked_at() {
        let cache = Cache::default();
        for number in 1..=3 {
            cache.put(&started(number));
        }
        let unread = Unread::of(&cache.take(&[saga(1), saga(2), saga(3), saga(4)]));
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
        assert_eq!(unread.left_alone(&plan), BTreeMap::from([(saga(2), 1)]));
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
