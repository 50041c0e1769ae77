//! `panoptes bench`: what its JSON says is what was done, and nothing is left on the brokers.
//!
//! Small sizes and no timed assertions: how fast anything is, these tests do not say.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

use crate::kafka::Broker;
use crate::support::config::quick_model_path;
use crate::support::process::{log_folder, panoptes};

/// Runs a bench and returns what it says.
fn bench(arguments: &[&str]) -> Value {
    let mut words = vec!["bench", "--json"];
    words.extend(arguments);
    let output = panoptes(&log_folder(), &words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_table_and_what_is_saved_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["bench", "maps", "--repeat", "1", "--save", "maps.json"];
    let output = panoptes(folder.path(), &words);
    assert_eq!(output.status.code(), Some(0));
    let table = String::from_utf8(output.stdout).unwrap();
    let saved = std::fs::read(folder.path().join("maps.json")).unwrap();
    let saved: Value = serde_json::from_slice(&saved).unwrap();
    for row in rows(&saved) {
        assert!(table.contains(&row["bytes"].to_string()), "{row}: {table}");
    }
}

fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().unwrap()
}

fn number(row: &Value, name: &str) -> f64 {
    row[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name}: {row}"))
}

/// Topics and groups of benches that are on the broker.
fn remains(broker: &Broker) -> Vec<String> {
    let client: BaseConsumer = broker.client().create().unwrap();
    let timeout = Duration::from_secs(60);
    let metadata = client.fetch_metadata(None, timeout).unwrap();
    let groups = client.fetch_group_list(None, timeout).unwrap();
    let topics = metadata.topics().iter().map(|topic| topic.name());
    let groups = groups.groups().iter().map(|group| group.name());
    let names = topics
        .chain(groups)
        .filter(|name| name.contains("panoptes-bench"));
    names.map(str::to_owned).collect()
}

#[test]
fn what_needs_no_bus_is_measured_without_one() {
    let model = quick_model_path();
    let model = model.to_str().unwrap();
    let report = bench(&[
        "model",
        "--model",
        model,
        "--batch",
        "1,7",
        "--duration",
        "1ms",
    ]);
    let batches: Vec<u64> = rows(&report)
        .iter()
        .map(|row| row["batch"].as_u64().unwrap())
        .collect();
    assert_eq!(batches, [1, 7]);
    assert!(
        rows(&report)
            .iter()
            .all(|row| number(row, "images_per_second") > 0.0)
    );

    let report = bench(&[
        "prepare", "--size", "64x48", "--side", "28", "--repeat", "2",
    ]);
    let encodings: Vec<&str> = rows(&report)
        .iter()
        .map(|row| row["encoding"].as_str().unwrap())
        .collect();
    assert_eq!(encodings, ["jpeg", "png", "mono8", "bayer-rg8"]);
    assert_eq!(rows(&report)[2]["bytes"], 64 * 48);

    let report = bench(&[
        "maps",
        "--repeat",
        "1",
        "--model-side",
        "32",
        "--side",
        "16",
    ]);
    assert_eq!(rows(&report).len(), 2);
    assert!(rows(&report).iter().all(|row| number(row, "bytes") > 0.0));

    let report = bench(&["reassembly", "--parts", "300", "--open", "9"]);
    let closed: f64 = rows(&report)
        .iter()
        .map(|row| number(row, "parts_closed"))
        .sum();
    assert!((closed - 300.0).abs() < 0.5, "{closed}");
}

#[test]
fn a_pipeline_is_measured_on_topics_that_are_gone_afterwards() {
    let broker = Broker::start("bench");
    let brokers = broker.address();
    let common = ["--brokers", &brokers, "--partitions", "2"];
    let small = ["--views", "3", "--view-bytes", "500B"];

    let mut arguments = vec!["pipeline", "--parts", "20", "--rounds", "2"];
    arguments.extend(common.iter().chain(&small).copied());
    arguments.extend(["--beside", "echo first; echo $RECORDS of $BYTES"]);
    let report = bench(&arguments);
    assert_eq!(report["conditions"]["delivery"], "exactly_once");
    assert_eq!(rows(&report).len(), 2);
    for row in rows(&report) {
        assert!(number(row, "parts_per_second") > 0.0);
        assert_eq!(row["beside"], "60 of 30000");
    }

    let mut arguments = vec!["pipeline", "--replay", "--parts", "20", "--instances", "2"];
    arguments.extend(common.iter().chain(&small).copied());
    let report = bench(&arguments);
    assert_eq!(report["conditions"]["replay"], true);
    let row = &rows(&report)[0];
    let [parts, records] = ["parts_per_second", "records_per_second"].map(|name| number(row, name));
    assert!((records - 3.0 * parts).abs() < 1e-6 * records, "{row}");

    let mut arguments = vec!["pipeline", "--parts", "20", "--instances", "2"];
    arguments.extend(common.iter().chain(&small).copied());
    arguments.extend(["--model-time", "20ms"]);
    let report = bench(&arguments);
    assert_eq!(report["conditions"]["instances"], 2);
    assert_eq!(rows(&report).len(), 1);
    assert!(number(&rows(&report)[0], "parts_per_second") > 0.0);

    let mut arguments = vec![
        "latency",
        "--duration",
        "1s",
        "--warm-up",
        "100ms",
        "--capacity",
        "30",
    ];
    arguments.extend(common.iter().chain(&small).copied());
    arguments.extend(["--load", "50,100", "--set", "output.delivery=at_least_once"]);
    let report = bench(&arguments);
    assert_eq!(report["conditions"]["delivery"], "at_least_once");
    let parts: Vec<u64> = rows(&report)
        .iter()
        .map(|row| row["parts"].as_u64().unwrap())
        .collect();
    assert_eq!(parts, [15, 30]);
    for row in rows(&report) {
        assert!(number(row, "since_due_p50_ms") <= number(row, "since_due_max_ms"));
    }

    let mut arguments = vec!["bus", "--parts", "10", "--rounds", "2"];
    arguments.extend(common.iter().chain(&small).copied());
    let report = bench(&arguments);
    let what: Vec<&str> = rows(&report)
        .iter()
        .map(|row| row["what"].as_str().unwrap())
        .collect();
    assert_eq!(what, ["produce", "consume", "consume"]);

    assert_eq!(remains(&broker), Vec::<String>::new());
}

#[test]
fn with_a_model_the_pipeline_is_held_against_the_model_alone() {
    let broker = Broker::shared();
    let model = quick_model_path();
    let report = bench(&[
        "pipeline",
        "--parts",
        "12",
        "--rounds",
        "1",
        "--brokers",
        &broker.address(),
        "--model",
        model.to_str().unwrap(),
        "--set",
        "model.max_batch=10",
    ]);
    let row = &rows(&report)[0];
    let share = number(row, "share_of_model_alone");
    let images = number(row, "parts_per_second") * 5.0;
    let alone = number(row, "model_alone_images_per_second");
    assert!((share - images / alone).abs() < 1e-9, "{row}");
}
