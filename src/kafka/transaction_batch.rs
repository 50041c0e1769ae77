//! The publications of one transaction.
//!
//! They are taken as they come while the transaction is open, so that their records are on the way to
//! the brokers before its time has come: what is left to do then is to commit.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::offsets::OffsetLedger;
use super::publisher::Publication;
use crate::domain::OutboundRecord;

/// A transaction is closed when it holds so much: it must reach the brokers within its time.
const MOST_BYTES: usize = 8 << 20;

/// What one transaction publishes, and where the rest comes from.
pub(super) struct TransactionBatch<Token> {
    upcoming: mpsc::Receiver<Publication<Token>>,
    publications: Vec<Publication<Token>>,
    records: usize,
    bytes: usize,
    /// The time from the end of one batch to that of the next, at least.
    interval: Duration,
    /// The most records, as far as a publication has not more.
    max_records: usize,
    /// Until when more is waited for.
    end: Instant,
    earliest_next_end: Instant,
}

impl<Token> TransactionBatch<Token> {
    pub(super) fn new(
        upcoming: mpsc::Receiver<Publication<Token>>,
        interval: Duration,
        max_records: usize,
    ) -> Self {
        let now = Instant::now();
        Self {
            upcoming,
            publications: Vec::new(),
            records: 0,
            bytes: 0,
            interval,
            max_records,
            end: now,
            earliest_next_end: now,
        }
    }

    /// Waits for the first publication of the next transaction; `false` when there will be none.
    pub(super) async fn begin(&mut self) -> bool {
        self.end = self.earliest_next_end;
        let first = self.upcoming.recv().await;
        first.map(|first| self.push(first)).is_some()
    }

    /// Waits for one more publication; `false` when the batch is full or its time is over. A batch that
    /// was full once takes what is there already, and does not wait.
    pub(super) async fn grow(&mut self) -> bool {
        if !self.is_full()
            && let Ok(Some(next)) = tokio::time::timeout_at(self.end, self.upcoming.recv()).await
        {
            self.push(next);
            return true;
        }
        let now = Instant::now();
        self.end = self.end.min(now);
        self.earliest_next_end = now + self.interval;
        false
    }

    fn is_full(&self) -> bool {
        self.records >= self.max_records || self.bytes >= MOST_BYTES
    }

    fn push(&mut self, publication: Publication<Token>) {
        self.records += publication.records.len();
        self.bytes += size_bytes(&publication);
        self.publications.push(publication);
    }

    /// Leaves out those whose inputs another member owns by now.
    pub(super) fn retain_current(&mut self, ledger: &OffsetLedger) {
        self.retain(|publication| publication.is_current(ledger));
    }

    fn retain(&mut self, keep: impl Fn(&Publication<Token>) -> bool) {
        let all = self.take();
        for publication in all.into_iter().filter(keep) {
            self.push(publication);
        }
    }

    pub(super) fn publications(&self) -> &[Publication<Token>] {
        &self.publications
    }

    pub(super) fn publications_mut(&mut self) -> &mut [Publication<Token>] {
        &mut self.publications
    }

    /// Empties the batch.
    pub(super) fn take(&mut self) -> Vec<Publication<Token>> {
        (self.records, self.bytes) = (0, 0);
        std::mem::take(&mut self.publications)
    }
}

fn size_bytes<Token>(publication: &Publication<Token>) -> usize {
    let closure = publication.closure.iter().map(OutboundRecord::size_bytes);
    let records = publication.records.iter();
    let records = records.map(|outgoing| outgoing.record.size_bytes());
    records.chain(closure).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Topic;
    use crate::kafka::publisher::Outgoing;

    /// No test waits for it.
    const INTERVAL: Duration = Duration::from_hours(1);

    fn publication(number: usize) -> Publication<usize> {
        let record = OutboundRecord {
            topic: Topic::from("results"),
            partition: None,
            key: None,
            value: Some(vec![7; 100]),
            headers: Vec::new(),
        };
        Publication {
            records: vec![Outgoing {
                record,
                smaller: Box::new(|_| None),
            }],
            closure: None,
            finishes: Vec::new(),
            token: number,
        }
    }

    fn batch(publications: usize, max_records: usize) -> TransactionBatch<usize> {
        let (sender, receiver) = mpsc::channel(publications);
        for number in 0..publications {
            assert!(sender.try_send(publication(number)).is_ok());
        }
        TransactionBatch::new(receiver, INTERVAL, max_records)
    }

    /// The numbers of the next transaction's publications.
    async fn next(batch: &mut TransactionBatch<usize>) -> Vec<usize> {
        if batch.begin().await {
            while batch.grow().await {}
        }
        batch.take().iter().map(|one| one.token).collect()
    }

    #[tokio::test]
    async fn every_publication_goes_out_once_and_in_order_and_no_transaction_holds_too_many() {
        let mut batch = batch(7, 3);
        let mut transactions = Vec::new();
        loop {
            match next(&mut batch).await {
                none if none.is_empty() => break,
                some => transactions.push(some),
            }
        }
        assert_eq!(transactions, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    }

    #[tokio::test]
    async fn the_first_transaction_does_not_wait() {
        let (sender, receiver) = mpsc::channel(1);
        sender.send(publication(0)).await.unwrap();
        let mut batch = TransactionBatch::new(receiver, INTERVAL, 100);
        assert_eq!(next(&mut batch).await, [0]);
        drop(sender);
    }

    #[tokio::test]
    async fn a_transaction_that_is_made_again_does_not_wait() {
        let (sender, receiver) = mpsc::channel(4);
        let mut batch = TransactionBatch::new(receiver, INTERVAL, 2);
        for number in 0..3 {
            sender.send(publication(number)).await.unwrap();
        }
        assert_eq!(next(&mut batch).await, [0, 1]);
        assert!(batch.begin().await);
        sender.send(publication(3)).await.unwrap();
        assert!(batch.grow().await);
        assert!(!batch.grow().await, "it is full");
        batch.retain(|publication| publication.token != 3);
        assert!(!batch.is_full());
        assert!(
            !batch.grow().await,
            "nobody sends, and it is not waited for"
        );
    }
}
