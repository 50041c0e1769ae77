//! A replay that reads an archive in place of the topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::archive::{Archive, ArchiveStore};
use crate::cli::archive::StoreArgs;
use crate::config::{Delivery, Settings};
use crate::domain::{Topic, TopicPartition};
use crate::kafka::client::BusSettings;
use crate::kafka::consumer_settings::Commits;
use crate::kafka::job_offsets::{Job, JobError};
use crate::kafka::offset_survey::OffsetSurvey;
use crate::kafka::stored_records::StoredSource;
use crate::kafka::topic_admin::create_topics;
use crate::pipeline::{PipelineSetup, bus_settings};
use crate::replay::{ArchiveRecords, Plan};
use crate::schema::archive::{ArchivedPartition, PartitionTotals};

/// Instances of one process at most; see the flag `--parallel`.
const MOST_INSTANCES: usize = 64;

/// The flags of a replay from an archive.
#[derive(Args, Clone, Debug, Default)]
pub struct ArchiveFlags {
    /// Read an archive that `panoptes export` wrote in place of the topics: a folder, or
    /// `s3://bucket/prefix`
    #[arg(long, value_name = "LOCATION")]
    pub archive: Option<String>,
    /// Where the archive is stored
    #[command(flatten)]
    pub store: StoreArgs,
    /// Make those of the archive's topics that the brokers do not have any more, without records: how far
    /// the job is, is kept as committed offsets of them
    #[arg(long, requires = "archive")]
    pub create_topics: bool,
}

/// The brokers do not have what the job's progress is kept by.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected the archive's topics on the brokers, with records or without, for how far the job is, is kept \
     as committed offsets of them; found {}; `--create-topics` makes those that are missing",
    .0.join(", ")
)]
struct MissingTopics(Vec<String>);

impl ArchiveFlags {
    /// The archive, if one is to be read.
    pub(super) fn open(&self) -> anyhow::Result<Option<Archive>> {
        let Some(location) = &self.archive else {
            return Ok(None);
        };
        let store = ArchiveStore::existing(location, &self.store.options)?;
        crate::cli::block_on(async { Ok(Some(Archive::open(store).await?)) })
    }

    /// Sees that the brokers have the topics by which the job's progress is kept.
    pub(super) fn prepare_topics(
        &self,
        survey: &OffsetSurvey,
        plan: &Plan,
        bus: &BusSettings,
    ) -> anyhow::Result<()> {
        let mut needed = BTreeMap::<&Topic, i32>::new();
        for one in &plan.partitions {
            let count = needed.entry(&one.partition.topic).or_default();
            *count = (*count).max(one.partition.partition + 1);
        }
        let names: Vec<String> = needed.keys().map(|topic| topic.to_string()).collect();
        let found = survey.topics(&names)?;
        let mut lacking = Vec::new();
        let mut missing = Vec::new();
        for (topic, count) in &needed {
            match found.get(*topic) {
                Some(found) if found >= count => {}
                Some(found) => {
                    lacking.push(format!("`{topic}` with {found} of {count} partitions"))
                }
                None if self.create_topics => missing.push((*topic).clone()),
                None => lacking.push(format!("no `{topic}` of {count} partitions")),
            }
        }
        if !lacking.is_empty() {
            return Err(MissingTopics(lacking).into());
        }
        let count =
            u16::try_from(partition_count(plan)).context("more partitions than Kafka has")?;
        if missing.is_empty() {
            return Ok(());
        }
        tracing::info!(topics = ?missing, partitions = count, "the archive's topics are made");
        crate::cli::block_on(async { Ok(create_topics(bus, &missing, count).await?) })
    }
}

/// What an archive, or the plan of what is read of it, lacks.
pub(super) fn tell_what_is_missing(archive: &Archive, plan: &Plan) {
    for one in plan.partitions.iter().filter(|one| one.is_cut) {
        tracing::warn!(
            topic = %one.partition.topic,
            partition = one.partition.partition,
            first_offset = one.earliest,
            "records at the beginning of the range are not in the archive, or may be missing"
        );
    }
    let lacks = lacks(archive, plan);
    if lacks.deleted + lacks.deleted_at_start > 0 || lacks.faults > 0 {
        tracing::warn!(
            deleted = lacks.deleted,
            deleted_at_start = lacks.deleted_at_start,
            faults = lacks.faults,
            "the archive tells of records that retention had deleted, or of headers that it does not have"
        );
    }
}

/// The archive and what it lacks of the topics that are read, for the summary.
pub(super) fn summary(archive: &Archive, plan: &Plan) -> serde_json::Value {
    let lacks = lacks(archive, plan);
    json!({
        "location": archive.location(),
        "deleted_at_start": lacks.deleted_at_start,
        "deleted": lacks.deleted,
        "missing": lacks.missing,
        "faults": lacks.faults,
    })
}

/// What the export counted of the partitions that are read.
#[derive(Clone, Copy, Debug, Default)]
struct Lacks {
    deleted_at_start: i64,
    deleted: i64,
    missing: i64,
    faults: u64,
}

fn lacks(archive: &Archive, plan: &Plan) -> Lacks {
    let mut lacks = Lacks::default();
    for (range, totals) in read_partitions(archive, plan) {
        lacks.deleted_at_start += range.deleted_at_start;
        lacks.deleted += totals.deleted;
        lacks.missing += totals.missing;
        lacks.faults += totals.faults;
    }
    lacks
}

fn read_partitions(
    archive: &Archive,
    plan: &Plan,
) -> impl Iterator<Item = (ArchivedPartition, PartitionTotals)> {
    let ranges = plan.partitions.iter().filter_map(|one| {
        let TopicPartition { topic, partition } = &one.partition;
        Some(*archive.partition(topic, *partition).ok()?.range())
    });
    ranges.map(|range| (range, range.totals.unwrap_or_default()))
}

/// The bytes of an offset's record of a topic, on an average.
pub(super) fn mean_bytes(archive: &Archive, topic: &Topic) -> f64 {
    let mut partitions = archive.partitions();
    partitions.retain(|one| one.topic_partition().topic == *topic);
    let ranges = partitions.iter().map(|one| one.range());
    let offsets: i64 = ranges.clone().map(|range| range.end - range.start).sum();
    let bytes = ranges.filter_map(|range| Some(range.totals?.bytes));
    bytes.sum::<u64>() as f64 / offsets.max(1) as f64
}

/// How many partitions each camera topic of the archive has.
pub(super) fn partition_count(plan: &Plan) -> usize {
    let numbers = plan.partitions.iter().map(|one| one.partition.partition);
    numbers.max().map_or(0, |highest| {
        usize::try_from(highest + 1).unwrap_or_default()
    })
}

/// Takes the job from any other process that does it from an archive.
pub(super) fn claim(job: &Job, settings: &Settings, plan: &Plan) -> Result<(), JobError> {
    job.claim(&format!("{:032x}", rand::random::<u128>()))?;
    end_producers(job, settings, plan)
}

/// Takes the job from a process that does it from an archive, for instances that read the topics.
pub(super) fn claim_for_group(job: &Job, settings: &Settings, plan: &Plan) -> Result<(), JobError> {
    job.claim_for_group(|| end_producers(job, settings, plan))
}

/// Ends those of the process that had the job, however many instances it has.
fn end_producers(job: &Job, settings: &Settings, plan: &Plan) -> Result<(), JobError> {
    if settings.output.delivery == Delivery::AtLeastOnce {
        return Ok(());
    }
    let most = partition_count(plan).min(MOST_INSTANCES);
    let ids: Vec<String> = (0..most)
        .map(|number| transactional_id(&settings.bus.group_id, number))
        .collect();
    let timeout = settings.output.transactions.timeout;
    job.fence(&bus_settings(&settings.bus), &ids, timeout)
}

fn transactional_id(job: &str, number: usize) -> String {
    format!("{job}-archive-{number}")
}

/// One of the instances of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instance {
    pub(super) number: usize,
    pub(super) of: usize,
}

/// Has a pipeline read its share of an archive.
pub(super) fn read_archive(
    setup: &mut PipelineSetup,
    archive: &Archive,
    plan: &Plan,
    job: &Arc<Job>,
    instance: Instance,
) -> anyhow::Result<()> {
    let consumer = &mut setup.consumer;
    if let Commits::InTransactions(transactions) = &mut consumer.commits {
        transactions.transactional_id = transactional_id(&consumer.group_id, instance.number);
    }
    let records = ArchiveRecords::new(archive.clone(), consumer.prefetch_bytes);
    setup.stored = Some(StoredSource {
        job: Arc::clone(job),
        partitions: share(plan, instance),
        partition_count: partition_count(plan),
        records: Box::new(records.context("failed to start the threads that read the archive")?),
    });
    Ok(())
}

/// The partitions of an instance: all of a number, for the views of a part lie on one.
fn share(plan: &Plan, instance: Instance) -> Vec<TopicPartition> {
    let partitions = plan.partitions.iter().map(|one| &one.partition);
    let is_ours = |one: &&TopicPartition| {
        usize::try_from(one.partition).is_ok_and(|number| number % instance.of == instance.number)
    };
    partitions.filter(is_ours).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::replay::PlannedPartition;

    fn plan(topics: &[&str], count: i32) -> Plan {
        let partitions = topics.iter().flat_map(|topic| {
            (0..count).map(|partition| PlannedPartition {
                partition: TopicPartition {
                    topic: Topic::from(*topic),
                    partition,
                },
                start: 0,
                end: 10,
                earliest: 0,
                deleted: None,
                is_cut: false,
            })
        });
        Plan {
            partitions: partitions.collect(),
        }
    }

    #[test]
    fn instances_share_all_partitions_and_none_twice_and_a_number_has_one_instance() {
        let plan = plan(&["cam.left", "cam.top"], 5);
        assert_eq!(partition_count(&plan), 5);
        for of in 1..=5 {
            let shares: Vec<_> = (0..of)
                .map(|number| share(&plan, Instance { number, of }))
                .collect();
            assert!(shares.iter().all(|share| !share.is_empty()));
            let all: HashSet<_> = shares.iter().flatten().collect();
            assert_eq!(all.len(), 10);
            assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), 10);
            for share in &shares {
                let numbers: HashSet<_> = share.iter().map(|one| one.partition).collect();
                assert_eq!(share.len(), 2 * numbers.len());
            }
        }
    }
}
