//! Wrong settings end the program with code 2, all problems named, before any I/O.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::config::Config;
use crate::support::process::{log_folder, panoptes, write_config};

fn run(config: &Config, name: &str) -> Output {
    let path = write_config(config, name);
    panoptes(&log_folder(), &["run", "--config", path.to_str().unwrap()])
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_problem_is_named_before_anything_is_opened() {
    // Neither the broker nor the bundle exists: a program that looked would say so, or hang.
    let config = Config::default()
        .set("bus.brokers", "nonsense")
        .set("bus.group_id", "")
        .set("input.topics", vec!["a.top".to_owned(), "b c".to_owned()])
        .set("input.topic_regex", "^a(")
        .set("reassembly.timeout", "0s")
        .set("reassembly.memory_low", 0.9)
        .set("model.max_batch", 0)
        .set("output.results_topic", "same")
        .set("output.dead_letter_topic", "same")
        .property("group.id", "stolen");
    let started = Instant::now();
    let output = run(&config, "config-problems");
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(output.status.code(), Some(2));
    let text = printed(&output);
    for key in [
        "bus.brokers",
        "bus.group_id",
        "input.topic_regex",
        "b c",
        "reassembly.timeout",
        "reassembly.memory_low",
        "model.max_batch",
        "output.dead_letter_topic",
        "group.id",
    ] {
        assert!(text.contains(key), "`{key}` is not named in: {text}");
    }
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let config = Config::default()
        .set("input.topics", vec!["a.top".to_owned()])
        .set("reassembly.timeuot", "5s");
    let output = run(&config, "config-unknown-key");
    assert_eq!(output.status.code(), Some(2));
    assert!(printed(&output).contains("timeuot"), "{}", printed(&output));
}

#[test]
fn a_property_that_the_client_would_refuse_is_found_before_it_is_asked() {
    let config = Config::default()
        .set("input.topics", vec!["a.top".to_owned()])
        .property("sesion.timeout.ms", "6000")
        .property("fetch.wait.max.ms", "soon");
    let output = run(&config, "config-property");
    assert_eq!(output.status.code(), Some(2));
    for name in ["sesion.timeout.ms", "fetch.wait.max.ms"] {
        assert!(printed(&output).contains(name), "{}", printed(&output));
    }
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    let output = panoptes(&log_folder(), &["run", "--no-such-flag"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_configuration_file_that_is_not_there_is_named() {
    let output = panoptes(&log_folder(), &["run", "--config", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        printed(&output).contains("nowhere.toml"),
        "{}",
        printed(&output)
    );
}

#[test]
fn the_environment_wins_over_the_file_and_secrets_stay_secret() {
    let config = Config::default()
        .set("input.topics", vec!["a.top".to_owned()])
        .property("sasl.password", "hunter2");
    let path = write_config(&config, "config-layers");
    let output = crate::support::process::binary()
        .args(["config", "show", "--config", path.to_str().unwrap()])
        .env("PANOPTES__BUS__GROUP_ID", "from-environment")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("from-environment"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
