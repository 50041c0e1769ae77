//! When each part of an open-loop load is due. It is fixed before the first part is sent and heeds no
//! answer: a pipeline that stalls finds the parts that were due meanwhile waiting, and their latency
//! counts from when they were due (no coordinated omission).

use std::time::Duration;

/// Parts evenly spaced, as a line's takt spaces them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Schedule {
    /// Parts a second.
    rate: f64,
    /// How many parts only bring the pipeline up to pace.
    warm_up: usize,
    parts: usize,
}

impl Schedule {
    /// A load of `rate` parts a second for `duration`, with `warm_up` before it that does not count.
    pub(super) fn new(rate: f64, warm_up: Duration, duration: Duration) -> Self {
        let parts_in = |time: Duration| (rate * time.as_secs_f64()).ceil() as usize;
        let warm_up = parts_in(warm_up);
        Self {
            rate,
            warm_up,
            parts: warm_up + parts_in(duration).max(1),
        }
    }

    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// When a part is due, from the start.
    pub(super) fn due(&self, part: usize) -> Duration {
        Duration::from_secs_f64(part as f64 / self.rate)
    }

    /// Whether a part counts.
    pub(super) fn counts(&self, part: usize) -> bool {
        part >= self.warm_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_due_at_the_rate_whatever_becomes_of_them() {
        let schedule = Schedule::new(50.0, Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(schedule.parts(), 150);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(100), Duration::from_secs(2));
        assert!(!schedule.counts(49) && schedule.counts(50));
    }

    #[test]
    fn the_slowest_load_has_a_part_that_counts() {
        let schedule = Schedule::new(0.1, Duration::ZERO, Duration::from_secs(1));
        assert_eq!(schedule.parts(), 1);
        assert!(schedule.counts(0));
    }
}
