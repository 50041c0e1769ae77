//! A source of records that are kept outside the brokers, for a replay.
//!
//! What is stored is read by whoever implements [`StoredRecords`]. All else is as with the poll thread:
//! the same events, the same ledger, the same commits, of the partitions that the records came from. But
//! no group shares them out: each instance is given its partitions, and one process has the job at a time
//! (`job_claim`).

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc;

use super::consumer::{CameraConsumer, SharedLedger};
use super::consumer_messages::{ConsumerError, ConsumerEvent};
use super::consumer_settings::ConsumerSettings;
use super::job_offsets::Job;
use super::stored_loop::StoredLoop;
use crate::domain::{MemoryBudget, RecordCopy, TopicPartition};

/// Why stored records cannot be read.
pub type StoredError = Box<dyn std::error::Error + Send + Sync>;

/// Records of partitions, those of each partition in the order of their offsets. Blocking.
pub trait StoredRecords: Send {
    /// Begins to read these offsets.
    ///
    /// # Errors
    /// When not all of them are stored.
    fn begin(&mut self, ranges: Vec<(TopicPartition, Range<i64>)>) -> Result<(), StoredError>;

    /// The next record of those partitions that may be read, which is waited for no longer than
    /// `patience`.
    ///
    /// # Errors
    /// When a record is damaged or missing.
    fn next(
        &mut self,
        may_read: &dyn Fn(&TopicPartition) -> bool,
        patience: Duration,
    ) -> Result<StoredReading, StoredError>;

    /// The partitions whose next record is there, and waits for those of others.
    fn ahead(&self) -> HashSet<TopicPartition>;
}

/// What one step of reading gave.
#[derive(Debug)]
pub enum StoredReading {
    /// A record.
    Record(Box<RecordCopy>),
    /// A partition is read to the end of its range.
    End(TopicPartition),
    /// Something is to be read, and did not come in time.
    Slow,
    /// No partition may be read that is not at its end.
    Nothing,
}

/// What an instance is to read, and for which job.
pub struct StoredSource {
    /// The job, claimed by this process.
    pub job: Arc<Job>,
    /// The partitions of this instance.
    pub partitions: Vec<TopicPartition>,
    /// How many partitions every camera topic has.
    pub partition_count: usize,
    /// Their records.
    pub records: Box<dyn StoredRecords>,
}

impl fmt::Debug for StoredSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("StoredSource");
        shown.field("partitions", &self.partitions);
        shown.finish_non_exhaustive()
    }
}

/// What the source shares with the stages behind it.
pub struct StoredLink {
    /// What is read and what is finished.
    pub ledger: SharedLedger,
    /// The memory of records that are alive.
    pub budget: MemoryBudget,
    /// Where events go.
    pub events: mpsc::Sender<ConsumerEvent>,
    /// Whether the publisher has ended what an earlier one of its name had left open: before that nobody
    /// knows how far the job is.
    pub publisher_is_initialised: Arc<AtomicBool>,
}

impl StoredSource {
    /// Starts a thread in place of the poll thread. Events stop when it ends.
    ///
    /// # Errors
    /// When a property is refused or the thread cannot be started.
    pub fn start(
        self,
        settings: &ConsumerSettings,
        link: StoredLink,
    ) -> Result<CameraConsumer, ConsumerError> {
        let loop_of_thread = StoredLoop::new(self, settings, link)?;
        CameraConsumer::of_thread("stored-records", |thread| loop_of_thread.run(thread))
    }
}
