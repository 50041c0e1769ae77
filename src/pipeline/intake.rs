//! The first stage behind the poll thread: records to views, views to closed groups.
//!
//! One task owns the stage. It selects to an event, applies it synchronously
//! ([`Intake::apply`]), then hands on what came of it; a full channel behind pushes back on the
//! poll thread, which pauses.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::in_flight::InFlight;
use super::output::Output;
use super::prepare::PendingGroup;
use super::receipt::Receipt;
use super::selection::Selection;
use super::wall_clock;
use crate::admin::{Condition, Readiness};
use crate::decode::EnvelopeDecoder;
use crate::domain::{
    CloseCause, MemoryBudget, PartClosure, Record, Reject, RejectReason, Timestamp,
};
use crate::kafka::consumer::{ConsumerHandle, lock};
use crate::kafka::consumer_messages::{ConsumerCommand, ConsumerEvent};
use crate::kafka::partitioners::KeyedTopics;
use crate::kafka::poll_report::{Reading, SharedPollReport};
use crate::kafka::publisher::{Publication, finished_inputs};
use crate::reassembly::{Event, ReassemblyBuffer, ReassemblyCounts};
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
    /// What the poll thread tells of itself.
    pub(crate) poll: SharedPollReport,
    pub(crate) readiness: Readiness,
    pub(crate) groups: mpsc::Sender<BatchMessage>,
    pub(crate) publications: mpsc::Sender<Publication<Receipt>>,
    /// The assignment that was told last.
    pub(crate) generation: u64,
    /// What the metrics know already.
    pub(crate) counted: ReassemblyCounts,
    pub(crate) keyed: KeyedTopics,
    /// What was told of topics that are keyed in several ways.
    pub(crate) told_mismatch: Option<String>,
    /// What is taken; all of it in a live run.
    pub(crate) selection: Selection,
}

impl Intake {
    /// Runs until the poll thread says that no record will follow. Open groups are left to the
    /// next owner of their partitions: their records are uncommitted. Revocations are answered
    /// until the poll thread ends, since the stages behind still hold work then.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<ConsumerEvent>,
    ) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let outcomes = tokio::select! {
                event = events.recv() => match event {
                    None => return Ok(()),
                    Some(ConsumerEvent::Drained) => {
                        tokio::spawn(answer_after_drain(events, self.in_flight.clone()));
                        return Ok(()); // the stages behind end when their input does
                    }
                    Some(ConsumerEvent::Revoked { partitions, is_all, done }) => {
                        let now = wall_clock();
                        self.reassembly.look(Duration::ZERO, now);
                        let forgotten = self.reassembly.revoke(&partitions, now);
                        tracing::info!(groups = forgotten, "revoked: open groups forgotten");
                        self.readiness.set(Condition::ConsumerAssigned, !is_all);
                        self.answer_when_drained(done).await;
                        continue;
                    }
                    Some(event) => self.apply(event, wall_clock()),
                },
                _ = tick.tick() => self.look_at_the_clock(wall_clock()),
            };
            self.count();
            if !self.hand_on(outcomes).await {
                return Ok(()); // a stage behind ended; its own error says why
            }
        }
    }

    fn apply(&mut self, event: ConsumerEvent, now: Timestamp) -> Vec<Event> {
        self.reassembly.look(Duration::ZERO, now);
        match event {
            ConsumerEvent::Record(record) => {
                self.keyed.observe(&record);
                match self.decoder.decode(Arc::new(record), now) {
                    Ok(view) => {
                        telemetry::view_accepted();
                        let mut events = self.reassembly.accept(view, now);
                        if self.reassembly.is_hasty(&self.budget) {
                            events.extend(self.keep_memory(now));
                        }
                        self.with_partitioners(events)
                    }
                    Err(reject) => self.reject(reject, now),
                }
            }
            ConsumerEvent::Unreadable(reject) => self.reject(reject, now),
            ConsumerEvent::Finished(record) => match self.decoder.decode(Arc::new(record), now) {
                Ok(view) => self.reassembly.recall(view, now),
                Err(reject) => self.reassembly.pass_over(&reject.record.source, now),
            },
            ConsumerEvent::Expected(ends) => {
                for (partition, end) in &ends {
                    self.reassembly.expect_until(partition, *end);
                }
                Vec::new()
            }
            ConsumerEvent::Assigned {
                partitions,
                generation,
                count,
                closed,
            } => {
                self.generation = generation;
                self.keyed.begin(count.unwrap_or_default());
                self.reassembly.assign(&partitions, generation, now);
                self.reassembly.learn_closed(closed);
                self.readiness.set(Condition::ConsumerAssigned, true);
                Vec::new()
            }
            ConsumerEvent::OutOfSight(partition) => {
                self.reassembly.lose_sight(&partition, now);
                Vec::new()
            }
            ConsumerEvent::EndOfPartition(partition) => {
                self.reassembly.end_of_partition(&partition, now);
                Vec::new()
            }
            ConsumerEvent::EndOfRange(partition) => {
                let mut events = self.reassembly.end_of_range(&partition, now);
                events.push(Event::Finished(Vec::new())); // the position is committed with it
                events
            }
            ConsumerEvent::Crowded {
                partition,
                few_enough,
            } => self.reassembly.unblock(&partition, few_enough, now),
            ConsumerEvent::Stuck {
                partition,
                may_wait,
            } => {
                let events = self.reassembly.make_way(&partition, may_wait, now);
                if !events.is_empty() {
                    tracing::warn!(
                        topic = %partition.topic,
                        partition = partition.partition,
                        may_wait,
                        "more waits for missing views than a commit can tell: the oldest parts make way"
                    );
                }
                events
            }
            ConsumerEvent::Revoked { .. } | ConsumerEvent::Drained => Vec::new(),
        }
    }

    /// A record that is no view goes its own way, and what waited for it goes on.
    fn reject(&self, reject: Reject, now: Timestamp) -> Vec<Event> {
        let mut events = self.reassembly.pass_over(&reject.record.source, now);
        events.push(Event::Rejected(reject));
        events
    }

    /// Adds to what is misrouted what is known of its producers.
    fn with_partitioners(&self, mut events: Vec<Event>) -> Vec<Event> {
        for event in &mut events {
            if let Event::Rejected(reject) = event
                && reject.reason == RejectReason::Misrouted
            {
                let known = self.keyed.describe();
                if !known.is_empty() {
                    reject.error.push_str(": ");
                    reject.error.push_str(&known);
                }
            }
        }
        events
    }

    /// Where several instances share the partitions, none sees that the views of a part do not meet,
    /// but each sees how keys were placed.
    fn tell_mismatch(&mut self) {
        let mismatch = self.keyed.mismatch();
        telemetry::set_partitioner_mismatch(mismatch.is_some());
        if mismatch != self.told_mismatch {
            match &mismatch {
                Some(placed) => tracing::warn!(
                    placed,
                    "producers of camera topics place keys in several ways: views of one part do not \
                     meet"
                ),
                None => tracing::info!("producers of camera topics place keys in one way again"),
            }
            self.told_mismatch = mismatch;
        }
    }

    /// Closes what is due and keeps the memory within its budget.
    fn look_at_the_clock(&mut self, now: Timestamp) -> Vec<Event> {
        let (poll_silence, reading) = {
            let poll = lock(&self.poll);
            (poll.turned_at.elapsed(), poll.reading)
        };
        self.reassembly.look(poll_silence, now);
        if reading == Reading::Throttled {
            self.reassembly.note_throttled(now);
        }
        let mut events = self.reassembly.tick(now);
        events.extend(self.keep_memory(now));
        self.report(now);
        self.tell_mismatch();
        events
    }

    /// Pauses, resumes and closes what the memory budget asks for.
    fn keep_memory(&self, now: Timestamp) -> Vec<Event> {
        let flow = self.reassembly.flow(&self.budget, now);
        if !flow.pause.is_empty() {
            tracing::info!(
                partitions = flow.pause.len(),
                "memory high: partitions paused"
            );
            self.consumer.command(ConsumerCommand::Pause {
                partitions: flow.pause,
                generation: self.generation,
            });
        }
        if !flow.resume.is_empty() {
            tracing::info!(
                partitions = flow.resume.len(),
                "memory low: partitions resumed"
            );
            self.consumer.command(ConsumerCommand::Resume {
                partitions: flow.resume,
                generation: self.generation,
            });
        }
        flow.events
    }

    fn report(&mut self, now: Timestamp) {
        let status = self.reassembly.status(now);
        telemetry::set_memory(&self.budget);
        telemetry::set_open_groups(status.open_groups);
        let paused = lock(&self.poll).paused_partitions(status.partitions.len());
        telemetry::set_paused_partitions(paused);
        if let Some(stream_time) = status.stream_time {
            telemetry::set_stream_time_lag(now.since(stream_time));
        }
    }

    /// Tells the metrics what was counted since it was last called.
    fn count(&mut self) {
        let counts = self.reassembly.counts();
        let before = std::mem::replace(&mut self.counted, counts);
        telemetry::records_absorbed(
            counts.absorbed + counts.late_identical - before.absorbed - before.late_identical,
        );
        telemetry::timestamps_clamped(counts.clamped - before.clamped);
        telemetry::views_stale(counts.stale - before.stale);
        telemetry::views_out_of_order(counts.out_of_order - before.out_of_order);
        if before.out_of_order == 0 && counts.out_of_order > 0 {
            tracing::warn!(
                "records of a backlog are taken out of order, for want of memory or because clocks differ: \
                 which views are late or duplicates is left to chance"
            );
        }
        for (cause, closed) in [
            (CloseCause::Complete, counts.complete - before.complete),
            (CloseCause::StreamTime, counts.timed_out - before.timed_out),
            (CloseCause::WallClock, counts.wall_clock - before.wall_clock),
            (CloseCause::Evicted, counts.evicted - before.evicted),
        ] {
            telemetry::groups_closed(cause, closed);
        }
    }

    /// Hands on what came of an event; false when nobody takes it.
    async fn hand_on(&self, outcomes: Vec<Event>) -> bool {
        for mut outcome in outcomes {
            self.selection.apply(&mut outcome);
            let is_taken = match outcome {
                Event::Closed(group, closure) => {
                    let pending = PendingGroup {
                        group,
                        closure,
                        token: self.in_flight.enter(),
                    };
                    self.pass_on(&self.groups, BatchMessage::Group(pending))
                        .await
                }
                Event::Rejected(reject) => self.publish_unscored(vec![reject], &[], None).await,
                Event::Expired {
                    rejects,
                    absorbed,
                    closure,
                    ..
                } => {
                    self.publish_unscored(rejects, &absorbed, Some(&closure))
                        .await
                }
                Event::Finished(records) => self.publish_unscored(Vec::new(), &records, None).await,
            };
            if !is_taken {
                return false;
            }
        }
        true
    }

    /// Publishes what is not scored: dead letters, and records with nothing to publish.
    async fn publish_unscored(
        &self,
        rejects: Vec<Reject>,
        absorbed: &[Arc<Record>],
        closure: Option<&PartClosure>,
    ) -> bool {
        let rejected = rejects.iter().map(|reject| &reject.record);
        let publication = Publication {
            records: rejects
                .iter()
                .map(|reject| self.output.dead_letter(reject))
                .collect(),
            closure: closure.map(|closure| self.output.closed_part(closure)),
            finishes: finished_inputs(rejected.chain(absorbed)),
            token: Receipt::for_unscored(rejects, self.in_flight.enter()),
        };
        self.pass_on(&self.publications, publication).await
    }

    /// Sends to a stage behind; false when it has ended. Time spent waiting for room is not the
    /// line's silence, so the clocks of reassembly are told of it.
    async fn pass_on<T>(&self, channel: &mpsc::Sender<T>, item: T) -> bool {
        match channel.try_send(item) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(item)) => {
                let now = wall_clock();
                self.reassembly.look(Duration::ZERO, now);
                self.reassembly.set_back_pressured(true, now);
                let sent = channel.send(item).await;
                self.reassembly.set_back_pressured(false, wall_clock());
                sent.is_ok()
            }
        }
    }

    /// Answers a revocation once nothing is in flight; the poll thread bounds the wait.
    async fn answer_when_drained(&self, done: std::sync::mpsc::Sender<()>) {
        if self.groups.send(BatchMessage::Flush).await.is_err() {
            return;
        }
        tokio::spawn(answer_once_empty(self.in_flight.clone(), done));
    }
}

/// Answers revocations that come while the stages behind finish what they have.
async fn answer_after_drain(mut events: mpsc::Receiver<ConsumerEvent>, in_flight: InFlight) {
    while let Some(event) = events.recv().await {
        if let ConsumerEvent::Revoked { done, .. } = event {
            tokio::spawn(answer_once_empty(in_flight.clone(), done));
        }
    }
}

/// Without an answer, when what is in flight is abandoned: the revocation then waits no longer.
async fn answer_once_empty(in_flight: InFlight, done: std::sync::mpsc::Sender<()>) {
    if in_flight.empty().await && done.send(()).is_err() {
        tracing::warn!("revocation did not wait for the work in flight");
    }
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
