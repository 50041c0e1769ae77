//! What a rebalance does to groups.

use super::*;

fn zeroes() -> [TopicPartition; 3] {
    TOPICS.map(|topic| partition(topic, 0))
}

fn reread(part: &'static str, view: &'static str, offset: i64) -> Shot {
    Shot {
        generation: 2,
        ..shot(part, view, offset)
    }
}

#[test]
fn revoking_forgets_the_groups_of_the_partitions() {
    let buffer = buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    let mut other = shot("q", "top", 0);
    other.partition = 1;
    assert!(accept(&buffer, other).is_empty());
    assert_eq!(buffer.revoke(&zeroes(), at(0)), 1);
    assert_eq!(buffer.open_groups(), 1);
    assert_eq!(buffer.counts().forgotten, 1);
    let status = buffer.status(at(0));
    assert_eq!(status.oldest.unwrap().part.part.as_str(), "q");
}

#[test]
fn views_of_another_generation_are_dropped() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    buffer.assign(&zeroes(), 2, at(0));
    assert_eq!(buffer.open_groups(), 0, "assigning anew revokes first");
    assert!(accept(&buffer, shot("p", "left", 0)).is_empty());
    let mut stranger = shot("p", "left", 0);
    stranger.partition = 7;
    assert!(accept(&buffer, stranger).is_empty());
    assert_eq!(buffer.counts().stale, 2);
    assert_eq!(buffer.open_groups(), 0);
}

#[test]
fn a_view_whose_partition_is_revoked_on_its_way_in_is_dropped() {
    let buffer = small_buffer(settings());
    let view = shot("p", "top", 0).build(None);
    let fingerprint = fingerprint_of(view.image_bytes());
    buffer.revoke(&zeroes(), at(0));
    let mut events = Vec::new();
    buffer.receive(view, fingerprint, at(0), at(0), &mut events);
    assert!(events.is_empty());
    assert_eq!((buffer.open_groups(), buffer.parts.len()), (0, 0));
    assert_eq!(buffer.counts().stale, 1);
}

#[test]
fn the_same_assignment_again_changes_nothing() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    buffer.assign(&zeroes(), 1, at(0));
    assert_eq!(buffer.open_groups(), 1);
    assert_eq!(buffer.status(at(0)).partitions[2].highest, Some(at(0)));
}

#[test]
fn a_part_read_again_under_a_new_generation_is_opened_anew() {
    let buffer = small_buffer(settings());
    for topic in TOPICS {
        accept(&buffer, shot("p", topic, 0));
    }
    buffer.assign(&zeroes(), 2, at(0));
    assert!(accept(&buffer, reread("p", "top", 0)).is_empty());
    assert!(accept(&buffer, reread("p", "left", 0)).is_empty());
    let events = accept(&buffer, reread("p", "right", 0));
    assert_eq!(
        closed(&events).views.len(),
        3,
        "the first one may be lost on its way"
    );
}

#[test]
fn a_published_part_read_again_is_finished_in_silence() {
    let buffer = small_buffer(settings());
    for topic in TOPICS {
        accept(&buffer, shot("p", topic, 0));
    }
    let view = shot("p", "left", 0).build(None);
    buffer.mark_published(&view.part, &view.record.source, 1);
    buffer.assign(&zeroes(), 2, at(0));
    let events = accept(&buffer, reread("p", "top", 0));
    assert!(matches!(&events[..], [Event::Finished(_)]));
    assert_eq!(buffer.open_groups(), 0);
}

#[test]
fn late_views_of_published_parts_are_still_known_after_a_rebalance() {
    let buffer = small_buffer(settings());
    for topic in TOPICS {
        accept(&buffer, shot("p", topic, 0));
    }
    let view = shot("p", "left", 0).build(None);
    buffer.mark_published(&view.part, &view.record.source, 1);
    buffer.assign(&zeroes(), 2, at(0));
    let events = accept(&buffer, reread("p", "left", 9).bytes("another"));
    assert_eq!(rejected(&events).reason, RejectReason::Duplicate);
}

/// Else it would be late, and missing when the others are read again.
#[test]
fn a_view_that_comes_before_those_of_its_unpublished_part_are_read_again_opens_it() {
    let buffer = small_buffer(settings());
    accept(&buffer, shot("p", "top", 0));
    accept(&buffer, shot("p", "left", 0));
    assert_eq!(move_stream_time(&buffer, 6_000, "q").len(), 1);
    buffer.assign(&zeroes(), 2, at(0));
    assert!(accept(&buffer, reread("p", "right", 9)).is_empty());
    assert!(accept(&buffer, reread("p", "top", 0)).is_empty());
    let events = accept(&buffer, reread("p", "left", 0));
    assert_eq!(closed(&events).views.len(), 3);
    assert_eq!(buffer.status(at(0)).closed_parts, 1);
}
