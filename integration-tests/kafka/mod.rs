//! A real Apache Kafka node (KRaft) for the tests, started by `scripts/kafka-start` on free ports.
//!
//! One broker is shared by all tests that need nothing of their own: each takes topics and groups
//! under its own name. No broker outlives the test process, not even one that is killed, because
//! every child is bound to its parent (see [`children`]).

pub(crate) mod children;
pub(crate) mod tools;
pub(crate) mod wire;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;

/// Long enough to fetch Kafka first.
const START_TIMEOUT: Duration = Duration::from_secs(180);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A TCP port of 127.0.0.1 that was free a moment ago, and another one each time.
pub(crate) fn free_port() -> u16 {
    // The system may hand out a port again as soon as it is closed: two asked for in a row were the
    // same once, and a broker with both listeners on one port does not start.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// What a broker of one's own may differ in.
#[derive(Clone, Default)]
pub(crate) struct BrokerSettings {
    /// Lines of `server.properties`; each wins over `scripts/kafka-start`'s.
    pub(crate) properties: Vec<String>,
    /// More listeners: name, security protocol, port.
    pub(crate) listeners: Vec<(&'static str, &'static str, u16)>,
    /// SCRAM credentials created when the storage is formatted.
    pub(crate) scram: Option<String>,
    /// Node ID, and the port of the controller of the cluster that it joins.
    pub(crate) joins: Option<(u16, u16)>,
}

/// A running (or stopped) node with its data.
pub(crate) struct Broker {
    name: String,
    port: u16,
    controller_port: u16,
    settings: BrokerSettings,
    data: TempDir,
    child: Mutex<Option<Child>>,
    /// Ports of the other nodes of its cluster.
    peers: Vec<u16>,
}

impl Broker {
    /// The broker that most tests share; started by the first that asks.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("shared"))
    }

    /// A broker of one's own; `name` names its log.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, BrokerSettings::default())
    }

    /// A broker of one's own with other settings.
    pub(crate) fn start_with(name: &str, settings: BrokerSettings) -> Self {
        let broker = Self {
            name: name.to_owned(),
            port: free_port(),
            controller_port: settings.joins.map_or_else(free_port, |(_, port)| port),
            settings,
            data: tempfile::Builder::new()
                .prefix("panoptes-kafka-")
                .tempdir()
                .unwrap(),
            child: Mutex::new(None),
            peers: Vec::new(),
        };
        broker.resume();
        broker
    }

    /// The plain-text address, as `bus.brokers` takes it.
    pub(crate) fn address(&self) -> String {
        let ports = std::iter::once(self.port).chain(self.peers.iter().copied());
        let addresses: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        addresses.join(",")
    }

    /// A client configuration that points at this broker.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config.set("broker.address.family", "v4");
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Critical);
        config
    }

    /// Starts the node on its ports and data, and waits until it answers.
    pub(crate) fn resume(&self) {
        let mut child = self.child.lock().unwrap();
        assert!(child.is_none(), "broker `{}` already runs", self.name);
        *child = Some(self.spawn());
        let started = Instant::now();
        let probe: BaseConsumer = self.client().create().unwrap();
        while !self.answers(&probe) {
            if let Some(status) = child.as_mut().unwrap().try_wait().unwrap() {
                panic!(
                    "broker ended with {status}, see {}",
                    self.log_path().display()
                );
            }
            assert!(
                started.elapsed() < START_TIMEOUT,
                "broker not ready after {START_TIMEOUT:?}, see {}",
                self.log_path().display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the node in order (SIGTERM); its data stay.
    pub(crate) fn stop(&self) {
        let mut child = self.child.lock().unwrap().take().expect("the broker runs");
        children::terminate(&child);
        if children::wait_for(&mut child, STOP_TIMEOUT).is_none() {
            children::end(&mut child);
        }
    }

    /// Takes the node down at once (SIGKILL); its data stay.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap().take().expect("the broker runs");
        children::end(&mut child);
    }

    /// Creates a topic and waits until it can be written to.
    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let new = NewTopic::new(
            topic,
            partitions,
            TopicReplication::Fixed(1 + self.peers.len() as i32),
        );
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        let created = futures::executor::block_on(admin.create_topics([&new], &options)).unwrap();
        match &created[0] {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => panic!("cannot create topic `{topic}`: {code}"),
        }
        // The controller has it; brokers learn of it later, and a consumer that asks before that goes without.
        let deadline = Instant::now() + Duration::from_secs(30);
        let is_known = || {
            let metadata = admin
                .inner()
                .fetch_metadata(Some(topic), Duration::from_secs(60));
            let metadata = metadata.unwrap();
            let mut topics = metadata.topics().iter();
            topics.any(|found| found.error().is_none() && !found.partitions().is_empty())
        };
        while !is_known() {
            assert!(Instant::now() < deadline, "no broker knows topic `{topic}`");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Deletes a topic with all that it holds.
    pub(crate) fn delete_topic(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        let deleted = futures::executor::block_on(admin.delete_topics(&[topic], &options)).unwrap();
        deleted[0].as_ref().unwrap();
    }

    /// Deletes consumer groups with what they have committed, as brokers do when it is old.
    pub(crate) fn delete_groups(&self, groups: &[&str]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let deleted = admin.delete_groups(groups, &AdminOptions::new());
        for group in futures::executor::block_on(deleted).unwrap() {
            group.unwrap();
        }
    }

    /// Deletes all that a topic holds, as retention does.
    pub(crate) fn delete_records(&self, topic: &str) {
        let client = self.client();
        let probe: BaseConsumer = client.create().unwrap();
        let timeout = Duration::from_secs(30);
        let metadata = probe.fetch_metadata(Some(topic), timeout).unwrap();
        let mut ends = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            ends.add_partition_offset(topic, partition.id(), Offset::End)
                .unwrap();
        }
        let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(timeout));
        let deleted = futures::executor::block_on(admin.delete_records(&ends, &options)).unwrap();
        for partition in deleted.elements() {
            partition.error().unwrap();
        }
    }

    /// Gives a topic so many partitions in all; what it holds stays where it is.
    pub(crate) fn repartition(&self, topic: &str, partitions: usize) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        let more = NewPartitions::new(topic, partitions);
        let added = admin.create_partitions([&more], &options);
        futures::executor::block_on(added).unwrap()[0]
            .as_ref()
            .unwrap();
    }

    /// Sets the largest record that a topic takes.
    pub(crate) fn limit_messages(&self, topic: &str, bytes: usize) {
        self.configure(topic, "max.message.bytes", &bytes.to_string());
    }

    /// Sets one property of a topic, and all others to their defaults.
    pub(crate) fn configure(&self, topic: &str, name: &str, value: &str) {
        self.configure_all(topic, &[(name, value)]);
    }

    /// Sets these properties of a topic, and all others to their defaults.
    pub(crate) fn configure_all(&self, topic: &str, properties: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let properties = properties.iter().fold(
            AlterConfig::new(ResourceSpecifier::Topic(topic)),
            |all, (name, value)| all.set(name, value),
        );
        let altered = admin.alter_configs([&properties], &AdminOptions::new());
        futures::executor::block_on(altered).unwrap()[0]
            .as_ref()
            .unwrap();
    }

    /// Deletes what a partition holds before an offset, as retention does.
    pub(crate) fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let mut before = TopicPartitionList::new();
        let offset = Offset::Offset(offset);
        let added = before.add_partition_offset(topic, partition, offset);
        added.unwrap();
        let deleted = admin.delete_records(&before, &AdminOptions::new());
        let deleted = futures::executor::block_on(deleted).unwrap();
        deleted.elements()[0].error().unwrap();
    }

    fn answers(&self, probe: &BaseConsumer) -> bool {
        probe
            .fetch_metadata(None, Duration::from_secs(1))
            .is_ok_and(|metadata| !metadata.brokers().is_empty())
    }

    fn spawn(&self) -> Child {
        let log = self.open_log();
        let mut command = children::bound(repository().join("scripts/kafka-start"));
        command.args(["--port", &self.port.to_string()]);
        command.args(["--controller-port", &self.controller_port.to_string()]);
        if let Some((node, _)) = self.settings.joins {
            command.args(["--join", &node.to_string()]);
        }
        command.arg("--data").arg(self.data.path());
        for (name, protocol, port) in &self.settings.listeners {
            command.args(["--listener", &format!("{name}:{protocol}:{port}")]);
        }
        if let Some(scram) = &self.settings.scram {
            command.args(["--add-scram", scram]);
        }
        command.arg("auto.create.topics.enable=false");
        command.args(&self.settings.properties);
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        children::spawn(command)
    }

    fn open_log(&self) -> File {
        let path = self.log_path();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
    }

    fn log_path(&self) -> PathBuf {
        repository()
            .join("target/kafka/logs")
            .join(format!("{}.log", self.name))
    }
}

/// Three nodes, each with a copy of everything; the first one is the controller as well.
pub(crate) struct Cluster {
    /// The node with the controller, which stays up.
    pub(crate) first: Broker,
    /// Those that may be stopped, one at a time.
    pub(crate) others: Vec<Broker>,
}

impl Cluster {
    pub(crate) fn start(name: &str) -> Self {
        let properties: Vec<String> = [
            "default.replication.factor=3",
            "offsets.topic.replication.factor=3",
            "transaction.state.log.replication.factor=3",
            "transaction.state.log.min.isr=2",
            "min.insync.replicas=2",
        ]
        .map(str::to_owned)
        .into();
        let settings = |joins| BrokerSettings {
            properties: properties.clone(),
            joins,
            ..BrokerSettings::default()
        };
        let mut first = Broker::start_with(name, settings(None));
        let others: Vec<Broker> = [2, 3]
            .map(|node| {
                let settings = settings(Some((node, first.controller_port)));
                Broker::start_with(&format!("{name}-{node}"), settings)
            })
            .into();
        first.peers = others.iter().map(|broker| broker.port).collect();
        Self { first, others }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A start that failed has poisoned the lock; a second panic here would end all tests.
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = child.take() {
            children::end(&mut child);
        }
    }
}

/// Tests of the set-up itself.
mod tests {
    use super::Broker;
    use super::tools::console_consumer;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use std::time::Duration;

    #[test]
    fn a_record_is_read_by_kafkas_own_console_consumer() {
        let broker = Broker::shared();
        broker.create_topic("set-up.echo", 1);
        let producer: BaseProducer = broker.client().create().unwrap();
        producer
            .send(BaseRecord::to("set-up.echo").key("key").payload("value"))
            .unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
        assert_eq!(console_consumer(broker, "set-up.echo", 1), ["key\tvalue"]);
    }

    #[test]
    fn a_killed_broker_comes_back_with_its_data() {
        let broker = Broker::start("set-up");
        broker.create_topic("kept", 1);
        let producer: BaseProducer = broker.client().create().unwrap();
        producer
            .send(BaseRecord::to("kept").key("key").payload("value"))
            .unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
        broker.kill();
        broker.resume();
        assert_eq!(console_consumer(&broker, "kept", 1), ["key\tvalue"]);
        broker.stop();
    }
}
