//! What the topic of closed parts holds: one record for each part that was closed, by which the next
//! owner of its partition tells its late views from new parts.
//!
//! The topic is Panoptes' own. Its records are `MessagePack` maps, keyed by part ID, on the partition
//! that the part's partition number names, modulo the number of partitions.

use std::collections::HashSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::{
    Fingerprint, LineId, PartClosure, PartId, PartKey, Reuse, SourceOffset, Timestamp, Topic,
    ViewId,
};

/// The version that is written.
const VERSION: u32 = 1;

/// A closed part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClosedPartRecord {
    /// Version of this schema.
    pub schema_version: u32,
    /// The consumer group that closed it; other groups' parts are none of a reader's business.
    pub group_id: String,
    /// Line that made the part.
    pub line: String,
    /// The part.
    pub part_id: String,
    /// Its first record, which names its result.
    pub opened_by: RecordPlace,
    /// A view that was taken later, in epoch milliseconds, and written later than `written_after`
    /// belongs to a new part of the same ID.
    pub taken_after: i64,
    /// As above, by Kafka's time.
    pub written_after: i64,
    /// The views that it was closed with.
    pub views: Vec<ClosedView>,
    /// All records that it was closed with, copies included.
    pub records: Vec<RecordPlace>,
}

/// Where a record lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordPlace {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// A view of a closed part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClosedView {
    /// Its name.
    pub view: String,
    /// XXH3 (64 bits, seed 0) of its image's bytes.
    pub hash: u64,
    /// The image's bytes, counted.
    pub length: u64,
}

/// Why a record does not tell of a closed part.
#[derive(Debug, thiserror::Error)]
pub enum ClosedPartError {
    /// It is no map of this kind.
    #[error("expected a closed part in `MessagePack`, found none: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// A newer release has written it.
    #[error("expected schema version `{VERSION}` of a closed part, found `{0}`")]
    Version(u32),
}

impl ClosedPartRecord {
    /// As `group_id` tells of it.
    pub fn of(closure: &PartClosure, group_id: &str) -> Self {
        let of_view = |(view, fingerprint): &(ViewId, Fingerprint)| ClosedView {
            view: view.to_string(),
            hash: fingerprint.hash,
            length: fingerprint.length,
        };
        Self {
            schema_version: VERSION,
            group_id: group_id.to_owned(),
            line: closure.part.line.to_string(),
            part_id: closure.part.part.to_string(),
            opened_by: RecordPlace::of(&closure.opened_by),
            taken_after: closure.reuse.taken_after.0,
            written_after: closure.reuse.written_after.0,
            views: closure.views.iter().map(of_view).collect(),
            records: closure.records.iter().map(RecordPlace::of).collect(),
        }
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// When it is no closed part, or one of a later version.
    pub fn from_bytes(value: &[u8]) -> Result<Self, ClosedPartError> {
        let read: Self = rmp_serde::from_slice(value)?;
        match read.schema_version {
            VERSION => Ok(read),
            other => Err(ClosedPartError::Version(other)),
        }
    }

    /// The record's value.
    ///
    /// # Panics
    /// Never: strings and integers always encode into memory.
    pub fn to_bytes(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("strings and integers always encode into memory")
    }

    /// What reassembly is to know.
    pub fn into_closure(self, names: &mut SharedNames) -> PartClosure {
        let of_view = |view: ClosedView| {
            let fingerprint = Fingerprint {
                hash: view.hash,
                length: view.length,
            };
            (ViewId::new(names.shared(view.view)), fingerprint)
        };
        let views = self.views.into_iter().map(of_view).collect();
        let places = self.records.into_iter();
        PartClosure {
            part: PartKey {
                line: LineId::new(names.shared(self.line)),
                part: PartId::new(self.part_id),
            },
            opened_by: self.opened_by.into_source(names),
            reuse: Reuse {
                taken_after: Timestamp(self.taken_after),
                written_after: Timestamp(self.written_after),
            },
            views,
            records: places.map(|place| place.into_source(names)).collect(),
        }
    }
}

/// Names that come again and again, kept once.
#[derive(Debug, Default)]
pub struct SharedNames(HashSet<Arc<str>>);

impl SharedNames {
    fn shared(&mut self, name: String) -> Arc<str> {
        if let Some(known) = self.0.get(name.as_str()) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

impl RecordPlace {
    fn of(source: &SourceOffset) -> Self {
        Self {
            topic: source.topic.to_string(),
            partition: source.partition,
            offset: source.offset,
        }
    }

    fn into_source(self, names: &mut SharedNames) -> SourceOffset {
        SourceOffset {
            topic: Topic::new(names.shared(self.topic)),
            partition: self.partition,
            offset: self.offset,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source() -> impl Strategy<Value = SourceOffset> {
        ("[a-z.]{1,12}", 0..1_000_i32, 0..i64::MAX).prop_map(|(topic, partition, offset)| {
            SourceOffset {
                topic: Topic::new(topic),
                partition,
                offset,
            }
        })
    }

    pub(crate) fn closure() -> impl Strategy<Value = PartClosure> {
        let view = ("[a-z]{1,8}", any::<u64>(), any::<u64>())
            .prop_map(|(view, hash, length)| (ViewId::new(view), Fingerprint { hash, length }));
        let times = (any::<i64>(), any::<i64>());
        let lists = (
            prop::collection::vec(view, 0..6),
            prop::collection::vec(source(), 0..8),
        );
        ("\\PC{1,8}", "\\PC{1,20}", source(), times, lists).prop_map(
            |(line, part, opened_by, (taken, written), (views, records))| PartClosure {
                part: PartKey {
                    line: LineId::new(line),
                    part: PartId::new(part),
                },
                opened_by,
                reuse: Reuse {
                    taken_after: Timestamp(taken),
                    written_after: Timestamp(written),
                },
                views,
                records,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(closure in closure(), group in "[a-z]{1,9}") {
            let written = ClosedPartRecord::of(&closure, &group).to_bytes();
            let read = ClosedPartRecord::from_bytes(&written).unwrap();
            prop_assert_eq!(&read.group_id, &group);
            prop_assert_eq!(read.into_closure(&mut SharedNames::default()), closure);
        }
    }

    #[test]
    fn a_later_version_is_refused_by_its_number() {
        let later = ClosedPartRecord {
            schema_version: 2,
            group_id: "group".to_owned(),
            line: "line1".to_owned(),
            part_id: "p-1".to_owned(),
            opened_by: RecordPlace {
                topic: "cam".to_owned(),
                partition: 0,
                offset: 0,
            },
            taken_after: 0,
            written_after: 0,
            views: Vec::new(),
            records: Vec::new(),
        };
        let error = ClosedPartRecord::from_bytes(&later.to_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected schema version `1` of a closed part, found `2`"
        );
    }

    #[test]
    fn bytes_that_are_none_are_refused() {
        let error = ClosedPartRecord::from_bytes(b"\x81\xa1x\x01").unwrap_err();
        assert!(error.to_string().contains("closed part"), "{error}");
    }
}
