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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::{archive_of, record};
    use crate::domain::Topic;
    use crate::replay::Bound;

    fn partition(topic: &str) -> TopicPartition {
        TopicPartition {
            topic: Topic::from(topic),
            partition: 0,
        }
    }

    /// Offsets 0, 10, 20 ... of each topic, a record a second.
    async fn archive() -> Archive {
        let records = |topic: &str| {
            let records =
                (0..10).map(|number| record(&partition(topic), 10 * number, 1_000 * number, 9));
            records.collect::<Vec<_>>()
        };
        archive_of(vec![
            ("cam.left", 91, records("cam.left")),
            ("cam.top", 95, records("cam.top")),
        ])
        .await
    }

    async fn planned(
        topics: &[&str],
        range: RangeSpec,
    ) -> Result<Vec<(i64, i64, bool)>, PlanError> {
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let plan = plan_archive(&archive().await, &topics, &range).await?;
        let partitions = plan.partitions.iter();
        Ok(partitions
            .map(|one| (one.start, one.end, one.is_cut))
            .collect())
    }

    #[tokio::test]
    async fn an_open_range_is_all_of_the_archive_and_times_are_looked_up_in_it() {
        let all = planned(&["^cam"], RangeSpec::default()).await.unwrap();
        assert_eq!(all, [(0, 91, false), (0, 95, false)]);
        let range = RangeSpec {
            from: Bound::Time(Timestamp(4_500)),
            to: Bound::Time(Timestamp(6_000)),
            lead: std::time::Duration::from_millis(1_000),
        };
        let some = planned(&["cam.top"], range.clone()).await.unwrap();
        assert_eq!(some, [(40, 70, false)]);
        let later = RangeSpec {
            to: Bound::Time(Timestamp(60_000)),
            ..range
        };
        let rest = planned(&["cam.left"], later).await.unwrap();
        assert_eq!(rest, [(40, 91, false)]);
    }

    #[tokio::test]
    async fn a_topic_that_is_not_in_the_archive_is_named() {
        let error = planned(&["cam.top", "cam.back"], RangeSpec::default())
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("expected camera topic `cam.back` in `memory`"),
            "{text}"
        );
    }
}
