//! A replay's job on the brokers: where each partition begins and ends, and how far the group has come.
//!
//! All are committed offsets, of the groups `<job>-begin`, `<job>` and `<job>-end`. The last is committed last, so
//! a job whose ends are known has its beginnings, too. With a beginning goes what was known of the partition
//! when the job was made, so that whoever ends the job can tell of the whole of it. A job that is done by one
//! process at a time has the process's name beside its ends (`job_claim`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::client::BusSettings;
use super::commit_metadata;
use super::gap_count::Skipped;
use super::group_protocol::GROUP_PROTOCOL;
use super::read_range::ReadRange;
use crate::domain::{Topic, TopicPartition};

/// How long one call may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long the brokers may be in the midst of something, an open transaction for instance.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(90);
/// Brokers take 4096 bytes of metadata (`offset.metadata.max.bytes`); the rest is for numbers.
const MOST_TOPIC_BYTES: usize = 3_500;
/// The pause before they are asked again.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// Committed offsets, each with the text that came with it.
type Commits = BTreeMap<TopicPartition, (i64, String)>;

/// A job of partitions that are known.
pub struct Job {
    pub(super) id: String,
    begins: BaseConsumer,
    pub(super) positions: BaseConsumer,
    pub(super) ends: BaseConsumer,
    partitions: Vec<TopicPartition>,
    /// What this process has claimed it by, if it has.
    pub(super) owner: OnceLock<String>,
}

/// What a job was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobRange(pub BTreeMap<TopicPartition, JobPartition>);

/// One partition of a job, as it was when the job was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobPartition {
    /// The first offset that is read.
    #[serde(skip)]
    pub start: i64,
    /// The offset behind the last one.
    #[serde(skip)]
    pub end: i64,
    /// The first offset that the brokers had.
    pub earliest: i64,
    /// How many offsets of the range were deleted; none where its beginning is a time, or open.
    pub deleted: Option<i64>,
    /// Records before the earliest one were deleted, and some of them may have been of the range.
    pub is_cut: bool,
}

impl JobRange {
    /// Where reading ends.
    pub fn ends(&self) -> ReadRange {
        let partitions = self.0.iter();
        let ends = partitions.map(|(partition, one)| (partition.clone(), one.end));
        ReadRange::until(ends.collect())
    }

    /// Offsets between beginnings and ends: at least as many as there are records.
    pub fn offsets(&self) -> i64 {
        let partitions = self.0.values();
        partitions.map(|one| (one.end - one.start).max(0)).sum()
    }

    /// The names of its topics, as many as an offset's metadata has room for.
    fn topics_that_fit(&self) -> BTreeSet<String> {
        let topics: BTreeSet<&Topic> = self.0.keys().map(|one| &one.topic).collect();
        let mut room = MOST_TOPIC_BYTES;
        let fitting = topics.into_iter().take_while(|topic| {
            let bytes = topic.as_str().len() + 3; // quotes and a comma
            let has_room = bytes <= room;
            room = room.saturating_sub(bytes);
            has_room
        });
        fitting.map(ToString::to_string).collect()
    }

    /// Whether a partition was added to a topic of the job after it was made.
    fn is_older_than(&self, partition: &TopicPartition) -> bool {
        let of_topic = self.0.keys().filter(|one| one.topic == partition.topic);
        let highest = of_topic.map(|one| one.partition).max();
        highest.is_some_and(|highest| partition.partition > highest)
    }
}

/// A job that was made before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundJob {
    /// Its partitions; those of topics that are gone are not known any more.
    pub range: JobRange,
    /// What it is to do, as whoever made it has named that.
    pub task: Option<String>,
    /// The topics that it was made of, as far as that is known.
    pub topics: BTreeSet<Topic>,
}

impl FoundJob {
    /// A topic that it was made of, and that is neither `gone` nor told of by the brokers: it would go unread.
    fn unseen_topic(&self, gone: &BTreeSet<Topic>) -> Option<&Topic> {
        let mut topics = self.topics.iter();
        topics.find(|topic| {
            let mut told = self.range.0.keys();
            !gone.contains(*topic) && !told.any(|one| one.topic == **topic)
        })
    }

    /// Sees that all its topics are read but those that are `gone`.
    ///
    /// # Errors
    /// When the brokers have not told of one of them.
    pub fn expect_all_topics(&self, id: &str, gone: &BTreeSet<Topic>) -> Result<(), JobError> {
        match self.unseen_topic(gone) {
            None => Ok(()),
            Some(topic) => Err(JobError::UnseenTopic {
                id: id.to_owned(),
                topic: topic.clone(),
            }),
        }
    }
}

/// What stands beside a beginning.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct BeginText {
    #[serde(flatten)]
    partition: JobPartition,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    /// All topics of the job, beside one partition of each, so that those that are deleted are still known.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    topics: BTreeSet<String>,
}

/// How far a job has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// Offsets from all beginnings to all ends, as far as the beginnings are known: those that are left
    /// when it is first asked for.
    pub left: i64,
    /// Whether nothing is left.
    pub is_complete: bool,
    /// From how many offsets no record was read, in all instances together; of partitions with any.
    pub skipped: BTreeMap<TopicPartition, Skipped>,
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
    /// The brokers did not know it for a moment.
    #[error(
        "job `{id}` was made of camera topic `{topic}`, which is there: expected its partitions among those \
         that the brokers tell of, found none; start the replay again"
    )]
    UnseenTopic {
        /// The job.
        id: String,
        /// The topic.
        topic: Topic,
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
            begins: client(&format!("{id}-begin"))?,
            positions: client(id)?,
            ends: client(&format!("{id}-end"))?,
            partitions,
            owner: OnceLock::new(),
        })
    }

    /// What the job was made of, if it was made before.
    ///
    /// # Errors
    /// When the brokers do not tell, or it was made of other partitions.
    pub fn find(&self) -> Result<Option<FoundJob>, JobError> {
        let ends = offsets_in(&self.committed(&self.ends, "read the ends")?);
        if ends.is_empty() {
            return Ok(None);
        }
        let mut begins = offsets_in(&self.committed(&self.begins, "read the beginnings")?);
        let (mut range, mut task, mut topics) = (JobRange::default(), None, BTreeSet::new());
        for (partition, (end, _)) in ends {
            let (start, text) = begins.remove(&partition).unwrap_or_default();
            let made: BeginText = serde_json::from_str(&text).unwrap_or_default();
            let known = JobPartition {
                start,
                end,
                ..made.partition
            };
            range.0.insert(partition, known);
            task = task.or(made.task);
            topics.extend(made.topics.iter().map(|topic| Topic::new(topic.as_str())));
        }
        let is_new = |one: &TopicPartition| match topics.contains(&one.topic) {
            true => range.is_older_than(one),
            false => !topics.is_empty() || range.is_older_than(one),
        };
        let mut unknown = self
            .partitions
            .iter()
            .filter(|one| !range.0.contains_key(one));
        match unknown.find(|one| !is_new(one)) {
            None => Ok(Some(FoundJob {
                range,
                task,
                topics,
            })),
            Some(unknown) => Err(JobError::OtherPartitions {
                id: self.id.clone(),
                partition: unknown.clone(),
            }),
        }
    }

    /// Makes it, of what `task` names.
    ///
    /// # Errors
    /// When the brokers do not take its offsets.
    pub fn make(&self, range: &JobRange, task: &str) -> Result<(), JobError> {
        let topics = range.topics_that_fit();
        let begins = range.0.iter().map(|(partition, one)| {
            let text = BeginText {
                partition: one.clone(),
                task: Some(task.to_owned()),
                topics: match partition.partition {
                    0 => topics.clone(),
                    _ => BTreeSet::new(),
                },
            };
            let text = serde_json::to_string(&text);
            let text = text.expect("text and numbers can always be written as JSON");
            (partition, one.start, text)
        });
        self.commit(&self.begins, begins, "commit the beginnings")?;
        let starts = range.0.iter();
        let starts = starts.map(|(partition, one)| (partition, one.start, String::new()));
        self.commit(&self.positions, starts, "commit the first positions")?;
        let ends = range.0.iter();
        let ends = ends.map(|(partition, one)| (partition, one.end, String::new()));
        self.commit(&self.ends, ends, "commit the ends")
    }

    /// Commits once more what the job was made of, lest the brokers forget it: nobody is in these groups. So it is
    /// with the positions where one process does the job: those that have come to the range's end move no
    /// more. Asks again for as long as the brokers may be in the midst of something.
    ///
    /// # Errors
    /// When the brokers do not tell or take the offsets.
    pub fn keep(&self, range: &JobRange) -> Result<(), JobError> {
        insist(|| self.commit_again(&self.begins, |_, _| true))?;
        insist(|| self.commit_again(&self.ends, |_, _| true))?;
        if !self.is_of_one_process() {
            return Ok(());
        }
        let is_done = |partition: &TopicPartition, offset| {
            let of_range = range.0.get(partition);
            of_range.is_some_and(|one| offset >= one.end)
        };
        insist(|| self.commit_again(&self.positions, is_done))
    }

    /// Reads first what it commits, each time: beside the ends is the claim, and that of another process must
    /// not be undone. So other commits of a job are made once: what they tell may be old a moment later.
    fn commit_again(
        &self,
        client: &BaseConsumer,
        is_meant: impl Fn(&TopicPartition, i64) -> bool,
    ) -> Result<(), JobError> {
        let mut told = offsets_in(&self.committed(client, "read what it was made of")?);
        told.retain(|partition, (offset, _)| is_meant(partition, *offset));
        if told.is_empty() {
            return Ok(());
        }
        let again = told.iter();
        let again = again.map(|(partition, (offset, text))| (partition, *offset, text.clone()));
        self.commit(client, again, "commit again what it was made of")
    }

    /// How far the group has come; partitions of topics that are gone count no more.
    ///
    /// # Errors
    /// When the brokers do not tell, or another process has claimed it.
    pub fn progress(
        &self,
        range: &JobRange,
        gone: &BTreeSet<Topic>,
    ) -> Result<JobProgress, JobError> {
        self.check_claim()?;
        let positions = offsets_in(&self.committed(&self.positions, "read the progress")?);
        let there = range.0.iter().filter(|(one, _)| !gone.contains(&one.topic));
        let left = there.map(|(partition, one)| {
            let position = positions
                .get(partition)
                .map_or(one.start, |(offset, _)| *offset);
            (one.end - position).max(0)
        });
        let left: i64 = left.sum();
        let skipped = positions
            .into_iter()
            .map(|(partition, (_, text))| (partition, commit_metadata::skipped(&text)));
        Ok(JobProgress {
            left,
            is_complete: left == 0,
            skipped: skipped.filter(|(_, skipped)| !skipped.is_none()).collect(),
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
        offsets: impl Iterator<Item = (&'a TopicPartition, i64, String)>,
        doing: &'static str,
    ) -> Result<(), JobError> {
        let commit = || -> KafkaResult<()> {
            let mut list = TopicPartitionList::new();
            for (partition, offset, text) in offsets {
                let topic = partition.topic.as_str();
                let mut element = list.add_partition(topic, partition.partition);
                element.set_offset(Offset::Offset(offset))?;
                element.set_metadata(text);
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
pub(super) fn insist<T, E>(ask: impl Fn() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + LONGEST_WAIT;
    loop {
        match ask() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            told => return told,
        }
    }
}

pub(super) fn offsets_in(list: &TopicPartitionList) -> Commits {
    let elements = list.elements();
    let offsets = elements.iter().filter_map(|element| {
        let Offset::Offset(offset) = element.offset() else {
            return None;
        };
        let partition = TopicPartition {
            topic: Topic::new(element.topic()),
            partition: element.partition(),
        };
        Some((partition, (offset, element.metadata().to_owned())))
    });
    offsets.collect()
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    #[test]
    fn a_job_is_kept_though_the_brokers_refuse_at_first() {
        const REFUSED: RDKafkaRespErr =
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("cam", 1, 1).unwrap();
        let bus = BusSettings {
            brokers: cluster.bootstrap_servers(),
            ..BusSettings::default()
        };
        let partition = TopicPartition {
            topic: Topic::from("cam"),
            partition: 0,
        };
        let job = Job::connect(&bus, "job", vec![partition.clone()]).unwrap();
        let of_partition = JobPartition {
            start: 2,
            end: 6,
            ..JobPartition::default()
        };
        let range = JobRange([(partition, of_partition)].into());
        job.make(&range, "task").unwrap();
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[REFUSED, REFUSED]);
        job.keep(&range).unwrap();
        let found = job.find().unwrap().unwrap();
        assert_eq!(found.range, range);
        assert_eq!(found.task.as_deref(), Some("task"));
        assert_eq!(found.topics, ["cam".into()].into());
    }
    #[test]
    fn a_job_knows_its_topics_whatever_became_of_them() {
        let cluster = MockCluster::new(1).unwrap();
        let topics = ["a", "b", "new"];
        for topic in topics {
            cluster.create_topic(topic, 2, 1).unwrap();
        }
        let bus = BusSettings {
            brokers: cluster.bootstrap_servers(),
            ..BusSettings::default()
        };
        let partitions = |topics: &[&str]| {
            let topics = topics.iter();
            let both = topics.flat_map(|topic| (0..2).map(|number| (Topic::from(*topic), number)));
            let both = both.map(|(topic, partition)| TopicPartition { topic, partition });
            both.collect::<Vec<_>>()
        };
        let job = |topics: &[&str]| Job::connect(&bus, "job", partitions(topics)).unwrap();
        let of_partition = JobPartition {
            end: 6,
            ..JobPartition::default()
        };
        let made = partitions(&["a", "b"]).into_iter();
        let made = JobRange(made.map(|one| (one, of_partition.clone())).collect());
        job(&["a", "b"]).make(&made, "task").unwrap();

        // A new topic is none of its own.
        let found = job(&topics).find().unwrap().unwrap();
        assert_eq!(found.range, made);
        found.expect_all_topics("job", &BTreeSet::new()).unwrap();
        // Where one is deleted, or the brokers do not know it for a moment.
        let found = job(&["a"]).find().unwrap().unwrap();
        assert_eq!(found.range.0.len(), 2);
        assert_eq!(found.topics, ["a".into(), "b".into()].into());
        found
            .expect_all_topics("job", &["b".into()].into())
            .unwrap();
        let error = found.expect_all_topics("job", &BTreeSet::new());
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with("job `job` was made of camera topic `b`"),
            "{error}"
        );
    }

    #[test]
    fn as_many_topics_are_remembered_as_there_is_room_for() {
        let named = |number| TopicPartition {
            topic: format!("{number:0>200}").as_str().into(),
            partition: 0,
        };
        let range = |topics| {
            JobRange(
                (0..topics)
                    .map(|one| (named(one), JobPartition::default()))
                    .collect(),
            )
        };
        assert_eq!(range(3).topics_that_fit().len(), 3);
        assert_eq!(range(100).topics_that_fit().len(), MOST_TOPIC_BYTES / 203);
    }
}
