//! Handlers of whole batches, for participants whose commands share rows.
//!
//! A batch has one transaction. Its shared rows are locked and read once, in key order; each command is decided in
//! memory, in log order; and the changes are written by a few statements. So one hot row is locked once a batch, not
//! once a command.
//!
//! ```text
//!  commands ─▶ load: lock and read, once ─▶ handle, handle, handle … (in memory) ─▶ store: write, once
//! ```
//!
//! ```
//! use saga_participant::{Answer, Command, Failure, HandlerError, batch::{BatchHandler, Commands}};
//! use serde::Deserialize;
//! use serde_json::json;
//! use sqlx::PgConnection;
//!
//! #[derive(Deserialize)]
//! struct Seats {
//!     number: i64,
//! }
//!
//! enum Wanted {
//!     Take(Seats),
//!     GiveBack(Seats),
//! }
//!
//! struct Theatre;
//!
//! #[async_trait::async_trait]
//! impl BatchHandler for Theatre {
//!     type Command = Wanted;
//!     type Rows = i64;
//!
//!     fn commands() -> Commands<Wanted> {
//!         Commands::new()
//!             .on("seats.take", "seats.taken", Wanted::Take)
//!             .on("seats.give-back", "seats.given-back", Wanted::GiveBack)
//!     }
//!
//!     async fn load(&self, tx: &mut PgConnection, _: &[Command<Wanted>]) -> Result<i64, HandlerError> {
//!         Ok(sqlx::query_scalar("SELECT free FROM theatre FOR UPDATE").fetch_one(tx).await?)
//!     }
//!
//!     fn handle(&self, free: &mut i64, command: Command<Wanted>) -> Result<Answer, Failure> {
//!         match command.payload {
//!             Wanted::Take(seats) if seats.number > *free => {
//!                 return Err(Failure::business("sold_out", format!("{free} seats are free")));
//!             }
//!             Wanted::Take(seats) => *free -= seats.number,
//!             Wanted::GiveBack(seats) => *free += seats.number,
//!         }
//!         Answer::success(json!({"free": free}))
//!     }
//!
//!     async fn store(&self, tx: &mut PgConnection, free: i64) -> Result<(), HandlerError> {
//!         sqlx::query("UPDATE theatre SET free = $1").bind(free).execute(tx).await?;
//!         Ok(())
//!     }
//! }
//! ```

use crate::{Answer, Command, Failure, HandlerError, RawBatchHandler, command};
use async_trait::async_trait;
use saga_core::message;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;
use std::collections::HashMap;

type Read<T> = Box<dyn Fn(&message::Command) -> Result<T, Failure> + Send + Sync>;

/// The commands of a participant: for each type, how its payload becomes a `T`, and the type of its reply.
pub struct Commands<T> {
    by_type: HashMap<&'static str, CommandEntry<T>>,
}

struct CommandEntry<T> {
    reply_type: &'static str,
    read: Read<T>,
}

impl<T> Default for Commands<T> {
    fn default() -> Self {
        Self {
            by_type: HashMap::new(),
        }
    }
}

impl<T> Commands<T> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a command, which is answered `reply_type` if it is done. `make` is usually a variant of an enum.
    #[must_use]
    pub fn on<P: DeserializeOwned + 'static>(
        mut self,
        command_type: &'static str,
        reply_type: &'static str,
        make: fn(P) -> T,
    ) -> Self
    where
        T: 'static,
    {
        let entry = CommandEntry {
            reply_type,
            read: Box::new(move |raw| command::parse(raw).map(make)),
        };
        self.by_type.insert(command_type, entry);
        self
    }

    /// Returns the command with its payload, or the failure of an unknown type or a payload that does not fit.
    pub(crate) fn read(&self, raw: &message::Command) -> Result<Command<T>, Failure> {
        let entry = self.by_type.get(raw.command_type.as_str());
        let entry = entry.ok_or_else(|| command::unknown(raw))?;
        Ok(Command::with(raw, (entry.read)(raw)?))
    }

    /// Returns each command's type with the type of its reply.
    pub fn reply_types(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let entries = self.by_type.iter();
        entries.map(|(command_type, entry)| (*command_type, entry.reply_type))
    }
}

/// A participant that handles whole batches.
#[async_trait]
pub trait BatchHandler: Send + Sync + 'static {
    /// The payloads of all commands, usually an enum.
    type Command: Send + Sync + 'static;
    /// The shared rows of a batch, and the changes decided so far.
    type Rows: Send;

    /// Returns the commands that this participant knows.
    fn commands() -> Commands<Self::Command>;

    /// Locks and reads, in key order, every shared row that any of these commands may need. Some of them may not be
    /// handled after all, because the barrier answers them.
    async fn load(
        &self,
        tx: &mut PgConnection,
        commands: &[Command<Self::Command>],
    ) -> Result<Self::Rows, HandlerError>;

    /// Decides one command. A refused command must not have changed `rows`.
    fn handle(
        &self,
        rows: &mut Self::Rows,
        command: Command<Self::Command>,
    ) -> Result<Answer, Failure>;

    /// Writes the changes. Check the number of rows written: a change that finds no row must not pass.
    async fn store(&self, tx: &mut PgConnection, rows: Self::Rows) -> Result<(), HandlerError>;
}

/// Makes a [`RawBatchHandler`] of a [`BatchHandler`].
pub struct Batch<H: BatchHandler> {
    handler: H,
    commands: Commands<H::Command>,
}

impl<H: BatchHandler> Batch<H> {
    pub fn new(handler: H) -> Self {
        Self {
            handler,
            commands: H::commands(),
        }
    }

    pub(crate) fn commands(&self) -> &Commands<H::Command> {
        &self.commands
    }
}

#[async_trait]
impl<H: BatchHandler> RawBatchHandler<PgConnection> for Batch<H> {
    type Rows = H::Rows;

    async fn load(
        &self,
        tx: &mut PgConnection,
        commands: &[&message::Command],
    ) -> Result<H::Rows, HandlerError> {
        let readable = commands
            .iter()
            .filter_map(|raw| self.commands.read(raw).ok());
        let readable: Vec<_> = readable.collect();
        self.handler.load(tx, &readable).await
    }

    async fn handle(
        &self,
        _: &mut PgConnection,
        rows: &mut H::Rows,
        command: &message::Command,
    ) -> Result<Answer, Failure> {
        self.handler.handle(rows, self.commands.read(command)?)
    }

    async fn store(&self, tx: &mut PgConnection, rows: H::Rows) -> Result<(), HandlerError> {
        self.handler.store(tx, rows).await
    }
}
