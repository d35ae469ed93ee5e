//! `Prefer: wait`: requests that are answered when their order has ended.
//!
//! Which copy of the service handles an order's end is Kafka's choice, so the one place to look is the table. One
//! poller looks for all who wait here, and only while somebody waits; a batch that ends orders in this process gives
//! it a nudge, so that the usual wait is not rounded up to the next tick.
//!
//! ```text
//! request ── register ──▶ commit ──▶ wait ──────────────────────────▶ answer: final, or what was stored
//!               │                     ▲ or the deadline: deregister ──▶ answer: what was stored
//!               ▼                     │
//!            poller: ended? ──▶ replace the stored answer of its key ──▶ settle
//! ```
//!
//! The answer stored under a request's `Idempotency-Key` is the one that is sent: the poller replaces it before the
//! request hears of the end, and a request that gives up first takes itself off the list, after which nobody replaces
//! it any more.

use crate::{
    domain::order::Order,
    store::{self, idempotency::BetterAnswer},
    view,
};
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

/// Requests that wait at once: each tick asks for all of them in one statement. Further ones are answered at once.
pub const MAX_WAITERS: usize = 2_000;
/// Between two looks.
const TICK: Duration = Duration::from_millis(20);
/// Between two looks after a nudge, which comes shortly before the commit that it announces.
const QUICK_TICK: Duration = Duration::from_millis(3);
const QUICK_TICKS: u32 = 4;
/// While the database is away.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(250);

/// Whom an answer is stored for: customer and key.
pub type KeyOf = (Uuid, String);

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The order has ended; this is the answer.
    Final(String),
    /// The answer of the beginning stands.
    Initial,
    /// The poller was interrupted while it replaced the stored answer: read it.
    Unclear,
}

struct Waiter {
    key: Option<KeyOf>,
    settle: oneshot::Sender<Settled>,
}

#[derive(Default)]
struct List {
    waiters: HashMap<Uuid, Waiter>,
    /// Nobody looks any more, so nobody may wait.
    closed: bool,
}

/// Everyone who waits in this process.
#[derive(Default)]
pub struct Waiters {
    list: Mutex<List>,
    arrived: Notify,
    nudged: Notify,
}

/// A place on the list; dropping it leaves the list.
pub struct Ticket {
    waiters: Arc<Waiters>,
    order_id: Uuid,
    settled: oneshot::Receiver<Settled>,
}

impl Waiters {
    /// Puts a request on the list, before its order is committed, so that no end can be missed. `None`: it is full,
    /// or the process is stopping.
    pub fn register(self: &Arc<Self>, order_id: Uuid, key: Option<KeyOf>) -> Option<Ticket> {
        let (settle, settled) = oneshot::channel();
        {
            let mut list = self.list();
            if list.closed || list.waiters.len() >= MAX_WAITERS {
                return None;
            }
            list.waiters.insert(order_id, Waiter { key, settle });
        }
        self.arrived.notify_one();
        Some(Ticket {
            waiters: Arc::clone(self),
            order_id,
            settled,
        })
    }

    /// Orders are about to end in this process.
    pub fn nudge(&self) {
        if !self.list().waiters.is_empty() {
            self.nudged.notify_one();
        }
    }

    /// Looks for ended orders until `stop`; then everyone gets the answer of the beginning. A look is never broken off:
    /// it may be replacing answers.
    pub async fn run(&self, pool: PgPool, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.somebody() => {}
            }
            self.look_while_needed(&pool, &stop).await;
        }
        let left: Vec<Waiter> = {
            let mut list = self.list();
            list.closed = true;
            list.waiters.drain().map(|(_, waiter)| waiter).collect()
        };
        for waiter in left {
            settle(waiter.settle, Settled::Initial);
        }
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
            if let Err(error) = self.tick(pool).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "looking for ended orders failed"
                );
                pause = PAUSE_AFTER_ERROR;
            } else if quick_ticks > 0 {
                quick_ticks -= 1;
                pause = QUICK_TICK;
            }
            // A busy database is not asked more often than it answers.
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

    /// One look: settles everyone whose order has ended.
    pub async fn tick(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let ids: Vec<Uuid> = self.list().waiters.keys().copied().collect();
        let mut connection = pool.acquire().await?;
        let ended = store::order::ended(&mut connection, &ids).await?;
        let ended: Vec<(Order, Waiter)> = {
            let mut list = self.list();
            ended
                .into_iter()
                .filter_map(|order| list.waiters.remove(&order.id).map(|waiter| (order, waiter)))
                .collect()
        };
        // From here on these requests do not answer on their own; should the replacement fail, dropping their
        // senders tells them to read what is stored.
        let better: Vec<BetterAnswer> = ended
            .iter()
            .filter_map(|(order, waiter)| {
                let (customer_id, key) = waiter.key.clone()?;
                Some(BetterAnswer {
                    customer_id,
                    key,
                    order_id: order.id,
                    answer: view::body(order),
                })
            })
            .collect();
        let replaced: HashSet<Uuid> = if better.is_empty() {
            HashSet::new()
        } else {
            store::idempotency::answer(&mut connection, &better)
                .await?
                .into_iter()
                .collect()
        };
        for (order, waiter) in ended {
            let free = waiter.key.is_none() || replaced.contains(&order.id);
            let outcome = if free {
                Settled::Final(view::body(&order))
            } else {
                Settled::Initial
            };
            settle(waiter.settle, outcome);
        }
        Ok(())
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // Nothing panics while it is held, and the map is whole in any case.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever waited may have hung up.
fn settle(to: oneshot::Sender<Settled>, outcome: Settled) {
    if to.send(outcome).is_err() {
        tracing::trace!("a waiting request went away");
    }
}

impl Ticket {
    /// Waits for the order's end, at most until `deadline`.
    pub async fn wait(mut self, deadline: Instant) -> Settled {
        if let Ok(settled) = tokio::time::timeout_at(deadline, &mut self.settled).await {
            return settled.unwrap_or(Settled::Unclear);
        }
        if self.waiters.list().waiters.remove(&self.order_id).is_some() {
            return Settled::Initial;
        }
        // The poller is replacing the answer at this moment.
        (&mut self.settled).await.unwrap_or(Settled::Unclear)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiters.list().waiters.remove(&self.order_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(5)
    }

    #[tokio::test]
    async fn a_deadline_ends_the_wait_with_the_answer_of_the_beginning() {
        let waiters = Arc::new(Waiters::default());
        let ticket = waiters.register(Uuid::from_u128(1), None).expect("a place");
        assert_eq!(ticket.wait(soon()).await, Settled::Initial);
        assert!(waiters.list().waiters.is_empty());
    }

    #[tokio::test]
    async fn whoever_goes_away_leaves_the_list() {
        let waiters = Arc::new(Waiters::default());
        drop(waiters.register(Uuid::from_u128(1), None));
        assert!(waiters.list().waiters.is_empty());
    }

    #[tokio::test]
    async fn an_interrupted_replacement_is_unclear() {
        let waiters = Arc::new(Waiters::default());
        let ticket = waiters.register(Uuid::from_u128(1), None).expect("a place");
        drop(waiters.list().waiters.remove(&Uuid::from_u128(1)));
        assert_eq!(ticket.wait(soon()).await, Settled::Unclear);
    }

    #[tokio::test]
    async fn a_stop_answers_everyone_and_nobody_waits_after_it() {
        let waiters = Arc::new(Waiters::default());
        let ticket = waiters.register(Uuid::from_u128(1), None).expect("a place");
        let (pool, stop) = (
            PgPool::connect_lazy("postgres://nobody@127.0.0.1:9/x"),
            CancellationToken::new(),
        );
        stop.cancel();
        waiters.run(pool.expect("a lazy pool"), stop).await;
        let later = Instant::now() + Duration::from_mins(1);
        assert_eq!(ticket.wait(later).await, Settled::Initial);
        assert!(waiters.register(Uuid::from_u128(2), None).is_none());
    }

    #[tokio::test]
    async fn the_list_is_bounded() {
        let waiters = Arc::new(Waiters::default());
        let places: Vec<_> = (0..MAX_WAITERS as u128)
            .map(|n| waiters.register(Uuid::from_u128(n), None))
            .collect();
        assert!(places.iter().all(Option::is_some));
        assert!(waiters.register(Uuid::from_u128(u128::MAX), None).is_none());
    }
}
