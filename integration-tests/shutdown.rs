//! The process ends in mid-run, in order or not, and another goes on.

use crate::kafka::Broker;
use crate::kafka::tools::describe_group;
use crate::support::line::{Line, names};
use crate::support::process::{Panoptes, log_folder};

const PARTS: u64 = 60;

/// Of these the last view comes only after the first process has ended: however fast it is, it ends
/// in mid-run.
const OPEN_PARTS: usize = 20;

/// Sends a run of parts, ends the first process by `end` in mid-run, and lets a second one finish.
fn run_in_two_halves(name: &str, end: impl FnOnce(Panoptes)) {
    let line = Line::new(Broker::shared(), name);
    let config = line.config().set("reassembly.timeout", "2m");
    let first = Panoptes::run(&config, &format!("{name}-1"));
    let parts: Vec<String> = (0..PARTS)
        .map(|number| format!("part-{number:03}"))
        .collect();
    let mut last_views = Vec::new();
    line.send(parts.iter().enumerate().flat_map(|(number, part)| {
        let mut views: Vec<_> = line.part(part, 1).into_iter().collect();
        if number >= parts.len() - OPEN_PARTS {
            last_views.extend(views.pop());
        }
        views
    }));
    line.await_parts(5);
    end(first);
    line.send(last_views);
    let halfway = line.outcomes().parts().len();
    assert!(
        halfway < parts.len(),
        "the first process was to end in mid-run"
    );
    let second = Panoptes::run(&config, &format!("{name}-2"));
    line.await_parts(parts.len());
    second.stop_in_order();

    let outcomes = line.outcomes();
    outcomes.assert_one_result_id_each(parts.iter().map(String::as_str));
    assert!(
        outcomes
            .results
            .iter()
            .all(|record| !record.result.is_partial)
    );
    assert!(
        outcomes.dead_letters.is_empty(),
        "{:?}",
        outcomes.dead_letters
    );
    line.assert_every_record_has_one_fate(&outcomes);
    let positions = describe_group(line.broker, &line.name);
    assert_eq!(positions.len(), 20, "{positions:?}");
    assert!(
        positions
            .iter()
            .all(|position| position.end == 0 || position.lag == Some(0)),
        "{positions:?}"
    );
}

#[test]
fn sigterm_in_mid_run_drains_and_another_process_resumes() {
    run_in_two_halves("sigterm", Panoptes::stop_in_order);
}

#[test]
fn what_was_drained_is_committed_with_the_last_revocation() {
    let line = Line::new(Broker::shared(), "drained");
    let config = line.config().set("reassembly.timeout", "2m");
    let first = Panoptes::run(&config, "drained");
    let parts = names(20);
    line.send(parts.iter().flat_map(|part| line.part(part, 1)));
    line.await_parts(1);
    first.stop_in_order();
    let log = std::fs::read_to_string(log_folder().join("drained.log")).unwrap();
    // Whether its answer came within the second that it is waited for depends on the machine.
    assert!(log.contains("partitions revoked"), "{log}");

    let second = Panoptes::run(&config, "drained-2");
    line.await_parts(parts.len());
    second.stop_in_order();
    line.assert_one_whole_result_each(&parts);
}

#[test]
fn a_killed_process_loses_nothing() {
    run_in_two_halves("sigkill", Panoptes::kill);
}

#[test]
fn a_part_finished_before_a_restart_is_not_scored_again_in_pieces() {
    // On partition 0 of both topics: `top` holds back its commit for the part that waits, `side`
    // is committed past the part that is done. After the restart only `top` brings that part again.
    let line = Line::with_views(Broker::shared(), "interleaved", &["top", "side"]);
    let send = |part: &str, views: &[&str]| {
        let shots = line.part_seen_by(part, 1, views).into_iter();
        line.send(shots.map(|shot| shot.on_partition(0)));
    };
    let config = line.config().set("reassembly.timeout", "1m");
    let first = Panoptes::run(&config, "interleaved-1");
    send("waits", &["top"]);
    send("done", &["top", "side"]);
    line.await_parts(1);
    first.stop_in_order();
    let second = Panoptes::run(&config, "interleaved-2");
    send("waits", &["side"]);
    line.await_parts(2);
    second.await_metrics("every record to be committed", |metrics| {
        metrics.sum("panoptes_open_groups", &[]) + metrics.sum("panoptes_uncommitted_records", &[])
            < 0.5
    });
    second.stop_in_order();

    let outcomes = line.outcomes();
    outcomes.assert_one_result_id_each(["waits", "done"]);
    assert!(!outcomes.result_of("waits").is_partial);
    assert!(!outcomes.result_of("done").is_partial);
    assert!(
        outcomes.dead_letters.is_empty(),
        "{:?}",
        outcomes.dead_letters
    );
}
