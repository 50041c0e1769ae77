//! The views of one part must lie on one partition number, so all camera topics need as many
//! partitions as each other, and a number must be assigned of all of them or of none.
//!
//! Checked whenever partitions are assigned, for topics come, go and grow: librdkafka looks for that
//! every 10 s, and the group then assigns anew. Counts that are unequal from the start are an error
//! at once. Later they may be so for a while, since topics grow one after the other; nothing is read
//! then.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use regex::Regex;

use crate::domain::TopicPartition;

/// How long counts may be unequal once they were equal: for whoever has to repartition them all.
const REPARTITION_PATIENCE: Duration = Duration::from_secs(60);

/// Whether what is assigned may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// The views of one part meet.
    Allowed,
    /// Not now, and why.
    Held(String),
    /// Never, since counts are unequal for good; which topics have how many.
    Refused(String),
}

/// What was found last.
#[derive(Debug, Default)]
pub(super) struct CoPartitioning {
    /// None before the first check.
    counts: Option<BTreeMap<String, usize>>,
    unequal_since: Option<Instant>,
}

impl CoPartitioning {
    /// Judges by the counts that topics have now.
    pub(super) fn judge(
        &mut self,
        counts: BTreeMap<String, usize>,
        assignment: &HashSet<TopicPartition>,
        now: Instant,
    ) -> Permission {
        if let Some(before) = &self.counts {
            tell_changes(before, &counts);
        }
        let unequal = describe_unequal_counts(&counts);
        let split = describe_split_number(&counts, assignment);
        let before = self.counts.replace(counts);
        let Some(unequal) = unequal else {
            self.unequal_since = None;
            return split.map_or(Permission::Allowed, Permission::Held);
        };
        let since = *self.unequal_since.get_or_insert(now);
        if before.is_none() || now.duration_since(since) >= REPARTITION_PATIENCE {
            Permission::Refused(unequal)
        } else {
            Permission::Held(unequal)
        }
    }

    /// Judges another assignment by the counts that are known; nothing, where they are not equal.
    pub(super) fn judge_again(&self, assignment: &HashSet<TopicPartition>) -> Option<Permission> {
        let counts = self.counts.as_ref()?;
        if self.unequal_since.is_some() {
            return None;
        }
        let split = describe_split_number(counts, assignment);
        Some(split.map_or(Permission::Allowed, Permission::Held))
    }
}

/// Tells operators what has become of the camera topics.
fn tell_changes(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) {
    for (topic, partitions) in after {
        match before.get(topic) {
            None => tracing::info!(topic, partitions, "a camera topic is new"),
            Some(before) if before != partitions => {
                tracing::warn!(topic, before, partitions, "a camera topic is repartitioned");
            }
            Some(_) => {}
        }
    }
    for topic in before.keys().filter(|topic| !after.contains_key(*topic)) {
        tracing::warn!(
            topic,
            "a camera topic is gone: its views are missing from now on"
        );
    }
}

/// Says of which partition number not all topics are assigned, if there is one: the group has not
/// assigned by `range`, or not yet since topics changed, or its members read different topics.
fn describe_split_number(
    counts: &BTreeMap<String, usize>,
    assignment: &HashSet<TopicPartition>,
) -> Option<String> {
    let assigned: BTreeSet<(i32, &str)> = assignment
        .iter()
        .map(|one| (one.partition, one.topic.as_str()))
        .collect();
    assigned.iter().find_map(|(number, topic)| {
        let missing = counts
            .keys()
            .find(|other| !assigned.contains(&(*number, other.as_str())))?;
        Some(format!(
            "partition `{number}` of `{topic}` is assigned, but not that of `{missing}`; expected \
             all instances of the group to read the same topics"
        ))
    })
}

/// How many partitions each subscribed topic has; topics that do not exist (yet) are left out.
pub(crate) fn fetch_partition_counts<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    subscription: &[String],
    timeout: Duration,
) -> KafkaResult<BTreeMap<String, usize>> {
    let metadata = consumer.fetch_metadata(None, timeout)?;
    let counts = metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none() && !topic.partitions().is_empty())
        .map(|topic| (topic.name().to_owned(), topic.partitions().len()));
    Ok(subscribed(counts, subscription))
}

/// Keeps the topics that the subscription names, or that match where it is a regular expression.
pub(crate) fn subscribed(
    counts: impl Iterator<Item = (String, usize)>,
    subscription: &[String],
) -> BTreeMap<String, usize> {
    let patterns: Vec<Regex> = subscription
        .iter()
        .filter(|name| name.starts_with('^'))
        .filter_map(|pattern| Regex::new(pattern).ok())
        .collect();
    counts
        .filter(|(name, _)| {
            subscription.contains(name) || patterns.iter().any(|pattern| pattern.is_match(name))
        })
        .collect()
}

/// Says which topics have how many partitions, unless all have the same number.
pub(crate) fn describe_unequal_counts(counts: &BTreeMap<String, usize>) -> Option<String> {
    let mut numbers = counts.values();
    let first = numbers.next()?;
    if numbers.all(|number| number == first) {
        return None;
    }
    let mut text = String::new();
    for (topic, number) in counts {
        let separator = if text.is_empty() { "" } else { ", " };
        let written = write!(text, "{separator}`{topic}` has {number}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Topic;

    fn counts(topics: &[(&str, usize)]) -> BTreeMap<String, usize> {
        let owned = topics
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        owned.collect()
    }

    #[test]
    fn equal_counts_are_in_order() {
        assert_eq!(describe_unequal_counts(&counts(&[])), None);
        assert_eq!(describe_unequal_counts(&counts(&[("a", 3)])), None);
        assert_eq!(
            describe_unequal_counts(&counts(&[("a", 3), ("b", 3)])),
            None
        );
    }

    #[test]
    fn unequal_counts_are_told_by_topic() {
        let text = describe_unequal_counts(&counts(&[("a", 4), ("b", 4), ("c", 5)]));
        assert_eq!(text.as_deref(), Some("`a` has 4, `b` has 4, `c` has 5"));
    }

    fn assigned(partitions: &[(&str, i32)]) -> HashSet<TopicPartition> {
        let owned = partitions.iter().map(|(topic, partition)| TopicPartition {
            topic: Topic::from(*topic),
            partition: *partition,
        });
        owned.collect()
    }

    #[test]
    fn counts_that_are_unequal_from_the_start_are_refused() {
        let mut known = CoPartitioning::default();
        let found = known.judge(
            counts(&[("a", 1), ("b", 2)]),
            &assigned(&[]),
            Instant::now(),
        );
        assert_eq!(found, Permission::Refused("`a` has 1, `b` has 2".into()));
    }

    #[test]
    fn counts_that_become_unequal_are_waited_for_but_not_for_ever() {
        let mut known = CoPartitioning::default();
        let all = assigned(&[("a", 0), ("b", 0)]);
        let start = Instant::now();
        let unequal = || counts(&[("a", 1), ("b", 2)]);
        let text = "`a` has 1, `b` has 2".to_owned();
        let equal = known.judge(counts(&[("a", 1), ("b", 1)]), &all, start);
        assert_eq!(equal, Permission::Allowed);
        let nearly = REPARTITION_PATIENCE - Duration::from_millis(1);
        for after in [Duration::ZERO, nearly] {
            let found = known.judge(unequal(), &all, start + after);
            assert_eq!(found, Permission::Held(text.clone()));
        }
        let late = known.judge(unequal(), &all, start + REPARTITION_PATIENCE);
        assert_eq!(late, Permission::Refused(text.clone()));

        let whole = assigned(&[("a", 0), ("b", 0), ("a", 1), ("b", 1)]);
        let grown = known.judge(counts(&[("a", 2), ("b", 2)]), &whole, start);
        assert_eq!(grown, Permission::Allowed);
        let again = known.judge(unequal(), &whole, start + REPARTITION_PATIENCE);
        assert_eq!(again, Permission::Held(text), "the patience begins anew");
    }

    #[test]
    fn a_number_that_is_not_assigned_of_all_topics_is_not_read() {
        let mut known = CoPartitioning::default();
        let mut judge = |partitions: &[(&str, i32)]| {
            let two = counts(&[("a", 2), ("b", 2)]);
            known.judge(two, &assigned(partitions), Instant::now())
        };
        assert_eq!(judge(&[]), Permission::Allowed);
        assert_eq!(judge(&[("a", 1), ("b", 1)]), Permission::Allowed);
        let Permission::Held(why) = judge(&[("a", 0), ("b", 0), ("a", 1)]) else {
            panic!("a split number was read");
        };
        assert!(
            why.starts_with("partition `1` of `a` is assigned, but not that of `b`"),
            "{why}"
        );
    }

    #[test]
    fn what_is_left_of_an_assignment_is_judged_by_the_counts_that_are_known() {
        let mut known = CoPartitioning::default();
        let whole = assigned(&[("a", 0), ("b", 0)]);
        assert_eq!(known.judge_again(&whole), None, "no counts are known yet");
        let equal = || counts(&[("a", 1), ("b", 1)]);
        known.judge(equal(), &whole, Instant::now());
        assert_eq!(known.judge_again(&whole), Some(Permission::Allowed));
        let split = known.judge_again(&assigned(&[("a", 0)]));
        assert!(matches!(split, Some(Permission::Held(_))), "{split:?}");
        known.judge(counts(&[("a", 1), ("b", 2)]), &whole, Instant::now());
        assert_eq!(known.judge_again(&whole), None, "counts are unequal");
    }

    #[test]
    fn only_subscribed_topics_count() {
        let all = || counts(&[("l.cam.a", 4), ("l.cam.b", 4), ("l.results", 1)]).into_iter();
        let by_name = subscribed(all(), &["l.cam.a".to_owned()]);
        assert_eq!(by_name, counts(&[("l.cam.a", 4)]));
        let by_regex = subscribed(all(), &[r"^l\.cam\..+$".to_owned()]);
        assert_eq!(by_regex, counts(&[("l.cam.a", 4), ("l.cam.b", 4)]));
    }
}
