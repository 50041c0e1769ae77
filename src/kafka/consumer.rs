//! The poll thread: the one place that reads camera topics.
//!
//! A [`CameraConsumer`] is an OS thread around a `BaseConsumer`. It polls for as long as it lives,
//! paused or not, so that a slow model never gets the member out of its group; it copies every
//! message out of librdkafka's fetch buffer, enters it into the [`OffsetLedger`], and hands it on
//! over a bounded channel. When that channel stays full, or memory is used up, it pauses every partition and goes on
//! polling. It commits the ledger's positions by interval, on revocation, and at the end, and waits
//! for each commit: `rdkafka` does not tell of asynchronous ones how they ended.
//!
//! Rebalance callbacks run inline in `poll` on this thread. Revocation waits for the stages
//! behind, for a bounded time, then commits and forgets. With `exactly_once` the publisher commits
//! instead, together with what it publishes.
//!
//! It is a thread and no task: a callback that waits on a thread of the runtime may wait for what that
//! thread should run. It polls all partitions from one queue, with a timeout: `rdkafka`'s streams, and
//! the queues that it splits off for single partitions, stop for good after one missed wake-up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::closed_parts::ClosedParts;
use super::consumer_messages::{ConsumerCommand, ConsumerError, ConsumerEvent};
use super::consumer_settings::{Commits, ConsumerSettings};
use super::fetch_waker::FetchWaker;
use super::group_context::GroupContext;
use super::offsets::OffsetLedger;
use super::poll_loop::PollLoop;
use super::poll_report::SharedPollReport;
use super::static_member::StaticMember;
use super::throttle::{Throttle, most_ahead};
use crate::domain::MemoryBudget;

/// How long one poll waits: the latency of a pause, a commit or a stop on a silent bus.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often librdkafka reports positions; the ends of partitions are learnt from it, because its
/// end-of-partition event names no topic.
const STATISTICS_INTERVAL_MS: &str = "250";

/// How long a broker may hold a fetch that finds nothing. A broker answers one fetch of a client after the
/// other, so a partition that is resumed waits for the one that was sent without it: with librdkafka's
/// 500 ms that halved the pace of small views, of which partitions are paused for being crowded.
const LONGEST_FETCH_MS: &str = "50";

/// After how long librdkafka fetches again once its prefetch queue was full: with its own 1000 ms a queue
/// of a tenth of a second's images runs dry.
const FULL_QUEUE_PAUSE_MS: &str = "10";

/// The ledger as the poll thread and the publisher share it.
pub type SharedLedger = Arc<Mutex<OffsetLedger>>;

/// Locks a mutex whose holders never leave it half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends an event unless the channel stays full for `patience`; then gives it back. Where nobody
/// reads any more the event is dropped: the pipeline is ending, and what is not published is not
/// committed either.
pub(super) fn send_within(
    events: &mpsc::Sender<ConsumerEvent>,
    runtime: &Handle,
    event: ConsumerEvent,
    patience: Duration,
) -> Option<ConsumerEvent> {
    match events.try_send(event) {
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
        Err(mpsc::error::TrySendError::Full(event)) => {
            let reserved =
                runtime.block_on(async { tokio::time::timeout(patience, events.reserve()).await });
            match reserved {
                Ok(Ok(permit)) => {
                    permit.send(event);
                    None
                }
                Ok(Err(_)) => None,
                Err(_) => Some(event),
            }
        }
    }
}

/// A running poll thread.
pub struct CameraConsumer {
    handle: ConsumerHandle,
    report: SharedPollReport,
    thread: thread::JoinHandle<Result<(), ConsumerError>>,
}

/// The thread's end of what connects it with the pipeline.
pub(super) struct ThreadLink {
    pub(super) commands: std::sync::mpsc::Receiver<ConsumerCommand>,
    pub(super) is_ending: Arc<AtomicBool>,
    pub(super) report: SharedPollReport,
}

impl ThreadLink {
    fn open() -> (ConsumerHandle, Self) {
        let (commands, received) = std::sync::mpsc::channel();
        let link = Self {
            commands: received,
            is_ending: Arc::default(),
            report: SharedPollReport::default(),
        };
        let is_ending = Arc::clone(&link.is_ending);
        let handle = ConsumerHandle {
            commands,
            is_ending,
        };
        (handle, link)
    }
}

/// Speaks to a poll thread.
#[derive(Clone, Debug)]
pub struct ConsumerHandle {
    commands: std::sync::mpsc::Sender<ConsumerCommand>,
    /// Told with a drain or a close, since a callback that waits for the brokers hears no command.
    is_ending: Arc<AtomicBool>,
}

impl ConsumerHandle {
    /// Tells the thread something; a thread that has ended is told nothing.
    pub fn command(&self, command: ConsumerCommand) {
        if !matches!(
            command,
            ConsumerCommand::Pause { .. } | ConsumerCommand::Resume { .. }
        ) {
            self.is_ending.store(true, Ordering::Relaxed);
        }
        if self.commands.send(command).is_err() {
            tracing::debug!("poll thread has ended, command dropped");
        }
    }
}

#[cfg(test)]
impl ConsumerHandle {
    /// A handle that speaks to the test.
    pub(crate) fn to_test() -> (Self, std::sync::mpsc::Receiver<ConsumerCommand>) {
        let (handle, link) = ThreadLink::open();
        (handle, link.commands)
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
        let (handle, link) = ThreadLink::open();
        let closed_parts = ClosedParts::connect(
            &settings.bus,
            settings.closed_parts.clone(),
            settings.max_closed_parts,
        )
        .map_err(|source| subscribe_error(&settings, source))?;
        let context = GroupContext::new(&settings, &ledger, events.clone(), closed_parts, &link);
        if settings.range.is_some() {
            lock(&ledger).tell_skipped();
        }
        let consumer = Arc::new(subscribe(&settings, context)?);
        let throttle = settings
            .most_bytes_per_second
            .map(|rate| Throttle::new(rate, Instant::now()));
        let poll_loop = PollLoop {
            waker: FetchWaker::start(Arc::clone(&consumer))?,
            consumer,
            ledger,
            budget,
            events,
            runtime: Handle::current(),
            commit_interval: match &settings.commits {
                Commits::Every(interval) => Some(*interval),
                Commits::InTransactions(_) => None,
            },
            static_member: StaticMember::of(&settings),
            waiting: VecDeque::new(),
            is_jammed: false,
            used_up_at: None,
            is_drained: false,
            is_held: false,
            throttle,
            is_throttled: false,
        };
        Self::spawn("kafka-poll", handle, link, move |link| {
            poll_loop.run(&link.commands)
        })
    }

    /// Another thread that says and is told the same.
    pub(super) fn of_thread(
        name: &str,
        run: impl FnOnce(ThreadLink) -> Result<(), ConsumerError> + Send + 'static,
    ) -> Result<Self, ConsumerError> {
        let (handle, link) = ThreadLink::open();
        Self::spawn(name, handle, link, run)
    }

    fn spawn(
        name: &str,
        handle: ConsumerHandle,
        link: ThreadLink,
        run: impl FnOnce(ThreadLink) -> Result<(), ConsumerError> + Send + 'static,
    ) -> Result<Self, ConsumerError> {
        let report = Arc::clone(&link.report);
        let thread = thread::Builder::new().name(name.into());
        Ok(Self {
            handle,
            report,
            thread: thread.spawn(move || run(link))?,
        })
    }

    /// A way to speak to the thread.
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// What the thread tells of itself.
    pub fn report(&self) -> SharedPollReport {
        Arc::clone(&self.report)
    }

    /// Commits, leaves the group and waits for the thread's end.
    ///
    /// # Errors
    /// What ended it early.
    pub fn close(self) -> Result<(), ConsumerError> {
        self.end(ConsumerCommand::Close)
    }

    /// As [`Self::close`], after the producer was fenced.
    ///
    /// # Errors
    /// [`ConsumerError::FencedInstance`] if another instance with this one's name did it.
    pub fn close_fenced(self) -> Result<(), ConsumerError> {
        self.end(ConsumerCommand::CloseFenced)
    }

    fn end(self, command: ConsumerCommand) -> Result<(), ConsumerError> {
        self.handle.command(command);
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
    // Bytes bound the prefetch of images long before `queued.min.messages` does, and librdkafka bounds
    // a fetch by them, too. A record larger than `max.partition.fetch.bytes` comes alone: brokers send
    // the first one of a fetch whole, and librdkafka begins each fetch with another partition.
    let of_rate = settings.most_bytes_per_second.map(most_ahead);
    let prefetch_bytes = of_rate.unwrap_or(u64::MAX).min(settings.prefetch_bytes);
    let prefetch_kbytes = (prefetch_bytes / 1024).clamp(1, 2_097_151);
    for (name, value) in [
        ("auto.offset.reset", "earliest"),
        ("queued.max.messages.kbytes", &prefetch_kbytes.to_string()),
        ("fetch.wait.max.ms", LONGEST_FETCH_MS),
        ("fetch.queue.backoff.ms", FULL_QUEUE_PAUSE_MS),
    ] {
        if !settings.bus.properties.contains_key(name) {
            config.set(name, value);
        }
    }
    context.protocol.ask_for_range(&mut config);
    config
        .set("group.id", &settings.group_id)
        // The ledger's positions are committed as they are. librdkafka's store of offsets adds one in
        // some calls and not in others.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    let failed = |source| subscribe_error(settings, source);
    let consumer: BaseConsumer<GroupContext> =
        config.create_with_context(context).map_err(failed)?;
    let topics: Vec<&str> = settings.subscription.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(failed)?;
    Ok(consumer)
}

fn subscribe_error(settings: &ConsumerSettings, source: KafkaError) -> ConsumerError {
    ConsumerError::Subscribe {
        group_id: settings.group_id.clone(),
        subscription: settings.subscription.join(", "),
        source: Box::new(source),
    }
}

#[cfg(test)]
#[path = "consumer_tests.rs"]
mod tests;
