//! A bound on the bytes a second that are read, for a replay that shares its brokers with live lines.
//!
//! It asks no clock: the poll loop says what time it is. What is prefetched is bounded besides, so over
//! more than a moment the brokers send no more than is taken.

use std::time::{Duration, Instant};

/// For how long nothing is polled while nothing may be taken. Beyond that everything is paused and polled
/// on, since a member that does not poll for `max.poll.interval.ms` is out of its group, and a rebalance
/// waits for it. Each pause drops what was prefetched, so that no shorter wait is worth one.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What may be prefetched at most: what a pause drops is fetched again, and must be no multiple of what is
/// taken between two pauses.
pub(super) fn most_ahead(bytes_per_second: u64) -> u64 {
    bytes_per_second.saturating_mul(PATIENCE.as_secs())
}

/// When the next record may be taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throttle {
    bytes_per_second: u64,
    free_at: Instant,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free_at: now,
        }
    }

    /// Notes that a record of so many bytes was taken.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) {
        let seconds = bytes as f64 / self.bytes_per_second as f64;
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(seconds);
    }

    /// How long nothing is to be taken.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let wait = self.free_at.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_any_time_no_more_is_taken_than_the_rate_and_one_record() {
        let start = Instant::now();
        let mut throttle = Throttle::new(1_000, start);
        let (mut now, mut taken) = (start, 0);
        while now < start + Duration::from_secs(10) {
            match throttle.wait(now) {
                Some(wait) => now += wait,
                None => {
                    throttle.take(300, now);
                    taken += 300;
                }
            }
        }
        assert!((9_700..=10_300).contains(&taken), "{taken}");
    }

    #[test]
    fn time_without_records_is_not_made_up_for() {
        let start = Instant::now();
        let mut throttle = Throttle::new(1_000, start);
        let later = start + Duration::from_secs(60);
        throttle.take(1_000, later);
        assert_eq!(throttle.wait(later), Some(Duration::from_secs(1)));
    }
}
