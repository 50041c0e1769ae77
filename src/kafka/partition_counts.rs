//! The views of one part must lie on one partition number, so all camera topics need as many
//! partitions as each other. Checked whenever partitions are assigned, for topics may grow.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use regex::Regex;

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
fn subscribed(
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

    #[test]
    fn only_subscribed_topics_count() {
        let all = || counts(&[("l.cam.a", 4), ("l.cam.b", 4), ("l.results", 1)]).into_iter();
        let by_name = subscribed(all(), &["l.cam.a".to_owned()]);
        assert_eq!(by_name, counts(&[("l.cam.a", 4)]));
        let by_regex = subscribed(all(), &[r"^l\.cam\..+$".to_owned()]);
        assert_eq!(by_regex, counts(&[("l.cam.a", 4), ("l.cam.b", 4)]));
    }
}
