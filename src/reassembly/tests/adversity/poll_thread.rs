//! The poll thread of the state machine, as `PollLoop` and `GroupContext` go round.

use super::super::*;
use super::brokers::source_of;
use super::instance::{CHANNEL, Command, Instance, MEMORY_PAUSE, Message};
use crate::kafka::offsets::Begun;
use crate::kafka::pauses::Relief;

impl Instance {
    pub(super) fn poll(&mut self, partition: &TopicPartition, records: usize) {
        self.apply_commands();
        self.relieve();
        self.tell_ends();
        self.hand_on();
        for _ in 0..records {
            self.read(partition);
            self.hand_on();
        }
    }

    fn apply_commands(&mut self) {
        while let Some(command) = self.process.commands.pop_front() {
            let process = &mut self.process;
            match command {
                Command::Pause(partitions, generation) if generation == process.generation => {
                    process.pauses.pause_for_memory(&partitions);
                    process.paused.extend(partitions);
                }
                Command::Resume(partitions, generation) if generation == process.generation => {
                    let free = process.pauses.resume_for_memory(&partitions);
                    self.resume_unless_jammed(&free);
                }
                Command::Pause(..) | Command::Resume(..) => {}
            }
        }
    }

    fn relieve(&mut self) {
        let now = self.instant();
        let process = &mut self.process;
        let Relief { resumed, stuck } =
            process
                .pauses
                .relieve(&process.ledger, process.is_jammed, now);
        let may_wait = process.pauses.few_enough();
        self.happened.stuck += stuck.len();
        let stuck = stuck.into_iter();
        process
            .held
            .extend(stuck.map(|partition| Message::Stuck(partition, may_wait)));
        self.resume_unless_jammed(&resumed);
    }

    fn resume_unless_jammed(&mut self, free: &[TopicPartition]) {
        if !self.process.is_jammed {
            self.process
                .paused
                .retain(|partition| !free.contains(partition));
        }
    }

    fn tell_ends(&mut self) {
        let process = &mut self.process;
        if !process.held.is_empty() {
            return;
        }
        let mut ended = process.assigned();
        ended.retain(|partition| {
            let position = process.positions[partition];
            self.brokers.read(partition, position).is_none()
        });
        let ended = process.pauses.seen_ends(ended);
        process.held.extend(ended.into_iter().map(Message::End));
    }

    fn read(&mut self, partition: &TopicPartition) {
        let now = self.instant();
        let process = &mut self.process;
        let Some(position) = process.positions.get_mut(partition) else {
            return;
        };
        if process.paused.contains(partition) {
            return;
        }
        let Some(shot) = self.brokers.read(partition, *position) else {
            return;
        };
        let shot = Shot {
            partition: partition.partition,
            offset: *position,
            generation: process.generation,
            ..shot.clone()
        };
        let begun = process.ledger.begin(&source_of(partition, *position));
        *position += 1;
        let unfinished = process.ledger.in_flight(partition);
        if process.pauses.crowd(partition, unfinished, now) {
            self.happened.crowds += 1;
            process.paused.insert(partition.clone());
        }
        if begun == Begun::Fresh {
            let view = shot.build(Some(&self.budget));
            process.held.push_back(Message::Record(view));
        }
    }

    pub(super) fn hand_on(&mut self) {
        let process = &mut self.process;
        let waiting = [&mut process.undelivered, &mut process.held];
        for queue in waiting {
            while process.channel.len() < CHANNEL
                && let Some(message) = queue.pop_front()
            {
                process.channel.push_back(message);
            }
        }
        if self.budget.used_bytes() >= self.budget.limit_bytes() {
            process.used_up_at = Some(self.now);
        }
        let is_used_up = process
            .used_up_at
            .is_some_and(|used_up_at| self.now - used_up_at < MEMORY_PAUSE);
        let is_full = !(process.undelivered.is_empty() && process.held.is_empty()) || is_used_up;
        if is_full && !process.is_jammed {
            self.happened.jams += 1;
            process.is_jammed = true;
            process.paused.extend(process.positions.keys().cloned());
        } else if !is_full && process.is_jammed {
            process.is_jammed = false;
            let free = process.pauses.free_of(&process.assigned());
            self.resume_unless_jammed(&free);
        }
    }

    pub(super) fn rebalance(&mut self, numbers: u8, is_drained: bool) {
        let lost = self.process.assigned();
        self.process
            .undelivered
            .push_back(Message::Revoked(lost.clone()));
        if is_drained {
            while !self.process.undelivered.is_empty() || !self.process.channel.is_empty() {
                self.hand_on();
                self.take_in(CHANNEL);
                self.publish_all();
            }
        }
        self.process.ledger.revoke(&lost);
        self.process.pauses.forget(&lost);
        self.assign(numbers);
    }

    pub(super) fn assign(&mut self, numbers: u8) {
        let is_ours = |partition: &TopicPartition| numbers >> partition.partition & 1 == 1;
        let mut ours = self.brokers.partitions();
        ours.retain(is_ours);
        let process = &mut self.process;
        process.generation += 1;
        process.pauses.forget(&ours);
        process
            .ledger
            .assign(ours.iter().cloned(), process.generation);
        process.positions.clear();
        process.paused.clear();
        for partition in &ours {
            let (position, finished) = self.brokers.committed(partition);
            process.ledger.restore(partition, position, &finished);
            process.positions.insert(partition.clone(), position);
            if process.is_jammed {
                process.paused.insert(partition.clone());
            }
        }
        let closures = self.brokers.closures_from(process.closures_read);
        process.closures_read += closures.len();
        let assigned = Message::Assigned(ours, process.generation, closures);
        process.undelivered.push_back(assigned);
    }
}
