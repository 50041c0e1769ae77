//! Memory pressure: which partitions are paused, and when groups must give way.
//!
//! Under *high* pressure the partitions that run ahead are paused, and the laggard, which holds
//! the views that complete the groups, runs on. The fuller memory is, the less a partition may be
//! ahead, until from the *tight* mark on, half-way from high to the limit, the laggard runs alone:
//! what is left is for the views that complete groups. A paused partition that has become the
//! laggard is resumed at once, so the view that completes a group never waits behind a pause for
//! long. *Over* the limit everything is paused, until what is on its way to be published has given
//! memory back. Where open groups alone take nearly all of it, up to the *full* mark, nothing will:
//! then they are evicted, the oldest first, down to the high mark. When nothing moves for a while
//! under pressure, groups are evicted likewise, down to the low mark. So the intake always comes to
//! run again.

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
    tight: u64,
    full: u64,
    limit: u64,
}

impl Marks {
    pub(crate) fn of(budget: &MemoryBudget, marks: MemoryMarks) -> Self {
        let limit = budget.limit_bytes();
        let share = |mark: f64| (limit as f64 * mark) as u64;
        let tight = marks.high.midpoint(1.0);
        Self {
            low: share(marks.low),
            high: share(marks.high),
            tight: share(tight),
            full: share(tight.midpoint(1.0)),
            limit,
        }
    }

    /// 1 up to the high mark, 0 from the tight one on.
    fn leeway(self, used: u64) -> f64 {
        let room = (self.tight - self.high).max(1) as f64;
        (self.tight.saturating_sub(used) as f64 / room).min(1.0)
    }

    /// Pressure with hysteresis: what was entered at one mark is left below the next lower one.
    fn next(self, before: Pressure, used: u64) -> Pressure {
        if used >= self.limit {
            return Pressure::Over;
        }
        match before {
            Pressure::Over if used > self.full => Pressure::Over,
            Pressure::Normal if used < self.high => Pressure::Normal,
            _ if used < self.low => Pressure::Normal,
            _ => Pressure::High,
        }
    }
}

/// The pressure and whether anything moves under it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) pressure: Pressure,
    /// The share of what a partition may be ahead at the high mark that is left of it.
    pub(crate) leeway: f64,
    stall_after: Duration,
    last_used: u64,
    moved_at: Option<Timestamp>,
}

impl Flow {
    pub(crate) fn new(stall_after: Duration) -> Self {
        Self {
            pressure: Pressure::Normal,
            leeway: 1.0,
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
    /// is time spent held up: the stages behind will move again by themselves, and what was written while
    /// nobody could read is read then.
    pub(crate) fn update(&mut self, marks: Marks, used: u64, is_held_up: bool, now: Timestamp) {
        self.pressure = marks.next(self.pressure, used);
        self.leeway = marks.leeway(used);
        if used < self.last_used || is_held_up || self.moved_at.is_none() {
            self.moved_at = Some(now);
        }
        self.last_used = used;
    }

    /// Whether memory fills so fast that the next regular look at it may come too late: what runs ahead
    /// must be paused before the limit is reached, or parts give way whose views are all there.
    pub(crate) fn is_hasty(&self, marks: Marks, used: u64) -> bool {
        let step = (marks.limit - marks.high) / 8;
        used >= marks.high && used >= self.last_used.max(marks.high - step) + step
    }

    /// Whether open groups of that many bytes must give way, or more of them where some just have.
    pub(crate) fn must_evict(
        &self,
        marks: Marks,
        open_bytes: u64,
        has_evicted: bool,
        now: Timestamp,
    ) -> bool {
        let is_stalled = self
            .moved_at
            .is_some_and(|moved_at| now.since(moved_at) >= self.stall_after);
        let most = match self.pressure {
            Pressure::Normal => return false,
            _ if is_stalled => marks.low,
            Pressure::High => return false,
            Pressure::Over if has_evicted => marks.high,
            Pressure::Over => marks.full,
        };
        open_bytes > most
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
