//! The memory of closed parts, so that a late view is told from a new part.
//!
//! It is bounded in parts and bytes; the oldest are forgotten first. A view that comes for a
//! forgotten part opens it anew: the part is then published twice, the second time partial and
//! with another result ID, since that names the first offsets. The bounds must therefore cover
//! what a line makes in the time in which views can be late. What was closed by an earlier owner of
//! a partition is learnt with its assignment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::{
    Fingerprint, PartClosure, PartKey, Reject, RejectReason, Reuse, SourceOffset, Timestamp, ViewId,
};

use super::group::{Arrival, HeldView, OpenGroup, duplicate, misrouted, reject};
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

/// A part that is closed, and whether its result is known to be published.
#[derive(Debug)]
pub(crate) struct ClosedPart {
    pub(crate) sequence: Sequence,
    pub(crate) closure: Arc<PartClosure>,
    is_published: bool,
    /// Under which each of its records was read here, in order; empty, if it was closed elsewhere.
    generations: Vec<u64>,
}

impl ClosedPart {
    pub(crate) fn of(group: &OpenGroup, reuse: Reuse) -> Self {
        let of_view = |held: &HeldView| (held.view.view.clone(), held.fingerprint);
        let closure = PartClosure {
            part: group.part().clone(),
            opened_by: group.opened_by().clone(),
            reuse,
            views: group.views().iter().map(of_view).collect(),
            records: group.records().map(|one| one.source.clone()).collect(),
        };
        Self {
            sequence: group.sequence,
            closure: Arc::new(closure),
            is_published: false,
            generations: group.records().map(|one| one.generation).collect(),
        }
    }

    /// As another instance, or this one before it was started anew, has closed it. It is published;
    /// but should its own records be read again, then because somebody wants it scored again.
    pub(crate) fn learnt(closure: PartClosure, sequence: Sequence) -> Self {
        Self {
            sequence,
            closure: Arc::new(closure),
            is_published: false,
            generations: Vec::new(),
        }
    }

    /// Notes that its result is published, told by one of its records.
    pub(crate) fn mark_published(&mut self, source: &SourceOffset, generation: u64) {
        if self.own_record(source) == Some(Some(generation)) {
            self.is_published = true;
        }
    }

    /// Whether it was closed here with a record of which `is_revoked`, and is not known to be published.
    pub(crate) fn is_undecided(&self, is_revoked: impl Fn(&SourceOffset) -> bool) -> bool {
        let was_closed_here = !self.generations.is_empty();
        was_closed_here && !self.is_published && self.closure.records.iter().any(is_revoked)
    }

    /// Whether it has this record, and under which generation it was read here.
    fn own_record(&self, source: &SourceOffset) -> Option<Option<u64>> {
        let mut records = self.closure.records.iter();
        let place = records.position(|known| known == source)?;
        Some(self.generations.get(place).copied())
    }

    /// Tells what a view of this part ID means.
    ///
    /// A record of the part that is read again under a newer generation was not committed by the
    /// older one. Unless the part is known to be published, that may have been lost on the way,
    /// so it is opened anew; the result ID is the same, so a reader can tell.
    pub(crate) fn receive(&self, arrival: &Arrival) -> LateView {
        let (view, closure) = (&arrival.view, &*self.closure);
        if closure.reuse.is_by(arrival.event_time, arrival.written_at) {
            return LateView::OpensAnew;
        }
        match self.own_record(&view.record.source) {
            Some(Some(generation)) if generation == view.record.generation => {
                return LateView::Redelivered;
            }
            Some(_) if self.is_published => return LateView::Identical,
            Some(_) => return LateView::OpensAnew,
            None => {}
        }
        if view.record.source.partition != closure.opened_by.partition {
            return LateView::Rejected(misrouted(view, &closure.opened_by));
        }
        let mut views = closure.views.iter();
        if let Some(place) = views.position(|(name, _)| *name == view.view) {
            // Reads as it would, had it come while the part was open: only the order of reading decides.
            return match (&closure.views[place], closure.records.get(place)) {
                ((_, known), _) if *known == arrival.fingerprint => LateView::Identical,
                (_, kept) => {
                    let kept = kept.unwrap_or(&closure.opened_by);
                    LateView::Rejected(duplicate(view, kept, "first"))
                }
            };
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
            + size_of::<PartClosure>()
            + self.closure.views.len() * size_of::<(ViewId, Fingerprint)>()
            + self.closure.records.len() * size_of::<(SourceOffset, u64)>()
    }
}

/// Which closed parts are remembered, in the order in which they are forgotten.
#[derive(Debug)]
pub(crate) struct ClosedQueue {
    limits: ClosedMemorySettings,
    /// By partition number, since each has a stream time of its own.
    by_reuse: BTreeMap<i32, BTreeSet<(Timestamp, Sequence)>>,
    parts: BTreeMap<Sequence, Remembered>,
    bytes: usize,
}

#[derive(Debug)]
struct Remembered {
    part: PartKey,
    number: i32,
    reusable_after: Timestamp,
    bytes: usize,
}

impl ClosedQueue {
    pub(crate) fn new(limits: ClosedMemorySettings) -> Self {
        Self {
            limits,
            by_reuse: BTreeMap::new(),
            parts: BTreeMap::new(),
            bytes: 0,
        }
    }

    pub(crate) fn insert(&mut self, closed: &ClosedPart) {
        let part = closed.closure.part.clone();
        let bytes = closed.size_bytes() + part.line.as_str().len() + part.part.as_str().len();
        let remembered = Remembered {
            part,
            number: closed.closure.opened_by.partition,
            reusable_after: closed.closure.reuse.latest(),
            bytes,
        };
        let of_number = self.by_reuse.entry(remembered.number).or_default();
        of_number.insert((remembered.reusable_after, closed.sequence));
        self.parts.insert(closed.sequence, remembered);
        self.bytes += bytes;
    }

    pub(crate) fn remove(&mut self, sequence: Sequence) {
        self.take(sequence);
    }

    /// Takes out the parts whose IDs may be used again by the stream time of their numbers, and the oldest
    /// ones over the bounds.
    pub(crate) fn take_forgotten(
        &mut self,
        stream_time: impl Fn(i32) -> Option<Timestamp>,
    ) -> Vec<(PartKey, Sequence)> {
        let mut forgotten = Vec::new();
        for (number, of_number) in &self.by_reuse {
            let stream_time = stream_time(*number);
            let reusable = of_number.iter().map_while(|(reusable_after, sequence)| {
                let is_reusable = stream_time.is_some_and(|time| time > *reusable_after);
                is_reusable.then_some(*sequence)
            });
            forgotten.extend(reusable);
        }
        let mut taken: Vec<_> = forgotten
            .into_iter()
            .filter_map(|sequence| self.take(sequence))
            .collect();
        while (self.parts.len() > self.limits.max_parts || self.bytes > self.limits.max_bytes)
            && let Some((_, sequence)) = self.by_reuse.values().filter_map(BTreeSet::first).min()
        {
            taken.extend(self.take(*sequence));
        }
        taken
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    fn take(&mut self, sequence: Sequence) -> Option<(PartKey, Sequence)> {
        let remembered = self.parts.remove(&sequence)?;
        self.bytes = self.bytes.saturating_sub(remembered.bytes);
        if let Some(of_number) = self.by_reuse.get_mut(&remembered.number) {
            of_number.remove(&(remembered.reusable_after, sequence));
            if of_number.is_empty() {
                self.by_reuse.remove(&remembered.number);
            }
        }
        Some((remembered.part, sequence))
    }
}
