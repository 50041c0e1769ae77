//! What the poll thread needs to know, and how long it may take over what it must learn.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::consumer::ConsumerGroupMetadata;

use super::client::BusSettings;
use super::closed_parts::ClosedPartsTopic;
use super::consumer::lock;
use super::read_range::ReadRange;

/// How long an assignment waits for each of the three things that it must learn from the brokers
/// (what is committed, how many partitions there are, which parts are closed); for what is committed
/// longer by twice the time of a transaction, which may have to end first.
pub(crate) const METADATA_TIMEOUT: Duration = Duration::from_secs(6);

/// How long it waits for where its partitions end. Without that they are read all the same.
pub(super) const ENDS_TIMEOUT: Duration = Duration::from_secs(1);

/// The time of all four.
pub(crate) const LEARNING_TIMEOUT: Duration = METADATA_TIMEOUT
    .saturating_mul(3)
    .saturating_add(ENDS_TIMEOUT);

/// What the poll thread needs to know.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// The bus.
    pub bus: BusSettings,
    /// Consumer group.
    pub group_id: String,
    /// Topic names, or one regular expression that starts with `^`.
    pub subscription: Vec<String>,
    /// Who commits finished offsets.
    pub commits: Commits,
    /// Where it is told which parts are closed.
    pub closed_parts: ClosedPartsTopic,
    /// The most closed parts that are worth learning of.
    pub max_closed_parts: usize,
    /// How long revocation waits for work in flight.
    pub drain_timeout: Duration,
    /// How long a partition may be paused because too much of it is unfinished, with nothing of it
    /// finishing, before its oldest parts must make way.
    pub crowd_patience: Duration,
    /// Bound of librdkafka's prefetch queue.
    pub prefetch_bytes: u64,
    /// Where reading ends, for a replay.
    pub range: Option<Arc<ReadRange>>,
    /// The most bytes that are read in a second, for a replay.
    pub most_bytes_per_second: Option<u64>,
}

impl ConsumerSettings {
    /// How long the poll thread may be busy with one rebalance: it waits for the work in flight, then
    /// learns what it must know of its new partitions.
    pub fn longest_rebalance(&self) -> Duration {
        let last_owner = match &self.commits {
            Commits::Every(_) => Duration::ZERO,
            Commits::InTransactions(settings) => 2 * settings.timeout,
        };
        self.drain_timeout + last_owner + LEARNING_TIMEOUT
    }
}

/// Who commits finished offsets.
#[derive(Clone, Debug)]
pub enum Commits {
    /// The consumer, this often.
    Every(Duration),
    /// The publisher, in one transaction with results and dead letters.
    InTransactions(TransactionSettings),
}

/// How transactions are made; consumer and publisher share it.
#[derive(Clone, Debug)]
pub struct TransactionSettings {
    /// Names the producer to the brokers; no two running instances may have the same.
    pub transactional_id: String,
    /// The time from one transaction to the next, at least: what comes meanwhile shares the next.
    pub interval: Duration,
    /// The most records of one transaction, as far as a publication has not more.
    pub max_records: usize,
    /// How long a transaction may be open.
    pub timeout: Duration,
    /// Told by the consumer.
    pub membership: Membership,
}

/// Membership of the group as of the last assignment (or later, where the brokers assign), by which
/// they refuse the offsets of a member that is none any more (KIP-447).
#[derive(Clone, Default)]
pub struct Membership {
    metadata: Arc<Mutex<Option<Arc<ConsumerGroupMetadata>>>>,
    is_renewed: Arc<AtomicBool>,
}

impl Membership {
    /// As it was told last; none before the first assignment.
    pub(super) fn get(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        lock(&self.metadata).clone()
    }

    /// Whether it may be out of date though no partition is lost, and is told anew all the time:
    /// what the brokers refuse for it is then to be tried again.
    pub(super) fn is_renewed(&self) -> bool {
        self.is_renewed.load(Ordering::Relaxed)
    }

    pub(super) fn set_renewed(&self) {
        self.is_renewed.store(true, Ordering::Relaxed);
    }

    pub(super) fn set(&self, membership: Option<ConsumerGroupMetadata>) {
        *lock(&self.metadata) = membership.map(Arc::new);
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Membership").finish_non_exhaustive()
    }
}
