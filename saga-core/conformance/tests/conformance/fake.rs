//! A participant in memory, with a switch for each rule that it can break.

use anyhow::Result;
use async_trait::async_trait;
use saga_conformance::{Names, Unset, Wire, World};
use saga_core::{
    barrier::{Admission, Mark, admit},
    ids::Timestamp,
    message::{
        Command, Direction, IncomingRecord, Outcome, OutgoingRecord, Reply, ReplyTo, WHOLE_MAX,
        header, whole,
    },
};
use saga_messaging::{dead_letter::dead_letter, log::Delivered};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

const TOPIC: &str = "shipping.commands";
const STARTED_STEP: &str = "open-account";

/// A rule that is broken.
#[derive(Clone, Debug, PartialEq)]
pub enum Broken {
    Away,
    WrongReplyType,
    NoCloudEvent,
    ForgetsStep,
    ForgetsCorrelation,
    NeedsTrace,
    RefusesNewHeaders,
    PartitionByKey,
    FaultWithoutMessage,
    SavesAttempt,
    KeepsFailedWrites,
    SavesEveryFailure,
    SavesErrors,
    /// Refuses whole numbers that are written with a fraction.
    RefusesFractions,
    CutsFractionsOff,
    Rounds,
    IgnoresStep,
    CompensatesNothing,
    SavesCompensationFailure,
    StarterUnknown,
    /// Commands of this direction see the state from before their batch.
    ReadsOncePerBatch(Direction),
    AnswersAtMost(usize),
    NeverCommits,
    SilentOnUnknown,
    SilentOnBadPayload,
    NoDeadLetters,
    StopsAtBadRecord,
    BooksForAnybody,
    UnbooksForAnybody,
    UnbooksNothingOfOthers,
    /// A wrong cell of the table, for commands that come alone.
    Cell {
        forward: Option<Mark>,
        compensation: Option<Mark>,
        arriving: Direction,
        does: Does,
    },
}

/// The wrong behavior of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Does {
    /// Runs the handler and sends its reply.
    Run,
    /// Runs the handler, and replies as the table says.
    RunAgain,
    /// Acts as the table says, and sends a new reply.
    AnswerAnew,
    AnswerError,
    AnswerNotDone,
}

#[derive(Clone, Debug)]
struct Answer {
    reply_type: String,
    outcome: Outcome,
    direction: Direction,
    attempt: u32,
    payload: Value,
}

#[derive(Clone, Debug, Default)]
struct Row {
    forward: Option<(Mark, Option<Answer>)>,
    compensation: Option<(Mark, Option<Answer>)>,
}

/// How often each parcel was booked and unbooked.
type Effects = Arc<Mutex<HashMap<String, (u32, u32)>>>;

pub struct Fake {
    broken: Option<Broken>,
    rows: HashMap<(String, String), Row>,
    effects: Effects,
    /// The saga that has booked a parcel, by parcel.
    holders: HashMap<String, String>,
    offset: i64,
    committed: i64,
    answers: u32,
    replies: VecDeque<IncomingRecord>,
    letters: VecDeque<IncomingRecord>,
}

impl Fake {
    pub fn new(broken: Option<Broken>) -> Self {
        Self {
            broken,
            rows: HashMap::new(),
            effects: Effects::default(),
            holders: HashMap::new(),
            offset: 0,
            committed: 0,
            answers: 0,
            replies: VecDeque::new(),
            letters: VecDeque::new(),
        }
    }

    pub fn world(&self) -> Ledger {
        Ledger(Some(Arc::clone(&self.effects)))
    }

    fn is(&self, broken: &Broken) -> bool {
        self.broken.as_ref() == Some(broken)
    }

    fn process(&mut self, records: Vec<IncomingRecord>) {
        let alone = records.len() == 1;
        let before = self.rows.clone();
        for (index, record) in records.into_iter().enumerate() {
            if matches!(self.broken, Some(Broken::AnswersAtMost(most)) if index >= most) {
                return;
            }
            let command = match Command::decode(&record) {
                Ok(command) => command,
                Err(error) => {
                    if !self.is(&Broken::NoDeadLetters) {
                        let letter = dead_letter(&record, error.reason(), &error.to_string());
                        self.letters.push_back(incoming(letter, 0));
                    }
                    if self.is(&Broken::StopsAtBadRecord) {
                        return;
                    }
                    continue;
                }
            };
            let has_new_header = record.headers.get("saga-of-the-future").is_some();
            let refused = (self.is(&Broken::NeedsTrace) && command.trace.traceparent.is_none())
                || (self.is(&Broken::RefusesNewHeaders) && has_new_header);
            let answer = if refused {
                Some(error(&command, "refused"))
            } else {
                self.handle(&command, alone, &before)
            };
            if let Some(answer) = answer {
                self.reply(&command, answer);
            }
        }
        if !self.is(&Broken::NeverCommits) {
            self.committed = self.offset;
        }
    }

    fn key(&self, command: &Command) -> (String, String) {
        let ignores = self.is(&Broken::IgnoresStep) && command.step != STARTED_STEP;
        let step = if ignores {
            "any"
        } else {
            command.step.as_str()
        };
        (command.saga_id.to_string(), step.to_owned())
    }

    fn row(&self, command: &Command, alone: bool, before: &HashMap<(String, String), Row>) -> Row {
        let stale = !alone && self.is(&Broken::ReadsOncePerBatch(command.direction));
        let rows = if stale { before } else { &self.rows };
        let mut row = rows.get(&self.key(command)).cloned().unwrap_or_default();
        if command.step == STARTED_STEP
            && row.forward.is_none()
            && !self.is(&Broken::StarterUnknown)
        {
            row.forward = Some((Mark::Done, None));
        }
        row
    }

    fn handle(
        &mut self,
        command: &Command,
        alone: bool,
        before: &HashMap<(String, String), Row>,
    ) -> Option<Answer> {
        let mut row = self.row(command, alone, before);
        let marks = (
            row.forward.as_ref().map(|(mark, _)| *mark),
            row.compensation.as_ref().map(|(mark, _)| *mark),
        );
        let admission = admit(marks.0, marks.1, command.direction);
        let wrong = match self.broken {
            Some(Broken::Cell {
                forward,
                compensation,
                arriving,
                does,
            }) if alone && (forward, compensation) == marks && arriving == command.direction => {
                Some(does)
            }
            _ => None,
        };
        if wrong == Some(Does::Run) {
            return self.run(command, &mut row);
        }
        let mut answer = match admission {
            Admission::Run => self.run(command, &mut row),
            Admission::SavedForward => saved(row.forward.as_ref(), command),
            Admission::SavedCompensation => saved(row.compensation.as_ref(), command),
            Admission::RefuseAndCompensateEmpty | Admission::CompensateEmpty => {
                if admission == Admission::RefuseAndCompensateEmpty {
                    row.forward = Some((Mark::Refused, None));
                }
                let answer = success(command, "shipping.unbooked", json!({}));
                row.compensation = Some((Mark::Done, Some(answer.clone())));
                Some(answer)
            }
            Admission::RefuseAndAnswerNotDone => {
                row.forward = Some((Mark::Refused, None));
                Some(not_done(command))
            }
            Admission::AnswerNotDone => Some(not_done(command)),
            Admission::AnswerOnSettlement => None,
        };
        match wrong {
            Some(Does::RunAgain) => self.effect(command),
            Some(Does::AnswerAnew) => {
                self.answers += 1;
                let payload = json!({"answer": self.answers});
                answer = answer.map(|answer| Answer { payload, ..answer });
            }
            Some(Does::AnswerError) => answer = Some(error(command, "confused")),
            Some(Does::AnswerNotDone) => answer = Some(not_done(command)),
            Some(Does::Run) | None => {}
        }
        self.rows.insert(self.key(command), row);
        answer
    }

    fn effect(&mut self, command: &Command) {
        let mut effects = self.effects.lock().expect("not poisoned");
        let (done, undone) = effects.entry(parcel(command)).or_default();
        match command.direction {
            Direction::Forward | Direction::Resolve => *done += 1,
            Direction::Compensation => *undone += 1,
        }
    }

    /// Returns true if the parcel has no weight, or its weight is a whole number.
    fn weighs(&self, payload: &Value) -> bool {
        let Some(weight) = payload["weight"].as_number() else {
            return payload["weight"].is_null();
        };
        let holds = |weight: i64| weight <= WHOLE_MAX || self.is(&Broken::Rounds);
        match whole(weight) {
            Some(weight_grams) if weight.is_i64() => holds(weight_grams),
            Some(_) => !self.is(&Broken::RefusesFractions),
            None => self.is(&Broken::CutsFractionsOff),
        }
    }

    /// Runs the business logic. Returns `None` if it sends no reply at all.
    fn run(&mut self, command: &Command, row: &mut Row) -> Option<Answer> {
        let kind = command.command_type.as_str();
        if !["shipping.book", "shipping.unbook", "shipping.close-account"].contains(&kind) {
            let silent = self.is(&Broken::SilentOnUnknown);
            return (!silent).then(|| error(command, "unknown_command"));
        }
        let is_closing = kind == "shipping.close-account";
        let has_parcel = command.payload["parcel"].is_string();
        if !has_parcel && !is_closing && self.is(&Broken::SilentOnBadPayload) {
            return None;
        }
        let readable = is_closing || (has_parcel && self.weighs(&command.payload));
        let foreign = self
            .holders
            .get(&parcel(command))
            .is_some_and(|holder| *holder != command.saga_id.to_string());
        let anybody = match command.direction {
            Direction::Compensation => &Broken::UnbooksForAnybody,
            Direction::Forward | Direction::Resolve => &Broken::BooksForAnybody,
        };
        let foreign = foreign && !self.is(anybody);
        let undoing = command.direction == Direction::Compensation;
        let nothing_to_undo = foreign && undoing && self.is(&Broken::UnbooksNothingOfOthers);
        let answer = match command.payload["mode"].as_str() {
            _ if nothing_to_undo => success(command, done_type(kind), json!({})),
            _ if foreign => failure(command, "parcel_of_another_saga"),
            Some("err") => error(command, "broken"),
            Some(_) => failure(command, "refused"),
            None if !readable => failure(command, "refused"),
            None => success(
                command,
                done_type(kind),
                json!({"booking": command.saga_id}),
            ),
        };
        let undoes_nothing = kind == "shipping.unbook" && self.is(&Broken::CompensatesNothing);
        let leaves_effect = match answer.outcome {
            Outcome::Success => !undoes_nothing && !nothing_to_undo,
            Outcome::Failure => !foreign && self.is(&Broken::KeepsFailedWrites),
            Outcome::Error | Outcome::NotDone => false,
        };
        if leaves_effect {
            self.effect(command);
            let holder = command.saga_id.to_string();
            self.holders.entry(parcel(command)).or_insert(holder);
        }
        let forward = command.direction == Direction::Forward;
        let saved = match answer.outcome {
            Outcome::Success => true,
            Outcome::Failure if forward => {
                command.save_failure || self.is(&Broken::SavesEveryFailure)
            }
            Outcome::Failure => self.is(&Broken::SavesCompensationFailure),
            Outcome::Error => self.is(&Broken::SavesErrors),
            Outcome::NotDone => false,
        };
        if saved {
            let done = answer.outcome == Outcome::Success || !forward;
            let mark = if done { Mark::Done } else { Mark::Failed };
            let cell = if forward {
                &mut row.forward
            } else {
                &mut row.compensation
            };
            *cell = Some((mark, Some(answer.clone())));
        }
        Some(answer)
    }

    fn reply(&mut self, command: &Command, answer: Answer) {
        let by_key = self.is(&Broken::PartitionByKey);
        let reply_to = ReplyTo {
            partition: if by_key {
                0
            } else {
                command.reply_to.partition
            },
            ..command.reply_to.clone()
        };
        let mut payload = answer.payload;
        if self.is(&Broken::FaultWithoutMessage)
            && let Some(fields) = payload.as_object_mut()
        {
            fields.remove("message");
        }
        let booked = answer.reply_type == "shipping.booked";
        let reply = Reply {
            saga_id: command.saga_id,
            step: if self.is(&Broken::ForgetsStep) {
                "a-step".to_owned()
            } else {
                command.step.clone()
            },
            direction: answer.direction,
            attempt: if self.is(&Broken::SavesAttempt) {
                answer.attempt
            } else {
                command.attempt
            },
            reply_type: if booked && self.is(&Broken::WrongReplyType) {
                "shipping.done".to_owned()
            } else {
                answer.reply_type
            },
            outcome: answer.outcome,
            payload,
            trace: command.trace.clone(),
        };
        let at = Timestamp::from_timestamp_millis(0).expect("a time");
        let mut record = reply.encode(&reply_to, "/fake", at);
        let dropped = match self.broken {
            Some(Broken::NoCloudEvent) => header::CE_SOURCE,
            Some(Broken::ForgetsCorrelation) => header::CORRELATION_ID,
            _ => "",
        };
        record.headers.remove(dropped);
        self.replies.push_back(incoming(record, 0));
    }
}

fn parcel(command: &Command) -> String {
    let parcel = command.payload["parcel"].as_str();
    parcel.unwrap_or_default().to_owned()
}

fn done_type(command_type: &str) -> &'static str {
    match command_type {
        "shipping.book" => "shipping.booked",
        "shipping.unbook" => "shipping.unbooked",
        _ => "shipping.account-closed",
    }
}

fn success(command: &Command, reply_type: &str, payload: Value) -> Answer {
    Answer {
        reply_type: reply_type.to_owned(),
        outcome: Outcome::Success,
        direction: command.direction,
        attempt: command.attempt,
        payload,
    }
}

fn failure(command: &Command, code: &str) -> Answer {
    let payload = json!({"code": code, "message": "not this one"});
    Answer {
        outcome: Outcome::Failure,
        ..success(command, "shipping.refused", payload)
    }
}

fn error(command: &Command, code: &str) -> Answer {
    let payload = json!({"code": code, "message": "it went wrong"});
    Answer {
        outcome: Outcome::Error,
        ..success(command, "shipping.error", payload)
    }
}

fn not_done(command: &Command) -> Answer {
    Answer {
        outcome: Outcome::NotDone,
        ..success(command, "shipping.not_done", json!({}))
    }
}

/// Returns the saved reply. An error that was saved by mistake is returned as it was.
fn saved(cell: Option<&(Mark, Option<Answer>)>, command: &Command) -> Option<Answer> {
    let (_, answer) = cell?;
    answer
        .clone()
        .or_else(|| Some(success(command, "shipping.done", json!({}))))
}

fn incoming(record: OutgoingRecord, offset: i64) -> IncomingRecord {
    IncomingRecord {
        topic: record.topic,
        partition: record.partition.unwrap_or(0),
        offset,
        timestamp_ms: 0,
        key: Some(record.key),
        headers: record.headers,
        payload: (!record.payload.is_empty()).then_some(record.payload),
    }
}

fn take(queue: &mut VecDeque<IncomingRecord>, key: &str) -> Option<IncomingRecord> {
    let is_its = |record: &IncomingRecord| record.key.as_deref() == Some(key.as_bytes());
    let at = queue.iter().position(is_its)?;
    queue.remove(at)
}

#[async_trait]
impl Wire for Fake {
    fn reply_topic(&self) -> &'static str {
        "saga.inputs"
    }

    fn reply_partitions(&self) -> i32 {
        2
    }

    async fn send(&mut self, records: &[OutgoingRecord]) -> Result<Vec<Delivered>> {
        let first = self.offset;
        self.offset += records.len() as i64;
        let stands = |index: usize| first + index as i64;
        let batch = records
            .iter()
            .enumerate()
            .map(|(index, record)| {
                assert_eq!(record.topic, TOPIC);
                incoming(record.clone(), stands(index))
            })
            .collect();
        if !self.is(&Broken::Away) {
            self.process(batch);
        }
        Ok((0..records.len())
            .map(|index| Delivered {
                partition: 0,
                offset: stands(index),
            })
            .collect())
    }

    async fn reply(&mut self, key: &str, _: Duration) -> Result<Option<IncomingRecord>> {
        Ok(take(&mut self.replies, key))
    }

    async fn dead_letter(&mut self, key: &str, _: Duration) -> Result<Option<IncomingRecord>> {
        Ok(take(&mut self.letters, key))
    }

    async fn committed(&mut self, _: &str, _: i32) -> Result<i64> {
        Ok(self.committed)
    }
}

/// The effects of the fake, as the kit sees them.
pub struct Ledger(Option<Effects>);

impl Ledger {
    /// Returns a ledger that shows nothing.
    pub fn blind() -> Self {
        Self(None)
    }
}

#[async_trait]
impl World for Ledger {
    async fn prepare(&self, _: &mut Names) -> Result<Result<(), Unset>> {
        Ok(Ok(()))
    }

    async fn look(&self, names: &Names) -> Result<Result<Value, String>> {
        let Some(effects) = &self.0 else {
            return Ok(Err("it is dark".to_owned()));
        };
        let parcel = names.fill_text("$parcel")?;
        let effects = effects.lock().expect("not poisoned");
        let (done, undone) = effects.get(&parcel).copied().unwrap_or_default();
        Ok(Ok(json!([done, undone])))
    }
}
