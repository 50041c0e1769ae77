//! How topics become views.

use crate::kafka::Broker;
use crate::support::line::Line;
use crate::support::process::Panoptes;
use crate::support::shots::Shot;

#[test]
fn a_regex_finds_the_camera_topics_also_those_created_later() {
    let line = Line::with_views(Broker::shared(), "by-regex", &["top", "side"]);
    let config = line
        .config()
        .without("input.topics")
        .set("input.topic_regex", r"^by-regex\.cam\..+$")
        .set(
            "views.default",
            vec!["top".to_owned(), "side".to_owned(), "end".to_owned()],
        )
        .set("reassembly.timeout", "60s");
    let panoptes = Panoptes::run(&config, "by-regex");
    let found = f64::from(2 * line.partitions);
    panoptes.await_metric("panoptes_assigned_partitions", &[], found);
    let end = line.camera("end");
    line.broker.create_topic(&end, line.partitions);
    let parts: Vec<String> = (0..6).map(|number| format!("part-{number}")).collect();
    for part in &parts {
        line.send(line.part(part, 1));
        line.send([Shot::jpeg(&end, part, 9)]);
    }
    line.await_parts(parts.len());
    panoptes.stop_in_order();
    let outcomes = line.outcomes();
    outcomes.assert_one_result_id_each(parts.iter().map(String::as_str));
    for part in &parts {
        let result = outcomes.result_of(part);
        assert_eq!(result.views_with_status("scored"), ["top", "side", "end"]);
    }
    assert!(
        outcomes.dead_letters.is_empty(),
        "{:?}",
        outcomes.dead_letters
    );
}

#[test]
fn one_topic_serves_all_cameras_through_the_view_header() {
    let line = Line::with_views(Broker::shared(), "shared-topic", &["all"]);
    let topic = line.camera("all");
    let views = ["top", "left", "right"];
    let config = line
        .config()
        .set("views.default", views.map(str::to_owned).to_vec());
    let panoptes = Panoptes::run(&config, "shared-topic");
    let parts: Vec<String> = (0..10).map(|number| format!("part-{number}")).collect();
    line.send(views.iter().zip(0..).flat_map(|(view, seed)| {
        let topic = topic.clone();
        parts
            .iter()
            .map(move |part| Shot::jpeg(&topic, part, seed).header("view", view))
    }));
    line.await_parts(parts.len());
    panoptes.stop_in_order();
    let outcomes = line.outcomes();
    for part in &parts {
        assert_eq!(outcomes.result_of(part).views_with_status("scored"), views);
    }
    assert!(
        outcomes.dead_letters.is_empty(),
        "{:?}",
        outcomes.dead_letters
    );
}

#[test]
fn class_line_views_and_capture_time_come_from_headers() {
    let line = Line::with_views(Broker::shared(), "by-header", &["top", "side"]);
    let panoptes = Panoptes::run(&line.config().without("input.class"), "by-header");
    let shots = line.part("part-1", 1).into_iter().map(|shot| {
        shot.header("class", "unheard-of")
            .header("line", "line-of-its-own")
            .header("views", "2")
            .header("captured-at", "2026-03-01T12:00:00.250Z")
    });
    line.send(shots);
    line.await_parts(1);
    panoptes.stop_in_order();
    let outcomes = line.outcomes();
    let result = outcomes.result_of("part-1");
    assert_eq!(result.class.as_deref(), Some("unheard-of"));
    assert_eq!(result.line, "line-of-its-own");
    assert_eq!(result.views.len(), 2);
    assert!(
        result
            .views
            .iter()
            .all(|view| view.captured_at == Some(1_772_366_400_250))
    );
    assert_eq!(
        (result.decision.as_str(), result.threshold),
        ("review", None)
    );
}

#[test]
fn unequal_partition_counts_are_refused_by_name() {
    let line = Line::with_views(Broker::shared(), "unequal", &["top"]);
    let side = line.camera("side");
    line.broker.create_topic(&side, line.partitions + 1);
    let config = line
        .config()
        .set("input.topics", vec![line.camera("top"), side.clone()])
        .set("views.default", vec!["top".to_owned(), "side".to_owned()]);
    let ended = Panoptes::start(&config, "unequal").await_end();
    assert_ne!(ended.status.code(), Some(0));
    assert!(ended.log.contains(&side), "{}", ended.log);
}
