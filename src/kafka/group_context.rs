//! What happens inside `poll`: assignment, revocation, commits and statistics.
//!
//! librdkafka's callbacks run inline on the poll thread. Revocation waits for the stages behind, for
//! a bounded time, then commits and forgets.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::{self, Statistics};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::client::log_client_message;
use super::commit_metadata;
use super::consumer::{
    CLOSE_PATIENCE, ConsumerEvent, METADATA_TIMEOUT, POLL_INTERVAL, SharedLedger,
    TransactionSettings, lock, send_within,
};
use super::group_protocol::GroupProtocol;
use super::offsets::CommitPosition;
use super::partition_counts::{CoPartitioning, Permission, fetch_partition_counts};
use super::partition_ends::{PartitionEnds, Reported};
use super::pauses::Pauses;
use super::poll_report::{PartitionReport, SharedPollReport};
use crate::domain::{Topic, TopicPartition};
use crate::telemetry;

/// How long one question for what is committed waits where it is asked again: a stop is heard between
/// two of them.
const OFFSETS_PATIENCE: Duration = Duration::from_secs(2);

/// What the rebalance, commit and statistics callbacks share with the loop. They all run on the
/// poll thread, inside `poll`.
/// It never holds the consumer, which holds it: neither would be dropped, and the group never left.
pub(super) struct GroupContext {
    pub(super) ledger: SharedLedger,
    pub(super) events: mpsc::Sender<ConsumerEvent>,
    pub(super) runtime: Handle,
    pub(super) drain_timeout: Duration,
    pub(super) protocol: GroupProtocol,
    pub(super) generation: AtomicU64,
    pub(super) subscription: Vec<String>,
    pub(super) co_partitioning: Mutex<CoPartitioning>,
    /// Whether what is assigned may be read, as far as topics and partitions are concerned.
    pub(super) reading: Mutex<Permission>,
    pub(super) assignment: Mutex<HashSet<TopicPartition>>,
    /// Assignments and revocations that found the channel full, oldest first. They are never
    /// dropped, and go before every record that has not gone yet.
    pub(super) undelivered: Mutex<VecDeque<ConsumerEvent>>,
    /// What holds single partitions.
    pub(super) pauses: Mutex<Pauses>,
    /// Nothing is to be fetched, whatever is assigned: a jam or the drain.
    pub(super) is_halted: AtomicBool,
    /// The consumer is being closed: all that could be waited for has been.
    pub(super) is_closing: AtomicBool,
    /// A drain or a close was asked for.
    pub(super) is_ending: Arc<AtomicBool>,
    /// Where offsets go with the results: the consumer then commits nothing itself.
    pub(super) transactions: Option<TransactionSettings>,
    /// What was committed could not be learnt in time: whoever goes on would score parts twice.
    pub(super) unknown_commits: Mutex<Option<KafkaError>>,
    /// Messages taken from librdkafka.
    pub(super) taken: AtomicU64,
    pub(super) ends: Mutex<PartitionEnds>,
    pub(super) ended: Mutex<Vec<TopicPartition>>,
    pub(super) out_of_sight: Mutex<Vec<TopicPartition>>,
    pub(super) report: SharedPollReport,
}

impl GroupContext {
    /// Hands an event on behind those that wait; false when the channel had no room before
    /// `deadline`, and the event waits.
    fn deliver(&self, event: ConsumerEvent, deadline: Instant) -> bool {
        lock(&self.undelivered).push_back(event);
        self.deliver_waiting(deadline)
    }

    /// Hands on what waits; false when something is left.
    pub(super) fn deliver_waiting(&self, deadline: Instant) -> bool {
        let mut waiting = lock(&self.undelivered);
        while let Some(event) = waiting.pop_front() {
            let patience = deadline.saturating_duration_since(Instant::now());
            if let Some(event) = send_within(&self.events, &self.runtime, event, patience) {
                waiting.push_front(event);
                return false;
            }
        }
        true
    }

    /// Pauses of earlier assignments and what was known of ends hold no more.
    fn start_afresh(&self, partitions: &[TopicPartition]) {
        lock(&self.ends).forget(partitions);
        lock(&self.pauses).forget(partitions);
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let partitions = partitions_of(list);
        if self.protocol == GroupProtocol::Classic {
            self.revoke_all_but(consumer, &partitions);
        }
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        self.start_afresh(&partitions);
        lock(&self.ledger).assign(partitions.iter().cloned(), generation);
        self.learn_what_is_finished(consumer, list);
        let mut assignment = lock(&self.assignment).clone();
        assignment.extend(partitions.iter().cloned());
        let count = self.judge_partitions(consumer, &assignment);
        if let Err(error) = self.protocol.assign(consumer, list) {
            tracing::error!(%error, "failed to take assigned partitions");
        }
        // A pause survives reassignment in librdkafka; a new owner starts unpaused, unless there is
        // no room for anything.
        let is_held = self.is_halted.load(Ordering::Relaxed) || !self.may_read();
        let started = if is_held || stays_paused() {
            consumer.pause(list)
        } else {
            consumer.resume(list)
        };
        if let Err(error) = started {
            tracing::warn!(%error, "failed to pause or resume newly assigned partitions");
        }
        tracing::info!(
            generation,
            partitions = partitions.len(),
            "partitions assigned"
        );
        telemetry::rebalanced(telemetry::Rebalance::Assigned);
        telemetry::set_assigned_partitions(assignment.len());
        *lock(&self.assignment) = assignment;
        self.renew_membership(consumer);
        let event = ConsumerEvent::Assigned {
            partitions,
            generation,
            count,
        };
        if !self.deliver(event, Instant::now()) {
            tracing::debug!(generation, "stages behind are full: assignment waits");
        }
    }

    /// Takes what vouches for the offsets that the publisher commits. Under the protocol `consumer`
    /// the member's epoch moves on between assignments; one that follows a loss of partitions comes
    /// only after they were revoked here.
    pub(super) fn renew_membership(&self, consumer: &BaseConsumer<Self>) {
        if let Some(transactions) = &self.transactions {
            transactions.membership.set(consumer.group_metadata());
        }
    }

    /// An assignment replaces the one before, which librdkafka does not revoke where the group
    /// assigns again in the midst of a rebalance.
    fn revoke_all_but(&self, consumer: &BaseConsumer<Self>, partitions: &[TopicPartition]) {
        let mut gone = TopicPartitionList::new();
        for held in lock(&self.assignment).iter() {
            if !partitions.contains(held) {
                gone.add_partition(held.topic.as_str(), held.partition);
            }
        }
        if gone.count() > 0 {
            self.revoked(consumer, &gone);
        }
    }

    /// Notes whether what is assigned may be read; gives the count that all topics have, if so.
    pub(super) fn judge_partitions(
        &self,
        consumer: &BaseConsumer<Self>,
        assignment: &HashSet<TopicPartition>,
    ) -> Option<usize> {
        let counts = fetch_partition_counts(consumer, &self.subscription, METADATA_TIMEOUT);
        let (count, found) = match counts {
            Ok(counts) => {
                let count = counts.values().next().copied();
                let mut known = lock(&self.co_partitioning);
                (count, known.judge(counts, assignment, Instant::now()))
            }
            Err(error) => (
                None,
                Permission::Held(format!("the brokers do not tell of partitions: {error}")),
            ),
        };
        let mut reading = lock(&self.reading);
        if *reading != found {
            match &found {
                Permission::Allowed => {
                    tracing::info!("views of one part meet again: reading goes on")
                }
                Permission::Held(why) => {
                    tracing::warn!(why, "views of one part may not meet: nothing is read")
                }
                Permission::Refused(_) => {} // the error that the thread ends with says it
            }
        }
        *reading = found;
        count.filter(|_| *reading == Permission::Allowed)
    }

    pub(super) fn may_read(&self) -> bool {
        *lock(&self.reading) == Permission::Allowed
    }

    /// Learns what earlier owners finished above the committed positions. Where that cannot be
    /// learnt, parts that they published may be scored again; with transactions that must not be,
    /// and their own last one may still be open: the brokers tell no offsets before it has ended.
    ///
    /// The positions go into `list`, from which the partitions are read: librdkafka asks by itself
    /// otherwise, and does not ask again when the group's coordinator has just moved.
    fn learn_what_is_finished(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let (patience, in_all) = match &self.transactions {
            Some(transactions) => (
                OFFSETS_PATIENCE,
                METADATA_TIMEOUT + 2 * transactions.timeout,
            ),
            None => (METADATA_TIMEOUT, METADATA_TIMEOUT),
        };
        let deadline = Instant::now() + in_all;
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
                *lock(&self.unknown_commits) = Some(error);
                return;
            }
            tracing::info!(%error, "what is committed is not told yet; asking again");
            std::thread::sleep(POLL_INTERVAL);
        }
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

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions = partitions_of(list);
        if self.protocol == GroupProtocol::Consumer {
            self.renew_membership(consumer);
        }
        let patience = if self.is_closing.load(Ordering::Relaxed) {
            CLOSE_PATIENCE.min(self.drain_timeout)
        } else {
            self.drain_timeout
        };
        let deadline = Instant::now() + patience;
        let (done, answered) = std::sync::mpsc::channel();
        let is_all = lock(&self.assignment)
            .iter()
            .all(|held| partitions.contains(held));
        let event = ConsumerEvent::Revoked {
            partitions: partitions.clone(),
            is_all,
            done,
        };
        let is_drained = self.deliver(event, deadline)
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
            if let Err(error) = self.commit(consumer) {
                tracing::warn!(%error, "failed to commit revoked partitions; they will be read again");
            }
        }
        lock(&self.ledger).revoke(&partitions);
        self.start_afresh(&partitions);
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
        let ledger = lock(&self.ledger);
        let mut ends = lock(&self.ends);
        let taken = self.taken.load(Ordering::Relaxed);
        let mut ended = lock(&self.ended);
        let mut out_of_sight = lock(&self.out_of_sight);
        let now = Instant::now();
        ended.clear();
        out_of_sight.clear();
        let mut reports = HashMap::new();
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
                let position = ledger.next_to_read(&topic_partition);
                let reported = reported(partition);
                let is_at_end = ends.is_read(&topic_partition, reported, position, taken);
                let is_led = leader_is_up(&statistics, partition.leader);
                if ends.is_out_of_sight(&topic_partition, is_led, now) {
                    out_of_sight.push(topic_partition.clone());
                } else if is_at_end {
                    ended.push(topic_partition.clone());
                }
                let report = PartitionReport {
                    end: (is_led && reported.end >= 0).then_some(reported.end),
                    high_watermark: (partition.hi_offset >= 0).then_some(partition.hi_offset),
                    is_at_end,
                    pause: lock(&self.pauses).of(&topic_partition),
                };
                reports.insert(topic_partition, report);
            }
        }
        lock(&self.report).partitions = reports;
    }
}

/// Whether the client is connected to the broker that leads a partition.
fn leader_is_up(statistics: &Statistics, leader: i32) -> bool {
    let mut brokers = statistics.brokers.values();
    brokers.any(|broker| broker.nodeid == leader && broker.state == "UP")
}

/// Whether a test wants a partition to be left paused for ever, as librdkafka has left some.
fn stays_paused() -> bool {
    fail::fail_point!("assigned-stays-paused", |_| true);
    false
}

fn reported(partition: &statistics::Partition) -> Reported {
    Reported {
        next_fetch: partition.next_offset,
        // read_committed fetches as far as the last stable offset.
        end: if partition.ls_offset >= 0 {
            partition.ls_offset
        } else {
            partition.hi_offset
        },
        queued: u64::try_from(partition.fetchq_cnt).unwrap_or_default(),
    }
}

impl ConsumerContext for GroupContext {
    /// In place of `rdkafka`'s own, which does not tell when `assign` fails. Partitions are assigned here
    /// and once: a second time would undo the positions that were learnt.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                return self.assigned(consumer, list);
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.revoked(consumer, list),
            other => {
                let error = KafkaError::Rebalance(other.into());
                tracing::error!(%error, "rebalance failed");
            }
        }
        if let Err(error) = self.protocol.unassign(consumer, list) {
            tracing::error!(%error, "failed to give partitions up");
        }
    }

    fn main_queue_min_poll_interval(&self) -> rdkafka::util::Timeout {
        POLL_INTERVAL.into()
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

fn commit(consumer: &BaseConsumer<GroupContext>, ledger: &SharedLedger) -> KafkaResult<()> {
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
    let encoded = commit_metadata::encode(commit.position, &commit.finished);
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

pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| TopicPartition {
            topic: Topic::new(element.topic()),
            partition: element.partition(),
        })
        .collect()
}
