//! The poll thread: the one place that reads camera topics.
//!
//! A [`CameraConsumer`] is an OS thread around a `BaseConsumer`. It polls for as long as it lives,
//! paused or not, so that a slow model never gets the member out of its group; it copies every
//! message out of librdkafka's fetch buffer, enters it into the [`OffsetLedger`], and hands it on
//! over a bounded channel. When that channel stays full it pauses every partition and goes on
//! polling. It commits the ledger's positions by interval, on revocation, and at the end.
//!
//! Rebalance callbacks run inline in `poll` on this thread. Revocation waits for the stages
//! behind, for a bounded time, then commits and forgets.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::client::{BusSettings, log_client_message};
use super::commit_metadata;
use super::offsets::{Begun, OffsetLedger};
use super::partition_counts::{describe_unequal_counts, fetch_partition_counts};
use crate::domain::{Header, MemoryBudget, Record, SourceOffset, Timestamp, Topic, TopicPartition};
use crate::telemetry;

/// How long one poll waits: the latency of a pause, a commit or a stop on a silent bus.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long a full channel is waited for before every partition is paused. Pausing drops what
/// librdkafka has prefetched, so a short jam is better sat out.
const JAM_PATIENCE: Duration = Duration::from_secs(1);

/// How long an assignment waits for each thing that it must learn from the brokers.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// How often librdkafka reports positions; the ends of partitions are learnt from it, because its
/// end-of-partition event names no topic.
const STATISTICS_INTERVAL_MS: &str = "250";

/// What the poll thread needs to know.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// The bus.
    pub bus: BusSettings,
    /// Consumer group.
    pub group_id: String,
    /// Topic names, or one regular expression that starts with `^`.
    pub subscription: Vec<String>,
    /// How often finished offsets are committed.
    pub commit_interval: Duration,
    /// How long revocation waits for work in flight.
    pub drain_timeout: Duration,
    /// Bound of librdkafka's prefetch queue.
    pub prefetch_bytes: u64,
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
    },
    /// A record was read and entered into the ledger.
    Record(Record),
    /// Everything that the partition holds was read.
    EndOfPartition(TopicPartition),
    /// These partitions are lost; the thread waits (bounded) for `done` before it commits.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Answer here once the work in flight is published.
        done: std::sync::mpsc::Sender<()>,
    },
    /// No record will follow: the answer to [`ConsumerCommand::Drain`].
    Drained,
}

/// What the poll thread can be told.
#[derive(Debug)]
pub enum ConsumerCommand {
    /// Stop fetching from these partitions.
    Pause(Vec<TopicPartition>),
    /// Fetch from these partitions again.
    Resume(Vec<TopicPartition>),
    /// Read no more records, but stay in the group.
    Drain,
    /// Commit, leave the group and end the thread.
    Close,
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

/// A running poll thread.
pub struct CameraConsumer {
    handle: ConsumerHandle,
    thread: thread::JoinHandle<Result<(), ConsumerError>>,
}

/// Speaks to a poll thread.
#[derive(Clone, Debug)]
pub struct ConsumerHandle {
    commands: std::sync::mpsc::Sender<ConsumerCommand>,
}

impl ConsumerHandle {
    /// Tells the thread something; a thread that has ended is told nothing.
    pub fn command(&self, command: ConsumerCommand) {
        if self.commands.send(command).is_err() {
            tracing::debug!("poll thread has ended, command dropped");
        }
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
        let context = GroupContext {
            ledger: Arc::clone(&ledger),
            events: events.clone(),
            runtime: Handle::current(),
            drain_timeout: settings.drain_timeout,
            generation: AtomicU64::new(0),
            commit_failed: AtomicBool::new(false),
            subscription: settings.subscription.clone(),
            unequal_partitions: Mutex::new(None),
            assignment: Mutex::new(HashSet::new()),
            ended: Mutex::new(Vec::new()),
        };
        let consumer = subscribe(&settings, context)?;
        let (commands, received) = std::sync::mpsc::channel();
        let poll_loop = PollLoop {
            consumer,
            ledger,
            budget,
            events,
            runtime: Handle::current(),
            commit_interval: settings.commit_interval,
            held: VecDeque::new(),
            paused_by_flow: HashSet::new(),
            is_jammed: false,
            is_drained: false,
        };
        let thread = thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(move || poll_loop.run(&received))?;
        Ok(Self {
            handle: ConsumerHandle { commands },
            thread,
        })
    }

    /// A way to speak to the thread.
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// Commits, leaves the group and waits for the thread's end.
    ///
    /// # Errors
    /// What ended it early.
    pub fn close(self) -> Result<(), ConsumerError> {
        self.handle.command(ConsumerCommand::Close);
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
    if !settings.bus.properties.contains_key("auto.offset.reset") {
        config.set("auto.offset.reset", "earliest");
    }
    if !settings
        .bus
        .properties
        .contains_key("queued.max.messages.kbytes")
    {
        let kbytes = (settings.prefetch_bytes / 1024).clamp(1, 2_097_151);
        config.set("queued.max.messages.kbytes", kbytes.to_string());
    }
    config
        .set("group.id", &settings.group_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // The views of one part lie on the same partition number of every camera topic; only
        // `range` gives them all to one member.
        .set("partition.assignment.strategy", "range")
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    let failed = |source: KafkaError| ConsumerError::Subscribe {
        group_id: settings.group_id.clone(),
        subscription: settings.subscription.join(", "),
        source: Box::new(source),
    };
    let consumer: BaseConsumer<GroupContext> =
        config.create_with_context(context).map_err(failed)?;
    let topics: Vec<&str> = settings.subscription.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(failed)?;
    Ok(consumer)
}

/// What the rebalance, commit and statistics callbacks share with the loop. They all run on the
/// poll thread, inside `poll`.
struct GroupContext {
    ledger: SharedLedger,
    events: mpsc::Sender<ConsumerEvent>,
    runtime: Handle,
    drain_timeout: Duration,
    generation: AtomicU64,
    commit_failed: AtomicBool,
    subscription: Vec<String>,
    unequal_partitions: Mutex<Option<String>>,
    assignment: Mutex<HashSet<TopicPartition>>,
    ended: Mutex<Vec<TopicPartition>>,
}

impl GroupContext {
    /// Sends an event unless the channel stays full past `deadline`; says whether it went.
    fn send_until(&self, event: ConsumerEvent, deadline: Instant) -> bool {
        let patience = deadline.saturating_duration_since(Instant::now());
        let sent = self
            .runtime
            .block_on(async { tokio::time::timeout(patience, self.events.send(event)).await });
        matches!(sent, Ok(Ok(())))
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions = partitions_of(list);
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        // A pause survives reassignment in librdkafka; a new owner starts unpaused.
        if let Err(error) = consumer.resume(list) {
            tracing::warn!(%error, "failed to resume newly assigned partitions");
        }
        tracing::info!(
            generation,
            partitions = partitions.len(),
            "partitions assigned"
        );
        telemetry::rebalanced(telemetry::Rebalance::Assigned);
        let mut assignment = lock(&self.assignment);
        assignment.extend(partitions.iter().cloned());
        telemetry::set_assigned_partitions(assignment.len());
        drop(assignment);
        lock(&self.ledger).assign(partitions.iter().cloned(), generation);
        self.restore_finished(consumer, list);
        self.check_partition_counts(consumer);
        let event = ConsumerEvent::Assigned {
            partitions,
            generation,
        };
        if !self.send_until(event, Instant::now() + self.drain_timeout) {
            tracing::error!(
                generation,
                "the stages behind did not take the assignment in time"
            );
        }
    }

    /// Notes unequal partition counts for the poll loop to end on.
    fn check_partition_counts(&self, consumer: &BaseConsumer<Self>) {
        match fetch_partition_counts(consumer, &self.subscription, METADATA_TIMEOUT) {
            Ok(counts) => *lock(&self.unequal_partitions) = describe_unequal_counts(&counts),
            Err(error) => tracing::warn!(%error, "failed to compare partition counts"),
        }
    }

    /// Learns what earlier owners finished above the committed positions. Where that cannot be
    /// learnt, parts that they published may be scored again.
    fn restore_finished(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let committed = match consumer.committed_offsets(list.clone(), METADATA_TIMEOUT) {
            Ok(committed) => committed,
            Err(error) => {
                tracing::warn!(%error, "failed to read what is committed; parts may be scored again");
                return;
            }
        };
        let mut ledger = lock(&self.ledger);
        for element in committed.elements() {
            let Offset::Offset(position) = element.offset() else {
                continue;
            };
            let partition = TopicPartition {
                topic: Topic::new(element.topic()),
                partition: element.partition(),
            };
            let finished = commit_metadata::decode(position, element.metadata());
            ledger.restore(&partition, position, &finished);
        }
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions = partitions_of(list);
        let deadline = Instant::now() + self.drain_timeout;
        let (done, answered) = std::sync::mpsc::channel();
        let event = ConsumerEvent::Revoked {
            partitions: partitions.clone(),
            done,
        };
        let is_drained = self.send_until(event, deadline)
            && answered
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .is_ok();
        tracing::info!(
            partitions = partitions.len(),
            is_drained,
            "partitions revoked"
        );
        if consumer.assignment_lost() {
            telemetry::rebalanced(telemetry::Rebalance::Lost);
            tracing::warn!("assignment lost: another member owns it already, nothing to commit");
        } else {
            telemetry::rebalanced(telemetry::Rebalance::Revoked);
            if let Err(error) = commit(consumer, &self.ledger, CommitMode::Sync) {
                tracing::warn!(%error, "failed to commit revoked partitions; they will be read again");
            }
        }
        lock(&self.ledger).revoke(&partitions);
        let mut assignment = lock(&self.assignment);
        assignment.retain(|assigned| !partitions.contains(assigned));
        telemetry::set_assigned_partitions(assignment.len());
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_client_message(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka consumer error");
    }

    fn stats(&self, statistics: Statistics) {
        let assignment = lock(&self.assignment);
        let mut ended = lock(&self.ended);
        ended.clear();
        for (name, topic) in &statistics.topics {
            let topic_name = Topic::new(name.as_str());
            for (number, partition) in &topic.partitions {
                let topic_partition = TopicPartition {
                    topic: topic_name.clone(),
                    partition: *number,
                };
                if !assignment.contains(&topic_partition) {
                    continue;
                }
                // read_committed fetches as far as the last stable offset.
                let end = if partition.ls_offset >= 0 {
                    partition.ls_offset
                } else {
                    partition.hi_offset
                };
                let is_read = partition.fetchq_cnt == 0 && partition.next_offset >= end;
                if end >= 0 && is_read {
                    ended.push(topic_partition);
                }
            }
        }
    }
}

impl ConsumerContext for GroupContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            self.revoked(consumer, list);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.assigned(consumer, list),
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::error!(%error, "rebalance failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::warn!(%error, "offset commit failed; it is tried again");
            telemetry::commit_failed();
            self.commit_failed.store(true, Ordering::Relaxed);
        }
    }

    fn main_queue_min_poll_interval(&self) -> rdkafka::util::Timeout {
        POLL_INTERVAL.into()
    }
}

struct PollLoop {
    consumer: BaseConsumer<GroupContext>,
    ledger: SharedLedger,
    budget: MemoryBudget,
    events: mpsc::Sender<ConsumerEvent>,
    runtime: Handle,
    commit_interval: Duration,
    /// Events that found the channel full, oldest first.
    held: VecDeque<ConsumerEvent>,
    paused_by_flow: HashSet<TopicPartition>,
    is_jammed: bool,
    is_drained: bool,
}

impl PollLoop {
    fn run(
        mut self,
        commands: &std::sync::mpsc::Receiver<ConsumerCommand>,
    ) -> Result<(), ConsumerError> {
        let mut committed_at = Instant::now();
        loop {
            if self.apply_commands(commands) {
                return self.close();
            }
            self.poll_once()?;
            if let Some(counts) = lock(&self.consumer.context().unequal_partitions).take() {
                return Err(ConsumerError::UnequalPartitions(counts));
            }
            self.hand_on();
            if committed_at.elapsed() >= self.commit_interval {
                self.commit_finished();
                committed_at = Instant::now();
            }
        }
    }

    /// Applies what was asked for; true when the thread should end.
    fn apply_commands(&mut self, commands: &std::sync::mpsc::Receiver<ConsumerCommand>) -> bool {
        loop {
            match commands.try_recv() {
                Ok(ConsumerCommand::Pause(partitions)) => {
                    self.pause(&partitions);
                    self.paused_by_flow.extend(partitions);
                }
                Ok(ConsumerCommand::Resume(partitions)) => {
                    for partition in &partitions {
                        self.paused_by_flow.remove(partition);
                    }
                    if !self.is_jammed && !self.is_drained {
                        self.resume(&partitions);
                    }
                }
                Ok(ConsumerCommand::Drain) => self.drain(),
                Ok(ConsumerCommand::Close) | Err(std::sync::mpsc::TryRecvError::Disconnected) => {
                    return true;
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => return false,
            }
        }
    }

    fn poll_once(&mut self) -> Result<(), ConsumerError> {
        match self.consumer.poll(POLL_INTERVAL) {
            Some(Ok(message)) => {
                if self.is_drained {
                    return Ok(()); // read, never begun: it stays uncommitted
                }
                let generation = self.consumer.context().generation.load(Ordering::Relaxed);
                let record = copy_record(&message, generation, &self.budget);
                telemetry::record_read(&record.source.topic, record.size_bytes());
                if lock(&self.ledger).begin(&record.source) == Begun::Fresh {
                    self.held.push_back(ConsumerEvent::Record(record));
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => {
                if let Some((code, reason)) = self.consumer.client().fatal_error() {
                    return Err(ConsumerError::Fatal(format!("{reason} ({code})")));
                }
                tracing::warn!(%error, "kafka poll failed; librdkafka goes on by itself");
            }
        }
        if self.is_drained {
            return Ok(());
        }
        let ended = std::mem::take(&mut *lock(&self.consumer.context().ended));
        if self.held.is_empty() {
            self.held
                .extend(ended.into_iter().map(ConsumerEvent::EndOfPartition));
        }
        Ok(())
    }

    /// Hands held events on; a jam pauses everything until the channel has room again.
    fn hand_on(&mut self) {
        let jammed_since = Instant::now();
        while let Some(event) = self.held.pop_front() {
            let patience = if self.is_jammed {
                POLL_INTERVAL
            } else {
                JAM_PATIENCE.saturating_sub(jammed_since.elapsed())
            };
            match self.send_within(event, patience) {
                None => {}
                Some(event) => {
                    self.held.push_front(event);
                    if !self.is_jammed {
                        self.is_jammed = true;
                        tracing::debug!("stages behind are full: every partition paused");
                        self.pause(&self.assigned());
                    }
                    return;
                }
            }
        }
        if self.is_jammed {
            self.is_jammed = false;
            let wanted: Vec<_> = self
                .assigned()
                .into_iter()
                .filter(|partition| !self.paused_by_flow.contains(partition))
                .collect();
            if !self.is_drained {
                self.resume(&wanted);
            }
        }
    }

    /// Gives the event back when the channel had no room in time.
    fn send_within(&self, event: ConsumerEvent, patience: Duration) -> Option<ConsumerEvent> {
        match self.events.try_send(event) {
            Ok(()) => return None,
            // Nobody reads any more: the pipeline is ending, and what is not published is not
            // committed either.
            Err(mpsc::error::TrySendError::Closed(_)) => return None,
            Err(mpsc::error::TrySendError::Full(event)) => {
                let reserved = self.runtime.block_on(async {
                    tokio::time::timeout(patience, self.events.reserve()).await
                });
                match reserved {
                    Ok(Ok(permit)) => permit.send(event),
                    Ok(Err(_)) => {}
                    Err(_) => return Some(event),
                }
            }
        }
        None
    }

    fn drain(&mut self) {
        self.is_drained = true;
        self.pause(&self.assigned());
        self.held
            .retain(|event| !matches!(event, ConsumerEvent::EndOfPartition(_)));
        self.held.push_back(ConsumerEvent::Drained);
    }

    fn close(self) -> Result<(), ConsumerError> {
        if let Err(error) = commit(&self.consumer, &self.ledger, CommitMode::Sync) {
            tracing::warn!(%error, "last commit failed; unfinished work will be read again");
        }
        drop(self.consumer); // leaves the group
        Ok(())
    }

    fn commit_finished(&self) {
        telemetry::set_uncommitted_records(lock(&self.ledger).total_in_flight());
        if self
            .consumer
            .context()
            .commit_failed
            .swap(false, Ordering::Relaxed)
        {
            lock(&self.ledger).forget_committed();
        }
        if let Err(error) = commit(&self.consumer, &self.ledger, CommitMode::Async) {
            tracing::warn!(%error, "failed to start an offset commit");
            telemetry::commit_failed();
        }
        telemetry::set_uncommitted_records(lock(&self.ledger).total_in_flight());
    }

    fn assigned(&self) -> Vec<TopicPartition> {
        lock(&self.consumer.context().assignment)
            .iter()
            .cloned()
            .collect()
    }

    fn pause(&self, partitions: &[TopicPartition]) {
        if let Err(error) = self.consumer.pause(&self.still_assigned(partitions)) {
            tracing::warn!(%error, "failed to pause partitions");
        }
    }

    fn resume(&self, partitions: &[TopicPartition]) {
        if let Err(error) = self.consumer.resume(&self.still_assigned(partitions)) {
            tracing::warn!(%error, "failed to resume partitions");
        }
    }

    fn still_assigned(&self, partitions: &[TopicPartition]) -> TopicPartitionList {
        let assignment = lock(&self.consumer.context().assignment);
        let mut list = TopicPartitionList::new();
        for partition in partitions.iter().filter(|one| assignment.contains(one)) {
            list.add_partition(partition.topic.as_str(), partition.partition);
        }
        list
    }
}

/// Commits every position that moved since the last commit.
fn commit(
    consumer: &BaseConsumer<GroupContext>,
    ledger: &SharedLedger,
    mode: CommitMode,
) -> KafkaResult<()> {
    let positions = lock(ledger).positions_to_commit();
    if positions.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::new();
    for commit in &positions {
        let partition = &commit.partition;
        let mut element = list.add_partition(partition.topic.as_str(), partition.partition);
        element.set_offset(Offset::Offset(commit.position))?;
        element.set_metadata(commit_metadata::encode(commit.position, &commit.finished));
    }
    match consumer.commit(&list, mode) {
        Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {
            lock(ledger).mark_committed(&positions);
            telemetry::offsets_committed();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| TopicPartition {
            topic: Topic::new(element.topic()),
            partition: element.partition(),
        })
        .collect()
}

/// Copies a message out of librdkafka: a borrowed one pins its whole fetch buffer.
fn copy_record(message: &BorrowedMessage<'_>, generation: u64, budget: &MemoryBudget) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| Header {
                name: header.key.to_owned(),
                value: header.value.map(<[u8]>::to_vec),
            })
            .collect()
    });
    let mut record = Record {
        source: SourceOffset {
            topic: Topic::new(message.topic()),
            partition: message.partition(),
            offset: message.offset(),
        },
        generation,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp: message.timestamp().to_millis().map(Timestamp),
        lease: None,
    };
    record.lease = Some(budget.lease(record.size_bytes()));
    record
}
