//! `panoptes produce` and `panoptes tail` around `panoptes run`.

use std::fs;
use std::path::Path;

use crate::kafka::Broker;
use crate::support::config::model_classes;
use crate::support::images;
use crate::support::line::{Line, VIEWS};
use crate::support::process::{Panoptes, log_folder, panoptes};

/// Writes `<class>/<part>/<view>.jpg` for the views that the part has.
fn write_part(folder: &Path, class: &str, part: &str, views: &[&str]) {
    let part_folder = folder.join(class).join(part);
    fs::create_dir_all(&part_folder).unwrap();
    for (view, seed) in views.iter().zip(0..) {
        fs::write(part_folder.join(format!("{view}.jpg")), images::jpeg(seed)).unwrap();
    }
}

#[test]
fn a_folder_of_images_is_produced_scored_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let class = &model_classes()[0];
    for part in ["p-1", "p-2", "p-3"] {
        write_part(folder.path(), class, part, &VIEWS);
    }
    write_part(folder.path(), class, "p-4", &VIEWS[..4]);
    let line = Line::new(Broker::shared(), "produced");
    let run = Panoptes::run(&line.config().without("input.class"), "produced");
    let prefix = line.camera("");
    for envelope in ["image", "msgpack"] {
        let printed = text_of(&[
            "produce",
            folder.path().to_str().unwrap(),
            "--brokers",
            &line.broker.address(),
            "--topic-prefix",
            &prefix,
            "--envelope",
            envelope,
            "--line",
            envelope,
        ]);
        assert!(
            printed.contains("19 records of 4 parts to 5 topics"),
            "{printed}"
        );
    }
    // The same parts on two lines are eight parts.
    let outcomes = line.await_outcomes(|outcomes| outcomes.results.len() == 8);
    run.stop_in_order();
    assert!(
        outcomes.dead_letters.is_empty(),
        "{:?}",
        outcomes.dead_letters
    );
    for record in &outcomes.results {
        let result = &record.result;
        assert_eq!(result.class.as_ref(), Some(class));
        let missing: &[&str] = if result.part_id == "p-4" {
            &["back"]
        } else {
            &[]
        };
        assert_eq!(result.views_with_status("missing"), missing);
    }
}

#[test]
fn tail_prints_results_and_saves_their_maps() {
    let line = Line::new(Broker::shared(), "tail");
    let run = Panoptes::run(&line.config(), "tail");
    line.send(line.part("part-1", 1));
    line.send(line.part("part-2", 2));
    line.await_parts(2);
    run.stop_in_order();
    let outcomes = line.outcomes();
    let folder = tempfile::tempdir().unwrap();
    let (brokers, topic) = (line.broker.address(), line.results_topic());
    let arguments = [
        "tail",
        "--brokers",
        &brokers,
        "--topic",
        &topic,
        "--from-beginning",
    ];

    let readable = text_of(&arguments);
    let json = text_of(&[&arguments[..], &["--json"]].concat());
    for part in ["part-1", "part-2"] {
        assert!(readable.contains(part), "{readable}");
        assert!(
            readable.contains(&outcomes.result_of(part).decision),
            "{readable}"
        );
    }
    assert_eq!(json.lines().count(), 2, "{json}");
    for text in json.lines() {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let result = outcomes.result_of(value["part_id"].as_str().unwrap());
        assert_eq!(value["result_id"], result.result_id.as_str());
    }
    let maps = folder.path().to_str().unwrap();
    text_of(&[&arguments[..], &["--save-maps", maps]].concat());
    let map = image::open(folder.path().join("part-1/top.png")).unwrap();
    assert_eq!((map.width(), map.height()), (32, 32));
}

fn text_of(arguments: &[&str]) -> String {
    let output = panoptes(&log_folder(), arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
