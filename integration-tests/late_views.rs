//! A view that comes after its part was published is late, whoever reads it: the same process, one that
//! was started anew, or another instance.

use serde_json::json;

use crate::kafka::{Broker, tools};
use crate::support::config::Config;
use crate::support::line::{Line, VIEWS};
use crate::support::process::Panoptes;
use crate::support::shots::Shot;

/// A part whose camera `back` is late, published without it.
fn publish_without_back(line: &Line<'_>) {
    line.send(line.part_seen_by("slow", 1, &VIEWS[..4]));
    let outcomes = line.await_parts(1);
    let result = outcomes.result_of("slow");
    assert_eq!(result.views_with_status("missing"), ["back"]);
}

/// The late view, a copy of one that was used, and another image of that one; then a whole part.
fn send_what_is_late(line: &Line<'_>) {
    line.send(line.part_seen_by("slow", 1, &["back"]));
    line.send(line.part_seen_by("slow", 1, &["top"]));
    line.send(line.part_seen_by("slow", 2, &["top"]));
    line.send(line.part("next", 3));
}

/// One result of each part, dead letters of what differs, nothing of the copy.
fn assert_late(line: &Line<'_>) {
    line.await_outcomes(|found| found.parts().len() == 2 && found.dead_letters.len() == 2);
    let outcomes = line.outcomes();
    outcomes.assert_one_result_id_each(["slow", "next"]);
    assert_eq!(outcomes.results.len(), 2, "{:?}", outcomes.results);
    let letters = outcomes.dead_letters_of("slow");
    let mut told: Vec<(String, String)> = letters
        .iter()
        .map(|letter| (letter.place().0, letter.reason()))
        .collect();
    told.sort();
    let letter = |view: &str, reason: &str| (line.camera(view), reason.to_owned());
    assert_eq!(told, [letter("back", "late"), letter("top", "duplicate")]);
}

fn stays_late_after_a_restart(name: &str, config: impl Fn(&Line<'_>) -> Config) {
    let line = Line::new(Broker::shared(), name);
    let config = config(&line).set("reassembly.timeout", "1s");
    let panoptes = Panoptes::run(&config, &format!("{name}-1"));
    publish_without_back(&line);
    panoptes.stop_in_order();
    send_what_is_late(&line);
    let panoptes = Panoptes::run(&config, &format!("{name}-2"));
    assert_late(&line);
    panoptes.stop_in_order();
    let lags = tools::describe_group(line.broker, &line.name);
    let is_read = |position: &tools::GroupPosition| position.end == 0 || position.lag == Some(0);
    assert!(lags.iter().all(is_read), "{lags:?}");
}

#[test]
fn a_view_stays_late_after_a_restart_exactly_once() {
    stays_late_after_a_restart("late-exactly-once", |line| line.exactly_once_config());
}

#[test]
fn a_view_stays_late_after_a_restart_at_least_once() {
    stays_late_after_a_restart("late-at-least-once", |line| line.config());
}

#[test]
fn a_view_is_late_for_the_instance_that_takes_over_from_one_that_was_killed() {
    let line = Line::new(Broker::shared(), "late-elsewhere");
    let config = line.exactly_once_config().set("reassembly.timeout", "1s");
    let first = Panoptes::run(&config, "late-elsewhere-1");
    publish_without_back(&line);
    let second = Panoptes::run(&config.of_another_instance(), "late-elsewhere-2");
    first.kill();
    second.await_assigned(5 * line.partitions);
    send_what_is_late(&line);
    assert_late(&line);
    second.stop_in_order();
}

#[test]
fn the_topic_of_closed_parts_is_created_like_the_camera_topics_and_tells_of_each_part_once() {
    let line = Line::with_views(Broker::shared(), "late-topic", &["top", "side"]);
    let panoptes = Panoptes::run(&line.exactly_once_config(), "late-topic");
    line.send(line.part("one", 1));
    line.send(line.part("two", 2));
    line.await_parts(2);
    panoptes.stop_in_order();
    let topic = line.closed_parts_topic();
    let partitions = format!("PartitionCount: {}", line.partitions);
    let described = tools::describe_topic(line.broker, &topic);
    assert!(described.contains(&partitions), "{described}");
    let mut keys = tools::console_keys(line.broker, &topic, 2);
    keys.sort_unstable();
    assert_eq!(keys, ["one", "two"]);
}

#[test]
#[ignore = "a measurement: `cargo test --release --test integration -- --ignored --nocapture learning`"]
fn learning_a_hundred_thousand_closed_parts() {
    const PARTS: i64 = 100_000;
    let line = Line::of(Broker::shared(), "late-many", &VIEWS, 1);
    line.broker.create_topic(&line.closed_parts_topic(), 1);
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let hour = i64::try_from(now.as_millis()).unwrap() + 3_600_000;
    line.send((0..PARTS).map(|number| {
        let place =
            |view: &str| json!({"topic": line.camera(view), "partition": 0, "offset": number});
        let part = format!("part-{number}");
        let closed = json!({
            "schema_version": 1, "group_id": line.name, "line": line.name, "part_id": part,
            "opened_by": place("top"), "taken_after": hour, "written_after": hour,
            "views": VIEWS.map(|view| json!({"view": view, "hash": number, "length": number})),
            "records": VIEWS.map(place),
        });
        let value = rmp_serde::to_vec_named(&closed).unwrap();
        Shot::of(
            &line.closed_parts_topic(),
            &part,
            "application/msgpack",
            value,
        )
    }));
    let panoptes = Panoptes::run(&line.exactly_once_config(), "late-many");
    panoptes.await_log("learnt which parts are closed");
    let log = panoptes.log_text();
    let learnt = log.lines().find(|line| line.contains("learnt which parts"));
    println!(
        "{}, {} bytes resident",
        learnt.unwrap(),
        panoptes.resident_bytes()
    );
    panoptes.stop_in_order();
}
