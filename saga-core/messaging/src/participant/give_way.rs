//! A participant that was away gives way to everybody else while it catches up.
//!
//! What waited for it for hours it could answer in minutes, as fast as it can; the answers would fill the orchestrator's
//! inputs, and all that passes there would wait behind them: other sagas at each of their steps, and new ones would be
//! turned away. So while its commands are late, it picks up no more of them than the orchestrator keeps up with. It
//! never stands still: orders that keep the orchestrator busy by themselves must not keep it from catching up.

use super::ParticipantConfig;
use crate::{
    kafka::KafkaConfig,
    log::{Delivered, LogError, TopicPartition},
    pressure::{Bounds, InputsWatch, Pressure},
    rule::{BatchError, Processor},
};
use async_trait::async_trait;
use metrics::histogram;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tracing::info;

/// Commands that have waited for longer than this are caught up with. A system that is merely busy is faster: its intake
/// sees to that.
const LATE: Duration = Duration::from_secs(10);
/// The longest wait for a batch: a third to a half of what the orchestrator can read stays the participant's.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks. Offsets are committed four times a second.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After a look that was not answered, which takes a second: the next batches should not wait for that, too.
const BLIND: Duration = Duration::from_secs(5);
/// Replies that may wait however slow the orchestrator is, and until that is known, and however fast it is: half of what the
/// intake of orders allows.
const LEAST: u64 = 500;
const LIMIT: u64 = 10_000;

/// How a participant learns what waits for the orchestrator.
#[async_trait]
pub(super) trait LookAtInputs: Send {
    /// `false` if there was nothing to be seen.
    async fn look(&self, pressure: &Pressure) -> bool;
}

#[async_trait]
impl LookAtInputs for InputsWatch {
    async fn look(&self, pressure: &Pressure) -> bool {
        InputsWatch::look(self, pressure).await
    }
}

/// A processor that gives way.
pub(super) struct GiveWay<P, L = InputsWatch> {
    processor: P,
    name: String,
    inputs: Option<L>,
    pressure: Pressure,
    next_look: Instant,
    /// When a late command was last picked up, while it catches up.
    late_at: Option<Instant>,
}

impl<P: Processor> GiveWay<P> {
    /// To whoever answers in the first of the participant's reply topics; the others, if any, are not looked at.
    pub fn new(
        processor: P,
        config: &ParticipantConfig,
        kafka: &KafkaConfig,
    ) -> Result<Self, LogError> {
        let inputs = match config.reply_topics.first() {
            Some(topic) if !config.reply_backlog.is_zero() => {
                Some(InputsWatch::connect(kafka, &config.reply_group, topic)?)
            }
            Some(_) | None => None,
        };
        Ok(Self::with(
            processor,
            &config.name,
            inputs,
            config.reply_backlog,
        ))
    }
}

impl<P: Processor, L: LookAtInputs> GiveWay<P, L> {
    fn with(processor: P, name: &str, inputs: Option<L>, patience: Duration) -> Self {
        Self {
            processor,
            name: name.to_owned(),
            inputs,
            pressure: Pressure::new(Bounds {
                patience,
                least: LEAST,
                at_first: LEAST,
                limit: LIMIT,
            }),
            next_look: Instant::now(),
            late_at: None,
        }
    }

    /// Says when catching up begins and ends: some partitions are there before others.
    fn note(&mut self, late: Option<Duration>) {
        let participant = &self.name;
        match (late, self.late_at) {
            (Some(late), None) => info!(
                participant,
                late_seconds = late.as_secs(),
                "catching up with commands that have waited, giving way to everybody else"
            ),
            (None, Some(at)) if at.elapsed() > LATE => {
                info!(participant, "caught up with what had waited");
                self.late_at = None;
            }
            (Some(_), Some(_)) | (None, _) => {}
        }
        if late.is_some() {
            self.late_at = Some(Instant::now());
        }
    }

    /// Waits, but not for long, until what waits for the orchestrator is little enough.
    async fn give_way(&mut self) {
        let Some(inputs) = &self.inputs else { return };
        let began = Instant::now();
        let enough = began + PATIENCE;
        loop {
            if self.next_look <= Instant::now() {
                let has_seen = inputs.look(&self.pressure).await;
                let pause = if has_seen { LOOK_EVERY } else { BLIND };
                self.next_look = Instant::now() + pause;
            }
            if !self.pressure.is_high(0) || Instant::now() >= enough {
                break;
            }
            sleep_until(self.next_look.min(enough)).await;
        }
        histogram!("saga_give_way_seconds", "participant" => self.name.clone())
            .record(began.elapsed().as_secs_f64());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how late a command is decides about courtesy only, and the database is not to be asked for it"
)]
fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// For how long the oldest of the records has waited, if that is too long: a batch is of several partitions, and some have
/// caught up before others. Brokers may keep no time, which is 0.
fn late(records: &[IncomingRecord], now_ms: i64) -> Option<Duration> {
    let sent_at_ms = records.iter().map(|record| record.timestamp_ms);
    let oldest_ms = sent_at_ms.filter(|at_ms| *at_ms > 0).min()?;
    let waited_ms = now_ms.saturating_sub(oldest_ms).try_into().ok()?;
    let waited = Duration::from_millis(waited_ms);
    (waited > LATE).then_some(waited)
}

#[async_trait]
impl<P: Processor, L: LookAtInputs + Sync> Processor for GiveWay<P, L> {
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        if self.inputs.is_some() {
            let late = late(records, now_ms());
            self.note(late);
            if late.is_some() {
                self.give_way().await;
            }
        }
        self.processor.process(records).await
    }

    async fn reject(
        &mut self,
        record: &IncomingRecord,
        why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        self.processor.reject(record, why).await
    }

    fn published(&mut self, outputs: &[OutgoingRecord], delivered: &[Delivered]) {
        self.processor.published(outputs, delivered);
    }

    async fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), BatchError> {
        self.processor.assigned(partitions).await
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.processor.revoked(partitions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::message::Headers;
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    const WORK: Duration = Duration::from_millis(20);

    /// Takes its time for a batch, and counts them.
    #[derive(Default)]
    struct Counting(u32);

    #[async_trait]
    impl Processor for Counting {
        async fn process(
            &mut self,
            _: &[IncomingRecord],
        ) -> Result<Vec<OutgoingRecord>, BatchError> {
            self.0 += 1;
            tokio::time::sleep(WORK).await;
            Ok(Vec::new())
        }

        async fn reject(
            &mut self,
            _: &IncomingRecord,
            _: &BatchError,
        ) -> Result<Vec<OutgoingRecord>, BatchError> {
            Ok(Vec::new())
        }

        fn published(&mut self, _: &[OutgoingRecord], _: &[Delivered]) {}

        async fn assigned(&mut self, _: &[TopicPartition]) -> Result<(), BatchError> {
            Ok(())
        }

        fn revoked(&mut self, _: &[TopicPartition]) {}
    }

    /// An orchestrator that reads 4,000 records a second, and finds `waiting` more each time it is looked at.
    #[derive(Clone, Default)]
    struct Inputs {
        waiting: Arc<AtomicU64>,
        read: Arc<AtomicU64>,
        looks: Arc<AtomicU64>,
    }

    #[async_trait]
    impl LookAtInputs for Inputs {
        async fn look(&self, pressure: &Pressure) -> bool {
            self.looks.fetch_add(1, Ordering::Relaxed);
            let read = self.read.fetch_add(400, Ordering::Relaxed);
            let waiting = self.waiting.load(Ordering::Relaxed);
            pressure.look(Instant::now(), read, waiting);
            true
        }
    }

    fn sent_ago(seconds: i64) -> Vec<IncomingRecord> {
        vec![IncomingRecord {
            topic: "payment.commands".to_owned(),
            partition: 0,
            offset: 0,
            timestamp_ms: now_ms() - seconds * 1_000,
            key: None,
            headers: Headers::default(),
            payload: None,
        }]
    }

    fn participant(inputs: &Inputs) -> GiveWay<Counting, Inputs> {
        let patience = Duration::from_millis(375);
        GiveWay::with(
            Counting::default(),
            "payment",
            Some(inputs.clone()),
            patience,
        )
    }

    /// How long ten batches take.
    async fn ten(participant: &mut GiveWay<Counting, Inputs>, seconds: i64) -> Duration {
        let began = Instant::now();
        for _ in 0..10 {
            participant.process(&sent_ago(seconds)).await.unwrap();
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn late_commands_wait_while_the_orchestrator_is_behind_but_not_for_ever() {
        let inputs = Inputs::default();
        inputs.waiting.store(1_600, Ordering::Relaxed);
        let mut participant = participant(&inputs);
        // How fast the orchestrator is, is found out first: 1,500 may wait.
        ten(&mut participant, 60).await;
        let took = ten(&mut participant, 60).await;
        assert_eq!(participant.processor.0, 20);
        assert!(took >= (PATIENCE + WORK) * 10, "{took:?}");
        assert!(took <= (PATIENCE + WORK) * 11, "{took:?}");
        inputs.waiting.store(1_400, Ordering::Relaxed);
        let took = ten(&mut participant, 60).await;
        assert!(took <= WORK * 10 + LOOK_EVERY, "{took:?}");
    }

    /// What it sees before it has been able to ask: nothing of how fast the orchestrator is.
    #[tokio::test(start_paused = true)]
    async fn the_first_late_commands_wait_for_what_is_there_already() {
        let inputs = Inputs::default();
        inputs.waiting.store(LEAST + 1, Ordering::Relaxed);
        let mut first = participant(&inputs);
        let began = Instant::now();
        first.process(&sent_ago(60)).await.unwrap();
        assert!(began.elapsed() >= LOOK_EVERY, "{:?}", began.elapsed());
        inputs.waiting.store(LEAST, Ordering::Relaxed);
        let mut first = participant(&inputs);
        let began = Instant::now();
        first.process(&sent_ago(60)).await.unwrap();
        assert_eq!(began.elapsed(), WORK);
    }

    /// A broker that answers once, and then takes a second to say nothing.
    #[derive(Default)]
    struct Silent(AtomicU64);

    const UNANSWERED: Duration = Duration::from_secs(1);

    #[async_trait]
    impl LookAtInputs for Silent {
        async fn look(&self, pressure: &Pressure) -> bool {
            if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
                pressure.look(Instant::now(), 0, 5_000);
                return true;
            }
            tokio::time::sleep(UNANSWERED).await;
            pressure.unseen(Instant::now());
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_does_not_answer_is_left_alone_for_a_while() {
        let mut participant = GiveWay::with(
            Counting::default(),
            "payment",
            Some(Silent::default()),
            Duration::from_millis(375),
        );
        let mut process = async || {
            let began = Instant::now();
            participant.process(&sent_ago(60)).await.unwrap();
            began.elapsed()
        };
        // Asked again after 100 ms, it says nothing; what it said last still counts.
        assert_eq!(process().await, LOOK_EVERY + UNANSWERED + WORK);
        assert_eq!(process().await, PATIENCE + WORK);
        tokio::time::sleep(BLIND).await;
        // Nothing has been known for so long that nothing is.
        assert_eq!(process().await, UNANSWERED + WORK);
        assert_eq!(process().await, WORK);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_late_neither_waits_nor_looks() {
        let inputs = Inputs::default();
        inputs.waiting.store(100_000, Ordering::Relaxed);
        let mut participant = participant(&inputs);
        assert!(ten(&mut participant, 5).await <= WORK * 11);
        assert_eq!(inputs.looks.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_told_not_to_does_not_give_way() {
        let mut participant = GiveWay::with(
            Counting::default(),
            "payment",
            None::<Inputs>,
            Duration::ZERO,
        );
        assert!(ten(&mut participant, 60).await <= WORK * 11);
    }

    #[test]
    fn late_is_what_has_waited_and_has_a_time() {
        let now_ms = 1_000_000;
        let sent = |timestamp_ms| {
            let mut records = sent_ago(0);
            records[0].timestamp_ms = timestamp_ms;
            late(&records, now_ms)
        };
        assert_eq!(sent(0), None);
        assert_eq!(sent(now_ms - 10_000), None);
        assert_eq!(sent(now_ms - 10_001), Some(Duration::from_millis(10_001)));
        assert_eq!(sent(now_ms + 5_000), None, "another clock");
        assert_eq!(late(&[], now_ms), None);
        let mut mixed = [sent_ago(0), sent_ago(0), sent_ago(60)].concat();
        mixed[0].timestamp_ms = 0;
        assert!(
            late(&mixed, self::now_ms()).is_some(),
            "one of them is late"
        );
    }
}
