//! Which events can happen in a world.

use crate::{
    message::{Input, Outcome, TimerKind, Wish},
    participant::{Choice, Handling, Participant},
    rules::Rule,
    saga::Status,
    world::{Budget, Event, System, World},
};

impl System {
    pub fn handling(&self, step: usize) -> Handling<'_> {
        Handling {
            step: &self.scenario.definition.steps[step],
            rules: self.scenario.rules,
        }
    }

    /// What happens by itself when nothing goes wrong any more. Handlers that run succeed.
    pub fn progress(&self, world: &World, events: &mut Vec<Event>) {
        self.owner_goes_on(world, events);
        for step in 0..world.participants.len() {
            self.participant_goes_on(world, step, Budget::default(), events);
            if self.timer_is_due(world, step) {
                events.push(Event::TimerFires { step });
            }
        }
    }

    /// Everything that can happen.
    pub fn everything(&self, world: &World, events: &mut Vec<Event>) {
        self.owner_goes_on(world, events);
        for step in 0..world.participants.len() {
            self.participant_goes_on(world, step, world.budget, events);
            Self::participant_crashes(world, step, events);
            if self.timer_is_due(world, step) {
                events.push(Event::TimerFires { step });
            }
        }
        self.owner_is_disturbed(world, events);
        Self::rival(world, events);
        events.extend(world.late.iter().copied().map(Event::Arrives));
        if world.budget.duplicates > 0 {
            events.extend(world.past.iter().copied().map(Event::Duplicate));
        }
        Self::people(world, events);
        self.retention(world, events);
    }

    fn owner_goes_on(&self, world: &World, events: &mut Vec<Event>) {
        if world.owner.handled > 0 {
            events.push(Event::Publish);
            return;
        }
        let most = world.inputs.len().min(self.scenario.batch);
        events.extend((1..=most).map(|records| Event::Decide { records }));
    }

    fn owner_is_disturbed(&self, world: &World, events: &mut Vec<Event>) {
        let offsets_last = self.scenario.rules.on(Rule::OffsetsLast);
        if world.owner.handled == 0 {
            if world.budget.crashes > 0 && !offsets_last && !world.inputs.is_empty() {
                events.push(Event::OwnerCrashesBefore { records: 1 });
            }
            return;
        }
        for arrived in [false, true] {
            if world.budget.crashes > 0 {
                events.push(Event::OwnerCrashes { arrived });
            }
            if world.budget.lost_answers > 0 {
                events.push(Event::OwnerRepeats { arrived });
            }
        }
    }

    /// It holds one of the next two records, which it had polled before it lost the partition.
    fn rival(world: &World, events: &mut Vec<Event>) {
        if world.rival.is_some() {
            events.push(Event::RivalCommits);
        } else if world.budget.rivals > 0 {
            let most = world.inputs.len().min(2);
            events.extend((0..most).map(|index| Event::RivalReads { index }));
        }
    }

    /// A timer falls due at any time. None fires while one is on its way.
    fn timer_is_due(&self, world: &World, step: usize) -> bool {
        let Some(timer @ Input::Timer { kind, .. }) = world.timer(step) else {
            return false;
        };
        let rules = self.scenario.rules;
        let has_read = usize::from(world.owner.handled) == world.inputs.len();
        let may_look = has_read || !rules.on(Rule::ReadFirst) || !rules.on(Rule::TimersAreMessages);
        let is_over = kind == TimerKind::Backoff
            || world.owner.memory.was_picked_up(step)
            || !rules.on(Rule::QueuedWaits);
        let is_outstanding = world.inputs.iter().any(|entry| entry.input == timer);
        may_look && is_over && !is_outstanding
    }

    fn participant_goes_on(
        &self,
        world: &World,
        step: usize,
        trouble: Budget,
        events: &mut Vec<Event>,
    ) {
        let participant = &world.participants[step];
        if participant.handled > 0 {
            events.push(Event::Answer { step });
        } else {
            let mut batches = vec![(participant.clone(), trouble, Vec::new())];
            for taken in 0..participant.log.len().min(self.scenario.batch) {
                batches = batches
                    .into_iter()
                    .flat_map(|batch| self.one_more(step, taken, batch))
                    .collect();
                events.extend(batches.iter().map(|(_, _, choices)| Event::Handle {
                    step,
                    choices: choices.clone(),
                }));
            }
        }
        if let Some(call) = &participant.call {
            match call.outcome {
                Some(_) => events.push(Event::Settle { step }),
                None => events
                    .extend(outcomes(trouble).map(|outcome| Event::CallOutside { step, outcome })),
            }
        }
        if !participant.answers.is_empty() {
            let acknowledged = true;
            events.push(Event::AnswerSettled { step, acknowledged });
        }
    }

    /// A batch with every way in which its next command can be handled.
    fn one_more(
        &self,
        step: usize,
        place: usize,
        (participant, trouble, choices): (Participant, Budget, Vec<Choice>),
    ) -> Vec<(Participant, Budget, Vec<Choice>)> {
        let handling = self.handling(step);
        let command = participant.log[place];
        let mut ways = vec![(Choice::Succeed, trouble)];
        if handling.runs(&participant, command) {
            if let Some(errors) = trouble.errors.checked_sub(1) {
                ways.push((Choice::Err, Budget { errors, ..trouble }));
            }
            if let Some(failures) = trouble.failures.checked_sub(1) {
                ways.push((
                    Choice::Fail,
                    Budget {
                        failures,
                        ..trouble
                    },
                ));
            }
            if let Some(calls) = trouble.calls.checked_sub(1)
                && handling.may_call_outside(command)
            {
                ways.push((Choice::CallOutside, Budget { calls, ..trouble }));
            }
        }
        let with = |(choice, left)| {
            let mut after = participant.clone();
            // Only the rows matter here: what the next command of the batch will find.
            handling.handle(&mut after, command, choice);
            let choices = choices.iter().copied().chain([choice]).collect();
            (after, left, choices)
        };
        ways.into_iter().map(with).collect()
    }

    fn participant_crashes(world: &World, step: usize, events: &mut Vec<Event>) {
        let participant = &world.participants[step];
        if world.budget.crashes == 0 {
            return;
        }
        if participant.handled > 0 {
            events.extend([false, true].map(|arrived| Event::ParticipantCrashes { step, arrived }));
        }
        if !participant.answers.is_empty() {
            let acknowledged = false;
            events.push(Event::AnswerSettled { step, acknowledged });
        }
        // The process that made the call is gone, and the sweep of another one makes it again.
        if let Some(outcome) = participant.call.as_ref().and_then(|call| call.outcome) {
            events.push(Event::CallOutside { step, outcome });
        }
    }

    fn people(world: &World, events: &mut Vec<Event>) {
        let Some(saga) = &world.store.live else {
            return;
        };
        let budget = &world.budget;
        if budget.deadlines > 0 {
            events.push(Event::Ask(Input::Deadline));
        }
        let mut wish = |id, wish| events.push(Event::Ask(Input::Action { id, wish }));
        if budget.cancels > 0 {
            wish(budget.cancels, Wish::Cancel);
        }
        if budget.retries > 0 && saga.is_parked() {
            wish(RETRY_IDS + budget.retries, Wish::Retry);
        }
        if budget.settlements > 0 {
            let id = SETTLEMENT_IDS + budget.settlements;
            wish(id, Wish::Abandon);
            for step in 0..u8::try_from(saga.steps.len()).unwrap_or(u8::MAX) {
                if saga.status == Status::Compensating {
                    wish(id, Wish::SkipCompensation { step });
                } else {
                    wish(id, Wish::Complete { step });
                    wish(id, Wish::Skip { step });
                }
            }
        }
    }

    fn retention(&self, world: &World, events: &mut Vec<Event>) {
        if world.store.floor {
            let knows = world.participants.iter().enumerate();
            events.extend(
                knows
                    .filter(|(_, participant)| !participant.below_floor)
                    .map(|(step, _)| Event::ParticipantForgets { step }),
            );
            return;
        }
        let is_alive = world.store.live.is_some();
        let may = if is_alive {
            !self.scenario.rules.on(Rule::FloorBelowLive)
        } else {
            world.store.history.is_some()
        };
        if world.budget.retirements > 0 && may {
            events.push(Event::Forget);
        }
    }
}

/// Ids of retries begin above those of cancels, and those of settlements above them.
const RETRY_IDS: u8 = 2;
const SETTLEMENT_IDS: u8 = 4;

/// What the outside may answer.
fn outcomes(trouble: Budget) -> impl Iterator<Item = Outcome> {
    let failure = (trouble.failures > 0).then_some(Outcome::Failure);
    let error = (trouble.errors > 0).then_some(Outcome::Error);
    [Outcome::Success].into_iter().chain(failure).chain(error)
}
