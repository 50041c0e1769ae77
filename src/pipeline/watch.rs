//! The thread that watches a pipeline, and what comes of a stall.
//!
//! It is a thread of its own, so that it still runs where everything else waits. A stall is logged with
//! the status, counted, makes `/readyz` fail and ends the pipeline. Where even that does not work,
//! since a call into a library hangs, the process ends: what is not published is not committed.

use std::collections::HashSet;
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::observer::Observer;
use super::true_ends::TrueEnds;
use super::watchdog::{Patience, Stall, Watchdog};
use crate::admin::{Condition, Readiness};
use crate::kafka::end_offsets::EndOffsets;
use crate::status::PartitionStatus;
use crate::telemetry;

/// How many times it looks, at least, before something has stood still for too long.
const LOOKS: u32 = 20;
/// How many times the brokers are asked for ends meanwhile.
const ROUNDS: u32 = 4;
/// It looks at least this often.
const LONGEST_INTERVAL: Duration = Duration::from_secs(5);
/// How many of the things that stand still are named.
const MOST_TOLD: usize = 3;
/// How long a pipeline that stands still may take to end, beyond a rebalance: longer than it waits
/// itself for its consumer to close.
const TEARDOWN_PATIENCE: Duration = Duration::from_secs(60);
/// How long a process that is to end may take for it.
const EXIT_PATIENCE: Duration = Duration::from_secs(10);

/// A pipeline stood still for too long.
#[derive(Debug)]
pub(crate) struct Stalled(Vec<Stall>);

impl Stalled {
    /// Whether another pipeline in this process could go on.
    pub(crate) fn leaves_a_usable_process(&self) -> bool {
        self.0.iter().all(Stall::leaves_a_usable_process)
    }
}

impl fmt::Display for Stalled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stalls = self.0.iter().take(MOST_TOLD).map(Stall::to_string);
        let told = stalls.collect::<Vec<_>>().join("; ");
        write!(formatter, "the pipeline stands still: {told}")?;
        match self.0.len().saturating_sub(MOST_TOLD) {
            0 => Ok(()),
            more => write!(formatter, "; and {more} more"),
        }
    }
}

impl std::error::Error for Stalled {}

/// A thread that watches a pipeline.
pub(crate) struct Watch {
    stop: Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Watch {
    /// Starts the thread. The receiver is told of the first stall, and closed when the thread ends. Where
    /// the brokers are not what is read, there are no `ends` to ask them for.
    pub(crate) fn start(
        observer: Observer,
        ends: Option<EndOffsets>,
        patience: Patience,
        readiness: Readiness,
    ) -> std::io::Result<(Self, oneshot::Receiver<Stalled>)> {
        let (stop, stopped) = channel();
        let (tell, stalled) = oneshot::channel();
        let mut watcher = Watcher {
            ends: ends.map(|ends| {
                TrueEnds::new(ends, observer.poll.clone(), patience.stall_after / ROUNDS)
            }),
            observer,
            watchdog: Watchdog::new(patience),
            patience,
            readiness,
            stopped,
        };
        let thread = thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watcher.run(tell))?;
        Ok((Self { stop, thread }, stalled))
    }

    /// Ends the thread, unless it has found that the process cannot be used any more: then it stays, and
    /// makes sure that the process ends.
    pub(crate) fn stop(self, leaves_a_usable_process: bool) {
        drop(self.stop);
        if leaves_a_usable_process && self.thread.join().is_err() {
            tracing::error!("the watchdog panicked");
        }
    }
}

/// The thread's own state.
struct Watcher {
    observer: Observer,
    ends: Option<TrueEnds>,
    watchdog: Watchdog,
    patience: Patience,
    readiness: Readiness,
    stopped: Receiver<()>,
}

impl Watcher {
    fn run(&mut self, tell: oneshot::Sender<Stalled>) {
        let interval = (self.patience.stall_after / LOOKS).min(LONGEST_INTERVAL);
        let mut looked_at = Instant::now();
        while self.is_wanted_after(interval) {
            // A process that was frozen or suspended has not stalled.
            let passed = looked_at.elapsed().min(2 * interval);
            looked_at = Instant::now();
            let stalls = self.look(passed);
            if !stalls.is_empty() {
                return self.end(Stalled(stalls), tell);
            }
        }
    }

    fn is_wanted_after(&self, time: Duration) -> bool {
        self.stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
    }

    fn look(&mut self, passed: Duration) -> Vec<Stall> {
        let is_reached = self.readiness.is_met(Condition::PublisherUp);
        let mut status = self.observer.observe();
        if let Some(ends) = &mut self.ends {
            ends.correct(&mut status, is_reached);
        }
        let stalls = self.watchdog.observe(&status, is_reached, passed);
        if !stalls.is_empty() {
            let named = |partition: &PartitionStatus| {
                let name = partition.name();
                let mut partitions = stalls.iter().filter_map(Stall::partition);
                partitions.any(|stalled| *stalled == name)
            };
            status.partitions.retain(named);
            status.partitions.truncate(MOST_TOLD);
            let status = serde_json::to_string(&status).unwrap_or_default();
            tracing::error!(status, "the pipeline stands still");
        }
        stalls
    }

    /// Tells of the stall, and sees that it ends the pipeline.
    fn end(&self, stalled: Stalled, tell: oneshot::Sender<Stalled>) {
        let kinds: HashSet<_> = stalled.0.iter().map(Stall::kind).collect();
        kinds.into_iter().for_each(telemetry::stalled);
        self.readiness.set(Condition::Moving, false);
        let is_usable = stalled.leaves_a_usable_process();
        // Nobody listens to it where the pipeline is ending for another reason, and hangs in that.
        tell.send(stalled).ok();
        if self.is_wanted_after(self.patience.rebalance + TEARDOWN_PATIENCE) {
            tracing::error!("the pipeline does not end either: leaving");
            leave();
        }
        if !is_usable {
            thread::sleep(EXIT_PATIENCE);
            leave();
        }
    }
}

/// Ends the process, whatever hangs in it.
fn leave() -> ! {
    thread::spawn(|| {
        thread::sleep(EXIT_PATIENCE);
        std::process::abort(); // the exit itself hangs, in a driver for one
    });
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_some_of_what_stands_still_and_counts_the_rest() {
        let reading = |number: u8| Stall::Reading {
            partition: format!("cam[{number}]"),
        };
        assert_eq!(
            Stalled((0..5).map(reading).collect()).to_string(),
            "the pipeline stands still: `cam[0]` has records and is not read; `cam[1]` has records and \
             is not read; `cam[2]` has records and is not read; and 2 more"
        );
        let stalled = Stalled(vec![Stall::Transaction]);
        assert!(stalled.leaves_a_usable_process());
        let stalled = Stalled(vec![Stall::Device, Stall::Stages]);
        assert!(!stalled.leaves_a_usable_process());
    }
}
