//! A participant with a table of effects, a scripted external system, and commands made by hand.

use async_trait::async_trait;
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{
        Command, Direction, Fault, IncomingRecord, Input, Outcome, OutgoingRecord, Reply, ReplyTo,
        Trace,
    },
};
use saga_messaging::{
    consumer::{self, ConsumerSettings, Processor},
    log::{Delivered, LogError, LogReader, LogWriter, PauseEnded, PollResult},
    migrations,
};
use saga_participant::{
    Answer, Failure, HandlerError,
    external::{CallLimits, CallOutcome},
    inbox,
    internal::{
        CommandProcessor, OpenCalls, ParticipantConfig, PerCommand, RawCalls, RawCommandHandler,
        RawSettlement,
    },
};
use saga_test_support::environment::TestEnv;
use serde_json::{Value, json};
use sqlx::{
    PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    collections::{BTreeSet, VecDeque},
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const STEP: &str = "charge";
pub const HANDLER_TIMEOUT: Duration = Duration::from_millis(400);

pub struct World {
    pub pool: PgPool,
    pub now: Timestamp,
}

impl World {
    pub async fn new() -> Self {
        let url = TestEnv::postgres_only().await.create_database("part").await;
        Self::on(&url).await
    }

    /// Creates the participant on an empty database.
    pub async fn on(url: &str) -> Self {
        // The options are those of a service's store connections.
        let options = PgConnectOptions::from_str(url).unwrap().options([
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("enable_material", "off"),
            ("plan_cache_mode", "force_generic_plan"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_with(options)
            .await
            .unwrap();
        migrations::apply(&pool).await.unwrap();
        inbox::ensure_partitions(&pool, 3).await.unwrap();
        sqlx::raw_sql("CREATE TABLE effect (saga_id uuid, what text CONSTRAINT effect_what CHECK (what <> 'bad'))")
            .execute(&pool)
            .await
            .unwrap();
        let now = sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(&pool)
            .await
            .unwrap();
        Self { pool, now }
    }

    pub fn saga(&self) -> SagaId {
        Self::saga_at(self.now)
    }

    pub fn saga_at(at: Timestamp) -> SagaId {
        let random = Uuid::new_v4();
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&random.as_bytes()[6..]);
        let ms = at.timestamp_millis() as u64;
        SagaId(uuid::Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid())
    }

    pub fn config() -> ParticipantConfig {
        ParticipantConfig {
            handler_timeout: HANDLER_TIMEOUT,
            ..ParticipantConfig::new("test", "test.commands", "test")
        }
        .reply_type("test.do", "test.done")
        .reply_type("test.undo", "test.undone")
    }

    pub fn frame(&self) -> CommandProcessor<PerCommand<Obedient>> {
        let handler = Arc::new(PerCommand::new(Arc::new(Obedient)));
        CommandProcessor::new(Self::config(), handler, None, self.pool.clone()).0
    }

    pub fn instance(&self, outside: &Arc<Outside>) -> Instance {
        let handler = Arc::new(PerCommand::new(Arc::new(Obedient)));
        let calls: Arc<dyn RawCalls<PgConnection>> = Arc::<Outside>::clone(outside);
        let (frame, open) =
            CommandProcessor::new(Self::config(), handler, Some(calls), self.pool.clone());
        Instance {
            frame,
            open: open.unwrap(),
        }
    }

    pub async fn effects(&self, saga: SagaId) -> Vec<String> {
        sqlx::query_scalar("SELECT what FROM effect WHERE saga_id = $1 ORDER BY what")
            .bind(saga.0)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Returns the saga's barrier rows, such as `F=D C=D`.
    pub async fn rows(&self, saga: SagaId) -> String {
        let rows: Vec<String> = sqlx::query_scalar(
            "SELECT direction::text || '=' || mark::text FROM inbox WHERE saga_id = $1 \
             ORDER BY direction DESC",
        )
        .bind(saga.0)
        .fetch_all(&self.pool)
        .await
        .unwrap();
        rows.join(" ")
    }

    /// Returns the saga's intents, such as `F/1 open`.
    pub async fn intents(&self, saga: SagaId) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT direction::text || '/' || generation || ' ' || state FROM intent \
             WHERE saga_id = $1 ORDER BY direction DESC",
        )
        .bind(saga.0)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    pub async fn expire_leases(&self) {
        self.execute("UPDATE intent SET lease_until = now() - interval '1 second'")
            .await;
    }

    pub async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.pool).await.unwrap();
    }
}

/// One process of the participant.
pub struct Instance {
    pub frame: CommandProcessor<PerCommand<Obedient>>,
    pub open: OpenCalls<PerCommand<Obedient>>,
}

impl Instance {
    pub async fn take(&mut self, commands: &[Command]) -> Vec<Reply> {
        replies(&self.frame.process(&records(commands)).await.unwrap())
    }

    /// Makes all calls, settles them, and publishes and closes their replies.
    pub async fn work(&mut self) -> Vec<Reply> {
        let mut all = Vec::new();
        while let Some(job) = self.open.next_job() {
            let finished = self.open.call(job).await;
            let answered = self.open.settle(&[finished]).await.unwrap();
            all.extend(replies(&answered.records));
            self.open.acked(answered);
        }
        self.open.close().await.unwrap();
        all
    }

    /// Claims the intents whose lease is over, and finishes their work.
    pub async fn sweep(&mut self) -> Vec<Reply> {
        let swept = self.open.sweep().await.unwrap();
        let mut all = replies(&swept.answered.records);
        self.open.acked(swept.answered);
        self.open.enqueue(swept.jobs);
        all.extend(self.work().await);
        all
    }
}

/// Writes an effect, and then does as the payload's `do` says.
pub struct Obedient;

#[async_trait]
impl RawCommandHandler<PgConnection> for Obedient {
    async fn handle(&self, tx: &mut PgConnection, command: &Command) -> Result<Answer, Failure> {
        let behavior = command.payload["do"].as_str().unwrap_or("succeed");
        sqlx::query("INSERT INTO effect (saga_id, what) VALUES ($1, $2)")
            .bind(command.saga_id.0)
            .bind(if behavior == "bad" {
                "bad"
            } else {
                &command.command_type
            })
            .execute(&mut *tx)
            .await?;
        match behavior {
            "fail" => Err(Failure::business("no", "not today")),
            "fail at length" => Err(Failure::business("no", "not today ".repeat(400_000))),
            "error" => Err(Failure::technical("broken", "something broke")),
            "call" => Ok(Answer::CallOutside),
            "garble" => Answer::success("a\0b"),
            "panic" => panic!("as asked"),
            "stall" => std::future::pending().await,
            "sleep" => {
                sqlx::query("SELECT pg_sleep(60)").execute(tx).await?;
                Err(HandlerError::Broken("it slept enough".to_owned()).into())
            }
            _ => Answer::success(json!({"attempt": command.attempt})),
        }
    }
}

/// The external system: answers as scripted, and otherwise with success. Its effects are identified by their keys.
pub struct Outside {
    pub script: Mutex<VecDeque<Script>>,
    pub calls: Mutex<Vec<String>>,
    pub effects: Mutex<BTreeSet<String>>,
    pub limits: CallLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    Succeeds,
    Declines,
    Errs,
    /// The effect happens, and the answer is lost.
    IsNotHeard,
    /// The call succeeds, but its settlement fails.
    CannotBeSettled,
}

impl Outside {
    pub fn new(script: &[Script]) -> Arc<Self> {
        Self::with_key_lifetime(script, Duration::from_hours(1))
    }

    pub fn with_lease(lease: Duration) -> Arc<Self> {
        Self::with_limits(|limits| limits.lease = lease)
    }

    pub fn with_limits(change: impl FnOnce(&mut CallLimits)) -> Arc<Self> {
        let mut limits = Self::new(&[]).limits;
        change(&mut limits);
        Arc::new(Self {
            script: Mutex::default(),
            calls: Mutex::default(),
            effects: Mutex::default(),
            limits,
        })
    }

    pub fn with_key_lifetime(script: &[Script], key_lifetime: Duration) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script.iter().copied().collect()),
            calls: Mutex::default(),
            effects: Mutex::default(),
            limits: CallLimits {
                concurrency: 16,
                per_second: None,
                timeout: Duration::from_secs(5),
                lease: Duration::from_mins(1),
                retry_delay: Duration::from_millis(50),
                key_lifetime,
            },
        })
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub fn effects(&self) -> Vec<String> {
        self.effects.lock().unwrap().iter().cloned().collect()
    }
}

#[async_trait]
impl RawCalls<PgConnection> for Outside {
    fn limits(&self) -> CallLimits {
        self.limits
    }

    async fn call(&self, key: &str, _: &Command) -> CallOutcome {
        self.calls.lock().unwrap().push(key.to_owned());
        let next = self.script.lock().unwrap().pop_front();
        let next = next.unwrap_or(Script::Succeeds);
        if !matches!(next, Script::Declines | Script::Errs) {
            self.effects.lock().unwrap().insert(key.to_owned());
        }
        let fault = Fault::new("declined", "no money");
        match next {
            Script::Succeeds => CallOutcome::success(json!({"key": key})),
            Script::CannotBeSettled => CallOutcome::Success(Value::Null),
            Script::Declines => CallOutcome::Failure(fault),
            Script::Errs => CallOutcome::Error(fault),
            Script::IsNotHeard => CallOutcome::Indeterminate {
                why: "the line went dead".to_owned(),
            },
        }
    }

    async fn settle(
        &self,
        tx: &mut PgConnection,
        settled: &[RawSettlement],
    ) -> Result<(), HandlerError> {
        for settlement in settled {
            let what = match &settlement.outcome {
                CallOutcome::Success(Value::Null) => "bad",
                CallOutcome::Success(_) => match settlement.command.direction {
                    Direction::Compensation => "test.undone",
                    Direction::Forward | Direction::Resolve => "test.done",
                },
                CallOutcome::Failure(_) => "settled failure",
                CallOutcome::Error(_) => "settled error",
                CallOutcome::Indeterminate { .. } => panic!("not a settlement"),
            };
            sqlx::query("INSERT INTO effect (saga_id, what) VALUES ($1, $2)")
                .bind(settlement.command.saga_id.0)
                .bind(what)
                .execute(&mut *tx)
                .await?;
        }
        Ok(())
    }
}

pub fn forward(saga: SagaId, attempt: u32, behavior: &str) -> Command {
    Command {
        saga_id: saga,
        step: STEP.to_owned(),
        direction: Direction::Forward,
        attempt,
        command_type: "test.do".to_owned(),
        payload: json!({"do": behavior}),
        save_failure: true,
        reply_to: ReplyTo {
            topic: "saga.inputs".to_owned(),
            partition: 3,
        },
        floor: None,
        trace: Trace {
            correlation_id: "abc".to_owned(),
            traceparent: None,
        },
    }
}

pub fn compensation(saga: SagaId, attempt: u32, behavior: &str) -> Command {
    Command {
        direction: Direction::Compensation,
        command_type: "test.undo".to_owned(),
        save_failure: false,
        ..forward(saga, attempt, behavior)
    }
}

pub fn resolve(saga: SagaId, attempt: u32) -> Command {
    Command {
        direction: Direction::Resolve,
        command_type: "test.do.resolve".to_owned(),
        ..forward(saga, attempt, "")
    }
}

pub fn records(commands: &[Command]) -> Vec<IncomingRecord> {
    let encode =
        |command: &Command| command.encode("test.commands", "/test", Timestamp::UNIX_EPOCH);
    commands
        .iter()
        .enumerate()
        .map(|(n, command)| incoming(encode(command), n as i64))
        .collect()
}

pub fn incoming(record: OutgoingRecord, offset: i64) -> IncomingRecord {
    IncomingRecord {
        topic: record.topic,
        partition: record.partition.unwrap_or_default(),
        offset,
        timestamp_ms: 0,
        key: Some(record.key),
        headers: record.headers,
        payload: Some(record.payload),
    }
}

pub fn replies(records: &[OutgoingRecord]) -> Vec<Reply> {
    records
        .iter()
        .filter(|record| record.topic == "saga.inputs")
        .map(|record| {
            assert_eq!(record.partition, Some(3));
            match Input::decode(&incoming(record.clone(), 0)).unwrap() {
                Input::Reply(reply) => reply,
                other @ (Input::Start(_) | Input::Timer(_) | Input::Operator(_)) => {
                    panic!("{other:?}")
                }
            }
        })
        .collect()
}

pub async fn take<P: Processor>(frame: &mut P, commands: &[Command]) -> Vec<Reply> {
    replies(&frame.process(&records(commands)).await.unwrap())
}

/// Returns a reply's type, outcome, direction and attempt: `test.done success forward 2`.
pub fn told(reply: &Reply) -> String {
    let Reply {
        reply_type,
        outcome,
        direction,
        attempt,
        ..
    } = reply;
    format!("{reply_type} {} {direction} {attempt}", outcome.as_str())
}

pub fn all_told(replies: &[Reply]) -> Vec<String> {
    replies.iter().map(told).collect()
}

/// Runs the records through the real consumer, as one batch.
pub async fn deliver<P: Processor>(frame: P, records: Vec<IncomingRecord>) -> Vec<OutgoingRecord> {
    let written = Written::default();
    let shutdown = CancellationToken::new();
    let reader = Once {
        left: records.len(),
        batch: Some(records),
        shutdown: shutdown.clone(),
    };
    let settings = ConsumerSettings {
        first_retry: Duration::from_millis(1),
        ..ConsumerSettings::default()
    };
    consumer::run(reader, written.clone(), frame, settings, shutdown)
        .await
        .unwrap();
    written.taken()
}

/// A log with a single batch.
struct Once {
    batch: Option<Vec<IncomingRecord>>,
    left: usize,
    shutdown: CancellationToken,
}

#[async_trait]
impl LogReader for Once {
    async fn poll(&mut self, _: usize) -> Result<PollResult, LogError> {
        match self.batch.take() {
            Some(records) => Ok(PollResult::Records(records)),
            None => std::future::pending().await,
        }
    }

    fn done(&mut self, records: &[IncomingRecord]) -> Result<(), LogError> {
        self.left -= records.len();
        if self.left == 0 {
            self.shutdown.cancel();
        }
        Ok(())
    }

    async fn hold(&mut self, time: Duration) -> PauseEnded {
        tokio::time::sleep(time).await;
        PauseEnded::Elapsed
    }

    async fn close(&mut self) {}
}

#[derive(Clone, Default)]
pub struct Written(Arc<Mutex<Vec<OutgoingRecord>>>);

impl Written {
    pub fn taken(&self) -> Vec<OutgoingRecord> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[async_trait]
impl LogWriter for Written {
    async fn publish_rest(
        &self,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        self.0.lock().unwrap().extend_from_slice(records);
        let nowhere = Delivered {
            partition: 0,
            offset: 0,
        };
        delivered.fill(Some(nowhere));
        Ok(())
    }
}

pub fn is_error(reply: &Reply, code: &str) -> bool {
    reply.outcome == Outcome::Error && reply.payload["code"] == code
}
