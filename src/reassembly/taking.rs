//! What was read waits here for its turn, and is then taken into its group.
//!
//! The turn of a record may come when another one is read, when the end of a partition is told, or when
//! memory asks for it ([`ReadOrder`](super::read_order::ReadOrder)).

use crate::domain::{CloseCause, SourceOffset, Timestamp, TopicPartition, View};

use super::group::fingerprint_of;
use super::read_order::Turn;
use super::report::Event;
use super::schedule::Due;
use super::{PartState, ReassemblyBuffer};

impl ReassemblyBuffer {
    /// Takes a view in when it is its turn, and what was waiting for it. A view's time moves stream time
    /// first, so groups that are due close before it; then it joins its group, which may complete it. A
    /// view of a stale generation is dropped.
    pub fn accept(&self, view: View, now: Timestamp) -> Vec<Event> {
        self.read(view, false, now)
    }

    /// Takes in a view whose record was finished under an earlier assignment and is read again: nothing is
    /// to become of it. But it moves time as it did then, and where its part is open again and has another
    /// image of the view, it was a duplicate, and the part names it again.
    pub fn recall(&self, view: View, now: Timestamp) -> Vec<Event> {
        self.read(view, true, now)
    }

    fn read(&self, view: View, is_finished: bool, now: Timestamp) -> Vec<Event> {
        let number = view.record.source.partition;
        {
            let mut timeline = self.timeline();
            if !timeline.is_current(&view.record) {
                timeline.counts.stale += u64::from(!is_finished);
                return Vec::new();
            }
            timeline.read(view, is_finished, now);
        }
        let mut events = Vec::new();
        self.take_turns(number, false, now, &mut events);
        self.forget_closed();
        events
    }

    /// Notes that a record was read of which there is no view: what was waiting for it waits no more.
    pub fn pass_over(&self, source: &SourceOffset, now: Timestamp) -> Vec<Event> {
        self.timeline().order.pass_over(source);
        let mut events = Vec::new();
        self.take_turns(source.partition, false, now, &mut events);
        events
    }

    /// Notes that a partition is known to hold records up to an offset, or, with `i64::MAX`, that the end of
    /// its range will be told. Records of other partitions of its number are taken after those of these that
    /// were written earlier.
    pub fn expect_until(&self, partition: &TopicPartition, end: i64) {
        self.timeline().order.expect_until(partition, end);
    }

    /// Closes what is due. To be called a few times per second, whether or not records come.
    pub fn tick(&self, now: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        self.take_waiting(now, &mut events);
        let due = {
            let mut timeline = self.timeline();
            let mut due = Vec::new();
            for number in timeline.clock.numbers() {
                due.extend(timeline.take_passed(number, now));
            }
            due.extend(timeline.take_quiet(now));
            due
        };
        self.close_due(due, &mut events);
        self.forget_closed();
        events
    }

    /// Notes that everything in a partition was read. This must be told every time a partition
    /// comes to its end: neither idleness nor the wall-clock deadline begins without it. What is due
    /// by that closes with the next tick: ends are told by the thousand.
    pub fn end_of_partition(&self, partition: &TopicPartition, now: Timestamp) {
        self.timeline().reach_end(partition, now);
    }

    /// Notes that nothing of a partition follows, since a replay reads no further. Where that holds of its
    /// number on every topic, no group of that number waits any longer.
    pub fn end_of_range(&self, partition: &TopicPartition, now: Timestamp) -> Vec<Event> {
        self.timeline().order.end_range(partition);
        let mut events = Vec::new();
        self.take_turns(partition.partition, false, now, &mut events);
        self.forget_closed();
        events
    }

    /// Takes what waits and need not, of every partition number.
    pub(super) fn take_waiting(&self, now: Timestamp, events: &mut Vec<Event>) {
        let waiting = self.timeline().order.waiting();
        for number in waiting {
            self.take_turns(number, false, now, events);
        }
    }

    /// Takes what it is the turn of; all that waits, where `is_forced`.
    pub(super) fn take_turns(
        &self,
        number: i32,
        is_forced: bool,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) {
        loop {
            let turn = self.timeline().next_turn(number, is_forced, now);
            let Some((due, turn)) = turn else { return };
            self.close_due(due, events);
            match turn {
                Turn::View(view, event_time) => {
                    let fingerprint = fingerprint_of(view.image_bytes());
                    self.receive(*view, fingerprint, event_time, now, events);
                }
                Turn::Finished(view, _) => {
                    if let Some(PartState::Open(group)) =
                        self.parts.get_mut(&view.part).as_deref_mut()
                    {
                        group.recall(&view, fingerprint_of(view.image_bytes()));
                    }
                }
                Turn::End(partition) => self.take_end(&partition, now, events),
            }
        }
    }

    fn take_end(&self, partition: &TopicPartition, now: Timestamp, events: &mut Vec<Event>) {
        let number = partition.partition;
        let (is_number_over, mut due) = {
            let mut timeline = self.timeline();
            let is_number_over = timeline.end_range(partition);
            (is_number_over, timeline.take_passed(number, now))
        };
        if is_number_over {
            due.extend(self.open_of(number));
        }
        self.close_due(due, events);
    }

    /// The open groups of a partition number, the oldest first.
    fn open_of(&self, number: i32) -> Vec<Due> {
        let mut open: Vec<Due> = self
            .parts
            .iter()
            .filter_map(|entry| match entry.value() {
                PartState::Open(group) if group.opened_by().partition == number => Some(Due {
                    part: entry.key().clone(),
                    sequence: group.sequence,
                    cause: CloseCause::StreamTime,
                }),
                _ => None,
            })
            .collect();
        open.sort_by_key(|due| due.sequence);
        open
    }
}
