//! Notices a pipeline that stands still, from one status after another.
//!
//! It is pure: it looks at no clock and ends nothing. A clock of its own runs for each thing that may
//! stall, only while that thing has not moved and nothing excuses it: a pause for memory, stages behind
//! that are full, the rate of a replay, a part that waits for views within its time, brokers that are away.
//! So time in which the process itself did not run, told as less than it was, does not count either.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use crate::kafka::poll_report::Reading;
use crate::status::{Holder, PartitionStatus, PipelineStatus};
use crate::telemetry;

/// How long things may stand still.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For all but the poll thread.
    pub stall_after: Duration,
    /// What the poll thread may take beyond that: it waits for a drain and for what is committed.
    pub rebalance: Duration,
}

/// Something that stands still.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stall {
    /// The poll thread's loop does not come round.
    PollThread,
    /// The device does not answer.
    Device,
    /// A transaction stays open.
    Transaction,
    /// Parts are on their way, and none arrives.
    Stages,
    /// A partition has records to read, and is not read.
    Reading { partition: String },
    /// A partition is paused without cause.
    Pause { partition: String },
    /// A record that is on its way nowhere holds a partition's position.
    Position { partition: String },
}

impl Stall {
    /// As the metric has it.
    pub(crate) fn kind(&self) -> telemetry::StallKind {
        match self {
            Self::PollThread => telemetry::StallKind::PollThread,
            Self::Device => telemetry::StallKind::Device,
            Self::Transaction => telemetry::StallKind::Transaction,
            Self::Stages => telemetry::StallKind::Stages,
            Self::Reading { .. } => telemetry::StallKind::Reading,
            Self::Pause { .. } => telemetry::StallKind::Pause,
            Self::Position { .. } => telemetry::StallKind::Position,
        }
    }

    /// The partition that it is in.
    pub(crate) fn partition(&self) -> Option<&String> {
        match self {
            Self::Reading { partition }
            | Self::Pause { partition }
            | Self::Position { partition } => Some(partition),
            Self::PollThread | Self::Device | Self::Transaction | Self::Stages => None,
        }
    }

    /// Whether another pipeline in this process could go on: a thread that hangs cannot be ended, and
    /// keeps its device or its connection.
    pub(crate) fn leaves_a_usable_process(&self) -> bool {
        !matches!(self, Self::PollThread | Self::Device)
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PollThread => formatter.write_str("the poll thread does not come round"),
            Self::Device => formatter.write_str("the device does not answer"),
            Self::Transaction => formatter.write_str("a transaction stays open"),
            Self::Stages => formatter.write_str("parts are on their way and none is published"),
            Self::Reading { partition } => {
                write!(formatter, "`{partition}` has records and is not read")
            }
            Self::Pause { partition } => {
                write!(formatter, "`{partition}` stays paused without cause")
            }
            Self::Position { partition } => write!(
                formatter,
                "`{partition}` has an unfinished record that nothing works on"
            ),
        }
    }
}

/// The clocks, and what they were last told.
#[derive(Debug)]
pub(crate) struct Watchdog {
    patience: Patience,
    before: Option<PipelineStatus>,
    clocks: BTreeMap<Stall, Duration>,
}

impl Watchdog {
    pub(crate) fn new(patience: Patience) -> Self {
        Self {
            patience,
            before: None,
            clocks: BTreeMap::new(),
        }
    }

    /// Takes a status into account; gives what has stood still for too long. `passed` is the time since
    /// the status before this one.
    pub(crate) fn observe(
        &mut self,
        status: &PipelineStatus,
        brokers_are_reached: bool,
        passed: Duration,
    ) -> Vec<Stall> {
        let Some(before) = self.before.replace(status.clone()) else {
            return Vec::new();
        };
        let still = what_stands_still(&before, status, passed);
        self.clocks.retain(|stall, _| still.contains(stall));
        for stall in still {
            let counts = brokers_are_reached || stall == Stall::Device;
            let clock = self.clocks.entry(stall).or_default();
            *clock += if counts { passed } else { Duration::ZERO };
        }
        let is_over = |(stall, clock): &(&Stall, &Duration)| **clock >= self.limit_of(stall);
        let over = self.clocks.iter().filter(is_over);
        over.map(|(stall, _)| stall.clone()).collect()
    }

    fn limit_of(&self, stall: &Stall) -> Duration {
        match stall {
            Stall::PollThread => self.patience.stall_after + self.patience.rebalance,
            _ => self.patience.stall_after,
        }
    }
}

/// What has not moved from one status to the next, and is not excused.
fn what_stands_still(
    before: &PipelineStatus,
    now: &PipelineStatus,
    passed: Duration,
) -> Vec<Stall> {
    let all_along =
        |millis: Option<u64>| millis.is_some_and(|millis| Duration::from_millis(millis) >= passed);
    let mut still = Vec::new();
    if all_along(Some(now.poll_thread_silent_ms)) {
        still.push(Stall::PollThread);
    }
    if all_along(now.device_busy_ms) {
        still.push(Stall::Device);
    }
    if now.reading == Reading::Draining {
        return still; // the drain has a deadline of its own
    }
    if all_along(now.transaction_open_ms) {
        still.push(Stall::Transaction);
    }
    // What others wait for has a clock of its own.
    let is_awaited = !still.is_empty();
    let finished_nothing = now.finished_records == before.finished_records;
    let is_due = |one: &PipelineStatus| one.in_flight > 0 || one.reading == Reading::Jammed;
    if finished_nothing && is_due(before) && is_due(now) && !is_awaited {
        still.push(Stall::Stages);
    }
    if now.reading.is_interrupted() || still.contains(&Stall::PollThread) {
        return still; // what is read and finished depends on others
    }
    let is_silent = finished_nothing && reads(before).eq(reads(now)) && !is_awaited;
    let earlier: HashMap<String, &PartitionStatus> = before
        .partitions
        .iter()
        .map(|partition| (partition.name(), partition))
        .collect();
    let unled: BTreeSet<i32> = now
        .partitions
        .iter()
        .filter(|partition| partition.end.is_none())
        .map(|partition| partition.partition)
        .collect();
    for partition in &now.partitions {
        if let Some(before) = earlier.get(&partition.name()) {
            let nothing_comes = is_silent && !unled.contains(&partition.partition);
            still.extend(stall_of(before, partition, nothing_comes, is_awaited));
        }
    }
    still
}

/// `nothing_comes`: nothing is read or finished of any partition, and no view can come from a partition
/// that is out of reach. `is_awaited`: a batch or a transaction is under way, and others wait for it.
fn stall_of(
    before: &PartitionStatus,
    now: &PartitionStatus,
    nothing_comes: bool,
    is_awaited: bool,
) -> Option<Stall> {
    let partition = now.name();
    if before.is_pause_stale && now.is_pause_stale {
        return Some(Stall::Pause { partition });
    }
    let has_more = |one: &PartitionStatus| one.end.is_some() && !one.is_at_end;
    let is_unread = before.next_to_read == now.next_to_read && has_more(before) && has_more(now);
    if is_unread && now.pause.is_none() {
        return Some(Stall::Reading { partition });
    }
    let is_held = match &now.held_by {
        Some(Holder::Work) => before.held_by == now.held_by && !is_awaited,
        Some(Holder::Part { is_overdue, .. }) => *is_overdue && nothing_comes,
        Some(Holder::Turn { .. }) | None => false, // that others are not read is told of them
    };
    (is_held && before.position == now.position).then_some(Stall::Position { partition })
}

fn reads(status: &PipelineStatus) -> impl Iterator<Item = Option<i64>> {
    let partitions = status.partitions.iter();
    partitions.map(|partition| partition.next_to_read)
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
