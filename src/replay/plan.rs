//! From a range as a person names it to offsets of every partition.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::time::Duration;

use crate::archive::{ArchiveError, EmptyRange, expect_order, time_text};
use crate::domain::{Timestamp, Topic, TopicPartition};
use crate::kafka::offset_survey::{OffsetAt, OffsetSurvey, SurveyError, partitions_of};

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
    /// Sees that it ends after it begins, by times or on each partition of which both offsets are named.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self) -> Result<(), EmptyRange> {
        match (&self.from, &self.to) {
            (Bound::Time(from), Bound::Time(to)) => {
                expect_order((Some(from.0), Some(to.0)), time_text)
            }
            (Bound::Offsets(from), Bound::Offsets(to)) => {
                from.iter().try_for_each(|(one, from)| {
                    let bounds = (Some(*from), to.get(one).copied());
                    expect_order(bounds, |offset| {
                        format!("{}[{}]={offset}", one.topic, one.partition)
                    })
                })
            }
            _ => Ok(()),
        }
    }

    /// When the parts of the range began; none where it is not bounded by time.
    pub fn written(&self) -> Option<Range<Timestamp>> {
        match (&self.from, &self.to) {
            (Bound::Time(from), Bound::Time(to)) => Some(*from..*to),
            (Bound::Time(from), _) => Some(*from..Timestamp(i64::MAX)),
            (_, Bound::Time(to)) => Some(Timestamp(i64::MIN)..*to),
            _ => None,
        }
    }

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
    /// When a topic is missing, the range names other partitions, or the brokers do not tell.
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
    /// When the range names other partitions.
    pub(super) fn of(
        partitions: Vec<TopicPartition>,
        range: &RangeSpec,
        found: &FoundOffsets,
    ) -> Result<Self, PlanError> {
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
                is_cut: match range.from {
                    Bound::Open => false,
                    Bound::Time(_) => earliest > 0 && start <= earliest,
                    Bound::Offsets(_) => start < earliest,
                },
                partition,
            }
        });
        Ok(Self {
            partitions: planned.collect(),
        })
    }

    /// The camera topics.
    pub fn topics(&self) -> BTreeSet<Topic> {
        let topics = self.partitions.iter();
        topics.map(|one| one.partition.topic.clone()).collect()
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
    Ok(partitions_of(found).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition {
            topic: Topic::from("cam"),
            partition: number,
        }
    }

    fn offsets(named: &[(i32, i64)]) -> Bound {
        let named = named.iter();
        Bound::Offsets(
            named
                .map(|(number, offset)| (partition(*number), *offset))
                .collect(),
        )
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_refused_by_what_was_given() {
        let refused = |from: Bound, to: Bound| {
            let range = RangeSpec {
                from,
                to,
                lead: Duration::ZERO,
            };
            range.check().err().map(|error| error.to_string())
        };
        let time = |millis| Bound::Time(Timestamp(millis));
        for to in [1_000, 2_000] {
            let told = refused(time(2_000), time(to)).unwrap();
            assert!(told.contains("found `1970-01-01T00:00:02Z` to"), "{told}");
        }
        assert_eq!(refused(time(1_000), time(2_000)), None);
        assert_eq!(refused(time(1_000), Bound::Open), None);
        let (from, to) = (offsets(&[(0, 3), (1, 300)]), offsets(&[(1, 200), (2, 0)]));
        let told = refused(from, to).unwrap();
        assert!(
            told.contains("found `cam[1]=300` to `cam[1]=200`"),
            "{told}"
        );
        assert_eq!(refused(offsets(&[(0, 3)]), offsets(&[(1, 2)])), None);
    }

    #[test]
    fn only_where_offsets_of_the_range_are_deleted_is_it_cut() {
        let cut = |from: Bound, found: Option<i64>| {
            let of = |offset: i64| HashMap::from([(partition(0), offset), (partition(1), offset)]);
            let found = FoundOffsets {
                earliest: of(123),
                latest: of(500),
                from: found.map(of),
                to: None,
            };
            let range = RangeSpec {
                from,
                ..RangeSpec::default()
            };
            let plan = Plan::of(vec![partition(0), partition(1)], &range, &found).unwrap();
            let cut = plan.partitions.iter();
            cut.map(|one| (one.is_cut, one.deleted)).collect::<Vec<_>>()
        };
        let (none, whole) = ((false, None), (false, Some(0)));
        assert_eq!(cut(Bound::Open, None), [none, none]);
        assert_eq!(cut(offsets(&[(0, 123)]), None), [whole, whole]);
        assert_eq!(cut(offsets(&[(0, 100)]), None), [(true, Some(23)), whole]);
        // Nobody knows what had been written since.
        let time = || Bound::Time(Timestamp(0));
        assert_eq!(cut(time(), Some(123)), [(true, None); 2]);
        assert_eq!(cut(time(), Some(124)), [none, none]);
    }
}
