//! The time that this process writes into ids and records.
//!
//! Ids contain times, and brokers refuse a record whose time is too far from their own
//! (`message.timestamp.after.max.ms`, one hour by default). This machine's clock may be wrong. Floors, timers and
//! partitions are decided by the database's clock, so ids and records get the database's time too: the time of its last
//! answer, extrapolated by the monotonic clock.
//!
//! ```text
//!  database ── clock_timestamp() every 5 s ──▶ Clock ──▶ ids, records' times
//!  this machine ──────────────────────────────▶  │ ──▶ skew: logged, measured, refused if it is too large
//!  brokers ── INVALID_TIMESTAMP ──────────────▶  │ ──▶ the other clock's time for the next try
//! ```

use crate::silence::limited;
use metrics::{counter, gauge};
use saga_core::{
    ids::Timestamp,
    message::{IncomingRecord, header},
};
use sqlx::PgPool;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::{NoContext, Uuid};

/// Time between two queries of the database's clock.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// An answer that took longer is too inaccurate to be used.
const SLOW_LOOK: Duration = Duration::from_secs(1);
/// Skew between two clocks that is logged: far above what time servers allow, far below what does harm.
const TELL_BEYOND: Duration = Duration::from_secs(30);
/// Skew at which no clock can be trusted: sagas a day ahead are refused, and records a day old may be deleted before
/// they are read.
const REFUSE_BEYOND: Duration = Duration::from_hours(12);
/// Time between two log lines about the same clock.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// How long a refusal by the brokers counts. It ends so that work that was rejected because of it can try again.
const REFUSED_FOR: Duration = Duration::from_secs(30);

static OF_PROCESS: Clock = Clock::new(machine_time);

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
fn machine_time() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

/// The database's time and this machine's time, and the choice between them.
#[derive(Debug)]
pub struct Clock {
    machine: fn() -> Timestamp,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The database's time, and the instant when it was read.
    database: Option<(Timestamp, Instant)>,
    /// The clock whose time is written into records.
    stamps: Source,
    refused: Option<Refused>,
    told_skew: Option<Instant>,
    told_future: Option<Instant>,
}

/// A clock whose time a record can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Database,
    Machine,
}

/// A refusal of a record's time by the brokers, which have accepted none since.
#[derive(Debug)]
struct Refused {
    /// Set if the other clock's time was refused too.
    both: bool,
    source: Source,
    last: Instant,
    detail: String,
}

impl Clock {
    /// Returns a clock that is independent of the process's clock, for tests; `machine` reads this machine's time.
    pub const fn new(machine: fn() -> Timestamp) -> Self {
        Self {
            machine,
            state: Mutex::new(State {
                database: None,
                stamps: Source::Database,
                refused: None,
                told_skew: None,
                told_future: None,
            }),
        }
    }

    /// Returns the clock that services and writers use.
    pub fn of_process() -> &'static Self {
        &OF_PROCESS
    }

    /// Returns the database's time, or this machine's time until the database has answered once.
    pub fn now(&self) -> Timestamp {
        self.database_time().unwrap_or_else(self.machine)
    }

    /// Returns a new time-ordered id (UUIDv7).
    pub fn new_id(&self) -> Uuid {
        let now = self.now();
        let seconds = now.timestamp().max(0).cast_unsigned();
        // No counter context is used: after a clock was ahead, it would keep that clock's time until the time has come.
        let time = uuid::Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos());
        Uuid::new_v7(time)
    }

    /// Returns how far this machine's clock is ahead of the database's; `None` until the database has answered once.
    pub fn skew(&self) -> Option<chrono::TimeDelta> {
        Some((self.machine)() - self.database_time()?)
    }

    /// Reads the database's clock.
    pub async fn look(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let asked = Instant::now();
        let now: Timestamp = sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(pool)
            .await?;
        let took = asked.elapsed();
        if took <= SLOW_LOOK || self.database_time().is_none() {
            self.observe(now + took / 2);
        }
        Ok(())
    }

    /// Reads the database's clock every few seconds, until `stop`.
    pub async fn watch(&self, pool: PgPool, stop: CancellationToken) {
        loop {
            if let Err(error) = limited(self.look(&pool)).await {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "the database's clock is extrapolated until it can be asked again"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Takes over the time that the database has just returned.
    pub fn observe(&self, now: Timestamp) {
        self.state().database = Some((now, Instant::now()));
        let skew = (self.machine)() - now;
        gauge!("saga_clock_skew_seconds").set(skew.as_seconds_f64());
        if exceeds(skew, TELL_BEYOND) && is_due(&mut self.state().told_skew) {
            warn!(
                skew_seconds = skew.num_seconds(),
                "{}; ids and records get the database's time",
                describe(skew)
            );
        }
    }

    /// Returns an error that names the clocks that differ too much, if any do.
    pub fn check(&self) -> Result<(), String> {
        self.skew_within(TELL_BEYOND)?;
        self.brokers_agree()
    }

    /// Returns an error if nothing should be begun now, because an id or a record with this time might be refused by
    /// its reader, or deleted before it is read.
    pub fn check_fit(&self) -> Result<(), String> {
        self.skew_within(REFUSE_BEYOND)?;
        self.brokers_agree()
    }

    fn skew_within(&self, bound: Duration) -> Result<(), String> {
        match self.skew() {
            Some(skew) if exceeds(skew, bound) => Err(describe(skew)),
            Some(_) | None => Ok(()),
        }
    }

    fn brokers_agree(&self) -> Result<(), String> {
        match &self.state().refused {
            Some(refused) if refused.both && refused.last.elapsed() < REFUSED_FOR => {
                Err(refused.detail.clone())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the clock whose time the next records get.
    pub fn source(&self) -> Source {
        self.state().stamps
    }

    /// Returns the current time of one of the clocks.
    pub fn time_of(&self, source: Source) -> Timestamp {
        match source {
            Source::Database => self.now(),
            Source::Machine => (self.machine)(),
        }
    }

    /// Notes that the brokers accepted a record's time.
    pub fn taken(&self) {
        self.state().refused = None;
    }

    /// Notes that the brokers refused a record's time; the next records get the other clock's time. Returns a
    /// description.
    pub fn refused(&self, source: Source, topic: &str) -> String {
        counter!("saga_record_times_refused_total", "topic" => topic.to_owned()).increment(1);
        let skew = match self.skew_within(TELL_BEYOND) {
            Ok(()) => String::new(),
            Err(skew) => format!("; {skew}"),
        };
        let (whose, other) = match source {
            Source::Database => ("the database's", Source::Machine),
            Source::Machine => ("this machine's", Source::Database),
        };
        let detail = format!(
            "the brokers refuse {whose} time {} on records of '{topic}': it seems to lie further from their own clocks than \
             message.timestamp.before.max.ms and message.timestamp.after.max.ms of the topic allow{skew}",
            self.time_of(source).to_rfc3339(),
        );
        let mut state = self.state();
        // If several batches in flight are refused together, only the first refusal changes anything.
        state.stamps = other;
        let before = state.refused.as_ref();
        state.refused = Some(Refused {
            both: before.is_some_and(|before| before.both || before.source == other),
            source,
            last: Instant::now(),
            detail: detail.clone(),
        });
        detail
    }

    /// Logs a record from the future: either its producer's clock is ahead, or the clock of the database here is
    /// behind.
    pub fn heard(&self, records: &[IncomingRecord]) {
        let Some(last) = records.iter().max_by_key(|record| record.timestamp_ms) else {
            return;
        };
        let ahead_ms = last.timestamp_ms - self.now().timestamp_millis();
        if ahead_ms <= TELL_BEYOND.as_millis() as i64 {
            return;
        }
        counter!("saga_records_from_the_future_total", "topic" => last.topic.clone()).increment(1);
        if is_due(&mut self.state().told_future) {
            warn!(
                messaging.destination.name = last.topic,
                messaging.destination.partition.id = last.partition,
                messaging.kafka.offset = last.offset,
                source = last.required(header::CE_SOURCE).unwrap_or_default(),
                ahead_seconds = ahead_ms / 1_000,
                "a record has a time in the future: the clock of its producer, or of this service's database, is wrong"
            );
        }
    }

    fn database_time(&self) -> Option<Timestamp> {
        let (now, asked) = self.state().database?;
        Some(now + asked.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held, and the state is consistent in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn exceeds(skew: chrono::TimeDelta, bound: Duration) -> bool {
    skew.abs().to_std().is_ok_and(|skew| skew > bound)
}

fn describe(skew: chrono::TimeDelta) -> String {
    let side = if skew < chrono::TimeDelta::zero() {
        "behind"
    } else {
        "ahead of"
    };
    let seconds = skew.num_seconds().abs();
    format!("this machine's clock is {seconds} s {side} the database's")
}

/// Returns `true` and restarts the interval if the last log line is long enough ago.
fn is_due(told: &mut Option<Instant>) -> bool {
    if told.is_some_and(|at| at.elapsed() < TELL_EVERY) {
        return false;
    }
    *told = Some(Instant::now());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use tokio::time::advance;

    const NOON: i64 = 1_800_000_000;

    fn noon() -> Timestamp {
        Timestamp::from_timestamp(NOON, 0).unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn ids_and_records_have_the_databases_time_despite_a_wrong_machine_clock() {
        let clock = Clock::new(|| noon() + TimeDelta::hours(2));
        assert_eq!(
            clock.now(),
            noon() + TimeDelta::hours(2),
            "nobody was asked"
        );
        clock.observe(noon());
        advance(Duration::from_secs(9)).await;
        assert_eq!(clock.now(), noon() + TimeDelta::seconds(9));
        assert_eq!(clock.time_of(clock.source()), clock.now());
        let made = clock.new_id().get_timestamp().map(|time| time.to_unix().0);
        assert_eq!(made, Some(NOON.cast_unsigned() + 9));
        let told = clock.check().expect_err("two hours");
        assert!(told.contains("7191 s ahead of the database's"), "{told}");
        assert_eq!(clock.check_fit(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn clocks_that_differ_beyond_sense_begin_nothing() {
        let fit = |database: Timestamp| {
            let clock = Clock::new(noon);
            clock.observe(database);
            (clock.check().is_ok(), clock.check_fit().is_ok())
        };
        assert_eq!(fit(noon()), (true, true));
        assert_eq!(fit(noon() + TimeDelta::seconds(29)), (true, true));
        assert_eq!(fit(noon() + TimeDelta::seconds(31)), (false, true));
        assert_eq!(fit(noon() - TimeDelta::hours(11)), (false, true));
        assert_eq!(fit(noon() - TimeDelta::hours(13)), (false, false));
        assert_eq!(fit(noon() + TimeDelta::hours(13)), (false, false));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_refused_time_the_other_clock_is_used_and_two_refusals_are_reported() {
        let clock = Clock::new(noon);
        clock.observe(noon() + TimeDelta::hours(2));
        // Two batches were in flight.
        for _ in 0..2 {
            let told = clock.refused(Source::Database, "saga.inputs");
            assert!(
                told.contains("the database's time") && told.contains("'saga.inputs'"),
                "{told}"
            );
            assert!(told.contains("7200 s behind the database's"), "{told}");
            assert_eq!(clock.source(), Source::Machine);
            assert_eq!(clock.check_fit(), Ok(()), "the other clock may be right");
        }
        let told = clock.refused(Source::Machine, "saga.inputs");
        assert!(told.contains("this machine's time"), "{told}");
        assert_eq!(clock.source(), Source::Database);
        assert_eq!(clock.check_fit(), Err(told));
        clock.taken();
        assert_eq!(clock.check_fit(), Ok(()));
    }

    /// The next attempt of the work that was rejected meanwhile finds out whether the clocks agree again.
    #[tokio::test(start_paused = true)]
    async fn a_refusal_does_not_count_for_ever() {
        let clock = Clock::new(noon);
        clock.refused(Source::Database, "a");
        clock.refused(Source::Machine, "a");
        assert!(clock.check_fit().is_err());
        advance(REFUSED_FOR).await;
        assert_eq!(clock.check_fit(), Ok(()));
    }
}
