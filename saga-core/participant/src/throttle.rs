//! Throttles a participant that catches up after an outage, so that it does not delay other work.
//!
//! The participant could answer the commands of hours in minutes. The replies would fill the orchestrator's input
//! topic, and everything else there would wait behind them: other sagas would wait at each of their steps, and new
//! sagas would be rejected. While its commands are late, the participant therefore picks up no more of them than the
//! orchestrator keeps up with. It never stops completely: new orders that keep the orchestrator busy by themselves must
//! not keep the participant from catching up.

use super::ParticipantConfig;
use async_trait::async_trait;
use metrics::histogram;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use saga_messaging::{
    backpressure::{Backpressure, Bounds, InputLag},
    consumer::{BatchError, Processor},
    kafka::KafkaConfig,
    log::{Delivered, LogError, TopicPartition},
};
use saga_postgres::clock::Clock;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tracing::info;

/// A command that has waited longer than this is late. In a system that is merely busy, commands wait for less, because
/// the intake of new sagas limits the load.
const LATE: Duration = Duration::from_secs(10);
/// The longest wait before a batch: it leaves the participant a third to a half of the orchestrator's reading capacity.
const PATIENCE: Duration = Duration::from_millis(500);
/// Time between two measurements of the input lag. Offsets are committed four times a second.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time until the next measurement after one that got no answer. Such a measurement takes a second, which the next
/// batches should not wait for, too.
const BLIND: Duration = Duration::from_secs(5);
/// The replies that may wait: `LEAST` however slow the orchestrator is and until its speed is known, `LIMIT` however
/// fast it is. Both are half of the values for the intake of orders.
const LEAST: u64 = 500;
const LIMIT: u64 = 10_000;

/// Measures the orchestrator's input lag.
#[async_trait]
pub(super) trait MeasureInputLag: Send {
    /// Reports the lag to `pressure`. Returns `false` if it could not be measured.
    async fn measure(&self, pressure: &Backpressure) -> bool;
}

#[async_trait]
impl MeasureInputLag for InputLag {
    async fn measure(&self, pressure: &Backpressure) -> bool {
        InputLag::look(self, pressure).await
    }
}

/// A processor that throttles while it catches up.
pub(super) struct CatchUpThrottle<P, L = InputLag> {
    processor: P,
    name: String,
    inputs: Option<L>,
    pressure: Backpressure,
    next_look: Instant,
    /// The time when a late command was last picked up, while the participant catches up.
    late_at: Option<Instant>,
}

impl<P: Processor> CatchUpThrottle<P> {
    /// Measures the lag of the first of the participant's reply topics; any further reply topics are ignored.
    pub fn new(
        processor: P,
        config: &ParticipantConfig,
        kafka: &KafkaConfig,
    ) -> Result<Self, LogError> {
        let inputs = match config.reply_topics.first() {
            Some(topic) if !config.reply_backlog.is_zero() => {
                Some(InputLag::connect(kafka, &config.reply_group, topic)?)
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

impl<P: Processor, L: MeasureInputLag> CatchUpThrottle<P, L> {
    fn with(processor: P, name: &str, inputs: Option<L>, patience: Duration) -> Self {
        Self {
            processor,
            name: name.to_owned(),
            inputs,
            pressure: Backpressure::new(Bounds {
                patience,
                least: LEAST,
                at_first: LEAST,
                limit: LIMIT,
            }),
            next_look: Instant::now(),
            late_at: None,
        }
    }

    /// Logs when catching up begins and ends. Some partitions catch up before others, so the end is logged when no
    /// command has been late for a while.
    fn note(&mut self, late: Option<Duration>) {
        let participant = &self.name;
        match (late, self.late_at) {
            (Some(late), None) => info!(
                participant,
                late_seconds = late.as_secs(),
                "catching up on late commands, throttling"
            ),
            (None, Some(at)) if at.elapsed() > LATE => {
                info!(participant, "caught up on late commands");
                self.late_at = None;
            }
            (Some(_), Some(_)) | (None, _) => {}
        }
        if late.is_some() {
            self.late_at = Some(Instant::now());
        }
    }

    /// Waits, up to a limit, until the orchestrator's input lag is low enough.
    async fn throttle(&mut self) {
        let Some(inputs) = &self.inputs else { return };
        let began = Instant::now();
        let enough = began + PATIENCE;
        loop {
            if self.next_look <= Instant::now() {
                let has_seen = inputs.measure(&self.pressure).await;
                let pause = if has_seen { LOOK_EVERY } else { BLIND };
                self.next_look = Instant::now() + pause;
            }
            if !self.pressure.is_over_limit(0) || Instant::now() >= enough {
                break;
            }
            sleep_until(self.next_look.min(enough)).await;
        }
        histogram!("saga_give_way_seconds", "participant" => self.name.clone())
            .record(began.elapsed().as_secs_f64());
    }
}

fn now_ms() -> i64 {
    Clock::of_process().now().timestamp_millis()
}

/// Returns how long the oldest of the records has waited, if that is too long. A batch has records of several
/// partitions, some of which have caught up before others. Records without a broker's time have the timestamp 0 and are
/// skipped.
fn late(records: &[IncomingRecord], now_ms: i64) -> Option<Duration> {
    let sent_at_ms = records.iter().map(|record| record.timestamp_ms);
    let oldest_ms = sent_at_ms.filter(|at_ms| *at_ms > 0).min()?;
    let waited_ms = now_ms.saturating_sub(oldest_ms).try_into().ok()?;
    let waited = Duration::from_millis(waited_ms);
    (waited > LATE).then_some(waited)
}

#[async_trait]
impl<P: Processor, L: MeasureInputLag + Sync> Processor for CatchUpThrottle<P, L> {
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        if self.inputs.is_some() {
            let late = late(records, now_ms());
            self.note(late);
            if late.is_some() {
                self.throttle().await;
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

    /// A processor that takes a fixed time for a batch, and counts batches.
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

    /// An orchestrator that reads 4,000 records a second, and has a lag of `waiting` at each measurement.
    #[derive(Clone, Default)]
    struct Inputs {
        waiting: Arc<AtomicU64>,
        read: Arc<AtomicU64>,
        looks: Arc<AtomicU64>,
    }

    #[async_trait]
    impl MeasureInputLag for Inputs {
        async fn measure(&self, pressure: &Backpressure) -> bool {
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

    fn participant(inputs: &Inputs) -> CatchUpThrottle<Counting, Inputs> {
        let patience = Duration::from_millis(375);
        CatchUpThrottle::with(
            Counting::default(),
            "payment",
            Some(inputs.clone()),
            patience,
        )
    }

    /// Returns how long ten batches take.
    async fn ten(participant: &mut CatchUpThrottle<Counting, Inputs>, seconds: i64) -> Duration {
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
        // The first batches measure the orchestrator's speed: then 1,500 records may wait.
        ten(&mut participant, 60).await;
        let took = ten(&mut participant, 60).await;
        assert_eq!(participant.processor.0, 20);
        assert!(took >= (PATIENCE + WORK) * 10, "{took:?}");
        assert!(took <= (PATIENCE + WORK) * 11, "{took:?}");
        inputs.waiting.store(1_400, Ordering::Relaxed);
        let took = ten(&mut participant, 60).await;
        assert!(took <= WORK * 10 + LOOK_EVERY, "{took:?}");
    }

    /// Before the second measurement, the orchestrator's speed is unknown.
    #[tokio::test(start_paused = true)]
    async fn the_first_late_commands_wait_for_the_backlog_of_inputs() {
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

    /// A broker that answers once, and afterwards takes a second to give no answer.
    #[derive(Default)]
    struct Silent(AtomicU64);

    const UNANSWERED: Duration = Duration::from_secs(1);

    #[async_trait]
    impl MeasureInputLag for Silent {
        async fn measure(&self, pressure: &Backpressure) -> bool {
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
        let mut participant = CatchUpThrottle::with(
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
        // The second measurement, after 100 ms, gets no answer; the first one still counts.
        assert_eq!(process().await, LOOK_EVERY + UNANSWERED + WORK);
        assert_eq!(process().await, PATIENCE + WORK);
        tokio::time::sleep(BLIND).await;
        // The first measurement is too old to count, so the lag is unknown.
        assert_eq!(process().await, UNANSWERED + WORK);
        assert_eq!(process().await, WORK);
    }

    #[tokio::test(start_paused = true)]
    async fn timely_commands_are_not_throttled_and_cause_no_lookup() {
        let inputs = Inputs::default();
        inputs.waiting.store(100_000, Ordering::Relaxed);
        let mut participant = participant(&inputs);
        assert!(ten(&mut participant, 5).await <= WORK * 11);
        assert_eq!(inputs.looks.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_participant_with_throttling_disabled_does_not_wait() {
        let mut participant = CatchUpThrottle::with(
            Counting::default(),
            "payment",
            None::<Inputs>,
            Duration::ZERO,
        );
        assert!(ten(&mut participant, 60).await <= WORK * 11);
    }

    #[test]
    fn a_record_is_late_by_its_timestamp() {
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
