//! `Prefer: wait`: requests that are answered when their order has ended.
//!
//! Kafka decides which instance of the service handles an order's end, so the wait polls the table. One poller serves
//! all waiting requests of a process, and only while there are any. A batch that ends orders in this process wakes the
//! poller, so that a usual wait is not rounded up to the next tick.
//!
//! Several requests may wait for one order: a client that disconnected and repeats its request with the same
//! `Idempotency-Key` waits beside its first request. Reading the table instead of a signal makes it irrelevant when a
//! wait begins.

use crate::{store, view};
use saga_postgres::silence::limited;
use sqlx::PgPool;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

/// The maximum number of waiting requests. Each tick reads the orders of all of them in one statement. Further requests
/// are answered at once.
pub const MAX_WAITERS: usize = 2_000;
/// The interval between two polls.
const TICK: Duration = Duration::from_millis(20);
/// The interval between two polls after a wake-up, which comes shortly before the commit that it announces.
const QUICK_TICK: Duration = Duration::from_millis(3);
const QUICK_TICKS: u32 = 4;
/// The interval between two polls while the database is unavailable.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(250);

/// A waiting request, with the channel for its order's final body.
struct Waiter {
    order_id: Uuid,
    ended: oneshot::Sender<String>,
}

#[derive(Default)]
struct List {
    waiters: HashMap<u64, Waiter>,
    /// The number of the last ticket; tickets are counted up from one.
    next: u64,
    /// The poller has stopped, so new requests are not added.
    closed: bool,
}

/// All waiting requests of this process.
#[derive(Default)]
pub struct Waiters {
    list: Mutex<List>,
    arrived: Notify,
    nudged: Notify,
}

/// A waiting request's entry in the list. Dropping the ticket removes the entry.
pub struct Ticket {
    waiters: Arc<Waiters>,
    number: u64,
    ended: oneshot::Receiver<String>,
}

impl Waiters {
    /// Adds a request to the list. Returns `None` if the list is full or the process is stopping.
    pub fn register(self: &Arc<Self>, order_id: Uuid) -> Option<Ticket> {
        let (sender, ended) = oneshot::channel();
        let waiter = Waiter {
            order_id,
            ended: sender,
        };
        let number = {
            let mut list = self.list();
            if list.closed || list.waiters.len() >= MAX_WAITERS {
                return None;
            }
            list.next += 1;
            let number = list.next;
            list.waiters.insert(number, waiter);
            number
        };
        self.arrived.notify_one();
        Some(Ticket {
            waiters: Arc::clone(self),
            number,
            ended,
        })
    }

    /// Returns the number of waiting requests.
    pub fn count(&self) -> usize {
        self.list().waiters.len()
    }

    /// Wakes the poller, because orders are about to end in this process.
    pub fn nudge(&self) {
        if !self.list().waiters.is_empty() {
            self.nudged.notify_one();
        }
    }

    /// Polls for ended orders until `stop`, and then ends every wait.
    pub async fn run(&self, pool: PgPool, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.somebody() => {}
            }
            self.look_while_needed(&pool, &stop).await;
        }
        let mut list = self.list();
        list.closed = true;
        list.waiters.clear();
    }

    async fn somebody(&self) {
        while self.list().waiters.is_empty() {
            self.arrived.notified().await;
        }
    }

    async fn look_while_needed(&self, pool: &PgPool, stop: &CancellationToken) {
        let mut quick_ticks = 0;
        while !self.list().waiters.is_empty() {
            let started = Instant::now();
            let mut pause = TICK;
            if let Err(error) = limited(self.tick(pool)).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "looking for ended orders failed"
                );
                pause = PAUSE_AFTER_ERROR;
            } else if quick_ticks > 0 {
                quick_ticks -= 1;
                pause = QUICK_TICK;
            }
            // The pause is at least as long as the last poll took, so that a busy database is not overloaded.
            pause = pause.max(started.elapsed());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.nudged.notified() => {
                    quick_ticks = QUICK_TICKS;
                    tokio::time::sleep(QUICK_TICK).await;
                }
            }
        }
    }

    /// Polls once and ends every wait for an order that has ended.
    pub async fn tick(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let ids: HashSet<Uuid> = self.list().waiters.values().map(|w| w.order_id).collect();
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let mut connection = pool.acquire().await?;
        let ended = store::order::ended(&mut connection, &ids).await?;
        let ended: HashMap<Uuid, String> = ended
            .iter()
            .map(|order| (order.id, view::body(order)))
            .collect();
        let mut list = self.list();
        let done = list
            .waiters
            .extract_if(|_, waiter| ended.contains_key(&waiter.order_id));
        for (_, waiter) in done {
            let sent = waiter.ended.send(ended[&waiter.order_id].clone());
            if sent.is_err() {
                tracing::trace!("a waiting request was cancelled");
            }
        }
        Ok(())
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // No code panics while it holds the lock, and the map is consistent in any case.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Waits for the order's end until `deadline`, and returns the order's final body, or `None` if the order had not
    /// ended when the wait was over.
    pub async fn wait(mut self, deadline: Instant) -> Option<String> {
        let ended = tokio::time::timeout_at(deadline, &mut self.ended).await;
        ended.ok()?.ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiters.list().waiters.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(5)
    }

    #[tokio::test]
    async fn a_deadline_ends_the_wait() {
        let waiters = Arc::new(Waiters::default());
        let ticket = waiters.register(Uuid::from_u128(1)).expect("a place");
        assert_eq!(ticket.wait(soon()).await, None);
        assert!(waiters.list().waiters.is_empty());
    }

    #[tokio::test]
    async fn a_canceled_wait_keeps_other_waits_for_the_same_order() {
        let waiters = Arc::new(Waiters::default());
        let first = waiters.register(Uuid::from_u128(1)).expect("a place");
        let second = waiters.register(Uuid::from_u128(1)).expect("a place");
        drop(first);
        assert_eq!(waiters.list().waiters.len(), 1);
        drop(second);
        assert!(waiters.list().waiters.is_empty());
    }

    #[tokio::test]
    async fn a_stop_ends_every_wait_and_refuses_new_ones() {
        let waiters = Arc::new(Waiters::default());
        let ticket = waiters.register(Uuid::from_u128(1)).expect("a place");
        let (pool, stop) = (
            PgPool::connect_lazy("postgres://nobody@127.0.0.1:9/x"),
            CancellationToken::new(),
        );
        stop.cancel();
        waiters.run(pool.expect("a lazy pool"), stop).await;
        let later = Instant::now() + Duration::from_mins(1);
        assert_eq!(ticket.wait(later).await, None);
        assert!(waiters.register(Uuid::from_u128(2)).is_none());
    }

    #[tokio::test]
    async fn the_list_is_bounded() {
        let waiters = Arc::new(Waiters::default());
        let places: Vec<_> = (0..MAX_WAITERS)
            .map(|_| waiters.register(Uuid::from_u128(1)))
            .collect();
        assert!(places.iter().all(Option::is_some));
        assert!(waiters.register(Uuid::from_u128(1)).is_none());
    }
}
