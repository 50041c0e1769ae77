//! What the objects of an archive are called.
//!
//! `<topic>/<partition>/<first offset>-<hour>.tar`, and `.json` for its manifest: listed by name, the
//! segments of a partition stand in the order of their offsets, and a person finds an hour.

use crate::domain::TopicPartition;

/// The archive's manifest.
pub(super) const MANIFEST: &str = "archive.json";

/// The last entry of each segment's tar file.
pub(super) const INDEX_ENTRY: &str = "index.jsonl";

const HOUR_MILLIS: i64 = 3_600_000;

/// The hour that a time is in, counted since the Unix epoch.
pub(super) fn hour_of(epoch_millis: i64) -> i64 {
    epoch_millis.div_euclid(HOUR_MILLIS)
}

/// A segment's objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    /// The first offset that it covers.
    pub(super) start: i64,
    stem: String,
}

impl SegmentName {
    /// Of the segment that begins at `start`, with a record of that hour, if it has any.
    pub(super) fn new(partition: &TopicPartition, start: i64, hour: Option<i64>) -> Self {
        let time = hour
            .and_then(|hour| hour.checked_mul(HOUR_MILLIS))
            .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
        let hour = match time {
            Some(time) => time.strftime("%Y-%m-%dT%H").to_string(),
            None => "untimed".to_owned(),
        };
        let folder = folder(partition);
        Self {
            start,
            stem: format!("{folder}/{start:020}-{hour}"),
        }
    }

    /// Of the segment that has this manifest, if it is one.
    pub(super) fn of_manifest(object: &str) -> Option<Self> {
        let stem = object.strip_suffix(".json")?;
        let (_, name) = stem.rsplit_once('/')?;
        let (start, _) = name.split_once('-')?;
        Some(Self {
            start: start.parse().ok()?,
            stem: stem.to_owned(),
        })
    }

    pub(super) fn tar(&self) -> String {
        format!("{}.tar", self.stem)
    }

    pub(super) fn manifest(&self) -> String {
        format!("{}.json", self.stem)
    }
}

/// Where a partition's segments are.
pub(super) fn folder(partition: &TopicPartition) -> String {
    format!("{}/{:05}", partition.topic, partition.partition)
}

/// What a record's value is called in its tar file, so that tools show images as such.
pub(super) fn entry_name(offset: i64, content_type: Option<&[u8]>) -> String {
    let extension = match content_type {
        Some(b"image/jpeg") => "jpg",
        Some(b"image/png") => "png",
        Some(b"image/bmp") => "bmp",
        Some(b"image/tiff") => "tif",
        Some(b"image/webp") => "webp",
        Some(b"image/x-raw") => "raw",
        Some(b"application/msgpack") => "msgpack",
        _ => "bin",
    };
    format!("{offset:020}.{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> TopicPartition {
        TopicPartition {
            topic: "line1.cam.top".into(),
            partition: 3,
        }
    }

    #[test]
    fn names_sort_by_offset_and_tell_the_hour() {
        let hour = hour_of(1_772_366_400_250);
        let name = SegmentName::new(&partition(), 12, Some(hour));
        assert_eq!(
            name.tar(),
            "line1.cam.top/00003/00000000000000000012-2026-03-01T12.tar"
        );
        assert_eq!(
            SegmentName::of_manifest(&name.manifest()),
            Some(name.clone())
        );
        let later = SegmentName::new(&partition(), 112, None);
        assert!(name.tar() < later.tar());
        assert!(later.tar().ends_with("-untimed.tar"), "{}", later.tar());
        assert_eq!(SegmentName::new(&partition(), 1, Some(i64::MAX)).start, 1);
    }

    #[test]
    fn an_hour_before_the_epoch_is_its_own() {
        assert_eq!(hour_of(-1), -1);
        assert_eq!(hour_of(0), 0);
    }

    #[test]
    fn what_is_no_manifest_names_no_segment() {
        for object in [
            "a/00000/x-y.json",
            "archive.json",
            "a/00000/00012-h.tar",
            "a/0/12.json",
        ] {
            assert_eq!(SegmentName::of_manifest(object), None, "{object}");
        }
    }
}
