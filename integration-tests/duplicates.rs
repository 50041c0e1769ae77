//! Views that come twice, or after their part was published.

use crate::kafka::Broker;
use crate::support::line::{Line, VIEWS};
use crate::support::outcomes::Outcomes;
use crate::support::process::Panoptes;
use crate::support::shots::Shot;

/// A part whose camera `top` fires twice with different images before `back` completes it.
fn run_with_a_duplicate(name: &str, policy: &str) -> (Outcomes, Vec<Shot>) {
    let line = Line::new(Broker::shared(), name);
    let config = line
        .config()
        .set("reassembly.duplicates", policy)
        .set("reassembly.timeout", "2m");
    let panoptes = Panoptes::run(&config, name);
    let tops = vec![
        Shot::jpeg(&line.camera("top"), "twice", 100),
        Shot::jpeg(&line.camera("top"), "twice", 200),
    ];
    line.send(tops.clone());
    line.send(line.part_seen_by("twice", 1, &VIEWS[1..4]));
    // The part must not be complete before the second `top` was read.
    wait_for_records(&panoptes, 5.0);
    line.send(line.part_seen_by("twice", 2, &VIEWS[4..]));
    line.await_outcomes(|outcomes| outcomes.parts().len() == 1 && outcomes.dead_letters.len() == 1);
    panoptes.stop_in_order();
    let outcomes = line.outcomes();
    line.assert_every_record_has_one_fate(&outcomes);
    (outcomes, tops)
}

fn wait_for_records(panoptes: &Panoptes, count: f64) {
    panoptes.await_metric("panoptes_records_total", &[], count);
}

#[test]
fn the_first_of_two_views_counts_under_first_wins() {
    let (outcomes, tops) = run_with_a_duplicate("first-wins", "first_wins");
    let letter = outcomes.dead_letter_of("twice");
    assert_eq!(letter.reason(), "duplicate");
    assert_eq!(letter.value, tops[1].value);
    let result = outcomes.result_of("twice");
    assert!(!result.is_partial);
    assert_eq!(result.view("top").source.as_ref().unwrap().offset, 0);
}

#[test]
fn the_last_of_two_views_counts_under_last_wins() {
    let (outcomes, tops) = run_with_a_duplicate("last-wins", "last_wins");
    let letter = outcomes.dead_letter_of("twice");
    assert_eq!(letter.reason(), "duplicate");
    assert_eq!(letter.value, tops[0].value);
    let result = outcomes.result_of("twice");
    assert!(!result.is_partial);
    assert_eq!(result.view("top").source.as_ref().unwrap().offset, 1);
}

#[test]
fn a_byte_identical_redelivery_is_silent() {
    let line = Line::new(Broker::shared(), "redelivered");
    let config = line.config().set("reassembly.timeout", "2m");
    let panoptes = Panoptes::run(&config, "redelivered");
    let top = Shot::jpeg(&line.camera("top"), "again", 7);
    line.send([top.clone(), top.clone(), top]);
    line.send(line.part_seen_by("again", 1, &VIEWS[1..4]));
    wait_for_records(&panoptes, 6.0);
    line.send(line.part_seen_by("again", 2, &VIEWS[4..]));
    line.await_parts(1);
    panoptes.stop_in_order();
    let outcomes = line.outcomes();
    assert!(
        outcomes.dead_letters.is_empty(),
        "{:?}",
        outcomes.dead_letters
    );
    assert!(!outcomes.result_of("again").is_partial);
}

#[test]
fn a_view_after_its_parts_result_is_late() {
    let line = Line::new(Broker::shared(), "late");
    let panoptes = Panoptes::run(&line.config().set("reassembly.timeout", "2s"), "late");
    line.send(line.part_seen_by("early", 1, &VIEWS[..4]));
    line.await_parts(1);
    let late = Shot::jpeg(&line.camera("back"), "early", 50);
    line.send([late.clone()]);
    line.send(line.part("next", 3));
    line.await_outcomes(|outcomes| outcomes.parts().len() == 2 && outcomes.dead_letters.len() == 1);
    panoptes.stop_in_order();
    let outcomes = line.outcomes();
    let letter = outcomes.dead_letter_of("early");
    assert_eq!(letter.reason(), "late");
    assert_eq!(letter.value, late.value);
    assert_eq!(
        outcomes.result_of("early").views_with_status("missing"),
        ["back"]
    );
}
