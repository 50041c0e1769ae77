//! The broker goes away in mid-run and comes back.

use crate::kafka::Broker;
use crate::support::line::Line;
use crate::support::process::Panoptes;

const PARTS: u64 = 60;

#[test]
fn a_broker_that_dies_and_comes_back_loses_nothing() {
    let broker = Broker::start("restart");
    let line = Line::new(&broker, "restart");
    let config = line.config().set("reassembly.timeout", "2m");
    let panoptes = Panoptes::run(&config, "broker-restart");
    let parts: Vec<String> = (0..PARTS)
        .map(|number| format!("part-{number:03}"))
        .collect();
    let (before, after) = parts.split_at(parts.len() / 2);
    line.send(before.iter().flat_map(|part| line.part(part, 1)));
    line.await_parts(5);
    broker.kill();
    broker.resume();
    line.send(after.iter().flat_map(|part| line.part(part, 2)));
    line.await_parts(parts.len());
    panoptes.stop_in_order();

    // At least once: a result whose acknowledgement was lost may come twice, under the same ID.
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
