//! One saga in which a case is played: sends commands as the orchestrator does, hears the answers, and keeps both.

use super::{
    Ask, Command as Described, Compensation, Description, Example, Exchange, Heard, Input, Names,
    Unset, Wire, World, ask::shown, description::SAGA,
};
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{Command, Direction, Outcome, OutgoingRecord, ReplyTo, Trace},
};
use saga_messaging::{kafka::home_partition, log::Delivered};
use saga_service::clock;
use serde_json::Value;
use std::{fmt, time::Duration};
use uuid::Uuid;

const SOURCE: &str = "/conformance";

/// Why a case ends early.
#[derive(Debug)]
pub enum Stop {
    /// The rule is broken.
    Failed(String),
    /// The description does not say what is needed to try it.
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

/// See the module.
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
            saga: SagaId(clock::new_id()),
            world,
            patience,
            names: Names::default(),
            prepared: false,
            exchanges: Vec::new(),
        };
        scene.another_saga();
        scene
    }

    /// Goes on with a saga that nobody has heard of.
    pub fn another_saga(&mut self) {
        self.saga = SagaId(clock::new_id());
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

    pub fn into_exchanges(self) -> Vec<Exchange> {
        self.exchanges
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    pub fn key(&self) -> String {
        self.saga.to_string()
    }

    /// What must stand before the case begins.
    pub async fn prepare(&mut self) -> Result<(), Stop> {
        if self.prepared {
            return Ok(());
        }
        self.prepared = true;
        self.world.prepare(&mut self.names).await??;
        for (index, given) in self.command.given.iter().enumerate() {
            let ask = Ask::action(1)
                .in_step(&format!("given-{index}"))
                .of_type(&given.command_type)
                .with(Input::This(given.input.clone()));
            let heard = Box::pin(self.tell(ask)).await?;
            if heard.outcome() != Outcome::Success.as_str() {
                let why = format!("{} is given, but was answered: {heard}", given.command_type);
                return Err(Stop::Skipped(why));
            }
        }
        Ok(())
    }

    /// The value of a text of the description.
    pub fn fill(&self, text: &str) -> Result<String, Stop> {
        Ok(self.names.fill_text(text)?)
    }

    pub fn compensation(&self) -> Result<&'a Compensation, Stop> {
        let skipped =
            || Stop::Skipped(format!("{} has no compensation", self.command.command_type));
        self.command.compensation.as_ref().ok_or_else(skipped)
    }

    pub fn fails(&self) -> Result<&'a Example, Stop> {
        named(self.command.fails.as_ref(), "fails")
    }

    /// The effects as they are seen; skips the case where they cannot be.
    pub async fn look(&mut self) -> Result<Value, Stop> {
        self.prepare().await?;
        match self.world.look(&self.names).await? {
            Ok(seen) => Ok(seen),
            Err(why) => Err(Stop::Skipped(format!("effects cannot be seen: {why}"))),
        }
    }

    /// The effects, where they can be seen.
    pub async fn look_if_any(&mut self) -> Result<Option<Value>, Stop> {
        match self.look().await {
            Ok(seen) => Ok(Some(seen)),
            Err(Stop::Skipped(_)) => Ok(None),
            Err(stop) => Err(stop),
        }
    }

    /// What is seen, without the ids of this scene.
    pub fn hide(&self, seen: &Value) -> Value {
        self.names.hide(seen)
    }

    /// Nothing must have changed since `before` was seen.
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

    /// Sends a command and hears its answer, whatever it is.
    pub async fn tell(&mut self, ask: Ask) -> Result<Heard, Stop> {
        self.ask_for(ask, "an answer", |_| true).await
    }

    /// Sends a command whose answer must have this outcome.
    pub async fn ask(&mut self, ask: Ask, outcome: Outcome) -> Result<Heard, Stop> {
        self.ask_for(ask, outcome.as_str(), |heard| {
            heard.outcome() == outcome.as_str()
        })
        .await
    }

    /// Sends a command whose answer must be as `expected` says.
    pub async fn ask_for(
        &mut self,
        ask: Ask,
        expected: &str,
        holds: impl FnOnce(&Heard) -> bool + Send,
    ) -> Result<Heard, Stop> {
        let sent = self.send(&[ask]).await?;
        self.hear(&sent.join(", "), expected, holds).await
    }

    /// Sends commands as one batch; yields what was sent, for people.
    pub async fn send(&mut self, asks: &[Ask]) -> Result<Vec<String>, Stop> {
        self.prepare().await?;
        let key = self.key();
        // An answer that was sent twice (a participant may) is not the answer to what comes now.
        while self.wire.reply(&key, Duration::ZERO).await?.is_some() {}
        let mut records = Vec::with_capacity(asks.len());
        for ask in asks {
            records.push(self.record(ask)?);
        }
        self.wire.send(&records).await?;
        Ok(asks.iter().map(|ask| self.describe(ask)).collect())
    }

    /// Appends one record and says where it stands.
    pub async fn append(&mut self, ask: &Ask) -> Result<Option<Delivered>, Stop> {
        self.prepare().await?;
        let record = self.record(ask)?;
        Ok(self.wire.send(&[record]).await?.pop())
    }

    /// The next answer, which must be as `expected` says.
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

    /// Notes an exchange, and ends the case if it was not as it should be.
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

    /// The record of a command, as the orchestrator writes it.
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
            // The lowest there is: whatever the participant keeps, it must go on keeping.
            floor: Timestamp::from_timestamp_millis(0),
            trace: self.trace(),
        };
        let mut record = command.encode(&self.description.topic, SOURCE, clock::now());
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
            // Not ASCII: headers are bytes.
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
