//! `panoptes produce` and `panoptes tail` around `panoptes run`.

use crate::kafka::Broker;
use crate::support::line::Line;
use crate::support::process::{Panoptes, log_folder, panoptes};

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
