//! Groups in which the brokers assign (KIP-848): `group.protocol` is `consumer`.

use std::sync::OnceLock;
use std::time::Duration;

use crate::exactly_once::survives_a_freeze;
use crate::kafka::{Broker, BrokerSettings};
use crate::support::config::Config;
use crate::support::line::{Line, PARTITIONS, names};
use crate::support::process::Panoptes;

/// All partitions of a line with the usual five cameras.
const ALL: i32 = 5 * PARTITIONS;

/// Twice as long as the tests of the classic protocol have it, which members say themselves: that nothing is
/// lost must not depend on how busy the machine is.
const SESSION: Duration = Duration::from_secs(12);

fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| {
        let session = SESSION.as_millis();
        let settings = BrokerSettings {
            properties: vec![
                format!("group.consumer.min.session.timeout.ms={session}"),
                format!("group.consumer.session.timeout.ms={session}"),
                "group.consumer.min.heartbeat.interval.ms=500".to_owned(),
                "group.consumer.heartbeat.interval.ms=500".to_owned(),
            ],
            ..BrokerSettings::default()
        };
        Broker::start_with("consumer-protocol", settings)
    })
}

fn config(line: &Line<'_>) -> Config {
    line.exactly_once_config()
        .without("bus.properties")
        .property("group.protocol", "consumer")
}

#[test]
fn instances_join_leave_and_die_and_double_and_lose_nothing() {
    const CHUNK: usize = 25;
    let line = Line::new(broker(), "brokers-assign");
    let config = config(&line).set("output.transactions.max_records", 5);
    let run = |number: usize| {
        Panoptes::run(
            &config.of_another_instance(),
            &format!("brokers-assign-{number}"),
        )
    };
    let parts = names(6 * CHUNK);
    let mut chunks = parts.chunks(CHUNK);
    let mut send = || {
        let chunk = chunks.next().unwrap();
        line.send(chunk.iter().flat_map(|part| line.part(part, 8)));
    };
    let first = run(1);
    first.await_assigned(ALL);
    send();
    let second = run(2); // in the midst of work
    send();
    first.await_assigned(ALL / 2);
    second.await_assigned(ALL / 2);
    send();
    second.await_metric("panoptes_results_total", &[], 3.0);
    // Some of its partitions were taken from it; it works on.
    first.await_answer("/readyz", 200);
    second.kill();
    send();
    first.await_assigned(ALL);
    line.await_parts(4 * CHUNK);
    let third = run(3);
    send();
    third.await_assigned(ALL / 2);
    first.stop_in_order();
    send();
    third.await_assigned(ALL);
    line.await_parts(parts.len());
    let lost = third
        .metrics()
        .sum("panoptes_rebalances_total", &[("kind", "lost")]);
    assert_eq!(lost, 0.0);
    third.stop_in_order();
    let outcomes = line.outcomes();
    outcomes.assert_one_whole_result_each(&parts);
    assert!(outcomes.dead_letters.is_empty());
    line.assert_every_record_has_one_fate(&outcomes);
}

#[test]
fn an_instance_that_comes_back_from_a_freeze_publishes_nothing_that_others_own() {
    let line = Line::new(broker(), "brokers-thaw");
    survives_a_freeze(&line, &config(&line));
}

#[test]
fn of_two_with_one_instance_id_the_later_one_ends_and_says_why() {
    let line = Line::new(broker(), "brokers-names");
    let config = config(&line).property("group.instance.id", "station-9");
    let first = Panoptes::run(&config.of_another_instance(), "brokers-names-1");
    let parts = names(40);
    let mut chunks = parts.chunks(20);
    let mut send = || {
        let chunk = chunks.next().unwrap();
        line.send(chunk.iter().flat_map(|part| line.part(part, 6)));
    };
    send();
    line.await_parts(20);
    let ended = Panoptes::start(&config.of_another_instance(), "brokers-names-2").await_end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(
        ended.log.contains("still has an instance") && ended.log.contains("station-9"),
        "{}",
        ended.log
    );
    send();
    line.await_parts(parts.len());
    first.stop_in_order();
    line.assert_one_whole_result_each(&parts);
}
