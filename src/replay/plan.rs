//! From a range as a person names it to offsets of every partition.

use std::collections::HashMap;
use std::error::Error;
use std::ops::Range;
use std::time::Duration;

use crate::domain::{Timestamp, Topic, TopicPartition};
use crate::kafka::log_offsets::{LogOffsets, LogPlace};

/// How long the brokers may take for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

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
    /// A partition whose leader does not answer.
    #[error("the brokers tell no offsets of `{topic}[{partition}]`", topic = .0.topic, partition = .0.partition)]
    Untold(TopicPartition),
    /// The brokers do not answer.
    #[error("the brokers tell no offsets of the camera topics: {0}")]
    Brokers(Box<dyn Error + Send + Sync>),
    /// The expression is none.
    #[error(transparent)]
    Expression(#[from] regex::Error),
}

impl Plan {
    /// Looks up what `topics` (names, or one regular expression that starts with `^`) hold of a range.
    ///
    /// # Errors
    /// When a topic is missing, the range is empty, or the brokers do not tell.
    pub fn resolve(
        offsets: &LogOffsets,
        topics: &[String],
        range: &RangeSpec,
    ) -> Result<Self, PlanError> {
        let partitions = partitions(offsets, topics)?;
        let written = written(range)?;
        for named in [&range.from, &range.to] {
            if let Bound::Offsets(named) = named
                && let Some(unknown) = named.keys().find(|one| !partitions.contains(one))
            {
                return Err(PlanError::UnknownPartition(unknown.clone()));
            }
        }
        let at = |place| {
            let told = offsets.at(&partitions, place, PATIENCE);
            told.map_err(|error| PlanError::Brokers(error.into()))
        };
        let earliest = at(LogPlace::Beginning)?;
        let latest = at(LogPlace::End)?;
        let lead = range.lead;
        let at_time = |bound: &Bound, shifted: fn(Timestamp, Duration) -> Timestamp| match bound {
            Bound::Time(time) => {
                let place = LogPlace::Written(shifted(*time, lead));
                at(place).map(Some)
            }
            Bound::Open | Bound::Offsets(_) => Ok(None),
        };
        let starts = at_time(&range.from, before)?;
        let ends = at_time(&range.to, Timestamp::after)?;
        let planned = partitions.iter().map(|partition| {
            let told = |map: &HashMap<TopicPartition, i64>| map.get(partition).copied();
            let untold = || PlanError::Untold(partition.clone());
            let earliest = told(&earliest).ok_or_else(untold)?;
            let latest = told(&latest).ok_or_else(untold)?;
            // A time behind the last record is told for no partition.
            let wanted_start = match (&range.from, &starts) {
                (Bound::Offsets(named), _) => told(named).unwrap_or(earliest),
                (_, Some(starts)) => told(starts).unwrap_or(latest),
                _ => earliest,
            };
            let wanted_end = match (&range.to, &ends) {
                (Bound::Offsets(named), _) => told(named).unwrap_or(latest),
                (_, Some(ends)) => told(ends).unwrap_or(latest),
                _ => latest,
            };
            let is_bounded = range.from != Bound::Open;
            Ok(PlannedPartition {
                partition: partition.clone(),
                start: wanted_start.clamp(earliest, latest),
                end: wanted_end.clamp(earliest, latest),
                earliest,
                deleted: matches!(range.from, Bound::Offsets(_))
                    .then_some((earliest - wanted_start).max(0)),
                is_cut: is_bounded && earliest > 0 && wanted_start <= earliest,
            })
        });
        let partitions = planned.collect::<Result<_, PlanError>>()?;
        Ok(Self {
            partitions,
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

fn partitions(offsets: &LogOffsets, topics: &[String]) -> Result<Vec<TopicPartition>, PlanError> {
    let there = offsets.topics(PATIENCE);
    let there = there.map_err(|error| PlanError::Brokers(error.into()))?;
    let mut found: Vec<(&Topic, usize)> = Vec::new();
    for name in topics {
        if name.starts_with('^') {
            let expression = regex::Regex::new(name)?;
            let matching = there
                .iter()
                .filter(|(topic, _)| expression.is_match(topic.as_str()));
            found.extend(matching.map(|(topic, count)| (topic, *count)));
        } else {
            let topic = there.get_key_value(&Topic::new(name.as_str()));
            let (topic, count) = topic.ok_or_else(|| PlanError::NoTopic(name.clone()))?;
            found.push((topic, *count));
        }
    }
    if found.is_empty() {
        return Err(PlanError::NoTopics(topics.join(", ")));
    }
    let mut partitions: Vec<TopicPartition> = found
        .into_iter()
        .flat_map(|(topic, count)| {
            let numbers = 0..i32::try_from(count).unwrap_or(i32::MAX);
            numbers.map(|partition| TopicPartition {
                topic: topic.clone(),
                partition,
            })
        })
        .collect();
    partitions.sort();
    partitions.dedup();
    Ok(partitions)
}
