//! A replay's job on the brokers: where each partition ends, and how far the group has come.
//!
//! Both are committed offsets, of the groups `<job>` and `<job>-end`. The second is committed last, so a
//! job whose ends are known has its beginnings, too. A job that is done by one process at a time has the
//! process's name beside its ends (`job_claim`).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use super::client::BusSettings;
use super::group_protocol::GROUP_PROTOCOL;
use super::read_range::ReadRange;
use crate::domain::{Topic, TopicPartition};

/// How long one call may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long the brokers may be in the midst of something, an open transaction for instance.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(90);
/// The pause before they are asked again.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// A job of partitions that are known.
pub struct Job {
    pub(super) id: String,
    pub(super) positions: BaseConsumer,
    pub(super) ends: BaseConsumer,
    partitions: Vec<TopicPartition>,
    /// What this process has claimed it by, if it has.
    pub(super) owner: OnceLock<String>,
}

/// How far a job has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// Offsets from all beginnings to all ends, as far as the beginnings are known: those that are left
    /// when it is first asked for.
    pub left: i64,
    /// Whether nothing is left.
    pub is_complete: bool,
}

/// Why a job cannot be made or looked at.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The brokers do not take or tell its offsets.
    #[error("failed to {doing} of job `{id}`: {source}")]
    Brokers {
        /// What was being done.
        doing: &'static str,
        /// The job.
        id: String,
        /// Their reason.
        source: KafkaError,
    },
    /// Somebody made it of other topics.
    #[error(
        "job `{id}` was made of other partitions: expected it to know where `{topic}[{partition}]` ends; \
         give this replay another `--job`",
        topic = partition.topic, partition = partition.partition
    )]
    OtherPartitions {
        /// The job.
        id: String,
        /// A partition that it does not know.
        partition: TopicPartition,
    },
    /// Instances that read the topics are at it.
    #[error(
        "group `{0}` has members, which do the job from the topics: expected none while it is done from an \
         archive; wait for their end, or give this replay another `--job`"
    )]
    HasMembers(String),
    /// Another process has claimed it since.
    #[error("job `{0}` is done by another process since: this one gives it up")]
    TakenOver(String),
    /// The brokers have forgotten how far it is.
    #[error(
        "group `{id}` has no committed offset of `{topic}[{partition}]`: expected that of the job; give this \
         replay another `--job`",
        topic = partition.topic, partition = partition.partition
    )]
    NoPosition {
        /// The job.
        id: String,
        /// The partition.
        partition: TopicPartition,
    },
}

impl Job {
    /// Makes the clients.
    ///
    /// # Errors
    /// When a property is refused.
    pub fn connect(
        bus: &BusSettings,
        id: &str,
        partitions: Vec<TopicPartition>,
    ) -> KafkaResult<Self> {
        let client = |group: &str| -> KafkaResult<BaseConsumer> {
            let mut config = bus.consumer_config();
            // It joins no group.
            for property in ["group.instance.id", GROUP_PROTOCOL, "group.remote.assignor"] {
                config.remove(property);
            }
            config.set("group.id", group).create()
        };
        Ok(Self {
            id: id.to_owned(),
            positions: client(id)?,
            ends: client(&format!("{id}-end"))?,
            partitions,
            owner: OnceLock::new(),
        })
    }

    /// Where the job ends, if it was made before.
    ///
    /// # Errors
    /// When the brokers do not tell, or it was made of other partitions.
    pub fn find(&self) -> Result<Option<ReadRange>, JobError> {
        let ends = offsets_in(&self.committed(&self.ends, "read the ends")?);
        if ends.is_empty() {
            return Ok(None);
        }
        match self.partitions.iter().find(|one| !ends.contains_key(one)) {
            None => Ok(Some(ReadRange::until(ends.into_iter().collect()))),
            Some(unknown) => Err(JobError::OtherPartitions {
                id: self.id.clone(),
                partition: unknown.clone(),
            }),
        }
    }

    /// Makes it, of where each of its partitions begins and ends.
    ///
    /// # Errors
    /// When the brokers do not take its offsets.
    pub fn make(
        &self,
        offsets: &HashMap<TopicPartition, Range<i64>>,
    ) -> Result<ReadRange, JobError> {
        let starts = offsets.iter().map(|(one, range)| (one, range.start));
        self.commit(&self.positions, starts, "", "commit the beginnings")?;
        let ends = offsets.iter().map(|(one, range)| (one, range.end));
        self.commit(&self.ends, ends.clone(), "", "commit the ends")?;
        let ends = ends.map(|(partition, end)| (partition.clone(), end));
        Ok(ReadRange::until(ends.collect()))
    }

    /// How far the group has come.
    ///
    /// # Errors
    /// When the brokers do not tell, or another process has claimed it.
    pub fn progress(&self, range: &ReadRange) -> Result<JobProgress, JobError> {
        self.check_claim()?;
        let positions = offsets_in(&self.committed(&self.positions, "read the progress")?);
        let left = self.partitions.iter().map(|partition| {
            let end = range.end(partition);
            (end - positions.get(partition).copied().unwrap_or(0)).max(0)
        });
        let left: i64 = left.sum();
        Ok(JobProgress {
            left,
            is_complete: left == 0,
        })
    }

    /// What a group has committed; brokers do not tell it while a transaction of it is open.
    pub(super) fn committed(
        &self,
        client: &BaseConsumer,
        doing: &'static str,
    ) -> Result<TopicPartitionList, JobError> {
        let mut list = TopicPartitionList::new();
        for partition in &self.partitions {
            list.add_partition(partition.topic.as_str(), partition.partition);
        }
        let told = insist(|| {
            let told = client.committed_offsets(list.clone(), PATIENCE)?;
            let mut errors = told.elements().into_iter().map(|one| one.error());
            errors.find(Result::is_err).unwrap_or(Ok(()))?;
            Ok(told)
        });
        told.map_err(|source| self.error(doing, source))
    }

    pub(super) fn commit<'a>(
        &self,
        client: &BaseConsumer,
        offsets: impl Iterator<Item = (&'a TopicPartition, i64)>,
        metadata: &str,
        doing: &'static str,
    ) -> Result<(), JobError> {
        let commit = || -> KafkaResult<()> {
            let mut list = TopicPartitionList::new();
            for (partition, offset) in offsets {
                let mut element = list.add_partition(partition.topic.as_str(), partition.partition);
                element.set_offset(Offset::Offset(offset))?;
                element.set_metadata(metadata);
            }
            client.commit(&list, CommitMode::Sync)
        };
        commit().map_err(|source| self.error(doing, source))
    }

    pub(super) fn partitions(&self) -> &[TopicPartition] {
        &self.partitions
    }

    pub(super) fn error(&self, doing: &'static str, source: KafkaError) -> JobError {
        JobError::Brokers {
            doing,
            id: self.id.clone(),
            source,
        }
    }
}

/// Asks again for as long as the brokers may be in the midst of something.
pub(super) fn insist<T>(ask: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let deadline = Instant::now() + LONGEST_WAIT;
    loop {
        match ask() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            told => return told,
        }
    }
}

fn offsets_in(list: &TopicPartitionList) -> BTreeMap<TopicPartition, i64> {
    let elements = list.elements();
    let offsets = elements.iter().filter_map(|element| {
        let Offset::Offset(offset) = element.offset() else {
            return None;
        };
        let partition = TopicPartition {
            topic: Topic::new(element.topic()),
            partition: element.partition(),
        };
        Some((partition, offset))
    });
    offsets.collect()
}
