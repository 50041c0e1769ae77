//! The vocabulary of the stream: ids, records, views, groups, maps, decisions.
//!
//! Every stage speaks these types and nothing else of another stage. The module depends on `std`
//! alone and does no I/O. Times are epoch milliseconds in [`Timestamp`]; a stage that must know
//! the present takes it as an argument.

mod closure;
mod group;
mod image;
mod names;
mod record;
mod verdict;
mod view;

pub use closure::{Fingerprint, PartClosure, Reuse};
pub use group::{
    CloseCause, DuplicatePolicy, Group, ScoredGroup, ScoringOrder, TimeoutPolicy, ViewOutcome,
};
pub use image::{
    AnomalyMap, Channels, DecodedImage, ImageEncoding, MapFootprint, PixelFormat, RawLayout,
    RgbImage,
};
pub use names::{ClassName, LineId, PartId, PartKey, Timestamp, Topic, ViewId};
pub use record::{
    Header, MemoryBudget, MemoryLease, OutboundRecord, Record, RecordCopy, SourceOffset,
    TimestampKind, TopicPartition,
};
pub use verdict::{
    Decision, EncodedMap, MapCodec, ModelIdentity, PartVerdict, Region, ViewStatus, ViewVerdict,
};
pub use view::{Reject, RejectReason, View};
