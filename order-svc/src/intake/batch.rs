//! Handles one batch of requests: new orders are written, and repeated requests get the id of the order that the first
//! request made.

use super::start;
use crate::{
    domain::order::Order,
    store::{self, idempotency::Claim},
};
use metrics::counter;
use saga_contracts::definition::STARTER_STEP;
use saga_core::{ids::SagaId, message::OutgoingRecord};
use saga_messaging::{
    consumer::BatchError,
    crash_point::CrashPoint,
    outbox::{Outbox, OutboxError, Relay, StagedBatch},
    partition::PartitionAlarm,
};
use saga_participant::inbox;
use saga_postgres::silence::limited;
use sqlx::{PgConnection, PgPool};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use thiserror::Error;
use tracing::debug;
use uuid::Uuid;

/// A request to accept an order.
#[derive(Clone, Debug)]
pub struct Job {
    /// The pending order, with its id and home partition.
    pub order: Order,
    pub idempotency: Option<Idempotency>,
    pub traceparent: String,
}

/// The data by which a request with an `Idempotency-Key` is recognized when it is repeated.
#[derive(Clone, Debug)]
pub struct Idempotency {
    pub key: String,
    pub request_hash: [u8; 32],
}

/// The result of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The order is committed, so it cannot be lost any more.
    Accepted,
    /// The request is a repetition; this is the order that the first request made.
    Existing(Uuid),
    /// The key was used for a different request.
    KeyReused,
    /// Only this request could not be written.
    Failed(IntakeError),
}

#[derive(Clone, Debug, Error)]
pub enum IntakeError {
    #[error("the order could not be stored")]
    Store(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The database refuses a value that an earlier check should have refused.
    #[error("a value of the order cannot be stored")]
    Data(#[source] Arc<dyn std::error::Error + Send + Sync>),
    #[error("it is unknown if the order was stored")]
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

/// Writes batches of requests.
#[derive(Clone)]
pub struct Intake {
    pub pool: PgPool,
    pub outbox: Outbox,
    pub relay: Relay,
    /// Raised if the barrier record of an order finds no partition.
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
            request_hash: idempotency.request_hash.to_vec(),
            order_id: self.order.id,
        })
    }
}

impl Intake {
    /// Writes all jobs in one transaction. If the database refuses a value, writes each job in its own transaction, so
    /// that only the job with that value fails.
    pub async fn take_in(&self, jobs: Vec<Job>) -> Result<Vec<Outcome>, IntakeError> {
        match self.attempt_unless_silent(&jobs).await {
            Err(IntakeError::Data(_)) if jobs.len() > 1 => {
                let mut outcomes = Vec::with_capacity(jobs.len());
                for job in &jobs {
                    let only = std::slice::from_ref(job);
                    let single = self.attempt_unless_silent(only).await;
                    outcomes.extend(single.unwrap_or_else(|error| vec![Outcome::Failed(error)]));
                }
                Ok(outcomes)
            }
            result => result,
        }
    }

    /// Limits one attempt in time. The outcome is unknown if the connection goes silent, because that may happen during
    /// the commit.
    async fn attempt_unless_silent(&self, jobs: &[Job]) -> Result<Vec<Outcome>, IntakeError> {
        limited(async { Ok::<_, sqlx::Error>(self.attempt(jobs).await) })
            .await
            .unwrap_or_else(|silent| Err(IntakeError::Unknown(Arc::new(silent))))
    }

    async fn attempt(&self, jobs: &[Job]) -> Result<Vec<Outcome>, IntakeError> {
        let mut transaction = self.pool.begin().await?;
        let holders = settle_keys(&mut transaction, jobs).await?;
        let outcomes: Vec<Outcome> = jobs.iter().map(|job| outcome(job, &holders)).collect();
        let accepted: Vec<&Job> = jobs
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| matches!(outcome, Outcome::Accepted))
            .map(|(job, _)| job)
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
            // At `info`, the request's own log line already says this.
            debug!(
                order.id = %job.order.id,
                saga.id = %job.order.id,
                correlation.id = job.order.correlation_id,
                "order accepted"
            );
        }
        Ok(outcomes)
    }

    /// Writes the orders with their first events, the barrier records of the sagas' first step, which the orders
    /// themselves are, and the messages that start the sagas.
    async fn write(
        &self,
        tx: &mut PgConnection,
        accepted: &[&Job],
    ) -> Result<StagedBatch, IntakeError> {
        let orders: Vec<&Order> = accepted.iter().map(|job| &job.order).collect();
        store::order::insert(tx, &orders).await?;
        // Without this record, the saga's `order.cancel` would find no work of this step and be an empty compensation.
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

/// Returns, for each key, the first job of the batch with that key. Later jobs with the key are duplicates of it.
fn fold(jobs: &[Job]) -> BTreeMap<KeyRef<'_>, &Job> {
    let mut leaders = BTreeMap::new();
    for job in jobs {
        if let Some(key) = job.key() {
            leaders.entry(key).or_insert(job);
        }
    }
    leaders
}

/// Returns the holder of each key in the batch: the batch's first job with that key, or an earlier request.
async fn settle_keys(
    tx: &mut PgConnection,
    jobs: &[Job],
) -> Result<HashMap<(Uuid, String), Claim>, sqlx::Error> {
    let claims: Vec<Claim> = fold(jobs).into_values().filter_map(Job::claim).collect();
    if claims.is_empty() {
        return Ok(HashMap::new());
    }
    let won: HashSet<Uuid> = store::idempotency::claim(tx, &claims)
        .await?
        .into_iter()
        .collect();
    let (mut holders, lost): (Vec<Claim>, Vec<Claim>) = claims
        .into_iter()
        .partition(|claim| won.contains(&claim.order_id));
    if !lost.is_empty() {
        holders.extend(store::idempotency::holders(tx, &lost).await?);
    }
    Ok(holders
        .into_iter()
        .map(|claim| ((claim.customer_id, claim.key.clone()), claim))
        .collect())
}

fn outcome(job: &Job, holders: &HashMap<(Uuid, String), Claim>) -> Outcome {
    let holder = job.idempotency.as_ref().and_then(|idempotency| {
        let key = (job.order.customer_id, idempotency.key.clone());
        Some((holders.get(&key)?, idempotency))
    });
    match holder {
        Some((holder, asked)) if holder.request_hash != asked.request_hash => Outcome::KeyReused,
        Some((holder, _)) if holder.order_id != job.order.id => Outcome::Existing(holder.order_id),
        Some(_) | None => Outcome::Accepted,
    }
}
