//! Produces results and dead letters and commits their inputs' offsets in one Kafka transaction.
//!
//! `exactly_once`: a `read_committed` reader sees what a publication produced if and only if its
//! inputs are committed, so a crash repeats work and doubles nothing. The offsets carry the group's
//! membership (KIP-447): the brokers refuse those of a member that has lost its partitions, and with
//! them the transaction.
//!
//! That parts are closed goes out after the offsets, and is waited for by the commit: who has learnt the
//! group's offsets, and then reads it, finds nothing that may still become undone.
//!
//! A transaction that is aborted is made again from the same publications, but for those whose
//! partitions another member owns by now. An error that leaves the producer unusable, or the outcome
//! of a commit unknown, ends the publisher with [`PublishError::Unusable`]: who starts anew from what
//! the group has committed knows the outcome.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::Producer;
use rdkafka::util::Timeout;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::BusSettings;
use super::consumer::{SharedLedger, lock};
use super::consumer_settings::{METADATA_TIMEOUT, TransactionSettings};
use super::gap_count::Skipped;
use super::group_offsets::offsets_of;
use super::offsets::CommitPosition;
use super::polled_producer::ReportingProducer;
use super::publisher::{Outgoing, Publication, PublishError, is_size};
use super::record_producer::{Acknowledgement, RecordProducer};
use super::refusal::{Refusal, unusable};
use super::transaction_batch::TransactionBatch;
use super::transaction_errors::{
    disowns, is_of_topics, is_purge, is_retriable, refuses_for_good, requires_abort,
};
use crate::activity::Activity;
use crate::domain::{OutboundRecord, Topic};
use crate::telemetry;

/// How many aborted transactions in a row are made again.
const MOST_ATTEMPTS: u32 = 20;
/// The pause after the first abort in a row; it doubles with each, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Produces publications in transactions, in order.
pub struct TransactionalPublisher {
    producer: RecordProducer,
    settings: TransactionSettings,
    ledger: SharedLedger,
    /// The largest record that may still be taken, by topic, where brokers have refused some for their
    /// size. They refuse a whole batch of records, so from then on the topic's records go out one at a
    /// time: then it is the record that is too large.
    refused: Mutex<HashMap<Topic, usize>>,
    max_message_bytes: usize,
    is_initialised: Arc<AtomicBool>,
    /// From the first attempt at a transaction to its end.
    activity: Activity,
}

/// How an attempt at a transaction ended, but for what ends the publisher.
enum Attempt {
    Committed,
    Aborted(Refusal),
    /// The group has gone on without this member: whoever owns the partitions now, and be it this
    /// member after it has joined again, reads the inputs again.
    Disowned,
}

impl TransactionalPublisher {
    /// Connects; `max_message_bytes` is what the producer accepts at most.
    ///
    /// # Errors
    /// When a property is refused.
    pub fn connect(
        bus: &BusSettings,
        max_message_bytes: usize,
        settings: TransactionSettings,
        ledger: SharedLedger,
    ) -> Result<Self, PublishError> {
        let producer = RecordProducer::connect_transactional(
            bus,
            max_message_bytes,
            &settings.transactional_id,
            settings.timeout,
        )
        .map_err(PublishError::Create)?;
        Ok(Self {
            producer,
            settings,
            ledger,
            refused: Mutex::new(HashMap::new()),
            max_message_bytes,
            is_initialised: Arc::default(),
            activity: Activity::default(),
        })
    }

    /// The connection, to ask whether the brokers can be reached.
    pub fn producer(&self) -> RecordProducer {
        self.producer.clone()
    }

    /// Whether the brokers have taken the producer for transactions.
    pub fn is_initialised(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_initialised)
    }

    /// Under way while a transaction is.
    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// Publishes until the channel closes and everything is committed; each token is given to
    /// `close` once its transaction is.
    ///
    /// # Errors
    /// When a record cannot be made small enough, or the producer is beyond repair.
    pub async fn run<Token: Send>(
        self,
        publications: mpsc::Receiver<Publication<Token>>,
        close: impl Fn(Token),
    ) -> Result<(), PublishError> {
        self.initialise(&publications).await?;
        let TransactionSettings {
            interval,
            max_records,
            ..
        } = self.settings;
        let mut batch = TransactionBatch::new(publications, interval, max_records);
        while batch.begin().await {
            self.publish(&mut batch).await?;
            for publication in batch.take() {
                close(publication.token);
            }
        }
        Ok(())
    }

    /// Waits until the brokers know the producer, and have ended what an earlier one with its
    /// name left open; or until it is known that there is nothing to publish.
    async fn initialise<T>(&self, publications: &mpsc::Receiver<T>) -> Result<(), PublishError> {
        while !(publications.is_closed() && publications.is_empty()) {
            let patience = self.settings.timeout;
            let initialised = self.call(move |client| client.init_transactions(patience));
            match initialised.await {
                Ok(()) => {
                    self.is_initialised.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) if is_retriable(&error) => {
                    tracing::warn!(
                        %error,
                        "the brokers do not take transactions yet, trying again; there must be as many \
                         brokers as their `transaction.state.log.replication.factor` says (3 by default)"
                    );
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
                Err(error) => return Err(unusable("initialise")(error)),
            }
        }
        Ok(())
    }

    /// Attempts the transaction until it is committed. What is stale leaves the batch.
    async fn publish<Token>(
        &self,
        batch: &mut TransactionBatch<Token>,
    ) -> Result<(), PublishError> {
        let started = Instant::now();
        let _underway = self.activity.begin();
        let mut pause = FIRST_PAUSE;
        let mut last = String::new();
        for _ in 0..MOST_ATTEMPTS {
            batch.retain_current(&lock(&self.ledger));
            if batch.publications().is_empty() {
                return Ok(());
            }
            match self.attempt(batch).await? {
                Attempt::Committed => {
                    telemetry::stage_took(telemetry::Stage::Publish, started.elapsed());
                    return Ok(());
                }
                Attempt::Disowned => {
                    tracing::warn!(
                        "not a member of the group any more: its transaction is dropped"
                    );
                    batch.take();
                    return Ok(());
                }
                Attempt::Aborted(refusal) => {
                    telemetry::transaction_aborted();
                    if refuses_for_good(&refusal.error) {
                        return Err(refusal.into_error());
                    }
                    last = refusal.to_string();
                    tracing::warn!(error = last, "transaction aborted; it is made again");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
        }
        Err(PublishError::Aborts {
            count: MOST_ATTEMPTS,
            last,
        })
    }

    async fn attempt<Token>(
        &self,
        batch: &mut TransactionBatch<Token>,
    ) -> Result<Attempt, PublishError> {
        self.call(ReportingProducer::begin_transaction)
            .await
            .map_err(unusable("begin"))?;
        if let Err(mut refusal) = self.produce(batch).await? {
            if is_purge(&refusal.error) {
                let reason = self.reason_of_purge(batch.publications()).await;
                refusal = reason.map_or(refusal, Refusal::from);
            }
            return self.abort(refusal).await;
        }
        crash_at("transaction-after-produce");
        // Membership before positions: were it the other way round, a rebalance in between would
        // let a new membership vouch for the positions of an old one.
        let membership = self.settings.membership.get();
        let (Some(membership), Some(positions)) = (membership, self.finish(batch.publications()))
        else {
            return self.abort(KafkaError::Canceled.into()).await;
        };
        crash_at("transaction-before-offsets");
        if let Err(error) = self.send_offsets(&positions, membership).await {
            if is_of_topics(&error) {
                self.forgo_topics(&positions).await;
            }
            let is_disowned = disowns(&error) && !self.settings.membership.is_renewed();
            let aborted = self.abort(error.into()).await?;
            return Ok(if is_disowned {
                Attempt::Disowned
            } else {
                aborted
            });
        }
        crash_at("transaction-after-offsets");
        let closures: Vec<_> = batch
            .publications()
            .iter()
            .filter_map(|one| one.closure.as_ref())
            .collect();
        if let Err(refusal) = self.produce_closures(&closures).await {
            return self.abort(refusal).await;
        }
        crash_at("transaction-after-closures");
        match self.commit().await {
            Ok(()) => {
                crash_at("transaction-after-commit");
                lock(&self.ledger).mark_committed(&positions);
                telemetry::offsets_committed();
                Ok(Attempt::Committed)
            }
            Err(error) if requires_abort(&error) => self.abort(error.into()).await,
            Err(error) => Err(unusable("commit")(error)),
        }
    }

    /// Produces the batch's records, and those of what joins it meanwhile; what brokers find too large is
    /// made smaller for the next attempt.
    async fn produce<Token>(
        &self,
        batch: &mut TransactionBatch<Token>,
    ) -> Result<Result<(), Refusal>, PublishError> {
        let mut underway = Vec::new();
        let mut handed_over = 0;
        loop {
            for publication in &batch.publications()[handed_over..] {
                if let Err(refusal) = self.hand_over(publication, &mut underway).await {
                    return Ok(Err(refusal));
                }
            }
            handed_over = batch.publications().len();
            if !batch.grow().await {
                break;
            }
        }
        let mut failure = None;
        for (topic, acknowledgement) in underway {
            if let Err(error) = acknowledgement.wait().await {
                self.heed(&error, &topic);
                failure.get_or_insert(Refusal::of_topic(&topic, error));
            }
        }
        match failure {
            Some(refusal) => Ok(Err(refusal)),
            None => self.produce_one_by_one(batch.publications_mut()).await,
        }
    }

    /// Why the client has let go of a transaction's records by itself: it tells whoever calls it next. What it is
    /// called with does not matter, for the transaction is to be aborted.
    async fn reason_of_purge<Token>(&self, batch: &[Publication<Token>]) -> Option<KafkaError> {
        let membership = self.settings.membership.get()?;
        let source = &batch.iter().find_map(|one| one.finishes.first())?.source;
        let position = CommitPosition {
            partition: source.topic_partition(),
            position: source.offset,
            finished: Vec::new(),
            skipped: Skipped::default(),
        };
        self.send_offsets(&[position], membership).await.err()
    }

    /// Hands the publication's records to the client, but for those that must go out by themselves.
    async fn hand_over<Token>(
        &self,
        publication: &Publication<Token>,
        underway: &mut Vec<(Topic, Acknowledgement)>,
    ) -> Result<(), Refusal> {
        for Outgoing { record, .. } in &publication.records {
            if !lock(&self.refused).contains_key(&record.topic) {
                let handed_over = self.producer.hand_over(record).await;
                let acknowledgement = handed_over.map_err(|error| {
                    self.heed(&error, &record.topic);
                    Refusal::of_topic(&record.topic, error)
                })?;
                underway.push((record.topic.clone(), acknowledgement));
            }
        }
        Ok(())
    }

    /// Remembers a topic whose records are to go out by themselves.
    fn heed(&self, error: &KafkaError, topic: &Topic) {
        if is_size(error) {
            self.note_refused(topic, self.max_message_bytes);
        }
    }

    /// Produces the records of topics that have refused some.
    async fn produce_one_by_one<Token>(
        &self,
        publications: &mut [Publication<Token>],
    ) -> Result<Result<(), Refusal>, PublishError> {
        let records = publications.iter_mut().flat_map(|one| &mut one.records);
        for outgoing in records {
            let Some(largest) = lock(&self.refused).get(&outgoing.record.topic).copied() else {
                continue;
            };
            outgoing.shrink_to(largest)?;
            let record = &outgoing.record;
            if let Err(error) = self.producer.send(record).await {
                if is_size(&error) {
                    self.note_refused(&record.topic, record.size_bytes() - 1);
                }
                return Ok(Err(Refusal::of_topic(&record.topic, error)));
            }
        }
        Ok(Ok(()))
    }

    fn note_refused(&self, topic: &Topic, largest: usize) {
        tracing::warn!(
            %topic,
            largest,
            "a record, or the batch that it was in, exceeds the topic's `max.message.bytes`"
        );
        lock(&self.refused).insert(topic.clone(), largest);
    }

    /// Finishes the batch's inputs and says what to commit; nothing, when one has become stale.
    ///
    /// They stay finished when the transaction is aborted: no offsets are committed but with the
    /// next one, which has the same publications again.
    fn finish<Token>(&self, batch: &[Publication<Token>]) -> Option<Vec<CommitPosition>> {
        let mut ledger = lock(&self.ledger);
        if !batch
            .iter()
            .all(|publication| publication.is_current(&ledger))
        {
            return None;
        }
        for input in batch.iter().flat_map(|publication| &publication.finishes) {
            ledger.finish(&input.source, input.generation);
        }
        Some(ledger.positions_to_commit())
    }

    async fn send_offsets(
        &self,
        positions: &[CommitPosition],
        membership: Arc<ConsumerGroupMetadata>,
    ) -> KafkaResult<()> {
        let offsets = offsets_of(positions)?;
        // Where brokers refuse for a reason that may pass, there must be time left to abort.
        let patience = self.settings.timeout / 2;
        self.retried(move |client| {
            client.send_offsets_to_transaction(&offsets, &membership, patience)
        })
        .await
    }

    async fn produce_closures(&self, closures: &[&OutboundRecord]) -> Result<(), Refusal> {
        let sent = closures.iter().map(async |closure| {
            let sent = self.producer.send(closure).await;
            sent.map_err(|error| Refusal::of_topic(&closure.topic, error))
        });
        join_all(sent).await.into_iter().collect()
    }

    /// Takes leave of the topics that were deleted, so that the others' offsets are committed.
    async fn forgo_topics(&self, positions: &[CommitPosition]) {
        let producer = self.producer.clone();
        let asked = tokio::task::spawn_blocking(move || producer.topics(METADATA_TIMEOUT));
        let there = match asked.await.unwrap_or(Err(KafkaError::Canceled)) {
            Ok(there) => there,
            Err(error) => {
                tracing::warn!(%error, "failed to learn which camera topics are gone");
                return;
            }
        };
        let topics = positions.iter().map(|commit| &commit.partition.topic);
        let gone: HashSet<Topic> = topics
            .filter(|topic| !there.contains(*topic))
            .cloned()
            .collect();
        if !gone.is_empty() {
            tracing::warn!(topics = ?gone, "camera topics are gone: their offsets are not committed");
            lock(&self.ledger).forgo(&gone);
        }
    }

    /// Without a deadline: the brokers abort the transaction themselves when its time is over, and
    /// only they know how it ended.
    async fn commit(&self) -> KafkaResult<()> {
        self.producer.settle().await;
        self.retried(|client| client.commit_transaction(Timeout::Never))
            .await
    }

    async fn abort(&self, reason: Refusal) -> Result<Attempt, PublishError> {
        let aborted = self.retried(|client| client.abort_transaction(Timeout::Never));
        match aborted.await {
            Ok(()) => Ok(Attempt::Aborted(reason)),
            // Brokers that have taken no topic of it know of no transaction to abort.
            Err(_) if refuses_for_good(&reason.error) => Err(reason.into_error()),
            Err(error) => {
                tracing::warn!(%reason, "the transaction was to be aborted");
                Err(unusable("abort")(error))
            }
        }
    }

    /// As [`Self::call`], again and again while the client says that this may help.
    async fn retried(
        &self,
        call: impl Fn(&ReportingProducer) -> KafkaResult<()> + Clone + Send + 'static,
    ) -> KafkaResult<()> {
        loop {
            match self.call(call.clone()).await {
                Err(error) if is_retriable(&error) => {
                    tracing::debug!(%error, "transaction call tried again");
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
                ended => return ended,
            }
        }
    }

    /// Calls the client on a thread that may block.
    async fn call(
        &self,
        call: impl FnOnce(&ReportingProducer) -> KafkaResult<()> + Send + 'static,
    ) -> KafkaResult<()> {
        let producer = self.producer.clone();
        tokio::task::spawn_blocking(move || call(producer.client()))
            .await
            .unwrap_or(Err(KafkaError::Canceled))
    }
}

/// A point at which tests end the process, as SIGKILL would.
#[cfg(feature = "failpoints")]
fn crash_at(point: &str) {
    fail::fail_point!(point, |_| std::process::abort());
}

#[cfg(not(feature = "failpoints"))]
fn crash_at(_: &str) {}
