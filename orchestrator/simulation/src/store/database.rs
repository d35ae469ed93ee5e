//! A simulated database server: its clock, its locks, and its failures.

use crate::{
    faults::Site,
    process::Process,
    world::{World, lock},
};
use chrono::TimeDelta;
use saga_core::ids::Timestamp;
use saga_messaging::consumer::BatchError;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

/// The time after which a statement stops waiting for a lock, as after a deadlock, unless its transaction has a limit
/// of its own.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time for which the server keeps a crashed client's transaction.
const LATE_ROLLBACK_MS: u64 = 4_000;

/// The object of a lock: a table's name and the key's text.
pub type LockKey = (&'static str, String);

/// A server with tables `T`.
pub struct Database<T> {
    pub world: Arc<World>,
    pub name: String,
    tables: Mutex<T>,
    locks: Arc<Locks>,
    clock: Mutex<TimeDelta>,
    pinned: Mutex<Option<Timestamp>>,
    away_until: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Locks {
    state: Mutex<LockState>,
    freed: Notify,
}

#[derive(Default)]
struct LockState {
    transactions: u64,
    open: BTreeSet<u64>,
    held: BTreeMap<LockKey, u64>,
}

/// A transaction: holds its locks, and knows whether the server has terminated it.
pub struct Session {
    id: u64,
    process: Process,
    locks: Arc<Locks>,
    lock_timeout: Duration,
}

impl<T> Database<T> {
    pub fn new(world: Arc<World>, name: &str, tables: T) -> Arc<Self> {
        Arc::new(Self {
            world,
            name: name.to_owned(),
            tables: Mutex::new(tables),
            locks: Arc::default(),
            clock: Mutex::new(TimeDelta::zero()),
            pinned: Mutex::default(),
            away_until: Mutex::default(),
        })
    }

    pub fn tables(&self) -> std::sync::MutexGuard<'_, T> {
        lock(&self.tables)
    }

    /// Returns the server's clock, in milliseconds as the tables keep it.
    pub fn now(&self) -> Timestamp {
        let pinned = *lock(&self.pinned);
        pinned.unwrap_or_else(|| self.world.now(*lock(&self.clock)))
    }

    /// Stops the clock at `at`.
    pub fn pin(&self, at: Timestamp) {
        *lock(&self.pinned) = Some(at);
    }

    /// Sets the clock forward or back.
    pub fn jump(&self, by: TimeDelta) {
        *lock(&self.clock) += by;
    }

    pub fn go_away(&self, time: Duration) {
        *lock(&self.away_until) = Some(Instant::now() + time);
    }

    pub fn come_back(&self) {
        *lock(&self.away_until) = None;
    }

    fn is_unavailable(&self) -> bool {
        lock(&self.away_until).is_some_and(|until| until > Instant::now())
    }

    /// Terminates all sessions, as `pg_terminate_backend` does.
    pub fn terminate_backends(&self) {
        {
            let mut state = lock(&self.locks.state);
            state.open.clear();
            state.held.clear();
        }
        self.locks.freed.notify_waiters();
    }

    /// Simulates one round trip, which may take a while and may fail.
    pub async fn round_trip(&self, process: &Process) -> Result<(), BatchError> {
        process.latency().await;
        if self.is_unavailable() {
            sleep(Duration::from_millis(200)).await;
            process.latency().await;
            return Err(unavailable("the database is away"));
        }
        if process.strikes(Site::StatementFails) {
            return Err(unavailable("a statement failed"));
        }
        Ok(())
    }

    pub async fn begin(&self, process: &Process) -> Result<Session, BatchError> {
        process.gate(Site::CrashBeforeBegin).await;
        self.round_trip(process).await?;
        let id = {
            let mut state = lock(&self.locks.state);
            state.transactions += 1;
            let id = state.transactions;
            state.open.insert(id);
            id
        };
        Ok(Session {
            id,
            process: process.clone(),
            locks: Arc::clone(&self.locks),
            lock_timeout: LOCK_TIMEOUT,
        })
    }

    /// Simulates the time before a commit takes effect. Returns an error if the commit fails.
    pub async fn before_commit(&self, session: &Session) -> Result<(), BatchError> {
        session.process.gate(Site::CrashBeforeCommit).await;
        self.round_trip(&session.process).await?;
        session.check()?;
        if session.process.strikes(Site::CommitFails) {
            return Err(unavailable("the commit failed"));
        }
        Ok(())
    }

    /// Simulates the time after a commit has taken effect and released its locks. Returns an error if the client does
    /// not learn of the commit.
    pub async fn after_commit(&self, session: Session) -> Result<(), BatchError> {
        let process = session.process.clone();
        drop(session);
        if process.strikes(Site::CommitAnswerLost) {
            process.latency().await;
            process.world.history().excuse_in_hand(process.name());
            return Err(unavailable("the commit's answer was lost"));
        }
        process.gate(Site::CrashAfterCommit).await;
        process.latency().await;
        Ok(())
    }
}

impl Session {
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Sets how long statements wait for a lock from now on.
    pub fn bound_waiting(&mut self, lock_timeout: Duration) {
        self.lock_timeout = lock_timeout;
    }

    /// Fails if the server has terminated this transaction.
    pub fn check(&self) -> Result<(), BatchError> {
        if lock(&self.locks.state).open.contains(&self.id) {
            Ok(())
        } else {
            Err(unavailable("the connection was terminated"))
        }
    }

    /// Waits until this transaction has the lock.
    pub async fn lock(&self, key: LockKey) -> Result<(), BatchError> {
        let deadline = Instant::now() + self.lock_timeout;
        loop {
            let freed = self.locks.freed.notified();
            if self.try_lock(&key)? {
                return Ok(());
            }
            if timeout_at(deadline, freed).await.is_err() {
                return Err(unavailable("a lock was not to be had"));
            }
        }
    }

    /// Takes the lock if it is free, without waiting.
    pub fn try_lock(&self, key: &LockKey) -> Result<bool, BatchError> {
        self.check()?;
        let mut state = lock(&self.locks.state);
        let holder = *state.held.entry(key.clone()).or_insert(self.id);
        Ok(holder == self.id)
    }
}

impl Locks {
    fn release(&self, id: u64) {
        let mut state = lock(&self.state);
        state.open.remove(&id);
        state.held.retain(|_, holder| *holder != id);
        drop(state);
        self.freed.notify_waiters();
    }
}

impl Drop for Session {
    /// Releases the locks, whether the transaction was committed or rolled back. The server may notice a client's death
    /// late.
    fn drop(&mut self) {
        let dead = self.process.is_dead();
        if dead
            && self.process.strikes(Site::SlowRollback)
            && tokio::runtime::Handle::try_current().is_ok()
        {
            let (locks, id) = (Arc::clone(&self.locks), self.id);
            let wait = self.process.world.milliseconds(
                0,
                LATE_ROLLBACK_MS,
                "late rollback",
                self.process.name(),
            );
            tokio::spawn(async move {
                sleep(wait).await;
                locks.release(id);
            });
        } else {
            self.locks.release(self.id);
        }
    }
}

pub fn unavailable(why: &'static str) -> BatchError {
    BatchError::Retry(why.into())
}
