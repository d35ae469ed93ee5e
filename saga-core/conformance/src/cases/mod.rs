//! The rules, one case each. `F` and `C` are the two rows of the barrier's table (`saga-core/PARTICIPANTS.md`).

mod actions;
mod answers;
mod case;
mod compensations;
mod numbers;
mod records;
mod resolves;
mod sagas;

pub use case::Case;

macro_rules! cases {
    ($($name:literal: $why:literal => $play:path,)*) => {
        &[$(Case { name: $name, why: $why, play: |scene| Box::pin($play(scene)) },)*]
    };
}

/// All cases, in the order in which they are played. Cases that may crash a broken participant come last.
pub const CASES: &[Case] = cases![
    "an action is answered with its reply type":
        "definitions and logs name replies by their type, and the result feeds later steps"
        => answers::reply_type,
    "a reply is a CloudEvent":
        "every tool that reads the topic finds a message by its CloudEvents headers"
        => answers::cloud_event,
    "a reply echoes saga, step and direction":
        "the orchestrator finds the step that is waiting by them"
        => answers::address,
    "a reply echoes the correlation id and the trace":
        "they are how a request is followed through all services"
        => answers::trace,
    "a command needs no trace":
        "whoever started the saga may have sent none"
        => answers::no_trace,
    "headers that are new are ignored":
        "a newer orchestrator may add some while this participant runs"
        => answers::unknown_header,
    "a reply goes to the partition that the command names":
        "a saga's inputs have one order only in its home partition, and clients' partitioners differ"
        => answers::partition,
    "a fault has a code and a message":
        "the code decides, and the message is what a person gets to read"
        => answers::fault,
    "a duplicate has no second effect":
        "Kafka delivers at least once: a charge would be made twice"
        => actions::no_second_effect,
    "a duplicate gets the saved answer":
        "the first answer may have been lost, and two different ones could move a saga twice"
        => actions::saved_answer,
    "the attempt is echoed, not saved":
        "an answer to an older attempt may be ignored, and the saga would wait in vain"
        => actions::attempt,
    "a failure leaves no effect":
        "a failed step is not compensated: what it left behind stays for ever"
        => actions::failure_without_effect,
    "a failure is saved":
        "the saga compensates on it: the same command must not succeed afterwards"
        => actions::saved_failure,
    "a failure that is not to be saved is not":
        "an operator who retries a step after its pivot must get a new try"
        => actions::unsaved_failure,
    "an error is not saved":
        "it is tried again: a saved error would be the end of every saga that meets one"
        => actions::error,
    "a whole number is one however it is written":
        "100.0 and 100 are one number in JSON, and a saga's input may come from any client"
        => numbers::written_otherwise,
    "a number that is not whole is refused":
        "cutting it off would charge, or ship, something else than was asked for"
        => numbers::not_whole,
    "a whole number that floating-point does not hold is refused":
        "rounded, it is another customer's or another amount, and nobody hears of it"
        => numbers::too_large,
    "steps of one saga are told apart":
        "two steps of one saga may use the same participant"
        => actions::steps,
    "a compensation undoes the action":
        "it is what compensation means"
        => compensations::undoes,
    "a duplicate of a compensation has no second effect":
        "money would be given back twice"
        => compensations::no_second_effect,
    "a duplicate of a compensation gets the saved answer":
        "the first answer may have been lost"
        => compensations::saved_answer,
    "a compensation of nothing succeeds and does nothing":
        "the command may have been lost, or still be on its way, when its saga turns round"
        => compensations::empty,
    "an action after its compensation is refused":
        "nobody would undo it any more: this is the late message that breaks naive participants"
        => compensations::late_action,
    "an empty compensation is repeated as it was":
        "the first answer may have been lost"
        => compensations::empty_again,
    "a compensation of a failure succeeds and does nothing":
        "the failure's answer may have come too late: there is nothing to undo"
        => compensations::of_failure,
    "a failure stays one after its compensation":
        "what is answered must not change"
        => compensations::failure_stays,
    "an action that was compensated is not done again":
        "a late duplicate would bring back what was undone"
        => compensations::compensated_action,
    "a failure of a compensation is not saved":
        "a person puts right what was in the way, and tries it again"
        => compensations::unsaved_failure,
    "the starter's step can be compensated":
        "whoever starts the saga has done its first step: without its row there is nothing to undo"
        => compensations::started,
    "a resolve of nothing answers not_done":
        "the orchestrator compensates only when it knows that the pivot was not done"
        => resolves::nothing,
    "an action after a resolve is refused":
        "the saga was told that it was not done, and has compensated everything else"
        => resolves::late_action,
    "a resolve of nothing is repeated as it was":
        "the first answer may have been lost"
        => resolves::nothing_again,
    "a compensation after a resolve succeeds and does nothing":
        "what was refused leaves nothing to undo"
        => resolves::compensation_after,
    "a resolve of what was done gets the action's answer":
        "the saga goes forward with the result, as if the first answer had not been lost"
        => resolves::done,
    "a resolve of a failure gets the action's answer":
        "the saga learns why it must turn round"
        => resolves::failed,
    "a resolve after an empty compensation answers not_done":
        "the action was refused for good"
        => resolves::after_empty_compensation,
    "a resolve of what was compensated gets the action's answer":
        "what is answered must not change"
        => resolves::compensated,
    "what one saga holds is refused to another":
        "two sagas about one order would each charge it, and each undo what the other did"
        => sagas::refused,
    "a compensation undoes nothing of another saga":
        "a saga that turns round would give back what another one has sold"
        => sagas::foreign_compensation,
    "an action and its compensation in one batch end undone":
        "a participant that was down finds both at once when it comes back"
        => records::action_then_compensation,
    "a compensation and its action in one batch end refused":
        "a participant that was down finds both at once when it comes back"
        => records::compensation_then_action,
    "a resolve right behind its action hears of it":
        "the action may still be running: not_done would be wrong a moment later"
        => records::resolve_behind_action,
    "every command of a large batch is answered":
        "after an outage thousands are waiting"
        => records::many,
    "offsets are committed once the work is done":
        "a command at or beyond the committed offset counts as queued and is never repeated"
        => records::committed,
    "an unknown command is answered error":
        "a newer version may know it: silence would cost every attempt its whole timeout"
        => records::unknown_command,
    "a payload that makes no sense is answered":
        "the saga must turn round, or a person see why: silence is neither"
        => records::bad_payload,
    "a record that cannot be read becomes a dead letter":
        "it must be seen, corrected and replayed: nothing is thrown away"
        => records::dead_letters,
    "a bad record does not stop the commands behind it":
        "one bad record would stop every saga in its partition"
        => records::partition_flows,
];
