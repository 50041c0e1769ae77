//! The memory of closed parts, so that a late view is told from a new part.
//!
//! It is bounded in parts and bytes; the oldest are forgotten first. A view that comes for a
//! forgotten part opens it anew: the part is then published twice, the second time partial and
//! with another result ID, since that names the first offsets. The bounds must therefore cover
//! what a line makes in the time in which views can be late.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::{PartKey, Record, Reject, RejectReason, SourceOffset, Timestamp, ViewId};

use super::group::{Arrival, Fingerprint, HeldView, OpenGroup, misrouted, reject};
use super::schedule::Sequence;
use super::settings::ClosedMemorySettings;

/// What a view means to its closed part.
#[derive(Debug)]
pub(crate) enum LateView {
    /// The part ID is used again, or the part is read again because its owner before did not
    /// commit it.
    OpensAnew,
    /// The very record is on its way with the part; this copy is dropped.
    Redelivered,
    /// The part has this image; nothing is lost with this record.
    Identical,
    /// Not part of what was published.
    Rejected(Reject),
}

/// From when on a part ID means a new part. A camera whose clock is wrong by hours must not split
/// its parts, so Kafka's time must say it as well as the view's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reuse {
    /// The view's event time must be later.
    pub(crate) taken_after: Timestamp,
    /// The record's time in Kafka must be later.
    pub(crate) written_after: Timestamp,
}

impl Reuse {
    /// Whether an arriving view belongs to a new part.
    pub(crate) fn is_by(self, arrival: &Arrival) -> bool {
        arrival.event_time > self.taken_after && arrival.written_at > self.written_after
    }
}

/// What is kept of a part after it was closed.
#[derive(Debug)]
pub(crate) struct ClosedPart {
    pub(crate) sequence: Sequence,
    /// Whether its result is known to be published.
    is_published: bool,
    reuse: Reuse,
    opened_by: SourceOffset,
    views: Vec<(ViewId, Fingerprint)>,
    records: Vec<(SourceOffset, u64)>,
}

impl ClosedPart {
    pub(crate) fn of(group: &OpenGroup, reuse: Reuse) -> Self {
        let of_view = |held: &HeldView| (held.view.view.clone(), held.fingerprint);
        let of_record = |record: &Arc<Record>| (record.source.clone(), record.generation);
        Self {
            sequence: group.sequence,
            is_published: false,
            reuse,
            opened_by: group.opened_by().clone(),
            views: group.views().iter().map(of_view).collect(),
            records: group.records().map(of_record).collect(),
        }
    }

    pub(crate) fn reusable_after(&self) -> Timestamp {
        self.reuse.taken_after.max(self.reuse.written_after)
    }

    /// Notes that its result is published, told by one of its records.
    pub(crate) fn mark_published(&mut self, source: &SourceOffset, generation: u64) {
        if self.generation_of(source) == Some(generation) {
            self.is_published = true;
        }
    }

    /// The generation under which a record of it was read.
    fn generation_of(&self, source: &SourceOffset) -> Option<u64> {
        self.records
            .iter()
            .find(|(known, _)| known == source)
            .map(|(_, generation)| *generation)
    }

    /// Tells what a view of this part ID means.
    ///
    /// A record of the part that is read again under a newer generation was not committed by the
    /// older one. Unless the part is known to be published, that may have been lost on the way,
    /// so it is opened anew; the result ID is the same, so a reader can tell.
    pub(crate) fn receive(&self, arrival: &Arrival) -> LateView {
        let (view, fingerprint) = (&arrival.view, arrival.fingerprint);
        if self.reuse.is_by(arrival) {
            return LateView::OpensAnew;
        }
        match self.generation_of(&view.record.source) {
            Some(generation) if generation == view.record.generation => {
                return LateView::Redelivered;
            }
            Some(_) if self.is_published => return LateView::Identical,
            Some(_) => return LateView::OpensAnew,
            None => {}
        }
        if view.record.source.partition != self.opened_by.partition {
            return LateView::Rejected(misrouted(view, &self.opened_by));
        }
        let same_image =
            |(name, known): &(ViewId, Fingerprint)| *name == view.view && *known == fingerprint;
        if self.views.iter().any(same_image) {
            return LateView::Identical;
        }
        let error = format!(
            "view `{}` came after its part `{}` was closed",
            view.view, view.part.part
        );
        LateView::Rejected(reject(view, RejectReason::Late, error))
    }

    /// Roughly the memory it takes; names are shared and not counted.
    fn size_bytes(&self) -> usize {
        size_of::<(PartKey, Self)>()
            + self.views.len() * size_of::<(ViewId, Fingerprint)>()
            + self.records.len() * size_of::<(SourceOffset, u64)>()
    }
}

/// Which closed parts are remembered, in the order in which they are forgotten.
#[derive(Debug)]
pub(crate) struct ClosedQueue {
    limits: ClosedMemorySettings,
    by_reuse: BTreeSet<(Timestamp, Sequence)>,
    parts: BTreeMap<Sequence, (PartKey, usize)>,
    bytes: usize,
}

impl ClosedQueue {
    pub(crate) fn new(limits: ClosedMemorySettings) -> Self {
        Self {
            limits,
            by_reuse: BTreeSet::new(),
            parts: BTreeMap::new(),
            bytes: 0,
        }
    }

    pub(crate) fn insert(&mut self, part: PartKey, closed: &ClosedPart) {
        let bytes = closed.size_bytes() + part.line.as_str().len() + part.part.as_str().len();
        self.by_reuse
            .insert((closed.reusable_after(), closed.sequence));
        self.parts.insert(closed.sequence, (part, bytes));
        self.bytes += bytes;
    }

    pub(crate) fn remove(&mut self, sequence: Sequence, reusable_after: Timestamp) {
        self.take(reusable_after, sequence);
    }

    /// Takes out the parts whose IDs may be used again, and the oldest ones over the bounds.
    pub(crate) fn take_forgotten(
        &mut self,
        stream_time: Option<Timestamp>,
    ) -> Vec<(PartKey, Sequence)> {
        let mut forgotten = Vec::new();
        while let Some(&(reusable_after, sequence)) = self.by_reuse.first() {
            let is_reusable = stream_time.is_some_and(|time| time > reusable_after);
            let is_over =
                self.parts.len() > self.limits.max_parts || self.bytes > self.limits.max_bytes;
            if !is_reusable && !is_over {
                break;
            }
            let part = self.take(reusable_after, sequence);
            forgotten.extend(part.map(|part| (part, sequence)));
        }
        forgotten
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    fn take(&mut self, reusable_after: Timestamp, sequence: Sequence) -> Option<PartKey> {
        self.by_reuse.remove(&(reusable_after, sequence));
        let (part, bytes) = self.parts.remove(&sequence)?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(part)
    }
}
