//! What became of a batch of records on their way to the brokers.
//!
//! The client library tells it record by record, on a thread of its own; who waits for a batch is woken once, by the last.

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

/// Records that are waited for together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Tickets that are out.
    left: AtomicUsize,
    told: Mutex<Told>,
    all_told: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    /// By the record's place in the batch; only all of them mean anything.
    pub delivered: Vec<Delivered>,
    /// The first that failed, and why.
    pub failed: Option<(usize, KafkaError)>,
}

/// Goes with one record through the client library, and comes back with what became of it.
#[derive(Debug)]
pub(super) struct Ticket {
    batch: Arc<Batch>,
    place: usize,
    told: bool,
}

impl Batch {
    /// Nothing of it is under way yet.
    pub(super) fn of(records: usize) -> Arc<Self> {
        let nowhere = Delivered {
            partition: -1,
            offset: -1,
        };
        Arc::new(Self {
            left: AtomicUsize::new(0),
            told: Mutex::new(Told {
                delivered: vec![nowhere; records],
                failed: None,
            }),
            all_told: Notify::new(),
        })
    }

    pub(super) fn ticket(self: &Arc<Self>, place: usize) -> Ticket {
        self.left.fetch_add(1, Ordering::AcqRel);
        Ticket {
            batch: Arc::clone(self),
            place,
            told: false,
        }
    }

    /// Waits for every ticket that was given out.
    pub(super) async fn all(&self) -> Told {
        loop {
            // Before the look, so that the last ticket's call in between is not missed.
            let all_told = self.all_told.notified();
            if self.left.load(Ordering::Acquire) == 0 {
                return std::mem::take(&mut *self.told());
            }
            all_told.await;
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    fn tell(&mut self, outcome: Result<Delivered, KafkaError>) {
        self.told = true;
        let mut told = self.batch.told();
        match outcome {
            Ok(at) => {
                if let Some(place) = told.delivered.get_mut(self.place) {
                    *place = at;
                }
            }
            Err(error) => {
                told.failed.get_or_insert((self.place, error));
            }
        }
    }
}

impl Drop for Ticket {
    /// A record that the client library did not take, or gave up without a word.
    fn drop(&mut self) {
        if !self.told {
            let purged = KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue);
            self.tell(Err(purged));
        }
        if self.batch.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.batch.all_told.notify_one();
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, mut ticket: Self::DeliveryOpaque) {
        ticket.tell(match result {
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
    async fn the_last_to_be_told_wakes_whoever_waits() {
        let batch = Batch::of(2);
        let mut tickets = [batch.ticket(0), batch.ticket(1)];
        let waiting = tokio::spawn({
            let batch = Arc::clone(&batch);
            async move { batch.all().await }
        });
        let [first, second] = &mut tickets;
        second.tell(Ok(at(8)));
        first.tell(Ok(at(7)));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(tickets);
        let told = waiting.await.unwrap();
        assert_eq!(told.delivered, [at(7), at(8)]);
        assert!(told.failed.is_none());
    }

    #[tokio::test]
    async fn a_record_that_comes_back_unsent_has_failed() {
        let batch = Batch::of(2);
        batch.ticket(0).tell(Ok(at(7)));
        drop(batch.ticket(1));
        let (place, _) = batch.all().await.failed.unwrap();
        assert_eq!(place, 1);
    }

    #[tokio::test]
    async fn an_empty_batch_is_not_waited_for() {
        assert!(Batch::of(0).all().await.delivered.is_empty());
    }
}
