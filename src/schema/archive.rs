//! What an archive says of itself, in JSON: the archive's manifest, each segment's manifest, and the
//! index at the end of each segment, a line a record.
//!
//! Bytes that may be anything (keys, header values) stand as text where they are UTF-8, so that part IDs
//! can be searched for, and else as `{"base64": ...}`; what is absent is `null`. So every record comes
//! back as it was.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::TimestampKind;

/// The version that is written.
const VERSION: u32 = 1;

/// What an archive holds: one object at its root, written when an export begins and again when it has
/// ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArchiveManifest {
    /// Version of this schema.
    pub schema_version: u32,
    /// The program that wrote it, and its version.
    pub created_by: String,
    /// The Kafka cluster that the records come from.
    pub cluster_id: String,
    /// When the export began, in epoch milliseconds.
    pub created_at: i64,
    /// When it ended; `null` while records are missing.
    pub completed_at: Option<i64>,
    /// The topics that were asked for: names, or one regular expression that begins with `^`.
    pub subscription: Vec<String>,
    /// What was asked for of each.
    pub range: RequestedRange,
    /// The topics that were found, by name.
    pub topics: Vec<ArchivedTopic>,
}

/// What was asked for; `null` where nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestedRange {
    /// Each partition from its first record of this time or later, in epoch milliseconds.
    pub from_timestamp: Option<i64>,
    /// Each partition up to its first record of this time or later, in epoch milliseconds.
    pub to_timestamp: Option<i64>,
    /// Each partition from this offset.
    pub from_offset: Option<i64>,
    /// Each partition up to this offset, which is not part of the range.
    pub to_offset: Option<i64>,
}

/// A topic in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArchivedTopic {
    /// Its name.
    pub topic: String,
    /// All its partitions, by number.
    pub partitions: Vec<ArchivedPartition>,
}

/// A partition in an archive: the offsets as the export found them when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArchivedPartition {
    /// Its number.
    pub partition: i32,
    /// The first offset that retention had left.
    pub log_start: i64,
    /// The first offset of the range.
    pub start: i64,
    /// The offset behind the range's last one.
    pub end: i64,
    /// Offsets of the range that retention had already deleted; where the range begins at a time, all
    /// that were deleted, if it begins with the first record that is left.
    pub deleted_at_start: i64,
    /// What was found; `null` until the partition is exported to its end.
    pub totals: Option<PartitionTotals>,
}

/// What was found in a partition's range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartitionTotals {
    /// Segments.
    pub segments: u64,
    /// Records.
    pub records: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// The first record's offset.
    pub first_offset: Option<i64>,
    /// The last record's offset.
    pub last_offset: Option<i64>,
    /// Offsets without a record: transaction markers, aborted records, and what compaction has taken.
    pub missing: i64,
    /// Offsets that retention deleted while the export was under way.
    pub deleted: i64,
    /// Records whose headers could not be read.
    pub faults: u64,
}

/// One segment: consecutive offsets of one partition in one tar file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SegmentManifest {
    /// Version of this schema.
    pub schema_version: u32,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that it covers: where the segment before it ends.
    pub start: i64,
    /// The offset behind the last one that it covers.
    pub end: i64,
    /// Records.
    pub records: u64,
    /// The first record's offset.
    pub first_offset: Option<i64>,
    /// The last record's offset.
    pub last_offset: Option<i64>,
    /// The earliest record's time, in epoch milliseconds.
    pub first_timestamp: Option<i64>,
    /// The latest record's time, in epoch milliseconds.
    pub last_timestamp: Option<i64>,
    /// Offsets without a record: transaction markers, aborted records, and what compaction has taken.
    pub missing: i64,
    /// Offsets that retention deleted before the export could read them.
    pub deleted: Vec<OffsetRange>,
    /// Records whose headers could not be read.
    pub faults: u64,
    /// Bytes of the tar file.
    pub bytes: u64,
    /// SHA-256 of the tar file.
    pub sha256: String,
    /// Where in the tar file the index begins.
    pub index_at: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// SHA-256 of the index.
    pub index_sha256: String,
}

/// Offsets from `start` up to `end`, which is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OffsetRange {
    /// The first one.
    pub start: i64,
    /// The one behind the last.
    pub end: i64,
}

/// A line of a segment's index: all of a record but its value, and where that lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IndexEntry {
    /// Its offset.
    pub offset: i64,
    /// Its time, in epoch milliseconds.
    pub timestamp: Option<i64>,
    /// What that time is.
    pub timestamp_type: Option<TimestampType>,
    /// Its key.
    pub key: Option<AnyBytes>,
    /// Its headers in order.
    pub headers: Vec<IndexHeader>,
    /// Its value.
    pub value: Option<ValuePlace>,
    /// Why its headers were left out, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// What a record's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimestampType {
    /// When its producer says that it was made.
    CreateTime,
    /// When the broker took it.
    LogAppendTime,
}

impl From<TimestampKind> for TimestampType {
    fn from(kind: TimestampKind) -> Self {
        match kind {
            TimestampKind::Create => Self::CreateTime,
            TimestampKind::LogAppend => Self::LogAppendTime,
        }
    }
}

impl From<TimestampType> for TimestampKind {
    fn from(kind: TimestampType) -> Self {
        match kind {
            TimestampType::CreateTime => Self::Create,
            TimestampType::LogAppendTime => Self::LogAppend,
        }
    }
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IndexHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<AnyBytes>,
}

/// Where a record's value lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ValuePlace {
    /// The entry of the tar file.
    pub entry: String,
    /// Where in the tar file its bytes begin.
    pub at: u64,
    /// How many they are.
    pub length: u64,
    /// Their SHA-256.
    pub sha256: String,
}

/// Bytes: text where they are UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AnyBytes {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Binary {
        /// In base64.
        #[serde(serialize_with = "write_base64", deserialize_with = "read_base64")]
        #[schemars(with = "String", extend("contentEncoding" = "base64"))]
        base64: Vec<u8>,
    },
}

impl From<Vec<u8>> for AnyBytes {
    fn from(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Binary {
                base64: error.into_bytes(),
            },
        }
    }
}

impl From<AnyBytes> for Vec<u8> {
    fn from(bytes: AnyBytes) -> Self {
        match bytes {
            AnyBytes::Text(text) => text.into_bytes(),
            AnyBytes::Binary { base64 } => base64,
        }
    }
}

fn write_base64<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn read_base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD
        .decode(text)
        .map_err(|error| serde::de::Error::custom(format!("bytes are no base64: {error}")))
}

/// Why bytes are no manifest or index.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFormatError {
    /// It is no JSON of this kind.
    #[error("expected {what}, found none: {source}")]
    Decode {
        /// What was expected.
        what: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A newer release has written it.
    #[error("expected schema version `{VERSION}` of {what}, found `{found}`")]
    Version {
        /// What was expected.
        what: &'static str,
        /// The version that it has.
        found: u32,
    },
    /// A line of the index does not follow from the one before.
    #[error("expected offsets that rise in the index, found `{found}` after `{before}`")]
    Order {
        /// The offset before.
        before: i64,
        /// The one that follows.
        found: i64,
    },
}

impl ArchiveManifest {
    /// The version that is written.
    pub const VERSION: u32 = VERSION;
    const WHAT: &str = "an archive's manifest";

    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is none, or one of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ArchiveFormatError> {
        let read: Self = decode(bytes, Self::WHAT)?;
        of_this_version(read.schema_version, Self::WHAT)?;
        Ok(read)
    }

    /// The manifest for people and programs.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode_pretty(self)
    }
}

impl SegmentManifest {
    /// The version that is written.
    pub const VERSION: u32 = VERSION;
    const WHAT: &str = "a segment's manifest";

    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is none, or one of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ArchiveFormatError> {
        let read: Self = decode(bytes, Self::WHAT)?;
        of_this_version(read.schema_version, Self::WHAT)?;
        Ok(read)
    }

    /// The manifest for people and programs.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode_pretty(self)
    }

    /// Offsets that retention deleted before the export could read them.
    pub fn deleted_offsets(&self) -> i64 {
        let lengths = self.deleted.iter().map(OffsetRange::length);
        lengths.fold(0, i64::saturating_add)
    }
}

impl OffsetRange {
    /// How many they are.
    pub fn length(&self) -> i64 {
        self.end.saturating_sub(self.start)
    }
}

impl IndexEntry {
    /// Reads a whole index.
    ///
    /// # Errors
    /// When a line is none of an index, or offsets do not rise.
    pub fn all_from_bytes(bytes: &[u8]) -> Result<Vec<Self>, ArchiveFormatError> {
        let mut entries: Vec<Self> = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let entry: Self = decode(line, "a line of an index")?;
            let before = entries.last().map(|entry| entry.offset);
            if let Some(before) = before.filter(|before| *before >= entry.offset) {
                let found = entry.offset;
                return Err(ArchiveFormatError::Order { before, found });
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The entry as a line of an index.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect(ENCODES);
        line.push(b'\n');
        line
    }
}

const ENCODES: &str = "strings and integers always encode into memory";

fn encode_pretty(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect(ENCODES);
    bytes.push(b'\n');
    bytes
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, ArchiveFormatError> {
    serde_json::from_slice(bytes).map_err(|source| ArchiveFormatError::Decode { what, source })
}

fn of_this_version(found: u32, what: &'static str) -> Result<(), ArchiveFormatError> {
    match found {
        VERSION => Ok(()),
        found => Err(ArchiveFormatError::Version { what, found }),
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
