//! From a range as a person names it to offsets of an archive's partitions.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::plan::{FoundOffsets, Plan, PlanError, RangeSpec};
use crate::archive::{Archive, ArchiveError, PartitionArchive};
use crate::domain::{Timestamp, TopicPartition};
use crate::kafka::partition_counts::{describe_unequal_counts, subscribed};

/// Partitions whose manifests are read at the same time.
const AT_ONCE: usize = 16;

/// Looks up what an archive holds of a range, of `topics` (names, or one regular expression that starts
/// with `^`).
///
/// # Errors
/// When a topic is not in the archive, the range is empty, or the archive is not whole.
pub async fn plan_archive(
    archive: &Archive,
    topics: &[String],
    range: &RangeSpec,
) -> Result<Plan, PlanError> {
    if !archive.is_complete() {
        return Err(PlanError::Incomplete(archive.location().to_owned()));
    }
    let held = archive.manifest().topics.iter();
    let held = held.map(|topic| (topic.topic.clone(), topic.partitions.len()));
    let counts: BTreeMap<String, usize> = subscribed(held, topics);
    let mut names = topics.iter().filter(|name| !name.starts_with('^'));
    if let Some(missing) = names.find(|name| !counts.contains_key(*name)) {
        return Err(PlanError::NotArchived {
            topic: missing.clone(),
            location: archive.location().to_owned(),
        });
    }
    if counts.is_empty() {
        return Err(PlanError::NoTopics(topics.join(", ")));
    }
    if let Some(unequal) = describe_unequal_counts(&counts) {
        return Err(PlanError::UnequalPartitions(unequal));
    }
    let mut partitions = archive.partitions();
    partitions.retain(|one| counts.contains_key(one.topic_partition().topic.as_str()));
    let (from, to) = range.times();
    let of = |offset: fn(&PartitionArchive) -> i64| {
        let offsets = partitions.iter();
        let offsets = offsets.map(|one| (one.topic_partition().clone(), offset(one)));
        offsets.collect()
    };
    let found = FoundOffsets {
        earliest: of(|one| one.range().start),
        latest: of(|one| one.range().end),
        from: offsets_at(&partitions, from).await?,
        to: offsets_at(&partitions, to).await?,
    };
    let planned = partitions.iter().map(|one| one.topic_partition().clone());
    Plan::of(planned.collect(), range, &found)
}

async fn offsets_at(
    partitions: &[PartitionArchive],
    time: Option<Timestamp>,
) -> Result<Option<HashMap<TopicPartition, i64>>, ArchiveError> {
    let Some(time) = time else { return Ok(None) };
    let asked = partitions.iter().map(|one| async move {
        let offset = one.offset_at(time).await?;
        Ok((one.topic_partition().clone(), offset))
    });
    let told = stream::iter(asked).buffer_unordered(AT_ONCE);
    told.try_collect().await.map(Some)
}
