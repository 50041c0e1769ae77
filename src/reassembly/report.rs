//! What the buffer tells its surroundings: events, decisions, counts, status.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{
    ClassName, Group, PartClosure, PartKey, Record, Reject, Timestamp, TopicPartition, ViewId,
};

/// What became of records.
#[derive(Clone, Debug)]
pub enum Event {
    /// A part is closed and goes on its way; its records finish when it is published, and that it is
    /// closed is published with it.
    Closed(Group, Arc<PartClosure>),
    /// A part is closed and not to be scored: its views go to the dead letters. All its records
    /// finish when those are published, and that it is closed is published with them.
    Expired {
        /// A reject for each view.
        rejects: Vec<Reject>,
        /// Copies of the views.
        absorbed: Vec<Arc<Record>>,
        /// What the part is, where its views say so.
        class: Option<ClassName>,
        /// What is to be remembered of the part.
        closure: Arc<PartClosure>,
    },
    /// A record goes to the dead letters and finishes when that is published.
    Rejected(Reject),
    /// Records with nothing to publish: copies of what was used. They are finished now.
    Finished(Vec<Arc<Record>>),
}

/// What the consumer should do about memory.
#[derive(Clone, Debug, Default)]
pub struct FlowDecision {
    /// Partitions to pause now. Named once; they count as paused from here on.
    pub pause: Vec<TopicPartition>,
    /// Partitions to resume now.
    pub resume: Vec<TopicPartition>,
    /// Groups that had to give way.
    pub events: Vec<Event>,
}

/// How often things happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReassemblyCounts {
    /// Views given to the buffer.
    pub views: u64,
    /// Views of partitions that are not ours any more; dropped.
    pub stale: u64,
    /// Copies of a record that is held already; dropped.
    pub redelivered: u64,
    /// Byte-identical views that finish with their group.
    pub absorbed: u64,
    /// Byte-identical views of parts that were closed before.
    pub late_identical: u64,
    /// Records rejected, for whatever reason.
    pub rejected: u64,
    /// Views whose time lay too far in the future.
    pub clamped: u64,
    /// Views that named another number of views than their part's first.
    pub count_conflicts: u64,
    /// Groups closed with every view.
    pub complete: u64,
    /// Groups closed by stream time.
    pub timed_out: u64,
    /// Groups closed by the wall clock.
    pub wall_clock: u64,
    /// Groups closed for lack of memory.
    pub evicted: u64,
    /// Groups forgotten because their partitions were revoked.
    pub forgotten: u64,
    /// Views taken before others of their partition number that had been written earlier may have been
    /// read, for lack of memory.
    pub out_of_order: u64,
}

impl ReassemblyCounts {
    /// Groups closed, for whatever reason.
    pub fn closed(&self) -> u64 {
        self.complete + self.timed_out + self.wall_clock + self.evicted
    }
}

/// The state of the buffer, for operators.
#[derive(Clone, Debug)]
pub struct ReassemblyStatus {
    /// Groups waiting for views.
    pub open_groups: usize,
    /// Bytes of records they keep alive.
    pub open_bytes: u64,
    /// Closed parts that are remembered.
    pub closed_parts: usize,
    /// How far the log has come, on the partition number that is furthest behind.
    pub stream_time: Option<Timestamp>,
    /// The group with the earliest deadline.
    pub oldest: Option<OldestGroup>,
    /// Every assigned partition, in order.
    pub partitions: Vec<PartitionStatus>,
}

/// The open group that is due first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldestGroup {
    /// The part.
    pub part: PartKey,
    /// Stream time at which it closes.
    pub deadline: Timestamp,
    /// The listed views that it waits for.
    pub missing: Vec<ViewId>,
}

/// What holds a record which somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingPart {
    /// The part.
    pub part: PartKey,
    /// Whether the record is taken into it; else it waits for others that were written earlier.
    pub is_open: bool,
    /// The listed views that it waits for.
    pub missing: Vec<ViewId>,
    /// How long it has been open, or the record has waited, by the wall clock.
    pub open_for: Duration,
    /// Longer than it may be on a line whose cameras have come as far as each other.
    pub is_overdue: bool,
}

/// One partition's progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: TopicPartition,
    /// Its highest event time.
    pub highest: Option<Timestamp>,
    /// How far it is ahead of the stream time of its number.
    pub ahead: Duration,
    /// Whether it no longer holds stream time back.
    pub is_idle: bool,
    /// Whether it is paused for memory.
    pub is_paused: bool,
}
