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
    is_empty: Notify,
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
    }

    /// Waits until nothing is in flight; for ever, once it is abandoned.
    pub(crate) async fn empty(&self) {
        loop {
            let notified = self.shared.is_empty.notified();
            if self.count() == 0 && !self.shared.is_abandoned.load(Ordering::SeqCst) {
                return;
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
        if self.shared.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.is_empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_empty_once_every_token_is_dropped() {
        let in_flight = InFlight::default();
        in_flight.empty().await;
        let (first, second) = (in_flight.enter(), in_flight.enter());
        let waiter = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { in_flight.empty().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(second);
        waiter.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_abandoned_is_never_taken_for_finished() {
        let in_flight = InFlight::default();
        let token = in_flight.enter();
        in_flight.abandon();
        drop(token);
        assert_eq!(in_flight.count(), 0);
        let waiter = tokio::spawn(async move { in_flight.empty().await });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        waiter.abort();
    }
}
