//! The loop of the poll thread: commands, one poll, handing on, commits by interval.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::consumer::{
    ConsumerCommand, ConsumerError, ConsumerEvent, JAM_PATIENCE, POLL_INTERVAL, SharedLedger, lock,
    send_within,
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
                Ok(ConsumerCommand::Pause {
                    partitions,
                    generation,
                }) if self.is_current(generation) => {
                    self.pause(&partitions);
                    lock(&self.consumer.context().paused_by_flow).extend(partitions);
                }
                Ok(ConsumerCommand::Resume {
                    partitions,
                    generation,
                }) if self.is_current(generation) => {
                    lock(&self.consumer.context().paused_by_flow)
                        .retain(|paused| !partitions.contains(paused));
                    if !self.is_jammed && !self.is_drained {
                        self.resume(&partitions);
                    }
                }
                Ok(ConsumerCommand::Pause { .. } | ConsumerCommand::Resume { .. }) => {}
                Ok(ConsumerCommand::Drain) => self.drain(),
                Ok(ConsumerCommand::Close) | Err(std::sync::mpsc::TryRecvError::Disconnected) => {
                    return true;
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => return false,
            }
        }
    }

    fn is_current(&self, generation: u64) -> bool {
        self.consumer.context().generation.load(Ordering::Relaxed) == generation
    }

    fn poll_once(&mut self) -> Result<(), ConsumerError> {
        let polled = self.consumer.poll(POLL_INTERVAL);
        let ended = std::mem::take(&mut *lock(&self.consumer.context().ended));
        // The ends were told before the message was taken, so they go before it.
        if self.held.is_empty() && !self.is_drained {
            self.held
                .extend(ended.into_iter().map(ConsumerEvent::EndOfPartition));
        }
        match polled {
            Some(Ok(message)) => {
                self.consumer
                    .context()
                    .taken
                    .fetch_add(1, Ordering::Relaxed);
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
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                return Err(ConsumerError::NoOffset);
            }
            Some(Err(error)) => {
                if let Some((code, reason)) = self.consumer.client().fatal_error() {
                    return Err(ConsumerError::Fatal(format!("{reason} ({code})")));
                }
                tracing::warn!(%error, "kafka poll failed; librdkafka goes on by itself");
            }
        }
        Ok(())
    }

    /// Hands held events on; a jam pauses everything until the channel has room again.
    fn hand_on(&mut self) {
        let patience = if self.is_jammed {
            POLL_INTERVAL
        } else {
            JAM_PATIENCE
        };
        if !self.send_held(Instant::now() + patience) {
            if !self.is_jammed {
                tracing::debug!("stages behind are full: every partition paused");
                self.set_jammed(true);
                self.pause(&self.assigned());
            }
        } else if self.is_jammed {
            self.set_jammed(false);
            if !self.is_drained {
                let paused = lock(&self.consumer.context().paused_by_flow).clone();
                let mut wanted = self.assigned();
                wanted.retain(|partition| !paused.contains(partition));
                self.resume(&wanted);
            }
        }
    }

    fn set_jammed(&mut self, is_jammed: bool) {
        self.is_jammed = is_jammed;
        let is_halted = self.is_jammed || self.is_drained;
        let context = self.consumer.context();
        context.is_halted.store(is_halted, Ordering::Relaxed);
    }

    /// Sends what waits, in order; false when something is left at the deadline.
    fn send_held(&mut self, deadline: Instant) -> bool {
        if !self.consumer.context().deliver_waiting(deadline) {
            return false;
        }
        while let Some(event) = self.held.pop_front() {
            let patience = deadline.saturating_duration_since(Instant::now());
            if let Some(event) = send_within(&self.events, &self.runtime, event, patience) {
                self.held.push_front(event);
                return false;
            }
        }
        true
    }

    fn drain(&mut self) {
        self.is_drained = true;
        self.set_jammed(self.is_jammed);
        self.pause(&self.assigned());
        self.held
            .retain(|event| !matches!(event, ConsumerEvent::EndOfPartition(_)));
        self.held.push_back(ConsumerEvent::Drained);
    }

    fn close(self) -> Result<(), ConsumerError> {
        let context = self.consumer.context();
        context.is_closing.store(true, Ordering::Relaxed);
        if let Err(error) = commit(&self.consumer, &self.ledger) {
            tracing::warn!(%error, "last commit failed; unfinished work will be read again");
        }
        drop(self.consumer); // leaves the group
        Ok(())
    }

    fn commit_finished(&self) {
        telemetry::set_uncommitted_records(lock(&self.ledger).total_in_flight());
        if let Err(error) = commit(&self.consumer, &self.ledger) {
            tracing::warn!(%error, "offset commit failed; it is tried again");
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
