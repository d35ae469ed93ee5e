//! The participant's barrier, as a pure table (saga-core/README.md, The barrier). The table decides which of a saga
//! step's commands may run, given the marks of the step's forward row F and compensation row C.
//!
//! Source: the sub-transaction barrier of DTM (<https://dtm.pub/practice/barrier.html>), extended by `resolve`,
//! by saved and unsaved failures, and by external calls that are pending.

use crate::{
    message::Direction,
    mutant::{self, Mutant},
};
use serde::{Deserialize, Serialize};

/// The mark of a barrier row. `Done`, `Failed` and `Refused` never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// An external call is open.
    Pending,
    Done,
    Failed,
    /// The forward command never ran and never will.
    Refused,
}

/// The decision about an arriving command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Run the handler of the forward command or the compensation; its outcome decides the row.
    Run,
    /// Answer with the forward row's saved reply.
    SavedForward,
    /// Answer with the compensation row's saved reply.
    SavedCompensation,
    /// Write F := refused and C := done, and answer with the empty compensation.
    RefuseAndCompensateEmpty,
    /// Write C := done, and answer with the empty compensation: nothing was done, or the action was refused.
    CompensateEmpty,
    /// Write F := refused, and answer `not_done`.
    RefuseAndAnswerNotDone,
    /// Answer `not_done`.
    AnswerNotDone,
    /// An external call is open: note the command with the call's intent, and answer when the call is settled.
    AnswerOnSettlement,
}

/// Looks up the table. `forward` and `compensation` are the marks of the rows, `None` if a row is absent.
pub fn admit(forward: Option<Mark>, compensation: Option<Mark>, arriving: Direction) -> Admission {
    match arriving {
        Direction::Forward => admit_forward(forward, compensation),
        Direction::Compensation => admit_compensation(forward, compensation),
        Direction::Resolve => admit_resolve(forward),
    }
}

fn admit_forward(forward: Option<Mark>, compensation: Option<Mark>) -> Admission {
    match (forward, compensation) {
        (None, None) => Admission::Run,
        (None, Some(_)) if mutant::on(Mutant::ForgetRefusalByCompensation) => Admission::Run,
        // A compensation leaves a forward row behind it. If that row is missing all the same, the action must not run
        // now, because it could never be undone.
        (None, Some(_)) => Admission::RefuseAndAnswerNotDone,
        (Some(Mark::Pending), _) => Admission::AnswerOnSettlement,
        (Some(Mark::Done | Mark::Failed), _) => Admission::SavedForward,
        (Some(Mark::Refused), _) => Admission::AnswerNotDone,
    }
}

fn admit_compensation(forward: Option<Mark>, compensation: Option<Mark>) -> Admission {
    match compensation {
        Some(Mark::Done) => return Admission::SavedCompensation,
        Some(Mark::Pending) => return Admission::AnswerOnSettlement,
        // An error or a failure of a compensation is not saved: such a row counts as absent.
        Some(Mark::Failed | Mark::Refused) | None => {}
    }
    match forward {
        None => Admission::RefuseAndCompensateEmpty,
        Some(Mark::Pending) if mutant::on(Mutant::CompensatePendingEmpty) => {
            Admission::CompensateEmpty
        }
        Some(Mark::Pending) => Admission::AnswerOnSettlement,
        Some(Mark::Done) => Admission::Run,
        Some(Mark::Failed | Mark::Refused) => Admission::CompensateEmpty,
    }
}

fn admit_resolve(forward: Option<Mark>) -> Admission {
    match forward {
        None => Admission::RefuseAndAnswerNotDone,
        Some(Mark::Pending) => Admission::AnswerOnSettlement,
        Some(Mark::Done | Mark::Failed) => Admission::SavedForward,
        Some(Mark::Refused) => Admission::AnswerNotDone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Direction = Direction::Forward;
    const C: Direction = Direction::Compensation;
    const R: Direction = Direction::Resolve;

    fn check(forward: Option<Mark>, compensation: Option<Mark>, expected: [Admission; 3]) {
        for (arriving, admission) in [F, C, R].into_iter().zip(expected) {
            assert_eq!(
                admit(forward, compensation, arriving),
                admission,
                "F {forward:?}, C {compensation:?}, {arriving} arrives"
            );
        }
    }

    #[test]
    fn every_row_of_the_table_holds() {
        use Admission::{
            AnswerNotDone, AnswerOnSettlement, CompensateEmpty, RefuseAndAnswerNotDone,
            RefuseAndCompensateEmpty, Run, SavedCompensation, SavedForward,
        };
        let (pending, done) = (Some(Mark::Pending), Some(Mark::Done));
        let (failed, refused) = (Some(Mark::Failed), Some(Mark::Refused));
        check(
            None,
            None,
            [Run, RefuseAndCompensateEmpty, RefuseAndAnswerNotDone],
        );
        check(pending, None, [AnswerOnSettlement; 3]);
        check(done, None, [SavedForward, Run, SavedForward]);
        check(
            done,
            pending,
            [SavedForward, AnswerOnSettlement, SavedForward],
        );
        check(done, done, [SavedForward, SavedCompensation, SavedForward]);
        check(failed, None, [SavedForward, CompensateEmpty, SavedForward]);
        check(
            failed,
            done,
            [SavedForward, SavedCompensation, SavedForward],
        );
        check(
            refused,
            None,
            [AnswerNotDone, CompensateEmpty, AnswerNotDone],
        );
        check(
            refused,
            done,
            [AnswerNotDone, SavedCompensation, AnswerNotDone],
        );
    }

    #[test]
    fn an_action_never_runs_beside_any_compensation_row() {
        for mark in [Mark::Pending, Mark::Done, Mark::Failed, Mark::Refused] {
            assert_eq!(
                admit(None, Some(mark), F),
                Admission::RefuseAndAnswerNotDone
            );
        }
    }
}
