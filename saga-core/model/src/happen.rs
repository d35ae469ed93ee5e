//! Applies an event to a world.

use crate::{
    message::{Input, OperatorRequest, Outcome, TimerKind},
    orchestrator::{CommandPosition, InputRecord, Outputs, Rival, RivalEnd},
    participant::Choice,
    rules::Rule,
    world::{Event, Late, System, World},
};

impl System {
    pub fn happen(&self, world: &mut World, event: Event) {
        match event {
            Event::Decide { records } => self.decide(world, records),
            Event::Publish => {
                Self::send(world);
                Self::commit_offsets(world);
            }
            Event::OwnerCrashes { arrived } => {
                world.budget.crashes -= 1;
                self.owner_stops(world, arrived);
                Self::takeover(world);
            }
            Event::OwnerRepeats { arrived } => {
                world.budget.lost_answers -= 1;
                self.owner_stops(world, arrived);
            }
            Event::OwnerCrashesBefore { records } => {
                world.budget.crashes -= 1;
                world.owner.handled = u8::try_from(records).unwrap_or(u8::MAX);
                Self::commit_offsets(world);
                Self::takeover(world);
            }
            Event::RivalReads { index } => {
                world.budget.rivals -= 1;
                world.rival = Some(Rival {
                    index: u8::try_from(index).ok(),
                    entry: world.inputs[index],
                    read: world.store.clone(),
                });
            }
            Event::RivalCommits => self.rival_commits(world),
            Event::TimerFires { step } => self.timer_fires(world, step),
            Event::Handle { step, choices } => self.handle(world, step, &choices),
            Event::Answer { step } => {
                Self::answer(world, step);
                let commands = world.participants[step].commit();
                world.owner.memory.consumed(step, commands);
            }
            Event::ParticipantCrashes { step, arrived } => {
                world.budget.crashes -= 1;
                self.participant_stops(world, step, arrived);
            }
            Event::CallOutside { step, outcome } => self.call_outside(world, step, outcome),
            Event::Settle { step } => self.handling(step).settle(&mut world.participants[step]),
            Event::AnswerSettled { step, acknowledged } => {
                Self::answer_settled(world, step, acknowledged);
            }
            Event::Arrives(record) => {
                world.late.retain(|other| *other != record);
                world.arrive(record);
            }
            Event::Duplicate(record) => {
                world.arrive(record);
                world.budget.duplicates -= 1;
                world.forget_the_past();
            }
            Event::FallsSilent { step } => {
                world.budget.silences -= 1;
                world.witness.has_cause = true;
                world.participants[step].is_silent = true;
            }
            Event::Ask(input) => Self::ask(world, input),
            Event::Forget => {
                world.budget.retirements -= 1;
                world.store.floor = true;
                world.store.history = None;
            }
            Event::ParticipantForgets { step } => {
                world.participants[step].forget();
            }
        }
    }

    fn decide(&self, world: &mut World, records: usize) {
        let entries = &mut world.inputs[..records];
        let outputs = self.decisions().transact(&mut world.store, entries);
        for command in &outputs.commands {
            world.owner.memory.positions[command.step()] = CommandPosition::Unpublished;
        }
        world.owner.handled = u8::try_from(records).unwrap_or(u8::MAX);
        let nothing_follows = outputs.is_empty();
        world.owner.unsent = outputs;
        if nothing_follows {
            Self::commit_offsets(world);
        }
    }

    /// Delivers all outputs; the owner learns the positions of the commands.
    fn send(world: &mut World) {
        let Outputs {
            commands, events, ..
        } = std::mem::take(&mut world.owner.unsent);
        for command in commands {
            world.deliver(command);
            let behind = world.participants[command.step()].log.len();
            world.owner.memory.positions[command.step()] =
                CommandPosition::Behind(u8::try_from(behind).unwrap_or(u8::MAX));
        }
        for number in events {
            world.witness.told |= 1 << (number - 1);
        }
    }

    fn commit_offsets(world: &mut World) {
        let handled = std::mem::take(&mut world.owner.handled);
        world.inputs.drain(..usize::from(handled));
        if let Some(rival) = &mut world.rival {
            rival.index = rival.index.and_then(|index| index.checked_sub(handled));
        }
    }

    /// Stops the owner. The outputs of the batch have arrived, or may still arrive, and the batch will be read again.
    fn owner_stops(&self, world: &mut World, arrived: bool) {
        world.owner.handled = 0;
        let outputs = std::mem::take(&mut world.owner.unsent);
        if arrived {
            for command in outputs.commands {
                world.deliver(command);
            }
            for number in outputs.events {
                world.witness.told |= 1 << (number - 1);
            }
        } else {
            self.delay_commands(world, outputs);
        }
    }

    fn delay_commands(&self, world: &mut World, outputs: Outputs) {
        if self.scenario.late_produce {
            for command in outputs.commands {
                world.delay(Late::Command(command));
            }
        }
    }

    /// Resets the memory for a new owner: it knows no positions, only the end of each topic at its first look.
    fn takeover(world: &mut World) {
        let memory = &mut world.owner.memory;
        memory.positions.fill(CommandPosition::Unknown);
        for (end, participant) in memory.ends.iter_mut().zip(&world.participants) {
            *end = u8::try_from(participant.log.len()).unwrap_or(u8::MAX);
        }
    }

    fn rival_commits(&self, world: &mut World) {
        let Some(mut rival) = world.rival.take() else {
            return;
        };
        match self.decisions().commit(&mut rival, &mut world.store) {
            RivalEnd::RolledBack => {}
            RivalEnd::Committed {
                outputs,
                lost_update,
            } => {
                world.witness.lost_update |= lost_update;
                if let Some(index) = rival.index {
                    world.inputs[usize::from(index)].applied = rival.entry.applied;
                }
                self.delay_commands(world, outputs);
            }
        }
    }

    fn timer_fires(&self, world: &mut World, step: usize) {
        let Some(timer) = world.timer(step) else {
            return;
        };
        let Input::Timer { kind, .. } = timer else {
            return;
        };
        // A timeout is a cause only if the participant has taken the command and waits for an external call: no other
        // is slow.
        world.witness.has_cause |= kind == TimerKind::Timeout && world.participants[step].is_open();
        if self.scenario.rules.on(Rule::TimersAreMessages) {
            world.append(timer);
            return;
        }
        let mut entry = InputRecord {
            input: timer,
            applied: 0,
        };
        let outputs = self
            .decisions()
            .transact(&mut world.store, std::slice::from_mut(&mut entry));
        let Outputs {
            commands, events, ..
        } = outputs;
        for command in commands {
            world.deliver(command);
        }
        for number in events {
            world.witness.told |= 1 << (number - 1);
        }
    }

    fn handle(&self, world: &mut World, step: usize, choices: &[Choice]) {
        let handling = self.handling(step);
        for (place, choice) in choices.iter().enumerate() {
            let participant = &mut world.participants[step];
            let command = participant.log[place];
            if handling.runs(participant, command) {
                match choice {
                    Choice::Succeed => {}
                    Choice::Fail => self.went_wrong(world, Outcome::Failure),
                    Choice::Err => self.went_wrong(world, Outcome::Error),
                    Choice::CallOutside => world.budget.calls -= 1,
                }
            }
            let participant = &mut world.participants[step];
            let reply = handling.handle(participant, command, *choice);
            participant.unsent.extend(reply);
        }
        let participant = &mut world.participants[step];
        participant.handled = u8::try_from(choices.len()).unwrap_or(u8::MAX);
        if participant.unsent.is_empty() {
            let commands = participant.commit();
            world.owner.memory.consumed(step, commands);
        }
    }

    /// Records a cause: a failure is a cause at once; errors are a cause when there are as many as a policy has
    /// attempts.
    fn went_wrong(&self, world: &mut World, outcome: Outcome) {
        match outcome {
            Outcome::Failure => {
                world.budget.failures -= 1;
                world.witness.has_cause = true;
            }
            Outcome::Error => {
                world.budget.errors -= 1;
                let errors = self.scenario.budget.errors - world.budget.errors;
                world.witness.has_cause |= errors >= self.scenario.attempts;
            }
            Outcome::Success | Outcome::NotDone => {}
        }
    }

    fn answer(world: &mut World, step: usize) {
        let is_silent = world.participants[step].is_silent;
        for reply in std::mem::take(&mut world.participants[step].unsent) {
            if !is_silent {
                world.append(reply);
            }
        }
    }

    fn answer_settled(world: &mut World, step: usize, acknowledged: bool) {
        for reply in world.participants[step].answers.clone() {
            if !world.participants[step].is_silent {
                world.append(reply);
            }
        }
        if acknowledged {
            world.participants[step].answers.clear();
        } else {
            world.budget.crashes -= 1;
        }
    }

    fn participant_stops(&self, world: &mut World, step: usize, arrived: bool) {
        if arrived {
            Self::answer(world, step);
        }
        let participant = &mut world.participants[step];
        participant.handled = 0;
        for reply in std::mem::take(&mut participant.unsent) {
            if self.scenario.late_produce {
                world.delay(Late::Input(reply));
            }
        }
    }

    fn call_outside(&self, world: &mut World, step: usize, outcome: Outcome) {
        let participant = &mut world.participants[step];
        let again = participant
            .call
            .as_ref()
            .is_some_and(|call| call.outcome.is_some());
        if again {
            world.budget.crashes -= 1;
            if !self.scenario.rules.on(Rule::SameKey) {
                self.handling(step).call_outside(participant, outcome);
            }
            return;
        }
        self.handling(step).call_outside(participant, outcome);
        self.went_wrong(world, outcome);
    }

    fn ask(world: &mut World, input: Input) {
        match input {
            Input::Deadline => world.budget.deadlines -= 1,
            Input::Action { request, .. } => match request {
                OperatorRequest::Cancel => world.budget.cancels -= 1,
                OperatorRequest::Retry => world.budget.retries -= 1,
                OperatorRequest::Complete { .. }
                | OperatorRequest::NotDone { .. }
                | OperatorRequest::Skip { .. }
                | OperatorRequest::SkipCompensation { .. }
                | OperatorRequest::Abandon => world.budget.settlements -= 1,
            },
            Input::Start | Input::Reply { .. } | Input::Timer { .. } => {}
        }
        world.witness.has_cause = true;
        world.append(input);
    }
}
