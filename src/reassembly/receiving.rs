//! What an arriving view does to its part: opens a group, joins it, or comes too late.

use dashmap::mapref::entry::Entry;

use crate::domain::{CloseCause, Fingerprint, PartClosure, Timestamp, View};

use super::closed::{ClosedPart, LateView};
use super::group::{Arrival, Joined, OpenGroup};
use super::report::Event;
use super::timeline::Timeline;
use super::{PartState, ReassemblyBuffer, push_reject};

impl ReassemblyBuffer {
    pub(super) fn receive(
        &self,
        view: View,
        fingerprint: Fingerprint,
        event_time: Timestamp,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) {
        let entry = self.parts.entry(view.part.clone());
        let mut timeline = self.timeline();
        // Again, since the partition may have been revoked by another thread in the meantime.
        if !timeline.is_current(&view.record) {
            timeline.counts.stale += 1;
            return;
        }
        let arrival = self.arrival(view, fingerprint, event_time, now, &timeline);
        match entry {
            Entry::Vacant(vacant) => {
                if let Some(group) = self.open(arrival, now, &mut timeline, events) {
                    let mut state = vacant.insert(PartState::Open(Box::new(group)));
                    self.close_complete(&mut state, &mut timeline, events);
                }
            }
            Entry::Occupied(mut occupied) => {
                self.receive_known(occupied.get_mut(), arrival, now, &mut timeline, events);
            }
        }
    }

    /// Takes in what others have closed. What is open here stays open, and of two closings of one
    /// part ID the later one counts.
    pub(super) fn learn(&self, closure: PartClosure) {
        let entry = self.parts.entry(closure.part.clone());
        let mut timeline = self.timeline();
        match &entry {
            Entry::Occupied(occupied) => match occupied.get() {
                PartState::Closed(known)
                    if known.closure.reuse.latest() <= closure.reuse.latest() =>
                {
                    timeline.closed.remove(known.sequence);
                }
                _ => return,
            },
            Entry::Vacant(_) => {}
        }
        let closed = ClosedPart::learnt(closure, timeline.next_sequence());
        timeline.closed.insert(&closed);
        entry.insert(PartState::Closed(Box::new(closed)));
    }

    fn arrival(
        &self,
        view: View,
        fingerprint: Fingerprint,
        event_time: Timestamp,
        now: Timestamp,
        timeline: &Timeline,
    ) -> Arrival {
        let timeout = self.settings.for_line(&view.part.line).timeout;
        // A backlog that was taken over lies behind stream time; its parts get their time too.
        let number = view.record.source.partition;
        let opened_at = timeline.clock.stream_time(number).max(Some(event_time));
        let written_at = view.record.timestamp.unwrap_or(event_time);
        Arrival {
            view,
            fingerprint,
            event_time,
            written_at: written_at.min(now.after(self.settings.max_future)),
            deadline: opened_at.unwrap_or(event_time).after(timeout),
        }
    }

    fn receive_known(
        &self,
        state: &mut PartState,
        arrival: Arrival,
        now: Timestamp,
        timeline: &mut Timeline,
        events: &mut Vec<Event>,
    ) {
        if let PartState::Open(group) = state {
            let reuse = self.reuse_of(group, CloseCause::StreamTime, timeline);
            if !reuse.is_by(arrival.event_time, arrival.written_at) {
                self.join(group, arrival, timeline, events);
                self.close_complete(state, timeline, events);
                return;
            }
            self.close(state, CloseCause::StreamTime, timeline, events);
        }
        let PartState::Closed(closed) = state else {
            return;
        };
        match closed.receive(&arrival) {
            LateView::OpensAnew => {
                if let Some(group) = self.open(arrival, now, timeline, events) {
                    timeline.closed.remove(closed.sequence);
                    *state = PartState::Open(Box::new(group));
                    self.close_complete(state, timeline, events);
                }
            }
            LateView::Redelivered => timeline.counts.redelivered += 1,
            LateView::Identical => {
                timeline.counts.late_identical += 1;
                events.push(Event::Finished(vec![arrival.view.record]));
            }
            LateView::Rejected(reject) => push_reject(reject, timeline, events),
        }
    }

    /// Opens a group with its first view, unless that is refused.
    fn open(
        &self,
        arrival: Arrival,
        now: Timestamp,
        timeline: &mut Timeline,
        events: &mut Vec<Event>,
    ) -> Option<OpenGroup> {
        let mut group = OpenGroup::opened_for(&arrival, timeline.next_sequence(), now);
        self.join(&mut group, arrival, timeline, events);
        if group.views().is_empty() {
            return None;
        }
        timeline.schedule_group(&group, &self.settings, now);
        Some(group)
    }

    fn join(
        &self,
        group: &mut OpenGroup,
        arrival: Arrival,
        timeline: &mut Timeline,
        events: &mut Vec<Event>,
    ) {
        let duplicates = self.settings.for_line(&arrival.view.part.line).duplicates;
        let (bytes, conflicts, deadline) = (group.bytes, group.count_conflicts, group.deadline);
        match group.join(arrival, &self.settings.expected, duplicates) {
            Joined::Held(displaced) => {
                for reject in displaced {
                    push_reject(reject, timeline, events);
                }
            }
            Joined::Absorbed => timeline.counts.absorbed += 1,
            Joined::Redelivered => timeline.counts.redelivered += 1,
            Joined::Refused(reject) => push_reject(reject, timeline, events),
        }
        timeline.open_bytes =
            (timeline.open_bytes + group.bytes as u64).saturating_sub(bytes as u64);
        timeline.counts.count_conflicts += (group.count_conflicts - conflicts) as u64;
        if group.deadline != deadline {
            timeline
                .schedule
                .move_deadline(group.sequence, group.deadline);
        }
    }
}
