//! The thread that watches a pipeline, and what comes of a stall.
//!
//! It is a thread of its own, so that it still runs where everything else waits. A stall is logged with
//! the whole status, counted, makes `/readyz` fail and ends the pipeline. Where even that does not work,
//! since a call into a library hangs, the process ends: what is not published is not committed.

use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::observer::Observer;
use super::true_ends::TrueEnds;
use super::watchdog::{Patience, Stall, Watchdog};
use crate::admin::{Condition, Readiness};
use crate::kafka::end_offsets::EndOffsets;
use crate::telemetry;

/// How many times it looks before something has stood still for too long.
const LOOKS: u32 = 20;
/// How many times the brokers are asked for ends meanwhile.
const ROUNDS: u32 = 4;
const LONGEST_INTERVAL: Duration = Duration::from_secs(5);
/// How many of the things that stand still are named.
const MOST_TOLD: usize = 3;
/// How long a pipeline that stands still may take to end, beyond a rebalance: longer than it waits
/// itself for its consumer to close.
const TEARDOWN_PATIENCE: Duration = Duration::from_secs(60);

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

/// A pipeline is watched until this is dropped.
pub(crate) struct Watch {
    _stop: Sender<()>,
}

impl Watch {
    /// Starts the thread. The receiver is told of the first stall.
    pub(crate) fn start(
        observer: Observer,
        ends: EndOffsets,
        patience: Patience,
        readiness: Readiness,
    ) -> std::io::Result<(Self, oneshot::Receiver<Stalled>)> {
        let (stop, stopped) = channel::<()>();
        let (tell, told) = oneshot::channel();
        let interval = (patience.stall_after / LOOKS).min(LONGEST_INTERVAL);
        let mut ends = TrueEnds::new(ends, observer.poll.clone(), patience.stall_after / ROUNDS);
        let mut watchdog = Watchdog::new(patience);
        thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || {
                let mut looked_at = Instant::now();
                let goes_on = || stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout);
                while goes_on() {
                    // A process that was frozen or suspended has not stalled.
                    let passed = looked_at.elapsed().min(2 * interval);
                    looked_at = Instant::now();
                    let mut status = observer.observe();
                    ends.correct(&mut status);
                    let shown = serde_json::to_string(&status).unwrap_or_default();
                    let is_reached = readiness.is_met(Condition::PublisherUp);
                    let stalls = watchdog.observe(status, is_reached, passed);
                    if stalls.is_empty() {
                        continue;
                    }
                    for stall in &stalls {
                        telemetry::stalled(stall.kind());
                    }
                    let stalled = Stalled(stalls);
                    tracing::error!(%stalled, status = shown, "starting anew, or ending");
                    readiness.set(Condition::Moving, false);
                    if tell.send(stalled).is_ok() {
                        let ended = stopped.recv_timeout(patience.rebalance + TEARDOWN_PATIENCE);
                        if ended == Err(RecvTimeoutError::Timeout) {
                            tracing::error!("the pipeline does not end either: leaving");
                            std::process::exit(1);
                        }
                    }
                    return;
                }
            })?;
        Ok((Self { _stop: stop }, told))
    }
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
