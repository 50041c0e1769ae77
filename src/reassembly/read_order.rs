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
//! A record's turn comes at the latest [`ReadOrder::longest_gap`] after that of the one before it in its
//! partition: a camera that was silent, or one wrong time, holds up neither stream time, which is how it
//! goes in a line that keeps up, nor the records behind it.
//!
//! Order is worth waiting for and not worth a loss: under memory pressure it is given up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::domain::{SourceOffset, Timestamp, Topic, TopicPartition, View};

/// What is taken next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// A view, and its event time.
    View(Box<View>, Timestamp),
    /// Nothing of the partition follows.
    End(TopicPartition),
}

/// What was read of the assigned partitions and waits for its turn.
#[derive(Debug)]
pub(crate) struct ReadOrder {
    numbers: BTreeMap<i32, Lanes>,
    longest_gap: Duration,
    held_bytes: u64,
    is_given_up: bool,
}

/// The partitions of one number.
#[derive(Debug, Default)]
struct Lanes {
    lanes: Vec<Lane>,
    /// When the first record that was taken had been written.
    first: Option<Timestamp>,
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
    },
    End,
}

impl ReadOrder {
    pub(crate) fn new(longest_gap: Duration) -> Self {
        Self {
            numbers: BTreeMap::new(),
            longest_gap,
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
    pub(crate) fn hold(&mut self, view: View, event_time: Timestamp) {
        self.pass_over(&view.record.source);
        let held = Held::View {
            view: Box::new(view),
            event_time,
        };
        let Held::View { view, .. } = &held else {
            return; // it is one
        };
        let (partition, bytes) = (view.record.source.topic_partition(), held.bytes());
        if let Some(lane) = self.lane(&partition) {
            lane.held.push_back(held);
            self.held_bytes += bytes;
        }
    }

    /// What is to be taken next of a partition number, and whether that is out of order: only where
    /// `is_forced`, or order is given up.
    pub(crate) fn next(&mut self, number: i32, is_forced: bool) -> Option<(Turn, bool)> {
        let of_number = self.numbers.get_mut(&number)?;
        let is_early = !of_number.lanes.iter().all(Lane::is_known);
        if is_early && !is_forced && !self.is_given_up {
            return None;
        }
        let (first, longest_gap) = (of_number.first, self.longest_gap);
        let turns = of_number.lanes.iter_mut();
        let turns = turns.filter_map(|lane| Some((lane.turn(first, longest_gap)?, lane)));
        let (_, lane) = turns.min_by_key(|(turn, _)| *turn)?;
        let held = lane.held.pop_front()?;
        self.held_bytes -= held.bytes();
        let turn = match held {
            Held::View { view, event_time } => {
                lane.last = Some(written_at(&view));
                of_number.first = of_number.first.or(lane.last);
                Turn::View(view, event_time)
            }
            Held::End => Turn::End(TopicPartition {
                topic: lane.topic.clone(),
                partition: number,
            }),
        };
        Some((turn, is_early))
    }

    /// The numbers of which something waits.
    pub(crate) fn waiting(&self) -> Vec<i32> {
        let is_waiting = |lanes: &Lanes| lanes.lanes.iter().any(|lane| !lane.held.is_empty());
        let numbers = self.numbers.iter();
        let waiting = numbers.filter(|(_, lanes)| is_waiting(lanes));
        waiting.map(|(number, _)| *number).collect()
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

impl Lane {
    /// Whether it is known what comes next of it, be it nothing.
    fn is_known(&self) -> bool {
        !self.held.is_empty() || self.next_offset >= self.known_end
    }

    /// When it is its turn, if it has something.
    fn turn(&self, first: Option<Timestamp>, longest_gap: Duration) -> Option<Timestamp> {
        let latest = self.last.or(first).map(|before| before.after(longest_gap));
        match self.held.front()? {
            Held::View { view, .. } => {
                let written_at = written_at(view);
                Some(latest.map_or(written_at, |latest| written_at.min(latest)))
            }
            Held::End => Some(latest.unwrap_or(Timestamp(i64::MIN))),
        }
    }
}

impl Held {
    fn bytes(&self) -> u64 {
        match self {
            Self::View { view, .. } => view.record.size_bytes() as u64,
            Self::End => 0,
        }
    }
}

fn written_at(view: &View) -> Timestamp {
    view.record.timestamp.unwrap_or(view.captured_at)
}
