//! Quiet time: how long, by the wall clock, there was nothing left to read.
//!
//! A line that stops leaves the last groups waiting, since no record moves stream time. Their
//! wall-clock deadline counts quiet time alone, per partition number, because the views of a part
//! lie on one number of every topic: while a backlog is read, while a partition is paused, while
//! the stages behind push back and while nobody can read (`interruption`), the view that completes
//! a group may just be waiting there.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::Timestamp;

#[derive(Debug, Default)]
pub(crate) struct QuietClocks {
    clocks: HashMap<i32, QuietClock>,
}

#[derive(Debug, Default)]
struct QuietClock {
    elapsed: Duration,
    running_since: Option<Timestamp>,
}

impl QuietClocks {
    /// Starts or stops the clock of a partition number.
    pub(crate) fn set_quiet(&mut self, number: i32, is_quiet: bool, now: Timestamp) {
        let clock = self.clocks.entry(number).or_default();
        match (clock.running_since, is_quiet) {
            (None, true) => clock.running_since = Some(now),
            (Some(since), false) => {
                clock.elapsed += now.since(since);
                clock.running_since = None;
            }
            _ => {}
        }
    }

    /// Quiet time of a partition number so far.
    pub(crate) fn elapsed(&self, number: i32, now: Timestamp) -> Duration {
        self.clocks.get(&number).map_or(Duration::ZERO, |clock| {
            let running = clock.running_since.map(|since| now.since(since));
            clock.elapsed + running.unwrap_or_default()
        })
    }

    pub(crate) fn remove(&mut self, number: i32) {
        self.clocks.remove(&number);
    }

    pub(crate) fn numbers(&self) -> Vec<i32> {
        self.clocks.keys().copied().collect()
    }
}
