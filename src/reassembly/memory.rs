//! Memory pressure: which partitions are paused, and when groups must give way.
//!
//! Under *high* pressure the partitions that run ahead are paused and the laggard, which holds
//! the views that complete the groups, runs on. A paused partition that has become the laggard is
//! resumed at once, so the view that completes a group never waits behind a pause for long. *Over*
//! the limit everything is paused and open groups are evicted, the oldest first, until those that
//! remain fit below the low mark; what is on its way to the model frees its memory by itself.
//! When nothing moves for a while under pressure, groups are evicted likewise. So the intake
//! always comes to run again.

use std::time::Duration;

use crate::domain::{MemoryBudget, Timestamp};

use super::settings::MemoryMarks;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    Normal,
    High,
    Over,
}

/// The thresholds in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    low: u64,
    high: u64,
    limit: u64,
}

impl Marks {
    pub(crate) fn of(budget: &MemoryBudget, marks: MemoryMarks) -> Self {
        let limit = budget.limit_bytes();
        let share = |mark: f64| (limit as f64 * mark) as u64;
        Self {
            low: share(marks.low),
            high: share(marks.high),
            limit,
        }
    }

    /// Pressure with hysteresis: what was entered at one mark is left below the next lower one.
    fn next(self, before: Pressure, used: u64) -> Pressure {
        if used >= self.limit {
            return Pressure::Over;
        }
        if used >= self.high {
            return before.at_least_high();
        }
        match before {
            Pressure::Normal => Pressure::Normal,
            _ if used < self.low => Pressure::Normal,
            _ => Pressure::High,
        }
    }
}

impl Pressure {
    fn at_least_high(self) -> Self {
        match self {
            Self::Normal => Self::High,
            other => other,
        }
    }
}

/// The pressure and whether anything moves under it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) pressure: Pressure,
    stall_after: Duration,
    last_used: u64,
    moved_at: Option<Timestamp>,
}

impl Flow {
    pub(crate) fn new(stall_after: Duration) -> Self {
        Self {
            pressure: Pressure::Normal,
            stall_after,
            last_used: 0,
            moved_at: None,
        }
    }

    /// Notes that a record came in.
    pub(crate) fn note_progress(&mut self, now: Timestamp) {
        self.moved_at = Some(now);
    }

    /// Takes the memory in use into account. Memory that is given back is progress too, and so
    /// is time spent under back-pressure: the stages behind will move again by themselves.
    pub(crate) fn update(
        &mut self,
        marks: Marks,
        used: u64,
        is_back_pressured: bool,
        now: Timestamp,
    ) {
        self.pressure = marks.next(self.pressure, used);
        if used < self.last_used || is_back_pressured || self.moved_at.is_none() {
            self.moved_at = Some(now);
        }
        self.last_used = used;
    }

    /// Whether open groups of that many bytes must give way.
    pub(crate) fn must_evict(&self, marks: Marks, open_bytes: u64, now: Timestamp) -> bool {
        let is_stalled = self
            .moved_at
            .is_some_and(|moved_at| now.since(moved_at) >= self.stall_after);
        let must_shrink = match self.pressure {
            Pressure::Normal => false,
            Pressure::High => is_stalled,
            Pressure::Over => true,
        };
        must_shrink && open_bytes > marks.low
    }
}

/// Whether a partition should be paused, given how far it has come.
pub(crate) fn should_pause(
    pressure: Pressure,
    is_paused: bool,
    highest: Option<Timestamp>,
    lowest: Option<Timestamp>,
    ahead_margin: Duration,
) -> bool {
    match pressure {
        Pressure::Normal => false,
        Pressure::Over => true,
        Pressure::High if is_paused => highest > lowest,
        Pressure::High => match (highest, lowest) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(highest), Some(lowest)) => highest > lowest.after(ahead_margin),
        },
    }
}
