//! What an operator sees: liveness, readiness, metrics.

use std::cell::Cell;

use crate::kafka::Broker;
use crate::support::line::{Line, VIEWS};
use crate::support::process::Panoptes;
use crate::support::shots::Shot;

#[test]
fn metrics_agree_with_what_was_published() {
    let line = Line::new(Broker::shared(), "metrics");
    let panoptes = Panoptes::run(&line.config(), "metrics");
    for number in 0..12 {
        line.send(line.part(&format!("whole-{number}"), number));
    }
    line.send(line.part_seen_by("partial", 2, &VIEWS[..4]));
    line.send([
        Shot::jpeg(&line.camera("top"), "", 1).keyed(None),
        Shot::of(&line.camera("top"), "odd", "video/mp4", vec![1, 2, 3]),
    ]);
    let outcomes = line.await_outcomes(|outcomes| {
        outcomes.parts().len() == 13 && outcomes.dead_letters.len() == 2
    });
    panoptes.await_metric("panoptes_results_total", &[], 13.0);
    panoptes.await_metric("panoptes_dead_letters_total", &[], 2.0);
    let metrics = panoptes.metrics();
    for decision in ["ok", "ng", "review"] {
        let published = outcomes
            .results
            .iter()
            .filter(|record| record.result.decision == decision)
            .count();
        let counted = metrics.sum("panoptes_results_total", &[("decision", decision)]);
        assert_eq!(counted as usize, published, "{decision}");
    }
    for reason in ["missing_key", "unsupported"] {
        let counted = metrics.sum("panoptes_dead_letters_total", &[("reason", reason)]);
        assert_eq!(counted as usize, 1, "{reason}");
    }
    assert_eq!(
        metrics.sum("panoptes_records_total", &[]) as usize,
        12 * 5 + 4 + 2
    );
    let top = line.camera("top");
    assert_eq!(
        metrics.sum("panoptes_records_total", &[("topic", &top)]) as usize,
        12 + 1 + 2
    );
    assert_eq!(
        metrics.sum("panoptes_views_total", &[]) as usize,
        12 * 5 + 4
    );
    assert_eq!(
        metrics.sum("panoptes_groups_closed_total", &[]) as usize,
        13
    );
    assert_eq!(metrics.sum("panoptes_open_groups", &[]) as usize, 0);
    panoptes.await_metrics("all records committed", |metrics| {
        metrics.sum("panoptes_uncommitted_records", &[]) < 0.5
    });
    panoptes.stop_in_order();
}

#[test]
fn an_instance_without_a_broker_is_alive_but_not_ready() {
    let line = Line::new(Broker::shared(), "no-broker");
    let nowhere = format!("127.0.0.1:{}", crate::kafka::free_port());
    let config = line.config().set("bus.brokers", nowhere);
    let mut panoptes = Panoptes::start(&config, "no-broker");
    panoptes.await_answer("/livez", 200);
    let (status, body) = panoptes.get("/readyz").unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(!body.is_empty());
    assert!(panoptes.ended().is_none());
    panoptes.kill();
}

#[test]
fn an_idle_instance_is_ready_and_stops_in_order() {
    let line = Line::new(Broker::shared(), "idle");
    let panoptes = Panoptes::run(&line.config(), "idle");
    assert_eq!(panoptes.get("/livez").unwrap().0, 200);
    assert_eq!(panoptes.get("/readyz").unwrap().0, 200);
    assert_eq!(panoptes.get("/nothing-here").unwrap().0, 404);
    assert!(panoptes.metrics().has("panoptes_build_info"));
    panoptes.stop_in_order();
}

#[test]
fn the_status_names_the_part_that_holds_a_partition_and_the_views_that_it_waits_for() {
    let line = Line::new(Broker::shared(), "status");
    let config = line.config().set("reassembly.timeout", "10m");
    let panoptes = Panoptes::run(&config, "status");
    line.send(line.part_seen_by("held", 1, &VIEWS[..3]));
    for number in 0..12 {
        line.send(line.part(&format!("whole-{number}"), number));
    }
    line.await_parts(12);
    panoptes.await_metrics("two views missing of what holds 3 topics", |metrics| {
        metrics.sum("panoptes_watermark_missing_views", &[]) == 6.0
            && metrics.sum("panoptes_partition_unfinished_records", &[]) == 3.0
            && metrics.sum("panoptes_watermark_age_seconds", &[]) > 0.0
    });
    let lags = panoptes.metrics();
    assert!(lags.sum("panoptes_partition_lag_records", &[]) >= 3.0);
    assert!(!lags.has("panoptes_watermark_holder"), "it is not overdue");

    let folder = tempfile::tempdir().unwrap();
    let admin = config.text("admin.listen");
    let shown = crate::support::process::panoptes(folder.path(), &["status", "--admin", &admin]);
    assert!(shown.status.success(), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    let held = "part `held` of status: waits for front, back for";
    assert_eq!(text.matches(held).count(), 3, "{text}");
    assert_eq!(
        text.lines().filter(|line| line.contains(".cam.")).count(),
        20,
        "{text}"
    );

    let json = ["status", "--admin", &admin, "--json"];
    let shown = crate::support::process::panoptes(folder.path(), &json);
    let status: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(status["ready"], true);
    assert_eq!(status["pipeline"]["open_parts"], 1);
    panoptes.stop_in_order();
}

#[test]
fn a_part_that_is_overdue_is_named_by_the_metrics() {
    let line = Line::new(Broker::shared(), "overdue");
    let config = line
        .config()
        .set("reassembly.timeout", "5s")
        .set("reassembly.idle_after", "4s");
    let panoptes = Panoptes::run(&config, "overdue");
    // A camera that is an hour behind: stream time does not come on.
    let number = Cell::new(0);
    let send_behind = || {
        number.set(number.get() + 1);
        let behind = Shot::jpeg(&line.camera("back"), &format!("old-{}", number.get()), 1);
        let behind = behind.header("captured-at", "2026-03-01T12:00:00Z");
        line.send((0..line.partitions).map(|partition| behind.clone().on_partition(partition)));
    };
    send_behind();
    line.send(line.part_seen_by("held", 1, &VIEWS[..4]));
    let labels = [
        ("part_id", "held"),
        ("line", "overdue"),
        ("missing_views", "back"),
    ];
    panoptes.await_metrics("four partitions to name the part", |metrics| {
        send_behind();
        metrics.sum("panoptes_watermark_holder", &labels) == 4.0
    });
    panoptes.stop_in_order();
}
