//! Replay: scoring a range of archived camera topics again.
//!
//! A replay is a job: a consumer group of its own, whose committed offsets are how far it has come, and two
//! more, which read nothing, whose committed offsets are where it begins and ends. All are taken before
//! anything is read, so that any number of instances, started at any time, do the same range and each part
//! of it once; and all are there for Kafka's own tools to look at.

//!
//! Where the records are in an archive instead, they are read from there ([`ArchiveRecords`]); the job and
//! all that comes of it are on the brokers as before.

mod archive_plan;
mod archive_records;
mod plan;

pub use self::archive_plan::plan_archive;
pub use self::archive_records::{ArchiveRecords, NotStored};
pub use self::plan::{Bound, Plan, PlanError, PlannedPartition, RangeSpec};
