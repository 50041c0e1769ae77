//! Reassembly: gathers the views of one part, whatever order the cameras' topics deliver them in.
//!
//! Promises, for every view given to [`ReassemblyBuffer::accept`] under the current assignment:
//! its record ends in exactly one closed group (as a view or absorbed as a copy), or in exactly
//! one reject, or is finished as a copy of what was closed before, or is forgotten when its
//! partition is revoked, or still waits in an open group. A part is closed once. No wait is
//! without end: a group closes when it is complete, when stream time passes its deadline, when
//! nothing was left to read for too long, or when memory needs the room.
//!
//! The buffer does no I/O and asks no clock; `now` is the wall clock, given by the caller. It can
//! be shared between threads. Lock order: the map's entry of one part, then the `Timeline`,
//! which is a leaf; nothing takes a second entry while it holds one.

mod closed;
mod closing;
mod crowding;
mod expected;
mod group;
mod interruption;
mod memory;
mod quiet_time;
mod read_order;
mod receiving;
mod report;
mod schedule;
mod settings;
mod stream_time;
mod taking;
mod timeline;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;

use crate::domain::{
    MemoryBudget, PartClosure, PartKey, Reject, SourceOffset, Timestamp, TopicPartition, ViewId,
};

pub use expected::{ExpectedViews, ViewList};
pub use report::{
    Event, FlowDecision, OldestGroup, PartitionStatus, ReassemblyCounts, ReassemblyStatus,
    WaitingPart,
};
pub use settings::{
    ClosedMemorySettings, DEFAULT_WALL_GRACE, LinePolicy, MemoryMarks, ReassemblySettings,
};

use closed::ClosedPart;
use group::OpenGroup;
use memory::Marks;
use schedule::{Due, Sequence};
use timeline::Timeline;

/// The open groups of all parts, and the memory of closed ones.
#[derive(Debug)]
pub struct ReassemblyBuffer {
    parts: DashMap<PartKey, PartState>,
    timeline: Mutex<Timeline>,
    settings: ReassemblySettings,
}

/// Boxed, since the map has room for all closed parts that may be remembered.
#[derive(Debug)]
enum PartState {
    Open(Box<OpenGroup>),
    Closed(Box<ClosedPart>),
}

impl PartState {
    fn sequence(&self) -> Sequence {
        match self {
            Self::Open(group) => group.sequence,
            Self::Closed(closed) => closed.sequence,
        }
    }
}

impl ReassemblyBuffer {
    /// An empty buffer without partitions.
    pub fn new(settings: ReassemblySettings) -> Self {
        Self {
            // A map that doubles in the midst of the stream stops it, and memory is to be known.
            parts: DashMap::with_capacity(settings.closed.max_parts),
            timeline: Mutex::new(Timeline::new(&settings)),
            settings,
        }
    }

    /// Takes partitions under `generation`, all running: those that were paused before must be
    /// resumed by the caller. One that is held under another generation is revoked first.
    pub fn assign(&self, partitions: &[TopicPartition], generation: u64, now: Timestamp) {
        let stale: Vec<TopicPartition> = {
            let timeline = self.timeline();
            let is_stale = |partition: &&TopicPartition| {
                let held = timeline.clock.generation(partition);
                held.is_some_and(|held| held != generation)
            };
            partitions.iter().filter(is_stale).cloned().collect()
        };
        self.revoke(&stale, now);
        let mut timeline = self.timeline();
        for partition in partitions {
            if timeline.clock.generation(partition) != Some(generation) {
                timeline.assign(partition.clone(), generation, now);
            }
        }
    }

    /// Takes in which parts earlier owners of newly assigned partitions have closed, in that order: to
    /// be called before anything that was read of these is accepted.
    pub fn learn_closed(&self, closures: impl IntoIterator<Item = PartClosure>) {
        for closure in closures {
            self.learn(closure);
        }
        self.forget_closed();
    }

    /// Gives partitions up and forgets the open groups that have a record from them; the next
    /// owner reads those again. Returns how many groups it forgot.
    ///
    /// Parts that are closed and published stay known, so that their late views are still told from
    /// new parts. Of the others it is not known here what becomes of them: if they are published yet,
    /// the next owner learns it with its assignment.
    pub fn revoke(&self, partitions: &[TopicPartition], now: Timestamp) -> usize {
        if partitions.is_empty() {
            return 0;
        }
        self.timeline().revoke(partitions, now);
        let revoked: HashSet<&TopicPartition> = partitions.iter().collect();
        let is_revoked = |source: &SourceOffset| revoked.contains(&source.topic_partition());
        let (mut forgotten, mut undecided) = (Vec::new(), Vec::new());
        self.parts.retain(|_, state| match state {
            PartState::Open(group) if group.records().any(|one| is_revoked(&one.source)) => {
                forgotten.push((group.sequence, group.bytes));
                false
            }
            PartState::Closed(closed) if closed.is_undecided(is_revoked) => {
                undecided.push(closed.sequence);
                false
            }
            _ => true,
        });
        let mut timeline = self.timeline();
        for (sequence, bytes) in &forgotten {
            timeline.schedule.remove(*sequence);
            timeline.open_bytes = timeline.open_bytes.saturating_sub(*bytes as u64);
        }
        for sequence in undecided {
            timeline.closed.remove(sequence);
        }
        timeline.counts.forgotten += forgotten.len() as u64;
        forgotten.len()
    }

    /// Notes that more may be written to a partition than can be seen: it holds stream time back until
    /// its end is told again.
    pub fn lose_sight(&self, partition: &TopicPartition, now: Timestamp) {
        self.timeline().lose_sight(partition, now);
    }

    /// Notes that the stages behind keep the consumer from reading, or no longer do. The time
    /// between counts neither as idleness nor towards a wall-clock deadline.
    pub fn set_back_pressured(&self, is_back_pressured: bool, now: Timestamp) {
        self.timeline().set_back_pressured(is_back_pressured, now);
    }

    /// Notes that the caller comes round, and for how long the poll thread has not (its silence). To be
    /// called before each event and with each [`Self::tick`]. Time in which either was away for long counts
    /// neither as idleness nor towards a wall-clock deadline, and the ends of partitions must be told again
    /// after it: nobody has read what was written meanwhile.
    pub fn look(&self, poll_silence: Duration, now: Timestamp) {
        self.timeline().look(poll_silence, now);
    }

    /// Notes that nothing is read because of the rate of a replay: under memory pressure that is no stall.
    pub fn note_throttled(&self, now: Timestamp) {
        self.timeline().flow.note_progress(now);
    }

    /// Whether memory fills so fast that [`Self::flow`] is to be called at once.
    pub fn is_hasty(&self, budget: &MemoryBudget) -> bool {
        let marks = Marks::of(budget, self.settings.memory);
        self.timeline().flow.is_hasty(marks, budget.used_bytes())
    }

    /// Decides what to pause, resume and evict for the memory budget, the one that the records'
    /// leases are from. To be called like [`Self::tick`]; each transition is named once.
    pub fn flow(&self, budget: &MemoryBudget, now: Timestamp) -> FlowDecision {
        let marks = Marks::of(budget, self.settings.memory);
        let mut events = Vec::new();
        let gives_up_order = {
            let mut timeline = self.timeline();
            timeline.update_flow(marks, budget.used_bytes(), now);
            timeline.gives_up_order(marks, now)
        };
        if gives_up_order {
            self.take_waiting(now, &mut events);
        } else {
            self.evict(marks, now, &mut events);
        }
        self.forget_closed();
        let mut timeline = self.timeline();
        if !events.is_empty() {
            timeline.flow.note_progress(now);
        }
        let decision = timeline.decide_flow(&self.settings, now);
        FlowDecision { events, ..decision }
    }

    fn evict(&self, marks: Marks, now: Timestamp, events: &mut Vec<Event>) {
        loop {
            let has_evicted = !events.is_empty();
            let evicted = self.timeline().take_evicted(marks, has_evicted, now);
            let Some(due) = evicted else { return };
            self.close_due(vec![due], events);
        }
    }

    /// Notes that a part's result is published, told by one of its records. If that record is
    /// read again after a rebalance, its part is then not opened anew.
    pub fn mark_published(&self, part: &PartKey, source: &SourceOffset, generation: u64) {
        if let Some(PartState::Closed(closed)) = self.parts.get_mut(part).as_deref_mut() {
            closed.mark_published(source, generation);
        }
    }

    /// How many groups wait for views.
    pub fn open_groups(&self) -> usize {
        self.timeline().schedule.len()
    }

    /// How often things happened since the start.
    pub fn counts(&self) -> ReassemblyCounts {
        self.timeline().counts
    }

    /// The state of the buffer, for operators.
    pub fn status(&self, now: Timestamp) -> ReassemblyStatus {
        let (mut status, oldest) = {
            let timeline = self.timeline();
            let status = ReassemblyStatus {
                open_groups: timeline.schedule.len(),
                open_bytes: timeline.open_bytes,
                closed_parts: timeline.closed.len(),
                stream_time: timeline.clock.lowest_stream_time(),
                oldest: None,
                partitions: timeline.partition_statuses(now),
            };
            (status, timeline.schedule.earliest().cloned())
        };
        status.oldest = oldest.map(|appointment| OldestGroup {
            missing: self.missing_views(&appointment.part),
            part: appointment.part,
            deadline: appointment.deadline,
        });
        status
    }

    /// What holds these records: open groups, or that it is not their turn. It looks at everything that
    /// waits, so it is for operators and not for every record.
    pub fn holders(
        &self,
        sources: &HashSet<SourceOffset>,
        now: Timestamp,
    ) -> HashMap<SourceOffset, WaitingPart> {
        let mut holders = HashMap::new();
        if sources.is_empty() {
            return holders;
        }
        let open = {
            let timeline = self.timeline();
            let views = timeline.order.views();
            for (view, read_at) in views.filter(|(view, _)| sources.contains(&view.record.source)) {
                let waiting = WaitingPart {
                    part: view.part.clone(),
                    is_open: false,
                    missing: Vec::new(),
                    open_for: now.since(read_at),
                    is_overdue: false,
                };
                holders.insert(view.record.source.clone(), waiting);
            }
            timeline.schedule.parts()
        };
        for part in open {
            let state = self.parts.get(&part);
            let Some(PartState::Open(group)) = state.as_deref() else {
                continue;
            };
            for record in group.records() {
                if sources.contains(&record.source) {
                    holders.insert(record.source.clone(), self.waiting_part(group, now));
                }
            }
        }
        holders
    }

    fn waiting_part(&self, group: &OpenGroup, now: Timestamp) -> WaitingPart {
        let settings = &self.settings;
        let timeout = settings.for_line(&group.part().line).timeout;
        let quiet = settings.idle_after + settings.wall_grace.unwrap_or_default();
        let open_for = now.since(group.opened_at());
        WaitingPart {
            part: group.part().clone(),
            is_open: true,
            missing: group.missing(&settings.expected),
            open_for,
            is_overdue: open_for > timeout + quiet,
        }
    }

    fn missing_views(&self, part: &PartKey) -> Vec<ViewId> {
        match self.parts.get(part).as_deref() {
            Some(PartState::Open(group)) => group.missing(&self.settings.expected),
            _ => Vec::new(),
        }
    }

    fn timeline(&self) -> MutexGuard<'_, Timeline> {
        // A panic elsewhere leaves the timeline usable: its methods do not panic half-way.
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_due(&self, due: Vec<Due>, events: &mut Vec<Event>) {
        for due in due {
            let Some(mut state) = self.parts.get_mut(&due.part) else {
                continue;
            };
            if state.sequence() == due.sequence {
                self.close(&mut state, due.cause, &mut self.timeline(), events);
            }
        }
    }

    fn forget_closed(&self) {
        let forgotten = {
            let mut timeline = self.timeline();
            let Timeline { clock, closed, .. } = &mut *timeline;
            // Of what is not ours any more nobody else is known to be ahead.
            let others = clock.lowest_stream_time();
            closed.take_forgotten(|number| match clock.has_number(number) {
                true => clock.stream_time(number),
                false => others,
            })
        };
        for (part, sequence) in forgotten {
            self.parts.remove_if(&part, |_, state| {
                matches!(state, PartState::Closed(_)) && state.sequence() == sequence
            });
        }
    }
}

fn push_reject(reject: Reject, timeline: &mut Timeline, events: &mut Vec<Event>) {
    timeline.counts.rejected += 1;
    events.push(Event::Rejected(reject));
}
