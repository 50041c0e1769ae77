//! Views of parts that are closed.

use super::*;

fn complete(buffer: &ReassemblyBuffer, part: &'static str, offset: i64, taken_at: i64) {
    let mut events = Vec::new();
    for topic in TOPICS {
        events.extend(accept(buffer, shot(part, topic, offset).taken_at(taken_at)));
    }
    assert_eq!(closed(&events).cause, CloseCause::Complete);
}

#[test]
fn a_late_view_is_rejected() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert_eq!(move_stream_time(&buffer, 6_000, "q").len(), 1);
    let events = accept(&buffer, shot("p", "left", 0).taken_at(10));
    let reject = rejected(&events);
    assert_eq!(reject.reason, RejectReason::Late);
    assert_eq!(
        reject.error,
        "view `left` came after its part `p` was closed"
    );
}

#[test]
fn a_late_copy_of_what_was_used_is_finished_in_silence() {
    let buffer = small_buffer(settings());
    complete(&buffer, "p", 0, 0);
    let events = accept(&buffer, shot("p", "top", 7));
    assert!(matches!(&events[..], [Event::Finished(records)] if records[0].source.offset == 7));
    assert_eq!(buffer.counts().late_identical, 1);
    let events = accept(&buffer, shot("p", "top", 8).bytes("another image"));
    assert_eq!(rejected(&events).reason, RejectReason::Duplicate);
}

#[test]
fn another_image_of_a_view_is_the_same_dead_letter_before_and_after_its_part_is_closed() {
    let others = TOPICS.iter().skip(1).copied();
    let others: Vec<Shot> = others.map(|topic| shot("p", topic, 0)).collect();
    let told: Vec<(RejectReason, String)> = (0..=others.len())
        .map(|come_before| {
            let buffer = small_buffer(settings());
            let mut shots = vec![shot("p", TOPICS[0], 0)];
            shots.extend(others[..come_before].iter().cloned());
            shots.push(shot("p", TOPICS[0], 1).bytes("another image"));
            shots.extend(others[come_before..].iter().cloned());
            let events = shots.into_iter().flat_map(|shot| accept(&buffer, shot));
            let events: Vec<Event> = events.collect();
            let rejects = events.iter().filter_map(|event| match event {
                Event::Rejected(reject) => Some((reject.reason, reject.error.clone())),
                _ => None,
            });
            let rejects: Vec<_> = rejects.collect();
            assert_eq!(rejects.len(), 1, "{events:?}");
            rejects[0].clone()
        })
        .collect();
    assert_eq!(told[0].0, RejectReason::Duplicate);
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
}

#[test]
fn a_late_view_on_another_partition_number_is_misrouted() {
    let buffer = buffer(settings());
    complete(&buffer, "p", 0, 0);
    let mut astray = shot("p", "left", 0);
    astray.partition = 1;
    assert_eq!(
        rejected(&accept(&buffer, astray)).reason,
        RejectReason::Misrouted
    );
}

#[test]
fn a_part_id_used_again_much_later_is_a_new_part() {
    let buffer = small_buffer(settings());
    complete(&buffer, "p", 0, 0);
    let events = accept(&buffer, shot("p", "top", 1).taken_at(60_000).bytes("x"));
    assert_eq!(rejected(&events).reason, RejectReason::Duplicate);
    complete(&buffer, "p", 2, 60_001);
}

#[test]
fn a_record_written_in_the_far_future_does_not_keep_its_part_id_for_ever() {
    let buffer = small_buffer(settings());
    let mut events = Vec::new();
    for topic in TOPICS {
        let year_later = shot("p", topic, 0).written_at(31_536_000_000);
        events.extend(accept(&buffer, year_later));
    }
    assert_eq!(closed(&events).cause, CloseCause::Complete);
    let again = shot("p", "top", 1).taken_at(200_000).written_at(200_000);
    assert!(accept(&buffer, again.bytes("x")).is_empty(), "opened anew");
}

#[test]
fn a_part_id_used_again_closes_the_group_that_still_waits() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    let events = accept(&buffer, shot("p", "top", 1).taken_at(65_001));
    let group = closed(&events);
    assert_eq!(
        (group.cause, group.views.len()),
        (CloseCause::StreamTime, 1)
    );
    assert!(accept(&buffer, shot("p", "left", 1).taken_at(65_001)).is_empty());
    let events = accept(&buffer, shot("p", "right", 1).taken_at(65_001));
    assert_eq!(closed(&events).cause, CloseCause::Complete);
}

#[test]
fn a_camera_whose_clock_is_hours_behind_does_not_split_parts() {
    let buffer = small_buffer(settings());
    let behind = shot("p", "top", 0).taken_at(-7_200_000).written_at(0);
    assert!(accept(&buffer, behind).is_empty());
    assert!(accept(&buffer, shot("p", "left", 0).taken_at(10).written_at(10)).is_empty());
    let events = accept(&buffer, shot("p", "right", 0).taken_at(20).written_at(20));
    assert_eq!(closed(&events).cause, CloseCause::Complete);
}

#[test]
fn closed_parts_are_forgotten_once_their_ids_may_be_used_again() {
    let buffer = small_buffer(settings());
    complete(&buffer, "p", 0, 0);
    assert!(move_stream_time(&buffer, 60_001, "q").is_empty());
    assert_eq!(
        buffer.status(at(0)).closed_parts,
        1,
        "only the one that moved the time"
    );
    assert_eq!(buffer.parts.len(), 1);
}

#[test]
fn the_memory_of_closed_parts_is_bounded_and_drops_the_oldest() {
    let buffer = small_buffer(ReassemblySettings {
        closed: ClosedMemorySettings {
            max_parts: 2,
            ..ClosedMemorySettings::default()
        },
        ..settings()
    });
    for (offset, part) in ["p", "q", "r"].into_iter().enumerate() {
        complete(&buffer, part, offset as i64, offset as i64);
    }
    assert_eq!(buffer.parts.len(), 2);
    assert_eq!(
        rejected(&accept(&buffer, shot("q", "top", 9).bytes("x"))).reason,
        RejectReason::Duplicate
    );
    assert!(
        accept(&buffer, shot("p", "top", 9).bytes("x")).is_empty(),
        "opened anew"
    );
}

#[test]
fn the_memory_of_closed_parts_is_bounded_in_bytes_too() {
    let buffer = small_buffer(ReassemblySettings {
        closed: ClosedMemorySettings {
            max_bytes: 1_500,
            ..ClosedMemorySettings::default()
        },
        ..settings()
    });
    for (offset, part) in ["p", "q", "r", "s", "t", "u"].into_iter().enumerate() {
        complete(&buffer, part, offset as i64, offset as i64);
    }
    let remembered = buffer.parts.len();
    assert!(
        (1..5).contains(&remembered),
        "{remembered} parts in 1500 bytes"
    );
    assert_eq!(buffer.status(at(0)).closed_parts, remembered);
}

/// What a buffer that closed `p` with views top and left tells of it.
fn closure_of_p() -> PartClosure {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(accept(&buffer, shot("p", "left", 0)).is_empty());
    let events = move_stream_time(&buffer, 6_000, "q");
    let [Event::Closed(_, closure)] = &events[..] else {
        panic!("{events:?}");
    };
    PartClosure::clone(closure)
}

#[test]
fn a_view_is_late_for_a_part_that_another_instance_has_closed() {
    let buffer = small_buffer(settings());
    buffer.learn_closed([closure_of_p()]);
    let events = accept(&buffer, shot("p", "right", 0).taken_at(10));
    assert_eq!(rejected(&events).reason, RejectReason::Late);
    let events = accept(&buffer, shot("p", "top", 7));
    assert!(matches!(&events[..], [Event::Finished(_)]));
    let mut astray = shot("p", "right", 1);
    astray.partition = 1;
    buffer.assign(&[partition("right", 1)], 1, at(0));
    assert_eq!(
        rejected(&accept(&buffer, astray)).reason,
        RejectReason::Misrouted
    );
    let reused = shot("p", "right", 2).taken_at(70_000);
    assert!(accept(&buffer, reused).is_empty());
    assert_eq!(buffer.open_groups(), 1);
}

#[test]
fn the_records_of_a_part_that_another_instance_has_closed_open_it_when_they_are_read_again() {
    let buffer = small_buffer(settings());
    buffer.learn_closed([closure_of_p()]);
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(accept(&buffer, shot("p", "left", 0)).is_empty());
    assert_eq!(buffer.open_groups(), 1);
}

#[test]
fn of_two_closings_of_a_part_id_the_later_one_counts() {
    let earlier = closure_of_p();
    let mut later = earlier.clone();
    later.reuse.taken_after = later.reuse.taken_after.after(Duration::from_secs(100));
    later.views.clear();
    for order in [[earlier.clone(), later.clone()], [later, earlier]] {
        let buffer = small_buffer(settings());
        buffer.learn_closed(order);
        let events = accept(&buffer, shot("p", "top", 7).taken_at(70_000));
        assert_eq!(rejected(&events).reason, RejectReason::Late);
        assert_eq!(buffer.status(at(0)).closed_parts, 1);
    }
}

#[test]
fn what_is_open_stays_open_whatever_is_learnt() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "right", 5)).is_empty());
    buffer.learn_closed([closure_of_p()]);
    assert_eq!(buffer.open_groups(), 1);
    assert!(accept(&buffer, shot("p", "top", 5)).is_empty());
}

#[test]
fn no_more_closed_parts_are_learnt_than_are_remembered() {
    let mut settings = settings();
    settings.closed.max_parts = 10;
    let buffer = small_buffer(settings);
    let closures = (0..25).map(|number: i64| {
        let mut closure = closure_of_p();
        closure.part.part = PartId::new(format!("part-{number}"));
        closure.reuse.taken_after = at(1_000_000 + number);
        closure
    });
    buffer.learn_closed(closures);
    assert_eq!(buffer.status(at(0)).closed_parts, 10);
    let opened = accept(&buffer, shot("part-0", "top", 50));
    assert!(opened.is_empty());
    let events = accept(&buffer, shot("part-24", "top", 51).bytes("other"));
    assert_eq!(rejected(&events).reason, RejectReason::Duplicate);
}

#[test]
fn a_part_that_is_read_again_names_the_duplicate_whose_record_is_finished() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    let finished = [
        shot("p", "top", 1).bytes("another image"),
        shot("p", "top", 2),
        shot("p", "left", 0),
        shot("q", "top", 3),
    ];
    for shot in finished {
        assert!(buffer.recall(shot.build(None), at(0)).is_empty());
    }
    assert_eq!(buffer.open_groups(), 1);
    assert!(accept(&buffer, shot("p", "left", 1)).is_empty());
    let events = accept(&buffer, shot("p", "right", 0));
    let group = closed(&events);
    assert_eq!(group.duplicates, [ViewId::from("top")]);
    assert_eq!(names(group), ["top", "left", "right"]);
    assert_eq!(buffer.counts().views, 3);
}
