//! What the group has committed: learnt before a partition is read, told after its records are finished.
//!
//! A commit carries what is finished above its position in its metadata. It reads no records.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::commit_metadata;
use super::consumer::{POLL_INTERVAL, SharedLedger, lock};
use super::consumer_messages::ConsumerError;
use super::consumer_settings::METADATA_TIMEOUT;
use super::group_context::GroupContext;
use super::offsets::CommitPosition;
use crate::domain::{Topic, TopicPartition};
use crate::telemetry;

/// How long one question for what is committed waits where it is asked again: a stop is heard between
/// two of them.
const OFFSETS_PATIENCE: Duration = Duration::from_secs(2);

impl GroupContext {
    /// Learns what earlier owners finished above the committed positions. Where that cannot be
    /// learnt, parts that they published may be scored again; with transactions that must not be,
    /// and their own last one may still be open: the brokers tell no offsets before it has ended.
    ///
    /// The positions go into `list`, from which the partitions are read: librdkafka asks by itself
    /// otherwise, and does not ask again when the group's coordinator has just moved.
    pub(super) fn learn_what_is_finished(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &mut TopicPartitionList,
    ) {
        let patience = match &self.transactions {
            Some(_) => OFFSETS_PATIENCE,
            None => METADATA_TIMEOUT,
        };
        let deadline = self.committed_deadline(Instant::now());
        loop {
            let error = match committed_offsets(consumer, list, patience) {
                Ok((committed, None)) => return self.restore_finished(&committed, list),
                Ok((committed, Some(error))) if self.transactions.is_none() => {
                    tracing::warn!(%error, "not all that is committed was told; parts may be scored again");
                    return self.restore_finished(&committed, list);
                }
                Err(error) if self.transactions.is_none() => {
                    tracing::warn!(%error, "failed to read what is committed; parts may be scored again");
                    return;
                }
                Ok((_, Some(error))) | Err(error) => error,
            };
            if self.is_ending.load(Ordering::Relaxed) {
                tracing::info!(%error, "what is committed is not told before the end: nothing is read");
                return;
            }
            if Instant::now() >= deadline {
                *lock(&self.unlearnt) = Some(ConsumerError::UnknownCommits(error));
                return;
            }
            tracing::info!(%error, "what is committed is not told yet; asking again");
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Until when an assignment that began then may wait for what is committed.
    pub(super) fn committed_deadline(&self, began: Instant) -> Instant {
        let last_owner = self.transactions.as_ref();
        let last_owner = last_owner.map_or(Duration::ZERO, |settings| 2 * settings.timeout);
        began + METADATA_TIMEOUT + last_owner
    }

    fn restore_finished(&self, committed: &TopicPartitionList, list: &mut TopicPartitionList) {
        let mut ledger = lock(&self.ledger);
        for element in committed.elements() {
            let (Ok(()), Offset::Offset(position)) = (element.error(), element.offset()) else {
                continue;
            };
            let partition = TopicPartition {
                topic: Topic::new(element.topic()),
                partition: element.partition(),
            };
            let finished = commit_metadata::decode(position, element.metadata());
            ledger.restore(&partition, position, &finished);
            ledger.restore_skipped(&partition, commit_metadata::skipped(element.metadata()));
            let start = Offset::Offset(position);
            if let Err(error) =
                list.set_partition_offset(element.topic(), element.partition(), start)
            {
                tracing::warn!(%error, "failed to set where a partition is read from");
            }
        }
    }

    /// Commits every position that moved since the last commit that succeeded, and waits for it;
    /// positions that go out in transactions are none of the consumer's business.
    pub(super) fn commit(&self, consumer: &BaseConsumer<Self>) -> KafkaResult<()> {
        match self.transactions {
            Some(_) => Ok(()),
            None => commit(consumer, &self.ledger),
        }
    }
}

/// What the group has committed of the partitions of `list`, and what the brokers said of those of
/// which they do not tell.
fn committed_offsets(
    consumer: &BaseConsumer<GroupContext>,
    list: &TopicPartitionList,
    patience: Duration,
) -> KafkaResult<(TopicPartitionList, Option<KafkaError>)> {
    let committed = consumer.committed_offsets(list.clone(), patience)?;
    let elements = committed.elements();
    let error = elements.iter().find_map(|element| element.error().err());
    Ok((committed, error))
}

/// Commits every position of the ledger that moved since the last commit that succeeded, and waits for it.
pub(super) fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    ledger: &SharedLedger,
) -> KafkaResult<()> {
    let positions = lock(ledger).positions_to_commit();
    if positions.is_empty() {
        return Ok(());
    }
    let list = offsets_of(&positions)?;
    match consumer.commit(&list, CommitMode::Sync) {
        Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {
            lock(ledger).mark_committed(&positions);
            telemetry::offsets_committed();
            Ok(())
        }
        Err(error) => {
            telemetry::commit_failed();
            Err(error)
        }
    }
}

/// Positions, each with what is finished above it, as the client takes them.
pub(super) fn offsets_of(positions: &[CommitPosition]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for commit in positions {
        let partition = &commit.partition;
        let mut element = list.add_partition(partition.topic.as_str(), partition.partition);
        element.set_offset(Offset::Offset(commit.position))?;
        element.set_metadata(metadata(commit));
    }
    Ok(list)
}

/// What is finished above the position. What does not fit is scored again after a restart.
fn metadata(commit: &CommitPosition) -> String {
    let encoded = commit_metadata::encode_all(commit.position, &commit.finished, commit.skipped);
    if encoded.left_out > 0 {
        telemetry::commit_metadata_cut();
        tracing::warn!(
            topic = %commit.partition.topic,
            partition = commit.partition.partition,
            position = commit.position,
            left_out = encoded.left_out,
            "more is finished out of order than a commit can tell: a restart now would score the \
             left-out ranges again"
        );
    }
    encoded.text
}
