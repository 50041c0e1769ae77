//! Since when something is under way that somebody else watches: a batch on the device, an open
//! transaction.
//!
//! It measures and judges nothing; the watchdog does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One thing that is done again and again, at most once at a time; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    began: Arc<Mutex<Option<Instant>>>,
}

impl Activity {
    /// Notes that it is under way until the guard is dropped.
    #[must_use]
    pub fn begin(&self) -> Underway<'_> {
        self.set(Some(Instant::now()));
        Underway(self)
    }

    /// For how long it has been under way, if it is.
    pub fn lasts(&self) -> Option<Duration> {
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        began.map(|began| began.elapsed())
    }

    fn set(&self, began: Option<Instant>) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }
}

/// Held while it is under way.
#[derive(Debug)]
pub struct Underway<'a>(&'a Activity);

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasts_while_its_guard_is_held() {
        let activity = Activity::default();
        assert_eq!(activity.lasts(), None);
        let underway = activity.begin();
        assert!(activity.clone().lasts().is_some());
        drop(underway);
        assert_eq!(activity.lasts(), None);
    }
}
