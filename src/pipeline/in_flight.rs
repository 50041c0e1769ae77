//! Counts groups between their closing and their publication, so that revocation and shutdown
//! can wait for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The count; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicUsize,
    is_abandoned: AtomicBool,
    /// The count fell, or what it counts is abandoned.
    has_changed: Notify,
}

impl InFlight {
    /// Counts one more until the token is dropped.
    pub(crate) fn enter(&self) -> InFlightToken {
        self.shared.count.fetch_add(1, Ordering::SeqCst);
        InFlightToken {
            shared: Arc::clone(&self.shared),
        }
    }

    /// How many are in flight.
    pub(crate) fn count(&self) -> usize {
        self.shared.count.load(Ordering::SeqCst)
    }

    /// Notes that what is in flight will not be finished: from here on tokens are dropped unused.
    pub(crate) fn abandon(&self) {
        self.shared.is_abandoned.store(true, Ordering::SeqCst);
        self.shared.has_changed.notify_waiters();
    }

    /// Waits until nothing is in flight; false once it is abandoned, when nothing is to be waited for.
    pub(crate) async fn empty(&self) -> bool {
        self.fewer_than(1).await
    }

    /// Waits until fewer than `limit` are in flight; false once they are abandoned.
    pub(crate) async fn fewer_than(&self, limit: usize) -> bool {
        loop {
            let notified = self.shared.has_changed.notified();
            if self.shared.is_abandoned.load(Ordering::SeqCst) {
                return false;
            }
            if self.count() < limit {
                return true;
            }
            notified.await;
        }
    }
}

/// Held by whatever is in flight.
#[derive(Debug)]
pub(crate) struct InFlightToken {
    shared: Arc<Shared>,
}

impl Drop for InFlightToken {
    fn drop(&mut self) {
        self.shared.count.fetch_sub(1, Ordering::SeqCst);
        self.shared.has_changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_empty_once_every_token_is_dropped() {
        let in_flight = InFlight::default();
        assert!(in_flight.empty().await);
        let (first, second) = (in_flight.enter(), in_flight.enter());
        let waiter = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { in_flight.empty().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(second);
        assert!(waiter.await.unwrap());
    }

    #[tokio::test]
    async fn whoever_waits_for_fewer_is_told_before_there_are_none() {
        let in_flight = InFlight::default();
        let (first, _second) = (in_flight.enter(), in_flight.enter());
        let waiter = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { in_flight.fewer_than(2).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(first);
        assert!(waiter.await.unwrap());
    }

    #[tokio::test]
    async fn what_is_abandoned_is_never_taken_for_finished() {
        let in_flight = InFlight::default();
        let token = in_flight.enter();
        in_flight.abandon();
        drop(token);
        assert_eq!(in_flight.count(), 0);
        assert!(!in_flight.empty().await);
    }

    #[tokio::test]
    async fn nobody_waits_for_what_is_abandoned() {
        let in_flight = InFlight::default();
        let _token = in_flight.enter();
        let waiter = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { in_flight.empty().await }
        });
        tokio::task::yield_now().await;
        in_flight.abandon();
        assert!(!waiter.await.unwrap());
    }
}
