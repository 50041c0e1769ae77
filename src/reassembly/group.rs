//! One open group: the views of a part gathered so far, and what a new one means to it.

use std::sync::Arc;
use std::time::Duration;

use twox_hash::XxHash3_64;

use crate::domain::{
    ClassName, CloseCause, DuplicatePolicy, Fingerprint, Group, PartKey, Record, Reject,
    RejectReason, ScoringOrder, SourceOffset, Timestamp, View, ViewId,
};

use super::expected::{ExpectedViews, ViewList};
use super::schedule::Sequence;

/// What tells an image from others.
pub(crate) fn fingerprint_of(image: &[u8]) -> Fingerprint {
    Fingerprint {
        hash: XxHash3_64::oneshot(image),
        length: image.len() as u64,
    }
}

/// A view on its way into a group.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) view: View,
    pub(crate) fingerprint: Fingerprint,
    /// When it was taken, clamped.
    pub(crate) event_time: Timestamp,
    /// When the record was written, as Kafka has it, clamped likewise.
    pub(crate) written_at: Timestamp,
    /// When the group is due as far as this view goes.
    pub(crate) deadline: Timestamp,
}

/// What became of an arriving view.
#[derive(Debug)]
pub(crate) enum Joined {
    /// It is part of the group now; views that it displaced are rejected.
    Held(Vec<Reject>),
    /// The group has the same image already; the record finishes with the group.
    Absorbed,
    /// The group has the same record already; this copy is dropped.
    Redelivered,
    /// It is not part of the group.
    Refused(Reject),
}

/// The views of a part that is still waiting for more.
#[derive(Debug)]
pub(crate) struct OpenGroup {
    pub(crate) sequence: Sequence,
    pub(crate) deadline: Timestamp,
    /// When the last of its records was written, as Kafka has it.
    pub(crate) last_written: Timestamp,
    /// The highest event time of its views.
    pub(crate) last_event: Timestamp,
    /// Bytes of the records it keeps alive.
    pub(crate) bytes: usize,
    /// Views that named another number of views than the first that named one.
    pub(crate) count_conflicts: usize,
    part: PartKey,
    opened_by: SourceOffset,
    /// By the wall clock.
    opened_at: Timestamp,
    class: Option<ClassName>,
    expected_count: Option<usize>,
    views: Vec<HeldView>,
    absorbed: Vec<Arc<Record>>,
    duplicates: Vec<ViewId>,
}

#[derive(Debug)]
pub(crate) struct HeldView {
    pub(crate) view: View,
    pub(crate) fingerprint: Fingerprint,
}

impl OpenGroup {
    /// An empty group, opened by `arrival`, which still has to join.
    pub(crate) fn opened_for(arrival: &Arrival, sequence: Sequence, now: Timestamp) -> Self {
        Self {
            sequence,
            deadline: arrival.deadline,
            last_written: arrival.written_at,
            last_event: arrival.event_time,
            bytes: 0,
            count_conflicts: 0,
            part: arrival.view.part.clone(),
            opened_by: arrival.view.record.source.clone(),
            opened_at: now,
            class: None,
            expected_count: None,
            views: Vec::new(),
            absorbed: Vec::new(),
            duplicates: Vec::new(),
        }
    }

    pub(crate) fn part(&self) -> &PartKey {
        &self.part
    }

    pub(crate) fn opened_by(&self) -> &SourceOffset {
        &self.opened_by
    }

    pub(crate) fn opened_at(&self) -> Timestamp {
        self.opened_at
    }

    pub(crate) fn views(&self) -> &[HeldView] {
        &self.views
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.views
            .iter()
            .map(|held| &held.view.record)
            .chain(&self.absorbed)
    }

    /// By how much the times differ at which its views were written, as Kafka has them.
    pub(crate) fn written_within(&self) -> Duration {
        let times = || {
            let views = self.views.iter().map(|held| &held.view);
            views.map(|view| view.record.timestamp.unwrap_or(view.captured_at))
        };
        let span = times().max().zip(times().min());
        span.map_or(Duration::ZERO, |(last, first)| last.since(first))
    }

    /// Takes a view in, or says why not.
    pub(crate) fn join(
        &mut self,
        arrival: Arrival,
        expected: &ExpectedViews,
        duplicates: DuplicatePolicy,
    ) -> Joined {
        let source = &arrival.view.record.source;
        if self.records().any(|record| record.source == *source) {
            return Joined::Redelivered;
        }
        if let Some(reject) = self.refuse(&arrival.view, expected) {
            return Joined::Refused(reject);
        }
        let same_name = self
            .views
            .iter()
            .position(|held| held.view.view == arrival.view.view);
        match same_name {
            None => {
                self.learn_from(&arrival);
                self.hold(arrival);
                Joined::Held(self.displace_unlisted(expected))
            }
            Some(index) if self.views[index].fingerprint == arrival.fingerprint => {
                self.learn_from(&arrival);
                self.bytes += arrival.view.record.size_bytes();
                self.absorbed.push(arrival.view.record);
                Joined::Absorbed
            }
            Some(index) => self.settle_duplicate(index, arrival, expected, duplicates),
        }
    }

    /// Notes a view whose record is finished, though the group's are not: if it has another image of that
    /// view, it was rejected as a duplicate.
    pub(crate) fn recall(&mut self, view: &View, fingerprint: Fingerprint) {
        let mut held = self.views.iter().filter(|held| held.view.view == view.view);
        let is_another = held.any(|held| held.fingerprint != fingerprint);
        if is_another && !self.duplicates.contains(&view.view) {
            self.duplicates.push(view.view.clone());
        }
    }

    fn settle_duplicate(
        &mut self,
        index: usize,
        arrival: Arrival,
        expected: &ExpectedViews,
        duplicates: DuplicatePolicy,
    ) -> Joined {
        if !self.duplicates.contains(&arrival.view.view) {
            self.duplicates.push(arrival.view.view.clone());
        }
        let kept = &self.views[index].view;
        match duplicates {
            DuplicatePolicy::FirstWins => {
                let reject = duplicate(&arrival.view, &kept.record.source, "first");
                Joined::Refused(reject)
            }
            DuplicatePolicy::LastWins => {
                let replaced = duplicate(kept, &arrival.view.record.source, "last");
                self.views.remove(index);
                self.bytes = self.bytes.saturating_sub(replaced.record.size_bytes());
                self.learn_from(&arrival);
                self.hold(arrival);
                let mut displaced = self.displace_unlisted(expected);
                displaced.insert(0, replaced);
                Joined::Held(displaced)
            }
        }
    }

    fn hold(&mut self, arrival: Arrival) {
        self.bytes += arrival.view.record.size_bytes();
        self.views.push(HeldView {
            view: arrival.view,
            fingerprint: arrival.fingerprint,
        });
    }

    fn learn_from(&mut self, arrival: &Arrival) {
        let view = &arrival.view;
        self.deadline = self.deadline.min(arrival.deadline);
        self.last_event = self.last_event.max(arrival.event_time);
        self.last_written = self.last_written.max(arrival.written_at);
        if self.class.is_none() {
            self.class.clone_from(&view.class);
        }
        match (self.expected_count, view.expected_views) {
            (None, count) => self.expected_count = count,
            (Some(known), Some(count)) if known != count => self.count_conflicts += 1,
            _ => {}
        }
    }

    /// Why a view cannot be part of this group, if so.
    fn refuse(&self, view: &View, expected: &ExpectedViews) -> Option<Reject> {
        let source = &view.record.source;
        if source.partition != self.opened_by.partition {
            return Some(misrouted(view, &self.opened_by));
        }
        if let (Some(known), Some(class)) = (&self.class, &view.class)
            && known != class
        {
            let error = format!(
                "view `{}` of part `{}` names class `{class}`, the part's other views `{known}`",
                view.view, self.part.part
            );
            return Some(reject(view, RejectReason::Decode, error));
        }
        let class = self.class.as_ref().or(view.class.as_ref());
        match expected.list_for(&self.part.line, class) {
            Some(list) if !list.contains(&view.view) => Some(unlisted(view, list)),
            None if self.expected_count.or(view.expected_views).is_none() => {
                Some(unexpected(view, class))
            }
            _ => None,
        }
    }

    /// A class learnt late may have another list than the one that let earlier views in.
    fn displace_unlisted(&mut self, expected: &ExpectedViews) -> Vec<Reject> {
        let Some(list) = expected.list_for(&self.part.line, self.class.as_ref()) else {
            return Vec::new();
        };
        let displaced: Vec<Reject> = self
            .views
            .extract_if(.., |held| !list.contains(&held.view.view))
            .map(|held| unlisted(&held.view, list))
            .collect();
        for reject in &displaced {
            self.bytes = self.bytes.saturating_sub(reject.record.size_bytes());
        }
        displaced
    }

    /// Whether all views are there: as many as the records say, or all of the list.
    pub(crate) fn is_complete(&self, expected: &ExpectedViews) -> bool {
        let listed = expected
            .list_for(&self.part.line, self.class.as_ref())
            .map(|list| list.views().len());
        let wanted = match (self.expected_count, listed) {
            (Some(count), Some(listed)) => count.min(listed),
            (Some(count), None) => count,
            (None, Some(listed)) => listed,
            (None, None) => return false,
        };
        self.views.len() >= wanted.max(1)
    }

    /// Listed views that have not come. Empty where only their number is known.
    pub(crate) fn missing(&self, expected: &ExpectedViews) -> Vec<ViewId> {
        let Some(list) = expected.list_for(&self.part.line, self.class.as_ref()) else {
            return Vec::new();
        };
        let has = |view: &ViewId| self.views.iter().any(|held| held.view.view == *view);
        list.views()
            .iter()
            .filter(|view| !has(view))
            .cloned()
            .collect()
    }

    /// The group as the later stages see it.
    pub(crate) fn close(
        mut self,
        cause: CloseCause,
        scoring: ScoringOrder,
        expected: &ExpectedViews,
    ) -> Group {
        let missing = match cause {
            CloseCause::Complete => Vec::new(),
            _ => self.missing(expected),
        };
        let times = || self.views.iter().map(|held| held.view.captured_at);
        let first_view_at = times().min().unwrap_or(self.deadline);
        let last_view_at = times().max().unwrap_or(self.deadline);
        let list = expected.list_for(&self.part.line, self.class.as_ref());
        let place = |view: &ViewId| list.and_then(|list| list.place_of(view));
        self.views.sort_by(|left, right| {
            let left = (place(&left.view.view), &left.view.view);
            left.cmp(&(place(&right.view.view), &right.view.view))
        });
        self.duplicates.sort();
        Group {
            part: self.part,
            class: self.class,
            views: self.views.into_iter().map(|held| held.view).collect(),
            missing,
            absorbed: self.absorbed,
            duplicates: self.duplicates,
            cause,
            scoring,
            first_view_at,
            last_view_at,
        }
    }
}

pub(crate) fn reject(view: &View, reason: RejectReason, error: String) -> Reject {
    Reject {
        record: Arc::clone(&view.record),
        reason,
        error,
    }
}

pub(crate) fn misrouted(view: &View, opened_by: &SourceOffset) -> Reject {
    let source = &view.record.source;
    let error = format!(
        "part `{}` came on partition {} of topic `{}` and on partition {} of topic `{}`; \
         check that their producers use the same partitioner",
        view.part.part, opened_by.partition, opened_by.topic, source.partition, source.topic
    );
    reject(view, RejectReason::Misrouted, error)
}

pub(crate) fn duplicate(rejected: &View, kept: &SourceOffset, which: &str) -> Reject {
    let error = format!(
        "view `{}` of part `{}` came more than once with different bytes; the {which} one is \
         kept, from `{kept}`",
        rejected.view, rejected.part.part
    );
    reject(rejected, RejectReason::Duplicate, error)
}

fn unlisted(view: &View, list: &ViewList) -> Reject {
    let listed: Vec<&str> = list.views().iter().map(ViewId::as_str).collect();
    let error = format!(
        "view `{}` is none of the {}: `{}`",
        view.view,
        list.name(),
        listed.join("`, `")
    );
    reject(view, RejectReason::UnknownView, error)
}

fn unexpected(view: &View, class: Option<&ClassName>) -> Reject {
    let class = class.map_or("no class".to_owned(), |class| format!("class `{class}`"));
    let error = format!(
        "no views are configured for line `{}` and {class}, and the record has no header `views`",
        view.part.line
    );
    reject(view, RejectReason::UnknownView, error)
}
