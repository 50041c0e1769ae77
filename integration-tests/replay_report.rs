//! `panoptes replay`: what it tells of its results when it is done.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::compare::{check_page, save_model};
use crate::kafka::Broker;
use crate::replay::{Replay, config, made_at, run_live, shift, summary, target, time_of};
use crate::support::line::{Line, VIEWS, names};
use crate::support::outcomes::Outcomes;
use crate::support::process::Panoptes;

/// A threshold that calls half of these parts `ng`.
fn halving_threshold(outcomes: &Outcomes, parts: &[String]) -> f32 {
    let of_parts = outcomes
        .results
        .iter()
        .filter(|record| parts.contains(&record.key));
    let mut scores: Vec<f64> = of_parts.filter_map(|record| record.result.score).collect();
    scores.sort_by(f64::total_cmp);
    let middle = scores.len() / 2;
    f64::midpoint(scores[middle - 1], scores[middle]) as f32
}

/// The parts that two runs decide differently.
fn flipped(then: &Outcomes, now: &Outcomes) -> BTreeSet<String> {
    let differs = |part: &&str| {
        let (then, now) = (then.result_of(part), now.result_of(part));
        then.decision != now.decision
    };
    now.parts()
        .into_iter()
        .filter(differs)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_report_tells_what_changed_in_the_range_and_takes_nothing_else_for_missing() {
    let line = Line::new(Broker::shared(), "replay-report");
    let config = config(&line);
    let parts = names(40);
    line.send(shift(&line, &parts, None));
    let live = run_live(&line, &config, parts.len());
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    save_model(&model, halving_threshold(&live, &parts[10..20]));

    let into = target(&line, "again");
    let page = folder.path().join("page.html");
    let saved = folder.path().join("report.json");
    let replay = Replay::of(&line, &config, &into).with(&["--model", model.to_str().unwrap()]);
    let replay = replay.with(&["--from", &time_of(10), "--to", &time_of(20), "--lead", "8s"]);
    let words = ["--pictures", "2", "--html", page.to_str().unwrap()];
    let replay = replay.with(&words);
    let replay = replay.with(&["--save-json", saved.to_str().unwrap()]);
    let summary = replay.complete();
    let report = &summary["report"];
    let flipped = flipped(&live, &into.outcomes());
    assert!(flipped.len() > 2, "{flipped:?}");
    assert_eq!(report["joined"], 10, "{report}");
    assert_eq!(report["flipped"], flipped.len());
    assert_eq!(report["a"]["topic"], line.results_topic());
    let unpaired = &report["a"]["unpaired"];
    assert_eq!(unpaired["outside_the_range"], parts.len() - 10);
    assert_eq!(unpaired["only_here"]["count"], 0);
    assert_eq!(report["b"]["unpaired"]["only_here"]["count"], 0);
    assert_eq!(report["a"]["closed_early"]["untold"], 0);
    // The line of JSON has those with pictures, the file has all.
    assert_eq!(report["flips"].as_array().unwrap().len(), 2);
    let saved: Value = serde_json::from_slice(&std::fs::read(saved).unwrap()).unwrap();
    let named = saved["flips"].as_array().unwrap().iter();
    let named: BTreeSet<String> = named
        .map(|flip| flip["part_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(named, flipped);
    assert!(check_page(&page)["jpeg"].as_u64().unwrap() > 0);

    // The job is done; what it is compared with may be another topic, or none.
    let summary = replay.with(&["--against", "no-such-results"]).complete();
    assert_eq!(summary["report"], Value::Null);
    let why = summary["report_missing"].as_str().unwrap();
    assert_eq!(why, "results topic `no-such-results` does not exist");
    assert_eq!(into.outcomes().results.len(), 10);
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_anything_is_read() {
    let line = Line::new(Broker::shared(), "replay-unwritten");
    let config = config(&line);
    let into = target(&line, "again");
    let output = Replay::of(&line, &config, &into)
        .with(&["--html", "/proc/no/such/page.html"])
        .run();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("the report could not be written"),
        "{errors}"
    );

    // Nothing in common: the replay has succeeded all the same.
    line.send(line.part("new", 1));
    let replay = Replay::of(&line, &config, &into).with(&["--job", "replay-unwritten-job"]);
    let summary = replay.complete();
    let why = summary["report_missing"].as_str().unwrap();
    assert!(why.contains("found none"), "{why}");
    assert_eq!(into.outcomes().parts(), ["new"].into());
    let summary = replay.with(&["--no-report"]).complete();
    assert_eq!(summary["report"], Value::Null);
    assert_eq!(summary["report_missing"], Value::Null);
}

#[test]
fn a_file_that_cannot_be_written_costs_no_numbers() {
    let line = Line::new(Broker::shared(), "replay-full-disk");
    let config = config(&line);
    line.send(line.part("same", 1));
    run_live(&line, &config, 1);
    let into = target(&line, "again");
    let replay = Replay::of(&line, &config, &into).with(&["--html", "/dev/full"]);
    let output = replay.run();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("cannot write `/dev/full`"), "{errors}");
    assert_eq!(summary(&output)["report"]["joined"], 1);
}

#[test]
fn parts_that_the_wall_clock_closed_are_counted_with_those_that_came_out_differently() {
    let line = Line::new(Broker::shared(), "replay-quiet");
    let config = config(&line)
        .set("reassembly.timeout", "60s")
        .set("reassembly.idle_after", "500ms")
        .set("reassembly.wall_grace", "500ms");
    let mut panoptes = Panoptes::start(&config, &line.name);
    panoptes.wait_until_ready();
    let at =
        |shots: Vec<crate::support::shots::Shot>| shots.into_iter().map(|shot| shot.at(made_at(0)));
    line.send(at(line.part_seen_by("alike", 1, &VIEWS[..4])));
    line.send(at(line.part_seen_by("differs", 2, &VIEWS[..4])));
    // Nothing follows that would move stream time; when they are closed, the last view is late.
    line.await_parts(2);
    line.send(at(line.part_seen_by("differs", 2, &VIEWS[4..])));
    line.await_outcomes(|found| !found.dead_letters.is_empty());
    panoptes.stop_in_order();

    let into = target(&line, "again");
    let summary = Replay::of(&line, &config, &into).complete();
    let report = &summary["report"];
    assert_eq!(report["joined"], 2, "{report}");
    let early = &report["a"]["closed_early"];
    assert_eq!(early["wall_clock"]["count"], 2, "{early}");
    assert_eq!(early["evicted"]["count"], 0);
    assert_eq!(early["differ"]["count"], 1, "{early}");
    let named = early["differ"]["first"][0].as_str().unwrap();
    assert!(named.ends_with("/differs"), "{named}");
    assert!(!into.outcomes().result_of("differs").is_partial);
    assert_eq!(report["b"]["closed_early"]["wall_clock"]["count"], 0);
}
