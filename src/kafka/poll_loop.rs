//! The loop of the poll thread: commands, one poll, handing on, commits by interval.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::consumer::{
    ConsumerCommand, ConsumerError, ConsumerEvent, JAM_PATIENCE, POLL_INTERVAL, SharedLedger, lock,
};
use super::group_context::{GroupContext, commit};
use super::offsets::Begun;
use super::record_copy::{CopiedRecord, copy_record};
use crate::domain::{MemoryBudget, Record, Reject, RejectReason, TopicPartition};
use crate::telemetry;

/// The state of the poll thread between two polls.
pub(super) struct PollLoop {
    pub(super) consumer: BaseConsumer<GroupContext>,
    pub(super) ledger: SharedLedger,
    pub(super) budget: MemoryBudget,
    pub(super) events: mpsc::Sender<ConsumerEvent>,
    pub(super) runtime: Handle,
    pub(super) commit_interval: Duration,
    /// Events that found the channel full, oldest first.
    pub(super) held: VecDeque<ConsumerEvent>,
    pub(super) paused_by_flow: HashSet<TopicPartition>,
    pub(super) is_jammed: bool,
    pub(super) is_drained: bool,
}

impl PollLoop {
    pub(super) fn run(
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
                let CopiedRecord { mut record, fault } = copy_record(&message, generation);
                telemetry::record_read(&record.source.topic, record.size_bytes());
                if lock(&self.ledger).begin(&record.source) == Begun::Fresh {
                    record.lease = Some(self.budget.lease(record.size_bytes()));
                    self.held.push_back(read_event(record, fault));
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

/// What to tell of a record that was read.
fn read_event(record: Record, fault: Option<String>) -> ConsumerEvent {
    match fault {
        None => ConsumerEvent::Record(record),
        Some(error) => ConsumerEvent::Unreadable(Reject {
            record: Arc::new(record),
            reason: RejectReason::Decode,
            error,
        }),
    }
}
