//! The loop of the poll thread: commands, one poll, handing on, commits by interval.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::consumer::{POLL_INTERVAL, SharedLedger, lock, send_within};
use super::consumer_messages::{ConsumerCommand, ConsumerError, ConsumerEvent};
use super::fetch_waker::FetchWaker;
use super::group_context::GroupContext;
use super::group_protocol::GroupProtocol;
use super::offsets::Begun;
use super::partition_counts::Permission;
use super::record_copy::{CopiedRecord, copy_record};
use super::static_member::StaticMember;
use super::throttle::Throttle;
use crate::domain::{MemoryBudget, Record, Reject, RejectReason, TopicPartition};
use crate::telemetry;

/// How long one poll waits while a partition is crowded: it is read again as soon as half is finished, and
/// that wakes no poll.
pub(super) const CROWDED_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How often the number of unfinished records is reported where the publisher commits.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked whether partitions that must not be read may be.
const JUDGE_INTERVAL: Duration = Duration::from_secs(5);

/// How the thread is to end.
enum Ending {
    Close,
    CloseFenced,
}

/// The state of the poll thread between two polls.
pub(super) struct PollLoop {
    /// Dropped before the consumer, which then is nobody else's.
    pub(super) waker: FetchWaker,
    pub(super) consumer: Arc<BaseConsumer<GroupContext>>,
    pub(super) ledger: SharedLedger,
    pub(super) budget: MemoryBudget,
    pub(super) events: mpsc::Sender<ConsumerEvent>,
    pub(super) runtime: Handle,
    /// None where the publisher commits.
    pub(super) commit_interval: Option<Duration>,
    /// Where the member has a name of its own.
    pub(super) static_member: Option<StaticMember>,
    /// Events that found the channel full, oldest first.
    pub(super) waiting: VecDeque<ConsumerEvent>,
    pub(super) is_jammed: bool,
    /// When memory was last seen used up.
    pub(super) used_up_at: Option<Instant>,
    pub(super) is_drained: bool,
    /// Views of one part may not meet, so that nothing is read.
    pub(super) is_held: bool,
    pub(super) throttle: Option<Throttle>,
    /// Everything is paused for the throttle.
    pub(super) is_throttled: bool,
}

impl PollLoop {
    pub(super) fn run(
        mut self,
        commands: &std::sync::mpsc::Receiver<ConsumerCommand>,
    ) -> Result<(), ConsumerError> {
        telemetry::set_reading_held(false); // a pipeline before this one may have left it so
        let mut committed_at = Instant::now();
        let mut judged_at = Instant::now();
        let mut renewed_at = Instant::now();
        loop {
            match self.apply_commands(commands) {
                None => {}
                Some(Ending::Close) => return self.close(),
                Some(Ending::CloseFenced) => return self.close_fenced(),
            }
            self.heed_throttle();
            self.poll_once()?;
            fail::fail_point!("poll-thread"); // a test makes it hang
            self.report();
            self.relieve();
            let context = self.consumer.context();
            let is_held = !context.may_read() && !self.is_drained;
            if is_held && judged_at.elapsed() >= JUDGE_INTERVAL {
                let assignment = lock(&context.assignment).clone();
                context.judge_partitions(&self.consumer, &assignment);
                judged_at = Instant::now();
            }
            if context.protocol == GroupProtocol::Consumer && renewed_at.elapsed() >= POLL_INTERVAL
            {
                context.renew_membership(&self.consumer);
                renewed_at = Instant::now();
            }
            self.heed_hold();
            if let Permission::Refused(counts) = &*lock(&self.consumer.context().permission)
                && !self.is_drained
            {
                return Err(ConsumerError::UnequalPartitions(counts.clone()));
            }
            if let Some(error) = lock(&self.consumer.context().unlearnt).take() {
                return Err(error);
            }
            self.hand_on();
            let interval = self.commit_interval.unwrap_or(REPORT_INTERVAL);
            if committed_at.elapsed() >= interval {
                self.commit_finished();
                committed_at = Instant::now();
            }
        }
    }

    /// Applies what was asked for; says so when the thread should end.
    fn apply_commands(
        &mut self,
        commands: &std::sync::mpsc::Receiver<ConsumerCommand>,
    ) -> Option<Ending> {
        loop {
            match commands.try_recv() {
                Ok(ConsumerCommand::Pause {
                    mut partitions,
                    generation,
                }) => {
                    self.retain_known(&mut partitions, generation);
                    self.pause(&partitions);
                    lock(&self.consumer.context().pauses).pause_for_memory(&partitions);
                }
                Ok(ConsumerCommand::Resume {
                    mut partitions,
                    generation,
                }) => {
                    self.retain_known(&mut partitions, generation);
                    let free = lock(&self.consumer.context().pauses).resume_for_memory(&partitions);
                    self.resume_unless_halted(&free);
                }
                Ok(ConsumerCommand::Drain) => self.drain(),
                Ok(ConsumerCommand::Close) | Err(std::sync::mpsc::TryRecvError::Disconnected) => {
                    return Some(Ending::Close);
                }
                Ok(ConsumerCommand::CloseFenced) => return Some(Ending::CloseFenced),
                Err(std::sync::mpsc::TryRecvError::Empty) => return None,
            }
        }
    }

    /// Keeps those partitions that were assigned when `generation` was, and are no later one's.
    fn retain_known(&self, partitions: &mut Vec<TopicPartition>, generation: u64) {
        let ledger = lock(&self.ledger);
        let is_known = |partition: &TopicPartition| {
            let held = ledger.generation(partition);
            held.is_some_and(|held| held <= generation)
        };
        partitions.retain(is_known);
    }

    fn report(&self) {
        let mut report = lock(&self.consumer.context().report);
        report.turned_at = Instant::now();
        report.reading = self.reading();
    }

    fn poll_once(&mut self) -> Result<(), ConsumerError> {
        if let Some(wait) = self.throttled()
            && !self.is_throttled
        {
            std::thread::sleep(wait.min(POLL_INTERVAL));
            return Ok(());
        }
        let interval = match lock(&self.consumer.context().pauses).is_any_crowded() {
            true => CROWDED_POLL_INTERVAL,
            false => POLL_INTERVAL,
        };
        let consumer = Arc::clone(&self.consumer); // the message borrows from it
        let polled = consumer.poll(interval);
        // The news was told before the message was taken, so it goes before it.
        self.take_news();
        match polled {
            Some(Ok(message)) => {
                self.consumer
                    .context()
                    .taken
                    .fetch_add(1, Ordering::Relaxed);
                if self.is_drained {
                    return Ok(()); // read, never begun: it stays uncommitted
                }
                let CopiedRecord { mut record, fault } = copy_record(&message);
                telemetry::record_read(&record.source.topic, record.size_bytes());
                if let Some(throttle) = &mut self.throttle {
                    throttle.take(record.size_bytes(), Instant::now());
                }
                let partition = record.source.topic_partition();
                if self.is_out_of_range(&partition, record.source.offset) {
                    self.end_range(partition);
                    return Ok(());
                }
                let mut ledger = lock(&self.ledger);
                record.generation = ledger.generation(&partition).unwrap_or_default();
                let begun = ledger.begin(&record.source);
                let unfinished = ledger.in_flight(&partition);
                drop(ledger);
                self.crowd(partition, unfinished);
                self.waiting
                    .extend(read_event(record, fault, begun, &self.budget));
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                return Err(ConsumerError::NoOffset);
            }
            Some(Err(error)) => {
                if let Some(fatal) = self.fatal_error() {
                    return Err(fatal);
                }
                tracing::warn!(%error, "kafka poll failed; librdkafka goes on by itself");
            }
        }
        Ok(())
    }

    fn take_news(&mut self) {
        let context = self.consumer.context();
        let news = std::mem::take(&mut *lock(&context.news));
        if !self.waiting.is_empty() || self.is_drained {
            return; // the next statistics tell it again
        }
        let pauses = lock(&context.pauses);
        let ended = pauses.seen_ends(news.ended);
        let few_enough = pauses.few_enough();
        drop(pauses);
        let crowded = news.crowded.into_iter();
        let crowded = crowded.map(|partition| ConsumerEvent::Crowded {
            partition,
            few_enough,
        });
        let ended = ended.into_iter().map(ConsumerEvent::EndOfPartition);
        let out_of_sight = news.out_of_sight.into_iter();
        self.waiting.extend(ended);
        self.waiting.extend(crowded);
        if !news.expected.is_empty() {
            self.waiting
                .push_back(ConsumerEvent::Expected(news.expected));
        }
        self.waiting
            .extend(out_of_sight.map(ConsumerEvent::OutOfSight));
        for partition in news.ended_ranges {
            self.end_range(partition);
        }
    }

    fn is_out_of_range(&self, partition: &TopicPartition, offset: i64) -> bool {
        let range = self.consumer.context().range.as_ref();
        range.is_some_and(|range| offset >= range.end(partition))
    }

    /// Leaves a partition of which all that a replay was to read is read, and says so once.
    fn end_range(&mut self, partition: TopicPartition) {
        let context = self.consumer.context();
        let Some(range) = &context.range else { return };
        if lock(&context.pauses).end_range(&partition) {
            lock(&self.ledger).read_until(&partition, range.end(&partition));
            self.pause(std::slice::from_ref(&partition));
            self.waiting.push_back(ConsumerEvent::EndOfRange(partition));
        }
    }

    fn fatal_error(&self) -> Option<ConsumerError> {
        let (code, reason) = self.consumer.client().fatal_error()?;
        let of_name = self.static_member.as_ref();
        let of_name = of_name.and_then(|member| member.error(code));
        Some(of_name.unwrap_or_else(|| ConsumerError::Fatal(format!("{reason} ({code})"))))
    }

    /// Sends what waits, in order; false when something is left at the deadline.
    pub(super) fn send_waiting(&mut self, deadline: Instant) -> bool {
        if !self.consumer.context().deliver_waiting(deadline) {
            return false;
        }
        while let Some(event) = self.waiting.pop_front() {
            if self.events.capacity() == 0 {
                lock(&self.consumer.context().report).full_at = Some(Instant::now());
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            if let Some(event) = send_within(&self.events, &self.runtime, event, patience) {
                self.waiting.push_front(event);
                return false;
            }
        }
        true
    }

    fn drain(&mut self) {
        self.is_drained = true;
        self.set_jammed(self.is_jammed);
        self.pause(&self.assigned());
        let is_on_its_way = |event: &ConsumerEvent| {
            !matches!(
                event,
                ConsumerEvent::EndOfPartition(_)
                    | ConsumerEvent::Expected(_)
                    | ConsumerEvent::Crowded { .. }
                    | ConsumerEvent::OutOfSight(_)
            )
        };
        self.waiting.retain(is_on_its_way);
        self.waiting.push_back(ConsumerEvent::Drained);
    }

    /// Closes once it is known whether the consumer is fenced as the producer was: with the next
    /// heartbeat, if by an instance of the same name. What is read meanwhile stays uncommitted.
    fn close_fenced(self) -> Result<(), ConsumerError> {
        let patience = self.static_member.as_ref();
        let patience = patience.map_or(Duration::ZERO, StaticMember::fencing_patience);
        let deadline = Instant::now() + patience;
        let is_closing = &self.consumer.context().is_closing;
        is_closing.store(true, Ordering::Relaxed);
        let mut fenced = None;
        while fenced.is_none() && Instant::now() < deadline {
            self.consumer.poll(POLL_INTERVAL);
            fenced = self.fatal_error();
        }
        self.close()?;
        fenced.map_or(Ok(()), Err)
    }

    fn close(self) -> Result<(), ConsumerError> {
        let context = self.consumer.context();
        context.is_closing.store(true, Ordering::Relaxed);
        if let Err(error) = context.commit(&self.consumer) {
            tracing::warn!(%error, "last commit failed; unfinished work will be read again");
        }
        // Leaves the group. `rdkafka` waits for that without a deadline; the pipeline has one.
        drop(self.waker);
        drop(self.consumer);
        Ok(())
    }

    fn commit_finished(&self) {
        telemetry::set_uncommitted_records(lock(&self.ledger).total_in_flight());
        if let Err(error) = self.consumer.context().commit(&self.consumer) {
            tracing::warn!(%error, "offset commit failed; it is tried again");
        }
        telemetry::set_uncommitted_records(lock(&self.ledger).total_in_flight());
    }
}

/// What to tell of a record that was read, if anything.
pub(super) fn read_event(
    mut record: Record,
    fault: Option<String>,
    begun: Begun,
    budget: &MemoryBudget,
) -> Option<ConsumerEvent> {
    record.lease = Some(budget.lease(record.size_bytes()));
    match (begun, fault) {
        (Begun::Fresh, None) => Some(ConsumerEvent::Record(record)),
        (Begun::Fresh, Some(error)) => Some(ConsumerEvent::Unreadable(Reject {
            record: Arc::new(record),
            reason: RejectReason::Decode,
            error,
        })),
        (Begun::Finished, None) => Some(ConsumerEvent::Finished(record)),
        (Begun::Finished, Some(_)) | (Begun::InFlight | Begun::Unassigned, _) => None,
    }
}
