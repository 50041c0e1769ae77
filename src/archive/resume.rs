//! Whether an export may go on with an archive that is there: it must be the one that began it, and the
//! brokers must still have what the archive lacks. They need not have what it holds.

use std::collections::BTreeMap;

use super::error::ArchiveError;
use super::export::ExportSettings;
use super::range::range_text;
use super::reader::PartitionArchive;
use super::store::ArchiveStore;
use crate::domain::{Topic, TopicPartition};
use crate::kafka::offset_survey::OffsetSurvey;
use crate::kafka::topic_reader::CONNECT_TIMEOUT;
use crate::schema::archive::{ArchiveManifest, ArchivedTopic};

/// What the brokers have of the topics that an export asks for.
#[derive(Debug)]
pub(super) struct OnBus {
    cluster_id: String,
    partitions: BTreeMap<Topic, i32>,
}

impl OnBus {
    /// Asks the brokers. Blocking.
    pub(super) fn ask(settings: &ExportSettings) -> Result<Self, ArchiveError> {
        let survey = OffsetSurvey::connect(&settings.bus, CONNECT_TIMEOUT)?;
        Ok(Self {
            cluster_id: survey.cluster_id()?,
            partitions: survey.topics(&settings.subscription)?,
        })
    }
}

/// Fails unless the archive was begun with the same topics, in whatever order, and the same range.
pub(super) fn expect_same_request(
    store: &ArchiveStore,
    settings: &ExportSettings,
    found: &ArchiveManifest,
) -> Result<(), ArchiveError> {
    let (expected, was) = (names(&settings.subscription), names(&found.subscription));
    expect_same(store, "topics", expected, was)?;
    let (expected, was) = (range_text(&settings.range), range_text(&found.range));
    expect_same(store, "range", expected, was)
}

/// Fails unless the brokers have the partitions that are not in the archive up to the end of their range.
pub(super) async fn expect_rest_on_bus(
    store: &ArchiveStore,
    found: &ArchiveManifest,
    bus: &OnBus,
) -> Result<(), ArchiveError> {
    let (expected, was) = (bus.cluster_id.clone(), found.cluster_id.clone());
    expect_same(store, "cluster", expected, was)?;
    for topic in &found.topics {
        let name = Topic::from(topic.topic.as_str());
        // More partitions hold later records only.
        let count = bus.partitions.get(&name).copied().unwrap_or(0);
        if !lacks_from(store, topic, count).await? {
            continue;
        }
        if count == 0 {
            return Err(ArchiveError::NoSuchTopic(topic.topic.clone()));
        }
        let was = topic.partitions.len().to_string();
        expect_same(store, "partitions", count.to_string(), was)?;
    }
    Ok(())
}

/// Whether a partition of that number or a higher one is not in the archive up to the end of its range.
async fn lacks_from(
    store: &ArchiveStore,
    topic: &ArchivedTopic,
    first: i32,
) -> Result<bool, ArchiveError> {
    for range in topic.partitions.iter().filter(|one| one.partition >= first) {
        let partition = TopicPartition {
            topic: Topic::from(topic.topic.as_str()),
            partition: range.partition,
        };
        let archive = PartitionArchive::new(store, &partition, *range);
        if !archive.reaches_end().await? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn names(subscription: &[String]) -> String {
    let mut names = subscription.to_vec();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

fn expect_same(
    store: &ArchiveStore,
    what: &'static str,
    expected: String,
    found: String,
) -> Result<(), ArchiveError> {
    if expected == found {
        return Ok(());
    }
    Err(ArchiveError::OtherExport {
        location: store.location().to_owned(),
        what,
        expected,
        found,
    })
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
