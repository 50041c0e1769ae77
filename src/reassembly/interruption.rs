//! Interruptions: time in which nobody could read, since the process was frozen or the poll thread did not
//! come round.
//!
//! What was written meanwhile is fetched only after it, so what is known of the ends of partitions is out of
//! date until then.

use std::time::Duration;

use crate::domain::Timestamp;

/// Longer than the caller and the poll thread take to come round: a full channel is sat out for a second.
const LONGEST_ROUND: Duration = Duration::from_millis(1_500);

/// How long what was written in an interruption may take to be fetched.
const CATCH_UP: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Interruptions {
    looked_at: Option<Timestamp>,
    /// When the last one was seen, until what was written in it should be fetched.
    seen_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nobody has read since then.
    Began(Timestamp),
    /// Records are read again.
    Ended,
}

impl Interruptions {
    /// Notes that the caller came round, and for how long the poll thread has not. A step of the wall clock
    /// looks like a frozen process, and is taken for one.
    pub(crate) fn look(&mut self, poll_silence: Duration, now: Timestamp) -> Option<Change> {
        let before = self.looked_at.replace(now).unwrap_or(now);
        let away = now.since(before).max(before.since(now));
        if away.max(poll_silence) > LONGEST_ROUND {
            let is_first = self.seen_at.replace(now).is_none();
            return is_first.then_some(Change::Began(before.min(now.before(poll_silence))));
        }
        if now.since(self.seen_at?) < CATCH_UP {
            return None;
        }
        self.seen_at = None;
        Some(Change::Ended)
    }

    /// Notes that the caller was held up otherwise, and that is known.
    pub(crate) fn excuse(&mut self, now: Timestamp) {
        self.looked_at = self.looked_at.map(|_| now);
    }

    /// Whether there is one now.
    pub(crate) fn is_on(&self) -> bool {
        self.seen_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_begins_when_reading_stopped_and_ends_when_it_has_caught_up() {
        let mut interruptions = Interruptions::default();
        let mut look =
            |silence, now| interruptions.look(Duration::from_millis(silence), Timestamp(now));
        assert_eq!(look(0, 1_000), None);
        assert_eq!(look(1_000, 2_000), None);
        assert_eq!(
            look(0, 12_000),
            Some(Change::Began(Timestamp(2_000))),
            "frozen"
        );
        assert_eq!(look(0, 13_000), None);
        assert_eq!(look(0, 14_000), Some(Change::Ended));
        assert_eq!(look(1_600, 15_000), Some(Change::Began(Timestamp(13_400))));
        assert_eq!(look(2_600, 16_000), None, "it lasts");
        assert_eq!(look(0, 17_000), None);
        assert_eq!(look(0, 18_000), Some(Change::Ended));
        assert_eq!(
            look(0, 5_000),
            Some(Change::Began(Timestamp(5_000))),
            "a step back"
        );
        assert_eq!(look(0, 6_000), None);
        assert_eq!(look(0, 7_000), Some(Change::Ended));
    }

    #[test]
    fn back_pressure_is_no_interruption() {
        let mut interruptions = Interruptions::default();
        assert_eq!(interruptions.look(Duration::ZERO, Timestamp(0)), None);
        interruptions.excuse(Timestamp(60_000));
        assert_eq!(interruptions.look(Duration::ZERO, Timestamp(60_050)), None);
    }
}
