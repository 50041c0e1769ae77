//! The promise above all others: every record read ends in exactly one place.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::kafka::Broker;
use crate::kafka::tools::describe_group;
use crate::support::line::{Line, VIEWS};
use crate::support::outcomes::Outcomes;
use crate::support::process::Panoptes;
use crate::support::shots::{Form, Shot};

const PARTS: usize = 300;

/// Part 17, 57, 97, ... lacks a view.
fn lacks_a_view(number: usize) -> bool {
    number % 40 == 17
}

/// Part 23, 73, 123, ... has one image that cannot be decoded.
fn has_a_corrupt_view(number: usize) -> bool {
    number % 50 == 23
}

fn part_id(number: usize) -> String {
    format!("part-{number:03}")
}

/// Every view of every part in one of the forms, in an order that has nothing to do with parts.
fn shuffled_run(line: &Line<'_>) -> Vec<Shot> {
    let mut shots = Vec::new();
    for number in 0..PARTS {
        for (index, view) in VIEWS.iter().enumerate() {
            if lacks_a_view(number) && *view == "back" {
                continue;
            }
            let form = Form::ALL[(number + index) % Form::ALL.len()];
            // Few different images: encoding them all would take longer than scoring them.
            let seed = u64::try_from((number * 5 + index) % 25).unwrap();
            let topic = line.camera(view);
            shots.push(if has_a_corrupt_view(number) && *view == "left" {
                Shot::of(&topic, &part_id(number), "image/jpeg", b"no image".to_vec())
            } else {
                Shot::in_form(&topic, &part_id(number), seed, form)
            });
        }
    }
    shots.shuffle(&mut ChaCha8Rng::seed_from_u64(42));
    shots
}

#[test]
fn every_view_of_a_long_shuffled_run_ends_in_exactly_one_place() {
    let line = Line::new(Broker::shared(), "every-part");
    // Longer than a busy machine takes to send the run: the views of a part are scattered over it.
    let config = line.config().set("reassembly.timeout", "10s");
    let panoptes = Panoptes::run(&config, "every-part");
    line.send(shuffled_run(&line));
    line.await_parts(PARTS);
    panoptes.stop_in_order();

    let outcomes = line.outcomes();
    let parts: Vec<String> = (0..PARTS).map(part_id).collect();
    outcomes.assert_one_result_id_each(parts.iter().map(String::as_str));
    assert_eq!(
        outcomes.results.len(),
        PARTS,
        "no result is published twice"
    );
    line.assert_every_record_has_one_fate(&outcomes);
    assert_faults_are_told(&outcomes);
    assert_all_is_committed(&line);
}

fn assert_faults_are_told(outcomes: &Outcomes) {
    for number in 0..PARTS {
        let result = outcomes.result_of(&part_id(number));
        let missing: &[&str] = if lacks_a_view(number) { &["back"] } else { &[] };
        let failed: &[&str] = if has_a_corrupt_view(number) {
            &["left"]
        } else {
            &[]
        };
        assert_eq!(result.views_with_status("missing"), missing, "{result:?}");
        assert_eq!(result.views_with_status("failed"), failed, "{result:?}");
        assert_eq!(
            result.is_partial,
            lacks_a_view(number) || has_a_corrupt_view(number)
        );
        if result.is_partial {
            assert_ne!(result.decision, "ok", "{result:?}");
        }
    }
    let corrupt: BTreeSet<String> = (0..PARTS)
        .filter(|number| has_a_corrupt_view(*number))
        .map(part_id)
        .collect();
    let dead: BTreeSet<String> = outcomes
        .dead_letters
        .iter()
        .map(|letter| letter.part())
        .collect();
    assert_eq!(dead, corrupt);
    assert_eq!(outcomes.dead_letters.len(), corrupt.len());
}

fn assert_all_is_committed(line: &Line<'_>) {
    let positions = describe_group(line.broker, &line.name);
    assert_eq!(positions.len(), 20, "{positions:?}");
    let behind: Vec<_> = positions
        .iter()
        .filter(|position| position.end > 0 && position.lag != Some(0))
        .collect();
    assert!(behind.is_empty(), "{behind:?}");
}
