//! When groups close: stream time, quiet time, and what does not count.

use super::*;

#[test]
fn a_group_closes_when_every_partition_is_past_its_deadline() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(accept(&buffer, shot("q", "top", 1).taken_at(9_000)).is_empty());
    assert!(accept(&buffer, shot("q", "left", 1).taken_at(9_000)).is_empty());
    assert!(
        buffer.tick(at(9_000)).is_empty(),
        "`right` has had no record yet"
    );
    assert!(accept(&buffer, shot("r", "right", 1).taken_at(5_000)).is_empty());
    let events = accept(&buffer, shot("q", "right", 2).taken_at(5_001));
    let group = match &events[..] {
        [Event::Closed(late, _), Event::Closed(complete, _)] => {
            assert_eq!(complete.part.part.as_str(), "q");
            late
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(group.cause, CloseCause::StreamTime);
    assert_eq!(group.scoring, ScoringOrder::Score);
    assert_eq!(group.missing, views(&["left", "right"]));
    assert!(group.is_partial());
}

#[test]
fn at_the_end_of_a_range_no_group_of_its_number_waits_and_the_others_go_on() {
    let buffer = buffer(settings());
    let of_other_number = |shot: Shot| Shot {
        partition: 1,
        ..shot
    };
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(accept(&buffer, of_other_number(shot("q", "top", 0))).is_empty());
    for topic in ["top", "left"] {
        assert!(buffer.end_of_range(&partition(topic, 0), at(0)).is_empty());
    }
    let events = buffer.end_of_range(&partition("right", 0), at(0));
    let group = closed(&events);
    let told = (group.part.part.as_str(), group.cause);
    assert_eq!(told, ("p", CloseCause::StreamTime));
    // What is over counts for no time any more.
    for topic in ["left", "right"] {
        let later = shot("r", topic, 1).taken_at(90_000);
        assert!(accept(&buffer, of_other_number(later)).is_empty());
    }
    let events = accept(
        &buffer,
        of_other_number(shot("s", "top", 1).taken_at(90_000)),
    );
    assert_eq!(closed(&events).part.part.as_str(), "q");
}

#[test]
fn the_deadline_counts_from_the_earliest_view_whatever_the_order() {
    for order in [["top", "left"], ["left", "top"]] {
        let buffer = small_buffer(settings());
        for view in order {
            let taken_at = if view == "top" { 0 } else { 400 };
            assert!(accept(&buffer, shot("p", view, 0).taken_at(taken_at)).is_empty());
        }
        assert!(move_stream_time(&buffer, 5_000, "q").is_empty());
        assert_eq!(move_stream_time(&buffer, 5_001, "r").len(), 1);
    }
}

#[test]
fn review_closes_unscored() {
    let buffer = small_buffer(with_policy(TimeoutPolicy::Review));
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    let events = move_stream_time(&buffer, 6_000, "q");
    assert_eq!(closed(&events).scoring, ScoringOrder::Skip);
    for (topic, closes) in [("top", 0), ("left", 0), ("right", 1)] {
        let events = accept(&buffer, shot("r", topic, 9).taken_at(6_000));
        assert_eq!(
            events.len(),
            closes,
            "a complete part is scored under every policy"
        );
        if let [Event::Closed(group, _)] = &events[..] {
            assert_eq!(group.scoring, ScoringOrder::Score);
        }
    }
}

#[test]
fn dead_letter_rejects_every_view_and_finishes_copies() {
    let buffer = small_buffer(with_policy(TimeoutPolicy::DeadLetter));
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(accept(&buffer, shot("p", "top", 1)).is_empty());
    assert!(accept(&buffer, shot("p", "left", 0)).is_empty());
    let events = move_stream_time(&buffer, 6_000, "q");
    let [
        Event::Expired {
            rejects, absorbed, ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    let [top, left] = &rejects[..] else {
        panic!("{rejects:?}");
    };
    assert_eq!(top.reason, RejectReason::Expired);
    assert_eq!(
        left.error,
        "part `p` was not complete in time: 2 views came, missing `right`"
    );
    assert_eq!(absorbed[0].source.offset, 1);
}

fn with_policy(on_timeout: TimeoutPolicy) -> ReassemblySettings {
    ReassemblySettings {
        line: LinePolicy {
            on_timeout,
            ..LinePolicy::default()
        },
        ..settings()
    }
}

#[test]
fn a_line_may_have_its_own_timeout() {
    let mut settings = settings();
    let patient = LinePolicy {
        timeout: Duration::from_secs(50),
        ..LinePolicy::default()
    };
    settings.lines.insert(LineId::from("line2"), patient);
    let buffer = small_buffer(settings);
    let mut other = shot("p", "top", 0);
    other.line = "line2";
    assert!(accept(&buffer, other).is_empty());
    assert!(move_stream_time(&buffer, 50_000, "q").is_empty());
    assert_eq!(move_stream_time(&buffer, 50_001, "r").len(), 1);
}

#[test]
fn an_idle_partition_no_longer_holds_stream_time_back() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(accept(&buffer, shot("q", "top", 1).taken_at(6_000)).is_empty());
    for topic in ["left", "right"] {
        assert!(reach_end(&buffer, &partition(topic, 0), at(6_000)).is_empty());
    }
    assert_eq!(
        buffer.status(at(6_000)).stream_time,
        None,
        "`left` was read at the start only"
    );
    let events = buffer.tick(at(8_000));
    assert_eq!(closed(&events).cause, CloseCause::StreamTime);
}

#[test]
fn a_partition_that_is_not_at_its_end_is_never_idle() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(accept(&buffer, shot("q", "top", 1).taken_at(60_000)).is_empty());
    assert!(reach_end(&buffer, &partition("left", 0), at(0)).is_empty());
    assert!(
        buffer.tick(at(1_000_000)).is_empty(),
        "`right` may hold anything yet"
    );
}

#[test]
fn a_partition_whose_leader_is_away_is_waited_for_until_its_end_is_told_again() {
    let buffer = small_buffer(settings());
    assert!(reach_all_ends(&buffer, 0).is_empty());
    buffer.lose_sight(&partition("right", 0), at(1_000));
    assert!(accept(&buffer, shot("p", "top", 0).taken_at(1_000)).is_empty());
    assert!(accept(&buffer, shot("q", "top", 1).taken_at(60_000)).is_empty());
    assert!(
        buffer.tick(at(1_000_000)).is_empty(),
        "not by the wall clock either"
    );
    reach_end(&buffer, &partition("right", 0), at(1_000_000));
    let events = buffer.tick(at(1_003_000));
    assert_eq!(closed(&events).part.part.as_str(), "p");
}

#[test]
fn a_record_makes_an_idle_partition_count_again() {
    let buffer = small_buffer(settings());
    assert!(reach_all_ends(&buffer, 0).is_empty());
    assert!(buffer.tick(at(10_000)).is_empty());
    let idle = |now| {
        let partitions = buffer.status(at(now)).partitions;
        partitions.iter().map(|one| one.is_idle).collect::<Vec<_>>()
    };
    assert_eq!(idle(10_000), [true; 3]);
    assert!(accept(&buffer, shot("p", "left", 0).taken_at(10_000)).is_empty());
    assert_eq!(
        idle(90_000),
        [false, true, true],
        "more may follow until its end is told"
    );
}

#[test]
fn stream_time_never_runs_backwards() {
    let buffer = small_buffer(settings());
    assert!(move_stream_time(&buffer, 10_000, "p").is_empty());
    assert!(accept(&buffer, shot("q", "top", 5).taken_at(-90_000)).is_empty());
    assert_eq!(buffer.status(at(10_000)).stream_time, Some(at(10_000)));
    buffer.revoke(&[partition("top", 0)], at(10_000));
    buffer.assign(&[partition("top", 0)], 2, at(10_000));
    assert!(buffer.tick(at(10_000)).is_empty());
    assert_eq!(buffer.status(at(10_000)).stream_time, Some(at(10_000)));
}

#[test]
fn a_view_from_long_ago_still_gets_the_whole_timeout() {
    let buffer = small_buffer(settings());
    assert!(move_stream_time(&buffer, 10_000, "p").is_empty());
    for (topic, closes) in [("top", 0), ("left", 0), ("right", 1)] {
        let events = accept(&buffer, shot("q", topic, 5).taken_at(-3_600_000));
        assert_eq!(
            events.len(),
            closes,
            "a backlog that was taken over is gathered as usual"
        );
    }
}

#[test]
fn a_time_far_in_the_future_is_clamped_and_counted() {
    let buffer = small_buffer(settings());
    assert!(
        buffer
            .accept(shot("p", "top", 0).taken_at(9_000_000).build(None), at(0))
            .is_empty()
    );
    assert_eq!(buffer.counts().clamped, 1);
    let status = buffer.status(at(0));
    let top = status
        .partitions
        .iter()
        .find(|one| one.highest.is_some())
        .unwrap();
    assert_eq!(
        top.highest,
        Some(at(60_000)),
        "`max_future` past the wall clock"
    );
    assert_eq!(status.oldest.unwrap().deadline, at(65_000));
}

#[test]
fn a_time_is_clamped_by_when_its_record_was_written_whenever_it_is_read() {
    for read_at in [1_000, 100_000_000] {
        let buffer = small_buffer(settings());
        let view = shot("p", "top", 0).taken_at(9_000_000).written_at(1_000);
        assert!(buffer.accept(view.build(None), at(read_at)).is_empty());
        assert_eq!(buffer.counts().clamped, 1);
        let oldest = buffer.status(at(read_at)).oldest.unwrap();
        assert_eq!(oldest.deadline, at(66_000));
    }
}

fn reach_all_ends(buffer: &ReassemblyBuffer, now: i64) -> Vec<Event> {
    let end = |topic: &&str| reach_end(buffer, &partition(topic, 0), at(now));
    TOPICS.iter().flat_map(end).collect()
}

#[test]
fn the_wall_clock_closes_a_group_when_the_line_stops() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(reach_all_ends(&buffer, 1_000).is_empty());
    assert!(
        buffer.tick(at(9_000)).is_empty(),
        "timeout and grace are 8 s"
    );
    let events = buffer.tick(at(9_001));
    assert_eq!(closed(&events).cause, CloseCause::WallClock);
}

#[test]
fn the_wall_clock_closes_nothing_where_it_is_off() {
    let buffer = small_buffer(ReassemblySettings {
        wall_grace: None,
        ..settings()
    });
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(reach_all_ends(&buffer, 0).is_empty());
    assert!(buffer.tick(at(1_000_000)).is_empty());
}

#[test]
fn the_wall_clock_waits_while_a_backlog_is_read() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    for topic in ["top", "left"] {
        assert!(reach_end(&buffer, &partition(topic, 0), at(0)).is_empty());
    }
    assert!(
        buffer.tick(at(100_000)).is_empty(),
        "`right` is not read to its end"
    );
    assert!(reach_end(&buffer, &partition("right", 0), at(100_000)).is_empty());
    assert!(buffer.tick(at(108_000)).is_empty());
    assert_eq!(buffer.tick(at(108_001)).len(), 1);
}

#[test]
fn a_record_stops_the_quiet_of_its_partition_number() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(reach_all_ends(&buffer, 0).is_empty());
    let trickle = shot("q", "left", 0).taken_at(0);
    assert!(buffer.accept(trickle.build(None), at(5_000)).is_empty());
    assert!(buffer.tick(at(50_000)).is_empty(), "quiet for 5 s so far");
    assert!(reach_end(&buffer, &partition("left", 0), at(50_000)).is_empty());
    assert!(buffer.tick(at(53_000)).is_empty());
    assert_eq!(closed(&buffer.tick(at(53_001))).part.part.as_str(), "p");
}

#[test]
fn back_pressured_time_counts_for_nothing() {
    let buffer = small_buffer(settings());
    assert!(accept(&buffer, shot("p", "top", 0)).is_empty());
    assert!(accept(&buffer, shot("q", "top", 1).taken_at(6_000)).is_empty());
    assert!(reach_all_ends(&buffer, 6_000).is_empty());
    buffer.set_back_pressured(true, at(6_000));
    assert!(buffer.tick(at(600_000)).is_empty());
    buffer.set_back_pressured(false, at(600_000));
    assert!(buffer.tick(at(601_999)).is_empty());
    assert_eq!(
        closed(&buffer.tick(at(602_000))).cause,
        CloseCause::StreamTime
    );
}

#[test]
fn an_unassigned_number_leaves_no_clock_behind() {
    let buffer = buffer(settings());
    let ones = TOPICS.map(|topic| partition(topic, 1));
    buffer.revoke(&ones, at(0));
    assert_eq!(buffer.status(at(0)).partitions.len(), 3);
    assert_eq!(buffer.timeline().quiet_numbers(), [0]);
}
