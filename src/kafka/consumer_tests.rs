//! The poll thread against librdkafka's mock cluster, where a group takes a few seconds to form.

use std::time::Instant;

use rdkafka::Statistics;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, TopicPartitionList};

use super::*;
use crate::domain::{SourceOffset, TopicPartition};
use crate::kafka::client::BusSettings;
use crate::kafka::closed_parts::ClosedPartsTopic;
use crate::kafka::read_range::ReadRange;

const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: &str = "cam";
const GROUP: &str = "group";
const CLOSED_PARTS: &str = "closed";

struct Bus {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Bus {
    fn start(partitions: i32) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, partitions, 1).unwrap();
        cluster.create_topic(CLOSED_PARTS, partitions, 1).unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .create()
            .unwrap();
        Self { cluster, producer }
    }

    fn produce(&self, partition: i32) {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(TOPIC)
            .partition(partition)
            .payload(b"image".as_slice());
        self.producer
            .send(record)
            .map_err(|(error, _)| error)
            .unwrap();
        self.producer.flush(PATIENCE).unwrap();
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.cluster.bootstrap_servers());
        client.set("group.id", GROUP);
        client
    }

    fn settings(&self) -> ConsumerSettings {
        ConsumerSettings {
            bus: BusSettings {
                brokers: self.cluster.bootstrap_servers(),
                ..BusSettings::default()
            },
            group_id: GROUP.to_owned(),
            subscription: vec![TOPIC.to_owned()],
            commits: Commits::Every(Duration::from_millis(100)),
            closed_parts: ClosedPartsTopic::new(CLOSED_PARTS.into(), GROUP),
            max_closed_parts: 100,
            drain_timeout: Duration::from_millis(200),
            crowd_patience: Duration::from_secs(1),
            prefetch_bytes: 1 << 20,
            range: None,
            most_bytes_per_second: None,
        }
    }

    /// Another member of the group.
    fn join(&self) -> Member {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let consumer: BaseConsumer = self
            .client()
            .set("partition.assignment.strategy", "range")
            .create()
            .unwrap();
        consumer.subscribe(&[TOPIC]).unwrap();
        let polling = thread::spawn(move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                drop(consumer.poll(POLL_INTERVAL));
            }
        });
        Member { stop, polling }
    }

    /// What the group has committed for partition 0.
    fn committed(&self) -> Option<i64> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(TOPIC, 0);
        let committed = consumer.committed_offsets(wanted, PATIENCE).unwrap();
        committed.elements()[0].offset().to_raw()
    }
}

struct Member {
    stop: std::sync::mpsc::Sender<()>,
    polling: thread::JoinHandle<()>,
}

impl Member {
    fn leave(self) {
        self.stop.send(()).unwrap();
        self.polling.join().unwrap();
    }
}

/// A poll thread, its ledger and what it says.
struct Reader {
    consumer: CameraConsumer,
    ledger: SharedLedger,
    events: mpsc::Receiver<ConsumerEvent>,
}

impl Reader {
    /// With a channel that holds so many events, and `first` in it already.
    fn start(settings: ConsumerSettings, room: usize, first: Option<ConsumerEvent>) -> Self {
        let ledger = SharedLedger::default();
        let (sender, events) = mpsc::channel(room);
        if let Some(event) = first {
            sender.try_send(event).unwrap();
        }
        let budget = MemoryBudget::new(1 << 20);
        let consumer =
            CameraConsumer::start(settings, Arc::clone(&ledger), budget, sender).unwrap();
        Self {
            consumer,
            ledger,
            events,
        }
    }

    async fn next(&mut self) -> ConsumerEvent {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            match event.expect("an event in time").expect("a running thread") {
                ConsumerEvent::EndOfPartition(_)
                | ConsumerEvent::Expected(_)
                | ConsumerEvent::Crowded { .. }
                | ConsumerEvent::OutOfSight(_) => {}
                ConsumerEvent::Revoked { done, .. } => done.send(()).unwrap_or_default(),
                event => return event,
            }
        }
    }

    async fn next_assignment(&mut self) -> (Vec<TopicPartition>, u64) {
        match self.next().await {
            ConsumerEvent::Assigned {
                partitions,
                generation,
                ..
            } => (partitions, generation),
            other => panic!("expected an assignment, found {other:?}"),
        }
    }

    async fn next_record(&mut self) -> SourceOffset {
        match self.next().await {
            ConsumerEvent::Record(record) => record.source,
            other => panic!("expected a record, found {other:?}"),
        }
    }
}

async fn await_that(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_waits_for_room_and_goes_before_its_records() {
    let bus = Bus::start(1);
    bus.produce(0);
    let mut reader = Reader::start(bus.settings(), 1, Some(ConsumerEvent::Drained));
    let partition = TopicPartition {
        topic: TOPIC.into(),
        partition: 0,
    };
    await_that("the assignment", || {
        lock(&reader.ledger).is_current(&partition, 1)
    })
    .await;
    // Nobody reads for longer than the stages are ever waited for.
    tokio::time::sleep(5 * bus.settings().drain_timeout).await;
    assert!(matches!(reader.next().await, ConsumerEvent::Drained));
    let (partitions, generation) = reader.next_assignment().await;
    assert_eq!((partitions.len(), generation), (1, 1));
    assert_eq!(reader.next_record().await.offset, 0);
    bus.produce(0);
    assert_eq!(reader.next_record().await.offset, 1);
    reader.consumer.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_an_earlier_assignment_stops_nothing() {
    let bus = Bus::start(2);
    let mut reader = Reader::start(bus.settings(), 64, None);
    let (partitions, generation) = reader.next_assignment().await;
    let pause = || ConsumerCommand::Pause {
        partitions: partitions.clone(),
        generation,
    };
    reader.consumer.handle().command(pause());
    let joined = bus.join();
    let (kept, later) = reader.next_assignment().await;
    assert!(later > generation);
    assert_eq!(kept.len(), 1);
    reader.consumer.handle().command(pause());
    bus.produce(kept[0].partition);
    assert_eq!(reader.next_record().await.topic_partition(), kept[0]);
    joined.leave();
    reader.consumer.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_is_repeated() {
    let bus = Bus::start(1);
    bus.produce(0);
    let mut reader = Reader::start(bus.settings(), 64, None);
    let (_, generation) = reader.next_assignment().await;
    let source = reader.next_record().await;
    bus.cluster.request_errors(
        RDKafkaApiKey::OffsetCommit,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED],
    );
    lock(&reader.ledger).finish(&source, generation);
    await_that("the position to be committed", || {
        bus.committed() == Some(1)
    })
    .await;
    reader.consumer.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_offsets_ends_the_thread_where_no_reset_is_allowed() {
    let bus = Bus::start(1);
    let mut settings = bus.settings();
    settings
        .bus
        .properties
        .insert("auto.offset.reset".to_owned(), "error".to_owned());
    let Reader { consumer, .. } = Reader::start(settings, 64, None);
    await_that("the thread to end", || consumer.thread.is_finished()).await;
    let error = consumer.close().unwrap_err();
    assert!(matches!(error, ConsumerError::NoOffset), "{error}");
    assert!(error.to_string().contains("earliest"), "{error}");
}

#[tokio::test]
async fn a_range_ends_only_by_what_is_told_of_a_partition_while_it_is_fetched() {
    let bus = Bus::start(1);
    let partition = TopicPartition {
        topic: TOPIC.into(),
        partition: 0,
    };
    let settings = ConsumerSettings {
        range: Some(Arc::new(ReadRange::until([(partition.clone(), 5)].into()))),
        ..bus.settings()
    };
    let ledger = SharedLedger::default();
    lock(&ledger).assign([partition.clone()], 1);
    let topic = settings.closed_parts.clone();
    let closed_parts = ClosedParts::connect(&settings.bus, topic, 100).unwrap();
    let (_handle, link) = ThreadLink::open();
    let (events, _events) = mpsc::channel(1);
    let context = GroupContext::new(&settings, &ledger, events, closed_parts, &link);
    lock(&context.assignment).insert(partition.clone());
    for (fetch_state, ended) in [("none", vec![]), ("active", vec![partition])] {
        let mut statistics = Statistics::default();
        let broker = statistics.brokers.entry("leader".to_owned()).or_default();
        (broker.nodeid, broker.state) = (1, "UP".to_owned());
        let topic = statistics.topics.entry(TOPIC.to_owned()).or_default();
        let told = topic.partitions.entry(0).or_default();
        (told.leader, told.fetch_state) = (1, fetch_state.to_owned());
        // All was fetched, by whoever had it before.
        (told.next_offset, told.ls_offset, told.hi_offset) = (7, 7, 7);
        context.take_statistics(&statistics);
        assert_eq!(lock(&context.news).ended_ranges, ended, "{fetch_state}");
    }
}
