//! The loop of the thread that reads stored records: commands, one record, handing on, commits by interval.
//!
//! It reads nothing before it is known how far the job is, and which parts are closed. Nothing needs to be
//! paused where it is read from: what may not be read is left where it is.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::closed_parts::{ClosedParts, ClosedPartsError};
use super::commit_metadata::MOST_UNFINISHED;
use super::consumer::{POLL_INTERVAL, ThreadLink, lock, send_within};
use super::consumer_messages::{ConsumerCommand, ConsumerError, ConsumerEvent};
use super::consumer_settings::{Commits, ConsumerSettings, METADATA_TIMEOUT};
use super::job_offsets::JobError;
use super::partition_news::until_told;
use super::pauses::Pauses;
use super::poll_loop::{CROWDED_POLL_INTERVAL, read_event};
use super::poll_report::{PartitionReport, Pause, Reading};
use super::read_range::ReadRange;
use super::stored_records::{StoredLink, StoredReading, StoredSource};
use super::throttle::Throttle;
use crate::domain::{PartClosure, RecordCopy, TopicPartition};
use crate::telemetry;

/// There is one assignment, from the beginning to the end.
const GENERATION: u64 = 1;

/// How often it is told how far each partition is.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// The state of the thread between two records.
pub(super) struct StoredLoop {
    source: StoredSource,
    link: StoredLink,
    runtime: Handle,
    range: Arc<ReadRange>,
    commits: Commits,
    closed_parts: ClosedParts,
    pauses: Pauses,
    throttle: Option<Throttle>,
    /// Events that found the channel full, oldest first.
    waiting: VecDeque<ConsumerEvent>,
    is_jammed: bool,
    /// What is to be read next has not come yet.
    is_slow: bool,
    is_drained: bool,
    reported_at: Option<Instant>,
    committed_at: Instant,
}

impl StoredLoop {
    pub(super) fn new(
        source: StoredSource,
        settings: &ConsumerSettings,
        link: StoredLink,
    ) -> Result<Self, ConsumerError> {
        let closed_parts = ClosedParts::connect(
            &settings.bus,
            settings.closed_parts.clone(),
            settings.max_closed_parts,
        );
        let now = Instant::now();
        let rate = settings.most_bytes_per_second;
        Ok(Self {
            source,
            link,
            runtime: Handle::current(),
            range: settings.range.clone().unwrap_or_default(),
            commits: settings.commits.clone(),
            closed_parts: closed_parts.map_err(|error| ConsumerError::Fatal(error.to_string()))?,
            pauses: Pauses::new(MOST_UNFINISHED, settings.crowd_patience),
            throttle: rate.map(|rate| Throttle::new(rate, now)),
            waiting: VecDeque::new(),
            is_jammed: false,
            is_slow: false,
            is_drained: false,
            reported_at: None,
            committed_at: now,
        })
    }

    /// Runs until it is told to close.
    pub(super) fn run(mut self, thread: ThreadLink) -> Result<(), ConsumerError> {
        telemetry::set_reading_held(false); // a pipeline before this one may have left it so
        self.begin(&thread)?;
        let mut patience = Duration::ZERO;
        loop {
            if self.heed(&thread, patience) {
                return self.close();
            }
            patience = self.turn(&thread)?;
        }
    }

    /// Learns how far the job is and which parts are closed, and begins to read; or nothing, when the
    /// pipeline ends before that.
    fn begin(&mut self, thread: &ThreadLink) -> Result<(), ConsumerError> {
        while !self.link.publisher_is_initialised.load(Ordering::Relaxed) {
            if thread.is_ending.load(Ordering::Relaxed) {
                return Ok(());
            }
            lock(&thread.report).turned_at = Instant::now();
            std::thread::sleep(POLL_INTERVAL);
        }
        // Only now: who claims the job later, ends this publisher later.
        self.source.job.check_claim().map_err(of_job)?;
        let mut positions = self.source.job.job_positions().map_err(of_job)?;
        let partitions = self.source.partitions.clone();
        let mut ranges = Vec::new();
        {
            let mut ledger = lock(&self.link.ledger);
            ledger.assign(partitions.iter().cloned(), GENERATION);
            for partition in &partitions {
                let Some(found) = positions.remove(partition) else {
                    continue; // told for each of the job's partitions
                };
                ledger.restore(partition, found.position, &found.finished);
                let end = self.range.end(partition);
                ranges.push((partition.clone(), found.position..end));
            }
        }
        if let Commits::InTransactions(settings) = &self.commits {
            settings.membership.set(self.source.job.group_metadata());
            settings.membership.set_renewed();
        }
        let Some(closed) = self.learn_closed_parts(&thread.is_ending)? else {
            return Ok(());
        };
        tracing::info!(partitions = partitions.len(), "stored partitions are read");
        telemetry::set_assigned_partitions(partitions.len());
        self.waiting.push_back(ConsumerEvent::Assigned {
            partitions,
            generation: GENERATION,
            count: Some(self.source.partition_count),
            closed,
        });
        let read = ranges.iter().map(|(partition, _)| partition.clone());
        let expected = read.map(until_told).collect();
        self.waiting.push_back(ConsumerEvent::Expected(expected));
        let records = &mut self.source.records;
        records.begin(ranges).map_err(ConsumerError::Stored)
    }

    /// None when the pipeline ends before they are told.
    fn learn_closed_parts(
        &mut self,
        is_ending: &AtomicBool,
    ) -> Result<Option<Vec<PartClosure>>, ConsumerError> {
        let numbers = self.source.partitions.iter().map(|one| one.partition);
        let numbers: BTreeSet<i32> = numbers.collect();
        if numbers.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let before = match &self.commits {
            Commits::Every(_) => Duration::ZERO,
            Commits::InTransactions(settings) => 2 * settings.timeout,
        };
        let deadline = Instant::now() + METADATA_TIMEOUT + before;
        let count = self.source.partition_count;
        let learnt = self
            .closed_parts
            .learn(&numbers, count, deadline, &self.runtime, is_ending);
        match learnt {
            Ok(closed) => Ok(Some(closed)),
            Err(ClosedPartsError::Stopping) => Ok(None),
            Err(error) if matches!(self.commits, Commits::InTransactions(_)) => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "late views may be scored as new parts");
                Ok(Some(Vec::new()))
            }
        }
    }

    /// Does what was asked for, after waiting for it; says whether the thread should end.
    fn heed(&mut self, thread: &ThreadLink, patience: Duration) -> bool {
        let mut next = match patience.is_zero() {
            true => None,
            false => match thread.commands.recv_timeout(patience) {
                Ok(command) => Some(command),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => return false,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return true,
            },
        };
        loop {
            match next.map_or_else(|| thread.commands.try_recv(), Ok) {
                Ok(ConsumerCommand::Pause { partitions, .. }) => {
                    self.pauses.pause_for_memory(&partitions);
                }
                Ok(ConsumerCommand::Resume { partitions, .. }) => {
                    self.pauses.resume_for_memory(&partitions);
                }
                Ok(ConsumerCommand::Drain) => {
                    self.is_drained = true;
                    self.waiting.push_back(ConsumerEvent::Drained);
                }
                Ok(ConsumerCommand::Close | ConsumerCommand::CloseFenced)
                | Err(std::sync::mpsc::TryRecvError::Disconnected) => return true,
                Err(std::sync::mpsc::TryRecvError::Empty) => return false,
            }
            next = None;
        }
    }

    /// One time round; for how long there is nothing to do then but to wait for commands.
    fn turn(&mut self, thread: &ThreadLink) -> Result<Duration, ConsumerError> {
        self.report(thread);
        self.relieve();
        self.commit_in_time();
        if !self.hand_on(thread) {
            return Ok(Duration::ZERO); // it has waited already
        }
        if self.is_drained {
            return Ok(POLL_INTERVAL);
        }
        if let Some(wait) = self.throttled() {
            return Ok(wait.min(POLL_INTERVAL));
        }
        if self.is_memory_used_up() {
            return Ok(CROWDED_POLL_INTERVAL);
        }
        let idle = match self.pauses.is_any_crowded() {
            true => CROWDED_POLL_INTERVAL, // what finishes wakes nobody
            false => POLL_INTERVAL,
        };
        let pauses = &self.pauses;
        let may_read = |partition: &TopicPartition| pauses.of(partition).is_none();
        let read = self.source.records.next(&may_read, idle);
        let read = read.map_err(ConsumerError::Stored)?;
        self.is_slow = matches!(read, StoredReading::Slow);
        match read {
            StoredReading::Record(copy) => self.take(*copy),
            StoredReading::End(partition) => self.end_range(partition),
            StoredReading::Slow => {}
            StoredReading::Nothing => return Ok(idle),
        }
        Ok(Duration::ZERO)
    }

    fn take(&mut self, copy: RecordCopy) {
        let RecordCopy {
            mut record, fault, ..
        } = copy;
        let (now, bytes) = (Instant::now(), record.size_bytes());
        telemetry::record_read(&record.source.topic, bytes);
        if let Some(throttle) = &mut self.throttle {
            throttle.take(bytes, now);
        }
        let partition = record.source.topic_partition();
        record.generation = GENERATION;
        let (begun, unfinished) = {
            let mut ledger = lock(&self.link.ledger);
            let begun = ledger.begin(&record.source);
            (begun, ledger.in_flight(&partition))
        };
        if self.pauses.crowd(&partition, unfinished, now) {
            tracing::debug!(
                topic = %partition.topic,
                partition = partition.partition,
                "as much is unfinished as a commit can tell: partition left for now"
            );
        }
        let event = read_event(record, fault, begun, &self.link.budget);
        self.waiting.extend(event);
    }

    fn end_range(&mut self, partition: TopicPartition) {
        if self.pauses.end_range(&partition) {
            let end = self.range.end(&partition);
            lock(&self.link.ledger).read_until(&partition, end);
            self.waiting.push_back(ConsumerEvent::EndOfRange(partition));
        }
    }

    fn throttled(&self) -> Option<Duration> {
        self.throttle.as_ref()?.wait(Instant::now())
    }

    /// The intake then says what is to make way.
    fn is_memory_used_up(&self) -> bool {
        let budget = &self.link.budget;
        budget.used_bytes() >= budget.limit_bytes()
    }

    /// Lets those partitions be read again of which half is finished, and tells of those of which nothing
    /// finishes though the views that it waits for could have come.
    fn relieve(&mut self) {
        let is_excused = self.reading().is_interrupted() || self.is_slow;
        let ledger = lock(&self.link.ledger);
        let relief = self.pauses.relieve(&ledger, is_excused, Instant::now());
        drop(ledger);
        let may_wait = self.pauses.few_enough();
        let stuck = relief.stuck.into_iter();
        let stuck = stuck.map(|partition| ConsumerEvent::Stuck {
            partition,
            may_wait,
        });
        self.waiting.extend(stuck);
    }

    /// Sends what waits, in order; false when the stages behind have no room for some of it.
    fn hand_on(&mut self, thread: &ThreadLink) -> bool {
        while let Some(event) = self.waiting.pop_front() {
            if self.link.events.capacity() == 0 {
                lock(&thread.report).full_at = Some(Instant::now());
            }
            let sent = send_within(&self.link.events, &self.runtime, event, POLL_INTERVAL);
            if let Some(event) = sent {
                self.waiting.push_front(event);
                self.is_jammed = true;
                return false;
            }
        }
        self.is_jammed = false;
        true
    }

    fn reading(&self) -> Reading {
        if self.is_drained {
            return Reading::Draining;
        }
        if self.is_jammed || self.is_memory_used_up() {
            return Reading::Jammed;
        }
        match self.throttled() {
            Some(_) => Reading::Throttled,
            None => Reading::Running,
        }
    }

    fn report(&mut self, thread: &ThreadLink) {
        let mut report = lock(&thread.report);
        let now = Instant::now();
        report.turned_at = now;
        report.reading = self.reading();
        let is_due = |told: Instant| now.duration_since(told) >= REPORT_INTERVAL;
        if self.reported_at.is_none_or(is_due) {
            self.reported_at = Some(now);
            report.partitions = self.partition_reports();
            let crowded = report.partitions.iter();
            let crowded = crowded.filter(|(_, one)| one.pause == Some(Pause::Unfinished));
            let few_enough = self.pauses.few_enough();
            let events = crowded.map(|(partition, _)| ConsumerEvent::Crowded {
                partition: partition.clone(),
                few_enough,
            });
            self.waiting.extend(events);
            let mut ledger = lock(&self.link.ledger);
            ledger.settle_gaps();
            telemetry::set_uncommitted_records(ledger.total_in_flight());
        }
    }

    fn partition_reports(&self) -> HashMap<TopicPartition, PartitionReport> {
        let ahead = self.source.records.ahead();
        let partitions = self.source.partitions.iter();
        let report = |partition: &TopicPartition| {
            let pause = self.pauses.of(partition);
            let pause = pause.or_else(|| ahead.contains(partition).then_some(Pause::Ahead));
            PartitionReport {
                end: Some(self.range.end(partition)),
                high_watermark: None,
                is_at_end: pause == Some(Pause::EndOfRange),
                pause,
            }
        };
        partitions.map(|one| (one.clone(), report(one))).collect()
    }

    fn commit_in_time(&mut self) {
        if let Commits::Every(interval) = self.commits
            && self.committed_at.elapsed() >= interval
        {
            self.committed_at = Instant::now();
            self.commit();
        }
    }

    fn commit(&self) {
        if let Err(error) = self.source.job.commit_finished(&self.link.ledger) {
            tracing::warn!(%error, "offset commit failed; what it told is told again, or read again");
        }
    }

    fn close(self) -> Result<(), ConsumerError> {
        if let Commits::Every(_) = self.commits {
            self.commit();
        }
        telemetry::set_assigned_partitions(0);
        Ok(())
    }
}

/// Brokers that do not tell how far a job is may tell it later.
fn of_job(error: JobError) -> ConsumerError {
    match error {
        JobError::Brokers { source, .. } => ConsumerError::UnknownCommits(source),
        error => error.into(),
    }
}

#[cfg(test)]
#[path = "stored_loop_tests.rs"]
mod tests;
