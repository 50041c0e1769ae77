//! Results as other people's programs read them: Kafka's console consumer, and Python with `msgpack`
//! and `jsonschema`, neither of which knows any code of Panoptes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kafka::tools::console_consumer;
use crate::kafka::{Broker, repository};
use crate::support::line::{Line, VIEWS};
use crate::support::outcomes::Outcomes;
use crate::support::process::Panoptes;
use crate::support::published::ResultRecord;

/// A run with whole, partial and unscored views, published in `format`.
fn run_published_as<'a>(
    broker: &'a Broker,
    name: &str,
    format: &str,
    codec: &str,
) -> (Line<'a>, Outcomes) {
    let line = Line::new(broker, name);
    let config = line
        .config()
        .set("output.format", format)
        .set("output.maps.codec", codec);
    let panoptes = Panoptes::run(&config, name);
    for number in 0..4 {
        line.send(line.part(&format!("whole-{number}"), number));
    }
    line.send(line.part_seen_by("partial", 9, &VIEWS[..3]));
    line.await_parts(5);
    panoptes.stop_in_order();
    let outcomes = line.outcomes();
    assert_eq!(outcomes.results.len(), 5);
    for record in &outcomes.results {
        assert_record(record, &line, codec);
    }
    (line, outcomes)
}

fn assert_record(record: &ResultRecord, line: &Line<'_>, codec: &str) {
    let result = &record.result;
    assert_eq!(record.key, result.part_id);
    assert_eq!(result.line, line.name);
    assert!(!result.is_simulated);
    assert!(!result.schema_version.is_null());
    assert_eq!(result.run.kind, "live");
    assert!(!result.run.id.is_empty());
    assert!(!result.model.name.is_empty());
    assert!(result.timing.first_view_at <= result.timing.last_view_at);
    assert!(result.timing.last_view_at <= result.timing.scored_at);
    for (header, value) in [
        ("ce_id", &result.result_id),
        ("ce_subject", &result.part_id),
        ("decision", &result.decision),
        ("class", result.class.as_ref().unwrap()),
        ("model-version", &result.model.version),
    ] {
        assert_eq!(record.headers.get(header), Some(value), "{header}");
    }
    assert_eq!(record.headers["ce_specversion"], "1.0");
    let is_complete = record.headers["closed-by"] == "complete";
    assert!(is_complete || result.is_partial);
    for header in [
        "ce_source",
        "ce_type",
        "ce_time",
        "ce_dataschema",
        "content-type",
    ] {
        assert!(record.headers.contains_key(header), "{header}");
    }
    for view in result.views.iter().filter(|view| view.status == "scored") {
        let map = view.map.as_ref().expect("a scored view has a map");
        assert_eq!(map.codec, codec);
        assert_eq!(map.width.max(map.height), 32);
        assert!(!map.data.is_empty());
    }
}

/// Gives the results to the Python reader with the committed schema; fails the test if it objects.
fn read_with_python(line: &Line<'_>, outcomes: &Outcomes, format: &str) {
    let dump = line.dump(outcomes);
    let schema = format!("schemas/result.v1.{format}.schema.json");
    let output = Command::new(python())
        .arg(repository().join("integration-tests/readers/read_results.py"))
        .arg("--schema")
        .arg(repository().join(schema))
        .args(["--format", format])
        .arg(dump)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(summary["parts"], outcomes.parts().len(), "{summary}");
    assert_eq!(summary["errors"], 0, "{summary}");
}

/// The Python that `make test` sets up, else the one on the path.
fn python() -> PathBuf {
    let own = repository().join("target/python/bin/python");
    if own.exists() {
        own
    } else {
        Path::new("python3").to_owned()
    }
}

#[test]
fn msgpack_results_are_read_by_python_against_the_schema() {
    let (line, outcomes) = run_published_as(Broker::shared(), "as-msgpack", "msgpack", "png");
    read_with_python(&line, &outcomes, "msgpack");
}

#[test]
fn json_results_are_read_by_python_and_by_the_console_consumer() {
    let broker = Broker::shared();
    let (line, outcomes) = run_published_as(broker, "as-json", "json", "zstd");
    read_with_python(&line, &outcomes, "json");
    let printed = console_consumer(broker, &line.results_topic(), 5);
    assert_eq!(printed.len(), 5);
    for text in printed {
        let (key, value) = text.split_once('\t').unwrap();
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        let result = outcomes.result_of(key);
        assert_eq!(value["result_id"], result.result_id.as_str());
        assert_eq!(value["decision"], result.decision.as_str());
    }
}
