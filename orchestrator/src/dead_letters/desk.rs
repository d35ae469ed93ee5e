//! Listing, finding, replaying and discarding.

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
    message::OutgoingRecord,
};
use saga_messaging::{
    dead_letter::{Correction, DeadLetter, LetterId, NotReplayable, topic_of},
    kafka::{KafkaWriter, Scan, Window},
    log::{LogError, LogWriter},
};
use std::{collections::BTreeSet, sync::Arc};
use thiserror::Error;
use tracing::info;

/// Letters that one request looks at, at most; the next page goes on behind them.
const LOOKED_AT_LIMIT: usize = 2_000;
/// And by one question to the broker.
const CHUNK: usize = 500;

/// See the module.
#[derive(Clone)]
pub struct Desk {
    scan: Scan,
    writer: KafkaWriter,
    store: PgStore,
    shared: Arc<Shared>,
    /// Dead-letter topics, in order.
    topics: Arc<BTreeSet<String>>,
}

/// Which letters; `None` is all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The topic that the records came from, or its dead-letter topic.
    pub topic: Option<String>,
    pub reason: Option<String>,
    pub saga: Option<SagaId>,
    /// Also those that were replayed or discarded.
    pub decided_too: bool,
}

/// A letter, and what was decided about it.
#[derive(Clone, Debug)]
pub struct Found {
    pub letter: DeadLetter,
    pub decision: Option<Decision>,
}

#[derive(Clone, Debug, Default)]
pub struct Page {
    /// By topic and partition, oldest first.
    pub letters: Vec<Found>,
    /// Where the next page begins; also of a page that is not full because so many letters did not fit the filter.
    pub next: Option<LetterId>,
}

/// What somebody wants done with a letter.
#[derive(Clone, Debug)]
pub struct Wish {
    pub actor: String,
    pub reason: String,
    pub correlation_id: String,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Decided now.
    Done(Decision),
    /// The same was decided before, and nothing is done now.
    Before(Decision),
    /// It could be done.
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
    #[error(
        "saga {saga} began before {floor}: what was known of it may be forgotten, so its message might have its effect a second time"
    )]
    BelowFloor { saga: SagaId, floor: Timestamp },
    #[error("the letter was {} by {} at {}: {}", .0.decision, .0.actor, .0.decided_at, .0.reason)]
    DecidedOtherwise(Box<Decision>),
    #[error("the letters cannot be read or replayed now")]
    Log(#[from] LogError),
    #[error("the decisions cannot be read or written now")]
    Store(#[from] sqlx::Error),
}

impl Desk {
    /// For the letters of `sources`.
    pub fn new<'a>(
        scan: Scan,
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
            topics: Arc::new(sources.into_iter().map(topic_of).collect()),
        }
    }

    pub fn topics(&self) -> &BTreeSet<String> {
        &self.topics
    }

    pub(super) fn scan(&self) -> &Scan {
        &self.scan
    }

    pub(super) fn store(&self) -> &PgStore {
        &self.store
    }

    /// The dead-letter topic that is meant.
    fn known(&self, topic: &str) -> Result<String, LetterError> {
        let letters = topic_of(topic);
        if self.topics.contains(&letters) {
            return Ok(letters);
        }
        let known: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        Err(LetterError::UnknownTopic(
            topic.to_owned(),
            known.join(", "),
        ))
    }

    /// Up to `limit` letters at or behind `from`.
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

    /// One letter, whole.
    pub async fn find(&self, id: &LetterId) -> Result<Found, LetterError> {
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
        Ok(Found { letter, decision })
    }

    /// Puts the record back to where it came from.
    pub async fn replay(
        &self,
        id: &LetterId,
        correction: &Correction,
        wish: Wish,
    ) -> Result<Verdict, LetterError> {
        let found = self.find(id).await?;
        if let Some(decision) = found.decision {
            return before(decision, Decision::REPLAYED);
        }
        let letter = found.letter;
        let record = letter.replay(correction)?;
        self.refuse_forgotten(&letter, correction)?;
        if wish.dry_run {
            return Ok(Verdict::Would);
        }
        let new = NewDecision {
            corrected: !correction.is_empty(),
            ..decision_of(&letter, Decision::REPLAYED, wish)
        };
        self.carry_out(new, Some(record)).await
    }

    /// Somebody has looked, and the record is not needed.
    pub async fn discard(&self, id: &LetterId, wish: Wish) -> Result<Verdict, LetterError> {
        let found = self.find(id).await?;
        if let Some(decision) = found.decision {
            return before(decision, Decision::DISCARDED);
        }
        if wish.dry_run {
            return Ok(Verdict::Would);
        }
        let new = decision_of(&found.letter, Decision::DISCARDED, wish);
        self.carry_out(new, None).await
    }

    /// The row, then the record, then the commit: a rival waits for the row, and finds what was decided.
    async fn carry_out(
        &self,
        new: NewDecision,
        record: Option<OutgoingRecord>,
    ) -> Result<Verdict, LetterError> {
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
        Ok(Verdict::Done(decision))
    }

    /// Below the floor a replay could run what was run before. The corrected id counts, if it is corrected.
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

/// The first place of a partition that is not before `from`.
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

/// A page while it is filled.
struct Listing<'a> {
    desk: &'a Desk,
    filter: &'a Filter,
    limit: usize,
    looked_at: usize,
    page: Page,
}

impl Listing<'_> {
    /// Sets `page.next` if there is no reason to go on.
    async fn partition(&mut self, mut place: LetterId, window: Window) -> Result<(), LetterError> {
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
                // The broker was slow: whoever wants to know more asks again.
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

    /// Keeps those that fit; returns where to go on if the page is full.
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
            self.page.letters.push(Found {
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

fn decision_of(letter: &DeadLetter, decision: &'static str, wish: Wish) -> NewDecision {
    NewDecision {
        key: key_of(letter),
        decision,
        actor: wish.actor,
        reason: wish.reason,
        saga: letter.saga,
        corrected: false,
        correlation_id: wish.correlation_id,
    }
}

/// The same again changes nothing; the opposite is refused.
fn before(decision: Decision, wanted: &str) -> Result<Verdict, LetterError> {
    if decision.decision == wanted {
        Ok(Verdict::Before(decision))
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
    fn a_cursor_passes_over_what_is_before_it() {
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
