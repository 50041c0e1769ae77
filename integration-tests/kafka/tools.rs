//! Kafka's own command-line tools, so that what Panoptes writes is also read by code that is not ours.

use std::process::{Command, Stdio};

use super::{Broker, repository};

/// Runs one of Kafka's tools and returns what it printed.
pub(crate) fn run_tool(class: &str, arguments: &[&str]) -> String {
    let libs = repository().join("target/kafka/libs/*");
    let log = repository().join("integration-tests/kafka/log4j2.xml");
    let output = Command::new("java")
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg("-Dpanoptes.kafka.log.level=error")
        .arg(format!("-Dlog4j2.configurationFile={}", log.display()))
        .arg("-cp")
        .arg(libs)
        .arg(class)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{class} {arguments:?} failed: {printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// Reads `count` committed records of a topic from its beginning as `key<TAB>value` lines.
pub(crate) fn console_consumer(broker: &Broker, topic: &str, count: usize) -> Vec<String> {
    run_console_consumer(broker, topic, count, "print.value=true")
}

/// The same without their values, which may be anything.
pub(crate) fn console_keys(broker: &Broker, topic: &str, count: usize) -> Vec<String> {
    run_console_consumer(broker, topic, count, "print.value=false")
}

fn run_console_consumer(
    broker: &Broker,
    topic: &str,
    count: usize,
    print_value: &str,
) -> Vec<String> {
    let printed = run_tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &[
            "--bootstrap-server",
            &broker.address(),
            "--topic",
            topic,
            "--from-beginning",
            "--isolation-level",
            "read_committed",
            "--max-messages",
            &count.to_string(),
            "--timeout-ms",
            "60000",
            "--formatter-property",
            "print.key=true",
            "--formatter-property",
            print_value,
        ],
    );
    printed.lines().map(str::to_owned).collect()
}

/// What `kafka-topics --describe` says of a topic.
pub(crate) fn describe_topic(broker: &Broker, topic: &str) -> String {
    let address = broker.address();
    run_tool(
        "org.apache.kafka.tools.TopicCommand",
        &[
            "--bootstrap-server",
            &address,
            "--describe",
            "--topic",
            topic,
        ],
    )
}

/// A consumer group's place on one partition, as `kafka-consumer-groups` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupPosition {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// `None` where nothing was committed.
    pub(crate) committed: Option<i64>,
    pub(crate) end: i64,
    pub(crate) lag: Option<i64>,
}

/// What `kafka-consumer-groups --describe` says of a group.
pub(crate) fn describe_group(broker: &Broker, group: &str) -> Vec<GroupPosition> {
    let printed = run_tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &[
            "--bootstrap-server",
            &broker.address(),
            "--describe",
            "--group",
            group,
        ],
    );
    printed
        .lines()
        .filter_map(|line| parse_position(line, group))
        .collect()
}

fn parse_position(line: &str, group: &str) -> Option<GroupPosition> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if fields.first() != Some(&group) || fields.len() < 6 {
        return None;
    }
    Some(GroupPosition {
        topic: fields[1].to_owned(),
        partition: fields[2].parse().ok()?,
        committed: fields[3].parse().ok(),
        end: fields[4].parse().ok()?,
        lag: fields[5].parse().ok(),
    })
}
