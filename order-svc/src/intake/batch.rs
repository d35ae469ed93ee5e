//! One batch of requests: what is new is written, what was asked before gets its answer.

use super::start;
use crate::{
    domain::order::Order,
    store::{
        self,
        idempotency::{Claim, Taken},
    },
    view,
};
use metrics::counter;
use saga_contracts::definition::STARTER_STEP;
use saga_core::{ids::SagaId, message::OutgoingRecord};
use saga_messaging::{
    crash_point::CrashPoint,
    outbox::{Outbox, OutboxError, Relay, StagedBatch},
    participant::inbox,
    partition::PartitionAlarm,
    rule::BatchError,
};
use sqlx::{PgConnection, PgPool};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use thiserror::Error;
use tracing::debug;
use uuid::Uuid;

/// A request to take an order in.
#[derive(Clone, Debug)]
pub struct Job {
    /// Pending, with its id and home partition.
    pub order: Order,
    pub idempotency: Option<Idempotency>,
    pub traceparent: String,
}

/// What a request that carries an `Idempotency-Key` is remembered by.
#[derive(Clone, Debug)]
pub struct Idempotency {
    pub key: String,
    pub request_hash: [u8; 32],
    pub preference_applied: Option<String>,
    /// For so long the request waits for a better answer; 0 if it does not.
    pub wait_seconds: u64,
}

/// The answer that stands under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    pub order_id: Uuid,
    pub body: String,
    pub preference_applied: Option<String>,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Committed: never lost from here on.
    Accepted,
    /// Asked before: the same answer again.
    Stored(StoredAnswer),
    /// Asked before, and not answered yet.
    InProgress,
    /// The key was used for something else.
    KeyReused,
    /// This request alone cannot be written.
    Failed(IntakeError),
}

#[derive(Clone, Debug, Error)]
pub enum IntakeError {
    #[error("the order could not be stored")]
    Store(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// A value that the database refuses; a check that should have come earlier is missing.
    #[error("a value of the order cannot be stored")]
    Data(#[source] Arc<dyn std::error::Error + Send + Sync>),
    #[error("whether the order was stored is not known")]
    Unknown(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl From<sqlx::Error> for IntakeError {
    fn from(error: sqlx::Error) -> Self {
        Self::from(BatchError::from(error))
    }
}

impl From<BatchError> for IntakeError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Data(source) => Self::Data(source.into()),
            BatchError::Retry(source) => Self::Store(source.into()),
        }
    }
}

impl From<OutboxError> for IntakeError {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Store(error) => Self::from(error),
            error @ OutboxError::Log(_) => Self::Store(Arc::new(error)),
        }
    }
}

/// Writes batches.
#[derive(Clone)]
pub struct Intake {
    pub pool: PgPool,
    pub outbox: Outbox,
    pub relay: Relay,
    /// An order is a row of the barrier too.
    pub partition_alarm: PartitionAlarm,
}

type KeyRef<'a> = (Uuid, &'a str);

impl Job {
    fn key(&self) -> Option<KeyRef<'_>> {
        let idempotency = self.idempotency.as_ref()?;
        Some((self.order.customer_id, idempotency.key.as_str()))
    }

    fn claim(&self) -> Option<Claim> {
        let idempotency = self.idempotency.as_ref()?;
        Some(Claim {
            customer_id: self.order.customer_id,
            key: idempotency.key.clone(),
            request_hash: idempotency.request_hash,
            order_id: self.order.id,
            answer: view::body(&self.order),
            preference_applied: idempotency.preference_applied.clone(),
            wait_seconds: idempotency.wait_seconds,
        })
    }
}

impl Intake {
    /// One transaction over all; if the database refuses a value, one each, so that only its own request fails.
    pub async fn take_in(&self, jobs: Vec<Job>) -> Result<Vec<Outcome>, IntakeError> {
        match self.attempt(&jobs).await {
            Err(IntakeError::Data(_)) if jobs.len() > 1 => {
                let mut outcomes = Vec::with_capacity(jobs.len());
                for job in &jobs {
                    let single = self.attempt(std::slice::from_ref(job)).await;
                    outcomes.push(single.map_or_else(Outcome::Failed, |mut one| {
                        one.pop().unwrap_or(Outcome::InProgress)
                    }));
                }
                Ok(outcomes)
            }
            result => result,
        }
    }

    async fn attempt(&self, jobs: &[Job]) -> Result<Vec<Outcome>, IntakeError> {
        let leaders = fold(jobs);
        let mut transaction = self.pool.begin().await?;
        let (won, taken) = settle_keys(&mut transaction, jobs, &leaders).await?;
        let accepted: Vec<&Job> = jobs
            .iter()
            .filter(|job| job.idempotency.is_none() || won.contains(&job.order.id))
            .collect();
        let staged = if accepted.is_empty() {
            None
        } else {
            Some(self.write(&mut transaction, &accepted).await?)
        };
        CrashPoint::OrderBeforeCommit.pass();
        transaction
            .commit()
            .await
            .map_err(|error| IntakeError::Unknown(Arc::new(error)))?;
        CrashPoint::OrderAfterCommit.pass();
        if let Some(staged) = staged {
            self.relay.publish_soon(staged);
        }
        counter!("orders_accepted_total").increment(accepted.len() as u64);
        for job in &accepted {
            // At `info`, its request's line says the same.
            debug!(
                order.id = %job.order.id,
                saga.id = %job.order.id,
                correlation.id = job.order.correlation_id,
                "order accepted"
            );
        }
        Ok(jobs
            .iter()
            .map(|job| outcome(job, jobs, &leaders, &won, &taken))
            .collect())
    }

    /// Everything that makes an order: the row with its first event, the barrier record of the step that this is, and the
    /// message that starts its saga.
    async fn write(
        &self,
        tx: &mut PgConnection,
        accepted: &[&Job],
    ) -> Result<StagedBatch, IntakeError> {
        let orders: Vec<&Order> = accepted.iter().map(|job| &job.order).collect();
        store::order::insert(tx, &orders).await?;
        // Without it, the saga's `order.cancel` would find no work of this step and be an empty compensation.
        let sagas: Vec<SagaId> = orders.iter().map(|order| SagaId(order.id)).collect();
        inbox::record_started(tx, &sagas, STARTER_STEP)
            .await
            .inspect_err(|error| self.partition_alarm.look_at_sql(error))?;
        let starts: Vec<OutgoingRecord> = accepted
            .iter()
            .map(|job| start::record(&job.order, &job.traceparent))
            .collect();
        Ok(self.outbox.stage_owned(tx, starts).await?)
    }
}

/// For each key, the first job of the batch that carries it; the others are duplicates of that one.
fn fold(jobs: &[Job]) -> BTreeMap<KeyRef<'_>, usize> {
    let mut leaders = BTreeMap::new();
    for (n, job) in jobs.iter().enumerate() {
        if let Some(key) = job.key() {
            leaders.entry(key).or_insert(n);
        }
    }
    leaders
}

/// The orders that got their keys, and what stands under the other keys.
async fn settle_keys(
    tx: &mut PgConnection,
    jobs: &[Job],
    leaders: &BTreeMap<KeyRef<'_>, usize>,
) -> Result<(HashSet<Uuid>, HashMap<(Uuid, String), Taken>), sqlx::Error> {
    let claims: Vec<Claim> = leaders.values().filter_map(|n| jobs[*n].claim()).collect();
    if claims.is_empty() {
        return Ok((HashSet::new(), HashMap::new()));
    }
    let won: HashSet<Uuid> = store::idempotency::claim(tx, &claims)
        .await?
        .into_iter()
        .collect();
    let lost: Vec<KeyRef<'_>> = leaders
        .iter()
        .filter(|(_, n)| !won.contains(&jobs[**n].order.id))
        .map(|(key, _)| *key)
        .collect();
    if lost.is_empty() {
        return Ok((won, HashMap::new()));
    }
    let taken = store::idempotency::taken(tx, &lost).await?;
    let by_key = taken
        .into_iter()
        .map(|row| ((row.customer_id, row.key.clone()), row));
    Ok((won, by_key.collect()))
}

fn outcome(
    job: &Job,
    jobs: &[Job],
    leaders: &BTreeMap<KeyRef<'_>, usize>,
    won: &HashSet<Uuid>,
    taken: &HashMap<(Uuid, String), Taken>,
) -> Outcome {
    let Some(idempotency) = &job.idempotency else {
        return Outcome::Accepted;
    };
    if won.contains(&job.order.id) {
        return Outcome::Accepted;
    }
    let key = (job.order.customer_id, idempotency.key.clone());
    if let Some(row) = taken.get(&key) {
        return judge(row, &idempotency.request_hash);
    }
    let leader = leaders
        .get(&(key.0, key.1.as_str()))
        .and_then(|n| jobs[*n].claim());
    leader.map_or(Outcome::InProgress, |claim| {
        let row = Taken {
            customer_id: claim.customer_id,
            key: claim.key,
            request_hash: claim.request_hash.to_vec(),
            order_id: claim.order_id,
            answer: claim.answer,
            preference_applied: claim.preference_applied,
            answer_in_seconds: claim.wait_seconds as i64,
        };
        judge(&row, &idempotency.request_hash)
    })
}

/// What a request gets that comes second.
fn judge(row: &Taken, request_hash: &[u8; 32]) -> Outcome {
    if row.request_hash != request_hash {
        return Outcome::KeyReused;
    }
    if row.answer_in_seconds > 0 {
        return Outcome::InProgress;
    }
    Outcome::Stored(StoredAnswer {
        order_id: row.order_id,
        body: row.answer.clone(),
        preference_applied: row.preference_applied.clone(),
    })
}
