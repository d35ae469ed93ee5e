//! A participant: its name, its handlers, and how it runs.

use crate::{
    Batch, CommandProcessor, Handler, ParticipantConfig, ParticipantSettings, PerCommand,
    RawBatchHandler, RawCalls, Router,
    batch::BatchHandler,
    calls::OpenCalls,
    external::{Calls, ExternalCalls},
    router::IntoAnswer,
    run,
};
use saga_messaging::{
    database::Database, kafka::KafkaConfig, log::LogError, partition::PartitionAlarm,
    progress::Progress,
};
use serde::de::DeserializeOwned;
use sqlx::{PgConnection, PgPool};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// A participant of sagas. It consumes one topic of commands, and answers each of them.
///
/// By convention, the participant `shipping` consumes the topic `shipping.commands` in the group `shipping-svc`, and a
/// refused command is answered `shipping.failed`; each of these can be set.
///
/// ```no_run
/// # use saga_participant::*;
/// # use sqlx::{PgConnection, PgPool};
/// # async fn book(tx: &mut PgConnection, command: Command) -> Result<(), Failure> { Ok(()) }
/// # async fn unbook(tx: &mut PgConnection, command: Command) -> Result<(), Failure> { Ok(()) }
/// # async fn example(pool: PgPool, shutdown: CancellationToken) -> Result<(), RunError> {
/// Participant::new("shipping")
///     .on("shipping.book", "shipping.booked", book)
///     .on("shipping.unbook", "shipping.unbooked", unbook)
///     .run(pool, KafkaConfig::plaintext("127.0.0.1:9092"), shutdown)
///     .await
/// # }
/// ```
pub struct Participant<H> {
    config: ParticipantConfig,
    handlers: H,
    calls: Option<Arc<dyn RawCalls<PgConnection>>>,
}

impl Participant<Router<()>> {
    /// Returns a participant without handlers and without state.
    pub fn new(name: impl Into<String>) -> Self {
        Self::with_state(name, ())
    }
}

impl<S: Send + Sync + 'static> Participant<Router<S>> {
    /// Returns a participant whose handlers may take `&S` as their first argument.
    pub fn with_state(name: impl Into<String>, state: S) -> Self {
        Self::of(name.into(), Router::new(state))
    }

    /// Handles the commands of one type by an async function, each under a savepoint. A command that is done is
    /// answered with `reply_type`; the function's result is the reply's payload. A compensation is handled in the same
    /// way, and its function is called only if its command was done.
    ///
    /// `handler` is `async fn(&mut PgConnection, Command<P>) -> Result<R, Failure>`, or the same with `&S` before. `P`
    /// is any payload that deserializes from an object. `R` is anything that serializes; `()` is an empty object.
    ///
    /// # Panics
    ///
    /// Panics if the command type has a handler already.
    #[must_use]
    pub fn on<F, P, R, Kind>(
        mut self,
        command_type: impl Into<String>,
        reply_type: impl Into<String>,
        handler: F,
    ) -> Self
    where
        F: for<'a> Handler<'a, S, P, R, Kind>,
        P: DeserializeOwned + Send + 'static,
        R: IntoAnswer + 'static,
        Kind: 'static,
    {
        let command_type = command_type.into();
        self.handlers.insert(&command_type, handler);
        self.config = self.config.reply_type(command_type, reply_type);
        self
    }
}

impl<B: BatchHandler> Participant<Batch<B>> {
    /// Returns a participant that handles whole batches.
    pub fn batch(name: impl Into<String>, handler: B) -> Self {
        let mut participant = Self::of(name.into(), Batch::new(handler));
        for (command_type, reply_type) in participant.handlers.commands().reply_types() {
            participant.config = participant.config.reply_type(command_type, reply_type);
        }
        participant
    }
}

impl<H: IntoRawHandler> Participant<H> {
    fn of(name: String, handlers: H) -> Self {
        let (topic, group) = (format!("{name}.commands"), format!("{name}-svc"));
        Self {
            config: ParticipantConfig::new(name, topic, group),
            handlers,
            calls: None,
        }
    }

    /// Sets the calls that are made for handlers that return [`CallOutside`](crate::CallOutside).
    #[must_use]
    pub fn calls<E: ExternalCalls>(mut self, calls: E) -> Self {
        self.calls = Some(Arc::new(Calls::new(calls)));
        self
    }

    /// Sets the topic of the commands.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.config.topic = topic.into();
        self
    }

    /// Sets the consumer group. The orchestrator's configuration names the same group: its offsets show which commands
    /// were picked up.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.config.group = group.into();
        self
    }

    /// Sets the `ce_source` of the replies. It is `/<name>` by default.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.config.source = source.into();
        self
    }

    /// Sets the type of the reply to a command that is refused. It is `<name>.failed` by default.
    #[must_use]
    pub fn failure_reply(mut self, reply_type: impl Into<String>) -> Self {
        self.config.failure_reply = reply_type.into();
        self
    }

    /// Sets the longest time for a handler, and for each of its statements. It is five seconds by default.
    #[must_use]
    pub fn handler_timeout(mut self, limit: Duration) -> Self {
        self.config.handler_timeout = limit;
        self
    }

    /// Applies the operator's settings, such as the largest batch and what the topics must be like.
    #[must_use]
    pub fn settings(mut self, settings: &ParticipantSettings) -> Self {
        self.config = self.config.with_settings(settings);
        self
    }

    /// Shares the alarm that is raised while the barrier lacks a partition, for example with a health check.
    #[must_use]
    pub fn partition_alarm(mut self, alarm: PartitionAlarm) -> Self {
        self.config.partition_alarm = alarm;
        self
    }

    /// Shares the progress of the batches and external calls, for example with a health check.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.config.progress = progress;
        self
    }

    /// Returns the processor of a batch, and the external calls, for tests that drive them without a log.
    #[doc(hidden)]
    pub fn into_processor(
        self,
        pool: PgPool,
    ) -> (CommandProcessor<H::Raw>, Option<OpenCalls<H::Raw>>) {
        let handler = Arc::new(self.handlers.into_raw());
        CommandProcessor::new(self.config, handler, self.calls, pool)
    }

    /// Checks once whether the participant may run: its topics must be as its settings require, and its consumer group
    /// must belong to this database or to none. A service that waits for its servers in its own way calls this before
    /// [`run_approved`](Self::run_approved); [`run`](Self::run) does both.
    pub async fn approve(
        &self,
        pool: &PgPool,
        kafka: &KafkaConfig,
    ) -> Result<Approval, ApprovalError> {
        run::approve(&self.config, pool, kafka).await.map(Approval)
    }

    /// Runs until `shutdown`. Waits for an unavailable database or broker; ends with an error if the topics are not as
    /// required, or if the consumer group belongs to another database.
    pub async fn run(
        self,
        pool: PgPool,
        kafka: KafkaConfig,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        let handler = Arc::new(self.handlers.into_raw());
        run::start(self.config, handler, self.calls, pool, kafka, shutdown).await
    }

    /// Runs an approved participant until `shutdown`.
    pub async fn run_approved(
        self,
        approved: Approval,
        pool: PgPool,
        kafka: KafkaConfig,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        let handler = Arc::new(self.handlers.into_raw());
        let database = (pool, approved.0);
        run::run(self.config, handler, self.calls, database, kafka, shutdown).await
    }
}

/// The proof that a participant may run on its database.
#[derive(Clone, Debug)]
pub struct Approval(Arc<Database>);

/// The reason why a participant stopped, or could not start.
pub type RunError = LogError;

pub use run::ApprovalError;

/// Handlers in the form in which the library runs them.
pub trait IntoRawHandler {
    type Raw: RawBatchHandler<PgConnection>;

    fn into_raw(self) -> Self::Raw;
}

impl<S: Send + Sync + 'static> IntoRawHandler for Router<S> {
    type Raw = PerCommand<Self>;

    fn into_raw(self) -> Self::Raw {
        PerCommand::new(Arc::new(self))
    }
}

impl<B: BatchHandler> IntoRawHandler for Batch<B> {
    type Raw = Self;

    fn into_raw(self) -> Self {
        self
    }
}
