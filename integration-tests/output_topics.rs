//! Topics of results and dead letters that are missing, or that may not be written.

use crate::kafka::tools::{console_keys, run_tool};
use crate::kafka::{Broker, BrokerSettings};
use crate::support::line::Line;
use crate::support::process::Panoptes;
use crate::support::shots::Shot;

/// One whole part, and one whose only view is no image.
fn good_and_bad(line: &Line<'_>) -> Vec<Shot> {
    let mut shots = line.part("good", 1);
    let camera = line.camera("top");
    shots.push(Shot::of(&camera, "bad", "image/jpeg", vec![0; 100]));
    shots
}

#[test]
fn topics_that_are_missing_are_made() {
    for delivery in ["exactly_once", "at_least_once"] {
        let line = Line::new(Broker::shared(), &format!("output-topics-{delivery}"));
        let topics = [line.results_topic(), line.dead_letter_topic()];
        for topic in &topics {
            line.broker.delete_topic(topic);
        }
        let config = line.config().set("output.delivery", delivery);
        let mut panoptes = Panoptes::start(&config, &line.name);
        panoptes.wait_until_ready();
        line.send(good_and_bad(&line));
        let [results, letters] = topics;
        // The part of which no view can be read has a result, too.
        let parts = console_keys(line.broker, &results, 2);
        assert!(parts.contains(&"good".to_owned()), "{parts:?}");
        assert_eq!(console_keys(line.broker, &letters, 1), ["bad"]);
        panoptes.stop_in_order();
    }
}

/// Rights are asked for where somebody has some; who the clients are is not, so all are `ANONYMOUS`.
pub(crate) fn broker_with_rights(name: &str) -> Broker {
    let properties = [
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found=true",
    ];
    let settings = BrokerSettings {
        properties: properties.map(str::to_owned).to_vec(),
        ..BrokerSettings::default()
    };
    Broker::start_with(name, settings)
}

/// Lets clients do everything but this with a resource.
pub(crate) fn forbid(broker: &Broker, operation: &str, resource: &[&str]) {
    let all = ["--allow-principal", "User:ANONYMOUS", "--operation", "All"];
    change_rights(broker, &[&["--add"], &all[..], resource]);
    change_rights(broker, &[&["--add"], &denial(operation), resource]);
}

/// Lets clients do it again.
fn permit(broker: &Broker, operation: &str, resource: &[&str]) {
    change_rights(broker, &[&["--remove"], &denial(operation), resource]);
}

fn denial(operation: &str) -> [&str; 4] {
    [
        "--deny-principal",
        "User:ANONYMOUS",
        "--operation",
        operation,
    ]
}

fn change_rights(broker: &Broker, arguments: &[&[&str]]) {
    let address = broker.address();
    let arguments = [
        &["--bootstrap-server", &address, "--force"],
        &arguments.concat()[..],
    ];
    run_tool("org.apache.kafka.tools.AclCommand", &arguments.concat());
}

#[test]
fn a_topic_that_may_not_be_written_ends_the_process_with_its_name() {
    let broker = broker_with_rights("output-topics-write");
    for delivery in ["exactly_once", "at_least_once"] {
        let line = Line::new(&broker, &format!("output-topics-write-{delivery}"));
        let letters = line.dead_letter_topic();
        forbid(&broker, "Write", &["--topic", &letters]);
        let config = line.config().set("output.delivery", delivery);
        let mut panoptes = Panoptes::start(&config, &line.name);
        panoptes.wait_until_ready();
        line.send(good_and_bad(&line));
        let ended = panoptes.await_end();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
        assert!(
            ended.log.contains("Topic authorization failed"),
            "{}",
            ended.log
        );
        assert!(ended.log.contains(&letters), "{}", ended.log);
        assert!(!ended.log.contains("building it anew"), "{}", ended.log);
        // Nothing was published without the letter but what a later run publishes, too.
        assert!(line.outcomes().dead_letters.is_empty());
    }
}

#[test]
fn an_instance_is_not_ready_while_a_topic_is_missing_and_may_not_be_made() {
    let broker = broker_with_rights("output-topics-create");
    let line = Line::new(&broker, "output-topics-create");
    let config = line
        .config()
        .set("output.closed_parts_topic", line.camera("closed"));
    broker.create_topic(&line.camera("closed"), line.partitions);
    let letters = line.dead_letter_topic();
    broker.delete_topic(&letters);
    let of_topic = ["--topic", &letters];
    forbid(&broker, "Create", &of_topic);
    forbid(&broker, "Create", &["--cluster"]);
    let mut panoptes = Panoptes::start(&config, &line.name);
    panoptes.await_log("are missing and cannot be made");
    panoptes.await_assigned(line.partitions * 5);
    let (status, reasons) = panoptes.get("/readyz").unwrap();
    assert_eq!(status, 503, "{reasons}");
    assert!(
        reasons.contains("a topic of results or dead letters is missing"),
        "{reasons}"
    );
    permit(&broker, "Create", &of_topic);
    panoptes.wait_until_ready();
    line.send(good_and_bad(&line));
    assert_eq!(console_keys(&broker, &letters, 1), ["bad"]);
    panoptes.stop_in_order();
}
