//! What an operator can set about reassembly.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::{DuplicatePolicy, LineId, TimeoutPolicy};

use super::expected::ExpectedViews;

/// Past the timeout, what a slow camera or network may still need when the line has stopped.
pub const DEFAULT_WALL_GRACE: Duration = Duration::from_secs(2);

/// What one line may set for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinePolicy {
    /// How long, in stream time, a part waits for its views after the first.
    pub timeout: Duration,
    /// What becomes of a part that is not complete by then.
    pub on_timeout: TimeoutPolicy,
    /// Which of two different views of one name is kept.
    pub duplicates: DuplicatePolicy,
}

impl Default for LinePolicy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            on_timeout: TimeoutPolicy::ScorePartial,
            duplicates: DuplicatePolicy::FirstWins,
        }
    }
}

/// Shares of the memory budget at which the intake is slowed and let go again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryMarks {
    /// From this share on, partitions that run ahead are paused.
    pub high: f64,
    /// Below this share everything runs again.
    pub low: f64,
}

impl Default for MemoryMarks {
    fn default() -> Self {
        Self {
            high: 0.8,
            low: 0.6,
        }
    }
}

/// How many closed parts are remembered, so that late views are told from new parts. The oldest
/// are dropped first; a view that comes later still opens a new part and, being alone, times out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedMemorySettings {
    /// At most this many parts.
    pub max_parts: usize,
    /// At most this many bytes, as estimated.
    pub max_bytes: usize,
}

impl Default for ClosedMemorySettings {
    /// A part a second for a day fits in; five views take about 1 KiB.
    fn default() -> Self {
        Self {
            max_parts: 100_000,
            max_bytes: 128 << 20,
        }
    }
}

/// All settings of a [`super::ReassemblyBuffer`].
#[derive(Clone, Debug)]
pub struct ReassemblySettings {
    /// For lines without settings of their own.
    pub line: LinePolicy,
    /// Lines with settings of their own.
    pub lines: HashMap<LineId, LinePolicy>,
    /// Which views a part should have.
    pub expected: ExpectedViews,
    /// A part ID seen again this much event time after its part was closed is a new part. Must
    /// be longer than any timeout and than `max_future`, else a view with a wrong time makes its
    /// part be forgotten too soon.
    pub reuse_after: Duration,
    /// How far past the time at which its record was written, and past the wall clock, a view's time may
    /// lie before it is clamped.
    pub max_future: Duration,
    /// A partition at its end without a record for this long (wall clock) no longer holds stream
    /// time back. Zero suits a bounded replay, where the end is the end.
    pub idle_after: Duration,
    /// Wall-clock deadline of a group: its timeout and this, counted while nothing is left to
    /// read. `None` turns it off, for a replay.
    pub wall_grace: Option<Duration>,
    /// How far (event time) a partition may run ahead of the laggard under memory pressure, at most:
    /// where all are closer together, half of what the one in front is ahead.
    pub ahead_margin: Duration,
    /// Under memory pressure, groups are evicted when nothing has moved for this long.
    pub stall_after: Duration,
    /// Shares of the budget.
    pub memory: MemoryMarks,
    /// Bounds of the memory of closed parts.
    pub closed: ClosedMemorySettings,
}

impl Default for ReassemblySettings {
    fn default() -> Self {
        Self {
            line: LinePolicy::default(),
            lines: HashMap::new(),
            expected: ExpectedViews::default(),
            reuse_after: Duration::from_secs(3600),
            max_future: Duration::from_secs(60),
            idle_after: Duration::from_secs(2),
            wall_grace: Some(DEFAULT_WALL_GRACE),
            ahead_margin: Duration::from_secs(1),
            stall_after: Duration::from_secs(10),
            memory: MemoryMarks::default(),
            closed: ClosedMemorySettings::default(),
        }
    }
}

impl ReassemblySettings {
    /// The settings that hold for a line.
    pub(crate) fn for_line(&self, line: &LineId) -> &LinePolicy {
        self.lines.get(line).unwrap_or(&self.line)
    }
}
