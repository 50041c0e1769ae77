//! Standstills made by fail points: the instance starts anew or ends, and nothing is lost or doubled.

use crate::kafka::Broker;
use crate::support::config::Config;
use crate::support::line::{Line, names};
use crate::support::process::Panoptes;

/// Long enough for a machine that does other things besides.
const STALL_AFTER: &str = "8s";

fn config(line: &Line<'_>) -> Config {
    line.exactly_once_config()
        .set("output.transactions.max_records", 5)
        .set("watchdog.stall_after", STALL_AFTER)
}

fn send(line: &Line<'_>, parts: &[String]) {
    line.send(parts.iter().flat_map(|part| line.part(part, 7)));
}

/// One standstill, of which the instance starts anew by itself.
fn starts_anew_after(name: &str, kind: &str, fail_point: &str) {
    let line = Line::new(Broker::shared(), name);
    let fail_points = format!("{fail_point};device-blank-maps=return");
    let variables = [("FAILPOINTS", fail_points.as_str())];
    let panoptes = Panoptes::start_with(&config(&line), name, &variables);
    let parts = names(20);
    send(&line, &parts);
    line.await_parts(parts.len());
    let metrics = panoptes.metrics();
    assert!(metrics.sum("panoptes_stalls_total", &[("kind", kind)]) >= 1.0);
    // A busy machine may add a standstill of its own.
    assert!(metrics.sum("panoptes_pipeline_rebuilds_total", &[]) >= 1.0);
    panoptes.await_answer("/readyz", 200);
    panoptes.stop_in_order();
    line.assert_one_whole_result_each(&parts);
}

#[test]
fn a_partition_that_stays_paused_makes_the_instance_start_anew() {
    let fail_point = "assigned-stays-paused=1*return->off";
    starts_anew_after("stays-paused", "reading", fail_point);
}

#[test]
fn a_transaction_that_stays_open_makes_the_instance_start_anew() {
    let fail_point = "transaction-after-produce=1*off->1*sleep(60000)->off";
    starts_anew_after("stays-open", "transaction", fail_point);
}

/// One standstill that ends the process, after which another one finishes.
fn ends_after(name: &str, said: &str, fail_point: &str) {
    let line = Line::new(Broker::shared(), name);
    let config = config(&line).set("bus.drain_timeout", "3s");
    let variables = [("FAILPOINTS", fail_point)];
    let first = Panoptes::start_with(&config, &format!("{name}-1"), &variables);
    let parts = names(20);
    for part in &parts {
        line.send(line.part(part, 7));
    }
    let ended = first.await_end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains(said), "{}", ended.log);
    let second = Panoptes::run(&config, &format!("{name}-2"));
    line.await_parts(parts.len());
    second.stop_in_order();
    line.assert_one_whole_result_each(&parts);
}

#[test]
fn a_device_that_does_not_answer_ends_the_instance_and_another_one_finishes() {
    let fail_point = "device-batch=2*off->sleep(600000)";
    ends_after("device-hangs", "the device does not answer", fail_point);
}

#[test]
fn a_poll_thread_that_hangs_ends_the_instance_and_another_one_finishes() {
    let fail_point = "poll-thread=200*off->sleep(600000)";
    ends_after(
        "poll-hangs",
        "the poll thread does not come round",
        fail_point,
    );
}
