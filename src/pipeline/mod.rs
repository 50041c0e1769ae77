//! The one place that knows every stage: channels, tasks, the order of shutdown.
//!
//! ```text
//! poll thread -> intake -> batching -> prepare -> device threads -> score -> publisher
//!      ^           |                                                  |         |
//!      |           +---- dead letters, absorbed records ------------->+         |
//!      +------------------------------ ledger <---------------------------------+
//! ```
//! Every channel is bounded; a full one pushes back as far as the poll thread, which pauses its
//! partitions and goes on polling. Shutdown follows the data: the poll thread stops reading, each
//! stage ends when its input closes, the publisher waits for the broker, and the last commit
//! comes after all of them.

mod batching;
mod broker_probe;
mod in_flight;
mod intake;
mod observer;
mod output;
mod prepare;
mod receipt;
mod score;
mod selection;
mod setup;
mod true_ends;
mod watch;
mod watchdog;

use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use self::output::OutputSettings;
pub use self::prepare::Preparation;
pub use self::selection::Selection;
pub use self::setup::{PipelineSetup, ServedModel, bus_settings};
pub use self::watchdog::Patience;

use self::broker_probe::BrokerProbe;
use self::in_flight::InFlight;
use self::intake::Intake;
use self::observer::Observer;
use self::output::Output;
use self::receipt::Receipt;
use self::watch::{Stalled, Watch};
use crate::activity::Activity;
use crate::admin::Condition;
use crate::batcher::Batcher;
use crate::decode::EnvelopeDecoder;
use crate::domain::{MemoryBudget, Timestamp};
use crate::inference::{BatchQueue, DeviceThread};
use crate::kafka::consumer::{CameraConsumer, ConsumerHandle, SharedLedger};
use crate::kafka::consumer_messages::{ConsumerCommand, ConsumerError};
use crate::kafka::consumer_settings::{Commits, ConsumerSettings};
use crate::kafka::end_offsets::EndOffsets;
use crate::kafka::offsets::OffsetLedger;
use crate::kafka::partitioners::KeyedTopics;
use crate::kafka::publisher::{Publication, PublishError, Publisher};
use crate::kafka::record_producer::RecordProducer;
use crate::kafka::stored_records::StoredLink;
use crate::kafka::transaction_errors::{is_fenced, refuses_for_good};
use crate::kafka::transactional_publisher::TransactionalPublisher;
use crate::reassembly::{ReassemblyBuffer, ReassemblyCounts};
use crate::scoring::Judge;

/// Records between the poll thread and the intake: enough to bridge one tick of the intake; the
/// bytes are bounded by the memory budget.
const EVENTS: usize = 64;

/// Closed groups before the batcher: one large batch of single-view parts.
const GROUPS: usize = 64;

/// Batches before each of prepare, device and score: one, so that the next is ready when the
/// device is, and no more memory than that is held.
const BATCHES: usize = 1;

/// Publications before the publisher.
const PUBLICATIONS: usize = 256;

/// How long the consumer may take to leave its group, besides the drain: librdkafka has no deadline.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The consumer has not left its group: another one in this process would be its rival.
#[derive(Debug, thiserror::Error)]
#[error("the consumer does not close{}", .0.as_ref().map(|error| format!(", after: {error}")).unwrap_or_default())]
struct Unclosed(Option<String>);

/// Runs the pipeline until `stop` resolves, then drains it.
///
/// # Errors
/// When a stage fails for good. Nothing is lost then: what was not published is not committed.
pub async fn run(setup: PipelineSetup, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let ledger = Arc::new(Mutex::new(OffsetLedger::default()));
    let readiness = setup.readiness.clone();
    let drain_timeout = setup.consumer.drain_timeout;
    let mut stages: JoinSet<anyhow::Result<()>> = JoinSet::new();

    let model = setup.output.model.clone();
    let output = Arc::new(Output::new(setup.output));
    let (publications, to_publish) = mpsc::channel(PUBLICATIONS);
    let publisher = AnyPublisher::connect(
        &setup.consumer,
        output.max_message_bytes(),
        Arc::clone(&ledger),
    )?;
    let publisher_is_initialised = publisher.is_initialised();
    let probe = BrokerProbe {
        producer: publisher.producer(),
        bus: setup.consumer.bus.clone(),
        topics: output.topics(),
        is_initialised: publisher.is_initialised(),
        readiness: readiness.clone(),
    };
    let probing = tokio::spawn(probe.run());
    let transaction = publisher.activity();
    let budget = MemoryBudget::new(setup.memory_budget_bytes);
    let reassembly = Arc::new(ReassemblyBuffer::new(setup.reassembly));
    let remembering = Arc::clone(&reassembly);
    stages.spawn(async move {
        publisher
            .run(to_publish, |receipt: Receipt| receipt.close(&remembering))
            .await
            .context("publisher failed")
    });

    let (answers, to_score) = mpsc::channel(BATCHES);
    let judge = Arc::new(Judge::new(setup.judge));
    stages.spawn(score::score_answers(
        judge,
        Arc::clone(&output),
        to_score,
        publications.clone(),
    ));

    let (prepared, to_infer) = mpsc::channel(BATCHES);
    let queue = BatchQueue::new(to_infer);
    let mut devices = Vec::with_capacity(setup.models.len());
    for model in setup.models {
        let activity = Activity::default();
        let device = DeviceThread::start(
            model,
            setup.max_batch,
            queue.clone(),
            answers.clone(),
            activity.clone(),
        )
        .context("failed to start a device thread")?;
        stages.spawn_blocking(move || device.join().context("device thread failed"));
        devices.push(activity);
    }
    // Both end with the last device thread.
    drop((queue, answers));

    let (batches, to_prepare) = mpsc::channel(BATCHES);
    stages.spawn(prepare::prepare_batches(
        setup.preparation,
        setup.envelope.limits,
        to_prepare,
        prepared,
    ));

    let (groups, to_batch) = mpsc::channel(GROUPS);
    let batcher = Batcher::new(setup.max_batch, setup.max_delay);
    let batching = batching::batch_groups(batcher, devices.len(), to_batch, batches);
    stages.spawn(batching);

    let (events, to_take_in) = mpsc::channel(EVENTS);
    let group_id = setup.consumer.group_id.clone();
    let (consumer, ends) = match setup.stored {
        None => {
            let ends = EndOffsets::connect(&setup.consumer.bus);
            let ends = ends.context("failed to make a client")?;
            let (ledger, budget) = (Arc::clone(&ledger), budget.clone());
            let consumer = CameraConsumer::start(setup.consumer, ledger, budget, events)?;
            (consumer, Some(ends))
        }
        Some(stored) => {
            let link = StoredLink {
                ledger: Arc::clone(&ledger),
                budget: budget.clone(),
                events,
                publisher_is_initialised,
            };
            (stored.start(&setup.consumer, link)?, None)
        }
    };
    let in_flight = InFlight::default();
    let observer = Observer {
        group_id,
        model,
        ledger: Arc::clone(&ledger),
        reassembly: Arc::clone(&reassembly),
        budget: budget.clone(),
        in_flight: in_flight.clone(),
        poll: consumer.report(),
        devices,
        transaction,
    };
    let intake = Intake {
        decoder: EnvelopeDecoder::new(setup.envelope),
        reassembly,
        budget,
        output,
        in_flight: in_flight.clone(),
        consumer: consumer.handle(),
        poll: consumer.report(),
        readiness: readiness.clone(),
        groups,
        publications,
        generation: 0,
        counted: ReassemblyCounts::default(),
        keyed: KeyedTopics::default(),
        told_mismatch: None,
        selection: setup.selection,
    };
    stages.spawn(intake.run(to_take_in));
    readiness.set(Condition::ModelLoaded, true);
    readiness.set(Condition::Moving, true);
    let (watch, stalled) = Watch::start(observer.clone(), ends, setup.patience, readiness.clone())
        .context("failed to start the watchdog")?;
    setup.board.show(move || observer.observe());

    let stop = async {
        stop.await;
        readiness.start_draining();
    };
    let stalled = async {
        match stalled.await {
            Ok(stalled) => stalled.into(),
            Err(_) => anyhow::anyhow!("the watchdog has ended"),
        }
    };
    let handle = consumer.handle();
    let work = UnfinishedWork { in_flight, ledger };
    let outcome = supervise(stages, &handle, stop, stalled, drain_timeout, &work).await;
    setup.board.clear();
    probing.abort();
    let was_fenced = outcome.as_ref().is_err_and(producer_is_fenced);
    let closing = tokio::task::spawn_blocking(move || match was_fenced {
        true => consumer.close_fenced(),
        false => consumer.close(),
    });
    let closed = tokio::time::timeout(drain_timeout + CLOSE_TIMEOUT, closing)
        .await
        .map_err(|_| Unclosed(outcome.as_ref().err().map(|error| format!("{error:#}"))))?
        .context("failed to join the poll thread")?;
    let outcome = match closed {
        // The producer was fenced by the same instance, and another pipeline would be as well.
        Err(ConsumerError::FencedInstance { .. }) => closed.context("consumer failed"),
        _ => outcome.and(closed.context("consumer failed")),
    };
    let stalled = outcome
        .as_ref()
        .err()
        .and_then(|error| error.downcast_ref());
    let is_usable = stalled.is_none_or(Stalled::leaves_a_usable_process);
    // Until here it ends the process if the pipeline does not end.
    tokio::task::spawn_blocking(move || watch.stop(is_usable))
        .await
        .context("failed to stop the watchdog")?;
    outcome
}

fn producer_is_fenced(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(PublishError::Unusable { source, .. }) if is_fenced(source)
    )
}

/// Whether a pipeline that ended with this error is to be followed by another one.
pub fn can_be_rebuilt(error: &anyhow::Error) -> bool {
    let publish = error.downcast_ref::<PublishError>();
    let consume = error.downcast_ref::<ConsumerError>();
    let publisher_can = match publish {
        Some(PublishError::Unusable { source, .. }) => !refuses_for_good(source),
        Some(PublishError::Aborts { .. }) => true,
        _ => false,
    };
    if let Some(stalled) = error.downcast_ref::<Stalled>() {
        return stalled.leaves_a_usable_process();
    }
    let consumer_can = match consume {
        Some(ConsumerError::UnknownCommits(_)) => true,
        Some(ConsumerError::UnknownClosedParts(error)) => !error.is_for_good(),
        _ => false,
    };
    publisher_can || consumer_can
}

/// The publisher that keeps the promise of the settings.
enum AnyPublisher {
    AtLeastOnce(Publisher),
    ExactlyOnce(TransactionalPublisher),
}

impl AnyPublisher {
    fn connect(
        consumer: &ConsumerSettings,
        max_message_bytes: usize,
        ledger: SharedLedger,
    ) -> Result<Self, PublishError> {
        let bus = &consumer.bus;
        match &consumer.commits {
            Commits::Every(_) => {
                Publisher::connect(bus, max_message_bytes, ledger).map(Self::AtLeastOnce)
            }
            Commits::InTransactions(settings) => {
                TransactionalPublisher::connect(bus, max_message_bytes, settings.clone(), ledger)
                    .map(Self::ExactlyOnce)
            }
        }
    }

    fn producer(&self) -> RecordProducer {
        match self {
            Self::AtLeastOnce(publisher) => publisher.producer(),
            Self::ExactlyOnce(publisher) => publisher.producer(),
        }
    }

    /// Whether it can publish, but for brokers that are away.
    fn is_initialised(&self) -> Arc<AtomicBool> {
        match self {
            Self::AtLeastOnce(_) => Arc::new(AtomicBool::new(true)),
            Self::ExactlyOnce(publisher) => publisher.is_initialised(),
        }
    }

    /// Under way while something that should end soon is.
    fn activity(&self) -> Activity {
        match self {
            Self::AtLeastOnce(_) => Activity::default(),
            Self::ExactlyOnce(publisher) => publisher.activity(),
        }
    }

    async fn run(
        self,
        publications: mpsc::Receiver<Publication<Receipt>>,
        close: impl Fn(Receipt),
    ) -> Result<(), PublishError> {
        match self {
            Self::AtLeastOnce(publisher) => publisher.run(publications, close).await,
            Self::ExactlyOnce(publisher) => publisher.run(publications, close).await,
        }
    }
}

/// The wall clock, as stages are given it.
fn wall_clock() -> Timestamp {
    let elapsed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// What a drain waits for.
struct UnfinishedWork {
    in_flight: InFlight,
    ledger: SharedLedger,
}

impl UnfinishedWork {
    fn describe(&self) -> String {
        let records = self
            .ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .total_in_flight();
        format!(
            "`{}` parts and dead letters on their way, `{records}` records uncommitted; they will \
             be read again",
            self.in_flight.count()
        )
    }
}

/// Waits for every stage; `stop` begins the drain, a failed stage or a stall ends the others. A drain
/// that takes longer than `drain_timeout` is cut short and fails: what is unfinished stays uncommitted.
async fn supervise(
    mut stages: JoinSet<anyhow::Result<()>>,
    consumer: &ConsumerHandle,
    stop: impl Future<Output = ()>,
    stalled: impl Future<Output = anyhow::Error>,
    drain_timeout: Duration,
    work: &UnfinishedWork,
) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop);
    let mut stalled = std::pin::pin!(stalled);
    let mut drain_ends = None;
    loop {
        tokio::select! {
            () = &mut stop, if drain_ends.is_none() => {
                drain_ends = Some(tokio::time::Instant::now() + drain_timeout);
                tracing::info!("draining");
                consumer.command(ConsumerCommand::Drain);
            }
            () = reach(drain_ends) => {
                work.in_flight.abandon();
                anyhow::bail!(
                    "drain cut short after `{}`: {}",
                    humantime::format_duration(drain_timeout),
                    work.describe()
                );
            }
            stalled = &mut stalled => {
                work.in_flight.abandon();
                return Err(stalled);
            }
            ended = stages.join_next() => match ended {
                Some(ended) => {
                    let outcome = ended.context("a stage panicked").and_then(|outcome| outcome);
                    if outcome.is_err() {
                        work.in_flight.abandon();
                        return outcome;
                    }
                }
                None => return Ok(()),
            }
        }
    }
}

/// Resolves at `instant`; never, if there is none.
async fn reach(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_drain_that_is_cut_short_fails_and_says_what_is_left() {
        let (handle, _commands) = ConsumerHandle::to_test();
        let in_flight = InFlight::default();
        let work = UnfinishedWork {
            in_flight: in_flight.clone(),
            ledger: SharedLedger::default(),
        };
        let _token = in_flight.enter();
        let mut stages = JoinSet::new();
        stages.spawn(pending());
        let timeout = Duration::from_millis(20);
        let stop = std::future::ready(());
        let outcome = supervise(stages, &handle, stop, pending(), timeout, &work).await;
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "drain cut short after `20ms`: `1` parts and dead letters on their way, `0` records \
             uncommitted; they will be read again"
        );
    }

    #[tokio::test]
    async fn a_drain_ends_when_every_stage_has() {
        let (handle, commands) = ConsumerHandle::to_test();
        let work = UnfinishedWork {
            in_flight: InFlight::default(),
            ledger: SharedLedger::default(),
        };
        let mut stages = JoinSet::new();
        stages.spawn_blocking(move || {
            let command = commands.recv()?;
            anyhow::ensure!(matches!(command, ConsumerCommand::Drain));
            Ok(())
        });
        let timeout = Duration::from_secs(20);
        let stop = std::future::ready(());
        let outcome = supervise(stages, &handle, stop, pending(), timeout, &work).await;
        outcome.unwrap();
    }

    #[tokio::test]
    async fn a_standstill_ends_the_stages_and_is_the_error() {
        let (handle, _commands) = ConsumerHandle::to_test();
        let work = UnfinishedWork {
            in_flight: InFlight::default(),
            ledger: SharedLedger::default(),
        };
        let mut stages = JoinSet::new();
        stages.spawn(pending());
        let stalled = async { anyhow::anyhow!("stands still") };
        let timeout = Duration::from_secs(20);
        let outcome = supervise(stages, &handle, pending(), stalled, timeout, &work).await;
        assert_eq!(outcome.unwrap_err().to_string(), "stands still");
    }
}
