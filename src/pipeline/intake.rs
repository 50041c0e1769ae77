//! The first stage behind the poll thread: records to views, views to closed groups.
//!
//! One task owns the stage. It selects to an event, applies it synchronously
//! ([`Intake::apply`]), then hands on what came of it; a full channel behind pushes back on the
//! poll thread, which pauses.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::in_flight::{InFlight, InFlightToken};
use super::output::Output;
use super::prepare::PendingGroup;
use super::score::now;
use crate::admin::Readiness;
use crate::decode::EnvelopeDecoder;
use crate::domain::{MemoryBudget, Reject, Timestamp};
use crate::kafka::consumer::{ConsumerCommand, ConsumerEvent, ConsumerHandle};
use crate::kafka::publisher::{Publication, finished_inputs};
use crate::reassembly::{Event, ReassemblyBuffer};
use crate::telemetry;

/// How often deadlines and memory are looked at.
const TICK: Duration = Duration::from_millis(50);

/// What the batching stage is told.
#[derive(Debug)]
pub(crate) enum BatchMessage {
    /// A group to score.
    Group(PendingGroup),
    /// Close what is there: somebody waits for it.
    Flush,
}

/// The stage and all it needs.
pub(crate) struct Intake {
    pub(crate) decoder: EnvelopeDecoder,
    pub(crate) reassembly: Arc<ReassemblyBuffer>,
    pub(crate) budget: MemoryBudget,
    pub(crate) output: Arc<Output>,
    pub(crate) in_flight: InFlight,
    pub(crate) consumer: ConsumerHandle,
    pub(crate) readiness: Readiness,
    pub(crate) groups: mpsc::Sender<BatchMessage>,
    pub(crate) publications: mpsc::Sender<Publication<InFlightToken>>,
}

impl Intake {
    /// Runs until the poll thread says that no record will follow. Open groups are left to the
    /// next owner of their partitions: their records are uncommitted.
    pub(crate) async fn run(self, mut events: mpsc::Receiver<ConsumerEvent>) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let outcomes = tokio::select! {
                event = events.recv() => match event {
                    None | Some(ConsumerEvent::Drained) => return Ok(()),
                    Some(ConsumerEvent::Revoked { partitions, done }) => {
                        let forgotten = self.reassembly.revoke(&partitions);
                        tracing::info!(forgotten, "open groups of revoked partitions forgotten");
                        self.readiness.set_assigned(false);
                        self.answer_when_drained(done).await;
                        continue;
                    }
                    Some(event) => self.apply(event, now()),
                },
                _ = tick.tick() => self.look_at_the_clock(now()),
            };
            if !self.hand_on(outcomes).await {
                return Ok(()); // a stage behind ended; its own error says why
            }
        }
    }

    fn apply(&self, event: ConsumerEvent, now: Timestamp) -> Vec<Event> {
        match event {
            ConsumerEvent::Record(record) => {
                let record = Arc::new(record);
                match self.decoder.decode(record, now) {
                    Ok(view) => self.reassembly.accept(view, now),
                    Err(reject) => vec![Event::Rejected(reject)],
                }
            }
            ConsumerEvent::Assigned {
                partitions,
                generation,
            } => {
                self.reassembly.assign(&partitions, generation, now);
                self.readiness.set_assigned(true);
                Vec::new()
            }
            ConsumerEvent::EndOfPartition(partition) => {
                self.reassembly.end_of_partition(&partition, now)
            }
            ConsumerEvent::Revoked { .. } | ConsumerEvent::Drained => Vec::new(),
        }
    }

    /// Closes what is due and keeps the memory within its budget.
    fn look_at_the_clock(&self, now: Timestamp) -> Vec<Event> {
        let mut events = self.reassembly.tick(now);
        let flow = self.reassembly.flow(&self.budget, now);
        if !flow.pause.is_empty() {
            tracing::info!(partitions = flow.pause.len(), "memory high: partitions paused");
            self.consumer.command(ConsumerCommand::Pause(flow.pause));
        }
        if !flow.resume.is_empty() {
            tracing::info!(partitions = flow.resume.len(), "memory low: partitions resumed");
            self.consumer.command(ConsumerCommand::Resume(flow.resume));
        }
        events.extend(flow.events);
        telemetry::memory_used(self.budget.used_bytes(), self.budget.limit_bytes());
        telemetry::open_groups(self.reassembly.open_groups());
        events
    }

    /// Hands on what came of an event; false when nobody takes it.
    async fn hand_on(&self, outcomes: Vec<Event>) -> bool {
        for outcome in outcomes {
            let is_taken = match outcome {
                Event::Closed(group) => {
                    telemetry::group_closed(group.cause);
                    let pending = PendingGroup {
                        group,
                        token: self.in_flight.enter(),
                    };
                    self.groups.send(BatchMessage::Group(pending)).await.is_ok()
                }
                Event::Rejected(reject) => self.publish_dead_letter(&reject).await,
                Event::Finished(records) => {
                    let publication = Publication {
                        records: Vec::new(),
                        finishes: finished_inputs(&records),
                        token: self.in_flight.enter(),
                    };
                    self.publications.send(publication).await.is_ok()
                }
            };
            if !is_taken {
                return false;
            }
        }
        true
    }

    async fn publish_dead_letter(&self, reject: &Reject) -> bool {
        let publication = Publication {
            records: vec![self.output.dead_letter(reject)],
            finishes: finished_inputs([&reject.record]),
            token: self.in_flight.enter(),
        };
        self.publications.send(publication).await.is_ok()
    }

    /// Answers a revocation once nothing is in flight; the poll thread bounds the wait.
    async fn answer_when_drained(&self, done: std::sync::mpsc::Sender<()>) {
        if self.groups.send(BatchMessage::Flush).await.is_err() {
            return;
        }
        let in_flight = self.in_flight.clone();
        tokio::spawn(async move {
            in_flight.empty().await;
            if done.send(()).is_err() {
                tracing::warn!("revocation did not wait for the work in flight");
            }
        });
    }
}
