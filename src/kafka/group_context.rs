//! What happens inside `poll`: assignment, revocation, commits and statistics.
//!
//! librdkafka's callbacks run inline on the poll thread. Revocation waits for the stages behind, for
//! a bounded time, then commits and forgets.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::client::log_client_message;
use super::commit_metadata;
use super::consumer::{ConsumerEvent, METADATA_TIMEOUT, POLL_INTERVAL, SharedLedger, lock};
use super::partition_counts::{describe_unequal_counts, fetch_partition_counts};
use crate::domain::{Topic, TopicPartition};
use crate::telemetry;

/// What the rebalance, commit and statistics callbacks share with the loop. They all run on the
/// poll thread, inside `poll`.
pub(super) struct GroupContext {
    pub(super) ledger: SharedLedger,
    pub(super) events: mpsc::Sender<ConsumerEvent>,
    pub(super) runtime: Handle,
    pub(super) drain_timeout: Duration,
    pub(super) generation: AtomicU64,
    pub(super) commit_failed: AtomicBool,
    pub(super) subscription: Vec<String>,
    pub(super) unequal_partitions: Mutex<Option<String>>,
    pub(super) assignment: Mutex<HashSet<TopicPartition>>,
    pub(super) ended: Mutex<Vec<TopicPartition>>,
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

/// Commits every position that moved since the last commit.
pub(super) fn commit(
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

pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| TopicPartition {
            topic: Topic::new(element.topic()),
            partition: element.partition(),
        })
        .collect()
}
