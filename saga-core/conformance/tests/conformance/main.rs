//! Runs the conformance kit against a participant that keeps the contract, and against participants that break one rule
//! each: exactly the case of that rule must fail.

mod contract;
mod fake;

use fake::{
    Broken,
    Does::{self, AnswerAnew, AnswerError, AnswerNotDone, Run, RunAgain},
    Fake, Ledger,
};
use saga_conformance::{CASES, Description, Kit, Patience, Report};
use saga_core::{
    barrier::Mark,
    message::Direction::{self, Compensation, Forward, Resolve},
};
use std::time::Duration;

const DESCRIPTION: &str = r"
participant: shipping
topic: shipping.commands
group: shipping-svc
new: [parcel]
look: { http: in memory }
commands:
  - type: shipping.book
    succeeds: { input: { parcel: $parcel, weight: 3 }, reply: shipping.booked }
    whole: [/weight]
    fails: { input: { parcel: $parcel, mode: fail }, reply: shipping.refused, code: refused }
    errors: { input: { parcel: $parcel, mode: err }, code: broken }
    compensation:
      type: shipping.unbook
      input: { parcel: $parcel }
      reply: shipping.unbooked
      fails: { input: { parcel: $parcel, mode: fail } }
    another_saga: { code: parcel_of_another_saga }
started:
  step: open-account
  compensation: { type: shipping.close-account, input: { parcel: $parcel } }
";

async fn tried(broken: Option<Broken>) -> Report {
    let description = Description::parse(DESCRIPTION).expect("a description");
    let mut fake = Fake::new(broken);
    let world = fake.world();
    let patience = Patience {
        first_answer: Duration::from_millis(20),
        answer: Duration::from_millis(20),
    };
    let kit = Kit {
        description: &description,
        wire: &mut fake,
        world: &world,
        patience,
    };
    kit.run(|_| {}).await.expect("the participant can be tried")
}

fn failed(report: &Report) -> Vec<&str> {
    report.failed().map(|result| result.case.as_str()).collect()
}

#[tokio::test]
async fn a_participant_that_keeps_every_rule_passes_every_case() {
    let report = tried(None).await;
    let not_passed: Vec<_> = report.failed().chain(report.skipped()).collect();
    assert!(not_passed.is_empty(), "{not_passed:#?}");
    assert_eq!(report.passed_count(), CASES.len());
}

/// Returns a fault in one cell of the barrier's table.
const fn cell(
    forward: Option<Mark>,
    compensation: Option<Mark>,
    arriving: Direction,
    does: Does,
) -> Broken {
    Broken::Cell {
        forward,
        compensation,
        arriving,
        does,
    }
}

const DONE: Option<Mark> = Some(Mark::Done);
const FAILED: Option<Mark> = Some(Mark::Failed);
const REFUSED: Option<Mark> = Some(Mark::Refused);

/// Every broken rule, with the case that must report it.
const RULES: &[(Broken, &str)] = &[
    (
        Broken::WrongReplyType,
        "an action is answered with its reply type",
    ),
    (Broken::NoCloudEvent, "a reply is a CloudEvent"),
    (
        Broken::ForgetsStep,
        "a reply echoes saga, step and direction",
    ),
    (
        Broken::ForgetsCorrelation,
        "a reply echoes the correlation id and the trace",
    ),
    (Broken::NeedsTrace, "a command needs no trace"),
    (
        Broken::RefusesNewHeaders,
        "headers that are new are ignored",
    ),
    (
        Broken::PartitionByKey,
        "a reply goes to the partition that the command names",
    ),
    (
        Broken::FaultWithoutMessage,
        "a fault has a code and a message",
    ),
    (Broken::SavesAttempt, "the attempt is echoed, not saved"),
    (Broken::KeepsFailedWrites, "a failure leaves no effect"),
    (
        Broken::SavesEveryFailure,
        "a failure that is not to be saved is not",
    ),
    (Broken::SavesErrors, "an error is not saved"),
    (
        Broken::RefusesFractions,
        "a whole number is one however it is written",
    ),
    (
        Broken::CutsFractionsOff,
        "a number that is not whole is refused",
    ),
    (
        Broken::Rounds,
        "a whole number that floating-point does not hold is refused",
    ),
    (Broken::IgnoresStep, "steps of one saga are told apart"),
    (
        Broken::CompensatesNothing,
        "a compensation undoes the action",
    ),
    (
        Broken::SavesCompensationFailure,
        "a failure of a compensation is not saved",
    ),
    (
        Broken::StarterUnknown,
        "the starter's step can be compensated",
    ),
    (
        Broken::ReadsOncePerBatch(Compensation),
        "an action and its compensation in one batch end undone",
    ),
    (
        Broken::ReadsOncePerBatch(Forward),
        "a compensation and its action in one batch end refused",
    ),
    (
        Broken::ReadsOncePerBatch(Resolve),
        "a resolve right behind its action hears of it",
    ),
    (
        Broken::AnswersAtMost(100),
        "every command of a large batch is answered",
    ),
    (
        Broken::NeverCommits,
        "offsets are committed once the work is done",
    ),
    (
        Broken::SilentOnUnknown,
        "an unknown command is answered error",
    ),
    (
        Broken::SilentOnBadPayload,
        "a payload that makes no sense is answered",
    ),
    (
        Broken::NoDeadLetters,
        "a record that cannot be read becomes a dead letter",
    ),
    (
        Broken::StopsAtBadRecord,
        "a bad record does not stop the commands behind it",
    ),
    (
        Broken::BooksForAnybody,
        "what one saga holds is refused to another",
    ),
    (
        Broken::UnbooksNothingOfOthers,
        "a compensation undoes nothing of another saga",
    ),
    (
        Broken::UnbooksForAnybody,
        "a compensation undoes nothing of another saga",
    ),
];

/// Every wrong cell of the barrier's table, with the case that must report it.
const CELLS: &[(Broken, &str)] = &[
    (
        cell(DONE, None, Forward, RunAgain),
        "a duplicate has no second effect",
    ),
    (
        cell(DONE, None, Forward, AnswerAnew),
        "a duplicate gets the saved answer",
    ),
    (cell(FAILED, None, Forward, Run), "a failure is saved"),
    (
        cell(DONE, DONE, Compensation, RunAgain),
        "a duplicate of a compensation has no second effect",
    ),
    (
        cell(DONE, DONE, Compensation, AnswerAnew),
        "a duplicate of a compensation gets the saved answer",
    ),
    (
        cell(None, None, Compensation, AnswerError),
        "a compensation of nothing succeeds and does nothing",
    ),
    (
        cell(None, None, Compensation, RunAgain),
        "a compensation of nothing succeeds and does nothing",
    ),
    (
        cell(REFUSED, DONE, Forward, Run),
        "an action after its compensation is refused",
    ),
    (
        cell(REFUSED, DONE, Compensation, AnswerAnew),
        "an empty compensation is repeated as it was",
    ),
    (
        cell(FAILED, None, Compensation, AnswerError),
        "a compensation of a failure succeeds and does nothing",
    ),
    (
        cell(FAILED, None, Compensation, RunAgain),
        "a compensation of a failure succeeds and does nothing",
    ),
    (
        cell(FAILED, DONE, Forward, Run),
        "a failure stays one after its compensation",
    ),
    (
        cell(FAILED, DONE, Resolve, AnswerNotDone),
        "a failure stays one after its compensation",
    ),
    (
        cell(DONE, DONE, Forward, RunAgain),
        "an action that was compensated is not done again",
    ),
    (
        cell(None, None, Resolve, AnswerError),
        "a resolve of nothing answers not_done",
    ),
    (
        cell(REFUSED, None, Forward, Run),
        "an action after a resolve is refused",
    ),
    (
        cell(REFUSED, None, Resolve, AnswerError),
        "a resolve of nothing is repeated as it was",
    ),
    (
        cell(REFUSED, None, Compensation, AnswerError),
        "a compensation after a resolve succeeds and does nothing",
    ),
    (
        cell(DONE, None, Resolve, AnswerNotDone),
        "a resolve of what was done gets the action's answer",
    ),
    (
        cell(FAILED, None, Resolve, AnswerNotDone),
        "a resolve of a failure gets the action's answer",
    ),
    (
        cell(REFUSED, DONE, Resolve, AnswerError),
        "a resolve after an empty compensation answers not_done",
    ),
    (
        cell(DONE, DONE, Resolve, AnswerNotDone),
        "a resolve of what was compensated gets the action's answer",
    ),
];

fn rules() -> impl Iterator<Item = &'static (Broken, &'static str)> {
    RULES.iter().chain(CELLS)
}

#[tokio::test]
async fn a_participant_that_breaks_one_rule_fails_exactly_its_case() {
    let mut wrong = Vec::new();
    for (broken, case) in rules() {
        let report = tried(Some(broken.clone())).await;
        if failed(&report) != [*case] {
            wrong.push(format!("{broken:?}: {:?}, not {case:?}", failed(&report)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_case_is_shown_to_be_able_to_fail() {
    for case in CASES {
        let shown = rules().any(|(_, expected)| *expected == case.name);
        assert!(shown, "nothing breaks '{}'", case.name);
    }
}

#[tokio::test]
async fn a_failed_case_reports_the_sent_expected_and_received_messages() {
    let late_action = cell(Some(Mark::Refused), Some(Mark::Done), Forward, Does::Run);
    let report = tried(Some(late_action)).await;
    let result = report.failed().next().expect("a failed case");
    let last = result.exchanges.last().expect("an exchange");
    assert!(
        last.sent.contains("shipping.book (forward, attempt 1)"),
        "{last:?}"
    );
    assert_eq!(last.expected, "not_done");
    assert!(last.got.starts_with("success shipping.booked"), "{last:?}");
    let json = serde_json::to_value(result).expect("JSON");
    assert_eq!(json["verdict"], "failed");
    assert!(
        json["whyItMatters"]
            .as_str()
            .is_some_and(|why| !why.is_empty())
    );
}

#[tokio::test]
async fn cases_without_a_description_are_skipped_with_a_reason() {
    let input = serde_json::json!({"parcel": "$new"});
    let mut description =
        Description::of_command("shipping", "shipping.commands", "shipping.book", input);
    description.group = None;
    let mut fake = Fake::new(None);
    let world = Ledger::blind();
    let kit = Kit {
        description: &description,
        wire: &mut fake,
        world: &world,
        patience: Patience::default(),
    };
    let report = kit.run(|_| {}).await.expect("the participant can be tried");
    assert!(report.conforms(), "{:?}", failed(&report));
    let why = |case: &str| {
        let result = report.skipped().find(|result| result.case == case);
        format!("{:?}", result.map(|result| &result.outcome))
    };
    assert!(why("a failure is saved").contains("no 'fails'"));
    assert!(why("a number that is not whole is refused").contains("no 'whole'"));
    assert!(why("a compensation undoes the action").contains("no compensation"));
    assert!(why("a duplicate has no second effect").contains("cannot be seen"));
    assert!(why("offsets are committed once the work is done").contains("no group"));
}

#[tokio::test]
async fn a_participant_that_does_not_run_is_not_judged() {
    let description = Description::parse(DESCRIPTION).expect("a description");
    let mut fake = Fake::new(Some(Broken::Away));
    let world = fake.world();
    let kit = Kit {
        description: &description,
        wire: &mut fake,
        world: &world,
        patience: Patience::default(),
    };
    let error = kit.run(|_| {}).await.expect_err("nobody there").to_string();
    assert!(
        error.contains("no participant answers commands in shipping.commands"),
        "{error}"
    );
}
