//! The state that all groups share: clocks, due times, memory pressure, counts.
//!
//! It sits behind one mutex that is a leaf: whoever holds it takes no other lock.

use std::time::Duration;

use crate::domain::{CloseCause, Record, Timestamp, TopicPartition, View};

use super::closed::ClosedQueue;
use super::group::OpenGroup;
use super::interruption::{Change, Interruptions};
use super::memory::{Flow, Marks, Pressure, should_pause};
use super::quiet_time::QuietClocks;
use super::read_order::{ReadOrder, Turn};
use super::report::{FlowDecision, PartitionStatus, ReassemblyCounts};
use super::schedule::{Appointment, Due, Schedule, Sequence};
use super::settings::ReassemblySettings;
use super::stream_time::StreamClock;

#[derive(Debug)]
pub(crate) struct Timeline {
    pub(crate) clock: StreamClock,
    pub(crate) order: ReadOrder,
    pub(crate) schedule: Schedule,
    pub(crate) closed: ClosedQueue,
    pub(crate) flow: Flow,
    pub(crate) counts: ReassemblyCounts,
    pub(crate) open_bytes: u64,
    quiet: QuietClocks,
    is_back_pressured: bool,
    interruptions: Interruptions,
    next_sequence: Sequence,
}

impl Timeline {
    pub(crate) fn new(settings: &ReassemblySettings) -> Self {
        Self {
            clock: StreamClock::new(settings.idle_after, settings.max_future),
            order: ReadOrder::new(settings.idle_after),
            schedule: Schedule::default(),
            closed: ClosedQueue::new(settings.closed),
            flow: Flow::new(settings.stall_after),
            counts: ReassemblyCounts::default(),
            open_bytes: 0,
            quiet: QuietClocks::default(),
            is_back_pressured: false,
            interruptions: Interruptions::default(),
            next_sequence: 0,
        }
    }

    pub(crate) fn next_sequence(&mut self) -> Sequence {
        self.next_sequence += 1;
        self.next_sequence
    }

    /// Whether a record was read under the assignment that holds now.
    pub(crate) fn is_current(&self, record: &Record) -> bool {
        self.clock.generation(&record.source.topic_partition()) == Some(record.generation)
    }

    pub(crate) fn assign(&mut self, partition: TopicPartition, generation: u64, now: Timestamp) {
        let number = partition.partition;
        self.order.assign(&partition);
        self.clock.assign(partition, generation, now);
        self.refresh_quiet(number, now);
    }

    pub(crate) fn revoke(&mut self, partitions: &[TopicPartition], now: Timestamp) {
        for partition in partitions {
            self.order.revoke(partition);
            self.clock.revoke(partition);
            self.refresh_quiet(partition.partition, now);
        }
        for number in self.quiet.numbers() {
            if !self.clock.has_number(number) {
                self.quiet.remove(number);
            }
        }
    }

    /// Notes a view that was read, and holds it until it is its turn. One whose record is finished moves time
    /// as it did, and is none that came.
    pub(crate) fn read(&mut self, view: View, is_finished: bool, now: Timestamp) {
        let partition = view.record.source.topic_partition();
        let written_at = view.record.timestamp;
        let observed = (self.clock).observe(&partition, view.captured_at, written_at, now);
        self.quiet.set_quiet(partition.partition, false, now);
        self.flow.note_progress(now);
        if !is_finished {
            self.counts.views += 1;
            self.counts.clamped += u64::from(observed.was_clamped);
        }
        self.order.hold(view, is_finished, observed.event_time, now);
    }

    /// Takes what it is the turn of on a partition number, if anything is ([`ReadOrder::reach_next`]); and the
    /// groups that were due by then.
    pub(crate) fn next_turn(
        &mut self,
        number: i32,
        is_forced: bool,
        now: Timestamp,
    ) -> Option<(Vec<Due>, Turn)> {
        let is_early = self.order.reach_next(number, is_forced)?;
        let mut due = self.take_passed(number, now);
        let turn = self.order.take(number)?;
        if let Turn::View(view, event_time) | Turn::Finished(view, event_time) = &turn {
            let partition = view.record.source.topic_partition();
            self.clock.take(&partition, *event_time, now);
            self.refresh_quiet(number, now);
            self.counts.out_of_order += u64::from(is_early);
        }
        due.extend(self.take_passed(number, now));
        Some((due, turn))
    }

    pub(crate) fn reach_end(&mut self, partition: &TopicPartition, now: Timestamp) {
        self.order.reach_end(partition);
        self.clock.reach_end(partition, now);
        self.refresh_quiet(partition.partition, now);
    }

    pub(crate) fn end_range(&mut self, partition: &TopicPartition) -> bool {
        self.clock.end_range(partition)
    }

    pub(crate) fn lose_sight(&mut self, partition: &TopicPartition, now: Timestamp) {
        self.order.reach_end(partition); // nobody knows how long it would be waited for
        self.clock.lose_sight(partition);
        self.refresh_quiet(partition.partition, now);
    }

    pub(crate) fn set_back_pressured(&mut self, is_back_pressured: bool, now: Timestamp) {
        if self.is_back_pressured && !is_back_pressured {
            self.interruptions.excuse(now);
        }
        self.is_back_pressured = is_back_pressured;
        self.heed_hold_up(now);
    }

    /// Notes that the caller came round, and for how long the poll thread has not.
    pub(crate) fn look(&mut self, poll_silence: Duration, now: Timestamp) {
        match self.interruptions.look(poll_silence, now) {
            Some(Change::Began(since)) => self.heed_hold_up(since),
            Some(Change::Ended) => {
                self.clock.forget_ends();
                self.heed_hold_up(now);
            }
            None => {}
        }
    }

    fn heed_hold_up(&mut self, now: Timestamp) {
        let is_held_up = self.is_back_pressured || self.interruptions.is_on();
        self.clock.set_held_up(is_held_up, now);
        for number in self.quiet.numbers() {
            self.refresh_quiet(number, now);
        }
    }

    #[cfg(test)]
    pub(crate) fn quiet_numbers(&self) -> Vec<i32> {
        self.quiet.numbers()
    }

    fn refresh_quiet(&mut self, number: i32, now: Timestamp) {
        let is_quiet = self.clock.is_quiet(number);
        self.quiet.set_quiet(number, is_quiet, now);
    }

    /// Takes the memory in use into account.
    pub(crate) fn update_flow(&mut self, marks: Marks, used: u64, now: Timestamp) {
        let is_held_up = self.clock.is_held_up();
        self.flow.update(marks, used, is_held_up, now);
        if self.flow.pressure == Pressure::Normal {
            self.order.set_given_up(false);
        }
    }

    /// Gives up the order in which records are taken, if memory would have groups give way otherwise:
    /// what completes them may wait for its turn. Whether there is anything that waits.
    pub(crate) fn gives_up_order(&mut self, marks: Marks, now: Timestamp) -> bool {
        let held = self.order.held_bytes();
        let gives_up = held > 0
            && self
                .flow
                .must_evict(marks, self.open_bytes + held, false, now);
        if gives_up {
            self.order.set_given_up(true);
            self.flow.note_progress(now);
        }
        gives_up
    }

    /// Moves the stream time of a number and takes out the groups that it has passed.
    pub(crate) fn take_passed(&mut self, number: i32, now: Timestamp) -> Vec<Due> {
        let silent = self.order.silent(number);
        match self.clock.advance(number, &silent, now) {
            Some(stream_time) => self.schedule.take_passed(number, stream_time),
            None => Vec::new(),
        }
    }

    /// Takes out the groups that have waited for too long while nothing was left to read.
    pub(crate) fn take_quiet(&mut self, now: Timestamp) -> Vec<Due> {
        let mut due = Vec::new();
        for number in self.quiet.numbers() {
            let elapsed = self.quiet.elapsed(number, now);
            due.extend(self.schedule.take_quiet(number, elapsed));
        }
        due
    }

    /// Makes the appointment of a group that was just opened.
    pub(crate) fn schedule_group(
        &mut self,
        group: &OpenGroup,
        settings: &ReassemblySettings,
        now: Timestamp,
    ) {
        let number = group.opened_by().partition;
        let timeout = settings.for_line(&group.part().line).timeout;
        let quiet_deadline = settings
            .wall_grace
            .map(|grace| self.quiet.elapsed(number, now) + timeout + grace);
        let appointment = Appointment {
            part: group.part().clone(),
            number,
            deadline: group.deadline,
            quiet_deadline,
        };
        self.schedule.insert(group.sequence, appointment);
    }

    pub(crate) fn count_closed(&mut self, cause: CloseCause) {
        let count = match cause {
            CloseCause::Complete => &mut self.counts.complete,
            CloseCause::StreamTime => &mut self.counts.timed_out,
            CloseCause::WallClock => &mut self.counts.wall_clock,
            CloseCause::Evicted => &mut self.counts.evicted,
        };
        *count += 1;
    }

    /// Takes out the group to evict next, if memory asks for one.
    pub(crate) fn take_evicted(
        &mut self,
        marks: Marks,
        has_evicted: bool,
        now: Timestamp,
    ) -> Option<Due> {
        let open_bytes = self.open_bytes;
        if !self.flow.must_evict(marks, open_bytes, has_evicted, now) {
            return None;
        }
        self.schedule.take_earliest(CloseCause::Evicted)
    }

    /// Decides which partitions change between paused and running, and takes it as done.
    pub(crate) fn decide_flow(
        &mut self,
        settings: &ReassemblySettings,
        now: Timestamp,
    ) -> FlowDecision {
        let pressure = self.flow.pressure;
        let lowest = self.clock.lowest_read(now).flatten();
        // However close together they all are, those that are furthest ahead make room for the others.
        let highest = self
            .clock
            .partitions()
            .filter_map(|(_, clock)| clock.highest_read);
        let spread = highest.max().zip(lowest);
        let spread = spread.map(|(highest, lowest)| highest.since(lowest));
        let margin = settings.ahead_margin.min(spread.unwrap_or_default() / 2);
        let margin = margin.mul_f64(self.flow.leeway);
        let mut decision = FlowDecision::default();
        let counting = self.clock.partitions().filter(|(_, clock)| !clock.is_over);
        for (partition, clock) in counting {
            let is_exempt = pressure == Pressure::High && self.clock.is_idle(clock, now);
            let pause = !is_exempt
                && should_pause(
                    pressure,
                    clock.is_paused,
                    clock.highest_read,
                    lowest,
                    margin,
                );
            match (clock.is_paused, pause) {
                (false, true) => decision.pause.push(partition.clone()),
                (true, false) => decision.resume.push(partition.clone()),
                _ => {}
            }
        }
        decision.pause.sort();
        decision.resume.sort();
        self.apply_pauses(&decision.pause, true, now);
        self.apply_pauses(&decision.resume, false, now);
        decision
    }

    fn apply_pauses(&mut self, partitions: &[TopicPartition], is_paused: bool, now: Timestamp) {
        for partition in partitions {
            self.clock.set_paused(partition, is_paused, now);
            self.refresh_quiet(partition.partition, now);
        }
    }

    pub(crate) fn partition_statuses(&self, now: Timestamp) -> Vec<PartitionStatus> {
        let mut statuses: Vec<_> = self
            .clock
            .partitions()
            .map(|(partition, clock)| PartitionStatus {
                partition: partition.clone(),
                highest: clock.highest_read,
                ahead: clock
                    .highest_read
                    .zip(self.clock.stream_time(partition.partition))
                    .map_or_else(Default::default, |(highest, time)| highest.since(time)),
                is_idle: self.clock.is_idle(clock, now),
                is_paused: clock.is_paused,
            })
            .collect();
        statuses.sort_by(|left, right| left.partition.cmp(&right.partition));
        statuses
    }
}
