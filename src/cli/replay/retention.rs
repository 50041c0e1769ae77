//! What brokers do not have any more of the records of a replay, or did not have when it was made.
//!
//! Nothing of it stops a replay, and nothing of it goes untold: it is in the log when it is found and in the
//! summary at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::domain::{Topic, TopicPartition};
use crate::kafka::client::BusSettings;
use crate::kafka::gap_count::Skipped;
use crate::kafka::job_offsets::JobRange;
use crate::kafka::offset_survey::{OffsetAt, OffsetSurvey, SurveyError, partitions_of};
use crate::kafka::topic_admin::cleanup_policies;

/// How often it is looked whether the topics are still there.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);
/// How many times in a row a topic must not be there: one that is new is not known to every broker.
const MISSED_TIMES: u32 = 3;
/// The pause before it is looked again for topics that a job was made of.
const PAUSE: Duration = Duration::from_millis(500);

/// Which of a job's topics are gone before it goes on.
///
/// # Errors
/// When the brokers do not tell.
pub(super) fn gone_since(
    survey: &OffsetSurvey,
    topics: &BTreeSet<Topic>,
) -> Result<BTreeSet<Topic>, SurveyError> {
    let names: Vec<String> = topics.iter().map(ToString::to_string).collect();
    let mut gone = topics.clone();
    for time in 0..MISSED_TIMES {
        if time > 0 {
            std::thread::sleep(PAUSE);
        }
        let there = survey.topics(&names)?;
        gone.retain(|topic| !there.contains_key(topic));
        if gone.is_empty() {
            break;
        }
    }
    for topic in &gone {
        tracing::error!(%topic, "a camera topic of the job is gone: the replay goes on without it");
    }
    Ok(gone)
}

/// Looks after the topics of a job while it runs.
pub(super) struct TopicWatch {
    survey: OffsetSurvey,
    names: Vec<String>,
    looked_at: Instant,
    missed: BTreeMap<Topic, u32>,
    gone: BTreeSet<Topic>,
}

impl TopicWatch {
    /// Looks after those of the range that are not `gone` already.
    pub(super) fn new(survey: OffsetSurvey, range: &JobRange, gone: BTreeSet<Topic>) -> Self {
        let topics: BTreeSet<&Topic> = range.0.keys().map(|one| &one.topic).collect();
        let names = topics.into_iter().map(|topic| topic.as_str().to_owned());
        Self {
            survey,
            names: names.collect(),
            looked_at: Instant::now(),
            missed: BTreeMap::new(),
            gone,
        }
    }

    /// The topics that are gone, as far as it is known; what is read of them was read before.
    pub(super) fn gone(&mut self) -> &BTreeSet<Topic> {
        if self.looked_at.elapsed() >= LOOK_INTERVAL {
            self.looked_at = Instant::now();
            match self.survey.topics(&self.names) {
                Ok(there) => self.note(&there),
                Err(error) => tracing::warn!(%error, "not known whether topics are still there"),
            }
        }
        &self.gone
    }

    fn note(&mut self, there: &BTreeMap<Topic, i32>) {
        for name in &self.names {
            let topic = Topic::new(name.as_str());
            if there.contains_key(&topic) {
                self.missed.remove(&topic);
                continue;
            }
            let missed = self.missed.entry(topic.clone()).or_default();
            *missed += 1;
            if *missed == MISSED_TIMES {
                tracing::error!(%topic, "a camera topic of the range is gone: the replay ends without it");
                self.gone.insert(topic);
            }
        }
    }

    pub(super) fn into_survey(self) -> (OffsetSurvey, BTreeSet<Topic>) {
        (self.survey, self.gone)
    }
}

/// What was not there, of all instances of the job together.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// What was cut from partitions before the job was made: first offset, and how many were deleted.
    cut: Vec<(TopicPartition, i64, Option<i64>)>,
    skipped: BTreeMap<TopicPartition, Skipped>,
    /// `cleanup.policy` of topics with empty offsets.
    policies: BTreeMap<Topic, String>,
    /// Partitions that are younger than the job, and how many offsets they have.
    added: BTreeMap<TopicPartition, i64>,
    gone: BTreeSet<Topic>,
}

impl Retention {
    /// Asks the brokers for what is not known yet; of `topics` the job has those that were there when it was made. What they do not tell is left out with a warning: the
    /// replay is done.
    pub(super) async fn learn(
        range: JobRange,
        topics: BTreeSet<Topic>,
        skipped: BTreeMap<TopicPartition, Skipped>,
        watch: TopicWatch,
        bus: &BusSettings,
    ) -> Self {
        let with_empty = skipped.iter().filter(|(_, skipped)| skipped.empty > 0);
        let with_empty: BTreeSet<Topic> = with_empty.map(|(one, _)| one.topic.clone()).collect();
        let policies = match with_empty.is_empty() {
            true => BTreeMap::new(),
            false => cleanup_policies(bus, &with_empty)
                .await
                .unwrap_or_else(|error| {
                    tracing::warn!(%error, "not known whether topics are compacted");
                    BTreeMap::new()
                }),
        };
        let cut = range.0.iter().filter(|(_, one)| one.is_cut);
        let cut = cut.map(|(partition, one)| (partition.clone(), one.earliest, one.deleted));
        let cut = cut.collect();
        let names: Vec<String> = topics.iter().map(ToString::to_string).collect();
        let (survey, gone) = watch.into_survey();
        let added = tokio::task::spawn_blocking(move || added_partitions(&survey, &names, &range));
        let added = match added.await {
            Ok(Ok(added)) => added,
            Ok(Err(error)) => {
                tracing::warn!(%error, "not known whether partitions were added");
                BTreeMap::new()
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        Self {
            cut,
            skipped,
            policies,
            added,
            gone,
        }
    }

    pub(super) fn forget_added(&mut self) {
        self.added.clear();
    }

    fn is_compacted(&self, topic: &Topic) -> Option<bool> {
        Some(self.policies.get(topic)?.contains("compact"))
    }

    /// All of it; empty lists where there is nothing to tell.
    pub(super) fn to_json(&self) -> Value {
        let cut = self.cut.iter().map(|(one, first_offset, deleted)| {
            json!({
                "topic": one.topic.as_str(),
                "partition": one.partition,
                "first_offset": first_offset,
                "deleted_offsets": deleted,
            })
        });
        let skipped = self.skipped.iter().map(|(one, skipped)| {
            json!({
                "topic": one.topic.as_str(),
                "partition": one.partition,
                "deleted_offsets": skipped.deleted,
                "empty_offsets": skipped.empty,
                "is_compacted": self.is_compacted(&one.topic),
            })
        });
        let added = self.added.iter().map(|(one, offsets)| {
            json!({
                "topic": one.topic.as_str(),
                "partition": one.partition,
                "offsets": offsets,
                "was_read": false,
            })
        });
        json!({
            "cut": cut.collect::<Vec<_>>(),
            "skipped": skipped.collect::<Vec<_>>(),
            "partitions_added": added.collect::<Vec<_>>(),
            "topics_gone": self.gone.iter().map(Topic::as_str).collect::<Vec<_>>(),
        })
    }

    /// A line for each thing to know.
    pub(super) fn to_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (one, first_offset, deleted) in &self.cut {
            let many =
                deleted.map_or_else(|| "records".to_owned(), |many| format!("{many} offsets"));
            lines.push(format!(
                "{}: {many} before offset {first_offset} were deleted before the job was made, or may have been",
                named(one)
            ));
        }
        for (one, skipped) in &self.skipped {
            if skipped.deleted > 0 {
                let many = skipped.deleted;
                lines.push(format!(
                    "{}: {many} offsets were deleted before they were read",
                    named(one)
                ));
            }
            if skipped.empty > 0 {
                let why = match self.is_compacted(&one.topic) {
                    Some(true) => {
                        "the topic is compacted; or transaction markers, aborted transactions"
                    }
                    Some(false) => "transaction markers, aborted transactions",
                    None => "compaction, transaction markers, aborted transactions",
                };
                lines.push(format!(
                    "{}: {} offsets without a record ({why})",
                    named(one),
                    skipped.empty
                ));
            }
        }
        for (one, offsets) in &self.added {
            lines.push(format!(
                "{}: added after the job was made; its {offsets} offsets were not read",
                named(one)
            ));
        }
        for topic in &self.gone {
            lines.push(format!(
                "{topic}: deleted after the job was made; what was left of it was not read"
            ));
        }
        lines
    }
}

fn named(partition: &TopicPartition) -> String {
    format!("{}[{}]", partition.topic, partition.partition)
}

/// The partitions that the topics have now and the job does not, and how many offsets each has.
fn added_partitions(
    survey: &OffsetSurvey,
    names: &[String],
    range: &JobRange,
) -> anyhow::Result<BTreeMap<TopicPartition, i64>> {
    let mut added: Vec<_> = partitions_of(survey.topics(names)?).collect();
    added.retain(|one| !range.0.contains_key(one));
    if added.is_empty() {
        return Ok(BTreeMap::new());
    }
    let starts = survey.offsets(&added, OffsetAt::LogStart)?;
    let ends = survey.offsets(&added, OffsetAt::End)?;
    let offsets = ends.into_iter().map(|(partition, end)| {
        let offsets = end - starts[&partition];
        (partition, offsets)
    });
    Ok(offsets.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: topic.into(),
            partition,
        }
    }

    #[test]
    fn whatever_was_not_there_is_told_by_partition() {
        let skipped = |deleted, empty| Skipped { deleted, empty };
        let retention = Retention {
            cut: vec![
                (partition("a", 0), 7, Some(5)),
                (partition("b", 1), 9, None),
            ],
            skipped: [
                (partition("a", 1), skipped(3, 2)),
                (partition("b", 0), skipped(0, 4)),
            ]
            .into(),
            policies: [("a".into(), "compact,delete".to_owned())].into(),
            added: [(partition("a", 2), 11)].into(),
            gone: ["c".into()].into(),
        };
        let expected = [
            "a[0]: 5 offsets before offset 7 were deleted before the job was made, or may have been",
            "b[1]: records before offset 9 were deleted before the job was made, or may have been",
            "a[1]: 3 offsets were deleted before they were read",
            "a[1]: 2 offsets without a record (the topic is compacted; or transaction markers, aborted transactions)",
            "b[0]: 4 offsets without a record (compaction, transaction markers, aborted transactions)",
            "a[2]: added after the job was made; its 11 offsets were not read",
            "c: deleted after the job was made; what was left of it was not read",
        ];
        assert_eq!(retention.to_lines(), expected);
        let json = retention.to_json();
        assert_eq!(json["cut"][1]["deleted_offsets"], Value::Null);
        assert_eq!(json["skipped"][0]["deleted_offsets"], 3);
        assert_eq!(json["skipped"][0]["is_compacted"], true);
        assert_eq!(json["skipped"][1]["is_compacted"], Value::Null);
        assert_eq!(json["partitions_added"][0]["offsets"], 11);
        assert_eq!(json["topics_gone"][0], "c");
        assert!(Retention::default().to_lines().is_empty());
    }
}
