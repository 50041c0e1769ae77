//! What becomes of a part whose views do not all come in time.

use std::time::Duration;

use crate::kafka::Broker;
use crate::support::line::{Line, VIEWS};
use crate::support::outcomes::Outcomes;
use crate::support::process::Panoptes;

/// Two whole parts and one that the camera `back` did not see, under a policy.
fn run_with_a_missing_view(
    name: &str,
    policy: &str,
    is_enough: impl Fn(&Outcomes) -> bool,
) -> Outcomes {
    let line = Line::new(Broker::shared(), name);
    let config = line.config().set("reassembly.on_timeout", policy);
    let panoptes = Panoptes::run(&config, name);
    line.send(line.part("whole-1", 1));
    line.send(line.part_seen_by("partial", 2, &VIEWS[..4]));
    line.send(line.part("whole-2", 3));
    line.await_outcomes(is_enough);
    panoptes.stop_in_order();

    let outcomes = line.outcomes();
    for part in ["whole-1", "whole-2"] {
        let result = outcomes.result_of(part);
        assert!(!result.is_partial);
        assert_eq!(result.views_with_status("scored"), VIEWS);
    }
    line.assert_every_record_has_one_fate(&outcomes);
    outcomes
}

#[test]
fn score_partial_scores_the_views_that_came() {
    let outcomes = run_with_a_missing_view("timeout-score-partial", "score_partial", |outcomes| {
        outcomes.parts().len() == 3
    });
    let result = outcomes.result_of("partial");
    assert!(result.is_partial);
    assert_eq!(result.views_with_status("missing"), ["back"]);
    assert_eq!(result.views_with_status("scored"), VIEWS[..4]);
    let highest = result
        .views
        .iter()
        .filter_map(|view| view.score)
        .reduce(f64::max);
    assert_eq!(result.score, highest);
    let is_ng = result.score >= result.threshold;
    assert_eq!(
        result.decision,
        if is_ng { "ng" } else { "review" },
        "{result:?}"
    );
    assert!(
        outcomes.dead_letters.is_empty(),
        "{:?}",
        outcomes.dead_letters
    );
}

#[test]
fn review_publishes_the_part_unscored() {
    let outcomes = run_with_a_missing_view("timeout-review", "review", |outcomes| {
        outcomes.parts().len() == 3
    });
    let result = outcomes.result_of("partial");
    assert!(result.is_partial);
    assert_eq!(result.decision, "review");
    assert_eq!(result.score, None);
    assert!(result.views.iter().all(|view| view.score.is_none()));
    assert_eq!(result.views_with_status("missing"), ["back"]);
    assert!(
        outcomes.dead_letters.is_empty(),
        "{:?}",
        outcomes.dead_letters
    );
}

#[test]
fn dead_letter_sends_every_view_away_as_expired() {
    let outcomes = run_with_a_missing_view("timeout-dead-letter", "dead_letter", |outcomes| {
        outcomes.parts().len() == 2 && outcomes.dead_letters.len() == 4
    });
    assert_eq!(outcomes.parts().len(), 2);
    let letters = outcomes.dead_letters_of("partial");
    assert_eq!(letters.len(), 4);
    assert!(letters.iter().all(|letter| letter.reason() == "expired"));
}

#[test]
fn stream_time_closes_parts_of_an_archive_without_waiting() {
    // A wall-clock deadline would come after an hour; the archive itself says that time has passed.
    let line = Line::with_views(Broker::shared(), "timeout-archive", &["top", "side"]);
    let config = line
        .config()
        .set("reassembly.timeout", "1h")
        .set("reassembly.reuse_after", "1d")
        .set("reassembly.idle_after", "200ms");
    let panoptes = Panoptes::run(&config, "timeout-archive");
    let march = 1_772_323_200_000;
    let two_hours = 2 * 3600 * 1000;
    let at = |shots: Vec<crate::support::shots::Shot>, time: i64| {
        shots.into_iter().map(move |shot| shot.at(time))
    };
    line.send(at(line.part_seen_by("lone", 1, &["top"]), march));
    for number in 0..8 {
        line.send(at(
            line.part(&format!("later-{number}"), 2),
            march + two_hours,
        ));
    }
    let outcomes = line.await_parts(9);
    panoptes.stop_in_order();
    let lone = outcomes.result_of("lone");
    assert_eq!(lone.views_with_status("missing"), ["side"]);
    assert_eq!(lone.timing.first_view_at, march);
}

/// It is frozen for longer than the wall clock waits, and far shorter than the group does.
#[test]
fn a_view_that_comes_while_the_process_is_frozen_is_waited_for() {
    let line = Line::new(Broker::shared(), "frozen-briefly");
    let config = line
        .config()
        .set("reassembly.timeout", "6s")
        .property("session.timeout.ms", "60000");
    let panoptes = Panoptes::run(&config, "frozen-briefly");
    line.send(line.part_seen_by("part", 1, &VIEWS[..4]));
    panoptes.await_metric("panoptes_open_groups", &[], 1.0);
    panoptes.freeze();
    line.send(line.part_seen_by("part", 1, &VIEWS[4..]));
    std::thread::sleep(Duration::from_millis(7_500));
    panoptes.thaw();
    line.await_parts(1);
    panoptes.stop_in_order();
    line.assert_one_whole_result_each(&["part".to_owned()]);
}
