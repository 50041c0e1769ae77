//! `panoptes compare` on what two models say of the same parts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use panoptes::model::bundle::{Bundle, Precision};
use serde_json::Value;

use crate::kafka::{Broker, repository};
use crate::output_topics::{broker_with_rights, forbid};
use crate::replay_retention::abort_a_transaction;
use crate::support::config::{model_classes, quick_model_path};
use crate::support::line::{Line, VIEWS, names};
use crate::support::outcomes::Outcomes;
use crate::support::process::{Panoptes, log_folder, panoptes};
use crate::support::shots::Shot;

const WHOLE_PARTS: usize = 12;

/// The quick model under another version, with this threshold for the tests' class.
pub(crate) fn save_model(folder: &Path, threshold: f32) {
    let mut bundle = Bundle::load(&quick_model_path()).unwrap();
    bundle.manifest.version = "other".to_owned();
    let class = bundle
        .manifest
        .classes
        .get_mut(&model_classes()[0])
        .unwrap();
    class.threshold = threshold;
    class.calibration = None;
    Bundle::save(folder, &bundle.manifest, &bundle.tensors, Precision::Half).unwrap();
}

/// The threshold that calls half of the whole parts `ng`.
fn halving_threshold(outcomes: &Outcomes) -> f32 {
    let whole = outcomes
        .results
        .iter()
        .filter(|record| !record.result.is_partial);
    let mut scores: Vec<f64> = whole.map(|record| record.result.score.unwrap()).collect();
    scores.sort_by(f64::total_cmp);
    let middle = scores.len() / 2;
    assert!(scores[middle - 1] < scores[middle], "{scores:?}");
    f64::midpoint(scores[middle - 1], scores[middle]) as f32
}

/// Two runs over the same cameras with different thresholds; the second sees one part more.
fn run_twice<'a>(broker: &'a Broker, name: &str, folder: &Path) -> [Line<'a>; 2] {
    let line = Line::new(broker, name);
    let first = Panoptes::run(&line.config(), &format!("{name}-a"));
    for (part, seed) in names(WHOLE_PARTS).iter().zip(0..) {
        line.send(line.part(part, seed));
    }
    line.send(line.part_seen_by("partial", 50, &VIEWS[..3]));
    line.await_parts(WHOLE_PARTS + 1);
    first.stop_in_order();
    save_model(folder, halving_threshold(&line.outcomes()));

    line.send(line.part("only-b", 60));
    let name = format!("{name}-b");
    let other = Line::new(broker, &name);
    let config = other
        .config()
        .set("input.topics", line.camera_topics())
        .set("input.line", line.name.as_str())
        .set("output.format", "json")
        .set("output.maps.codec", "zstd")
        .set("model.path", folder.to_str().unwrap());
    let second = Panoptes::run(&config, &name);
    other.await_parts(WHOLE_PARTS + 2);
    second.stop_in_order();
    [line, other]
}

/// One result of A comes twice, and B's topic holds a record that is none, and others that were aborted.
fn spoil(lines: &[Line<'_>; 2], outcomes: &Outcomes) {
    let again = &outcomes.results[0];
    let shot = |topic: String, value: &[u8]| {
        Shot::of(&topic, &again.key, "application/msgpack", value.to_vec())
    };
    lines[0].send([shot(lines[0].results_topic(), &again.value)]);
    lines[0].send([shot(lines[1].results_topic(), b"hello")]);
    abort_a_transaction(&lines[1], &lines[1].results_topic(), 3);
}

fn compare(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = panoptes(&log_folder(), &[&["compare"], arguments].concat());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Line and part of every example and flip.
fn parts(flips: &Value) -> BTreeSet<String> {
    let flips = flips.as_array().unwrap().iter();
    flips
        .map(|flip| flip["part_id"].as_str().unwrap().to_owned())
        .collect()
}

/// Fails the test unless every tag of the page is closed, every reference leads somewhere, and
/// nothing is asked for from outside.
pub(crate) fn check_page(page: &Path) -> Value {
    let output = Command::new("python3")
        .arg(repository().join("integration-tests/readers/read_page.py"))
        .arg(page)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn exactly_the_parts_that_flipped_are_named_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::shared();
    let lines = run_twice(broker, "compared", &folder.path().join("model"));
    let outcomes = [lines[0].outcomes(), lines[1].outcomes()];
    spoil(&lines, &outcomes[0]);
    // Retention has taken the images of one camera.
    broker.delete_records(&lines[0].camera("top"));
    let decided: Vec<BTreeMap<&str, &str>> = outcomes
        .iter()
        .map(|outcomes| {
            let results = outcomes.results.iter().map(|record| &record.result);
            results
                .map(|it| (it.part_id.as_str(), it.decision.as_str()))
                .collect()
        })
        .collect();
    let flipped: BTreeSet<String> = decided[0]
        .iter()
        .filter(|(part, decision)| decided[1][*part] != **decision)
        .map(|(part, _)| (*part).to_owned())
        .collect();
    assert_eq!(flipped.len(), WHOLE_PARTS / 2, "{decided:?}");

    let (address, topics) = (broker.address(), lines.each_ref().map(Line::results_topic));
    let page = folder.path().join("report.html");
    let saved = folder.path().join("report.json");
    let mut arguments = vec![topics[0].as_str(), &topics[1], "--brokers", &address];
    let (code, printed, errors) = compare(&arguments);
    assert_eq!(code, Some(0), "{errors}");
    for part in &flipped {
        assert!(printed.contains(part.as_str()), "{printed}");
    }
    arguments.extend(["--json", "--html", page.to_str().unwrap()]);
    arguments.extend(["--save-json", saved.to_str().unwrap()]);
    // Meant for cameras, these change nothing here.
    arguments.extend(["-X", "auto.offset.reset=error", "-X", "client.rack=far"]);
    let (code, json, errors) = compare(&arguments);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(std::fs::read_to_string(&saved).unwrap(), json);
    let found: Value = serde_json::from_str(&json).unwrap();

    assert_eq!(found["joined"], WHOLE_PARTS + 1);
    assert_eq!(parts(&found["flips"]), flipped);
    assert_eq!(found["flipped"], flipped.len());
    assert_eq!(
        found["b"]["unpaired"]["only_here"]["first"][0],
        "compared/only-b"
    );
    assert_eq!(found["a"]["unpaired"]["only_here"]["count"], 0);
    assert_eq!(found["a"]["repeated"]["count"], 1);
    assert_eq!(found["b"]["unreadable"]["count"], 1);
    assert_eq!(
        found["b"]["models"]["demo other"],
        WHOLE_PARTS + 2,
        "{}",
        found["b"]["models"]
    );
    check_views(&found["flips"], &outcomes);

    let shown = check_page(&page);
    // Five views of each part, of which one's image is gone.
    assert_eq!(shown["jpeg"], flipped.len() * 4, "{shown}");
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("image not shown").count(), flipped.len());
    assert!(page.contains("deleted by retention"));
}

/// Fails the test unless the flips have the scores of their views as the results have them.
fn check_views(flips: &Value, outcomes: &[Outcomes; 2]) {
    for flip in flips.as_array().unwrap() {
        let part = flip["part_id"].as_str().unwrap();
        let views = flip["views"].as_array().unwrap();
        assert_eq!(views.len(), VIEWS.len(), "{flip}");
        for view in views {
            let name = view["view"].as_str().unwrap();
            for (side, outcomes) in ["a", "b"].iter().zip(outcomes) {
                let score = outcomes.result_of(part).view(name).score.unwrap();
                let found = view[*side]["score"].as_f64().unwrap();
                assert!(
                    (found - score).abs() < 1e-6,
                    "{part} {name}: {found} {score}"
                );
            }
        }
    }
}

#[test]
fn images_that_may_not_be_read_cost_nothing_else() {
    let broker = broker_with_rights("compared-rights");
    let folder = tempfile::tempdir().unwrap();
    let lines = run_twice(&broker, "compared-rights", &folder.path().join("model"));
    let camera = lines[0].camera("top");
    forbid(&broker, "Read", &["--topic", &camera]);
    let (address, topics) = (broker.address(), lines.each_ref().map(Line::results_topic));
    let page = folder.path().join("report.html");
    let mut arguments = vec![topics[0].as_str(), &topics[1], "--brokers", &address];
    arguments.extend(["--json", "--html", page.to_str().unwrap()]);
    let (code, json, errors) = compare(&arguments);
    assert_eq!(code, Some(0), "{errors}");
    let found: Value = serde_json::from_str(&json).unwrap();
    let flipped = found["flips"].as_array().unwrap().len();
    assert_eq!(flipped, WHOLE_PARTS / 2);
    assert_eq!(check_page(&page)["jpeg"], flipped * 4);
    let page = std::fs::read_to_string(page).unwrap();
    let told =
        format!("that are not shown: {flipped} of topic `{camera}`, which could not be read");
    assert!(page.contains(&told), "{told}");
    assert!(page.contains("Topic authorization failed"));
}

#[test]
fn what_cannot_be_compared_is_named() {
    let broker = Broker::shared();
    let address = broker.address();
    let lines = ["uncompared", "uncompared-b"].map(|name| Line::new(broker, name));
    let topics = lines.each_ref().map(Line::results_topic);
    let error = |a: &str, b: &str| {
        let (code, printed, errors) = compare(&[a, b, "--brokers", &address]);
        assert_eq!(printed, "");
        (code, errors)
    };
    let (code, errors) = error(&topics[0], &topics[0]);
    assert_eq!(code, Some(2));
    assert!(
        errors.contains("expected two results topics, found `uncompared.results` twice"),
        "{errors}"
    );
    let (code, errors) = error(&topics[0], "no-such-results");
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("topic `no-such-results` does not exist"),
        "{errors}"
    );
    let (code, errors) = error(&topics[0], &topics[1]);
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("found none: `uncompared.results` has 0 results; "),
        "{errors}"
    );
}
