//! Counts groups between their closing and their publication, so that revocation and shutdown
//! can wait for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The count; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicUsize,
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

    /// Waits until nothing is in flight.
    pub(crate) async fn empty(&self) {
        loop {
            let notified = self.shared.is_empty.notified();
            if self.shared.count.load(Ordering::SeqCst) == 0 {
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
}
