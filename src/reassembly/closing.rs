//! How an open group becomes a closed part, and where it goes by its line's policy.

use std::mem;
use std::sync::Arc;

use crate::domain::{
    CloseCause, Group, PartClosure, Reject, RejectReason, Reuse, ScoringOrder, TimeoutPolicy,
    ViewId,
};

use super::closed::ClosedPart;
use super::group::OpenGroup;
use super::report::Event;
use super::timeline::Timeline;
use super::{PartState, ReassemblyBuffer};

impl ReassemblyBuffer {
    pub(super) fn close_complete(
        &self,
        state: &mut PartState,
        timeline: &mut Timeline,
        events: &mut Vec<Event>,
    ) {
        let is_complete = match state {
            PartState::Open(group) => group.is_complete(&self.settings.expected),
            PartState::Closed(_) => false,
        };
        if is_complete {
            self.close(state, CloseCause::Complete, timeline, events);
        }
    }

    pub(super) fn close(
        &self,
        state: &mut PartState,
        cause: CloseCause,
        timeline: &mut Timeline,
        events: &mut Vec<Event>,
    ) {
        let PartState::Open(group) = state else {
            return;
        };
        let closed = ClosedPart::of(group, self.reuse_of(group, cause, timeline));
        timeline.schedule.remove(group.sequence);
        timeline.open_bytes = timeline.open_bytes.saturating_sub(group.bytes as u64);
        timeline.closed.insert(&closed);
        timeline.count_closed(cause);
        self.note_times(group, cause, timeline);
        let closure = Arc::clone(&closed.closure);
        let previous = mem::replace(state, PartState::Closed(Box::new(closed)));
        if let PartState::Open(group) = previous {
            self.hand_on(*group, closure, cause, timeline, events);
        }
    }

    /// Tells the order of reading what the times of a group's views say of the clocks behind them.
    fn note_times(&self, group: &OpenGroup, cause: CloseCause, timeline: &mut Timeline) {
        let number = group.opened_by().partition;
        if cause == CloseCause::Complete {
            let timeout = self.settings.for_line(&group.part().line).timeout;
            let is_close = group.written_within() <= timeout;
            timeline.order.note_complete(number, is_close);
        } else {
            timeline.order.note_incomplete(number, group.part());
        }
    }

    /// From when on the group's part ID means a new part.
    pub(super) fn reuse_of(
        &self,
        group: &OpenGroup,
        cause: CloseCause,
        timeline: &Timeline,
    ) -> Reuse {
        let closed_at = match cause {
            CloseCause::Complete => group.last_event,
            _ => group.last_event.max(group.deadline),
        };
        let number = group.opened_by().partition;
        let stream_time = timeline.clock.stream_time(number).unwrap_or(closed_at);
        Reuse {
            taken_after: closed_at.max(stream_time).after(self.settings.reuse_after),
            written_after: group.last_written.after(self.settings.reuse_after),
        }
    }

    /// Sends a closed group where its line's policy wants it.
    fn hand_on(
        &self,
        group: OpenGroup,
        closure: Arc<PartClosure>,
        cause: CloseCause,
        timeline: &mut Timeline,
        events: &mut Vec<Event>,
    ) {
        let on_timeout = self.settings.for_line(&group.part().line).on_timeout;
        let scoring = match (cause, on_timeout) {
            (CloseCause::Complete, _) | (_, TimeoutPolicy::ScorePartial) => ScoringOrder::Score,
            (_, TimeoutPolicy::Review | TimeoutPolicy::DeadLetter) => ScoringOrder::Skip,
        };
        let group = group.close(cause, scoring, &self.settings.expected);
        if cause == CloseCause::Complete || on_timeout != TimeoutPolicy::DeadLetter {
            events.push(Event::Closed(group, closure));
            return;
        }
        let error = expiry_error(&group);
        let rejects: Vec<Reject> = group
            .views
            .into_iter()
            .map(|view| Reject {
                record: view.record,
                reason: RejectReason::Expired,
                error: error.clone(),
            })
            .collect();
        timeline.counts.rejected += rejects.len() as u64;
        events.push(Event::Expired {
            rejects,
            absorbed: group.absorbed,
            class: group.class,
            closure,
        });
    }
}

fn expiry_error(group: &Group) -> String {
    let cause = match group.cause {
        CloseCause::Evicted => "was closed early to make way",
        _ => "was not complete in time",
    };
    let missing: Vec<&str> = group.missing.iter().map(ViewId::as_str).collect();
    let came = group.views.len();
    if missing.is_empty() {
        return format!("part `{}` {cause}: {came} views came", group.part.part);
    }
    format!(
        "part `{}` {cause}: {came} views came, missing `{}`",
        group.part.part,
        missing.join("`, `")
    )
}
