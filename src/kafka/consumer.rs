//! The poll thread: the one place that reads camera topics.
//!
//! A [`CameraConsumer`] is an OS thread around a `BaseConsumer`. It polls for as long as it lives,
//! paused or not, so that a slow model never gets the member out of its group; it copies every
//! message out of librdkafka's fetch buffer, enters it into the [`OffsetLedger`], and hands it on
//! over a bounded channel. When that channel stays full, or memory is used up, it pauses every partition and goes on
//! polling. It commits the ledger's positions by interval, on revocation, and at the end, and waits
//! for each commit: `rdkafka` does not tell of asynchronous ones how they ended.
//!
//! Rebalance callbacks run inline in `poll` on this thread. Revocation waits for the stages
//! behind, for a bounded time, then commits and forgets. With `exactly_once` the publisher commits
//! instead, together with what it publishes.
//!
//! It is a thread and no task: a callback that waits on a thread of the runtime may wait for what that
//! thread should run. It polls all partitions from one queue, with a timeout: `rdkafka`'s streams, and
//! the queues that it splits off for single partitions, stop for good after one missed wake-up.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::client::BusSettings;
use super::closed_parts::{ClosedParts, ClosedPartsError, ClosedPartsTopic};
use super::commit_metadata::MOST_UNFINISHED;
use super::fetch_waker::FetchWaker;
use super::group_context::GroupContext;
use super::group_protocol::GroupProtocol;
use super::job_offsets::JobError;
use super::offsets::OffsetLedger;
use super::partition_counts::{CoPartitioning, Permission};
use super::partition_ends::PartitionEnds;
use super::pauses::Pauses;
use super::poll_loop::PollLoop;
use super::poll_report::SharedPollReport;
use super::read_range::ReadRange;
use super::static_member::StaticMember;
use super::stored_records::StoredError;
use super::throttle::Throttle;
use crate::domain::{MemoryBudget, PartClosure, Record, Reject, TopicPartition};

/// How long one poll waits: the latency of a pause, a commit or a stop on a silent bus.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long a full channel is waited for before every partition is paused. Pausing drops what
/// librdkafka has prefetched, so a short jam is better sat out.
pub(super) const JAM_PATIENCE: Duration = Duration::from_secs(1);

/// How long the last revocation, when the consumer closes, waits for an answer: by then the stages
/// have published what they had, or have been given up.
pub(super) const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

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

/// How often librdkafka reports positions; the ends of partitions are learnt from it, because its
/// end-of-partition event names no topic.
const STATISTICS_INTERVAL_MS: &str = "250";

/// How long a broker may hold a fetch that finds nothing. A broker answers one fetch of a client after the
/// other, so a partition that is resumed waits for the one that was sent without it: with librdkafka's
/// 500 ms that halved the pace of small views, of which partitions are paused for being crowded.
const LONGEST_FETCH_MS: &str = "50";

/// After how long librdkafka fetches again once its prefetch queue was full: with its own 1000 ms a queue
/// of a tenth of a second's images runs dry.
const FULL_QUEUE_PAUSE_MS: &str = "10";

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

/// What the poll thread says, in the order in which it happened.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// These partitions are ours from now on.
    Assigned {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Counts assignments; records carry it.
        generation: u64,
        /// Partitions of every camera topic, if that is known.
        count: Option<usize>,
        /// What earlier owners have closed of their parts, as far as it was not told before.
        closed: Vec<PartClosure>,
    },
    /// Partitions are known to hold records up to these offsets; where that is `i64::MAX`, until the end of
    /// their range is told.
    Expected(Vec<(TopicPartition, i64)>),
    /// A record was read and entered into the ledger.
    Record(Record),
    /// A record was read again that was finished under an earlier assignment.
    Finished(Record),
    /// A record was read and entered into the ledger, but not all of it can be had.
    Unreadable(Reject),
    /// Everything that the partition holds was read.
    EndOfPartition(TopicPartition),
    /// What a replay was to read of the partition is read: nothing follows.
    EndOfRange(TopicPartition),
    /// More may be written to the partition than can be seen: its leader is away. Told again and again.
    OutOfSight(TopicPartition),
    /// Too much of the partition is unfinished for it to be read on. Told again and again.
    Crowded {
        /// The partition.
        partition: TopicPartition,
        /// With how many unfinished records it is read again.
        few_enough: usize,
    },
    /// Too much of the partition is unfinished for it to be read on, and nothing of it finishes: its
    /// oldest parts must make way.
    Stuck {
        /// The partition.
        partition: TopicPartition,
        /// How many of its records may go on waiting for other views.
        may_wait: usize,
    },
    /// These partitions are lost; the thread waits (bounded) for `done` before it commits.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Whether none is left.
        is_all: bool,
        /// Answer here once the work in flight is published; dropped, when it will not be.
        done: std::sync::mpsc::Sender<()>,
    },
    /// No record will follow: the answer to [`ConsumerCommand::Drain`].
    Drained,
}

/// What the poll thread can be told.
#[derive(Debug)]
pub enum ConsumerCommand {
    /// Stop fetching from partitions of an assignment. It ends with the assignment.
    Pause {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// The assignment; under a later one this is out of date and nothing happens.
        generation: u64,
    },
    /// Fetch from partitions of an assignment again.
    Resume {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// As above.
        generation: u64,
    },
    /// Read no more records, but stay in the group.
    Drain,
    /// Commit, leave the group and end the thread.
    Close,
    /// The same where the producer was fenced; but first wait whether the consumer is as well.
    CloseFenced,
}

/// Why the poll thread ended early.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The consumer could not be made or subscribed.
    #[error("failed to subscribe group `{group_id}` to `{subscription}`: {source}")]
    Subscribe {
        /// Consumer group.
        group_id: String,
        /// What was subscribed to.
        subscription: String,
        /// librdkafka's reason.
        source: Box<KafkaError>,
    },
    /// The views of one part cannot meet.
    #[error(
        "expected all camera topics to have as many partitions as each other, found {0}; the views \
         of one part must lie on one partition number"
    )]
    UnequalPartitions(String),
    /// There is no place to start reading from.
    #[error(
        "a partition of the camera topics has no committed offset for this group, or one that is \
         no longer there, and the property `auto.offset.reset` is `error`; expected an offset to \
         be committed for the group, or the property to be `earliest` or `latest`"
    )]
    NoOffset,
    /// Nobody may go on from where the last owner is not known to have come.
    #[error("failed to learn what the group has committed: {0}")]
    UnknownCommits(KafkaError),
    /// Nobody may tell new parts from late views without.
    #[error(transparent)]
    UnknownClosedParts(#[from] ClosedPartsError),
    /// Two instances have one name.
    #[error(
        "another instance of group `{group_id}` has taken the `group.instance.id` `{instance_id}` of \
         this one; expected each running instance to have one of its own in `bus.properties`"
    )]
    FencedInstance {
        /// Consumer group.
        group_id: String,
        /// The name.
        instance_id: String,
    },
    /// The brokers keep the name for who had it last.
    #[error(
        "group `{group_id}` still has an instance with the `group.instance.id` `{instance_id}`; \
         expected no other to run with it, and the brokers' `group.consumer.session.timeout.ms` to be \
         over since one was killed"
    )]
    UnreleasedInstance {
        /// Consumer group.
        group_id: String,
        /// The name.
        instance_id: String,
    },
    /// A replay's job cannot be gone on with.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Records that are kept outside the brokers cannot be read.
    #[error(transparent)]
    Stored(StoredError),
    /// librdkafka says that the client instance is beyond repair.
    #[error("kafka consumer failed for good: {0}")]
    Fatal(String),
    /// The thread could not be started.
    #[error("failed to start the poll thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The ledger as the poll thread and the publisher share it.
pub type SharedLedger = Arc<Mutex<OffsetLedger>>;

/// Locks a mutex whose holders never leave it half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends an event unless the channel stays full for `patience`; then gives it back. Where nobody
/// reads any more the event is dropped: the pipeline is ending, and what is not published is not
/// committed either.
pub(super) fn send_within(
    events: &mpsc::Sender<ConsumerEvent>,
    runtime: &Handle,
    event: ConsumerEvent,
    patience: Duration,
) -> Option<ConsumerEvent> {
    match events.try_send(event) {
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
        Err(mpsc::error::TrySendError::Full(event)) => {
            let reserved =
                runtime.block_on(async { tokio::time::timeout(patience, events.reserve()).await });
            match reserved {
                Ok(Ok(permit)) => {
                    permit.send(event);
                    None
                }
                Ok(Err(_)) => None,
                Err(_) => Some(event),
            }
        }
    }
}

/// A running poll thread.
pub struct CameraConsumer {
    handle: ConsumerHandle,
    report: SharedPollReport,
    thread: thread::JoinHandle<Result<(), ConsumerError>>,
}

/// The thread's end of what connects it with the pipeline.
pub(super) struct ThreadLink {
    pub(super) commands: std::sync::mpsc::Receiver<ConsumerCommand>,
    pub(super) is_ending: Arc<AtomicBool>,
    pub(super) report: SharedPollReport,
}

/// Speaks to a poll thread.
#[derive(Clone, Debug)]
pub struct ConsumerHandle {
    commands: std::sync::mpsc::Sender<ConsumerCommand>,
    /// Told with a drain or a close, since a callback that waits for the brokers hears no command.
    is_ending: Arc<AtomicBool>,
}

impl ConsumerHandle {
    /// Tells the thread something; a thread that has ended is told nothing.
    pub fn command(&self, command: ConsumerCommand) {
        if !matches!(
            command,
            ConsumerCommand::Pause { .. } | ConsumerCommand::Resume { .. }
        ) {
            self.is_ending.store(true, Ordering::Relaxed);
        }
        if self.commands.send(command).is_err() {
            tracing::debug!("poll thread has ended, command dropped");
        }
    }
}

#[cfg(test)]
impl ConsumerHandle {
    /// A handle that speaks to the test.
    pub(crate) fn to_test() -> (Self, std::sync::mpsc::Receiver<ConsumerCommand>) {
        let (commands, received) = std::sync::mpsc::channel();
        let is_ending = Arc::default();
        (
            Self {
                commands,
                is_ending,
            },
            received,
        )
    }
}

impl CameraConsumer {
    /// Subscribes and starts the thread. Events stop when it ends.
    ///
    /// # Errors
    /// When a property is refused or the subscription is invalid.
    pub fn start(
        settings: ConsumerSettings,
        ledger: SharedLedger,
        budget: MemoryBudget,
        events: mpsc::Sender<ConsumerEvent>,
    ) -> Result<Self, ConsumerError> {
        let is_ending = Arc::new(AtomicBool::new(false));
        let report = SharedPollReport::default();
        let (commit_interval, transactions) = match settings.commits.clone() {
            Commits::Every(interval) => (Some(interval), None),
            Commits::InTransactions(settings) => (None, Some(settings)),
        };
        let closed_parts = ClosedParts::connect(
            &settings.bus,
            settings.closed_parts.clone(),
            settings.max_closed_parts,
        )
        .map_err(|source| subscribe_error(&settings, source))?;
        let context = GroupContext {
            ledger: Arc::clone(&ledger),
            events: events.clone(),
            runtime: Handle::current(),
            drain_timeout: settings.drain_timeout,
            protocol: GroupProtocol::of_bus(&settings.bus),
            generation: AtomicU64::new(0),
            subscription: settings.subscription.clone(),
            co_partitioning: Mutex::new(CoPartitioning::default()),
            permission: Mutex::new(Permission::Allowed),
            assignment: Mutex::new(HashSet::new()),
            undelivered: Mutex::new(VecDeque::new()),
            pauses: Mutex::new(Pauses::new(MOST_UNFINISHED, settings.crowd_patience)),
            is_halted: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            is_ending: Arc::clone(&is_ending),
            transactions,
            unlearnt: Mutex::new(None),
            closed_parts: Mutex::new(closed_parts),
            taken: AtomicU64::new(0),
            ends: Mutex::new(PartitionEnds::default()),
            ended: Mutex::new(Vec::new()),
            expected: Mutex::new(Vec::new()),
            crowded: Mutex::new(Vec::new()),
            range: settings.range.clone(),
            ended_ranges: Mutex::new(Vec::new()),
            out_of_sight: Mutex::new(Vec::new()),
            is_blind: AtomicBool::new(false),
            report: Arc::clone(&report),
        };
        if let (GroupProtocol::Consumer, Some(transactions)) =
            (context.protocol, &context.transactions)
        {
            transactions.membership.set_renewed();
        }
        if settings.range.is_some() {
            lock(&ledger).tell_skipped();
        }
        let consumer = Arc::new(subscribe(&settings, context)?);
        let (commands, received) = std::sync::mpsc::channel();
        let throttle = settings
            .most_bytes_per_second
            .map(|rate| Throttle::new(rate, Instant::now()));
        let poll_loop = PollLoop {
            waker: FetchWaker::start(Arc::clone(&consumer))?,
            consumer,
            ledger,
            budget,
            events,
            runtime: Handle::current(),
            commit_interval,
            static_member: StaticMember::of(&settings),
            waiting: VecDeque::new(),
            is_jammed: false,
            used_up_at: None,
            is_drained: false,
            is_held: false,
            throttle,
        };
        let thread = thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(move || poll_loop.run(&received))?;
        Ok(Self {
            handle: ConsumerHandle {
                commands,
                is_ending,
            },
            report,
            thread,
        })
    }

    /// Another thread that says and is told the same.
    pub(super) fn of_thread(
        name: &str,
        run: impl FnOnce(ThreadLink) -> Result<(), ConsumerError> + Send + 'static,
    ) -> Result<Self, ConsumerError> {
        let (commands, received) = std::sync::mpsc::channel();
        let link = ThreadLink {
            commands: received,
            is_ending: Arc::default(),
            report: SharedPollReport::default(),
        };
        let handle = ConsumerHandle {
            commands,
            is_ending: Arc::clone(&link.is_ending),
        };
        let report = Arc::clone(&link.report);
        let thread = thread::Builder::new().name(name.into());
        Ok(Self {
            handle,
            report,
            thread: thread.spawn(move || run(link))?,
        })
    }

    /// A way to speak to the thread.
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// What the thread tells of itself.
    pub fn report(&self) -> SharedPollReport {
        Arc::clone(&self.report)
    }

    /// Commits, leaves the group and waits for the thread's end.
    ///
    /// # Errors
    /// What ended it early.
    pub fn close(self) -> Result<(), ConsumerError> {
        self.end(ConsumerCommand::Close)
    }

    /// As [`Self::close`], after the producer was fenced.
    ///
    /// # Errors
    /// [`ConsumerError::FencedInstance`] if another instance with this one's name did it.
    pub fn close_fenced(self) -> Result<(), ConsumerError> {
        self.end(ConsumerCommand::CloseFenced)
    }

    fn end(self, command: ConsumerCommand) -> Result<(), ConsumerError> {
        self.handle.command(command);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(ConsumerError::Fatal("the poll thread panicked".into())))
    }
}

fn subscribe(
    settings: &ConsumerSettings,
    context: GroupContext,
) -> Result<BaseConsumer<GroupContext>, ConsumerError> {
    let mut config = settings.bus.consumer_config();
    // Bytes bound the prefetch of images long before `queued.min.messages` does, and librdkafka bounds
    // a fetch by them, too. A record larger than `max.partition.fetch.bytes` comes alone: brokers send
    // the first one of a fetch whole, and librdkafka begins each fetch with another partition.
    let prefetch_kbytes = (settings.prefetch_bytes / 1024).clamp(1, 2_097_151);
    for (name, value) in [
        ("auto.offset.reset", "earliest"),
        ("queued.max.messages.kbytes", &prefetch_kbytes.to_string()),
        ("fetch.wait.max.ms", LONGEST_FETCH_MS),
        ("fetch.queue.backoff.ms", FULL_QUEUE_PAUSE_MS),
    ] {
        if !settings.bus.properties.contains_key(name) {
            config.set(name, value);
        }
    }
    context.protocol.ask_for_range(&mut config);
    config
        .set("group.id", &settings.group_id)
        // The ledger's positions are committed as they are. librdkafka's store of offsets adds one in
        // some calls and not in others.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    let failed = |source| subscribe_error(settings, source);
    let consumer: BaseConsumer<GroupContext> =
        config.create_with_context(context).map_err(failed)?;
    let topics: Vec<&str> = settings.subscription.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(failed)?;
    Ok(consumer)
}

fn subscribe_error(settings: &ConsumerSettings, source: KafkaError) -> ConsumerError {
    ConsumerError::Subscribe {
        group_id: settings.group_id.clone(),
        subscription: settings.subscription.join(", "),
        source: Box::new(source),
    }
}

#[cfg(test)]
#[path = "consumer_tests.rs"]
mod tests;
