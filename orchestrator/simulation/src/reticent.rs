//! A participant that does its work and never tells the outcome of a pivot: its replies are dropped before they are
//! sent, or replaced by replies without an outcome.

use super::{
    checker::history::Kind,
    log::SimWriter,
    process::Process,
    workload::{Reticence, Workload},
};
use async_trait::async_trait;
use saga_core::message::{
    Direction, Fault, IncomingRecord, Input, Outcome, OutgoingRecord, Reply, ReplyTo,
};
use saga_messaging::log::{Delivered, LogError, LogWriter};
use serde_json::json;
use std::sync::Arc;

/// The position of a dropped reply. It is never used.
const NOWHERE: Delivered = Delivered {
    partition: 0,
    offset: 0,
};

/// The producer of a reticent participant.
#[derive(Clone)]
pub struct ReticentWriter {
    pub writer: SimWriter,
    pub workload: Arc<Workload>,
    pub process: Process,
}

impl ReticentWriter {
    /// Returns the record to send instead, if any.
    fn said(&self, record: &OutgoingRecord) -> Option<OutgoingRecord> {
        let Some(reply) = reply_of(record) else {
            return Some(record.clone());
        };
        let outcome = match self.workload.reticence(reply.saga_id, &reply.step) {
            None => return Some(record.clone()),
            Some(Reticence::Mute) => return None,
            Some(Reticence::Errs) => Outcome::Error,
            Some(Reticence::Fails) => Outcome::Failure,
        };
        let (direction, attempt) = self.asked_last(&reply)?;
        // A failure is a valid answer to the action itself, but not to a resolve command.
        if outcome == Outcome::Failure && direction != Direction::Resolve {
            return None;
        }
        let reply_to = ReplyTo {
            topic: record.topic.clone(),
            partition: record.partition?,
        };
        let instead = Reply {
            direction,
            attempt,
            outcome,
            payload: json!(Fault::new("reticent", "as the workload says")),
            ..reply
        };
        Some(instead.encode(&reply_to, "/reticent", self.process.now()))
    }

    /// Returns direction and attempt of the newest command of the step, which is the one to answer.
    fn asked_last(&self, reply: &Reply) -> Option<(Direction, u32)> {
        let history = self.process.world.history();
        let mut commands = history.appended.iter().rev();
        let last = commands.find(|appended| {
            appended.kind == Kind::Command
                && appended.saga == Some(reply.saga_id)
                && appended.step.as_deref() == Some(&reply.step)
        })?;
        let attempt = last.id.rsplit('/').next()?.parse().ok()?;
        Some((last.direction?, attempt))
    }
}

fn reply_of(record: &OutgoingRecord) -> Option<Reply> {
    let incoming = IncomingRecord {
        topic: record.topic.clone(),
        partition: 0,
        offset: 0,
        timestamp_ms: 0,
        key: Some(record.key.clone()),
        headers: record.headers.clone(),
        payload: Some(record.payload.clone()),
    };
    match Input::decode(&incoming) {
        Ok(Input::Reply(reply)) => Some(reply),
        Ok(Input::Start(_) | Input::Timer(_) | Input::Operator(_)) | Err(_) => None,
    }
}

#[async_trait]
impl LogWriter for ReticentWriter {
    async fn publish_rest(
        &self,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        let said: Vec<OutgoingRecord> = records
            .iter()
            .filter_map(|record| self.said(record))
            .collect();
        self.writer.publish(&said).await?;
        delivered.fill(Some(NOWHERE));
        Ok(())
    }
}
