//! What an export is to read: each partition's offsets, taken when it begins, so that its end is bounded
//! and what retention has taken by then is known.

use std::collections::{BTreeMap, HashMap};

use super::error::ArchiveError;
use super::export::ExportSettings;
use crate::domain::{Timestamp, Topic, TopicPartition};
use crate::kafka::offset_survey::{OffsetAt, OffsetSurvey};
use crate::schema::archive::{ArchiveManifest, ArchivedPartition, ArchivedTopic, RequestedRange};

/// Asks the brokers what there is. Blocking.
pub(super) fn plan(
    survey: &OffsetSurvey,
    settings: &ExportSettings,
    now: Timestamp,
) -> Result<ArchiveManifest, ArchiveError> {
    let counts = survey.topics(&settings.subscription)?;
    let names = settings.subscription.iter();
    let mut missing = names.filter(|name| !counts.keys().any(|topic| is_named(name, topic)));
    if let Some(name) = missing.next() {
        return Err(ArchiveError::NoSuchTopic(name.clone()));
    }
    let partitions: Vec<TopicPartition> = counts
        .iter()
        .flat_map(|(topic, count)| {
            (0..*count).map(|partition| TopicPartition {
                topic: topic.clone(),
                partition,
            })
        })
        .collect();
    let range = settings.range;
    let at_time = |millis: Option<i64>| {
        millis
            .map(|millis| survey.offsets(&partitions, OffsetAt::Time(Timestamp(millis))))
            .transpose()
    };
    let found = FoundOffsets {
        starts: survey.offsets(&partitions, OffsetAt::LogStart)?,
        ends: survey.offsets(&partitions, OffsetAt::End)?,
        from: at_time(range.from_timestamp)?,
        to: at_time(range.to_timestamp)?,
    };
    Ok(ArchiveManifest {
        schema_version: ArchiveManifest::VERSION,
        created_by: concat!("panoptes ", env!("CARGO_PKG_VERSION")).to_owned(),
        cluster_id: survey.cluster_id()?,
        created_at: now.0,
        completed_at: None,
        subscription: settings.subscription.clone(),
        range,
        topics: topics(&counts, &found, &range),
    })
}

/// Whether a name or regular expression asks for this topic, which it did among others.
fn is_named(name: &str, topic: &Topic) -> bool {
    name.starts_with('^') || name == topic.as_str()
}

/// What the brokers tell.
struct FoundOffsets {
    starts: HashMap<TopicPartition, i64>,
    ends: HashMap<TopicPartition, i64>,
    from: Option<HashMap<TopicPartition, i64>>,
    to: Option<HashMap<TopicPartition, i64>>,
}

fn topics(
    counts: &BTreeMap<Topic, i32>,
    found: &FoundOffsets,
    range: &RequestedRange,
) -> Vec<ArchivedTopic> {
    let of_topic = |(topic, count): (&Topic, &i32)| {
        let partitions = (0..*count).map(|number| {
            let partition = TopicPartition {
                topic: topic.clone(),
                partition: number,
            };
            let of = |offsets: &HashMap<TopicPartition, i64>| offsets.get(&partition).copied();
            Bounds {
                log_start: of(&found.starts).unwrap_or(0),
                log_end: of(&found.ends).unwrap_or(0),
                from_time: found.from.as_ref().and_then(of),
                to_time: found.to.as_ref().and_then(of),
            }
            .partition(number, range)
        });
        ArchivedTopic {
            topic: topic.to_string(),
            partitions: partitions.collect(),
        }
    };
    counts.iter().map(of_topic).collect()
}

/// What is known of a partition.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    log_start: i64,
    log_end: i64,
    from_time: Option<i64>,
    to_time: Option<i64>,
}

impl Bounds {
    fn partition(self, partition: i32, range: &RequestedRange) -> ArchivedPartition {
        let asked_end = range.to_offset.or(self.to_time).unwrap_or(i64::MAX);
        let end = asked_end.min(self.log_end).max(self.log_start);
        let asked_start = range.from_offset.or(self.from_time).unwrap_or(0);
        let start = asked_start.max(self.log_start).min(end);
        let deleted_at_start = match self.from_time {
            // Nobody can tell any more which of them were of that time.
            Some(found) if found > self.log_start => 0,
            Some(_) => self.log_start,
            None => self.log_start.min(asked_end) - asked_start.min(self.log_start).min(asked_end),
        };
        ArchivedPartition {
            partition,
            log_start: self.log_start,
            start,
            end,
            deleted_at_start,
            totals: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(bounds: Bounds, range: RequestedRange) -> (i64, i64, i64) {
        let planned = bounds.partition(0, &range);
        (planned.start, planned.end, planned.deleted_at_start)
    }

    const LOG: Bounds = Bounds {
        log_start: 100,
        log_end: 900,
        from_time: None,
        to_time: None,
    };

    fn offsets(from_offset: Option<i64>, to_offset: Option<i64>) -> RequestedRange {
        RequestedRange {
            from_offset,
            to_offset,
            ..RequestedRange::default()
        }
    }

    #[test]
    fn all_that_is_left_is_read_and_what_is_gone_is_counted() {
        assert_eq!(planned(LOG, RequestedRange::default()), (100, 900, 100));
    }

    #[test]
    fn offsets_bound_the_range_within_the_log() {
        assert_eq!(planned(LOG, offsets(Some(40), Some(300))), (100, 300, 60));
        assert_eq!(planned(LOG, offsets(Some(200), Some(950))), (200, 900, 0));
        assert_eq!(planned(LOG, offsets(Some(950), None)), (900, 900, 0));
        assert_eq!(planned(LOG, offsets(Some(300), Some(200))), (200, 200, 0));
    }

    #[test]
    fn a_range_that_is_gone_is_empty_and_counted() {
        assert_eq!(planned(LOG, offsets(Some(10), Some(50))), (100, 100, 40));
    }

    #[test]
    fn times_bound_the_range_and_tell_only_whether_its_start_may_be_gone() {
        let within = Bounds {
            from_time: Some(250),
            to_time: Some(700),
            ..LOG
        };
        assert_eq!(planned(within, RequestedRange::default()), (250, 700, 0));
        let early = Bounds {
            from_time: Some(100),
            to_time: Some(900),
            ..LOG
        };
        assert_eq!(planned(early, RequestedRange::default()), (100, 900, 100));
    }
}
