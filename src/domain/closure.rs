//! What is remembered of a part after it was closed, in the process and on the bus.

use super::{PartKey, SourceOffset, Timestamp, ViewId};

/// Tells images apart without keeping both: 64 bits of hash and the length. Two different images
/// of one view are taken for the same with a chance of about 5e-20.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// XXH3 of the image's bytes, seed 0.
    pub hash: u64,
    /// How many bytes the image has.
    pub length: u64,
}

/// From when on a part ID means a new part. A camera whose clock is wrong by hours must not split
/// its parts, so Kafka's time must say it as well as the view's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// The view's event time must be later.
    pub taken_after: Timestamp,
    /// The record's time in Kafka must be later.
    pub written_after: Timestamp,
}

impl Reuse {
    /// Whether a view that was taken and written at these times belongs to a new part.
    pub fn is_by(self, taken_at: Timestamp, written_at: Timestamp) -> bool {
        taken_at > self.taken_after && written_at > self.written_after
    }

    /// When both times are over.
    pub fn latest(self) -> Timestamp {
        self.taken_after.max(self.written_after)
    }
}

/// A closed part: what a view that comes late is told from a new part by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartClosure {
    /// The part.
    pub part: PartKey,
    /// Its first record, which names its result and the partition number that it belongs to.
    pub opened_by: SourceOffset,
    /// From when on its ID means a new part.
    pub reuse: Reuse,
    /// The views that it was closed with.
    pub views: Vec<(ViewId, Fingerprint)>,
    /// All records that are finished with it, those of the views first and in their order, then copies.
    pub records: Vec<SourceOffset>,
}
