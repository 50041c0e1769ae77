//! Results, dead letters and offsets in one transaction: a `read_committed` reader finds one result a
//! part, whatever happens to the instances.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::kafka::{Broker, Cluster};
use crate::support::config::Config;
use crate::support::line::{Line, names};
use crate::support::outcome_reader::OutcomeReader;
use crate::support::process::{Metrics, Panoptes};
use crate::support::published::DeadLetter;
use crate::support::seed::seed;
use crate::support::shots::Shot;

/// As long as the instances of a group wait for one that is gone (`session.timeout.ms` of the
/// tests), and some.
const SESSION: Duration = Duration::from_secs(7);

#[test]
fn parts_and_bad_records_are_committed_with_their_offsets() {
    let line = Line::new(Broker::shared(), "transactions");
    let config = line
        .exactly_once_config()
        .set("output.transactions.max_records", 7);
    let panoptes = Panoptes::run(&config, "transactions");
    let parts = names(40);
    line.send(parts.iter().flat_map(|part| line.part(part, 3)));
    let nameless = Shot {
        key: None,
        ..Shot::jpeg(&line.camera("top"), "nameless", 1)
    };
    line.send([nameless]);
    line.await_outcomes(|found| {
        found.parts().len() == parts.len() && !found.dead_letters.is_empty()
    });
    // A look at the group from outside, while it is up: nothing is left to do.
    panoptes.await_metrics("nothing uncommitted", |metrics| {
        metrics.sum("panoptes_uncommitted_records", &[]) == 0.0
    });
    panoptes.stop_in_order();

    let outcomes = line.outcomes();
    outcomes.assert_one_whole_result_each(&parts);
    let reasons: Vec<_> = outcomes
        .dead_letters
        .iter()
        .map(DeadLetter::reason)
        .collect();
    assert_eq!(reasons, ["missing_key"]);
    line.assert_every_record_has_one_fate(&outcomes);
    let lags = crate::kafka::tools::describe_group(line.broker, &line.name);
    assert!(
        lags.iter()
            .all(|position| position.end == 0 || position.lag == Some(0)),
        "{lags:?}"
    );
}

#[test]
fn instances_that_are_killed_at_random_double_and_lose_nothing() {
    const INSTANCES: usize = 3;
    const KILLS: usize = 8;
    const PARTS_A_KILL: usize = 30;
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let line = Line::new(Broker::shared(), "killed");
    let configs: Vec<Config> = (0..INSTANCES)
        .map(|_| line.exactly_once_config().of_another_instance())
        .collect();
    let start = |number: usize, life: usize| {
        Panoptes::start(&configs[number], &format!("killed-{number}-{life}"))
    };
    let mut running: Vec<(usize, Panoptes)> = (0..INSTANCES)
        .map(|number| (number, start(number, 0)))
        .collect();
    for (_, panoptes) in &mut running {
        panoptes.wait_until_ready();
    }
    let parts = names((KILLS + 1) * PARTS_A_KILL);
    let mut shots: Vec<Vec<Shot>> = Vec::new();
    for chunk in parts.chunks(PARTS_A_KILL) {
        shots.push(chunk.iter().flat_map(|part| line.part(part, 2)).collect());
    }
    let mut shots = shots.into_iter();
    line.send(shots.next().unwrap());
    for (life, chunk) in (1..).zip(shots) {
        std::thread::sleep(Duration::from_millis(rng.random_range(100..3000)));
        let (number, victim) = running.swap_remove(rng.random_range(0..INSTANCES));
        victim.kill();
        running.push((number, start(number, life)));
        line.send(chunk);
    }
    line.await_parts(parts.len());
    // What is open now would be published in the meantime.
    std::thread::sleep(Duration::from_secs(2));
    for (_, panoptes) in running {
        panoptes.stop_in_order();
    }
    let outcomes = line.outcomes();
    outcomes.assert_one_whole_result_each(&parts);
    assert!(outcomes.dead_letters.is_empty());
    line.assert_every_record_has_one_fate(&outcomes);
}

/// An instance is frozen past its session while it works, and let go on when another has its partitions.
pub(crate) fn survives_a_freeze(line: &Line<'_>, config: &Config) {
    let first = Panoptes::run(&config.of_another_instance(), &format!("{}-1", line.name));
    let parts = names(90);
    let mut chunks = parts.chunks(30);
    let mut send = || {
        let chunk = chunks.next().unwrap();
        line.send(chunk.iter().flat_map(|part| line.part(part, 5)));
    };
    send();
    line.await_parts(3);
    first.freeze();
    let second = Panoptes::start(&config.of_another_instance(), &format!("{}-2", line.name));
    send();
    std::thread::sleep(SESSION);
    line.await_parts(60);
    first.thaw();
    send();
    line.await_parts(parts.len());
    first.await_metric("panoptes_rebalances_total", &[("kind", "lost")], 1.0);
    first.stop_in_order();
    second.stop_in_order();
    line.assert_one_whole_result_each(&parts);
}

#[test]
fn an_instance_that_comes_back_from_a_freeze_publishes_nothing_that_others_own() {
    let line = Line::new(Broker::shared(), "frozen");
    survives_a_freeze(&line, &line.exactly_once_config());
}

#[test]
fn brokers_that_go_and_come_back_one_at_a_time_double_and_lose_nothing() {
    let cluster = Cluster::start("failover");
    let line = Line::new(&cluster.first, "failover");
    let config = line.exactly_once_config();
    let instances: Vec<Panoptes> = (1..3)
        .map(|number| Panoptes::run(&config.of_another_instance(), &format!("failover-{number}")))
        .collect();
    let parts = names(160);
    let mut chunks = parts.chunks(20).map(|chunk| {
        let shots = chunk.iter().flat_map(|part| line.part(part, 6));
        shots.collect::<Vec<_>>()
    });
    // Killed and stopped in order by turns, each broker both ways.
    for (round, broker) in [0, 1, 1, 0].into_iter().enumerate() {
        let broker = &cluster.others[broker];
        line.send(chunks.next().unwrap());
        match round % 2 {
            0 => broker.kill(),
            _ => broker.stop(),
        }
        line.send(chunks.next().unwrap());
        broker.resume();
    }
    line.await_parts(parts.len());
    instances.into_iter().for_each(Panoptes::stop_in_order);
    let outcomes = line.outcomes();
    outcomes.assert_one_whole_result_each(&parts);
    assert!(outcomes.dead_letters.is_empty());
    line.assert_every_record_has_one_fate(&outcomes);
}

#[test]
fn results_that_their_topic_finds_too_large_go_out_smaller_and_once() {
    const LIMIT: usize = 6_000;
    let line = Line::new(Broker::shared(), "limited");
    line.broker.limit_messages(&line.results_topic(), LIMIT);
    let config = line.exactly_once_config().set("output.maps.side", 128);
    let panoptes = Panoptes::run(&config, "limited");
    // Many to a batch: brokers refuse one that is too large as a whole.
    let parts = names(60);
    line.send(parts.iter().flat_map(|part| line.part(part, 8)));
    line.await_parts(parts.len());
    panoptes.await_metric("panoptes_transaction_aborts_total", &[], 1.0);
    panoptes.stop_in_order();
    let outcomes = line.outcomes();
    outcomes.assert_one_whole_result_each(&parts);
    assert!(
        outcomes
            .results
            .iter()
            .all(|record| record.value.len() < LIMIT)
    );
    let mut views = outcomes
        .results
        .iter()
        .flat_map(|record| &record.result.views);
    assert!(views.any(|view| view.map.is_none()));
}

#[test]
fn a_camera_that_is_gone_does_not_stop_the_others() {
    const PARTS: usize = 560;
    let line = Line::with_views(Broker::shared(), "gone", &["top", "left"]);
    let config = line.exactly_once_config().set("reassembly.timeout", "3s");
    let panoptes = Panoptes::run(&config, "gone");
    let parts = names(PARTS);
    let shots = parts
        .iter()
        .flat_map(|part| line.part_seen_by(part, 3, &["top"]));
    line.send(shots.map(|shot| Shot {
        partition: Some(0),
        ..shot
    }));
    let outcomes = line.await_parts(PARTS);
    panoptes.stop_in_order();
    outcomes.assert_one_result_id_each(parts.iter().map(String::as_str));
    assert!(
        outcomes
            .results
            .iter()
            .all(|record| record.result.is_partial)
    );
}

#[test]
fn a_camera_far_ahead_waits_before_commits_cannot_tell_what_is_finished() {
    const PARTS: usize = 560;
    let line = Line::with_views(Broker::shared(), "crowded", &["top", "left"]);
    let panoptes = Panoptes::run(&line.exactly_once_config(), "crowded");
    let parts = names(PARTS);
    let seen_by = |view: &str| {
        let shots = parts
            .iter()
            .flat_map(|part| line.part_seen_by(part, 3, &[view]));
        let on_one_partition = shots.map(|shot| Shot {
            partition: Some(0),
            ..shot
        });
        on_one_partition.collect::<Vec<_>>()
    };
    let uncommitted = |metrics: &Metrics| metrics.sum("panoptes_uncommitted_records", &[]);
    line.send(seen_by("top"));
    panoptes.await_metrics("500 records unfinished", |metrics| {
        uncommitted(metrics) >= 500.0
    });
    // Long enough for the others, were they not held back.
    std::thread::sleep(Duration::from_secs(3));
    let held = uncommitted(&panoptes.metrics());
    assert!(
        held < PARTS as f64,
        "{held} of {PARTS} records were taken in"
    );
    line.send(seen_by("left"));
    line.await_parts(PARTS);
    panoptes.stop_in_order();
    line.outcomes().assert_one_whole_result_each(&parts);
}

#[test]
fn results_are_on_their_way_before_their_transaction_is_over() {
    let line = Line::new(Broker::shared(), "underway");
    let config = line
        .exactly_once_config()
        .set("output.transactions.interval", "50s")
        .set("output.transactions.timeout", "110s");
    let panoptes = Panoptes::run(&config, "underway");
    let parts = names(2);
    // The first transaction is committed at once; from then on there is one in 50 s.
    line.send(line.part(&parts[0], 3));
    line.await_parts(1);
    line.send(line.part(&parts[1], 3));
    let mut uncommitted = OutcomeReader::with_isolation(&line, "read_uncommitted");
    uncommitted.read_until(Duration::from_secs(40), |found| found.parts().len() == 2);
    assert_eq!(line.outcomes().parts().len(), 1, "committed by then");
    panoptes.stop_in_order();
    line.assert_one_whole_result_each(&parts);
}

/// Ends a process at one step of its third transaction; another one finishes. Whatever is published by
/// then, a view that comes again with other bytes counts for none.
#[cfg(feature = "failpoints")]
fn crash_at(step: &str) {
    let name = format!("crash-{step}");
    let line = Line::new(Broker::shared(), &name);
    let config = line
        .exactly_once_config()
        .set("output.transactions.max_records", 5);
    let fail_points = format!("transaction-{step}=2*off->return");
    let variables = [("FAILPOINTS", fail_points.as_str())];
    let first = Panoptes::start_with(&config, &format!("{name}-1"), &variables);
    let parts = names(40);
    line.send(parts.iter().flat_map(|part| line.part(part, 4)));
    let ended = first.await_end();
    assert_eq!(
        ended.status.code(),
        None,
        "killed by a signal: {}",
        ended.log
    );
    let other_bytes = |part: &String| line.part_seen_by(part, 5, &["top"]);
    line.send(parts.iter().flat_map(other_bytes));
    let second = Panoptes::run(&config, &format!("{name}-2"));
    line.await_outcomes(|found| {
        found.parts().len() == parts.len() && found.dead_letters.len() == parts.len()
    });
    second.stop_in_order();
    line.assert_one_whole_result_each(&parts);
}

#[cfg(feature = "failpoints")]
#[test]
fn a_crash_after_records_are_produced_doubles_and_loses_nothing() {
    crash_at("after-produce");
}

#[cfg(feature = "failpoints")]
#[test]
fn a_crash_before_offsets_are_sent_doubles_and_loses_nothing() {
    crash_at("before-offsets");
}

#[cfg(feature = "failpoints")]
#[test]
fn a_crash_after_closed_parts_are_told_doubles_and_loses_nothing() {
    crash_at("after-closures");
}

#[cfg(feature = "failpoints")]
#[test]
fn a_crash_after_offsets_are_sent_doubles_and_loses_nothing() {
    crash_at("after-offsets");
}

#[cfg(feature = "failpoints")]
#[test]
fn a_crash_after_the_commit_doubles_and_loses_nothing() {
    crash_at("after-commit");
}
