//! Archives: ranges of camera topics in files, on disk or in an object store, from which every record
//! comes back as it was.
//!
//! An archive is a folder. `archive.json` says which topics, partitions and offsets it holds. Each
//! partition is cut by hour and size into *segments* of consecutive offsets: a tar file with an entry for
//! each record's value and an index of all else as its last entry, and a manifest beside it. A segment
//! counts once its manifest is there, which is written last; so an export that is killed goes on behind
//! the last whole segment. Segments of a partition meet: each begins where the one before ends, and
//! offsets without a record are counted, not passed over.
//!
//! [`export`] writes, [`reader`] reads and verifies. Neither holds more of a segment in memory than its
//! index and a few parts of an upload. Nothing here knows what is in a record.

mod error;
pub mod estimate;
pub mod export;
mod folder_lock;
mod layout;
mod partition_export;
mod plan;
pub mod progress;
mod range;
pub mod reader;
mod resume;
mod segment_reader;
mod segment_writer;
mod store;

pub use self::error::ArchiveError;
pub use self::range::EmptyRange;
pub(crate) use self::range::{expect_order, time_text};
pub use self::reader::{Archive, PartitionArchive, RecordReader};
pub use self::store::{ArchiveStore, LocationError, MOST_SEGMENT_BYTES};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
