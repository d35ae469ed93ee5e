//! Lists the events that can happen in a world.

use crate::{
    message::{Input, OperatorRequest, Outcome, TimerKind},
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

    /// Lists the events that happen without further trouble. Handlers that run succeed.
    pub fn progress(&self, world: &World, events: &mut Vec<Event>) {
        self.owner_goes_on(world, events);
        for step in 0..world.participants.len() {
            self.participant_goes_on(world, step, Budget::default(), events);
            if self.timer_is_due(world, step) {
                events.push(Event::TimerFires { step });
            }
        }
    }

    /// Lists all events that can happen.
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
        self.falls_silent(world, events);
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

    /// Lists the rival's events. The rival holds one of the next two records, which it polled before it lost the
    /// partition.
    fn rival(world: &World, events: &mut Vec<Event>) {
        if world.rival.is_some() {
            events.push(Event::RivalCommits);
        } else if world.budget.rivals > 0 {
            let most = world.inputs.len().min(2);
            events.extend((0..most).map(|index| Event::RivalReads { index }));
        }
    }

    /// Returns true if the step's timer can fire. A timer falls due at any time, but not while one is in the inputs.
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

    /// Returns a batch with every way in which its next command can be handled.
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
            // Only the rows matter here, because the next command of the batch reads them.
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
        // The process that made the call has crashed, and the sweep of another process makes the call again.
        if let Some(outcome) = participant.call.as_ref().and_then(|call| call.outcome) {
            events.push(Event::CallOutside { step, outcome });
        }
    }

    /// Lists the silence of the pivot's participant. The silence of any other participant is an ordinary timeout.
    fn falls_silent(&self, world: &World, events: &mut Vec<Event>) {
        if let Some(step) = self.scenario.definition.pivot()
            && world.budget.silences > 0
        {
            events.push(Event::FallsSilent { step });
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
        let mut request = |id, request| events.push(Event::Ask(Input::Action { id, request }));
        if budget.cancels > 0 {
            request(budget.cancels, OperatorRequest::Cancel);
        }
        if budget.retries > 0 && saga.is_parked() {
            request(RETRY_IDS + budget.retries, OperatorRequest::Retry);
        }
        if budget.settlements > 0 {
            let id = SETTLEMENT_IDS + budget.settlements;
            request(id, OperatorRequest::Abandon);
            for step in 0..u8::try_from(saga.steps.len()).unwrap_or(u8::MAX) {
                if saga.status == Status::Compensating {
                    request(id, OperatorRequest::SkipCompensation { step });
                } else {
                    request(id, OperatorRequest::Complete { step });
                    request(id, OperatorRequest::Skip { step });
                    request(id, OperatorRequest::NotDone { step });
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

/// Ids of retries begin above those of cancels, and ids of settlements above those of retries.
const RETRY_IDS: u8 = 2;
const SETTLEMENT_IDS: u8 = 4;

/// Returns the possible outcomes of an external call.
fn outcomes(trouble: Budget) -> impl Iterator<Item = Outcome> {
    let failure = (trouble.failures > 0).then_some(Outcome::Failure);
    let error = (trouble.errors > 0).then_some(Outcome::Error);
    [Outcome::Success].into_iter().chain(failure).chain(error)
}
