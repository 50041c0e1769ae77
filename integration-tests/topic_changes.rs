//! Camera topics that are created, deleted or repartitioned while instances run.

use std::time::Duration;

use crate::kafka::Broker;
use crate::support::line::{Line, PARTITIONS, names};
use crate::support::process::Panoptes;
use crate::support::shots::Shot;

fn shots_of(line: &Line<'_>, parts: &[String], views: &[&str]) -> Vec<Shot> {
    parts
        .iter()
        .flat_map(|part| line.part_seen_by(part, 3, views))
        .collect()
}

#[test]
fn a_new_topic_with_another_partition_count_ends_the_process_by_name() {
    let line = Line::with_views(Broker::shared(), "odd-one", &["top", "side"]);
    let config = line
        .exactly_once_config()
        .without("input.topics")
        .set("input.topic_regex", r"^odd-one\.cam\..+$");
    let panoptes = Panoptes::run(&config, "odd-one");
    panoptes.await_assigned(2 * PARTITIONS);
    let odd = line.camera("odd");
    line.broker.create_topic(&odd, PARTITIONS + 1);
    let ended = panoptes.await_end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(
        ended
            .log
            .contains(&format!("`{odd}` has {}", PARTITIONS + 1)),
        "{}",
        ended.log
    );
}

#[test]
fn a_topic_that_is_deleted_holds_nothing_up_and_is_taken_in_again() {
    delete_a_topic("deleted", "exactly_once");
}

#[test]
fn a_topic_that_is_deleted_holds_nothing_up_under_at_least_once_either() {
    delete_a_topic("deleted-at-least", "at_least_once");
}

fn delete_a_topic(name: &str, delivery: &str) {
    let all = ["top", "left", "spare"];
    let line = Line::with_views(Broker::shared(), name, &all);
    let config = line
        .exactly_once_config()
        .set("output.delivery", delivery)
        .set("reassembly.timeout", "3s");
    // A slow model, where there are fail points: so that offsets of the topic are yet to be committed
    // when it goes.
    let variables = [("FAILPOINTS", "device-batch=sleep(700)")];
    let mut panoptes = Panoptes::start_with(&config, name, &variables);
    panoptes.wait_until_ready();
    let parts = names(90);
    let (before, rest) = parts.split_at(30);
    let (without, again) = rest.split_at(30);
    line.send(shots_of(&line, before, &all));
    line.await_parts(before.len());
    line.send(shots_of(&line, without, &all));
    let spare = line.camera("spare");
    line.broker.delete_topic(&spare);
    panoptes.await_assigned(2 * PARTITIONS);
    panoptes.await_log("a camera topic is gone");
    line.await_parts(before.len() + without.len());
    line.broker.create_topic(&spare, PARTITIONS);
    panoptes.await_assigned(3 * PARTITIONS);
    let shots = shots_of(&line, again, &all);
    line.send_placed_by("consistent_random", shots);
    line.await_parts(parts.len());
    assert_eq!(
        panoptes
            .metrics()
            .sum("panoptes_pipeline_rebuilds_total", &[]),
        0.0
    );
    panoptes.stop_in_order();
    let outcomes = line.outcomes();
    outcomes.assert_one_result_id_each(parts.iter().map(String::as_str));
    for part in before.iter().chain(again) {
        assert_eq!(outcomes.result_of(part).views_with_status("scored"), all);
    }
}

#[test]
fn topics_that_are_repartitioned_one_by_one_are_waited_for() {
    let views = ["top", "left", "right"];
    let line = Line::with_views(Broker::shared(), "grown", &views);
    let config = line.exactly_once_config();
    let instances = [1, 2].map(|number| {
        let name = format!("grown-{number}");
        Panoptes::run(&config.of_another_instance(), &name)
    });
    for panoptes in &instances {
        panoptes.await_assigned(3 * PARTITIONS / 2);
    }
    let parts = names(80);
    let (before, after) = parts.split_at(40);
    line.send(shots_of(&line, before, &views));
    line.await_parts(before.len());
    for topic in line.camera_topics() {
        line.broker.repartition(&topic, 2 * PARTITIONS as usize);
        // Longer than the group takes to notice: counts are seen to be unequal.
        std::thread::sleep(Duration::from_secs(12));
    }
    for panoptes in &instances {
        panoptes.await_assigned(3 * PARTITIONS);
    }
    line.send_placed_by("consistent_random", shots_of(&line, after, &views));
    line.await_parts(parts.len());
    for panoptes in instances {
        panoptes.stop_in_order();
    }
    line.assert_one_whole_result_each(&parts);
}

#[test]
fn an_instance_that_reads_more_topics_than_another_waits_until_their_views_meet() {
    let views = ["top", "left", "right"];
    let line = Line::with_views(Broker::shared(), "wider", &views);
    let config = line.exactly_once_config();
    let narrow = config
        .of_another_instance()
        .set(
            "input.topics",
            vec![line.camera("top"), line.camera("left")],
        )
        .set("views.default", vec!["top".to_owned(), "left".to_owned()]);
    let first = Panoptes::run(&narrow, "wider-1");
    let second = Panoptes::start(&config.of_another_instance(), "wider-2");
    second.await_answer("/livez", 200);
    // Two numbers of all topics, and the rest of the one that it reads alone.
    second.await_assigned(2 * PARTITIONS);
    second.await_log("nothing is read");
    second.await_unready(
        "reading has not begun, or is held: the views of a part might not meet, see the log",
    );
    let parts = names(30);
    first.stop_in_order();
    second.await_assigned(3 * PARTITIONS);
    second.await_answer("/readyz", 200);
    line.send(shots_of(&line, &parts, &views));
    line.await_parts(parts.len());
    second.stop_in_order();
    line.assert_one_whole_result_each(&parts);
}
