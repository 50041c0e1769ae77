//! Why an archive cannot be written or read.

use crate::kafka::offset_survey::SurveyError;
use crate::kafka::partition_reader::PartitionReaderError;
use crate::schema::archive::ArchiveFormatError;

/// Why an archive cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store did not do as it was asked.
    #[error("failed to {what} `{object}`: {source}")]
    Store {
        /// What was asked for.
        what: &'static str,
        /// The object, or the place where it would be.
        object: String,
        /// The store's own words.
        source: object_store::Error,
    },
    /// Somebody wrote an object anew.
    #[error("`{object}` has changed while it was read")]
    Changed {
        /// The object.
        object: String,
    },
    /// There is no archive at that place.
    #[error("expected an archive at `{location}`, found no `{manifest}` there")]
    NoArchive {
        /// Where it was looked for.
        location: String,
        /// The object that makes an archive.
        manifest: &'static str,
    },
    /// There is something else at that place.
    #[error("expected an archive or an empty place at `{location}`, found `{found}`")]
    Occupied {
        /// Where the archive was to be.
        location: String,
        /// One of the objects there.
        found: String,
    },
    /// Another export writes to the folder.
    #[error("`{file}` is held by another export to the same folder, expected one at a time")]
    Locked {
        /// The file by which it is held.
        file: String,
    },
    /// The folder cannot be held.
    #[error("cannot lock `{file}`: {source}")]
    Lock {
        /// The file that was to be locked.
        file: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// Another export has begun the archive since it was looked for.
    #[error(
        "expected no `{object}` yet, found that of another export which began at the same time: run the \
         command again when that has ended"
    )]
    BegunMeanwhile {
        /// The archive's manifest.
        object: String,
    },
    /// An object is not what was written.
    #[error("`{object}` is damaged: {source}")]
    Format {
        /// The object.
        object: String,
        /// What is wrong with it.
        source: ArchiveFormatError,
    },
    /// An object is not what was written.
    #[error("`{object}` is damaged: expected {what} to be `{expected}`, found `{found}`")]
    Damaged {
        /// The object.
        object: String,
        /// What of it.
        what: String,
        /// As it was written.
        expected: String,
        /// As it is.
        found: String,
    },
    /// A partition has no such segment.
    #[error(
        "expected a segment of partition `{partition}` of `{topic}` that begins at offset `{expected}`, \
         found {found}"
    )]
    SegmentMissing {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the segment before it ends.
        expected: i64,
        /// What is there instead.
        found: String,
    },
    /// The archive has no such partition.
    #[error("expected partition `{partition}` of `{topic}` in `{location}`, found none")]
    NoPartition {
        /// Where the archive is.
        location: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// An export cannot go on where another one began.
    #[error(
        "`{location}` is an archive with {what} `{found}`, expected `{expected}`: choose another place, or \
         run the command that began it"
    )]
    OtherExport {
        /// Where the archive is.
        location: String,
        /// What differs.
        what: &'static str,
        /// As this export has it.
        expected: String,
        /// As the archive has it.
        found: String,
    },
    /// The record at an offset is not the one that was archived.
    #[error(
        "record `{offset}` of partition `{partition}` of `{topic}` is not the one in the archive: the \
         topic was made anew"
    )]
    OtherTopic {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The last offset in the archive.
        offset: i64,
    },
    /// A topic is not on the bus.
    #[error("topic `{0}` does not exist")]
    NoSuchTopic(String),
    /// The brokers do not tell what is there.
    #[error(transparent)]
    Survey(Box<SurveyError>),
    /// A partition cannot be read.
    #[error(transparent)]
    Read(Box<PartitionReaderError>),
    /// The end of a range was not reached, and nothing comes.
    #[error(
        "partition `{partition}` of `{topic}` gave nothing for `{waited:?}` at offset `{position}`, before \
         the range's end at `{end}`"
    )]
    Stalled {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next offset to be read.
        position: i64,
        /// The end of the range.
        end: i64,
        /// How long nothing came.
        waited: std::time::Duration,
    },
    /// Another partition has failed.
    #[error("stopped because another partition has failed")]
    Stopped,
    /// A thread has panicked.
    #[error("a thread of the export panicked: {0}")]
    Panicked(String),
}

impl From<SurveyError> for ArchiveError {
    fn from(error: SurveyError) -> Self {
        Self::Survey(Box::new(error))
    }
}

impl From<PartitionReaderError> for ArchiveError {
    fn from(error: PartitionReaderError) -> Self {
        Self::Read(Box::new(error))
    }
}

impl ArchiveError {
    pub(super) fn damaged(
        object: &str,
        what: impl Into<String>,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Damaged {
            object: object.to_owned(),
            what: what.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

/// Fails unless what an object says is what it should.
pub(super) fn expect_same<T: PartialEq + std::fmt::Debug>(
    object: &str,
    what: &str,
    expected: &T,
    found: &T,
) -> Result<(), ArchiveError> {
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
    let plain = |text: String| text.trim_matches('"').to_owned();
    Err(ArchiveError::damaged(
        object,
        what,
        plain(expected),
        plain(found),
    ))
}
