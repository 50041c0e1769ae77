//! Looks at a running pipeline: what every stage shares, put together into one status.
//!
//! It changes nothing and holds no lock for longer than it takes to copy what it guards.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::in_flight::InFlight;
use super::wall_clock;
use crate::activity::Activity;
use crate::domain::{MemoryBudget, ModelIdentity, SourceOffset, TopicPartition};
use crate::kafka::commit_metadata::MOST_UNFINISHED;
use crate::kafka::consumer::{SharedLedger, lock};
use crate::kafka::offsets::Progress;
use crate::kafka::poll_report::{PartitionReport, Pause, PollReport, Reading, SharedPollReport};
use crate::reassembly::{self, ReassemblyBuffer, WaitingPart};
use crate::status::{Holder, PartitionStatus, PipelineStatus};

/// Longer than the watchdog's longest interval and what it asks in between: it misses no moment of full
/// stages.
const JUST_NOW: Duration = Duration::from_secs(7);

/// What there is to look at.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(crate) group_id: String,
    pub(crate) model: ModelIdentity,
    pub(crate) ledger: SharedLedger,
    pub(crate) reassembly: Arc<ReassemblyBuffer>,
    pub(crate) budget: MemoryBudget,
    pub(crate) in_flight: InFlight,
    pub(crate) poll: SharedPollReport,
    /// One a device thread.
    pub(crate) devices: Vec<Activity>,
    pub(crate) transaction: Activity,
}

impl Observer {
    /// For how long the device that has its batch longest has had it.
    fn longest_batch(&self) -> Option<Duration> {
        self.devices.iter().filter_map(Activity::lasts).max()
    }

    pub(crate) fn observe(&self) -> PipelineStatus {
        let now = wall_clock();
        let (progress, finished_records) = {
            let ledger = lock(&self.ledger);
            (ledger.progress(), ledger.finishes())
        };
        let report = lock(&self.poll).clone();
        let reassembly = self.reassembly.status(now);
        let counts = self.reassembly.counts();
        let clocks: HashMap<&TopicPartition, &reassembly::PartitionStatus> = reassembly
            .partitions
            .iter()
            .map(|clock| (&clock.partition, clock))
            .collect();
        let lowest: HashSet<SourceOffset> = progress.iter().filter_map(lowest_unfinished).collect();
        let holders = self.reassembly.holders(&lowest, now);
        let partitions = progress
            .iter()
            .map(|progress| {
                let holder = lowest_unfinished(progress).map(|source| holders.get(&source));
                partition_status(
                    progress,
                    report.partitions.get(&progress.partition),
                    clocks.get(&progress.partition).copied(),
                    holder,
                )
            })
            .collect();
        PipelineStatus {
            group_id: self.group_id.clone(),
            model_name: self.model.name.clone(),
            model_version: self.model.version.clone(),
            memory_used_bytes: self.budget.used_bytes(),
            memory_budget_bytes: self.budget.limit_bytes(),
            open_parts: reassembly.open_groups,
            in_flight: self.in_flight.count(),
            finished_records,
            closed_parts: counts.closed(),
            views_out_of_order: counts.out_of_order,
            stream_time_lag_ms: reassembly.stream_time.map(|time| millis(now.since(time))),
            reading: reading(&report),
            poll_thread_silent_ms: millis(report.turned_at.elapsed()),
            device_busy_ms: self.longest_batch().map(millis),
            transaction_open_ms: self.transaction.lasts().map(millis),
            partitions,
        }
    }
}

/// Stages that were full just now are taken for full: they are so again as soon as one record is read.
fn reading(report: &PollReport) -> Reading {
    let was_full = |full_at: Instant| full_at.elapsed() < JUST_NOW;
    match report.reading {
        Reading::Running if report.full_at.is_some_and(was_full) => Reading::Jammed,
        reading => reading,
    }
}

fn lowest_unfinished(progress: &Progress) -> Option<SourceOffset> {
    (progress.unfinished > 0).then_some(SourceOffset {
        topic: progress.partition.topic.clone(),
        partition: progress.partition.partition,
        offset: progress.position?,
    })
}

/// `holder` is what in reassembly has the lowest unfinished record, if there is such a record, and it is
/// there.
fn partition_status(
    progress: &Progress,
    report: Option<&PartitionReport>,
    clock: Option<&reassembly::PartitionStatus>,
    holder: Option<Option<&WaitingPart>>,
) -> PartitionStatus {
    let end = report.and_then(|report| report.end);
    let is_at_end = report.is_none_or(|report| report.is_at_end);
    let pause = report.and_then(|report| report.pause);
    let is_pause_due = match pause {
        Some(Pause::Memory) => clock.is_some_and(|clock| clock.is_paused),
        Some(Pause::Unfinished) => progress.unfinished > MOST_UNFINISHED / 2,
        Some(Pause::EndOfRange | Pause::Ahead) | None => true,
    };
    PartitionStatus {
        topic: progress.partition.topic.to_string(),
        partition: progress.partition.partition,
        position: progress.position,
        next_to_read: progress.next_to_read,
        end,
        lag: match end.zip(progress.position) {
            // Behind the last record there may be offsets that hold none.
            Some(_) if is_at_end && progress.unfinished == 0 => Some(0),
            other => other.map(|(end, position)| (end - position).max(0)),
        },
        is_at_end,
        unfinished: progress.unfinished,
        is_idle: clock.is_some_and(|clock| clock.is_idle),
        ahead_ms: clock.map_or(0, |clock| millis(clock.ahead)),
        pause,
        is_pause_stale: !is_pause_due,
        held_by: holder.map(|waiting| waiting.map_or(Holder::Work, waiting_part)),
    }
}

fn waiting_part(waiting: &WaitingPart) -> Holder {
    if !waiting.is_open {
        return Holder::Turn {
            line: waiting.part.line.to_string(),
            part_id: waiting.part.part.to_string(),
            waited_ms: millis(waiting.open_for),
        };
    }
    let missing = waiting.missing.iter();
    Holder::Part {
        line: waiting.part.line.to_string(),
        part_id: waiting.part.part.to_string(),
        missing_views: missing.map(ToString::to_string).collect(),
        open_ms: millis(waiting.open_for),
        is_overdue: waiting.is_overdue,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
