//! One saga in which a case is played. A scene sends commands as the orchestrator does, receives the replies, and keeps
//! both.

use crate::{
    Ask, Command as Described, Compensation, Description, Example, Exchange, Heard, Input, Names,
    Refused, Unset, Wire, World, ask::shown, description::SAGA,
};
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{Command, Direction, Outcome, OutgoingRecord, ReplyTo, Trace},
};
use saga_messaging::{kafka::home_partition, log::Delivered};
use saga_postgres::clock::Clock;
use serde_json::Value;
use std::{fmt, time::Duration};
use uuid::Uuid;

const SOURCE: &str = "/conformance";

/// The reason why a case ends early.
#[derive(Debug)]
pub enum Stop {
    /// The participant breaks the rule.
    Failed(String),
    /// The description lacks something that the case needs.
    Skipped(String),
    /// The kit itself cannot go on.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<Unset> for Stop {
    fn from(unset: Unset) -> Self {
        Self::Skipped(unset.to_string())
    }
}

/// A saga to which a scene returns later.
pub struct SetAside {
    saga: SagaId,
    names: Names,
}

pub struct Scene<'a> {
    pub description: &'a Description,
    pub command: &'a Described,
    pub wire: &'a mut dyn Wire,
    pub saga: SagaId,
    world: &'a dyn World,
    patience: Duration,
    names: Names,
    prepared: bool,
    exchanges: Vec<Exchange>,
}

impl<'a> Scene<'a> {
    pub fn new(
        description: &'a Description,
        command: &'a Described,
        wire: &'a mut dyn Wire,
        world: &'a dyn World,
        patience: Duration,
    ) -> Self {
        let mut scene = Self {
            description,
            command,
            wire,
            saga: SagaId(Clock::of_process().new_id()),
            world,
            patience,
            names: Names::default(),
            prepared: false,
            exchanges: Vec::new(),
        };
        scene.another_saga();
        scene
    }

    /// Continues with a new saga.
    pub fn another_saga(&mut self) {
        self.saga = SagaId(Clock::of_process().new_id());
        self.prepared = false;
        self.names = Names::default();
        for (name, value) in &self.description.variables {
            self.names.set(name, value.clone());
        }
        for name in &self.description.new {
            self.names.set(name, Uuid::new_v4().to_string());
        }
        self.names.set(SAGA, self.saga.to_string());
    }

    /// Continues with a new saga about the same business objects as the current one. The look stays the same.
    pub fn foreign_saga(&mut self) {
        self.saga = SagaId(Clock::of_process().new_id());
    }

    /// Continues with another saga until [`Self::back_to`].
    pub fn set_aside(&mut self) -> SetAside {
        let (saga, names) = (self.saga, self.names.clone());
        self.another_saga();
        SetAside { saga, names }
    }

    pub fn back_to(&mut self, first: SetAside) {
        self.saga = first.saga;
        self.names = first.names;
        self.prepared = true;
    }

    pub fn into_exchanges(self) -> Vec<Exchange> {
        self.exchanges
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    pub fn key(&self) -> String {
        self.saga.to_string()
    }

    /// Prepares the scene: calls the world, and sends the commands that are given. It does so once per saga.
    pub async fn prepare(&mut self) -> Result<(), Stop> {
        if self.prepared {
            return Ok(());
        }
        self.prepared = true;
        self.world.prepare(&mut self.names).await??;
        if let Some(saga) = &self.description.saga {
            let id = self.names.fill_text(saga)?;
            self.saga = id.parse::<SagaId>().map_err(anyhow::Error::from)?;
            self.names.set(SAGA, id);
        }
        for (index, given) in self.command.given.iter().enumerate() {
            let ask = Ask::action(1)
                .in_step(&format!("given-{index}"))
                .of_type(&given.command_type)
                .with(Input::This(given.input.clone()));
            let heard = Box::pin(self.exchange(ask)).await?;
            if heard.outcome() != Outcome::Success.as_str() {
                let why = format!("{} is given, but was answered: {heard}", given.command_type);
                return Err(Stop::Skipped(why));
            }
        }
        Ok(())
    }

    /// Fills a template of the description with this scene's names.
    pub fn fill_value(&self, template: &Value) -> Result<Value, Stop> {
        Ok(self.names.fill(template)?)
    }

    pub fn compensation(&self) -> Result<&'a Compensation, Stop> {
        let skipped =
            || Stop::Skipped(format!("{} has no compensation", self.command.command_type));
        self.command.compensation.as_ref().ok_or_else(skipped)
    }

    pub fn another_saga_is_refused(&self) -> Result<&'a Refused, Stop> {
        let missing = || Stop::Skipped("the description has no 'another_saga'".to_owned());
        self.command.another_saga.as_ref().ok_or_else(missing)
    }

    pub fn fails(&self) -> Result<&'a Example, Stop> {
        named(self.command.fails.as_ref(), "fails")
    }

    /// Returns the look at the effects; skips the case if the effects cannot be seen.
    pub async fn look(&mut self) -> Result<Value, Stop> {
        self.prepare().await?;
        match self.world.look(&self.names).await? {
            Ok(seen) => Ok(seen),
            Err(why) => Err(Stop::Skipped(format!("effects cannot be seen: {why}"))),
        }
    }

    /// Returns the look at the effects, or `None` if they cannot be seen.
    pub async fn look_if_any(&mut self) -> Result<Option<Value>, Stop> {
        match self.look().await {
            Ok(seen) => Ok(Some(seen)),
            Err(Stop::Skipped(_)) => Ok(None),
            Err(stop) => Err(stop),
        }
    }

    /// Returns the look without the ids of this scene.
    pub fn hide(&self, seen: &Value) -> Value {
        self.names.hide(seen)
    }

    /// Expects that the look equals the look `before`.
    pub async fn unchanged(&mut self, before: Option<&Value>, what: &str) -> Result<(), Stop> {
        let Some(before) = before else { return Ok(()) };
        let after = self.look().await?;
        self.expect(
            after == *before,
            format!("a look at the effects after {what}"),
            format!("as before: {before}"),
            after,
        )
    }

    /// Sends a command and returns its reply, whatever it is.
    pub async fn exchange(&mut self, ask: Ask) -> Result<Heard, Stop> {
        self.ask_for(ask, "an answer", |_| true).await
    }

    /// Sends a command and expects a reply with this outcome.
    pub async fn ask(&mut self, ask: Ask, outcome: Outcome) -> Result<Heard, Stop> {
        self.ask_for(ask, outcome.as_str(), |heard| {
            heard.outcome() == outcome.as_str()
        })
        .await
    }

    /// Sends a command and expects a reply for which `holds` is true; `expected` describes that reply.
    pub async fn ask_for(
        &mut self,
        ask: Ask,
        expected: &str,
        holds: impl FnOnce(&Heard) -> bool + Send,
    ) -> Result<Heard, Stop> {
        let sent = self.send(&[ask]).await?;
        self.hear(&sent.join(", "), expected, holds).await
    }

    /// Sends commands as one batch. Returns a description of each command, for people.
    pub async fn send(&mut self, asks: &[Ask]) -> Result<Vec<String>, Stop> {
        self.prepare().await?;
        let key = self.key();
        // Drops replies that were sent twice, which a participant may do: they must not count as replies to these
        // commands.
        while self.wire.reply(&key, Duration::ZERO).await?.is_some() {}
        let mut records = Vec::with_capacity(asks.len());
        for ask in asks {
            records.push(self.record(ask)?);
        }
        self.wire.send(&records).await?;
        Ok(asks.iter().map(|ask| self.describe(ask)).collect())
    }

    /// Appends one record and returns its place in the log.
    pub async fn append(&mut self, ask: &Ask) -> Result<Option<Delivered>, Stop> {
        self.prepare().await?;
        let record = self.record(ask)?;
        Ok(self.wire.send(&[record]).await?.pop())
    }

    /// Receives the next reply and expects that `holds` is true for it; `expected` describes that reply.
    pub async fn hear(
        &mut self,
        sent: &str,
        expected: &str,
        holds: impl FnOnce(&Heard) -> bool + Send,
    ) -> Result<Heard, Stop> {
        let heard = self
            .wire
            .reply(&self.key(), self.patience)
            .await?
            .map(Heard);
        let got = heard.as_ref().map_or_else(
            || format!("no answer within {} s", self.patience.as_secs_f32()),
            ToString::to_string,
        );
        let good = heard.filter(holds);
        self.expect(good.is_some(), sent, expected, got)?;
        good.ok_or_else(|| Stop::Failed(format!("{sent}: no answer")))
    }

    /// Records an exchange, and ends the case if `holds` is false.
    pub fn expect(
        &mut self,
        holds: bool,
        sent: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Result<(), Stop> {
        let exchange = Exchange {
            sent: sent.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
        };
        let outcome = if holds {
            Ok(())
        } else {
            Err(Stop::Failed(format!(
                "{}: expected {}, got {}",
                exchange.sent, exchange.expected, exchange.got
            )))
        };
        self.exchanges.push(exchange);
        outcome
    }

    /// Returns the record of a command, as the orchestrator writes it.
    pub fn record(&self, ask: &Ask) -> Result<OutgoingRecord, Stop> {
        let partitions = self.wire.reply_partitions();
        let home = home_partition(&self.key(), partitions);
        let command = Command {
            saga_id: self.saga,
            step: ask.step.clone(),
            direction: ask.direction,
            attempt: ask.attempt,
            command_type: self.type_of(ask)?,
            payload: self.names.fill(&self.input(ask)?)?,
            save_failure: ask.save_failure,
            reply_to: ReplyTo {
                topic: self.wire.reply_topic().to_owned(),
                partition: ask.reply_partition.unwrap_or(home),
            },
            // The lowest possible floor: the participant must keep all the rows that it has.
            floor: Timestamp::from_timestamp_millis(0),
            trace: self.trace(),
        };
        let mut record = command.encode(&self.description.topic, SOURCE, Clock::of_process().now());
        for (name, value) in &ask.headers {
            record.headers.remove(name);
            if let Some(value) = value {
                record.headers.push(name, value);
            }
        }
        if let Some(value) = &ask.value {
            record.payload = value.clone().unwrap_or_default();
        }
        Ok(record)
    }

    pub fn trace(&self) -> Trace {
        let saga = self.saga.0.simple().to_string();
        Trace {
            // The id is not ASCII, because headers are bytes.
            correlation_id: format!("conformance-ü-{saga}"),
            traceparent: Some(format!("00-{saga}-00f067aa0ba902b7-01")),
        }
    }

    fn type_of(&self, ask: &Ask) -> Result<String, Stop> {
        if let Some(command_type) = &ask.command_type {
            return Ok(command_type.clone());
        }
        let action = &self.command.command_type;
        Ok(match ask.direction {
            Direction::Forward => action.clone(),
            Direction::Compensation => self.compensation()?.command_type.clone(),
            Direction::Resolve => format!("{action}{}", Command::RESOLVE_SUFFIX),
        })
    }

    fn input(&self, ask: &Ask) -> Result<Value, Stop> {
        let command = self.command;
        let example = match (&ask.input, ask.direction) {
            (Input::This(value), _) => return Ok(value.clone()),
            (Input::Succeeds, Direction::Compensation) => {
                return Ok(self.compensation()?.input.clone());
            }
            (Input::Succeeds, Direction::Forward | Direction::Resolve) => &command.succeeds,
            (Input::Fails, _) => self.fails()?,
            (Input::Errors, _) => named(command.errors.as_ref(), "errors")?,
            (Input::CompensationFails, _) => {
                named(self.compensation()?.fails.as_ref(), "compensation.fails")?
            }
        };
        Ok(example.input.clone())
    }

    fn describe(&self, ask: &Ask) -> String {
        let command_type = self.type_of(ask).unwrap_or_default();
        let input = match &ask.input {
            Input::Succeeds => String::new(),
            Input::Fails | Input::CompensationFails => ", with an input that fails".to_owned(),
            Input::Errors => ", with an input that errs".to_owned(),
            Input::This(value) => format!(", with {}", shown(&value.to_string())),
        };
        let saved = if ask.save_failure {
            ""
        } else {
            ", save-failure false"
        };
        format!(
            "{command_type} ({}, attempt {}{input}{saved})",
            ask.direction, ask.attempt
        )
    }
}

fn named<'a>(example: Option<&'a Example>, key: &str) -> Result<&'a Example, Stop> {
    example.ok_or_else(|| Stop::Skipped(format!("the description has no '{key}'")))
}
