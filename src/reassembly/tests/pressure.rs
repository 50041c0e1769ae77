//! Pausing, resuming and evicting for the memory budget.

use super::*;

/// A budget of `records` records as [`shot`] makes them.
fn budget_of(records: u64) -> MemoryBudget {
    let size = shot("a", "top", 0).build(None).record.size_bytes() as u64;
    MemoryBudget::new(size * records)
}

/// All views arrive at one moment of the wall clock, 18 s.
fn give(buffer: &ReassemblyBuffer, budget: &MemoryBudget, shot: Shot) -> Vec<Event> {
    buffer.accept(shot.build(Some(budget)), at(18_000))
}

const PARTS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// `top` runs ahead by `count` parts, 2 s apart; `left` and `right` have had one view each.
fn run_ahead(buffer: &ReassemblyBuffer, budget: &MemoryBudget, count: usize) {
    for (index, part) in PARTS[..count].iter().enumerate() {
        let index = index as i64;
        assert!(
            give(
                buffer,
                budget,
                shot(part, "top", index).taken_at(index * 2_000)
            )
            .is_empty()
        );
    }
    assert!(give(buffer, budget, shot("a", "left", 0)).is_empty());
    assert_eq!(give(buffer, budget, shot("a", "right", 0)).len(), 1);
}

#[test]
fn nothing_is_paused_while_memory_is_normal() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(100));
    run_ahead(&buffer, &budget, 10);
    let decision = buffer.flow(&budget, at(0));
    assert!(decision.pause.is_empty() && decision.resume.is_empty());
    assert!(decision.events.is_empty());
}

#[test]
fn under_pressure_only_what_runs_ahead_is_paused_and_only_once() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(11));
    run_ahead(&buffer, &budget, 10);
    let decision = buffer.flow(&budget, at(18_000));
    assert_eq!(decision.pause, [partition("top", 0)]);
    assert!(
        decision.events.is_empty(),
        "the laggard brings what completes the groups"
    );
    let again = buffer.flow(&budget, at(18_050));
    assert!(again.pause.is_empty() && again.resume.is_empty());
}

#[test]
fn what_is_ahead_by_little_is_paused_where_all_are_close_together() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(11));
    assert!(give(&buffer, &budget, shot("l", "right", 0)).is_empty());
    for (index, part) in PARTS[..6].iter().enumerate() {
        let millis = index as i64;
        assert!(give(&buffer, &budget, shot(part, "top", millis).taken_at(millis)).is_empty());
    }
    assert!(give(&buffer, &budget, shot("a", "left", 0)).is_empty());
    assert!(!buffer.is_hasty(&budget), "8 of 11 records");
    assert!(give(&buffer, &budget, shot("b", "left", 1).taken_at(1)).is_empty());
    assert!(buffer.is_hasty(&budget), "9 of 11 records");
    let decision = buffer.flow(&budget, at(18_000));
    assert_eq!(decision.pause, [partition("top", 0)]);
    assert!(decision.events.is_empty());
    assert!(!buffer.is_hasty(&budget), "it was looked at");
}

#[test]
fn the_fuller_memory_is_the_less_a_partition_may_be_ahead() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(20));
    assert!(give(&buffer, &budget, shot("l", "right", 0)).is_empty());
    for (index, part) in PARTS[..8].iter().enumerate() {
        let taken = index as i64;
        assert!(give(&buffer, &budget, shot(part, "top", taken).taken_at(taken)).is_empty());
    }
    for (index, part) in PARTS[..4].iter().enumerate() {
        let taken = index as i64;
        assert!(give(&buffer, &budget, shot(part, "left", taken).taken_at(taken)).is_empty());
    }
    let three = budget.lease(usize::try_from(budget.limit_bytes() * 3 / 20).unwrap());
    let decision = buffer.flow(&budget, at(18_000));
    assert_eq!(decision.pause, [partition("top", 0)], "at the high mark");
    let two = budget.lease(usize::try_from(budget.limit_bytes() / 10).unwrap());
    let decision = buffer.flow(&budget, at(18_050));
    assert_eq!(decision.pause, [partition("left", 0)], "at the tight mark");
    drop((two, three));
}

#[test]
fn everything_runs_again_below_the_low_mark() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(11));
    run_ahead(&buffer, &budget, 10);
    assert_eq!(buffer.flow(&budget, at(18_000)).pause.len(), 1);
    for (index, part) in PARTS[1..5].iter().enumerate() {
        assert!(give(&buffer, &budget, shot(part, "left", index as i64 + 1)).is_empty());
        assert_eq!(
            give(&buffer, &budget, shot(part, "right", index as i64 + 1)).len(),
            1
        );
    }
    let decision = buffer.flow(&budget, at(18_000));
    assert_eq!(
        decision.resume,
        [partition("top", 0)],
        "5 of 11 records are left"
    );
}

#[test]
fn a_paused_partition_that_has_become_the_laggard_runs_again() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(11));
    run_ahead(&buffer, &budget, 10);
    assert_eq!(
        buffer.flow(&budget, at(18_000)).pause,
        [partition("top", 0)]
    );
    let mut ahead = Vec::new();
    for topic in ["left", "right"] {
        ahead.extend(give(&buffer, &budget, shot("j", topic, 9).taken_at(18_500)));
    }
    drop(ahead);
    let decision = buffer.flow(&budget, at(18_500));
    assert_eq!(decision.resume, [partition("top", 0)]);
}

#[test]
fn over_the_limit_the_oldest_groups_give_way_until_the_rest_fits() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(9));
    run_ahead(&buffer, &budget, 11);
    let decision = buffer.flow(&budget, at(18_000));
    assert_eq!(decision.pause.len(), 3, "nothing more comes in");
    let evicted: Vec<_> = decision
        .events
        .iter()
        .map(|event| match event {
            Event::Closed(group, _) => (group.part.part.as_str(), group.cause),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = ["b", "c", "d"].map(|part| (part, CloseCause::Evicted));
    assert_eq!(evicted, expected, "7 of 9 records stay below the high mark");
    drop(decision);
    let decision = buffer.flow(&budget, at(18_050));
    assert_eq!(
        decision.resume,
        [partition("left", 0), partition("right", 0)],
        "published groups have given their memory back"
    );
}

/// What is on its way gives its memory back, and the views that complete the others are then read.
#[test]
fn open_groups_that_fit_once_the_work_in_flight_is_done_do_not_give_way() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(20));
    let in_flight = budget.lease(usize::try_from(budget.limit_bytes() / 2).unwrap());
    for (index, part) in PARTS.iter().enumerate() {
        assert!(give(&buffer, &budget, shot(part, "top", index as i64)).is_empty());
        if index < 3 {
            assert!(give(&buffer, &budget, shot(part, "left", index as i64)).is_empty());
        }
    }
    let decision = buffer.flow(&budget, at(18_000));
    assert_eq!((decision.pause.len(), decision.events.len()), (3, 0));
    drop(in_flight);
    let decision = buffer.flow(&budget, at(18_050));
    assert!(decision.events.is_empty());
    assert!(!decision.resume.is_empty());
}

#[test]
fn work_in_flight_over_the_limit_pauses_without_evicting() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(9));
    let in_flight = budget.lease(usize::try_from(budget.limit_bytes()).unwrap());
    assert!(give(&buffer, &budget, shot("a", "top", 0)).is_empty());
    let decision = buffer.flow(&budget, at(0));
    assert_eq!((decision.pause.len(), decision.events.len()), (3, 0));
    drop(in_flight);
    assert_eq!(buffer.flow(&budget, at(0)).resume.len(), 3);
}

#[test]
fn a_stall_under_pressure_evicts_too() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(11));
    run_ahead(&buffer, &budget, 10);
    assert_eq!(buffer.flow(&budget, at(18_000)).pause.len(), 1);
    assert!(buffer.flow(&budget, at(27_999)).events.is_empty());
    buffer.set_back_pressured(true, at(27_999));
    assert!(
        buffer.flow(&budget, at(90_000)).events.is_empty(),
        "the stages behind are slow"
    );
    buffer.set_back_pressured(false, at(90_000));
    assert!(buffer.flow(&budget, at(99_999)).events.is_empty());
    let decision = buffer.flow(&budget, at(100_000));
    assert_eq!(decision.events.len(), 3, "6 of 11 records stay");
}

#[test]
fn a_paused_partition_is_never_idle() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(11));
    run_ahead(&buffer, &budget, 10);
    assert_eq!(
        buffer.flow(&budget, at(18_000)).pause,
        [partition("top", 0)]
    );
    for topic in TOPICS {
        let events = reach_end(&buffer, &partition(topic, 0), at(18_000));
        assert!(events.is_empty());
    }
    let status = buffer.status(at(40_000));
    let idle: Vec<bool> = status.partitions.iter().map(|one| one.is_idle).collect();
    assert_eq!(idle, [true, true, false], "left, right, top");
}

#[test]
fn paused_time_does_not_count_towards_the_wall_clock_deadline() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(11));
    run_ahead(&buffer, &budget, 10);
    assert_eq!(
        buffer.flow(&budget, at(18_000)).pause,
        [partition("top", 0)]
    );
    for topic in TOPICS {
        let events = reach_end(&buffer, &partition(topic, 0), at(18_000));
        assert!(events.is_empty());
    }
    for event in buffer.tick(at(900_000)) {
        assert!(matches!(event, Event::Closed(group, _) if group.cause == CloseCause::StreamTime));
    }
    assert!(
        buffer.open_groups() > 0,
        "more of `top` may wait behind the pause"
    );
}

#[test]
fn an_idle_partition_is_not_paused_for_running_ahead() {
    let (buffer, budget) = (small_buffer(settings()), budget_of(11));
    run_ahead(&buffer, &budget, 9);
    assert!(give(&buffer, &budget, shot("j", "left", 9).taken_at(18_000)).is_empty());
    let events = reach_end(&buffer, &partition("left", 0), at(18_000));
    assert!(events.is_empty());
    let decision = buffer.flow(&budget, at(20_000));
    assert_eq!(
        decision.pause,
        [partition("top", 0)],
        "`left` has nothing to hold back"
    );
}
