use super::*;
use crate::kafka::poll_report::Pause;

const TICK: Duration = Duration::from_secs(1);
const STALL_AFTER: u64 = 10;

fn watchdog() -> Watchdog {
    Watchdog::new(Patience {
        stall_after: Duration::from_secs(STALL_AFTER),
        rebalance: Duration::from_secs(5),
    })
}

fn at_rest() -> PipelineStatus {
    PipelineStatus::at_rest()
}

/// A partition of which 5 records are not read.
fn unread() -> PipelineStatus {
    let mut status = at_rest();
    status.partitions[0].end = Some(15);
    status.partitions[0].is_at_end = false;
    status
}

/// A partition whose record at 10 is read and not finished.
fn held_by(holder: Holder) -> PipelineStatus {
    let mut status = at_rest();
    status.partitions[0] = PartitionStatus {
        next_to_read: Some(11),
        end: Some(11),
        unfinished: 1,
        held_by: Some(holder),
        ..status.partitions[0].clone()
    };
    status
}

fn overdue_part() -> Holder {
    Holder::Part {
        line: "line1".to_owned(),
        part_id: "P-1".to_owned(),
        missing_views: vec!["left".to_owned()],
        open_ms: 60_000,
        is_overdue: true,
    }
}

/// What is found when `status_at` is shown once a second, and after how many seconds.
fn watch(seconds: u64, status_at: impl Fn(u64) -> PipelineStatus) -> Option<(u64, Vec<Stall>)> {
    watch_with(true, seconds, status_at)
}

fn watch_with(
    brokers_are_reached: bool,
    seconds: u64,
    status_at: impl Fn(u64) -> PipelineStatus,
) -> Option<(u64, Vec<Stall>)> {
    let mut watchdog = watchdog();
    (0..=seconds).find_map(|second| {
        let stalls = watchdog.observe(&status_at(second), brokers_are_reached, TICK);
        (!stalls.is_empty()).then_some((second, stalls))
    })
}

fn in_partition(stall: fn(String) -> Stall) -> Option<(u64, Vec<Stall>)> {
    Some((STALL_AFTER, vec![stall("cam[0]".to_owned())]))
}

fn reading(partition: String) -> Stall {
    Stall::Reading { partition }
}

fn position(partition: String) -> Stall {
    Stall::Position { partition }
}

#[test]
fn a_pipeline_that_rests_does_not_stand_still() {
    assert_eq!(watch(1000, |_| at_rest()), None);
}

#[test]
fn a_partition_that_has_records_and_is_not_read_is_told_in_time() {
    assert_eq!(watch(1000, |_| unread()), in_partition(reading));
}

#[test]
fn a_partition_that_is_read_however_slowly_does_not_stand_still() {
    let status = |second: u64| {
        let mut status = unread();
        status.partitions[0].next_to_read = Some((second / (STALL_AFTER - 1)) as i64);
        status
    };
    assert_eq!(watch(1000, status), None);
}

#[test]
fn a_partition_that_is_paused_for_a_reason_is_not_missed() {
    let status = |_| {
        let mut status = unread();
        status.partitions[0].pause = Some(Pause::Memory);
        status
    };
    assert_eq!(watch(1000, status), None);
}

#[test]
fn a_pause_that_has_lost_its_reason_is_told() {
    let status = |_| {
        let mut status = unread();
        status.partitions[0].pause = Some(Pause::Memory);
        status.partitions[0].is_pause_stale = true;
        status
    };
    let pause = |partition| Stall::Pause { partition };
    assert_eq!(watch(1000, status), in_partition(pause));
}

#[test]
fn nothing_is_missed_of_a_partition_whose_leader_is_away() {
    let status = |_| {
        let mut status = unread();
        status.partitions[0].end = None;
        status
    };
    assert_eq!(watch(1000, status), None);
}

#[test]
fn a_record_that_nothing_works_on_is_told() {
    assert_eq!(
        watch(1000, |_| held_by(Holder::Work)),
        in_partition(position)
    );
}

#[test]
fn a_record_that_waits_behind_long_batches_is_not_missed() {
    // 8 of 10 seconds are one batch's, again and again.
    let status = |second: u64| PipelineStatus {
        device_busy_ms: Some(second % 8 * 1000),
        finished_records: second / 8,
        in_flight: 3,
        ..held_by(Holder::Work)
    };
    assert_eq!(watch(1000, status), None);
}

#[test]
fn a_part_that_waits_within_its_time_is_not_missed() {
    let holder = Holder::Part {
        line: "line1".to_owned(),
        part_id: "P-1".to_owned(),
        missing_views: vec!["left".to_owned()],
        open_ms: 60_000,
        is_overdue: false,
    };
    assert_eq!(watch(1000, |_| held_by(holder.clone())), None);
}

#[test]
fn an_overdue_part_is_told_when_nothing_else_moves() {
    assert_eq!(
        watch(1000, |_| held_by(overdue_part())),
        in_partition(position)
    );
}

#[test]
fn an_overdue_part_is_not_missed_while_a_camera_behind_it_catches_up() {
    let status = |second: u64| {
        let mut status = held_by(overdue_part());
        status.partitions.push(PartitionStatus {
            next_to_read: Some(second as i64),
            end: Some(100_000),
            is_at_end: false,
            ..PartitionStatus::at("late", 0)
        });
        status
    };
    assert_eq!(watch(1000, status), None);
}

#[test]
fn a_device_that_does_not_answer_is_told_and_cannot_be_left_behind() {
    let status = |second: u64| PipelineStatus {
        device_busy_ms: Some(second * 1000),
        ..at_rest()
    };
    let (_, stalls) = watch(1000, status).unwrap();
    assert_eq!(stalls, [Stall::Device]);
    assert!(!stalls[0].leaves_a_usable_process());
}

#[test]
fn a_transaction_that_stays_open_is_told() {
    let status = |second: u64| PipelineStatus {
        transaction_open_ms: Some(second * 1000),
        ..at_rest()
    };
    let (_, stalls) = watch(1000, status).unwrap();
    assert_eq!(stalls, [Stall::Transaction]);
}

#[test]
fn parts_on_their_way_of_which_none_arrives_are_told() {
    let status = |_| PipelineStatus {
        in_flight: 2,
        reading: Reading::Jammed,
        ..unread()
    };
    assert_eq!(
        watch(1000, status),
        Some((STALL_AFTER, vec![Stall::Stages]))
    );
}

#[test]
fn a_poll_thread_has_the_time_of_a_rebalance_besides() {
    let status = |second: u64| PipelineStatus {
        poll_thread_silent_ms: second * 1000,
        ..at_rest()
    };
    let found = watch(1000, status);
    assert_eq!(found, Some((STALL_AFTER + 5, vec![Stall::PollThread])));
}

#[test]
fn nothing_counts_while_the_brokers_are_away_but_the_device() {
    assert_eq!(watch_with(false, 1000, |_| unread()), None);
    let busy = |second: u64| PipelineStatus {
        device_busy_ms: Some(second * 1000),
        ..unread()
    };
    let (_, stalls) = watch_with(false, 1000, busy).unwrap();
    assert_eq!(stalls, [Stall::Device]);
}

#[test]
fn a_drain_is_left_to_its_own_deadline() {
    let status = |_| PipelineStatus {
        reading: Reading::Draining,
        in_flight: 2,
        ..unread()
    };
    assert_eq!(watch(1000, status), None);
}

#[test]
fn a_drain_does_not_excuse_threads_that_hang() {
    let status = |second: u64| PipelineStatus {
        reading: Reading::Draining,
        device_busy_ms: Some(second * 1000),
        ..at_rest()
    };
    let found = watch(1000, status);
    assert_eq!(found, Some((STALL_AFTER, vec![Stall::Device])));
}

#[test]
fn stages_that_stay_full_are_told_be_anything_on_its_way_or_not() {
    let status = |_| PipelineStatus {
        reading: Reading::Jammed,
        ..unread()
    };
    let found = watch(1000, status);
    assert_eq!(found, Some((STALL_AFTER, vec![Stall::Stages])));
}

#[test]
fn a_replay_that_reads_no_faster_than_it_may_does_not_stand_still() {
    // A record takes longer than anything may stand still, and parts wait for their next view.
    for status in [unread(), held_by(overdue_part()), held_by(Holder::Work)] {
        let status = |_| PipelineStatus {
            reading: Reading::Throttled,
            ..status.clone()
        };
        assert_eq!(watch(1000, status), None);
    }
}

#[test]
fn a_slow_replay_does_not_excuse_parts_on_their_way_or_threads_that_hang() {
    let status = |_| PipelineStatus {
        reading: Reading::Throttled,
        in_flight: 2,
        ..unread()
    };
    let found = watch(1000, status);
    assert_eq!(found, Some((STALL_AFTER, vec![Stall::Stages])));
    let busy = |second: u64| PipelineStatus {
        device_busy_ms: Some(second * 1000),
        ..status(second)
    };
    let found = watch(1000, busy);
    assert_eq!(found, Some((STALL_AFTER, vec![Stall::Device])));
}

#[test]
fn a_part_whose_missing_view_is_out_of_reach_is_not_missed() {
    let status = |_| {
        let mut status = held_by(overdue_part());
        let mut unled = PartitionStatus::at("left", 0);
        unled.is_at_end = false;
        status.partitions.push(unled);
        status
    };
    assert_eq!(watch(1000, status), None);
}

#[test]
fn partitions_stand_still_while_the_poll_thread_is_in_a_rebalance() {
    let status = |second: u64| PipelineStatus {
        poll_thread_silent_ms: second % (STALL_AFTER + 4) * 1000,
        ..unread()
    };
    assert_eq!(watch(1000, status), None);
}

#[test]
fn what_has_moved_once_has_all_its_time_again() {
    let status = |second: u64| {
        let mut status = unread();
        status.partitions[0].next_to_read = Some(if second < STALL_AFTER { 10 } else { 11 });
        status
    };
    let found = watch(1000, status);
    assert_eq!(
        found,
        Some((2 * STALL_AFTER, vec![reading("cam[0]".to_owned())]))
    );
}
