//! What happens inside `poll`: assignment, revocation and statistics.
//!
//! librdkafka's callbacks run inline on the poll thread. Revocation waits for the stages behind, for
//! a bounded time, then commits and forgets.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::client::log_client_message;
use super::closed_parts::{ClosedParts, ClosedPartsError};
use super::commit_metadata::MOST_UNFINISHED;
use super::consumer::{POLL_INTERVAL, SharedLedger, ThreadLink, lock, send_within};
use super::consumer_messages::{ConsumerError, ConsumerEvent};
use super::consumer_settings::{
    Commits, ConsumerSettings, ENDS_TIMEOUT, METADATA_TIMEOUT, TransactionSettings,
};
use super::end_offsets::ends_of;
use super::group_protocol::GroupProtocol;
use super::partition_counts::{CoPartitioning, Permission, fetch_partition_counts};
use super::partition_ends::PartitionEnds;
use super::partition_news::{PartitionNews, until_told};
use super::pauses::Pauses;
use super::poll_report::SharedPollReport;
use super::read_range::ReadRange;
use crate::domain::{PartClosure, Topic, TopicPartition};
use crate::telemetry;

/// How long the last revocation, when the consumer closes, waits for an answer: by then the stages
/// have published what they had, or have been given up.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// What the rebalance and statistics callbacks share with the loop. They all run on the
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
    pub(super) permission: Mutex<Permission>,
    pub(super) assignment: Mutex<HashSet<TopicPartition>>,
    /// Assignments and revocations that found the channel full, oldest first. They are never
    /// dropped, and go before every record that has not gone yet.
    pub(super) undelivered: Mutex<VecDeque<ConsumerEvent>>,
    /// What holds single partitions.
    pub(super) pauses: Mutex<Pauses>,
    /// Nothing is to be fetched, whatever is assigned: a jam, the throttle or the drain.
    pub(super) is_halted: AtomicBool,
    /// The consumer is being closed: all that could be waited for has been.
    pub(super) is_closing: AtomicBool,
    /// A drain or a close was asked for.
    pub(super) is_ending: Arc<AtomicBool>,
    /// Where offsets go with the results: the consumer then commits nothing itself.
    pub(super) transactions: Option<TransactionSettings>,
    /// What was committed, or which parts are closed, could not be learnt in time: whoever goes on
    /// would score parts twice.
    pub(super) unlearnt: Mutex<Option<ConsumerError>>,
    pub(super) closed_parts: Mutex<ClosedParts>,
    /// Messages taken from librdkafka.
    pub(super) taken: AtomicU64,
    pub(super) ends: Mutex<PartitionEnds>,
    /// What the last statistics tell, until the loop takes it.
    pub(super) news: Mutex<PartitionNews>,
    /// Where reading ends, for a replay.
    pub(super) range: Option<Arc<ReadRange>>,
    /// Some partition is out of sight, as of the last statistics.
    pub(super) is_blind: AtomicBool,
    pub(super) report: SharedPollReport,
}

impl GroupContext {
    pub(super) fn new(
        settings: &ConsumerSettings,
        ledger: &SharedLedger,
        events: mpsc::Sender<ConsumerEvent>,
        closed_parts: ClosedParts,
        link: &ThreadLink,
    ) -> Self {
        let protocol = GroupProtocol::of_bus(&settings.bus);
        let transactions = match settings.commits.clone() {
            Commits::Every(_) => None,
            Commits::InTransactions(settings) => Some(settings),
        };
        if let (GroupProtocol::Consumer, Some(transactions)) = (protocol, &transactions) {
            transactions.membership.set_renewed();
        }
        Self {
            ledger: Arc::clone(ledger),
            events,
            runtime: Handle::current(),
            drain_timeout: settings.drain_timeout,
            protocol,
            generation: AtomicU64::new(0),
            subscription: settings.subscription.clone(),
            co_partitioning: Mutex::default(),
            permission: Mutex::new(Permission::Allowed),
            assignment: Mutex::default(),
            undelivered: Mutex::default(),
            pauses: Mutex::new(Pauses::new(MOST_UNFINISHED, settings.crowd_patience)),
            is_halted: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            is_ending: Arc::clone(&link.is_ending),
            transactions,
            unlearnt: Mutex::default(),
            closed_parts: Mutex::new(closed_parts),
            taken: AtomicU64::new(0),
            ends: Mutex::default(),
            news: Mutex::default(),
            range: settings.range.clone(),
            is_blind: AtomicBool::new(false),
            report: Arc::clone(&link.report),
        }
    }

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
        lock(&self.news).forget(partitions);
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let began = Instant::now();
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
        let closed = self.learn_closed_parts(&partitions, count, began);
        // Only now, for learning may have taken long: statistics tell of the assignment before for a while.
        if self.range.is_some() {
            lock(&self.ends).refetch(&partitions, Instant::now());
        }
        let expected = ConsumerEvent::Expected(self.learn_ends(consumer, &partitions));
        let event = ConsumerEvent::Assigned {
            partitions,
            generation,
            count,
            closed,
        };
        lock(&self.undelivered).push_back(event);
        if !self.deliver(expected, Instant::now()) {
            tracing::debug!(generation, "stages behind are full: assignment waits");
        }
    }

    /// Learns up to where there is something to read, for the order in which it is taken. Where that is not
    /// told, statistics tell it later.
    fn learn_ends(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[TopicPartition],
    ) -> Vec<(TopicPartition, i64)> {
        if self.range.is_some() {
            return partitions.iter().cloned().map(until_told).collect();
        }
        let ends = ends_of(consumer, partitions, ENDS_TIMEOUT).unwrap_or_else(|error| {
            tracing::debug!(%error, "the ends of assigned partitions are not told");
            HashMap::new()
        });
        let ledger = lock(&self.ledger);
        let has_more = |(partition, end): &(TopicPartition, i64)| {
            let position = ledger.next_to_read(partition);
            position.is_none_or(|position| position < *end)
        };
        ends.into_iter().filter(has_more).collect()
    }

    /// Learns which parts are closed of those whose partitions were assigned, while the first of their
    /// records are fetched. Where that fails, late views may be taken for new parts; with transactions
    /// that must not be, and what is left of the time for the committed offsets counts for this, too.
    fn learn_closed_parts(
        &self,
        partitions: &[TopicPartition],
        count: Option<usize>,
        began: Instant,
    ) -> Vec<PartClosure> {
        if partitions.is_empty() || lock(&self.unlearnt).is_some() {
            return Vec::new();
        }
        let numbers = partitions.iter().map(|partition| partition.partition);
        let numbers: BTreeSet<i32> = numbers.collect();
        let highest = numbers.last().copied().unwrap_or_default();
        let count = count.unwrap_or(usize::try_from(highest + 1).unwrap_or(1));
        let deadline = self
            .committed_deadline(began)
            .max(Instant::now() + METADATA_TIMEOUT);
        let mut closed_parts = lock(&self.closed_parts);
        let (runtime, is_ending) = (&self.runtime, &self.is_ending);
        match closed_parts.learn(&numbers, count, deadline, runtime, is_ending) {
            Ok(closed) => return closed,
            Err(ClosedPartsError::Stopping) => {}
            Err(error) if self.transactions.is_some() => {
                *lock(&self.unlearnt) = Some(error.into());
            }
            Err(error) => {
                tracing::warn!(%error, "late views may be scored as new parts");
            }
        }
        Vec::new()
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
        let kept: HashSet<&TopicPartition> = partitions.iter().collect();
        let mut gone = TopicPartitionList::new();
        for held in lock(&self.assignment).iter() {
            if !kept.contains(held) {
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
        self.permit(found);
        count.filter(|_| self.may_read())
    }

    fn permit(&self, found: Permission) {
        let mut permission = lock(&self.permission);
        if *permission != found {
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
        *permission = found;
    }

    pub(super) fn may_read(&self) -> bool {
        *lock(&self.permission) == Permission::Allowed
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions = partitions_of(list);
        let gone: HashSet<&TopicPartition> = partitions.iter().collect();
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
            .all(|held| gone.contains(held));
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
        assignment.retain(|assigned| !gone.contains(assigned));
        telemetry::set_assigned_partitions(assignment.len());
        // No assignment follows where the brokers only take some partitions away.
        if self.protocol == GroupProtocol::Consumer
            && let Some(found) = lock(&self.co_partitioning).judge_again(&assignment)
        {
            drop(assignment);
            self.permit(found);
        }
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
        self.take_statistics(&statistics);
    }
}

/// Whether a test wants a partition to be left paused for ever, as librdkafka has left some.
fn stays_paused() -> bool {
    fail::fail_point!("assigned-stays-paused", |_| true);
    false
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

pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| TopicPartition {
            topic: Topic::new(element.topic()),
            partition: element.partition(),
        })
        .collect()
}
