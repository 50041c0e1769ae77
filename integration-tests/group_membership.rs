//! Who stays in the group: static members that restart, two that claim to be one, and an instance
//! whose model is slow.

use std::time::Duration;
#[cfg(feature = "failpoints")]
use std::time::Instant;

use crate::kafka::Broker;
use crate::support::config::Config;
use crate::support::line::{Line, PARTITIONS, names};
use crate::support::process::Panoptes;
use crate::support::shots::Shot;

/// The settings of a static member.
fn member(config: &Config, id: &str) -> Config {
    config
        .of_another_instance()
        .property("group.instance.id", id)
}

/// The time from parts to parts on a line that runs.
const PACE: Duration = Duration::from_millis(300);

fn rebalances(instance: &Panoptes) -> f64 {
    instance.metrics().sum("panoptes_rebalances_total", &[])
}

/// Half of a line's partitions: all topics' of two numbers, for views of one part must meet.
fn await_half(instance: &Panoptes) {
    instance.await_assigned(5 * PARTITIONS / 2);
}

fn shots_of(line: &Line<'_>, parts: &[String], seed: u64) -> Vec<Shot> {
    parts
        .iter()
        .flat_map(|part| line.part(part, seed))
        .collect()
}

#[test]
fn static_members_that_restart_one_by_one_move_no_partitions() {
    const CHUNK: usize = 15;
    let line = Line::new(Broker::shared(), "rolling");
    // However busy the machine: each is back within its session.
    let config = line
        .exactly_once_config()
        .property("session.timeout.ms", "60000");
    let configs = ["station-1", "station-2"].map(|id| member(&config, id));
    let start = |number: usize, life: usize| {
        Panoptes::run(&configs[number], &format!("rolling-{number}-{life}"))
    };
    let mut running = [Some(start(0, 0)), Some(start(1, 0))];
    for panoptes in running.iter().flatten() {
        await_half(panoptes);
    }
    let parts = names(4 * CHUNK);
    let restarts = [(0, true), (1, true), (0, false), (1, false)];
    for ((life, (number, is_in_order)), chunk) in (1..).zip(restarts).zip(parts.chunks(CHUNK)) {
        let victim = running[number].take().unwrap();
        let other = running[1 - number].as_ref().unwrap();
        let before = rebalances(other);
        if is_in_order {
            victim.stop_in_order();
        } else {
            victim.kill();
        }
        line.send(shots_of(&line, chunk, 7));
        let restarted = start(number, life);
        await_half(&restarted);
        line.await_parts(life * CHUNK);
        assert_eq!(rebalances(other), before, "restart {life} moved partitions");
        running[number] = Some(restarted);
    }
    for panoptes in running.into_iter().flatten() {
        panoptes.stop_in_order();
    }
    line.assert_one_whole_result_each(&parts);
}

/// Two instances with one `group.instance.id`: the first one must end and say why.
fn claim_one_identity(name: &str, is_line_running: bool) {
    let line = Line::new(Broker::shared(), name);
    let config = line.exactly_once_config();
    let first = Panoptes::run(&member(&config, "station-7"), &format!("{name}-1"));
    let parts = names(60);
    let (before, after) = parts.split_at(30);
    line.send(shots_of(&line, before, 3));
    if !is_line_running {
        line.await_parts(before.len());
    }
    let second = Panoptes::start(&member(&config, "station-7"), &format!("{name}-2"));
    for chunk in after.chunks(2) {
        line.send(shots_of(&line, chunk, 4));
        if is_line_running {
            std::thread::sleep(PACE); // the producer of the first is fenced in the midst of its work
        }
    }
    let ended = first.await_end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains("group.instance.id"), "{}", ended.log);
    assert!(ended.log.contains("station-7"), "{}", ended.log);
    line.await_parts(parts.len());
    second.stop_in_order();
    line.assert_one_whole_result_each(&parts);
}

#[test]
fn of_two_with_one_instance_id_on_a_quiet_line_the_first_ends_and_says_why() {
    claim_one_identity("one-id-quiet", false);
}

#[test]
fn of_two_with_one_instance_id_on_a_running_line_the_first_ends_and_says_why() {
    claim_one_identity("one-id-running", true);
}

#[cfg(feature = "failpoints")]
#[test]
fn a_batch_that_outlasts_every_deadline_of_the_group_costs_no_partition() {
    const BATCH: Duration = Duration::from_secs(30);
    let line = Line::new(Broker::shared(), "slow-model");
    let config = line
        .exactly_once_config()
        .set("bus.drain_timeout", "20s")
        .set("output.transactions.timeout", "2s")
        // Longer than a busy machine may keep the client's own threads from their heartbeats.
        .property("session.timeout.ms", "15000")
        .property("max.poll.interval.ms", "26000");
    // The first batch alone is slow; more parts than the stages hold, so that reading is held up.
    let fail_points = format!(
        "device-batch=1*sleep({});device-blank-maps=return",
        BATCH.as_millis()
    );
    let variables = [("FAILPOINTS", fail_points.as_str())];
    let mut panoptes = Panoptes::start_with(&config, "slow-model", &variables);
    panoptes.wait_until_ready();
    let parts = names(200);
    let started = Instant::now();
    line.send(shots_of(&line, &parts, 1));
    line.await_parts(1);
    assert!(started.elapsed() >= BATCH, "the fail point did nothing");
    line.await_parts(parts.len());
    let metrics = panoptes.metrics();
    for (kind, times) in [("assigned", 1.0), ("revoked", 0.0), ("lost", 0.0)] {
        let found = metrics.sum("panoptes_rebalances_total", &[("kind", kind)]);
        assert_eq!(found, times, "{kind}");
    }
    panoptes.stop_in_order();
    line.assert_one_whole_result_each(&parts);
}
