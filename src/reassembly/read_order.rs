//! In which order the views of a partition number are taken, whatever order they are read in.
//!
//! The views of a part lie on one partition number of several topics, and those are read side by side.
//! While a backlog is read it is chance which of them is ahead, and chance must not decide whether a view
//! comes late or what is a duplicate of a complete part. So of the partitions of one number the record
//! that was written first, by its Kafka timestamp, is taken first; and where a partition is known to hold
//! more than was read of it, the others wait for it. Nobody waits for a partition at its end, so that a
//! line that keeps up is taken as it comes. It is what Kafka Streams does for the topics of a task
//! (KIP-353, KIP-695).
//!
//! A partition of which the next record was written long after those that are taken is *silent* until
//! then, and need not hold stream time back: a line that keeps up knows it by the wall clock. A single
//! record with a time far ahead makes nobody silent, and waits no longer than the one behind it.
//!
//! Order is worth waiting for and not worth a loss: it is given up under memory pressure, and where clocks
//! differ by more than parts may take.

use std::collections::{BTreeMap, VecDeque};
#[cfg(test)]
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
use crate::domain::Record;
use crate::domain::{PartKey, SourceOffset, Timestamp, Topic, TopicPartition, View};

/// After this long without its first record a partition is silent. It is longer than `silent_after`: what
/// was never heard of may have a clock that is ahead.
const UNHEARD_FOR: Duration = Duration::from_secs(60);

/// After so many parts in a row that miss views which wait for their turn, order is given up.
const MOST_MISSED: u32 = 32;

/// What is taken next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// A view, and its event time.
    View(Box<View>, Timestamp),
    /// A view whose record is finished already, and its event time.
    Finished(Box<View>, Timestamp),
    /// Nothing of the partition follows.
    End(TopicPartition),
}

/// Whether something is taken though more may come that was written earlier.
pub(crate) type IsEarly = bool;

/// What was read of the assigned partitions and waits for its turn.
#[derive(Debug)]
pub(crate) struct ReadOrder {
    numbers: BTreeMap<i32, Lanes>,
    silent_after: Duration,
    held_bytes: u64,
    is_given_up: bool,
}

/// The partitions of one number.
#[derive(Debug, Default)]
struct Lanes {
    lanes: Vec<Lane>,
    /// When the first record that was taken had been written.
    first: Option<Timestamp>,
    /// The turn that has come.
    reached: Option<Timestamp>,
    is_given_up: bool,
    /// Parts in a row that were closed without views that wait here.
    missed: u32,
    /// Parts in a row of which all views were written at about one time.
    agreeing: u32,
}

#[derive(Debug)]
struct Lane {
    topic: Topic,
    held: VecDeque<Held>,
    /// Everything before it was read.
    next_offset: i64,
    /// There are records up to here, as far as is known.
    known_end: i64,
    /// When the last record that was taken had been written.
    last: Option<Timestamp>,
}

#[derive(Debug)]
enum Held {
    View {
        view: Box<View>,
        event_time: Timestamp,
        /// By the wall clock.
        read_at: Timestamp,
        is_finished: bool,
    },
    End,
}

impl ReadOrder {
    pub(crate) fn new(silent_after: Duration) -> Self {
        Self {
            numbers: BTreeMap::new(),
            silent_after,
            held_bytes: 0,
            is_given_up: false,
        }
    }

    /// Begins with a partition, of which nothing is known.
    pub(crate) fn assign(&mut self, partition: &TopicPartition) {
        self.revoke(partition);
        let lanes = &mut self.numbers.entry(partition.partition).or_default().lanes;
        lanes.push(Lane {
            topic: partition.topic.clone(),
            held: VecDeque::new(),
            next_offset: 0,
            known_end: 0,
            last: None,
        });
        lanes.sort_by(|one, other| one.topic.cmp(&other.topic));
    }

    /// Forgets a partition and what is held of it.
    pub(crate) fn revoke(&mut self, partition: &TopicPartition) {
        let Some(number) = self.numbers.get_mut(&partition.partition) else {
            return;
        };
        let held_bytes = &mut self.held_bytes;
        number.lanes.retain(|lane| {
            let is_kept = lane.topic != partition.topic;
            if !is_kept {
                *held_bytes -= lane.held.iter().map(Held::bytes).sum::<u64>();
            }
            is_kept
        });
        if number.lanes.is_empty() {
            self.numbers.remove(&partition.partition);
        }
    }

    /// Notes that a partition holds records up to this offset.
    pub(crate) fn expect_until(&mut self, partition: &TopicPartition, end: i64) {
        if let Some(lane) = self.lane(partition) {
            lane.known_end = lane.known_end.max(end);
        }
    }

    /// Notes that nothing more is known of a partition than what was read.
    pub(crate) fn reach_end(&mut self, partition: &TopicPartition) {
        if let Some(lane) = self.lane(partition) {
            lane.known_end = lane.next_offset;
        }
    }

    /// Notes that nothing of a partition follows.
    pub(crate) fn end_range(&mut self, partition: &TopicPartition) {
        if let Some(lane) = self.lane(partition) {
            lane.known_end = lane.next_offset;
            lane.held.push_back(Held::End);
        }
    }

    /// Notes a record of which nothing is to be taken.
    pub(crate) fn pass_over(&mut self, source: &SourceOffset) {
        if let Some(lane) = self.lane(&source.topic_partition()) {
            lane.next_offset = lane.next_offset.max(source.offset + 1);
        }
    }

    /// Holds a view until it is its turn.
    pub(crate) fn hold(
        &mut self,
        view: View,
        is_finished: bool,
        event_time: Timestamp,
        now: Timestamp,
    ) {
        let source = &view.record.source;
        let (partition, bytes) = (source.topic_partition(), view.record.size_bytes() as u64);
        self.pass_over(source);
        if let Some(lane) = self.lane(&partition) {
            lane.held.push_back(Held::View {
                view: Box::new(view),
                event_time,
                read_at: now,
                is_finished,
            });
            self.held_bytes += bytes;
        }
    }

    /// Comes to the next turn of a partition number, if there is one: whether it is out of order, which it
    /// may be only where `is_forced`, or order is given up.
    pub(crate) fn reach_next(&mut self, number: i32, is_forced: bool) -> Option<IsEarly> {
        let silent_after = self.silent_after;
        let of_number = self.numbers.get_mut(&number)?;
        let is_known = |lane: &Lane| lane.is_known(silent_after);
        let is_early = !of_number.lanes.iter().all(is_known);
        if is_early && !is_forced && !self.is_given_up && !of_number.is_given_up {
            return None;
        }
        let turn = of_number.next(silent_after)?.turn(silent_after);
        of_number.reached = of_number.reached.max(turn);
        Some(is_early)
    }

    /// Takes what the turn is that was reached.
    pub(crate) fn take(&mut self, number: i32) -> Option<Turn> {
        let of_number = self.numbers.get_mut(&number)?;
        let lane = of_number.next(self.silent_after)?;
        let held = lane.held.pop_front()?;
        self.held_bytes -= held.bytes();
        lane.last = held.written_at().or(lane.last);
        let last = lane.last;
        let turn = match held {
            Held::View {
                view,
                event_time,
                is_finished,
                ..
            } => match is_finished {
                true => Turn::Finished(view, event_time),
                false => Turn::View(view, event_time),
            },
            Held::End => Turn::End(TopicPartition {
                topic: lane.topic.clone(),
                partition: number,
            }),
        };
        of_number.first = of_number.first.or(last);
        Some(turn)
    }

    /// The partitions of a number that have had nothing for a while, by what comes next of them. Of one that
    /// is read to its end nobody knows; its records may only be slow to come.
    pub(crate) fn silent(&self, number: i32) -> Vec<&Topic> {
        let Some(of_number) = self.numbers.get(&number) else {
            return Vec::new();
        };
        let Some(reached) = of_number.reached else {
            return Vec::new();
        };
        let silent_since = |lane: &Lane| match lane.last {
            Some(last) => Some(last.after(self.silent_after)),
            None => Some(of_number.first?.after(UNHEARD_FOR)),
        };
        let is_silent = |lane: &&Lane| {
            let next = lane.turn(self.silent_after);
            next >= Some(reached) && silent_since(lane).is_some_and(|since| reached >= since)
        };
        let silent = of_number.lanes.iter().filter(is_silent);
        silent.map(|lane| &lane.topic).collect()
    }

    /// Notes that a part of a number was closed without all views. Where those that it misses are read and
    /// wait for their turn, time after time, clocks must differ by more than parts may take.
    pub(crate) fn note_incomplete(&mut self, number: i32, part: &PartKey) {
        if let Some(of_number) = self.numbers.get_mut(&number)
            && of_number.holds(part)
        {
            of_number.agreeing = 0;
            of_number.missed += 1;
            of_number.is_given_up |= of_number.missed >= MOST_MISSED;
        }
    }

    /// Notes that a part of a number was closed with all views, and whether the times at which they were
    /// written differ by less than parts may take. Where they do time after time, order is kept again.
    pub(crate) fn note_complete(&mut self, number: i32, is_close: bool) {
        if let Some(of_number) = self.numbers.get_mut(&number) {
            of_number.missed = 0;
            of_number.agreeing = if is_close { of_number.agreeing + 1 } else { 0 };
            of_number.is_given_up &= of_number.agreeing < MOST_MISSED;
        }
    }

    /// The numbers of which something waits.
    pub(crate) fn waiting(&self) -> Vec<i32> {
        let is_waiting = |lanes: &Lanes| lanes.lanes.iter().any(|lane| !lane.held.is_empty());
        let numbers = self.numbers.iter();
        let waiting = numbers.filter(|(_, lanes)| is_waiting(lanes));
        waiting.map(|(number, _)| *number).collect()
    }

    /// The views that wait, each with the wall time at which it was read.
    pub(crate) fn views(&self) -> impl Iterator<Item = (&View, Timestamp)> {
        let lanes = self.numbers.values().flat_map(|number| &number.lanes);
        let held = lanes.flat_map(|lane| &lane.held);
        held.filter_map(|held| match held {
            Held::View { view, read_at, .. } => Some((&**view, *read_at)),
            Held::End => None,
        })
    }

    /// The records that wait.
    #[cfg(test)]
    pub(crate) fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.views().map(|(view, _)| &view.record)
    }

    /// Bytes of the records that wait.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Whether nobody waits for what is not read yet.
    pub(crate) fn set_given_up(&mut self, is_given_up: bool) {
        self.is_given_up = is_given_up;
    }

    fn lane(&mut self, partition: &TopicPartition) -> Option<&mut Lane> {
        let lanes = &mut self.numbers.get_mut(&partition.partition)?.lanes;
        lanes.iter_mut().find(|lane| lane.topic == partition.topic)
    }
}

impl Lanes {
    fn holds(&self, part: &PartKey) -> bool {
        let held = self.lanes.iter().flat_map(|lane| &lane.held);
        let mut views = held.filter_map(Held::view);
        views.any(|view| view.part == *part)
    }

    /// Of those that hold something the one whose turn is next.
    fn next(&mut self, silent_after: Duration) -> Option<&mut Lane> {
        let lanes = self.lanes.iter_mut();
        let turns = lanes.filter_map(|lane| Some((lane.turn(silent_after)?, lane)));
        let (_, lane) = turns.min_by_key(|(turn, _)| *turn)?;
        Some(lane)
    }
}

impl Lane {
    /// Whether it is known when it is its turn, if ever.
    fn is_known(&self, silent_after: Duration) -> bool {
        let is_read = self.next_offset >= self.known_end;
        match self.held.len() {
            0 => is_read,
            1 => is_read || !self.has_jumped(silent_after),
            _ => true,
        }
    }

    /// Whether its next record was written long after the one before it: then the one behind it tells
    /// whether that time is right.
    fn has_jumped(&self, silent_after: Duration) -> bool {
        let next = self.held.front().and_then(Held::written_at);
        let jump = next.zip(self.last);
        jump.is_some_and(|(next, last)| next > last.after(silent_after))
    }

    /// When it is its turn, if it has something. That nothing follows is told when it would be silent.
    fn turn(&self, silent_after: Duration) -> Option<Timestamp> {
        let Some(next) = self.held.front()?.written_at() else {
            let silent_since = self.last.map(|last| last.after(silent_after));
            return Some(silent_since.unwrap_or(Timestamp(i64::MIN)));
        };
        let behind = self.held.get(1).and_then(Held::written_at);
        match behind {
            Some(behind) if self.has_jumped(silent_after) => Some(next.min(behind)),
            _ => Some(next),
        }
    }
}

impl Held {
    fn view(&self) -> Option<&View> {
        match self {
            Self::View { view, .. } => Some(view),
            Self::End => None,
        }
    }

    fn bytes(&self) -> u64 {
        self.view()
            .map_or(0, |view| view.record.size_bytes() as u64)
    }

    /// By its Kafka timestamp; where it has none, when it was taken must do.
    fn written_at(&self) -> Option<Timestamp> {
        let view = self.view()?;
        Some(view.record.timestamp.unwrap_or(view.captured_at))
    }
}
