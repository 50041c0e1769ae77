//! Which views make a group, and which are refused.

use super::*;
use crate::domain::DuplicatePolicy;

#[test]
fn a_part_closes_when_its_last_view_comes() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "right", 0).taken_at(30)).is_empty());
    assert!(accept(&buffer, shot("p", "top", 0).taken_at(10)).is_empty());
    let events = accept(&buffer, shot("p", "left", 0).taken_at(20));
    let group = closed(&events);
    assert_eq!(
        names(group),
        ["top", "left", "right"],
        "in the listed order"
    );
    assert_eq!(group.cause, CloseCause::Complete);
    assert_eq!(group.scoring, ScoringOrder::Score);
    assert_eq!((group.first_view_at, group.last_view_at), (at(10), at(30)));
    assert!(group.missing.is_empty() && !group.is_partial());
    assert_eq!(buffer.open_groups(), 0);
    assert_eq!(buffer.status(at(30)).open_bytes, 0);
}

#[test]
fn parts_of_the_same_name_on_two_lines_are_two_parts() {
    let buffer = small_buffer(settings());
    for (offset, topic) in TOPICS.iter().enumerate() {
        let mut other = shot("p", topic, offset as i64 + 10);
        other.line = "line2";
        assert!(accept(&buffer, other).len() == usize::from(offset == 2));
    }
    assert_eq!(buffer.open_groups(), 0);
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert_eq!(buffer.open_groups(), 1);
}

#[test]
fn the_number_in_the_records_completes_a_part_without_a_list() {
    let buffer = small_buffer(ReassemblySettings {
        expected: ExpectedViews::default(),
        ..settings()
    });
    assert!(accept(&buffer, shot("p", "top", 0).count(2)).is_empty());
    let events = accept(&buffer, shot("p", "left", 0));
    assert_eq!(names(closed(&events)), ["left", "top"], "by name");
}

#[test]
fn the_smaller_of_number_and_list_completes_a_part() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0).count(2)).is_empty());
    assert_eq!(accept(&buffer, shot("p", "right", 0)).len(), 1);
    for (topic, closes) in [("top", 0), ("left", 0), ("right", 1)] {
        assert_eq!(accept(&buffer, shot("q", topic, 9).count(7)).len(), closes);
    }
    let events = accept(&buffer, shot("r", "top", 20).count(0));
    assert_eq!(
        names(closed(&events)),
        ["top"],
        "a part has at least one view"
    );
}

#[test]
fn differing_numbers_are_counted_and_the_first_holds() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0).count(2)).is_empty());
    assert_eq!(accept(&buffer, shot("p", "left", 0).count(3)).len(), 1);
    assert_eq!(buffer.counts().count_conflicts, 1);
}

#[test]
fn the_most_special_list_holds() {
    let mut expected = ExpectedViews::for_all(views(&["top", "left", "right"]));
    expected.insert(None, Some(ClassName::from("gear")), views(&["top", "left"]));
    expected.insert(Some(LineId::from("line2")), None, views(&["left", "right"]));
    let both = (Some(LineId::from("line2")), Some(ClassName::from("gear")));
    expected.insert(both.0, both.1, views(&["right"]));
    let list = |line: &str, class: Option<&str>| {
        let class = class.map(ClassName::from);
        let list = expected.list_for(&LineId::from(line), class.as_ref());
        list.unwrap()
            .views()
            .iter()
            .map(|view| view.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(list("line1", None), ["top", "left", "right"]);
    assert_eq!(list("line1", Some("gear")), ["top", "left"]);
    assert_eq!(list("line2", Some("bolt")), ["left", "right"]);
    assert_eq!(list("line2", Some("gear")), ["right"]);
}

#[test]
fn an_unlisted_view_is_rejected_and_the_list_named() {
    let buffer = small_buffer(settings());
    let mut odd = shot("p", "bottom", 0);
    odd.topic = "top";
    let events = accept(&buffer, odd);
    let reject = rejected(&events);
    assert_eq!(reject.reason, RejectReason::UnknownView);
    assert_eq!(
        reject.error,
        "view `bottom` is none of the default views: `top`, `left`, `right`"
    );
    assert_eq!(buffer.open_groups(), 0, "a refused view opens no group");
}

#[test]
fn a_view_of_nobody_knows_how_many_is_rejected() {
    let buffer = small_buffer(ReassemblySettings {
        expected: ExpectedViews::default(),
        ..settings()
    });
    let events = accept(&buffer, shot("p", "top", 0).class("gear"));
    let reject = rejected(&events);
    assert_eq!(reject.reason, RejectReason::UnknownView);
    assert_eq!(
        reject.error,
        "no views are configured for line `line1` and class `gear`, and the record has no \
         header `views`"
    );
}

#[test]
fn a_class_learnt_late_displaces_views_that_it_does_not_have() {
    let mut expected = ExpectedViews::for_all(views(&["top", "left", "right"]));
    expected.insert(
        None,
        Some(ClassName::from("gear")),
        views(&["top", "right"]),
    );
    let buffer = small_buffer(ReassemblySettings {
        expected,
        ..settings()
    });
    assert!(accept(&buffer, shot("p", "left", 0)).is_empty());
    let events = accept(&buffer, shot("p", "top", 0).class("gear"));
    assert_eq!(rejected(&events).record.source.topic.as_str(), "left");
    let events = accept(&buffer, shot("p", "right", 0));
    let group = closed(&events);
    assert_eq!(names(group), ["top", "right"]);
    assert_eq!(group.class, Some(ClassName::from("gear")));
}

#[test]
fn a_view_of_another_class_is_rejected() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0).class("gear")).is_empty());
    let events = accept(&buffer, shot("p", "left", 0).class("bolt"));
    let reject = rejected(&events);
    assert_eq!(reject.reason, RejectReason::Decode);
    assert_eq!(
        reject.error,
        "view `left` of part `p` names class `bolt`, the part's other views `gear`"
    );
}

#[test]
fn a_view_on_another_partition_number_is_rejected() {
    let buffer = buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    let mut astray = shot("p", "left", 0);
    astray.partition = 1;
    let events = accept(&buffer, astray);
    let reject = rejected(&events);
    assert_eq!(reject.reason, RejectReason::Misrouted);
    assert_eq!(
        reject.error,
        "part `p` came on partition 0 of topic `top` and on partition 1 of topic `left`; check \
         that their producers use the same partitioner"
    );
}

#[test]
fn an_identical_view_is_absorbed_and_finishes_with_its_group() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(accept(&buffer, shot("p", "top", 1)).is_empty());
    assert!(accept(&buffer, shot("p", "left", 0)).is_empty());
    let events = accept(&buffer, shot("p", "right", 0));
    let group = closed(&events);
    assert_eq!(group.absorbed.len(), 1);
    assert_eq!(group.sources().count(), 4);
    assert!(group.duplicates.is_empty());
    assert_eq!(buffer.counts().absorbed, 1);
}

#[test]
fn the_same_record_again_is_dropped() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(accept(&buffer, shot("p", "left", 0)).is_empty());
    let events = accept(&buffer, shot("p", "right", 0));
    assert_eq!(closed(&events).sources().count(), 3);
    assert!(
        accept(&buffer, shot("p", "right", 0)).is_empty(),
        "its part is on its way"
    );
    assert_eq!(buffer.counts().redelivered, 2);
}

#[test]
fn the_first_of_two_different_views_wins() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0).bytes("first")).is_empty());
    let events = accept(&buffer, shot("p", "top", 1).bytes("second"));
    let reject = rejected(&events);
    assert_eq!(reject.reason, RejectReason::Duplicate);
    assert_eq!(reject.record.source.offset, 1);
    assert_eq!(
        reject.error,
        "view `top` of part `p` came more than once with different bytes; the first one is kept, \
         from `top[0]@0`"
    );
    assert!(accept(&buffer, shot("p", "left", 0)).is_empty());
    let events = accept(&buffer, shot("p", "right", 0));
    let group = closed(&events);
    assert_eq!(group.views[0].image_bytes(), b"first");
    assert_eq!(group.duplicates, views(&["top"]));
}

#[test]
fn the_last_of_two_different_views_wins_where_set() {
    let buffer = small_buffer(ReassemblySettings {
        line: LinePolicy {
            duplicates: DuplicatePolicy::LastWins,
            ..LinePolicy::default()
        },
        ..settings()
    });
    assert!(accept(&buffer, shot("p", "top", 0).bytes("first")).is_empty());
    let events = accept(&buffer, shot("p", "top", 1).bytes("second"));
    assert_eq!(rejected(&events).record.source.offset, 0);
    assert!(accept(&buffer, shot("p", "left", 0)).is_empty());
    let events = accept(&buffer, shot("p", "right", 0));
    let group = closed(&events);
    assert_eq!(group.views[0].image_bytes(), b"second");
    assert_eq!(group.duplicates, views(&["top"]));
    assert_eq!(buffer.status(at(0)).open_bytes, 0);
}

#[test]
fn the_oldest_group_is_reported_with_what_it_waits_for() {
    let buffer = small_buffer(settings());
    assert_eq!(buffer.status(at(0)).oldest, None);
    assert!(accept(&buffer, shot("q", "top", 0).taken_at(50)).is_empty());
    assert!(accept(&buffer, shot("p", "left", 0).taken_at(20)).is_empty());
    let status = buffer.status(at(60));
    let oldest = status.oldest.unwrap();
    assert_eq!(oldest.part.part.as_str(), "p");
    assert_eq!(oldest.deadline, at(5_020));
    assert_eq!(oldest.missing, views(&["top", "right"]));
    assert_eq!(status.open_groups, 2);
    let highest: Vec<_> = status.partitions.iter().map(|one| one.highest).collect();
    assert_eq!(
        highest,
        [Some(at(20)), None, Some(at(50))],
        "left, right, top"
    );
}
