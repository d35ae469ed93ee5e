//! Collects the delivery reports of a batch of records.
//!
//! The client library reports each record on a thread of its own. The task that waits for a batch is woken once, by the
//! last report.

use super::context::Context;
use crate::log::Delivered;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::Message,
    producer::{DeliveryResult, ProducerContext},
};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Notify;

/// Records whose reports are awaited together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Tickets that have not come back.
    left: AtomicUsize,
    results: Mutex<DeliveryResults>,
    all_reported: Notify,
}

#[derive(Debug, Default)]
pub(super) struct DeliveryResults {
    /// Deliveries by the record's place in the batch. They are complete only when all reports have arrived. A record
    /// that failed or was not sent has none.
    pub delivered: Vec<Option<Delivered>>,
    /// The first failed record, and its error.
    pub failed: Option<(usize, KafkaError)>,
}

/// Accompanies one record through the client library, and brings back its delivery report.
#[derive(Debug)]
pub(super) struct Ticket {
    batch: Arc<Batch>,
    place: usize,
    reported: bool,
}

impl Batch {
    /// Returns a batch of which no record has been sent yet.
    pub(super) fn of(records: usize) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(0),
            results: Mutex::new(DeliveryResults {
                delivered: vec![None; records],
                failed: None,
            }),
            all_reported: Notify::new(),
        })
    }

    pub(super) fn ticket(self: &Arc<Self>, place: usize) -> Ticket {
        self.left.fetch_add(1, Ordering::AcqRel);
        Ticket {
            batch: Arc::clone(self),
            place,
            reported: false,
        }
    }

    /// Waits for every ticket that was issued.
    pub(super) async fn all(&self) -> DeliveryResults {
        loop {
            // The notification is requested before the check, so that a last ticket in between is not missed.
            let all_reported = self.all_reported.notified();
            if self.left.load(Ordering::Acquire) == 0 {
                return std::mem::take(&mut *self.results());
            }
            all_reported.await;
        }
    }

    fn results(&self) -> MutexGuard<'_, DeliveryResults> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    fn report(&mut self, outcome: Result<Delivered, KafkaError>) {
        self.reported = true;
        let mut results = self.batch.results();
        match outcome {
            Ok(at) => {
                if let Some(place) = results.delivered.get_mut(self.place) {
                    *place = Some(at);
                }
            }
            Err(error) => {
                results.failed.get_or_insert((self.place, error));
            }
        }
    }
}

impl Drop for Ticket {
    /// Reports a record that the client library did not accept, or dropped without a report, as failed.
    fn drop(&mut self) {
        if !self.reported {
            let purged = KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue);
            self.report(Err(purged));
        }
        if self.batch.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.batch.all_reported.notify_one();
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, mut ticket: Self::DeliveryOpaque) {
        ticket.report(match result {
            Ok(message) => Ok(Delivered {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(error.clone()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Delivered {
        Delivered {
            partition: 3,
            offset,
        }
    }

    #[tokio::test]
    async fn the_last_result_wakes_the_waiting_task() {
        let batch = Batch::of(2);
        let mut tickets = [batch.ticket(0), batch.ticket(1)];
        let waiting = tokio::spawn({
            let batch = Arc::clone(&batch);
            async move { batch.all().await }
        });
        let [first, second] = &mut tickets;
        second.report(Ok(at(8)));
        first.report(Ok(at(7)));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(tickets);
        let results = waiting.await.unwrap();
        assert_eq!(results.delivered, [Some(at(7)), Some(at(8))]);
        assert!(results.failed.is_none());
    }

    #[tokio::test]
    async fn a_record_returned_unsent_has_failed() {
        let batch = Batch::of(2);
        batch.ticket(0).report(Ok(at(7)));
        drop(batch.ticket(1));
        let results = batch.all().await;
        assert_eq!(results.delivered, [Some(at(7)), None]);
        assert_eq!(results.failed.map(|(place, _)| place), Some(1));
    }

    #[tokio::test]
    async fn an_empty_batch_is_not_waited_for() {
        assert!(Batch::of(0).all().await.delivered.is_empty());
    }
}
