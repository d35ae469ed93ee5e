//! Lists, finds, replays and discards dead letters.

use super::correction::{self, BadCorrection};
use crate::{
    engine::shared::Shared,
    store::{
        PgStore,
        dead_letter::{self, Decision, LetterKey, NewDecision},
    },
    telemetry,
};
use chrono::{DateTime, Utc};
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{OutgoingRecord, topic::dead_letters_of},
};
use saga_messaging::{
    dead_letter::{Correction, DeadLetter, LetterId, NotReplayable},
    kafka::{KafkaWriter, OffsetRange, TopicReader},
    log::{LogError, LogWriter},
};
use std::{collections::BTreeSet, sync::Arc};
use thiserror::Error;
use tracing::info;

/// The most letters that one request reads. The next page continues after them.
const LOOKED_AT_LIMIT: usize = 2_000;
/// The most letters of one read from the broker.
const CHUNK: usize = 500;

/// The dead letters of the consumed topics. Clones share their state.
#[derive(Clone)]
pub struct DeadLetters {
    scan: TopicReader,
    writer: KafkaWriter,
    store: PgStore,
    shared: Arc<Shared>,
    /// Dead-letter topics, in name order.
    topics: Arc<BTreeSet<String>>,
}

/// A filter for letters. `None` matches all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The topic that the records came from, or its dead-letter topic.
    pub topic: Option<String>,
    pub reason: Option<String>,
    pub saga: Option<SagaId>,
    /// Includes letters that were replayed or discarded.
    pub decided_too: bool,
}

/// A letter, and the decision about it, if there is one.
#[derive(Clone, Debug)]
pub struct LetterWithDecision {
    pub letter: DeadLetter,
    pub decision: Option<Decision>,
}

#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The letters, ordered by topic and partition, oldest first.
    pub letters: Vec<LetterWithDecision>,
    /// The first letter of the next page. Also set on a page that is not full because too many letters did not match.
    pub next: Option<LetterId>,
}

/// A request to replay or discard a letter.
#[derive(Clone, Debug)]
pub struct LetterDecisionRequest {
    pub actor: String,
    pub reason: String,
    pub correlation_id: String,
    /// Only reports what would be done.
    pub dry_run: bool,
}

/// The outcome of a request to replay or discard a letter.
#[derive(Clone, Debug)]
pub enum DecisionOutcome {
    /// The decision was made now.
    Done(Decision),
    /// The same decision was made before; nothing is done now.
    Before(Decision),
    /// The answer to a dry run: the request would be carried out.
    Would,
}

#[derive(Debug, Error)]
pub enum LetterError {
    #[error("'{0}' is no topic with dead letters; there are: {1}")]
    UnknownTopic(String, String),
    #[error("there is no letter {0}")]
    Unknown(LetterId),
    #[error(
        "the retention of its topic has passed: {id} is gone, the oldest letter there is now at offset {oldest}"
    )]
    Gone { id: LetterId, oldest: i64 },
    #[error(transparent)]
    NotReplayable(#[from] NotReplayable),
    #[error(transparent)]
    BadCorrection(#[from] BadCorrection),
    #[error(
        "saga {saga} began before {floor}: its history may be dropped already, so its message could take effect a second time"
    )]
    BelowFloor { saga: SagaId, floor: Timestamp },
    #[error("the letter was {} by {} at {}: {}", .0.decision, .0.actor, .0.decided_at, .0.reason)]
    DecidedOtherwise(Box<Decision>),
    #[error("the letters cannot be read or replayed now")]
    Log(#[from] LogError),
    #[error("the decisions cannot be read or written now")]
    Store(#[from] sqlx::Error),
}

impl DeadLetters {
    /// Serves the dead letters of the topics `sources`.
    pub fn new<'a>(
        scan: TopicReader,
        writer: KafkaWriter,
        store: PgStore,
        shared: Arc<Shared>,
        sources: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            scan,
            writer,
            store,
            shared,
            topics: Arc::new(sources.into_iter().map(dead_letters_of).collect()),
        }
    }

    pub fn topics(&self) -> &BTreeSet<String> {
        &self.topics
    }

    pub(super) fn scan(&self) -> &TopicReader {
        &self.scan
    }

    pub(super) fn store(&self) -> &PgStore {
        &self.store
    }

    /// Returns the dead-letter topic of `topic`, which may be a dead-letter topic itself.
    fn known(&self, topic: &str) -> Result<String, LetterError> {
        let letters = dead_letters_of(topic);
        if self.topics.contains(&letters) {
            return Ok(letters);
        }
        let known: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        Err(LetterError::UnknownTopic(
            topic.to_owned(),
            known.join(", "),
        ))
    }

    /// Returns up to `limit` letters at or after `from`.
    pub async fn list(
        &self,
        filter: &Filter,
        from: Option<&LetterId>,
        limit: usize,
    ) -> Result<Page, LetterError> {
        let only = match &filter.topic {
            Some(topic) => Some(self.known(topic)?),
            None => None,
        };
        let mut listing = Listing {
            desk: self,
            filter,
            limit,
            looked_at: 0,
            page: Page::default(),
        };
        let topics = self.topics.iter();
        for topic in topics.filter(|topic| only.as_ref().is_none_or(|only| only == *topic)) {
            if from.is_some_and(|from| *topic < from.topic) {
                continue;
            }
            for (partition, window) in self.scan.windows(topic).await? {
                let place = LetterId {
                    topic: topic.clone(),
                    partition,
                    offset: window.start,
                };
                let place = match from {
                    Some(from) => begin(place, from),
                    None => place,
                };
                listing.partition(place, window).await?;
                if listing.page.next.is_some() {
                    return Ok(listing.page);
                }
            }
        }
        Ok(listing.page)
    }

    /// Returns one letter with its whole record.
    pub async fn find(&self, id: &LetterId) -> Result<LetterWithDecision, LetterError> {
        if !self.topics.contains(&id.topic) {
            self.known(&id.topic)?;
            return Err(LetterError::Unknown(id.clone()));
        }
        let windows = self.scan.windows(&id.topic).await?;
        let Some(window) = windows.get(&id.partition) else {
            return Err(LetterError::Unknown(id.clone()));
        };
        if id.offset < window.start {
            return Err(LetterError::Gone {
                id: id.clone(),
                oldest: window.start,
            });
        }
        let looked = self
            .scan
            .look(&id.topic, id.partition, id.offset, 1)
            .await?;
        let letter = looked
            .records
            .into_iter()
            .find(|record| record.offset == id.offset)
            .map(DeadLetter::read)
            .ok_or_else(|| LetterError::Unknown(id.clone()))?;
        let mut connection = self.store.pool().acquire().await?;
        let decision = dead_letter::find(&mut connection, &key_of(&letter)).await?;
        Ok(LetterWithDecision { letter, decision })
    }

    /// Publishes the record to the topic that it came from.
    pub async fn replay(
        &self,
        id: &LetterId,
        correction: &Correction,
        decision_request: LetterDecisionRequest,
    ) -> Result<DecisionOutcome, LetterError> {
        let found = self.find(id).await?;
        if let Some(decision) = found.decision {
            return before(decision, Decision::REPLAYED);
        }
        let letter = found.letter;
        let record = letter.replay(correction)?;
        // An uncorrected record is not checked: it is replayed once the cause of its refusal is removed.
        if !correction.is_empty() {
            let inputs = &self.shared.settings.inputs_topic;
            correction::check(&record, inputs, &self.shared.registry)?;
        }
        self.refuse_forgotten(&letter, correction)?;
        if decision_request.dry_run {
            return Ok(DecisionOutcome::Would);
        }
        let new = NewDecision {
            corrected: !correction.is_empty(),
            ..decision_of(&letter, Decision::REPLAYED, decision_request)
        };
        self.carry_out(new, Some(record)).await
    }

    /// Records that somebody has examined the letter and that its record is not needed.
    pub async fn discard(
        &self,
        id: &LetterId,
        decision_request: LetterDecisionRequest,
    ) -> Result<DecisionOutcome, LetterError> {
        let found = self.find(id).await?;
        if let Some(decision) = found.decision {
            return before(decision, Decision::DISCARDED);
        }
        if decision_request.dry_run {
            return Ok(DecisionOutcome::Would);
        }
        let new = decision_of(&found.letter, Decision::DISCARDED, decision_request);
        self.carry_out(new, None).await
    }

    /// Writes the row, then publishes the record, then commits. A concurrent request waits for the row, and then finds
    /// this decision.
    async fn carry_out(
        &self,
        new: NewDecision,
        record: Option<OutgoingRecord>,
    ) -> Result<DecisionOutcome, LetterError> {
        let mut transaction = self.store.reporting().begin().await?;
        if let Some(decision) = dead_letter::decide(&mut transaction, &new).await? {
            return before(decision, new.decision);
        }
        if let Some(record) = record {
            let delivered = self.writer.publish(std::slice::from_ref(&record)).await?;
            if let Some(at) = delivered.first() {
                dead_letter::placed(&mut transaction, &new.key, *at).await?;
            }
        }
        let decision = dead_letter::find(&mut transaction, &new.key).await?;
        transaction.commit().await?;
        let decision = decision.ok_or_else(|| LetterError::Unknown(new.key.id.clone()))?;
        telemetry::dead_letter_decided(new.decision);
        info!(
            letter.id = %new.key.id,
            saga.id = new.saga.map(tracing::field::display),
            correlation.id = new.correlation_id,
            actor = new.actor,
            reason = new.reason,
            corrected = new.corrected,
            "a dead letter is {}",
            new.decision
        );
        Ok(DecisionOutcome::Done(decision))
    }

    /// Refuses a letter whose saga began below the floor: its replay could repeat an effect. If the correction changes
    /// the saga's id, the corrected id counts.
    fn refuse_forgotten(
        &self,
        letter: &DeadLetter,
        correction: &Correction,
    ) -> Result<(), LetterError> {
        let corrected = correction.headers.get(saga_core::message::header::SAGA_ID);
        let saga = match corrected {
            Some(text) => text.parse().ok(),
            None => letter.saga,
        };
        let began_ms = saga.and_then(SagaId::created_at_ms);
        match (saga, began_ms, self.shared.floor()) {
            (Some(saga), Some(began_ms), Some(floor)) if began_ms < floor.timestamp_millis() => {
                Err(LetterError::BelowFloor { saga, floor })
            }
            _ => Ok(()),
        }
    }
}

/// Returns the first position of a partition that is not before `from`.
fn begin(place: LetterId, from: &LetterId) -> LetterId {
    if place.topic != from.topic {
        return place;
    }
    let offset = match place.partition.cmp(&from.partition) {
        std::cmp::Ordering::Less => i64::MAX,
        std::cmp::Ordering::Equal => place.offset.max(from.offset),
        std::cmp::Ordering::Greater => place.offset,
    };
    LetterId { offset, ..place }
}

/// A page that is being filled.
struct Listing<'a> {
    desk: &'a DeadLetters,
    filter: &'a Filter,
    limit: usize,
    looked_at: usize,
    page: Page,
}

impl Listing<'_> {
    /// Adds the letters of a partition. Sets `page.next` if the listing must stop here.
    async fn partition(
        &mut self,
        mut place: LetterId,
        window: OffsetRange,
    ) -> Result<(), LetterError> {
        while place.offset < window.end {
            if self.looked_at >= LOOKED_AT_LIMIT {
                self.page.next = Some(place);
                return Ok(());
            }
            let scan = &self.desk.scan;
            let looked = scan
                .look(&place.topic, place.partition, place.offset, CHUNK)
                .await?;
            if looked.next <= place.offset {
                // The broker was slow. The client can ask for the next page.
                self.page.next = Some(place);
                return Ok(());
            }
            let letters: Vec<DeadLetter> =
                looked.records.into_iter().map(DeadLetter::read).collect();
            self.looked_at += letters.len();
            if let Some(next) = self.take(letters).await? {
                self.page.next = Some(next);
                return Ok(());
            }
            place.offset = looked.next;
        }
        Ok(())
    }

    /// Keeps the letters that match the filter. Returns the first letter of the next page if this page is full.
    async fn take(&mut self, letters: Vec<DeadLetter>) -> Result<Option<LetterId>, LetterError> {
        let (Some(first), Some(last)) = (letters.first(), letters.last()) else {
            return Ok(None);
        };
        let decisions = dead_letter::between(
            self.desk.store.reporting(),
            &first.id.topic,
            first.id.partition,
            first.id.offset,
            last.id.offset,
        )
        .await?;
        for letter in letters {
            let key = key_of(&letter);
            let decision = decisions.iter().find(|decision| {
                decision.letter_offset == letter.id.offset && decision.written_at == key.written_at
            });
            if !fits(self.filter, &letter, decision) {
                continue;
            }
            if self.page.letters.len() >= self.limit {
                return Ok(Some(letter.id));
            }
            self.page.letters.push(LetterWithDecision {
                letter,
                decision: decision.cloned(),
            });
        }
        Ok(None)
    }
}

fn fits(filter: &Filter, letter: &DeadLetter, decision: Option<&Decision>) -> bool {
    let reason = filter.reason.as_ref();
    (filter.decided_too || decision.is_none())
        && reason.is_none_or(|reason| *reason == letter.reason)
        && filter.saga.is_none_or(|saga| letter.saga == Some(saga))
}

fn key_of(letter: &DeadLetter) -> LetterKey {
    LetterKey {
        id: letter.id.clone(),
        written_at: written_at(letter.written_at_ms),
    }
}

pub(super) fn written_at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

fn decision_of(
    letter: &DeadLetter,
    decision: &'static str,
    decision_request: LetterDecisionRequest,
) -> NewDecision {
    NewDecision {
        key: key_of(letter),
        decision,
        actor: decision_request.actor,
        reason: decision_request.reason,
        saga: letter.saga,
        corrected: false,
        correlation_id: decision_request.correlation_id,
    }
}

/// Returns [`DecisionOutcome::Before`] if the same decision was made before, and an error if the opposite was.
fn before(decision: Decision, wanted: &str) -> Result<DecisionOutcome, LetterError> {
    if decision.decision == wanted {
        Ok(DecisionOutcome::Before(decision))
    } else {
        Err(LetterError::DecidedOtherwise(Box::new(decision)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> LetterId {
        text.parse().unwrap()
    }

    #[test]
    fn a_cursor_skips_earlier_letters() {
        let from = place("b.dlq/1/10");
        for (first, expected) in [
            ("a.dlq/5/3", "a.dlq/5/3"),
            ("b.dlq/0/3", "b.dlq/0/9223372036854775807"),
            ("b.dlq/1/3", "b.dlq/1/10"),
            ("b.dlq/1/20", "b.dlq/1/20"),
            ("b.dlq/2/3", "b.dlq/2/3"),
            ("c.dlq/0/3", "c.dlq/0/3"),
        ] {
            assert_eq!(begin(place(first), &from), place(expected), "{first}");
        }
    }
}
