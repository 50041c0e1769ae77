//! What a replay was to score, so that the live line's other parts are not taken for missing ones.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::domain::{PartId, Topic, TopicPartition};
use crate::schema::result::PartResult;

/// The parts that a replay was to score, told by the records that their results name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayedRange {
    /// The offsets of each partition; of other partitions it was to read nothing.
    pub offsets: HashMap<TopicPartition, Range<i64>>,
    /// Parts with a record before the range began before it and are none of its parts. Else the log was
    /// cut there, and what is left of such a part is one.
    pub takes_whole_parts: bool,
    /// The parts, where not all.
    pub parts: Option<HashSet<PartId>>,
}

impl ReplayedRange {
    /// Whether the part of a result is one of them.
    pub fn holds(&self, result: &PartResult) -> bool {
        let id = PartId::from(result.part_id.as_str());
        if self
            .parts
            .as_ref()
            .is_some_and(|parts| !parts.contains(&id))
        {
            return false;
        }
        let mut is_within = false;
        for source in result.views.iter().filter_map(|view| view.source.as_ref()) {
            let partition = TopicPartition {
                topic: Topic::new(source.topic.as_str()),
                partition: source.partition,
            };
            let Some(range) = self.offsets.get(&partition) else {
                continue;
            };
            if self.takes_whole_parts && source.offset < range.start {
                return false;
            }
            is_within |= range.contains(&source.offset);
        }
        is_within
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::testing::result;
    use crate::schema::result::{Decision, Source};

    /// Offsets 10 to 19 of `cam`, and all of `other`.
    fn range(takes_whole_parts: bool) -> ReplayedRange {
        let partition = |topic: &str| TopicPartition {
            topic: topic.into(),
            partition: 0,
        };
        ReplayedRange {
            offsets: [(partition("cam"), 10..20), (partition("other"), 10..20)].into(),
            takes_whole_parts,
            parts: None,
        }
    }

    /// A part with one record of each topic.
    fn part(cam: i64, other: i64) -> PartResult {
        let mut part = result("p", cam, Decision::Ok, 0.1);
        let mut view = part.views[0].clone();
        view.source = Some(Source {
            topic: "other".to_owned(),
            partition: 0,
            offset: other,
        });
        part.views.push(view);
        part
    }

    #[test]
    fn a_part_belongs_to_the_time_in_which_it_began() {
        let range = range(true);
        assert!(range.holds(&part(10, 19)));
        assert!(range.holds(&part(19, 25)), "it reaches over the end");
        assert!(!range.holds(&part(12, 9)), "it began before");
        assert!(!range.holds(&part(20, 20)));
    }

    #[test]
    fn where_the_log_is_cut_any_record_within_makes_a_part() {
        let range = range(false);
        assert!(range.holds(&part(9, 10)));
        assert!(range.holds(&part(19, 20)));
        assert!(!range.holds(&part(9, 20)));
    }

    #[test]
    fn parts_that_are_not_listed_and_records_of_other_topics_are_outside() {
        let mut range = range(true);
        range.parts = Some(["q".into()].into());
        assert!(!range.holds(&part(10, 10)));
        range.parts = Some(["p".into()].into());
        assert!(range.holds(&part(10, 10)));
        range.offsets.clear();
        assert!(!range.holds(&part(10, 10)));
    }
}
