//! Two instances of one group share a line, then one leaves.

use crate::kafka::Broker;
use crate::support::line::Line;
use crate::support::process::Panoptes;

const PARTS: u64 = 60;

#[test]
fn two_instances_share_the_work_and_one_takes_over_when_the_other_leaves() {
    let line = Line::new(Broker::shared(), "instances");
    let config = line.config().set("reassembly.timeout", "2m");
    let first = Panoptes::run(&config, "instances-1");
    let second = Panoptes::run(&config.of_another_instance(), "instances-2");
    // Ten partitions each: the same two of all five topics, for views of one part must meet.
    let half = 5 * line.partitions / 2;
    for instance in [&first, &second] {
        instance.await_assigned(half);
    }
    let parts: Vec<String> = (0..PARTS)
        .map(|number| format!("part-{number:03}"))
        .collect();
    let (before, after) = parts.split_at(parts.len() / 2);
    line.send(before.iter().flat_map(|part| line.part(part, 1)));
    for instance in [&first, &second] {
        instance.await_metric("panoptes_results_total", &[], 3.0);
    }
    line.send(after.iter().flat_map(|part| line.part(part, 2)));
    second.stop_in_order();
    line.await_parts(parts.len());
    first.stop_in_order();

    let outcomes = line.outcomes();
    outcomes.assert_one_result_id_each(parts.iter().map(String::as_str));
    assert!(
        outcomes
            .results
            .iter()
            .all(|record| !record.result.is_partial)
    );
    assert!(
        outcomes.dead_letters.is_empty(),
        "{:?}",
        outcomes.dead_letters
    );
    line.assert_every_record_has_one_fate(&outcomes);
}
