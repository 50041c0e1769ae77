//! From a range as a person names it to offsets of every partition.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use crate::archive::ArchiveError;
use crate::domain::{Timestamp, Topic, TopicPartition};
use crate::kafka::offset_survey::{OffsetAt, OffsetSurvey, SurveyError};

/// One end of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// As far as the topics reach when the job is made.
    #[default]
    Open,
    /// When a part's first record was written.
    Time(Timestamp),
    /// Offsets of partitions; those that are not named are open.
    Offsets(HashMap<TopicPartition, i64>),
}

/// What is to be replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSpec {
    /// Where it begins.
    pub from: Bound,
    /// Where it ends, itself not included.
    pub to: Bound,
    /// How much more is read on both sides of times, so that parts which reach over them have all their
    /// views, and those that began before are known for it.
    pub lead: Duration,
}

impl RangeSpec {
    /// The times from and up to which is read.
    pub(super) fn times(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let from = match self.from {
            Bound::Time(time) => Some(before(time, self.lead)),
            _ => None,
        };
        let to = match self.to {
            Bound::Time(time) => Some(time.after(self.lead)),
            _ => None,
        };
        (from, to)
    }
}

/// What is known of partitions before a range in them is.
#[derive(Debug, Default)]
pub(super) struct FoundOffsets {
    /// The first offset that there is.
    pub(super) earliest: HashMap<TopicPartition, i64>,
    /// The one behind the last.
    pub(super) latest: HashMap<TopicPartition, i64>,
    /// The first one of the time from which is read, where the range begins with one.
    pub(super) from: Option<HashMap<TopicPartition, i64>>,
    /// The first one of the time up to which is read, where the range ends with one.
    pub(super) to: Option<HashMap<TopicPartition, i64>>,
}

/// One partition of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset that is read.
    pub start: i64,
    /// The offset behind the last one.
    pub end: i64,
    /// The first offset that the brokers still have.
    pub earliest: i64,
    /// How many offsets of the range were deleted by then; none where its beginning is a time, or open.
    pub deleted: Option<i64>,
    /// Records before the earliest one were deleted, and some of them may have been of the range.
    pub is_cut: bool,
}

/// A range in offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub partitions: Vec<PlannedPartition>,
    /// When the parts of the range began; none where it is not bounded by time.
    pub written: Option<Range<Timestamp>>,
}

/// Why a range cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No topic to read.
    #[error("expected camera topics that match `{0}`, found none")]
    NoTopics(String),
    /// A topic list names what is not there.
    #[error("expected camera topic `{0}` to exist, found no such topic")]
    NoTopic(String),
    /// Ends before it begins.
    #[error("expected the range to end after it begins, found `{from}` to `{to}`")]
    Empty {
        /// Its beginning.
        from: String,
        /// Its end.
        to: String,
    },
    /// A partition that no camera topic has.
    #[error("expected offsets of partitions of the camera topics, found `{topic}[{partition}]`", topic = .0.topic, partition = .0.partition)]
    UnknownPartition(TopicPartition),
    /// The brokers do not answer.
    #[error(transparent)]
    Survey(Box<SurveyError>),
    /// The archive has no such topic.
    #[error("expected camera topic `{topic}` in `{location}`, found no such topic there")]
    NotArchived {
        /// The topic.
        topic: String,
        /// Where the archive is.
        location: String,
    },
    /// The export has not ended.
    #[error(
        "`{0}` is not complete: expected its export to have ended; the same `panoptes export` goes on"
    )]
    Incomplete(String),
    /// The views of one part cannot meet.
    #[error(
        "expected all camera topics of the archive to have as many partitions as each other, found {0}; the \
         views of one part must lie on one partition number"
    )]
    UnequalPartitions(String),
    /// The archive does not tell what it holds.
    #[error(transparent)]
    Archive(Box<ArchiveError>),
}

impl From<ArchiveError> for PlanError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(Box::new(error))
    }
}

impl From<SurveyError> for PlanError {
    fn from(error: SurveyError) -> Self {
        Self::Survey(Box::new(error))
    }
}

impl Plan {
    /// Looks up what `topics` (names, or one regular expression that starts with `^`) hold of a range.
    ///
    /// # Errors
    /// When a topic is missing, the range is empty, or the brokers do not tell.
    pub fn resolve(
        survey: &OffsetSurvey,
        topics: &[String],
        range: &RangeSpec,
    ) -> Result<Self, PlanError> {
        let partitions = partitions(survey, topics)?;
        let (from, to) = range.times();
        let at = |time: Option<Timestamp>| {
            let asked = time.map(|time| survey.offsets(&partitions, OffsetAt::Time(time)));
            asked.transpose()
        };
        let found = FoundOffsets {
            earliest: survey.offsets(&partitions, OffsetAt::LogStart)?,
            latest: survey.offsets(&partitions, OffsetAt::End)?,
            from: at(from)?,
            to: at(to)?,
        };
        Self::of(partitions, range, &found)
    }

    /// The range in offsets of partitions of which it is known where they begin and end.
    ///
    /// # Errors
    /// When the range is empty, or names other partitions.
    pub(super) fn of(
        partitions: Vec<TopicPartition>,
        range: &RangeSpec,
        found: &FoundOffsets,
    ) -> Result<Self, PlanError> {
        let written = written(range)?;
        for named in [&range.from, &range.to] {
            if let Bound::Offsets(named) = named
                && let Some(unknown) = named.keys().find(|one| !partitions.contains(one))
            {
                return Err(PlanError::UnknownPartition(unknown.clone()));
            }
        }
        let wanted = |bound: &Bound, open: &HashMap<TopicPartition, i64>, at: Option<&_>| {
            let mut offsets = open.clone();
            match (bound, at) {
                (Bound::Offsets(named), _) => offsets.extend(named.clone()),
                (Bound::Time(_), Some(at)) => offsets.clone_from(at),
                (Bound::Open | Bound::Time(_), _) => {}
            }
            offsets
        };
        let starts = wanted(&range.from, &found.earliest, found.from.as_ref());
        let ends = wanted(&range.to, &found.latest, found.to.as_ref());
        let planned = partitions.into_iter().map(|partition| {
            let (earliest, latest) = (found.earliest[&partition], found.latest[&partition]);
            let (start, end) = (starts[&partition], ends[&partition]);
            PlannedPartition {
                start: start.clamp(earliest, latest),
                end: end.clamp(earliest, latest),
                earliest,
                deleted: matches!(range.from, Bound::Offsets(_))
                    .then_some((earliest - start).max(0)),
                is_cut: range.from != Bound::Open && earliest > 0 && start <= earliest,
                partition,
            }
        });
        Ok(Self {
            partitions: planned.collect(),
            written,
        })
    }

    /// Where each partition begins and ends.
    pub fn ranges(&self) -> HashMap<TopicPartition, Range<i64>> {
        let partitions = self.partitions.iter();
        let range = |one: &PlannedPartition| one.start..one.end.max(one.start);
        partitions
            .map(|one| (one.partition.clone(), range(one)))
            .collect()
    }

    /// Offsets between beginnings and ends: at least as many as there are records.
    pub fn offsets(&self) -> i64 {
        let partitions = self.partitions.iter();
        partitions.map(|one| (one.end - one.start).max(0)).sum()
    }
}

fn before(time: Timestamp, duration: Duration) -> Timestamp {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Timestamp(time.0.saturating_sub(millis))
}

fn written(range: &RangeSpec) -> Result<Option<Range<Timestamp>>, PlanError> {
    let (from, to) = match (&range.from, &range.to) {
        (Bound::Time(from), Bound::Time(to)) => (*from, *to),
        (Bound::Time(from), _) => (*from, Timestamp(i64::MAX)),
        (_, Bound::Time(to)) => (Timestamp(i64::MIN), *to),
        _ => return Ok(None),
    };
    if from >= to {
        let readable = |time: Timestamp| match jiff::Timestamp::from_millisecond(time.0) {
            Ok(time) => time.to_string(),
            Err(_) => time.0.to_string(),
        };
        return Err(PlanError::Empty {
            from: readable(from),
            to: readable(to),
        });
    }
    Ok(Some(from..to))
}

fn partitions(survey: &OffsetSurvey, topics: &[String]) -> Result<Vec<TopicPartition>, PlanError> {
    let found = survey.topics(topics)?;
    let is_missing =
        |name: &&String| !name.starts_with('^') && !found.contains_key(&Topic::new(name.as_str()));
    if let Some(missing) = topics.iter().find(is_missing) {
        return Err(PlanError::NoTopic(missing.clone()));
    }
    if found.is_empty() {
        return Err(PlanError::NoTopics(topics.join(", ")));
    }
    let partitions = found.into_iter().flat_map(|(topic, count)| {
        (0..count).map(move |partition| TopicPartition {
            topic: topic.clone(),
            partition,
        })
    });
    Ok(partitions.collect())
}
